package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
)

// Ledger is the console's memory of commands; ledger.Ledger is it.
type Ledger interface {
	Outbox(ctx context.Context, agent string) ([]ledger.Outgoing, error)
	Held(ctx context.Context, agent string) ([]controlbus.Command, error)
	Dispatch(ctx context.Context, s ledger.Session, id controlbus.CommandID) (c controlbus.Command, left time.Duration, ok bool, err error)
	Merge(ctx context.Context, agent string, e ledger.AgentEvent) error
	Tick(ctx context.Context, online func(agent string) bool) error
}

// Dispatcher is the console's end of the command protocol: one session for each
// agent, the newest. It is safe for concurrent use.
type Dispatcher struct {
	ledger Ledger
	log    *slog.Logger
	now    func() time.Time
	// elsewhere says whether an agent is heard from on another console.
	elsewhere func(agent string) bool

	mu       sync.Mutex
	epoch    uint64
	sessions map[string]*session
	asks     map[string]*question
}

// NewDispatcher returns a dispatcher over a ledger. The ledger's Wake is to be
// its Wake.
func NewDispatcher(l Ledger, log *slog.Logger) *Dispatcher {
	return &Dispatcher{ledger: l, log: log, now: time.Now, sessions: map[string]*session{}, asks: map[string]*question{}}
}

// session is one connection of an agent. Its methods are called by one goroutine.
type session struct {
	d     *Dispatcher
	agent string
	epoch uint64
	wake  chan struct{}
	asks  chan Frame // questions to be sent
	gone  *gate
	// greeted is shut when the agent has said what it is.
	greeted *gate

	// Under the dispatcher's mu:
	kinds   []controlbus.CommandKind
	ready   bool // the agent has said what it is
	answers bool // and that it takes questions

	nonce string // of the agent's first word
	hello *Hello
	// sent are the commands ordered over this session; true while not answered.
	sent map[controlbus.CommandID]bool
	// cancelled are those asked to stop.
	cancelled map[controlbus.CommandID]bool
	// wished are the newest wishes told of running jobs.
	wished map[controlbus.CommandID]int64
}

// open begins a session; an earlier one of the same agent ends. The caller has
// made sure that it is the same agent.
func (d *Dispatcher) open(agent string) *session {
	s := &session{
		d: d, agent: agent, wake: make(chan struct{}, 1), asks: make(chan Frame, 16), gone: newGate(), greeted: newGate(),
		sent: map[controlbus.CommandID]bool{}, cancelled: map[controlbus.CommandID]bool{}, wished: map[controlbus.CommandID]int64{},
	}
	d.mu.Lock()
	// It rises, across restarts as well as clocks do; the random part keeps two
	// sessions from sharing one where a clock was set back.
	d.epoch = max(d.epoch+1, uint64(d.now().UnixMicro())<<10|rand.Uint64N(1<<10))
	s.epoch = d.epoch
	old := d.sessions[agent]
	d.sessions[agent] = s
	d.mu.Unlock()
	if old != nil {
		old.gone.shut()
	}
	return s
}

func (s *session) close() {
	s.gone.shut()
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if s.d.sessions[s.agent] == s {
		delete(s.d.sessions, s.agent)
	}
}

// Online says whether an agent has a session.
func (d *Dispatcher) Online(agent string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sessions[agent] != nil
}

// Elsewhere names who knows whether an agent is heard from on another console
// that shares the ledger: it is then not away. It is set once, before Run.
func (d *Dispatcher) Elsewhere(f func(agent string) bool) { d.elsewhere = f }

// Kinds are the commands that an agent says it carries out; ok is false while it
// is not connected.
func (d *Dispatcher) Kinds(agent string) (kinds []controlbus.CommandKind, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sessions[agent]
	if s == nil || !s.ready {
		return nil, false
	}
	return slices.Clone(s.kinds), true
}

// Wake makes an agent's session look into the outbox.
func (d *Dispatcher) Wake(agent string) {
	d.mu.Lock()
	s := d.sessions[agent]
	d.mu.Unlock()
	if s == nil {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run lets the ledger's time pass until ctx ends.
func (d *Dispatcher) Run(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	online := func(agent string) bool { return d.Online(agent) || d.elsewhere != nil && d.elsewhere(agent) }
	for {
		if err := d.ledger.Tick(ctx, online); err != nil && ctx.Err() == nil {
			d.log.ErrorContext(ctx, "commands cannot be looked through", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// State is what an agent reports and what is wanted of it; Roster is one.
type State interface {
	// Report takes a report and returns the whole state wanted.
	Report(ctx context.Context, a controlbus.Agent) (controlbus.Desired, error)
	// Desired is the state wanted now; ok is false for an agent never heard of.
	Desired(agent string) (d controlbus.Desired, ok bool)
}

// Serve runs an agent's session over a link until the link, ctx, or a newer
// session of the same agent ends it. state takes what the agent reports and is
// asked at each Wake what is wanted of it; nil where neither is of interest.
func (d *Dispatcher) Serve(ctx context.Context, agent string, l Link, state State) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := d.open(agent)
	defer s.close()
	defer func() { _ = l.Close() }()
	frames := make(chan Frame)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			f, err := l.Recv(ctx)
			if err != nil {
				cancel(err)
				return
			}
			select {
			case frames <- f:
			case <-ctx.Done():
				return
			}
		}
	})
	defer wg.Wait()
	defer cancel(nil)
	tick := time.NewTicker(Redeliver)
	defer tick.Stop()
	revision := int64(-1) // of the state told last
	for {
		var out []Frame
		var err error
		select {
		case f := <-frames:
			if f.Actual == nil {
				out, err = s.handle(ctx, f)
				break
			}
			if f.Epoch != s.epoch || state == nil {
				break
			}
			if f.Actual.ID != agent {
				err = fmt.Errorf("link: agent %q: %w: it reports as %q", agent, controlbus.ErrDenied, f.Actual.ID)
				break
			}
			var want controlbus.Desired
			if want, err = state.Report(ctx, *f.Actual); err == nil {
				revision = want.Revision
				out = append(out, Frame{Epoch: s.epoch, Desired: &want})
			}
		case <-s.wake:
			out, err = s.pump(ctx, false)
			if state != nil && s.hello != nil {
				if want, ok := state.Desired(agent); ok && want.Revision != revision {
					revision = want.Revision
					out = append(out, Frame{Epoch: s.epoch, Desired: &want})
				}
			}
		case f := <-s.asks:
			out = []Frame{f}
		case <-tick.C:
			out, err = s.pump(ctx, true)
		case <-s.gone.c:
			return fmt.Errorf("link: agent %q: %w: a newer connection took over", agent, controlbus.ErrConflict)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		for _, f := range out {
			if err := l.Send(ctx, f); err != nil {
				return err
			}
		}
		if err != nil {
			// The agent comes back; by then the store may be well again.
			return err
		}
	}
}

// greeting is the second step of the opening.
func (s *session) greeting() Frame { return Frame{Epoch: s.epoch, Hello: &Hello{Nonce: s.nonce}} }

// handle takes a frame from the agent and returns what is to be sent.
func (s *session) handle(ctx context.Context, f Frame) ([]Frame, error) {
	if f.Hello != nil && f.Epoch == 0 {
		s.nonce = f.Hello.Nonce
		return []Frame{s.greeting()}, nil
	}
	if f.Epoch != s.epoch {
		return nil, nil // of another session
	}
	if f.Hello != nil {
		if s.hello == nil || s.hello.Journal != f.Hello.Journal || s.hello.Head <= f.Hello.Head {
			s.hello = f.Hello
		}
		s.d.mu.Lock()
		s.kinds, s.ready, s.answers = f.Hello.Kinds, true, f.Hello.Answers
		s.d.mu.Unlock()
		s.greeted.shut()
		var out []Frame
		held, err := s.d.ledger.Held(ctx, s.agent)
		if err != nil {
			return out, err
		}
		for i := len(held) - 1; i >= 0; i-- { // oldest first
			more, err := s.order(ctx, held[i].ID)
			out = append(out, more...)
			if err != nil {
				return out, err
			}
		}
		more, err := s.pump(ctx, false)
		return append(out, more...), err
	}
	if f.Answer != nil && s.hello != nil {
		s.d.answered(s.agent, *f.Answer)
		return nil, nil
	}
	if s.hello == nil || f.Event == nil {
		return nil, nil // too early, or newer than we are
	}
	ev := f.Event
	if ev.Journal == s.hello.Journal {
		s.hello.Head = max(s.hello.Head, ev.Head)
	}
	err := s.d.ledger.Merge(ctx, s.agent, ledger.AgentEvent{
		Command: ev.Command, Seq: ev.Seq, Type: ledger.EventType(ev.Type), Journal: ev.Journal, Head: ev.Head, Progress: ev.Progress, Result: ev.Result,
	})
	switch {
	case errors.Is(err, controlbus.ErrNotFound):
		// The ledger never had it, or was restored from before it. Its agent need
		// not remember what nobody asks about.
		s.d.log.WarnContext(ctx, "an agent tells of a command the ledger does not know", "agent", s.agent, "command", ev.Command, "event", ev.Type)
	case errors.Is(err, controlbus.ErrConflict), errors.Is(err, controlbus.ErrDenied), errors.Is(err, controlbus.ErrInvalid):
		s.d.log.WarnContext(ctx, "an agent's word is not taken", "agent", s.agent, "command", ev.Command, "event", ev.Type, "error", err)
		return nil, nil
	case err != nil:
		return nil, err
	}
	var out []Frame
	if ev.Type == Result {
		out = append(out, Frame{Epoch: s.epoch, AckEvent: &AckEvent{Command: ev.Command, Seq: ev.Seq}})
		delete(s.sent, ev.Command)
		delete(s.cancelled, ev.Command)
		delete(s.wished, ev.Command)
	} else if s.sent[ev.Command] {
		s.sent[ev.Command] = false
	}
	more, err := s.pump(ctx, false)
	return append(out, more...), err
}

// pump orders what lies in the outbox, as far as the agent has credit. again
// repeats what was sent and not answered.
func (s *session) pump(ctx context.Context, again bool) ([]Frame, error) {
	if s.hello == nil {
		if again && s.nonce != "" {
			return []Frame{s.greeting()}, nil
		}
		return nil, nil
	}
	box, err := s.d.ledger.Outbox(ctx, s.agent)
	if err != nil {
		return nil, err
	}
	var out []Frame
	if again {
		// What an earlier session has ordered, and the agent has not answered in
		// this one, is not in the outbox any more.
		var open []controlbus.CommandID
		for id, unanswered := range s.sent {
			if unanswered && !slices.ContainsFunc(box, func(o ledger.Outgoing) bool { return o.Command == id && o.What == ledger.SendDispatch }) {
				open = append(open, id)
			}
		}
		slices.Sort(open)
		for _, id := range open {
			more, err := s.order(ctx, id)
			out = append(out, more...)
			if err != nil {
				return out, err
			}
		}
	}
	for _, o := range box {
		_, sent := s.sent[o.Command]
		switch o.What {
		case ledger.SendDispatch:
			if sent && !again || !sent && s.unanswered() >= MaxUnaccepted {
				continue
			}
			more, err := s.order(ctx, o.Command)
			out = append(out, more...)
			if err != nil {
				return out, err
			}
		case ledger.SendCancel:
			// Only what this session has ordered: the agent that hears of it first
			// by Cancel takes it for one that never began.
			if !sent || s.cancelled[o.Command] && !again {
				continue
			}
			s.cancelled[o.Command] = true
			out = append(out, Frame{Epoch: s.epoch, Cancel: &Cancel{Command: o.Command}})
		case ledger.SendControl:
			// What this session has not ordered will be ordered with the wish in it.
			if !sent || s.wished[o.Command] >= o.Control.Seq && !again {
				continue
			}
			s.wished[o.Command] = o.Control.Seq
			out = append(out, Frame{Epoch: s.epoch, Control: &Control{Command: o.Command, JobControl: o.Control}})
		}
	}
	return out, nil
}

func (s *session) unanswered() (n int) {
	for _, open := range s.sent {
		if open {
			n++
		}
	}
	return n
}

// order notes in the ledger that a command goes out, and returns its frame.
func (s *session) order(ctx context.Context, id controlbus.CommandID) ([]Frame, error) {
	c, left, ok, err := s.d.ledger.Dispatch(ctx, ledger.Session{Agent: s.agent, Epoch: s.epoch, Journal: s.hello.Journal, Head: s.hello.Head}, id)
	if errors.Is(err, controlbus.ErrNotFound) || err == nil && !ok {
		delete(s.sent, id)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.sent[id] = true
	d := &Dispatch{
		Command: id, Kind: c.Kind, Class: c.Class, Target: c.Target, Destination: c.Destination, Args: c.Args, Attempt: c.Attempt,
		AcceptWithin: left, RunWithin: c.RunWithin, UndoOf: c.UndoOf,
		RequestedBy: c.RequestedBy, Reason: c.Reason, Control: c.Control,
	}
	s.wished[id] = c.Control.Seq
	if c.Preview != nil {
		d.Expect = &c.Preview.Expect
	}
	return []Frame{{Epoch: s.epoch, Dispatch: d}}, nil
}
