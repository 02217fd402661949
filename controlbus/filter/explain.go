package filter

import (
	"strconv"
	"strings"
	"time"
)

// Explain says in one sentence what the filter selects. Control characters in
// values are shown as escapes.
func (f *Filter) Explain() string {
	if f.Empty() {
		return "everything"
	}
	return f.root.explain(true)
}

func (n *node) explain(top bool) string {
	switch n.op {
	case opAnd, opOr:
		list := make([]string, len(n.kids))
		for i, k := range n.kids {
			list[i] = k.explain(false)
		}
		if n.op == opAnd {
			if top {
				return strings.Join(list, ", and ")
			}
			return "(" + strings.Join(list, " and ") + ")"
		}
		s := strings.Join(list, " or ")
		if top {
			return s
		}
		return "(" + s + ")"
	case opNot:
		k := n.kids[0]
		if k.op <= opNot {
			return "not " + k.explain(false)
		}
		return k.says(false)
	}
	return n.says(true)
}

// says is one condition, or its negation.
func (n *node) says(yes bool) string {
	if n.op == opWord {
		return n.saysWord(yes)
	}
	what := n.label()
	switch n.field {
	case headerField:
		what = "header " + show(n.name)
	case bodyField:
		what = "the body"
	}
	if n.field.Type == Bool {
		return n.saysBool(what, (n.vals == nil || (n.vals[0].int() != 0) == (n.op == opEq)) == yes)
	}
	if n.op == opPresent {
		if yes {
			return "there is " + article(what) + what
		}
		return "there is no " + strings.TrimPrefix(what, "the ")
	}
	text := func(i int) string { return n.shown(&n.vals[i]) }
	var is, not string
	isTime := n.field.Type == Time
	switch n.op {
	case opEq:
		is, not = "is "+text(0), "is not "+text(0)
	case opNe:
		is, not = "is there and is not "+text(0), "is "+text(0)+" or is missing"
	case opLt:
		is = "is below " + text(0)
		if isTime {
			is = "is before " + text(0)
		}
	case opLe:
		is = "is at most " + text(0)
		if isTime {
			is = "is not after " + text(0)
		}
	case opGt:
		is = "is over " + text(0)
		if isTime {
			is = "is after " + text(0)
		}
	case opGe:
		is = "is at least " + text(0)
		if isTime {
			is = "is not before " + text(0)
		}
	case opIn:
		list := make([]string, len(n.vals))
		for i := range n.vals {
			list[i] = text(i)
		}
		all := list[0]
		if last := len(list) - 1; last > 0 {
			all = strings.Join(list[:last], ", ") + " or " + list[last]
		}
		is, not = "is "+all, "is none of "+strings.Join(list, ", ")
	case opBetween:
		is, not = "is from "+text(0)+" to "+text(1), "is not from "+text(0)+" to "+text(1)
	case opWild:
		is, not = "matches "+show(printParts(n.vals[0].parts)), "does not match "+show(printParts(n.vals[0].parts))
	case opLike:
		is, not = "is like "+show(n.vals[0].text), "is not like "+show(n.vals[0].text)
	case opMatch:
		is, not = "matches the expression "+show(n.vals[0].text), "does not match the expression "+show(n.vals[0].text)
	}
	switch {
	case yes:
		return what + " " + is
	case not != "":
		return what + " " + not
	}
	return "not: " + what + " " + is
}

func article(what string) string {
	switch {
	case strings.HasPrefix(what, "the ") || strings.HasPrefix(what, "body."):
		return ""
	case strings.ContainsRune("aeio", rune(what[0])):
		return "an "
	}
	return "a "
}

func (n *node) saysBool(what string, yes bool) string {
	if n.op == opPresent { // always there
		return strconv.FormatBool(yes)
	}
	switch {
	case what == "failed" && yes:
		return "it did not end well"
	case what == "failed":
		return "it ended well"
	case what == "truncated" && yes:
		return "the body was cut"
	case what == "truncated":
		return "the body was not cut"
	}
	return what + " is " + strconv.FormatBool(yes)
}

func (n *node) saysWord(yes bool) string {
	v := &n.vals[0]
	has := "the body has "
	if !yes {
		has = "the body does not have "
	}
	mark := "“" + escaped(v.text) + "”"
	switch {
	case v.open[0] && v.open[1]:
		return has + mark + " anywhere"
	case v.open[0]:
		return has + "a word ending in " + mark
	case v.open[1]:
		return has + "a word beginning with " + mark
	case newWord(v).single():
		return has + "the word " + mark
	}
	return has + mark
}

// shown is a value for a reader.
func (n *node) shown(v *value) string {
	if v.kind == kindTime {
		s := time.Unix(0, v.int()).UTC().Format("2006-01-02 15:04:05.999999999 UTC")
		if v.rel != "" {
			return v.rel + " (" + s + ")"
		}
		return s
	}
	if v.kind == kindText {
		return show(v.text)
	}
	return n.literal(v)
}

// show puts into quotes what would not be read as one name.
func show(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/:@#*") == "" {
		return s
	}
	return "“" + escaped(s) + "”"
}

// escaped replaces what cannot be seen.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRuneToASCII(r)
		b.WriteString(q[1 : len(q)-1])
	}
	return b.String()
}
