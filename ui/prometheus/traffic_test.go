package prometheus_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/collector/detect"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/prometheus"
)

// value is the one value of an answer to query; NaN for none.
func value(t *testing.T, h http.Handler, query string, at time.Time) float64 {
	t.Helper()
	var data struct {
		Result []struct {
			Value []any
		}
	}
	text := get(t, h, "query", "query", query, "time", fmt.Sprintf("%.3f", float64(at.UnixMilli())/1000))
	if err := json.Unmarshal([]byte(text), &data); err != nil {
		t.Fatal(err)
	}
	switch len(data.Result) {
	case 0:
		return math.NaN()
	case 1:
		v, err := strconv.ParseFloat(data.Result[0].Value[1].(string), 64)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	t.Fatalf("%s: %s", query, text)
	return 0
}

// TestTraffic has a channel of one message a second from 22:00 on, over
// midnight to 03:00, and one that had three messages at 23:30:05.
func TestTraffic(t *testing.T) {
	t.Parallel()
	midnight := time.Now().UTC().Truncate(24 * time.Hour)
	if time.Since(midnight) < 4*time.Hour {
		midnight = midnight.Add(-24 * time.Hour)
	}
	clock := func(hour, minute, second int) time.Time {
		return midnight.Add(time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second)
	}
	s := open(t)
	b := s.NewBatch()
	panes := detect.NewPanes()
	message := func(at time.Time, channel string, took time.Duration, failed bool) {
		ev := &controlbus.MessageEvent{Time: at.UnixNano(), Env: "prod", System: "nats", Broker: "n1", Destination: channel, Service: "billing", Op: controlbus.OpProcess, BodySize: 10, LatencyNs: took.Nanoseconds()}
		if failed {
			ev.Outcome = controlbus.OutcomeFailed
		}
		panes.Add(ev)
	}
	for i := range 5 * 3600 {
		took := 10 * time.Millisecond
		if i%20 == 0 {
			took = 2 * time.Second
		}
		message(clock(-2, 0, i), "orders", took, i%10 == 0)
	}
	for range 3 {
		message(clock(-1, 30, 5), "rare", 0, false)
	}
	for _, p := range panes.All() {
		b.AppendPane(p)
	}
	// A sender that takes our names is not heard.
	b.AppendSample(&storage.Sample{Metric: "signalbox.traffic.messages", Series: 1, Kind: "counter", Time: clock(1, 0, 0).UnixNano(), Value: 1e9, Labels: attrs(controlbus.AttrDestination, "orders")})
	b.AppendSample(&storage.Sample{Metric: "signalbox_traffic_messages", Series: 2, Kind: "counter", Time: clock(1, 0, 0).UnixNano(), Value: 1e9, Labels: attrs(controlbus.AttrDestination, "orders")})
	if err := s.Write(t.Context(), "traffic", b); err != nil {
		t.Fatal(err)
	}
	a := serve(t, s, nil)
	none := math.NaN()
	for _, c := range []struct {
		query string
		at    time.Time
		want  float64
	}{
		// Counters count from midnight.
		{`signalbox_traffic_messages_total{messaging_destination_name="orders"}`, clock(-1, 0, 0), 3600},
		{`signalbox_traffic_messages_total{messaging_destination_name="orders"}`, clock(-1, 0, 9), 3600},
		{`signalbox_traffic_messages_total{messaging_destination_name="orders"}`, clock(0, 0, 0), 7200},
		{`signalbox_traffic_messages_total{messaging_destination_name="orders"}`, clock(0, 0, 1), 0},
		{`signalbox_traffic_messages_total{messaging_destination_name="orders"}`, clock(2, 30, 0), 9000},
		{`{"signalbox.traffic.messages","messaging.destination.name"="orders"}`, clock(2, 30, 0), 9000},
		{`signalbox_traffic_size_bytes_total{messaging_destination_name="orders"}`, clock(2, 30, 0), 90000},
		{`signalbox_traffic_failed_total{messaging_destination_name="orders"}`, clock(2, 30, 0), 900},
		{`signalbox_traffic_failed_total{messaging_destination_name="rare"}`, clock(-1, 40, 0), 0},
		// Rates lose nothing, at midnight either, whatever the window.
		{`rate(signalbox_traffic_messages_total{job="billing",messaging_destination_name="orders"}[1m])`, clock(-1, 0, 0), 1},
		{`rate(signalbox_traffic_messages_total{messaging_destination_name="orders"}[5m])`, clock(0, 0, 0), 1},
		{`rate(signalbox_traffic_messages_total{messaging_destination_name="orders"}[5m])`, clock(0, 2, 0), 1},
		{`rate(signalbox_traffic_messages_total{messaging_destination_name="orders"}[30m])`, clock(0, 10, 0), 1},
		{`increase(signalbox_traffic_messages_total{messaging_destination_name="orders"}[2h])`, clock(1, 0, 0), 7200},
		{`sum by (messaging_destination_name) (rate(signalbox_traffic_failed_total{messaging_destination_name="orders"}[5m])) / on (messaging_destination_name) sum by (messaging_destination_name) (rate(signalbox_traffic_messages_total[5m]))`, clock(1, 0, 0), 0.1},
		// What begins is counted from nothing.
		{`increase(signalbox_traffic_messages_total{messaging_destination_name="rare"}[5m:10s])`, clock(-1, 32, 0), 3},
		// There until a day without has passed.
		{`signalbox_traffic_messages_total{messaging_destination_name="rare"}`, clock(-1, 29, 0), none},
		{`signalbox_traffic_messages_total{messaging_destination_name="rare"}`, clock(-1, 31, 0), 3},
		{`signalbox_traffic_messages_total{messaging_destination_name="rare"}`, clock(1, 0, 0), 0},
		{`rate(signalbox_traffic_messages_total{messaging_destination_name="rare"}[5m])`, clock(1, 0, 0), 0},
		{`signalbox_traffic_messages_total{messaging_destination_name="orders"} offset -25h`, clock(-1, 0, 0), 10800},
		{`signalbox_traffic_messages_total{messaging_destination_name="rare"} offset -26h`, clock(-1, 0, 0), none},
		// Latencies: 19 of 20 take 10 ms, one takes two seconds.
		{`histogram_count(increase(signalbox_traffic_latency_seconds[10m]))`, clock(1, 0, 0), 600},
		{`histogram_avg(rate(signalbox_traffic_latency_seconds[10m]))`, clock(1, 0, 0), 0.1095},
		{`histogram_quantile(0.5, rate(signalbox_traffic_latency_seconds[10m]))`, clock(1, 0, 0), 0.01},
		{`histogram_quantile(0.99, sum by (messaging_destination_name) (rate(signalbox_traffic_latency_seconds[10m])))`, clock(0, 5, 0), 2},
		{`histogram_quantile(0.99, rate(signalbox_traffic_latency_seconds[1m]))`, clock(-1, 0, 0), 2},
		{`signalbox_traffic_messages`, clock(1, 0, 0), none},
	} {
		got := value(t, a, c.query, c.at)
		near := math.Abs(got-c.want) <= 0.001*math.Abs(c.want)
		if c.want == 0.01 || c.want == 2 { // a bucket is 9 % wide
			near = math.Abs(got-c.want) <= 0.09*c.want
		}
		if !near && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("%s at %s: %v, want %v", c.query, c.at.Format(time.DateTime), got, c.want)
		}
	}
	// A range is its instants, whichever panes it was read from.
	for _, query := range []string{
		`signalbox_traffic_messages_total{messaging_destination_name="orders"}`,
		`rate(signalbox_traffic_messages_total{messaging_destination_name="orders"}[5m])`,
		`max_over_time(signalbox_traffic_messages_total{messaging_destination_name="orders"}[10m])`,
		`histogram_quantile(0.9, rate(signalbox_traffic_latency_seconds[5m]))`,
		`histogram_count(signalbox_traffic_latency_seconds)`,
	} {
		for _, step := range []time.Duration{time.Minute, 7 * time.Minute, 20 * time.Minute} {
			from, to := clock(-2, 6, 0), clock(3, 30, 0)
			var data struct {
				Result []struct{ Values [][]any }
			}
			text := get(t, a, "query_range", "query", query, "start", fmt.Sprint(from.Unix()), "end", fmt.Sprint(to.Unix()), "step", fmt.Sprint(step.Seconds()))
			if err := json.Unmarshal([]byte(text), &data); err != nil || len(data.Result) != 1 {
				t.Fatalf("%s: %v, %.300s", query, err, text)
			}
			values := data.Result[0].Values
			for i := 0; i < len(values); i += max(1, len(values)/7) {
				at := time.Unix(int64(values[i][0].(float64)), 0)
				ranged, err := strconv.ParseFloat(values[i][1].(string), 64)
				if err != nil {
					t.Fatal(err)
				}
				if one := value(t, a, query, at); math.Abs(one-ranged) > 1e-9*math.Abs(one) && !(math.IsNaN(one) && math.IsNaN(ranged)) {
					t.Errorf("%s, step %v, at %s: %v in the range, %v alone", query, step, at.UTC().Format(time.DateTime), ranged, one)
				}
			}
		}
	}
	var names, values []string
	if err := json.Unmarshal([]byte(get(t, a, "label/__name__/values")), &names); err != nil || len(names) != 4 {
		t.Errorf("names %v, %v", names, err)
	}
	if err := json.Unmarshal([]byte(get(t, a, "label/messaging_destination_name/values", "match[]", "signalbox_traffic_failed_total")), &values); err != nil || fmt.Sprint(values) != "[orders rare]" {
		t.Errorf("values %v, %v", values, err)
	}
	if got := get(t, a, "series", "match[]", `signalbox_traffic_latency_seconds{messaging_destination_name="orders"}`); got != `[{"__name__":"signalbox_traffic_latency_seconds","deployment_environment_name":"prod","job":"billing","messaging_destination_name":"orders","messaging_operation_type":"process","messaging_system":"nats","service_name":"billing","signalbox_broker":"n1"}]` {
		t.Errorf("series %s", got)
	}
	scope := controlbus.NewScope([]controlbus.ScopeRule{{Env: "prod", Channel: "rare"}})
	api := serve(t, s, func(_ *prometheus.Config, d *prometheus.Deps) { d.Scope = scopeOf(scope) })
	limited := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.ServeHTTP(w, r.WithContext(controlbus.WithScope(r.Context(), scope)))
	})
	if got := value(t, limited, `count(signalbox_traffic_messages_total)`, clock(0, 30, 0)); got != 1 {
		t.Errorf("%v series within the scope of one channel", got)
	}
}
