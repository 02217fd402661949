package clickhouse

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

const (
	defaultChannels = 500
	maxChannels     = 5000
	sparkSlots      = 48
	// describedWithin is how far back a broker's description of a channel is
	// looked for, rateWindow how far back its counters are.
	describedWithin = 15 * time.Minute
	rateWindow      = 5 * time.Minute
)

// channelMetrics are what agents say of channels.
var channelMetrics = []string{
	controlbus.MetricChannelMessages, controlbus.MetricChannelBytes, controlbus.MetricChannelConsumers,
	controlbus.MetricChannelPublished, controlbus.MetricChannelDelivered, controlbus.MetricChannelAcked, controlbus.MetricChannelLag,
}

// Channels returns the channels that brokers described or taps saw in the
// range, by name.
func (s *Store) Channels(ctx context.Context, q storage.ChannelQuery) ([]storage.ChannelState, error) {
	defer s.timed("list channels")()
	list, err := s.channels(ctx, q)
	return list, wrap("list channels", err)
}

func (s *Store) channels(ctx context.Context, q storage.ChannelQuery) ([]storage.ChannelState, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	limit := q.Limit
	if limit <= 0 {
		limit = defaultChannels
	}
	limit = min(limit, maxChannels)
	states := make(map[controlbus.ChannelName]*storage.ChannelState)
	get := func(name controlbus.ChannelName) *storage.ChannelState {
		st := states[name]
		if st == nil {
			nan := math.NaN()
			st = &storage.ChannelState{
				ChannelName: name, Ready: nan, Unacked: nan, Bytes: nan, Consumers: nan, Lag: nan,
				PublishedS: nan, DeliveredS: nan, AckedS: nan,
			}
			states[name] = st
		}
		return st
	}
	var traffic []trafficRow
	var described []description
	var seen map[watcher]coverage
	g := s.newGrid(nanos(q.Range), q.Range.Duration()/sparkSlots)
	grp, gctx := errgroup.WithContext(ctx)
	grp.Go(func() (err error) {
		traffic, err = s.channelTraffic(gctx, q, g, limit)
		return err
	})
	if !q.TrafficOnly {
		grp.Go(func() (err error) {
			described, err = s.describedChannels(gctx, q)
			return err
		})
		grp.Go(func() (err error) {
			seen, err = s.watched(gctx, q.Env, q.Broker, g)
			return err
		})
	}
	if err := grp.Wait(); err != nil {
		return nil, err
	}
	for _, d := range described {
		d.apply(get(d.name))
	}
	for i := range traffic {
		t := &traffic[i]
		st := get(controlbus.ChannelName{Env: t.Env, System: t.System, Broker: t.Broker, Name: t.Channel})
		st.Tapped, st.TappedBytes, st.Failed = t.Tapped, t.Bytes, t.Failed
		if t.LastS > 0 {
			st.LastMessage = time.Unix(t.LastS, 0).UTC()
		}
		sums := make(map[int]float64, len(t.SparkAt))
		for i, slot := range t.SparkAt {
			sums[int(slot)] = float64(t.SparkN[i]) * float64(g.width)
		}
		for _, p := range g.fill(sums, seen[watcher{t.Env, t.Broker}]) {
			st.Spark = append(st.Spark, p.Value)
		}
	}
	list := make([]storage.ChannelState, 0, len(states))
	for _, st := range states {
		list = append(list, *st)
	}
	slices.SortFunc(list, func(a, b storage.ChannelState) int {
		return cmp.Or(cmp.Compare(a.Env, b.Env), cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.Name, b.Name), cmp.Compare(a.System, b.System))
	})
	return list[:min(len(list), limit)], nil
}

// trafficRow is a row of query/channels.sql.
type trafficRow struct {
	Env     string   `ch:"env"`
	System  string   `ch:"system"`
	Broker  string   `ch:"broker"`
	Channel string   `ch:"destination"`
	Tapped  uint64   `ch:"tapped"`
	Bytes   uint64   `ch:"tapped_bytes"`
	Failed  uint64   `ch:"failures"`
	LastS   int64    `ch:"last_s"`
	SparkAt []uint32 `ch:"spark_at"`
	SparkN  []uint64 `ch:"spark_n"`
}

func (s *Store) channelTraffic(ctx context.Context, c storage.ChannelQuery, g grid, limit int) ([]trafficRow, error) {
	q := newSelection(s.query("channels"))
	g.over(q)
	q.equal("env", "env", c.Env)
	q.equal("broker", "broker", c.Broker)
	q.channel("destination", c.Pattern)
	q.visible("env", "destination")
	q.add("GROUP BY env, system, broker, destination\nORDER BY env, broker, destination\nLIMIT {limit:UInt32}")
	q.bind("limit", limit)
	return collect[trafficRow](ctx, s, nil, q)
}

// description is one series of one channel's description.
type description struct {
	name        controlbus.ChannelName
	metric      string
	state, kind string
	value, rate float64
	seen        time.Time
}

func (d *description) apply(st *storage.ChannelState) {
	if d.seen.After(st.SeenAt) {
		st.SeenAt = d.seen
	}
	if d.kind != "" {
		st.Kind = d.kind
	}
	switch d.metric {
	case controlbus.MetricChannelMessages:
		if d.state == "unacked" {
			st.Unacked = d.value
		} else {
			st.Ready = d.value
		}
	case controlbus.MetricChannelBytes:
		st.Bytes = d.value
	case controlbus.MetricChannelConsumers:
		st.Consumers = d.value
	case controlbus.MetricChannelPublished:
		st.PublishedS = d.rate
	case controlbus.MetricChannelDelivered:
		st.DeliveredS = d.rate
	case controlbus.MetricChannelAcked:
		st.AckedS = d.rate
	case controlbus.MetricChannelLag:
		// Of several consumer groups the one furthest behind counts.
		if math.IsNaN(st.Lag) || d.value > st.Lag {
			st.Lag = d.value
		}
	}
}

// seriesRow is a series of one of the channel metrics.
type seriesRow struct {
	Metric  string `ch:"metric"`
	Series  uint64 `ch:"series"`
	Env     string `ch:"env"`
	System  string `ch:"system"`
	Broker  string `ch:"broker"`
	Channel string `ch:"channel"`
	Kind    string `ch:"kind"`
	State   string `ch:"state"`
}

type seriesKey struct {
	metric string
	series uint64
}

// channelSeries are the series that describe channels of the range. Labels
// carry attributes under their own names. channel adds the conditions on the
// label of the channel's name, and says what the series are limited by.
func (s *Store) channelSeriesOf(ctx context.Context, r nanoRange, env, broker string, channel func(*selection, string), metrics []string) (map[seriesKey]seriesRow, error) {
	q := newSelection(s.query("channel_series"))
	q.where("metric IN {metrics:Array(String)}")
	q.bind("metrics", metrics)
	q.where("day >= toDate(fromUnixTimestamp64Nano({from:Int64}, 'UTC'))")
	q.where("day <= toDate(fromUnixTimestamp64Nano({to:Int64}, 'UTC'))")
	q.bind("from", r.from)
	q.bind("to", r.to)
	q.bind("l_env", controlbus.AttrEnvironment)
	q.bind("l_system", controlbus.AttrSystem)
	q.bind("l_broker", controlbus.AttrBroker)
	q.bind("l_channel", controlbus.AttrDestination)
	q.bind("l_kind", controlbus.AttrChannelKind)
	q.bind("l_state", controlbus.AttrMessageState)
	q.equal(envLabel, "env", env)
	q.equal("labels[{l_broker:String}]", "broker", broker)
	channel(q, "labels[{l_channel:String}]")
	q.add("LIMIT 1 BY metric, series\nLIMIT {limit:UInt32}")
	q.bind("limit", maxSeries)
	rows, err := collect[seriesRow](ctx, s, nil, q)
	if err != nil {
		return nil, err
	}
	m := make(map[seriesKey]seriesRow, len(rows))
	for _, r := range rows {
		m[seriesKey{r.Metric, r.Series}] = r
	}
	return m, nil
}

const (
	maxSeries = 100_000
	envLabel  = "labels[{l_env:String}]"
)

// sampleRow is a row of query/channel_samples.sql.
type sampleRow struct {
	Metric  string    `ch:"metric"`
	Series  uint64    `ch:"series"`
	Latest  float64   `ch:"latest"`
	FirstMs int64     `ch:"first_ms"`
	LastMs  int64     `ch:"last_ms"`
	History []float64 `ch:"history"`
}

func (s *Store) describedChannels(ctx context.Context, c storage.ChannelQuery) ([]description, error) {
	r := nanos(c.Range)
	r.to = min(r.to, nanosOf(time.Now())+int64(time.Minute))
	r.from = max(r.to-int64(describedWithin), minTime)
	series, err := s.channelSeriesOf(ctx, r, c.Env, c.Broker, func(q *selection, column string) {
		q.channel(column, c.Pattern)
		q.visible(envLabel, column)
	}, channelMetrics)
	if err != nil || len(series) == 0 {
		return nil, err
	}
	q := newSelection(s.query("channel_samples")).unlimited("only the series above are taken from the answer")
	q.where("metric IN {metrics:Array(String)}")
	q.bind("metrics", channelMetrics)
	q.bind("recent", (r.to-int64(rateWindow))/1e6)
	q.between("ts", r, false)
	q.add("GROUP BY metric, series")
	rows, err := collect[sampleRow](ctx, s, nil, q)
	if err != nil {
		return nil, err
	}
	// Where several series describe one thing (an agent that was restarted
	// under another name), the one heard from last is applied last.
	slices.SortFunc(rows, func(a, b sampleRow) int {
		return cmp.Or(cmp.Compare(a.LastMs, b.LastMs), cmp.Compare(a.Series, b.Series))
	})
	var list []description
	for _, row := range rows {
		sr, ok := series[seriesKey{row.Metric, row.Series}]
		if !ok {
			continue
		}
		list = append(list, description{
			name:   controlbus.ChannelName{Env: sr.Env, System: sr.System, Broker: sr.Broker, Name: sr.Channel},
			metric: row.Metric, state: sr.State, kind: sr.Kind,
			value: row.Latest, rate: counterRate(row.History, float64(row.LastMs-row.FirstMs)/1e3),
			seen: instant(row.LastMs * 1e6),
		})
	}
	return list, nil
}

// rateRecent is how much of rateWindow a rate is taken over where counters come
// often enough: an outage must show within the minute. Whoever reports once a
// minute still gets a rate from the whole window.
const rateRecent = 30 * time.Second

// counterRate is what a counter gained per second of late; history spans
// seconds in even steps. A fall is a restart: the broker counted from zero
// again.
func counterRate(history []float64, seconds float64) float64 {
	if len(history) < 2 || seconds <= 0 {
		return math.NaN()
	}
	step := seconds / float64(len(history)-1)
	if n := int(math.Ceil(rateRecent.Seconds()/step)) + 1; n >= 3 && n < len(history) {
		history, seconds = history[len(history)-n:], step*float64(n-1)
	}
	var gained float64
	for i := 1; i < len(history); i++ {
		if d := history[i] - history[i-1]; d >= 0 {
			gained += d
		} else {
			gained += history[i]
		}
	}
	return gained / seconds
}

// ChannelSeries returns the charts of one channel.
func (s *Store) ChannelSeries(ctx context.Context, q storage.SeriesQuery) (storage.ChannelSeries, error) {
	defer s.timed("chart a channel")()
	cs, err := s.channelSeries(ctx, q)
	return cs, wrap("chart channel", err)
}

// slotRow is a row of query/channel_traffic.sql or query/channel_raw.sql.
type slotRow struct {
	Slot   uint32   `ch:"slot"`
	Op     int8     `ch:"op_n"`
	N      uint64   `ch:"events"`
	Failed uint64   `ch:"failures"`
	Bytes  uint64   `ch:"size"`
	Keys   []uint8  `ch:"bucket_keys"`
	Counts []uint64 `ch:"bucket_counts"`
}

func (s *Store) channelSeries(ctx context.Context, q storage.SeriesQuery) (storage.ChannelSeries, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	r := nanos(q.Range)
	raw := q.Step < rawStep && q.Range.Duration() <= rawRange
	g := s.newGrid(r, q.Step)
	if raw {
		g = rawGrid(r, q.Step)
	}
	var rows []slotRow
	var ready, unacked []storage.Point
	var seen map[watcher]coverage
	grp, gctx := errgroup.WithContext(ctx)
	grp.Go(func() (err error) {
		sel := newSelection(s.query("channel_traffic"))
		if raw {
			sel = newSelection(s.query("channel_raw"))
			sel.between("ts", nanoRange{from: g.start * 1e9, to: g.end() * 1e9}, true)
			sel.bind("width_ns", g.width*1e9)
		} else {
			g.over(sel)
		}
		sel.thisChannel(q.Channel)
		sel.visible("env", "destination")
		sel.add("GROUP BY slot, op_n\nORDER BY slot, op_n")
		rows, err = collect[slotRow](gctx, s, nil, sel)
		return err
	})
	grp.Go(func() (err error) {
		ready, unacked, err = s.channelDepth(gctx, q.Channel, g)
		return err
	})
	grp.Go(func() (err error) {
		seen, err = s.watched(gctx, q.Channel.Env, q.Channel.Broker, g)
		return err
	})
	if err := grp.Wait(); err != nil {
		return storage.ChannelSeries{}, err
	}
	totals := make(map[controlbus.Op]float64)
	for _, r := range rows {
		totals[controlbus.Op(r.Op)] += float64(r.N)
	}
	counts := observation(totals)
	rate, failed, bytes := make(map[int]float64), make(map[int]float64), make(map[int]float64)
	hists := make(map[int]*histogram)
	for _, r := range rows {
		slot := int(r.Slot)
		if counts(controlbus.Op(r.Op)) {
			rate[slot] += float64(r.N)
			bytes[slot] += float64(r.Bytes)
		}
		failed[slot] += float64(r.Failed)
		if len(r.Keys) > 0 {
			h := hists[slot]
			if h == nil {
				h = new(histogram)
				hists[slot] = h
			}
			h.add(r.Keys, r.Counts)
		}
	}
	p50, p99 := make(map[int]float64, len(hists)), make(map[int]float64, len(hists))
	for slot, h := range hists {
		p50[slot], p99[slot] = h.quantile(0.5), h.quantile(0.99)
	}
	watched := join(seen)
	return storage.ChannelSeries{
		Rate: g.fill(rate, watched), Failed: g.fill(failed, watched), Bytes: g.fill(bytes, watched),
		P50: g.values(p50), P99: g.values(p99), Ready: ready, Unacked: unacked,
	}, nil
}

// thisChannel selects exactly one channel. An empty system or broker is any.
func (q *selection) thisChannel(c controlbus.ChannelName) {
	q.equal("env", "env", c.Env)
	q.equal("system", "system", c.System)
	q.equal("broker", "broker", c.Broker)
	q.where("destination = {channel:String}")
	q.bind("channel", c.Name)
}

// channelDepth is what the broker said of a channel's depth, the last value of
// each slot.
func (s *Store) channelDepth(ctx context.Context, c controlbus.ChannelName, g grid) (ready, unacked []storage.Point, err error) {
	r := nanoRange{from: g.start * 1e9, to: g.end() * 1e9}
	series, err := s.channelSeriesOf(ctx, r, c.Env, c.Broker, func(q *selection, column string) {
		q.equal(column, "channel", c.Name)
		q.visible(envLabel, column)
	}, []string{controlbus.MetricChannelMessages})
	if err != nil {
		return nil, nil, err
	}
	at := map[bool]map[int]float64{false: {}, true: {}}
	if len(series) > 0 {
		ids := make([]uint64, 0, len(series))
		for k := range series {
			ids = append(ids, k.series)
		}
		slices.Sort(ids)
		q := newSelection(s.sql("SELECT series, toUInt32(intDiv(toUnixTimestamp(ts) - {start:UInt32}, {width:UInt32})) AS slot, argMax(value, ts) AS latest\n" +
			"FROM @db.samples\nWHERE")).unlimited("of the series above")
		q.where("metric = {metric:String}")
		q.where("series IN {series:Array(UInt64)}")
		q.between("ts", r, false)
		q.add("GROUP BY series, slot\nORDER BY slot, series")
		q.bind("metric", controlbus.MetricChannelMessages)
		q.bind("series", ids)
		q.bind("start", uint32(g.start))
		q.bind("width", uint32(g.width))
		rows, err := collect[struct {
			Series uint64  `ch:"series"`
			Slot   uint32  `ch:"slot"`
			Value  float64 `ch:"latest"`
		}](ctx, s, nil, q)
		if err != nil {
			return nil, nil, err
		}
		for _, row := range rows {
			sr := series[seriesKey{controlbus.MetricChannelMessages, row.Series}]
			at[sr.State == "unacked"][int(row.Slot)] = row.Value
		}
	}
	return g.values(at[false]), g.values(at[true]), nil
}
