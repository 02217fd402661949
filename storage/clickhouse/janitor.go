package clickhouse

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Janitor keeps the store within its retention and its disk. It drops whole
// partitions, which costs nothing, and relies on no TTL: a server that stops
// expiring parts must not fill the disk.
type Janitor struct {
	store *Store
	log   *slog.Logger
	now   func() time.Time
	disk  func(context.Context) (free, total int64, err error)

	set     *metrics.Set
	aged    *metrics.Counter // partitions dropped because of their age
	guarded *metrics.Counter // partitions dropped to make room
	bytes   *metrics.Counter
	failed  *metrics.Counter

	// pending are drops whose bytes the disk may not have got back yet.
	pending []freed
}

type freed struct {
	at    time.Time
	bytes int64
}

// lingering is how long the server may keep the files of a dropped part.
const lingering = 10 * time.Minute

// NewJanitor returns a janitor of s that counts in set.
func NewJanitor(s *Store, set *metrics.Set, log *slog.Logger) *Janitor {
	return &Janitor{
		store: s, log: log, now: time.Now, disk: s.disk, set: set,
		aged:    set.NewCounter(`signalbox_storage_partitions_dropped_total{reason="age"}`),
		guarded: set.NewCounter(`signalbox_storage_partitions_dropped_total{reason="disk"}`),
		bytes:   set.NewCounter(`signalbox_storage_dropped_bytes_total`),
		failed:  set.NewCounter(`signalbox_storage_sweep_failures_total`),
	}
}

// Run sweeps until ctx ends. A sweep that fails is logged and counted, and
// tried again at the next tick.
func (j *Janitor) Run(ctx context.Context) error {
	tick := time.NewTicker(j.store.cfg.Retention.Every)
	defer tick.Stop()
	for {
		if err := j.Sweep(ctx); err != nil && ctx.Err() == nil {
			j.failed.Inc()
			j.log.WarnContext(ctx, "retention sweep", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

const sweepTimeout = 5 * time.Minute

// Sweep drops what is too old, then, while the disk is too full, the oldest
// days. The present day is never dropped.
func (j *Janitor) Sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	parts, err := j.store.partitions(ctx)
	if err != nil {
		return wrap("list partitions", err)
	}
	sizes := map[string]uint64{}
	for _, p := range parts {
		sizes[p.table] += p.bytes
	}
	for table, n := range sizes {
		j.set.GetOrCreateGauge(`signalbox_storage_table_bytes{table="`+table+`"}`, nil).Set(float64(n))
	}
	today := j.now().UTC().Truncate(24 * time.Hour)
	var kept []partition
	for _, p := range parts {
		days := j.store.cfg.Retention.days(p)
		if days == 0 || !p.day.Before(today.AddDate(0, 0, -days)) {
			kept = append(kept, p)
			continue
		}
		if err := j.drop(ctx, p, "age", j.aged); err != nil {
			return err
		}
	}
	return j.guard(ctx, kept, today)
}

// days is the retention of a partition, 0 for ever.
func (r Retention) days(p partition) int {
	longest := func(days ...int) int {
		most := 0
		for _, d := range days {
			if d == 0 {
				return 0
			}
			most = max(most, d)
		}
		return most
	}
	switch p.table {
	case "messages":
		return r.Messages
	case "bodies":
		return r.Bodies
	case "logs", "outcomes":
		return r.Logs
	case "spans", "link_back":
		return r.Spans
	case "id_span", "resources":
		return longest(r.Messages, r.Logs, r.Spans)
	case "series", "samples":
		return r.Samples
	case "invalid":
		return r.Invalid
	case "rollup":
		switch p.step {
		case "10":
			return r.Rollup10
		case "60":
			return r.Rollup60
		}
		return r.Rollup
	}
	return 0
}

// guard makes room: whole days, oldest first, all tables of a day together, so
// that no message is left without its body and no id without its message.
func (j *Janitor) guard(ctx context.Context, parts []partition, today time.Time) error {
	need, err := j.need(ctx, parts)
	if err != nil || need <= 0 {
		return err
	}
	for i := 0; i < len(parts) && need > 0; {
		day := parts[i].day
		if !day.Before(today) {
			break
		}
		for ; i < len(parts) && parts[i].day.Equal(day); i++ {
			if parts[i].table == "command_events" {
				continue // small, of a month, and kept for ever
			}
			if err := j.drop(ctx, parts[i], "disk", j.guarded); err != nil {
				return err
			}
			need -= int64(parts[i].bytes)
		}
	}
	if need > 0 {
		j.log.ErrorContext(ctx, "the disk is too full and only the present day is left; shorten retention or add space",
			"missing_bytes", need)
	}
	return nil
}

// need is how many bytes must go.
func (j *Janitor) need(ctx context.Context, parts []partition) (int64, error) {
	r := j.store.cfg.Retention
	free, total, err := j.disk(ctx)
	if err != nil {
		return 0, wrap("look at the disk", err)
	}
	cut := 0
	for cut < len(j.pending) && j.now().Sub(j.pending[cut].at) > lingering {
		cut++
	}
	j.pending = j.pending[cut:]
	for _, f := range j.pending {
		free += f.bytes
	}
	need := max(int64(r.MinFree*float64(total)), r.MinFreeBytes) - free
	if r.MaxBytes > 0 {
		var used int64
		for _, p := range parts {
			used += int64(p.bytes)
		}
		need = max(need, used-r.MaxBytes)
	}
	return need, nil
}

var partitionID = regexp.MustCompile(`^[0-9A-Za-z_-]+$`)

func (j *Janitor) drop(ctx context.Context, p partition, reason string, counter *metrics.Counter) error {
	if !partitionID.MatchString(p.id) {
		return fmt.Errorf("clickhouse: drop partition: %w: unexpected id %q", controlbus.ErrInvalid, p.id)
	}
	s := j.store
	sql := "ALTER TABLE " + s.local(p.table) + " " + s.onCluster() + " DROP PARTITION ID '" + p.id + "'"
	if _, err := s.endpoints[0].exec(ctx, sql, nil); err != nil {
		return wrap("drop partition "+p.id+" of "+p.table, err)
	}
	counter.Inc()
	j.bytes.AddInt64(int64(p.bytes))
	j.pending = append(j.pending, freed{at: j.now(), bytes: int64(p.bytes)})
	j.log.InfoContext(ctx, "partition dropped", "table", p.table, "partition", p.text, "reason", reason, "rows", p.rows, "bytes", p.bytes)
	return nil
}

// disk is the fullest disk of the server.
func (s *Store) disk(ctx context.Context) (free, total int64, err error) {
	q := newSelection("SELECT toInt64(free_space) AS free, toInt64(total_space) AS total\nFROM system.disks\nORDER BY free_space / greatest(total_space, 1)\nLIMIT 1").unlimited("the store itself")
	rows, err := collect[struct {
		Free  int64 `ch:"free"`
		Total int64 `ch:"total"`
	}](ctx, s, nil, q)
	if err != nil {
		return 0, 0, err
	}
	if len(rows) == 0 {
		return 0, 0, fmt.Errorf("%w: the server names no disk", controlbus.ErrUnavailable)
	}
	return rows[0].Free, rows[0].Total, nil
}
