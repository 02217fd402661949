package prometheus_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/prometheus/prometheustest"
)

// TestAnswersArePrometheusOwn compares with what Prometheus 3.9.1 answered,
// through its own web API and over its own store, when it was given the same
// samples and asked the same: make reference renews and compares live.
func TestAnswersArePrometheusOwn(t *testing.T) {
	t.Parallel()
	want, err := prometheustest.ReadAnswers("testdata/reference.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t)
	b := s.NewBatch()
	for i, one := range prometheustest.Data(0) {
		for _, p := range one.Points {
			b.AppendSample(&storage.Sample{Metric: one.Metric, Series: uint64(i + 1), Kind: one.Kind, Unit: one.Unit, Labels: one.Labels, Time: p.Ms * 1e6, Value: p.Value})
		}
	}
	if err := s.Write(t.Context(), "reference", b); err != nil {
		t.Fatal(err)
	}
	a := serve(t, s, nil)
	requests := prometheustest.Requests()
	if len(prometheustest.Expressions) < 60 || len(want) < len(requests) {
		t.Fatalf("%d expressions, %d answers to %d requests: run make reference", len(prometheustest.Expressions), len(want), len(requests))
	}
	for _, r := range requests {
		w, ok := want[r.String()]
		if !ok {
			t.Fatalf("no answer to %s: run make reference", r)
		}
		got, err := prometheustest.Read(serveOnce(t, a, r))
		if err != nil {
			t.Errorf("%s: %v", r, err)
			continue
		}
		if diff := prometheustest.Diff(r, w, got); diff != "" {
			t.Errorf("%s:\n%s", r, diff)
		}
	}
	t.Logf("%d expressions, %d requests", len(prometheustest.Expressions), len(requests))
}

func serveOnce(t *testing.T, h http.Handler, r prometheustest.Request) (int, []byte) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/prometheus/api/v1/"+r.String(), nil))
	return w.Code, w.Body.Bytes()
}
