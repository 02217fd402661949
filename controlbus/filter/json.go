package filter

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonBytes is how much of a body a path is looked for in: the decode budget.
const jsonBytes = 256 << 10

// jsonValue is what a path leads to.
type jsonValue struct {
	there bool   // something other than null
	plain bool   // a text, a number, true or false: it has a text to compare
	text  string // of a plain value: a string's content, else as written
}

// find follows a path into JSON text and stops there: what comes behind is not
// looked at, nor whether it is JSON. Of keys that repeat, the first counts. A
// byte order mark is passed over.
func find(s string, path []step) jsonValue {
	if len(s) > jsonBytes {
		s = s[:jsonBytes]
	}
	j := jsonReader{s: strings.TrimPrefix(s, "\ufeff")}
	for i := range path {
		if !j.into(&path[i]) {
			return jsonValue{}
		}
	}
	return j.value(len(s) == jsonBytes)
}

type jsonReader struct {
	s   string
	pos int
}

func (j *jsonReader) space() byte {
	for j.pos < len(j.s) {
		if c := j.s[j.pos]; !isSpace(c) {
			return c
		}
		j.pos++
	}
	return 0
}

// take reads c behind blanks.
func (j *jsonReader) take(c byte) bool {
	if j.space() != c || j.pos >= len(j.s) {
		return false
	}
	j.pos++
	return true
}

// into moves to the value of a key, or to an element.
func (j *jsonReader) into(st *step) bool {
	if st.index >= 0 {
		if !j.take('[') || j.space() == ']' {
			return false
		}
		for i := 0; i < st.index; i++ {
			if !j.skip() || !j.take(',') {
				return false
			}
		}
		return true
	}
	if !j.take('{') || j.space() == '}' {
		return false
	}
	for {
		if j.space() != '"' {
			return false
		}
		raw, escaped, ok := j.str()
		if !ok || !j.take(':') {
			return false
		}
		if raw == st.key && !escaped || escaped && unescape(raw) == st.key {
			return true
		}
		if !j.skip() || !j.take(',') {
			return false
		}
	}
}

// str reads a string; raw is what stands between its quotes.
func (j *jsonReader) str() (raw string, escaped, ok bool) {
	start := j.pos + 1
	at := start
	for {
		i := strings.IndexByte(j.s[at:], '"')
		if i < 0 {
			return "", false, false
		}
		// Escaped if an odd number of backslashes stands before the quote.
		end := at + i
		n := end
		for n > start && j.s[n-1] == '\\' {
			n--
		}
		if (end-n)%2 == 0 {
			j.pos = end + 1
			raw = j.s[start:end]
			return raw, strings.IndexByte(raw, '\\') >= 0, true
		}
		at = end + 1
	}
}

// skip passes over a value, however deep, without recursion.
func (j *jsonReader) skip() bool {
	depth := 0
	for {
		switch c := j.space(); c {
		case '"':
			if _, _, ok := j.str(); !ok {
				return false
			}
		case '{', '[':
			depth++
			j.pos++
		case '}', ']':
			if depth == 0 {
				return false
			}
			depth--
			j.pos++
		case ',', ':':
			if depth == 0 {
				return false
			}
			j.pos++
		default:
			if j.bare() == "" {
				return false
			}
		}
		if depth == 0 {
			return true
		}
	}
}

// bare reads a number or a name.
func (j *jsonReader) bare() string {
	start := j.pos
	for j.pos < len(j.s) {
		switch c := j.s[j.pos]; {
		case isSpace(c), c == ',', c == ':', c == ']', c == '}', c == '[', c == '{', c == '"':
			return j.s[start:j.pos]
		}
		j.pos++
	}
	return j.s[start:j.pos]
}

func (j *jsonReader) value(cut bool) jsonValue {
	switch j.space() {
	case 0:
		return jsonValue{}
	case '{', '[':
		return jsonValue{there: true}
	case '"':
		raw, escaped, ok := j.str()
		if !ok {
			return jsonValue{}
		}
		if escaped {
			raw = unescape(raw)
		}
		return jsonValue{there: true, plain: true, text: raw}
	}
	text := j.bare()
	// The budget may have cut a number in two.
	if j.pos >= len(j.s) && cut {
		return jsonValue{}
	}
	if text == "true" || text == "false" || isNumber(text) {
		return jsonValue{there: true, plain: true, text: text}
	}
	return jsonValue{} // null, or not JSON
}

// unescape decodes the escapes of a string. What is no escape stays.
func unescape(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'n':
			b.WriteByte('\n')
		case 'r':
			b.WriteByte('\r')
		case 't':
			b.WriteByte('\t')
		case 'u':
			r, ok := hex4(s[i+1:])
			if !ok {
				b.WriteString(`\u`)
				continue
			}
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(utf8.RuneError)
				if strings.HasPrefix(s[i+1:], `\u`) {
					if second, ok := hex4(s[i+3:]); ok {
						low = utf16.DecodeRune(r, second)
					}
				}
				if r = low; low != utf8.RuneError {
					i += 6
				}
			}
			b.WriteRune(r)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func hex4(s string) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	var r rune
	for i := range 4 {
		c := s[i]
		switch {
		case isDigit(c):
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
