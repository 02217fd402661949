package clickhouse

import (
	"embed"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

//go:embed query/*.sql
var queryFiles embed.FS

// query is a file of query/ with the database's name in place.
func (s *Store) query(name string) string {
	if text, ok := s.queries.Load(name); ok {
		return text.(string)
	}
	text, err := queryFiles.ReadFile("query/" + name + ".sql")
	if err != nil {
		panic(err) // the name is a constant of this package and the file is embedded
	}
	sql := s.sql(strings.TrimSpace(string(text)))
	s.queries.Store(name, sql)
	return sql
}

// sql puts the database's name, a checked identifier, in place of @db.
func (s *Store) sql(text string) string { return strings.ReplaceAll(text, "@db.", s.database+".") }

// selection is SQL text under construction. Its text comes from constants
// only; everything a user chose is an argument, bound by name.
type selection struct {
	text     strings.Builder
	args     []any
	conds    int
	settings map[string]any

	scopes []scopeMark // see scope.go
	free   bool
}

func newSelection(text string) *selection {
	q := new(selection)
	q.text.WriteString(text)
	return q
}

// where adds a condition, which begins a line of its own.
func (q *selection) where(cond string) {
	if q.conds > 0 {
		q.text.WriteString("\n    AND ")
	} else {
		q.text.WriteString("\n    ")
	}
	q.text.WriteString(cond)
	q.conds++
}

// add adds text that is no condition.
func (q *selection) add(text string) { q.text.WriteString("\n" + text) }

func (q *selection) bind(name string, value any) { q.args = append(q.args, driver.Named(name, value)) }

// set adds a setting of the server for this query.
func (q *selection) set(name string, value any) {
	if q.settings == nil {
		q.settings = make(map[string]any)
	}
	q.settings[name] = value
}

// equal adds a condition on a text column if there is something to compare.
func (q *selection) equal(column, name, value string) {
	if value == "" {
		return
	}
	q.where(column + " = {" + name + ":String}")
	q.bind(name, value)
}

// channel adds a condition on a channel's name: equality, or a pattern as
// controlbus.MatchPattern has it.
func (q *selection) channel(column, pattern string) {
	if !strings.Contains(pattern, "*") {
		q.equal(column, "channel", pattern)
		return
	}
	q.where("match(" + column + ", {pattern:String})")
	q.bind("pattern", filter.Wildcard(pattern))
}

// between bounds a DateTime64(9) column, and the five-minute bucket that
// begins the sort key: without that bound the key is of no use.
func (q *selection) between(column string, r nanoRange, bucket bool) {
	if bucket {
		q.where("toStartOfFiveMinutes(" + column + ") >= toStartOfFiveMinutes(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))")
		q.where("toStartOfFiveMinutes(" + column + ") <= toStartOfFiveMinutes(fromUnixTimestamp64Nano({to:Int64}, 'UTC'))")
	}
	q.where(column + " >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')")
	q.where(column + " < fromUnixTimestamp64Nano({to:Int64}, 'UTC')")
	q.bind("from", r.from)
	q.bind("to", r.to)
}

// fixed is a condition on a binary id. The argument travels as hexadecimal
// digits, because text parameters are no place for arbitrary bytes.
func (q *selection) fixed(column, name string, id []byte) {
	q.where(fmt.Sprintf("%s = toFixedString(unhex({%s:String}), %d)", column, name, len(id)))
	q.bind(name, hex.EncodeToString(id))
}

// set is a column of which a value is one of several. The values are a subquery
// because indexes are used for that, and not for an array, and travel as
// hexadecimal digits like every id.
type set struct {
	cond, name string
	values     []string
}

// idSet is the set of a binary id.
func idSet(column, name string, ids [][16]byte) set {
	s := set{cond: fmt.Sprintf("%s IN (SELECT toFixedString(unhex(arrayJoin({%s:Array(String)})), 16))", column, name), name: name}
	for i := range ids {
		s.values = append(s.values, hex.EncodeToString(ids[i][:]))
	}
	return s
}

// textSet is the set of a text column.
func textSet(column, name string, values []string) set {
	return set{cond: fmt.Sprintf("%s IN (SELECT unhex(arrayJoin({%s:Array(String)})))", column, name), name: name, values: hexed(values)}
}

// hexed are texts as hexadecimal digits: parameters are no place for arbitrary bytes.
func hexed(values []string) []string {
	var list []string
	for _, v := range values {
		list = append(list, hex.EncodeToString([]byte(v)))
	}
	return list
}

// anyOf is the condition that a row is in one of the sets; empty ones are left
// out.
func (q *selection) anyOf(sets ...set) {
	var conds []string
	for _, s := range sets {
		if len(s.values) > 0 {
			conds = append(conds, s.cond)
			q.bind(s.name, s.values)
		}
	}
	q.where("(" + strings.Join(conds, " OR ") + ")")
}

// noneOf is the condition that a row is not in the set; an empty one is none.
func (q *selection) noneOf(s set) {
	if len(s.values) > 0 {
		q.where("NOT (" + s.cond + ")")
		q.bind(s.name, s.values)
	}
}

func (q *selection) String() string { return q.text.String() }

// nanoRange is a storage.TimeRange in nanoseconds, within what the store can
// hold. An empty side is open.
type nanoRange struct{ from, to int64 }

func nanos(r storage.TimeRange) nanoRange {
	n := nanoRange{from: minTime, to: maxTime}
	if !r.From.IsZero() {
		n.from = nanosOf(r.From)
	}
	if !r.To.IsZero() {
		n.to = nanosOf(r.To)
	}
	return n
}

// nanosOf does not overflow for times nobody means.
func nanosOf(t time.Time) int64 {
	switch sec := t.Unix(); {
	case sec < minTime/1e9:
		return minTime
	case sec > maxTime/1e9:
		return maxTime
	}
	return t.UnixNano()
}

func (r nanoRange) empty() bool { return r.from >= r.to }

func instant(ns int64) time.Time { return time.Unix(0, ns).UTC() }
