// Package measure has the console's own metrics speak to others: durations in
// buckets that Prometheus understands, where the library's own histograms have a
// dialect of VictoriaMetrics, and a whole set as OpenTelemetry, so that the
// console keeps its own metrics in its store.
package measure

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
)

// bounds of the buckets, in seconds: from what nobody notices to what nobody
// waits for.
var bounds = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// Seconds counts durations under a metric with one label. Its values must be
// bounded. It is safe for concurrent use; a nil *Seconds counts nothing.
type Seconds struct {
	set         *metrics.Set
	name, label string
	known       sync.Map // label value to *buckets
}

// NewSeconds returns a histogram whose name should end in _seconds.
func NewSeconds(set *metrics.Set, name, label string) *Seconds {
	return &Seconds{set: set, name: name, label: label}
}

type buckets struct {
	le    []*metrics.Counter
	count *metrics.Counter
	sum   *metrics.FloatCounter
}

// Observe counts one duration.
func (s *Seconds) Observe(value string, took time.Duration) {
	if s == nil {
		return
	}
	found, ok := s.known.Load(value)
	if !ok {
		found, _ = s.known.LoadOrStore(value, s.buckets(value))
	}
	b, v := found.(*buckets), took.Seconds()
	b.count.Inc()
	b.sum.Add(v)
	for i := len(bounds) - 1; i >= 0 && v <= bounds[i]; i-- {
		b.le[i].Inc()
	}
	b.le[len(bounds)].Inc()
}

func (s *Seconds) buckets(value string) *buckets {
	label := s.label + "=" + quote(value)
	b := &buckets{
		count: s.set.GetOrCreateCounter(s.name + "_count{" + label + "}"),
		sum:   s.set.GetOrCreateFloatCounter(s.name + "_sum{" + label + "}"),
	}
	for _, bound := range append(slices.Clone(bounds), math.Inf(1)) {
		b.le = append(b.le, s.set.GetOrCreateCounter(s.name+"_bucket{"+label+`,le="`+text(bound)+`"}`))
	}
	return b
}

var escaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func quote(s string) string { return `"` + escaper.Replace(s) + `"` }

func text(f float64) string {
	if math.IsInf(f, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// process are the metrics of the process itself that are worth keeping.
var process = []string{
	"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_num_threads", "process_start_time_seconds",
	"go_goroutines", "go_memstats_heap_inuse_bytes", "go_gc_duration_seconds_sum", "go_gc_duration_seconds_count",
}

// Append adds every metric of a set, and the chief ones of the process, to sm as
// they stand at now. Counters and histograms began at start.
func Append(sm pmetric.ScopeMetrics, set *metrics.Set, start, now time.Time) error {
	families, err := read(set.WritePrometheus)
	if err != nil {
		return err
	}
	own, err := read(metrics.WriteProcessMetrics)
	if err != nil {
		return err
	}
	for _, name := range process {
		if f := own[name]; f != nil {
			families[name] = f
		}
	}
	a := appender{sm: sm, start: pcommon.NewTimestampFromTime(start), now: pcommon.NewTimestampFromTime(now)}
	names := make([]string, 0, len(families))
	for name := range families {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		base, isBucket := strings.CutSuffix(name, "_bucket")
		switch {
		case isBucket && families[base+"_count"] != nil && families[base+"_sum"] != nil:
			a.histogram(base, families[name], families[base+"_sum"], families[base+"_count"])
		case part(name, families):
		case strings.HasSuffix(name, "_total"), strings.HasSuffix(name, "_sum"), strings.HasSuffix(name, "_count"):
			a.numbers(name, families[name], true)
		default:
			a.numbers(name, families[name], false)
		}
	}
	return nil
}

// part says whether a name is the sum or count of a histogram.
func part(name string, families map[string]*dto.MetricFamily) bool {
	for _, suffix := range []string{"_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && families[base+"_bucket"] != nil {
			return true
		}
	}
	return false
}

func read(write func(io.Writer)) (map[string]*dto.MetricFamily, error) {
	var b bytes.Buffer
	write(&b)
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(&b)
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	return families, nil
}

type appender struct {
	sm         pmetric.ScopeMetrics
	start, now pcommon.Timestamp
}

func (a appender) numbers(name string, f *dto.MetricFamily, counter bool) {
	m := a.sm.Metrics().AppendEmpty()
	m.SetName(name)
	var points pmetric.NumberDataPointSlice
	if counter {
		sum := m.SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		points = sum.DataPoints()
	} else {
		points = m.SetEmptyGauge().DataPoints()
	}
	for _, one := range f.Metric {
		p := points.AppendEmpty()
		if counter {
			p.SetStartTimestamp(a.start)
		}
		p.SetTimestamp(a.now)
		p.SetDoubleValue(one.GetUntyped().GetValue())
		for _, l := range one.Label {
			p.Attributes().PutStr(l.GetName(), l.GetValue())
		}
	}
}

// histogram puts the parts of a histogram together again.
func (a appender) histogram(name string, le, sums, counts *dto.MetricFamily) {
	m := a.sm.Metrics().AppendEmpty()
	m.SetName(name)
	h := m.SetEmptyHistogram()
	h.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	type bucket struct{ le, n float64 }
	all := map[string][]bucket{}
	for _, one := range le.Metric {
		bound, err := strconv.ParseFloat(value(one, "le"), 64)
		if err != nil {
			continue // VictoriaMetrics' own, which has ranges
		}
		all[key(one)] = append(all[key(one)], bucket{bound, one.GetUntyped().GetValue()})
	}
	sumOf := map[string]float64{}
	for _, one := range sums.Metric {
		sumOf[key(one)] = one.GetUntyped().GetValue()
	}
	for _, one := range counts.Metric {
		k := key(one)
		list := all[k]
		if len(list) == 0 {
			continue
		}
		slices.SortFunc(list, func(a, b bucket) int { return cmp.Compare(a.le, b.le) })
		p := h.DataPoints().AppendEmpty()
		p.SetStartTimestamp(a.start)
		p.SetTimestamp(a.now)
		p.SetSum(sumOf[k])
		var before, total float64
		for _, b := range list {
			if !math.IsInf(b.le, 1) {
				p.ExplicitBounds().Append(b.le)
			}
			// Counters are read one after the other, while others count.
			n := max(b.n-before, 0)
			p.BucketCounts().Append(uint64(n))
			before, total = max(b.n, before), total+n
		}
		p.SetCount(uint64(total))
		for _, l := range one.Label {
			p.Attributes().PutStr(l.GetName(), l.GetValue())
		}
	}
}

func value(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// key is a point's labels without the bucket's bound.
func key(m *dto.Metric) string {
	var b strings.Builder
	for _, l := range m.Label {
		if l.GetName() != "le" {
			b.WriteString(l.GetName() + "\x00" + l.GetValue() + "\x00")
		}
	}
	return b.String()
}
