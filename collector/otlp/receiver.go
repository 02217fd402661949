package otlp

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Receiver answers both transports. Its methods may be called concurrently.
type Receiver struct {
	authorize Authorize
	cfg       Config
	consumer  Consumer
	log       *slog.Logger
	set       *metrics.Set
	pending   budget
	json      chan struct{} // held while JSON is unfolded
}

// Authorize says who sends, by the bearer token of a call that no HTTP guard has
// seen, and puts that into the context. Errors are controlbus.ErrDenied and
// controlbus.ErrUnavailable.
type Authorize func(ctx context.Context, token string) (context.Context, error)

// Guard makes gRPC calls show who sends. Call it before GRPCServer.
func (r *Receiver) Guard(a Authorize) { r.authorize = a }

// speaksFor says whether whoever sends may number batches as that sender: the
// numbers decide what is taken for a repetition.
func speaksFor(ctx context.Context, sender string) error {
	id, ok := access.From(ctx)
	if !ok || sender == "" {
		return nil
	}
	agent, _, _ := strings.Cut(sender, "/")
	if id.Kind != access.KindAgent || id.Name != "" && id.Name != agent {
		return fmt.Errorf("otlp: %s: %w: this credential is not that of agent %.100q", controlbus.HeaderSender, controlbus.ErrDenied, agent)
	}
	return nil
}

// New starts nothing. Counters go to set.
func New(cfg Config, consumer Consumer, set *metrics.Set, log *slog.Logger) *Receiver {
	r := &Receiver{cfg: cfg, consumer: consumer, log: log, set: set, pending: budget{limit: cfg.MaxPending}, json: make(chan struct{}, 1)}
	set.NewGauge("signalbox_otlp_pending_bytes", func() float64 { return float64(r.pending.used.Load()) })
	return r
}

// consume makes one request durable. A panic on the way is answered as
// "unavailable": the data may be perfectly storable, so the sender must keep it.
func (r *Receiver) consume(ctx context.Context, req collector.Request) (res collector.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.ErrorContext(ctx, "panic while taking a request", "signal", req.Signal.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("otlp: internal error: %w", controlbus.ErrUnavailable)
		}
	}()
	if err := speaksFor(ctx, req.Sender); err != nil {
		return res, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	return r.consumer.Consume(ctx, req)
}

// numbering reads the headers with which an agent numbers its batches.
func numbering(req *collector.Request, get func(string) string) error {
	req.ReceivedAt = time.Now()
	if s := get(controlbus.HeaderSentAt); s != "" {
		at, err := strconv.ParseInt(s, 10, 64)
		if err != nil || at < 0 {
			return fmt.Errorf("otlp: %s: %w: want Unix nanoseconds", controlbus.HeaderSentAt, controlbus.ErrInvalid)
		}
		req.SentAt = at
	}
	req.Sender = get(controlbus.HeaderSender)
	batch := get(controlbus.HeaderBatch)
	if req.Sender == "" {
		if batch != "" {
			return fmt.Errorf("otlp: %s without %s: %w", controlbus.HeaderBatch, controlbus.HeaderSender, controlbus.ErrInvalid)
		}
		return nil
	}
	if len(req.Sender) > maxSender {
		return fmt.Errorf("otlp: %s: %w: want at most %d bytes", controlbus.HeaderSender, controlbus.ErrInvalid, maxSender)
	}
	n, err := strconv.ParseUint(batch, 10, 64)
	if err != nil || n == 0 {
		return fmt.Errorf("otlp: %s: %w: want a number from 1", controlbus.HeaderBatch, controlbus.ErrInvalid)
	}
	req.Batch = n
	return nil
}

const maxSender = 300

// count adds one answered request to the counters.
func (r *Receiver) count(transport string, signal collector.Signal, code string, bytes int) {
	labels := `{transport="` + transport + `",signal="` + signal.String() + `"`
	r.set.GetOrCreateCounter(`signalbox_otlp_requests_total` + labels + `,code="` + code + `"}`).Inc()
	r.set.GetOrCreateCounter(`signalbox_otlp_request_bytes_total` + labels + `}`).Add(bytes)
}
