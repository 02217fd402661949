package clickhouse

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	chdriver "github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// byLabels: the Prometheus API looks at the labels of what it gets.
const byLabels = "limited by labels where it is used"

const (
	maxMetrics = 100_000
	// seriesAtOnce bounds the ids bound to one query: they travel in its address.
	seriesAtOnce = 2000
)

// Metrics returns the metrics that had samples on the days of the range, by name.
func (s *Store) Metrics(ctx context.Context, r storage.TimeRange) ([]storage.Metric, error) {
	q := newSelection(s.query("metrics")).unlimited(byLabels)
	q.days(nanos(r))
	q.add("GROUP BY metric, kind, unit\nORDER BY metric, kind, unit\nLIMIT {limit:UInt32}")
	q.bind("limit", maxMetrics)
	var list []storage.Metric
	err := s.stream(ctx, q, func(rows chdriver.Rows) error {
		var m storage.Metric
		if err := rows.Scan(&m.Name, &m.Kind, &m.Unit); err != nil {
			return err
		}
		list = append(list, m)
		return nil
	})
	return list, wrap("list metrics", err)
}

// MetricSeries returns series with their labels, in a fixed order.
func (s *Store) MetricSeries(ctx context.Context, mq storage.MetricQuery) ([]storage.MetricSeries, error) {
	defer s.timed("metric series")()
	q := newSelection(s.query("metric_series")).unlimited(byLabels)
	q.narrow(mq)
	q.visible(seriesEnv, seriesChannel)
	q.add("ORDER BY metric, series\nLIMIT 1 BY metric, series\nLIMIT {limit:UInt32}")
	q.bind("limit", mq.Limit+1)
	var list []storage.MetricSeries
	err := s.stream(ctx, q, func(rows chdriver.Rows) error {
		var m storage.MetricSeries
		var keys, values []string
		if err := rows.Scan(&m.Name, &m.ID, &m.Kind, &m.Unit, &keys, &values); err != nil {
			return err
		}
		if len(list) == mq.Limit {
			return fmt.Errorf("%w: more than %d series: narrow the selection", controlbus.ErrTooLarge, mq.Limit)
		}
		m.Labels = make([]storage.Attr, min(len(keys), len(values)))
		for i := range m.Labels {
			m.Labels[i] = storage.Attr{Key: keys[i], Value: values[i]}
		}
		list = append(list, m)
		return nil
	})
	return list, wrap("select series", err)
}

// MetricLabels returns the names of the labels that series of the range carry.
func (s *Store) MetricLabels(ctx context.Context, mq storage.MetricQuery) ([]string, error) {
	q := newSelection(s.sql("SELECT DISTINCT arrayJoin(mapKeys(labels)) AS name\nFROM @db.series\nWHERE")).unlimited(byLabels)
	q.narrow(mq)
	q.visible(seriesEnv, seriesChannel)
	q.add("ORDER BY name\nLIMIT {limit:UInt32}")
	q.bind("limit", mq.Limit)
	return s.texts(ctx, "list labels", q)
}

// MetricLabelValues returns the values that a label has in series of the range.
func (s *Store) MetricLabelValues(ctx context.Context, mq storage.MetricQuery, label string) ([]string, error) {
	q := newSelection(s.sql("SELECT DISTINCT labels[unhex({label:String})] AS value\nFROM @db.series\nWHERE")).unlimited(byLabels)
	q.narrow(mq)
	q.where("mapContains(labels, unhex({label:String}))")
	q.bind("label", hex.EncodeToString([]byte(label)))
	q.visible(seriesEnv, seriesChannel)
	q.add("ORDER BY value\nLIMIT {limit:UInt32}")
	q.bind("limit", mq.Limit)
	return s.texts(ctx, "list label values", q)
}

func (s *Store) texts(ctx context.Context, what string, q *selection) ([]string, error) {
	var list []string
	err := s.stream(ctx, q, func(rows chdriver.Rows) error {
		var v string
		if err := rows.Scan(&v); err != nil {
			return err
		}
		list = append(list, v)
		return nil
	})
	return list, wrap(what, err)
}

// days adds the condition that bounds a table of descriptions to days.
func (q *selection) days(r nanoRange) {
	q.where("day >= toDate(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))")
	q.where("day <= toDate(fromUnixTimestamp64Nano({to:Int64}, 'UTC'))")
	q.bind("from", r.from)
	q.bind("to", max(r.to-1, r.from))
}

// narrow adds the conditions of a MetricQuery.
func (q *selection) narrow(mq storage.MetricQuery) {
	q.days(nanos(mq.Range))
	if len(mq.Metrics) > 0 {
		q.anyOf(textSet("metric", "metrics", mq.Metrics))
	}
	for i, values := range mq.Values {
		name := fmt.Sprintf("values_%d", i)
		q.where("hasAny(mapValues(labels), arrayMap(v -> unhex(v), {" + name + ":Array(String)}))")
		q.bind(name, hexed(values))
	}
}

// Columns by which series can be limited to what a reader may see.
const (
	seriesEnv     = "labels['" + controlbus.AttrEnvironment + "']"
	seriesChannel = "labels['" + controlbus.AttrDestination + "']"
)

// Samples calls each for every sample selected.
func (s *Store) Samples(ctx context.Context, sq storage.SampleQuery, each storage.SampleFunc) error {
	defer s.timed("samples")()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	left := sq.Limit
	var series proto.ColUInt64
	var ms proto.ColInt64
	var values proto.ColFloat64
	columns := proto.Results{{Name: "series", Data: &series}, {Name: "ms", Data: &ms}, {Name: "sample", Data: &values}}
	read := func(ids []uint64) error {
		return s.blocks(ctx, s.samples(sq, ids), columns, func(n int) error {
			if left -= n; left < 0 {
				return fmt.Errorf("%w: more than %d samples: shorten the range, enlarge the step, or narrow the selection", controlbus.ErrTooLarge, sq.Limit)
			}
			for i := range n {
				if err := each(series[i], ms[i], values[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if len(sq.Series) == 0 {
		return wrap("read samples", read(nil))
	}
	ids := slices.Clone(sq.Series)
	slices.Sort(ids) // neighbours of the key go together
	for part := range slices.Chunk(ids, seriesAtOnce) {
		if err := read(part); err != nil {
			return wrap("read samples", err)
		}
	}
	return nil
}

// samples is the query for samples of some series, or of all of the metrics.
// Samples that no point of the grid looks at stay where they are: of those
// between two windows none is read, and where only the newest of a window
// counts, one of each step is.
func (s *Store) samples(sq storage.SampleQuery, ids []uint64) *selection {
	g, r := sq.Grid, nanos(sq.Range)
	steps := g.Step > 0
	if steps {
		r.to = min(r.to, nanosOf(g.End.Add(time.Millisecond)))
	}
	newest := steps && g.Newest
	text := "samples"
	if newest {
		text = "samples_newest"
	}
	q := newSelection(s.query(text)).unlimited(byLabels)
	q.anyOf(textSet("metric", "metrics", sq.Metrics))
	if len(ids) > 0 {
		q.where("series IN {series:Array(UInt64)}")
		q.bind("series", ids)
		q.unlimited("samples have no names: who asks for series has been shown them")
	}
	q.between("ts", r, false)
	if steps && g.Window < g.Step {
		q.where("modulo({end:Int64} - toUnixTimestamp64Milli(ts), {step:Int64}) < {window:Int64}")
		q.bind("window", g.Window.Milliseconds())
	}
	if newest {
		q.add("GROUP BY series, intDiv({end:Int64} - toUnixTimestamp64Milli(ts), {step:Int64})")
	}
	if newest || steps && g.Window < g.Step {
		q.bind("end", g.End.UnixMilli())
		q.bind("step", g.Step.Milliseconds())
	}
	return q
}
