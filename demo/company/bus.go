package company

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
)

const (
	dialTimeout    = 5 * time.Second
	publishTimeout = 5 * time.Second
	ackWait        = 15 * time.Second
	fetchWait      = time.Second
	// grace is how long a message in hand may go on once the service stops.
	grace = time.Second
	// maxAttempts is how often a message is tried before it is a dead letter.
	maxAttempts = 3
)

// Message headers. NATS header names are case-sensitive.
const (
	headerCorrelation = "Correlation-Id"
	headerCausation   = "Causation-Id"
	headerContentType = "Content-Type"
	headerTenant      = "x-tenant"
	headerAttempts    = "x-attempts"
	headerSentBy      = "x-sent-by"

	headerOriginalSubject = "x-original-subject"
	headerOriginalStream  = "x-original-stream"
	headerOriginalSeq     = "x-original-sequence"
	headerErrorType       = "x-error-type"
	headerError           = "x-error"
	headerFailedAt        = "x-failed-at"
)

// failure is an error with the class that error.type, dead letters and people
// go by. A permanent one is not tried again.
type failure struct {
	Type      string
	Permanent bool
	err       error
}

func (f *failure) Error() string { return f.Type + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// errorType is the class of any error.
func errorType(err error) string {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f.Type
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return "Timeout"
	default:
		return "_OTHER"
	}
}

// message is one received message.
type message struct {
	Subject     string
	ID          string
	Correlation string
	Tenant      string
	Attempt     int
	Header      nats.Header
	Body        []byte
}

// outgoing is one message to send.
type outgoing struct {
	Subject     string
	ID          string
	Correlation string
	Causation   string
	Tenant      string
	Body        []byte
	Header      nats.Header // more headers, may be nil
}

// first begins a conversation.
func first(subject, correlation, tenant string, body any) (outgoing, error) {
	b, err := json.Marshal(body)
	return outgoing{Subject: subject, ID: newID(), Correlation: correlation, Tenant: tenant, Body: b}, err
}

// after is a message that m caused. Its id follows from the cause, so that a
// service that crashed between sending and acknowledging sends the same id
// again and the broker drops the second.
func after(m *message, subject string, body any) (outgoing, error) {
	b, err := json.Marshal(body)
	return outgoing{Subject: subject, ID: derivedID(m.ID, subject), Correlation: m.Correlation,
		Causation: m.ID, Tenant: m.Tenant, Body: b}, err
}

// bus is one service's connection to the broker. It starts and ends the spans
// of messaging operations, so services are written without thinking of them.
type bus struct {
	service string
	tel     *telemetry
	nc      *nats.Conn
	js      jetstream.JetStream
	server  []attribute.KeyValue
}

func connect(cfg Config, service string, tel *telemetry) (*bus, error) {
	nc, err := nats.Connect(cfg.Broker,
		nats.Name(service),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(500*time.Millisecond),
		nats.CustomInboxPrefix("_INBOX."+service),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				tel.log.Warn("broker connection lost", slog.Any("error", err))
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { tel.log.Info("broker connection is back") }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			tel.log.Warn("broker reports a problem", slog.Any("error", err))
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	b := &bus{service: service, tel: tel, nc: nc, js: js}
	if u, err := url.Parse(nc.ConnectedUrl()); err == nil {
		if host, port, err := net.SplitHostPort(u.Host); err == nil {
			n, _ := strconv.Atoi(port)
			b.server = []attribute.KeyValue{semconv.ServerAddress(host), semconv.ServerPort(n)}
		}
	}
	return b, nil
}

// close hands over what is buffered and ends the connection.
func (b *bus) close() {
	if b.nc.IsConnected() {
		_ = b.nc.FlushTimeout(grace) // core messages are best effort, on the way out too
	}
	b.nc.Close()
}

// publish stores a message in the stream that owns its subject.
func (b *bus) publish(ctx context.Context, out outgoing) error {
	return b.send(ctx, out, trace.SpanKindProducer, func(ctx context.Context, msg *nats.Msg) error {
		_, err := b.js.PublishMsg(ctx, msg, jetstream.WithMsgID(out.ID))
		return err
	})
}

// notify sends a core message: whoever listens now gets it.
func (b *bus) notify(ctx context.Context, out outgoing) error {
	return b.send(ctx, out, trace.SpanKindProducer, func(_ context.Context, msg *nats.Msg) error {
		return b.nc.PublishMsg(msg)
	})
}

// request sends a message and waits for its reply.
func (b *bus) request(ctx context.Context, out outgoing, timeout time.Duration) (*nats.Msg, error) {
	var reply *nats.Msg
	err := b.send(ctx, out, trace.SpanKindClient, func(ctx context.Context, msg *nats.Msg) (err error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		reply, err = b.nc.RequestMsgWithContext(ctx, msg)
		return err
	})
	return reply, err
}

func (b *bus) send(ctx context.Context, out outgoing, kind trace.SpanKind, do func(context.Context, *nats.Msg) error) error {
	span := "send " + out.Subject
	dest := []attribute.KeyValue{semconv.MessagingDestinationName(out.Subject)}
	if inbox(out.Subject) {
		span = "send (temporary)"
		dest = []attribute.KeyValue{semconv.MessagingDestinationTemporary(true),
			semconv.MessagingDestinationTemplate("_INBOX.{service}.{id}")}
	}
	begin := time.Now()
	ctx, sp := b.tel.tracer.Start(ctx, span, trace.WithSpanKind(kind), trace.WithTimestamp(begin),
		trace.WithAttributes(dest...), trace.WithAttributes(b.server...), trace.WithAttributes(
			semconv.MessagingSystemKey.String(string(systemNATS)),
			semconv.MessagingOperationName("publish"),
			semconv.MessagingOperationTypeSend,
			semconv.MessagingMessageID(out.ID),
			semconv.MessagingMessageConversationID(out.Correlation),
			semconv.MessagingMessageBodySize(len(out.Body))))
	defer sp.End()

	msg := &nats.Msg{Subject: out.Subject, Data: out.Body, Header: nats.Header{}}
	for k, v := range out.Header {
		msg.Header[k] = v
	}
	setHeader(msg.Header, nats.MsgIdHdr, out.ID)
	setHeader(msg.Header, headerCorrelation, out.Correlation)
	setHeader(msg.Header, headerCausation, out.Causation)
	setHeader(msg.Header, headerTenant, out.Tenant)
	setHeader(msg.Header, headerContentType, "application/json")
	setHeader(msg.Header, headerSentBy, b.service)
	propagation.TraceContext{}.Inject(ctx, headerCarrier(msg.Header))

	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	err := do(ctx, msg)

	attrs := append(dest, messagingOperation(messagingconv.OperationTypeSend)...)
	attrs = append(attrs, b.server...)
	if err != nil {
		err = fmt.Errorf("send %s: %w", out.Subject, err)
		attrs = append(attrs, attribute.String("error.type", errorType(err)))
		fail(sp, err)
	}
	b.tel.operation.Record(ctx, time.Since(begin).Seconds(), "publish", systemNATS, attrs...)
	b.tel.sent.Add(ctx, 1, "publish", systemNATS, attrs...)
	return err
}

// consumer is how a service takes messages from a stream.
type consumer struct {
	stream   string
	durable  string
	subjects []string
	workers  int
	dead     string // channel of its dead letters
	// ready blocks until the service can take a message; nil is always.
	ready  func(context.Context) error
	handle func(context.Context, *message) error
}

// consume runs the consumer's workers until ctx ends and the messages in hand
// are settled. A worker asks for one message when it has time for one, so what
// a service cannot do yet stays on the broker, where everybody can see it.
func (b *bus) consume(ctx context.Context, c consumer) error {
	cons, err := b.js.CreateOrUpdateConsumer(ctx, c.stream, jetstream.ConsumerConfig{
		Durable:        c.durable,
		FilterSubjects: c.subjects,
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        ackWait,
		MaxAckPending:  4 * c.workers,
		// The service counts attempts itself. This is for messages that kill it.
		MaxDeliver: 4 * maxAttempts,
	})
	if err != nil {
		return fmt.Errorf("consumer %s: %w", c.durable, err)
	}
	var g errgroup.Group
	for range c.workers {
		g.Go(func() error {
			for ctx.Err() == nil {
				if c.ready != nil && c.ready(ctx) != nil {
					break
				}
				msg, err := cons.Next(jetstream.FetchMaxWait(fetchWait))
				switch {
				case err == nil:
					b.settle(ctx, c, msg)
				case errors.Is(err, nats.ErrTimeout), errors.Is(err, jetstream.ErrNoMessages):
				default:
					// The broker is away or restarting; the connection comes back by itself.
					b.tel.log.WarnContext(ctx, "fetch", slog.String("consumer", c.durable), slog.Any("error", err))
					_ = sleep(ctx, fetchWait)
				}
			}
			return nil //nolint:nilerr // a fetch that fails is tried again
		})
	}
	return g.Wait()
}

// settle handles one message and acknowledges it, asks for it again later, or
// moves it to the dead letter channel.
func (b *bus) settle(ctx context.Context, c consumer, msg jetstream.Msg) {
	ctx, end := outlive(ctx)
	defer end()
	m := received(msg.Subject(), msg.Headers(), msg.Data())
	stream, seq := c.stream, uint64(0)
	if meta, err := msg.Metadata(); err == nil {
		m.Attempt, stream, seq = int(meta.NumDelivered), meta.Stream, meta.Sequence.Stream
	}
	beat := heartbeat(msg)
	defer beat()

	b.processed(ctx, m, c.durable, func(ctx context.Context) error {
		err := c.handle(ctx, m)
		var f *failure
		permanent := errors.As(err, &f) && f.Permanent
		switch {
		case err == nil:
			b.ack(ctx, c, msg.Ack)
		case ctx.Err() != nil: // the service stops; another instance goes on
			b.ack(ctx, c, msg.Nak)
		case !permanent && m.Attempt < maxAttempts:
			b.ack(ctx, c, func() error { return msg.NakWithDelay(time.Duration(m.Attempt) * 2 * time.Second) })
		default:
			if deadErr := b.bury(ctx, c, m, err, stream, seq); deadErr != nil {
				b.ack(ctx, c, func() error { return msg.NakWithDelay(ackWait) })
				return errors.Join(err, deadErr)
			}
			b.ack(ctx, c, msg.Ack)
		}
		return err
	})
}

// bury publishes m as a dead letter with everything a person needs to judge it.
func (b *bus) bury(ctx context.Context, c consumer, m *message, cause error, stream string, seq uint64) error {
	out := outgoing{Subject: c.dead, ID: derivedID(m.ID, c.dead), Correlation: m.Correlation,
		Causation: m.ID, Tenant: m.Tenant, Body: m.Body, Header: nats.Header{}}
	setHeader(out.Header, headerOriginalSubject, m.Subject)
	setHeader(out.Header, headerOriginalStream, stream)
	setHeader(out.Header, headerOriginalSeq, strconv.FormatUint(seq, 10))
	setHeader(out.Header, headerAttempts, strconv.Itoa(m.Attempt))
	setHeader(out.Header, headerErrorType, errorType(cause))
	setHeader(out.Header, headerError, cause.Error())
	setHeader(out.Header, headerFailedAt, time.Now().UTC().Format(time.RFC3339Nano))
	return b.publish(ctx, out)
}

// ack tells the broker what became of a message. When that gets lost the
// message comes again, which services bear because ids follow from causes.
func (b *bus) ack(ctx context.Context, c consumer, do func() error) {
	begin := time.Now()
	err := do()
	attrs := append(messagingOperation(messagingconv.OperationTypeSettle),
		semconv.MessagingDestinationName(c.stream), semconv.MessagingConsumerGroupName(c.durable))
	if err != nil {
		attrs = append(attrs, attribute.String("error.type", errorType(err)))
		b.tel.log.WarnContext(ctx, "acknowledge", slog.Any("error", err))
	}
	b.tel.operation.Record(ctx, time.Since(begin).Seconds(), "ack", systemNATS, attrs...)
}

// subscribe runs workers on a core subject until ctx ends. When all are busy
// the client library queues a bounded number of messages and drops the rest,
// as core NATS means it.
func (b *bus) subscribe(ctx context.Context, subject, group string, workers int,
	handle func(context.Context, *message, string) error) error {
	sub, err := b.nc.QueueSubscribeSync(subject, group)
	if err != nil {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is gone, and the subscription with it
	if err := sub.SetPendingLimits(1024, 4<<20); err != nil {
		return fmt.Errorf("subscribe %s: %w", subject, err)
	}
	var g errgroup.Group
	for range workers {
		g.Go(func() error {
			for {
				msg, err := sub.NextMsgWithContext(ctx)
				switch {
				case ctx.Err() != nil:
					return nil //nolint:nilerr // it ended because it was told to
				case errors.Is(err, nats.ErrSlowConsumer):
					continue // reported by the connection's error handler
				case err != nil:
					return fmt.Errorf("receive %s: %w", subject, err)
				}
				ctx, end := outlive(ctx)
				m := received(msg.Subject, msg.Header, msg.Data)
				m.Attempt = 1
				b.processed(ctx, m, group, func(ctx context.Context) error { return handle(ctx, m, msg.Reply) })
				end()
			}
		})
	}
	return g.Wait()
}

// processed wraps the handling of one message in its consumer span, its
// metrics, and one log record when it went wrong.
//
// The span continues the trace the message came with, so that an order is one
// trace from the shop to the mail, and links to the sending span as the
// conventions ask.
func (b *bus) processed(ctx context.Context, m *message, group string, do func(context.Context) error) {
	begin := time.Now()
	ctx = propagation.TraceContext{}.Extract(ctx, headerCarrier(m.Header))
	opts := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(begin),
		trace.WithAttributes(b.server...), trace.WithAttributes(
			semconv.MessagingSystemKey.String(string(systemNATS)),
			semconv.MessagingOperationName("process"),
			semconv.MessagingOperationTypeProcess,
			semconv.MessagingDestinationName(m.Subject),
			semconv.MessagingConsumerGroupName(group),
			semconv.MessagingMessageID(m.ID),
			semconv.MessagingMessageConversationID(m.Correlation),
			semconv.MessagingMessageBodySize(len(m.Body)),
			attribute.Int("messaging.nats.delivery_count", m.Attempt)),
	}
	if sender := trace.SpanContextFromContext(ctx); sender.IsValid() {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: sender,
			Attributes: []attribute.KeyValue{semconv.MessagingMessageID(m.ID)}}))
	}
	ctx, sp := b.tel.tracer.Start(ctx, "process "+m.Subject, opts...)
	defer sp.End()

	err := do(ctx)

	attrs := append(messagingOperation(messagingconv.OperationTypeProcess), b.server...)
	attrs = append(attrs, semconv.MessagingDestinationName(m.Subject), semconv.MessagingConsumerGroupName(group))
	if err != nil {
		attrs = append(attrs, attribute.String("error.type", errorType(err)))
		fail(sp, err)
		b.tel.log.ErrorContext(ctx, "message not processed", append(about(m),
			slog.Int("attempt", m.Attempt), slog.String("error.type", errorType(err)), slog.Any("error", err))...)
	}
	b.tel.process.Record(ctx, time.Since(begin).Seconds(), "process", systemNATS, attrs...)
	b.tel.consumed.Add(ctx, 1, "process", systemNATS, attrs...)
}

// about are the attributes by which a log record is found with its message.
func about(m *message) []any {
	return []any{
		slog.String("messaging.destination.name", m.Subject),
		slog.String("messaging.message.id", m.ID),
		slog.String("messaging.message.conversation_id", m.Correlation),
		slog.String("tenant", m.Tenant),
	}
}

func messagingOperation(op messagingconv.OperationTypeAttr) []attribute.KeyValue {
	return []attribute.KeyValue{attribute.String("messaging.operation.type", string(op))}
}

// fail marks a span as failed.
func fail(sp trace.Span, err error) {
	sp.SetAttributes(attribute.String("error.type", errorType(err)))
	sp.RecordError(err)
	sp.SetStatus(codes.Error, err.Error())
}

func received(subject string, h nats.Header, body []byte) *message {
	return &message{Subject: subject, ID: header(h, nats.MsgIdHdr), Correlation: header(h, headerCorrelation),
		Tenant: header(h, headerTenant), Header: h, Body: body}
}

// outlive returns a context that ends grace after ctx does, for work that
// should not be cut in the middle.
func outlive(ctx context.Context) (context.Context, func()) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var timer *time.Timer
	var mu sync.Mutex
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer = time.AfterFunc(grace, cancel)
	})
	return own, func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
		cancel()
	}
}

// heartbeat keeps the broker from delivering msg to another worker while this
// one still has it. The function it returns ends that, and waits for the end.
func heartbeat(msg jetstream.Msg) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(ackWait / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if msg.InProgress() != nil {
					return // settled, or the connection is gone
				}
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// headerCarrier lets the propagator write and read NATS headers.
type headerCarrier nats.Header

func (c headerCarrier) Get(k string) string { return header(nats.Header(c), k) }
func (c headerCarrier) Set(k, v string)     { setHeader(nats.Header(c), k, v) }
func (c headerCarrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

func header(h nats.Header, k string) string {
	if v := h[k]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func setHeader(h nats.Header, k, v string) {
	if v != "" {
		h[k] = []string{v}
	}
}

func inbox(subject string) bool { return len(subject) > 7 && subject[:7] == "_INBOX." }

// newID is a random UUID. It does not come from the seed: two runs with one
// seed on one broker must not look like duplicates of each other.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the program instead
	return uuid(b, 4)
}

// derivedID is the UUID of what a message causes on a channel.
func derivedID(cause, subject string) string {
	sum := sha256.Sum256([]byte(cause + "\x00" + subject))
	return uuid([16]byte(sum[:16]), 8)
}

func uuid(b [16]byte, version byte) string {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// sleep waits, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
