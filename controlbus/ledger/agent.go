package ledger

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Outbox is what is to be sent to an agent; empty means all of them.
func (l *Ledger) Outbox(ctx context.Context, agent string) ([]Outgoing, error) {
	box, err := l.store.Outbox(ctx, agent)
	if err != nil {
		return nil, err
	}
	for i := range box {
		if box[i].What != SendControl {
			continue
		}
		c, err := l.store.Command(ctx, box[i].Command)
		if err != nil {
			return nil, err
		}
		box[i].Control = c.Control
	}
	return box, nil
}

// Held are the commands that the agent may hold: sent, and not ended.
func (l *Ledger) Held(ctx context.Context, agent string) ([]controlbus.Command, error) {
	return l.store.Commands(ctx, Query{
		Agent: agent, Scope: controlbus.Everything(), Limit: 500,
		States: []controlbus.CommandState{controlbus.CommandDispatched, controlbus.CommandAccepted, controlbus.CommandRunning, controlbus.CommandUnconfirmed},
	})
}

// SentTo returns a command that the agent holds, and only while it does: errors
// are controlbus.ErrNotFound, for another agent's as well, and ErrConflict for
// one that has not been sent or has ended.
// An empty agent stands for one without a name of its own: any may ask then.
func (l *Ledger) SentTo(ctx context.Context, agent string, id controlbus.CommandID) (controlbus.Command, error) {
	c, err := l.store.Command(ctx, id)
	switch {
	case err != nil:
		return controlbus.Command{}, err
	case agent != "" && c.Target.Agent != agent:
		return controlbus.Command{}, fmt.Errorf("ledger: command %s: %w", id, controlbus.ErrNotFound)
	case !c.State.Sent():
		return controlbus.Command{}, fmt.Errorf("ledger: command %s: %w: it is %s", id, controlbus.ErrConflict, c.State.Title())
	}
	return c, nil
}

// Session is the agent's connection over which a command is to be sent, and the
// journal that would remember it.
type Session struct {
	Agent   string
	Epoch   uint64
	Journal string // its random ID
	Head    uint64 // how many records it has
}

// Dispatch notes, before anything is sent, that a command goes out over a
// session, and returns it with what is left of the time to accept it. ok is
// false where it must not be sent: it has ended or has just expired; or the
// journal that might remember it is gone or set back, and what it does must not
// be done twice, so that it is indeterminate now.
func (l *Ledger) Dispatch(ctx context.Context, s Session, id controlbus.CommandID) (c controlbus.Command, left time.Duration, ok bool, err error) {
	c, err = l.quietly(ctx, id, func(tx Tx, c *controlbus.Command, step func(Event) error) error {
		ok = false // this may be another try
		if c.Target.Agent != s.Agent {
			return fmt.Errorf("ledger: dispatch %s: %w: it is not for agent %q", id, controlbus.ErrDenied, s.Agent)
		}
		now := l.now()
		info, _ := c.Kind.Info()
		left = c.Deadline().Sub(now)
		switch {
		case c.State.Terminal():
			return tx.Unqueue(id, "")
		case c.State == controlbus.CommandQueued && left <= 0:
			return step(Event{Type: EventExpired, Actor: system, Detail: "no agent took it up in time"})
		case c.State != controlbus.CommandQueued && !c.State.Sent():
			return tx.Unqueue(id, SendDispatch)
		case c.State.Sent() && c.Class == controlbus.EffectDestructive && !info.Resumable && (s.Journal != c.Journal || s.Head < c.JournalHead):
			return step(Event{Type: EventAbandoned, Actor: system, Detail: "the agent's journal was lost or set back since it was sent: whether it was done is not known"})
		}
		ok = true
		return step(Event{Type: EventDispatched, Actor: system, Epoch: s.Epoch, Journal: s.Journal, Head: s.Head})
	})
	if err != nil {
		return c, 0, false, err
	}
	// An agent that holds it knows its own time; one that does not has missed
	// the time if it has passed, and says so.
	return c, max(left, 0), ok, nil
}

// AgentEvent is what an agent says of a command. Its number is given by the
// agent's journal, which never reuses it for another event of that command.
type AgentEvent struct {
	Command  controlbus.CommandID
	Seq      int64
	Type     EventType // accepted, progress, result
	Head     uint64    // of the journal, with the event in it
	Journal  string
	Progress *controlbus.CommandProgress
	Result   *controlbus.CommandResult
}

// Merge takes an agent's word into the ledger, once: repeating it changes
// nothing. Once it has returned nil the agent may forget. Errors are
// controlbus.ErrNotFound for a command the ledger never had, ErrDenied for one
// of another agent, ErrInvalid, and ErrConflict for one that, as far as the
// ledger knows, nobody has consented to yet.
func (l *Ledger) Merge(ctx context.Context, agent string, e AgentEvent) error {
	switch {
	case e.Seq <= 0 || !e.Command.Valid():
		return fmt.Errorf("ledger: merge: %w: want a command and a number", controlbus.ErrInvalid)
	case e.Type == EventResult && (e.Result == nil || !e.Result.Outcome.Result()), e.Type == EventProgress && e.Progress == nil,
		e.Type != EventAccepted && e.Type != EventProgress && e.Type != EventResult:
		return fmt.Errorf("ledger: merge %s: %w: event %.20q", e.Command, controlbus.ErrInvalid, string(e.Type))
	}
	_, err := l.quietly(ctx, e.Command, func(tx Tx, c *controlbus.Command, step func(Event) error) error {
		if c.Target.Agent != agent {
			return fmt.Errorf("ledger: merge %s: %w: it is not agent %q's", e.Command, controlbus.ErrDenied, agent)
		}
		seen, err := tx.Seen(e.Command, e.Journal, e.Seq)
		if seen || err != nil {
			return err
		}
		if e.Result != nil && c.Result != nil && reflect.DeepEqual(*e.Result, *c.Result) {
			return nil // told again by a journal that has another name now
		}
		by := controlbus.Actor{Kind: "agent", ID: agent, Name: agent}
		switch {
		case c.State == controlbus.CommandQueued:
			// The ledger is older than what it sent: it was restored.
			if err := step(Event{Type: EventDispatched, Actor: system, Journal: e.Journal, Head: e.Head, Detail: "the agent has it already"}); err != nil {
				return err
			}
		case !c.State.Sent() && !c.State.Terminal():
			return fmt.Errorf("ledger: merge %s: %w: it is %s", e.Command, controlbus.ErrConflict, c.State.Title())
		case c.State.Terminal() && e.Type != EventResult:
			return nil
		}
		if err := step(Event{Type: e.Type, AgentSeq: e.Seq, Actor: by, Journal: e.Journal, Head: e.Head, Progress: e.Progress, Result: e.Result}); err != nil {
			return err
		}
		if p := e.Progress; p != nil && p.Job != nil && c.Control.Seq > 0 && p.Job.Control >= c.Control.Seq {
			if err := tx.Unqueue(e.Command, SendControl); err != nil {
				return err
			}
		}
		if c.State == controlbus.CommandAccepted || c.State == controlbus.CommandRunning {
			return tx.Unqueue(e.Command, SendDispatch)
		}
		return nil
	})
	return err
}

// quietly is change without waking the link, which is who calls.
func (l *Ledger) quietly(ctx context.Context, id controlbus.CommandID, f func(Tx, *controlbus.Command, func(Event) error) error) (controlbus.Command, error) {
	var c controlbus.Command
	var seq int64
	err := l.store.ChangeLedger(ctx, func(tx Tx) error {
		var err error
		if c, err = tx.Command(id); err != nil {
			return err
		}
		seq = c.Seq
		return f(tx, &c, l.stepper(ctx, tx, &c, id))
	})
	if err != nil {
		return controlbus.Command{}, err
	}
	if c.Seq != seq {
		l.tell("")
	}
	return c, nil
}

// Tick lets time pass: requests nobody consented to and commands no agent came
// for expire; commands whose agent is not heard of past their time become
// unconfirmed. It is called every few seconds. online says whether an agent is
// connected.
func (l *Ledger) Tick(ctx context.Context, online func(agent string) bool) error {
	var errs []error
	open := Query{Open: true, Scope: controlbus.Everything(), Limit: 500}
	for {
		page, err := l.store.Commands(ctx, open)
		if err != nil {
			return err
		}
		for i := range page {
			if l.due(&page[i], online) == "" {
				continue
			}
			_, err := l.quietly(ctx, page[i].ID, func(_ Tx, c *controlbus.Command, step func(Event) error) error {
				switch l.due(c, online) { // as it is now
				case EventExpired:
					why := "no agent took it up in time"
					if c.State == controlbus.CommandAwaitingApproval {
						why = "nobody consented in time"
					}
					return step(Event{Type: EventExpired, Actor: system, Detail: why})
				case EventUnconfirmed:
					return step(Event{Type: EventUnconfirmed, Actor: system, Detail: "the agent has not been heard of; it may have done it"})
				}
				return nil
			})
			errs = append(errs, err)
		}
		if len(page) < open.Limit {
			return errors.Join(errs...)
		}
		open.Before = page[len(page)-1].ID
	}
}

// due is what time makes of a command.
func (l *Ledger) due(c *controlbus.Command, online func(string) bool) EventType {
	now := l.now()
	switch c.State {
	case controlbus.CommandRequested, controlbus.CommandAwaitingApproval:
		if now.After(c.RequestedAt.Add(l.cfg.ApproveWithin)) {
			return EventExpired
		}
	case controlbus.CommandApproved, controlbus.CommandQueued:
		if now.After(c.Deadline()) {
			return EventExpired
		}
	case controlbus.CommandDispatched, controlbus.CommandAccepted, controlbus.CommandRunning:
		end := c.Deadline()
		if !c.AcceptedAt.IsZero() {
			end = c.AcceptedAt.Add(c.RunWithin)
		}
		if now.After(end.Add(grace)) && !online(c.Target.Agent) {
			return EventUnconfirmed
		}
	}
	return ""
}
