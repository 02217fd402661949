package filter

import (
	"slices"
	"strings"
)

// Completion is what can be put in at a place of a filter.
type Completion struct {
	// Start and End are what an item replaces, in bytes of the text.
	Start, End int
	Items      []Item
	// Field is set when the caller should look up values of that field which
	// begin with Prefix, and offer them behind the items, each written by
	// Quote. For "header." they are names of headers, offered as
	// header.<name>:.
	Field, Prefix string
}

// Item is one proposal.
type Item struct {
	Text   string // to be put in
	Kind   string // field, operator, keyword or value
	Doc    string
	Sample string // how it may go on
}

// Complete says what can stand at the cursor, a byte offset, of an unfinished
// filter. The best items come first.
func Complete(text string, cursor int) Completion {
	cursor = min(max(cursor, 0), len(text), MaxLength)
	c := completer{scanner: scanner{text: text[:cursor]}}
	out := c.run()
	out.End = cursor
	if !c.quotedPart { // the rest of the token goes too
		for out.End < len(text) && !isSpace(text[out.End]) && !strings.ContainsRune("(),:=<>!~\"'", rune(text[out.End])) {
			out.End++
		}
	}
	return out
}

type completer struct {
	scanner
	after      bool   // a condition stands before: connectives may follow
	field      *Field // a field's name stands before, without an operator
	quotedPart bool   // the cursor is in quotes
}

func (c *completer) run() Completion {
	for {
		c.space()
		at := c.pos
		if c.end() {
			return c.term(at)
		}
		switch ch := c.peek(); {
		case ch == '(':
			c.pos++
			c.after, c.field = false, nil
			continue
		case ch == ')':
			c.pos++
			c.after, c.field = true, nil
			continue
		case ch == '-' && c.pos+1 < len(c.text):
			c.pos++
			c.after = false
			continue
		case ch == '"' || ch == '\'':
			if _, closed := c.quoted(); !closed {
				return Completion{Start: at}
			}
			c.after, c.field = true, nil
			continue
		}
		if c.keyword("AND") || c.keyword("OR") || c.keyword("NOT") {
			if c.end() {
				return c.term(at)
			}
			c.after, c.field = false, nil
			continue
		}
		n, ok := c.name()
		if !ok {
			if _, closed := c.value(false); !closed {
				return Completion{Start: at}
			}
			if c.pos == at { // a stray sign
				c.pos++
			}
			if c.end() {
				return c.term(at)
			}
			c.after, c.field = true, nil
			continue
		}
		if c.end() {
			return c.term(at)
		}
		end := c.pos
		o, _, ok := c.operator()
		if !ok {
			c.pos = end
			known := fieldOf(n)
			if !isSpace(c.peek()) { // a word that goes on
				known = nil
				_, _ = c.value(false)
				if c.pos == end {
					c.pos++
				}
				if c.end() {
					return c.term(at)
				}
			}
			c.after, c.field = true, known
			continue
		}
		c.after, c.field = true, nil
		if o == opPresent {
			continue
		}
		if out, here := c.operands(n, o); here {
			return out
		}
	}
}

func fieldOf(n name) *Field {
	switch {
	case n.header:
		return headerField
	case n.path != nil:
		return pathField
	}
	return byName[strings.ToLower(n.text)]
}

// operands passes over the values of a comparison; here says that the cursor
// is in one.
func (c *completer) operands(n name, o op) (out Completion, here bool) {
	f := fieldOf(n)
	one := func(list bool) bool {
		if o != opWild {
			c.space()
		}
		at := c.pos
		pieces, closed := c.value(list)
		if !closed || c.end() {
			c.quotedPart = !closed
			out, here = c.values(f, at, pieces), true
		}
		return here
	}
	switch o {
	case opIn:
		c.space()
		if c.peek() != '(' {
			return Completion{Start: c.pos, Items: []Item{{Text: "(", Kind: "operator", Doc: "the list begins"}}}, c.end()
		}
		for c.pos++; ; c.pos++ {
			if one(true) {
				return out, true
			}
			if c.space(); c.peek() != ',' {
				break
			}
		}
		if c.peek() == ')' {
			c.pos++
		}
	case opBetween:
		if one(false) {
			return out, true
		}
		c.space()
		if at := c.pos; c.end() || !c.keyword("AND") || c.end() {
			return Completion{Start: at, Items: []Item{{Text: "AND ", Kind: "keyword", Doc: "and the upper bound"}}}, true
		}
		return out, one(false)
	default:
		return out, one(false)
	}
	return out, false
}

// values offers what a field may hold.
func (c *completer) values(f *Field, at int, pieces []piece) Completion {
	out := Completion{Start: at}
	if f == nil {
		return out
	}
	prefix := ""
	for _, p := range pieces {
		prefix += p.text
	}
	add := func(list ...string) {
		for _, v := range list {
			if strings.HasPrefix(v, strings.ToLower(prefix)) {
				out.Items = append(out.Items, Item{Text: v, Kind: "value"})
			}
		}
	}
	switch f.Type {
	case Enum:
		add(f.Values...)
	case Bool:
		add("true", "false")
	case Time:
		add("now-15m", "now-1h", "now-1d", "now")
	case Size:
		add("1kb", "100kb", "1mb")
	case Duration:
		add("100ms", "1s", "1m")
	default:
		if f.Lookup && f != headerField {
			out.Field, out.Prefix = f.Name, prefix
		}
	}
	return out
}

// term offers what a condition begins with, or what may follow one.
func (c *completer) term(at int) Completion {
	typed := c.text[at:]
	out := Completion{Start: at}
	low := strings.ToLower(typed)
	if c.field != nil { // the operators that are words or stand behind a blank
		for _, o := range c.field.Operators() {
			if o != ":" && strings.HasPrefix(o, strings.ToUpper(typed)) {
				out.Items = append(out.Items, Item{Text: o + " ", Kind: "operator", Doc: operatorDoc[o]})
			}
		}
	}
	if rest, ok := strings.CutPrefix(typed, "header."); ok {
		out.Field, out.Prefix = headerField.Name, strings.Trim(rest, `"'`)
		return out
	}
	var begins, others []Item
	if typed != "" || !c.after {
		for i := range fields {
			f := &fields[i]
			if f == bodyField && typed == "" {
				continue
			}
			item := Item{Text: f.Name, Kind: "field", Doc: f.Doc, Sample: f.Examples[0]}
			if f != headerField && f != pathField {
				item.Text += ":"
				if f.Type == Time {
					item.Text = f.Name + " "
				}
			}
			alias := slices.IndexFunc(f.Aliases, func(a string) bool { return strings.HasPrefix(strings.ToLower(a), low) })
			switch {
			case strings.HasPrefix(f.Name, low):
				begins = append(begins, item)
			case alias >= 0 && len(low) > 1:
				item.Doc += " (" + f.Aliases[alias] + ")"
				others = append(others, item)
			}
		}
	}
	keyword := func(word, doc string) {
		if strings.HasPrefix(word, strings.ToUpper(typed)) {
			others = append(others, Item{Text: word + " ", Kind: "keyword", Doc: doc})
		}
	}
	if c.after {
		keyword("AND", "both must hold; a blank says the same")
		keyword("OR", "one of both must hold")
	}
	keyword("NOT", "the next must not hold")
	out.Items = append(append(out.Items, begins...), others...)
	return out
}

var operatorDoc = map[string]string{
	":": "is, with * for anything", "=": "is exactly", "!=": "is there and differs", "<": "is below", "<=": "is at most", ">": "is over", ">=": "is at least",
	"IN": "is one of a list", "BETWEEN": "is within two bounds, these included", "LIKE": "is like a pattern with % and _", "~": "matches a regular expression",
}
