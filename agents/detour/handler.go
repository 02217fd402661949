package detour

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// teller tells a command's progress.
type teller func(ctx context.Context, p controlbus.CommandProgress)

func (m *Manager) detour(ctx context.Context, run *link.Run) controlbus.CommandResult {
	return m.makeDetour(ctx, run.Dispatch, run.Resumed)
}

func (m *Manager) undetour(ctx context.Context, run *link.Run) controlbus.CommandResult {
	return m.end(ctx, run.Dispatch, run.Resumed, m.saver(run))
}

// saver tells progress as checkpoints, which have nothing in them: how far it is
// lies in the file of detours.
func (m *Manager) saver(run *link.Run) teller {
	return func(ctx context.Context, p controlbus.CommandProgress) {
		if err := run.Save(ctx, json.RawMessage("{}"), p); err != nil && ctx.Err() == nil {
			m.cfg.Log.WarnContext(ctx, "progress cannot be kept", "command", run.Dispatch.Command, "error", err)
		}
	}
}

func rejected(err error) controlbus.CommandResult {
	return controlbus.CommandResult{Outcome: controlbus.CommandRejected, Detail: clip(err.Error(), 1000)}
}

// begun sorts an error of before the first effect: final ones reject, of others
// nothing was done either, and asking again may help.
func begun(err error) controlbus.CommandResult {
	r := rejected(err)
	if !fatal(err) && !errors.Is(err, controlbus.ErrConflict) {
		r.Outcome = controlbus.CommandFailed
	}
	return r
}

func (m *Manager) makeDetour(ctx context.Context, d link.Dispatch, resumed bool) controlbus.CommandResult {
	spec, err := controlbus.DecodeArgs[controlbus.Detour](d.Args)
	if err != nil {
		return rejected(err)
	}
	spec.Pause = false
	if spec.Owner == (controlbus.Actor{}) {
		spec.Owner = d.RequestedBy
	}
	if spec.Reason == "" {
		spec.Reason = d.Reason
	}
	if w, same := m.find(spec.ID, d.Target.Channel.Broker, d.Target.Channel.Name); same {
		if rec, _ := w.record(); rec.Command == d.Command {
			return m.await(ctx, w, true)
		}
	}
	a, err := m.adapter(d.Target.Channel)
	if err != nil {
		return rejected(err)
	}
	way, err := m.chooseDetour(ctx, a, d.Target.Channel, spec)
	if err != nil {
		return begun(err)
	}
	return m.order(ctx, d, controlbus.CommandDetour, spec, way, "")
}

// order makes a detour or a pause, or changes the one that is there.
func (m *Manager) order(ctx context.Context, d link.Dispatch, kind controlbus.CommandKind, spec controlbus.Detour, way way, consumer string) controlbus.CommandResult {
	channel := d.Target.Channel
	w, err := m.mayUpdate(spec.ID, channel, kind, way.technique, spec)
	if err != nil {
		return rejected(err)
	}
	if err := m.asExpected(ctx, d); err != nil {
		return begun(err)
	}
	now := time.Now().Round(0)
	after, err := m.positions(ctx, channel, way.technique, spec)
	if err != nil {
		return begun(err)
	}
	if w != nil {
		spec.ID = w.id
		w.renew(spec.For)
		if err := w.want(func(r *record) {
			// What is taken from already goes on where it is.
			for c, position := range r.After {
				after[c] = position
			}
			r.After = after
			r.Detour, r.Command, r.Consumer, r.Wanted, r.Ordered, r.Words = spec, d.Command, consumer, true, now, way.words
		}); err != nil {
			return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: err.Error()}
		}
		return m.await(ctx, w, false)
	}
	w, err = m.add(record{
		After: after, Detour: spec, Kind: kind, Broker: channel.Broker, Channel: channel.Name, Consumer: consumer, Command: d.Command,
		Technique: way.technique, Words: way.words, Wanted: true, Phase: phaseInstalling, Since: now, Made: now, Ordered: now,
	})
	if err != nil {
		return begun(err)
	}
	return m.await(ctx, w, true)
}

// positions are the last ones in the channels that are taken from and keep what
// has been read.
func (m *Manager) positions(ctx context.Context, channel controlbus.ChannelName, t technique, d controlbus.Detour) (map[string]string, error) {
	a, err := m.adapter(channel)
	if err != nil {
		return nil, err
	}
	var from []string
	if t == byJunction {
		from = append(from, channel.Name)
	}
	for _, s := range d.Steps {
		if s.Channel != nil {
			from = append(from, s.Channel.Receive)
		}
	}
	after := map[string]string{}
	for _, c := range from {
		v, err := inspect(ctx, a, c)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", c, err)
		}
		if v.Keeps {
			after[c] = v.UpTo
		}
	}
	return after, nil
}

// asExpected compares the broker's topology with the preview's.
func (m *Manager) asExpected(ctx context.Context, d link.Dispatch) error {
	if d.Expect == nil || d.Expect.Topology == "" {
		return nil
	}
	a, err := m.adapter(d.Target.Channel)
	if err != nil {
		return err
	}
	v, err := inspect(ctx, a, d.Target.Channel.Name)
	if err != nil {
		return err
	}
	if why := (controlbus.Expect{MaxCount: -1, Topology: d.Expect.Topology}).Mismatch(0, v.Topology); why != "" {
		return fmt.Errorf("%w: %s", controlbus.ErrConflict, why)
	}
	return nil
}

// rollBack is how long a command waits for what it could not do to be taken back.
const rollBack = 10 * time.Second

// await waits until the detour is on and its worker works. A new one that cannot
// be is taken back.
func (m *Manager) await(ctx context.Context, w *worker, fresh bool) controlbus.CommandResult {
	for {
		w.mu.Lock()
		live, trouble, changed, wanted := w.live, w.trouble, w.changed, w.rec.Wanted
		fresh = fresh && !w.rec.Lived
		w.mu.Unlock()
		failed := func(outcome controlbus.CommandState, why string) controlbus.CommandResult {
			if trouble != nil {
				why += ": " + trouble.Error()
			}
			if fresh {
				why += m.takeBack(ctx, w)
			} else if outcome != controlbus.CommandRejected {
				outcome = controlbus.CommandPartial
				why += "; it is kept as it was ordered, and tried again"
			}
			return controlbus.CommandResult{Outcome: outcome, Detail: clip(why, 1000)}
		}
		switch {
		case !wanted:
			return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: "it was ended meanwhile, by another order or because its time was over"}
		case live:
			s := w.status()
			evidence, _ := json.Marshal(map[string]any{"detour": w.id, "technique": s.Technique, "until": s.Until, "backlog": s.Backlog})
			return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Detail: fmt.Sprintf("%s is on, by %s", w.id, s.Technique), Evidence: evidence}
		case trouble != nil && fatal(trouble):
			return failed(controlbus.CommandFailed, "it cannot be switched on")
		}
		select {
		case <-changed:
		case <-w.gone:
		case <-ctx.Done():
			switch cause := context.Cause(ctx); {
			case errors.Is(cause, link.ErrStopping):
				return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: "the agent stops"} // and goes on after its start
			case errors.Is(cause, link.ErrCancelled):
				return failed(controlbus.CommandCancelled, "cancelled before it was on")
			default:
				return failed(controlbus.CommandFailed, "its time to run was over before it was on")
			}
		}
	}
}

// takeBack removes what was never on, and says how that stands.
func (m *Manager) takeBack(ctx context.Context, w *worker) string {
	if err := w.want(func(r *record) { r.Wanted = false }); err != nil {
		return "; it could not be taken back: " + err.Error()
	}
	t := time.NewTimer(rollBack)
	defer t.Stop()
	select {
	case <-w.gone:
		return "; nothing of it is left"
	case <-t.C:
	}
	m.cfg.Log.WarnContext(context.WithoutCancel(ctx), "what there is of a detour is still to be removed", "detour", w.id)
	return "; what there is of it is removed as soon as the broker answers"
}

// end drains and removes a detour or a pause, and tells how far it is.
func (m *Manager) end(ctx context.Context, d link.Dispatch, resumed bool, tell teller) controlbus.CommandResult {
	w, err := m.named(d.Kind, d.Args, d.UndoOf, d.Target.Channel)
	if err != nil {
		return rejected(err)
	}
	if w == nil {
		if resumed {
			return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Detail: "it has been removed"}
		}
		return rejected(fmt.Errorf("%w: the agent has no such detour or pause of %s", controlbus.ErrNotFound, d.Target.Channel.Name))
	}
	before, _ := w.record()
	backlog := max(0, w.status().Backlog)
	if before.Wanted {
		if err := w.want(func(r *record) { r.Wanted = false }); err != nil {
			return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: err.Error()}
		}
	}
	so := func() (controlbus.Counts, controlbus.DetourStatus) {
		s := w.status()
		c := controlbus.Counts{Done: s.Passed - before.Counts.Passed, Failed: s.Refused - before.Counts.Refused}
		c.Matched = c.Done + c.Failed + max(0, s.Backlog)
		return c, s
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-w.gone:
			c, s := so()
			c.Matched = c.Done + c.Failed
			detail := fmt.Sprintf("%s is removed; %d messages went on and %d were put aside while it was drained", w.id, c.Done, c.Failed)
			if s.Parked > 0 {
				rec, _ := w.record()
				detail += fmt.Sprintf("; parked in %s: %d", rec.parkedIn(), s.Parked)
			}
			return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: c, Detail: detail}
		case <-tick.C:
			c, s := so()
			note := fmt.Sprintf("%d wait in the backlog", max(0, s.Backlog))
			if s.Error != "" {
				note += "; " + s.Error
			}
			tell(ctx, controlbus.CommandProgress{Counts: c, Total: max(backlog, c.Matched), Note: clip(note, 500)})
		case <-ctx.Done():
			c, _ := so()
			detail := "the detour is off; what is in its backlog is worked off in the background, then it is removed"
			if errors.Is(context.Cause(ctx), link.ErrStopping) {
				detail = "the agent stops; it goes on after its start"
			}
			return controlbus.CommandResult{Outcome: controlbus.CommandPartial, Counts: c, Detail: detail}
		}
	}
}
