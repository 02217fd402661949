package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// A gate leads a queue's messages aside by an alternate exchange:
//
//	X --(the queue's own bindings)--> sb.d.ID --#--> queue        off
//	                                      \
//	                                       alternate exchange
//	                                        \
//	                                         sb.d.ID.off --> sb.d.ID.backlog     on: without #
//
// Taking the one binding # away makes every message unroutable at sb.d.ID, so
// the broker hands it to the alternate exchange: a switch of one operation, at
// which no message is in both queues or in none. The topology is the state: it
// is read from the broker each time, and nothing of it belongs to one run of the
// agent. With the agent gone, a gate that is on fills its backlog.
const gatePrefix = "sb.d."

// everything is the topic that matches each routing key.
const everything = "#"

type gate struct {
	a                  *Adapter
	c                  *conn
	api                *management
	vhost, queue       string
	main, off, backlog string
}

// gateState is the gate as the broker has it.
type gateState struct {
	main, off, backlog, backlogBound bool
	there                            bool      // the queue is
	open                             bool      // from the gate to the queue
	direct                           []binding // around the gate into the queue
	led                              []binding // into the gate
	leaks                            []string  // what else is bound to the gate
	waiting                          int64
}

// built says that all parts are there; then the gate is on if it is not open.
func (s gateState) built() bool {
	return s.main && s.off && s.backlog && s.backlogBound && len(s.led) > 0
}

// whole says that it is built and messages reach the queue by no other way.
func (s gateState) whole() bool { return s.built() && len(s.direct) == 0 }

func (a *Adapter) gate(ctx context.Context, id, channel string) (*gate, error) {
	if !validID.MatchString(id) {
		return nil, fmt.Errorf("%w: %.40q is no id of a gate: want letters, digits, _ and -", controlbus.ErrInvalid, id)
	}
	vhost, queue := a.resolve(channel)
	c, api, err := a.managed(ctx, vhost)
	if err != nil {
		return nil, err
	}
	name := gatePrefix + id
	return &gate{a: a, c: c, api: api, vhost: vhost, queue: queue, main: name, off: name + ".off", backlog: name + ".backlog"}, nil
}

func (g *gate) read(ctx context.Context) (s gateState, err error) {
	for name, there := range map[string]*bool{g.main: &s.main, g.off: &s.off} {
		x, err := g.api.exchange(ctx, g.vhost, name)
		if err != nil {
			return s, err
		}
		if x == nil {
			continue
		}
		aside, _ := x.Arguments["alternate-exchange"].(string)
		if name == g.main && (x.Type != amqp.ExchangeTopic || aside != g.off) || name == g.off && x.Type != amqp.ExchangeFanout {
			return s, fmt.Errorf("%w: there is an exchange %s which is no part of a gate", controlbus.ErrConflict, name)
		}
		*there = true
	}
	st, err := g.a.inspect(ctx, g.c, g.backlog)
	switch {
	case err == nil:
		s.backlog, s.waiting = true, int64(st.Messages)
		bound, err := g.api.bindings(ctx, g.vhost, g.backlog)
		if err != nil {
			return s, err
		}
		s.backlogBound = slices.ContainsFunc(bound, func(b binding) bool { return b.Source == g.off })
	case !errors.Is(err, controlbus.ErrNotFound):
		return s, err
	}
	if s.main {
		if s.led, err = g.api.leading(ctx, g.vhost, g.main); err != nil {
			return s, err
		}
		if s.leaks, err = g.api.leaving(ctx, g.vhost, g.main); err != nil {
			return s, err
		}
		s.leaks = slices.DeleteFunc(s.leaks, func(to string) bool { return to == "queue "+g.queue })
	}
	switch _, err = g.a.inspect(ctx, g.c, g.queue); {
	case errors.Is(err, controlbus.ErrNotFound):
		return s, nil
	case err != nil:
		return s, err
	}
	s.there = true
	ways, err := g.api.bindings(ctx, g.vhost, g.queue)
	if err != nil {
		return s, err
	}
	for _, b := range ways {
		if b.Source != g.main {
			s.direct = append(s.direct, b)
		} else if b.Key == everything {
			s.open = true
		}
	}
	return s, nil
}

// InstallGate puts the gate between the queue and its exchanges, off, or
// completes it. A gate that is on stays on.
func (a *Adapter) InstallGate(ctx context.Context, id, channel string) (string, error) {
	g, err := a.gate(ctx, id, channel)
	if err == nil {
		err = g.install(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("rabbitmq: gate %s of %q: %w", id, channel, err)
	}
	return a.channelName(g.vhost, g.backlog), nil
}

func (g *gate) install(ctx context.Context) error {
	q, direct, err := g.a.reroutable(ctx, g.api, g.vhost, g.queue, g.main)
	if err != nil {
		return err
	}
	s, err := g.read(ctx)
	if err != nil {
		return err
	}
	if len(direct) == 0 && len(s.led) == 0 {
		return fmt.Errorf("%w: %s", controlbus.ErrUnsupported, defaultOnly)
	}
	steps := []struct {
		what string
		call func(ch *amqp.Channel) error
	}{
		{"declare exchange " + g.off, func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare(g.off, amqp.ExchangeFanout, true, false, false, false, nil)
		}},
		{"declare queue " + g.backlog, func(ch *amqp.Channel) error {
			if s.backlog {
				return nil // whatever its arguments are, it holds messages
			}
			_, err := ch.QueueDeclare(g.backlog, true, false, false, false, backlogArguments(q, g.a.version()))
			return err
		}},
		{"bind " + g.backlog, func(ch *amqp.Channel) error { return ch.QueueBind(g.backlog, "", g.off, false, nil) }},
		{"declare exchange " + g.main, func(ch *amqp.Channel) error {
			if s.main {
				return nil
			}
			return ch.ExchangeDeclare(g.main, amqp.ExchangeTopic, true, false, false, false, amqp.Table{"alternate-exchange": g.off, argQueue: g.queue})
		}},
		{"open the gate", func(ch *amqp.Channel) error {
			if len(s.led) > 0 {
				return nil // messages come through it already: open or not, it stays as it is
			}
			return ch.QueueBind(g.queue, everything, g.main, false, nil)
		}},
	}
	for _, st := range steps {
		if err := g.a.step(ctx, g.c, st.what, st.call); err != nil {
			return err
		}
	}
	if err := g.api.unbounded(ctx, g.vhost, g.backlog); err != nil {
		return err
	}
	if err := g.a.lead(ctx, g.c, g.queue, g.main, direct); err != nil {
		return err
	}
	if s, err = g.read(ctx); err != nil {
		return err
	}
	if len(s.direct) > 0 {
		return fmt.Errorf("%w: %s was bound again meanwhile, or in a way that cannot be taken away: %q", controlbus.ErrConflict, g.queue, ways(s.direct))
	}
	return nil
}

// backlogArguments make a queue as safe as the one it stands in for. From 4.0 on
// a quorum queue drops what was given back 20 times, unless told not to; before,
// what is given back loses its place in one, so there the backlog is classic.
func backlogArguments(q queueDetail, version string) amqp.Table {
	if q.Type == "quorum" && major(version) >= 4 {
		return amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeQuorum, "x-delivery-limit": int64(-1)}
	}
	return amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic}
}

// unbounded refuses a queue for messages put aside that a policy lets lose them.
func (m *management) unbounded(ctx context.Context, vhost, queue string) error {
	q, err := m.detail(ctx, vhost, queue)
	if err != nil {
		return err
	}
	for _, name := range []string{"max-length", "max-length-bytes", "message-ttl", "expires"} {
		if v, ok := q.setting(name); ok {
			return fmt.Errorf("%w: a policy gives the queue %s %s=%v, so that it would lose messages; except queues that begin with sb. from the policy",
				controlbus.ErrConflict, queue, name, v)
		}
	}
	return nil
}

// SetGate switches by one operation of the broker. Bypasses keep it from being
// switched on: their messages would be in both places.
func (a *Adapter) SetGate(ctx context.Context, id, channel string, on bool) error {
	g, err := a.gate(ctx, id, channel)
	if err == nil {
		err = g.set(ctx, on)
	}
	if err != nil {
		return fmt.Errorf("rabbitmq: gate %s of %q: %w", id, channel, err)
	}
	return nil
}

func (g *gate) set(ctx context.Context, on bool) error {
	s, err := g.read(ctx)
	switch {
	case err != nil:
		return err
	case !s.there:
		return fmt.Errorf("%w: queue %s", controlbus.ErrNotFound, g.queue)
	case !s.built():
		return fmt.Errorf("%w: the gate is not installed", controlbus.ErrConflict)
	case on && len(s.direct) > 0:
		return fmt.Errorf("%w: messages come around the gate by %q; install it again first", controlbus.ErrConflict, ways(s.direct))
	case on && len(s.leaks) > 0:
		return fmt.Errorf("%w: bound to exchange %s is %s, which would get the messages instead of the backlog; unbind it first", controlbus.ErrConflict, g.main, strings.Join(s.leaks, ", "))
	case on != s.open:
		return nil
	case on:
		return g.a.step(ctx, g.c, "switch on", func(ch *amqp.Channel) error { return ch.QueueUnbind(g.queue, everything, g.main, nil) })
	default:
		return g.a.step(ctx, g.c, "switch off", func(ch *amqp.Channel) error { return ch.QueueBind(g.queue, everything, g.main, false, nil) })
	}
}

// Gate reads the gate from the broker's bindings.
func (a *Adapter) Gate(ctx context.Context, id, channel string) (agents.GateView, error) {
	g, err := a.gate(ctx, id, channel)
	var s gateState
	if err == nil {
		s, err = g.read(ctx)
	}
	if err == nil && !s.there {
		err = fmt.Errorf("%w: queue %s", controlbus.ErrNotFound, g.queue)
	}
	if err != nil {
		return agents.GateView{}, fmt.Errorf("rabbitmq: gate %s of %q: %w", id, channel, err)
	}
	v := agents.GateView{Installed: s.whole(), On: s.built() && !s.open, Backlog: a.channelName(g.vhost, g.backlog), Waiting: s.waiting}
	if len(s.led) > 0 {
		v.Bypasses = ways(s.direct)
	}
	if v.On {
		v.Leaks = s.leaks
	}
	return v, nil
}

// ways describes bindings for people.
func ways(bindings []binding) []string {
	var out []string
	for _, b := range bindings {
		text := "exchange " + b.Source
		if b.Key != "" {
			text += " by " + b.Key
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return out
}

// RemoveGate restores the queue's own bindings, or completes that.
func (a *Adapter) RemoveGate(ctx context.Context, id, channel string) error {
	g, err := a.gate(ctx, id, channel)
	if err == nil {
		err = g.remove(ctx)
	}
	if err != nil {
		return fmt.Errorf("rabbitmq: gate %s of %q: %w", id, channel, err)
	}
	return nil
}

func (g *gate) remove(ctx context.Context) error {
	s, err := g.read(ctx)
	switch {
	case err != nil:
		return err
	case s.built() && s.there && !s.open:
		return fmt.Errorf("%w: the gate is on", controlbus.ErrConflict)
	case s.waiting > 0:
		return fmt.Errorf("%w: %d messages wait in %s", controlbus.ErrConflict, s.waiting, g.backlog)
	}
	if err := g.a.unlead(ctx, g.c, g.queue, g.main, s.led, s.there); err != nil {
		return err
	}
	if s.main { // with it goes the binding to the queue
		if err := g.a.deleteExchange(ctx, g.c, g.main); err != nil {
			return err
		}
	}
	// The backlog before its exchange, so that a gate half removed is still found.
	if err := g.a.removeEmpty(ctx, g.c, g.api, g.vhost, g.backlog); err != nil {
		return err
	}
	if s.off {
		return g.a.deleteExchange(ctx, g.c, g.off)
	}
	return nil
}
