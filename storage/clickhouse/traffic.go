package clickhouse

import (
	"math"
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

// fill turns sums per slot into points per second: NaN before the first and
// behind the last slot that has data, where nothing is known, 0 between.
func (g grid) fill(sums map[int]float64) []storage.Point {
	points := make([]storage.Point, g.slots)
	first, last := g.slots, -1
	for slot := range sums {
		first, last = min(first, slot), max(last, slot)
	}
	for i := range points {
		points[i] = storage.Point{Time: g.time(i), Value: math.NaN()}
		if i >= first && i <= last {
			points[i].Value = sums[i] / float64(g.width)
		}
	}
	return points
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
