package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// tap is one running Tap call. Its queue lives as long as its connection, so
// each tap has one of its own: closing it is the whole of the clean-up.
type tap struct {
	a      *Adapter
	target tapTarget
	origin origin
	api    *management
	conn   *conn
	ch     *amqp.Channel // consumes and acknowledges
	out    agents.TapSink

	bound    map[string]binding
	received atomic.Int64 // deliveries taken, for the loss estimate
	loss     lossEstimate

	stream  string // identity of a stream tap's stream
	next    uint64 // its offset after the last message handed on
	reading bool   // the first message was handed on
}

// survey is what the poller found out; the consuming loop acts on it, because
// an exclusive queue is bound on its own connection.
type survey struct {
	bindings []binding
	err      error
}

// Tap copies the queue's messages into out until ctx ends.
func (a *Adapter) Tap(ctx context.Context, plan agents.TapPlan, from agents.Position, out agents.TapSink, ready func()) error {
	a.mu.Lock()
	life, api := a.life, a.api
	if life == nil || a.ctrl == nil {
		a.mu.Unlock()
		return fmt.Errorf("rabbitmq: tap %q: %w", plan.Channel, agents.ErrNotConnected)
	}
	a.taps.Add(1) // under the lock, so that Close cannot have begun to wait
	a.mu.Unlock()
	defer a.taps.Done()
	asked := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(life, cancel)()

	target, ok := plan.Data.(tapTarget)
	if !ok {
		again, err := a.PlanTap(ctx, plan.Channel)
		if err != nil {
			return ended(asked, err)
		}
		target = again.Data.(tapTarget)
	}
	if api == nil {
		return fmt.Errorf("rabbitmq: tap %q: %w: management_url is needed", plan.Channel, controlbus.ErrUnsupported)
	}
	t := &tap{a: a, target: target, api: api, out: out, bound: map[string]binding{},
		origin: origin{broker: a.name, channel: plan.Channel, queue: target.queue}}
	if err := t.run(ctx, from, ready); err != nil {
		return ended(asked, fmt.Errorf("rabbitmq: tap %q: %w", plan.Channel, err))
	}
	if asked.Err() == nil {
		return fmt.Errorf("rabbitmq: tap %q: %w: adapter closed", plan.Channel, agents.ErrNotConnected)
	}
	return nil
}

// ended turns the error of a tap that was told to end into none.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it ended because it was told to
	}
	return err
}

func (t *tap) run(ctx context.Context, from agents.Position, ready func()) (err error) {
	a := t.a
	if t.conn, err = a.dial(ctx, t.target.vhost, "tap "+t.target.queue); err != nil {
		return err
	}
	defer t.end()
	kind := "tap"
	if t.target.technique == techFirehose {
		kind = "fire"
	}
	var consume amqp.Table
	settle := false
	if t.target.technique == techStream {
		created, err := t.openStream(ctx)
		if err != nil {
			return err
		}
		var offset any
		if offset, settle, err = t.beginStream(ctx, created, from); err != nil {
			return err
		}
		consume = amqp.Table{headerOffset: offset}
	} else if err := t.declare(ctx, kind); err != nil {
		return err
	}
	if t.target.technique == techFirehose {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, a.cfg.Firehose.Lease, errLease)
		defer cancel()
		if err := t.rpc(ctx, func(ch *amqp.Channel) error {
			return ch.QueueBind(t.origin.tap, "deliver."+t.target.queue, "amq.rabbitmq.trace", false, nil)
		}); err != nil {
			return fmt.Errorf("bind to the tracer: %w", err)
		}
		release, err := a.hose.hold(ctx, t.api, t.conn, t.target.vhost)
		if err != nil {
			return err
		}
		defer release()
	} else {
		bindings, err := a.mirrorable(ctx, t.api, t.target.vhost, t.target.queue)
		if err != nil {
			return err
		}
		if len(bindings) == 0 {
			return fmt.Errorf("%w: the queue's bindings went away since the tap was planned", controlbus.ErrConflict)
		}
		if err := t.mirror(ctx, bindings); err != nil {
			return err
		}
	}
	if t.ch, err = t.conn.channel(ctx, a.cfg.Timeout); err != nil {
		return err
	}
	gone := t.ch.NotifyClose(make(chan *amqp.Error, 1))
	cancelled := t.ch.NotifyCancel(make(chan string, 1))
	var deliveries <-chan amqp.Delivery
	err = t.conn.do(ctx, a.cfg.Timeout, func() (err error) {
		if err = t.ch.Qos(a.cfg.Tap.Prefetch, 0, false); err != nil {
			return err
		}
		deliveries, err = t.ch.Consume(t.origin.tap, "sb", false, t.target.technique != techStream, false, false, consume)
		return err
	})
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	if settle {
		if err := t.settle(ctx, deliveries); err != nil {
			return err
		}
	}
	ready()

	// The poller asks over HTTP, which may take its time; deliveries do not wait
	// for it.
	surveys := make(chan survey)
	pollCtx, stopPolling := context.WithCancel(ctx)
	polling := make(chan struct{})
	go func() {
		defer close(polling)
		t.poll(pollCtx, surveys)
	}()
	defer func() {
		stopPolling()
		<-polling
		if n := t.loss.end(); n != 0 {
			t.out.LostByBroker(n)
		}
	}()

	var last uint64 // newest delivery not acknowledged
	unacked := 0
	ack := func() error {
		if unacked == 0 {
			return nil
		}
		unacked = 0
		// Ending the tap must not cut the connection in the middle of a call:
		// the queue would outlive Tap until the broker notices.
		return t.conn.do(context.WithoutCancel(ctx), a.cfg.Timeout, func() error { return t.ch.Ack(last, true) })
	}
	for {
		var d amqp.Delivery
		var ok bool
		select {
		case d, ok = <-deliveries:
		default:
			if err := ack(); err != nil {
				return err
			}
			select {
			case d, ok = <-deliveries:
			case s := <-surveys:
				if err := t.follow(ctx, s); err != nil {
					return err
				}
				continue
			case <-ctx.Done():
				if errors.Is(context.Cause(ctx), errLease) {
					return errLease
				}
				return nil
			}
		}
		if !ok {
			return t.whyClosed(gone, cancelled)
		}
		t.received.Add(1)
		last, unacked = d.DeliveryTag, unacked+1
		if err := t.put(ctx, &d); err != nil && ctx.Err() == nil {
			return err
		}
		if unacked*4 >= a.cfg.Tap.Prefetch {
			if err := ack(); err != nil {
				return err
			}
		}
		// A busy queue must not keep the tap from ending or from its surveys.
		select {
		case s := <-surveys:
			if err := t.follow(ctx, s); err != nil {
				return err
			}
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errLease) {
				return errLease
			}
			return nil
		default:
		}
	}
}

func (t *tap) put(ctx context.Context, d *amqp.Delivery) error {
	switch t.target.technique {
	case techStream:
		return t.putStream(ctx, d)
	case techFirehose:
		untrace(d)
	}
	return t.out.Put(ctx, event(d, t.origin, time.Now()), agents.Position{})
}

func (t *tap) whyClosed(gone chan *amqp.Error, cancelled chan string) error {
	select {
	case _, ok := <-cancelled:
		if !ok {
			break // closed with the channel: nothing was cancelled
		}
		return fmt.Errorf("%w: the broker removed the tap's queue", controlbus.ErrUnavailable)
	default:
	}
	select {
	case e := <-gone:
		if e != nil {
			if t.conn.IsClosed() {
				return fmt.Errorf("%w: %w", agents.ErrNotConnected, e)
			}
			return connErr(context.Background(), e)
		}
	default:
	}
	return agents.ErrNotConnected
}

// declare makes the tap's queue under a name nobody has. The queue of a tap
// whose link was cut stays locked to the dead connection until the broker
// misses its heartbeats, hence 405 and the next number.
func (t *tap) declare(ctx context.Context, kind string) error {
	var err error
	for range 8 {
		t.origin.tap = t.a.artefact(kind, strconv.FormatUint(t.a.serial.Add(1), 10))
		err = t.rpc(ctx, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(t.origin.tap, false, true, true, false, amqp.Table{
				amqp.QueueMaxLenArg:      int64(t.a.cfg.Tap.MaxLength),
				amqp.QueueMaxLenBytesArg: t.a.cfg.Tap.MaxLengthBytes,
				// Never reject-publish: the live publisher would get the nacks.
				amqp.QueueOverflowArg: amqp.QueueOverflowDropHead,
			})
			return err
		})
		if !errors.Is(err, controlbus.ErrConflict) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("declare %s: %w", t.origin.tap, err)
	}
	return nil
}

// rpc runs a call on a channel of its own, because the broker closes the
// channel of a call that it refuses.
func (t *tap) rpc(ctx context.Context, call func(*amqp.Channel) error) error {
	ch, err := t.conn.channel(ctx, t.a.cfg.Timeout)
	if err != nil {
		return err
	}
	err = t.conn.do(ctx, t.a.cfg.Timeout, func() error { return call(ch) })
	if !ch.IsClosed() {
		_ = t.conn.do(ctx, t.a.cfg.Timeout, ch.Close)
	}
	return err
}

// mirror gives the tap the bindings wanted and takes away the others.
func (t *tap) mirror(ctx context.Context, wanted []binding) error {
	keep := make(map[string]bool, len(wanted))
	for _, b := range wanted {
		id := b.id()
		keep[id] = true
		if _, have := t.bound[id]; have {
			continue
		}
		err := t.rpc(ctx, func(ch *amqp.Channel) error {
			return ch.QueueBind(t.origin.tap, b.Key, b.Source, false, b.Args)
		})
		if errors.Is(err, controlbus.ErrNotFound) {
			continue // the exchange went away since it was listed, and its binding with it
		}
		if err != nil {
			return fmt.Errorf("bind to exchange %q: %w", b.Source, err)
		}
		t.bound[id] = b
	}
	for id, b := range t.bound {
		if keep[id] {
			continue
		}
		err := t.rpc(ctx, func(ch *amqp.Channel) error {
			return ch.QueueUnbind(t.origin.tap, b.Key, b.Source, b.Args)
		})
		if err != nil && !errors.Is(err, controlbus.ErrNotFound) {
			return fmt.Errorf("unbind from exchange %q: %w", b.Source, err)
		}
		delete(t.bound, id)
	}
	return nil
}

func (t *tap) follow(ctx context.Context, s survey) error {
	if s.err != nil {
		return s.err
	}
	if t.target.technique == techFirehose {
		return nil
	}
	return t.mirror(context.WithoutCancel(ctx), s.bindings)
}

// poll watches the tapped queue's bindings and the tap queue's counters until
// ctx ends. A management API that does not answer ends nothing: the tap goes on
// with the bindings it has.
func (t *tap) poll(ctx context.Context, surveys chan<- survey) {
	tick := time.NewTicker(t.a.cfg.Tap.PollInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		t.countLoss(ctx)
		var s survey
		s.bindings, s.err = t.a.mirrorable(ctx, t.api, t.target.vhost, t.target.queue)
		if s.err == nil && len(s.bindings) == 0 {
			// The API answers with no bindings for a queue that does not exist.
			_, s.err = t.api.queue(ctx, t.target.vhost, t.target.queue)
		}
		switch {
		case errors.Is(s.err, controlbus.ErrNotFound):
			s.err = fmt.Errorf("the tapped queue is gone: %w", s.err)
		case errors.Is(s.err, controlbus.ErrUnsupported):
			// A binding that must not be mirrored has come: a tap of a part
			// only would be a lie.
		case s.err != nil:
			continue
		}
		select {
		case surveys <- s:
		case <-ctx.Done():
			return
		}
	}
}

// countLoss asks what went into the tap's queue and reports what cannot come
// out of it any more.
func (t *tap) countLoss(ctx context.Context) {
	if t.target.technique == techStream {
		return // its offsets tell
	}
	q, err := t.api.queue(ctx, t.target.vhost, t.origin.tap)
	if err != nil {
		return
	}
	s := lossSample{at: time.Now(), published: -1, received: t.received.Load()}
	if q.Stats != nil && q.Stats.Publish != nil {
		s.published = *q.Stats.Publish
	}
	if q.Ready != nil && q.Unacked != nil {
		s.held = *q.Ready + *q.Unacked
		s.full = *q.Ready >= int64(t.a.cfg.Tap.MaxLength)
	}
	if q.Bytes != nil && *q.Bytes >= t.a.cfg.Tap.MaxLengthBytes {
		s.full = true
	}
	if n := t.loss.add(s); n != 0 {
		t.out.LostByBroker(n)
	}
}

// end removes the queue and closes the connection. The deletion is a call of
// its own so that nothing is left when Tap has returned: the broker answers
// connection.close while exclusive queues are still being removed.
func (t *tap) end() {
	if t.origin.tap != "" && t.target.technique != techStream && !t.conn.IsClosed() {
		ctx := context.Background()
		timeout := min(t.a.cfg.Timeout, 5*time.Second)
		if ch, err := t.conn.channel(ctx, timeout); err == nil {
			_ = t.conn.do(ctx, timeout, func() error {
				_, err := ch.QueueDelete(t.origin.tap, false, false, false)
				return err
			})
		}
	}
	t.conn.end(min(t.a.cfg.Timeout, 5*time.Second))
}
