package rabbitmq

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// parkPrefix is of queues into which messages were put aside. They belong to no
// run of the agent, hold customers' messages, and are listed like any channel.
const parkPrefix = "sb.park."

// Park makes a durable queue in the first virtual host.
func (a *Adapter) Park(ctx context.Context, id string) (string, error) {
	if !validID.MatchString(id) {
		return "", fmt.Errorf("rabbitmq: park %.40q: %w: want letters, digits, _ and -", id, controlbus.ErrInvalid)
	}
	ctrl, api, err := a.control(ctx)
	if err != nil {
		return "", err
	}
	name := parkPrefix + id
	err = a.rpc(ctx, ctrl[a.vhosts[0]], func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, amqp.Table{amqp.QueueTypeArg: amqp.QueueTypeClassic})
		return err
	})
	if err == nil && api != nil {
		err = api.unbounded(ctx, a.vhosts[0], name)
	}
	if err != nil {
		return "", fmt.Errorf("rabbitmq: park %s: %w", name, err)
	}
	return name, nil
}

// Unpark removes it, unless it holds messages.
func (a *Adapter) Unpark(ctx context.Context, id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("rabbitmq: unpark %.40q: %w: want letters, digits, _ and -", id, controlbus.ErrInvalid)
	}
	ctrl, api, err := a.control(ctx)
	if err != nil {
		return err
	}
	vhost := a.vhosts[0]
	if err := a.removeEmpty(ctx, ctrl[vhost], api, vhost, parkPrefix+id); err != nil {
		return fmt.Errorf("rabbitmq: unpark %s: %w", parkPrefix+id, err)
	}
	return nil
}
