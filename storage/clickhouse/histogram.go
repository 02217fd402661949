package clickhouse

import (
	"context"
	"fmt"
	"math"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Histogram counts what q selects, per step over its whole range; cursor and
// limit do not matter. What the roll-up is kept by is counted from there and
// is exact to the nanosecond, because the ends of the range, which lie within
// a step of the roll-up, are counted from the messages. Everything else is
// counted from the messages, in slices of time in q's order, until the deadline
// strikes; then it says how far it came.
func (s *Store) Histogram(ctx context.Context, q storage.MessageQuery, step time.Duration) (storage.Histogram, error) {
	defer s.timed("count a search")()
	h, err := s.histogram(ctx, q, step)
	return h, wrap("count messages", err)
}

// shortest is the finest step that is counted; what is finer is a list.
const shortest = time.Millisecond

func (s *Store) histogram(ctx context.Context, q storage.MessageQuery, step time.Duration) (storage.Histogram, error) {
	begin := time.Now()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	q.Cursor, q.Limit, q.Snippets = "", 0, false
	sr, err := s.newSearch(q)
	if err != nil {
		return storage.Histogram{}, err
	}
	if step < shortest || sr.whole.empty() {
		return storage.Histogram{}, fmt.Errorf("%w: histogram of %v in steps of %v: want a range, and steps of at least %v", controlbus.ErrInvalid, q.Range.Duration(), step, shortest)
	}
	q = sr.q
	c := &counter{search: sr, q: q}
	rolled := int64(0) // step of the roll-up that serves it, in nanoseconds
	if q.Summed() && step%rawStep == 0 {
		rolled = s.histogramStep(sr.whole, step)
		step = (step + time.Duration(rolled) - 1) / time.Duration(rolled) * time.Duration(rolled)
	}
	c.width = int64(step)
	c.start = sr.whole.from - mod(sr.whole.from, c.width)
	slots := (sr.whole.to - c.start + c.width - 1) / c.width
	if slots > maxSlots {
		return storage.Histogram{}, fmt.Errorf("%w: histogram of %d steps: want at most %d", controlbus.ErrInvalid, slots, maxSlots)
	}
	c.bars = make([]storage.Bar, slots)
	stopped := storage.StopEnd
	if rolled > 0 {
		err = c.fromRollup(ctx, rolled)
		if timedOut(err) {
			// Nothing of it is usable: parts were counted side by side.
			stopped, err = storage.StopDeadline, nil
			c.bars = make([]storage.Bar, slots)
			c.counted = nanoRange{from: sr.at.ts, to: sr.at.ts}
		}
	} else {
		stopped, err = c.fromMessages(ctx)
	}
	if err != nil {
		return storage.Histogram{}, err
	}
	return c.result(stopped, time.Since(begin)), nil
}

func mod(a, b int64) int64 { return (a%b + b) % b }

// histogramStep is the roll-up that serves a range in steps of width: a fine
// one where that is cheap, because the fine one needs fewer messages counted
// at the ends.
func (s *Store) histogramStep(r nanoRange, width time.Duration) int64 {
	least := int64(width / time.Second)
	switch span := time.Duration(r.to - r.from); {
	case span <= 6*time.Hour:
		least = int64(rollupSteps[0])
	case span <= 24*time.Hour:
		least = min(least, int64(rollupSteps[1]))
	}
	return int64(s.rollupStep(r.from/1e9, least)) * 1e9
}

// counter fills the bars.
type counter struct {
	*search
	q            storage.MessageQuery
	start, width int64
	bars         []storage.Bar
	counted      nanoRange
}

// barRow is the count of one slot.
type barRow struct {
	Slot   uint32 `ch:"slot"`
	N      uint64 `ch:"events"`
	Failed uint64 `ch:"failures"`
}

func (c *counter) add(rows []barRow) {
	for _, r := range rows {
		if int(r.Slot) < len(c.bars) {
			c.bars[r.Slot].Messages += r.N
			c.bars[r.Slot].Failed += r.Failed
		}
	}
}

// longestEnd is how much of either end of a range is counted from the
// messages; a longer end belongs to old data in a coarse roll-up, and is
// counted with the whole step that it lies in.
const longestEnd = int64(time.Minute)

func (c *counter) fromRollup(ctx context.Context, step int64) error {
	r := c.whole
	inner := nanoRange{from: r.from - mod(r.from, step), to: r.to + mod(-r.to, step)}
	var ends []nanoRange
	if step <= longestEnd {
		// Both ends are cut to whole steps; what is cut off is counted apart.
		low, high := r.from+mod(-r.from, step), r.to-mod(r.to, step)
		switch {
		case low >= high:
			inner, ends = nanoRange{}, []nanoRange{r}
		default:
			inner = nanoRange{from: low, to: high}
			ends = []nanoRange{{from: r.from, to: low}, {from: high, to: r.to}}
		}
	}
	var rows [3][]barRow
	grp, gctx := errgroup.WithContext(ctx)
	if !inner.empty() {
		grp.Go(func() (err error) {
			rows[0], err = collect[barRow](gctx, c.s, &c.n, c.summed(inner, step))
			return err
		})
	}
	for i, end := range ends {
		if end.empty() {
			continue
		}
		grp.Go(func() (err error) {
			rows[i+1], err = collect[barRow](gctx, c.s, &c.n, c.count(end))
			return err
		})
	}
	if err := grp.Wait(); err != nil {
		return err
	}
	for _, part := range rows {
		c.add(part)
	}
	c.counted = r
	return nil
}

// summed counts from the roll-up.
func (c *counter) summed(r nanoRange, step int64) *selection {
	events := "sum(n)"
	if c.q.FailedOnly {
		events = "sum(failed)"
	}
	q := newSelection(c.s.sql("SELECT toUInt32(intDiv(toUnixTimestamp(t) - {start:Int64}, {width:Int64})) AS slot, " + events + " AS events, sum(failed) AS failures\n" +
		"FROM @db.rollup\nWHERE"))
	q.where("step = {step:UInt16}")
	q.where("t >= toDateTime({low:UInt32}, 'UTC')")
	q.where("t < toDateTime({high:UInt32}, 'UTC')")
	q.bind("step", uint16(step/1e9))
	q.bind("low", uint32(r.from/1e9))
	q.bind("high", uint32(min(r.to/1e9, math.MaxUint32)))
	q.bind("start", c.start/1e9)
	q.bind("width", c.width/1e9)
	q.equal("env", "env", c.q.Env)
	q.equal("system", "system", c.q.System)
	q.equal("broker", "broker", c.q.Broker)
	q.channel("destination", c.q.Channel)
	q.equal("service", "service", c.q.Service)
	// What is left of the filter names only columns that the roll-up has too.
	for _, cond := range c.filter.Conditions {
		q.where(cond)
	}
	for _, p := range c.filter.Params {
		q.bind(p.Name, p.Value)
	}
	q.visible("env", "destination")
	q.add("GROUP BY slot")
	return q
}

// count counts from the messages.
func (c *counter) count(r nanoRange) *selection {
	q := newSelection(c.s.sql("SELECT toUInt32(intDiv(toUnixTimestamp64Nano(ts) - {start:Int64}, {width:Int64})) AS slot, count() AS events, countIf(outcome != 'ok') AS failures\n" +
		"FROM @db.messages\nWHERE"))
	q.between("ts", r, true)
	q.bind("start", c.start)
	q.bind("width", c.width)
	c.where(q, true)
	q.visible("env", "destination")
	q.add("GROUP BY slot")
	return q
}

// fromMessages walks the range in slices, as a search does.
func (c *counter) fromMessages(ctx context.Context) (storage.StopReason, error) {
	asked := c.whole
	c.counted = nanoRange{from: asked.to, to: asked.to}
	if c.q.Order == storage.OldestFirst {
		c.counted = nanoRange{from: asked.from, to: asked.from}
	}
	if err := c.narrow(ctx); timedOut(err) {
		return storage.StopDeadline, nil
	} else if err != nil {
		return "", err
	}
	slice := firstSlice
	if c.bodies {
		slice = bodySlice
	}
	for rest := c.whole; !rest.empty(); {
		part := rest
		if !c.lookup {
			part = c.cut(rest, slice)
		}
		begin, read := time.Now(), c.n.bytes.Load()
		rows, err := collect[barRow](ctx, c.s, &c.n, c.count(part))
		if timedOut(err) {
			return storage.StopDeadline, nil
		} else if err != nil {
			return "", err
		}
		c.add(rows)
		if c.q.Order == storage.NewestFirst {
			rest.to, c.counted.from = part.from, part.from
		} else {
			rest.from, c.counted.to = part.to, part.to
		}
		slice = nextSlice(slice, time.Since(begin), c.n.bytes.Load()-read)
		if deadline, ok := ctx.Deadline(); ok && !rest.empty() && time.Until(deadline) < sliceMargin {
			return storage.StopDeadline, nil
		}
	}
	// What an index of ids left out holds nothing.
	c.counted = asked
	return storage.StopEnd, nil
}

func (c *counter) result(stopped storage.StopReason, took time.Duration) storage.Histogram {
	h := storage.Histogram{
		Step: time.Duration(c.width), Bars: c.bars,
		Counted: storage.TimeRange{From: instant(c.counted.from), To: instant(c.counted.to)}, AtMost: !c.filter.Exact,
		Scan: storage.Scan{Rows: c.n.rows.Load(), Bytes: c.n.bytes.Load(), Elapsed: took, Range: c.q.Range, Stopped: stopped},
	}
	h.Scan.Reached = h.Counted.From
	if c.q.Order == storage.OldestFirst {
		h.Scan.Reached = h.Counted.To
	}
	whole := nanos(c.q.Range)
	for i := range h.Bars {
		b := &h.Bars[i]
		from := c.start + int64(i)*c.width
		b.Time = instant(from)
		b.Counted = c.counted.from <= max(from, whole.from) && min(from+c.width, whole.to) <= c.counted.to && !c.counted.empty()
		h.Messages += b.Messages
		h.Failed += b.Failed
	}
	return h
}
