package detour

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// way is how a detour or a pause would be brought about.
type way struct {
	technique technique
	words     string
	impact    []string
	needs     []string
}

// fatal says whether trying again will not help.
func fatal(err error) bool {
	return errors.Is(err, controlbus.ErrUnsupported) || errors.Is(err, controlbus.ErrDenied) || errors.Is(err, controlbus.ErrInvalid) || errors.Is(err, controlbus.ErrNotFound)
}

func (m *Manager) adapter(ch controlbus.ChannelName) (agents.Adapter, error) {
	if ch.Env != "" && m.cfg.Env != "" && ch.Env != m.cfg.Env {
		return nil, fmt.Errorf("%w: this agent is of environment %q, the command is for %q", controlbus.ErrDenied, m.cfg.Env, ch.Env)
	}
	a, ok := m.cfg.Broker(ch.Broker)
	if !ok {
		return nil, fmt.Errorf("%w: the agent has no broker %q", controlbus.ErrNotFound, ch.Broker)
	}
	return a, nil
}

func planned(ctx context.Context, a agents.Adapter, kind controlbus.CommandKind, channel string) (agents.CommandPlan, error) {
	p, ok := a.(agents.Planner)
	if !ok {
		return agents.CommandPlan{}, nil
	}
	c, cancel := call(ctx)
	defer cancel()
	return p.PlanCommand(c, kind, channel)
}

// chooseDetour finds the way for a detour, and looks at everything that can be
// known before it is begun. Errors for which fatal holds are final.
func (m *Manager) chooseDetour(ctx context.Context, a agents.Adapter, target controlbus.ChannelName, d controlbus.Detour) (way, error) {
	channel := target.Name
	err := d.Check()
	if err != nil {
		return way{}, err
	}
	if _, err := filter.Parse(d.Filter, time.Now()); err != nil {
		return way{}, fmt.Errorf("filter: %w", err)
	}
	_, takes := a.(agents.Taker)
	_, sends := a.(agents.Sender)
	if !takes || !sends {
		return way{}, fmt.Errorf("%w: this agent cannot take messages out of channels of this broker and send them on", controlbus.ErrUnsupported)
	}
	if _, parks := a.(agents.Parker); !parks && (d.Park == "" && !plainHold(d) || d.Steps[len(d.Steps)-1].Hold != nil && !plainHold(d)) {
		return way{}, fmt.Errorf("%w: on this broker the agent cannot make channels of its own: name one to park in, and hold only without other steps and without a filter", controlbus.ErrUnsupported)
	}
	for i, s := range d.Steps {
		if s.Hold != nil || s.Channel != nil {
			continue
		}
		st, err := compile(s, m.allow)
		if err != nil {
			return way{}, fmt.Errorf("step %d: %w", i+1, err)
		}
		if h, ok := st.(*httpStep); ok {
			h.close()
		}
	}
	w, have := m.kept(target, controlbus.CommandDetour)
	if !have || d.To != "" {
		w, err = m.gateOrJunction(ctx, a, channel, d)
	}
	if err != nil {
		return way{}, err
	}
	// Every channel it names must be there, and none lead back into it.
	names := []struct{ what, name string }{{"channel", channel}, {"to", d.To}, {"park", d.Park}}
	var taken []string
	for i, s := range d.Steps {
		switch {
		case s.Copy != nil:
			names = append(names, struct{ what, name string }{fmt.Sprintf("step %d: copy", i+1), s.Copy.Channel})
		case s.Channel != nil:
			names = append(names, struct{ what, name string }{fmt.Sprintf("step %d: send", i+1), s.Channel.Send}, struct{ what, name string }{fmt.Sprintf("step %d: receive", i+1), s.Channel.Receive})
			taken = append(taken, s.Channel.Receive)
		}
	}
	for i, n := range names {
		switch {
		case n.name == "" || n.what == "to" && w.technique == byGate:
			continue
		case i > 0 && n.name == channel:
			return way{}, fmt.Errorf("%w: %s: %q is the channel of the detour itself", controlbus.ErrInvalid, n.what, n.name)
		case slices.Contains(taken, n.name) && (n.what == "to" || n.what == "park"):
			return way{}, fmt.Errorf("%w: %s: a step takes from %q", controlbus.ErrInvalid, n.what, n.name)
		}
		other := target
		if other.Name = n.name; i > 0 && !link.Allowed(m.cfg.Allow, controlbus.CommandDetour, other, nil) {
			return way{}, fmt.Errorf("%w: %s: the agent's own configuration does not allow detours on %q", controlbus.ErrDenied, n.what, n.name)
		}
		v, err := inspect(ctx, a, n.name)
		if err != nil {
			return way{}, fmt.Errorf("%s: %w", n.what, err)
		}
		if n.what == "channel" && w.technique == byJunction && v.Keeps {
			w.impact = append(w.impact, fmt.Sprintf("It begins with what is published from now on: %s keeps what has been read.", channel))
		}
		if n.what == "channel" && w.technique == byJunction && v.Consumers > 0 {
			w.impact = append(w.impact, fmt.Sprintf("%d consumers read %s themselves: what they get does not take the detour. Let them read %s first.", v.Consumers, channel, d.To))
		}
		if n.what == "to" && v.Consumers == 0 {
			w.impact = append(w.impact, fmt.Sprintf("Nobody reads %s now.", d.To))
		}
	}
	w.impact = append(w.impact, "Delivery is at least once: a crash in the middle sends a message again, with the same "+controlbus.HeaderDetour+" header.")
	if w.technique == byGate {
		w.impact = append(w.impact, "When it is switched off, new messages may overtake those that are still in the backlog.")
	}
	return w, nil
}

// kept is the way of the gate that the channel has: a broker may refuse to plan
// another one around it.
func (m *Manager) kept(channel controlbus.ChannelName, kind controlbus.CommandKind) (way, bool) {
	w, _ := m.find("", channel.Broker, channel.Name)
	if w == nil {
		return way{}, false
	}
	rec, _ := w.record()
	return way{technique: byGate, words: rec.Words}, rec.Technique == byGate && rec.Kind == kind
}

// inspect looks at a channel; without an Inspector nothing is known of it.
func inspect(ctx context.Context, a agents.Adapter, channel string) (agents.ChannelView, error) {
	i, ok := a.(agents.Inspector)
	if !ok {
		return agents.ChannelView{Ready: -1}, nil
	}
	c, cancel := call(ctx)
	defer cancel()
	return i.Inspect(c, channel)
}

// gateOrJunction chooses the gate, unless the detour says where messages go on.
func (m *Manager) gateOrJunction(ctx context.Context, a agents.Adapter, channel string, d controlbus.Detour) (way, error) {
	_, gates := a.(agents.Gater)
	p, err := planned(ctx, a, controlbus.CommandDetour, channel)
	unsupported := errors.Is(err, controlbus.ErrUnsupported)
	switch {
	case err != nil && !unsupported:
		return way{}, err
	case gates && !unsupported && d.To == "":
		return way{byGate, or(p.Technique, "gate"), slices.Clone(p.Impact), slices.Clone(p.Needs)}, nil
	case d.To == "" && unsupported:
		return way{}, fmt.Errorf("%w; or name the channel where messages are to go on, which makes it a junction", err)
	case d.To == "":
		return way{}, fmt.Errorf("%w: on this broker a detour is a junction: name the channel where messages are to go on", controlbus.ErrUnsupported)
	case !gates && unsupported:
		return way{}, err
	}
	w := way{technique: byJunction, words: "junction", impact: []string{fmt.Sprintf("The agent takes messages from %s and sends them to %s. While it is down they wait in %s.", channel, d.To, channel)}}
	if !gates { // the plan is the junction's
		w.words, w.needs = or(p.Technique, w.words), slices.Clone(p.Needs)
		w.impact = append(w.impact, p.Impact...)
	}
	return w, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// choosePause finds the way for a pause: the broker's own, or a gate that holds.
func (m *Manager) choosePause(ctx context.Context, a agents.Adapter, target controlbus.ChannelName, args controlbus.PauseArgs) (way, error) {
	channel := target.Name
	if args.For < time.Second || args.For > controlbus.MaxPause {
		return way{}, fmt.Errorf("%w: a pause of %v: want 1s to %v", controlbus.ErrInvalid, args.For, controlbus.MaxPause)
	}
	if _, err := inspect(ctx, a, channel); err != nil {
		return way{}, err
	}
	if w, have := m.kept(target, controlbus.CommandPause); have && args.Consumer == "" {
		return w, nil
	}
	var why error
	kind := controlbus.CommandPause
	if _, ok := a.(agents.Pauser); ok {
		p, err := planned(ctx, a, controlbus.CommandPause, channel)
		if err == nil {
			return way{byPause, or(p.Technique, "consumer pause"), slices.Clone(p.Impact), slices.Clone(p.Needs)}, nil
		} else if !errors.Is(err, controlbus.ErrUnsupported) {
			return way{}, err
		}
		why, kind = err, controlbus.CommandDetour // the gate's own plan
	}
	_, gates := a.(agents.Gater)
	switch {
	case !gates && why != nil:
		return way{}, why
	case !gates:
		return way{}, fmt.Errorf("%w: this broker can neither pause consumers nor lead messages aside", controlbus.ErrUnsupported)
	case args.Consumer != "":
		return way{}, fmt.Errorf("%w: this broker cannot pause one consumer; pause the whole channel", controlbus.ErrUnsupported)
	}
	p, err := planned(ctx, a, kind, channel)
	if err != nil {
		return way{}, err
	}
	impact := append([]string{"New messages wait in a backlog; what is in the channel already is still consumed."}, p.Impact...)
	return way{byGate, or(p.Technique, "gate") + " that holds", impact, slices.Clone(p.Needs)}, nil
}

// Plan says what a detour, undetour, pause or resume would do, and changes
// nothing. An error means that it cannot be said now.
func (m *Manager) Plan(ctx context.Context, ask controlbus.Ask) (controlbus.Plan, error) {
	plan, err := m.plan(ctx, ask)
	if err != nil && (fatal(err) || errors.Is(err, controlbus.ErrConflict)) {
		return controlbus.Plan{Refused: clip(err.Error(), 1000), Count: -1, Expect: controlbus.Expect{MaxCount: -1}}, nil
	}
	return plan, err
}

func (m *Manager) plan(ctx context.Context, ask controlbus.Ask) (controlbus.Plan, error) {
	channel := ask.Target.Channel
	p := controlbus.Plan{Count: -1, Reversible: controlbus.ReversibleYes, Expect: controlbus.Expect{MaxCount: -1}}
	a, err := m.adapter(channel)
	if err != nil {
		return p, err
	}
	switch ask.Kind {
	case controlbus.CommandDetour:
		d, err := controlbus.DecodeArgs[controlbus.Detour](ask.Args)
		if err != nil {
			return p, err
		}
		w, err := m.chooseDetour(ctx, a, channel, d)
		if err != nil {
			return p, err
		}
		update, err := m.mayUpdate(d.ID, channel, controlbus.CommandDetour, w.technique, d)
		if err != nil {
			return p, err
		}
		if update != nil {
			w.impact = append([]string{fmt.Sprintf("The steps of detour %s are replaced, and its time begins anew.", d.ID)}, w.impact...)
		}
		p.Technique, p.Impact, p.Needs = w.words, w.impact, w.needs
		p.Undo = fmt.Sprintf("undetour: the messages in its backlog go on first. It ends by itself after %v.", d.For)
	case controlbus.CommandPause:
		args, err := controlbus.DecodeArgs[controlbus.PauseArgs](ask.Args)
		if err != nil {
			return p, err
		}
		w, err := m.choosePause(ctx, a, channel, args)
		if err != nil {
			return p, err
		}
		if _, err := m.mayUpdate("", channel, controlbus.CommandPause, w.technique, controlbus.Detour{}); err != nil {
			return p, err
		}
		p.Technique, p.Impact, p.Needs = w.words, w.impact, w.needs
		p.Undo = fmt.Sprintf("resume. It ends by itself after %v.", args.For)
	case controlbus.CommandUndetour, controlbus.CommandResume:
		w, err := m.named(ask.Kind, ask.Args, ask.UndoOf, channel)
		if err != nil {
			return p, err
		}
		if w == nil {
			if _, ok := a.(agents.Pauser); ok && ask.Kind == controlbus.CommandResume {
				p.Technique = "consumer pause"
				p.Impact = []string{"This agent has not paused the channel. Whatever pause the broker has ends."}
				return p, nil
			}
			return p, fmt.Errorf("%w: there is no such detour or pause of %s", controlbus.ErrNotFound, channel.Name)
		}
		s := w.status()
		p.Technique, p.Count = s.Technique, s.Backlog
		p.Impact = []string{"New messages go the direct way at once. What waits in the backlog takes the steps first; then the detour is removed."}
		if s.Parked > 0 {
			p.Impact = append(p.Impact, fmt.Sprintf("%d parked messages stay where they are.", s.Parked))
		}
		if s.Backlog == 0 {
			p.Impact = p.Impact[:1]
		}
		p.Undo = "order the detour again"
		return p, nil
	default:
		return p, fmt.Errorf("%w: %s is not about detours", controlbus.ErrUnsupported, ask.Kind)
	}
	v, err := inspect(ctx, a, channel.Name)
	if err != nil {
		return p, err
	}
	p.Expect.Topology = v.Topology
	p.Impact = append(p.Impact, v.Notes...)
	return p, nil
}

// mayUpdate returns the detour that an order would change, nil where it makes a
// new one, or says why it can do neither.
func (m *Manager) mayUpdate(id string, channel controlbus.ChannelName, kind controlbus.CommandKind, t technique, d controlbus.Detour) (*worker, error) {
	w, same := m.find(id, channel.Broker, channel.Name)
	if w == nil {
		return nil, nil
	}
	rec, _ := w.record()
	switch {
	case w.broker != channel.Broker || w.channel != channel.Name:
		return nil, fmt.Errorf("%w: detour %s is of channel %s on %s", controlbus.ErrConflict, id, w.channel, w.broker)
	case rec.Kind != kind || kind == controlbus.CommandDetour && !same:
		return nil, fmt.Errorf("%w: the channel has %s %s already; a channel has one at a time", controlbus.ErrConflict, rec.Kind, w.id)
	case rec.Technique != t:
		return nil, fmt.Errorf("%w: %s is a %s, and would become a %s: remove it first", controlbus.ErrConflict, w.id, rec.Technique, t)
	case t == byJunction && rec.Detour.To != d.To:
		return nil, fmt.Errorf("%w: %s sends to %s: remove it first", controlbus.ErrConflict, w.id, rec.Detour.To)
	case !slices.Equal(channelsOf(rec.Detour), channelsOf(d)):
		return nil, fmt.Errorf("%w: messages may be on their way through the channels of %s's steps: remove it first", controlbus.ErrConflict, w.id)
	}
	return w, nil
}

// named finds the detour or pause an undetour or resume is about.
func (m *Manager) named(kind controlbus.CommandKind, raw []byte, undoOf controlbus.CommandID, channel controlbus.ChannelName) (*worker, error) {
	args, err := controlbus.DecodeArgs[controlbus.UndetourArgs](raw)
	if err != nil {
		return nil, err
	}
	w, _ := m.find(args.ID, channel.Broker, channel.Name)
	if w == nil {
		return nil, nil
	}
	rec, _ := w.record()
	switch {
	case args.ID != "" && w.id != args.ID, undoOf != "" && args.ID == "" && rec.Command != undoOf:
		return nil, nil
	case w.broker != channel.Broker || w.channel != channel.Name:
		return nil, fmt.Errorf("%w: detour %s is of channel %s on %s", controlbus.ErrConflict, w.id, w.channel, w.broker)
	case rec.Kind == controlbus.CommandPause && kind == controlbus.CommandUndetour:
		return nil, fmt.Errorf("%w: %s is a pause: resume ends it", controlbus.ErrConflict, w.id)
	case rec.Kind == controlbus.CommandDetour && kind == controlbus.CommandResume:
		return nil, fmt.Errorf("%w: %s is a detour: undetour ends it", controlbus.ErrConflict, w.id)
	}
	return w, nil
}
