package detour

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// gate reads the gate's state and keeps what people should know of it.
func (w *worker) gate(ctx context.Context, a agents.Adapter, channel string) (agents.GateView, error) {
	g, ok := a.(agents.Gater)
	if !ok {
		return agents.GateView{}, fmt.Errorf("%w: this agent's adapter has no gates any more", controlbus.ErrUnsupported)
	}
	c, cancel := call(ctx)
	defer cancel()
	v, err := g.Gate(c, w.id, channel)
	if err != nil {
		return v, fmt.Errorf("read the gate: %w", err)
	}
	w.mu.Lock()
	w.backlog = v.Waiting
	w.notes = nil
	for _, b := range v.Bypasses {
		w.notes = append(w.notes, clip("messages reach the channel around the gate, by "+b+": they are not led aside, or doubled", 300))
	}
	w.mu.Unlock()
	return v, nil
}

func (w *worker) look(ctx context.Context, a agents.Adapter, channel string) (agents.ChannelView, error) {
	i, ok := a.(agents.Inspector)
	if !ok {
		return agents.ChannelView{}, nil
	}
	c, cancel := call(ctx)
	defer cancel()
	v, err := i.Inspect(c, channel)
	if err != nil {
		return v, fmt.Errorf("look at %s: %w", channel, err)
	}
	return v, nil
}

// depth keeps how much waits before a junction. Errors only leave it unknown.
func (w *worker) depth(ctx context.Context, a agents.Adapter, channel string) {
	n, upTo := int64(-1), uint64(0)
	if v, err := w.look(ctx, a, channel); err == nil {
		n = v.Waiting()
		upTo, _ = strconv.ParseUint(v.UpTo, 10, 64)
	}
	w.mu.Lock()
	if after, err := strconv.ParseUint(w.rec.After[channel], 10, 64); err == nil && n >= 0 {
		// Such a channel keeps what has been read: the positions tell.
		n = max(0, int64(upTo)-int64(max(after, w.rec.Position)))
	}
	w.backlog = n
	w.mu.Unlock()
}

func (w *worker) parkDepth(ctx context.Context, a agents.Adapter) {
	rec, _ := w.record()
	channel, n := rec.parkedIn(), int64(0)
	if channel != "" {
		if n = -1; a != nil {
			if v, err := w.look(ctx, a, channel); err == nil {
				n = v.Waiting()
			}
		}
	}
	w.mu.Lock()
	w.parked = n
	w.mu.Unlock()
}

// measure keeps the rate, and whether there is progress.
func (w *worker) measure(now time.Time, p *pump) {
	settled := int64(0)
	if len(p.stages) > 0 {
		settled = p.stages[0].done.Load()
	}
	stuck := ""
	for _, s := range p.stages {
		if still := time.Since(epoch) - time.Duration(s.moved.Load()); s.busy.Load() && still > stuckAfter {
			stuck = fmt.Sprintf("no message went on from %s for %v", s.from, still.Round(time.Second))
		}
	}
	w.mu.Lock()
	if d := now.Sub(p.at).Seconds(); d > 0 {
		w.rate += (float64(settled-p.settled)/d - w.rate) * 0.3
	}
	if w.rate < 0.01 {
		w.rate = 0
	}
	p.settled, p.at = settled, now
	if stuck != "" && w.lastErr != "" {
		stuck += "; " + w.lastErr
	}
	tell := (stuck == "") != (w.stuck == "")
	w.stuck = stuck
	w.mu.Unlock()
	if tell {
		w.tell()
	}
}

// status is the detour as people see it.
func (w *worker) status() controlbus.DetourStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, now := w.rec, time.Now()
	s := controlbus.DetourStatus{
		Detour: r.Detour, Broker: r.Broker, Channel: r.Channel, Command: r.Command, Technique: r.Words, Since: r.Since,
		Until: now.Add(max(0, w.ends.Sub(now))).Round(0), Backlog: w.backlog, Parked: w.parked, Rate: w.rate,
		In: r.Counts.In, Passed: r.Counts.Passed, Refused: r.Counts.Refused, Copied: r.Counts.Copied, Failed: r.Counts.Failed,
		Notes: append([]string(nil), w.notes...),
	}
	switch r.Phase {
	case phaseOn:
		s.State = controlbus.DetourOn
	case phaseDraining:
		s.State = controlbus.DetourDraining
	default:
		s.State = controlbus.DetourInstalled
	}
	if w.trouble != nil {
		s.Error, s.Rate = clip(w.trouble.Error(), 500), 0
		if r.Technique == byGate && r.Phase == phaseOn {
			s.Error += "; meanwhile messages wait in the backlog"
		}
		if now.Sub(w.since) >= stuckAfter || fatal(w.trouble) {
			s.State = controlbus.DetourBroken
		}
	} else if w.stuck != "" {
		s.State, s.Error = controlbus.DetourBroken, clip(w.stuck, 500)
	}
	if !r.Wanted && r.Phase != phaseDraining {
		s.Notes = append(s.Notes, "it is being removed")
	}
	if r.Hold != "" {
		s.Notes = append(s.Notes, "held messages are kept in "+r.Hold)
	}
	if r.Park != "" && w.parked > 0 {
		s.Notes = append(s.Notes, "parked messages are kept in "+r.Park+"; the channel stays until it is empty")
	}
	for i := range s.Notes {
		s.Notes[i] = strings.TrimSpace(s.Notes[i])
	}
	return s
}
