package clickhouse_test

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/clickhouse"
	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(enginetest.M{M: m}) }

// config is that of a store in a database of its own, which goes with the test:
// a hundred of them at once are more than the engine's memory limit here.
func config(t testing.TB) clickhouse.Config {
	cfg := clickhouse.DefaultConfig()
	cfg.Database = fmt.Sprintf("test_%016x", rand.Uint64())
	engine := enginetest.Shared(t)
	cfg.DialContext = engine.DialContext
	t.Cleanup(func() {
		res, err := engine.HTTPClient().Post("http://engine/", "text/plain", strings.NewReader("DROP DATABASE IF EXISTS "+cfg.Database+" SYNC"))
		if err != nil {
			return // the engine was the test's to kill
		}
		defer res.Body.Close()
		if said, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
			t.Errorf("drop %s: %s %s", cfg.Database, res.Status, said)
		}
	})
	return cfg
}

func open(t testing.TB, cfg clickhouse.Config) *clickhouse.Store {
	t.Helper()
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

func TestStoreOnTheEmbeddedEngine(t *testing.T) {
	t.Parallel()
	for _, index := range []string{"bloom", "text"} {
		t.Run(index, func(t *testing.T) {
			storagetest.Run(t, func(t testing.TB) storagetest.Store {
				cfg := config(t)
				cfg.HeaderIndex = index
				return open(t, cfg)
			})
		})
	}
	t.Run("commands", func(t *testing.T) {
		storagetest.RunCommands(t, func(t testing.TB) storagetest.CommandStore { return open(t, config(t)) })
	})
}

func TestStoreOnAServer(t *testing.T) {
	t.Parallel()
	dsn := os.Getenv("SIGNALBOX_TEST_CLICKHOUSE")
	if dsn == "" {
		t.Skip("needs a ClickHouse server: name its DSN, without a database, in SIGNALBOX_TEST_CLICKHOUSE")
	}
	storagetest.Run(t, func(t testing.TB) storagetest.Store {
		cfg := clickhouse.DefaultConfig()
		cfg.Database = fmt.Sprintf("test_%016x", rand.Uint64())
		cfg.DSN = controlbus.Secret(dsn)
		return open(t, cfg)
	})
	storagetest.RunCommands(t, func(t testing.TB) storagetest.CommandStore {
		cfg := clickhouse.DefaultConfig()
		cfg.Database = fmt.Sprintf("test_%016x", rand.Uint64())
		cfg.DSN = controlbus.Secret(dsn)
		return open(t, cfg)
	})
}
