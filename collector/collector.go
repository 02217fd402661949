package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
	"github.com/signalbox-dev/signalbox/storage"
)

// Live is who watches messages pass. Publish does not keep the events and does
// not block.
type Live interface {
	Active() bool
	Publish(events []*controlbus.MessageEvent)
}

// Collector takes requests in: checked, numbered, made durable, shown to live
// taps, acknowledged; in this order. Ingest takes them on to the store. Its
// methods may be called concurrently.
type Collector struct {
	cfg      Config
	queue    *Queue
	live     Live
	log      *slog.Logger
	decoders sync.Pool
	buffers  sync.Pool
	unfold   sync.Mutex // held while a request of spans or metrics is unfolded: it may take many times its size

	accepted   *metrics.Counter
	duplicates *metrics.Counter
	invalid    *metrics.Counter
	refused    map[string]*metrics.Counter // by reason; fixed

	mu      sync.Mutex
	senders map[string]*sender
}

// sender is the Idempotent Receiver's memory of one numbered sender.
type sender struct {
	sync.Mutex // held while a batch is made durable: a re-sent one waits for it
	mark       Mark
	clock      controlbus.ClockWindow
	offset     atomic.Int64 // nanoseconds; read without the lock
}

// Reasons for which requests are refused.
const (
	reasonFull      = "queue_full"
	reasonDisk      = "disk"
	reasonMalformed = "malformed"
	reasonSenders   = "too_many_senders"
	reasonOther     = "other"
)

// New opens the durable queue. Close it when nothing calls any more.
func New(cfg Config, live Live, set *metrics.Set, log *slog.Logger) (*Collector, error) {
	queue, err := openQueue(cfg, log)
	if err != nil {
		return nil, err
	}
	marks, err := queue.marks()
	if err != nil {
		return nil, errors.Join(err, queue.log.Close())
	}
	c := &Collector{
		cfg: cfg, queue: queue, live: live, log: log,
		accepted:   set.NewCounter("signalbox_collector_requests_accepted_total"),
		duplicates: set.NewCounter("signalbox_collector_requests_duplicate_total"),
		invalid:    set.NewCounter("signalbox_collector_records_invalid_total"),
		refused:    make(map[string]*metrics.Counter),
		senders:    make(map[string]*sender, len(marks)),
	}
	for _, reason := range []string{reasonFull, reasonDisk, reasonMalformed, reasonSenders, reasonOther} {
		c.refused[reason] = set.NewCounter(`signalbox_collector_requests_refused_total{reason="` + reason + `"}`)
	}
	set.NewGauge("signalbox_collector_queue_bytes", func() float64 { return float64(queue.Size()) })
	for name, m := range marks {
		c.senders[name] = &sender{mark: m}
	}
	c.decoders.New = func() any { return telemetry.NewDecoder(cfg.Limits) }
	c.buffers.New = func() any { return new([]byte) }
	return c, nil
}

// Queue is what ingest reads.
func (c *Collector) Queue() *Queue { return c.queue }

// Close refuses further requests and releases the queue. What was acknowledged
// stays in it.
func (c *Collector) Close() error { return c.queue.log.Close() }

// Consume makes a request durable. When it returns nil the request is
// acknowledged for good. Errors: controlbus.ErrInvalid for a request that is no
// OTLP; *RetryError while the queue or the disk is full or the console stops.
func (c *Collector) Consume(ctx context.Context, r Request) (Result, error) {
	passing, err := c.inspect(r)
	if err != nil {
		c.refused[reasonMalformed].Inc()
		return Result{}, fmt.Errorf("collector: %w", err)
	}
	res := Result{Rejected: passing.invalid, Reason: passing.reason}
	if r.Sender != "" {
		s, err := c.sender(r.Sender)
		if err != nil {
			c.refused[reasonSenders].Inc()
			return Result{}, err
		}
		s.Lock()
		defer s.Unlock()
		if r.SentAt > 0 {
			s.offset.Store(int64(s.clock.Add(r.ReceivedAt, time.Unix(0, r.SentAt).Sub(r.ReceivedAt))))
		}
		if r.Batch <= s.mark.Batch {
			c.duplicates.Inc()
			res.Duplicate = true
			return res, nil
		}
		if err := c.append(ctx, r); err != nil {
			return Result{}, err
		}
		s.mark = Mark{Batch: r.Batch, At: r.ReceivedAt}
	} else if err := c.append(ctx, r); err != nil {
		return Result{}, err
	}
	c.accepted.Inc()
	c.invalid.Add(int(passing.invalid))
	if len(passing.events) > 0 {
		c.live.Publish(passing.events)
	}
	return res, nil
}

// append makes the request durable.
func (c *Collector) append(ctx context.Context, r Request) error {
	buf := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(buf)
	*buf = appendEntry((*buf)[:0], r)
	_, err := c.queue.log.Append(ctx, *buf)
	if err == nil {
		return nil
	}
	reason, after := reasonOther, 5*time.Second
	switch {
	case errors.Is(err, controlbus.ErrOverloaded):
		reason, after = reasonFull, 10*time.Second
		err = fmt.Errorf("the store is behind and the queue on disk is full (%d bytes): %w", c.cfg.MaxBytes, err)
	case errors.Is(err, controlbus.ErrUnavailable):
		reason = reasonDisk
	}
	c.refused[reason].Inc()
	return &RetryError{After: after, Err: fmt.Errorf("collector: %w", err)}
}

func (c *Collector) sender(name string) (*sender, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.senders[name]; s != nil {
		return s, nil
	}
	if len(c.senders) >= c.cfg.MaxSenders && !c.forget() {
		return nil, &RetryError{After: time.Minute, Err: fmt.Errorf("collector: %d senders are known, the most this console remembers: %w", len(c.senders), controlbus.ErrOverloaded)}
	}
	s := &sender{}
	c.senders[strings.Clone(name)] = s
	return s, nil
}

// forget removes senders that were silent for long and says whether there were any.
func (c *Collector) forget() bool {
	before := len(c.senders)
	horizon := time.Now().Add(-c.cfg.ForgetAfter)
	maps.DeleteFunc(c.senders, func(_ string, s *sender) bool {
		if !s.TryLock() {
			return false // it is sending right now
		}
		defer s.Unlock()
		return s.mark.At.Before(horizon)
	})
	return len(c.senders) < before
}

// ClockOffset is an agent's clock minus ours as its requests tell, 0 for a
// stranger. The agent's name is what its sender name has before the first slash.
func (c *Collector) ClockOffset(agentID string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, s := range c.senders {
		if agent, _, _ := strings.Cut(name, "/"); agent == agentID {
			if offset := s.offset.Load(); offset != 0 {
				return time.Duration(offset)
			}
		}
	}
	return 0
}

// inspect decodes a request once: it must be well formed as a whole, records
// that never can be stored are counted, and live taps get its messages.
func (c *Collector) inspect(r Request) (*passing, error) {
	d := c.decoders.Get().(*telemetry.Decoder)
	defer c.decoders.Put(d)
	if r.Signal != Logs {
		c.unfold.Lock()
		defer c.unfold.Unlock()
	}
	p := &passing{}
	d.Keep = r.Signal == Logs && c.live.Active()
	p.keep = d.Keep
	return p, d.Decode(telemetry.Signal(r.Signal), r.Payload, r.ReceivedAt.UnixNano(), p)
}

// passing is what inspect sees of a request.
type passing struct {
	keep    bool
	events  []*controlbus.MessageEvent
	invalid int64
	reason  string
}

func (p *passing) Message(ev *controlbus.MessageEvent) {
	if p.keep {
		p.events = append(p.events, ev)
	}
}

func (p *passing) Invalid(reason string, _ []byte) {
	if p.invalid++; p.invalid == 1 {
		p.reason = reason
	}
}

func (*passing) Log(*storage.Log)             {}
func (*passing) Span(*storage.Span)           {}
func (*passing) Sample(*storage.Sample, bool) {}
func (*passing) Resource(*storage.Resource)   {}

// Stats of the collector since it started, for pages.
type Stats struct {
	Accepted, Duplicates, Invalid uint64
	Refused                       map[string]uint64 // by reason
	QueueBytes, QueueMax          int64
	Senders                       int
}

// Stats returns the present figures.
func (c *Collector) Stats() Stats {
	s := Stats{
		Accepted: c.accepted.Get(), Duplicates: c.duplicates.Get(), Invalid: c.invalid.Get(),
		Refused: make(map[string]uint64), QueueBytes: c.queue.Size(), QueueMax: c.cfg.MaxBytes,
	}
	for reason, n := range c.refused {
		if v := n.Get(); v > 0 {
			s.Refused[reason] = v
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Senders = len(c.senders)
	return s
}
