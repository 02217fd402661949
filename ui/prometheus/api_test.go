package prometheus_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/prometheus"
)

// noon is a fixed instant, so that answers are.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// answer is what any endpoint answers.
type answer struct {
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
	Infos     []string        `json:"infos"`
}

// ask asks an endpoint; form pairs follow its name.
func ask(t testing.TB, h http.Handler, method, endpoint string, form ...string) (int, answer) {
	t.Helper()
	v := url.Values{}
	for i := 0; i+1 < len(form); i += 2 {
		v.Add(form[i], form[i+1])
	}
	target, body := "/prometheus/api/v1/"+endpoint, ""
	if method == http.MethodPost {
		body = v.Encode()
	} else if len(v) > 0 {
		target += "?" + v.Encode()
	}
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("%s %v: %d %q: %v", endpoint, form, w.Code, w.Body, err)
	}
	return w.Code, a
}

func get(t testing.TB, h http.Handler, endpoint string, form ...string) string {
	t.Helper()
	code, a := ask(t, h, http.MethodGet, endpoint, form...)
	if code != http.StatusOK || a.Status != "success" {
		t.Errorf("%s %v: %d %s: %s", endpoint, form, code, a.ErrorType, a.Error)
	}
	return string(a.Data)
}

// demo writes what agents send, by the names under which they send it.
func demo(t *testing.T) *prometheus.API {
	s := open(t)
	b := s.NewBatch()
	id := uint64(0)
	add := func(metric, kind, unit string, v func(i int) float64, labels ...string) {
		id++
		for i := range 31 { // half an hour
			b.AppendSample(&storage.Sample{Metric: metric, Series: id, Kind: kind, Unit: unit, Labels: attrs(labels...),
				Time: noon.Add(time.Duration(i-30) * time.Minute).UnixNano(), Value: v(i)})
		}
	}
	rising := func(n float64) func(int) float64 { return func(i int) float64 { return n * float64(i) } }
	for i, channel := range []string{"orders", "payments", "orders.dead"} {
		env := []string{"prod", "prod", "test"}[i]
		common := []string{controlbus.AttrEnvironment, env, controlbus.AttrBroker, "r1", controlbus.AttrDestination, channel}
		add(controlbus.MetricChannelMessages, "gauge", "{message}", rising(1), append(common, controlbus.AttrMessageState, "ready")...)
		add(controlbus.MetricChannelPublished, "counter", "{message}", rising(60*float64(i+1)), common...)
		add(controlbus.MetricChannelBytes, "gauge", "By", rising(1000), common...)
	}
	for _, le := range []string{"0.1", "1", "+Inf"} {
		add("messaging.process.duration_bucket", "histogram", "s", rising(map[string]float64{"0.1": 90, "1": 99, "+Inf": 100}[le]),
			controlbus.AttrEnvironment, "prod", controlbus.AttrServiceName, "billing", controlbus.AttrServiceInstance, "b-1", "le", le)
	}
	add("messaging.process.duration_count", "histogram", "s", rising(100), controlbus.AttrEnvironment, "prod", controlbus.AttrServiceName, "billing", controlbus.AttrServiceInstance, "b-1")
	add("signalbox_agent_goroutines", "gauge", "", rising(1), controlbus.AttrEnvironment, "prod", controlbus.AttrServiceInstance, "agent-1", "__name__", "forged", "__reserved", "x")
	if err := s.Write(t.Context(), "demo", b); err != nil {
		t.Fatal(err)
	}
	return serve(t, s, func(_ *prometheus.Config, d *prometheus.Deps) { d.Now = func() time.Time { return noon } })
}

func TestNamesOfBothKinds(t *testing.T) {
	t.Parallel()
	a := demo(t)
	for _, c := range []struct{ query, want string }{
		// As Prometheus names what it takes by OTLP.
		{`signalbox_channel_messages{messaging_destination_name="orders"}`,
			`[{"metric":{"__name__":"signalbox_channel_messages","deployment_environment_name":"prod","messaging_destination_name":"orders","signalbox_broker":"r1","signalbox_message_state":"ready"},"value":[1795176000,"30"]}]`},
		{`sum by (messaging_destination_name) (rate(signalbox_channel_published_total{deployment_environment_name="prod"}[10m]))`,
			`[{"metric":{"messaging_destination_name":"orders"},"value":[1795176000,"1"]},{"metric":{"messaging_destination_name":"payments"},"value":[1795176000,"2"]}]`},
		{`sum(signalbox_channel_bytes)`, `[{"metric":{},"value":[1795176000,"90000"]}]`},
		{`round(histogram_quantile(0.95, sum by (le, job) (rate(messaging_process_duration_seconds_bucket{instance="b-1"}[10m]))), 0.01)`,
			`[{"metric":{"job":"billing"},"value":[1795176000,"0.6"]}]`},
		{`signalbox_agent_goroutines`,
			`[{"metric":{"__name__":"signalbox_agent_goroutines","deployment_environment_name":"prod","instance":"agent-1","service_instance_id":"agent-1"},"value":[1795176000,"30"]}]`},
		// As they were sent.
		{`{"signalbox.channel.messages","messaging.destination.name"="orders"}`,
			`[{"metric":{"__name__":"signalbox.channel.messages","deployment.environment.name":"prod","messaging.destination.name":"orders","signalbox.broker":"r1","signalbox.message.state":"ready"},"value":[1795176000,"30"]}]`},
		{`sum by ("messaging.destination.name") (rate({"signalbox.channel.published","deployment.environment.name"=~"pr.*"}[10m]))`,
			`[{"metric":{"messaging.destination.name":"orders"},"value":[1795176000,"1"]},{"metric":{"messaging.destination.name":"payments"},"value":[1795176000,"2"]}]`},
		{`count({"messaging.destination.name"="payments"})`, `[{"metric":{},"value":[1795176000,"3"]}]`},
		// Neither under the other's.
		{`{"signalbox.channel.published",messaging_destination_name="orders"}`, `[]`},
		{`signalbox_channel_published`, `[]`},
		// Absent labels are empty, and matchers know it.
		{`count({__name__=~"signalbox_.+", messaging_destination_name=""})`, `[{"metric":{},"value":[1795176000,"1"]}]`},
		{`count({__name__=~"signalbox_.+", messaging_destination_name!=""})`, `[{"metric":{},"value":[1795176000,"9"]}]`},
		{`count({__name__=~"signalbox_.+", messaging_destination_name!~"orders.*"})`, `[{"metric":{},"value":[1795176000,"4"]}]`},
		{`count({__name__=~"signalbox_.+", messaging_destination_name=~"orders|"})`, `[{"metric":{},"value":[1795176000,"4"]}]`},
		{`count({__name__=~"signalbox_.+", nothing=~".*"})`, `[{"metric":{},"value":[1795176000,"10"]}]`},
		{`count({__name__=~"signalbox_.+", nothing=~".+"})`, `[]`},
		{`forged`, `[]`},
	} {
		data := get(t, a, "query", "query", c.query)
		if want := `{"resultType":"vector","result":` + c.want + `}`; data != want {
			t.Errorf("%s\n got %s\nwant %s", c.query, data, want)
		}
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	a := demo(t)
	for _, c := range []struct {
		endpoint, want string
		form           []string
	}{
		{"labels", `["__name__","deployment_environment_name","instance","job","le","messaging_destination_name","service_instance_id","service_name","signalbox_broker","signalbox_message_state"]`, nil},
		{"labels", `["__name__","deployment_environment_name","messaging_destination_name","signalbox_broker"]`, []string{"match[]", "signalbox_channel_bytes"}},
		{"labels", `["__name__","deployment.environment.name"]`, []string{"match[]", `{"signalbox.channel.bytes"}`, "limit", "2"}},
		{"label/__name__/values", `["messaging_process_duration_seconds_bucket","messaging_process_duration_seconds_count","signalbox_agent_goroutines","signalbox_channel_bytes","signalbox_channel_messages","signalbox_channel_published_total"]`, nil},
		{"label/__name__/values", `[]`, []string{"start", "2020-01-01T00:00:00Z", "end", "1600000000.5"}},
		{"label/messaging_destination_name/values", `["orders","orders.dead","payments"]`, nil},
		{"label/messaging_destination_name/values", `["orders.dead"]`, []string{"match[]", `{deployment_environment_name="test"}`}},
		{"label/messaging.destination.name/values", `["orders","orders.dead","payments"]`, nil},
		{"label/U__messaging_2e_destination_2e_name/values", `["orders.dead"]`, []string{"match[]", `{"deployment.environment.name"="test"}`}},
		{"label/job/values", `["billing"]`, nil},
		{"label/nothing/values", `[]`, nil},
		{"series", `[{"__name__":"signalbox_channel_bytes","deployment_environment_name":"test","messaging_destination_name":"orders.dead","signalbox_broker":"r1"},` +
			`{"__name__":"signalbox_channel_published_total","deployment_environment_name":"test","messaging_destination_name":"orders.dead","signalbox_broker":"r1"}]`,
			[]string{"match[]", `{__name__=~"signalbox_channel_[bp].+",deployment_environment_name="test"}`, "match[]", `signalbox_channel_bytes{deployment_environment_name="test"}`}},
		{"series", `[]`, []string{"match[]", "up"}},
		{"metadata", `{"signalbox_channel_published_total":[{"type":"counter","unit":"{message}","help":"Sent as signalbox.channel.published."}]}`, []string{"metric", "signalbox_channel_published_total"}},
		{"metadata", `{"messaging_process_duration_seconds":[{"type":"histogram","unit":"s","help":"Sent as messaging.process.duration."}]}`, []string{"metric", "messaging_process_duration_seconds"}},
		{"metadata", `{"signalbox_traffic_messages_total":[{"type":"counter","unit":"{message}","help":"Messages seen, by taps and by services that tell of them; operation type says by whom."}]}`, []string{"limit", "1"}},
		{"format_query", `"sum by (x) (\n  rate(a_rather_long_metric_name_that_does_not_fit_in_one_line_with_all_the_rest{job=\"x\"}[5m])\n)"`,
			[]string{"query", `sum(rate(a_rather_long_metric_name_that_does_not_fit_in_one_line_with_all_the_rest{job="x"}[5m]))by(x)`}},
		{"query_exemplars", `[]`, []string{"query", "up"}},
	} {
		if data := get(t, a, c.endpoint, c.form...); data != c.want {
			t.Errorf("%s %v\n got %s\nwant %s", c.endpoint, c.form, data, c.want)
		}
	}
	var info map[string]string
	if err := json.Unmarshal([]byte(get(t, a, "status/buildinfo")), &info); err != nil || info["version"] == "" || info["revision"] != "signalbox test" {
		t.Errorf("build info %v, %v", info, err)
	}
}

func TestLimitsAreWarnedOf(t *testing.T) {
	t.Parallel()
	a := demo(t)
	for _, c := range [][]string{
		{"series", "match[]", `{__name__!=""}`}, {"labels"}, {"label/__name__/values"},
		{"query", "query", "signalbox_channel_messages"},
		{"query_range", "query", "signalbox_channel_messages", "start", "1795175000", "end", "1795176000", "step", "60"},
	} {
		code, ans := ask(t, a, http.MethodGet, c[0], append(c[1:], "limit", "2")...)
		if code != http.StatusOK || !slices.Equal(ans.Warnings, []string{"results truncated due to limit"}) {
			t.Errorf("%v: %d, warnings %q", c, code, ans.Warnings)
		}
	}
}

func TestPostIsGet(t *testing.T) {
	t.Parallel()
	a := demo(t)
	for _, c := range [][]string{
		{"query", "query", "sum(signalbox_channel_bytes)"},
		{"query_range", "query", "sum(signalbox_channel_bytes)", "start", "1795175000", "end", "1795176000", "step", "1m"},
		{"series", "match[]", "signalbox_channel_bytes"}, {"labels", "match[]", "signalbox_channel_bytes"},
	} {
		want := get(t, a, c[0], c[1:]...)
		code, got := ask(t, a, http.MethodPost, c[0], c[1:]...)
		if code != http.StatusOK || string(got.Data) != want {
			t.Errorf("%v: %d %s, want as by GET %s", c, code, got.Data, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	a := serve(t, stub{}, nil)
	for _, c := range []struct {
		endpoint string
		form     []string
		code     int
		kind     string
		part     string
	}{
		{"query", []string{"query", "sum("}, 400, "bad_data", `invalid parameter "query": 1:5: parse error: unclosed left parenthesis`},
		{"query", nil, 400, "bad_data", "no expression found in input"},
		{"query", []string{"query", "1", "time", "yesterday"}, 400, "bad_data", `invalid parameter "time"`},
		{"query", []string{"query", "1", "time", "NaN"}, 400, "bad_data", `cannot parse "NaN" to a valid timestamp`},
		{"query", []string{"query", "1", "time", "1e300"}, 400, "bad_data", "valid timestamp"},
		{"query", []string{"query", "1", "timeout", "soon"}, 400, "bad_data", `invalid parameter "timeout"`},
		{"query", []string{"query", "1", "lookback_delta", "x"}, 400, "bad_data", "error parsing lookback delta duration"},
		{"query", []string{"query", "1", "limit", "-1"}, 400, "bad_data", "limit must be non-negative"},
		{"query", []string{"query", "x[5m]", "time", "1"}, 200, "", ""},
		{"query", []string{"query", strings.Repeat("(", 40_000)}, 400, "bad_data", "40000 characters, want at most 32768"},
		{"query", []string{"query", strings.Repeat("(", 10_000) + "1" + strings.Repeat(")", 10_000)}, 200, "", ""},
		{"query", []string{"query", "\x80\x80"}, 400, "bad_data", `invalid parameter "query"`},
		{"query", []string{"query", `count_values("\xff", x) + on() label_replace(x, "a", "$1", "b", "(")`}, 422, "execution", "invalid label name"},
		{"query_range", []string{"query", "1", "start", "10", "end", "5", "step", "1"}, 400, "bad_data", "end timestamp must not be before start time"},
		{"query_range", []string{"query", "1", "start", "1", "end", "5", "step", "0"}, 400, "bad_data", "zero or negative query resolution step"},
		{"query_range", []string{"query", "1", "start", "0", "end", "11001", "step", "1"}, 400, "bad_data", "exceeded maximum resolution of 11,000 points"},
		{"query_range", []string{"query", "x[5m]", "start", "0", "end", "5", "step", "1"}, 400, "bad_data", "invalid expression type"},
		{"query_range", []string{"query", "1", "start", "0", "end", "5"}, 400, "bad_data", `invalid parameter "step"`},
		{"series", nil, 400, "bad_data", "no match[] parameter provided"},
		{"series", []string{"match[]", `{a=~".*"}`}, 400, "bad_data", "at least one non-empty matcher"},
		{"series", []string{"match[]", `{a="`}, 400, "bad_data", "parse error"},
		{"label/a%FFb/values", nil, 400, "bad_data", "invalid label name"},
		{"metadata", []string{"limit", "x"}, 400, "bad_data", "limit must be a number"},
		{"rules", nil, 404, "not_found", "/prometheus/api/v1/rules is not part of the query API"},
		{"query", []string{"query", "label_replace(vector(1), \"a\", \"$1\", \"b\", \"(\")"}, 422, "execution", "invalid regular expression"},
	} {
		code, got := ask(t, a, http.MethodGet, c.endpoint, c.form...)
		if code != c.code || got.ErrorType != c.kind || !strings.Contains(got.Error, c.part) {
			t.Errorf("%s %.60q: %d %s %.200q; want %d %s %q", c.endpoint, c.form, code, got.ErrorType, got.Error, c.code, c.kind, c.part)
		}
	}
	// A body too large is refused before it is read.
	code, got := ask(t, a, http.MethodPost, "query", "query", strings.Repeat("1", 2<<20))
	if code != http.StatusBadRequest || got.ErrorType != "bad_data" {
		t.Errorf("2 MiB of form: %d %s", code, got.ErrorType)
	}
}

// stub is a store that fails, or takes its time.
type stub struct {
	err  error
	wait func(context.Context)
}

func (s stub) Metrics(context.Context, storage.TimeRange) ([]storage.Metric, error) {
	return []storage.Metric{{Name: "x", Kind: "gauge"}}, nil
}

func (s stub) MetricSeries(ctx context.Context, _ storage.MetricQuery) ([]storage.MetricSeries, error) {
	if s.wait != nil {
		s.wait(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("store: %w", ctx.Err())
		}
	}
	return nil, s.err
}

func (s stub) MetricLabels(context.Context, storage.MetricQuery) ([]string, error) { return nil, s.err }
func (s stub) MetricLabelValues(context.Context, storage.MetricQuery, string) ([]string, error) {
	return nil, s.err
}
func (s stub) Traffic(context.Context, storage.TrafficQuery) (storage.Traffic, error) {
	return storage.Traffic{}, s.err
}
func (s stub) Samples(context.Context, storage.SampleQuery, storage.SampleFunc) error { return s.err }

func TestWhatTheStoreSaysReachesTheClient(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		code int
		kind string
	}{
		{controlbus.ErrUnavailable, 503, "unavailable"},
		{controlbus.ErrTooLarge, 422, "execution"},
		{context.DeadlineExceeded, 503, "timeout"},
		{context.Canceled, 499, "canceled"},
		{errors.New("odd"), 422, "execution"},
	} {
		set := metrics.NewSet()
		a := serve(t, stub{err: fmt.Errorf("store: %w", c.err)}, func(_ *prometheus.Config, d *prometheus.Deps) { d.Metrics = set })
		for _, q := range [][]string{{"query", "query", "sum(x)"}, {"series", "match[]", "x"}, {"labels", "match[]", "x"}, {"label/a/values", "match[]", "x"}} {
			if code, got := ask(t, a, http.MethodGet, q[0], q[1:]...); code != c.code || got.ErrorType != c.kind || !strings.Contains(got.Error, c.err.Error()) {
				t.Errorf("%v, %s: %d %s %q, want %d %s", c.err, q[0], code, got.ErrorType, got.Error, c.code, c.kind)
			}
		}
		var text strings.Builder
		set.WritePrometheus(&text)
		if want := `signalbox_prometheus_queries_total{endpoint="query",result="` + c.kind + `"} 1`; !strings.Contains(text.String(), want) {
			t.Errorf("%v: no %s in\n%s", c.err, want, text.String())
		}
	}
}

func TestRefuseSpeaksPrometheus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		code int
		kind string
	}{
		{access.ErrUnauthenticated, 401, "unauthorized"},
		{controlbus.ErrDenied, 403, "forbidden"},
		{controlbus.ErrUnavailable, 503, "unavailable"},
	} {
		w := httptest.NewRecorder()
		prometheus.Refuse(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/prometheus/api/v1/labels", nil), c.err)
		var a answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != c.code || a.Status != "error" || a.ErrorType != c.kind || a.Error == "" {
			t.Errorf("%v: %d %s, %v", c.err, w.Code, w.Body, err)
		}
	}
}

func TestQueriesTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		enough := make(chan struct{})
		running := 0
		a := serve(t, stub{wait: func(ctx context.Context) {
			running++
			select {
			case <-enough:
			case <-ctx.Done():
			}
			running--
		}}, func(c *prometheus.Config, _ *prometheus.Deps) {
			c.Concurrency, c.MaxWaiting, c.Timeout = 1, 1, 10*time.Second
		})
		type got struct {
			code int
			kind string
		}
		results := make(chan got, 3)
		query := func() {
			code, ans := ask(t, a, http.MethodGet, "query", "query", "x")
			results <- got{code, ans.ErrorType}
		}
		go query()
		synctest.Wait()
		go query()
		synctest.Wait()
		if running != 1 {
			t.Errorf("%d queries run, want 1", running)
		}
		query() // no room to wait either
		if r := <-results; r != (got{503, "unavailable"}) {
			t.Errorf("the third: %+v, want to be refused", r)
		}
		close(enough)
		for range 2 {
			if r := <-results; r.code != 200 {
				t.Errorf("the others: %+v, want them answered", r)
			}
		}
	})
}

func TestAQueryEndsAtItsTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := serve(t, stub{wait: func(ctx context.Context) { <-ctx.Done() }}, func(c *prometheus.Config, _ *prometheus.Deps) { c.Timeout = 10 * time.Second })
		for _, c := range []struct {
			own  string
			want time.Duration
		}{{"", 10 * time.Second}, {"2s", 2 * time.Second}, {"1h", 10 * time.Second}} {
			began := time.Now()
			code, got := ask(t, a, http.MethodGet, "query", "query", "x", "timeout", c.own)
			if took := time.Since(began); code != 503 || got.ErrorType != "timeout" || took != c.want {
				t.Errorf("timeout %q: %d %s after %v, want 503 timeout after %v", c.own, code, got.ErrorType, took, c.want)
			}
		}
	})
}

func TestNobodySeesBeyondTheirScope(t *testing.T) {
	t.Parallel()
	s := open(t)
	b := s.NewBatch()
	for i, c := range []struct{ env, channel string }{{"prod", "orders"}, {"prod", "secret"}, {"test", "orders"}, {"prod", ""}, {"test", ""}} {
		b.AppendSample(&storage.Sample{Metric: "m", Series: uint64(i + 1), Kind: "gauge", Time: noon.UnixNano(), Value: 1,
			Labels: attrs(controlbus.AttrEnvironment, c.env, controlbus.AttrDestination, c.channel, "only_"+c.env+c.channel, "v")})
	}
	if err := s.Write(t.Context(), "scope", b); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		scope  controlbus.Scope
		want   []string // environment and channel
		labels int
	}{
		{controlbus.Everything(), []string{"prod", "prod orders", "prod secret", "test", "test orders"}, 8},
		{controlbus.Scope{}, nil, 0},
		{controlbus.NewScope([]controlbus.ScopeRule{{Env: "prod", Channel: "*"}}), []string{"prod", "prod orders", "prod secret"}, 6},
		{controlbus.NewScope([]controlbus.ScopeRule{{Env: "*", Channel: "orders"}}), []string{"prod orders", "test orders"}, 5},
	} {
		api := serve(t, s, func(_ *prometheus.Config, d *prometheus.Deps) {
			d.Scope, d.Now = scopeOf(c.scope), func() time.Time { return noon }
		})
		// Stores limit by what the request carries, too.
		a := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			api.ServeHTTP(w, r.WithContext(controlbus.WithScope(r.Context(), c.scope)))
		})
		var found []map[string]string
		if err := json.Unmarshal([]byte(get(t, a, "series", "match[]", "m")), &found); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range found {
			got = append(got, strings.TrimSpace(f["deployment_environment_name"]+" "+f["messaging_destination_name"]))
		}
		slices.Sort(got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("series: -want +got\n%s", diff)
		}
		var labels, values []string
		if err := errors.Join(json.Unmarshal([]byte(get(t, a, "labels")), &labels), json.Unmarshal([]byte(get(t, a, "label/messaging_destination_name/values")), &values)); err != nil {
			t.Fatal(err)
		}
		if len(labels) != c.labels {
			t.Errorf("labels %v, want %d", labels, c.labels)
		}
		if slices.Contains(values, "secret") != slices.Contains(c.want, "prod secret") {
			t.Errorf("values %v", values)
		}
		count := `[]`
		if n := len(c.want); n > 0 {
			count = fmt.Sprintf(`[{"metric":{},"value":[1795176000,"%d"]}]`, n)
		}
		if n, values := len(c.want), get(t, a, "query", "query", "m"); strings.Count(values, "metric") != n {
			t.Errorf("values %s, want %d", values, n)
		}
		if got, want := get(t, a, "query", "query", "count(m)"), `{"resultType":"vector","result":`+count+`}`; got != want {
			t.Errorf("count: %s, want %s", got, want)
		}
	}
}

func TestTooMuchIsSaid(t *testing.T) {
	t.Parallel()
	s := open(t)
	b := s.NewBatch()
	for i := range 100 {
		for j := range 10 {
			b.AppendSample(&storage.Sample{Metric: "m", Series: uint64(i + 1), Kind: "gauge", Time: noon.Add(time.Duration(j-10) * time.Second).UnixNano(), Value: 1, Labels: attrs("n", fmt.Sprint(i))})
		}
	}
	if err := s.Write(t.Context(), "large", b); err != nil {
		t.Fatal(err)
	}
	at := []string{"time", fmt.Sprint(noon.Unix())}
	for _, c := range []struct {
		name            string
		samples, series int
		query, part     string
	}{
		{"samples read", 500, 1000, "sum(rate(m[1m]))", "more than 500 samples"},
		{"series", 5000, 50, "sum(m)", "more than 50 series"},
		{"samples held", 500, 1000, "sum_over_time(m[5m:1s])", "samples"},
	} {
		a := serve(t, s, func(cfg *prometheus.Config, _ *prometheus.Deps) { cfg.MaxSamples, cfg.MaxSeries = c.samples, c.series })
		code, got := ask(t, a, http.MethodGet, "query", append(at, "query", c.query)...)
		if code != 422 || got.ErrorType != "execution" || !strings.Contains(got.Error, c.part) {
			t.Errorf("%s: %d %s %q", c.name, code, got.ErrorType, got.Error)
		}
	}
	// What the instants do not look at counts for nothing.
	a := serve(t, s, func(cfg *prometheus.Config, _ *prometheus.Deps) { cfg.MaxSamples = 500 })
	if got := get(t, a, "query", append(at, "query", "sum(m)")...); !strings.Contains(got, `"100"`) {
		t.Errorf("sum at one instant: %s", got)
	}
}

func TestAnswersAreCompressed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(demo(t))
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/prometheus/api/v1/query_range?query=signalbox_channel_messages&start=1795174200&end=1795176000&step=5", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := (&http.Transport{DisableCompression: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.Header.Get("Content-Encoding") != "gzip" || res.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("headers %v", res.Header)
	}
	zr, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.NewDecoder(zr).Decode(&a); err != nil || a.Status != "success" || len(a.Data) < 10_000 {
		t.Errorf("%v, %s, %d bytes", err, a.Status, len(a.Data))
	}
}
