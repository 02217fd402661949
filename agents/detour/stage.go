package detour

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

const (
	window    = 256     // messages held unsettled by a stage
	batch     = 128     // messages sent before their confirmations are waited for
	batchSize = 4 << 20 // bytes of them
)

// stage takes messages out of one channel, through steps, to another. One
// goroutine runs it, so that order is kept.
type stage struct {
	w      *worker
	from   string
	name   string // of what must survive a restart of the agent
	number string // among the detour's stages
	after  string // the position after which it begins, when it begins for the first time
	to     string
	final  string // where messages go that leave the steps out
	steps  []namedStep
	// removes: messages are gone once settled, whatever the channel keeps. Such a
	// stage has no memory on the broker, and looks again when there is no more.
	removes bool
	first   bool // it takes what comes from outside: filter and loop guard are there
	filter  *filter.Filter
	mark    marker
	park    func(ctx context.Context) (channel string, err error)
	bypass  bool

	halt    context.CancelFunc // it takes no more; set by run
	in      agents.Intake
	outlets map[string]agents.Outlet
	sender  agents.Sender
	op      context.Context
	ready   []*item // gone through the steps, not sent yet
	size    int

	// For the worker that watches it.
	busy   atomic.Bool   // has messages in hand
	done   atomic.Int64  // messages settled since it was made
	moved  atomic.Int64  // ns since epoch, when it last made progress
	passed atomic.Uint64 // the last position settled, where positions are numbers
}

type namedStep struct {
	name string
	step
}

// run moves messages until take ends, whose end only stops it from beginning
// anything new; op bounds what it has begun. open is called once it takes.
func (s *stage) run(take, op context.Context, a agents.Adapter, open func()) (err error) {
	s.op, s.outlets, s.ready, s.size = op, map[string]agents.Outlet{}, nil, 0
	s.sender = a.(agents.Sender)
	take, s.halt = context.WithCancel(take)
	defer s.halt()
	defer s.close()
	if _, err := s.outlet(s.to); err != nil {
		return err
	}
	o := agents.IntakeOptions{Window: window, Follow: true, Name: s.name, After: s.after}
	if s.removes {
		o = agents.IntakeOptions{Window: window}
	}
	if s.in, err = a.(agents.Taker).Intake(op, s.from, o); err != nil {
		return fmt.Errorf("take from %s: %w", s.from, err)
	}
	s.alive()
	open()
	for take.Err() == nil {
		msgs, err := s.in.Next(take, batch)
		if take.Err() != nil && len(msgs) == 0 {
			return nil
		}
		if errors.Is(err, io.EOF) && s.removes {
			if err := s.reopen(take, a, o); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("take from %s: %w: it ended", s.from, agents.ErrNotConnected)
		}
		if err != nil {
			return fmt.Errorf("take from %s: %w", s.from, err)
		}
		s.alive()
		s.busy.Store(true)
		err = s.process(take, msgs)
		s.busy.Store(false)
		if err != nil {
			if take.Err() != nil && errors.Is(err, take.Err()) {
				return nil // what was not begun is given back
			}
			return err
		}
	}
	return nil
}

// reopen looks again, after a while, into a channel that had no more.
func (s *stage) reopen(take context.Context, a agents.Adapter, o agents.IntakeOptions) error {
	ctx, cancel := context.WithTimeout(s.op, brokerPatience)
	_ = s.in.Close(ctx) // nothing is held
	cancel()
	s.in = nil
	if !backoff.Sleep(take, time.Second) {
		return nil
	}
	in, err := a.(agents.Taker).Intake(s.op, s.from, o)
	if err != nil {
		return fmt.Errorf("take from %s: %w", s.from, err)
	}
	s.in = in
	return nil
}

func (s *stage) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.op), 5*time.Second)
	defer cancel()
	s.busy.Store(false)
	if s.in != nil {
		_ = s.in.Close(ctx) // what it held comes again
	}
	for _, o := range s.outlets {
		_ = o.Close(ctx) // everything it sent was answered
	}
}

func (s *stage) outlet(channel string) (agents.Outlet, error) {
	if o := s.outlets[channel]; o != nil {
		return o, nil
	}
	ctx, cancel := context.WithTimeout(s.op, brokerPatience)
	defer cancel()
	o, err := s.sender.Outlet(ctx, channel)
	if err != nil {
		return nil, fmt.Errorf("send to %s: %w", channel, err)
	}
	s.outlets[channel] = o
	return o, nil
}

// process takes messages through the steps, in their order.
func (s *stage) process(take context.Context, msgs []*agents.Message) error {
	for _, m := range msgs {
		it := &item{src: m, msg: m, id: s.mark.id(m, !s.first), to: s.to}
		if err := s.through(take, it); err != nil {
			return errors.Join(err, s.flush(s.op))
		}
		s.ready = append(s.ready, it)
		if s.size += len(it.msg.Body); len(s.ready) >= batch || s.size >= batchSize {
			if err := s.flush(s.op); err != nil {
				return err
			}
		}
	}
	return s.flush(s.op)
}

// through takes one message through the steps. A step's refusal is the item's;
// an error means that it was not taken through.
func (s *stage) through(take context.Context, it *item) error {
	if err := take.Err(); err != nil {
		return err
	}
	if s.first {
		if s.mark.circles(it.src) {
			it.step, it.parked = "loop guard", true
			it.refused = &refusal{"it came here before: its way goes in circles"}
			return nil
		}
		w := s.w
		if !s.filter.Match(event(it.src, w.m.cfg.Env, w.system(), w.broker, w.channel, time.Now())) {
			s.leaveOut(it)
			return nil
		}
	}
	for _, st := range s.steps {
		err := st.do(take, it, s)
		if r := (*refusal)(nil); errors.As(err, &r) {
			it.step, it.refused = st.name, r
			if s.bypass {
				s.leaveOut(it)
			}
			return nil
		} else if err != nil {
			return err
		}
	}
	s.mark.stamp(it, time.Now())
	return nil
}

// leaveOut sends a message on as it came.
func (s *stage) leaveOut(it *item) {
	it.msg, it.to = it.src, s.final
	s.mark.stamp(it, time.Now())
}

// failed counts a step's attempt that failed.
func (s *stage) failed(step string, err error) {
	s.w.failed(step, err)
}

func (s *stage) alive() { s.moved.Store(int64(time.Since(epoch))) }

// epoch makes times on the monotonic clock numbers.
var epoch = time.Now()

// flush sends what is ready, waits for the broker's word on each message, and
// settles the source then, never before.
func (s *stage) flush(context.Context) error {
	items := s.ready
	s.ready, s.size = nil, 0
	if len(items) == 0 {
		return nil
	}
	var copies, on []parcel
	for _, it := range items {
		for n, c := range it.copies {
			s.mark.stampCopy(it, c.msg, s.number+"."+strconv.Itoa(n+1), time.Now())
			copies = append(copies, parcel{it, c.channel, c.msg, "copy"})
		}
	}
	s.send(copies)
	copied := int64(0)
	for _, p := range copies {
		if p.it.unknown == nil && p.it.step != "copy" {
			copied++
		}
	}
	for _, it := range items {
		if it.unknown == nil && (it.refused == nil || s.bypass && !it.parked) {
			on = append(on, parcel{it, it.to, it.msg, "send"})
		}
	}
	s.send(on)
	s.putAside(items)

	var settle []*agents.Message
	var unknown error
	var n counts
	for _, it := range items {
		if it.unknown != nil {
			unknown = it.unknown
			continue
		}
		settle = append(settle, it.src)
		if s.first {
			n.In++
		}
		if it.refused != nil {
			n.Refused++
		}
		if (it.refused == nil || s.bypass && !it.parked) && it.to == s.final {
			n.Passed++
		}
	}
	if len(settle) > 0 {
		ctx, cancel := context.WithTimeout(s.op, brokerPatience)
		err := s.in.Accept(ctx, settle)
		cancel()
		if err != nil {
			return errors.Join(unknown, fmt.Errorf("settle in %s: %w", s.from, err))
		}
		n.Copied = copied
		s.done.Add(int64(len(settle)))
		if seq, err := strconv.ParseUint(settle[len(settle)-1].Position, 10, 64); err == nil {
			s.passed.Store(seq)
			if s.first && s.after != "" {
				s.w.passed(seq)
			}
		}
		s.w.count(n)
		s.alive()
	}
	return unknown
}

// parcel is something to send for an item.
type parcel struct {
	it      *item
	channel string
	msg     *agents.Message
	step    string
}

// send sends parcels, channel by channel, in their order within each, and notes
// with their items what did not arrive.
func (s *stage) send(parcels []parcel) {
	var channels []string
	by := map[string][]parcel{}
	for _, p := range parcels {
		if by[p.channel] == nil {
			channels = append(channels, p.channel)
		}
		by[p.channel] = append(by[p.channel], p)
	}
	for _, channel := range channels {
		list := by[channel]
		o, err := s.outlet(channel)
		var errs []error
		if err == nil {
			msgs := make([]*agents.Message, len(list))
			for i := range list {
				msgs[i] = list[i].msg
			}
			ctx, cancel := context.WithTimeout(s.op, brokerPatience)
			errs = o.Send(ctx, msgs)
			cancel()
			if len(errs) != len(list) {
				err = fmt.Errorf("%w: %d answers for %d messages", agents.ErrNotConnected, len(errs), len(list))
			}
		}
		for i, p := range list {
			answer := err
			if err == nil {
				answer = errs[i]
			}
			switch {
			case answer == nil:
			case errors.Is(answer, agents.ErrUnroutable) || errors.Is(answer, controlbus.ErrInvalid):
				s.failed(p.step, answer)
				p.it.step, p.it.refused = p.step, &refusal{fmt.Sprintf("%s does not take it: %v", channel, answer)}
				if p.step == "copy" && s.bypass {
					s.leaveOut(p.it)
				} else {
					p.it.parked = true
				}
			default:
				p.it.unknown = fmt.Errorf("send to %s: %w", channel, answer)
			}
		}
	}
}

// putAside puts aside what a step or the destination refused.
func (s *stage) putAside(items []*item) {
	var list []parcel
	for _, it := range items {
		if it.unknown != nil || it.refused == nil || s.bypass && !it.parked {
			continue
		}
		channel, err := s.park(s.op)
		if err != nil {
			it.unknown = fmt.Errorf("park a message that step %s refused: %w", it.step, err)
			continue
		}
		m := (&item{src: it.src, msg: it.src}).change()
		m.SetHeader(controlbus.HeaderDetour, it.id)
		m.SetHeader(controlbus.HeaderParkStep, it.step)
		m.SetHeader(controlbus.HeaderParkReason, clip(it.refused.Error(), 1000))
		list = append(list, parcel{it, channel, m, "park"})
	}
	s.send(list)
	var bare []parcel
	for _, p := range list {
		if p.it.step == "park" && p.it.unknown == nil {
			// Its producer may have left no room for what was written on it. As it came
			// it was taken before; else one such message would stop the detour for ever.
			m := *p.it.src
			m.Raw = nil
			p.it.step = ""
			bare = append(bare, parcel{p.it, p.channel, &m, "park"})
		}
	}
	s.send(bare)
	for _, p := range bare {
		// A park channel that does not take it: it stays where it is.
		if p.it.step == "park" {
			p.it.unknown = fmt.Errorf("park: %w", p.it.refused)
		}
	}
}
