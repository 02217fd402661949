// Package decode turns a message's body into lines to read. It chooses a
// format by what the message says of itself and by what its bytes are, says
// what it chose and why, and never claims a format that the bytes do not have:
// JSON is shown as JSON only if all of it is JSON.
//
// Values are shown as they were written: numbers keep every digit, keys their
// order and their duplicates, strings their escapes. Bodies come from whoever
// can send a message, so everything is bounded (bytes, values, depth, lines),
// nothing is expanded, fetched or executed, and no parser here recurses.
//
// The package is pure. Text in its results is the body's own: whoever shows it
// must escape it and make control characters visible.
package decode

import (
	"bytes"
	"fmt"
	"mime"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Format is a way to show a body.
type Format string

// Formats.
const (
	JSON        Format = "json"
	XML         Format = "xml"
	MessagePack Format = "msgpack"
	CBOR        Format = "cbor"
	Text        Format = "text"
	Hex         Format = "hex"
)

// Formats lists all of them, in the order in which they are offered.
var Formats = []Format{JSON, XML, MessagePack, CBOR, Text, Hex}

// Name is a format's usual spelling.
func (f Format) Name() string {
	switch f {
	case JSON:
		return "JSON"
	case XML:
		return "XML"
	case MessagePack:
		return "MessagePack"
	case CBOR:
		return "CBOR"
	case Text:
		return "text"
	case Hex:
		return "hex"
	}
	return string(f)
}

// Parse reads a format's name and says whether it is one.
func Parse(s string) (Format, bool) { return Format(s), slices.Contains(Formats, Format(s)) }

// Limits bound what is shown. Past each of them stands "cut here".
type Limits struct {
	Bytes    int // of the body, and of what it unpacks to
	HexBytes int
	Values   int
	Depth    int
	Lines    int
}

// DefaultLimits suit a page.
func DefaultLimits() Limits {
	return Limits{Bytes: 256 << 10, HexBytes: 8 << 10, Values: 50_000, Depth: 64, Lines: 8000}
}

// Options are what is known about a body.
type Options struct {
	ContentType     string // as the message has it, with its parameters
	ContentEncoding string
	As              Format // asked for by the reader; empty: choose
	// Truncated says that the body was cut before it came here.
	Truncated bool
	// Masks are string values that redaction left in place of others. They are
	// marked; none where nothing was redacted.
	Masks  []string
	Limits Limits // zero: DefaultLimits
}

// Kind is what a part of a line is.
type Kind uint8

// Kinds. The text of Comment and Remark is not the body's: a Comment explains
// the value before it, a Remark says that something is missing.
const (
	Plain Kind = iota
	Key
	String
	Number
	Literal
	Bytes
	Masked
	Comment
	Remark
)

// Part is a piece of a line.
type Part struct {
	Kind Kind
	Text string
}

// Line is one line; Label is its number, or the offset of a hex line.
type Line struct {
	Label string
	Parts []Part
}

// Result is a body, decoded.
type Result struct {
	Format   Format
	Why      string // why this format: a clause, such as "its content type says so"
	Charset  string // of JSON, XML and text: "UTF-8"
	Unpacked string // "gzip", where the body was compressed
	Lines    []Line
	Notes    []string // what a reader must know: cuts, doubts, mistakes in the body
}

// Decode shows a body. It never fails: what cannot be read is shown as hex.
func Decode(body []byte, o Options) Result {
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits()
	}
	d := decoder{o: o}
	d.declared, d.charset, d.schema = declared(o.ContentType)
	if o.As == Hex { // always the bytes as they came
		d.r.Format, d.r.Why = Hex, "asked for"
		d.hex(body)
		return d.r
	}
	body = d.unpack(body)
	d.partial = d.o.Truncated
	if len(body) > o.Limits.Bytes {
		body, d.partial, d.short = body[:o.Limits.Bytes], true, true
	}
	d.text, d.r.Charset = d.decodeText(body)
	switch {
	case o.As != "":
		if err := d.as(o.As, body); err == nil {
			d.r.Why = "asked for"
			break
		} else {
			d.note("it does not read as " + o.As.Name() + ": " + err.Error())
		}
		d.fallback(body)
	default:
		d.choose(body)
	}
	if d.r.Format == Hex || d.r.Format == MessagePack || d.r.Format == CBOR {
		d.r.Charset = ""
	}
	return d.r
}

type decoder struct {
	o        Options
	r        Result
	declared Format
	charset  string
	schema   bool // the content type is one that only a schema or a program can read
	partial  bool // what is here is the beginning of something
	short    bool // because it is longer than the limit
	text     []byte
}

func (d *decoder) note(s string) { d.r.Notes = append(d.r.Notes, s) }

// choose takes the declared format where the bytes have it, else the one that
// the bytes have beyond doubt, else text, else hex.
func (d *decoder) choose(body []byte) {
	if d.declared != "" {
		err := d.as(d.declared, body)
		if err == nil {
			d.r.Why = "its content type says so"
			return
		}
		d.note("the content type says " + d.declared.Name() + ", but it does not read as that: " + err.Error())
	}
	if d.schema {
		d.hex(body)
		d.r.Why = "its content type needs a schema or a program to read it"
		return
	}
	first := bytes.TrimLeft(d.text[:min(len(d.text), 512)], " \t\r\n")
	if len(first) > 0 && d.declared != JSON && (first[0] == '{' || first[0] == '[') {
		if d.as(JSON, body) == nil {
			d.r.Why = "all of it reads as JSON"
			if d.partial {
				d.r.Why = "what is here reads as JSON"
			}
			return
		}
		if d.declared == "" {
			d.note("it begins like JSON and is not JSON")
		}
	}
	if len(first) > 1 && d.declared != XML && first[0] == '<' && (first[1] == '?' || first[1] == '!' || isNameStart(first[1])) {
		if d.as(XML, body) == nil {
			d.r.Why = "all of it reads as XML"
			if d.partial {
				d.r.Why = "what is here reads as XML"
			}
			return
		}
	}
	if readable(d.text) {
		d.fallback(body)
		return
	}
	// Both binary formats are guessed only for maps, or lists of maps, whose
	// keys are words: their first bytes differ, and chance makes no such thing.
	for _, f := range []Format{MessagePack, CBOR} {
		if f == d.declared {
			continue
		}
		var b *builder
		var err error
		if f == CBOR {
			b, err = cborTokens(body, d.o.Limits, d.partial)
		} else {
			b, err = msgpackTokens(body, d.o.Limits, d.partial)
		}
		if err == nil && (f == CBOR && bytes.HasPrefix(body, selfDescribed) || len(body) >= 6 && plausible(b.toks)) {
			d.r.Format, d.r.Why = f, "guessed: all of it reads as "+f.Name()
			d.lay(b)
			return
		}
	}
	d.fallback(body)
}

// fallback shows text as text and the rest as hex.
func (d *decoder) fallback(body []byte) {
	if readable(d.text) {
		d.r.Why = "it is text"
		_ = d.as(Text, body) // text always reads as text
		return
	}
	d.hex(body)
	d.r.Why = "it is not text, and no format is certain"
}

// as shows a body in one format, or says why it is not in it.
func (d *decoder) as(f Format, body []byte) error {
	var b *builder
	var err error
	switch f {
	case JSON:
		b, err = jsonTokens(d.text, d.o.Limits, d.partial)
	case MessagePack:
		b, err = msgpackTokens(body, d.o.Limits, d.partial)
	case CBOR:
		b, err = cborTokens(body, d.o.Limits, d.partial)
	case XML:
		var lines []Line
		var cut bool
		if lines, cut, err = xmlLines(d.text, d.o.Limits, d.partial); err == nil {
			d.r.Format, d.r.Lines = XML, lines
			if cut {
				d.cutNote(d.o.Limits.Lines, len(lines))
			}
		}
		if err == nil {
			d.invalidNote()
		}
		return err
	case Text:
		d.lines()
		return nil
	case Hex:
		d.hex(body)
		return nil
	default:
		return fmt.Errorf("no format %.20q", string(f))
	}
	if err != nil {
		return err
	}
	d.r.Format = f
	d.lay(b)
	if f == JSON {
		d.invalidNote()
	}
	return nil
}

// lay puts tokens on lines.
func (d *decoder) lay(b *builder) {
	for _, n := range b.notes {
		d.note(n)
	}
	if d.partial || b.full {
		b.toks = append(b.toks, tok{kind: '~', text: d.cutWords(b.full), end: -1})
	}
	var cut bool
	d.r.Lines, cut = layout(b.toks, d.o.Masks, d.o.Limits)
	if cut {
		d.cutNote(d.o.Limits.Lines, len(d.r.Lines))
	}
}

func (d *decoder) cutWords(values bool) string {
	switch {
	case values:
		return "cut here: the first " + count(d.o.Limits.Values) + " values are shown"
	case d.short:
		return "cut here: the first " + count(d.o.Limits.Bytes) + " bytes are shown"
	}
	return "cut here: the rest was not kept"
}

func (d *decoder) cutNote(most, have int) {
	if have >= most {
		d.note("the first " + count(most) + " lines are shown")
	}
}

func (d *decoder) invalidNote() {
	if d.r.Charset == "UTF-8" && !validText(d.text, d.partial) {
		d.note("some bytes are not UTF-8; they are shown as ⟨x…⟩")
	}
}

// lines shows plain text.
func (d *decoder) lines() {
	d.r.Format = Text
	d.r.Lines = nil
	rest := string(d.text)
	for n := 1; ; n++ {
		if n > d.o.Limits.Lines {
			d.note("the first " + count(d.o.Limits.Lines) + " lines are shown")
			d.r.Lines = append(d.r.Lines, Line{Parts: []Part{{Remark, "cut here"}}})
			return
		}
		line, after, more := strings.Cut(rest, "\n")
		d.r.Lines = append(d.r.Lines, Line{Label: strconv.Itoa(n), Parts: []Part{{Plain, strings.TrimSuffix(line, "\r")}}})
		if !more {
			break
		}
		rest = after
	}
	d.invalidNote()
	if d.partial {
		d.r.Lines = append(d.r.Lines, Line{Parts: []Part{{Remark, d.cutWords(false)}}})
	}
}

// hex shows bytes, sixteen a line, with what of them is ASCII.
func (d *decoder) hex(body []byte) {
	d.r.Format, d.r.Lines = Hex, nil
	cut := ""
	if len(body) > d.o.Limits.HexBytes {
		body, cut = body[:d.o.Limits.HexBytes], "cut here: the first "+count(d.o.Limits.HexBytes)+" bytes are shown"
	} else if d.o.Truncated {
		cut = "cut here: the rest was not kept"
	}
	const digits = "0123456789abcdef"
	for off := 0; off < len(body); off += 16 {
		row := body[off:min(off+16, len(body))]
		h := bytes.Repeat([]byte{' '}, 49)
		text := make([]byte, len(row))
		for i, c := range row {
			at := i * 3
			if i > 7 {
				at++
			}
			h[at], h[at+1] = digits[c>>4], digits[c&15]
			if text[i] = '.'; c >= 0x20 && c <= 0x7e {
				text[i] = c
			}
		}
		d.r.Lines = append(d.r.Lines, Line{Label: fmt.Sprintf("%06x", off), Parts: []Part{{Plain, string(h)}, {String, string(text)}}})
	}
	if cut != "" {
		d.r.Lines = append(d.r.Lines, Line{Parts: []Part{{Remark, cut}}})
	}
}

// declared reads a content type: the format it names, its charset, and whether
// it is of a kind that nobody can read without more knowledge.
func declared(contentType string) (f Format, charset string, schema bool) {
	if contentType == "" {
		return "", "", false
	}
	t, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t, _, _ = strings.Cut(contentType, ";")
		t = strings.ToLower(strings.TrimSpace(t))
	}
	charset = params["charset"]
	sub := t[strings.IndexByte(t, '/')+1:]
	is := func(names ...string) bool {
		for _, n := range names {
			if sub == n || strings.HasSuffix(sub, "+"+n) {
				return true
			}
		}
		return false
	}
	switch {
	case is("json"):
		return JSON, charset, false
	case is("xml"):
		return XML, charset, false
	case is("msgpack", "x-msgpack", "vnd.msgpack", "messagepack"):
		return MessagePack, charset, false
	case is("cbor", "cose"):
		return CBOR, charset, false
	case strings.HasPrefix(t, "text/"), is("x-www-form-urlencoded", "yaml", "x-yaml", "toml", "javascript", "sql", "x-ndjson", "ndjson", "jsonl", "json-seq", "csv"):
		return Text, charset, false
	case strings.HasPrefix(t, "image/"), strings.HasPrefix(t, "audio/"), strings.HasPrefix(t, "video/"), strings.HasPrefix(t, "font/"),
		is("protobuf", "x-protobuf", "vnd.google.protobuf", "grpc", "proto", "avro", "x-avro", "vnd.apache.avro", "avro-binary", "thrift", "x-thrift", "pdf", "zip", "x-java-serialized-object", "x-python-serialize", "vnd.apache.parquet", "wasm"):
		return "", charset, true
	}
	return "", charset, false
}

// readable says that text is text: UTF-8 (it has been converted to it) and free
// of control characters that no text has.
func readable(text []byte) bool {
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c < 0x20 && c != '\t' && c != '\n' && c != '\r' && c != '\f' && c != 0x1b || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return len(text)-i < utf8.UTFMax && !utf8.FullRune(text[i:])
		}
		i += n
	}
	return true
}

// validText is utf8.Valid for a text that may have been cut within a character.
func validText(text []byte, partial bool) bool {
	if partial {
		for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
			if tail := text[len(text)-n:]; utf8.RuneStart(tail[0]) {
				if !utf8.FullRune(tail) {
					text = text[:len(text)-n]
				}
				break
			}
		}
	}
	return utf8.Valid(text)
}

// word is a key that a person or program would choose.
var word = regexp.MustCompile(`^"[\p{L}_@$#][\p{L}\p{N}_@$#.:/ -]*"$`)

// plausible says that tokens are a map, or a list of maps, whose keys are
// printable words.
func plausible(toks []tok) bool {
	if len(toks) == 0 {
		return false
	}
	level := 1 // of the maps that are looked at
	if toks[0].kind == '[' {
		level = 2
	} else if toks[0].kind != '{' {
		return false
	}
	depth, keys := 0, 0
	for i, t := range toks {
		switch t.kind {
		case '{', '[', '(':
			if level == 2 && depth == 1 && t.kind != '{' {
				return false
			}
			depth++
			continue
		case '}', ']', ')':
			depth--
			continue
		case ',', ':', '#', '~':
			continue
		}
		if level == 2 && depth == 1 {
			return false
		}
		if depth == level && toks[i-1].kind != ':' && toks[i-1].kind != '(' { // where a key stands
			if t.kind != 'k' || !word.MatchString(t.text) {
				return false
			}
			keys++
		}
	}
	return keys > 0
}

// count writes a number with its thousands apart.
func count(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
