package clickhouse

import (
	"context"
	"fmt"
	"strings"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// A context may carry a controlbus.Scope: the channels and environments that its
// reader may see. Each query says by which columns it can be limited (visible),
// or that there is nothing to limit in it (unlimited). One that says neither is
// refused for limited readers: what was forgotten shows nothing.

// visible says, right behind the conditions, that rows belong to an environment
// and a channel. Without a channel's column the environment alone decides.
func (q *selection) visible(env, channel string) {
	if q.conds == 0 {
		q.where("1") // the condition of the scope follows another one
	}
	q.scopes = append(q.scopes, scopeMark{q.text.Len(), env, channel})
}

// unlimited says that a query tells nothing that is limited. The reason is for
// whoever reads the code.
func (q *selection) unlimited(string) *selection {
	q.free = true
	return q
}

// scopeMark is where the condition of a scope comes, and on what.
type scopeMark struct {
	at           int
	env, channel string
}

// limitedTo is the text and the arguments of a query for the reader in ctx.
func (q *selection) limitedTo(ctx context.Context) (string, []any, error) {
	text := q.String()
	scope, ok := controlbus.ScopeFrom(ctx)
	if !ok || scope.All() || q.free {
		return text, q.args, nil
	}
	if len(q.scopes) == 0 {
		return "", nil, fmt.Errorf("this query cannot be limited to what you may see: %w", controlbus.ErrDenied)
	}
	args := q.args[:len(q.args):len(q.args)]
	for i := len(q.scopes) - 1; i >= 0; i-- { // from behind, so that places hold
		m := q.scopes[i]
		cond, more := m.condition(scope, i == 0)
		text = text[:m.at] + cond + text[m.at:]
		args = append(args, more...)
	}
	return text, args, nil
}

// condition is the scope as SQL. Its text depends on the number and the kind of
// the rules; what they name is bound. Arguments are the same for all marks of a
// query, so only one of them brings them.
func (m scopeMark) condition(scope controlbus.Scope, bring bool) (string, []any) {
	if scope.None() {
		return "\n    AND 0", nil
	}
	var b strings.Builder
	var args []any
	for i, set := range scope.Sets() {
		b.WriteString("\n    AND (")
		for j, r := range set {
			if j > 0 {
				b.WriteString(" OR ")
			}
			name := fmt.Sprintf("scope_%d_%d", i, j)
			parts := []string{}
			match := func(column, param, pattern string) {
				switch {
				case column == "" || pattern == "*":
					return
				case strings.Contains(pattern, "*"):
					parts, args = append(parts, "match("+column+", {"+param+":String})"), append(args, driver.Named(param, filter.Wildcard(pattern)))
				default:
					parts, args = append(parts, column+" = {"+param+":String}"), append(args, driver.Named(param, pattern))
				}
			}
			match(m.env, name+"_env", r.Env)
			match(m.channel, name+"_channel", r.Channel)
			if len(parts) == 0 {
				parts = []string{"1"}
			}
			b.WriteString("(" + strings.Join(parts, " AND ") + ")")
		}
		b.WriteString(")")
	}
	if !bring {
		args = nil
	}
	return b.String(), args
}
