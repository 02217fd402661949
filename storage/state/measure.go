package state

import (
	"context"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus/measure"
)

// Measure puts the store's numbers into set, from now on. Call it once.
func (s *Store) Measure(set *metrics.Set) {
	set.NewGauge(`signalbox_state_info{version="`+s.version+`"}`, func() float64 { return 1 })
	set.NewGauge(`signalbox_state_connections{state="used"}`, func() float64 { return float64(s.pool.Stats().InUse) })
	set.NewGauge(`signalbox_state_connections{state="idle"}`, func() float64 { return float64(s.pool.Stats().Idle) })
	set.NewGauge("signalbox_state_retries_total", func() float64 { return float64(s.retries.Load()) })
	set.NewGauge("signalbox_state_commits_unanswered_total", func() float64 { return float64(s.unanswered.Load()) })
	s.writes.Store(measure.NewSeconds(set, "signalbox_state_write_seconds", "result"))
}

func (s *Store) observe(begun time.Time, err error) {
	if w := s.writes.Load(); w != nil {
		result := "done"
		if err != nil {
			result = "not_done"
		}
		w.Observe(result, time.Since(begun))
	}
}

// Check says whether the database answers, within two seconds.
func (s *Store) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var one int
	return known(s.db.QueryRowContext(ctx, `SELECT 1`).Scan(&one))
}
