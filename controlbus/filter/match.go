package filter

import (
	"encoding/hex"
	"slices"
	"unsafe"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Match says whether the message matches. It allocates nothing for ordinary
// comparisons, keeps nothing, and may be called concurrently. Bodies are only
// looked at where the answer depends on them.
func (f *Filter) Match(e *controlbus.MessageEvent) bool { return f == nil || f.match(e) }

type predicate func(*event) bool

func everything(*event) bool { return true }

// compile makes the predicate of a node. What costs little comes first.
func compile(n *node) predicate {
	switch n.op {
	case opNot:
		k := compile(n.kids[0])
		return func(e *event) bool { return !k(e) }
	case opAnd, opOr:
		kids := slices.Clone(n.kids)
		slices.SortStableFunc(kids, func(a, b *node) int { return a.cost() - b.cost() })
		list := make([]predicate, len(kids))
		for i, k := range kids {
			list[i] = compile(k)
		}
		if n.op == opAnd {
			return func(e *event) bool {
				for _, k := range list {
					if !k(e) {
						return false
					}
				}
				return true
			}
		}
		return func(e *event) bool {
			for _, k := range list {
				if k(e) {
					return true
				}
			}
			return false
		}
	}
	return n.leaf()
}

// cost ranks nodes by what they look at.
func (n *node) cost() int {
	if n.op <= opNot {
		c := 0
		for _, k := range n.kids {
			c = max(c, k.cost())
		}
		return c
	}
	c := 0
	if n.op == opMatch || n.op == opLike {
		c = 1
	}
	switch n.field.Type {
	case List:
		return c + 2
	case Dynamic, Body:
		c += 3
		if n.onBody() {
			c += 3
		}
	}
	return c
}

func (n *node) leaf() predicate {
	f := n.field
	switch f.Type {
	case Text:
		get := f.text
		if n.op == opPresent {
			return func(e *event) bool { return get(e) != "" }
		}
		if n.op == opEq { // the most frequent
			want := n.vals[0].text
			return func(e *event) bool { return get(e) == want }
		}
		test := n.texts()
		return func(e *event) bool {
			s := get(e)
			return s != "" && test(s)
		}
	case Hex:
		return n.hexes()
	case List:
		get := f.list
		if n.op == opPresent {
			return func(e *event) bool { return len(get(e)) > 0 }
		}
		test := n.texts()
		return func(e *event) bool { return slices.ContainsFunc(get(e), test) }
	case Dynamic:
		if f == pathField {
			return n.paths()
		}
		return n.headers()
	case Body:
		return n.bodies()
	}
	get, test := f.num, n.ints()
	return func(e *event) bool {
		v, ok := get(e)
		return ok && test(v)
	}
}

func (n *node) headers() predicate {
	key := n.name
	test := func(string) bool { return true }
	if n.op != opPresent {
		test = n.texts()
	}
	return func(e *event) bool {
		for i := range e.Headers {
			if e.Headers[i].Key == key && test(e.Headers[i].Value) {
				return true
			}
		}
		return false
	}
}

// bodyText is the body as a string, without a copy. It is not kept.
func bodyText(e *event) string { return unsafe.String(unsafe.SliceData(e.Body), len(e.Body)) }

func (n *node) paths() predicate {
	path := n.path
	if n.op == opPresent {
		return func(e *event) bool { return find(bodyText(e), path).there }
	}
	test := n.texts()
	return func(e *event) bool {
		v := find(bodyText(e), path)
		return v.plain && test(v.text)
	}
}

func (n *node) bodies() predicate {
	switch n.op {
	case opPresent:
		return func(e *event) bool { return len(e.Body) > 0 }
	case opWord:
		w := newWord(&n.vals[0])
		return func(e *event) bool { return w.in(bodyText(e)) }
	}
	test := n.texts()
	return func(e *event) bool { return len(e.Body) > 0 && test(bodyText(e)) }
}

// texts compares a text that is there.
func (n *node) texts() func(string) bool {
	v := &n.vals[0]
	switch n.op {
	case opEq:
		return equal(v)
	case opNe:
		same := equal(v)
		return func(s string) bool { return !same(s) }
	case opIn:
		list := make([]func(string) bool, len(n.vals))
		for i := range n.vals {
			list[i] = equal(&n.vals[i])
		}
		return func(s string) bool {
			for _, same := range list {
				if same(s) {
					return true
				}
			}
			return false
		}
	case opWild:
		return func(s string) bool { return matchParts(v.parts, s) }
	case opLike, opMatch:
		return v.re.match
	case opBetween:
		high := &n.vals[1]
		return func(s string) bool {
			c, ok := compareText(s, v)
			if !ok || c < 0 {
				return false
			}
			c, ok = compareText(s, high)
			return ok && c <= 0
		}
	}
	test := n.sign()
	return func(s string) bool {
		c, ok := compareText(s, v)
		return ok && test(c)
	}
}

func equal(v *value) func(string) bool {
	if v.kind == kindText {
		return func(s string) bool { return s == v.text }
	}
	return func(s string) bool {
		c, ok := compareNumber(s, v)
		return ok && c == 0
	}
}

// compareText compares with a number as a number, and with a text as bytes.
func compareText(s string, v *value) (int, bool) {
	if v.kind != kindText {
		return compareNumber(s, v)
	}
	switch {
	case s < v.text:
		return -1, true
	case s > v.text:
		return 1, true
	}
	return 0, true
}

// sign is the operator over the result of a comparison.
func (n *node) sign() func(int) bool {
	switch n.op {
	case opLt:
		return func(c int) bool { return c < 0 }
	case opLe:
		return func(c int) bool { return c <= 0 }
	case opGt:
		return func(c int) bool { return c > 0 }
	case opGe:
		return func(c int) bool { return c >= 0 }
	case opNe:
		return func(c int) bool { return c != 0 }
	}
	return func(c int) bool { return c == 0 }
}

// ints compares an integer that is there.
func (n *node) ints() func(int64) bool {
	switch n.op {
	case opPresent:
		return func(int64) bool { return true }
	case opIn:
		list := make([]func(int64) bool, len(n.vals))
		for i := range n.vals {
			list[i] = compareInt(opEq, &n.vals[i])
		}
		return func(x int64) bool {
			for _, same := range list {
				if same(x) {
					return true
				}
			}
			return false
		}
	case opBetween:
		low, high := compareInt(opGe, &n.vals[0]), compareInt(opLe, &n.vals[1])
		return func(x int64) bool { return low(x) && high(x) }
	}
	return compareInt(n.op, &n.vals[0])
}

func compareInt(o op, v *value) func(int64) bool {
	if v.kind == kindFloat {
		f, test := v.f, (&node{op: o}).sign()
		return func(x int64) bool { return test(compareFloat(float64(x), f)) }
	}
	want := v.int()
	switch o {
	case opLt:
		return func(x int64) bool { return x < want }
	case opLe:
		return func(x int64) bool { return x <= want }
	case opGt:
		return func(x int64) bool { return x > want }
	case opGe:
		return func(x int64) bool { return x >= want }
	case opNe:
		return func(x int64) bool { return x != want }
	}
	return func(x int64) bool { return x == want }
}

// hexes compares a binary identifier.
func (n *node) hexes() predicate {
	get := n.field.id
	there := func(e *event) bool {
		for _, b := range get(e) {
			if b != 0 {
				return true
			}
		}
		return false
	}
	switch n.op {
	case opPresent:
		return there
	case opEq:
		want := n.vals[0].text // never all zeros
		return func(e *event) bool { return string(get(e)) == want }
	case opIn:
		return func(e *event) bool {
			for i := range n.vals {
				if string(get(e)) == n.vals[i].text {
					return true
				}
			}
			return false
		}
	case opNe:
		want := n.vals[0].text
		return func(e *event) bool { return string(get(e)) != want && there(e) }
	}
	if n.op == opWild {
		parts := n.vals[0].parts
		return func(e *event) bool {
			var buf [32]byte
			digits := buf[:hex.Encode(buf[:], get(e))]
			return there(e) && matchParts(parts, unsafe.String(unsafe.SliceData(digits), len(digits)))
		}
	}
	test := n.texts()
	return func(e *event) bool { return there(e) && test(hex.EncodeToString(get(e))) }
}
