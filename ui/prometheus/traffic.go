package prometheus

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// What taps and services told of passing messages is no metric anybody sent:
// the console adds it up in panes. Here the panes are read as counters, which
// count from midnight UTC: at 00:00:00.001 they are 0, which every function over
// counters takes for the restart of a program. So the value at an instant is
// the same whatever range is asked for, and a rate loses nothing at midnight. A
// series is there from its first message on until a day without any has
// passed.
//
// Latencies are native histograms of schema 3, eight buckets to an octave, for
// that is how they were counted.

// trafficMetrics are the metrics made of panes. Their names are not for others
// to send.
var trafficMetrics = []metric{
	traffic(storage.TrafficMessages, "signalbox.traffic.messages", "counter", "{message}", "Messages seen, by taps and by services that tell of them; operation type says by whom."),
	traffic(storage.TrafficFailed, "signalbox.traffic.failed", "counter", "{message}", "Messages seen whose processing failed, or that were dead-lettered, expired or detoured."),
	traffic(storage.TrafficBytes, "signalbox.traffic.size", "counter", "By", "Bytes of the bodies of messages seen."),
	traffic(storage.TrafficLatency, "signalbox.traffic.latency", "histogram", "s", "How long operations on messages took, as native histogram."),
}

func traffic(measure storage.TrafficMeasure, name, kind, unit, help string) metric {
	m := describe(storage.Metric{Name: name, Kind: kind, Unit: unit})
	m.measure, m.help = measure, help
	return m
}

// trafficLabels are the labels of those metrics.
var trafficLabels = []string{
	controlbus.AttrEnvironment, controlbus.AttrSystem, controlbus.AttrBroker, controlbus.AttrDestination,
	controlbus.AttrServiceName, controlbus.AttrOperationType,
}

// who a series of panes is of.
type who struct {
	env, system, broker, destination, service string
	op                                        controlbus.Op
}

func whoOf(s *storage.TrafficSeries) who {
	return who{s.Env, s.System, s.Broker, s.Destination, s.Service, s.Op}
}

func (w who) attrs() []storage.Attr {
	values := []string{w.env, w.system, w.broker, w.destination, w.service, w.op.String()}
	list := make([]storage.Attr, len(values))
	for i, v := range values {
		list[i] = storage.Attr{Key: trafficLabels[i], Value: v}
	}
	return list
}

// trafficKeys are all of a range.
func (q *querier) trafficKeys(ctx context.Context, r storage.TimeRange) ([]who, error) {
	t, err := q.querier.Traffic(ctx, storage.TrafficQuery{Range: r, Width: time.Hour, Measure: storage.TrafficKeys, Limit: q.maxSeries})
	if err != nil {
		return nil, err
	}
	scope := q.scope(ctx)
	var list []who
	for i := range t.Series {
		if w := whoOf(&t.Series[i]); allowed(scope, w.attrs()) {
			list = append(list, w)
		}
	}
	return list, nil
}

const (
	day = 24 * 60 * 60 // seconds
	// maxPanes bounds the panes of one series: a month of minutes.
	maxPanes = 50_000
	// oldest is how far back traffic is looked for; no roll-up is kept longer.
	oldest = 800 * day
)

// trafficWidth is how wide panes may be for an expression. A counter needs some
// samples in each window, and more than that cost without telling more.
func trafficWidth(m storage.TrafficMeasure, window, span int64) time.Duration {
	fine := int64(10 * 60)
	if m == storage.TrafficLatency { // a sample of which is thirty numbers
		fine = 2 * 60
	}
	width := time.Hour
	switch {
	case window < fine && span <= 6*3600:
		width = 10 * time.Second
	case window < 10*3600:
		width = time.Minute
	}
	if span/int64(width/time.Second) > maxPanes {
		width = time.Hour
	}
	return width
}

// trafficSeries reads one of the traffic metrics.
func (q *querier) trafficSeries(ctx context.Context, m metric, v view, r storage.TimeRange, hints *promstorage.SelectHints, matchers []*labels.Matcher) ([]*series, error) {
	l, scope := newLabeler(v), q.scope(ctx)
	if hints == nil || hints.Func == "series" {
		keys, err := q.trafficKeys(ctx, r)
		var list []*series
		for _, w := range keys {
			if lset := l.labels(v.metric(m), w.attrs()); accepts(matchers, lset) {
				list = append(list, &series{labels: lset})
			}
		}
		return list, err
	}
	from, to := max(r.From.Unix(), q.now().Unix()-oldest), r.To.Unix()
	if from < 0 || to < from {
		return nil, nil
	}
	window := hints.Range / 1000
	if window == 0 {
		window = 60
	}
	midnight, hour := from/day*day, from/3600*3600
	ask := func(from, to int64, width time.Duration) (storage.Traffic, error) {
		return q.querier.Traffic(ctx, storage.TrafficQuery{
			Range: storage.TimeRange{From: time.Unix(from, 0), To: time.Unix(to, 0)}, Width: width, Measure: m.measure, Limit: q.maxSamples,
		})
	}
	panes, err := ask(hour, to+1, trafficWidth(m.measure, window, to-from))
	if err != nil {
		return nil, err
	}
	// What was before: whether there was anything the day before, and how much
	// since midnight.
	before, err := ask(midnight-day, hour, time.Hour)
	if err != nil {
		return nil, err
	}
	counters := map[who]*counter{}
	of := func(s *storage.TrafficSeries) *counter {
		w := whoOf(s)
		c := counters[w]
		if c == nil {
			c = &counter{step: int64(panes.Step / time.Second), at: hour, latency: m.measure == storage.TrafficLatency}
			counters[w] = c
		}
		return c
	}
	for i := range before.Series {
		s := &before.Series[i]
		c := of(s)
		for j, at := range s.At {
			if int64(at) < midnight {
				c.yesterday = true
			} else {
				c.today = true
				c.total.add(s, j)
			}
		}
	}
	for i := range panes.Series {
		s := &panes.Series[i]
		c := of(s)
		for j, at := range s.At {
			if p := (int64(at) - hour) / c.step; p >= 0 && p < 2*maxPanes { // no store answers more
				for int64(len(c.panes)) <= p {
					c.panes = append(c.panes, nil)
				}
				if c.panes[p] == nil {
					c.panes[p] = new(tally)
				}
				c.panes[p].add(s, j)
			}
		}
	}
	var list []*series
	left := q.maxSamples
	g := grid(ctx, hints)
	for w, c := range counters {
		stored := w.attrs()
		if !allowed(scope, stored) {
			continue
		}
		lset := l.labels(v.metric(m), stored)
		if !accepts(matchers, lset) {
			continue
		}
		s := &series{labels: lset}
		c.emit(s, r.From.UnixMilli(), r.To.UnixMilli()-1, g)
		if left -= len(s.points) + 16*len(s.histograms); left < 0 {
			return nil, fmt.Errorf("%w: more than %d samples: shorten the range, enlarge the step, or narrow the selection", controlbus.ErrTooLarge, q.maxSamples)
		}
		list = append(list, s)
	}
	return list, nil
}

// tally is what was counted.
type tally struct {
	n       uint64
	sumNs   uint64
	buckets map[uint8]uint64
}

func (t *tally) add(s *storage.TrafficSeries, i int) {
	t.n += s.N[i]
	if i >= len(s.SumNs) {
		return
	}
	t.sumNs += s.SumNs[i]
	if t.buckets == nil {
		t.buckets = make(map[uint8]uint64, len(s.Buckets[i]))
	}
	for j, b := range s.Buckets[i] {
		t.buckets[b] += s.Counts[i][j]
	}
}

func (t *tally) merge(o *tally) {
	t.n += o.n
	t.sumNs += o.sumNs
	if t.buckets == nil && len(o.buckets) > 0 {
		t.buckets = make(map[uint8]uint64, len(o.buckets))
	}
	for b, n := range o.buckets {
		t.buckets[b] += n
	}
}

// counter turns panes into samples.
type counter struct {
	step, at         int64 // seconds; at is where panes begin
	latency          bool
	yesterday, today bool
	total            tally // since midnight
	panes            []*tally
}

// emit appends the samples from mint to maxt at which the grid looks.
func (c *counter) emit(s *series, mint, maxt int64, g storage.SampleGrid) {
	var last *histogram.FloatHistogram
	put := func(ms int64) {
		switch {
		case ms < mint || ms > maxt:
		case g.Step > 0 && (ms > g.End.UnixMilli() || g.Window < g.Step && (g.End.UnixMilli()-ms)%g.Step.Milliseconds() >= g.Window.Milliseconds()):
		case c.latency:
			if last == nil {
				last = c.total.histogram()
			}
			s.histograms = append(s.histograms, histogramPoint{ms, last})
		default:
			s.points = append(s.points, point{ms, float64(c.total.n)})
		}
	}
	for i, at := 0, c.at; at*1000 <= maxt; i, at = i+1, at+c.step {
		begin := at * 1000
		if at%day == 0 { // a new day begins
			if at > c.at {
				c.yesterday, c.today = c.today, false
			}
			c.total, last = tally{}, nil
			begin++
			if c.yesterday {
				put(begin)
			}
		}
		if i < len(c.panes) && c.panes[i] != nil {
			if !c.yesterday && !c.today {
				put(begin) // it begins with nothing, so that nothing is lost
			}
			c.today = true
			c.total.merge(c.panes[i])
			last = nil
		}
		if c.yesterday || c.today {
			put((at + c.step) * 1000)
		}
	}
}

// histogram is a tally as Prometheus has it. A bucket of the roll-up spans
// 2^((b+80)/8) to 2^((b+81)/8) nanoseconds; the native one that holds its middle
// is 158 below, and its bounds are 1.6 % above.
func (t *tally) histogram() *histogram.FloatHistogram {
	const shift = 158
	h := &histogram.FloatHistogram{Schema: 3, Count: float64(t.n), Sum: float64(t.sumNs) / 1e9}
	keys := make([]uint8, 0, len(t.buckets))
	for b := range t.buckets {
		keys = append(keys, b)
	}
	slices.Sort(keys)
	next := int32(0) // where a span without a gap would begin
	for _, b := range keys {
		index := int32(b) - shift
		if n := len(h.PositiveSpans); n > 0 && index == next {
			h.PositiveSpans[n-1].Length++
		} else {
			h.PositiveSpans = append(h.PositiveSpans, histogram.Span{Offset: index - next, Length: 1})
		}
		next = index + 1
		h.PositiveBuckets = append(h.PositiveBuckets, float64(t.buckets[b]))
	}
	return h
}

// histogramPoint is one sample of a histogram. What is behind it is shared by
// samples between which nothing happened, so readers get copies.
type histogramPoint struct {
	ms int64
	h  *histogram.FloatHistogram
}

// histogramPoints are what the engine's iterator goes through.
type histogramPoints []histogramPoint

func (p histogramPoints) Get(i int) chunks.Sample { return &p[i] }
func (p histogramPoints) Len() int                { return len(p) }

func (p *histogramPoint) T() int64                      { return p.ms }
func (p *histogramPoint) F() float64                    { return 0 }
func (p *histogramPoint) H() *histogram.Histogram       { return nil }
func (p *histogramPoint) FH() *histogram.FloatHistogram { return p.h.Copy() }
func (p *histogramPoint) Type() chunkenc.ValueType      { return chunkenc.ValFloatHistogram }
func (p *histogramPoint) Copy() chunks.Sample           { return &histogramPoint{p.ms, p.h.Copy()} }
