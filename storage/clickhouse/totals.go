package clickhouse

import (
	"context"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

const totalSlots = 96

// Totals returns the key figures of a range; an empty env means all.
func (s *Store) Totals(ctx context.Context, env string, r storage.TimeRange) (storage.Totals, error) {
	defer s.timed("totals")()
	t, err := s.totals(ctx, env, r)
	return t, wrap("totals", err)
}

func (s *Store) totals(ctx context.Context, env string, tr storage.TimeRange) (storage.Totals, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	r := nanos(tr)
	g := s.newGrid(r, time.Duration((r.to-r.from)/totalSlots))
	var t storage.Totals
	grp, gctx := errgroup.WithContext(ctx)
	grp.SetLimit(4)
	grp.Go(func() error { return s.trafficTotals(gctx, &t, env, g) })
	grp.Go(func() (err error) {
		q := newSelection(s.sql("SELECT uniqExact(env, broker, system, destination) AS n\nFROM @db.rollup\nWHERE"))
		g.over(q)
		q.equal("env", "env", env)
		q.visible("env", "destination")
		t.Channels, err = s.number(gctx, q)
		return err
	})
	count := func(table string, into *uint64, bucket, hasEnv bool) {
		grp.Go(func() (err error) {
			q := newSelection(s.sql("SELECT count() AS n\nFROM @db." + table + "\nWHERE"))
			q.between("ts", r, bucket)
			if hasEnv {
				q.equal("env", "env", env)
				q.visible("env", "destination")
			}
			*into, err = s.number(gctx, q)
			return err
		})
	}
	count("spans", &t.Spans, false, true)
	count("logs", &t.Logs, true, true)
	if scope, ok := controlbus.ScopeFrom(ctx); !ok || scope.All() {
		count("invalid", &t.Invalid, false, false) // they belong to nobody in particular
	}
	edge := func(sql string, into *time.Time) {
		grp.Go(func() error {
			n, err := s.number(gctx, newSelection(s.sql(sql)).unlimited("how far the store reaches"))
			if n > 0 {
				*into = instant(int64(n))
			}
			return err
		})
	}
	// Answered from the parts' own bounds, without reading a row.
	edge("SELECT if(count() = 0, 0, toUInt64(toUnixTimestamp64Nano(min(ts)))) AS n FROM @db.messages", &t.OldestMessage)
	edge("SELECT if(count() = 0, 0, toUInt64(toUnixTimestamp64Nano(max(ts)))) AS n FROM @db.logs", &t.NewestLog)
	if err := grp.Wait(); err != nil {
		return storage.Totals{}, err
	}
	return t, nil
}

// Passed returns how much passed in a range; an empty env means all.
func (s *Store) Passed(ctx context.Context, env string, tr storage.TimeRange) (storage.Passed, error) {
	defer s.timed("traffic")()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	r := nanos(tr)
	var t storage.Totals
	err := s.trafficTotals(ctx, &t, env, s.newGrid(r, time.Duration((r.to-r.from)/totalSlots)))
	return storage.Passed{Messages: t.Messages, Rate: t.Rate}, wrap("traffic", err)
}

func (s *Store) trafficTotals(ctx context.Context, t *storage.Totals, env string, g grid) error {
	q := newSelection(s.query("totals"))
	g.over(q)
	q.equal("env", "env", env)
	q.visible("env", "destination")
	q.add("    GROUP BY slot, env, system, destination\n)\nGROUP BY slot\nORDER BY slot")
	type slotTotals struct {
		Slot   uint32 `ch:"slot"`
		N      uint64 `ch:"events"`
		Failed uint64 `ch:"failures"`
		Bytes  uint64 `ch:"size"`
	}
	var rows []slotTotals
	var seen map[watcher]coverage
	grp, gctx := errgroup.WithContext(ctx)
	grp.Go(func() (err error) {
		rows, err = collect[slotTotals](gctx, s, nil, q)
		return err
	})
	grp.Go(func() (err error) {
		seen, err = s.watched(gctx, env, "", g)
		return err
	})
	if err := grp.Wait(); err != nil {
		return err
	}
	rate, failed := make(map[int]float64), make(map[int]float64)
	for _, row := range rows {
		t.Messages += row.N
		t.Failed += row.Failed
		t.Bytes += row.Bytes
		rate[int(row.Slot)] += float64(row.N)
		failed[int(row.Slot)] += float64(row.Failed)
	}
	watched := join(seen)
	t.Rate, t.FailedRate = g.fill(rate, watched), g.fill(failed, watched)
	return nil
}

// number is the one value, named n, of a query.
func (s *Store) number(ctx context.Context, q *selection) (uint64, error) {
	rows, err := collect[struct {
		N uint64 `ch:"n"`
	}](ctx, s, nil, q)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	return rows[0].N, nil
}

// Environments lists the environments that had traffic in the range.
func (s *Store) Environments(ctx context.Context, r storage.TimeRange) ([]string, error) {
	defer s.timed("list environments")()
	n := nanos(r)
	q := newSelection(s.sql("SELECT DISTINCT env\nFROM @db.rollup\nWHERE"))
	q.where("step = 3600")
	q.where("t >= toStartOfHour(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))")
	q.where("t < fromUnixTimestamp64Nano({to:Int64}, 'UTC')")
	q.bind("from", n.from)
	q.bind("to", n.to)
	q.visible("env", "destination")
	q.add("ORDER BY env\nLIMIT 1000")
	rows, err := collect[struct {
		Env string `ch:"env"`
	}](ctx, s, nil, q)
	if err != nil {
		return nil, wrap("list environments", err)
	}
	list := make([]string, len(rows))
	for i := range rows {
		list[i] = rows[i].Env
	}
	return list, nil
}

// Tables returns the size of every table of the store.
func (s *Store) Tables(ctx context.Context) ([]storage.TableSize, error) {
	defer s.timed("list tables")()
	parts, err := s.partitions(ctx)
	if err != nil {
		return nil, wrap("list tables", err)
	}
	sizes := make(map[string]*storage.TableSize)
	list := make([]storage.TableSize, 0, len(tables))
	for _, t := range tables {
		list = append(list, storage.TableSize{Name: t.name})
	}
	for i := range list {
		sizes[list[i].Name] = &list[i]
	}
	for _, p := range parts {
		t := sizes[p.table]
		if t == nil {
			continue
		}
		t.Rows += p.rows
		t.Bytes += p.bytes
		t.Parts += p.parts
		t.Partitions++
		t.Days = max(t.Days, s.cfg.Retention.days(p))
		if t.Oldest.IsZero() || p.day.Before(t.Oldest) {
			t.Oldest = p.day
		}
	}
	return list, nil
}

// partition is one day of one table, or one day and step of the roll-up.
type partition struct {
	table, id   string
	text        string // as the server names it
	day         time.Time
	step        string
	rows, bytes uint64
	parts       uint64
}

var (
	dateInPartition = regexp.MustCompile(`\d{4}-\d{2}-\d{2}`)
	stepInPartition = regexp.MustCompile(`,(\d+)\)$`)
)

// partitions lists what the store holds, oldest first.
func (s *Store) partitions(ctx context.Context) ([]partition, error) {
	q := newSelection("SELECT table, partition, partition_id AS id, sum(rows) AS n_rows, sum(bytes_on_disk) AS n_bytes, count() AS n_parts\n" +
		"FROM system.parts\nWHERE")
	q.unlimited("the store itself")
	q.where("active")
	q.where("database = {database:String}")
	q.bind("database", s.database)
	q.add("GROUP BY table, partition, id")
	rows, err := collect[struct {
		Table     string `ch:"table"`
		Partition string `ch:"partition"`
		ID        string `ch:"id"`
		Rows      uint64 `ch:"n_rows"`
		Bytes     uint64 `ch:"n_bytes"`
		Parts     uint64 `ch:"n_parts"`
	}](ctx, s, nil, q)
	if err != nil {
		return nil, err
	}
	var list []partition
	for _, r := range rows {
		p := partition{table: s.tableOf(r.Table), id: r.ID, text: r.Partition, rows: r.Rows, bytes: r.Bytes, parts: r.Parts}
		day, err := time.Parse(time.DateOnly, dateInPartition.FindString(r.Partition))
		if err != nil {
			continue // not one of ours: schema_migrations
		}
		p.day = day
		if m := stepInPartition.FindStringSubmatch(r.Partition); m != nil {
			p.step = m[1]
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b partition) int { return a.day.Compare(b.day) })
	return list, nil
}

// Invalid returns the newest records of the invalid message channel.
func (s *Store) Invalid(ctx context.Context, r storage.TimeRange, limit int) ([]storage.Invalid, error) {
	defer s.timed("invalid messages")()
	if limit <= 0 || limit > maxLimit {
		limit = defaultLimit
	}
	q := newSelection(s.sql("SELECT toUnixTimestamp64Nano(ts) AS time_ns, sender, signal, reason, data, size\nFROM @db.invalid\nWHERE"))
	q.between("ts", nanos(r), false)
	q.add("ORDER BY ts DESC\nLIMIT {limit:UInt32}")
	q.bind("limit", limit)
	rows, err := collect[struct {
		TimeNs int64  `ch:"time_ns"`
		Sender string `ch:"sender"`
		Signal string `ch:"signal"`
		Reason string `ch:"reason"`
		Data   string `ch:"data"`
		Size   uint64 `ch:"size"`
	}](ctx, s, nil, q)
	if err != nil {
		return nil, wrap("list invalid messages", err)
	}
	list := make([]storage.Invalid, len(rows))
	for i, r := range rows {
		list[i] = storage.Invalid{Time: r.TimeNs, Sender: r.Sender, Signal: r.Signal, Reason: r.Reason, Data: []byte(r.Data), Size: int64(r.Size)}
	}
	return list, nil
}
