package prometheus

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/otlptranslator"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Every metric has two names. The one it was sent under, such as
// messaging.client.sent.messages, is reached by quoting:
// {"messaging.client.sent.messages"}. The other is what Prometheus makes of it
// when it takes OTLP: messaging_client_sent_messages_total. A selector that names
// a metric by what only OpenTelemetry allows gets series with OpenTelemetry's
// names throughout; every other selector gets Prometheus's names. The two are
// never mixed in one series, so that whatever is written above a selector
// speaks of labels as the selector does.

// metric is a stored metric with its Prometheus name.
type metric struct {
	storage.Metric
	name   string // as Prometheus has it; empty: it has none
	family string // name without the suffix of a histogram's or summary's part

	measure storage.TrafficMeasure // of those that are made of panes
	help    string
}

var (
	metricNamer = otlptranslator.MetricNamer{WithMetricSuffixes: true}
	labelNamer  = otlptranslator.LabelNamer{}
)

// partSuffixes are what Sample.Metric of a histogram or summary ends in.
var partSuffixes = []string{"_bucket", "_sum", "_count"}

func describe(m storage.Metric) metric {
	d := metric{Metric: m}
	base, part := m.Name, ""
	if m.Kind == "histogram" || m.Kind == "summary" {
		for _, s := range partSuffixes {
			if b, ok := strings.CutSuffix(m.Name, s); ok && b != "" {
				base, part = b, s
				break
			}
		}
	}
	family, err := metricNamer.Build(otlptranslator.Metric{Name: base, Unit: m.Unit, Type: metricType(m.Kind)})
	if err != nil {
		return d // only underscores would be left of it: quoting still reaches it
	}
	d.family, d.name = family, family+part
	return d
}

func metricType(kind string) otlptranslator.MetricType {
	switch kind {
	case "counter":
		return otlptranslator.MetricTypeMonotonicCounter
	case "histogram":
		return otlptranslator.MetricTypeHistogram
	case "summary":
		return otlptranslator.MetricTypeSummary
	}
	return otlptranslator.MetricTypeGauge
}

// catalogue knows the metrics of the store. It is asked for every selector, so
// what it knows is kept for a moment.
type catalogue struct {
	querier Querier
	now     func() time.Time

	mu   sync.Mutex
	at   time.Time
	list []metric
}

const (
	catalogueFresh = 15 * time.Second
	// A name that is not known may be new: the store is asked again, but not
	// for every expression of a dashboard.
	catalogueMissed = time.Second
)

func (c *catalogue) get(ctx context.Context, within time.Duration) ([]metric, error) {
	c.mu.Lock()
	list, fresh := c.list, c.now().Sub(c.at) < within
	c.mu.Unlock()
	if fresh {
		return list, nil
	}
	at := c.now()
	list, err := c.load(ctx, storage.TimeRange{})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list, c.at = list, at
	return list, nil
}

// load asks the store for the metrics of a range.
func (c *catalogue) load(ctx context.Context, r storage.TimeRange) ([]metric, error) {
	stored, err := c.querier.Metrics(ctx, r)
	if err != nil {
		return nil, err
	}
	list := slices.Clone(trafficMetrics)
	for _, m := range stored {
		d := describe(m)
		if !slices.ContainsFunc(trafficMetrics, func(own metric) bool { return own.Metric.Name == m.Name || own.name == d.name }) {
			list = append(list, d)
		}
	}
	return list, nil
}

// find returns the metrics whose name all matchers accept.
func (c *catalogue) find(ctx context.Context, v view, names []*labels.Matcher) ([]metric, error) {
	for _, within := range []time.Duration{catalogueFresh, catalogueMissed} {
		list, err := c.get(ctx, within)
		if err != nil {
			return nil, err
		}
		var found []metric
		for _, m := range list {
			if name := v.metric(m); name != "" && all(names, name) {
				found = append(found, m)
			}
		}
		if len(found) > 0 || len(names) == 0 {
			return found, nil
		}
	}
	return nil, nil
}

func all(matchers []*labels.Matcher, value string) bool {
	for _, m := range matchers {
		if !m.Matches(value) {
			return false
		}
	}
	return true
}

// view says by which names series are shown.
type view bool

const (
	prometheusNames view = false
	otelNames       view = true
)

// viewOf is OpenTelemetry's where a matcher names a metric, or a label, in a way
// that Prometheus's names never have.
func viewOf(matchers []*labels.Matcher) view {
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel {
			if m.Type == labels.MatchEqual && m.Value != "" && !model.LegacyValidation.IsValidMetricName(m.Value) {
				return otelNames
			}
		} else if !model.LegacyValidation.IsValidLabelName(m.Name) {
			return otelNames
		}
	}
	return prometheusNames
}

func (v view) metric(m metric) string {
	if v == otelNames {
		return m.Metric.Name
	}
	return m.name
}

// labeler turns stored labels into shown ones. It is used by one goroutine.
type labeler struct {
	view  view
	known map[string]string // names already translated; empty for those left out
	b     labels.ScratchBuilder
	pairs []storage.Attr
}

func newLabeler(v view) *labeler {
	return &labeler{view: v, known: make(map[string]string), b: labels.NewScratchBuilder(16)}
}

// name is what a stored label is called; empty where it is not shown.
func (l *labeler) name(stored string) string {
	if n, ok := l.known[stored]; ok {
		return n
	}
	n := l.view.label(stored)
	l.known[stored] = n
	return n
}

func (v view) label(stored string) string {
	if stored == "" || strings.HasPrefix(stored, "__") {
		return "" // reserved: whoever sends one could pass for another metric
	}
	if v == otelNames {
		return stored
	}
	n, err := labelNamer.Build(stored)
	if err != nil || strings.HasPrefix(n, "__") {
		return ""
	}
	return n
}

// Who sent a series is called job and instance by Prometheus's users, whatever
// else it is called.
var twins = map[string]string{
	controlbus.AttrServiceName:     model.JobLabel,
	controlbus.AttrServiceInstance: model.InstanceLabel,
}

// labels are those of one series.
func (l *labeler) labels(name string, stored []storage.Attr) labels.Labels {
	l.pairs = l.pairs[:0]
	add := func(name, value string) {
		if name != "" && value != "" { // an empty label is none
			l.pairs = append(l.pairs, storage.Attr{Key: name, Value: value})
		}
	}
	for _, a := range stored {
		add(l.name(a.Key), a.Value)
	}
	if l.view == prometheusNames {
		for _, a := range stored {
			if twin := twins[a.Key]; twin != "" && !slices.ContainsFunc(stored, func(o storage.Attr) bool { return o.Key == twin }) {
				add(twin, a.Value)
			}
		}
	}
	slices.SortStableFunc(l.pairs, func(a, b storage.Attr) int { return cmp.Compare(a.Key, b.Key) })
	l.b.Reset()
	l.b.Add(model.MetricNameLabel, name)
	for i := 0; i < len(l.pairs); {
		// Two names that become one keep both values, as the specification says.
		value, j := l.pairs[i].Value, i+1
		for ; j < len(l.pairs) && l.pairs[j].Key == l.pairs[i].Key; j++ {
			value += ";" + l.pairs[j].Value
		}
		l.b.Add(l.pairs[i].Key, value)
		i = j
	}
	l.b.Sort()
	return l.b.Labels()
}
