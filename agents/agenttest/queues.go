package agenttest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Queues is a Fake whose channels hold messages, with the verbs that commands are
// built of. A test breaks it at any step: Fake.Fail names a verb ("Inspect",
// "Intake", "Next", "Accept", "Return", "Outlet", "Send", "Sent", "Accepted",
// "Purge", "Peek"); "Sent" and "Accepted" are after the effect.
type Queues struct {
	*Fake
	// Lasting positions are a stream's sequences; else they are delivery numbers.
	Lasting bool
	// Reason is why nothing can be done, where a test wants that.
	Reason string

	mu       sync.Mutex
	queues   map[string][]*held
	gone     map[string][]*held // accepted, oldest first
	seq      int64
	life     int // of the connection: an intake of an earlier one is dead
	topology string
}

// held is a message in a channel. The number is its place.
type held struct {
	seq         int64
	msg         *agents.Message
	redelivered bool
	taken       *queueIntake
}

// NewQueues returns a broker with empty channels. It is connected.
func NewQueues(channels ...string) *Queues {
	q := &Queues{Fake: NewFake(channels...), queues: map[string][]*held{}, gone: map[string][]*held{}}
	for _, c := range channels {
		q.queues[c] = nil
	}
	_, _ = q.Connect(context.Background())
	return q
}

// Put puts messages into a channel.
func (q *Queues) Put(channel string, msgs ...*agents.Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range msgs {
		q.seq++
		c := *m
		c.Headers = slices.Clone(m.Headers)
		q.queues[channel] = append(q.queues[channel], &held{seq: q.seq, msg: &c})
	}
}

// In lists what is in a channel, taken or not, in order.
func (q *Queues) In(channel string) []*agents.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]*agents.Message, 0, len(q.queues[channel]))
	for _, h := range q.queues[channel] {
		out = append(out, h.msg)
	}
	return out
}

// SetTopology changes the fingerprint that Inspect tells.
func (q *Queues) SetTopology(s string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.topology = s
}

// Break loses the connection: what was taken is in its channel again. It is there
// again at the next Connect.
func (q *Queues) Break() {
	q.Cut()
	q.Heal()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.life++
	for _, list := range q.queues {
		for _, h := range list {
			if h.taken != nil {
				h.taken, h.redelivered = nil, true
			}
		}
	}
}

// Crash is Break of a broker that has not kept the last n acceptances of each
// channel, as one that is killed may: these messages are at the head again.
func (q *Queues) Crash(n int) {
	q.Break()
	q.mu.Lock()
	defer q.mu.Unlock()
	for channel, gone := range q.gone {
		keep := max(len(gone)-n, 0)
		for _, h := range gone[keep:] {
			h.taken, h.redelivered = nil, true
		}
		q.queues[channel] = append(slices.Clone(gone[keep:]), q.queues[channel]...)
		q.gone[channel] = gone[:keep]
	}
}

func (q *Queues) list(channel string) ([]*held, error) {
	l, ok := q.queues[channel]
	if !ok {
		return nil, fmt.Errorf("fake: channel %q: %w", channel, controlbus.ErrNotFound)
	}
	return l, nil
}

// Inspect counts.
func (q *Queues) Inspect(ctx context.Context, channel string) (agents.ChannelView, error) {
	if err := q.enter(ctx, "Inspect", channel); err != nil {
		return agents.ChannelView{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l, err := q.list(channel)
	v := agents.ChannelView{Kind: "queue", Topology: q.topology}
	for _, h := range l {
		if h.taken == nil {
			v.Ready++
		} else {
			v.Unsettled++
		}
	}
	if q.Lasting {
		v.Ready, v.UpTo = int64(len(l)), strconv.FormatInt(q.seq, 10)
	}
	return v, err
}

// PlanCommand plans anything, unless there is a Reason.
func (q *Queues) PlanCommand(ctx context.Context, kind controlbus.CommandKind, channel string) (agents.CommandPlan, error) {
	if err := q.enter(ctx, "PlanCommand", channel); err != nil {
		return agents.CommandPlan{}, err
	}
	if q.Reason != "" {
		return agents.CommandPlan{}, fmt.Errorf("fake: %w: %s", controlbus.ErrUnsupported, q.Reason)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	_, err := q.list(channel)
	return agents.CommandPlan{Technique: "memory: " + string(kind), Impact: []string{"None."}, Needs: []string{"nothing"}}, err
}

// Abilities are all kinds.
func (q *Queues) Abilities() (all []controlbus.Ability) {
	for _, k := range controlbus.CommandKinds() {
		all = append(all, controlbus.Ability{Kind: k, Reason: q.Reason})
	}
	return all
}

// Outlet sends into a channel.
func (q *Queues) Outlet(ctx context.Context, channel string) (agents.Outlet, error) {
	if err := q.enter(ctx, "Outlet", channel); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, err := q.list(channel); err != nil {
		return nil, err
	}
	return &queueOutlet{q, channel, q.life}, nil
}

type queueOutlet struct {
	q       *Queues
	channel string
	life    int
}

func (o *queueOutlet) Send(ctx context.Context, msgs []*agents.Message) []error {
	errs := make([]error, len(msgs))
	for i, m := range msgs {
		if errs[i] = o.q.enter(ctx, "Send", m.MessageID); errs[i] != nil {
			continue
		}
		o.q.mu.Lock()
		_, err := o.q.list(o.channel)
		dead := o.life != o.q.life
		o.q.mu.Unlock()
		switch {
		case dead:
			errs[i] = fmt.Errorf("fake: %w", agents.ErrNotConnected)
			continue
		case err != nil:
			errs[i] = fmt.Errorf("fake: %w", agents.ErrUnroutable)
			continue
		}
		o.q.Put(o.channel, m)
		errs[i] = o.q.enter(ctx, "Sent", m.MessageID)
	}
	return errs
}

func (o *queueOutlet) Close(context.Context) error { return nil }

// Intake takes out of a channel.
func (q *Queues) Intake(ctx context.Context, channel string, o agents.IntakeOptions) (agents.Intake, error) {
	if err := q.enter(ctx, "Intake", channel); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l, err := q.list(channel)
	if err != nil {
		return nil, err
	}
	in := &queueIntake{q: q, channel: channel, life: q.life, window: o.Window, left: len(l), upTo: -1}
	if o.UpTo != "" {
		if in.upTo, err = strconv.ParseInt(o.UpTo, 10, 64); err != nil {
			return nil, fmt.Errorf("fake: %w: position %q", controlbus.ErrInvalid, o.UpTo)
		}
	}
	return in, nil
}

type queueIntake struct {
	q            *Queues
	channel      string
	life         int
	window, left int
	upTo, last   int64
	count        int64
	held         int // taken, neither accepted nor returned
}

func (in *queueIntake) Next(ctx context.Context, most int) ([]*agents.Message, error) {
	if err := in.q.enter(ctx, "Next", in.channel); err != nil {
		return nil, err
	}
	in.q.mu.Lock()
	defer in.q.mu.Unlock()
	if in.life != in.q.life {
		return nil, fmt.Errorf("fake: %w", agents.ErrNotConnected)
	}
	var out []*agents.Message
	for _, h := range in.q.queues[in.channel] {
		if len(out) >= most || in.left <= 0 || in.window > 0 && in.held >= in.window {
			break
		}
		if h.taken != nil || h.seq <= in.last || in.upTo >= 0 && h.seq > in.upTo {
			continue
		}
		in.left--
		in.count++
		in.held++
		in.last, h.taken = h.seq, in
		m := *h.msg
		m.Headers, m.Raw, m.Position = slices.Clone(h.msg.Headers), h.seq, strconv.FormatInt(in.count, 10)
		if in.q.Lasting {
			m.Position = strconv.FormatInt(h.seq, 10)
		}
		if h.redelivered {
			m.Deliveries = -1
		}
		out = append(out, &m)
	}
	if len(out) == 0 {
		if in.window > 0 && in.held >= in.window {
			return nil, fmt.Errorf("fake: %w: the window is full", controlbus.ErrConflict)
		}
		return nil, io.EOF
	}
	return out, nil
}

func (in *queueIntake) Accept(ctx context.Context, msgs []*agents.Message) error {
	for _, m := range msgs {
		if err := in.q.enter(ctx, "Accept", m.MessageID); err != nil {
			return err
		}
		in.q.mu.Lock()
		l := in.q.queues[in.channel]
		i := slices.IndexFunc(l, func(h *held) bool { return h.seq == m.Raw.(int64) && h.taken == in })
		if i >= 0 {
			in.q.gone[in.channel] = append(in.q.gone[in.channel], l[i])
			in.q.queues[in.channel] = slices.Delete(l, i, i+1)
			in.held--
		}
		in.q.mu.Unlock()
		if i < 0 {
			return fmt.Errorf("fake: %w", agents.ErrNotConnected)
		}
		if err := in.q.enter(ctx, "Accepted", m.MessageID); err != nil {
			return err
		}
	}
	return nil
}

func (in *queueIntake) Return(ctx context.Context, msgs []*agents.Message) error {
	if err := in.q.enter(ctx, "Return", in.channel); err != nil {
		return err
	}
	in.held -= len(msgs)
	return nil // at the end, so that this intake does not get them again
}

func (in *queueIntake) Close(context.Context) error {
	in.q.mu.Lock()
	defer in.q.mu.Unlock()
	for _, h := range in.q.queues[in.channel] {
		if h.taken == in {
			h.taken, h.redelivered = nil, true
		}
	}
	return nil
}

// Peek looks; it leaves no traces where positions last.
func (q *Queues) Peek(ctx context.Context, channel string, n int, look bool) ([]*agents.Message, string, error) {
	if err := q.enter(ctx, "Peek", channel); err != nil {
		return nil, "", err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l, err := q.list(channel)
	if err != nil {
		return nil, "", err
	}
	traces := ""
	if !q.Lasting {
		if !look {
			return nil, "", fmt.Errorf("fake: %w: messages would be marked as redelivered", controlbus.ErrConflict)
		}
		traces = "messages are marked as redelivered"
	}
	var out []*agents.Message
	for _, h := range l[:min(n, len(l))] {
		m := *h.msg
		m.Position = strconv.FormatInt(h.seq, 10)
		h.redelivered = h.redelivered || traces != ""
		out = append(out, &m)
	}
	return out, traces, nil
}

// Purge empties a channel.
func (q *Queues) Purge(ctx context.Context, channel, upTo string) (int64, error) {
	if err := q.enter(ctx, "Purge", channel); err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	l, err := q.list(channel)
	if err != nil {
		return 0, err
	}
	bound := q.seq
	if upTo != "" {
		if bound, err = strconv.ParseInt(upTo, 10, 64); err != nil {
			return 0, fmt.Errorf("fake: %w: position %q", controlbus.ErrInvalid, upTo)
		}
	}
	kept := slices.DeleteFunc(slices.Clone(l), func(h *held) bool { return h.taken == nil && h.seq <= bound })
	q.queues[channel] = kept
	return int64(len(l) - len(kept)), nil
}

// Separate leads test messages aside.
func (q *Queues) Separate(ctx context.Context, channel string) (string, func(context.Context) error, error) {
	if err := q.enter(ctx, "Separate", channel); err != nil {
		return "", nil, err
	}
	sink := "sb.test." + channel
	q.mu.Lock()
	q.queues[sink] = nil
	since := q.seq
	q.mu.Unlock()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			q.mu.Lock()
			q.queues[channel] = slices.DeleteFunc(q.queues[channel], func(h *held) bool {
				if h.seq <= since || h.msg.Header(controlbus.HeaderTest) == "" {
					return false
				}
				q.queues[sink] = append(q.queues[sink], h)
				return true
			})
			q.mu.Unlock()
		}
	})
	return sink, func(context.Context) error {
		close(stop)
		wg.Wait()
		q.mu.Lock()
		defer q.mu.Unlock()
		delete(q.queues, sink)
		return nil
	}, nil
}
