package prometheus

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Querier is the store as the engine reads it. Its methods may be called
// concurrently and block for one query each. Reads that go over their limit
// are controlbus.ErrTooLarge, a store that does not answer is
// controlbus.ErrUnavailable.
type Querier interface {
	Metrics(ctx context.Context, r storage.TimeRange) ([]storage.Metric, error)
	MetricSeries(ctx context.Context, q storage.MetricQuery) ([]storage.MetricSeries, error)
	MetricLabels(ctx context.Context, q storage.MetricQuery) ([]string, error)
	MetricLabelValues(ctx context.Context, q storage.MetricQuery, label string) ([]string, error)
	Samples(ctx context.Context, q storage.SampleQuery, each storage.SampleFunc) error
	Traffic(ctx context.Context, q storage.TrafficQuery) (storage.Traffic, error)
}

// queryable is Prometheus's view of a Querier.
type queryable struct {
	querier    Querier
	catalogue  *catalogue
	maxSeries  int
	maxSamples int
	scope      func(context.Context) controlbus.Scope
	now        func() time.Time
}

// allowed says whether a reader may see a series.
func allowed(scope controlbus.Scope, stored []storage.Attr) bool {
	if scope.All() {
		return true
	}
	var env, channel string
	for _, a := range stored {
		switch a.Key {
		case controlbus.AttrEnvironment:
			env = a.Value
		case controlbus.AttrDestination:
			channel = a.Value
		}
	}
	if channel == "" { // what belongs to no channel, such as an agent's own figures
		return scope.AllowsWholeEnv(env)
	}
	return scope.Allows(env, channel)
}

// Querier implements promstorage.Queryable.
func (q *queryable) Querier(mint, maxt int64) (promstorage.Querier, error) {
	return &querier{queryable: q, mint: mint, maxt: maxt}, nil
}

// querier reads a range, both ends included, in milliseconds.
type querier struct {
	*queryable
	mint, maxt int64
}

// Close implements promstorage.Querier.
func (q *querier) Close() error { return nil }

// milliRange is a range of both ends included.
func milliRange(mint, maxt int64) storage.TimeRange {
	return storage.TimeRange{From: time.UnixMilli(mint).UTC(), To: time.UnixMilli(maxt).Add(time.Millisecond).UTC()}
}

// evaluation is what a request asks of the engine: at which instants, and how
// far a vector looks back. It tells which samples an expression looks at.
type evaluation struct {
	start, end, step, lookback int64 // milliseconds
}

type evaluationKey struct{}

func withEvaluation(ctx context.Context, start, end time.Time, step, lookback time.Duration) context.Context {
	return context.WithValue(ctx, evaluationKey{}, evaluation{start.UnixMilli(), end.UnixMilli(), step.Milliseconds(), lookback.Milliseconds()})
}

// grid is at which instants a selector is evaluated, and what it sees of each.
// Selectors below a subquery read a longer range than the request explains, and
// those have no grid: their instants follow from the subquery.
func grid(ctx context.Context, h *promstorage.SelectHints) storage.SampleGrid {
	e, ok := ctx.Value(evaluationKey{}).(evaluation)
	if !ok || h == nil || e.lookback <= 0 {
		return storage.SampleGrid{}
	}
	window := h.Range
	if window == 0 {
		window = e.lookback
	}
	if h.End-h.Start != e.end-e.start+window-1 {
		return storage.SampleGrid{}
	}
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	if e.end == e.start || e.step <= 0 { // one instant
		if h.Range > 0 {
			return storage.SampleGrid{} // its window is the range already
		}
		return storage.SampleGrid{End: time.UnixMilli(h.End), Step: ms(window), Window: ms(window), Newest: true}
	}
	g := storage.SampleGrid{End: time.UnixMilli(h.End - (e.end-e.start)%e.step), Step: ms(e.step), Window: ms(window)}
	// Samples come every ten seconds or so: below a few of them to a step,
	// choosing costs the store more than it saves.
	g.Newest = h.Range == 0 && e.step >= 30_000
	if !g.Newest && e.step <= window {
		return storage.SampleGrid{}
	}
	return g
}

// Select implements promstorage.Querier. The store is asked when the first
// series is.
func (q *querier) Select(ctx context.Context, _ bool, hints *promstorage.SelectHints, matchers ...*labels.Matcher) promstorage.SeriesSet {
	return &seriesSet{load: func() ([]promstorage.Series, error) { return q.selectSeries(ctx, hints, matchers) }, at: -1}
}

func (q *querier) selectSeries(ctx context.Context, hints *promstorage.SelectHints, matchers []*labels.Matcher) ([]promstorage.Series, error) {
	r := milliRange(q.mint, q.maxt)
	if hints != nil {
		r = milliRange(hints.Start, hints.End)
	}
	found, err := q.find(ctx, r, hints, matchers)
	if err != nil {
		return nil, err
	}
	if len(found.series) > 0 && hints != nil && hints.Func != "series" {
		if err := found.read(ctx, q, r, grid(ctx, hints)); err != nil {
			return nil, err
		}
	}
	return found.merge(), nil
}

// selection is the series that a selector selects: those to be read, and those
// of traffic, which have been.
type selection struct {
	series  []*series
	traffic []*series
	metrics []string
	// whole says that these are all series of the metrics, so that samples
	// need not be selected by series.
	whole bool
}

// find returns the series that all matchers accept. The store narrows by what
// it can decide exactly: the metric, and values that some label must have. The
// matchers themselves decide here, so what a regular expression means does not
// depend on whose it is.
func (q *querier) find(ctx context.Context, r storage.TimeRange, hints *promstorage.SelectHints, matchers []*labels.Matcher) (*selection, error) {
	v := viewOf(matchers)
	var names, rest []*labels.Matcher
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel {
			names = append(names, m)
		} else {
			rest = append(rest, m)
		}
	}
	metrics, err := q.catalogue.find(ctx, v, names)
	if err != nil {
		return nil, err
	}
	s := new(selection)
	mq := storage.MetricQuery{Range: r, Limit: q.maxSeries}
	shown := make(map[storage.Metric]string, len(metrics))
	for _, m := range metrics {
		if m.measure != storage.TrafficKeys {
			list, err := q.trafficSeries(ctx, m, v, r, hints, rest)
			if err != nil {
				return nil, err
			}
			s.traffic = append(s.traffic, list...)
			continue
		}
		shown[m.Metric] = v.metric(m)
		mq.Metrics = append(mq.Metrics, m.Metric.Name)
	}
	if len(mq.Metrics) == 0 {
		return s, nil
	}
	slices.Sort(mq.Metrics)
	mq.Metrics = slices.Compact(mq.Metrics)
	for _, m := range rest {
		if values := wanted(m); len(values) > 0 {
			mq.Values = append(mq.Values, values)
		}
	}
	stored, err := q.querier.MetricSeries(ctx, mq)
	if err != nil {
		return nil, err
	}
	s.metrics, s.whole = mq.Metrics, len(mq.Values) == 0 && q.scope(ctx).All()
	l, scope := newLabeler(v), q.scope(ctx)
	for _, st := range stored {
		name, ok := shown[st.Metric]
		if !ok || !allowed(scope, st.Labels) { // ok: not another kind or unit of the same name
			s.whole = false
			continue
		}
		lset := l.labels(name, st.Labels)
		if !accepts(rest, lset) {
			s.whole = false
			continue
		}
		s.series = append(s.series, &series{id: st.ID, labels: lset})
	}
	return s, nil
}

func accepts(matchers []*labels.Matcher, lset labels.Labels) bool {
	for _, m := range matchers {
		if !m.Matches(lset.Get(m.Name)) {
			return false
		}
	}
	return true
}

// maxWanted is how many values the store is asked to look for; more travel
// worse than they select.
const maxWanted = 200

// wanted are the values of which a matcher accepts nothing else. Where two
// labels became one their values are joined, and no store knows the result.
func wanted(m *labels.Matcher) []string {
	var values []string
	switch m.Type {
	case labels.MatchEqual:
		values = []string{m.Value}
	case labels.MatchRegexp:
		values = m.SetMatches()
	}
	if len(values) == 0 || len(values) > maxWanted || slices.ContainsFunc(values, func(v string) bool { return v == "" || slices.Contains([]byte(v), ';') }) {
		return nil
	}
	return values
}

// read fills in the samples.
func (s *selection) read(ctx context.Context, q *querier, r storage.TimeRange, g storage.SampleGrid) error {
	sq := storage.SampleQuery{Range: r, Metrics: s.metrics, Grid: g, Limit: q.maxSamples}
	byID := make(map[uint64]*series, len(s.series))
	for _, one := range s.series {
		byID[one.id] = one
		if !s.whole {
			sq.Series = append(sq.Series, one.id)
		}
	}
	var last *series
	var lastID uint64
	err := q.querier.Samples(ctx, sq, func(id uint64, ms int64, value float64) error {
		if last == nil || id != lastID {
			if last = byID[id]; last == nil {
				return nil // written since the series were listed
			}
			lastID = id
		}
		last.points = append(last.points, point{ms, value})
		return nil
	})
	if err != nil {
		return err
	}
	for _, one := range s.series {
		one.settle()
	}
	return nil
}

func (s *selection) all() []*series { return slices.Concat(s.series, s.traffic) }

// merge returns the series by their labels. Stored series that are shown under
// the same labels are one.
func (s *selection) merge() []promstorage.Series {
	all := s.all()
	slices.SortStableFunc(all, func(a, b *series) int { return labels.Compare(a.labels, b.labels) })
	list := make([]promstorage.Series, 0, len(all))
	var last *series
	for _, one := range all {
		if last != nil && labels.Equal(last.labels, one.labels) {
			last.points = append(last.points, one.points...)
			last.settle()
			continue
		}
		last = one
		list = append(list, one)
	}
	return list
}

type point struct {
	ms    int64
	value float64
}

// series is one series with its samples.
type series struct {
	id     uint64
	labels labels.Labels
	points []point
	// histograms instead of points, of a native histogram
	histograms []histogramPoint
}

// settle brings the samples in order of time, one to an instant.
func (s *series) settle() {
	byTime := func(a, b point) int { return cmp.Compare(a.ms, b.ms) }
	if !slices.IsSortedFunc(s.points, byTime) {
		slices.SortFunc(s.points, func(a, b point) int { return cmp.Or(byTime(a, b), cmp.Compare(b.value, a.value)) })
	}
	s.points = slices.CompactFunc(s.points, func(a, b point) bool { return a.ms == b.ms })
}

// Labels implements promstorage.Series.
func (s *series) Labels() labels.Labels { return s.labels }

// Iterator implements promstorage.Series.
func (s *series) Iterator(chunkenc.Iterator) chunkenc.Iterator {
	if len(s.histograms) > 0 {
		return promstorage.NewListSeriesIterator(histogramPoints(s.histograms))
	}
	return promstorage.NewListSeriesIterator(points(s.points))
}

// points are what the engine's iterator goes through.
type points []point

func (p points) Get(i int) chunks.Sample { return &p[i] }
func (p points) Len() int                { return len(p) }

func (p *point) T() int64                      { return p.ms }
func (p *point) F() float64                    { return p.value }
func (p *point) H() *histogram.Histogram       { return nil }
func (p *point) FH() *histogram.FloatHistogram { return nil }
func (p *point) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (p *point) Copy() chunks.Sample           { c := *p; return &c }

// seriesSet asks the store once it is asked.
type seriesSet struct {
	load func() ([]promstorage.Series, error)
	list []promstorage.Series
	err  error
	at   int
}

func (s *seriesSet) Next() bool {
	if s.load != nil {
		s.list, s.err = s.load()
		s.load = nil
	}
	s.at++
	return s.err == nil && s.at < len(s.list)
}

func (s *seriesSet) At() promstorage.Series            { return s.list[s.at] }
func (s *seriesSet) Err() error                        { return s.err }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// LabelNames implements promstorage.Querier.
func (q *querier) LabelNames(ctx context.Context, _ *promstorage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	names := map[string]struct{}{}
	if len(matchers) == 0 && q.scope(ctx).All() {
		stored, err := q.querier.MetricLabels(ctx, storage.MetricQuery{Range: milliRange(q.mint, q.maxt), Limit: maxLabels})
		if err != nil {
			return nil, nil, err
		}
		for _, s := range stored {
			if n := prometheusNames.label(s); n != "" {
				names[n] = struct{}{}
			}
			if twin := twins[s]; twin != "" {
				names[twin] = struct{}{}
			}
		}
		keys, err := q.trafficKeys(ctx, milliRange(q.mint, q.maxt))
		if err != nil {
			return nil, nil, err
		}
		l := newLabeler(prometheusNames)
		for _, w := range keys {
			l.labels("", w.attrs()).Range(func(l labels.Label) { names[l.Name] = struct{}{} })
		}
		if len(names) > 0 {
			names[model.MetricNameLabel] = struct{}{}
		}
		return sorted(names), nil, nil
	}
	found, err := q.find(ctx, milliRange(q.mint, q.maxt), nil, matchers)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range found.all() {
		s.labels.Range(func(l labels.Label) { names[l.Name] = struct{}{} })
	}
	return sorted(names), nil, nil
}

const maxLabels = 10_000

// LabelValues implements promstorage.Querier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *promstorage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	values := map[string]struct{}{}
	r := milliRange(q.mint, q.maxt)
	switch {
	case len(matchers) > 0 || !q.scope(ctx).All():
		found, err := q.find(ctx, r, nil, matchers)
		if err != nil {
			return nil, nil, err
		}
		for _, s := range found.all() {
			if v := s.labels.Get(name); v != "" {
				values[v] = struct{}{}
			}
		}
	case name == model.MetricNameLabel:
		list, err := q.catalogue.load(ctx, r)
		if err != nil {
			return nil, nil, err
		}
		keys, err := q.trafficKeys(ctx, r)
		if err != nil {
			return nil, nil, err
		}
		for _, m := range list {
			if m.name != "" && (m.measure == storage.TrafficKeys || len(keys) > 0) {
				values[m.name] = struct{}{}
			}
		}
	default:
		limit := q.maxSeries
		if hints != nil && hints.Limit > 0 {
			limit = min(limit, hints.Limit)
		}
		mq := storage.MetricQuery{Range: r, Limit: max(limit, maxLabels)}
		stored, err := q.querier.MetricLabels(ctx, mq)
		if err != nil {
			return nil, nil, err
		}
		for _, s := range stored {
			if s != name && prometheusNames.label(s) != name && twins[s] != name {
				continue
			}
			list, err := q.querier.MetricLabelValues(ctx, mq, s)
			if err != nil {
				return nil, nil, err
			}
			for _, v := range list {
				if v != "" {
					values[v] = struct{}{}
				}
			}
		}
		keys, err := q.trafficKeys(ctx, r)
		if err != nil {
			return nil, nil, err
		}
		for _, v := range []view{prometheusNames, otelNames} {
			l := newLabeler(v)
			for _, w := range keys {
				if value := l.labels("", w.attrs()).Get(name); value != "" {
					values[value] = struct{}{}
				}
			}
		}
	}
	return sorted(values), nil, nil
}

func sorted(set map[string]struct{}) []string {
	list := make([]string, 0, len(set))
	for v := range set {
		list = append(list, v)
	}
	slices.Sort(list)
	return list
}
