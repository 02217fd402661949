package prometheus_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// BenchmarkQueryRange asks for an hour of a thousand series with a sample every
// ten seconds, and for a day of them, as a panel of a dashboard does. p95-ms is
// what one in twenty answers took longer than.
func BenchmarkQueryRange(b *testing.B) {
	s := open(b)
	end := noon
	const series = 1000
	for hour := range 24 {
		batch := s.NewBatch()
		for i := range series {
			labels := attrs(controlbus.AttrEnvironment, "prod", controlbus.AttrSystem, "rabbitmq", controlbus.AttrBroker, fmt.Sprintf("r%d", i%4),
				controlbus.AttrDestination, fmt.Sprintf("orders.%03d", i), controlbus.AttrChannelKind, "queue")
			for j := range 360 {
				at := end.Add(-24*time.Hour + time.Duration(hour)*time.Hour + time.Duration(j)*10*time.Second)
				batch.AppendSample(&storage.Sample{Metric: controlbus.MetricChannelPublished, Kind: "counter", Unit: "{message}", Series: uint64(i + 1),
					Labels: labels, Time: at.UnixNano(), Value: float64((hour*360 + j) * (i%50 + 1))})
			}
		}
		if err := s.Write(b.Context(), fmt.Sprint("hour ", hour), batch); err != nil {
			b.Fatal(err)
		}
	}
	a := serve(b, s, nil)
	const metric = "signalbox_channel_published_total"
	for _, c := range []struct {
		name, query string
		span, step  time.Duration
	}{
		{"hour/rate", "rate(" + metric + "[1m])", time.Hour, 15 * time.Second},
		{"hour/sum", "sum by (signalbox_broker) (rate(" + metric + "[1m]))", time.Hour, 15 * time.Second},
		{"hour/topk", "topk(10, rate(" + metric + "[5m]))", time.Hour, time.Minute},
		{"hour/value", metric, time.Hour, time.Minute},
		{"hour/one", "rate(" + metric + `{messaging_destination_name="orders.007"}[1m])`, time.Hour, 15 * time.Second},
		{"day/value", "sum(" + metric + ")", 24 * time.Hour, 5 * time.Minute},
		{"day/rate", "sum(rate(" + metric + "[5m]))", 24 * time.Hour, 5 * time.Minute},
		{"now", "sum(" + metric + ")", 0, 0},
	} {
		b.Run(c.name, func(b *testing.B) {
			target := "/prometheus/api/v1/query?" + url.Values{"query": {c.query}, "time": {fmt.Sprint(end.Unix())}}.Encode()
			if c.span > 0 {
				target = "/prometheus/api/v1/query_range?" + url.Values{"query": {c.query}, "start": {fmt.Sprint(end.Add(-c.span).Unix())},
					"end": {fmt.Sprint(end.Unix())}, "step": {fmt.Sprint(c.step.Seconds())}}.Encode()
			}
			var took []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				began := time.Now()
				a.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), http.MethodGet, target, nil))
				took = append(took, time.Since(began))
				if w.Code != http.StatusOK || w.Body.Len() < 80 {
					b.Fatalf("%d %.300s", w.Code, w.Body)
				}
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[(len(took)-1)*95/100].Microseconds())/1e3, "p95-ms")
		})
	}
}
