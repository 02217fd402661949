package filter

import (
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// String is the filter in its canonical form: parsed again at the same time it
// gives the same filter. Times relative to now stay relative.
func (f *Filter) String() string {
	if f.Empty() {
		return ""
	}
	var b strings.Builder
	f.root.print(&b, false)
	return b.String()
}

// print writes a node; inner asks for brackets around and and or.
func (n *node) print(b *strings.Builder, inner bool) {
	switch n.op {
	case opAnd, opOr:
		if inner {
			b.WriteByte('(')
		}
		for i, k := range n.kids {
			if i > 0 {
				b.WriteString(" " + n.op.String() + " ")
			}
			k.print(b, n.op == opAnd)
		}
		if inner {
			b.WriteByte(')')
		}
		return
	case opNot:
		b.WriteString("NOT ")
		n.kids[0].print(b, true)
		return
	case opWord:
		b.WriteString(n.vals[0].printWord())
		return
	}
	b.WriteString(n.label())
	switch n.op {
	case opPresent:
		b.WriteString(":*")
		return
	case opWild:
		b.WriteString(":" + printParts(n.vals[0].parts))
		return
	case opIn:
		b.WriteString(" IN (")
		for i := range n.vals {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(n.literal(&n.vals[i]))
		}
		b.WriteByte(')')
		return
	case opBetween:
		b.WriteString(" BETWEEN " + n.literal(&n.vals[0]) + " AND " + n.literal(&n.vals[1]))
		return
	}
	b.WriteString(" " + n.op.String() + " " + n.literal(&n.vals[0]))
	if e := n.vals[0].escape; e != "" {
		b.WriteString(" ESCAPE " + quote(e, '\''))
	}
}

var (
	plainWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_]*$`)
	plainPart = regexp.MustCompile(`^[A-Za-z0-9_.\-/:@#\x{80}-\x{10ffff}]*$`)
)

func isKeyword(s string) bool {
	switch s {
	case "AND", "OR", "NOT", "IN", "LIKE", "BETWEEN", "IS", "NULL", "ESCAPE":
		return true
	}
	return false
}

func (v *value) printWord() string {
	switch parts := v.wordParts(); {
	case len(parts) > 1:
		return "body:" + printParts(parts)
	case plainWord.MatchString(v.text) && !isKeyword(v.text):
		return v.text
	}
	return quote(v.text, '"')
}

func (v *value) wordParts() []string {
	parts := []string{v.text}
	if v.open[0] {
		parts = append([]string{""}, parts...)
	}
	if v.open[1] {
		parts = append(parts, "")
	}
	return parts
}

// printParts writes what stands between stars.
func printParts(parts []string) string {
	out := make([]string, len(parts))
	for i, p := range parts {
		if out[i] = p; !plainPart.MatchString(p) {
			out[i] = quote(p, '"')
		}
	}
	return strings.Join(out, "*")
}

func quoteIfNeeded(s string) string { return printParts([]string{s}) }

// literal writes a value as the node's field reads it.
func (n *node) literal(v *value) string {
	switch n.field.Type {
	case Enum:
		if i := v.int() - n.field.base(); i >= 0 && int(i) < len(n.field.Values) {
			return n.field.Values[i]
		}
	case Bool:
		return strconv.FormatBool(v.int() != 0)
	case Size:
		if v.kind == kindInt && v.int() > 0 {
			if s := inUnits(v.int(), sizeUnits); isDigit(s[len(s)-2]) {
				return s[:len(s)-1] // plain bytes
			} else {
				return s
			}
		}
	case Duration:
		return inUnits(v.int(), durationUnits)
	}
	switch v.kind {
	case kindInt:
		return v.num.String()
	case kindFloat:
		s := strconv.FormatFloat(v.f, 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	case kindTime:
		if v.rel != "" {
			return v.rel
		}
		return time.Unix(0, v.int()).UTC().Format(time.RFC3339Nano)
	case kindID:
		return hex.EncodeToString([]byte(v.text))
	}
	return quote(v.text, '\'')
}

// Quote writes a value so that it is read as just that, whatever is in it:
// channel:+Quote(name). Text that is not UTF-8 cannot be written.
func Quote(s string) string {
	if s != "" && plainPart.MatchString(s) {
		return s
	}
	return quote(s, '"')
}
