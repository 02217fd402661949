// Package prometheustest is what both Prometheus and this console's query API
// are asked in tests: one set of samples, and requests over it. The module
// test/prometheus asks both and keeps Prometheus's answers in
// ui/prometheus/testdata, with which the tests of ui/prometheus compare theirs.
package prometheustest

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/storage"
)

// End is the instant of the last samples.
var End = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// StaleNaN is the value with which Prometheus says that a series has ended. It
// is one of many that are no number, and has to survive as this one.
var StaleNaN = math.Float64frombits(0x7ff0000000000002)

// Series is one series. Its names are the same to OpenTelemetry and Prometheus.
type Series struct {
	Metric, Kind, Unit string
	Labels             []storage.Attr // by name
	Points             []Point
}

// Point is one sample.
type Point struct {
	Ms    int64
	Value float64
}

const (
	interval = 10 * time.Second
	length   = 2 * time.Hour
)

// Data makes the samples: two hours of them, from a seed. Series come by name
// and labels, points by time.
func Data(seed uint64) []Series {
	g := &generator{rng: rand.New(rand.NewPCG(seed, 1))}
	for _, job := range []string{"api", "web"} {
		for _, instance := range []string{"a:80", "b:80"} {
			where := []string{"job", job, "instance", instance}
			for _, handler := range []string{"/", "/orders", "/orders/{id}"} {
				for _, code := range []string{"200", "500"} {
					rate := 0.1 + 5*g.rng.Float64()
					if code == "500" {
						rate /= 20
					}
					g.counter("http_requests_total", rate, append(where, "handler", handler, "code", code)...)
				}
			}
			g.histogram(where...)
			g.add("up", "gauge", "", g.up(), where...)
			g.add("process_start_time_seconds", "gauge", "s", g.steps(func(int) float64 { return float64(End.Add(-3*time.Hour).Unix()) + 0.25 }), where...)
			g.add("memory_bytes", "gauge", "By", g.steps(func(i int) float64 {
				return math.Floor(1e9 + 1e8*math.Sin(float64(i)/50) + 1e6*g.rng.Float64())
			}), where...)
			g.add("build_info", "gauge", "", g.steps(func(int) float64 { return 1 }), append(where, "version", map[string]string{"api": "1.2.3", "web": "2.0.0"}[job])...)
			// A queue that was away for a quarter of an hour.
			depth := g.steps(func(i int) float64 { return math.Floor(float64(i%97) + 10*g.rng.Float64()) })
			g.add("queue_depth", "gauge", "", slices.DeleteFunc(depth, func(p Point) bool {
				ago := End.UnixMilli() - p.Ms
				return ago > 40*60_000 && ago < 55*60_000
			}), append(where, "queue", "q-"+job)...)
		}
	}
	// Ends an hour before the rest, without a word.
	g.add("queue_depth", "gauge", "", g.steps(func(i int) float64 { return float64(i) })[:360], "job", "old", "instance", "c:80", "queue", "gone")
	// Ends with a word, and comes back.
	ended := g.steps(func(i int) float64 { return float64(i) })
	ended[400].Value = StaleNaN
	g.add("queue_depth", "gauge", "", slices.Delete(ended, 401, 600), "job", "old", "instance", "d:80", "queue", "marked")
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), 1e300, -1e300, 1e-300, 5e-324, 1.7976931348623157e308, 0.1, 1e21, 123456789.123456789, 1e-7}
	g.add("odd", "gauge", "", g.steps(func(i int) float64 { return odd[i%len(odd)] }), "kind", "all")
	g.add("odd", "gauge", "", g.steps(func(int) float64 { return math.NaN() }), "kind", "nan")
	g.add("odd", "gauge", "", g.steps(func(i int) float64 { return odd[i%3] }), "kind", "limits")
	g.add("odd", "gauge", "", g.steps(func(i int) float64 { return -float64(i) / 3 }))
	g.add("text", "gauge", "", g.steps(func(int) float64 { return 1 }), "v", "a \"quoted\" \\ back\nslash <&> ü 日本 \t")
	g.add("slow", "gauge", "", slices.DeleteFunc(g.steps(func(i int) float64 { return float64(i * i) }), func(p Point) bool { return p.Ms/1000%120 >= 10 }), "job", "batch")
	for i := range 300 {
		points := g.steps(func(j int) float64 { return float64((i*7+j)%100) / 10 })
		g.add("many", "gauge", "", points[len(points)-60:], "n", fmt.Sprintf("%03d", i), "group", string(rune('a'+i%7)))
	}
	slices.SortFunc(g.all, func(a, b Series) int {
		return cmp.Or(cmp.Compare(a.Metric, b.Metric), compareLabels(a.Labels, b.Labels))
	})
	return g.all
}

// compareLabels is Prometheus's order of label sets.
func compareLabels(a, b []storage.Attr) int {
	return slices.CompareFunc(a, b, func(a, b storage.Attr) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Value, b.Value))
	})
}

type generator struct {
	rng *rand.Rand
	all []Series
}

func (g *generator) add(metric, kind, unit string, points []Point, labels ...string) {
	s := Series{Metric: metric, Kind: kind, Unit: unit, Points: points}
	for i := 0; i+1 < len(labels); i += 2 {
		s.Labels = append(s.Labels, storage.Attr{Key: labels[i], Value: labels[i+1]})
	}
	slices.SortFunc(s.Labels, func(a, b storage.Attr) int { return strings.Compare(a.Key, b.Key) })
	g.all = append(g.all, s)
}

// steps are samples about every ten seconds, each series at instants of its own.
func (g *generator) steps(value func(i int) float64) []Point {
	n := int(length / interval)
	phase := g.rng.Int64N(interval.Milliseconds())
	points := make([]Point, n)
	for i := range points {
		jitter := g.rng.Int64N(200) - 100
		if i%50 == 0 { // now and then on the second, where windows end
			jitter = -phase
		}
		points[i] = Point{End.Add(-length).UnixMilli() + int64(i+1)*interval.Milliseconds() - interval.Milliseconds() + phase + jitter, value(i)}
	}
	slices.SortFunc(points, func(a, b Point) int { return cmp.Compare(a.Ms, b.Ms) })
	return slices.CompactFunc(points, func(a, b Point) bool { return a.Ms == b.Ms })
}

// counter grows, and starts again now and then.
func (g *generator) counter(metric string, rate float64, labels ...string) {
	var v float64
	g.add(metric, "counter", "", g.steps(func(int) float64 {
		if g.rng.IntN(250) == 0 {
			v = 0
		}
		v += math.Floor(rate * 20 * g.rng.Float64())
		return v
	}), labels...)
}

// up is 1 with two outages, and some samples missing.
func (g *generator) up() []Point {
	down := g.rng.IntN(600)
	points := g.steps(func(i int) float64 {
		if i > down && i < down+30 {
			return 0
		}
		return 1
	})
	return slices.DeleteFunc(points, func(Point) bool { return g.rng.IntN(40) == 0 })
}

func (g *generator) histogram(where ...string) {
	bounds := []string{"0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf"}
	counts := make([]float64, len(bounds))
	sums := make([][]float64, len(bounds)+2)
	var sum float64
	n := int(length / interval)
	for i := range n {
		if i == n/3 { // a restart
			clear(counts)
			sum = 0
		}
		for range g.rng.IntN(20) {
			took := math.Exp(g.rng.NormFloat64() - 1.5)
			sum += took
			for b, bound := range []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, math.Inf(1)} {
				if took <= bound {
					counts[b]++
				}
			}
		}
		for b := range bounds {
			sums[b] = append(sums[b], counts[b])
		}
		sums[len(bounds)] = append(sums[len(bounds)], sum)
		sums[len(bounds)+1] = append(sums[len(bounds)+1], counts[len(bounds)-1])
	}
	at := g.steps(func(int) float64 { return 0 })
	points := func(values []float64) []Point {
		list := slices.Clone(at)
		for i := range list {
			list[i].Value = values[i]
		}
		return list
	}
	const name = "http_request_duration_seconds"
	for b, le := range bounds {
		g.add(name+"_bucket", "histogram", "s", points(sums[b]), append(where, "le", le)...)
	}
	g.add(name+"_sum", "histogram", "s", points(sums[len(bounds)]), where...)
	g.add(name+"_count", "histogram", "s", points(sums[len(bounds)+1]), where...)
}
