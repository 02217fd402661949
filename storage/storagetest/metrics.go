package storagetest

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// metricReader is the part of a store that answers Prometheus.
type metricReader interface {
	Metrics(context.Context, storage.TimeRange) ([]storage.Metric, error)
	MetricSeries(context.Context, storage.MetricQuery) ([]storage.MetricSeries, error)
	MetricLabels(context.Context, storage.MetricQuery) ([]string, error)
	MetricLabelValues(context.Context, storage.MetricQuery, string) ([]string, error)
	Samples(context.Context, storage.SampleQuery, storage.SampleFunc) error
	Traffic(context.Context, storage.TrafficQuery) (storage.Traffic, error)
}

type sample struct {
	Series uint64
	Second int64
	Value  float64
}

func metrics(t *testing.T, s Store) {
	at := base()
	b := s.NewBatch()
	odd := "it's \\ \t\n\x01 ü {x}"
	add := func(id uint64, metric, kind, unit string, second int, v float64, labels ...storage.Attr) {
		b.AppendSample(&storage.Sample{Metric: metric, Series: id, Kind: kind, Unit: unit, Labels: labels, Time: at.Add(time.Duration(second) * time.Second).UnixNano(), Value: v})
	}
	for i := range 60 { // ten minutes
		add(1, "depth", "gauge", "{message}", 10*i, float64(i), storage.Attr{Key: "channel", Value: "orders"}, storage.Attr{Key: "env", Value: "prod"})
		add(2, "depth", "gauge", "{message}", 10*i, float64(-i), storage.Attr{Key: "channel", Value: odd}, storage.Attr{Key: "env", Value: "prod"})
	}
	add(3, "sent", "counter", "", 5, math.Inf(1), storage.Attr{Key: odd, Value: "orders"})
	add(3, "sent", "counter", "", 6, math.NaN(), storage.Attr{Key: odd, Value: "orders"})
	add(4, odd, "gauge", "s", 7, 7)
	add(5, "depth", "gauge", "{message}", -3*24*3600, 5) // days ago
	if err := s.Write(t.Context(), "metrics", b); err != nil {
		t.Fatal(err)
	}
	r, ok := s.(metricReader)
	if !ok {
		t.Fatal("the store does not answer Prometheus")
	}
	within := storage.TimeRange{From: at, To: at.Add(time.Hour)}

	list, err := r.Metrics(t.Context(), within)
	want := []storage.Metric{{Name: "depth", Kind: "gauge", Unit: "{message}"}, {Name: odd, Kind: "gauge", Unit: "s"}, {Name: "sent", Kind: "counter"}}
	slices.SortFunc(list, func(a, b storage.Metric) int { return cmp.Compare(a.Name, b.Name) })
	if diff := gocmp.Diff(want, list); err != nil || diff != "" {
		t.Errorf("metrics: %v, -want +got\n%s", err, diff)
	}

	ids := func(q storage.MetricQuery) []uint64 {
		t.Helper()
		q.Limit = cmp.Or(q.Limit, 100)
		found, err := r.MetricSeries(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var ids []uint64
		for _, f := range found {
			ids = append(ids, f.ID)
		}
		slices.Sort(ids)
		return ids
	}
	for _, c := range []struct {
		name string
		q    storage.MetricQuery
		want []uint64
	}{
		{"everything of the day", storage.MetricQuery{Range: within}, []uint64{1, 2, 3, 4}},
		{"every day", storage.MetricQuery{}, []uint64{1, 2, 3, 4, 5}},
		{"one metric", storage.MetricQuery{Range: within, Metrics: []string{"depth"}}, []uint64{1, 2}},
		{"odd name", storage.MetricQuery{Range: within, Metrics: []string{odd, "nothing"}}, []uint64{4}},
		{"a value", storage.MetricQuery{Range: within, Values: [][]string{{"orders"}}}, []uint64{1, 3}},
		{"odd value", storage.MetricQuery{Range: within, Values: [][]string{{"x", odd}, {"prod"}}}, []uint64{2}},
		{"no such value", storage.MetricQuery{Range: within, Values: [][]string{{"order"}}}, nil},
	} {
		if got := ids(c.q); !slices.Equal(got, c.want) {
			t.Errorf("%s: series %v, want %v", c.name, got, c.want)
		}
	}
	if _, err := r.MetricSeries(t.Context(), storage.MetricQuery{Range: within, Limit: 3}); !errors.Is(err, controlbus.ErrTooLarge) {
		t.Errorf("four series with a limit of three: %v, want too large", err)
	}
	one, err := r.MetricSeries(t.Context(), storage.MetricQuery{Range: within, Metrics: []string{"sent"}, Limit: 1})
	if diff := gocmp.Diff([]storage.MetricSeries{{Metric: want[2], ID: 3, Labels: []storage.Attr{{Key: odd, Value: "orders"}}}}, one); err != nil || diff != "" {
		t.Errorf("a series: %v, -want +got\n%s", err, diff)
	}

	names, err := r.MetricLabels(t.Context(), storage.MetricQuery{Range: within, Limit: 10})
	slices.Sort(names)
	if diff := gocmp.Diff([]string{"channel", "env", odd}, names); err != nil || diff != "" {
		t.Errorf("labels: %v, -want +got\n%s", err, diff)
	}
	for label, want := range map[string][]string{"channel": {odd, "orders"}, odd: {"orders"}, "nothing": nil} {
		values, err := r.MetricLabelValues(t.Context(), storage.MetricQuery{Range: within, Limit: 10}, label)
		slices.Sort(values)
		if diff := gocmp.Diff(want, values, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("values of %q: %v, -want +got\n%s", label, err, diff)
		}
	}

	read := func(q storage.SampleQuery) []sample {
		t.Helper()
		q.Limit = cmp.Or(q.Limit, 1000)
		var got []sample
		if err := r.Samples(t.Context(), q, func(id uint64, ms int64, v float64) error {
			got = append(got, sample{id, (ms - at.UnixMilli()) / 1000, v})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got, func(a, b sample) int { return cmp.Or(cmp.Compare(a.Series, b.Series), cmp.Compare(a.Second, b.Second)) })
		return got
	}
	span := func(from, to int) storage.TimeRange {
		return storage.TimeRange{From: at.Add(time.Duration(from) * time.Second), To: at.Add(time.Duration(to) * time.Second)}
	}
	minute := func(n int) time.Time { return at.Add(time.Duration(n) * time.Minute) }
	depth := []string{"depth"}
	for _, c := range []struct {
		name string
		q    storage.SampleQuery
		want []sample
	}{
		{"both series", storage.SampleQuery{Range: span(20, 40), Metrics: depth}, []sample{{1, 20, 2}, {1, 30, 3}, {2, 20, -2}, {2, 30, -3}}},
		{"one series", storage.SampleQuery{Range: span(20, 40), Metrics: depth, Series: []uint64{2, 99}}, []sample{{2, 20, -2}, {2, 30, -3}}},
		{"what is no number", storage.SampleQuery{Range: span(0, 10), Metrics: []string{"sent"}}, []sample{{3, 5, math.Inf(1)}, {3, 6, math.NaN()}}},
		{"newest of each minute", storage.SampleQuery{Range: span(0, 600), Metrics: depth, Series: []uint64{1},
			Grid: storage.SampleGrid{End: minute(3), Step: time.Minute, Window: 5 * time.Minute, Newest: true}},
			[]sample{{1, 0, 0}, {1, 60, 6}, {1, 120, 12}, {1, 180, 18}}},
		{"newest within a window", storage.SampleQuery{Range: span(0, 600), Metrics: depth, Series: []uint64{1},
			Grid: storage.SampleGrid{End: minute(3).Add(9 * time.Second), Step: time.Minute, Window: 15 * time.Second, Newest: true}},
			[]sample{{1, 0, 0}, {1, 60, 6}, {1, 120, 12}, {1, 180, 18}}},
		{"nothing in a window", storage.SampleQuery{Range: span(0, 600), Metrics: depth, Series: []uint64{1},
			Grid: storage.SampleGrid{End: minute(3).Add(9 * time.Second), Step: time.Minute, Window: 9 * time.Second, Newest: true}}, nil},
		{"all of each window", storage.SampleQuery{Range: span(0, 600), Metrics: depth, Series: []uint64{1},
			Grid: storage.SampleGrid{End: minute(4), Step: 2 * time.Minute, Window: 20 * time.Second}},
			[]sample{{1, 0, 0}, {1, 110, 11}, {1, 120, 12}, {1, 230, 23}, {1, 240, 24}}},
	} {
		if diff := gocmp.Diff(c.want, read(c.q), cmpopts.EquateNaNs(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.name, diff)
		}
	}
	err = r.Samples(t.Context(), storage.SampleQuery{Range: within, Metrics: depth, Limit: 119}, func(uint64, int64, float64) error { return nil })
	if !errors.Is(err, controlbus.ErrTooLarge) {
		t.Errorf("120 samples with a limit of 119: %v, want too large", err)
	}
	stop := errors.New("enough")
	if err := r.Samples(t.Context(), storage.SampleQuery{Range: within, Metrics: depth, Limit: 1000}, func(uint64, int64, float64) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a reader that has enough: %v, want its own error", err)
	}
	// Thousands of series are asked for in parts.
	b = s.NewBatch()
	var many []uint64
	for i := range 5000 {
		id := uint64(1000 + i)
		b.AppendSample(&storage.Sample{Metric: "many", Series: id, Kind: "gauge", Time: at.UnixNano(), Value: float64(id), Labels: []storage.Attr{{Key: "n", Value: string(rune('a'+i%26)) + "x"}}})
		many = append(many, id)
	}
	if err := s.Write(t.Context(), "many", b); err != nil {
		t.Fatal(err)
	}
	found, err := r.MetricSeries(t.Context(), storage.MetricQuery{Range: within, Metrics: []string{"many"}, Limit: 5000})
	if err != nil || len(found) != 5000 {
		t.Errorf("%d series of 5000, %v", len(found), err)
	}
	if got := read(storage.SampleQuery{Range: within, Metrics: []string{"many"}, Series: many, Limit: 5000}); len(got) != 5000 {
		t.Errorf("%d samples of 5000 series", len(got))
	}
}

func panes(t *testing.T, s Store) {
	// Retention decides by age which roll-ups there are.
	at := time.Now().UTC().Truncate(time.Hour).Add(-2 * time.Hour)
	b := s.NewBatch()
	pane := func(second int, channel string, n, failed uint64, latency map[uint8]uint64) {
		p := &storage.Pane{Time: at.Add(time.Duration(second) * time.Second).UnixNano(), Env: "prod", System: "nats", Broker: "n1", Destination: channel, Service: "billing",
			Op: controlbus.OpProcess, Count: n, Failed: failed, Bytes: 100 * n, Latency: latency}
		for _, c := range latency {
			p.LatencyN += c
			p.LatencySumNs += 1000 * c
		}
		b.AppendPane(p)
	}
	pane(0, "orders", 3, 1, map[uint8]uint64{10: 2, 200: 1})
	pane(10, "orders", 4, 0, nil)
	pane(10, "orders", 1, 0, nil) // what came late
	pane(70, "orders", 5, 5, map[uint8]uint64{10: 5})
	pane(30, "payments", 7, 0, nil)
	pane(3600, "orders", 100, 0, nil)
	if err := s.Write(t.Context(), "traffic", b); err != nil {
		t.Fatal(err)
	}
	r := s.(metricReader)
	// What passed by second, of one channel.
	read := func(channel string, q storage.TrafficQuery) map[int]uint64 {
		t.Helper()
		q.Limit = cmp.Or(q.Limit, 100)
		got, err := r.Traffic(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		sums := map[int]uint64{}
		for _, one := range got.Series {
			if one.Env != "prod" || one.System != "nats" || one.Broker != "n1" || one.Service != "billing" || one.Op != controlbus.OpProcess {
				t.Errorf("key %+v", one)
			}
			for i, sec := range one.At {
				if one.Destination == channel {
					sums[int(int64(sec)-at.Unix())] += one.N[i]
				}
			}
		}
		return sums
	}
	hour := storage.TimeRange{From: at, To: at.Add(time.Hour)}
	for _, c := range []struct {
		name, channel string
		q             storage.TrafficQuery
		want          map[int]uint64
	}{
		{"messages", "orders", storage.TrafficQuery{Range: hour, Width: 10 * time.Second, Measure: storage.TrafficMessages}, map[int]uint64{0: 3, 10: 5, 70: 5}},
		{"minutes", "orders", storage.TrafficQuery{Range: hour, Width: time.Minute, Measure: storage.TrafficMessages}, map[int]uint64{0: 8, 60: 5}},
		{"hours", "orders", storage.TrafficQuery{Range: storage.TimeRange{From: at, To: at.Add(2 * time.Hour)}, Width: time.Hour, Measure: storage.TrafficMessages}, map[int]uint64{0: 13, 3600: 100}},
		{"failures", "orders", storage.TrafficQuery{Range: hour, Width: time.Minute, Measure: storage.TrafficFailed}, map[int]uint64{0: 1, 60: 5}},
		{"no failures", "payments", storage.TrafficQuery{Range: hour, Width: time.Minute, Measure: storage.TrafficFailed}, map[int]uint64{0: 0}},
		{"bytes", "payments", storage.TrafficQuery{Range: hour, Width: 10 * time.Second, Measure: storage.TrafficBytes}, map[int]uint64{30: 700}},
		{"part of the range", "orders", storage.TrafficQuery{Range: storage.TimeRange{From: at.Add(15 * time.Second), To: at.Add(70 * time.Second)}, Width: 10 * time.Second, Measure: storage.TrafficMessages}, map[int]uint64{10: 5}},
		{"latencies", "orders", storage.TrafficQuery{Range: hour, Width: time.Minute, Measure: storage.TrafficLatency}, map[int]uint64{0: 3, 60: 5}},
		{"no latencies", "payments", storage.TrafficQuery{Range: hour, Width: time.Minute, Measure: storage.TrafficLatency}, map[int]uint64{}},
	} {
		if diff := gocmp.Diff(c.want, read(c.channel, c.q)); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.name, diff)
		}
	}
	keys, err := r.Traffic(t.Context(), storage.TrafficQuery{Width: time.Hour, Limit: 10})
	if err != nil || len(keys.Series) != 2 || len(keys.Series[0].At) != 0 {
		t.Errorf("keys %+v, %v", keys.Series, err)
	}
	lat, err := r.Traffic(t.Context(), storage.TrafficQuery{Range: hour, Width: time.Hour, Measure: storage.TrafficLatency, Limit: 10})
	if err != nil || len(lat.Series) != 1 {
		t.Fatalf("latencies %+v, %v", lat.Series, err)
	}
	buckets, sum := map[uint8]uint64{}, uint64(0)
	for i := range lat.Series[0].At {
		sum += lat.Series[0].SumNs[i]
		for j, b := range lat.Series[0].Buckets[i] {
			buckets[b] += lat.Series[0].Counts[i][j]
		}
	}
	if diff := gocmp.Diff(map[uint8]uint64{10: 7, 200: 1}, buckets); diff != "" || sum != 8000 || lat.Step != time.Hour {
		t.Errorf("latency buckets: -want +got\n%s, sum %d, step %v", diff, sum, lat.Step)
	}
	if _, err := r.Traffic(t.Context(), storage.TrafficQuery{Range: hour, Width: 10 * time.Second, Measure: storage.TrafficMessages, Limit: 2}); !errors.Is(err, controlbus.ErrTooLarge) {
		t.Errorf("four panes with a limit of two: %v, want too large", err)
	}
}
