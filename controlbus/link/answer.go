package link

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

const (
	maxAnswering = 4  // questions an agent works on at a time
	keptAnswers  = 32 // so that a question told again is not worked on again
	// planWithin bounds the work on one; the console has stopped waiting by then.
	planWithin = 30 * time.Second
)

// answers are an agent's to the console's questions, under the executor's mu.
type answers struct {
	working int
	known   map[string]*Answer // nil while it is worked on
	order   []string           // of known, oldest first
}

// ask works on a question, once however often it is told. One that finds no room
// is told again.
func (e *Executor) ask(a Ask) {
	if a.ID == "" || len(a.ID) > 100 {
		return
	}
	e.mu.Lock()
	known, seen := e.answers.known[a.ID]
	room := e.answers.working < maxAnswering && e.ctx.Err() == nil
	if !seen && room {
		e.answers.keep(a.ID)
		e.answers.working++
		e.work.Add(1)
	}
	e.mu.Unlock()
	switch {
	case known != nil:
		e.sendAnswer(*known)
	case seen || !room:
	default:
		e.cfg.Go(func() {
			defer e.work.Done()
			ctx, over := context.WithTimeout(e.ctx, planWithin)
			defer over()
			answer := e.answer(ctx, a)
			e.mu.Lock()
			e.answers.working--
			if _, kept := e.answers.known[a.ID]; kept {
				e.answers.known[a.ID] = &answer
			}
			e.mu.Unlock()
			e.sendAnswer(answer)
		})
	}
}

// keep notes a question and forgets the oldest that is done with.
func (a *answers) keep(id string) {
	if a.known == nil {
		a.known = map[string]*Answer{}
	}
	a.known[id] = nil
	a.order = append(a.order, id)
	for i := 0; len(a.order) > keptAnswers && i < len(a.order); {
		if a.known[a.order[i]] == nil {
			i++
			continue
		}
		delete(a.known, a.order[i])
		a.order = slices.Delete(a.order, i, i+1)
	}
}

// answer is what there is to say, by the agent's own rules first.
func (e *Executor) answer(ctx context.Context, a Ask) Answer {
	d := Dispatch{Kind: a.Kind, Class: a.Kind.Class(), Target: a.Target, Destination: a.Destination}
	if why := e.refusal(&d); why != "" {
		return Answer{ID: a.ID, Plan: &controlbus.Plan{Refused: why}}
	}
	if e.cfg.Plan == nil {
		return Answer{ID: a.ID, Error: "this agent cannot say beforehand what a command would do"}
	}
	p, err := e.cfg.Plan(ctx, a.Ask)
	switch {
	case errors.Is(err, controlbus.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Answer{ID: a.ID, Error: clip(err.Error())}
	case err != nil: // asking again does not help
		return Answer{ID: a.ID, Plan: &controlbus.Plan{Refused: clip(err.Error())}}
	}
	return fitting(Answer{ID: a.ID, Plan: &p})
}

// clip keeps an error's text to what fits into a frame.
func clip(text string) string {
	const most = 2000
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}

// fitting leaves out of an answer what a frame does not hold: excerpts of
// messages first, then the samples.
func fitting(a Answer) Answer {
	fits := func() bool {
		b, err := json.Marshal(a)
		return err == nil && len(b) <= MaxFrame-1<<10
	}
	if len(a.Plan.Samples) > controlbus.MaxSamples {
		a.Plan.Samples = a.Plan.Samples[:controlbus.MaxSamples]
	}
	if fits() {
		return a
	}
	a.Plan.Samples = slices.Clone(a.Plan.Samples)
	for i := range a.Plan.Samples {
		a.Plan.Samples[i].Excerpt = ""
	}
	if !fits() {
		a.Plan.Samples = nil
	}
	if !fits() {
		return Answer{ID: a.ID, Plan: &controlbus.Plan{Refused: "what the agent would do does not fit into an answer"}}
	}
	return a
}

func (e *Executor) sendAnswer(a Answer) {
	e.mu.Lock()
	s := e.session
	var epoch uint64
	if s != nil {
		epoch = s.epoch
	}
	e.mu.Unlock()
	if epoch != 0 {
		s.send(Frame{Epoch: epoch, Answer: &a})
	}
}
