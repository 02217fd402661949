package link

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Limits of questions.
const (
	// AskWithin is how long the console waits for an answer, where the caller has
	// no deadline of its own; AskAgain how often it repeats the question.
	AskWithin = 10 * time.Second
	AskAgain  = 2 * time.Second
	// MaxAsks are open at a time over all agents, MaxAsksOfOne to one: an agent
	// that does not answer keeps nobody from asking others.
	MaxAsks      = 64
	MaxAsksOfOne = 16
)

// question is one Ask that has not been answered.
type question struct {
	agent  string
	ask    Ask
	answer chan Answer // room for one
}

// Ask puts a question to a connected agent and waits for its answer. Errors are
// controlbus.ErrUnavailable where the agent is not connected, does not answer or
// cannot tell now; ErrUnsupported where it is too old to be asked; ErrOverloaded
// while too many questions are open.
func (d *Dispatcher) Ask(ctx context.Context, agent string, ask controlbus.Ask) (controlbus.Plan, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, AskWithin)
		defer cancel()
	}
	q, err := d.openAsk(agent, ask)
	if err != nil {
		return controlbus.Plan{}, err
	}
	defer d.closeAsk(q)
	again := time.NewTicker(AskAgain)
	defer again.Stop()
	for {
		s, err := d.answering(agent)
		if err != nil {
			return controlbus.Plan{}, err
		}
		select {
		case <-s.greeted.c:
		default: // it has just connected, and will say what it is
			select {
			case <-s.greeted.c:
			case <-s.gone.c:
			case <-ctx.Done():
				return controlbus.Plan{}, notConnected(agent)
			}
			continue
		}
		select {
		case s.asks <- Frame{Epoch: s.epoch, Ask: &q.ask}:
		default: // the session is busy: it is asked again
		}
		select {
		case a := <-q.answer:
			return a.plan(agent)
		case <-again.C:
		case <-s.gone.c: // a newer session may be there
		case <-ctx.Done():
			return controlbus.Plan{}, fmt.Errorf("link: agent %q: %w: it has not answered what the command would do; it may be busy or cut off, ask again", agent, controlbus.ErrUnavailable)
		}
	}
}

func (a Answer) plan(agent string) (controlbus.Plan, error) {
	switch {
	case a.Error != "":
		return controlbus.Plan{}, fmt.Errorf("link: agent %q: %w: %s", agent, controlbus.ErrUnavailable, a.Error)
	case a.Plan == nil:
		return controlbus.Plan{}, fmt.Errorf("link: agent %q: %w: its answer is empty", agent, controlbus.ErrUnavailable)
	}
	return *a.Plan, nil
}

// answering is the session of an agent that can be asked.
func (d *Dispatcher) answering(agent string) (*session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sessions[agent]
	switch {
	case s == nil:
		return nil, notConnected(agent)
	case s.ready && !s.answers:
		return nil, fmt.Errorf("link: agent %q: %w: it cannot say beforehand what a command would do; upgrade it to the console's version", agent, controlbus.ErrUnsupported)
	}
	return s, nil
}

func notConnected(agent string) error {
	return fmt.Errorf("link: agent %q: %w: agent is not connected", agent, controlbus.ErrUnavailable)
}

// openAsk notes a question, so that its answer is known.
func (d *Dispatcher) openAsk(agent string, ask controlbus.Ask) (*question, error) {
	q := &question{agent: agent, ask: Ask{ID: rand.Text(), Ask: ask}, answer: make(chan Answer, 1)}
	if _, err := encode(Frame{Ask: &q.ask}); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	same := 0
	for _, open := range d.asks {
		if open.agent == agent {
			same++
		}
	}
	if len(d.asks) >= MaxAsks || same >= MaxAsksOfOne {
		return nil, fmt.Errorf("link: agent %q: %w: %d questions to it and %d to all agents are open; try again in some seconds", agent, controlbus.ErrOverloaded, same, len(d.asks))
	}
	d.asks[q.ask.ID] = q
	return q, nil
}

func (d *Dispatcher) closeAsk(q *question) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.asks, q.ask.ID)
}

// answered hands an answer to who waits for it. Nobody may: then it is late, or
// another agent's to give.
func (d *Dispatcher) answered(agent string, a Answer) {
	d.mu.Lock()
	q := d.asks[a.ID]
	d.mu.Unlock()
	if q == nil || q.agent != agent {
		return
	}
	select {
	case q.answer <- a:
	default: // answered twice
	}
}
