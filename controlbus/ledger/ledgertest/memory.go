// Package ledgertest has a ledger's store in memory, for tests and simulations.
// It keeps the promises of ledger.Store but durability: what it has outlives
// whoever uses it, as a database outlives a process that was killed.
package ledgertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
)

// Memory is a ledger.Store. It is safe for concurrent use.
type Memory struct {
	mu       sync.Mutex
	commands map[controlbus.CommandID]controlbus.Command
	events   []ledger.Event
	locks    map[string]controlbus.CommandID
	outbox   map[outboxKey]ledger.Outgoing
	audit    []access.Event
	seen     map[seenKey]bool
}

type outboxKey struct {
	id   controlbus.CommandID
	what ledger.What
}

type seenKey struct {
	id      controlbus.CommandID
	journal string
	seq     int64
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{
		commands: map[controlbus.CommandID]controlbus.Command{}, locks: map[string]controlbus.CommandID{},
		outbox: map[outboxKey]ledger.Outgoing{}, seen: map[seenKey]bool{},
	}
}

// tx undoes what it did where f fails.
type tx struct {
	m    *Memory
	undo []func()
}

// ChangeLedger implements ledger.Store.
func (m *Memory) ChangeLedger(_ context.Context, f func(ledger.Tx) error) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := &tx{m: m}
	ok := false
	defer func() { // a panic of a simulated crash rolls back, too
		if !ok {
			for _, u := range slices.Backward(t.undo) {
				u()
			}
		}
	}()
	if err := f(t); err != nil {
		return err
	}
	ok = true
	return nil
}

func (t *tx) Command(id controlbus.CommandID) (controlbus.Command, error) {
	c, ok := t.m.commands[id]
	if !ok {
		return c, fmt.Errorf("command %s: %w", id, controlbus.ErrNotFound)
	}
	return c, nil
}

func (t *tx) Seen(id controlbus.CommandID, journal string, agentSeq int64) (bool, error) {
	return t.m.seen[seenKey{id, journal, agentSeq}], nil
}

func (t *tx) Append(c *controlbus.Command, e ledger.Event) error {
	if err := ledger.Fold(c, e); err != nil {
		return err
	}
	m := t.m
	old, had := m.commands[c.ID]
	n := len(m.events)
	t.undo = append(t.undo, func() {
		m.events = m.events[:n]
		delete(m.seen, seenKey{e.Command, e.Journal, e.AgentSeq})
		if had {
			m.commands[e.Command] = old
		} else {
			delete(m.commands, e.Command)
		}
	})
	e.Seq, e.N = int64(n+1), c.Seq
	m.events = append(m.events, e)
	if e.AgentSeq > 0 {
		m.seen[seenKey{e.Command, e.Journal, e.AgentSeq}] = true
	}
	m.commands[c.ID] = *c
	return nil
}

func (t *tx) Lock(resource string, id controlbus.CommandID) error {
	if has, ok := t.m.locks[resource]; ok && has != id {
		return ledger.Locked(resource, has)
	}
	t.m.locks[resource] = id
	t.undo = append(t.undo, func() { delete(t.m.locks, resource) })
	return nil
}

func (t *tx) Unlock(id controlbus.CommandID) error {
	for r, has := range t.m.locks {
		if has == id {
			delete(t.m.locks, r)
			t.undo = append(t.undo, func() { t.m.locks[r] = id })
		}
	}
	return nil
}

func (t *tx) Queue(o ledger.Outgoing) error {
	k := outboxKey{o.Command, o.What}
	if _, ok := t.m.outbox[k]; !ok {
		t.m.outbox[k] = o
		t.undo = append(t.undo, func() { delete(t.m.outbox, k) })
	}
	return nil
}

func (t *tx) Unqueue(id controlbus.CommandID, what ledger.What) error {
	for _, w := range []ledger.What{ledger.SendDispatch, ledger.SendCancel, ledger.SendControl} {
		k := outboxKey{id, w}
		if o, ok := t.m.outbox[k]; ok && (what == "" || what == w) {
			delete(t.m.outbox, k)
			t.undo = append(t.undo, func() { t.m.outbox[k] = o })
		}
	}
	return nil
}

func (t *tx) Audit(e access.Event) error {
	n := len(t.m.audit)
	e.Seq = int64(n + 1)
	t.m.audit = append(t.m.audit, e)
	t.undo = append(t.undo, func() { t.m.audit = t.m.audit[:n] })
	return nil
}

// Command implements ledger.Store.
func (m *Memory) Command(_ context.Context, id controlbus.CommandID) (controlbus.Command, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return (&tx{m: m}).Command(id)
}

// CommandEvents implements ledger.Store.
func (m *Memory) CommandEvents(_ context.Context, id controlbus.CommandID) ([]ledger.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []ledger.Event
	for _, e := range m.events {
		if e.Command == id {
			all = append(all, e)
		}
	}
	return all, nil
}

// EventsAfter implements ledger.Store.
func (m *Memory) EventsAfter(_ context.Context, seq int64, limit int) ([]ledger.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := min(max(int(seq), 0), len(m.events))
	return slices.Clone(m.events[from:min(from+limit, len(m.events))]), nil
}

// Commands implements ledger.Store.
func (m *Memory) Commands(_ context.Context, q ledger.Query) ([]controlbus.Command, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	var all []controlbus.Command
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(m.commands))) {
		if c := m.commands[id]; q.Matches(&c) {
			all = append(all, c)
			if len(all) >= min(limit, 500) {
				break
			}
		}
	}
	return all, nil
}

// Outbox implements ledger.Store.
func (m *Memory) Outbox(_ context.Context, agent string) ([]ledger.Outgoing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []ledger.Outgoing
	for _, o := range m.outbox {
		if agent == "" || o.Agent == agent {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b ledger.Outgoing) int {
		switch {
		case a.Command < b.Command, a.Command == b.Command && a.What > b.What: // dispatch before cancel
			return -1
		case a == b:
			return 0
		}
		return 1
	})
	return all, nil
}

// Events reads the audit trail, newest first.
func (m *Memory) Events(_ context.Context, q access.EventQuery) ([]access.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	var all []access.Event
	for _, e := range slices.Backward(m.audit) {
		if (q.Before == 0 || e.Seq < q.Before) && (q.Code == "" || controlbus.MatchPattern(q.Code, e.Code)) && len(all) < limit {
			all = append(all, e)
		}
	}
	return all, nil
}
