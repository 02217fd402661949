package decode

import (
	"slices"
	"strconv"
	"strings"
)

// tok is one token of JSON, or of a binary format written in JSON's manner,
// with the text to show.
type tok struct {
	// { [ ( and } ] ) open and close a map, a list, a tag; , and : separate; k is
	// a key, " a string, 0 a number, l a literal, b bytes; # is a remark of ours
	// on the value before it, p punctuation, ~ says that the rest is missing.
	kind byte
	text string
	end  int // of an opening token: index of its closing one, -1 where that is missing
	len  int // of an opening token: characters up to its end, written on one line
}

// builder collects the tokens of a binary format.
type builder struct {
	toks  []tok
	open  []frame
	limit int
	full  bool // the limit was reached: the rest is checked and not kept
	notes []string
}

// frame is an open map, list, tag or chunked string.
type frame struct {
	kind  byte // { [ ( or c for a string in chunks
	at    int  // index of its token
	left  uint64
	items uint64 // seen so far
	open  bool   // ends with a break, not by count
	tag   uint64
	major byte // of chunks
}

// mapFrame says that the next item is a key.
func (f *frame) key() bool { return f.kind == '{' && f.items%2 == 0 }

func (b *builder) top() *frame {
	if len(b.open) == 0 {
		return nil
	}
	return &b.open[len(b.open)-1]
}

// add keeps a token unless there are too many.
func (b *builder) add(t tok) int {
	if len(b.toks) >= b.limit*2 {
		b.full = true
	}
	if b.full {
		return -1
	}
	b.toks = append(b.toks, t)
	return len(b.toks) - 1
}

// before writes what separates an item from the one before it, and counts it.
func (b *builder) before() (isKey bool) {
	f := b.top()
	if f == nil {
		return false
	}
	isKey = f.key()
	switch {
	case f.kind == '{' && !isKey:
		b.add(tok{kind: ':', text: ": "})
	case f.items > 0 && f.kind == 'c':
		b.add(tok{kind: 'p', text: ", "})
	case f.items > 0 && f.kind != '(':
		b.add(tok{kind: ',', text: ","})
	}
	f.items++
	if !f.open {
		f.left--
	}
	return isKey
}

func (b *builder) scalar(kind byte, text string) {
	if b.before() && kind == '"' {
		kind = 'k'
	}
	b.add(tok{kind: kind, text: text, end: -1})
}

func (b *builder) remark(text string) { b.add(tok{kind: '#', text: " " + text, end: -1}) }

func (b *builder) begin(f frame, text string) {
	b.before()
	kind := f.kind
	if kind == 'c' {
		kind = '('
	}
	f.at = b.add(tok{kind: kind, text: text, end: -1})
	b.open = append(b.open, f)
}

func (b *builder) finish() frame {
	f := b.open[len(b.open)-1]
	b.open = b.open[:len(b.open)-1]
	closing := map[byte]byte{'{': '}', '[': ']', '(': ')', 'c': ')'}[f.kind]
	at := b.add(tok{kind: closing, text: string(closing), end: -1})
	if f.at >= 0 && at >= 0 {
		b.toks[f.at].end = at
	}
	return f
}

// oneLine is how long a line may be made by keeping a value on it: what a
// panel of a page shows without breaking.
const oneLine = 62

// widths measures from the back: what is between brackets is known before them.
func widths(toks []tok) {
	width := 0
	sums := make([]int, len(toks)+1)
	for i := len(toks) - 1; i >= 0; i-- {
		width += len(toks[i].text)
		if toks[i].kind == ',' {
			width++
		}
		sums[i] = width
	}
	for i := range toks {
		if e := toks[i].end; (toks[i].kind == '{' || toks[i].kind == '[') && e > 0 {
			toks[i].len = sums[i] - sums[e+1] + 2
		}
	}
}

var kinds = map[byte]Kind{'k': Key, '"': String, '0': Number, 'l': Literal, 'b': Bytes, '#': Comment, '~': Remark}

// layout puts tokens on lines: what is short stays together. It says whether
// it stopped at the limit of lines.
func layout(toks []tok, masks []string, lim Limits) (lines []Line, cut bool) {
	widths(toks)
	var cur []Part
	depth, flat := 0, -1 // flat: index of the bracket that ends a one-line value
	push := func() {
		if len(cur) == 0 {
			return
		}
		if depth > 0 {
			cur = append([]Part{{Plain, strings.Repeat("  ", min(depth, 40))}}, cur...)
		}
		lines = append(lines, Line{Label: strconv.Itoa(len(lines) + 1), Parts: cur})
		cur = nil
	}
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		if len(lines) >= lim.Lines {
			return append(lines, Line{Parts: []Part{{Remark, "cut here: the first " + count(lim.Lines) + " lines are shown"}}}), true
		}
		part := Part{kinds[t.kind], t.text}
		if t.kind == '"' && len(masks) > 0 && masked(t.text, masks) {
			part.Kind = Masked
		}
		if flat >= 0 { // within a value on one line
			switch {
			case t.kind == ',':
				part.Text = ", "
			case t.text == "{" && t.end != i+1:
				part.Text = "{ "
			case t.kind == '}' && toks[i-1].kind != '{':
				part.Text = " }"
			}
			if i == flat {
				flat = -1
			}
			cur = append(cur, part)
			continue
		}
		switch t.kind {
		case '{', '[':
			if t.end == i+1 || i > 0 && t.end > 0 && t.len+2*depth+width(cur) <= oneLine {
				flat = t.end
				if t.text == "{" && t.end > i+1 {
					part.Text = "{ "
				}
				cur = append(cur, part)
				continue
			}
			cur = append(cur, part)
			if depth >= lim.Depth {
				cur = append(cur, Part{Remark, " cut here: nested deeper than " + count(lim.Depth) + " levels "})
				if t.end < 0 {
					push()
					return lines, false
				}
				cur = append(cur, Part{Plain, toks[t.end].text})
				i = t.end
				continue
			}
			push()
			depth++
		case '}', ']':
			push()
			depth--
			cur = append(cur, part)
		case ',':
			cur = append(cur, part)
			push()
		case '~':
			push()
			depth = 0
			cur = append(cur, part)
			push()
		default:
			cur = append(cur, part)
		}
	}
	push()
	return lines, false
}

func width(parts []Part) (n int) {
	for _, p := range parts {
		n += len(p.Text)
	}
	return n
}

func masked(text string, masks []string) bool {
	return len(text) >= 2 && slices.Contains(masks, text[1:len(text)-1])
}
