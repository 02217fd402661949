package storagetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

// traffic writes three hours of messages with the panes that belong to them.
func traffic(t *testing.T, s Store) []*controlbus.MessageEvent {
	t.Helper()
	b := s.NewBatch()
	var events []*controlbus.MessageEvent
	for i := range 900 {
		e := &controlbus.MessageEvent{
			UID: uid("histogram", i), Time: base().Add(time.Duration(i) * 12017 * time.Millisecond).UnixNano(), Op: controlbus.OpTap,
			Env: []string{"prod", "prod", "test"}[i%3], System: "nats", Broker: "n1", Destination: []string{"orders.new", "orders.paid", "mail"}[i/7%3], Service: "shop",
			MessageID: fmt.Sprint("m-", i), CorrelationID: fmt.Sprint("c-", i/5), Body: fmt.Appendf(nil, "order %d end", i), BodySize: 10,
			Headers: []controlbus.Header{{Key: "tenant", Value: []string{"acme", "other"}[i%2]}},
		}
		if i%10 == 0 {
			e.Outcome = controlbus.OutcomeDeadLettered
		}
		p := storage.Pane{Time: e.Time - e.Time%1e10, Env: e.Env, System: e.System, Broker: e.Broker, Destination: e.Destination, Service: e.Service, Op: e.Op, Count: 1, Bytes: 10}
		if e.Outcome != controlbus.OutcomeOK {
			p.Failed = 1
		}
		b.AppendMessage(e)
		b.AppendPane(&p)
		events = append(events, e)
	}
	if err := s.Write(t.Context(), "histogram", b); err != nil {
		t.Fatal(err)
	}
	return events
}

func parse(t *testing.T, text string) *filter.Filter {
	t.Helper()
	f, err := filter.Parse(text, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func histograms(t *testing.T, s Store) {
	events := traffic(t, s)
	at := base()
	// Ends that lie within a bar, within a step of the roll-up, and on neither.
	whole := storage.TimeRange{From: at.Add(-47*time.Minute - 3*time.Second), To: at.Add(4*time.Hour + 17*time.Minute + 321*time.Millisecond)}
	part := storage.TimeRange{From: at.Add(601 * time.Second), To: at.Add(4217 * time.Second)}
	short := storage.TimeRange{From: at.Add(11 * time.Second), To: at.Add(101 * time.Second)}
	within := storage.TimeRange{From: at.Add(12 * time.Second), To: at.Add(19 * time.Second)}
	queries := []struct {
		name   string
		q      storage.MessageQuery
		summed bool
		keep   func(*controlbus.MessageEvent) bool
	}{
		{"everything", storage.MessageQuery{}, true, func(*controlbus.MessageEvent) bool { return true }},
		{"environment", storage.MessageQuery{Env: "prod"}, true, func(e *controlbus.MessageEvent) bool { return e.Env == "prod" }},
		{"pattern", storage.MessageQuery{Channel: "orders.*", Broker: "n1", System: "nats", Service: "shop"}, true, func(e *controlbus.MessageEvent) bool { return e.Destination != "mail" }},
		{"failed", storage.MessageQuery{FailedOnly: true}, true, func(e *controlbus.MessageEvent) bool { return e.Outcome != controlbus.OutcomeOK }},
		{"filter on what sums are kept by", storage.MessageQuery{Filter: parse(t, "(channel:orders.new OR channel IN (mail)) NOT env ~ 'te.t' op:tap")}, true, func(e *controlbus.MessageEvent) bool { return e.Destination != "orders.paid" && e.Env == "prod" }},
		{"filter with a pattern, failed", storage.MessageQuery{Filter: parse(t, "channel:ord*.* failed:true service LIKE 'sh%'")}, true, func(e *controlbus.MessageEvent) bool {
			return e.Destination != "mail" && e.Outcome != controlbus.OutcomeOK
		}},
		{"filter on more", storage.MessageQuery{Filter: parse(t, "channel:orders.new OR header.tenant:acme")}, false, func(e *controlbus.MessageEvent) bool {
			return e.Destination == "orders.new" || e.Headers[0].Value == "acme"
		}},
		{"header", storage.MessageQuery{HeaderName: "tenant", HeaderValue: "acme"}, false, func(e *controlbus.MessageEvent) bool { return e.Headers[0].Value == "acme" }},
		{"body", storage.MessageQuery{BodyWord: "ORDER 1"}, false, func(e *controlbus.MessageEvent) bool { return string(e.Body[:7]) == "order 1" }},
		{"message id", storage.MessageQuery{MessageID: "m-100"}, false, func(e *controlbus.MessageEvent) bool { return e.MessageID == "m-100" }},
		{"correlation", storage.MessageQuery{CorrelationID: "c-20"}, false, func(e *controlbus.MessageEvent) bool { return e.CorrelationID == "c-20" }},
	}
	for _, tc := range queries {
		if got := tc.q.Summed(); got != tc.summed {
			t.Errorf("%s: summed %v, want %v", tc.name, got, tc.summed)
		}
		for _, r := range []struct {
			storage.TimeRange
			step time.Duration
		}{{whole, time.Minute}, {whole, 5 * time.Minute}, {whole, time.Hour}, {whole, 24 * time.Hour}, {part, 10 * time.Second}, {part, 7 * time.Second}, {short, time.Second}, {within, 10 * time.Second}} {
			for _, order := range []storage.Order{storage.NewestFirst, storage.OldestFirst} {
				q := tc.q
				q.Range, q.Order = r.TimeRange, order
				h, err := s.Histogram(t.Context(), q, r.step)
				if err != nil {
					t.Fatalf("%s in steps of %v: %v", tc.name, r.step, err)
				}
				want := map[int64]storage.Bar{}
				var n, failed uint64
				for _, e := range events {
					if e.Time < r.From.UnixNano() || e.Time >= r.To.UnixNano() || !tc.keep(e) {
						continue
					}
					from := e.Time - e.Time%int64(h.Step)
					b := want[from]
					b.Messages++
					n++
					if e.Outcome != controlbus.OutcomeOK {
						b.Failed++
						failed++
					}
					want[from] = b
				}
				got := map[int64]storage.Bar{}
				for i, b := range h.Bars {
					if i > 0 && b.Time.Sub(h.Bars[i-1].Time) != h.Step {
						t.Fatalf("%s: bar %d begins at %v, the one before at %v, step %v", tc.name, i, b.Time, h.Bars[i-1].Time, h.Step)
					}
					if !b.Counted {
						t.Fatalf("%s: the bar of %v was not counted", tc.name, b.Time)
					}
					if b.Messages > 0 {
						got[b.Time.UnixNano()] = storage.Bar{Messages: b.Messages, Failed: b.Failed}
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s in steps of %v, order %v: -want +got\n%s", tc.name, r.step, order, diff)
				}
				if h.Messages != n || h.Failed != failed || h.Step < r.step || h.Scan.Stopped != storage.StopEnd || h.Counted != (storage.TimeRange{From: r.From, To: r.To}) {
					t.Errorf("%s in steps of %v: %d messages, %d failed, step %v, counted %v, stopped %q; want %d, %d and all of it", tc.name, r.step, h.Messages, h.Failed, h.Step, h.Counted, h.Scan.Stopped, n, failed)
				}
				if first, last := h.Bars[0].Time, h.Bars[len(h.Bars)-1].Time; first.After(r.From) || !first.Add(h.Step).After(r.From) || !last.Before(r.To) || last.Add(h.Step).Before(r.To) {
					t.Errorf("%s: bars from %v to %v for %v", tc.name, first, last, r.TimeRange)
				}
			}
		}
	}
	for _, tc := range []struct {
		q    storage.MessageQuery
		step time.Duration
	}{
		{storage.MessageQuery{Range: whole}, 0}, {storage.MessageQuery{Range: whole}, -time.Second}, {storage.MessageQuery{Range: whole}, time.Second},
		{storage.MessageQuery{Range: storage.TimeRange{From: at, To: at}}, time.Second}, {storage.MessageQuery{Range: whole, TraceID: "x"}, time.Hour},
	} {
		if _, err := s.Histogram(t.Context(), tc.q, tc.step); !isInvalid(err) {
			t.Errorf("%+v in steps of %v: %v, want ErrInvalid", tc.q, tc.step, err)
		}
	}
}

func histogramDeadline(t *testing.T, s Store) {
	traffic(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
	defer cancel()
	for _, q := range []storage.MessageQuery{{}, {MessageID: "m-1"}, {CorrelationID: "c-1"}, {BodyWord: "order"}, {HeaderName: "tenant", Order: storage.OldestFirst}} {
		q.Range = around(base())
		h, err := s.Histogram(ctx, q, time.Hour)
		if err != nil {
			t.Fatalf("%+v: a deadline is an answer, not an error: %v", q, err)
		}
		if h.Scan.Stopped != storage.StopDeadline || h.Messages != 0 || len(h.Bars) != 144 || h.Counted.Duration() != 0 {
			t.Errorf("%+v: stopped %q, %d messages, %d bars, counted %v", q, h.Scan.Stopped, h.Messages, len(h.Bars), h.Counted)
		}
		for _, b := range h.Bars {
			if b.Counted {
				t.Errorf("%+v: the bar of %v claims to be counted", q, b.Time)
			}
		}
	}
	gone, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Histogram(gone, storage.MessageQuery{Range: around(base())}, time.Hour); err == nil {
		t.Error("a count whose caller has gone answers")
	}
}
