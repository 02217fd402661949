package filter

import (
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// patternBytes is how much of a text regular expressions and LIKE look at. It
// bounds what a filter can cost per message.
const patternBytes = 64 << 10

// matchParts says whether s is made of the parts in their order with anything
// between them. It is linear for any parts, so a hostile name cannot stall it.
func matchParts(parts []string, s string) bool {
	if len(parts) == 1 {
		return s == parts[0]
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	last := len(parts) - 1
	for _, p := range parts[1:last] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, parts[last])
}

// pattern is a regular expression as Go and as the store take it.
type pattern struct {
	source string // as it was written
	re     *regexp.Regexp
	// parts are set where no expression is needed: matchParts does.
	parts []string
}

func (p *pattern) match(s string) bool {
	if len(s) > patternBytes {
		s = s[:patternBytes]
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if p.parts != nil {
		return matchParts(p.parts, s)
	}
	return p.re.MatchString(s)
}

// sql is the expression for the store. Go writes it so that no flag of the
// reader's decides what a dot is.
func (p *pattern) sql() string { return p.re.String() }

const (
	maxInstructions = 400      // of a compiled expression
	maxRanges       = 4000     // of characters in it
	maxExpressions  = 64 << 10 // bytes of all of them, written out
)

// charge bounds what the expressions of a filter come to together: one letter
// of a class may stand for thousands.
func (p *parser) charge(re *regexp.Regexp, at, end int) error {
	if p.expressions += len(re.String()); p.expressions > maxExpressions {
		return p.fail(at, end, "", "the filter's expressions are too big together")
	}
	return nil
}

// regexp reads a regular expression in RE2 syntax.
func (p *parser) regexp(source string, at, end int) (value, error) {
	if source == "" {
		return value{}, p.fail(at, end, "", "an empty expression says nothing")
	}
	re, err := safeExpression(source)
	if err != nil {
		return value{}, p.fail(at, end, "", "regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return value{kind: kindRegexp, text: source, re: &pattern{source: source, re: re}}, p.charge(re, at, end)
}

type tooBig struct{}

func (tooBig) Error() string { return "it is too big; shorten it or its repetitions" }

// safeExpression compiles what costs little per byte, in Go and in the store.
func safeExpression(source string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, err
	}
	// The tree's own text has no shorthand that two implementations could
	// read differently.
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, err
	}
	ranges := 0
	for i := range prog.Inst {
		ranges += len(prog.Inst[i].Rune) / 2
	}
	if len(prog.Inst) > maxInstructions || ranges > maxRanges {
		return nil, tooBig{}
	}
	return regexp.Compile(tree.String())
}

// like reads a pattern of SQL: % stands for anything, _ for one character.
func (p *parser) like(c *node, source, escape string, at, end int) (value, error) {
	v := value{kind: kindLike, text: source, escape: escape}
	var b strings.Builder
	b.WriteString(`^(?s:`)
	parts := []string{""}
	single := strings.ContainsRune(source, utf8.RuneError)
	for rest := source; rest != ""; {
		r, n := utf8.DecodeRuneInString(rest)
		ch := rest[:n]
		rest = rest[n:]
		switch {
		case escape != "" && ch == escape:
			if rest == "" || rest[0] != '%' && rest[0] != '_' && rest[:1] != escape {
				return v, p.fail(at, end, "", "behind %s stands %%, _ or %s", escape, escape)
			}
			b.WriteString(regexp.QuoteMeta(rest[:1]))
			parts[len(parts)-1] += rest[:1]
			rest = rest[1:]
		case r == '%':
			b.WriteString(".*")
			parts = append(parts, "")
		case r == '_':
			b.WriteString(".")
			single = true
		default:
			b.WriteString(regexp.QuoteMeta(ch))
			parts[len(parts)-1] += ch
		}
	}
	b.WriteString(`)$`)
	re, err := safeExpression(b.String())
	if err != nil {
		return v, p.fail(at, end, "", "pattern: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	v.re = &pattern{source: source, re: re}
	if !single {
		v.re.parts = parts
	}
	return v, p.charge(re, at, end)
}

// word looks for a text in bodies, case-insensitively for ASCII letters, and
// as a whole word: neither side may go on with a letter, a digit or a byte
// that is not ASCII, where the text itself ends in one of these.
type word struct {
	lower       string
	rare        int // the byte looked for first
	lo, up      byte
	left, right bool // the word must begin, end here
}

// maxWord bounds what comparing costs where body and word are built to be
// nearly alike.
const maxWord = 512

// tokenByte says that c belongs to a word. It is what ClickHouse's token
// functions and its text index take for one.
func tokenByte(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80 }

func lowerASCII(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] |= 0x20
				}
			}
			return string(b)
		}
	}
	return s
}

func newWord(v *value) *word {
	w := &word{lower: lowerASCII(v.text)}
	w.left = !v.open[0] && tokenByte(w.lower[0])
	w.right = !v.open[1] && tokenByte(w.lower[len(w.lower)-1])
	best := 0
	for i := range len(w.lower) {
		if r := rarity(w.lower[i]); r > best {
			best, w.rare = r, i
		}
	}
	w.lo = w.lower[w.rare]
	w.up = w.lo
	if w.lo >= 'a' && w.lo <= 'z' {
		w.up = w.lo &^ 0x20
	}
	return w
}

// rarity ranks bytes by how seldom they stand in text and JSON.
func rarity(c byte) int {
	const common = "etaoinsrhldcumfpgwybvkxjqz" // the most common first
	if i := strings.IndexByte(common, c); i >= 0 {
		return 2 + i
	}
	switch {
	case c == ' ' || c == '"':
		return 1
	case isDigit(c):
		return 8
	case c == ',' || c == ':':
		return 4
	}
	return 40
}

func (w *word) in(s string) bool {
	lo, up := -1, -1 // where these stand next
	for at := w.rare; ; {
		if at >= len(s) {
			return false
		}
		if lo < at {
			lo = indexFrom(s, at, w.lo)
		}
		if w.up != w.lo && up < at {
			up = indexFrom(s, at, w.up)
		} else if w.up == w.lo {
			up = len(s)
		}
		hit := min(lo, up)
		start := hit - w.rare
		if start+len(w.lower) > len(s) {
			return false
		}
		if w.here(s, start) {
			return true
		}
		at = hit + 1
	}
}

func indexFrom(s string, at int, c byte) int {
	if i := strings.IndexByte(s[at:], c); i >= 0 {
		return at + i
	}
	return len(s)
}

func (w *word) here(s string, start int) bool {
	end := start + len(w.lower)
	if w.left && start > 0 && tokenByte(s[start-1]) || w.right && end < len(s) && tokenByte(s[end]) {
		return false
	}
	for i := range len(w.lower) {
		c := s[start+i]
		if c != w.lower[i] && (c < 'A' || c > 'Z' || c|0x20 != w.lower[i]) {
			return false
		}
	}
	return true
}

// single says that the word is one token, whole.
func (w *word) single() bool {
	if !w.left || !w.right {
		return false
	}
	for i := range len(w.lower) {
		if !tokenByte(w.lower[i]) {
			return false
		}
	}
	return true
}

// sql is an expression that finds the word in bytes of any kind.
func (w *word) sql() string {
	const separator = `[\x00-/:-@\[-` + "`" + `{-\x7f]`
	var b strings.Builder
	if w.left {
		b.WriteString(`(?:^|` + separator + `)`)
	}
	for i := 0; i < len(w.lower); {
		_, n := utf8.DecodeRuneInString(w.lower[i:])
		if c := w.lower[i]; c >= 'a' && c <= 'z' {
			b.WriteString(`[` + string(c&^0x20) + string(c) + `]`)
		} else {
			b.WriteString(regexp.QuoteMeta(w.lower[i : i+n]))
		}
		i += n
	}
	if w.right {
		b.WriteString(`(?:$|` + separator + `)`)
	}
	return b.String()
}

// wildSQL is an expression for parts with anything between them, bytes that
// are no characters included.
func wildSQL(parts []string) string {
	var b strings.Builder
	b.WriteString(`^`)
	for i, p := range parts {
		if i > 0 {
			b.WriteString(`\C*`)
		}
		b.WriteString(regexp.QuoteMeta(p))
	}
	b.WriteString(`$`)
	return b.String()
}

// Wildcard is the RE2 expression for a pattern as controlbus.MatchPattern has
// it, bytes that are no characters included: LIKE does not match those.
func Wildcard(pattern string) string { return wildSQL(strings.Split(pattern, "*")) }
