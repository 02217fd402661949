package detour

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

func (m *Manager) pause(ctx context.Context, run *link.Run) controlbus.CommandResult {
	return m.makePause(ctx, run.Dispatch)
}

func (m *Manager) makePause(ctx context.Context, d link.Dispatch) controlbus.CommandResult {
	args, err := controlbus.DecodeArgs[controlbus.PauseArgs](d.Args)
	if err != nil {
		return rejected(err)
	}
	id := "pause-" + string(d.Command)
	if w, same := m.find(id, d.Target.Channel.Broker, d.Target.Channel.Name); same {
		return m.await(ctx, w, true) // begun by an earlier process
	}
	a, err := m.adapter(d.Target.Channel)
	if err != nil {
		return rejected(err)
	}
	way, err := m.choosePause(ctx, a, d.Target.Channel, args)
	if err != nil {
		return begun(err)
	}
	return m.order(ctx, d, controlbus.CommandPause, controlbus.Detour{
		ID: id, Owner: d.RequestedBy, Reason: d.Reason, For: args.For, Pause: true, Steps: []controlbus.DetourStep{{Hold: &controlbus.HoldStep{}}},
	}, way, args.Consumer)
}

func (m *Manager) resume(ctx context.Context, run *link.Run) controlbus.CommandResult {
	return m.endPause(ctx, run.Dispatch, run.Resumed, m.saver(run))
}

func (m *Manager) endPause(ctx context.Context, d link.Dispatch, resumed bool, tell teller) controlbus.CommandResult {
	w, err := m.named(d.Kind, d.Args, d.UndoOf, d.Target.Channel)
	if err != nil || w != nil || resumed {
		return m.end(ctx, d, resumed, tell)
	}
	// Somebody else's pause, perhaps: the broker ends it.
	a, err := m.adapter(d.Target.Channel)
	if err != nil {
		return rejected(err)
	}
	p, ok := a.(agents.Pauser)
	if !ok {
		return rejected(fmt.Errorf("%w: the agent has not paused %s", controlbus.ErrNotFound, d.Target.Channel.Name))
	}
	c, cancel := call(ctx)
	defer cancel()
	names, err := p.Resume(c, d.Target.Channel.Name, "")
	if err != nil {
		return begun(err)
	}
	return controlbus.CommandResult{
		Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Matched: int64(len(names)), Done: int64(len(names))},
		Detail: clip("resumed by the broker: "+or(strings.Join(names, ", "), "nobody was paused"), 1000),
	}
}

// paused keeps the broker's own pause as it is wanted. The broker ends it by
// itself, so that a pause never outlives its time, whatever becomes of the agent.
func (w *worker) paused(ctx context.Context, a agents.Adapter, rec record, edition int) (bool, error) {
	p, ok := a.(agents.Pauser)
	if !ok {
		return false, fmt.Errorf("%w: this agent's adapter cannot pause any more", controlbus.ErrUnsupported)
	}
	if !rec.Wanted {
		if err := w.note(func(r *record) { r.Phase = phaseRemoving }); err != nil {
			return false, err
		}
		if time.Now().Before(w.end()) {
			c, cancel := call(ctx)
			_, err := p.Resume(c, rec.Channel, rec.Consumer)
			cancel()
			if err != nil && !errors.Is(err, controlbus.ErrNotFound) {
				return false, fmt.Errorf("resume: %w", err)
			}
		}
		return w.remove(ctx, a)
	}
	if rec.Phase != phaseOn {
		if err := w.note(func(r *record) { r.Phase = phaseInstalled }); err != nil {
			return false, err
		}
	}
	left := time.Until(w.end())
	c, cancel := call(ctx)
	names, err := p.Pause(c, rec.Channel, rec.Consumer, time.Now().Add(left).Round(0))
	cancel()
	if err != nil {
		return false, fmt.Errorf("pause: %w", err)
	}
	if err := w.note(func(r *record) { r.Phase = phaseOn }); err != nil {
		return false, err
	}
	w.mu.Lock()
	w.notes = []string{clip("paused: "+or(strings.Join(names, ", "), "nobody consumes now"), 500)}
	w.mu.Unlock()
	if err := w.lived(); err != nil {
		return false, err
	}
	over := time.NewTimer(left)
	defer over.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		w.depth(ctx, a, rec.Channel)
		select {
		case <-ctx.Done():
			return false, nil
		case <-w.kick:
			if w.stale(edition) {
				return false, nil
			}
		case <-over.C:
			return false, w.expire()
		case <-tick.C:
		}
	}
}
