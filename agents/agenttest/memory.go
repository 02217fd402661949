package agenttest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Memory is a broker in memory whose messages can be taken, sent, led aside and
// parked. It outlives its adapters, which a test kills. Its methods may be
// called concurrently.
type Memory struct {
	mu       sync.Mutex
	channels map[string]*memoryChannel
	gates    map[string]*memoryGate // by channel
	paused   map[string]time.Time
	seq      uint64
	changed  chan struct{} // closed and made anew when something changes
}

type memoryChannel struct {
	ready []*memoryMessage // by seq
	out   map[*memoryMessage]*memoryIntake
}

type memoryMessage struct {
	seq        uint64
	msg        agents.Message
	deliveries int
}

type memoryGate struct {
	id, backlog string
	built, on   bool
	bypasses    []string
	leaks       []string
}

// NewMemory returns a broker with the given channels.
func NewMemory(channels ...string) *Memory {
	m := &Memory{channels: map[string]*memoryChannel{}, gates: map[string]*memoryGate{}, paused: map[string]time.Time{}, changed: make(chan struct{})}
	for _, c := range channels {
		m.add(c)
	}
	return m
}

func (m *Memory) add(name string) *memoryChannel {
	if m.channels[name] == nil {
		m.channels[name] = &memoryChannel{out: map[*memoryMessage]*memoryIntake{}}
	}
	return m.channels[name]
}

func (m *Memory) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// Publish sends messages the way a producer does: through the gate, where there
// is one.
func (m *Memory) Publish(channel string, msgs ...*agents.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if g := m.gates[channel]; g != nil && g.on {
		channel = g.backlog
	}
	for _, msg := range msgs {
		m.put(channel, msg)
	}
	m.wake()
}

func (m *Memory) put(channel string, msg *agents.Message) {
	m.seq++
	c := *msg
	c.Headers, c.Body, c.Raw = slices.Clone(msg.Headers), bytes.Clone(msg.Body), nil
	m.channels[channel].ready = append(m.channels[channel].ready, &memoryMessage{seq: m.seq, msg: c})
}

// Waiting returns what waits in a channel, in order; nil where there is none.
func (m *Memory) Waiting(channel string) []*agents.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.channels[channel]
	if c == nil {
		return nil
	}
	out := make([]*agents.Message, len(c.ready))
	for i, s := range c.ready {
		out[i] = &s.msg
	}
	return out
}

// Channels are the names of all channels.
func (m *Memory) Channels() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for name := range m.channels {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// Gates are the channels that have one.
func (m *Memory) Gates() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for name := range m.gates {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// Bypass lets a producer go around a channel's gate, as far as its view tells.
func (m *Memory) Bypass(channel string, ways ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gates[channel].bypasses = ways
}

// Leak binds something else to a channel's gate, as far as its view tells: such
// a gate can not be switched on.
func (m *Memory) Leak(channel string, to ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gates[channel].leaks = to
}

// PausedUntil is until when a channel's consumers are paused; zero: they are not.
func (m *Memory) PausedUntil(channel string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.paused[channel]
}

// Drop deletes a channel with everything in it.
func (m *Memory) Drop(channel string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.channels, channel)
	m.wake()
}

// MemoryAdapter is one agent's adapter for a Memory.
type MemoryAdapter struct {
	m *Memory
	// Script is asked before and after every verb has had its effect; an error is
	// what the caller gets. It is set before the adapter is used.
	Script func(verb, channel string, after bool) error
	// NoPause and NoGate make plans answer that the broker cannot.
	NoPause, NoGate bool

	mu   sync.Mutex
	dead bool
	gone chan struct{} // closed when it dies
}

// Adapter returns a new, connected adapter.
func (m *Memory) Adapter() *MemoryAdapter { return &MemoryAdapter{m: m, gone: make(chan struct{})} }

// Kill ends the adapter as kill -9 does: what it held unsettled goes back to its
// place, and nothing it does from now on has an effect.
func (a *MemoryAdapter) Kill() {
	a.mu.Lock()
	already := a.dead
	a.dead = true
	a.mu.Unlock()
	if already {
		return
	}
	close(a.gone)
	a.m.mu.Lock()
	defer a.m.mu.Unlock()
	for _, c := range a.m.channels {
		c.giveBack(func(in *memoryIntake) bool { return in.a == a })
	}
	a.m.wake()
}

func (c *memoryChannel) giveBack(of func(*memoryIntake) bool) {
	for s, in := range c.out {
		if of(in) {
			delete(c.out, s)
			c.ready = append(c.ready, s)
		}
	}
	slices.SortFunc(c.ready, func(x, y *memoryMessage) int { return cmp.Compare(x.seq, y.seq) })
}

// do runs a verb's effect under the broker's lock, between the script's words.
func (a *MemoryAdapter) do(ctx context.Context, verb, channel string, effect func() error) error {
	for _, after := range []bool{false, true} {
		a.mu.Lock()
		dead := a.dead
		a.mu.Unlock()
		if dead {
			return fmt.Errorf("memory: %s: %w", verb, agents.ErrNotConnected)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if after {
			a.m.mu.Lock()
			a.mu.Lock()
			dead = a.dead
			a.mu.Unlock()
			if dead { // Kill has given back what was held, or will
				a.m.mu.Unlock()
				return fmt.Errorf("memory: %s: %w", verb, agents.ErrNotConnected)
			}
			err := effect()
			if verb != "Next" && verb != "Inspect" && verb != "Gate" {
				a.m.wake()
			}
			a.m.mu.Unlock()
			if err != nil {
				return fmt.Errorf("memory: %s %s: %w", verb, channel, err)
			}
		}
		if a.Script != nil {
			if err := a.Script(verb, channel, after); err != nil {
				return fmt.Errorf("memory: %s %s: %w", verb, channel, err)
			}
		}
	}
	return nil
}

func (m *Memory) find(channel string) (*memoryChannel, error) {
	if c := m.channels[channel]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("channel %q: %w", channel, controlbus.ErrNotFound)
}

// System is "memory".
func (a *MemoryAdapter) System() string { return "memory" }

// Connect succeeds.
func (a *MemoryAdapter) Connect(context.Context) (agents.Product, error) {
	return agents.Product{Name: "Memory", Version: "1"}, nil
}

// Observe tells nothing.
func (a *MemoryAdapter) Observe(context.Context, pmetric.Metrics) error { return nil }

// Close is Kill.
func (a *MemoryAdapter) Close(context.Context) error { a.Kill(); return nil }

// PlanCommand answers for every kind.
func (a *MemoryAdapter) PlanCommand(ctx context.Context, kind controlbus.CommandKind, channel string) (agents.CommandPlan, error) {
	err := a.do(ctx, "PlanCommand", channel, func() error {
		switch _, err := a.m.find(channel); {
		case err != nil:
			return err
		case kind == controlbus.CommandPause && a.NoPause, kind == controlbus.CommandDetour && a.NoGate:
			return fmt.Errorf("%w: this broker has no way to %s", controlbus.ErrUnsupported, kind)
		case kind == controlbus.CommandDetour && a.m.gates[channel] != nil:
			return fmt.Errorf("%w: the channel has a gate", controlbus.ErrUnsupported)
		}
		return nil
	})
	return agents.CommandPlan{Technique: "memory " + string(kind), Impact: []string{"None."}, Needs: []string{"nothing"}}, err
}

// Abilities are none that a console would be told of.
func (a *MemoryAdapter) Abilities() []controlbus.Ability { return nil }

// Inspect counts; the topology tells whether there is a gate.
func (a *MemoryAdapter) Inspect(ctx context.Context, channel string) (v agents.ChannelView, err error) {
	err = a.do(ctx, "Inspect", channel, func() error {
		c, err := a.m.find(channel)
		if err != nil {
			return err
		}
		v = agents.ChannelView{Kind: "queue", Ready: int64(len(c.ready)), Unsettled: int64(len(c.out)), Topology: fmt.Sprint("gate ", a.m.gates[channel] != nil)}
		return nil
	})
	return v, err
}

// Intake takes from a channel.
func (a *MemoryAdapter) Intake(ctx context.Context, channel string, o agents.IntakeOptions) (agents.Intake, error) {
	err := a.do(ctx, "Intake", channel, func() error {
		_, err := a.m.find(channel)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &memoryIntake{a: a, channel: channel, o: o}, nil
}

type memoryIntake struct {
	a       *MemoryAdapter
	channel string
	o       agents.IntakeOptions
	n       int
}

func (in *memoryIntake) Next(ctx context.Context, most int) (msgs []*agents.Message, err error) {
	for {
		err := in.a.do(ctx, "Next", in.channel, func() error {
			c, err := in.a.m.find(in.channel)
			if err != nil {
				return err
			}
			if in.o.Window > 0 && len(c.out) >= in.o.Window {
				return nil
			}
			for len(c.ready) > 0 && len(msgs) < most && (in.o.Window == 0 || len(c.out) < in.o.Window) {
				s := c.ready[0]
				c.ready = c.ready[1:]
				c.out[s] = in
				msg := s.msg
				in.n++
				msg.Position, msg.Deliveries, msg.Raw = strconv.Itoa(in.n), s.deliveries, s
				s.deliveries++
				msgs = append(msgs, &msg)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(msgs) > 0 {
			return msgs, nil
		}
		in.a.m.mu.Lock()
		changed := in.a.m.changed
		c := in.a.m.channels[in.channel]
		more := c == nil || len(c.ready) > 0
		in.a.m.mu.Unlock()
		if more {
			continue
		}
		select {
		case <-changed:
		case <-in.a.gone:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (in *memoryIntake) settle(ctx context.Context, verb string, msgs []*agents.Message, keep bool) error {
	return in.a.do(ctx, verb, in.channel, func() error {
		c, err := in.a.m.find(in.channel)
		if err != nil {
			return err
		}
		for _, msg := range msgs {
			s, ok := msg.Raw.(*memoryMessage)
			if !ok || c.out[s] != in {
				return fmt.Errorf("%w: settled before, or another's", controlbus.ErrInvalid)
			}
			delete(c.out, s)
			if keep {
				c.ready = append(c.ready, s)
			}
		}
		slices.SortFunc(c.ready, func(x, y *memoryMessage) int { return cmp.Compare(x.seq, y.seq) })
		return nil
	})
}

func (in *memoryIntake) Accept(ctx context.Context, msgs []*agents.Message) error {
	return in.settle(ctx, "Accept", msgs, false)
}

func (in *memoryIntake) Return(ctx context.Context, msgs []*agents.Message) error {
	return in.settle(ctx, "Return", msgs, true)
}

func (in *memoryIntake) Close(context.Context) error {
	in.a.m.mu.Lock()
	defer in.a.m.mu.Unlock()
	if c := in.a.m.channels[in.channel]; c != nil {
		c.giveBack(func(other *memoryIntake) bool { return other == in })
	}
	in.a.m.wake()
	return nil
}

// Outlet sends into a channel itself, behind its gate.
func (a *MemoryAdapter) Outlet(ctx context.Context, channel string) (agents.Outlet, error) {
	err := a.do(ctx, "Outlet", channel, func() error {
		_, err := a.m.find(channel)
		return err
	})
	return &memoryOutlet{a, channel}, err
}

type memoryOutlet struct {
	a       *MemoryAdapter
	channel string
}

// Send takes all or none; after a script's error nobody knows.
func (o *memoryOutlet) Send(ctx context.Context, msgs []*agents.Message) []error {
	err := o.a.do(ctx, "Send", o.channel, func() error {
		if _, err := o.a.m.find(o.channel); err != nil {
			return agents.ErrUnroutable
		}
		for _, msg := range msgs {
			o.a.m.put(o.channel, msg)
		}
		return nil
	})
	errs := make([]error, len(msgs))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

func (o *memoryOutlet) Close(context.Context) error { return nil }

// InstallGate builds the gate in two halves, so that a script can part them.
func (a *MemoryAdapter) InstallGate(ctx context.Context, id, channel string) (string, error) {
	backlog := "sb.d." + id
	err := a.do(ctx, "InstallGate1", channel, func() error {
		if _, err := a.m.find(channel); err != nil {
			return err
		}
		a.m.add(backlog)
		if a.m.gates[channel] == nil {
			a.m.gates[channel] = &memoryGate{id: id, backlog: backlog}
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return backlog, a.do(ctx, "InstallGate2", channel, func() error {
		a.m.gates[channel].built = true
		return nil
	})
}

// SetGate switches it.
func (a *MemoryAdapter) SetGate(ctx context.Context, id, channel string, on bool) error {
	return a.do(ctx, "SetGate", channel, func() error {
		g := a.m.gates[channel]
		if g == nil || g.id != id || !g.built {
			return controlbus.ErrNotFound
		}
		if on && len(g.leaks) > 0 {
			return fmt.Errorf("%w: %v are bound to the gate", controlbus.ErrConflict, g.leaks)
		}
		g.on = on
		return nil
	})
}

// Gate reads it.
func (a *MemoryAdapter) Gate(ctx context.Context, id, channel string) (v agents.GateView, err error) {
	err = a.do(ctx, "Gate", channel, func() error {
		g := a.m.gates[channel]
		if g == nil || g.id != id {
			return nil
		}
		v = agents.GateView{Installed: g.built, On: g.on, Backlog: g.backlog, Bypasses: g.bypasses}
		if g.on {
			v.Leaks = g.leaks
		}
		if c := a.m.channels[g.backlog]; c != nil {
			v.Waiting = int64(len(c.ready) + len(c.out))
		}
		return nil
	})
	return v, err
}

// RemoveGate takes it away in two halves.
func (a *MemoryAdapter) RemoveGate(ctx context.Context, id, channel string) error {
	err := a.do(ctx, "RemoveGate1", channel, func() error {
		g := a.m.gates[channel]
		if g == nil || g.id != id {
			return nil
		}
		if c := a.m.channels[g.backlog]; g.on || c != nil && len(c.ready)+len(c.out) > 0 {
			return controlbus.ErrConflict
		}
		g.built = false
		return nil
	})
	if err != nil {
		return err
	}
	return a.do(ctx, "RemoveGate2", channel, func() error {
		if g := a.m.gates[channel]; g != nil && g.id == id {
			delete(a.m.channels, g.backlog)
			delete(a.m.gates, channel)
		}
		return nil
	})
}

// Park makes a channel.
func (a *MemoryAdapter) Park(ctx context.Context, id string) (string, error) {
	name := "sb.park." + id
	return name, a.do(ctx, "Park", name, func() error {
		a.m.add(name)
		return nil
	})
}

// Unpark removes it.
func (a *MemoryAdapter) Unpark(ctx context.Context, id string) error {
	name := "sb.park." + id
	return a.do(ctx, "Unpark", name, func() error {
		c, err := a.m.find(name)
		if err == nil && len(c.ready)+len(c.out) > 0 {
			err = controlbus.ErrConflict
		}
		if err == nil {
			delete(a.m.channels, name)
		}
		return err
	})
}

// Pause notes until when.
func (a *MemoryAdapter) Pause(ctx context.Context, channel, consumer string, until time.Time) ([]string, error) {
	return []string{or(consumer, "all")}, a.do(ctx, "Pause", channel, func() error {
		a.m.paused[channel] = until
		return nil
	})
}

// Resume forgets it.
func (a *MemoryAdapter) Resume(ctx context.Context, channel, consumer string) ([]string, error) {
	return []string{or(consumer, "all")}, a.do(ctx, "Resume", channel, func() error {
		delete(a.m.paused, channel)
		return nil
	})
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}
