package filter

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// op is what a node of the tree does.
type op uint8

const (
	opAnd op = iota
	opOr
	opNot
	opPresent // the field is there
	opEq
	opNe
	opLt
	opLe
	opGt
	opGe
	opIn
	opBetween
	opWild  // the whole text, * stands for anything
	opLike  // the whole text, % and _ as in SQL
	opMatch // a regular expression, anywhere in the text
	opWord  // a word or phrase in the body, without regard to case
)

var opText = [...]string{"AND", "OR", "NOT", ":*", "=", "!=", "<", "<=", ">", ">=", "IN", "BETWEEN", ":", "LIKE", "~", ":"}

func (o op) String() string { return opText[o] }

// node is a part of a filter. It is not changed after Parse.
type node struct {
	op    op
	kids  []*node // of and, or, not
	field *Field
	name  string  // of a header
	path  []step  // into a JSON body
	vals  []value // of a comparison
}

// step is one step of a path: a key of an object, or a place in an array.
type step struct {
	key   string
	index int // -1: key
}

type kind uint8

const (
	kindText kind = iota
	kindInt       // num, and f nearest to it
	kindFloat
	kindTime // num, and rel if relative
	kindID   // raw
	kindWild // parts
	kindWord // text, open
	kindLike // text, escape, parts or re
	kindRegexp
)

// value is a literal, typed by what it is compared with.
type value struct {
	kind   kind
	text   string
	num    int128
	f      float64
	rel    string   // of a time: now-15m
	parts  []string // what stands between the stars
	open   [2]bool  // of a word: it may go on to the left, to the right
	escape string   // of LIKE, at most one byte
	re     *pattern // of LIKE and ~
}

func (v *value) int() int64 { return v.num.int64() }

// Filter is a parsed filter. It may be used concurrently. A nil Filter and
// that of an empty text match everything.
type Filter struct {
	root  *node
	match predicate
}

// Empty says that the filter matches everything because it says nothing.
func (f *Filter) Empty() bool { return f == nil || f.root == nil }

// NeedsBody says that the answer may depend on a message's body.
func (f *Filter) NeedsBody() bool { return !f.Empty() && f.root.needsBody() }

func (n *node) needsBody() bool {
	if n.op <= opNot {
		return slices.ContainsFunc(n.kids, (*node).needsBody)
	}
	return n.onBody()
}

func (n *node) onBody() bool { return n.field == bodyField || n.field == pathField }

// bodyOnly says that nothing but the body decides.
func (n *node) bodyOnly() bool {
	if n.op <= opNot {
		return !slices.ContainsFunc(n.kids, func(k *node) bool { return !k.bodyOnly() })
	}
	return n.onBody()
}

// label is the field's name as it is written, with the header's name or path.
func (n *node) label() string {
	switch n.field {
	case headerField:
		if plainName(n.name) {
			return "header." + n.name
		}
		return "header." + quote(n.name, '"')
	case pathField:
		var b strings.Builder
		b.WriteString("body")
		for _, s := range n.path {
			switch {
			case s.index >= 0:
				b.WriteString("[" + strconv.Itoa(s.index) + "]")
			case plainKey(s.key):
				b.WriteString("." + s.key)
			default:
				b.WriteString("." + quote(s.key, '"'))
			}
		}
		return b.String()
	}
	return n.field.Name
}

func quote(s string, q byte) string {
	mark := string(q)
	return mark + strings.ReplaceAll(s, mark, mark+mark) + mark
}

// top is what must all be true.
func (f *Filter) top() []*node {
	switch {
	case f.Empty():
		return nil
	case f.root.op == opAnd:
		return f.root.kids
	}
	return []*node{f.root}
}

// Take offers each value that all matches must have, an equality by an AND at
// the top, to take: the field's name, and the value as text. A channel's value
// may be a pattern with *; of failed only true is offered. What take accepts is
// left out of the filter that Take returns.
func (f *Filter) Take(take func(field, value string) bool) *Filter {
	var rest []*node
	for _, n := range f.top() {
		if v, ok := n.pinned(); !ok || !take(n.field.Name, v) {
			rest = append(rest, n)
		}
	}
	switch {
	case len(rest) == len(f.top()):
		return f
	case len(rest) == 0:
		return nil
	case len(rest) == 1:
		return newFilter(rest[0])
	}
	return newFilter(&node{op: opAnd, kids: rest})
}

func (n *node) pinned() (string, bool) {
	switch {
	case n.op == opWild && n.field.Name == "channel":
		for _, p := range n.vals[0].parts {
			if strings.Contains(p, "*") {
				return "", false
			}
		}
		return strings.Join(n.vals[0].parts, "*"), true
	case n.op != opEq:
		return "", false
	}
	switch v := &n.vals[0]; n.field.Type {
	case Text:
		return v.text, n.field.Name != "channel" || !strings.Contains(v.text, "*")
	case Hex:
		return hex.EncodeToString([]byte(v.text)), true
	case Bool:
		return "true", n.field.Name == "failed" && v.int() == 1
	}
	return "", false
}

// Bounds are the times that all matches are within, in Unix nanoseconds:
// from <= t < to, 0 where it is open.
func (f *Filter) Bounds() (from, to int64) {
	for _, n := range f.top() {
		if n.op <= opNot || n.field.Name != "time" {
			continue
		}
		low := func(t int64) { from = max(from, t) }
		high := func(t int64) {
			if to == 0 || t < to {
				to = t
			}
		}
		switch t := n.vals; n.op {
		case opEq:
			low(t[0].int())
			high(t[0].int() + 1)
		case opGt:
			low(t[0].int() + 1)
		case opGe:
			low(t[0].int())
		case opLt:
			high(t[0].int())
		case opLe:
			high(t[0].int() + 1)
		case opBetween:
			low(t[0].int())
			high(t[1].int() + 1)
		}
	}
	return from, to
}
