package detour

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// pump is the stages of a detour at work.
type pump struct {
	stages []*stage
	broken chan error // the first error of a stage
	soft   context.CancelFunc
	hard   context.CancelFunc
	wg     sync.WaitGroup

	settled int64 // at the last measure
	at      time.Time
}

// grace is how long a stage may take to settle what it has in hand.
const grace = 10 * time.Second

// stop lets the stages settle what they have in hand and waits for them.
func (p *pump) stop() {
	p.soft()
	t := time.AfterFunc(grace, p.hard)
	p.wg.Wait()
	t.Stop()
	p.hard()
	for _, s := range p.stages {
		for _, st := range s.steps {
			if h, ok := st.step.(*httpStep); ok {
				h.close()
			}
		}
	}
}

func (p *pump) idle() bool {
	for _, s := range p.stages {
		if s.busy.Load() {
			return false
		}
	}
	return true
}

func (p *pump) done() int64 {
	n := int64(0)
	for _, s := range p.stages {
		n += s.done.Load()
	}
	return n
}

// open makes the stages and returns when all of them take messages. released
// lets go what a hold step keeps.
func (w *worker) open(ctx context.Context, a agents.Adapter, source string, released bool) (*pump, error) {
	stages, err := w.stages(ctx, a, source, released)
	if err != nil {
		return nil, err
	}
	p := &pump{stages: stages, broken: make(chan error, len(stages)), at: time.Now()}
	op, hard := context.WithCancel(context.WithoutCancel(ctx))
	take, soft := context.WithCancel(ctx)
	p.soft, p.hard = soft, hard
	open := make(chan struct{}, len(stages))
	for _, s := range stages {
		p.wg.Go(func() {
			if err := s.run(take, op, a, func() { open <- struct{}{} }); err != nil {
				p.broken <- err
			}
		})
	}
	limit := time.NewTimer(brokerPatience)
	defer limit.Stop()
	for range stages {
		select {
		case <-open:
			continue
		case err = <-p.broken:
		case <-ctx.Done():
			err = ctx.Err()
		case <-limit.C:
			err = fmt.Errorf("%w: the broker did not answer in %v", controlbus.ErrUnavailable, brokerPatience)
		}
		soft()
		hard()
		p.stop()
		return nil, err
	}
	return p, nil
}

// stages cuts the steps where a channel of the user's own lies between them. A
// hold step as the only one lets everything wait in the backlog: there is no
// stage until it is released. Behind others, or with a filter, what is held goes
// to a channel of the detour's own, and comes out of that, in its order, when it
// is released.
func (w *worker) stages(ctx context.Context, a agents.Adapter, source string, released bool) ([]*stage, error) {
	rec, _ := w.record()
	d := rec.Detour
	final := rec.Channel
	if rec.Technique == byJunction {
		final = d.To
	}
	match, err := filter.Parse(d.Filter, rec.Ordered)
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	mark := newMarker(w.m.cfg.Agent, rec.Channel, w.id, rec.Made)
	newStage := func(from, to string, n int) *stage {
		return &stage{
			w: w, from: from, to: to, final: final, name: stageName(w.id, n), number: strconv.Itoa(n), after: rec.After[from], first: n == 0, filter: match, mark: mark,
			park: func(ctx context.Context) (string, error) { return w.park(ctx, a) }, bypass: d.OnFailure == controlbus.DetourBypass,
		}
	}
	var list []*stage
	first := newStage(source, final, 0)
	if plainHold(d) {
		if released {
			list = append(list, first)
		}
		return w.letGo(list, rec.Hold, released, newStage), nil
	}
	if _, err := w.park(ctx, a); err != nil {
		return nil, err
	}
	list = append(list, first)
	held := rec.Hold
	for _, s := range d.Steps {
		at := list[len(list)-1]
		switch {
		case s.Channel != nil:
			at.to = s.Channel.Send
			list = append(list, newStage(s.Channel.Receive, final, len(list)))
		case s.Hold != nil:
			hold, err := w.hold(ctx, a)
			if err != nil {
				return nil, err
			}
			at.to, held = hold, hold
		default:
			st, err := compile(s, w.m.allow)
			if err != nil {
				return nil, err
			}
			at.steps = append(at.steps, namedStep{s.Name(), st})
		}
	}
	return w.letGo(list, held, released || d.Steps[len(d.Steps)-1].Hold == nil, newStage), nil
}

// letGo adds the stage that sends on what a hold step has put aside, be it one
// that the detour has no more.
func (w *worker) letGo(list []*stage, held string, released bool, newStage func(from, to string, n int) *stage) []*stage {
	if held == "" || !released {
		return list
	}
	s := newStage(held, "", holdStage)
	s.to, s.removes = s.final, true
	return append(list, s)
}

// holdStage is the number of the stage that lets go what was held: always the
// same, for a broker may take no second consumer of its channel.
const holdStage = 99

// stageName is of what a stage leaves on a broker that must remember it.
func stageName(id string, n int) string { return "sb-detour-" + id + "-" + strconv.Itoa(n) }

// plainHold says whether everything waits where it is.
func plainHold(d controlbus.Detour) bool {
	return len(d.Steps) == 1 && d.Steps[0].Hold != nil && d.Filter == ""
}

// park names the channel for what is refused, and makes it.
func (w *worker) park(ctx context.Context, a agents.Adapter) (string, error) {
	rec, _ := w.record()
	if rec.Detour.Park != "" {
		return rec.Detour.Park, nil
	}
	return w.own(ctx, a, w.id, rec.Park, func(r *record, channel string) { r.Park = channel })
}

func (w *worker) hold(ctx context.Context, a agents.Adapter) (string, error) {
	rec, _ := w.record()
	return w.own(ctx, a, holdID(w.id), rec.Hold, func(r *record, channel string) { r.Hold = channel })
}

// own makes a channel of the detour's own, and notes it. It is made again where
// somebody has taken it away.
func (w *worker) own(ctx context.Context, a agents.Adapter, id, have string, note func(*record, string)) (string, error) {
	p, ok := a.(agents.Parker)
	if !ok {
		return "", fmt.Errorf("%w: this agent cannot make a channel on this broker; name one to park in", controlbus.ErrUnsupported)
	}
	c, cancel := call(ctx)
	defer cancel()
	channel, err := p.Park(c, id)
	if err != nil {
		return "", fmt.Errorf("make a channel to park in: %w", err)
	}
	if channel != have {
		if err := w.note(func(r *record) { note(r, channel) }); err != nil {
			return "", err
		}
	}
	return channel, nil
}

// drain works off what is there and says whether nothing is left. Gates are
// drained when the backlog is empty; a junction's channel may be written to for
// ever: it is drained when what was there has been taken (upTo, most), or when
// nothing has come for a while.
func (w *worker) drain(ctx context.Context, a agents.Adapter, source string, edition int, upTo uint64, most int64) (bool, error) {
	p, err := w.open(ctx, a, source, true)
	if errors.Is(err, controlbus.ErrNotFound) {
		// What a gate never had, or lost with it. Other channels must be there.
		if v, gateErr := w.look(ctx, a, source); gateErr != nil && errors.Is(gateErr, controlbus.ErrNotFound) && v.Ready == 0 {
			return true, nil
		}
	}
	if err != nil {
		return false, err
	}
	defer p.stop()
	w.arrived()
	rec, _ := w.record()
	quiet := 300 * time.Millisecond
	if rec.Technique == byJunction {
		quiet = 2 * time.Second
	}
	through := channelsOf(rec.Detour)
	if len(through) > 0 {
		quiet = 5 * time.Second // the user's own program may have some in hand
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	halted := rec.Technique != byJunction
	settled, since, measured := int64(-1), time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return false, nil
		case <-w.kick:
			if w.stale(edition) {
				return false, nil
			}
		case err := <-p.broken:
			return false, err
		case now := <-tick.C:
			if now.Sub(measured) >= time.Second {
				measured = now
				w.measure(now, p)
				if rec.Technique == byGate {
					if _, err := w.gate(ctx, a, rec.Channel); err != nil {
						return false, err
					}
				} else {
					w.depth(ctx, a, rec.Channel)
				}
			}
			if first := p.stages[0]; !halted && (upTo > 0 && max(rec.Position, first.passed.Load()) >= upTo || upTo == 0 && most >= 0 && first.done.Load() >= most) {
				first.halt()
				if halted = true; len(through) == 0 && rec.Hold == "" {
					return true, nil
				}
			}
			if n := p.done(); n != settled || !p.idle() {
				settled, since = n, now
				continue
			}
			if now.Sub(since) < quiet {
				continue
			}
			since = now // once for each quiet time
			empty, err := w.empty(ctx, a, rec, append(through, rec.Hold))
			if err != nil || empty {
				return empty, err
			}
		}
	}
}

// empty asks the broker whether anything is left.
func (w *worker) empty(ctx context.Context, a agents.Adapter, rec record, others []string) (bool, error) {
	if rec.Technique == byGate {
		v, err := w.gate(ctx, a, rec.Channel)
		if err != nil || v.Waiting != 0 {
			return false, err
		}
	}
	for _, c := range others {
		if c == "" {
			continue
		}
		v, err := w.look(ctx, a, c)
		// What keeps everything tells nothing; that all is quiet has to do.
		if err != nil || c == rec.Hold && v.Ready > 0 || !v.Keeps && v.Waiting() > 0 {
			return false, err
		}
	}
	return true, nil
}

// channelsOf are those of channel steps: send, receive, send, ...
func channelsOf(d controlbus.Detour) []string {
	var all []string
	for _, s := range d.Steps {
		if s.Channel != nil {
			all = append(all, s.Channel.Send, s.Channel.Receive)
		}
	}
	return all
}

// bound is what lies in a junction's channel now: the last position where these
// are numbers, else how many; -1 where nobody can tell.
func (w *worker) bound(ctx context.Context, a agents.Adapter, channel string) (upTo uint64, most int64) {
	v, err := w.look(ctx, a, channel)
	if _, inspects := a.(agents.Inspector); err != nil || !inspects {
		return 0, -1
	}
	if seq, err := strconv.ParseUint(v.UpTo, 10, 64); err == nil {
		return seq, 0
	}
	return 0, v.Waiting()
}
