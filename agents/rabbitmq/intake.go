package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

const (
	defaultWindow = 256
	// linger is how long a batch waits for its next message: the library hands
	// deliveries over one by one from a goroutine.
	linger = time.Millisecond
	// dryAfter is after how long without a message the broker is asked whether
	// there is none; dryHiding the same for queues that hide messages then.
	dryAfter  = 25 * time.Millisecond
	dryHiding = 250 * time.Millisecond
	// pullFor is how long messages are got one by one before they are handed on.
	pullFor = 50 * time.Millisecond
)

// intake takes messages out of one queue in two steps, on a connection of its
// own. Bounded by the number of messages there were at its start, it never
// holds more than these: the broker's credit is cut before it could send more,
// so that what comes later is left alone and keeps its place.
type intake struct {
	a              *Adapter
	channel, queue string
	conn           *conn
	ch             *amqp.Channel
	gone           chan *amqp.Error
	cancelled      chan string
	unwatch        func() bool
	nack           bool // giving back by basic.nack keeps the order
	// hides: what a quorum queue has sent when its consumer is cancelled can stay
	// out of sight until the channel is closed [seen with 3.10], so cancelling waits
	// until nothing is on its way.
	hides  bool
	closed bool

	window int
	follow bool
	left   int64 // messages up to the bound, without follow
	count  int64 // messages taken: their position

	deliveries <-chan amqp.Delivery // nil: nothing consumes now
	credit     int                  // the consumer's prefetch
	slack      int64                // acknowledgements after which it might be sent more than the bound
	stuck      int                  // of its credit, returned and not given back yet
	got, done  int                  // deliveries it had, and of these accepted
	first      uint64               // tag of its first delivery
	newest     uint64               // tag of the last delivery of any
	serial     int                  // of consumers
	last       []uint64             // tag of the last delivery of each that has ended
	pulling    bool                 // consuming brings nothing here: get

	ready    []*agents.Message // taken, not handed out
	open     []uint64          // tags neither accepted nor returned, ascending
	out      map[uint64]bool   // of these, handed out
	returned []uint64          // tags kept until the end
	lowest   uint64            // of them
}

// tag is Message.Raw: the delivery tag, which only its own intake can settle.
type tag struct {
	in *intake
	n  uint64
}

// Intake opens a queue for taking. Without Follow it ends after as many messages
// as were waiting when it was opened, or when none waits any more.
func (a *Adapter) Intake(ctx context.Context, channel string, o agents.IntakeOptions) (agents.Intake, error) {
	vhost, queue := a.resolve(channel)
	in := &intake{a: a, channel: channel, queue: queue, window: o.Window, follow: o.Follow, out: map[uint64]bool{}}
	if in.window <= 0 {
		in.window = defaultWindow
	}
	in.window = min(in.window, 65_535) // of AMQP
	wrap := func(err error) error { return fmt.Errorf("rabbitmq: take from %q: %w", channel, err) }
	q, err := a.queueDetail(ctx, vhost, queue)
	if err != nil {
		return nil, wrap(err)
	}
	kind := q.Type
	if kind == "stream" && o.Copy {
		s, err := a.read(ctx, channel, vhost, queue, o)
		if err != nil {
			return nil, wrap(err)
		}
		return s, nil
	}
	if kind == "stream" {
		return nil, wrap(fmt.Errorf("%w: nothing can be taken out of a stream; its retention removes messages", controlbus.ErrUnsupported))
	}
	if o.Copy {
		return nil, wrap(fmt.Errorf("%w: a queue cannot be read without taking its messages", controlbus.ErrUnsupported))
	}
	in.window = fitting(in.window, q)
	in.hides = kind != "classic" // an unknown one may be a quorum queue
	if err := in.start(ctx, vhost); err != nil {
		return nil, wrap(err)
	}
	return in, nil
}

// heldBytes is about how much of bodies an intake may hold.
const heldBytes = 64 << 20

// fitting makes the window smaller where the queue's messages are large: the
// broker sends as many as it has room for, whatever their size.
func fitting(window int, q queueDetail) int {
	if q.Messages <= 0 || q.Bytes <= heldBytes {
		return window
	}
	return min(window, max(int(heldBytes/max(q.Bytes/q.Messages, 1)), 1))
}

func (in *intake) start(ctx context.Context, vhost string) (err error) {
	if in.conn, in.unwatch, err = in.a.dialOwn(ctx, vhost, "take "+in.queue); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			in.unwatch()
			in.conn.end(time.Second)
		}
	}()
	if version, _ := in.conn.Properties["version"].(string); major(version) >= 4 {
		in.nack = true
	}
	st, err := in.a.inspect(ctx, in.conn, in.queue)
	if err != nil {
		return err
	}
	in.left = int64(st.Messages)
	if err := in.openChannel(ctx); err != nil {
		return err
	}
	if in.follow {
		return in.consume(ctx)
	}
	return nil
}

func (in *intake) openChannel(ctx context.Context) (err error) {
	if in.ch, err = in.conn.channel(ctx, in.a.cfg.Timeout); err != nil {
		return err
	}
	in.gone = in.ch.NotifyClose(make(chan *amqp.Error, 1))
	in.cancelled = in.ch.NotifyCancel(make(chan string, 1))
	return nil
}

// call runs a call of the library. Ending the caller's context must not cut the
// connection in the middle of it: that would give back what is being worked on.
func (in *intake) call(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return in.conn.do(context.WithoutCancel(ctx), in.a.cfg.Timeout, f)
}

// consume starts a consumer with as much credit as window and bound allow.
func (in *intake) consume(ctx context.Context) error {
	in.credit = in.window - len(in.open)
	if !in.follow {
		in.credit = int(min(int64(in.credit), in.left))
	}
	in.slack, in.stuck, in.got, in.done, in.first = in.left-int64(in.credit), 0, 0, 0, 0
	in.serial++
	err := in.call(ctx, func() (err error) {
		if err = in.ch.Qos(in.credit, 0, false); err != nil {
			return err
		}
		in.deliveries, err = in.ch.Consume(in.queue, in.consumer(), false, false, false, false, nil)
		return err
	})
	if err != nil {
		in.deliveries = nil
	}
	return err
}

// halt ends the consumer. The broker answers after its last delivery, so what
// was sent is all here then.
func (in *intake) halt(ctx context.Context) error {
	if in.deliveries == nil {
		return nil
	}
	if err := in.land(ctx); err != nil {
		return err
	}
	if err := in.call(ctx, func() error { return in.ch.Cancel(in.consumer(), false) }); err != nil {
		return err
	}
	for d := range in.deliveries {
		in.take(d)
	}
	in.deliveries = nil
	if in.got > 0 {
		in.last = append(in.last, in.newest)
	}
	return in.alive()
}

// land takes what is on its way to a consumer of a queue that would hide it. All
// of its credit is used up then, or nothing has come for a while.
func (in *intake) land(ctx context.Context) error {
	if !in.hides {
		return nil
	}
	dry := time.NewTimer(dryHiding)
	defer dry.Stop()
	for in.got-in.done < in.credit && in.left > 0 {
		select {
		case d, ok := <-in.deliveries:
			if !ok {
				return in.why()
			}
			in.take(d)
			dry.Reset(dryHiding)
		case <-dry.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// consumer is another name for each consumer: a quorum queue would go on counting
// the deliveries of the one before. Names sort by age.
func (in *intake) consumer() string { return fmt.Sprintf("sb-%09d", in.serial) }

func (in *intake) take(d amqp.Delivery) {
	if in.got == 0 {
		in.first = d.DeliveryTag
	}
	m := message(&d)
	in.count++
	in.left--
	in.got++
	m.Position = strconv.FormatInt(in.count, 10)
	m.Raw = tag{in, d.DeliveryTag}
	in.ready = append(in.ready, m)
	in.open = append(in.open, d.DeliveryTag)
	in.newest = d.DeliveryTag
}

// alive says whether what was taken is still ours to settle.
func (in *intake) alive() error {
	if in.closed {
		return fmt.Errorf("%w: the intake is closed", agents.ErrNotConnected)
	}
	if !in.ch.IsClosed() {
		return nil
	}
	return in.why()
}

// why says why deliveries ended.
func (in *intake) why() error {
	select {
	case _, ok := <-in.cancelled:
		if ok {
			return fmt.Errorf("%w: the broker removed the queue, or moved it, while messages were taken", controlbus.ErrNotFound)
		}
	default:
	}
	select {
	case e := <-in.gone:
		if unreadable(e) {
			return fmt.Errorf("%w: a message there has headers that no program with this library can read (nested deeper than 32, or a list of more than 8192 values); "+
				"purge the queue without a copy, or let its own consumer take the message", controlbus.ErrInvalid)
		}
		if e != nil {
			// Whatever the reason, such as a consumer_timeout: what was taken is the
			// broker's again, and only a new intake can go on.
			return fmt.Errorf("%w: %w", agents.ErrNotConnected, e)
		}
	default:
	}
	return fmt.Errorf("%w: the connection broke", agents.ErrNotConnected)
}

// unreadable says that the library closed the connection because it refuses what
// it read. The same message would close the next one, too.
func unreadable(e *amqp.Error) bool {
	return e != nil && !e.Server && (e.Code == amqp.SyntaxError || strings.Contains(e.Reason, amqp.ErrSyntax.Reason))
}

// Next hands out what is there, waiting for the first.
func (in *intake) Next(ctx context.Context, most int) ([]*agents.Message, error) {
	most = max(most, 1)
	if err := in.alive(); err != nil {
		return nil, in.wrap(err)
	}
	for len(in.ready) == 0 {
		if len(in.open) >= in.window {
			return nil, in.wrap(fmt.Errorf("%w: %d messages are held, the whole window; settle some first", controlbus.ErrConflict, len(in.open)))
		}
		if !in.follow && in.left <= 0 {
			if err := in.halt(ctx); err != nil {
				return nil, in.wrap(err)
			}
			return nil, io.EOF
		}
		if err := in.fill(ctx, most); err != nil {
			if errors.Is(err, io.EOF) {
				return nil, io.EOF
			}
			return nil, in.wrap(err)
		}
	}
	n := min(most, len(in.ready))
	batch := in.ready[:n:n]
	in.ready = in.ready[n:]
	for _, m := range batch {
		in.out[m.Raw.(tag).n] = true
	}
	return batch, nil
}

func (in *intake) wrap(err error) error {
	return fmt.Errorf("rabbitmq: take from %q: %w", in.channel, err)
}

// fill brings messages, or io.EOF when the queue is empty.
func (in *intake) fill(ctx context.Context, most int) error {
	if in.pulling {
		return in.pull(ctx, most)
	}
	if in.deliveries == nil {
		err := in.consume(ctx)
		if !in.follow && in.count == 0 && errors.Is(err, controlbus.ErrDenied) {
			// Somebody consumes exclusively: the channel is closed by the refusal, and
			// getting is still allowed.
			in.pulling = true
			return in.openChannel(ctx)
		}
		if err != nil {
			return err
		}
	}
	var dry <-chan time.Time
	if !in.follow {
		after := dryAfter
		if in.hides {
			after = dryHiding
		}
		timer := time.NewTimer(after)
		defer timer.Stop()
		dry = timer.C
	}
	select {
	case d, ok := <-in.deliveries:
		if !ok {
			return in.why()
		}
		in.take(d)
	case <-ctx.Done():
		return ctx.Err()
	case <-dry:
		if err := in.halt(ctx); err != nil || len(in.ready) > 0 {
			return err
		}
		// A queue with a single active consumer never gets round to us.
		in.pulling = in.got == 0
		return in.pull(ctx, 1)
	}
	more := time.NewTimer(linger)
	defer more.Stop()
	for len(in.ready) < most && (in.follow || in.left > 0) && len(in.open) < in.window {
		select {
		case d, ok := <-in.deliveries:
			if !ok {
				return in.why()
			}
			in.take(d)
			more.Reset(linger)
		case <-more.C:
			return nil
		}
	}
	return nil
}

// pull gets messages one by one: slower, but the broker says when there is none.
func (in *intake) pull(ctx context.Context, most int) error {
	until := time.Now().Add(pullFor)
	for len(in.ready) < most && in.left > 0 && len(in.open) < in.window {
		var d amqp.Delivery
		var ok bool
		err := in.call(ctx, func() (err error) {
			d, ok, err = in.ch.Get(in.queue, false)
			return err
		})
		switch {
		case err != nil && len(in.ready) > 0 && !in.ch.IsClosed():
			return nil // ctx ended: what was got is handed out first
		case err != nil:
			return err
		case !ok && len(in.ready) == 0:
			return io.EOF
		case !ok:
			return nil
		}
		in.take(d)
		if time.Now().After(until) {
			return nil
		}
	}
	return nil
}
