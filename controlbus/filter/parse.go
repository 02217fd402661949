package filter

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Parse reads a filter. Times relative to now are resolved here, once, and
// times without a zone are in now's. Errors are of type *Error and wrap
// controlbus.ErrInvalid. An empty text is a filter that matches everything.
func Parse(text string, now time.Time) (*Filter, error) {
	if len(text) > MaxLength {
		return nil, &Error{Pos: MaxLength, Len: len(text) - MaxLength, Msg: fmt.Sprintf("the filter has %d bytes; at most %d are read", len(text), MaxLength)}
	}
	if !utf8.ValidString(text) {
		i := 0
		for r, n := utf8.DecodeRuneInString(text); r != utf8.RuneError || n != 1; r, n = utf8.DecodeRuneInString(text[i:]) {
			i += n
		}
		return nil, &Error{Pos: i, Len: 1, Msg: "the filter is not valid UTF-8"}
	}
	p := &parser{scanner: scanner{text: text}, now: now}
	p.space()
	if p.end() {
		return &Filter{match: everything}, nil
	}
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.end() { // only a closing bracket ends an expression before the text does
		return nil, p.fail(p.pos, p.pos+1, "", "this bracket closes nothing")
	}
	return newFilter(root), nil
}

func newFilter(root *node) *Filter { return &Filter{root: root, match: compile(root)} }

type parser struct {
	scanner
	now          time.Time
	nodes, depth int
	expressions  int // bytes of them
}

func (p *parser) fail(at, end int, suggestion, format string, args ...any) *Error {
	return &Error{Pos: at, Len: end - at, Msg: fmt.Sprintf(format, args...), Suggestion: suggestion}
}

// count is called for each node and value, before it is made.
func (p *parser) count(at int) error {
	if p.nodes++; p.nodes > MaxNodes {
		return p.fail(at, p.pos, "", "the filter has more than %d conditions and values", MaxNodes)
	}
	return nil
}

func (p *parser) enter(at int) error {
	if p.depth++; p.depth > MaxDepth {
		return p.fail(at, p.pos, "", "brackets and negations are more than %d deep", MaxDepth)
	}
	return nil
}

// join makes one node of several; those of its own kind among them are opened.
func (p *parser) join(o op, kids []*node, at int) (*node, error) {
	if len(kids) == 1 {
		return kids[0], nil
	}
	n := &node{op: o}
	for _, k := range kids {
		if k.op == o {
			n.kids = append(n.kids, k.kids...)
		} else {
			n.kids = append(n.kids, k)
		}
	}
	return n, p.count(at)
}

func (p *parser) or() (*node, error) {
	at := p.pos
	var kids []*node
	for {
		k, err := p.and()
		if err != nil {
			return nil, err
		}
		kids = append(kids, k)
		if !p.keyword("OR") {
			return p.join(opOr, kids, at)
		}
		p.space()
	}
}

func (p *parser) and() (*node, error) {
	at := p.pos
	var kids []*node
	for {
		k, err := p.not()
		if err != nil {
			return nil, err
		}
		kids = append(kids, k)
		p.space()
		if p.end() || p.peek() == ')' {
			break
		}
		start := p.pos
		if p.keyword("OR") {
			p.pos = start
			break
		}
		if p.keyword("AND") {
			p.space()
		}
	}
	return p.join(opAnd, kids, at)
}

func (p *parser) not() (*node, error) {
	at := p.pos
	switch {
	case p.end() || p.peek() == ')':
		return nil, p.fail(p.pos, min(p.pos+1, len(p.text)), "", "a condition is missing here")
	case p.keyword("AND") || p.keyword("OR"):
		return nil, p.fail(at, p.pos, `"`+p.text[at:p.pos]+`"`, "%s stands between two conditions", p.text[at:p.pos])
	case p.keyword("NOT"):
	case p.peek() == '-' && p.pos+1 < len(p.text) && !isSpace(p.text[p.pos+1]) && p.text[p.pos+1] != ')':
		p.pos++
	case p.peek() == '(':
		p.pos++
		if err := p.enter(at); err != nil {
			return nil, err
		}
		p.space()
		n, err := p.or()
		if err != nil {
			return nil, err
		}
		if p.peek() != ')' {
			return nil, p.fail(at, at+1, "", "this bracket is not closed")
		}
		p.pos++
		p.depth--
		return n, nil
	default:
		return p.term()
	}
	if err := p.enter(at); err != nil {
		return nil, err
	}
	p.space()
	k, err := p.not()
	if err != nil {
		return nil, err
	}
	p.depth--
	return p.negate(k, at)
}

func (p *parser) negate(k *node, at int) (*node, error) {
	if k.op == opNot {
		return k.kids[0], nil
	}
	return &node{op: opNot, kids: []*node{k}}, p.count(at)
}

// term reads one condition.
func (p *parser) term() (*node, error) {
	at := p.pos
	if c := p.peek(); c == '"' || c == '\'' {
		return p.word(at)
	}
	n, ok := p.name()
	if ok {
		end := p.pos
		o, not, isField := p.operator()
		if isField {
			k, err := p.condition(n, o)
			if err == nil && not {
				k, err = p.negate(k, at)
			}
			return k, err
		}
		p.pos = end
		switch {
		case n.unclosed || n.bad:
			_, err := p.field(n, opEq)
			return nil, err
		case n.header && p.text[end-1] == '"':
			return nil, p.fail(at, end, n.source(p.text)+":*", "a field without a comparison")
		}
	}
	if o, length := sign(p.text[at:]); length > 0 {
		return nil, p.fail(at, at+length, "", "a field is missing before %s", o)
	}
	if p.text[at] == ':' {
		return nil, p.fail(at, at+1, "", "a field is missing before the colon")
	}
	p.pos = at
	return p.word(at)
}

// word reads a bare word or a phrase, which is looked for in the body.
func (p *parser) word(at int) (*node, error) {
	pieces, closed := p.value(false)
	if !closed {
		return nil, p.fail(at, len(p.text), "", "this quote is not closed")
	}
	if len(pieces) == 0 {
		return nil, p.fail(at, at+1, "", "a condition is missing here")
	}
	n := &node{op: opWord, field: bodyField}
	v, err := p.wordOf(pieces, at)
	if err != nil {
		return nil, err
	}
	n.vals = []value{v}
	return n, p.count(at)
}

func (p *parser) wordOf(pieces []piece, at int) (value, error) {
	parts := split(pieces)
	v := value{kind: kindWord}
	switch {
	case len(parts) == 1:
		v.text = parts[0]
	case len(parts) == 2 && parts[0] == "" && parts[1] != "":
		v.text, v.open[0] = parts[1], true
	case len(parts) == 2 && parts[1] == "" && parts[0] != "":
		v.text, v.open[1] = parts[0], true
	case len(parts) == 3 && parts[0] == "" && parts[2] == "":
		v.text, v.open = parts[1], [2]bool{true, true}
	default:
		return v, p.fail(at, p.pos, "", "in a word of the body * stands at the beginning or the end; use body ~ for patterns")
	}
	switch {
	case v.text == "":
		return v, p.fail(at, p.pos, "", "an empty text says nothing")
	case len(v.text) > maxWord:
		return v, p.fail(at, p.pos, "", "a phrase has at most %d bytes", maxWord)
	}
	return v, nil
}

// split cuts at the stars that are not in quotes; a run of stars is one.
func split(pieces []piece) []string {
	parts := []string{""}
	for _, p := range pieces {
		if p.quoted {
			parts[len(parts)-1] += p.text
			continue
		}
		for i, s := range strings.Split(p.text, "*") {
			last := len(parts) - 1
			switch {
			case i == 0:
				parts[last] += s
			case parts[last] == "" && last > 0:
				parts[last] = s
			default:
				parts = append(parts, s)
			}
		}
	}
	return parts
}

// field finds what a name means.
func (p *parser) field(n name, o op) (*node, error) {
	c := &node{name: n.text, path: n.path}
	switch {
	case n.unclosed || n.bad:
		return nil, p.fail(n.at, n.end, "", "a path is written body.items[0].sku, with unusual keys in quotes")
	case n.header:
		if c.field = headerField; n.text == "" {
			return nil, p.fail(n.at, n.end, "", "want a header's name, such as header.x-tenant")
		}
		return c, nil
	case n.path != nil:
		if len(n.path) > maxSteps {
			return nil, p.fail(n.at, n.end, "", "a path has at most %d steps", maxSteps)
		}
		c.field, c.name = pathField, ""
		return c, nil
	}
	if c.field = byName[strings.ToLower(n.text)]; c.field != nil {
		c.name = ""
		return c, nil
	}
	near := p.near(n.text)
	if o == opWild {
		if near == "" {
			near = p.quotedTerm(n)
			return nil, p.fail(n.at, n.end, near, "no field %q; a word with a colon goes into quotes, a header is written header.%s", n.text, n.text)
		}
		return nil, p.fail(n.at, n.end, near, "no field %q", n.text)
	}
	// JMS selectors name properties without more ado. What is almost a field's
	// name is a mistake, though.
	if near != "" && distance(strings.ToLower(n.text), strings.ToLower(near), 1) <= 1 {
		return nil, p.fail(n.at, n.end, near, "no field %q; a header of that name is written header.%s", n.text, n.text)
	}
	c.field = headerField
	return c, nil
}

// near is the field that a misspelt name probably means.
func (p *parser) near(text string) string {
	if f := byName[closest(strings.ToLower(text), func(yield func(string) bool) {
		for _, k := range slices.Sorted(maps.Keys(byName)) {
			if !yield(k) {
				return
			}
		}
	})]; f != nil {
		return f.Name
	}
	if s := closest(strings.ToLower(text), slices.Values([]string{"header", "headers"})); s != "" {
		return "header."
	}
	return ""
}

// quotedTerm is the term at a name in quotes.
func (p *parser) quotedTerm(n name) string {
	s := scanner{text: p.text, pos: n.at}
	_, _ = s.value(false)
	return quote(p.text[n.at:s.pos], '"')
}

// condition reads the value of a comparison.
func (p *parser) condition(n name, o op) (*node, error) {
	c, err := p.field(n, o)
	if err != nil {
		return nil, err
	}
	if err := p.count(n.at); err != nil {
		return nil, err
	}
	if c.op = o; o == opPresent {
		return c, nil
	}
	if !c.field.has(o) {
		return nil, p.fail(n.at, p.pos, "", "%s has no %s; it has %s", c.label(), o, strings.Join(c.field.Operators(), " "))
	}
	if o == opWild {
		return p.colon(c, n)
	}
	p.space()
	switch o {
	case opIn:
		return c, p.list(c)
	case opBetween:
		return c, p.between(c)
	}
	v, err := p.operand(c, false)
	if err != nil {
		return nil, err
	}
	c.vals = []value{v}
	return c, nil
}

// colon reads field:value: equality, with * for anything; a word in the body.
func (p *parser) colon(c *node, n name) (*node, error) {
	at := p.pos
	if p.peek() == '(' {
		return nil, p.fail(at, at+1, c.label()+" IN (", "a list of values is written %s IN (a, b)", c.label())
	}
	pieces, closed := p.value(false)
	switch {
	case !closed:
		return nil, p.fail(at, len(p.text), "", "this quote is not closed")
	case len(pieces) == 0:
		return nil, p.fail(n.at, at, "", "%s has no value; the value follows the colon without a blank", c.label())
	}
	parts := split(pieces)
	if len(parts) == 2 && parts[0] == "" && parts[1] == "" {
		c.op = opPresent
		return c, nil
	}
	if c.field == bodyField {
		c.op = opWord
		v, err := p.wordOf(pieces, at)
		c.vals = []value{v}
		return c, err
	}
	if len(parts) > 1 {
		switch c.field.Type {
		case Text, Hex, List, Dynamic:
			if c.field.Type == Hex {
				for i := range parts {
					parts[i] = strings.ToLower(parts[i])
				}
			}
			c.vals = []value{{kind: kindWild, parts: parts}}
			return c, nil
		case Enum:
			return p.some(c, parts, at)
		}
		return nil, p.fail(at, p.pos, "", "%s has no *; it is compared as a %s", c.label(), c.field.Type)
	}
	c.op = opEq
	v, err := p.literal(c, piece{text: parts[0], quoted: pieces[0].quoted || c.field.Type == Dynamic}, at, p.pos)
	c.vals = []value{v}
	return c, err
}

// some turns a pattern over the values of an enum into a list.
func (p *parser) some(c *node, parts []string, at int) (*node, error) {
	for i, name := range c.field.Values {
		if matchParts(parts, name) {
			if err := p.count(at); err != nil {
				return nil, err
			}
			c.vals = append(c.vals, value{kind: kindInt, num: smallInt(int64(i) + c.field.base()), f: float64(int64(i) + c.field.base())})
		}
	}
	switch len(c.vals) {
	case 0:
		return nil, p.fail(at, p.pos, "", "no %s is like that; there are %s", c.label(), strings.Join(c.field.Values, ", "))
	case 1:
		c.op = opEq
	default:
		c.op = opIn
	}
	return c, nil
}

// operand reads one value.
func (p *parser) operand(c *node, list bool) (value, error) {
	at := p.pos
	pieces, closed := p.value(list)
	switch {
	case !closed:
		return value{}, p.fail(at, len(p.text), "", "this quote is not closed")
	case len(pieces) == 0:
		return value{}, p.fail(at, min(at+1, len(p.text)), "", "%s wants a value here", c.label())
	case len(pieces) > 1:
		return value{}, p.fail(at, p.pos, "", "put the whole value into quotes")
	}
	end := p.pos
	if c.op != opLike && c.op != opMatch {
		return p.literal(c, pieces[0], at, end)
	}
	if c.op == opMatch {
		return p.regexp(pieces[0].text, at, end)
	}
	p.space()
	escape := ""
	if p.keyword("ESCAPE") {
		p.space()
		from := p.pos
		e, closed := p.value(false)
		if !closed || len(e) != 1 || len(e[0].text) != 1 || e[0].text == "%" || e[0].text == "_" {
			return value{}, p.fail(from, p.pos, `'\'`, "ESCAPE wants one ASCII character")
		}
		escape = e[0].text
	}
	return p.like(c, pieces[0].text, escape, at, end)
}

// list reads (a, b, c).
func (p *parser) list(c *node) error {
	at := p.pos
	if p.peek() != '(' {
		return p.fail(at, min(at+1, len(p.text)), "", "IN wants a list in brackets: %s IN (a, b)", c.label())
	}
	p.pos++
	for {
		p.space()
		v, err := p.operand(c, true)
		if err != nil {
			return err
		}
		if err := p.count(at); err != nil {
			return err
		}
		c.vals = append(c.vals, v)
		p.space()
		switch p.peek() {
		case ',':
			p.pos++
		case ')':
			p.pos++
			return nil
		case 0:
			return p.fail(at, at+1, "", "this bracket is not closed")
		default:
			return p.fail(p.pos, p.pos+1, ",", "a comma is missing between the values")
		}
	}
}

func (p *parser) between(c *node) error {
	at := p.pos
	low, err := p.operand(c, false)
	if err != nil {
		return err
	}
	p.space()
	if !p.keyword("AND") {
		return p.fail(p.pos, min(p.pos+1, len(p.text)), "AND", "BETWEEN wants two values: %s BETWEEN 1 AND 5", c.label())
	}
	p.space()
	high, err := p.operand(c, false)
	if err != nil {
		return err
	}
	if c.field.Type == Dynamic && (low.kind == kindText) != (high.kind == kindText) {
		return p.fail(at, p.pos, "", "one value is a number and the other a text")
	}
	c.vals = []value{low, high}
	return p.count(at)
}
