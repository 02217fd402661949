// Package prometheus answers Prometheus's query API over the metrics in the
// store, so that Grafana and everything else that knows Prometheus can read
// them. Expressions are run by Prometheus's own engine; this package gives it
// the samples, and speaks its HTTP dialect. It declares the small interface it
// reads through and knows no store.
package prometheus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/measure"
	"github.com/signalbox-dev/signalbox/ui/guard"
)

// Path is where the API is mounted: its addresses begin with Path + "/api/v1/".
const Path = "/prometheus"

// compatible is the release of Prometheus whose language and API these are.
// Clients read from it what they may ask.
const compatible = "3.9.1"

// Deps is what the API needs. Querier is required.
type Deps struct {
	Querier Querier
	Version string // of Signalbox
	Log     *slog.Logger
	Metrics *metrics.Set // nil for none
	// Scope is what the reader behind a request may see; nil: everything.
	Scope func(context.Context) controlbus.Scope
	Now   func() time.Time // nil: time.Now
}

// API is the handler of everything below Path.
type API struct {
	cfg       Config
	deps      Deps
	engine    *promql.Engine
	queryable *queryable
	mux       *http.ServeMux
	root      http.Handler
	running   chan struct{} // one for each query that runs
	waiting   atomic.Int64
	took      *measure.Seconds
}

// New starts nothing. The configuration must be valid. Close the API when
// nothing calls any more.
func New(cfg Config, deps Deps) *API {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Scope == nil {
		deps.Scope = func(context.Context) controlbus.Scope { return controlbus.Everything() }
	}
	a := &API{
		cfg: cfg, deps: deps, mux: http.NewServeMux(), running: make(chan struct{}, cfg.Concurrency),
		engine: promql.NewEngine(promql.EngineOpts{
			Logger: deps.Log, MaxSamples: cfg.MaxSamples, Timeout: cfg.Timeout, LookbackDelta: cfg.Lookback,
			NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
			EnableAtModifier:         true, EnableNegativeOffset: true,
		}),
		queryable: &queryable{
			querier: deps.Querier, maxSeries: cfg.MaxSeries, maxSamples: cfg.MaxSamples, scope: deps.Scope, now: deps.Now,
			catalogue: &catalogue{querier: deps.Querier, now: deps.Now},
		},
	}
	if deps.Metrics != nil {
		a.took = measure.NewSeconds(deps.Metrics, "signalbox_prometheus_query_seconds", "endpoint")
		deps.Metrics.NewGauge("signalbox_prometheus_queries_running", func() float64 { return float64(len(a.running)) })
		deps.Metrics.NewGauge("signalbox_prometheus_queries_waiting", func() float64 { return float64(a.waiting.Load()) })
	}
	a.routes()
	a.root = gzhttp.GzipHandler(a.mux)
	return a
}

// Close releases the engine.
func (a *API) Close() error { return a.engine.Close() }

// ServeHTTP answers requests below Path.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.root.ServeHTTP(w, r) }

func (a *API) routes() {
	for _, e := range []struct {
		name string
		post bool // a form in the body is the same as a query
		call func(context.Context, *http.Request) result
	}{
		{"query", true, a.query},
		{"query_range", true, a.queryRange},
		{"query_exemplars", true, a.queryExemplars},
		{"format_query", true, a.formatQuery},
		{"series", true, a.series},
		{"labels", true, a.labelNames},
		{"label/{name}/values", false, a.labelValues},
		{"metadata", false, a.metadata},
		{"status/buildinfo", false, a.buildInfo},
	} {
		h := a.endpoint(e.name, e.call)
		a.mux.Handle("GET "+Path+"/api/v1/"+e.name, h)
		if e.post {
			a.mux.Handle("POST "+Path+"/api/v1/"+e.name, h)
		}
	}
	// What Grafana asks to see whether somebody is there.
	ok := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("Signalbox answers as Prometheus.\n"))
	}
	a.mux.HandleFunc("GET "+Path+"/-/healthy", ok)
	a.mux.HandleFunc("GET "+Path+"/-/ready", ok)
	a.mux.HandleFunc(Path+"/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, refuse(notFound, fmt.Errorf("%s is not part of the query API", r.URL.Path)))
	})
}

// result is an answer before it is written: data, or a failure.
type result struct {
	data     any
	warnings annotations.Annotations
	err      *apiError
	close    func() // what the data lives in
}

const (
	maxForm  = 1 << 20
	maxQuery = 32 << 10 // of an expression: the engine walks it by recursion
	// writing is how long a client may take to read its answer, which is held
	// in memory for that time.
	writing = time.Minute
)

// endpoint bounds a request, waits for its turn, and writes its answer.
func (a *API) endpoint(name string, call func(context.Context, *http.Request) result) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := a.deps.Now()
		outcome := "success"
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				a.deps.Log.ErrorContext(r.Context(), "query failed", slog.String("endpoint", name), slog.Any("error", p), slog.String("stack", string(debug.Stack())))
				outcome = internal.word
				fail(w, refuse(internal, errors.New("the query could not be run; the log has the cause")))
			}
			a.count(name, outcome, a.deps.Now().Sub(started))
		}()
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			outcome = badData.word
			fail(w, refuse(badData, fmt.Errorf("error parsing form values: %w", err)))
			return
		}
		if n := len(r.FormValue("query")); n > maxQuery {
			outcome = badData.word
			fail(w, refuse(badData, fmt.Errorf("invalid parameter %q: %d characters, want at most %d", "query", n, maxQuery)))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), a.cfg.Timeout)
		defer cancel()
		done, err := a.turn(ctx)
		if err != nil {
			outcome = err.kind.word
			fail(w, err)
			return
		}
		defer done()
		res := call(ctx, r)
		if res.close != nil {
			defer res.close()
		}
		if res.err != nil {
			outcome = res.err.kind.word
			fail(w, res.err)
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writing))
		write(w, res, r.FormValue("query"))
	})
}

// turn waits until the query may run.
func (a *API) turn(ctx context.Context) (done func(), err *apiError) {
	done = func() { <-a.running }
	select {
	case a.running <- struct{}{}:
		return done, nil
	default:
	}
	if a.waiting.Add(1) > int64(a.cfg.MaxWaiting) {
		a.waiting.Add(-1)
		return nil, refuse(unavailable, fmt.Errorf("%d queries wait already: try again later", a.cfg.MaxWaiting))
	}
	defer a.waiting.Add(-1)
	select {
	case a.running <- struct{}{}:
		return done, nil
	case <-ctx.Done():
		return nil, apiErrorOf(promql.ErrQueryTimeout("query queue"))
	}
}

func (a *API) count(endpoint, outcome string, took time.Duration) {
	if s := a.deps.Metrics; s != nil {
		s.GetOrCreateCounter(`signalbox_prometheus_queries_total{endpoint="` + endpoint + `",result="` + outcome + `"}`).Inc()
		a.took.Observe(endpoint, took)
	}
}

func (a *API) buildInfo(context.Context, *http.Request) result {
	return result{data: map[string]string{
		"version": compatible, "revision": "signalbox " + a.deps.Version, "branch": "", "buildUser": "", "buildDate": "",
		"goVersion": runtime.Version(),
	}}
}

// failure is a kind of error as Prometheus names it.
type failure struct {
	word string
	code int
}

var (
	badData     = failure{"bad_data", http.StatusBadRequest}
	execution   = failure{"execution", http.StatusUnprocessableEntity}
	canceled    = failure{"canceled", 499} // as nginx has it: the client has gone
	timedOut    = failure{"timeout", http.StatusServiceUnavailable}
	internal    = failure{"internal", http.StatusInternalServerError}
	unavailable = failure{"unavailable", http.StatusServiceUnavailable}
	notFound    = failure{"not_found", http.StatusNotFound}
)

type apiError struct {
	kind failure
	err  error
}

func refuse(kind failure, err error) *apiError { return &apiError{kind, err} }

// Refuse answers who may not read, in words that Prometheus's clients show.
func Refuse(w http.ResponseWriter, _ *http.Request, err error) {
	kind := failure{"unauthorized", guard.Status(err)}
	switch kind.code {
	case http.StatusForbidden:
		kind.word = "forbidden"
	case http.StatusServiceUnavailable:
		kind.word, err = unavailable.word, errors.New("the console cannot tell now who asks") // the cause is for its log
	}
	guard.Challenge(w, err)
	fail(w, refuse(kind, err))
}

func invalid(parameter string, err error) result {
	return result{err: refuse(badData, fmt.Errorf("invalid parameter %q: %w", parameter, err))}
}

// apiErrorOf sorts an error of the engine or the store.
func apiErrorOf(err error) *apiError {
	var gone promql.ErrQueryCanceled
	var late promql.ErrQueryTimeout
	var store promql.ErrStorage
	switch {
	case errors.As(err, &gone):
		return refuse(canceled, err)
	case errors.As(err, &late), errors.Is(err, context.DeadlineExceeded):
		return refuse(timedOut, err)
	case errors.As(err, &store):
		return refuse(internal, err)
	case errors.Is(err, context.Canceled):
		return refuse(canceled, err)
	case errors.Is(err, controlbus.ErrTooLarge):
		return refuse(execution, err)
	case errors.Is(err, controlbus.ErrUnavailable):
		return refuse(unavailable, err)
	}
	return refuse(execution, err)
}
