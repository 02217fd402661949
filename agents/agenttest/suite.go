// Package agenttest holds the suite every broker adapter passes, a scripted
// fake broker for tests of what runs adapters, and the small tools both need:
// a sink that records and a proxy that can cut a connection.
package agenttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Broker is a running broker and an adapter for it, as the suite needs them.
// The functions are called from the test's goroutine and fail the test
// themselves.
type Broker struct {
	// New returns an adapter that is not connected. The suite closes it.
	New func(t *testing.T) agents.Adapter
	// Channel makes an empty channel that the adapter can tap, with a name of
	// its own, and removes it when the test ends.
	Channel func(t *testing.T) string
	// Publish sends the messages to the channel in order and returns when the
	// broker has taken all of them.
	Publish func(t *testing.T, channel string, msgs ...Message)
	// Artefacts lists what the agent has on the broker now: queues, consumers,
	// subscriptions. Nil leaves the leftover checks out.
	Artefacts func(t *testing.T) []string
	// Cut breaks the adapter's connections to the broker and keeps new ones
	// from succeeding until Heal; a Proxy between the two does both. Nil leaves
	// the tests of broken connections out.
	Cut, Heal func(t *testing.T)
	// NoHeaders says that this broker's messages carry no headers.
	NoHeaders bool
	// UniqueHeaders says that a header name cannot be repeated on this broker.
	UniqueHeaders bool
	// NoEmptyBody says that this broker has no empty messages.
	NoEmptyBody bool
	// Messages is how many messages the copy tests send; 0 means 1,000.
	Messages int
	// Patience is how long the suite waits for anything; 0 means 15 s.
	Patience time.Duration
}

// Message is what the suite publishes.
type Message struct {
	ID      string
	Body    []byte
	Headers []controlbus.Header // values are bytes, not always text
}

// TestAdapter runs the suite.
func TestAdapter(t *testing.T, b Broker) {
	if b.Messages == 0 {
		b.Messages = 1000
	}
	if b.Patience == 0 {
		b.Patience = 15 * time.Second
	}
	for _, c := range []struct {
		name string
		run  func(*testing.T, Broker)
	}{
		{"connect tells the product", testConnect},
		{"observe reports the channel", testObserve},
		{"channels are found by pattern", testChannels},
		{"planning touches nothing", testPlan},
		{"a tap copies every message in order", testTapCopies},
		{"a tap that ends leaves nothing", testTapEnds},
		{"two taps are independent", testTwoTaps},
		{"a 1 MiB body", testBigBody},
		{"an empty body", testEmptyBody},
		{"repeated and binary headers", testHeaders},
		{"a resumable tap goes on after its position", testResume},
		{"a broken connection is ErrNotConnected and can be made again", testBroken},
		{"a cancelled call returns", testCancelled},
		{"close ends taps and forgets nothing", testClose},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, b) })
	}
}

func testConnect(t *testing.T, b Broker) {
	a := b.connected(t)
	if a.System() == "" {
		t.Error("System is empty")
	}
	ctx := b.ctx(t)
	p, err := a.Connect(ctx) // Runner connects again without Close
	if err != nil {
		t.Fatalf("second Connect: %v", err)
	}
	if p.Name == "" || p.Version == "" {
		t.Errorf("product without name or version: %+v", p)
	}
}

func testObserve(t *testing.T, b Broker) {
	a, ch := b.connected(t), b.Channel(t)
	b.Publish(t, ch, Message{ID: "observed", Body: []byte("x")})
	b.eventually(t, "Observe to report the channel "+ch, func() (bool, string) {
		md := pmetric.NewMetrics()
		if err := a.Observe(b.ctx(t), md); err != nil {
			return false, err.Error()
		}
		if problem := CheckMetrics(md, a.System()); problem != "" {
			t.Fatal(problem)
		}
		return mentions(md, ch), fmt.Sprintf("%d data points, none of this channel", md.DataPointCount())
	})
}

func testChannels(t *testing.T, b Broker) {
	a, ch := b.tapper(t), b.Channel(t)
	b.eventually(t, "Channels to list "+ch, func() (bool, string) {
		got, err := a.Channels(b.ctx(t), "*")
		if err != nil {
			return false, err.Error()
		}
		return slices.Contains(got, ch), fmt.Sprintf("%q", got)
	})
	prefix := ch[:len(ch)-1] + "*"
	got, err := a.Channels(b.ctx(t), prefix)
	if err != nil || !slices.Contains(got, ch) {
		t.Errorf("Channels(%q): got %q, %v, want %q among them", prefix, got, err, ch)
	}
	for _, name := range got {
		if !controlbus.MatchPattern(prefix, name) {
			t.Errorf("Channels(%q) lists %q, which does not match", prefix, name)
		}
	}
	got, err = a.Channels(b.ctx(t), "no-such-channel-*-anywhere")
	if err != nil || len(got) != 0 {
		t.Errorf("Channels of a pattern that nothing matches: got %q, %v, want none", got, err)
	}
}

func testPlan(t *testing.T, b Broker) {
	a, ch := b.tapper(t), b.Channel(t)
	before := b.artefacts(t)
	plan, err := a.PlanTap(b.ctx(t), ch)
	if err != nil {
		t.Fatal(err)
	}
	if plan.Channel != ch || plan.Technique == "" {
		t.Errorf("plan: got channel %q and technique %q, want %q and a name", plan.Channel, plan.Technique, ch)
	}
	if after := b.artefacts(t); !slices.Equal(before, after) {
		t.Errorf("planning made artefacts: before %q, after %q", before, after)
	}
}

func testTapCopies(t *testing.T, b Broker) {
	a, ch := b.tapper(t), b.Channel(t)
	tap := b.tap(t, a, ch, agents.Position{})
	want := make([]Message, b.Messages)
	for i := range want {
		want[i] = Message{ID: fmt.Sprintf("m-%05d", i), Body: fmt.Appendf(nil, `{"n":%d}`, i)}
	}
	b.Publish(t, ch, want...)
	tap.sink.wait(t, b.Patience, len(want))
	got := tap.sink.Events()
	for i, ev := range got {
		if i >= len(want) {
			t.Fatalf("%d events for %d messages; the first too many: %q", len(got), len(want), ev.Body)
		}
		if !bytes.Equal(ev.Body, want[i].Body) {
			t.Fatalf("event %d has body %q, want %q", i, ev.Body, want[i].Body)
		}
	}
	ev := got[0]
	if ev.Destination != ch || ev.System != a.(agents.Adapter).System() || ev.Op != controlbus.OpTap {
		t.Errorf("event: destination %q, system %q, op %v; want %q, %q, tap", ev.Destination, ev.System, ev.Op, ch, a.(agents.Adapter).System())
	}
	if ev.BodySize != int64(len(ev.Body)) {
		t.Errorf("body size %d, body has %d bytes", ev.BodySize, len(ev.Body))
	}
	if ev.AgentTime == 0 || ev.Time == 0 || ev.TimeSource == controlbus.TimeUnknown {
		t.Errorf("event without times: time %d (%v), agent time %d", ev.Time, ev.TimeSource, ev.AgentTime)
	}
	if n := tap.sink.Lost(); n != 0 {
		t.Errorf("%d messages reported lost by the broker, none were", n)
	}
	tap.stop(t)
}

func testTapEnds(t *testing.T, b Broker) {
	a, ch := b.tapper(t), b.Channel(t)
	before := b.artefacts(t)
	tap := b.tap(t, a, ch, agents.Position{})
	b.Publish(t, ch, Message{ID: "1", Body: []byte("1")})
	tap.sink.wait(t, b.Patience, 1)
	tap.stop(t)
	if after := b.artefacts(t); !slices.Equal(before, after) {
		t.Errorf("the tap left something: before %q, after %q", before, after)
	}
	b.Publish(t, ch, Message{ID: "2", Body: []byte("2")})
	// A fresh tap proves that the broker has handed on everything before it;
	// what the ended tap was given by then it would have been given for good.
	again := b.tap(t, a, ch, agents.Position{})
	b.Publish(t, ch, Message{ID: "3", Body: []byte("3")})
	again.sink.wait(t, b.Patience, 1)
	if got := again.sink.Events(); string(got[0].Body) != "3" {
		t.Errorf("a new tap began with %q, want what was published after it was ready", got[0].Body)
	}
	if n := len(tap.sink.Events()); n != 1 {
		t.Errorf("the ended tap has %d events, want 1", n)
	}
	again.stop(t)
}

func testTwoTaps(t *testing.T, b Broker) {
	a, one, two := b.tapper(t), b.Channel(t), b.Channel(t)
	t1, t2 := b.tap(t, a, one, agents.Position{}), b.tap(t, a, two, agents.Position{})
	b.Publish(t, one, Message{ID: "1", Body: []byte("to one")})
	b.Publish(t, two, Message{ID: "2", Body: []byte("to two")})
	t1.sink.wait(t, b.Patience, 1)
	t2.sink.wait(t, b.Patience, 1)
	t1.stop(t)
	b.Publish(t, two, Message{ID: "3", Body: []byte("to two again")})
	t2.sink.wait(t, b.Patience, 2)
	t2.stop(t)
	if got := t1.sink.Events(); len(got) != 1 || string(got[0].Body) != "to one" {
		t.Errorf("the first tap saw %d events, want the one of its channel", len(got))
	}
}

func testBigBody(t *testing.T, b Broker) {
	a, ch := b.tapper(t), b.Channel(t)
	tap := b.tap(t, a, ch, agents.Position{})
	body := bytes.Repeat([]byte("\x00\xffbinary\x01"), 1<<20/9+1)[:1<<20-1024]
	b.Publish(t, ch, Message{ID: "big", Body: body})
	tap.sink.wait(t, b.Patience, 1)
	ev := tap.sink.Events()[0]
	if ev.BodySize != int64(len(body)) || sha256.Sum256(ev.Body) != sha256.Sum256(body) {
		t.Errorf("body of %d bytes came as %d bytes (size %d) or changed", len(body), len(ev.Body), ev.BodySize)
	}
	tap.stop(t)
}

func testEmptyBody(t *testing.T, b Broker) {
	if b.NoEmptyBody {
		t.Skip("this broker has no empty messages")
	}
	a, ch := b.tapper(t), b.Channel(t)
	tap := b.tap(t, a, ch, agents.Position{})
	b.Publish(t, ch, Message{ID: "empty"}, Message{ID: "next", Body: []byte("next")})
	tap.sink.wait(t, b.Patience, 2)
	if ev := tap.sink.Events()[0]; len(ev.Body) != 0 || ev.BodySize != 0 {
		t.Errorf("empty message came with %d bytes, size %d", len(ev.Body), ev.BodySize)
	}
	tap.stop(t)
}

func testHeaders(t *testing.T, b Broker) {
	if b.NoHeaders {
		t.Skip("this broker's messages carry no headers")
	}
	a, ch := b.tapper(t), b.Channel(t)
	tap := b.tap(t, a, ch, agents.Position{})
	want := []controlbus.Header{{Key: "x-one", Value: "first"}, {Key: "x-bin", Value: "caf\xe9 \xff\xfe"}, {Key: "x-empty", Value: ""}}
	if !b.UniqueHeaders {
		want = append(want, controlbus.Header{Key: "x-one", Value: "second"})
	}
	b.Publish(t, ch, Message{ID: "h", Body: []byte("h"), Headers: want})
	tap.sink.wait(t, b.Patience, 1)
	got := tap.sink.Events()[0].Headers
	for _, h := range want {
		if !slices.Contains(got, h) {
			t.Errorf("header %q=%q is missing from %q", h.Key, h.Value, got)
		}
	}
	tap.stop(t)
}

func testResume(t *testing.T, b Broker) {
	a, ch := b.tapper(t), b.Channel(t)
	plan, err := a.PlanTap(b.ctx(t), ch)
	if err != nil {
		t.Fatal(err)
	}
	if !plan.Resumable {
		t.Skipf("technique %s is not resumable", plan.Technique)
	}
	// Killed before its first message, a tap goes on from where it began.
	first := b.tap(t, a, ch, agents.Position{})
	begun := first.sink.Begun()
	if begun == (agents.Position{}) {
		t.Error("the tap is ready and has not told where it begins")
	}
	first.stop(t)
	b.Publish(t, ch, Message{ID: "0", Body: []byte("0")})
	first = b.tap(t, a, ch, begun)
	first.sink.wait(t, b.Patience, 1)
	if got := first.sink.Events(); string(got[0].Body) != "0" {
		t.Errorf("a tap that goes on from its beginning starts with %q, want 0", got[0].Body)
	}
	if again := first.sink.Begun(); again != (agents.Position{}) {
		t.Errorf("a tap with a position begins at %+v", again)
	}
	first.stop(t)

	tap := b.tap(t, a, ch, agents.Position{})
	b.Publish(t, ch, Message{ID: "1", Body: []byte("1")}, Message{ID: "2", Body: []byte("2")})
	tap.sink.wait(t, b.Patience, 2)
	pos := tap.sink.Positions()
	tap.stop(t)
	b.Publish(t, ch, Message{ID: "3", Body: []byte("3")})
	again := b.tap(t, a, ch, pos[0]) // as after a crash that lost the second
	again.sink.wait(t, b.Patience, 2)
	got := again.sink.Events()
	if string(got[0].Body) != "2" || string(got[1].Body) != "3" {
		t.Errorf("resumed after 1 with %q and %q, want 2 and 3", got[0].Body, got[1].Body)
	}
	if again.sink.Positions()[0] != pos[1] {
		t.Errorf("the same message has position %+v and later %+v", pos[1], again.sink.Positions()[0])
	}
	again.stop(t)
}

func testBroken(t *testing.T, b Broker) {
	if b.Cut == nil {
		t.Skip("no way to cut connections given")
	}
	a, ch := b.tapper(t), b.Channel(t)
	before := b.artefacts(t)
	tap := b.tap(t, a, ch, agents.Position{})
	b.Cut(t)
	healed := false
	defer func() {
		if !healed {
			b.Heal(t)
		}
	}()
	if err := tap.wait(t, b.Patience); !errors.Is(err, agents.ErrNotConnected) {
		t.Errorf("a tap whose connection was cut returned %v, want ErrNotConnected", err)
	}
	if err := a.(agents.Adapter).Observe(b.ctx(t), pmetric.NewMetrics()); !errors.Is(err, agents.ErrNotConnected) {
		t.Errorf("Observe without a connection: got %v, want ErrNotConnected", err)
	}
	if _, err := a.PlanTap(b.ctx(t), ch); !errors.Is(err, agents.ErrNotConnected) {
		t.Errorf("PlanTap without a connection: got %v, want ErrNotConnected", err)
	}
	b.Heal(t)
	healed = true
	b.eventually(t, "Connect to succeed again", func() (bool, string) {
		_, err := a.(agents.Adapter).Connect(b.ctx(t))
		return err == nil, fmt.Sprint(err)
	})
	again := b.tap(t, a, ch, agents.Position{})
	b.Publish(t, ch, Message{ID: "after", Body: []byte("after")})
	again.sink.wait(t, b.Patience, 1)
	again.stop(t)
	b.eventually(t, "the cut tap's artefacts to go", func() (bool, string) {
		after := b.artefacts(t)
		return slices.Equal(before, after), fmt.Sprintf("before %q, after %q", before, after)
	})
}

func testCancelled(t *testing.T, b Broker) {
	a, ch := b.tapper(t), b.Channel(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.(agents.Adapter).Observe(ctx, pmetric.NewMetrics())
		_, _ = a.Channels(ctx, "*")
		_, _ = a.PlanTap(ctx, ch)
		_ = a.Tap(ctx, agents.TapPlan{Channel: ch}, agents.Position{}, NewSink(), func() {})
	}()
	select {
	case <-done:
	case <-time.After(b.Patience):
		t.Fatal("a call with a cancelled context does not return")
	}
}

func testClose(t *testing.T, b Broker) {
	a := b.New(t)
	if _, err := a.Connect(b.ctx(t)); err != nil {
		t.Fatal(err)
	}
	tapper, ok := a.(agents.Tapper)
	if !ok {
		t.Skip("the adapter does not tap")
	}
	ch := b.Channel(t)
	before := b.artefacts(t)
	tap := b.tap(t, tapper, ch, agents.Position{})
	if err := a.Close(b.ctx(t)); err != nil {
		t.Fatal(err)
	}
	tap.wait(t, b.Patience)
	b.eventually(t, "everything of the closed adapter to go", func() (bool, string) {
		after := b.artefacts(t)
		return slices.Equal(before, after), fmt.Sprintf("before %q, after %q", before, after)
	})
	if err := a.Observe(b.ctx(t), pmetric.NewMetrics()); !errors.Is(err, agents.ErrNotConnected) {
		t.Errorf("Observe after Close: got %v, want ErrNotConnected", err)
	}
	if err := a.Close(b.ctx(t)); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// CheckMetrics returns what is wrong with the shape of an adapter's
// observation, or nothing.
func CheckMetrics(md pmetric.Metrics, system string) string {
	if md.DataPointCount() == 0 {
		return "Observe returned no data points"
	}
	sums := []string{controlbus.MetricChannelPublished, controlbus.MetricChannelDelivered, controlbus.MetricChannelAcked}
	gauges := []string{
		controlbus.MetricChannelMessages, controlbus.MetricChannelBytes, controlbus.MetricChannelConsumers,
		controlbus.MetricChannelStored, controlbus.MetricChannelLag, controlbus.MetricBrokerUp,
	}
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				var dps pmetric.NumberDataPointSlice
				switch {
				case slices.Contains(sums, m.Name()):
					if m.Type() != pmetric.MetricTypeSum || !m.Sum().IsMonotonic() || m.Sum().AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
						return m.Name() + ": want a monotonic cumulative sum"
					}
					dps = m.Sum().DataPoints()
				case slices.Contains(gauges, m.Name()):
					if m.Type() != pmetric.MetricTypeGauge {
						return m.Name() + ": want a gauge"
					}
					dps = m.Gauge().DataPoints()
				default:
					continue // an adapter may add its own
				}
				for _, dp := range dps.All() {
					if s, _ := dp.Attributes().Get(controlbus.AttrSystem); s.Str() != system {
						return fmt.Sprintf("%s: %s is %q, want %q", m.Name(), controlbus.AttrSystem, s.Str(), system)
					}
					if _, ok := dp.Attributes().Get(controlbus.AttrDestination); !ok && m.Name() != controlbus.MetricBrokerUp {
						return m.Name() + ": a data point without " + controlbus.AttrDestination
					}
					if dp.Timestamp() == 0 {
						return m.Name() + ": a data point without a time"
					}
				}
			}
		}
	}
	return ""
}

func mentions(md pmetric.Metrics, channel string) bool {
	for _, rm := range md.ResourceMetrics().All() {
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				if m.Type() != pmetric.MetricTypeGauge {
					continue
				}
				for _, dp := range m.Gauge().DataPoints().All() {
					if v, _ := dp.Attributes().Get(controlbus.AttrDestination); v.Str() == channel {
						return true
					}
				}
			}
		}
	}
	return false
}

func (b Broker) ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), b.Patience)
	t.Cleanup(cancel)
	return ctx
}

func (b Broker) connected(t *testing.T) agents.Adapter {
	t.Helper()
	a := b.New(t)
	if _, err := a.Connect(b.ctx(t)); err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), b.Patience)
		defer cancel()
		if err := a.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return a
}

func (b Broker) tapper(t *testing.T) agents.Tapper {
	t.Helper()
	a, ok := b.connected(t).(agents.Tapper)
	if !ok {
		t.Skip("the adapter does not tap")
	}
	return a
}

func (b Broker) artefacts(t *testing.T) []string {
	if b.Artefacts == nil {
		return nil
	}
	got := b.Artefacts(t)
	slices.Sort(got)
	return got
}

func (b Broker) eventually(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(b.Patience)
	for {
		done, state := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s: %s", b.Patience, what, state)
		}
		time.Sleep(20 * time.Millisecond) // a poll of another process
	}
}

// runningTap is one Tap call in its goroutine.
type runningTap struct {
	sink   *Sink
	cancel context.CancelFunc
	done   chan struct{}
	err    error
	limit  time.Duration
}

// tap plans and starts a tap and returns once it is ready.
func (b Broker) tap(t *testing.T, a agents.Tapper, channel string, from agents.Position) *runningTap {
	t.Helper()
	plan, err := a.PlanTap(b.ctx(t), channel)
	if err != nil {
		t.Fatalf("plan tap of %q: %v", channel, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &runningTap{sink: NewSink(), cancel: cancel, done: make(chan struct{}), limit: b.Patience}
	ready := make(chan struct{})
	go func() {
		defer close(r.done)
		r.err = a.Tap(ctx, plan, from, r.sink, sync.OnceFunc(func() { close(ready) }))
	}()
	t.Cleanup(func() {
		cancel()
		r.wait(t, b.Patience)
	})
	select {
	case <-ready:
	case <-r.done:
		t.Fatalf("tap of %q ended before it was ready: %v", channel, r.err)
	case <-time.After(b.Patience):
		t.Fatalf("tap of %q is not ready after %v", channel, b.Patience)
	}
	return r
}

func (r *runningTap) wait(t *testing.T, patience time.Duration) error {
	t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(patience):
		t.Errorf("the tap does not return within %v", patience)
		return nil
	}
}

// stop ends the tap as Runner does and checks that it ended well.
func (r *runningTap) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	if err := r.wait(t, r.limit); err != nil {
		t.Errorf("a tap ended by its context returned %v, want nil", err)
	}
}
