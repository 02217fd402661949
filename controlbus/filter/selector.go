package filter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Selector is the filter as a JMS message selector, for brokers that select by
// themselves. Notes say where the broker may see it otherwise than Match does.
// A condition that no selector can express is controlbus.ErrUnsupported and
// named.
func (f *Filter) Selector() (text string, notes []string, err error) {
	if f.Empty() {
		return "", nil, nil
	}
	s := selector{}
	text = s.node(f.root, false)
	if s.cannot != nil {
		return "", nil, fmt.Errorf("filter: %w: a selector cannot express %s", controlbus.ErrUnsupported, strings.Join(s.cannot, "; "))
	}
	return text, s.notes, nil
}

type selector struct {
	notes, cannot []string
}

func (s *selector) note(text string) {
	if !slices.Contains(s.notes, text) {
		s.notes = append(s.notes, text)
	}
}

func (s *selector) refuse(n *node, why string) string {
	var b strings.Builder
	n.print(&b, false)
	s.cannot = append(s.cannot, b.String()+" ("+why+")")
	return ""
}

// node writes a condition. In a selector the negation of a comparison with a
// missing property is unknown, and unknown selects nothing; below a NOT each
// comparison therefore says that the property is there.
func (s *selector) node(n *node, negated bool) string {
	switch n.op {
	case opAnd, opOr:
		list := make([]string, len(n.kids))
		for i, k := range n.kids {
			list[i] = s.node(k, negated)
		}
		return "(" + strings.Join(list, " "+n.op.String()+" ") + ")"
	case opNot:
		return "NOT " + s.node(n.kids[0], true)
	}
	name := n.field.jms
	switch {
	case n.field == headerField:
		if !selectorName(n.name) {
			return s.refuse(n, "the header's name is no identifier")
		}
		name = n.name
		if n.op != opPresent {
			s.note("the broker compares header " + n.name + " as the type its sender gave it; Signalbox compares its text")
		}
	case n.field.Name == "time":
		name = "JMSTimestamp"
		s.note("the broker's JMSTimestamp is the sender's clock in milliseconds")
	case n.onBody():
		return s.refuse(n, "selectors do not look into bodies")
	case name == "":
		return s.refuse(n, "selectors have no such field")
	}
	cond := s.compare(n, name)
	if negated && n.op != opPresent {
		cond = "(" + name + " IS NOT NULL AND " + cond + ")"
	}
	return cond
}

func selectorName(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLetter(c) && (i == 0 || !isDigit(c)) {
			return false
		}
	}
	switch up := strings.ToUpper(s); up {
	case "TRUE", "FALSE":
		return false
	default:
		return s != "" && !isKeyword(up)
	}
}

func (s *selector) compare(n *node, name string) string {
	sign := map[op]string{opEq: "=", opNe: "<>", opLt: "<", opLe: "<=", opGt: ">", opGe: ">="}
	switch n.op {
	case opPresent:
		return name + " IS NOT NULL"
	case opIn:
		list := make([]string, len(n.vals))
		texts := true
		for i := range n.vals {
			texts = texts && n.vals[i].kind == kindText
			list[i] = s.one(n, name, "=", &n.vals[i])
		}
		if !texts { // IN is for texts only
			return "(" + strings.Join(list, " OR ") + ")"
		}
		for i := range n.vals {
			list[i] = quote(n.vals[i].text, '\'')
		}
		return name + " IN (" + strings.Join(list, ", ") + ")"
	case opBetween:
		if n.vals[0].kind == kindText {
			return s.refuse(n, "selectors order numbers only")
		}
		return "(" + s.one(n, name, ">=", &n.vals[0]) + " AND " + s.one(n, name, "<=", &n.vals[1]) + ")"
	case opLike:
		out := name + " LIKE " + quote(n.vals[0].text, '\'')
		if e := n.vals[0].escape; e != "" {
			out += " ESCAPE " + quote(e, '\'')
		}
		return out
	case opWild:
		escape := strings.NewReplacer("!", "!!", "%", "!%", "_", "!_")
		parts := make([]string, len(n.vals[0].parts))
		for i, p := range n.vals[0].parts {
			parts[i] = escape.Replace(p)
		}
		return name + " LIKE " + quote(strings.Join(parts, "%"), '\'') + " ESCAPE '!'"
	case opMatch:
		return s.refuse(n, "selectors have no regular expressions")
	}
	if n.vals[0].kind == kindText && n.op != opEq && n.op != opNe {
		return s.refuse(n, "selectors order numbers only")
	}
	return s.one(n, name, sign[n.op], &n.vals[0])
}

func (s *selector) one(n *node, name, sign string, v *value) string {
	switch v.kind {
	case kindTime:
		// The broker has whole milliseconds m: m·10⁶ < t is m < ⌈t/10⁶⌉.
		ms, rest := v.int()/1e6, v.int()%1e6
		if rest < 0 {
			ms, rest = ms-1, rest+1e6
		}
		if rest != 0 {
			switch sign {
			case "=", "<>":
				return s.refuse(n, "selectors compare whole milliseconds")
			case "<", ">=":
				ms++
			}
		}
		return name + " " + sign + " " + strconv.FormatInt(ms, 10)
	case kindText:
		return name + " " + sign + " " + quote(v.text, '\'')
	case kindInt:
		if !v.num.fits() {
			return s.refuse(n, "selectors have 64-bit integers")
		}
	}
	return name + " " + sign + " " + n.literal(v)
}
