package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
)

var _ ledger.Store = (*Store)(nil)

// pageOfCommands is how many commands are read at a time, of those that the
// database can select.
const pageOfCommands = 500

// ledgerTx is one transaction on the ledger.
type ledgerTx struct {
	ctx   context.Context
	tx    querier
	agent *string // of the command that was changed last
}

// ChangeLedger implements ledger.Store.
func (s *Store) ChangeLedger(ctx context.Context, f func(ledger.Tx) error) error {
	var own error // what f said is returned as it is
	err := s.inTx(ctx, "ledger", func(tx querier) error {
		var agent string
		if own = f(ledgerTx{ctx, tx, &agent}); own != nil || agent == "" {
			return own
		}
		return s.notify(ctx, tx, agent)
	})
	if own != nil {
		return own
	}
	return err
}

func command(ctx context.Context, q querier, id controlbus.CommandID) (controlbus.Command, error) {
	var c controlbus.Command
	var body string
	if err := q.QueryRowContext(ctx, `SELECT body FROM commands WHERE id = ?`, string(id)).Scan(&body); err != nil {
		return c, fmt.Errorf("state: command %s: %w", id, known(err))
	}
	if err := json.Unmarshal([]byte(body), &c); err != nil {
		return c, fmt.Errorf("state: command %s: %w", id, known(err))
	}
	return c, nil
}

func (t ledgerTx) Command(id controlbus.CommandID) (controlbus.Command, error) {
	return command(t.ctx, t.tx, id)
}

func (t ledgerTx) Seen(id controlbus.CommandID, journal string, agentSeq int64) (bool, error) {
	var n int
	err := t.tx.QueryRowContext(t.ctx, `SELECT count(*) FROM command_events WHERE command_id = ? AND journal = ? AND agent_seq = ?`, string(id), journal, agentSeq).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("state: command %s: %w", id, known(err))
	}
	return n > 0, nil
}

func (t ledgerTx) Append(c *controlbus.Command, e ledger.Event) error {
	fresh := c.ID == ""
	if err := ledger.Fold(c, e); err != nil {
		return err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("state: command %s: %w", c.ID, known(err))
	}
	event, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("state: command %s: %w", c.ID, known(err))
	}
	if fresh {
		ch := c.Target.Channel
		_, err = t.tx.ExecContext(t.ctx, `INSERT INTO commands (id, state, open, kind, agent, env, broker, channel, requester, requested_at, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			string(c.ID), string(c.State), !c.State.Terminal(), string(c.Kind), c.Target.Agent, ch.Env, ch.Broker, ch.Name, c.RequestedBy.ID, nanos(c.RequestedAt), string(body))
	} else {
		_, err = t.tx.ExecContext(t.ctx, `UPDATE commands SET state = ?, open = ?, body = ? WHERE id = ?`, string(c.State), !c.State.Terminal(), string(body), string(c.ID))
	}
	if err != nil {
		return fmt.Errorf("state: command %s: %w", c.ID, known(err))
	}
	if _, err := t.tx.ExecContext(t.ctx, `INSERT INTO command_events (command_id, n, journal, agent_seq, at, type, body) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		string(c.ID), c.Seq, e.Journal, e.AgentSeq, nanos(e.At), string(e.Type), string(event)); err != nil {
		return fmt.Errorf("state: event of command %s: %w", c.ID, known(err))
	}
	*t.agent = c.Target.Agent
	return nil
}

func (t ledgerTx) Lock(resource string, id controlbus.CommandID) error {
	var has string
	err := t.tx.QueryRowContext(t.ctx, `SELECT command_id FROM command_locks WHERE resource = ?`, resource).Scan(&has)
	switch {
	case err == nil && has == string(id):
		return nil
	case err == nil:
		return ledger.Locked(resource, controlbus.CommandID(has))
	case !errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("state: lock: %w", known(err))
	}
	if _, err := t.tx.ExecContext(t.ctx, `INSERT INTO command_locks (resource, command_id) VALUES (?, ?)`, resource, string(id)); err != nil {
		return fmt.Errorf("state: lock: %w", known(err))
	}
	return nil
}

func (t ledgerTx) Unlock(id controlbus.CommandID) error {
	if _, err := t.tx.ExecContext(t.ctx, `DELETE FROM command_locks WHERE command_id = ?`, string(id)); err != nil {
		return fmt.Errorf("state: unlock: %w", known(err))
	}
	return nil
}

func (t ledgerTx) Queue(o ledger.Outgoing) error {
	if _, err := t.tx.ExecContext(t.ctx, `INSERT INTO command_outbox (command_id, what, agent) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, string(o.Command), string(o.What), o.Agent); err != nil {
		return fmt.Errorf("state: outbox: %w", known(err))
	}
	return nil
}

func (t ledgerTx) Unqueue(id controlbus.CommandID, what ledger.What) error {
	if _, err := t.tx.ExecContext(t.ctx, `DELETE FROM command_outbox WHERE command_id = ? AND (? = '' OR what = ?)`, string(id), string(what), string(what)); err != nil {
		return fmt.Errorf("state: outbox: %w", known(err))
	}
	return nil
}

func (t ledgerTx) Audit(e access.Event) error {
	if err := addEvent(t.ctx, t.tx, e); err != nil {
		return fmt.Errorf("state: audit %s: %w", e.Code, known(err))
	}
	return nil
}

// Command implements ledger.Store.
func (s *Store) Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error) {
	return command(ctx, s.db, id)
}

// CommandEvents implements ledger.Store.
func (s *Store) CommandEvents(ctx context.Context, id controlbus.CommandID) ([]ledger.Event, error) {
	return s.commandEvents(ctx, `command_id = ? ORDER BY n`, string(id))
}

// EventsAfter implements ledger.Store.
func (s *Store) EventsAfter(ctx context.Context, seq int64, limit int) ([]ledger.Event, error) {
	return s.commandEvents(ctx, `seq > ? ORDER BY seq LIMIT ?`, seq, limit)
}

func (s *Store) commandEvents(ctx context.Context, where string, args ...any) ([]ledger.Event, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT seq, command_id, n, agent_seq, at, type, body FROM command_events WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("state: events of commands: %w", known(err))
	}
	defer rows.Close()
	var all []ledger.Event
	for rows.Next() {
		var (
			e              ledger.Event
			id, kind, body string
			when           int64
		)
		if err := rows.Scan(&e.Seq, &id, &e.N, &e.AgentSeq, &when, &kind, &body); err != nil {
			return nil, fmt.Errorf("state: events of commands: %w", known(err))
		}
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			return nil, fmt.Errorf("state: event %d: %w", e.Seq, known(err))
		}
		e.Command, e.Type, e.At = controlbus.CommandID(id), ledger.EventType(kind), at(when)
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: events of commands: %w", known(err))
	}
	return all, nil
}

// Commands implements ledger.Store.
func (s *Store) Commands(ctx context.Context, q ledger.Query) ([]controlbus.Command, error) {
	where, args := []string{"1 = 1"}, []any{}
	add := func(clause string, arg ...any) { where, args = append(where, clause), append(args, arg...) }
	for _, f := range []struct{ column, value string }{
		{"agent", q.Agent}, {"env", q.Env}, {"broker", q.Broker}, {"kind", string(q.Kind)}, {"requester", q.Requester},
	} {
		if f.value != "" {
			add(f.column+" = ?", f.value)
		}
	}
	if q.Before != "" {
		add("id < ?", string(q.Before))
	}
	if q.Open {
		add("open = 1")
	}
	if len(q.States) > 0 {
		var states []any
		terminal := false
		for _, st := range q.States {
			states, terminal = append(states, string(st)), terminal || st.Terminal()
		}
		add("state IN (?"+strings.Repeat(", ?", len(states)-1)+")", states...)
		if !terminal {
			add("open = 1") // for the index
		}
	}
	if q.Channel != "" && !strings.Contains(q.Channel, "*") {
		add("channel = ?", q.Channel)
	}
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 500)
	var all []controlbus.Command
	for page, begin := 0, where; ; page++ {
		statement := `SELECT body FROM commands WHERE ` + strings.Join(where, " AND ") + ` ORDER BY id DESC LIMIT ?`
		some, err := s.commands(ctx, statement, append(slices.Clone(args), pageOfCommands))
		if err != nil {
			return nil, fmt.Errorf("state: commands: %w", known(err))
		}
		for _, c := range some {
			if q.Matches(&c) { // patterns, times and the scope
				all = append(all, c)
			}
			if len(all) == limit {
				return all, nil
			}
		}
		if len(some) < pageOfCommands {
			return all, nil
		}
		last := string(some[len(some)-1].ID)
		if page == 0 {
			where, args = append(slices.Clone(begin), "id < ?"), append(args, last)
		} else {
			args[len(args)-1] = last
		}
	}
}

func (s *Store) commands(ctx context.Context, statement string, args []any) ([]controlbus.Command, error) {
	rows, err := s.db.QueryContext(ctx, statement, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []controlbus.Command
	for rows.Next() {
		var body string
		var c controlbus.Command
		if err := rows.Scan(&body); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(body), &c); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, rows.Err()
}

// Outbox implements ledger.Store.
func (s *Store) Outbox(ctx context.Context, agent string) ([]ledger.Outgoing, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT agent, command_id, what FROM command_outbox WHERE ? = '' OR agent = ? ORDER BY command_id, what DESC`, agent, agent)
	if err != nil {
		return nil, fmt.Errorf("state: outbox: %w", known(err))
	}
	defer rows.Close()
	var all []ledger.Outgoing
	for rows.Next() {
		var o ledger.Outgoing
		if err := rows.Scan(&o.Agent, &o.Command, &o.What); err != nil {
			return nil, fmt.Errorf("state: outbox: %w", known(err))
		}
		all = append(all, o)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: outbox: %w", known(err))
	}
	return all, nil
}
