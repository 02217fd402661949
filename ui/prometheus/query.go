package prometheus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"
)

// maxPoints is Prometheus's own bound: a minute's resolution for a week.
const maxPoints = 11_000

// query evaluates an expression at one instant.
func (a *API) query(ctx context.Context, r *http.Request) result {
	limit, err := parseLimit(r.FormValue("limit"))
	if err != nil {
		return invalid("limit", err)
	}
	at, err := timeOr(r, "time", a.deps.Now())
	if err != nil {
		return invalid("time", err)
	}
	ctx, cancel, err := patience(ctx, r)
	if err != nil {
		return invalid("timeout", err)
	}
	defer cancel()
	opts, lookback, err := a.options(r)
	if err != nil {
		return result{err: refuse(badData, err)}
	}
	q, err := a.engine.NewInstantQuery(ctx, a.queryable, opts, r.FormValue("query"), at)
	if err != nil {
		return invalid("query", err)
	}
	return run(withEvaluation(ctx, at, at, 0, lookback), q, limit, r.FormValue("stats"))
}

// queryRange evaluates an expression at every step of a range.
func (a *API) queryRange(ctx context.Context, r *http.Request) result {
	limit, err := parseLimit(r.FormValue("limit"))
	if err != nil {
		return invalid("limit", err)
	}
	start, err := parseTime(r.FormValue("start"))
	if err != nil {
		return invalid("start", err)
	}
	end, err := parseTime(r.FormValue("end"))
	if err != nil {
		return invalid("end", err)
	}
	if end.Before(start) {
		return invalid("end", errors.New("end timestamp must not be before start time"))
	}
	step, err := parseDuration(r.FormValue("step"))
	if err != nil {
		return invalid("step", err)
	}
	if step <= 0 {
		return invalid("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if end.Sub(start)/step > maxPoints {
		return result{err: refuse(badData, errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))}
	}
	ctx, cancel, err := patience(ctx, r)
	if err != nil {
		return invalid("timeout", err)
	}
	defer cancel()
	opts, lookback, err := a.options(r)
	if err != nil {
		return result{err: refuse(badData, err)}
	}
	q, err := a.engine.NewRangeQuery(ctx, a.queryable, opts, r.FormValue("query"), start, end, step)
	if err != nil {
		return invalid("query", err)
	}
	return run(withEvaluation(ctx, start, end, step, lookback), q, limit, r.FormValue("stats"))
}

func run(ctx context.Context, q promql.Query, limit int, withStats string) (res result) {
	defer func() {
		if res.close == nil { // a panic
			q.Close()
		}
	}()
	got := q.Exec(ctx)
	if got.Err != nil {
		return result{err: apiErrorOf(got.Err), warnings: got.Warnings, close: q.Close}
	}
	value, warnings := got.Value, got.Warnings
	if limit > 0 {
		cut := false
		switch v := value.(type) {
		case promql.Matrix:
			if cut = len(v) > limit; cut {
				value = v[:limit]
			}
		case promql.Vector:
			if cut = len(v) > limit; cut {
				value = v[:limit]
			}
		}
		if cut {
			warnings = warnings.Add(errTruncated)
		}
	}
	data := queryData{value: value}
	if withStats != "" {
		data.stats = stats.NewQueryStats(q.Stats())
	}
	return result{data: data, warnings: warnings, close: q.Close}
}

var errTruncated = errors.New("results truncated due to limit")

// queryExemplars has none: the store keeps no exemplars. Clients ask anyway.
func (a *API) queryExemplars(_ context.Context, r *http.Request) result {
	if _, err := parser.ParseExpr(r.FormValue("query")); err != nil {
		return result{err: refuse(badData, err)}
	}
	return result{data: []string{}}
}

// formatQuery writes an expression as Prometheus would.
func (a *API) formatQuery(_ context.Context, r *http.Request) result {
	expr, err := parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return invalid("query", err)
	}
	return result{data: expr.Pretty(0)}
}

// patience is the request's own timeout, where that is the shorter one.
func patience(ctx context.Context, r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.FormValue("timeout")
	if text == "" {
		return ctx, func() {}, nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	return ctx, cancel, nil
}

// options are those of one query, and how far it looks back.
func (a *API) options(r *http.Request) (promql.QueryOpts, time.Duration, error) {
	var own time.Duration
	if text := r.FormValue("lookback_delta"); text != "" {
		d, err := parseDuration(text)
		if err != nil {
			return nil, 0, fmt.Errorf("error parsing lookback delta duration: %w", err)
		}
		own = d
	}
	lookback := a.cfg.Lookback
	if own > 0 {
		lookback = own
	}
	return promql.NewPrometheusQueryOpts(r.FormValue("stats") == "all", own), lookback, nil
}

func timeOr(r *http.Request, name string, otherwise time.Time) (time.Time, error) {
	text := r.FormValue(name)
	if text == "" {
		return otherwise, nil
	}
	t, err := parseTime(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid time value for '%s': %w", name, err)
	}
	return t, nil
}

// minTime and maxTime are what Prometheus takes for "always", in its own words
// too, which no parser of times reads.
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()
	always  = map[string]time.Time{minTime.Format(time.RFC3339Nano): minTime, maxTime.Format(time.RFC3339Nano): maxTime}
)

// parseTime reads seconds since 1970 or RFC 3339.
func parseTime(s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || f < float64(minTime.Unix()) || f > float64(maxTime.Unix()) {
			return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
		}
		whole, part := math.Modf(f)
		part = math.Round(part*1000) / 1000
		return time.Unix(int64(whole), int64(part*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	if t, ok := always[s]; ok {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

// parseDuration reads seconds or a duration such as 5m.
func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		ns := f * float64(time.Second)
		if math.IsNaN(ns) || ns > float64(math.MaxInt64) || ns < float64(math.MinInt64) {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}

// parseLimit reads how many results are wanted; 0 is all.
func parseLimit(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, errors.New("limit must be non-negative")
	}
	return n, nil
}
