package agenttest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Fake is a broker in memory and the adapter for it, whose failures a test
// scripts. Its methods may be called concurrently.
type Fake struct {
	// Resumable makes its taps go on after a position.
	Resumable bool

	mu        sync.Mutex
	channels  map[string]*fakeChannel
	connected bool
	cut       bool
	closed    bool
	broken    chan struct{} // closed when the connection breaks
	taps      int
	calls     map[string]int
	fail      map[string]func(arg string) error
}

type fakeChannel struct {
	log     []Message
	changed chan struct{} // closed and made anew by every Publish
}

// NewFake returns a broker with the given channels.
func NewFake(channels ...string) *Fake {
	f := &Fake{channels: map[string]*fakeChannel{}, calls: map[string]int{}, fail: map[string]func(string) error{}}
	for _, c := range channels {
		f.Add(c)
	}
	return f
}

// Add makes a channel.
func (f *Fake) Add(channel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.channels[channel] = &fakeChannel{changed: make(chan struct{})}
}

// Publish sends messages to a channel.
func (f *Fake) Publish(channel string, msgs ...Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.channels[channel]
	c.log = append(c.log, msgs...)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Fail makes a method ("Connect", "Observe", "Channels", "PlanTap", "Tap")
// return what script returns; nil from it lets the call through, and a nil
// script ends the failure. arg is the channel or pattern.
func (f *Fake) Fail(method string, script func(arg string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[method] = script
}

// Calls is how often a method was called.
func (f *Fake) Calls(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// Taps is how many taps are attached now.
func (f *Fake) Taps() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.taps
}

// Cut breaks the connection and keeps new ones from succeeding until Heal.
func (f *Fake) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = true
	f.disconnect()
}

// Heal ends Cut.
func (f *Fake) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = false
}

func (f *Fake) disconnect() {
	if f.connected {
		f.connected = false
		close(f.broken)
	}
}

// enter counts the call and runs its script.
func (f *Fake) enter(ctx context.Context, method, arg string) error {
	f.mu.Lock()
	f.calls[method]++
	script, connected := f.fail[method], f.connected
	f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if script != nil {
		if err := script(arg); err != nil {
			return err
		}
	}
	if !connected && method != "Connect" {
		return fmt.Errorf("fake: %w", agents.ErrNotConnected)
	}
	return nil
}

// System is "fake".
func (f *Fake) System() string { return "fake" }

// Connect succeeds unless the connection is cut or scripted to fail.
func (f *Fake) Connect(ctx context.Context) (agents.Product, error) {
	if err := f.enter(ctx, "Connect", ""); err != nil {
		return agents.Product{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut {
		return agents.Product{}, fmt.Errorf("fake: %w: the link is cut", controlbus.ErrUnavailable)
	}
	if !f.connected {
		f.connected, f.broken = true, make(chan struct{})
	}
	return agents.Product{Name: "Fake", Version: "1"}, nil
}

// Observe reports every channel's depth.
func (f *Fake) Observe(ctx context.Context, md pmetric.Metrics) error {
	if err := f.enter(ctx, "Observe", ""); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName(controlbus.MetricChannelMessages)
	points := m.SetEmptyGauge().DataPoints()
	for name, c := range f.channels {
		dp := points.AppendEmpty()
		dp.SetTimestamp(pcommon.NewTimestampFromTime(time.Now()))
		dp.SetIntValue(int64(len(c.log)))
		dp.Attributes().PutStr(controlbus.AttrSystem, "fake")
		dp.Attributes().PutStr(controlbus.AttrDestination, name)
	}
	return nil
}

// Channels lists the channels that match.
func (f *Fake) Channels(ctx context.Context, pattern string) ([]string, error) {
	if err := f.enter(ctx, "Channels", pattern); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for name := range f.channels {
		if controlbus.MatchPattern(pattern, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// PlanTap plans a tap of an existing channel.
func (f *Fake) PlanTap(ctx context.Context, channel string) (agents.TapPlan, error) {
	if err := f.enter(ctx, "PlanTap", channel); err != nil {
		return agents.TapPlan{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.channels[channel] == nil {
		return agents.TapPlan{}, fmt.Errorf("fake: channel %q: %w", channel, controlbus.ErrNotFound)
	}
	return agents.TapPlan{Channel: channel, Technique: "memory", Resumable: f.Resumable, Impact: []string{"None."}}, nil
}

// Tap copies the channel's messages.
func (f *Fake) Tap(ctx context.Context, plan agents.TapPlan, from agents.Position, out agents.TapSink, ready func()) error {
	if err := f.enter(ctx, "Tap", plan.Channel); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	f.mu.Lock()
	c := f.channels[plan.Channel]
	if c == nil {
		f.mu.Unlock()
		return fmt.Errorf("fake: channel %q: %w", plan.Channel, controlbus.ErrNotFound)
	}
	next, broken := len(c.log), f.broken
	if f.Resumable && from.Stream != "" {
		next = int(from.Seq)
	}
	f.taps++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.taps--
	}()
	if f.Resumable && from == (agents.Position{}) {
		if err := out.Begin(ctx, agents.Position{Stream: "fake", Seq: uint64(next)}); err != nil {
			return err
		}
	}
	ready()
	for {
		f.mu.Lock()
		msgs, changed := slices.Clone(c.log[min(next, len(c.log)):]), c.changed
		f.mu.Unlock()
		for _, m := range msgs {
			next++
			now := time.Now().UnixNano()
			ev := &controlbus.MessageEvent{
				Time: now, AgentTime: now, TimeSource: controlbus.TimeAgent, System: "fake", Destination: plan.Channel,
				Op: controlbus.OpTap, Position: int64(next), MessageID: m.ID,
				Body: bytes.Clone(m.Body), BodySize: int64(len(m.Body)), Headers: slices.Clone(m.Headers),
			}
			var pos agents.Position
			if f.Resumable {
				pos = agents.Position{Stream: "fake", Seq: uint64(next)}
			}
			if err := out.Put(ctx, ev, pos); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
		select {
		case <-changed:
		case <-broken:
			return fmt.Errorf("fake: %w", agents.ErrNotConnected)
		case <-ctx.Done():
			return nil
		}
	}
}

// Close breaks the connection.
func (f *Fake) Close(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.disconnect()
	return nil
}

// Closed says whether Close was called.
func (f *Fake) Closed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}
