package detour

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

// worker brings one detour to what is wanted of it and keeps it there.
type worker struct {
	m                   *Manager
	id, broker, channel string

	kick chan struct{} // holds one: what is wanted has changed
	gone chan struct{} // closed when the detour has been removed

	started bool // guarded by the manager's mu

	mu      sync.Mutex
	rec     record
	edition int           // grows when what is wanted changes
	changed chan struct{} // closed and made anew when the state changes
	ends    time.Time     // by the monotonic clock
	live    bool          // this process has brought it where it is wanted
	trouble error         // of the last attempt; nil once it went well
	since   time.Time     // of the trouble
	// stuck is why there is no progress, of a detour whose broker answers.
	stuck   string
	lastErr string // of a step
	backlog int64
	parked  int64
	rate    float64
	notes   []string
	product string
}

func newWorker(m *Manager, r record, left time.Duration) *worker {
	return &worker{
		m: m, id: r.Detour.ID, broker: r.Broker, channel: r.Channel, rec: r, ends: time.Now().Add(left),
		kick: make(chan struct{}, 1), gone: make(chan struct{}), changed: make(chan struct{}), backlog: -1, parked: -1,
	}
}

// snapshot is the record as it is kept.
func (w *worker) snapshot(now time.Time) record {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rec.Left, w.rec.Saved = max(0, w.ends.Sub(now)), now.Round(0)
	return w.rec
}

func (w *worker) record() (record, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rec, w.edition
}

func (w *worker) system() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.product
}

// note changes the record and makes that durable before it returns; the broker
// is asked after that.
func (w *worker) note(change func(*record)) error {
	w.mu.Lock()
	before := w.rec
	change(&w.rec)
	if w.rec.Phase != before.Phase {
		w.rec.Since = time.Now().Round(0)
	}
	w.mu.Unlock()
	if err := w.m.save(); err != nil {
		w.mu.Lock()
		// Counters may have moved meanwhile.
		counts, position := w.rec.Counts, w.rec.Position
		w.rec = before
		w.rec.Counts, w.rec.Position = counts, position
		w.mu.Unlock()
		return err
	}
	w.tell()
	return nil
}

// want changes what is wanted, durably, and wakes the worker.
func (w *worker) want(change func(*record)) error {
	err := w.note(change)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.edition++
	w.live = false
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
	return nil
}

// renew lets its time begin anew.
func (w *worker) renew(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = time.Now().Add(d)
}

// tell wakes who waits for a state.
func (w *worker) tell() {
	w.mu.Lock()
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
	w.m.cfg.Changed()
}

// arrived says that it is where it is wanted, by the broker's word.
func (w *worker) arrived() {
	w.mu.Lock()
	w.live, w.trouble, w.stuck = true, nil, ""
	w.mu.Unlock()
	w.tell()
}

// lived notes that it has been on, and arrives.
func (w *worker) lived() error {
	if rec, _ := w.record(); !rec.Lived {
		if err := w.note(func(r *record) { r.Lived = true }); err != nil {
			return err
		}
	}
	w.arrived()
	return nil
}

func (w *worker) count(n counts) {
	w.mu.Lock()
	c := &w.rec.Counts
	c.In, c.Passed, c.Refused, c.Copied, c.Failed = c.In+n.In, c.Passed+n.Passed, c.Refused+n.Refused, c.Copied+n.Copied, c.Failed+n.Failed
	w.mu.Unlock()
	w.m.counted()
}

// passed keeps the last position settled.
func (w *worker) passed(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rec.Position = seq
}

func (w *worker) failed(step string, err error) {
	w.count(counts{Failed: 1})
	w.mu.Lock()
	w.lastErr = fmt.Sprintf("step %s: %v", step, err)
	w.mu.Unlock()
}

// run works until ctx ends or the detour has been removed.
func (w *worker) run(ctx context.Context) {
	wait := backoff.Backoff{Base: 200 * time.Millisecond, Cap: 5 * time.Second, Floor: 50 * time.Millisecond}
	for ctx.Err() == nil {
		began := time.Now()
		done, err := w.once(ctx)
		if done {
			close(w.gone)
			w.tell()
			return
		}
		if err == nil {
			wait.Reset()
			continue
		}
		if time.Since(began) > stuckAfter {
			wait.Reset()
		}
		w.mu.Lock()
		first := w.trouble == nil
		if first {
			w.since = time.Now()
		}
		w.trouble, w.live = err, false
		w.mu.Unlock()
		w.tell()
		if errors.Is(err, agents.ErrNotConnected) {
			w.m.cfg.Lost(w.broker)
		}
		if first {
			w.m.cfg.Log.WarnContext(ctx, "a detour is in trouble; trying again", "detour", w.id, "broker", w.broker, "channel", w.channel, "error", err)
		}
		t := time.NewTimer(wait.Next())
		select {
		case <-t.C:
		case <-w.kick:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// once brings it to what is wanted and stays while nothing changes.
func (w *worker) once(ctx context.Context) (done bool, err error) {
	select {
	case <-w.kick: // what follows reads what is wanted
	default:
	}
	rec, edition := w.record()
	if rec.Wanted && !time.Now().Before(w.end()) {
		return false, w.expire()
	}
	a, ok := w.m.cfg.Broker(rec.Broker)
	if !ok {
		return false, fmt.Errorf("%w: the agent has no broker %q", controlbus.ErrNotFound, rec.Broker)
	}
	w.mu.Lock()
	w.product = a.System()
	w.mu.Unlock()
	switch {
	case rec.Technique == byPause:
		return w.paused(ctx, a, rec, edition)
	case rec.Wanted:
		return false, w.on(ctx, a, rec, edition)
	}
	return w.off(ctx, a, rec, edition)
}

func (w *worker) end() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ends
}

// expire ends what is over.
func (w *worker) expire() error {
	w.m.cfg.Log.Info("a detour's time is over; it is drained and removed", "detour", w.id, "broker", w.broker, "channel", w.channel)
	return w.want(func(r *record) { r.Wanted = false })
}

// stale says whether what is wanted has changed since edition.
func (w *worker) stale(edition int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.edition != edition
}

// call bounds one request to the broker.
func call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, brokerPatience)
}

// on brings the detour on and keeps it so until something else is wanted.
func (w *worker) on(ctx context.Context, a agents.Adapter, rec record, edition int) error {
	source := rec.Channel
	if rec.Technique == byGate {
		v, err := w.gate(ctx, a, rec.Channel)
		if err != nil {
			return err
		}
		if source = rec.Backlog; !v.Installed || source == "" {
			if err := w.note(func(r *record) { r.Phase = phaseInstalling }); err != nil {
				return err
			}
			c, cancel := call(ctx)
			source, err = a.(agents.Gater).InstallGate(c, w.id, rec.Channel)
			cancel()
			if err != nil {
				return fmt.Errorf("install the gate: %w", err)
			}
		}
	}
	if rec.Phase != phaseOn || rec.Backlog != source && rec.Technique == byGate {
		if err := w.note(func(r *record) {
			r.Phase = phaseInstalled
			if r.Technique == byGate {
				r.Backlog = source
			}
		}); err != nil {
			return err
		}
	}
	p, err := w.open(ctx, a, source, false)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := w.note(func(r *record) { r.Phase = phaseOn }); err != nil {
		return err
	}
	if rec.Technique == byGate {
		// Read again: opening may have taken a while.
		v, err := w.gate(ctx, a, rec.Channel)
		if err != nil {
			return err
		}
		if !v.On {
			c, cancel := call(ctx)
			err := a.(agents.Gater).SetGate(c, w.id, rec.Channel, true)
			cancel()
			if err != nil {
				return fmt.Errorf("switch the gate on: %w", err)
			}
		}
	}
	if err := w.lived(); err != nil {
		return err
	}
	return w.watch(ctx, a, p, edition)
}

// watch stays while the detour is as it is wanted.
func (w *worker) watch(ctx context.Context, a agents.Adapter, p *pump, edition int) error {
	rec, _ := w.record()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	over := time.NewTimer(time.Until(w.end()))
	defer over.Stop()
	var polled time.Time
	for {
		if time.Since(polled) >= pollEvery {
			polled = time.Now()
			if rec.Technique == byGate {
				v, err := w.gate(ctx, a, rec.Channel)
				if err != nil {
					return err
				}
				if len(v.Leaks) > 0 {
					c, cancel := call(ctx)
					err := a.(agents.Gater).SetGate(c, w.id, rec.Channel, false)
					cancel()
					leak := fmt.Errorf("%w: %s is bound to the gate and gets messages that the channel then misses; the gate was switched off, unbind it", controlbus.ErrConflict, strings.Join(v.Leaks, ", "))
					return errors.Join(leak, err)
				}
				if !v.On || !v.Installed {
					w.m.cfg.Log.WarnContext(ctx, "somebody took a detour's gate away or switched it off; it is put back", "detour", w.id, "broker", w.broker, "channel", w.channel)
					return nil
				}
			} else {
				w.depth(ctx, a, rec.Channel)
			}
			w.parkDepth(ctx, a)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.kick:
			if w.stale(edition) {
				return nil
			}
		case <-over.C:
			return w.expire()
		case err := <-p.broken:
			return err
		case now := <-tick.C:
			w.measure(now, p)
		}
	}
}

// off leads messages the direct way again, works the backlog off and removes
// what is left.
func (w *worker) off(ctx context.Context, a agents.Adapter, rec record, edition int) (bool, error) {
	source, upTo, most := rec.Channel, uint64(0), int64(-1)
	g, _ := a.(agents.Gater)
	worked := rec.Phase == phaseOn || rec.Phase == phaseDraining || rec.Phase == phaseRemoving
	if rec.Technique == byGate {
		v, err := w.gate(ctx, a, rec.Channel)
		if err != nil && !errors.Is(err, controlbus.ErrNotFound) {
			return false, err
		}
		if source = rec.Backlog; source == "" {
			source = v.Backlog
		}
		worked = worked || v.On || v.Waiting > 0
		if err != nil && source != "" && len(channelsOf(rec.Detour)) == 0 && rec.Hold == "" {
			// The channel is gone: only what waits for it keeps the rest.
			view, lookErr := w.look(ctx, a, source)
			worked = !errors.Is(lookErr, controlbus.ErrNotFound) && (lookErr != nil || view.Waiting() > 0)
		}
		if v.On || rec.Phase == phaseOn {
			if err := w.note(func(r *record) { r.Phase = phaseDraining }); err != nil {
				return false, err
			}
		}
		if v.On {
			c, cancel := call(ctx)
			err := g.SetGate(c, w.id, rec.Channel, false)
			cancel()
			if err != nil {
				return false, fmt.Errorf("switch the gate off: %w", err)
			}
		}
	} else if worked {
		if rec.Phase != phaseDraining {
			if err := w.note(func(r *record) { r.Phase = phaseDraining }); err != nil {
				return false, err
			}
		}
		upTo, most = w.bound(ctx, a, rec.Channel)
	}
	if source != "" && worked { // else nothing has gone through it
		drained, err := w.drain(ctx, a, source, edition, upTo, most)
		if !drained || err != nil {
			return false, err
		}
	}
	if rec.Technique == byGate {
		if err := w.note(func(r *record) { r.Phase = phaseRemoving }); err != nil {
			return false, err
		}
		c, cancel := call(ctx)
		err := g.RemoveGate(c, w.id, rec.Channel)
		cancel()
		if errors.Is(err, controlbus.ErrConflict) {
			return false, w.note(func(r *record) { r.Phase = phaseDraining }) // messages came meanwhile
		} else if err != nil && !errors.Is(err, controlbus.ErrNotFound) {
			return false, fmt.Errorf("remove the gate: %w", err)
		}
	}
	return w.remove(ctx, a)
}

// remove ends the detour's own channels and its record.
func (w *worker) remove(ctx context.Context, a agents.Adapter) (bool, error) {
	rec, _ := w.record()
	if r, ok := a.(agents.Releaser); ok && rec.Technique == byJunction {
		n := 0
		for i, channel := range append([]string{rec.Channel}, channelsOf(rec.Detour)...) {
			if i > 0 && i%2 == 1 {
				continue // a step's Send: nobody takes from it here
			}
			c, cancel := call(ctx)
			err := r.Release(c, channel, stageName(w.id, n))
			cancel()
			if err != nil && !errors.Is(err, controlbus.ErrNotFound) {
				return false, fmt.Errorf("remove the consumer of %s: %w", channel, err)
			}
			n++
		}
	}
	w.parkDepth(ctx, a) // for the last word
	var left *leftover
	if p, ok := a.(agents.Parker); ok {
		for _, own := range []struct{ channel, id string }{{rec.Hold, holdID(w.id)}, {rec.Park, w.id}} {
			if own.channel == "" {
				continue
			}
			c, cancel := call(ctx)
			err := p.Unpark(c, own.id)
			cancel()
			switch {
			case err == nil || errors.Is(err, controlbus.ErrNotFound):
			case errors.Is(err, controlbus.ErrConflict) && own.id == w.id:
				left = &leftover{w.broker, w.id}
			case errors.Is(err, controlbus.ErrConflict):
				return false, w.note(func(r *record) { r.Phase = phaseDraining })
			default:
				return false, fmt.Errorf("remove %s: %w", own.channel, err)
			}
		}
	}
	if err := w.m.forget(w, left); err != nil {
		return false, err
	}
	w.m.cfg.Log.InfoContext(ctx, "detour removed", "detour", w.id, "broker", w.broker, "channel", w.channel, "passed", rec.Counts.Passed, "refused", rec.Counts.Refused)
	return true, nil
}

func holdID(id string) string { return id + "-hold" }
