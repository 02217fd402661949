package rabbitmq

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/controlbus"
)

const streamPurge = "nothing can be taken out of a stream: its retention (x-max-age, x-max-length-bytes) removes messages, or deleting it does"

// Purge removes what waits in the queue now. Positions do not last in a queue,
// so upTo says nothing here.
func (a *Adapter) Purge(ctx context.Context, channel, _ string) (int64, error) {
	vhost, queue := a.resolve(channel)
	wrap := func(err error) error { return fmt.Errorf("rabbitmq: purge %q: %w", channel, err) }
	q, err := a.queueDetail(ctx, vhost, queue)
	if err != nil {
		return 0, wrap(err)
	}
	if q.Type == "stream" {
		return 0, wrap(fmt.Errorf("%w: %s", controlbus.ErrUnsupported, streamPurge))
	}
	// Of its own, because the broker closes the connection of a call that the kind
	// of queue has not.
	c, unwatch, err := a.dialOwn(ctx, vhost, "purge "+queue)
	if err != nil {
		return 0, wrap(err)
	}
	defer c.end(time.Second)
	defer unwatch()
	n := 0
	err = a.rpc(ctx, c, func(ch *amqp.Channel) error {
		// In some versions purging what is not there is no error.
		if _, err := ch.QueueDeclarePassive(queue, false, false, false, false, nil); err != nil {
			return err
		}
		n, err = ch.QueuePurge(queue, false)
		return err
	})
	if err != nil {
		return 0, wrap(err)
	}
	return int64(n), nil
}
