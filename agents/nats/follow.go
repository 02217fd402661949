package nats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

const (
	// followWait is after how long the server delivers again what a dead agent
	// held. A living one says so before: messages may take longer than that.
	followWait = 10 * time.Second
	// followPoll is how long one request for a message stands.
	followPoll = 5 * time.Second
)

var durableName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,120}$`)

// follower is a durable consumer whose messages are acknowledged one by one.
type follower struct {
	session  *session
	consumer jetstream.Consumer
	acks     *pipe
	stream   string
	name     string
	window   int
	upTo     uint64
	waiting  jetstream.MessageBatch // of a request for one message that still stands
	past     bool                   // the bound was reached

	mu   sync.Mutex
	held map[string]jetstream.Msg // by acknowledgement subject
}

// follow opens the consumer, making it if it is not there. It begins with what
// the stream holds, or after a position: a stream that keeps what has been read
// would give all of that out.
func (a *Adapter) follow(ctx context.Context, p *place, o agents.IntakeOptions, after, upTo uint64) (*follower, error) {
	switch {
	case o.Copy:
		return nil, fmt.Errorf("%w: to read along without taking is what a tap does", controlbus.ErrUnsupported)
	case !durableName.MatchString(o.Name):
		return nil, fmt.Errorf("%w: consumer name %.200q: want 1 to 120 letters, digits, - and _", controlbus.ErrInvalid, o.Name)
	case strings.HasPrefix(o.Name, consumerPrefix):
		return nil, fmt.Errorf("%w: consumer names with %s are taps'", controlbus.ErrInvalid, consumerPrefix)
	}
	f := &follower{stream: p.config().Name, name: o.Name, window: o.Window, upTo: upTo, held: map[string]jetstream.Msg{}}
	if f.window <= 0 {
		f.window = pipeWindow
	}
	var err error
	if f.session, err = a.session(ctx, "follow "+p.name); err != nil {
		return nil, err
	}
	if err := f.open(ctx, a, p, after); err != nil {
		f.session.close()
		return nil, err
	}
	a.taps.Add(1) // the session counts, so Close cannot have begun to wait
	go func() {
		defer a.taps.Done()
		f.hold()
	}()
	return f, nil
}

func (f *follower) open(ctx context.Context, a *Adapter, p *place, after uint64) error {
	js, err := a.jetstream(f.session.nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	f.consumer, err = js.Consumer(ctx, f.stream, f.name)
	switch {
	case err == nil:
		if c := f.consumer.CachedInfo().Config; c.AckPolicy != jetstream.AckExplicitPolicy || c.DeliverSubject != "" {
			return fmt.Errorf("%w: the stream has a consumer %s that is not Signalbox's", controlbus.ErrConflict, f.name)
		} else if c.MaxAckPending != f.window {
			c.MaxAckPending = f.window
			if f.consumer, err = js.UpdateConsumer(ctx, f.stream, c); err != nil {
				return a.refusal(f.session.nc, err, f.name)
			}
		}
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		c := jetstream.ConsumerConfig{
			Durable: f.name, Description: "Signalbox",
			DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: followWait, MaxDeliver: -1, MaxAckPending: f.window,
		}
		// A work queue holds only what nobody has dealt with, and refuses to begin
		// anywhere else.
		if after > 0 && p.config().Retention != jetstream.WorkQueuePolicy {
			c.DeliverPolicy, c.OptStartSeq = jetstream.DeliverByStartSequencePolicy, after+1
		}
		if f.consumer, err = js.CreateConsumer(ctx, f.stream, c); err != nil {
			return a.overlap(ctx, p, f.session.nc, err)
		}
	default:
		return a.refusal(f.session.nc, err, f.name)
	}
	f.acks, err = newPipe(f.session.nc, f.session.denied, a.cfg.Timeout)
	return err
}

// overlap explains why a work queue takes no further consumer.
func (a *Adapter) overlap(ctx context.Context, p *place, nc *nats.Conn, err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != codeWorkQueueTwo && api.ErrorCode != codeWorkQueueShared {
		return a.refusal(nc, err, "CONSUMER")
	}
	return fmt.Errorf("%w: %s (the server says: %s, %d)", controlbus.ErrUnsupported, a.workQueueTaken(ctx, p), api.Description, api.ErrorCode)
}

// workQueueTaken says whose messages another consumer would take.
func (a *Adapter) workQueueTaken(ctx context.Context, p *place) string {
	var names []string
	if readers, err := p.readers(ctx); err == nil {
		for _, c := range readers {
			names = append(names, c.Name)
		}
	}
	return "a work queue gives each message to one consumer, and " + strings.Join(names, ", ") +
		" has them; give that one another filter, or let the publishers send to another channel, and follow what is left over"
}

// hold keeps telling the server that held messages are worked on.
func (f *follower) hold() {
	tick := time.NewTicker(followWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-f.session.ctx.Done():
			return
		case <-tick.C:
		}
		f.mu.Lock()
		held := make([]jetstream.Msg, 0, len(f.held))
		for _, m := range f.held {
			held = append(held, m)
		}
		f.mu.Unlock()
		for _, m := range held {
			_ = m.InProgress() // a link that is gone ends the session
		}
	}
}

// Next waits for the first message, then takes what else is there.
func (f *follower) Next(ctx context.Context, most int) ([]*agents.Message, error) {
	f.mu.Lock()
	free := f.window - len(f.held)
	f.mu.Unlock()
	if free <= 0 {
		return nil, fmt.Errorf("nats: follow %q: %w: %d messages are held, settle some first", f.stream, controlbus.ErrConflict, f.window)
	}
	most = max(min(most, free), 1)
	for {
		if f.past {
			return nil, io.EOF
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if f.session.ctx.Err() != nil {
			return nil, lost(f.session.nc.LastError())
		}
		var out []*agents.Message
		if f.waiting == nil {
			batch, err := f.consumer.FetchNoWait(most)
			if err != nil {
				return nil, f.failure(err)
			}
			if out, err = f.drain(ctx, batch, out); err != nil {
				return nil, err
			}
			if len(out) > 0 {
				return out, nil
			}
			wait, cancel := context.WithTimeout(f.session.ctx, followPoll)
			f.waiting, err = f.consumer.Fetch(1, jetstream.FetchContext(wait))
			context.AfterFunc(wait, cancel)
			if err != nil {
				cancel()
				return nil, f.failure(err)
			}
		}
		batch := f.waiting
		out, err := f.drain(ctx, batch, nil)
		if err != nil {
			return nil, err
		}
		if ctx.Err() != nil && len(out) == 0 {
			return nil, ctx.Err() // the request stands
		}
		f.waiting = nil
		if len(out) > 0 {
			return out, nil
		}
	}
}

// drain takes a batch's messages until it ends.
func (f *follower) drain(ctx context.Context, batch jetstream.MessageBatch, out []*agents.Message) ([]*agents.Message, error) {
	for {
		select {
		case <-ctx.Done():
			return out, nil
		case m, ok := <-batch.Messages():
			if !ok {
				err := batch.Error()
				if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, nats.ErrTimeout) {
					return out, nil
				}
				if len(out) > 0 {
					return out, nil // the next call meets it again
				}
				return nil, f.failure(err)
			}
			msg, err := f.keep(m)
			if err != nil {
				return out, err
			}
			if msg != nil {
				out = append(out, msg)
			}
		}
	}
}

func (f *follower) keep(m jetstream.Msg) (*agents.Message, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, fmt.Errorf("nats: follow %q: message without metadata: %w", f.stream, err)
	}
	if meta.Sequence.Stream > f.upTo {
		f.past = true
		return nil, m.Nak()
	}
	f.mu.Lock()
	f.held[m.Reply()] = m
	f.mu.Unlock()
	out := incoming(meta.Sequence.Stream, meta.Timestamp, m.Subject(), m.Headers(), m.Data())
	out.Deliveries = int(meta.NumDelivered) - 1
	out.Raw = m.Reply()
	return out, nil
}

func (f *follower) failure(err error) error {
	switch {
	case f.session.nc.IsClosed():
		return lost(f.session.nc.LastError())
	case errors.Is(err, jetstream.ErrConsumerDeleted), errors.Is(err, nats.ErrNoResponders):
		return fmt.Errorf("nats: follow %q: %w: its consumer %s is gone", f.stream, controlbus.ErrConflict, f.name)
	}
	return fmt.Errorf("nats: follow %q: %w", f.stream, sentinel(err))
}

// Accept acknowledges the messages and waits for the server to say so.
func (f *follower) Accept(ctx context.Context, msgs []*agents.Message) error {
	return f.settle(ctx, msgs, "+ACK")
}

// Return gives the messages back; they are delivered next.
func (f *follower) Return(ctx context.Context, msgs []*agents.Message) error {
	return f.settle(ctx, msgs, "-NAK")
}

func (f *follower) settle(ctx context.Context, msgs []*agents.Message, verdict string) error {
	var failed error
	f.acks.each(ctx, len(msgs), func(i int) (*nats.Msg, error) {
		reply, _ := msgs[i].Raw.(string)
		f.mu.Lock()
		_, ok := f.held[reply]
		f.mu.Unlock()
		if !ok {
			return nil, fmt.Errorf("%w: message %s is not held here", controlbus.ErrConflict, msgs[i].Position)
		}
		return &nats.Msg{Subject: reply, Data: []byte(verdict)}, nil
	}, func(i int, _ *nats.Msg, err error) {
		if err == nil {
			f.mu.Lock()
			delete(f.held, msgs[i].Raw.(string)) //nolint:forcetypeassert // it was found by it
			f.mu.Unlock()
		} else if failed == nil {
			failed = f.failure(err)
		}
	})
	return failed
}

// Close gives back what is held. The consumer stays, and with it its place.
func (f *follower) Close(ctx context.Context) error {
	defer f.session.close()
	f.mu.Lock()
	var held []*agents.Message
	for reply := range f.held {
		held = append(held, &agents.Message{Raw: reply})
	}
	f.mu.Unlock()
	if len(held) == 0 || f.session.broken() != nil {
		return nil // what a dead link held comes again after followWait
	}
	return f.Return(ctx, held)
}

// Release removes the durable consumer of an Intake with Follow.
func (a *Adapter) Release(ctx context.Context, channel, name string) error {
	p, err := a.place(ctx, channel)
	if errors.Is(err, controlbus.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = p.onStream(nothingWaits)
	}
	if err == nil && !durableName.MatchString(name) {
		err = fmt.Errorf("%w: consumer name %.200q", controlbus.ErrInvalid, name)
	}
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
		defer cancel()
		if err = p.js.DeleteConsumer(ctx, channel, name); errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil
		}
		err = a.refusal(p.nc, err, name)
	}
	if err != nil {
		return fmt.Errorf("nats: release %s of %q: %w", name, channel, err)
	}
	return nil
}
