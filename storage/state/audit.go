package state

import (
	"context"
	"fmt"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// AddEvent implements access.Store.
func (s *Store) AddEvent(ctx context.Context, e access.Event) error {
	return s.inTx(ctx, "audit "+e.Code, func(tx querier) error { return addEvent(ctx, tx, e) })
}

// Events implements access.Store.
func (s *Store) Events(ctx context.Context, q access.EventQuery) ([]access.Event, error) {
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	where, args := []string{"1 = 1"}, []any{}
	add := func(clause string, arg any) { where, args = append(where, clause), append(args, arg) }
	if q.Before > 0 {
		add("seq < ?", q.Before)
	}
	if q.Code != "" {
		add(`code LIKE ? ESCAPE '\'`, strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`, `*`, `%`).Replace(strings.ToLower(q.Code)))
	}
	if q.Actor != "" {
		add("lower(actor_name) = ?", strings.ToLower(q.Actor))
	}
	if q.Env != "" {
		add("env = ?", q.Env)
	}
	if q.Channel != "" {
		// The ledger writes broker/channel, others the channel alone.
		like := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`, `*`, `%`).Replace(strings.ToLower(q.Channel))
		where, args = append(where, `(lower(channel) LIKE ? ESCAPE '\' OR lower(channel) LIKE ? ESCAPE '\')`), append(args, like, "%/"+like)
	}
	if !q.From.IsZero() {
		add("at >= ?", nanos(q.From))
	}
	if !q.To.IsZero() {
		add("at < ?", nanos(q.To))
	}
	rows, err := s.db.QueryContext(ctx, `SELECT seq, at, actor_kind, actor_id, actor_name, code, target, env, channel, refused, detail, address
		FROM audit WHERE `+strings.Join(where, " AND ")+` ORDER BY seq DESC LIMIT ?`, append(args, min(limit, 500))...)
	if err != nil {
		return nil, fmt.Errorf("state: audit: %w", known(err))
	}
	defer rows.Close()
	var all []access.Event
	for rows.Next() {
		var (
			e    access.Event
			when int64
			kind string
		)
		if err := rows.Scan(&e.Seq, &when, &kind, &e.Actor.ID, &e.Actor.Name, &e.Code, &e.Target, &e.Env, &e.Channel, &e.Refused, &e.Detail, &e.Address); err != nil {
			return nil, fmt.Errorf("state: audit: %w", known(err))
		}
		e.At, e.Actor.Kind = at(when), access.Kind(kind)
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: audit: %w", known(err))
	}
	return all, nil
}
