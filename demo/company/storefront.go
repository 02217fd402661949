package company

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// visit is one customer at the check-out.
type visit struct {
	order     placedOrder
	tenant    string
	abandoned bool
	step      string // where an abandoned cart was left
}

// visitors draws customers. It is used by one goroutine, so that a seed always
// means the same customers in the same order.
type visitors struct {
	rng    *rand.Rand
	faults Faults
	number int64
}

func (v *visitors) next(now time.Time) visit {
	v.number++
	c := visit{order: placedOrder{order: draw(v.rng, v.number, now)}, tenant: pick(v.rng, tenants)}
	if v.rng.Float64() < v.faults.Poison {
		c.order.GiftWrap = &giftWrap{Paper: pick(v.rng, papers), Note: "Happy birthday, " + pick(v.rng, givenNames) + "!"}
	}
	c.abandoned = v.rng.Float64() < v.faults.Abandoned
	c.step = pick(v.rng, []string{"address", "payment", "review"})
	return c
}

// firstNumber keeps order numbers of one run above those of the runs before it.
func firstNumber(now time.Time) int64 { return (now.Unix() - 1_700_000_000) * 16 }

// runStorefront is the shop's web tier: customers arrive at random times, a
// little more or less of them as the minutes go by, and check out.
func runStorefront(ctx context.Context, cfg Config, b *bus) error {
	v := &visitors{rng: newChance(cfg.Seed, b.service).rng, faults: cfg.Faults, number: firstNumber(time.Now())}
	begin := time.Now()
	desks := make(chan struct{}, cfg.workers(200*time.Millisecond))
	var checkouts sync.WaitGroup
	defer checkouts.Wait()
	arrival := time.NewTimer(0)
	defer arrival.Stop()
	next := begin
	for {
		select {
		case <-arrival.C:
		case <-ctx.Done():
			return nil
		}
		wave := 1 + .25*math.Sin(2*math.Pi*time.Since(begin).Seconds()/120)
		next = next.Add(time.Duration(v.rng.ExpFloat64() / (cfg.Rate * wave) * float64(time.Second)))
		if late := time.Since(next); late > time.Second {
			next = time.Now() // the machine slept; customers do not queue up meanwhile
		}
		arrival.Reset(time.Until(next))

		c := v.next(time.Now())
		select {
		case desks <- struct{}{}:
		default:
			b.tel.log.WarnContext(ctx, "check-out is full, customer turned away", slog.String("tenant", c.tenant))
			continue
		}
		checkouts.Go(func() {
			defer func() { <-desks }()
			ctx, end := outlive(ctx)
			defer end()
			b.checkout(ctx, c)
		})
	}
}

// checkout answers one POST /checkout.
func (b *bus) checkout(ctx context.Context, c visit) {
	ctx, sp := b.tel.tracer.Start(ctx, "POST /checkout", trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(semconv.HTTPRequestMethodPost, semconv.HTTPRoute("/checkout"),
			semconv.URLPath("/checkout"), semconv.URLScheme("https")))
	defer sp.End()
	correlation := newID()

	status := 202
	out, err := first("orders.placed", correlation, c.tenant, c.order)
	if c.abandoned {
		status = 200
		out, err = first("orders.abandoned", correlation, c.tenant, abandonedCart{CartID: c.order.CartID,
			Customer: c.order.Customer, Items: c.order.Items, Total: c.order.Total, Step: c.step})
	}
	if err == nil {
		err = b.publish(ctx, out)
	}
	attrs := []any{
		slog.String("order_id", c.order.OrderID), slog.String("total", c.order.Total.Value),
		slog.String("tenant", c.tenant),
		slog.String("messaging.message.conversation_id", correlation),
		slog.String("messaging.destination.name", out.Subject),
	}
	switch {
	case err != nil:
		status = 503
		fail(sp, err)
		b.tel.log.ErrorContext(ctx, "check-out refused", append(attrs, slog.Any("error", err))...)
	case c.abandoned:
		b.tel.log.InfoContext(ctx, fmt.Sprintf("cart abandoned at step %s", c.step), attrs...)
	default:
		b.tel.log.InfoContext(ctx, "check-out accepted", attrs...)
	}
	sp.SetAttributes(semconv.HTTPResponseStatusCode(status))
}
