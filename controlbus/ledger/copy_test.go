package ledger_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/ledger/ledgertest"
	"github.com/signalbox-dev/signalbox/storage"
)

// sink is a store that can be away, and can lose its answers.
type sink struct {
	mu   sync.Mutex
	rows map[int64]storage.CommandEvent
	down bool
	mute bool // stores, and says that it did not
}

func (s *sink) CopyCommandEvents(_ context.Context, events []storage.CommandEvent) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return controlbus.ErrUnavailable
	}
	for _, e := range events {
		s.rows[e.Seq] = e
	}
	if s.mute {
		s.mute = false
		return controlbus.ErrUnavailable
	}
	return nil
}

func (s *sink) CommandEventsCopied(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return 0, controlbus.ErrUnavailable
	}
	most := int64(0)
	for seq := range s.rows {
		most = max(most, seq)
	}
	return most, nil
}

func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rows)
}

func (s *sink) row(seq int64) storage.CommandEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[seq]
}

func TestCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(access.With(t.Context(), access.Identity{ID: "u", Name: "ann", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)}))
		store := ledgertest.NewMemory()
		cfg := ledger.DefaultConfig()
		l, err := ledger.New(cfg, store, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		request := func(n int) {
			for range n {
				s := controlbus.CommandSpec{
					Kind: controlbus.CommandTest, Reason: "why", Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "prod", Broker: "b", Name: "orders"}},
					Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "prod", Effect: "x", Reversible: controlbus.ReversibleNo, Samples: []controlbus.PreviewSample{{Excerpt: "canary"}}},
				}
				s.Preview.Seal(s.Kind, s.Target, s.Args)
				if _, err := l.Request(ctx, ledger.Request{CommandSpec: s}); err != nil {
					t.Fatal(err)
				}
			}
		}
		set, to := metrics.NewSet(), &sink{rows: map[int64]storage.CommandEvent{}}
		lag := func() string {
			var b strings.Builder
			set.WritePrometheus(&b)
			return strings.TrimSpace(b.String())
		}
		request(500) // three events each
		var wg sync.WaitGroup
		c := ledger.NewCopy(store, to, set, slog.New(slog.DiscardHandler))
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		if to.count() != 1500 || lag() != "signalbox_ledger_copy_lag_events 0" {
			t.Errorf("%d copied, %s", to.count(), lag())
		}
		e := to.row(1)
		if e.Type != "requested" || e.Kind != controlbus.CommandTest || e.Target.Channel.Name != "orders" || e.Actor.Name != "ann" || e.Reason != "why" || !strings.Contains(e.Body, `"effect":"x"`) || strings.Contains(e.Body, "canary") {
			t.Errorf("row: %+v", e)
		}
		to.mu.Lock()
		to.down = true
		to.mu.Unlock()
		request(10)
		time.Sleep(10 * time.Minute)
		request(10)
		time.Sleep(2 * time.Minute)
		if to.count() != 1500 || lag() != "signalbox_ledger_copy_lag_events 60" {
			t.Errorf("while the store is away: %d copied, %s", to.count(), lag())
		}
		to.mu.Lock()
		to.down, to.mute = false, true
		to.mu.Unlock()
		time.Sleep(3 * time.Minute)
		if to.count() != 1560 || lag() != "signalbox_ledger_copy_lag_events 0" {
			t.Errorf("after it: %d copied, %s", to.count(), lag())
		}
		stop()
		wg.Wait()

		// A ledger that was set back is copied again.
		store, set = ledgertest.NewMemory(), metrics.NewSet()
		if l, err = ledger.New(cfg, store, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		ctx, stop = context.WithCancel(access.With(t.Context(), access.Identity{ID: "u", Name: "bob", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)}))
		request(3)
		c = ledger.NewCopy(store, to, set, slog.New(slog.DiscardHandler))
		wg.Go(func() {
			if err := c.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		if to.row(1).Actor.Name != "bob" || lag() != "signalbox_ledger_copy_lag_events 0" {
			t.Errorf("of a ledger that was set back: %+v, %s", to.row(1), lag())
		}
		stop()
		wg.Wait()
	})
}
