package live_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/collector/live"
	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func event(channel, body string) *controlbus.MessageEvent {
	return &controlbus.MessageEvent{Env: "test", Broker: "b", Destination: channel, Body: []byte(body), BodySize: int64(len(body))}
}

func open(t testing.TB, h *live.Hub, q controlbus.LiveQuery) *live.Subscription {
	t.Helper()
	s, err := h.Subscribe(q, live.Options{User: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func next(t testing.TB, s *live.Subscription) controlbus.LiveFrame {
	t.Helper()
	f, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAQuerySelects(t *testing.T) {
	t.Parallel()
	failed := event("orders.dead", `{"error":"Timeout"}`)
	failed.Outcome = controlbus.OutcomeDeadLettered
	failed.Headers = []controlbus.Header{{Key: "x-tenant", Value: "Acme"}}
	all := []*controlbus.MessageEvent{event("orders.new", "TEA-0412"), event("payments", "tea"), failed}
	for _, c := range []struct {
		name string
		q    controlbus.LiveQuery
		want int
	}{
		{"everything", controlbus.LiveQuery{}, 3},
		{"pattern", controlbus.LiveQuery{Channel: "orders.*"}, 2},
		{"word in any case", controlbus.LiveQuery{Word: "Tea"}, 2},
		{"word in a header", controlbus.LiveQuery{Word: "acme"}, 1},
		{"failed", controlbus.LiveQuery{Failed: true}, 1},
		{"other environment", controlbus.LiveQuery{Env: "production"}, 0},
		{"other broker", controlbus.LiveQuery{Broker: "x"}, 0},
	} {
		h := live.NewHub(live.DefaultConfig())
		s := open(t, h, c.q)
		h.Publish(all)
		if f := next(t, s); len(f.Events) != c.want || f.Matched != int64(c.want) {
			t.Errorf("%s: got %d events, matched %d, want %d", c.name, len(f.Events), f.Matched, c.want)
		}
		s.Close()
	}
}

func TestASlowReaderLosesItsOldestAndNobodyElseLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := live.DefaultConfig()
		cfg.MaxRows = 10
		h := live.NewHub(cfg)
		slow, quick := open(t, h, controlbus.LiveQuery{}), open(t, h, controlbus.LiveQuery{})
		var seen int
		for i := range 5 {
			batch := make([]*controlbus.MessageEvent, 10)
			for j := range batch {
				batch[j] = event("c", fmt.Sprint(10*i+j))
			}
			h.Publish(batch)
			seen += len(next(t, quick).Events)
			synctest.Wait()
		}
		if seen != 50 {
			t.Errorf("quick reader saw %d of 50", seen)
		}
		f := next(t, slow)
		if f.Matched != 50 || f.Dropped != 40 || len(f.Events) != 10 || string(f.Events[0].Body) != "40" {
			t.Errorf("slow reader: got matched %d, dropped %d, %d events from %q; want 50, 40, 10 from 40", f.Matched, f.Dropped, len(f.Events), f.Events[0].Body)
		}
		slow.Close()
		quick.Close()
	})
}

func TestARingIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	cfg := live.DefaultConfig()
	cfg.MaxBytes, cfg.BodyPreview = 64<<10, 16<<10
	h := live.NewHub(cfg)
	s := open(t, h, controlbus.LiveQuery{})
	for range 20 {
		h.Publish([]*controlbus.MessageEvent{event("c", string(make([]byte, 100<<10)))})
	}
	f := next(t, s)
	if len(f.Events) == 0 || len(f.Events) > 4 || f.Dropped+int64(len(f.Events)) != 20 {
		t.Errorf("got %d events and %d dropped, want at most 4 and 20 together", len(f.Events), f.Dropped)
	}
	if ev := f.Events[0]; len(ev.Body) != 16<<10 || !ev.Truncated || ev.BodySize != 100<<10 {
		t.Errorf("preview: got %d bytes, truncated %v, true size %d", len(ev.Body), ev.Truncated, ev.BodySize)
	}
}

func TestAboveTheRateOneOfNIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := live.DefaultConfig()
		cfg.MaxRate = 100
		h := live.NewHub(cfg)
		s := open(t, h, controlbus.LiveQuery{})
		var shown, matched, sampled, dropped int64
		for range 100 { // 10 s at 1,000/s
			batch := make([]*controlbus.MessageEvent, 100)
			for j := range batch {
				batch[j] = event("c", "x")
			}
			h.Publish(batch)
			time.Sleep(100 * time.Millisecond)
			f := next(t, s)
			shown += int64(len(f.Events))
			matched, sampled, dropped = matched+f.Matched, sampled+f.Sampled, dropped+f.Dropped
		}
		if matched == 0 || matched != shown+sampled || dropped != 0 {
			t.Errorf("matched %d, shown %d, sampled %d, dropped %d: they do not add up", matched, shown, sampled, dropped)
		}
		if rate := float64(shown) / 20; rate > 110 {
			t.Errorf("shown %.0f/s, want at most about 100/s", rate)
		}
		s.Close()
	})
}

func TestCapsAreSaid(t *testing.T) {
	t.Parallel()
	cfg := live.DefaultConfig()
	cfg.MaxTapsPerUser, cfg.MaxTaps = 1, 2
	h := live.NewHub(cfg)
	s := open(t, h, controlbus.LiveQuery{})
	if _, err := h.Subscribe(controlbus.LiveQuery{}, live.Options{User: "ann"}); !errors.Is(err, controlbus.ErrOverloaded) {
		t.Errorf("second tap of one person: got %v, want ErrOverloaded", err)
	}
	other, err := h.Subscribe(controlbus.LiveQuery{}, live.Options{User: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Subscribe(controlbus.LiveQuery{}, live.Options{User: "cid"}); !errors.Is(err, controlbus.ErrOverloaded) {
		t.Errorf("third tap: got %v, want ErrOverloaded", err)
	}
	other.Close()
	s.Close()
	s.Close()
	if h.Active() {
		t.Error("hub is active with every tap closed")
	}
	open(t, h, controlbus.LiveQuery{}).Close()
}

func TestEndings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := live.NewHub(live.DefaultConfig())
		s := open(t, h, controlbus.LiveQuery{})
		start := time.Now()
		if f := next(t, s); f.Matched != 0 || time.Since(start) != time.Second {
			t.Errorf("idle tap: got a frame with %d matches after %v, want an empty one after 1s", f.Matched, time.Since(start))
		}
		time.Sleep(2 * time.Hour)
		if _, err := s.Next(t.Context()); !errors.Is(err, controlbus.ErrNotFound) {
			t.Errorf("after its lifetime: got %v, want ErrNotFound", err)
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Next(cancelled); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
		h.Close()
		if _, err := s.Next(t.Context()); !errors.Is(err, controlbus.ErrUnavailable) {
			t.Errorf("hub closed: got %v, want ErrUnavailable", err)
		}
		if _, err := h.Subscribe(controlbus.LiveQuery{}, live.Options{}); !errors.Is(err, controlbus.ErrUnavailable) {
			t.Errorf("subscribe to a closed hub: got %v, want ErrUnavailable", err)
		}
		s.Close()
	})
}

// One batch of 512 against 100 taps, of which each sees one channel in twenty.
func BenchmarkPublish(b *testing.B) {
	h := live.NewHub(live.DefaultConfig())
	for i := range 100 {
		s, err := h.Subscribe(controlbus.LiveQuery{Channel: fmt.Sprintf("orders.%d.*", i%20)}, live.Options{User: fmt.Sprint(i)})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
	}
	batch := make([]*controlbus.MessageEvent, 512)
	for i := range batch {
		batch[i] = event(fmt.Sprintf("orders.%d.eu", i%20), `{"orderId":"ORD-7731904","total":"129.90"}`)
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Publish(batch)
	}
	b.ReportMetric(float64(b.N*len(batch))/b.Elapsed().Seconds(), "messages/s")
}
