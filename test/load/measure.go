package load

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Reader is the store as its readers see it.
type Reader interface {
	Messages(context.Context, storage.MessageQuery) (storage.MessagePage, error)
	Message(context.Context, controlbus.ID, time.Time) (storage.MessageDetail, error)
	Conversation(context.Context, storage.ConversationQuery) (storage.Conversation, error)
	Channels(context.Context, storage.ChannelQuery) ([]storage.ChannelState, error)
	ChannelSeries(context.Context, storage.SeriesQuery) (storage.ChannelSeries, error)
	Totals(context.Context, string, storage.TimeRange) (storage.Totals, error)
}

// Figure is what one query took.
type Figure struct {
	Name     string
	P50, P95 time.Duration
	Target   time.Duration // for P95; 0 where none is set
	Rows     uint64        // median of what the server read, where it tells
	Found    int           // of the last run
}

// Missed says that the figure is over its target.
func (f Figure) Missed() bool { return f.Target > 0 && f.P95 > f.Target }

// Measure runs every query of the console's pages runs times against a store
// that cfg filled, each time for another id or channel. A query that does not
// find what was stored is an error: it would look fast.
func Measure(ctx context.Context, r Reader, cfg Config, runs int, out io.Writer) ([]Figure, error) {
	rng := rand.New(rand.NewPCG(cfg.Seed, 99))
	orders := cfg.Messages / len(flow)
	whole := storage.TimeRange{From: cfg.End.Add(-cfg.Span).Add(-time.Second), To: cfg.End.Add(time.Minute)}
	channels := Channels()
	env := "production"
	queries := []struct {
		name   string
		target time.Duration
		run    func() (found int, rows uint64, err error)
		want   int // at least
	}{
		{"message by message id", 50 * time.Millisecond, func() (int, uint64, error) {
			p, err := r.Messages(ctx, storage.MessageQuery{Range: whole, MessageID: MessageID(cfg.Seed, rng.IntN(orders), 2)})
			return len(p.Messages), p.Scan.Rows, err
		}, 2},
		{"messages by correlation id", 50 * time.Millisecond, func() (int, uint64, error) {
			p, err := r.Messages(ctx, storage.MessageQuery{Range: whole, CorrelationID: CorrelationID(cfg.Seed, rng.IntN(orders))})
			return len(p.Messages), p.Scan.Rows, err
		}, len(flow)},
		{"messages by trace id", 50 * time.Millisecond, func() (int, uint64, error) {
			p, err := r.Messages(ctx, storage.MessageQuery{Range: whole, TraceID: fmt.Sprintf("%x", TraceID(cfg.Seed, rng.IntN(orders)))})
			return len(p.Messages), p.Scan.Rows, err
		}, len(flow)},
		{"newest 100 of a busy channel", 50 * time.Millisecond, func() (int, uint64, error) {
			p, err := r.Messages(ctx, storage.MessageQuery{Range: whole, Env: env, Channel: channels[rng.IntN(6)]})
			return len(p.Messages), p.Scan.Rows, err
		}, 100},
		{"newest 100 of any channel", 50 * time.Millisecond, func() (int, uint64, error) {
			p, err := r.Messages(ctx, storage.MessageQuery{Range: whole, Env: env, Channel: fmt.Sprintf("orders.shop-%02d", rng.IntN(40))})
			return len(p.Messages), p.Scan.Rows, err
		}, 1},
		{"24 h rate and p99 of a channel", 300 * time.Millisecond, func() (int, uint64, error) {
			c, err := r.ChannelSeries(ctx, storage.SeriesQuery{
				Channel: controlbus.ChannelName{Env: env, System: "rabbitmq", Broker: "rabbit-eu1", Name: channels[rng.IntN(20)]},
				Range:   storage.Last(24*time.Hour, cfg.End), Step: 5 * time.Minute,
			})
			return len(c.Rate), 0, err
		}, 288},
		{"newest 100 of everything", 0, func() (int, uint64, error) {
			p, err := r.Messages(ctx, storage.MessageQuery{Range: whole})
			return len(p.Messages), p.Scan.Rows, err
		}, 100},
		{"newest 100 failed", 0, func() (int, uint64, error) {
			p, err := r.Messages(ctx, storage.MessageQuery{Range: whole, FailedOnly: true})
			return len(p.Messages), p.Scan.Rows, err
		}, 100},
		{"newest 100 by header", 0, func() (int, uint64, error) {
			p, err := r.Messages(ctx, storage.MessageQuery{Range: whole, HeaderName: "x-tenant", HeaderValue: "tenant-003"})
			return len(p.Messages), p.Scan.Rows, err
		}, 100},
		{"newest 100 by body word", 0, func() (int, uint64, error) {
			p, err := r.Messages(ctx, storage.MessageQuery{Range: whole, BodyWord: fmt.Sprintf(`"sku":"a-%04d"`, rng.IntN(10_000))})
			return len(p.Messages), p.Scan.Rows, err
		}, 1},
		{"one message with body", 0, func() (int, uint64, error) {
			n := rng.IntN(orders)
			id := MessageID(cfg.Seed, n, 0)
			near := cfg.End.Add(-cfg.Span + time.Duration(float64(cfg.Span)*float64(n)/float64(orders)))
			d, err := r.Message(ctx, controlbus.HashID("load", id, controlbus.OpTap.String()), near)
			if err == nil && !d.BodyStored && cfg.Bodies {
				return 0, 0, fmt.Errorf("message %s has no body", id)
			}
			return 1, 0, err
		}, 1},
		{"conversation", 0, func() (int, uint64, error) {
			c, err := r.Conversation(ctx, storage.ConversationQuery{Range: whole, Correlation: controlbus.CorrelationKey(CorrelationID(cfg.Seed, rng.IntN(orders)))})
			return len(c.Events), c.Scan.Rows, err
		}, len(flow)},
		{"channels of 24 h", 300 * time.Millisecond, func() (int, uint64, error) {
			c, err := r.Channels(ctx, storage.ChannelQuery{Range: storage.Last(24*time.Hour, cfg.End), Env: env})
			return len(c), 0, err
		}, 40},
		{"totals of 24 h", 0, func() (int, uint64, error) {
			t, err := r.Totals(ctx, env, storage.Last(24*time.Hour, cfg.End))
			return int(t.Messages), 0, err
		}, 1},
	}
	var figures []Figure
	for _, q := range queries {
		f := Figure{Name: q.name, Target: q.target}
		took, rows := make([]time.Duration, 0, runs), make([]uint64, 0, runs)
		for range runs {
			begin := time.Now()
			found, n, err := q.run()
			took, rows = append(took, time.Since(begin)), append(rows, n)
			if err != nil {
				return figures, fmt.Errorf("load: %s: %w", q.name, err)
			}
			if found < q.want {
				return figures, fmt.Errorf("load: %s: found %d, want at least %d", q.name, found, q.want)
			}
			f.Found = found
		}
		slices.Sort(took)
		slices.Sort(rows)
		f.P50, f.P95, f.Rows = took[len(took)/2], took[len(took)*95/100], rows[len(rows)/2]
		verdict := ""
		switch {
		case f.Missed():
			verdict = fmt.Sprintf("MISSED (target %v)", f.Target)
		case f.Target > 0:
			verdict = fmt.Sprintf("ok (target %v)", f.Target)
		}
		fmt.Fprintf(out, "%-32s p50 %8.1f ms  p95 %8.1f ms  rows read %9d  found %8d  %s\n",
			f.Name, ms(f.P50), ms(f.P95), f.Rows, f.Found, verdict)
		figures = append(figures, f)
	}
	return figures, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
