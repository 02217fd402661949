package action

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/job"
)

// maxOutlets is how many destinations are held open at a time: each may be a
// connection of its own.
const maxOutlets = 16

// sending is the job's sink for commands that send.
type sending struct {
	a *Actions
	// prepare says where an item goes and as what; its error is the item's own.
	prepare func(*item) (controlbus.ChannelName, *agents.Message, error)

	outs  map[controlbus.ChannelName]agents.Outlet
	order []controlbus.ChannelName // least lately opened first
	no    map[controlbus.ChannelName]refusal
	lost  map[string]bool // brokers whose connection went away
}

// refusal is remembered for a while, so that ten thousand messages for a channel
// that is not there do not ask ten thousand times.
type refusal struct {
	err   error
	until time.Time
}

func newSending(a *Actions, prepare func(*item) (controlbus.ChannelName, *agents.Message, error)) *sending {
	return &sending{
		a: a, prepare: prepare, outs: map[controlbus.ChannelName]agents.Outlet{}, no: map[controlbus.ChannelName]refusal{}, lost: map[string]bool{},
	}
}

// Send sends each destination its items, in their order.
func (s *sending) Send(ctx context.Context, items []*item) []error {
	errs := make([]error, len(items))
	type lot struct {
		msgs []*agents.Message
		at   []int
	}
	lots := map[controlbus.ChannelName]*lot{}
	var order []controlbus.ChannelName
	for i, it := range items {
		to, m, err := s.prepare(it)
		if err != nil {
			errs[i] = err
			continue
		}
		it.to = to
		l := lots[to]
		if l == nil {
			l = &lot{}
			lots[to] = l
			order = append(order, to)
		}
		l.msgs, l.at = append(l.msgs, m), append(l.at, i)
	}
	for _, to := range order {
		l := lots[to]
		out, err := s.outlet(ctx, to)
		if err != nil {
			for _, i := range l.at {
				errs[i] = s.judge(to, err)
			}
			continue
		}
		got := out.Send(ctx, l.msgs)
		broken := false
		for k, i := range l.at {
			err := fmt.Errorf("%w: no answer", agents.ErrNotConnected)
			if k < len(got) {
				err = got[k]
			}
			errs[i] = s.judge(to, err)
			broken = broken || errors.Is(errs[i], job.ErrLost)
		}
		if broken {
			s.drop(ctx, to)
		}
	}
	return errs
}

// judge tells an item's own fault from a connection that went away.
func (s *sending) judge(to controlbus.ChannelName, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, agents.ErrUnroutable), errors.Is(err, controlbus.ErrInvalid):
		return err
	case errors.Is(err, agents.ErrNotConnected):
		s.lost[to.Broker] = true
		return fmt.Errorf("%w: %w", job.ErrLost, err)
	case away(err), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", job.ErrLost, err)
	}
	return err
}

func (s *sending) outlet(ctx context.Context, to controlbus.ChannelName) (agents.Outlet, error) {
	if out := s.outs[to]; out != nil {
		return out, nil
	}
	if no, ok := s.no[to]; ok && time.Now().Before(no.until) {
		return nil, no.err
	}
	out, err := s.a.outlet(ctx, to)
	if err != nil {
		if !away(err) && ctx.Err() == nil {
			if len(s.no) > 1000 {
				clear(s.no)
			}
			s.no[to] = refusal{err, time.Now().Add(2 * time.Second)}
		}
		return nil, err
	}
	if len(s.order) >= maxOutlets {
		s.drop(ctx, s.order[0])
	}
	s.outs[to] = out
	s.order = append(s.order, to)
	return out, nil
}

func (s *sending) drop(ctx context.Context, to controlbus.ChannelName) {
	out := s.outs[to]
	if out == nil {
		return
	}
	delete(s.outs, to)
	for i, o := range s.order {
		if o == to {
			s.order = append(s.order[:i], s.order[i+1:]...)
			break
		}
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	_ = out.Close(closing) // everything it was given is answered, or counted as unknown
}

// close gives the connections back.
func (s *sending) close(ctx context.Context) {
	for to := range s.outs {
		s.drop(ctx, to)
	}
}

// takeLost returns the brokers whose connection went away since it was asked.
func (s *sending) takeLost() []string {
	var out []string
	for b := range s.lost {
		out = append(out, b)
	}
	clear(s.lost)
	return out
}

// outlet opens a way into a channel of any broker of the agent.
func (a *Actions) outlet(ctx context.Context, to controlbus.ChannelName) (agents.Outlet, error) {
	ad, err := a.broker(to)
	if err != nil {
		return nil, err
	}
	s, err := verb[agents.Sender](ad, "send messages")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.Outlet(ctx, to.Name)
}
