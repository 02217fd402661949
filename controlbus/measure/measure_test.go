package measure_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/controlbus/measure"
)

func TestSecondsAreCumulativeBuckets(t *testing.T) {
	t.Parallel()
	set := metrics.NewSet()
	s := measure.NewSeconds(set, "x_seconds", "route")
	for _, took := range []time.Duration{0, 5 * time.Millisecond, 6 * time.Millisecond, 200 * time.Millisecond, time.Hour} {
		s.Observe(`GET /a/{id} "odd"`, took)
	}
	var none *measure.Seconds
	none.Observe("x", time.Second)
	var text strings.Builder
	set.WritePrometheus(&text)
	for _, want := range []string{
		`x_seconds_bucket{route="GET /a/{id} \"odd\"",le="0.005"} 2`,
		`x_seconds_bucket{route="GET /a/{id} \"odd\"",le="0.01"} 3`,
		`x_seconds_bucket{route="GET /a/{id} \"odd\"",le="0.1"} 3`,
		`x_seconds_bucket{route="GET /a/{id} \"odd\"",le="0.25"} 4`,
		`x_seconds_bucket{route="GET /a/{id} \"odd\"",le="30"} 4`,
		`x_seconds_bucket{route="GET /a/{id} \"odd\"",le="+Inf"} 5`,
		`x_seconds_count{route="GET /a/{id} \"odd\""} 5`,
		`x_seconds_sum{route="GET /a/{id} \"odd\""} 3600.211`,
	} {
		if !strings.Contains(text.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, text.String())
		}
	}
}

func TestSetsBecomeOpenTelemetry(t *testing.T) {
	t.Parallel()
	set := metrics.NewSet()
	set.NewCounter(`a_total{reason="full"}`).Add(7)
	set.NewCounter(`a_total{reason="disk"}`).Add(1)
	set.NewGauge(`b_bytes`, func() float64 { return 2.5 })
	s := measure.NewSeconds(set, "c_seconds", "kind")
	for _, took := range []time.Duration{time.Millisecond, 200 * time.Millisecond, time.Minute} {
		s.Observe("search", took)
	}
	s.Observe("other", time.Second)
	md := pmetric.NewMetrics()
	sm := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty()
	if err := measure.Append(sm, set, time.Unix(1, 0), time.Unix(100, 0)); err != nil {
		t.Fatal(err)
	}
	var got []string
	kinds := map[string]bool{}
	for _, m := range sm.Metrics().All() {
		kinds[m.Name()] = true
		switch m.Type() {
		case pmetric.MetricTypeSum:
			if !m.Sum().IsMonotonic() || m.Sum().AggregationTemporality() != pmetric.AggregationTemporalityCumulative {
				t.Errorf("%s is no counter", m.Name())
			}
			for _, p := range m.Sum().DataPoints().All() {
				if strings.HasPrefix(m.Name(), "a_") {
					got = append(got, fmt.Sprintln(m.Name(), p.Attributes().AsRaw(), p.DoubleValue(), p.Timestamp().AsTime().Unix(), p.StartTimestamp().AsTime().Unix()))
				}
			}
		case pmetric.MetricTypeGauge:
			for _, p := range m.Gauge().DataPoints().All() {
				if strings.HasPrefix(m.Name(), "b_") {
					got = append(got, fmt.Sprintln(m.Name(), p.Attributes().AsRaw(), p.DoubleValue()))
				}
			}
		case pmetric.MetricTypeHistogram:
			for _, p := range m.Histogram().DataPoints().All() {
				got = append(got, fmt.Sprintln(m.Name(), p.Attributes().AsRaw(), p.BucketCounts().AsRaw(), p.Count(), p.Sum(), p.ExplicitBounds().Len()))
			}
		}
	}
	for i := range got {
		got[i] = strings.TrimSpace(got[i])
	}
	slices.Sort(got)
	want := []string{
		`a_total map[reason:disk] 1 100 1`, `a_total map[reason:full] 7 100 1`, `b_bytes map[] 2.5`,
		`c_seconds map[kind:other] [0 0 0 0 0 0 0 1 0 0 0 0 0] 1 1 12`,
		`c_seconds map[kind:search] [1 0 0 0 0 1 0 0 0 0 0 0 1] 3 60.201 12`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, name := range []string{"process_resident_memory_bytes", "process_cpu_seconds_total", "go_goroutines"} {
		if !kinds[name] {
			t.Errorf("no %s", name)
		}
	}
	for name := range kinds {
		if strings.HasSuffix(name, "_bucket") || strings.HasPrefix(name, "c_seconds_") {
			t.Errorf("%s is part of a histogram", name)
		}
	}
}

func TestSecondsAreCountedByMany(t *testing.T) {
	t.Parallel()
	set := metrics.NewSet()
	s := measure.NewSeconds(set, "x_seconds", "kind")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				s.Observe(fmt.Sprint(i%3), time.Millisecond)
			}
		})
	}
	wg.Wait()
	var n uint64
	for i := range 3 {
		n += set.GetOrCreateCounter(fmt.Sprintf(`x_seconds_bucket{kind="%d",le="0.005"}`, i)).Get()
	}
	if n != 8000 {
		t.Errorf("%d counted, want 8000", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	s := measure.NewSeconds(metrics.NewSet(), "x_seconds", "kind")
	b.ReportAllocs()
	for b.Loop() {
		s.Observe("search", 30*time.Millisecond)
	}
}
