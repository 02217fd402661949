package filter

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Param is a value that is bound to {Name:Type} in the SQL text.
type Param struct {
	Name, Type string
	Value      any
}

// SQL is a filter as conditions on a row of the table messages. The text is
// made of constants and parameter names: it depends on the shape of the
// filter, never on its values.
type SQL struct {
	// Conditions must all hold. They select at least what Match does.
	Conditions []string
	// Shared are those of the conditions that name only columns which the
	// table bodies has too.
	Shared []string
	Params []Param
	// Exact says that the conditions select just what Match does. Otherwise
	// each row must be put to Match.
	Exact bool
}

// Empty says that there is no condition.
func (s *SQL) Empty() bool { return len(s.Conditions) == 0 }

// SQLOptions say what the store has.
type SQLOptions struct {
	Prefix string // of parameter names
	// HeaderItems: there is a text index on header_items.
	HeaderItems bool
	// Bodies turns a condition on the column body of the table bodies into
	// one on the messages those bodies belong to. Shared are the filter's own
	// conditions that both tables can check.
	Bodies func(condition string, shared []string) string
}

// SQL writes the filter for ClickHouse.
func (f *Filter) SQL(o SQLOptions) SQL {
	g := &generator{opt: o, sql: SQL{Exact: true}}
	if g.opt.Prefix == "" {
		g.opt.Prefix = "p"
	}
	if g.opt.Bodies == nil {
		g.opt.Bodies = func(cond string, shared []string) string {
			return "uid IN (SELECT uid FROM bodies WHERE " + strings.Join(append(slices.Clone(shared), cond), " AND ") + ")"
		}
	}
	var rest []*node
	for _, n := range f.top() {
		if n.sharedOnly() {
			g.sql.Shared = append(g.sql.Shared, g.node(n, true))
		} else {
			rest = append(rest, n)
		}
	}
	g.sql.Conditions = slices.Clone(g.sql.Shared)
	// What looks at bodies comes last, in one pass over them where it can.
	var bodies []*node
	for _, n := range rest {
		if n.bodyOnly() {
			bodies = append(bodies, n)
		} else {
			g.sql.Conditions = append(g.sql.Conditions, g.node(n, true))
		}
	}
	switch len(bodies) {
	case 0:
	case 1:
		g.sql.Conditions = append(g.sql.Conditions, g.bodies(bodies[0], true))
	default:
		g.sql.Conditions = append(g.sql.Conditions, g.bodies(&node{op: opAnd, kids: bodies}, true))
	}
	return g.sql
}

func (n *node) sharedOnly() bool {
	if n.op <= opNot {
		return !slices.ContainsFunc(n.kids, func(k *node) bool { return !k.sharedOnly() })
	}
	return n.field.shared
}

type generator struct {
	opt SQLOptions
	sql SQL
}

// bind adds a parameter and returns its place in the text.
func (g *generator) bind(typ string, v any) string {
	name := g.opt.Prefix + strconv.Itoa(len(g.sql.Params)+1)
	g.sql.Params = append(g.sql.Params, Param{name, typ, v})
	return "{" + name + ":" + typ + "}"
}

func (g *generator) text(s string) string { return g.bind("String", s) }

// node writes a condition on a row of messages. Where SQL cannot answer as
// Match does, upper asks for a condition that holds whenever Match does, and
// its opposite for one that holds only if Match does.
func (g *generator) node(n *node, upper bool) string {
	if n.bodyOnly() {
		return g.bodies(n, upper)
	}
	return g.join(n, upper, g.node, g.leaf)
}

func (g *generator) join(n *node, upper bool, node func(*node, bool) string, leaf func(*node, bool) string) string {
	switch n.op {
	case opAnd, opOr:
		list := make([]string, len(n.kids))
		for i, k := range n.kids {
			list[i] = node(k, upper)
		}
		return "(" + strings.Join(list, " "+n.op.String()+" ") + ")"
	case opNot:
		return "NOT " + node(n.kids[0], !upper)
	}
	return leaf(n, upper)
}

// bodies writes a condition that only bodies decide. A message without a
// stored body has no row there: if the condition holds for none, those
// messages are wanted for which its negation finds no row.
func (g *generator) bodies(n *node, upper bool) string {
	if n.ofNothing() {
		not := &node{op: opNot, kids: []*node{n}}
		if n.op == opNot {
			not = n.kids[0]
		}
		return "NOT " + g.opt.Bodies(g.body(not, !upper), g.sql.Shared)
	}
	return g.opt.Bodies(g.body(n, upper), g.sql.Shared)
}

// ofNothing evaluates the node for a message without a body.
func (n *node) ofNothing() bool {
	switch n.op {
	case opAnd:
		return !slices.ContainsFunc(n.kids, func(k *node) bool { return !k.ofNothing() })
	case opOr:
		return slices.ContainsFunc(n.kids, (*node).ofNothing)
	case opNot:
		return !n.kids[0].ofNothing()
	}
	return false
}

func (g *generator) body(n *node, upper bool) string { return g.join(n, upper, g.body, g.bodyLeaf) }

func (g *generator) bodyLeaf(n *node, upper bool) string {
	if n.field == pathField {
		return g.path(n, upper)
	}
	switch n.op {
	case opPresent:
		return "body != ''"
	case opWord:
		v := &n.vals[0]
		w := newWord(v)
		if w.single() {
			return "hasTokenCaseInsensitive(body, " + g.text(w.lower) + ")"
		}
		return "(positionCaseInsensitive(body, " + g.text(w.lower) + ") > 0 AND match(body, " + g.text(w.sql()) + "))"
	}
	return g.texts(n, "body")
}

func (g *generator) leaf(n *node, _ bool) string {
	f := n.field
	switch f.Type {
	case Text:
		present := f.column + " != ''"
		switch n.op {
		case opPresent:
			return present
		case opEq:
			c := f.column + " = " + g.text(n.vals[0].text)
			if f.Name == "correlation" { // the key has the index
				key := controlbus.CorrelationKey(n.vals[0].text)
				return "(correlation = toFixedString(unhex(" + g.text(key.String()) + "), 16) AND " + c + ")"
			}
			return c
		case opIn:
			return g.texts(n, f.column)
		}
		return "(" + present + " AND " + g.texts(n, f.column) + ")"
	case Hex:
		return g.hexes(n)
	case List:
		if n.op == opPresent {
			return "notEmpty(" + f.column + ")"
		}
		return "arrayExists(v -> " + g.texts(n, "v") + ", " + f.column + ")"
	case Dynamic:
		return g.header(n)
	}
	return g.numbers(n)
}

func (g *generator) header(n *node) string {
	name := g.text(n.name)
	if n.op == opPresent {
		return "has(mapKeys(headers), " + name + ")"
	}
	exact := "arrayExists((k, v) -> k = " + name + " AND " + g.texts(n, "v") + ", mapKeys(headers), mapValues(headers))"
	if n.op != opEq || n.vals[0].kind != kindText {
		return exact
	}
	// The first condition is for the index, the second is exact.
	v := "{" + g.sql.Params[len(g.sql.Params)-1].Name + ":String}"
	if g.opt.HeaderItems {
		return "(has(header_items, concat(" + name + ", '=', " + v + ")) AND " + exact + ")"
	}
	return "(has(mapValues(headers), " + v + ") AND " + exact + ")"
}

// texts compares a text that is there.
func (g *generator) texts(n *node, x string) string {
	v := &n.vals[0]
	switch n.op {
	case opEq:
		return g.equal(x, v)
	case opNe:
		return "NOT " + g.equal(x, v)
	case opIn:
		var texts, others []string
		for i := range n.vals {
			if n.vals[i].kind == kindText {
				texts = append(texts, g.text(n.vals[i].text))
			} else {
				others = append(others, g.equal(x, &n.vals[i]))
			}
		}
		if texts != nil {
			others = append(others, x+" IN ("+strings.Join(texts, ", ")+")")
		}
		return "(" + strings.Join(others, " OR ") + ")"
	case opBetween:
		return "(" + g.compare(x, ">=", v) + " AND " + g.compare(x, "<=", &n.vals[1]) + ")"
	case opWild:
		return "match(" + x + ", " + g.text(wildSQL(v.parts)) + ")"
	case opLike, opMatch:
		return fmt.Sprintf("match(toValidUTF8(substring(%s, 1, %d)), %s)", x, patternBytes, g.text(v.re.sql()))
	}
	return g.compare(x, n.op.String(), v)
}

func (g *generator) equal(x string, v *value) string { return g.compare(x, "=", v) }

const (
	sqlInteger = `'^-?[0-9]{1,38}$'`
	sqlNumber  = `'^-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?$'`
)

func (g *generator) compare(x, sign string, v *value) string {
	if v.kind == kindText {
		return "(" + x + " " + sign + " " + g.text(v.text) + ")"
	}
	float := "(isFinite(toFloat64OrZero(" + x + ")) AND toFloat64OrZero(" + x + ") " + sign + " " + g.float(v.f) + ")"
	if v.kind == kindInt {
		float = "if(match(" + x + ", " + sqlInteger + "), toInt128OrZero(" + x + ") " + sign + " " + g.bind("Int128", v.num.String()) + ", " + float + ")"
	}
	return "(match(" + x + ", " + sqlNumber + ") AND " + float + ")"
}

// float travels as bits: exact, whatever the reader of the text does.
func (g *generator) float(f float64) string {
	return "reinterpretAsFloat64(" + g.bind("UInt64", math.Float64bits(f)) + ")"
}

// numbers compares an integer column.
func (g *generator) numbers(n *node) string {
	x := n.field.column
	if strings.Contains(x, " ") {
		x = "(" + x + ")"
	}
	one := func(sign string, v *value) string {
		if v.kind == kindFloat {
			return "toFloat64(" + x + ") " + sign + " " + g.float(v.f)
		}
		return x + " " + sign + " " + g.bind("Int64", v.int())
	}
	var cond string
	switch n.op {
	case opPresent:
		if n.field.guard == "" {
			return "true"
		}
		return n.field.guard
	case opIn:
		list := make([]string, len(n.vals))
		for i := range n.vals {
			list[i] = one("=", &n.vals[i])
		}
		cond = "(" + strings.Join(list, " OR ") + ")"
	case opBetween:
		cond = one(">=", &n.vals[0]) + " AND " + one("<=", &n.vals[1])
	default:
		cond = one(n.op.String(), &n.vals[0])
	}
	if n.field.guard != "" {
		cond = n.field.guard + " AND " + cond
	}
	return "(" + cond + ")"
}

// hexes compares a binary identifier.
func (g *generator) hexes(n *node) string {
	size := strconv.Itoa(n.field.bytes)
	x := n.field.column
	id := func(v *value) string {
		return "toFixedString(unhex(" + g.text(hex.EncodeToString([]byte(v.text))) + "), " + size + ")"
	}
	present := x + " != toFixedString('', " + size + ")"
	switch n.op {
	case opPresent:
		return present
	case opEq:
		return x + " = " + id(&n.vals[0])
	case opNe:
		return "(" + present + " AND " + x + " != " + id(&n.vals[0]) + ")"
	case opIn:
		list := make([]string, len(n.vals))
		for i := range n.vals {
			list[i] = id(&n.vals[i])
		}
		return x + " IN (" + strings.Join(list, ", ") + ")"
	}
	return "(" + present + " AND " + g.texts(n, "lower(hex("+x+"))") + ")"
}

// path writes a condition on a value in a JSON body. ClickHouse reads JSON
// whole and strictly and writes numbers in its own way, Match reads up to the
// value and takes it as it is written. Where the two could differ the body is
// unsure: the upper bound takes it in, the lower one does not. Each JSON
// function reads the body anew, so few are asked.
func (g *generator) path(n *node, upper bool) string {
	g.sql.Exact = false
	args := "body"
	var keys []string
	there := ""
	for _, s := range n.path {
		if s.index >= 0 {
			// An index into an object would count its members.
			there += " AND JSONType(" + args + ") = 'Array'"
			args += ", " + g.bind("Int64", int64(s.index)+1)
			continue
		}
		k := g.text(s.key)
		keys = append(keys, "position(body, "+k+") > 0")
		args += ", " + k
	}
	typ := "JSONType(" + args + ")"
	there = typ + " != 'Null'" + there // and so the whole is valid
	cond, unsure := "", ""
	if n.op != opPresent {
		text := "if(" + typ + " = 'String', JSONExtractString(" + args + "), JSONExtractRaw(" + args + "))"
		cond = " AND " + typ + " NOT IN ('Object', 'Array') AND arrayExists(v -> " + g.texts(n, "v") + ", [" + text + "])"
		// How a number was written is not known here, only what it means.
		unsure = typ + " = 'Double' OR " + typ + " = 'Int64' AND JSONExtractRaw(" + args + ") = '0'"
		if n.numeric() {
			unsure = typ + " = 'Double' AND match(JSONExtractRaw(" + args + "), " + sqlInteger + ")"
		}
	}
	long := fmt.Sprintf("length(body) > %d", jsonBytes)
	switch {
	case upper && unsure != "":
		cond = "(" + there + " AND (" + unsure + " OR " + strings.TrimPrefix(cond, " AND ") + ") OR " + typ + " = 'Null' AND NOT isValidJSON(body) OR " + long + ")"
	case upper:
		cond = "(" + there + " OR " + typ + " = 'Null' AND NOT isValidJSON(body) OR " + long + ")"
	case unsure != "":
		cond = "(" + there + " AND NOT (" + long + " OR " + unsure + ")" + cond + ")"
	default:
		cond = "(" + there + " AND NOT " + long + ")"
	}
	if keys == nil {
		return cond
	}
	// A body without the keys, and without an escape that could hide them,
	// need not be read as JSON.
	return "((" + strings.Join(keys, " AND ") + " OR position(body, char(92)) > 0) AND " + cond + ")"
}

// numeric says that all values are numbers.
func (n *node) numeric() bool {
	return !slices.ContainsFunc(n.vals, func(v value) bool { return v.kind != kindInt && v.kind != kindFloat })
}
