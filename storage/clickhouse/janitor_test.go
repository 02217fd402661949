package clickhouse

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
)

func openInternal(t *testing.T, change func(*Config)) *Store {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Database = fmt.Sprintf("test_%016x", rand.Uint64())
	cfg.DialContext = enginetest.Shared(t).DialContext
	if change != nil {
		change(&cfg)
	}
	s, err := Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fillDays stores one message, body, log and pane a day, for ten days.
func fillDays(t *testing.T, s *Store, today time.Time) {
	t.Helper()
	b := s.NewBatch()
	for i := range 10 {
		at := today.AddDate(0, 0, -i).Add(12 * time.Hour).UnixNano()
		b.AppendMessage(&controlbus.MessageEvent{UID: controlbus.HashID(fmt.Sprint(i)), Time: at, CorrelationID: "c", Body: []byte("b")})
		b.AppendLog(&storage.Log{Time: at, Body: "l"})
		b.AppendPane(&storage.Pane{Time: at, Op: controlbus.OpTap, Count: 1})
	}
	if err := s.Write(t.Context(), "days", b); err != nil {
		t.Fatal(err)
	}
}

// held counts the days of each table, those of the roll-up by step.
func held(t *testing.T, s *Store) map[string]int {
	t.Helper()
	parts, err := s.partitions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := make(map[string]int)
	for _, p := range parts {
		n[p.table+p.step]++
	}
	return n
}

func TestJanitorDropsWhatIsTooOld(t *testing.T) {
	t.Parallel()
	s := openInternal(t, func(c *Config) {
		c.Retention = Retention{Messages: 5, Bodies: 2, Logs: 0, Spans: 3, Rollup10: 1, Rollup60: 4, Every: time.Minute}
	})
	today := time.Now().UTC().Truncate(24 * time.Hour)
	fillDays(t, s, today)
	set := metrics.NewSet()
	j := NewJanitor(s, set, slog.New(slog.DiscardHandler))
	for range 2 { // the second finds nothing to do
		if err := j.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Today counts beside the days kept. Ids are kept as long as the longest
	// of what they lead to, here for ever because of the logs.
	want := map[string]int{"messages": 6, "bodies": 3, "logs": 10, "id_span": 10, "rollup10": 2, "rollup60": 5, "rollup3600": 10}
	if diff := cmp.Diff(want, held(t, s)); diff != "" {
		t.Errorf("days held: -want +got\n%s", diff)
	}
	if got := j.aged.Get(); got != 4+7+8+5 {
		t.Errorf("counted %d partitions, want %d", got, 4+7+8+5)
	}
	if got := j.guarded.Get(); got != 0 {
		t.Errorf("the disk guard dropped %d partitions of a disk with room", got)
	}
}

func TestDiskGuardDropsTheOldestDays(t *testing.T) {
	t.Parallel()
	s := openInternal(t, func(c *Config) { c.Retention = Retention{MinFreeBytes: 1000, Every: time.Minute} })
	today := time.Now().UTC().Truncate(24 * time.Hour)
	fillDays(t, s, today)
	j := NewJanitor(s, metrics.NewSet(), slog.New(slog.DiscardHandler))
	free := int64(999)
	j.disk = func(context.Context) (int64, int64, error) { return free, 1 << 40, nil }
	if err := j.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	// One byte was missing: one day goes, of every table.
	if got := held(t, s); got["messages"] != 9 || got["bodies"] != 9 || got["rollup3600"] != 9 {
		t.Errorf("days held after one byte was missing: %v", got)
	}
	// The server keeps dropped files for a while; they count as room already.
	if err := j.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := held(t, s)["messages"]; got != 9 {
		t.Errorf("%d days held: the guard dropped again before the disk had its bytes back", got)
	}
	// However full the disk is, the present day stays.
	free = -1 << 50
	if err := j.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := held(t, s); got["messages"] != 1 || got["rollup10"] != 1 {
		t.Errorf("days held on a full disk: %v, want the present one", got)
	}
	if j.guarded.Get() == 0 || j.bytes.Get() == 0 {
		t.Error("what the guard dropped is not counted")
	}
}

func TestMaxBytesIsHeld(t *testing.T) {
	t.Parallel()
	s := openInternal(t, func(c *Config) { c.Retention = Retention{MaxBytes: 1, Every: time.Minute} })
	fillDays(t, s, time.Now().UTC().Truncate(24*time.Hour))
	if err := NewJanitor(s, metrics.NewSet(), slog.New(slog.DiscardHandler)).Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := held(t, s)["messages"]; got != 1 {
		t.Errorf("%d days held, want only the present one", got)
	}
}
