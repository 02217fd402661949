package decode

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// entity finds the names of entities that a document refers to.
var entity = regexp.MustCompile(`&([A-Za-z_:][A-Za-z0-9_.:-]{0,99});`)

// maxEntities bounds how many entities of its own a document may name.
const maxEntities = 1000

// xmlLines indents XML. Every tag, text, comment and entity stands in it as it
// was written: the parser only says where one piece ends and the next begins.
// Nothing is expanded, nothing is fetched: entities are names here.
func xmlLines(b []byte, lim Limits, partial bool) (lines []Line, cut bool, err error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Entity = map[string]string{}
	for _, m := range entity.FindAllSubmatch(b, maxEntities) {
		d.Entity[string(m[1])] = "?"
	}
	// The text is UTF-8 already, whatever its declaration says.
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }

	var open []string
	var cur []Part
	depth, roots, values := 0, 0, 0
	deep := false // "cut here" for depth has been written
	indent := 0   // of cur
	push := func() {
		if len(cur) == 0 {
			return
		}
		if indent > 0 {
			cur = append([]Part{{Plain, strings.Repeat("  ", min(indent, 40))}}, cur...)
		}
		lines = append(lines, Line{Label: strconv.Itoa(len(lines) + 1), Parts: cur})
		cur = nil
	}
	began := false // cur holds a start tag whose text or end may follow on the line
	for {
		from := int(d.InputOffset())
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if partial && atEnd(err) {
				break
			}
			var s *xml.SyntaxError
			if errors.As(err, &s) {
				return nil, false, fmt.Errorf("line %d: %s", s.Line, s.Msg)
			}
			return nil, false, err
		}
		raw := string(b[from:d.InputOffset()])
		full := len(lines) >= lim.Lines || values >= lim.Values
		if full && !cut {
			cut = true
			lines = append(lines, Line{Parts: []Part{{Remark, "cut here: the first " + count(len(lines)) + " lines are shown"}}})
		}
		values++
		switch t := t.(type) {
		case xml.StartElement:
			if len(open) == 0 {
				if roots++; roots > 1 {
					return nil, false, errors.New("there is a second root element")
				}
			}
			open = append(open, rawName(t.Name))
			selfClosed := strings.HasSuffix(raw, "/>")
			if cut {
				break
			}
			push()
			indent, began = depth, true
			switch {
			case depth < lim.Depth:
				cur = append(cur, tagParts(raw)...)
			case !deep:
				deep = true
				cur = append(cur, Part{Remark, "cut here: nested deeper than " + count(lim.Depth) + " levels"})
			}
			if selfClosed {
				push()
				began = false
			}
			depth++
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != rawName(t.Name) {
				return nil, false, fmt.Errorf("</%s> closes nothing that is open", short(rawName(t.Name)))
			}
			open = open[:len(open)-1]
			if cut {
				break
			}
			depth--
			if depth < lim.Depth {
				deep = false
			}
			if raw == "" { // of <a/>
				break
			}
			if !began {
				push()
				indent = depth
			}
			if depth < lim.Depth {
				cur = append(cur, tagParts(raw)...)
			}
			push()
			began = false
		case xml.CharData:
			if len(open) == 0 && strings.TrimSpace(raw) != "" {
				return nil, false, errors.New("there is text outside the root element")
			}
			if cut || depth > lim.Depth || strings.TrimSpace(raw) == "" {
				break
			}
			kind := String
			if strings.HasPrefix(raw, "<![CDATA[") {
				kind = Literal
			}
			if one := strings.TrimSpace(raw); !strings.Contains(one, "\n") && began {
				cur = append(cur, Part{kind, one})
				break
			}
			push()
			began, indent = false, depth
			for l := range strings.Lines(strings.Trim(raw, "\r\n")) {
				cur = append(cur, Part{kind, strings.TrimRight(strings.TrimLeft(l, " \t"), "\r\n")})
				push()
			}
		case xml.Comment, xml.ProcInst, xml.Directive:
			if cut {
				break
			}
			push()
			began, indent = false, depth
			for l := range strings.Lines(raw) {
				cur = append(cur, Part{Literal, strings.TrimRight(l, "\r\n")})
				push()
			}
		}
	}
	if !partial && (len(open) > 0 || roots == 0) {
		if roots == 0 {
			return nil, false, errors.New("there is no element")
		}
		return nil, false, fmt.Errorf("<%s> is not closed", short(open[len(open)-1]))
	}
	if roots == 0 {
		return nil, false, errors.New("there is no element")
	}
	push()
	if partial && !cut {
		lines = append(lines, Line{Parts: []Part{{Remark, "cut here: the rest is not shown"}}})
	}
	return lines, cut, nil
}

// atEnd says that a document broke off, and is not wrong.
func atEnd(err error) bool {
	var s *xml.SyntaxError
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &s) && strings.Contains(s.Msg, "EOF")
}

func rawName(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

func isNameStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == ':' || c >= 0x80
}

// tagParts colours a tag: its name, and the values of its attributes. Line
// breaks within it become blanks.
func tagParts(raw string) []Part {
	raw = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ").Replace(raw)
	end := strings.IndexAny(raw, " \t/>")
	if strings.HasPrefix(raw, "</") {
		end = len(raw)
	}
	if end <= 0 {
		end = len(raw)
	}
	parts := []Part{{Key, raw[:end]}}
	rest := raw[end:]
	for rest != "" {
		q := strings.IndexAny(rest, `"'`)
		if q < 0 {
			break
		}
		n := strings.IndexByte(rest[q+1:], rest[q])
		if n < 0 {
			break
		}
		parts = append(parts, Part{Plain, rest[:q]}, Part{String, rest[q : q+n+2]})
		rest = rest[q+n+2:]
	}
	if rest != "" {
		parts = append(parts, Part{Key, rest})
	}
	return parts
}
