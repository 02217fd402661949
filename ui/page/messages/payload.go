package messages

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/ui/component"
)

// Payload is a body as lines to show.
type Payload struct {
	Kind  string // JSON, text, binary, empty
	Lines []Line
	Hex   bool
	Note  string
}

// Line is one line; Label is its number or offset.
type Line struct {
	Label string
	Parts []Part
}

// Part is a piece of a line in one colour.
type Part struct{ Class, Text string }

const (
	maxShown    = 256 << 10 // bytes shown formatted or raw; the rest is in the download
	maxHexShown = 8 << 10
	maxLines    = 8000
	oneLine     = 64 // JSON values up to here stay on one line
)

// Format shows a body. Numbers, strings and the order of keys are those of the
// body itself: JSON is cut into tokens, never decoded and written again.
func Format(body []byte, truncated, redacted bool, mode string) Payload {
	if len(body) == 0 {
		return Payload{Kind: "empty", Note: "there is no body to show"}
	}
	if mode == "hex" {
		return hexDump(body)
	}
	shown := body
	note := ""
	if len(shown) > maxShown {
		shown, note = shown[:maxShown], "the first "+component.Size(maxShown)+" are shown; download for the rest"
	}
	first := bytes.TrimLeft(body[:min(len(body), 64)], " \t\r\n")
	if mode != "raw" && len(first) > 0 && (first[0] == '{' || first[0] == '[') {
		if toks, ok := tokens(shown, truncated || note != ""); ok {
			p := Payload{Kind: "JSON", Lines: layout(toks, redacted), Note: note}
			if len(p.Lines) >= maxLines {
				p.Note = fmt.Sprintf("the first %d lines are shown; download for the rest", maxLines)
			}
			return p
		}
		note = joinNonEmpty("; ", "looks like JSON and is not valid, so it is shown as text", note)
	}
	if mode != "raw" && !utf8.Valid(shown) && note == "" {
		p := hexDump(body)
		p.Note = joinNonEmpty("; ", "not text, so it is shown as hex", p.Note)
		return p
	}
	p := Payload{Kind: "text", Note: note}
	for i, l := range strings.Split(string(shown), "\n") {
		if i == maxLines {
			p.Note = fmt.Sprintf("the first %d lines are shown; download for the rest", maxLines)
			break
		}
		p.Lines = append(p.Lines, Line{Label: fmt.Sprint(i + 1), Parts: []Part{{"", component.VisibleText(strings.TrimSuffix(l, "\r"))}}})
	}
	return p
}

func hexDump(body []byte) Payload {
	p := Payload{Kind: "binary", Hex: true}
	if len(body) > maxHexShown {
		body, p.Note = body[:maxHexShown], "the first "+component.Size(maxHexShown)+" are shown; download for the rest"
	}
	for off := 0; off < len(body); off += 16 {
		row := body[off:min(off+16, len(body))]
		h := hex.EncodeToString(row)
		var b strings.Builder
		for i := 0; i < 32; i += 2 {
			if i < len(h) {
				b.WriteString(h[i : i+2])
			} else {
				b.WriteString("  ")
			}
			b.WriteByte(' ')
			if i == 14 {
				b.WriteByte(' ')
			}
		}
		text := make([]byte, len(row))
		for i, c := range row {
			if text[i] = '.'; c >= 0x20 && c <= 0x7e {
				text[i] = c
			}
		}
		p.Lines = append(p.Lines, Line{Label: fmt.Sprintf("%06x", off), Parts: []Part{{"", b.String()}, {"str", string(text)}}})
	}
	return p
}

// line writes a line's parts without the blanks that a template would put
// between elements: in a payload every blank counts.
func line(l Line) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		var b strings.Builder
		for _, p := range l.Parts {
			if p.Class == "" {
				b.WriteString(templ.EscapeString(p.Text))
				continue
			}
			b.WriteString(`<span class="` + templ.EscapeString(p.Class) + `">` + templ.EscapeString(p.Text) + `</span>`)
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}

// excerpt writes a row's piece of body, again without added blanks.
func excerpt(r Row) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		text := templ.EscapeString(r.Before)
		if r.Hit != "" {
			text += "<mark>" + templ.EscapeString(r.Hit) + "</mark>"
		}
		_, err := io.WriteString(w, text+templ.EscapeString(r.After))
		return err
	})
}

// tok is a JSON token with its own text. end is, for an opening bracket, the
// index of the closing one, -1 where the body was cut before it.
type tok struct {
	kind byte // { } [ ] : , " for strings, k for keys, 0 for numbers, l for literals
	text string
	end  int
	len  int // of an opening bracket: characters up to its close, written on one line
}

// tokens cuts JSON into tokens. It checks the grammar, so that what is shown as
// JSON is JSON; of a cut body it accepts any beginning. It does not recurse:
// hostile nesting costs memory in proportion to the body, no stack.
func tokens(b []byte, partial bool) ([]tok, bool) {
	var out []tok
	var open []int
	expect := byte('v') // v value, k key or }, K key, : colon, , comma or close, e end, V value or ]
	for i := 0; i < len(b); {
		c := b[i]
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			i++
			continue
		}
		value := expect == 'v' || expect == 'V'
		switch c {
		case '{', '[':
			if !value {
				return nil, false
			}
			open = append(open, len(out))
			out = append(out, tok{kind: c, text: string(c), end: -1})
			expect = map[byte]byte{'{': 'k', '[': 'V'}[c]
			i++
		case '}', ']':
			if len(open) == 0 {
				return nil, false
			}
			at := open[len(open)-1]
			if out[at].kind != map[byte]byte{'}': '{', ']': '['}[c] || expect != ',' && (c != '}' || expect != 'k') && (c != ']' || expect != 'V') {
				return nil, false
			}
			open = open[:len(open)-1]
			out[at].end = len(out)
			out = append(out, tok{kind: c, text: string(c)})
			expect = after(open)
			i++
		case ',':
			if expect != ',' {
				return nil, false
			}
			out = append(out, tok{kind: c, text: ","})
			expect = 'v'
			if out[open[len(open)-1]].kind == '{' {
				expect = 'K'
			}
			i++
		case ':':
			if expect != ':' {
				return nil, false
			}
			out = append(out, tok{kind: c, text: ": "})
			expect = 'v'
			i++
		case '"':
			n := stringEnd(b[i:])
			if n < 0 {
				if !partial {
					return nil, false
				}
				n = len(b) - i
			}
			text := string(b[i : i+n])
			switch {
			case expect == 'k' || expect == 'K':
				out = append(out, tok{kind: 'k', text: text})
				expect = ':'
			case value:
				out = append(out, tok{kind: '"', text: text})
				expect = after(open)
			default:
				return nil, false
			}
			i += n
		default:
			if !value {
				return nil, false
			}
			n := bytes.IndexAny(b[i:], " \t\r\n,]}:\"[{")
			if n < 0 {
				n = len(b) - i
			}
			text := string(b[i : i+n])
			kind, ok := scalar(text)
			if !ok && (!partial || i+n < len(b)) || n == 0 {
				return nil, false
			}
			out = append(out, tok{kind: kind, text: text})
			expect = after(open)
			i += n
		}
	}
	if !partial && (expect != 'e' || len(open) > 0) {
		return nil, false
	}
	// Widths from the back: what is between brackets is known before them.
	width := 0
	widths := make([]int, len(out)+1)
	for i := len(out) - 1; i >= 0; i-- {
		width += len(out[i].text)
		if out[i].kind == ',' {
			width++
		}
		widths[i] = width
	}
	for i := range out {
		if e := out[i].end; (out[i].kind == '{' || out[i].kind == '[') && e > 0 {
			out[i].len = widths[i] - widths[e+1] + 2
		}
	}
	return out, true
}

func after(open []int) byte {
	if len(open) == 0 {
		return 'e'
	}
	return ','
}

// stringEnd is the length of the JSON string at the start of b, -1 if open.
func stringEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// scalar tells numbers and literals from anything else.
func scalar(s string) (byte, bool) {
	if s == "true" || s == "false" || s == "null" {
		return 'l', true
	}
	i := 0
	run := func() bool {
		start := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i > start
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	zero := i < len(s) && s[i] == '0'
	from := i
	if !run() || zero && i > from+1 {
		return '0', false
	}
	if i < len(s) && s[i] == '.' {
		i++
		if !run() {
			return '0', false
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !run() {
			return '0', false
		}
	}
	return '0', i == len(s)
}

// masks are what redaction leaves in place of a value.
var masks = []string{`"***"`, `"[redacted]"`, `"[masked]"`, `"REDACTED"`, `"<redacted>"`}

var classes = map[byte]string{'k': "k", '"': "str", '0': "n", 'l': "lit"}

// layout puts tokens on lines: what is short stays together.
func layout(toks []tok, redacted bool) []Line {
	var lines []Line
	var cur []Part
	depth, flat := 0, -1 // flat: index of the bracket that ends a one-line value
	push := func() {
		if len(cur) == 0 {
			return
		}
		pad := Part{"", strings.Repeat("  ", min(depth, 40))}
		lines = append(lines, Line{Label: fmt.Sprint(len(lines) + 1), Parts: append([]Part{pad}, cur...)})
		cur = nil
	}
	for i, t := range toks {
		if len(lines) >= maxLines {
			return lines
		}
		part := Part{classes[t.kind], component.Visible(t.text)}
		if redacted && t.kind == '"' && slices.Contains(masks, t.text) {
			part = Part{"masked", "masked at the agent"}
		}
		if flat >= 0 { // within a value on one line
			switch {
			case t.kind == ',':
				part.Text = ", "
			case i == flat:
				if toks[i-1].kind != '{' && toks[i-1].kind != '[' && t.kind == '}' {
					part.Text = " }"
				}
				flat = -1
			case t.kind == '{' && toks[i+1].kind != '}':
				part.Text = "{ "
			case t.kind == '}' && toks[i-1].kind != '{':
				part.Text = " }"
			}
			cur = append(cur, part)
			continue
		}
		switch t.kind {
		case '{', '[':
			if t.end == i+1 || i > 0 && t.end > 0 && t.len <= oneLine {
				flat = t.end
				if t.kind == '{' && t.end > i+1 {
					part.Text = "{ "
				}
				cur = append(cur, part)
				continue
			}
			cur = append(cur, part)
			push()
			depth++
		case '}', ']':
			push()
			depth--
			cur = append(cur, part)
		case ',':
			cur = append(cur, part)
			push()
		default:
			cur = append(cur, part)
		}
	}
	push()
	return lines
}
