package rabbitmq

import (
	"context"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Limits of a look.
const (
	mostLooked = 50
	lookFor    = 1500 * time.Millisecond // then it ends with what it has
	// lookAgain is how long a queue is left alone whose first message was given
	// back so often that a few looks more would cost it.
	lookAgain = 6 * time.Hour
	// minLookLimit is the least delivery limit with which a queue is looked into.
	minLookLimit = 4
)

// Peek gets the first messages and gives them back: AMQP 0-9-1 cannot look at a
// queue otherwise. Streams are read, which leaves nothing.
func (a *Adapter) Peek(ctx context.Context, channel string, n int, look bool) ([]*agents.Message, string, error) {
	msgs, traces, err := a.peek(ctx, channel, min(max(n, 1), mostLooked), look)
	if err != nil {
		return nil, "", fmt.Errorf("rabbitmq: look into %q: %w", channel, err)
	}
	return msgs, traces, nil
}

func (a *Adapter) peek(ctx context.Context, channel string, n int, look bool) ([]*agents.Message, string, error) {
	vhost, queue := a.resolve(channel)
	control, api, err := a.managed(ctx, vhost)
	if err != nil {
		return nil, "", err
	}
	st, err := a.inspect(ctx, control, queue)
	if err != nil {
		return nil, "", err
	}
	q, err := api.detail(ctx, vhost, queue)
	if err != nil {
		return nil, "", err
	}
	version := a.version()
	if err := peekable(q, version); err != nil {
		return nil, "", err
	}
	if q.Type == "stream" {
		msgs, err := a.browse(ctx, vhost, queue, "first", n)
		return msgs, "", err
	}
	if st.Messages == 0 {
		return nil, "", nil
	}
	traces := lookTraces(q, version)
	if !look {
		return nil, "", fmt.Errorf("%w: %s", controlbus.ErrConflict, traces)
	}
	limit := int64(-1)
	if q.Type == "quorum" {
		limit = deliveryLimit(q, version)
	}
	tired := fmt.Errorf("%w: the first message was given back so often already that the queue would soon remove it (delivery limit %d)", controlbus.ErrUnsupported, limit)
	a.mu.Lock()
	until := a.tired[channel]
	a.mu.Unlock()
	if time.Now().Before(until) {
		return nil, "", tired
	}
	n = min(n, st.Messages)
	msgs, err := a.look(ctx, vhost, queue, n, q.Type == "quorum", func(first *agents.Message) error {
		if limit < 0 || int64(first.Deliveries) < limit/2 {
			return nil
		}
		a.mu.Lock()
		if a.tired == nil {
			a.tired = map[string]time.Time{}
		}
		a.tired[channel] = time.Now().Add(lookAgain)
		a.mu.Unlock()
		return tired
	})
	return msgs, traces, err
}

// look takes and gives back on a connection of its own, so that whatever breaks
// the messages are given back at once. From a quorum queue they are consumed:
// what was got one by one comes back in another order [seen with 3.10].
func (a *Adapter) look(ctx context.Context, vhost, queue string, n int, consume bool, check func(first *agents.Message) error) ([]*agents.Message, error) {
	c, unwatch, err := a.dialOwn(ctx, vhost, "look "+queue)
	if err != nil {
		return nil, err
	}
	defer c.end(time.Second)
	defer unwatch()
	ch, err := c.channel(ctx, a.cfg.Timeout)
	if err != nil {
		return nil, err
	}
	defer func() {
		if ch.IsClosed() {
			return
		}
		// As in intake.Close: what keeps the messages' place differs by version.
		ctx := context.WithoutCancel(ctx)
		if major(a.version()) >= 4 {
			_ = c.do(ctx, time.Second, func() error { return ch.Nack(0, true, true) })
		}
		_ = c.do(ctx, time.Second, ch.Close)
	}()
	next := func() (d amqp.Delivery, ok bool, err error) {
		err = c.do(ctx, a.cfg.Timeout, func() (err error) {
			d, ok, err = ch.Get(queue, false)
			return err
		})
		return d, ok, err
	}
	if consume {
		if next, err = a.consumed(ctx, c, ch, queue, n); err != nil {
			return nil, err
		}
	}
	var msgs []*agents.Message
	for until := time.Now().Add(lookFor); len(msgs) < n && time.Now().Before(until); {
		d, ok, err := next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		m := message(&d)
		m.Position = strconv.Itoa(len(msgs) + 1)
		if len(msgs) == 0 {
			if err := check(m); err != nil {
				return nil, err
			}
		}
		msgs = append(msgs, m)
	}
	return msgs, nil
}

// consumed gives out what comes to a consumer with credit for n messages, until
// nothing comes for a while.
func (a *Adapter) consumed(ctx context.Context, c *conn, ch *amqp.Channel, queue string, n int) (func() (amqp.Delivery, bool, error), error) {
	var in <-chan amqp.Delivery
	err := c.do(ctx, a.cfg.Timeout, func() (err error) {
		if err = ch.Qos(n, 0, false); err != nil {
			return err
		}
		in, err = ch.Consume(queue, "sb", false, false, false, false, nil)
		return err
	})
	return func() (amqp.Delivery, bool, error) {
		quiet := time.NewTimer(dryHiding)
		defer quiet.Stop()
		select {
		case d, ok := <-in:
			if !ok {
				return d, false, agents.ErrNotConnected
			}
			return d, true, nil
		case <-quiet.C:
			return amqp.Delivery{}, false, nil
		case <-ctx.Done():
			return amqp.Delivery{}, false, ctx.Err()
		}
	}, err
}

// lookTraces says what looking at waiting messages leaves behind.
func lookTraces(q queueDetail, version string) string {
	text := "The messages looked at are marked as redelivered, and a consumer that asks meanwhile gets the ones behind them first."
	if limit := deliveryLimit(q, version); q.Type == "quorum" && limit >= 0 {
		text += fmt.Sprintf(" The look counts as a failed delivery of each; after %d the queue dead-letters or drops it.", limit)
	}
	return text
}

// peekable refuses queues whose messages a look could cost.
func peekable(q queueDetail, version string) error {
	if limit := deliveryLimit(q, version); q.Type == "quorum" && limit >= 0 && limit < minLookLimit {
		return fmt.Errorf("%w: the queue removes a message that was given back %d times, and each look is one", controlbus.ErrUnsupported, limit)
	}
	return nil
}
