package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// What a gate and a test separation have in common: an exchange of the agent's
// is put between a queue and the exchanges it is bound to. Each binding is made
// anew at the agent's exchange before the old one is taken away. Meanwhile both
// lead to the queue, and the broker delivers one copy of a message to a queue
// however many ways lead there: nothing is lost and nothing doubled.
//
// Nothing but the queue may be bound to such an exchange: at a gate that is on,
// what another binding takes does not go to the alternate exchange, and the queue
// never sees it. Taps stay with the exchanges in front.

// argQueue is the argument by which the agent's exchanges tell whose they are;
// the broker keeps arguments that it does not know.
const argQueue = "signalbox-queue"

// validID is of what names are made of.
var validID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)

// exchangeInfo is what the management API tells of an exchange.
type exchangeInfo struct {
	Type      string         `json:"type"`
	Arguments map[string]any `json:"arguments"`
}

// exchange returns nil where there is none.
func (m *management) exchange(ctx context.Context, vhost, name string) (*exchangeInfo, error) {
	var x exchangeInfo
	err := m.do(ctx, http.MethodGet, "/api/exchanges/"+url.PathEscape(vhost)+"/"+url.PathEscape(name)+"?columns=type,arguments", nil, &x)
	if errors.Is(err, controlbus.ErrNotFound) {
		return nil, nil
	}
	return &x, err
}

// leading are the bindings by which messages come into an exchange.
func (m *management) leading(ctx context.Context, vhost, exchange string) ([]binding, error) {
	var answer []struct {
		binding
		Args map[string]any `json:"arguments"`
	}
	err := m.do(ctx, http.MethodGet, "/api/exchanges/"+url.PathEscape(vhost)+"/"+url.PathEscape(exchange)+"/bindings/destination", nil, &answer)
	if errors.Is(err, controlbus.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []binding
	for _, a := range answer {
		a.binding.Args = table(a.Args)
		out = append(out, a.binding)
	}
	return out, nil
}

// leaving are the queues and exchanges that are bound to an exchange.
func (m *management) leaving(ctx context.Context, vhost, exchange string) ([]string, error) {
	var answer []struct {
		Destination string `json:"destination"`
		Type        string `json:"destination_type"`
	}
	err := m.do(ctx, http.MethodGet, "/api/exchanges/"+url.PathEscape(vhost)+"/"+url.PathEscape(exchange)+"/bindings/source", nil, &answer)
	if errors.Is(err, controlbus.ErrNotFound) {
		return nil, nil
	}
	var out []string
	for _, b := range answer {
		out = append(out, b.Type+" "+b.Destination)
	}
	return out, err
}

// between are the agents' exchanges of a virtual host whose name contains a text,
// with the queues they are in front of.
func (m *management) between(ctx context.Context, vhost, name string) (map[string]string, error) {
	out := map[string]string{}
	for page := 1; ; page++ {
		var answer struct {
			Items []struct {
				Name      string         `json:"name"`
				Arguments map[string]any `json:"arguments"`
			} `json:"items"`
			Pages int `json:"page_count"`
		}
		q := url.Values{"page": {strconv.Itoa(page)}, "page_size": {"100"}, "pagination": {"true"}, "name": {name}, "use_regex": {"false"}, "columns": {"name,arguments"}}
		if err := m.do(ctx, http.MethodGet, "/api/exchanges/"+url.PathEscape(vhost)+"?"+q.Encode(), nil, &answer); err != nil {
			return nil, err
		}
		for _, x := range answer.Items {
			if queue, ok := x.Arguments[argQueue].(string); ok && strings.HasPrefix(x.Name, "sb.") {
				out[x.Name] = queue
			}
		}
		if page >= answer.Pages {
			return out, nil
		}
	}
}

// feeding are the bindings by which messages come to a queue from exchanges that
// are not the agents' own, be it through these. It misses none while an agent
// puts an exchange in between or takes it away.
func (m *management) feeding(ctx context.Context, vhost, queue string) ([]binding, error) {
	for range 5 {
		own, err := m.between(ctx, vhost, "sb.")
		if err != nil {
			return nil, err
		}
		feeding, unknown := map[string]binding{}, false
		direct := func() error {
			bindings, err := m.bindings(ctx, vhost, queue)
			for _, b := range bindings {
				if !between(b.Source) {
					feeding[b.id()] = b
				} else if own[b.Source] != queue {
					unknown = true // it has come since
				}
			}
			return err
		}
		if err := direct(); err != nil {
			return nil, err
		}
		for name, of := range own {
			if of != queue {
				continue
			}
			led, err := m.leading(ctx, vhost, name)
			if err != nil {
				return nil, err
			}
			for _, b := range led {
				feeding[b.id()] = b
			}
			// A binding that is being given back is at the queue before it is taken
			// away here.
			if err := direct(); err != nil {
				return nil, err
			}
		}
		if unknown {
			continue
		}
		return slices.SortedFunc(maps.Values(feeding), func(a, b binding) int { return strings.Compare(a.id(), b.id()) }), nil
	}
	return nil, fmt.Errorf("%w: an agent is changing how messages come to %s; try again", controlbus.ErrConflict, queue)
}

// between says whether an exchange is one that an agent puts in front of a queue.
func between(exchange string) bool {
	return strings.HasPrefix(exchange, gatePrefix) || strings.HasPrefix(exchange, separatePrefix)
}

// rpc runs a call on a channel of its own, because the broker closes the channel
// of a call that it refuses. What has been asked is waited for.
func (a *Adapter) rpc(ctx context.Context, c *conn, call func(*amqp.Channel) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	ch, err := c.channel(ctx, a.cfg.Timeout)
	if err != nil {
		return err
	}
	err = c.do(ctx, a.cfg.Timeout, func() error { return call(ch) })
	if !ch.IsClosed() {
		_ = c.do(ctx, a.cfg.Timeout, ch.Close)
	}
	return err
}

// step is one change of the broker's topology.
func (a *Adapter) step(ctx context.Context, c *conn, what string, call func(*amqp.Channel) error) error {
	if err := a.rpc(ctx, c, call); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if a.stepped != nil {
		a.stepped(what)
	}
	return nil
}

// lead makes the queue's bindings lead into the agent's exchange instead.
func (a *Adapter) lead(ctx context.Context, c *conn, queue, into string, direct []binding) error {
	for _, b := range direct {
		err := a.step(ctx, c, fmt.Sprintf("bind exchange %s to %s", into, b.Source), func(ch *amqp.Channel) error {
			return ch.ExchangeBind(into, b.Key, b.Source, false, b.Args)
		})
		if err != nil {
			return err
		}
	}
	for _, b := range direct {
		err := a.step(ctx, c, fmt.Sprintf("unbind %s from %s", queue, b.Source), func(ch *amqp.Channel) error {
			return ch.QueueUnbind(queue, b.Key, b.Source, b.Args)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unlead gives the queue back the bindings that lead into the agent's exchange.
// A queue that is not there any more gets none.
func (a *Adapter) unlead(ctx context.Context, c *conn, queue, from string, led []binding, there bool) error {
	for _, b := range led {
		if !there {
			break
		}
		err := a.step(ctx, c, fmt.Sprintf("bind %s to %s", queue, b.Source), func(ch *amqp.Channel) error {
			return ch.QueueBind(queue, b.Key, b.Source, false, b.Args)
		})
		if err != nil {
			return err
		}
	}
	for _, b := range led {
		err := a.step(ctx, c, fmt.Sprintf("unbind exchange %s from %s", from, b.Source), func(ch *amqp.Channel) error {
			return ch.ExchangeUnbind(from, b.Key, b.Source, false, b.Args)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// deleteExchange is nothing where there is none.
func (a *Adapter) deleteExchange(ctx context.Context, c *conn, name string) error {
	return a.step(ctx, c, "delete exchange "+name, func(ch *amqp.Channel) error { return ch.ExchangeDelete(name, false, false) })
}

// reroutable says which bindings lead into the queue and whether an exchange can
// be put in between: ErrUnsupported or ErrConflict, with the reason, otherwise.
// inside are the agent's own exchanges, whose bindings are left out.
func (a *Adapter) reroutable(ctx context.Context, api *management, vhost, queue string, inside ...string) (q queueDetail, direct []binding, err error) {
	refuse := func(sentinel error, format string, args ...any) (queueDetail, []binding, error) {
		return q, nil, fmt.Errorf("%w: %s", sentinel, fmt.Sprintf(format, args...))
	}
	if api == nil {
		return refuse(controlbus.ErrUnsupported, noManagement)
	}
	if q, err = api.detail(ctx, vhost, queue); err != nil {
		return q, nil, err
	}
	switch {
	case own(queue) || strings.HasPrefix(queue, gatePrefix) || strings.HasPrefix(queue, parkPrefix):
		return refuse(controlbus.ErrUnsupported, "the queue is an agent's own")
	case q.Type == "stream":
		return refuse(controlbus.ErrUnsupported, "a stream is read by each of its consumers on its own; leading messages around it serves none")
	case q.Exclusive:
		return refuse(controlbus.ErrUnsupported, "the queue is exclusive to one connection")
	}
	all, err := api.bindings(ctx, vhost, queue)
	if err != nil {
		return q, nil, err
	}
	types := map[string]string{}
	for _, b := range all {
		if slices.Contains(inside, b.Source) {
			continue
		}
		if other, ok := strings.CutPrefix(b.Source, gatePrefix); ok {
			return refuse(controlbus.ErrConflict, "the detour %s is on the queue already", other)
		}
		if strings.HasPrefix(b.Source, separatePrefix) {
			return refuse(controlbus.ErrConflict, "test messages are being kept away from the queue's consumers (exchange %s); wait until the test has ended", b.Source)
		}
		kind, seen := types[b.Source]
		if !seen {
			if kind, err = api.exchangeType(ctx, vhost, b.Source); err != nil {
				return q, nil, fmt.Errorf("exchange %q: %w", b.Source, err)
			}
			types[b.Source] = kind
		}
		if !slices.Contains(copying, kind) {
			return refuse(controlbus.ErrUnsupported, "exchange %q is of type %s, which gives each of its bindings a share of the messages; possible with %s",
				b.Source, kind, strings.Join(copying, ", "))
		}
		direct = append(direct, b)
	}
	return q, direct, nil
}

const defaultOnly = "the queue gets its messages through the default exchange alone, where publisher and consumer both name the queue; " +
	"only a publisher that uses a named exchange can be led aside"

// removeEmpty deletes a queue that may hold customers' messages: not one that
// holds any. The broker checks the waiting ones and consumers itself; what is
// held without a consumer it only counts, some seconds late, so that count is
// waited for.
func (a *Adapter) removeEmpty(ctx context.Context, c *conn, api *management, vhost, queue string) error {
	st, err := a.inspect(ctx, c, queue)
	if errors.Is(err, controlbus.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Messages > 0 || st.Consumers > 0 {
		return fmt.Errorf("%w: %d messages wait in %s, which has %d consumers", controlbus.ErrConflict, st.Messages, queue, st.Consumers)
	}
	if api != nil {
		if err := awaitSettled(ctx, api, vhost, queue); err != nil {
			return err
		}
	}
	err = a.step(ctx, c, "delete "+queue, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(queue, true, true, false)
		return err
	})
	var refused *amqp.Error
	if errors.As(err, &refused) && refused.Code == amqp.PreconditionFailed {
		return fmt.Errorf("%w: %s holds messages, or somebody consumes from it", controlbus.ErrConflict, queue)
	}
	return err
}

// statistics is longer than the broker's usual interval of five seconds.
const statistics = 7 * time.Second

func awaitSettled(ctx context.Context, api *management, vhost, queue string) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(statistics); ; {
		q, err := api.detail(ctx, vhost, queue)
		if errors.Is(err, controlbus.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if q.Unacked == nil || *q.Unacked == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: %d messages of %s are being worked on", controlbus.ErrConflict, *q.Unacked, queue)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// managed returns the virtual host's control connection and the API, without
// which topology cannot be read.
func (a *Adapter) managed(ctx context.Context, vhost string) (*conn, *management, error) {
	ctrl, api, err := a.control(ctx)
	if err != nil {
		return nil, nil, err
	}
	if api == nil {
		return nil, nil, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, noManagement)
	}
	if ctrl[vhost] == nil {
		return nil, nil, agents.ErrNotConnected
	}
	return ctrl[vhost], api, nil
}
