package rabbitmq

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// streamIntake reads a stream: its positions are offsets, they last, and
// accepting a message only makes room for the next.
type streamIntake struct {
	a          *Adapter
	channel    string
	conn       *conn
	ch         *amqp.Channel
	unwatch    func() bool
	deliveries <-chan amqp.Delivery
	window     int
	follow     bool
	bounded    bool
	next, upTo uint64 // the next offset wanted, and the last
	held       map[uint64]bool
	closed     bool
}

// read opens a stream for copying. Without Follow it ends at UpTo, or at what is
// the end when it is opened.
func (a *Adapter) read(ctx context.Context, channel, vhost, queue string, o agents.IntakeOptions) (agents.Intake, error) {
	s := &streamIntake{a: a, channel: channel, window: o.Window, follow: o.Follow, held: map[uint64]bool{}}
	if s.window <= 0 {
		s.window = defaultWindow
	}
	s.window = min(s.window, 65_535)
	offset := any("first")
	if o.After != "" {
		after, err := strconv.ParseUint(o.After, 10, 63)
		if err != nil {
			return nil, fmt.Errorf("%w: %.40q is no offset", controlbus.ErrInvalid, o.After)
		}
		s.next, offset = after+1, int64(after+1)
	}
	upTo := o.UpTo
	if upTo == "" && !o.Follow {
		var err error
		if upTo, err = a.streamEnd(ctx, vhost, queue); err != nil {
			return nil, err
		}
		s.bounded = upTo == "" // nothing in it
	}
	if upTo != "" {
		var err error
		if s.upTo, err = strconv.ParseUint(upTo, 10, 63); err != nil {
			return nil, fmt.Errorf("%w: %.40q is no offset", controlbus.ErrInvalid, upTo)
		}
		s.bounded = true
	}
	if upTo == "" && s.bounded {
		s.next = 1 // after upTo, which is 0: at its end
	}
	var err error
	if s.conn, s.unwatch, err = a.dialOwn(ctx, vhost, "read "+queue); err != nil {
		return nil, err
	}
	if s.ch, s.deliveries, err = a.consumeStream(ctx, s.conn, queue, offset, s.window); err != nil {
		s.unwatch()
		s.conn.end(time.Second)
		return nil, err
	}
	return s, nil
}

func (a *Adapter) consumeStream(ctx context.Context, c *conn, queue string, offset any, window int) (ch *amqp.Channel, deliveries <-chan amqp.Delivery, err error) {
	if ch, err = c.channel(ctx, a.cfg.Timeout); err != nil {
		return nil, nil, err
	}
	err = c.do(ctx, a.cfg.Timeout, func() (err error) {
		if err = ch.Qos(window, 0, false); err != nil {
			return err
		}
		deliveries, err = ch.Consume(queue, "sb", false, false, false, false, amqp.Table{headerOffset: offset})
		return err
	})
	return ch, deliveries, err
}

// Next waits for the first message, and takes what is there behind it.
func (s *streamIntake) Next(ctx context.Context, most int) ([]*agents.Message, error) {
	wrap := func(err error) error { return fmt.Errorf("rabbitmq: read %q: %w", s.channel, err) }
	var out []*agents.Message
	var wait <-chan time.Time
	for len(out) < max(most, 1) {
		if s.bounded && s.next > s.upTo {
			break
		}
		if len(s.held) >= s.window {
			if len(out) > 0 {
				break
			}
			return nil, wrap(fmt.Errorf("%w: %d messages are held, the whole window; settle some first", controlbus.ErrConflict, len(s.held)))
		}
		var d amqp.Delivery
		var ok bool
		select {
		case d, ok = <-s.deliveries:
		case <-wait:
			return out, nil
		case <-ctx.Done():
			if len(out) > 0 {
				return out, nil
			}
			return nil, wrap(ctx.Err())
		}
		if !ok {
			return nil, wrap(fmt.Errorf("%w: the stream's deliveries ended", agents.ErrNotConnected))
		}
		offset, err := takeOffset(&d)
		if err != nil {
			return nil, wrap(err)
		}
		past := s.bounded && offset > s.upTo
		if offset < s.next || past {
			// Before the place asked for, in the same chunk; or after the bound, which
			// is where the retention has put the stream's beginning.
			if err := s.settle(ctx, d.DeliveryTag); err != nil {
				return nil, wrap(err)
			}
			if past {
				s.next = offset
			}
			continue
		}
		m := message(&d)
		m.Position, m.Raw = strconv.FormatUint(offset, 10), d.DeliveryTag
		s.next, s.held[d.DeliveryTag] = offset+1, true
		out = append(out, m)
		if wait == nil {
			timer := time.NewTimer(linger)
			defer timer.Stop()
			wait = timer.C
		}
	}
	if len(out) == 0 {
		return nil, io.EOF
	}
	return out, nil
}

func (s *streamIntake) settle(ctx context.Context, tag uint64) error {
	return s.conn.do(context.WithoutCancel(ctx), s.a.cfg.Timeout, func() error { return s.ch.Ack(tag, false) })
}

// Accept makes room for more.
func (s *streamIntake) Accept(ctx context.Context, msgs []*agents.Message) error {
	for _, m := range msgs {
		n, ok := m.Raw.(uint64)
		if !ok || !s.held[n] || s.closed {
			return fmt.Errorf("rabbitmq: read %q: %w: offset %s was settled before, or is not of this intake", s.channel, controlbus.ErrInvalid, m.Position)
		}
		if err := s.settle(ctx, n); err != nil {
			return fmt.Errorf("rabbitmq: read %q: %w", s.channel, err)
		}
		delete(s.held, n)
	}
	return nil
}

// Return is Accept: the messages never left their place.
func (s *streamIntake) Return(ctx context.Context, msgs []*agents.Message) error {
	return s.Accept(ctx, msgs)
}

// Close ends the connection.
func (s *streamIntake) Close(context.Context) error {
	if !s.closed {
		s.closed = true
		s.unwatch()
		s.conn.end(min(s.a.cfg.Timeout, 5*time.Second))
	}
	return nil
}

// browse reads the first messages from an offset on. A stream does not say where
// it ends: it has when nothing comes for a while.
func (a *Adapter) browse(ctx context.Context, vhost, queue string, offset any, n int) ([]*agents.Message, error) {
	c, unwatch, err := a.dialOwn(ctx, vhost, "look "+queue)
	if err != nil {
		return nil, err
	}
	defer c.end(time.Second)
	defer unwatch()
	ch, deliveries, err := a.consumeStream(ctx, c, queue, offset, mostLooked)
	if err != nil {
		return nil, err
	}
	limit, quiet := time.NewTimer(lookFor), time.NewTimer(tailQuiet)
	defer limit.Stop()
	defer quiet.Stop()
	var msgs []*agents.Message
	for n < 0 || len(msgs) < n {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return nil, agents.ErrNotConnected
			}
			at, err := takeOffset(&d)
			if err != nil {
				return nil, err
			}
			if err := c.do(context.WithoutCancel(ctx), a.cfg.Timeout, func() error { return ch.Ack(d.DeliveryTag, false) }); err != nil {
				return nil, err
			}
			m := message(&d)
			m.Position = strconv.FormatUint(at, 10)
			if n < 0 {
				msgs = msgs[:0] // the last is all that is wanted
			}
			msgs = append(msgs, m)
			quiet.Reset(tailQuiet)
		case <-quiet.C:
			return msgs, nil
		case <-limit.C:
			return msgs, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return msgs, nil
}

// streamEnd is the offset of the last message, or empty. On a stream that is
// written to without a pause it is one of about now.
func (a *Adapter) streamEnd(ctx context.Context, vhost, queue string) (string, error) {
	last, err := a.browse(ctx, vhost, queue, "last", -1)
	if err != nil || len(last) == 0 {
		return "", err
	}
	return last[0].Position, nil
}
