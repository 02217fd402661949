// Package prometheus compares the console's query API with Prometheus itself:
// its web API over its own store, and ours over the embedded engine, given the
// same samples and asked the same. It is a module of its own because
// Prometheus's web API brings the clients of every cloud with it.
//
//	make reference
//
// compares, and writes Prometheus's answers where ui/prometheus compares its
// own with them in every test run.
package prometheus

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	web "github.com/prometheus/prometheus/web/api/v1"

	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/storage/clickhouse"
	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	console "github.com/signalbox-dev/signalbox/ui/prometheus"
	"github.com/signalbox-dev/signalbox/ui/prometheus/prometheustest"
)

var (
	update = flag.Bool("update", false, "write Prometheus's answers for the tests of ui/prometheus")
	seeds  = flag.Int("seeds", 3, "sets of samples to compare on, beside the fixed one")
)

const answers = "../../ui/prometheus/testdata/reference.json.gz"

// ours is the console's API over the embedded engine.
func ours(t *testing.T, data []prometheustest.Series) http.Handler {
	cfg := clickhouse.DefaultConfig()
	cfg.Database = fmt.Sprintf("test_%016x", rand.Uint64())
	cfg.DialContext = enginetest.Shared(t).DialContext
	s, err := clickhouse.Open(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	// Parts of the samples come apart, as they do from day to day.
	for part := range 3 {
		b := s.NewBatch()
		for i, one := range data {
			n := len(one.Points)
			for _, p := range one.Points[n*part/3 : n*(part+1)/3] {
				b.AppendSample(&storage.Sample{Metric: one.Metric, Series: uint64(i + 1), Kind: one.Kind, Unit: one.Unit, Labels: one.Labels, Time: p.Ms * 1e6, Value: p.Value})
			}
		}
		if err := s.Write(t.Context(), fmt.Sprint("part ", part), b); err != nil {
			t.Fatal(err)
		}
	}
	a := console.New(console.DefaultConfig(), console.Deps{Querier: s, Version: "test"})
	t.Cleanup(func() {
		if err := errors.Join(a.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return a
}

// theirs is Prometheus's own API over its own store.
func theirs(t *testing.T, data []prometheustest.Series) http.Handler {
	opts := tsdb.DefaultOptions()
	opts.MinBlockDuration = (24 * time.Hour).Milliseconds()
	opts.MaxBlockDuration = (24 * time.Hour).Milliseconds()
	opts.RetentionDuration = 0
	db, err := tsdb.Open(t.TempDir(), nil, nil, opts, tsdb.NewDBStats())
	if err != nil {
		t.Fatal(err)
	}
	app := db.Appender(t.Context())
	for _, one := range data {
		b := labels.NewScratchBuilder(8)
		b.Add("__name__", one.Metric)
		for _, l := range one.Labels {
			b.Add(l.Key, l.Value)
		}
		b.Sort()
		lset, ref := b.Labels(), promstorage.SeriesRef(0)
		for _, p := range one.Points {
			if ref, err = app.Append(ref, lset, p.Ms, p.Value); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true, EnableNegativeOffset: true,
	})
	t.Cleanup(func() {
		if err := errors.Join(engine.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	api := web.NewAPI(
		engine, db, nil, nil,
		func(context.Context) web.ScrapePoolsRetriever { return nil },
		func(context.Context) web.TargetRetriever { return nil },
		func(context.Context) web.AlertmanagerRetriever { return nil },
		func() config.Config { return config.Config{} },
		nil, web.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		nil, "", false, promslog.NewNopLogger(),
		func(context.Context) web.RulesRetriever { return nil },
		0, 0, 0, false, regexp.MustCompile("^$"),
		func() (web.RuntimeInfo, error) { return web.RuntimeInfo{}, nil },
		&web.PrometheusVersion{}, nil, nil, prometheus.NewRegistry(), nil, nil,
		false, nil, false, false, false, false, 5*time.Minute, false, false, nil, nil,
	)
	r := route.New().WithPrefix("/prometheus/api/v1")
	api.Register(r)
	return r
}

func ask(t *testing.T, h http.Handler, r prometheustest.Request) prometheustest.Answer {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/prometheus/api/v1/"+r.String(), nil))
	a, err := prometheustest.Read(w.Code, w.Body.Bytes())
	if err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	return a
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(enginetest.M{M: m}.Run())
}

func TestAnswersArePrometheusOwn(t *testing.T) {
	data := prometheustest.Data(0)
	mine, reference := ours(t, data), theirs(t, data)
	want := map[string]prometheustest.Answer{}
	for _, r := range prometheustest.Requests() {
		w := ask(t, reference, r)
		want[r.String()] = w
		if diff := prometheustest.Diff(r, w, ask(t, mine, r)); diff != "" {
			t.Errorf("%s:\n%s", r, diff)
		}
	}
	if !*update {
		return
	}
	if err := prometheustest.WriteAnswers(answers, want); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersArePrometheusOwnOnOtherSamples(t *testing.T) {
	for i := range *seeds {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Logf("seed %d", seed)
			data := prometheustest.Data(seed)
			mine, reference := ours(t, data), theirs(t, data)
			n := 0
			for _, r := range prometheustest.EveryRequest() {
				if diff := prometheustest.Diff(r, ask(t, reference, r), ask(t, mine, r)); diff != "" {
					t.Errorf("%s:\n%s", r, diff)
				}
				n++
			}
			t.Logf("%d requests", n)
		})
	}
}
