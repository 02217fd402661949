package collector_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watcher is a Live that remembers what it was shown.
type watcher struct {
	mu     sync.Mutex
	off    bool
	bodies []string
}

func (w *watcher) Active() bool { return !w.off }

func (w *watcher) Publish(events []*controlbus.MessageEvent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ev := range events {
		w.bodies = append(w.bodies, string(ev.Body))
	}
}

func open(t testing.TB, cfg collector.Config, live collector.Live) *collector.Collector {
	t.Helper()
	c, err := collector.New(cfg, live, metrics.NewSet(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func closing(t testing.TB, c *collector.Collector) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func config(t testing.TB) collector.Config {
	cfg := collector.DefaultConfig()
	cfg.Dir = t.TempDir()
	return cfg
}

func request(sender string, batch uint64, bodies ...string) collector.Request {
	e := telemetry.NewEncoder(telemetry.Origin{AgentID: "a"})
	for i, b := range bodies {
		e.Append(&controlbus.MessageEvent{
			UID: controlbus.HashID(sender, fmt.Sprint(batch, i)), Time: time.Now().UnixNano(), System: "nats", Broker: "b",
			Destination: "orders", Op: controlbus.OpTap, Body: []byte(b), BodySize: int64(len(b)),
		})
	}
	return collector.Request{Signal: collector.Logs, Payload: e.Request(nil), Sender: sender, Batch: batch, ReceivedAt: time.Now()}
}

func TestABatchIsTakenOnce(t *testing.T) {
	t.Parallel()
	cfg, w := config(t), &watcher{}
	c := open(t, cfg, w)
	for _, step := range []struct {
		batch uint64
		dup   bool
	}{{1, false}, {1, true}, {2, false}, {5, false}, {3, true}, {5, true}} {
		res, err := c.Consume(t.Context(), request("a/1", step.batch, fmt.Sprint(step.batch)))
		if err != nil || res.Duplicate != step.dup {
			t.Errorf("batch %d: got duplicate %v, %v, want %v", step.batch, res.Duplicate, err, step.dup)
		}
	}
	if res, err := c.Consume(t.Context(), request("a/2", 1, "x")); err != nil || res.Duplicate {
		t.Errorf("another spool: got duplicate %v, %v", res.Duplicate, err)
	}
	if got := fmt.Sprint(w.bodies); got != "[1 2 5 x]" {
		t.Errorf("live taps saw %s, want each message once", got)
	}
	closing(t, c)

	c = open(t, cfg, w) // after a crash: the marks are in the queue
	if res, err := c.Consume(t.Context(), request("a/1", 5, "again")); err != nil || !res.Duplicate {
		t.Errorf("after a restart: got duplicate %v, %v, want it recognised", res.Duplicate, err)
	}
	closing(t, c)
}

func TestMarksOutliveTheQueue(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	c := open(t, cfg, &watcher{off: true})
	if _, err := c.Consume(t.Context(), request("a/1", 7, "x")); err != nil {
		t.Fatal(err)
	}
	r := c.Queue().Reader(0)
	e, err := r.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Queue().Stored(e.Next, map[string]collector.Mark{"a/1": {Batch: 7, At: e.ReceivedAt}}, 0); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	closing(t, c)
	c = open(t, cfg, &watcher{off: true})
	if res, err := c.Consume(t.Context(), request("a/1", 7, "x")); err != nil || !res.Duplicate {
		t.Errorf("a stored batch: got duplicate %v, %v, want it recognised", res.Duplicate, err)
	}
	closing(t, c)
}

func TestConcurrentResendsAreOneBatch(t *testing.T) {
	t.Parallel()
	c := open(t, config(t), &watcher{off: true})
	defer closing(t, c)
	var fresh int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			res, err := c.Consume(t.Context(), request("a/1", 1, "x"))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !res.Duplicate {
				fresh++
			}
		})
	}
	wg.Wait()
	if fresh != 1 {
		t.Errorf("taken %d times, want once", fresh)
	}
}

func TestAFullQueueSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.MaxBytes = 64 << 20
	c := open(t, cfg, &watcher{off: true})
	defer closing(t, c)
	big := request("", 0, string(make([]byte, 1<<20)))
	var err error
	for range 100 {
		if _, err = c.Consume(t.Context(), big); err != nil {
			break
		}
	}
	retry := (*collector.RetryError)(nil)
	if !errors.As(err, &retry) || !errors.Is(err, controlbus.ErrOverloaded) || retry.After <= 0 {
		t.Errorf("got %v, want a RetryError that wraps ErrOverloaded", err)
	}
	if got := c.Stats().Refused["queue_full"]; got != 1 {
		t.Errorf("refused as queue_full: got %d, want 1", got)
	}
}

func TestBadRecordsAreCountedAndBadRequestsRefused(t *testing.T) {
	t.Parallel()
	c := open(t, config(t), &watcher{off: true})
	defer closing(t, c)
	e := telemetry.NewEncoder(telemetry.Origin{AgentID: "a"})
	e.Append(&controlbus.MessageEvent{UID: controlbus.HashID("x"), System: "nats", Destination: "ok"})
	e.Append(&controlbus.MessageEvent{UID: controlbus.HashID("y"), System: "nats"}) // no channel
	res, err := c.Consume(t.Context(), collector.Request{Signal: collector.Logs, Payload: e.Request(nil), ReceivedAt: time.Now()})
	if err != nil || res.Rejected != 1 || res.Reason == "" {
		t.Errorf("got %+v, %v, want one rejected record with a reason", res, err)
	}
	for _, s := range []collector.Signal{collector.Logs, collector.Traces, collector.Metrics, 9} {
		if _, err := c.Consume(t.Context(), collector.Request{Signal: s, Payload: []byte("hello"), ReceivedAt: time.Now()}); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("%v: got %v, want ErrInvalid", s, err)
		}
	}
}

func TestADamagedCheckpointDoesNotStopTheCollector(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	if err := os.WriteFile(filepath.Join(cfg.Dir, "checkpoint.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := open(t, cfg, &watcher{off: true})
	defer closing(t, c)
	if _, err := os.Stat(filepath.Join(cfg.Dir, "checkpoint.json.damaged")); err != nil {
		t.Errorf("the damaged checkpoint was not kept: %v", err)
	}
}

func TestSendersAreBounded(t *testing.T) {
	t.Parallel()
	cfg := config(t)
	cfg.MaxSenders = 2
	c := open(t, cfg, &watcher{off: true})
	defer closing(t, c)
	for i := range 2 {
		if _, err := c.Consume(t.Context(), request(fmt.Sprint(i), 1, "x")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Consume(t.Context(), request("third", 1, "x")); !errors.Is(err, controlbus.ErrOverloaded) {
		t.Errorf("third sender: got %v, want ErrOverloaded", err)
	}
	if _, err := c.Consume(t.Context(), request("", 0, "x")); err != nil {
		t.Errorf("a sender without a name: got %v", err)
	}
}
