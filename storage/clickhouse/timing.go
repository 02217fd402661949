package clickhouse

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus/measure"
	"github.com/signalbox-dev/signalbox/storage"
)

// timings remembers how long the latest reads of each kind took.
type timings struct {
	mu    sync.Mutex
	kinds map[string]*timing
}

// timing is a ring of the latest durations of one kind of read.
type timing struct {
	ring  [512]time.Duration
	n     uint64 // reads so far
	total time.Duration
}

// timed notes how long a read takes: defer s.timed("search")(). Kinds are
// constants of this package.
func (s *Store) timed(kind string) func() {
	began := time.Now()
	return func() {
		took := time.Since(began)
		s.reads.Load().Observe(kind, took)
		t := &s.timings
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.kinds == nil {
			t.kinds = make(map[string]*timing)
		}
		k := t.kinds[kind]
		if k == nil {
			k = new(timing)
			t.kinds[kind] = k
		}
		k.ring[k.n%uint64(len(k.ring))] = took
		k.n++
		k.total += took
	}
}

// Measure counts in set how long reads and inserts take, from now on. Call it
// once.
func (s *Store) Measure(set *metrics.Set) {
	s.reads.Store(measure.NewSeconds(set, "signalbox_storage_query_seconds", "query"))
	s.writes.Store(measure.NewSeconds(set, "signalbox_storage_insert_seconds", "table"))
}

// QueryTimes tells how long the latest reads of each kind took, slowest kind
// first.
func (s *Store) QueryTimes() []storage.QueryTime {
	t := &s.timings
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []storage.QueryTime
	for kind, k := range t.kinds {
		latest := slices.Clone(k.ring[:min(k.n, uint64(len(k.ring)))])
		slices.Sort(latest)
		at := func(q float64) time.Duration { return latest[int(q*float64(len(latest)-1)+.5)] }
		list = append(list, storage.QueryTime{Kind: kind, Count: k.n, Latest: len(latest), P50: at(.5), P95: at(.95), Max: latest[len(latest)-1]})
	}
	slices.SortFunc(list, func(a, b storage.QueryTime) int {
		return cmp.Or(cmp.Compare(b.P95, a.P95), cmp.Compare(a.Kind, b.Kind))
	})
	return list
}

// Disk is the fullest disk of the server, and how much the retention keeps free
// of it.
func (s *Store) Disk(ctx context.Context) (storage.Disk, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	free, total, err := s.disk(ctx)
	if err != nil {
		return storage.Disk{}, wrap("look at the disk", err)
	}
	r := s.cfg.Retention
	return storage.Disk{Free: free, Total: total, Reserve: max(int64(r.MinFree*float64(total)), r.MinFreeBytes)}, nil
}
