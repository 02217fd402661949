package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// grace is how long past its time an agent's answer is waited for before a
// command counts as unconfirmed.
const grace = time.Minute

// Ledger is safe for concurrent use.
type Ledger struct {
	cfg   Config
	store Store
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, at every change
	wake    func(agent string)
}

// New returns a ledger over a store.
func New(cfg Config, store Store, log *slog.Logger) (*Ledger, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	return &Ledger{cfg: cfg, store: store, log: log, now: time.Now, changed: make(chan struct{})}, nil
}

// Wake names who is called, after the commit, when something is to be sent to
// an agent. It must not block. It is set once, before the ledger is used.
func (l *Ledger) Wake(f func(agent string)) { l.wake = f }

// Clock replaces the console's clock; for tests.
func (l *Ledger) Clock(now func() time.Time) { l.now = now }

// Changed is closed at the next change of any command.
func (l *Ledger) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Heard is to be called when another console that shares the store has changed a
// command of the agent, or, with an empty one, may have changed any.
func (l *Ledger) Heard(agent string) { l.tell(agent) }

func (l *Ledger) tell(agent string) {
	l.mu.Lock()
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	if agent != "" && l.wake != nil {
		l.wake(agent)
	}
}

// Policy is what holds for a class of commands in an environment.
func (l *Ledger) Policy(env string, class controlbus.EffectClass) controlbus.ApprovalPolicy {
	return l.cfg.Policy(env, class)
}

// Action is what an identity needs to request a kind of command.
func Action(kind controlbus.CommandKind) access.Action {
	switch kind {
	case controlbus.CommandTap, controlbus.CommandUntap:
		return access.RequestTap
	case controlbus.CommandPeek:
		return access.ReadBody
	}
	if kind.Class() == controlbus.EffectDestructive {
		return access.Destroy
	}
	return access.Operate
}

// Request is a command asked for.
type Request struct {
	controlbus.CommandSpec
	// Typed is the channel's name as the requester typed it, where the policy
	// asks for that.
	Typed string
}

// Request enters a command for the identity in ctx. It is durable when it
// returns. Errors are controlbus.ErrDenied without the right; ErrInvalid for
// what can never be accepted, a name not typed included; ErrConflict for a stale
// preview, a channel on which a destructive command stands already, or an effect
// that is being undone already.
func (l *Ledger) Request(ctx context.Context, r Request) (controlbus.Command, error) {
	now := l.now()
	if err := r.Check(); err != nil {
		return controlbus.Command{}, fmt.Errorf("ledger: %w", err)
	}
	ch := r.Target.Channel
	by, err := l.may(ctx, Action(r.Kind), "command.request", string(r.Kind), ch)
	if err != nil {
		return controlbus.Command{}, err
	}
	if d := r.Destination; d != nil {
		if _, err := l.may(ctx, access.Operate, "command.request", string(r.Kind)+" to "+d.String(), *d); err != nil {
			return controlbus.Command{}, err
		}
	}
	if p := r.Preview; p != nil && now.Sub(p.TakenAt) > controlbus.PreviewMaxAge {
		return controlbus.Command{}, fmt.Errorf("ledger: %w: the preview is of %s, older than %v: take it again", controlbus.ErrConflict, p.TakenAt.UTC().Format(time.DateTime), controlbus.PreviewMaxAge)
	}
	policy := l.cfg.Policy(ch.Env, r.Kind.Class())
	if policy == controlbus.ApproveByName && r.Typed != ch.Name {
		return controlbus.Command{}, fmt.Errorf("ledger: %w: in %s this needs the channel's name typed: %q", controlbus.ErrInvalid, ch.Env, ch.Name)
	}
	spec := r.CommandSpec
	id := controlbus.NewCommandID(now)
	var c controlbus.Command
	err = l.store.ChangeLedger(ctx, func(tx Tx) error {
		c = controlbus.Command{}
		step := l.stepper(ctx, tx, &c, id)
		if spec.UndoOf != "" {
			if err := l.undo(ctx, tx, spec, id, by); err != nil {
				return err
			}
		}
		if spec.Kind.Class() == controlbus.EffectDestructive {
			if err := tx.Lock(spec.Target.Resource(), id); err != nil {
				return err
			}
		}
		if err := step(Event{Type: EventRequested, Actor: by, Spec: &spec, Policy: policy}); err != nil {
			return err
		}
		switch policy {
		case controlbus.ApproveSecond:
			return step(Event{Type: EventAwaiting, Actor: system, Detail: "waits for the consent of a second person"})
		case controlbus.ApproveByName:
			if err := step(Event{Type: EventApproved, Actor: by, Detail: "by typing the channel's name"}); err != nil {
				return err
			}
		default:
			if err := step(Event{Type: EventApproved, Actor: system, Detail: "no consent needed"}); err != nil {
				return err
			}
		}
		return l.enqueue(tx, &c, step)
	})
	if err != nil {
		return controlbus.Command{}, err
	}
	l.tell(c.Target.Agent)
	who, _ := access.From(ctx)
	return clip(who, c), nil
}

// undo links the new command to the one whose effect it takes back.
func (l *Ledger) undo(ctx context.Context, tx Tx, spec controlbus.CommandSpec, id controlbus.CommandID, by controlbus.Actor) error {
	old, err := tx.Command(spec.UndoOf)
	if err != nil {
		return fmt.Errorf("ledger: undo %s: %w", spec.UndoOf, err)
	}
	kind, err := old.Undoable()
	switch {
	case err != nil:
		return fmt.Errorf("ledger: undo %s: %w", spec.UndoOf, err)
	case kind != spec.Kind:
		return fmt.Errorf("ledger: undo %s: %w: %s is undone by %s", spec.UndoOf, controlbus.ErrInvalid, old.Kind, kind)
	case spec.Target.Channel != old.Target.Channel && (spec.Destination == nil || *spec.Destination != old.Target.Channel):
		return fmt.Errorf("ledger: undo %s: %w: it acted on %s", spec.UndoOf, controlbus.ErrInvalid, old.Target.Channel)
	}
	if old.UndoneBy != "" {
		prior, err := tx.Command(old.UndoneBy)
		if err != nil {
			return fmt.Errorf("ledger: undo %s: %w", spec.UndoOf, err)
		}
		if _, err := doneNothing(prior); err != nil {
			return fmt.Errorf("ledger: undo %s: %w: command %s undoes it already, and is %s", spec.UndoOf, controlbus.ErrConflict, prior.ID, prior.State.Title())
		}
	}
	return l.stepper(ctx, tx, &old, old.ID)(Event{Type: EventUndone, Actor: by, Undo: id})
}

func doneNothing(c controlbus.Command) (bool, error) {
	switch c.State {
	case controlbus.CommandRefused, controlbus.CommandExpired, controlbus.CommandRejected, controlbus.CommandCancelled, controlbus.CommandFailed:
		return true, nil
	}
	return false, controlbus.ErrConflict
}

// enqueue makes an approved command one to be sent.
func (l *Ledger) enqueue(tx Tx, c *controlbus.Command, step func(Event) error) error {
	if err := step(Event{Type: EventQueued, Actor: system}); err != nil {
		return err
	}
	if c.Kind.ByConsole() {
		return nil // Conclude ends it
	}
	return tx.Queue(Outgoing{Agent: c.Target.Agent, Command: c.ID, What: SendDispatch})
}

const codeApprove = "command.approve"

// Approve consents to a command as a second person, who has seen the preview
// with this fingerprint. The requester is refused with controlbus.ErrDenied,
// whatever their rights and by whichever of their tokens; so is what belongs to
// no person, who might be the requester again.
func (l *Ledger) Approve(ctx context.Context, id controlbus.CommandID, fingerprint string) (controlbus.Command, error) {
	return l.decide(ctx, id, codeApprove, func(tx Tx, c *controlbus.Command, by controlbus.Actor, step func(Event) error) error {
		if c.Preview != nil && c.Preview.Fingerprint != fingerprint {
			return fmt.Errorf("ledger: approve %s: %w: that is not the preview it was requested with", id, controlbus.ErrConflict)
		}
		if l.now().After(c.RequestedAt.Add(l.cfg.ApproveWithin)) {
			return fmt.Errorf("ledger: approve %s: %w: the request has expired", id, controlbus.ErrConflict)
		}
		if err := step(Event{Type: EventApproved, Actor: by}); err != nil {
			return err
		}
		return l.enqueue(tx, c, step)
	})
}

// Refuse declines a command that waits for consent.
func (l *Ledger) Refuse(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error) {
	return l.decide(ctx, id, "command.refuse", func(_ Tx, _ *controlbus.Command, by controlbus.Actor, step func(Event) error) error {
		return step(Event{Type: EventRefused, Actor: by, Detail: reason})
	})
}

func (l *Ledger) decide(ctx context.Context, id controlbus.CommandID, code string, f func(Tx, *controlbus.Command, controlbus.Actor, func(Event) error) error) (controlbus.Command, error) {
	seen, err := l.store.Command(ctx, id)
	if err != nil {
		return seen, err
	}
	by, err := l.may(ctx, access.Approve, code, string(id), seen.Target.Channel)
	if err != nil {
		return seen, err
	}
	if who, _ := access.From(ctx); code == codeApprove && who.Nobody() {
		return seen, l.refused(ctx, by, code, string(id), seen.Target.Channel, "consent is a person's, and this is nobody's in particular: sign in, or use a token of a person's own")
	}
	if by.ID == seen.RequestedBy.ID {
		return seen, l.refused(ctx, by, code, string(id), seen.Target.Channel, "who requested a command cannot decide on it")
	}
	return l.change(ctx, id, func(tx Tx, c *controlbus.Command, step func(Event) error) error { return f(tx, c, by, step) })
}

// Cancel ends a command that has not been sent, or asks its agent to stop. The
// agent's result then tells how far it came: cancelled, partial, or whatever it
// had finished as. The requester may, and whoever could have requested it.
func (l *Ledger) Cancel(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error) {
	seen, err := l.store.Command(ctx, id)
	if err != nil {
		return seen, err
	}
	by, err := l.requesterOr(ctx, seen, "command.cancel")
	if err != nil {
		return seen, err
	}
	return l.change(ctx, id, func(tx Tx, c *controlbus.Command, step func(Event) error) error {
		switch {
		case c.State.Sent() && c.CancelAsked != nil:
			return nil // asked already; the outbox keeps asking
		case c.State.Sent():
			if err := step(Event{Type: EventCancelAsked, Actor: by, Detail: reason}); err != nil {
				return err
			}
			return tx.Queue(Outgoing{Agent: c.Target.Agent, Command: id, What: SendCancel})
		}
		return step(Event{Type: EventCancelled, Actor: by, Detail: reason})
	})
}

// Abandon gives up waiting for the agent of an unconfirmed command: it becomes
// indeterminate and its channel is free again. A result that comes nevertheless
// still replaces that.
func (l *Ledger) Abandon(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error) {
	seen, err := l.store.Command(ctx, id)
	if err != nil {
		return seen, err
	}
	by, err := l.may(ctx, access.Approve, "command.abandon", string(id), seen.Target.Channel)
	if err != nil {
		return seen, err
	}
	return l.change(ctx, id, func(_ Tx, c *controlbus.Command, step func(Event) error) error {
		if c.State != controlbus.CommandUnconfirmed {
			return fmt.Errorf("ledger: abandon %s: %w: it is %s; only what is unconfirmed can be given up", id, controlbus.ErrConflict, c.State.Title())
		}
		return step(Event{Type: EventAbandoned, Actor: by, Detail: reason})
	})
}

// Command returns one command if the identity in ctx may see its channel.
func (l *Ledger) Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error) {
	c, err := l.store.Command(ctx, id)
	if err != nil {
		return c, err
	}
	who, _ := access.From(ctx)
	if !who.Can(access.ViewMetadata, c.Target.Channel.Env, c.Target.Channel.Name) {
		return controlbus.Command{}, fmt.Errorf("ledger: command %s: %w", id, controlbus.ErrNotFound)
	}
	return clip(who, c), nil
}

// Events returns a command's events under the same condition.
func (l *Ledger) Events(ctx context.Context, id controlbus.CommandID) ([]Event, error) {
	c, err := l.Command(ctx, id)
	if err != nil {
		return nil, err
	}
	events, err := l.store.CommandEvents(ctx, id)
	if err != nil {
		return nil, err
	}
	who, _ := access.From(ctx)
	if bodies, samples := sees(who, &c); !bodies || !samples {
		for i := range events {
			events[i] = eventWithout(events[i], samples)
		}
	}
	return events, nil
}

// Commands lists commands, newest first, that the identity in ctx may see.
func (l *Ledger) Commands(ctx context.Context, q Query) ([]controlbus.Command, error) {
	who, _ := access.From(ctx)
	q.Scope = who.Scope(access.ViewMetadata)
	if q.Scope.None() {
		return nil, nil
	}
	all, err := l.store.Commands(ctx, q)
	for i := range all {
		all[i] = clip(who, all[i])
	}
	return all, err
}

// clip takes out what needs the right to read bodies, or to see other channels.
func clip(who access.Identity, c controlbus.Command) controlbus.Command {
	if bodies, samples := sees(who, &c); !bodies || !samples {
		return commandWithout(c, samples)
	}
	return c
}

// change runs f on a command in one transaction and does what follows from a
// command's end.
func (l *Ledger) change(ctx context.Context, id controlbus.CommandID, f func(Tx, *controlbus.Command, func(Event) error) error) (controlbus.Command, error) {
	var c controlbus.Command
	err := l.store.ChangeLedger(ctx, func(tx Tx) error {
		var err error
		if c, err = tx.Command(id); err != nil {
			return err
		}
		return f(tx, &c, l.stepper(ctx, tx, &c, id))
	})
	if err != nil {
		return controlbus.Command{}, err
	}
	l.tell(c.Target.Agent)
	who, _ := access.From(ctx)
	return clip(who, c), nil
}

// stepper appends events to a command, each change of state with its audit
// record, and frees what a command held when it ends.
func (l *Ledger) stepper(ctx context.Context, tx Tx, c *controlbus.Command, id controlbus.CommandID) func(Event) error {
	return func(e Event) error {
		before, ended := c.State, c.State.Terminal()
		e.Command, e.At = id, l.now().UTC().Round(0)
		e.Detail = access.Clip(e.Detail, controlbus.MaxCommandReason)
		if err := tx.Append(c, e); err != nil {
			return err
		}
		code := ""
		switch {
		case c.State != before:
			code = "command." + string(c.State)
		case e.Type == EventCancelAsked || e.Type == EventUndone || e.Type == EventControl:
			code = "command." + string(e.Type)
		case e.Type == EventResult:
			code = "command.late_result"
		}
		if code != "" {
			if err := tx.Audit(l.record(ctx, e, c, code)); err != nil {
				return err
			}
		}
		if c.State.Terminal() && !ended {
			return errors.Join(tx.Unlock(id), tx.Unqueue(id, ""))
		}
		return nil
	}
}

func (l *Ledger) record(ctx context.Context, e Event, c *controlbus.Command, code string) access.Event {
	detail := e.Detail
	switch {
	case e.Type == EventRequested:
		detail = c.Reason
	case e.Result != nil:
		detail = fmt.Sprintf("%d of %d done, %d failed, %d skipped. %s", e.Result.Counts.Done, e.Result.Counts.Matched, e.Result.Counts.Failed, e.Result.Counts.Skipped, e.Result.Detail)
	case e.Undo != "":
		detail = "by command " + string(e.Undo)
	}
	return access.Event{
		At: e.At, Actor: access.Actor{Kind: access.Kind(e.Actor.Kind), ID: e.Actor.ID, Name: e.Actor.Name}, Code: code,
		Target: string(c.Kind) + " " + string(c.ID), Env: c.Target.Channel.Env, Channel: c.Target.Channel.String(),
		Refused: c.State == controlbus.CommandRefused || c.State == controlbus.CommandRejected, Detail: detail, Address: access.ClientFrom(ctx).Address,
	}.Trimmed()
}

// system is the console itself.
var system = controlbus.Actor{Kind: string(access.KindSystem), Name: "console"}

func actorOf(id access.Identity) controlbus.Actor {
	return controlbus.Actor{Kind: string(id.Kind), ID: id.Person(), Name: id.Name}
}

// may returns who acts if they have the right; a refusal goes to the audit
// trail.
func (l *Ledger) may(ctx context.Context, a access.Action, code, target string, ch controlbus.ChannelName) (controlbus.Actor, error) {
	id, ok := access.From(ctx)
	by := actorOf(id)
	if ok && by.ID != "" && id.Can(a, ch.Env, ch.Name) {
		return by, nil
	}
	return by, l.refused(ctx, by, code, target, ch, fmt.Sprintf("it needs the right %s on %s in %s", a, ch, ch.Env))
}

func (l *Ledger) refused(ctx context.Context, by controlbus.Actor, code, target string, ch controlbus.ChannelName, why string) error {
	e := access.Event{
		At: l.now(), Actor: access.Actor{Kind: access.Kind(by.Kind), ID: by.ID, Name: by.Name}, Code: code, Target: target,
		Env: ch.Env, Channel: ch.String(), Refused: true, Detail: why, Address: access.ClientFrom(ctx).Address,
	}.Trimmed()
	err := l.store.ChangeLedger(ctx, func(tx Tx) error { return tx.Audit(e) })
	return errors.Join(fmt.Errorf("ledger: %s: %w: %s", code, controlbus.ErrDenied, why), err)
}
