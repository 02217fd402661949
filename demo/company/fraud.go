package company

import (
	"context"
	"log/slog"
	"time"
)

// runFraudCheck answers requests on fraud.check: a service behind request and
// reply, which keeps nothing.
func runFraudCheck(ctx context.Context, cfg Config, b *bus) error {
	luck := newChance(cfg.Seed, b.service)
	return b.subscribe(ctx, "fraud.check", "fraud-check", cfg.workers(50*time.Millisecond),
		func(ctx context.Context, m *message, replyTo string) error {
			var q fraudQuery
			if err := decode(m, &q); err != nil {
				return err
			}
			took := luck.latency(12*time.Millisecond, .5)
			if luck.hit(cfg.Faults.FraudLate) {
				took = 2 * fraudTimeout
				b.tel.log.WarnContext(ctx, "model is being reloaded", append(about(m), slog.Duration("wait", took))...)
			}
			if err := sleep(ctx, took); err != nil {
				return err
			}
			score := luck.intN(100)
			verdict := "accept"
			if cents, err := q.Total.cents(); err == nil && cents > 300_00 && score > 95 {
				verdict = "review"
			}
			if replyTo == "" {
				return nil // somebody listens in, nobody asked
			}
			out, err := after(m, replyTo, fraudVerdict{OrderID: q.OrderID, Verdict: verdict, Score: score, Model: "gbm-2026-08"})
			if err != nil {
				return err
			}
			return b.notify(ctx, out)
		})
}
