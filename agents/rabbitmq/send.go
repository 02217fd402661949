package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// sendWindow is how many messages are on their way to the broker unanswered.
const sendWindow = 256

// outlet publishes into one queue through the default exchange, on a connection
// of its own: the broker blocks connections that publish when it runs short of
// memory or disk, and what consumes and settles must go on.
type outlet struct {
	a              *Adapter
	channel, queue string
	vhost          string
	conn           *conn
	ch             *amqp.Channel
	maxBody        int
	unwatch        func() bool
	gone           chan *amqp.Error
	flush          chan chan struct{}
	drained        chan struct{}
	broken         error // why it sends no more
	answered       bool  // the broker confirmed something

	mu       sync.Mutex
	returned []amqp.Return
	blocked  string // why the broker takes nothing; empty: it does
	free     chan struct{}
}

// Outlet opens a way into a queue, which must exist. A Send that its context
// ends leaves messages unanswered and the outlet unusable.
func (a *Adapter) Outlet(ctx context.Context, channel string) (agents.Outlet, error) {
	vhost, queue := a.resolve(channel)
	o := &outlet{a: a, channel: channel, queue: queue, vhost: vhost, flush: make(chan chan struct{}), drained: make(chan struct{})}
	if err := o.open(ctx, vhost); err != nil {
		return nil, fmt.Errorf("rabbitmq: send to %q: %w", channel, err)
	}
	return o, nil
}

func (o *outlet) open(ctx context.Context, vhost string) (err error) {
	if o.conn, o.unwatch, err = o.a.dialOwn(ctx, vhost, "send "+o.queue); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			o.unwatch()
			o.conn.end(time.Second)
		}
	}()
	if _, err = o.a.inspect(ctx, o.conn, o.queue); err != nil {
		return err
	}
	if o.ch, err = o.conn.channel(ctx, o.a.cfg.Timeout); err != nil {
		return err
	}
	version, _ := o.conn.Properties["version"].(string)
	o.maxBody = 128 << 20
	if major(version) >= 4 {
		o.maxBody = 16 << 20
	}
	o.gone = o.ch.NotifyClose(make(chan *amqp.Error, 1))
	// The library hands over returns and blocks from the goroutine that reads the
	// connection: somebody must always take them.
	returns := o.ch.NotifyReturn(make(chan amqp.Return))
	blocks := o.conn.NotifyBlocked(make(chan amqp.Blocking))
	go o.drain(returns, blocks)
	return o.conn.do(ctx, o.a.cfg.Timeout, func() error { return o.ch.Confirm(false) })
}

// drain takes what the broker says besides confirmations, until the connection
// ends.
func (o *outlet) drain(returns <-chan amqp.Return, blocks <-chan amqp.Blocking) {
	defer close(o.drained)
	for returns != nil || blocks != nil {
		select {
		case r, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			o.mu.Lock()
			o.returned = append(o.returned, r)
			o.mu.Unlock()
		case b, ok := <-blocks:
			if !ok {
				blocks = nil
				continue
			}
			o.block(b)
		case done := <-o.flush:
			close(done)
		}
	}
}

func (o *outlet) block(b amqp.Blocking) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case b.Active && o.free == nil:
		o.free = make(chan struct{})
		fallthrough
	case b.Active:
		if o.blocked = b.Reason; o.blocked == "" {
			o.blocked = "no reason given"
		}
	case o.free != nil:
		close(o.free)
		o.free, o.blocked = nil, ""
	}
}

// blockage is why the broker takes nothing, and a channel that closes when it
// does again.
func (o *outlet) blockage() (why string, free <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.blocked, o.free
}

// flight is a message that was written and whose answer is awaited.
type flight struct {
	i       int
	confirm *amqp.DeferredConfirmation
	known   bool // returned already
}

// Send publishes with the mandatory flag and awaits every confirmation.
func (o *outlet) Send(ctx context.Context, msgs []*agents.Message) []error {
	errs := make([]error, len(msgs))
	pubs := make([]amqp.Publishing, len(msgs))
	fail := func(err error) []error {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = fmt.Errorf("rabbitmq: send to %q: %w", o.channel, err)
			}
		}
		return errs
	}
	for i, m := range msgs {
		if pubs[i], errs[i] = publishing(m, o.maxBody, o.conn.Config.FrameSize); errs[i] != nil {
			errs[i] = fmt.Errorf("rabbitmq: send to %q: %w", o.channel, errs[i])
		}
	}
	if o.broken != nil {
		return fail(o.broken)
	}
	if why, free := o.blockage(); free != nil {
		select {
		case <-free:
		case <-o.drained:
		case <-ctx.Done():
			return fail(fmt.Errorf("%w: nothing was sent: the broker has blocked publishers (%s)", controlbus.ErrUnavailable, why))
		}
	}
	if ctx.Err() != nil {
		return fail(fmt.Errorf("%w: nothing was sent: %w", controlbus.ErrUnavailable, ctx.Err()))
	}
	o.mu.Lock()
	o.returned = nil
	o.mu.Unlock()

	// Writing blocks when the broker does not read.
	stop := context.AfterFunc(ctx, o.conn.cut)
	defer stop()
	flights := make([]flight, 0, len(msgs))
	settled := 0
	for i := range pubs {
		if errs[i] != nil {
			continue
		}
		if len(flights)-settled >= sendWindow {
			if o.broken = o.await(ctx, flights[settled].confirm); o.broken != nil {
				break
			}
			settled++
		}
		confirm, err := o.ch.PublishWithDeferredConfirm(o.exchange(msgs[i]), o.queue, true, false, pubs[i])
		if err != nil {
			o.broken = o.why(ctx, err)
			break
		}
		flights = append(flights, flight{i: i, confirm: confirm})
	}
	for ; settled < len(flights) && o.broken == nil; settled++ {
		o.broken = o.await(ctx, flights[settled].confirm)
	}
	o.returns(pubs, flights)
	written := make([]bool, len(msgs))
	for k := range flights {
		f := &flights[k]
		written[f.i] = true
		switch {
		case f.known:
			errs[f.i] = fmt.Errorf("rabbitmq: send to %q: %w: the broker has no such queue any more", o.channel, agents.ErrUnroutable)
		case f.confirm.Acked():
			o.answered = true
		case o.broken == nil && !o.ch.IsClosed():
			errs[f.i] = fmt.Errorf("rabbitmq: send to %q: %w: the broker refused the message; the queue may be full", o.channel, controlbus.ErrUnavailable)
		default:
			if o.broken == nil {
				o.broken = o.why(ctx, nil)
			}
			errs[f.i] = fmt.Errorf("rabbitmq: send to %q: %w", o.channel, o.broken)
		}
	}
	for i := range errs {
		if errs[i] == nil && !written[i] {
			errs[i] = fmt.Errorf("rabbitmq: send to %q: %w", o.channel, o.broken)
		}
	}
	if o.broken != nil {
		o.conn.cut() // answers that come now would be taken for those of other messages
	}
	return errs
}

// exchange is the default exchange, which knows each queue by its name, but for
// test messages that are being kept from the queue's consumers.
func (o *outlet) exchange(m *agents.Message) string {
	for _, h := range m.Headers {
		if h.Key == controlbus.HeaderTest {
			return o.a.separated(o.vhost, o.queue)
		}
	}
	return ""
}

// await waits for one confirmation. A broker that has blocked publishers is
// waited for until ctx ends; one that is merely silent for twice the time that
// any other call may take.
func (o *outlet) await(ctx context.Context, c *amqp.DeferredConfirmation) error {
	select {
	case <-c.Done():
		return nil
	default:
	}
	silent := time.NewTimer(2 * o.a.cfg.Timeout)
	defer silent.Stop()
	for {
		select {
		case <-c.Done():
			return nil
		case <-ctx.Done():
			return o.why(ctx, nil)
		case <-silent.C:
			if why, _ := o.blockage(); why == "" {
				return fmt.Errorf("%w: the broker confirmed nothing for %s", agents.ErrNotConnected, 2*o.a.cfg.Timeout)
			}
			silent.Reset(2 * o.a.cfg.Timeout)
		}
	}
}

// why says why nothing more is answered. What was on its way may have arrived,
// so it is ErrNotConnected, but for a user who may not publish at all.
func (o *outlet) why(ctx context.Context, err error) error {
	select {
	case e := <-o.gone:
		if e != nil && e.Code == amqp.AccessRefused && !o.answered {
			return connErr(ctx, e)
		}
		if e != nil {
			err = e // says little where the end of ctx cut the connection
		}
	default:
	}
	if why, _ := o.blockage(); why != "" {
		return fmt.Errorf("%w: the broker has blocked publishers (%s)", agents.ErrNotConnected, why)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: the broker has not answered: %w", agents.ErrNotConnected, ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", agents.ErrNotConnected, err)
	}
	return fmt.Errorf("%w: the connection broke before the broker had answered", agents.ErrNotConnected)
}

// returns finds out which messages came back. The broker returns a message
// before it confirms it, in the order of publishing, but does not say which it
// was: it is known by what is in it, and equal messages stand for each other.
func (o *outlet) returns(pubs []amqp.Publishing, flights []flight) {
	done := make(chan struct{})
	select {
	case o.flush <- done:
		<-done
	case <-o.drained:
	}
	o.mu.Lock()
	returned := o.returned
	o.returned = nil
	o.mu.Unlock()
	for i := range returned {
		r := &returned[i]
		for _, same := range []func(*amqp.Publishing) bool{
			func(p *amqp.Publishing) bool { return samePublishing(p, r) },
			func(p *amqp.Publishing) bool { return p.MessageId == r.MessageId && string(p.Body) == string(r.Body) },
			func(*amqp.Publishing) bool { return true },
		} {
			if k := firstFlight(flights, func(f flight) bool { return !f.known && same(&pubs[f.i]) }); k >= 0 {
				flights[k].known = true
				break
			}
		}
	}
}

func firstFlight(flights []flight, ok func(flight) bool) int {
	for k, f := range flights {
		if ok(f) {
			return k
		}
	}
	return -1
}

func samePublishing(p *amqp.Publishing, r *amqp.Return) bool {
	return p.MessageId == r.MessageId && p.CorrelationId == r.CorrelationId && p.Type == r.Type && p.AppId == r.AppId &&
		p.ReplyTo == r.ReplyTo && p.ContentType == r.ContentType && p.Priority == r.Priority && p.Timestamp.Equal(r.Timestamp) &&
		string(p.Body) == string(r.Body) && (len(p.Headers) == 0 && len(r.Headers) == 0 || reflect.DeepEqual(p.Headers, r.Headers))
}

// Close ends the connection.
func (o *outlet) Close(context.Context) error {
	if o.broken == nil {
		o.broken = fmt.Errorf("%w: the outlet is closed", agents.ErrNotConnected)
	}
	o.unwatch()
	if _, free := o.blockage(); free != nil {
		o.conn.cut() // a broker that does not read answers no farewell
	}
	o.conn.end(min(o.a.cfg.Timeout, 5*time.Second))
	<-o.drained
	return nil
}

// dialOwn dials a connection for one piece of work, which ends with the adapter's
// life. unwatch must be called when the work is over.
func (a *Adapter) dialOwn(ctx context.Context, vhost, purpose string) (c *conn, unwatch func() bool, err error) {
	a.mu.Lock()
	life := a.life
	connected := a.ctrl != nil
	a.mu.Unlock()
	if life == nil || !connected {
		return nil, nil, agents.ErrNotConnected
	}
	if c, err = a.dial(ctx, vhost, purpose); err != nil {
		if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
			err = fmt.Errorf("%w: %w", err, ctx.Err())
		}
		return nil, nil, err
	}
	return c, context.AfterFunc(life, c.cut), nil
}
