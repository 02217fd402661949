package prometheus_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/storage/clickhouse"
	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/ui/prometheus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(enginetest.M{M: m}) }

// open is a store in a database of its own.
func open(t testing.TB) *clickhouse.Store {
	t.Helper()
	cfg := clickhouse.DefaultConfig()
	cfg.Database = fmt.Sprintf("test_%016x", rand.Uint64())
	cfg.DialContext = enginetest.Shared(t).DialContext
	s, err := clickhouse.Open(t.Context(), cfg, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// serve is the API over a store.
func serve(t testing.TB, q prometheus.Querier, change func(*prometheus.Config, *prometheus.Deps)) *prometheus.API {
	t.Helper()
	cfg, deps := prometheus.DefaultConfig(), prometheus.Deps{Querier: q, Version: "test"}
	if change != nil {
		change(&cfg, &deps)
	}
	a := prometheus.New(cfg, deps)
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func scopeOf(s controlbus.Scope) func(context.Context) controlbus.Scope {
	return func(context.Context) controlbus.Scope { return s }
}

var _ prometheus.Querier = (*clickhouse.Store)(nil)

func attrs(pairs ...string) []storage.Attr {
	var list []storage.Attr
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, storage.Attr{Key: pairs[i], Value: pairs[i+1]})
	}
	return list
}
