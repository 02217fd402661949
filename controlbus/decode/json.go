package decode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// jsonTokens cuts JSON into tokens. It checks the grammar to the last byte, so
// that what is shown as JSON is JSON; of a cut body it accepts any beginning.
// Nothing is decoded and written again.
func jsonTokens(b []byte, lim Limits, partial bool) (*builder, error) {
	out := &builder{limit: lim.Values}
	type object struct {
		at   int
		kind byte
		keys map[string]bool
	}
	var open []object
	dup := 0
	wrong := func(at int, want string) (*builder, error) {
		return nil, fmt.Errorf("position %d: want %s", at+1, want)
	}
	after := func() byte {
		if len(open) == 0 {
			return 'e'
		}
		return ','
	}
	words := map[byte]string{'v': "a value", 'V': "a value or ]", 'k': "a key in quotes or }", 'K': "a key in quotes", ':': "a colon", 'e': "nothing more", ',': "a comma or the end of what is open"}
	expect := byte('v') // v value, V value or ], k key or }, K key, : colon, , comma or close, e end
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
				return wrong(i, words[expect])
			}
			o := object{at: out.add(tok{kind: c, text: string(c), end: -1}), kind: c}
			expect = 'V'
			if c == '{' {
				expect = 'k'
			}
			open = append(open, o)
			i++
		case '}', ']':
			if len(open) == 0 {
				return wrong(i, words[expect])
			}
			o := open[len(open)-1]
			if (o.kind == '{') != (c == '}') || expect != ',' && (c != '}' || expect != 'k') && (c != ']' || expect != 'V') {
				return wrong(i, words[expect])
			}
			open = open[:len(open)-1]
			if at := out.add(tok{kind: c, text: string(c), end: -1}); at >= 0 && o.at >= 0 {
				out.toks[o.at].end = at
			}
			expect = after()
			i++
		case ',':
			if expect != ',' {
				return wrong(i, words[expect])
			}
			out.add(tok{kind: c, text: ","})
			expect = 'v'
			if open[len(open)-1].kind == '{' {
				expect = 'K'
			}
			i++
		case ':':
			if expect != ':' {
				return wrong(i, words[expect])
			}
			out.add(tok{kind: c, text: ": "})
			expect = 'v'
			i++
		case '"':
			key := expect == 'k' || expect == 'K'
			if !key && !value {
				return wrong(i, words[expect])
			}
			n, bad := stringEnd(b[i:])
			if bad != "" {
				return wrong(i+n, bad)
			}
			if n < 0 {
				if !partial {
					return wrong(len(b), "the end of the string that begins at "+count(i+1))
				}
				n = len(b) - i
			}
			text := string(b[i : i+n])
			i += n
			if !key {
				out.add(tok{kind: '"', text: text, end: -1})
				expect = after()
				continue
			}
			out.add(tok{kind: 'k', text: text, end: -1})
			expect = ':'
			if o := &open[len(open)-1]; !out.full {
				name := strings.Trim(text, `"`)
				if strings.Contains(text, `\`) {
					_ = json.Unmarshal([]byte(text), &name) // a cut one keeps its text
				}
				if o.keys[name] {
					dup++
					if dup <= 3 {
						out.notes = append(out.notes, "the key "+short(text)+" stands twice in one object; both are shown")
					}
				}
				if o.keys == nil {
					o.keys = map[string]bool{}
				}
				o.keys[name] = true
			}
		default:
			if !value {
				return wrong(i, words[expect])
			}
			n := bytes.IndexAny(b[i:], " \t\r\n,]}:\"[{")
			if n < 0 {
				n = len(b) - i
			}
			text := string(b[i : i+n])
			kind, ok := jsonScalar(text)
			if !ok && (!partial || i+n < len(b) || !scalarBegins(text)) {
				return wrong(i, "a value, have "+short(text))
			}
			out.add(tok{kind: kind, text: text, end: -1})
			expect = after()
			i += n
		}
	}
	if !partial && (expect != 'e' || len(open) > 0) {
		return wrong(len(b), words[expect])
	}
	return out, nil
}

// stringEnd is the length of the JSON string at the start of b, -1 if it is
// open at the end, or the offset of what must not be in it.
func stringEnd(b []byte) (n int, want string) {
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1, ""
		case c < 0x20:
			return i, "no control character in a string"
		case c == '\\':
			i++
			if i >= len(b) {
				return -1, ""
			}
			if b[i] == 'u' {
				for k := 1; k <= 4; k++ {
					if i+k >= len(b) {
						return -1, ""
					}
					if !isHex(b[i+k]) {
						return i + k, `four hexadecimal digits after \u`
					}
				}
				i += 4
			} else if !strings.ContainsRune(`"\/bfnrt`, rune(b[i])) {
				return i, "an escape that JSON knows"
			}
		}
	}
	return -1, ""
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// jsonScalar tells numbers and literals from anything else.
func jsonScalar(s string) (byte, bool) {
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
	from := i
	zero := i < len(s) && s[i] == '0'
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

// scalarBegins says that s may go on to be a number or literal.
func scalarBegins(s string) bool {
	for _, w := range []string{"true", "false", "null"} {
		if strings.HasPrefix(w, s) {
			return true
		}
	}
	for _, more := range []string{"0", ".0", "e0"} {
		if _, ok := jsonScalar(s + more); ok {
			return true
		}
	}
	return false
}

// short cuts a text that is named in a sentence.
func short(s string) string {
	if len(s) <= 40 {
		return s
	}
	return strings.ToValidUTF8(s[:40], "") + "…"
}
