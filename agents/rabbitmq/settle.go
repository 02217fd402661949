package rabbitmq

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Accept acknowledges.
func (in *intake) Accept(ctx context.Context, msgs []*agents.Message) error {
	tags, err := in.claim(msgs)
	if err != nil {
		return in.wrap(err)
	}
	if len(tags) == 0 {
		return nil
	}
	if !in.follow && in.deliveries != nil {
		if in.slack -= int64(len(tags)); in.slack < 0 {
			// With these acknowledged the broker might send what came after the bound.
			if err := in.halt(ctx); err != nil {
				return in.wrap(err)
			}
		}
	}
	err = in.call(ctx, func() error {
		n := in.prefix(tags)
		if n > 0 {
			if err := in.ch.Ack(tags[n-1], true); err != nil {
				return err
			}
		}
		for _, t := range tags[n:] {
			if err := in.ch.Ack(t, false); err != nil {
				return err
			}
		}
		if in.follow {
			return nil
		}
		// An acknowledgement has no answer, and one that is still on its way when
		// this process dies is lost with it. What comes behind it has one; the
		// prefetch is that of consumers to come, and each sets its own.
		return in.ch.Qos(in.window, 0, false)
	})
	if err != nil {
		return in.wrap(err)
	}
	for _, t := range tags {
		if in.first > 0 && t >= in.first {
			in.done++
		}
	}
	in.forget(tags)
	return nil
}

// Return gives back. A bounded intake keeps the messages until it is closed,
// else the broker would send them to it again; it holds no bodies of them.
func (in *intake) Return(ctx context.Context, msgs []*agents.Message) error {
	tags, err := in.claim(msgs)
	if err != nil {
		return in.wrap(err)
	}
	if len(tags) == 0 {
		return nil
	}
	if in.follow {
		err = in.call(ctx, func() error {
			n := in.prefix(tags)
			if n > 0 {
				if err := in.ch.Nack(tags[n-1], true, true); err != nil {
					return err
				}
			}
			for _, t := range tags[n:] {
				if err := in.ch.Nack(t, false, true); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return in.wrap(err)
		}
		in.forget(tags)
		return nil
	}
	if len(in.returned) == 0 || tags[0] < in.lowest {
		in.lowest = tags[0]
	}
	in.returned = append(in.returned, tags...)
	in.stuck += len(tags)
	in.forget(tags)
	if in.deliveries != nil && 2*in.stuck >= in.credit {
		// Credit that returned messages hold does not come back: a new consumer has
		// its own.
		if err := in.halt(ctx); err != nil {
			return in.wrap(err)
		}
	}
	return nil
}

// claim returns the messages' tags, ascending, or an error when one of them is
// not this intake's to settle.
func (in *intake) claim(msgs []*agents.Message) ([]uint64, error) {
	if err := in.alive(); err != nil {
		return nil, err
	}
	tags := make([]uint64, 0, len(msgs))
	for _, m := range msgs {
		t, ok := m.Raw.(tag)
		if !ok || t.in != in || !in.out[t.n] {
			return nil, fmt.Errorf("%w: message %s was settled before, or was not taken by this intake", controlbus.ErrInvalid, m.Position)
		}
		tags = append(tags, t.n)
	}
	slices.Sort(tags)
	if len(slices.Compact(slices.Clone(tags))) != len(tags) {
		return nil, fmt.Errorf("%w: a message is named twice", controlbus.ErrInvalid)
	}
	return tags, nil
}

// prefix is how many of the tags can be settled in one step: the broker takes
// all that are open up to a tag.
func (in *intake) prefix(tags []uint64) int {
	n := 0
	for n < len(tags) && n < len(in.open) && tags[n] == in.open[n] && (len(in.returned) == 0 || tags[n] < in.lowest) {
		n++
	}
	return n
}

func (in *intake) forget(tags []uint64) {
	for _, t := range tags {
		delete(in.out, t)
	}
	in.open = slices.DeleteFunc(in.open, func(t uint64) bool {
		_, found := slices.BinarySearch(tags, t)
		return found
	})
}

// Close gives back all that is not accepted, where it was.
func (in *intake) Close(ctx context.Context) error {
	if in.closed {
		return nil
	}
	in.closed = true
	in.unwatch()
	ctx, timeout := context.WithoutCancel(ctx), min(in.a.cfg.Timeout, 5*time.Second)
	if !in.ch.IsClosed() {
		in.giveBack(ctx, timeout)
		// In order, so that the broker has read the acknowledgements before it.
		_ = in.conn.do(ctx, timeout, in.ch.Close)
	}
	in.conn.end(timeout)
	in.ready, in.open, in.out, in.returned = nil, nil, nil, nil
	return nil
}

// giveBack gives back by basic.nack from RabbitMQ 4.0 on, where that puts messages
// in front and, from 4.3 on, does not count as a failed delivery. Else they go
// back when the channel closes: a classic queue puts everything where it was, a
// quorum queue puts in front what one consumer had after the other [seen with
// 3.10]. It goes through up to 32 consumers in their order; of more, each one's
// messages stay together and that is all. With basic.nack they would come at the
// end there.
func (in *intake) giveBack(ctx context.Context, timeout time.Duration) {
	tags := slices.Sorted(slices.Values(append(in.returned, in.open...)))
	if len(tags) == 0 || !in.nack {
		return
	}
	if in.hides {
		// One consumer after the other, each when the queue has had the one before.
		rest := tags
		for _, last := range in.last {
			n, _ := slices.BinarySearch(rest, last+1)
			if n == 0 {
				continue
			}
			err := in.conn.do(ctx, timeout, func() error {
				if err := in.ch.Nack(rest[n-1], true, true); err != nil {
					return err
				}
				_, err := in.ch.QueueDeclarePassive(in.queue, false, false, false, false, nil)
				return err
			})
			if err != nil {
				return
			}
			rest = rest[n:]
		}
		tags = rest
	}
	if len(tags) > 0 {
		_ = in.conn.do(ctx, timeout, func() error { return in.ch.Nack(0, true, true) })
	}
}
