package clickhouse

import (
	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Batch holds rows column by column until Write sends them. It implements
// collector.Batch.
type Batch struct {
	store *Store
	nrows int
	bytes int

	messages  byDay[*messageBlock]
	bodies    byDay[*bodyBlock]
	ids       byDay[*idSpanBlock]
	logs      byDay[*logBlock]
	outcomes  byDay[*outcomeBlock]
	spans     byDay[*spanBlock]
	links     byDay[*linkBlock]
	resources byDay[*resourceBlock]
	series    byDay[*seriesBlock]
	samples   byDay[*sampleBlock]
	rollup    byDay[*rollupBlock]
	invalid   byDay[*invalidBlock]

	// told are the series and resources of this batch that the store had not
	// been told of when they were appended.
	told map[onceKey]struct{}
}

var _ collector.Batch = (*Batch)(nil)

// NewBatch returns an empty batch. Batches are reused through Reset and used
// by one goroutine at a time.
func (s *Store) NewBatch() collector.Batch { return s.newBatch() }

func (s *Store) newBatch() *Batch {
	return &Batch{
		store:     s,
		messages:  byDay[*messageBlock]{fresh: newMessageBlock},
		bodies:    byDay[*bodyBlock]{fresh: newBodyBlock},
		ids:       byDay[*idSpanBlock]{fresh: newIDSpanBlock},
		logs:      byDay[*logBlock]{fresh: newLogBlock},
		outcomes:  byDay[*outcomeBlock]{fresh: newOutcomeBlock},
		spans:     byDay[*spanBlock]{fresh: newSpanBlock},
		links:     byDay[*linkBlock]{fresh: newLinkBlock},
		resources: byDay[*resourceBlock]{fresh: newResourceBlock},
		series:    byDay[*seriesBlock]{fresh: newSeriesBlock},
		samples:   byDay[*sampleBlock]{fresh: newSampleBlock},
		rollup:    byDay[*rollupBlock]{fresh: newRollupBlock},
		invalid:   byDay[*invalidBlock]{fresh: newInvalidBlock},
		told:      make(map[onceKey]struct{}),
	}
}

// AppendMessage copies e into the batch. An event whose clock cannot be right
// is filed under the agent's time; see storage.EventTime.
func (b *Batch) AppendMessage(e *controlbus.MessageEvent) {
	ts := storage.EventTime(e.Time, e.AgentTime)
	d := day(ts)
	correlation := controlbus.CorrelationKey(e.CorrelationID)
	b.messages.at(d).append(ts, e, correlation)
	if len(e.Body) > 0 {
		b.bodies.at(d).append(ts, e)
	}
	b.appendIDs(d, ts, correlation, e.TraceID)
	b.nrows++
	size := 256 + len(e.Body) + len(e.MessageID) + len(e.CorrelationID) + len(e.CausationID)
	for i := range e.Headers {
		size += len(e.Headers[i].Key) + len(e.Headers[i].Value)
	}
	b.bytes += size
}

func (b *Batch) appendIDs(d uint16, ts int64, correlation controlbus.ID, trace [16]byte) {
	if correlation.IsZero() && trace == ([16]byte{}) {
		return
	}
	ids := b.ids.at(d)
	if !correlation.IsZero() {
		ids.append(correlation, d, millis(ts))
	}
	if trace != ([16]byte{}) {
		ids.append(trace, d, millis(ts))
	}
}

// AppendLog copies l into the batch, and what it says of a command's message.
func (b *Batch) AppendLog(l *storage.Log) {
	ts := storage.EventTime(l.Time, l.AgentTime)
	d := day(ts)
	correlation := controlbus.CorrelationKey(l.CorrelationID)
	b.logs.at(d).append(ts, l, correlation)
	b.appendIDs(d, ts, correlation, l.TraceID)
	if o, command, ok := outcomeOf(l); ok {
		b.outcomes.at(d).append(ts, &o, command)
		b.bytes += 256
	}
	b.nrows++
	b.bytes += 128 + len(l.Body) + attrBytes(l.Attrs)
}

// AppendSpan copies s into the batch, and its links turned round.
func (b *Batch) AppendSpan(s *storage.Span) {
	ts := clampTime(s.Time)
	d := day(ts)
	correlation := controlbus.CorrelationKey(s.CorrelationID)
	b.spans.at(d).append(ts, s, correlation)
	b.appendIDs(d, ts, correlation, s.TraceID)
	size := 192 + attrBytes(s.Attrs)
	for i := range s.Links {
		b.links.at(d).append(ts, s, &s.Links[i])
		size += 96 + attrBytes(s.Links[i].Attrs)
	}
	for i := range s.Events {
		size += 32 + attrBytes(s.Events[i].Attrs)
	}
	b.nrows++
	b.bytes += size
}

// AppendResource copies r into the batch unless the store has been told of it
// on that day.
func (b *Batch) AppendResource(r *storage.Resource, seen int64) {
	ts := clampTime(seen)
	if !b.first(onceKey{kind: onceResource, day: day(ts), id: r.ID}) {
		return
	}
	b.resources.at(day(ts)).append(ts, r)
	b.nrows++
	b.bytes += 64 + attrBytes(r.Attrs)
}

// AppendSample copies s into the batch, and its labels unless the store has
// been told of them on that day.
func (b *Batch) AppendSample(s *storage.Sample) {
	ts := clampTime(s.Time)
	d := day(ts)
	b.samples.at(d).append(ts, s)
	b.nrows++
	b.bytes += 32
	if b.first(onceKey{kind: onceSeries, day: d, id: s.Series}) {
		b.series.at(d).append(d, s)
		b.bytes += 64 + attrBytes(s.Labels)
	}
}

// AppendPane copies p into the batch, once for every step of the roll-up.
func (b *Batch) AppendPane(p *storage.Pane) {
	ts := clampTime(p.Time)
	b.rollup.at(day(ts)).append(ts, p)
	b.nrows++
	b.bytes += 3 * (80 + 9*len(p.Latency))
}

// AppendInvalid copies i into the batch.
func (b *Batch) AppendInvalid(i *storage.Invalid) {
	ts := clampTime(i.Time)
	b.invalid.at(day(ts)).append(ts, i)
	b.nrows++
	b.bytes += 64 + len(i.Data) + len(i.Reason)
}

// first says that neither this batch nor the store has key yet, and notes it.
func (b *Batch) first(key onceKey) bool {
	if _, ok := b.told[key]; ok || b.store.once.has(key) {
		return false
	}
	b.told[key] = struct{}{}
	return true
}

// Rows is what has been appended since Reset.
func (b *Batch) Rows() int { return b.nrows }

// Bytes is the rough size of what has been appended since Reset.
func (b *Batch) Bytes() int { return b.bytes }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.nrows, b.bytes = 0, 0
	b.messages.reset()
	b.bodies.reset()
	b.ids.reset()
	b.logs.reset()
	b.outcomes.reset()
	b.spans.reset()
	b.links.reset()
	b.resources.reset()
	b.series.reset()
	b.samples.reset()
	b.rollup.reset()
	b.invalid.reset()
	clear(b.told)
}

// each calls f for every table and day that has rows, in the order they are
// written. The index of ids goes first: a message that is there can be found.
func (b *Batch) each(f func(table string, day uint16, blk block)) {
	at := func(table string) func(uint16, block) {
		return func(day uint16, blk block) { f(table, day, blk) }
	}
	b.ids.each(at("id_span"))
	b.links.each(at("link_back"))
	b.resources.each(at("resources"))
	b.series.each(at("series"))
	b.bodies.each(at("bodies"))
	b.messages.each(at("messages"))
	b.logs.each(at("logs"))
	b.outcomes.each(at("outcomes"))
	b.spans.each(at("spans"))
	b.samples.each(at("samples"))
	b.rollup.each(at("rollup"))
	b.invalid.each(at("invalid"))
}

func attrBytes(attrs []storage.Attr) int {
	n := 0
	for i := range attrs {
		n += len(attrs[i].Key) + len(attrs[i].Value)
	}
	return n
}

const (
	minTime = storage.MinTime
	maxTime = storage.MaxTime
)

func clampTime(ns int64) int64 { return storage.ClampTime(ns) }

func millis(ns int64) int64 { return ns / 1e6 }
