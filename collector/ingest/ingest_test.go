package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/collector/ingest"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
	"github.com/signalbox-dev/signalbox/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// batch keeps the rows that the tests look at.
type batch struct {
	uids    []string
	panes   uint64
	samples []float64
	invalid []string
	n       int
}

func (b *batch) AppendMessage(ev *controlbus.MessageEvent) {
	b.uids = append(b.uids, ev.UID.String())
	b.n++
}
func (b *batch) AppendLog(*storage.Log)                  { b.n++ }
func (b *batch) AppendSpan(*storage.Span)                { b.n++ }
func (b *batch) AppendResource(*storage.Resource, int64) { b.n++ }
func (b *batch) AppendSample(s *storage.Sample)          { b.samples = append(b.samples, s.Value); b.n++ }
func (b *batch) AppendPane(p *storage.Pane)              { b.panes += p.Count; b.n++ }
func (b *batch) AppendInvalid(i *storage.Invalid)        { b.invalid = append(b.invalid, i.Reason); b.n++ }
func (b *batch) Rows() int                               { return b.n }
func (b *batch) Bytes() int                              { return 100 * b.n }
func (b *batch) Reset()                                  { *b = batch{} }

// store is a Sink with a deduplication log, as ClickHouse has it: the first
// content under a token stays.
type store struct {
	t  *testing.T
	mu sync.Mutex
	// fault is asked before and after each write; an error is returned in
	// place of success, after the rows were taken in the second case.
	fault   func() error
	byToken map[string]batch
	order   []string
}

func (s *store) NewBatch() collector.Batch { return &batch{} }

func (s *store) Write(ctx context.Context, token string, cb collector.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fault(); err != nil {
		return err
	}
	b := *cb.(*batch)
	if had, known := s.byToken[token]; known {
		if diff := cmp.Diff(had.uids, b.uids); diff != "" {
			s.t.Errorf("token %s names two contents (-first +second):\n%s", token, diff)
		}
	} else {
		s.byToken[token] = b
		s.order = append(s.order, token)
	}
	return s.fault()
}

func newStore(t *testing.T, fault func() error) *store {
	return &store{t: t, fault: fault, byToken: make(map[string]batch)}
}

func (s *store) counts() (total int, uids map[string]int, panes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	uids = make(map[string]int)
	for _, b := range s.byToken {
		total += len(b.uids)
		panes += b.panes
		for _, u := range b.uids {
			uids[u]++
		}
	}
	return total, uids, panes
}

type nobody struct{}

func (nobody) Active() bool                       { return false }
func (nobody) Publish([]*controlbus.MessageEvent) {}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func send(t *testing.T, c *collector.Collector, batch uint64, rows int) {
	t.Helper()
	e := telemetry.NewEncoder(telemetry.Origin{AgentID: "a"})
	for i := range rows {
		e.Append(&controlbus.MessageEvent{
			UID: controlbus.HashID("t", fmt.Sprint(batch), fmt.Sprint(i)), Time: int64(1e18 + batch), System: "nats", Destination: "orders",
		})
	}
	if _, err := c.Consume(t.Context(), collector.Request{Signal: collector.Logs, Payload: e.Request(nil), Sender: "a/1", Batch: batch, ReceivedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

func fastConfig(t *testing.T) ingest.Config {
	cfg := ingest.DefaultConfig()
	cfg.MaxRows, cfg.MaxDelay, cfg.Quarantine = 100, 5*time.Millisecond, filepath.Join(t.TempDir(), "quarantine")
	return cfg
}

// The collector and its ingest are stopped at random moments, writes fail
// before and after they took effect, and everything is stored exactly once.
func TestEverythingIsStoredOnceThroughCrashes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	s := newStore(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(4) == 0 {
			return fmt.Errorf("connection reset: %w", controlbus.ErrUnavailable)
		}
		return nil
	})
	cfg := collector.DefaultConfig()
	cfg.Dir = t.TempDir()
	const perBatch, lives, perLife = 7, 15, 40
	next, sent := uint64(1), 0
	for range lives {
		c, err := collector.New(cfg, nobody{}, metrics.NewSet(), discard())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		in := ingest.New(fastConfig(t), c.Queue(), s, metrics.NewSet(), discard())
		go func() { done <- in.Run(ctx) }()
		for range perLife {
			send(t, c, next, perBatch)
			next, sent = next+1, sent+perBatch
		}
		cancel() // wherever it is
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c, err := collector.New(cfg, nobody{}, metrics.NewSet(), discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	in := ingest.New(fastConfig(t), c.Queue(), s, metrics.NewSet(), discard())
	go func() { done <- in.Run(ctx) }()
	waitUntil(t, func() bool {
		total, _, _ := s.counts()
		return total >= sent && in.Stats().PendingBytes == 0 && in.Stats().Blocks > 0
	})
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	total, uids, panes := s.counts()
	if total != sent || len(uids) != sent || panes != uint64(sent) {
		t.Errorf("sent %d; stored %d rows, %d distinct, panes count %d", sent, total, len(uids), panes)
	}
}

// waitUntil polls: what it waits for is told by counters only.
func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("did not happen within 30s")
		}
	}
}

func TestWhatTheStoreRefusesForGoodHoldsUpNothing(t *testing.T) {
	t.Parallel()
	refuse := true
	var mu sync.Mutex
	s := newStore(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		if refuse {
			return fmt.Errorf("no such column: %w", controlbus.ErrInvalid)
		}
		return nil
	})
	cfg := collector.DefaultConfig()
	cfg.Dir = t.TempDir()
	c, err := collector.New(cfg, nobody{}, metrics.NewSet(), discard())
	if err != nil {
		t.Fatal(err)
	}
	inCfg := fastConfig(t)
	in := ingest.New(inCfg, c.Queue(), s, metrics.NewSet(), discard())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	send(t, c, 1, 10)
	waitUntil(t, func() bool { return in.Stats().Quarantined == 1 })
	mu.Lock()
	refuse = false
	mu.Unlock()
	send(t, c, 2, 10)
	waitUntil(t, func() bool { total, _, _ := s.counts(); return total == 10 })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(inCfg.Quarantine)
	if err != nil || len(files) != 1 {
		t.Fatalf("quarantine: %v, %v, want one block", files, err)
	}
	// It is a queue like any other: pointed at it, a collector stores it.
	cfg.Dir = filepath.Join(inCfg.Quarantine, files[0].Name())
	again, err := collector.New(cfg, nobody{}, metrics.NewSet(), discard())
	if err != nil {
		t.Fatal(err)
	}
	r := again.Queue().Reader(0)
	e, err := r.Next(t.Context())
	if err != nil || e.Err != nil || e.Batch != 1 {
		t.Errorf("quarantined request: batch %d, %v, %v", e.Batch, err, e.Err)
	}
	if err := errors.Join(r.Close(), again.Close()); err != nil {
		t.Error(err)
	}
}
