package prometheustest

import (
	"fmt"
	"net/url"
	"strconv"
	"time"
)

// Expressions are those of common dashboards and rule files, and what is
// delicate in the language.
var Expressions = []string{
	// Selectors.
	`up`,
	`up{job="api"}`,
	`up{job!="api"}`,
	`up{instance=~"a.*"}`,
	`up{instance!~"a.*|x"}`,
	`{__name__=~"up|build_info", job="web"}`,
	`queue_depth`,
	`queue_depth{queue=~"gone|marked"}`,
	`queue_depth offset 50m`,
	`queue_depth offset -3m`,
	`queue_depth @ 1795174200`,
	`queue_depth @ start()`,
	`queue_depth @ end() offset 45m`,
	`odd`,
	`odd{kind=""}`,
	`odd{kind!=""}`,
	`odd{nothing=~".*", kind=~"|nan"}`,
	`text`,
	`slow`,
	`nothing_of_that_name`,
	`1`,
	`"text"`,
	`time()`,
	`vector(1e-7)`,
	`-odd`,
	// Counters.
	`rate(http_requests_total[5m])`,
	`rate(http_requests_total[1m])`,
	`rate(http_requests_total[20s])`,
	`irate(http_requests_total[2m])`,
	`increase(http_requests_total[1h])`,
	`increase(http_requests_total{code="500"}[10m] offset 30m)`,
	`sum(rate(http_requests_total[5m]))`,
	`sum by (job) (rate(http_requests_total[5m]))`,
	`sum by (job, handler) (irate(http_requests_total[1m]))`,
	`sum without (instance, code) (rate(http_requests_total[5m]))`,
	`sum(rate(http_requests_total{code=~"5.."}[5m])) / sum(rate(http_requests_total[5m]))`,
	`sum by (job) (rate(http_requests_total{code="500"}[5m])) / on (job) sum by (job) (rate(http_requests_total[5m])) * 100`,
	`resets(http_requests_total[2h])`,
	`changes(up[30m])`,
	`delta(memory_bytes[10m])`,
	`idelta(memory_bytes[1m])`,
	`deriv(memory_bytes[15m])`,
	`predict_linear(memory_bytes[30m], 3600)`,
	`predict_linear(queue_depth[10m], 600) > 50`,
	`double_exponential_smoothing(memory_bytes[10m], 0.5, 0.5)`,
	`rate(odd[5m])`,
	`rate(memory_bytes[5m])`,
	// Histograms.
	`histogram_quantile(0.95, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))`,
	`histogram_quantile(0.99, sum by (le, job) (rate(http_request_duration_seconds_bucket[5m])))`,
	`histogram_quantile(0.5, rate(http_request_duration_seconds_bucket[10m]))`,
	`histogram_quantile(1.5, http_request_duration_seconds_bucket)`,
	`histogram_quantile(0.9, http_request_duration_seconds_sum)`,
	`histogram_fraction(0, 0.25, sum by (le, job) (rate(http_request_duration_seconds_bucket[10m])))`,
	`sum by (job) (rate(http_request_duration_seconds_sum[5m])) / sum by (job) (rate(http_request_duration_seconds_count[5m]))`,
	`sum by (le) (increase(http_request_duration_seconds_bucket{job="api"}[5m]))`,
	`sum(rate(http_request_duration_seconds_bucket{le="0.5"}[5m])) by (job) / sum(rate(http_request_duration_seconds_count[5m])) by (job)`,
	`(sum(rate(http_request_duration_seconds_bucket{le="0.1"}[5m])) + sum(rate(http_request_duration_seconds_bucket{le="0.5"}[5m]))) / 2 / sum(rate(http_request_duration_seconds_count[5m]))`,
	// Over time.
	`avg_over_time(memory_bytes[10m])`,
	`min_over_time(queue_depth[5m])`,
	`max_over_time(queue_depth[1h])`,
	`sum_over_time(up[1h])`,
	`count_over_time(queue_depth[1h])`,
	`quantile_over_time(0.9, queue_depth[15m])`,
	`stddev_over_time(queue_depth[15m])`,
	`stdvar_over_time(queue_depth[15m])`,
	`last_over_time(queue_depth[20m])`,
	`present_over_time(queue_depth[10m])`,
	`absent_over_time(queue_depth{queue="gone"}[10m])`,
	`avg_over_time(odd[2m])`,
	`max_over_time(odd[3m])`,
	`sum_over_time(slow[10m])`,
	`1 - avg_over_time(up[30m])`,
	// Aggregations.
	`count(up)`,
	`count by (version) (build_info)`,
	`count_values("value", up)`,
	`avg(memory_bytes)`,
	`min by (job) (memory_bytes)`,
	`max without (instance) (memory_bytes)`,
	`stddev(queue_depth)`,
	`stdvar by (job) (queue_depth)`,
	`quantile(0.9, many)`,
	`quantile by (group) (0.5, many)`,
	`topk(3, sum by (handler) (rate(http_requests_total[5m])))`,
	`topk by (group) (1, many)`,
	`bottomk(2, memory_bytes)`,
	`group by (job) (up)`,
	`sum(odd)`,
	`sum by (group) (many)`,
	`many{group=~"a|b"} > 9`,
	`count(many)`,
	// Vector matching.
	`rate(http_requests_total[5m]) * on (job, instance) group_left (version) build_info`,
	`memory_bytes / on (job, instance) process_start_time_seconds`,
	`build_info * on (instance, job) group_right () memory_bytes`,
	`up == 0`,
	`up == bool 0`,
	`memory_bytes > 1e9`,
	`memory_bytes > bool 1e9`,
	`up * ignoring (version) build_info`,
	`http_requests_total{code="500"} / ignoring (code) http_requests_total{code="200"}`,
	`up and on (job) queue_depth`,
	`up or queue_depth`,
	`up unless on (instance) up{instance="a:80"}`,
	`(up or vector(0)) - 1`,
	`2 ^ up % 3`,
	`memory_bytes atan2 queue_depth`,
	`100 - up * 1e2 + 7 / 3`,
	`odd == odd`,
	`odd != odd`,
	// Absence.
	`absent(up)`,
	`absent(up{job="none", instance=~"x.*"})`,
	`absent(sum(nothing))`,
	`sum(nothing) or vector(0)`,
	// Subqueries.
	`max_over_time(rate(http_requests_total{handler="/"}[1m])[10m:1m])`,
	`avg_over_time(sum(queue_depth)[30m:5m])`,
	`max_over_time(queue_depth[20m:30s] offset 10m)`,
	`rate(sum by (job) (http_requests_total)[10m:15s])`,
	`min_over_time(up[1h:])`,
	`max_over_time(deriv(rate(http_requests_total{code="500"}[2m])[10m:1m])[20m:5m])`,
	`sum_over_time(up[10m:1m] @ 1795174200)`,
	`quantile_over_time(0.5, avg by (job) (memory_bytes offset 5m)[10m:2m])`,
	`max_over_time((up @ 1795174200)[10m:1m])`,
	// Labels.
	`label_replace(up, "host", "$1", "instance", "(.*):.*")`,
	`label_join(up, "where", "/", "job", "instance")`,
	`sort(memory_bytes)`,
	`sort_desc(sum by (job) (queue_depth))`,
	// Functions.
	`abs(odd)`,
	`ceil(rate(http_requests_total[5m]))`,
	`floor(odd)`,
	`round(rate(http_requests_total[5m]), 0.01)`,
	`clamp(queue_depth, 10, 20)`,
	`clamp_min(up, 0.5)`,
	`clamp_max(up, 0.5)`,
	`exp(up)`,
	`ln(memory_bytes)`,
	`log2(memory_bytes)`,
	`log10(odd)`,
	`sqrt(memory_bytes)`,
	`sgn(odd)`,
	`time() - process_start_time_seconds`,
	`timestamp(up)`,
	`timestamp(queue_depth offset 5m)`,
	`day_of_week()`,
	`hour(process_start_time_seconds)`,
	`minute(vector(1795174200))`,
	`scalar(sum(up))`,
	`scalar(up)`,
	`deg(rad(queue_depth))`,
	`sum(up) / count(up) > 0.5`,
	`sum(count_over_time(up[5m])) by (job)`,
}

// Request is one request of the query API.
type Request struct {
	Endpoint string
	Form     url.Values
}

func (r Request) String() string { return r.Endpoint + "?" + r.Form.Encode() }

func at(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}

// Instants of the requests, as offsets from End.
var instants = []time.Duration{-time.Second, -37*time.Minute - 123*time.Millisecond}

// Ranges of the requests: a dashboard's hour, one whose end is no step, one
// with long steps and one with steps shorter than the samples'.
var ranges = []struct {
	from, to, step time.Duration
}{
	{-time.Hour, 0, 5 * time.Minute},
	{-115*time.Minute - 1234*time.Millisecond, -3 * time.Minute, 17*time.Minute + 500*time.Millisecond},
	{-42 * time.Minute, -40 * time.Minute, 4 * time.Second},
}

// Requests are all that is asked: each expression at instants and over ranges.
func Requests() []Request {
	var all []Request
	for i, e := range Expressions {
		all = append(all, Request{"query", url.Values{"query": {e}, "time": {at(End.Add(instants[i%len(instants)]))}}})
		r := ranges[i%len(ranges)]
		all = append(all, Request{"query_range", url.Values{
			"query": {e}, "start": {at(End.Add(r.from))}, "end": {at(End.Add(r.to))}, "step": {fmt.Sprint(r.step.Seconds())},
		}})
	}
	return append(all, others...)
}

// EveryRequest is Requests with every expression at every instant and range.
func EveryRequest() []Request {
	var all []Request
	for _, e := range Expressions {
		for _, i := range instants {
			all = append(all, Request{"query", url.Values{"query": {e}, "time": {at(End.Add(i))}}})
		}
		for _, r := range ranges {
			all = append(all, Request{"query_range", url.Values{
				"query": {e}, "start": {at(End.Add(r.from))}, "end": {at(End.Add(r.to))}, "step": {fmt.Sprint(r.step.Seconds())},
			}})
		}
	}
	return append(all, others...)
}

// others are the other endpoints, and mistakes.
var others = []Request{
	{"query", url.Values{"query": {`queue_depth`}, "time": {at(End.Add(-50 * time.Minute))}, "lookback_delta": {"30m"}}},
	{"query", url.Values{"query": {`queue_depth{queue="gone"}[2m]`}, "time": {at(End.Add(-61 * time.Minute))}}},
	{"query", url.Values{"query": {`rate(up[1m])[3m:1m]`}, "time": {at(End.Add(-61 * time.Minute))}}},
	{"query", url.Values{"query": {`up`}, "time": {"2026-11-20T11:22:33.5Z"}, "limit": {"2"}}},
	{"query_range", url.Values{"query": {`queue_depth`}, "start": {at(End.Add(-time.Hour))}, "end": {at(End)}, "step": {"1m"}, "lookback_delta": {"15s"}}},
	{"query_range", url.Values{"query": {`many`}, "start": {at(End.Add(-time.Minute))}, "end": {at(End)}, "step": {"1m"}, "limit": {"3"}}},
	{"series", url.Values{"match[]": {`up`}}},
	{"series", url.Values{"match[]": {`{job="api",__name__!~"http.*"}`, `up`, `text`}}},
	{"series", url.Values{"match[]": {`many{group="c"}`}, "limit": {"4"}}},
	{"series", url.Values{"match[]": {`nothing`}}},
	{"labels", url.Values{}},
	{"labels", url.Values{"match[]": {`{job="web"}`, `odd`}}},
	{"labels", url.Values{"limit": {"2"}}},
	{"label/job/values", url.Values{}},
	{"label/__name__/values", url.Values{}},
	{"label/__name__/values", url.Values{"match[]": {`{job="old"}`}}},
	{"label/queue/values", url.Values{"match[]": {`{job=~".+"}`}}},
	{"label/n/values", url.Values{"match[]": {`many{group="a"}`}, "limit": {"5"}}},
	{"label/nothing/values", url.Values{}},
	{"format_query", url.Values{"query": {`sum(rate(http_requests_total{code=~"5.."}[5m]))by(job)/sum(rate(http_requests_total[5m]))by(job)>0.01 and on(job) (up==1)`}}},
	// Mistakes.
	{"query", url.Values{"query": {`sum(`}}},
	{"query", url.Values{"query": {`up{`}}},
	{"query", url.Values{"query": {``}}},
	{"query", url.Values{"query": {`rate(up)`}}},
	{"query", url.Values{"query": {`up + on (job) group_left () nothing{`}}},
	{"query", url.Values{"query": {`up`}, "time": {"noon"}}},
	{"query", url.Values{"query": {`up`}, "timeout": {"x"}}},
	{"query", url.Values{"query": {`up`}, "limit": {"-2"}}},
	{"query", url.Values{"query": {`up * on (job) queue_depth`}, "time": {at(End.Add(-time.Second))}}},
	{"query", url.Values{"query": {`up{job=~"("}`}}},
	{"query", url.Values{"query": {`topk(NaN, up)`}, "time": {at(End)}}},
	{"query_range", url.Values{"query": {`up[5m]`}, "start": {at(End)}, "end": {at(End)}, "step": {"1"}}},
	{"query_range", url.Values{"query": {`up`}, "start": {at(End)}, "end": {"1"}, "step": {"1"}}},
	{"query_range", url.Values{"query": {`up`}, "start": {"1"}, "end": {at(End)}, "step": {"1"}}},
	{"query_range", url.Values{"query": {`up`}, "start": {"1"}, "end": {"2"}, "step": {"-1"}}},
	{"query_range", url.Values{"query": {`up`}, "start": {"x"}, "end": {"2"}, "step": {"1"}}},
	{"series", url.Values{}},
	{"series", url.Values{"match[]": {`{job=~".*"}`}}},
	{"label/a%FFb/values", url.Values{}},
	{"format_query", url.Values{"query": {`sum(`}}},
}
