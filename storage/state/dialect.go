package state

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
	"time"
)

// dialect is what differs between the two databases. Statements are written once,
// in words that both take: ? for a value, 1 and 0 for yes and no, RETURNING
// instead of the last row's number, CASE instead of max or GREATEST. What cannot
// be said alike is the schema: each dialect has its own files under the same
// numbers.
type dialect struct {
	schema string // directory of the steps
	// migrations makes the table of the steps taken.
	migrations string
	// shared is set where other programs write to the same database.
	shared bool
	// numbered: values are $1, $2, ... in statements.
	numbered bool
	// limit is how long a statement, or a transaction, may take; 0 where there is
	// no network that could swallow the answer.
	limit time.Duration
	tx    *sql.TxOptions
}

// querier is a transaction or the database.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// conn says statements in the dialect of the database it speaks to.
type conn struct {
	querier
	*dialect
}

func (c conn) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return c.querier.QueryContext(c.bound(ctx), c.say(query), c.values(args)...)
}

func (c conn) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return c.querier.QueryRowContext(c.bound(ctx), c.say(query), c.values(args)...)
}

func (c conn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return c.querier.ExecContext(c.bound(ctx), c.say(query), c.values(args)...)
}

// bound gives a call its deadline. What it holds is given back when the time is
// over, because rows are read after the call that has made them returns.
func (d *dialect) bound(ctx context.Context) context.Context {
	if d.limit == 0 {
		return ctx
	}
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// say puts numbered values into a statement.
func (d *dialect) say(query string) string {
	if !d.numbered || !strings.Contains(query, "?") {
		return query
	}
	var b strings.Builder
	n, quoted := 0, false
	for _, c := range []byte(query) {
		switch {
		case c == '\'':
			quoted = !quoted
		case c == '?' && !quoted:
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// values makes of Go's values what both databases keep alike.
func (d *dialect) values(args []any) []any {
	if !d.numbered {
		return args
	}
	out := make([]any, len(args))
	for i, a := range args {
		switch v := a.(type) {
		case bool:
			out[i] = int64(0)
			if v {
				out[i] = int64(1)
			}
		case string:
			out[i] = clean(v)
		default:
			out[i] = a
		}
	}
	return out
}

// clean replaces what PostgreSQL has no text for: bytes that are not UTF-8, and
// NUL. Names and addresses come from anybody, and an entry that cannot be
// written would be one more way around the audit trail.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}
