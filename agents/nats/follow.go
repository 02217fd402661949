package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
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
	// closeWait is how long Close waits for what is on its way.
	closeWait = 2 * time.Second
	// followPoll is how long one request for a message stands.
	followPoll = 5 * time.Second
)

var durableName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,120}$`)

// follower is a durable consumer whose messages are acknowledged one by one. One
// goroutine takes what the server sends, so that it is known to be held and the
// server is kept informed, another one hands it out.
type follower struct {
	session *session
	acks    *pipe
	sub     *nats.Subscription
	inbox   string
	pulls   string // subject of requests for messages
	stream  string
	name    string
	window  int
	upTo    uint64
	serial  int
	arrived chan *agents.Message // the server gives out no more than the window
	bell    chan struct{}        // a request has ended
	drained chan struct{}        // nothing comes any more

	mu     sync.Mutex
	held   map[string]uint64 // sequences by acknowledgement subject
	reply  string            // of the request that stands
	asked  int               // messages it still may bring
	ends   time.Time         // when it is over, whatever comes
	past   bool              // the bound was reached
	failed error
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
	f := &follower{
		stream: p.config().Name, name: o.Name, window: o.Window, upTo: upTo, held: map[string]uint64{}, bell: make(chan struct{}, 1), drained: make(chan struct{}),
		pulls: a.api() + ".CONSUMER.MSG.NEXT." + p.config().Name + "." + o.Name,
	}
	if f.window <= 0 {
		f.window = pipeWindow
	}
	f.arrived = make(chan *agents.Message, f.window)
	var err error
	if f.session, err = a.session(ctx, "follow "+p.name); err != nil {
		return nil, err
	}
	if err := f.open(ctx, a, p, after); err != nil {
		f.session.close()
		return nil, err
	}
	a.taps.Add(2) // the session counts, so Close cannot have begun to wait
	go func() {
		defer a.taps.Done()
		f.hold()
	}()
	go func() {
		defer a.taps.Done()
		f.receive()
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
	consumer, err := js.Consumer(ctx, f.stream, f.name)
	switch {
	case err == nil:
		if c := consumer.CachedInfo().Config; c.AckPolicy != jetstream.AckExplicitPolicy || c.DeliverSubject != "" {
			return fmt.Errorf("%w: the stream has a consumer %s that is not Signalbox's", controlbus.ErrConflict, f.name)
		} else if c.MaxAckPending != f.window {
			c.MaxAckPending = f.window
			if _, err = js.UpdateConsumer(ctx, f.stream, c); err != nil {
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
		if _, err = js.CreateConsumer(ctx, f.stream, c); err != nil {
			return a.overlap(ctx, p, f.session.nc, err)
		}
	default:
		return a.refusal(f.session.nc, err, f.name)
	}
	if f.acks, err = newPipe(f.session.nc, f.session.denied, a.cfg.Timeout); err != nil {
		return err
	}
	f.inbox = f.session.nc.NewInbox()
	if f.sub, err = f.session.nc.SubscribeSync(f.inbox + ".*"); err != nil {
		return sentinel(err)
	}
	return sentinel(f.sub.SetPendingLimits(-1, -1)) // bounded by what is asked for
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
		held := slices.Collect(maps.Keys(f.held))
		f.mu.Unlock()
		for _, ack := range held {
			_ = f.session.nc.Publish(ack, []byte("+WPI")) // a link that is gone ends the session
		}
	}
}

// receive files away what the server sends until the session ends.
func (f *follower) receive() {
	defer close(f.drained)
	for {
		m, err := f.sub.NextMsgWithContext(f.session.ctx)
		if err != nil {
			return
		}
		if status := m.Header.Get("Status"); len(m.Data) == 0 && status != "" && !strings.HasPrefix(m.Reply, "$JS.ACK.") {
			f.ended(m.Subject, status, m.Header.Get("Description"))
			continue
		}
		meta, err := m.Metadata()
		if err != nil {
			continue // no message of the consumer's
		}
		msg := incoming(meta.Sequence.Stream, meta.Timestamp, m.Subject, m.Header, m.Data)
		msg.Deliveries, msg.Raw = int(meta.NumDelivered)-1, m.Reply
		f.mu.Lock()
		f.held[m.Reply] = meta.Sequence.Stream
		beyond := meta.Sequence.Stream > f.upTo
		f.past = f.past || beyond
		f.asked-- // which request it answers cannot be seen
		f.mu.Unlock()
		if beyond {
			f.ring() // Close gives it back
			continue
		}
		select {
		case f.arrived <- msg:
		default: // more than was asked for: the server delivers it again
			f.forget(m.Reply)
		}
	}
}

// ended says that the server has done with a request.
func (f *follower) ended(reply, status, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if reply != f.reply || status == "100" {
		return
	}
	f.asked = 0
	switch why = strings.ToLower(why); {
	case status == "503", strings.Contains(why, "consumer deleted"), strings.Contains(why, "push based"):
		f.failed = fmt.Errorf("nats: follow %q: %w: its consumer %s is gone", f.stream, controlbus.ErrConflict, f.name)
	}
	f.ring()
}

func (f *follower) ring() {
	select {
	case f.bell <- struct{}{}:
	default:
	}
}

func (f *follower) forget(ack string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.held, ack)
}

// request asks for as many messages as the window has room for, unless a request
// stands, and says until when to wait.
func (f *follower) request() (until time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	switch {
	case f.failed != nil:
		return now, f.failed
	case f.asked > 0 && now.Before(f.ends):
		return f.ends, nil
	case f.past:
		return now, io.EOF
	}
	free := f.window - len(f.held)
	if free <= 0 {
		return now, fmt.Errorf("nats: follow %q: %w: %d messages are held, settle some first", f.stream, controlbus.ErrConflict, len(f.held))
	}
	body, err := json.Marshal(pullRequest{Expires: followPoll, Batch: free, MaxBytes: max(browseBytes, f.session.nc.MaxPayload()+64<<10)})
	if err != nil {
		return now, err
	}
	f.serial++
	f.reply = f.inbox + "." + strconv.Itoa(f.serial)
	// The server's answers to a request may come after the request is over.
	f.asked, f.ends = free, now.Add(followPoll+time.Second)
	return f.ends, f.failure(f.session.nc.PublishRequest(f.pulls, f.reply, body))
}

// Next waits for the first message, then takes what else has arrived.
func (f *follower) Next(ctx context.Context, most int) ([]*agents.Message, error) {
	var out []*agents.Message
	for {
		// What a dead link has brought comes again on another.
		if f.session.ctx.Err() != nil {
			return nil, lost(f.session.nc.LastError())
		}
		for len(out) < max(most, 1) {
			select {
			case m := <-f.arrived:
				out = append(out, m)
				continue
			default:
			}
			break
		}
		if len(out) > 0 {
			return out, nil
		}
		until, err := f.request()
		if err != nil {
			return nil, err
		}
		wait := time.NewTimer(time.Until(until))
		select {
		case m := <-f.arrived:
			out = append(out, m)
		case <-f.bell:
		case <-wait.C:
		case <-f.session.ctx.Done():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		wait.Stop()
	}
}

func (f *follower) failure(err error) error {
	switch {
	case err == nil:
		return nil
	case f.session.nc.IsClosed():
		return lost(f.session.nc.LastError())
	case errors.Is(err, nats.ErrNoResponders):
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
		_, held := f.held[reply]
		f.mu.Unlock()
		if !held {
			return nil, fmt.Errorf("%w: message %s is not held here", controlbus.ErrConflict, msgs[i].Position)
		}
		return &nats.Msg{Subject: reply, Data: []byte(verdict)}, nil
	}, func(i int, _ *nats.Msg, err error) {
		if err == nil {
			f.forget(msgs[i].Raw.(string)) //nolint:forcetypeassert // it was found by it
		} else if failed == nil {
			failed = f.failure(err)
		}
	})
	return failed
}

// Close gives back what is held. The consumer stays, and with it its place.
func (f *follower) Close(ctx context.Context) error {
	defer f.session.close()
	// First, or what is given back comes here again on the request that stands. What
	// is on its way is waited for: it is held until it is given back.
	if f.sub.Drain() == nil {
		late := time.NewTimer(closeWait)
		defer late.Stop()
		select {
		case <-f.drained:
		case <-late.C:
		case <-ctx.Done():
		}
	}
	f.mu.Lock()
	var held []*agents.Message
	// In order, for they are delivered as they are given back.
	for _, reply := range slices.SortedFunc(maps.Keys(f.held), func(a, b string) int { return cmp.Compare(f.held[a], f.held[b]) }) {
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
