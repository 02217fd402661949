package clickhouse

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// grid divides a range into slots of one width for a chart. It begins on a
// multiple of the width, so that a chart does not wobble as time goes on.
type grid struct {
	start int64 // seconds
	width int64 // seconds
	slots int
	step  uint16 // of the roll-up that serves it
}

const maxSlots = 2000

// newGrid makes slots of about the width asked for: a multiple of the step of
// the roll-up that serves them.
func (s *Store) newGrid(r nanoRange, width time.Duration) grid {
	from, to := r.from/1e9, (r.to+1e9-1)/1e9
	g := grid{width: max(int64(width/time.Second), int64(rollupSteps[0]))}
	g.width = max(g.width, (to-from+maxSlots-1)/maxSlots)
	g.step = s.rollupStep(from, g.width)
	step := int64(g.step)
	g.width = (g.width + step - 1) / step * step
	g.start = from / g.width * g.width
	g.slots = int((to - g.start + g.width - 1) / g.width)
	return g
}

// A chart finer than the roll-up, over a short time, is made from the messages
// themselves.
const (
	rawStep  = 10 * time.Second
	rawRange = time.Hour
)

func rawGrid(r nanoRange, width time.Duration) grid {
	from, to := r.from/1e9, (r.to+1e9-1)/1e9
	g := grid{width: max(int64(width/time.Second), 1, (to-from+maxSlots-1)/maxSlots)}
	g.start = from / g.width * g.width
	g.slots = int((to - g.start + g.width - 1) / g.width)
	return g
}

// rollupStep is the coarsest roll-up that is fine enough for width, or a
// coarser one when retention has dropped that already.
func (s *Store) rollupStep(from, width int64) uint16 {
	age := time.Since(time.Unix(from, 0))
	kept := func(days int) bool { return days == 0 || age < time.Duration(days)*24*time.Hour }
	step := rollupSteps[0]
	for _, candidate := range rollupSteps[1:] {
		if int64(candidate) <= width {
			step = candidate
		}
	}
	if step == rollupSteps[0] && !kept(s.cfg.Retention.Rollup10) {
		step = rollupSteps[1]
	}
	if step == rollupSteps[1] && !kept(s.cfg.Retention.Rollup60) {
		step = rollupSteps[2]
	}
	return step
}

func (g grid) end() int64              { return g.start + int64(g.slots)*g.width }
func (g grid) time(slot int) time.Time { return time.Unix(g.start+int64(slot)*g.width, 0).UTC() }

// over adds the conditions that select the grid's rows of the roll-up.
func (g grid) over(q *selection) {
	q.where("step = {step:UInt16}")
	q.where("t >= toDateTime({start:UInt32}, 'UTC')")
	q.where("t < toDateTime({end:UInt32}, 'UTC')")
	q.bind("step", g.step)
	q.bind("start", uint32(g.start))
	q.bind("end", uint32(g.end()))
	q.bind("width", uint32(g.width))
}

// settle is how long after its end a slot of a chart may still grow: senders
// collect before they send, and the queue before it writes. Until then the slot
// is left out, because half a step drawn whole looks like a fall.
const settle = 10 * time.Second

// fill turns sums per slot into points per second. A slot without traffic is 0
// where somebody watched, and NaN, unknown, where nobody did. Where nobody ever
// says that he watches, only services' own telemetry is there, and everything
// between its first and last traffic counts as watched.
func (g grid) fill(sums map[int]float64, watched coverage) []storage.Point {
	points := make([]storage.Point, g.slots)
	first, last := g.slots, -1
	if watched == nil {
		for slot := range sums {
			first, last = min(first, slot), max(last, slot)
		}
	}
	settled := time.Now().Add(-settle).Unix()
	for i := range points {
		points[i] = storage.Point{Time: g.time(i), Value: math.NaN()}
		n, seen := sums[i]
		if g.start+int64(i+1)*g.width <= settled && (seen || watched[i] || i >= first && i <= last) {
			points[i].Value = n / float64(g.width)
		}
	}
	return points
}

// coverage says of which slots it is known what passed; nil where nobody says.
type coverage map[int]bool

// join is what any of them watched.
func join(all map[watcher]coverage) coverage {
	var out coverage
	for _, c := range all {
		if out == nil {
			out = coverage{}
		}
		for slot := range c {
			out[slot] = true
		}
	}
	return out
}

// watcher is a broker that an agent observes.
type watcher struct{ env, broker string }

// A report of an agent speaks for the time until the next one is due, with some
// patience, within these bounds.
const (
	minReport = 25 * time.Second
	maxReport = 3 * time.Minute
)

// watched finds out from the agents' reports when each broker was observed.
func (s *Store) watched(ctx context.Context, env, broker string, g grid) (map[watcher]coverage, error) {
	r := nanoRange{from: max(g.start*1e9-int64(maxReport), minTime), to: g.end() * 1e9}
	series, err := s.channelSeriesOf(ctx, r, env, broker, func(q *selection, _ string) { q.visible(envLabel, "") }, []string{controlbus.MetricBrokerUp})
	if err != nil || len(series) == 0 {
		return nil, err
	}
	ids := make([]uint64, 0, len(series))
	for k := range series {
		ids = append(ids, k.series)
	}
	slices.Sort(ids)
	q := newSelection(s.sql("SELECT series, toInt64(intDiv(toInt64(toUnixTimestamp(ts)) - {start:Int64} + 1000000 * {width:Int64}, {width:Int64}) - 1000000) AS slot,\n" +
		"    toInt64(toUnixTimestamp(min(ts))) AS first_s, toInt64(toUnixTimestamp(max(ts))) AS last_s, count() AS reports\n" +
		"FROM @db.samples\nWHERE")).unlimited("of the series above")
	q.where("metric = {metric:String}")
	q.where("series IN {series:Array(UInt64)}")
	q.between("ts", r, false)
	q.where("value > 0")
	q.add("GROUP BY series, slot\nORDER BY series, slot")
	q.bind("metric", controlbus.MetricBrokerUp)
	q.bind("series", ids)
	q.bind("start", g.start)
	q.bind("width", g.width)
	rows, err := collect[reportRow](ctx, s, nil, q)
	if err != nil {
		return nil, err
	}
	out := make(map[watcher]coverage)
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].Series == rows[0].Series {
			n++
		}
		sr := series[seriesKey{controlbus.MetricBrokerUp, rows[0].Series}]
		w := watcher{sr.Env, sr.Broker}
		if out[w] == nil {
			out[w] = coverage{}
		}
		g.cover(out[w], rows[:n])
		rows = rows[n:]
	}
	return out, nil
}

// reportRow says when a series had samples within a slot.
type reportRow struct {
	Series uint64 `ch:"series"`
	Slot   int64  `ch:"slot"`
	FirstS int64  `ch:"first_s"`
	LastS  int64  `ch:"last_s"`
	N      uint64 `ch:"reports"`
}

// cover marks the slots for which the reports of one series speak.
func (g grid) cover(c coverage, rows []reportRow) {
	var reports uint64
	for _, r := range rows {
		reports += r.N
	}
	patience := maxReport
	if reports > 1 {
		every := time.Duration(rows[len(rows)-1].LastS-rows[0].FirstS) * time.Second / time.Duration(reports-1)
		patience = min(max(every*5/2, minReport), maxReport)
	}
	for _, r := range rows {
		for slot := (r.FirstS - g.start) / g.width; slot <= (r.LastS+int64(patience/time.Second)-g.start)/g.width && slot < int64(g.slots); slot++ {
			if slot >= 0 {
				c[int(slot)] = true
			}
		}
	}
}

// values puts values at their slots and NaN everywhere else.
func (g grid) values(at map[int]float64) []storage.Point {
	points := make([]storage.Point, g.slots)
	for i := range points {
		v, ok := at[i]
		if !ok {
			v = math.NaN()
		}
		points[i] = storage.Point{Time: g.time(i), Value: v}
	}
	return points
}

// observation is how a channel's messages were seen. A message that was sent,
// tapped and processed is one message, so only one kind is counted: the tap's,
// which misses nobody, else what senders or consumers say of themselves.
func observation(n map[controlbus.Op]float64) (count func(controlbus.Op) bool) {
	is := func(ops ...controlbus.Op) func(controlbus.Op) bool {
		return func(op controlbus.Op) bool {
			for _, o := range ops {
				if o == op {
					return true
				}
			}
			return false
		}
	}
	for _, ops := range [][]controlbus.Op{
		{controlbus.OpTap}, {controlbus.OpSend}, {controlbus.OpProcess}, {controlbus.OpReceive}, {controlbus.OpCreate}, {controlbus.OpSettle},
	} {
		if n[ops[0]] > 0 {
			return is(ops...)
		}
	}
	return is(controlbus.OpUnknown)
}

// histogram counts latencies in log2 buckets with eight steps an octave; see
// storage.Pane.
type histogram [256]uint64

func (h *histogram) add(keys []uint8, counts []uint64) {
	for i, k := range keys {
		h[k] += counts[i]
	}
}

// quantile is in seconds, right to 9 %, NaN of an empty histogram.
func (h *histogram) quantile(q float64) float64 {
	var total uint64
	for _, n := range h {
		total += n
	}
	if total == 0 {
		return math.NaN()
	}
	rank := uint64(math.Ceil(q * float64(total)))
	var sum uint64
	for k, n := range h {
		if sum += n; sum >= max(rank, 1) {
			return math.Exp2((float64(k)+80.5)/8) / 1e9
		}
	}
	return math.NaN()
}
