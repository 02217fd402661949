package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Tap copies the channel's messages into out until ctx ends.
func (a *Adapter) Tap(ctx context.Context, plan agents.TapPlan, from agents.Position, out agents.TapSink, ready func()) error {
	a.mu.Lock()
	life := a.life
	if life == nil || a.nc == nil {
		a.mu.Unlock()
		return fmt.Errorf("nats: tap %q: %w", plan.Channel, agents.ErrNotConnected)
	}
	a.taps.Add(1) // under the lock, so that Close cannot have begun to wait
	a.mu.Unlock()
	defer a.taps.Done()
	asked := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()

	err := a.tap(ctx, plan, from, out, ready)
	switch {
	case asked.Err() != nil:
		return nil
	case err != nil:
		return fmt.Errorf("nats: tap %q: %w", plan.Channel, err)
	default:
		return fmt.Errorf("nats: tap %q: %w: adapter closed", plan.Channel, agents.ErrNotConnected)
	}
}

func (a *Adapter) tap(ctx context.Context, plan agents.TapPlan, from agents.Position, out agents.TapSink, ready func()) error {
	target, ok := plan.Data.(tapTarget)
	if !ok {
		again, err := a.PlanTap(ctx, plan.Channel)
		if err != nil {
			return err
		}
		target = again.Data.(tapTarget)
	}
	// A connection of its own: closing it ends the tap whatever it is doing, and
	// a core tap that has to be cut takes nothing else with it.
	nc, err := a.dial(ctx, "tap "+plan.Channel)
	if err != nil {
		return err
	}
	defer nc.Close()
	if target.technique == techOrdered {
		return a.tapStream(ctx, nc, plan.Channel, target, from, out, ready)
	}
	return a.tapCore(ctx, nc, plan.Channel, target, out, ready)
}

// tapStream reads the stream in order with an ephemeral consumer. Where the
// sequence of deliveries breaks (a link that lost some), the consumer is made
// anew after the last message handed on: nothing is skipped silently.
func (a *Adapter) tapStream(ctx context.Context, nc *nats.Conn, channel string, target tapTarget, from agents.Position, out agents.TapSink, ready func()) error {
	js, err := a.jetstream(nc)
	if err != nil {
		return err
	}
	info, err := a.streamInfo(ctx, js, target.stream)
	if err != nil {
		return err
	}
	r := &streamReader{a: a, js: js, channel: channel, stream: target.stream, out: out, created: stamp(info.Created)}
	identity := r.stream + "@" + r.created
	r.identity = identity
	switch {
	case from.Stream == "" && from.Seq == 0:
		r.last = info.State.LastSeq
		if err := out.Begin(ctx, agents.Position{Stream: identity, Seq: r.last}); err != nil {
			return fmt.Errorf("begin after %d: %w", r.last, err)
		}
	case from.Stream != identity:
		// Deleted and made anew since: what the old one still got is gone, and
		// how much that was nobody knows. All of the new one is unseen.
		out.LostByBroker(-1)
		r.last = 0
	default:
		r.last = from.Seq
	}
	for {
		err := r.read(ctx, ready)
		ready = func() {}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it ended because it was told to
		case nc.IsClosed():
			return fmt.Errorf("%w: %w", agents.ErrNotConnected, errors.Join(nc.LastError(), err))
		case errors.Is(err, errAgain):
			// Not at once: a broken consumer must not be made a thousand times a second.
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil
			}
			// Is it still the same stream?
			info, err := a.streamInfo(ctx, js, target.stream)
			if err != nil {
				return err
			}
			if stamp(info.Created) != r.created {
				return fmt.Errorf("%w: the stream was made anew", controlbus.ErrConflict)
			}
		case err != nil:
			return err
		}
	}
}

func (a *Adapter) streamInfo(ctx context.Context, js jetstream.JetStream, name string) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	s, err := js.Stream(ctx, name)
	if err != nil {
		return nil, sentinel(err)
	}
	return s.CachedInfo(), nil
}

// errAgain asks for a new consumer after the last message handed on.
var errAgain = errors.New("consumer must be made anew")

type streamReader struct {
	a                 *Adapter
	js                jetstream.JetStream
	channel, stream   string
	created, identity string
	out               agents.TapSink
	last              uint64 // stream sequence handed on last
}

// read makes a consumer and hands on what it delivers, until it has to be made
// anew (errAgain), breaks, or ctx ends.
func (r *streamReader) read(ctx context.Context, ready func()) error {
	a := r.a
	name := a.prefix + strconv.FormatUint(a.serial.Add(1), 10)
	limit, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	_, err := r.js.CreateConsumer(limit, r.stream, jetstream.ConsumerConfig{
		Name: name, Description: "Signalbox wire tap",
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.last + 1,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, MaxDeliver: 1,
		InactiveThreshold: a.cfg.Tap.InactiveThreshold,
	})
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", name, sentinel(err))
	}
	defer a.drop(r.js, consumer{r.stream, name})
	ready()
	return r.pull(ctx, name)
}

func (r *streamReader) put(ctx context.Context, m *nats.Msg, meta *nats.MsgMetadata) error {
	seq := meta.Sequence.Stream
	if seq > r.last+1 {
		r.out.LostByBroker(int64(seq - r.last - 1))
	}
	ev := event(r.a.name, r.channel, m.Subject, m.Header, m.Data, time.Now())
	ev.UID = storedUID(r.a.name, r.stream, r.created, seq)
	ev.Time, ev.TimeSource = meta.Timestamp.UnixNano(), controlbus.TimeBroker
	ev.Position = int64(seq)
	if err := r.out.Put(ctx, ev, agents.Position{Stream: r.identity, Seq: seq}); err != nil {
		return err
	}
	r.last = seq
	return nil
}

// tapCore subscribes and reads without ever waiting: Put drops the oldest when
// the Runner's ring is full, the client drops the newest when Put cannot keep
// up, and the watch-dog closes the connection when neither helps.
func (a *Adapter) tapCore(ctx context.Context, nc *nats.Conn, channel string, target tapTarget, out agents.TapSink, ready func()) error {
	t := &coreTap{a: a, channel: channel, target: target, out: out,
		id: a.prefix + strconv.FormatUint(a.serial.Add(1), 10)}
	t.served.Store(time.Now().UnixNano())
	var subs []*nats.Subscription
	for _, s := range target.subjects {
		sub, err := nc.Subscribe(s, func(m *nats.Msg) { t.take(ctx, m) })
		if err == nil {
			err = sub.SetPendingLimits(a.cfg.Tap.PendingMessages, a.cfg.Tap.PendingBytes)
		}
		if err != nil {
			return fmt.Errorf("subscribe to %q: %w", s, sentinel(err))
		}
		subs = append(subs, sub)
	}
	// The round trip brings a refused subscription back, too.
	if err := a.ping(ctx, nc); err != nil {
		return sentinel(err)
	}
	if err := nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		return sentinel(err)
	}
	ready()
	// Nothing is left when the connection has closed and the callback returned.
	defer t.idle()
	defer nc.Close()

	interval := a.cfg.Tap.Watchdog / 4
	tick := time.NewTicker(interval)
	defer tick.Stop()
	before := time.Now()
	lost := make([]int, len(subs))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if nc.IsClosed() {
			if err := nc.LastError(); err != nil {
				return fmt.Errorf("%w: %w", agents.ErrNotConnected, err)
			}
			return agents.ErrNotConnected
		}
		pending := 0
		for i, sub := range subs {
			n, _, _ := sub.Pending()
			pending += n
			if dropped, err := sub.Dropped(); err == nil && dropped > lost[i] {
				out.LostByBroker(int64(dropped - lost[i]))
				lost[i] = dropped
			}
		}
		// Two ways of falling behind: this whole process stood still, or the
		// callback does.
		now := time.Now()
		stood, stuck := now.Sub(before), time.Duration(0)
		if pending > 0 {
			stuck = now.Sub(time.Unix(0, t.served.Load()))
		} else {
			t.served.Store(now.UnixNano())
		}
		before = now
		if behind := max(stood, stuck); behind >= a.cfg.Tap.Watchdog {
			nc.Close()
			out.LostByBroker(-1)
			return fmt.Errorf("%w: not serviced for %s; closed so that publishers are not slowed", controlbus.ErrUnavailable, behind.Round(time.Millisecond))
		}
	}
}

type coreTap struct {
	a       *Adapter
	channel string
	target  tapTarget
	out     agents.TapSink
	id      string // unique to this run of the tap
	served  atomic.Int64
	running sync.WaitGroup

	mu     sync.Mutex // several subscriptions, one sequence
	seq    uint64
	closed bool
}

func (t *coreTap) take(ctx context.Context, m *nats.Msg) {
	t.mu.Lock()
	if t.closed || ctx.Err() != nil {
		t.mu.Unlock()
		return
	}
	t.running.Add(1)
	t.seq++
	seq := t.seq
	t.mu.Unlock()
	defer t.running.Done()
	ev := t.event(m, seq)
	_ = t.out.Put(ctx, ev, agents.Position{}) // counts its own drops
	t.served.Store(time.Now().UnixNano())
}

func (t *coreTap) event(m *nats.Msg, seq uint64) *controlbus.MessageEvent {
	subject := m.Subject
	if s := m.Header.Get("Nats-Subject"); t.target.technique == techRepublish && s != "" {
		subject = s
	}
	ev := event(t.a.name, t.channel, subject, m.Header, m.Data, time.Now())
	if ev.ReplyTo == "" && !strings.HasPrefix(m.Reply, "$JS.ACK.") {
		ev.ReplyTo = m.Reply
	}
	ev.Position = int64(seq)
	if stored, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 63); t.target.technique == techRepublish && err == nil {
		ev.UID, ev.Position = storedUID(t.a.name, t.target.stream, t.target.created, stored), int64(stored)
		if at, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp")); err == nil {
			ev.Time, ev.TimeSource = at.UnixNano(), controlbus.TimeBroker
		}
		return ev
	}
	ev.UID = controlbus.HashID(system, t.a.name, t.id, strconv.FormatUint(seq, 10))
	return ev
}

// idle returns when no callback runs any more.
func (t *coreTap) idle() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.running.Wait()
}
