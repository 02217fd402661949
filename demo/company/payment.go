package company

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
)

// captureTimeout is how long payment-service waits for the provider.
const captureTimeout = 1500 * time.Millisecond

// breakerName is what dashboards know the breaker by.
const breakerName = "psp-gateway"

// payments is payment-service.
type payments struct {
	*bus
	url    string
	client *http.Client
	guard  *breaker
	calls  metric.Int64Counter
	turns  metric.Int64Counter
}

// runPayments captures payments at the provider. While the breaker is open it
// takes no messages: they wait in PAYMENTS, where they can be counted.
func runPayments(ctx context.Context, cfg Config, b *bus) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("payment provider: %w", err)
	}
	p := &payments{bus: b, url: "http://" + l.Addr().String() + "/v2/captures",
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 128, IdleConnTimeout: 30 * time.Second}}}
	defer p.client.CloseIdleConnections()
	guard := breakerConfig{Window: 20, MinimumCalls: 6, FailureRatio: .5, OpenFor: 3 * time.Second, Trials: 3}
	p.guard = newBreaker(guard, p.turned)
	unregister, err := p.instrument(guard)
	if err != nil {
		_ = l.Close() // nothing has been served yet
		return err
	}
	defer unregister()

	// The provider outlives the payments in hand.
	providerCtx, endProvider := context.WithCancel(context.WithoutCancel(ctx))
	psp := &provider{luck: newChance(cfg.Seed, "provider"), faults: cfg.Faults, begin: time.Now()}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return psp.serve(providerCtx, l) })
	g.Go(func() error {
		defer endProvider()
		return b.consume(ctx, consumer{
			stream: streamPayments, durable: "payment-service", subjects: []string{"payments.capture"},
			dead: "dead.payments", workers: cfg.workers(150 * time.Millisecond),
			ready: p.guard.wait, handle: p.handle,
		})
	})
	return g.Wait()
}

func (p *payments) handle(ctx context.Context, m *message) error {
	var c capture
	if err := decode(m, &c); err != nil {
		return err
	}
	var answer providerAnswer
	for {
		err := p.guard.do(ctx, func(ctx context.Context) (err error) {
			answer, err = p.capture(ctx, c)
			return err
		}, func(error) bool { return true })
		if errors.Is(err, errOpen) {
			// The breaker opened while this message was on its way here. Its
			// attempt has not begun, so it waits in hand.
			p.called(ctx, "rejected")
			if err := p.guard.wait(ctx); err != nil {
				return &failure{Type: "ServiceStopping", err: err}
			}
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	subject, done := "orders.paid", paid{OrderID: c.OrderID, PaymentID: c.PaymentID, Amount: c.Amount,
		Reference: answer.Reference, Reason: answer.Reason, Customer: c.Customer, ShipTo: c.ShipTo, Items: c.Items}
	if answer.Status == "declined" {
		subject = "orders.declined"
	}
	out, err := after(m, subject, done)
	if err != nil {
		return err
	}
	p.tel.log.InfoContext(ctx, "payment "+answer.Status, append(about(m), slog.String("order_id", c.OrderID),
		slog.Int64("payment_id", c.PaymentID), slog.String("amount", c.Amount.Value), slog.String("reason", answer.Reason))...)
	return p.publish(ctx, out)
}

// capture calls the provider once.
func (p *payments) capture(ctx context.Context, c capture) (answer providerAnswer, err error) {
	ctx, sp := p.tel.tracer.Start(ctx, "POST", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		semconv.HTTPRequestMethodPost, semconv.URLFull(p.url), semconv.ServerAddress(breakerName),
		semconv.ServicePeerName(breakerName)))
	defer sp.End()
	defer func() {
		var f *failure
		switch {
		case err == nil:
			p.called(ctx, "success")
			return
		case errors.As(err, &f) && f.Type == "GatewayTimeout":
			p.called(ctx, "timeout")
		default:
			p.called(ctx, "failure")
		}
		fail(sp, err)
	}()

	body, err := json.Marshal(providerCapture{PaymentID: c.PaymentID, Token: c.Card.Token, Amount: c.Amount})
	if err != nil {
		return answer, err
	}
	callCtx, cancel := context.WithTimeout(ctx, captureTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(callCtx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := p.client.Do(req) //nolint:bodyclose // drain closes it
	if err != nil {
		if callCtx.Err() != nil && ctx.Err() == nil {
			return answer, &failure{Type: "GatewayTimeout", err: fmt.Errorf("%s did not answer in %v", breakerName, captureTimeout)}
		}
		return answer, &failure{Type: "GatewayUnreachable", err: err}
	}
	defer drain(res.Body)
	sp.SetAttributes(semconv.HTTPResponseStatusCode(res.StatusCode))
	if res.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // only to quote it
		kind := "GatewayError"
		if res.StatusCode == http.StatusServiceUnavailable {
			kind = "GatewayUnavailable"
		}
		return answer, &failure{Type: kind, err: fmt.Errorf("%s answered %d: %s", breakerName, res.StatusCode, strings.TrimSpace(string(said)))}
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&answer); err != nil {
		return answer, &failure{Type: "GatewayReply", err: err}
	}
	return answer, nil
}

// instrument describes the breaker in metrics.
func (p *payments) instrument(cfg breakerConfig) (unregister func(), err error) {
	m := p.tel.meter
	var errs [5]error
	p.calls, errs[0] = m.Int64Counter("breaker.calls", metric.WithUnit("{call}"),
		metric.WithDescription("Calls through the circuit breaker, by outcome."))
	p.turns, errs[1] = m.Int64Counter("breaker.transitions", metric.WithUnit("{transition}"),
		metric.WithDescription("Changes of the circuit breaker's state."))
	state, err := m.Int64ObservableGauge("breaker.state",
		metric.WithDescription("1 for the state the circuit breaker is in, 0 for the others."))
	errs[2] = err
	ratio, err := m.Float64ObservableGauge("breaker.failure_ratio", metric.WithUnit("1"),
		metric.WithDescription("Share of failures among recent calls."))
	errs[3] = err
	threshold, err := m.Float64ObservableGauge("breaker.threshold",
		metric.WithDescription("When the circuit breaker opens, and for how long."))
	errs[4] = err
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("breaker instruments: %w", err)
	}
	reg, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now, failures, known := p.guard.now()
		for _, s := range []breakerState{breakerClosed, breakerOpen, breakerHalfOpen} {
			var is int64
			if s == now {
				is = 1
			}
			o.ObserveInt64(state, is, breakerAttributes(attribute.String("breaker.state", string(s))))
		}
		if known {
			o.ObserveFloat64(ratio, failures, breakerAttributes())
		}
		for kind, v := range map[string]float64{"failure_ratio": cfg.FailureRatio, "minimum_calls": float64(cfg.MinimumCalls),
			"open_seconds": cfg.OpenFor.Seconds(), "half_open_permits": float64(cfg.Trials)} {
			o.ObserveFloat64(threshold, v, breakerAttributes(attribute.String("breaker.threshold.kind", kind)))
		}
		return nil
	}, state, ratio, threshold)
	if err != nil {
		return nil, fmt.Errorf("breaker instruments: %w", err)
	}
	return func() { _ = reg.Unregister() }, nil // never fails in the SDK
}

func breakerAttributes(more ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributes(append(more, attribute.String("breaker.name", breakerName),
		attribute.String("breaker.kind", "error_rate"), attribute.String("breaker.library", "company"))...)
}

func (p *payments) called(ctx context.Context, outcome string) {
	p.calls.Add(ctx, 1, breakerAttributes(attribute.String("breaker.outcome", outcome)))
}

// turned tells the world that the breaker changed its state.
func (p *payments) turned(c breakerChange) {
	ctx := context.Background() // no single message is to blame
	p.turns.Add(ctx, 1, breakerAttributes(attribute.String("breaker.from", string(c.From)),
		attribute.String("breaker.to", string(c.To)), attribute.String("breaker.reason", c.Reason)))
	var r log.Record
	r.SetTimestamp(time.Now())
	r.SetEventName("breaker.state_changed")
	r.SetSeverity(log.SeverityWarn)
	r.SetSeverityText("WARN")
	if c.To == breakerClosed {
		r.SetSeverity(log.SeverityInfo)
		r.SetSeverityText("INFO")
	}
	r.SetBody(attribute.StringValue(fmt.Sprintf("breaker %s went from %s to %s", breakerName, c.From, c.To)))
	r.AddAttributes(attribute.String("breaker.name", breakerName), attribute.String("breaker.from", string(c.From)),
		attribute.String("breaker.to", string(c.To)), attribute.String("breaker.reason", c.Reason),
		attribute.Float64("breaker.failure_ratio", c.Ratio), attribute.Int("breaker.calls", c.Calls))
	p.tel.events.Emit(ctx, r)
}
