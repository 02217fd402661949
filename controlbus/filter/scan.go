package filter

import "strings"

// Limits of a filter. They are checked before or while reading, never after.
const (
	MaxLength = 4 << 10 // bytes of text
	MaxNodes  = 256     // conditions, connectives and values
	MaxDepth  = 32      // brackets and negations within one another
	maxSteps  = 16      // of a path into a body
)

// scanner reads the small parts of the language from the text. Its methods
// neither fail nor allocate: completion uses them on unfinished text too.
type scanner struct {
	text string
	pos  int
}

func isSpace(c byte) bool  { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == '$' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

func (s *scanner) space() {
	for s.pos < len(s.text) && isSpace(s.text[s.pos]) {
		s.pos++
	}
}

func (s *scanner) end() bool { return s.pos >= len(s.text) }

// peek is the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.end() {
		return 0
	}
	return s.text[s.pos]
}

// keyword reads word if it stands here, whole.
func (s *scanner) keyword(word string) bool {
	rest := s.text[s.pos:]
	if !strings.HasPrefix(rest, word) {
		return false
	}
	if len(rest) > len(word) {
		switch c := rest[len(word)]; {
		case isSpace(c), c == '(', c == ')', c == '"', c == '\'', c == '-':
		default:
			return false
		}
	}
	s.pos += len(word)
	return true
}

// phrase reads keywords with blanks between them, all or none.
func (s *scanner) phrase(words ...string) bool {
	start := s.pos
	for i, w := range words {
		if i > 0 {
			s.space()
		}
		if !s.keyword(w) {
			s.pos = start
			return false
		}
	}
	return true
}

// quoted reads a text in quotes, in which the quote is written twice. closed
// is false if the text ends before it does.
func (s *scanner) quoted() (text string, closed bool) {
	q := s.text[s.pos]
	start := s.pos + 1
	for i := start; i < len(s.text); i++ {
		if s.text[i] != q {
			continue
		}
		if i+1 < len(s.text) && s.text[i+1] == q {
			i++
			continue
		}
		s.pos = i + 1
		return strings.ReplaceAll(s.text[start:i], string([]byte{q, q}), string(q)), true
	}
	s.pos = len(s.text)
	return strings.ReplaceAll(s.text[start:], string([]byte{q, q}), string(q)), false
}

func isNameByte(c byte) bool {
	return isLetter(c) || isDigit(c) || c == '-' || c == '.' || c >= 0x80
}

// plainName says that a header's name needs no quotes.
func plainName(s string) bool {
	for i := range len(s) {
		if !isNameByte(s[i]) {
			return false
		}
	}
	return s != ""
}

// plainKey says that a key of a path needs no quotes.
func plainKey(s string) bool { return plainName(s) && !strings.Contains(s, ".") }

// name is a field as it is written.
type name struct {
	text     string // without what follows header. and body
	at, end  int
	header   bool
	path     []step // of body.…
	unclosed bool   // a quote or bracket is not
	bad      bool   // a path that cannot be
}

func (n name) source(text string) string { return text[n.at:n.end] }

// name reads a field's name. It is one only if an operator follows.
func (s *scanner) name() (n name, ok bool) {
	n.at = s.pos
	if s.end() || !isLetter(s.peek()) {
		return n, false
	}
	rest := s.text[s.pos:]
	switch {
	case strings.HasPrefix(rest, "header."):
		s.pos += len("header.")
		n.header = true
		if c := s.peek(); c == '"' || c == '\'' {
			var closed bool
			n.text, closed = s.quoted()
			n.unclosed = !closed
		} else {
			n.text = s.run(isNameByte)
		}
	case strings.HasPrefix(rest, "body.") || strings.HasPrefix(rest, "body["):
		s.pos += len("body")
		n.text = "body"
		s.path(&n)
	default:
		n.text = s.run(isNameByte)
	}
	n.end = s.pos
	return n, true
}

func (s *scanner) run(in func(byte) bool) string {
	start := s.pos
	for s.pos < len(s.text) && in(s.text[s.pos]) {
		s.pos++
	}
	return s.text[start:s.pos]
}

// path reads what follows body: .key, ."key" and [3].
func (s *scanner) path(n *name) {
	key := func(c byte) bool { return isNameByte(c) && c != '.' }
	for {
		switch s.peek() {
		case '.':
			s.pos++
			var k string
			if c := s.peek(); c == '"' || c == '\'' {
				var closed bool
				if k, closed = s.quoted(); !closed {
					n.unclosed = true
				}
			} else if k = s.run(key); k == "" {
				n.bad = true
			}
			n.path = append(n.path, step{key: k, index: -1})
		case '[':
			s.pos++
			digits := s.run(isDigit)
			i := 0
			for _, d := range []byte(digits) {
				i = min(i*10+int(d-'0'), 1<<30)
			}
			n.bad = n.bad || digits == "" || s.peek() != ']'
			if s.peek() == ']' {
				s.pos++
			} else {
				n.unclosed = true
			}
			n.path = append(n.path, step{index: i})
		default:
			return
		}
		if n.bad || n.unclosed {
			return
		}
	}
}

// operator reads what stands between a field and its value. After a colon a
// comparison may follow: size:>1mb.
func (s *scanner) operator() (o op, not, ok bool) {
	if s.peek() == ':' {
		s.pos++
		if o, n := sign(s.text[s.pos:]); n > 0 {
			s.pos += n
			return o, false, true
		}
		return opWild, false, true
	}
	start := s.pos
	s.space()
	if o, n := sign(s.text[s.pos:]); n > 0 {
		s.pos += n
		return o, false, true
	}
	if s.pos > start {
		not = s.phrase("NOT")
		if not {
			s.space()
		}
		switch {
		case s.keyword("IN"):
			return opIn, not, true
		case s.keyword("LIKE"):
			return opLike, not, true
		case s.keyword("BETWEEN"):
			return opBetween, not, true
		case !not && s.keyword("IS"):
			s.space()
			not = s.keyword("NOT")
			s.space()
			if s.keyword("NULL") {
				// IS NULL is the negation of presence.
				return opPresent, !not, true
			}
		}
	}
	s.pos = start
	return 0, false, false
}

// sign reads a comparison and tells its length.
func sign(s string) (o op, n int) {
	two := func(t string) bool { return strings.HasPrefix(s, t) }
	switch {
	case two("!=") || two("<>"):
		return opNe, 2
	case two("<="):
		return opLe, 2
	case two(">="):
		return opGe, 2
	case s == "":
		return 0, 0
	}
	switch s[0] {
	case '=':
		return opEq, 1
	case '<':
		return opLt, 1
	case '>':
		return opGt, 1
	case '~':
		return opMatch, 1
	}
	return 0, 0
}

// piece is a part of a value: as it is written, or in quotes.
type piece struct {
	text   string
	quoted bool
}

// value reads a value: pieces without a blank between them. In a list a comma
// ends it.
func (s *scanner) value(list bool) (pieces []piece, closed bool) {
	for !s.end() {
		c := s.peek()
		switch {
		case isSpace(c) || c == '(' || c == ')' || list && c == ',':
			return pieces, true
		case c == '"' || c == '\'' && (len(pieces) == 0 || pieces[len(pieces)-1].quoted || strings.HasSuffix(pieces[len(pieces)-1].text, "*")):
			text, closed := s.quoted()
			pieces = append(pieces, piece{text, true})
			if !closed {
				return pieces, false
			}
		default:
			start := s.pos
			for s.pos < len(s.text) {
				c := s.text[s.pos]
				if isSpace(c) || c == '(' || c == ')' || c == '"' || list && c == ',' || c == '\'' && s.pos > start && s.text[s.pos-1] == '*' {
					break
				}
				s.pos++
			}
			pieces = append(pieces, piece{s.text[start:s.pos], false})
		}
	}
	return pieces, true
}
