package agents

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

// tap is one channel's wire tap for as long as it is wanted: over broken
// connections and restarts. It is the TapSink its adapter writes to.
type tap struct {
	r       *Runner
	channel string
	queue   *export.Queue
	made    string       // when, tells apart the taps of one channel in one process
	seen    atomic.Int64 // messages, for the uid of those without a position
	id      atomic.Pointer[string]
	sharing []controlbus.TapSpec // further specs for the same channel; under r.mu

	mu       sync.Mutex
	status   controlbus.TapStatus
	blind    time.Duration
	gaps     int64     // beside those the queue counts
	detached time.Time // since when it is not attached; zero before the first time
}

var errNotReady = fmt.Errorf("the broker does not begin to copy within %v: %w", readyTimeout, controlbus.ErrUnavailable)

func newTap(r *Runner, channel string) *tap {
	t := &tap{r: r, channel: channel, made: strconv.FormatInt(time.Now().UnixNano(), 10), queue: r.export.Open(r.cfg.Name + "/" + channel)}
	t.status = controlbus.TapStatus{Channel: channel, State: controlbus.TapStarting, Since: time.Now()}
	return t
}

// setSpecs is called with r.mu held. The first spec rules: a tap that the
// console asks for cannot widen what the configuration lets out.
func (t *tap) setSpecs(specs []controlbus.TapSpec) {
	first := specs[0]
	t.sharing = slices.Clone(specs[1:])
	t.id.Store(&first.ID)
	t.queue.Ask(first.Body, first.MaxBytes)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.status.Spec = first
}

func (t *tap) snapshot() controlbus.TapStatus {
	q := t.queue.Stats()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.status
	s.Notes = slices.Clone(s.Notes)
	s.Loss = controlbus.Loss{
		Received: q.Received, DroppedByAgent: q.Dropped, DroppedByBroker: q.DroppedByBroker,
		Blind: t.blind, Gaps: q.Gaps + t.gaps,
	}
	return s
}

func (t *tap) set(state controlbus.TapState, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	t.mu.Lock()
	news := t.status.State != state || t.status.Error != text
	if t.status.State != state {
		t.status.Since = time.Now()
	}
	t.status.State, t.status.Error = state, text
	t.mu.Unlock()
	if news {
		t.r.cfg.Changed()
	}
}

// run keeps the tap attached until ctx ends. It returns ErrNotConnected when
// only a new connection can help.
func (t *tap) run(ctx context.Context, tapper Tapper) error {
	wait := backoff.Backoff{Base: time.Second, Cap: maxBackoff}
	for {
		t.set(controlbus.TapStarting, nil)
		began := time.Now()
		err := t.once(ctx, tapper)
		if ctx.Err() != nil {
			// It was told to end. Somebody else may have noticed first that the
			// connection is gone: then it does not run any more.
			if cause := context.Cause(ctx); errors.Is(cause, ErrNotConnected) {
				t.set(controlbus.TapBroken, cause)
			}
			return nil //nolint:nilerr // it ended because it was told to
		}
		if time.Since(began) >= steady {
			wait.Reset()
		}
		var pause time.Duration
		switch {
		case errors.Is(err, ErrNotConnected):
			t.set(controlbus.TapBroken, err)
			return err
		case errors.Is(err, controlbus.ErrUnsupported), errors.Is(err, controlbus.ErrDenied), errors.Is(err, controlbus.ErrInvalid):
			t.set(controlbus.TapRefused, err)
			pause = refusedRetry
		default:
			t.set(controlbus.TapBroken, err)
			pause = wait.Next()
		}
		if !backoff.Sleep(ctx, pause) {
			return nil
		}
	}
}

// once plans and attaches the tap, and returns when it is detached again.
func (t *tap) once(parent context.Context, tapper Tapper) error {
	planCtx, cancelPlan := context.WithTimeout(parent, callTimeout)
	plan, err := tapper.PlanTap(planCtx, t.channel)
	cancelPlan()
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.status.Technique, t.status.Notes = plan.Technique, plan.Impact
	t.mu.Unlock()
	t.queue.SetResumable(plan.Resumable)
	var from Position
	if plan.Resumable {
		from = t.queue.Position()
	}

	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	late := time.AfterFunc(readyTimeout, func() { cancel(errNotReady) })
	defer late.Stop()
	var attached atomic.Bool
	ready := sync.OnceFunc(func() {
		if late.Stop() {
			attached.Store(true)
			t.attached(from)
		}
	})
	err = tapper.Tap(ctx, plan, from, t, ready)
	if attached.Load() {
		t.mu.Lock()
		t.detached = time.Now()
		t.mu.Unlock()
	}
	if cause := context.Cause(ctx); parent.Err() == nil && errors.Is(cause, errNotReady) {
		return cause
	}
	if err == nil && parent.Err() == nil {
		return fmt.Errorf("tap of %q ended by itself: %w", t.channel, controlbus.ErrUnavailable)
	}
	return err
}

// attached accounts for the time without a tap. One that goes on after its
// position missed nothing.
func (t *tap) attached(from Position) {
	t.mu.Lock()
	if !t.detached.IsZero() && from == (Position{}) {
		t.blind += time.Since(t.detached)
		t.gaps++
	}
	t.mu.Unlock()
	t.set(controlbus.TapRunning, nil)
}

// Put fills in what the adapter cannot know and queues the event.
func (t *tap) Put(ctx context.Context, ev *controlbus.MessageEvent, pos Position) error {
	ev.Env, ev.Broker, ev.Tap = t.r.cfg.Env, t.r.cfg.Name, *t.id.Load()
	if ev.System == "" {
		ev.System = t.r.adapter.System()
	}
	if ev.Destination == "" {
		ev.Destination = t.channel
	}
	if ev.AgentTime == 0 {
		ev.AgentTime = time.Now().UnixNano()
	}
	if ev.BodySize == 0 {
		ev.BodySize = int64(len(ev.Body))
	}
	n := t.seen.Add(1)
	if ev.UID.IsZero() {
		if pos != (Position{}) {
			// The same message read again, after a crash or by another agent,
			// has the same uid.
			ev.UID = controlbus.HashID("position", ev.Env, ev.Broker, t.channel, pos.Stream, strconv.FormatUint(pos.Seq, 10))
		} else {
			id := t.r.cfg.Identity
			ev.UID = controlbus.HashID("seen", id.Agent, id.Incarnation, ev.Broker, t.channel, t.made, strconv.FormatInt(n, 10))
		}
	}
	return t.queue.Put(ctx, ev, pos)
}

// Begin makes the starting position durable.
func (t *tap) Begin(ctx context.Context, pos Position) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.r.export.Begin(t.queue, pos)
}

// LostByBroker counts messages that the broker dropped before the tap saw them.
func (t *tap) LostByBroker(n int64) { t.queue.LostByBroker(n) }

// Blind counts a time during which the tap was not attached.
func (t *tap) Blind(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.blind += d
	t.gaps++
}
