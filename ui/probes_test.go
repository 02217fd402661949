package ui_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/probe"
	"github.com/signalbox-dev/signalbox/ui"
)

// fakeProber has probes without anything that runs them.
type fakeProber struct {
	mu    sync.Mutex
	views []probe.View
	done  []string
}

func newFakeProber(texts ...string) *fakeProber {
	if len(texts) == 0 {
		texts = []string{"orders to payment"}
	}
	f := &fakeProber{}
	store, _ := filled(now)
	for i, s := range texts {
		p := probe.View{Probe: probe.Probe{
			ID: fmt.Sprintf("p%d", i+1), Name: s, Owner: controlbus.Actor{Name: s}, In: controlbus.ChannelName{Env: "production", System: "rabbitmq", Broker: s, Name: s},
			Out: controlbus.ChannelName{Env: "production", System: "nats", Broker: s, Name: s}, Every: time.Minute, Deadline: 10 * time.Second,
			ContentType: s, Body: s, Headers: map[string]string{s: s}, Key: s, Expect: s,
		}, Next: now.Add(time.Minute)}
		for j, o := range []probe.Outcome{probe.Lost, probe.Passed, probe.Late, probe.Wrong, probe.Unsent, probe.Unknown, probe.Passed} {
			p.Recent = append(p.Recent, probe.Run{
				ID: fmt.Sprintf("%03d", 100-j), Probe: p.ID, At: now.Add(-time.Duration(j) * time.Minute), Outcome: o, Latency: time.Duration(j) * 12 * time.Millisecond, Detail: s,
				Sent: store.messages[1].UID.String(), Arrived: store.messages[2].UID.String(), Command: cid(500),
			})
		}
		p.Summary = probe.Summary{Runs: 7, Passed: 2, P50: 24 * time.Millisecond, P95: 72 * time.Millisecond, Last: &p.Recent[0]}
		f.views = append(f.views, p)
	}
	return f
}

func (f *fakeProber) List(context.Context) ([]probe.View, error) { return f.views, nil }

func (f *fakeProber) Get(_ context.Context, id string) (probe.View, error) {
	for _, v := range f.views {
		if v.ID == id {
			return v, nil
		}
	}
	return probe.View{}, fmt.Errorf("probe %q: %w", id, controlbus.ErrNotFound)
}

func (f *fakeProber) Runs(_ context.Context, id, before string, limit int) ([]probe.Run, error) {
	v, err := f.Get(context.Background(), id)
	var out []probe.Run
	for _, r := range v.Recent {
		if (before == "" || r.ID < before) && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, err
}

func (f *fakeProber) Save(_ context.Context, p probe.Probe, typed string) (probe.Probe, error) {
	if err := p.Check(); err != nil {
		return p, err
	}
	if p.ID == "" {
		p.ID = "new"
	}
	f.note("save " + p.Name + " " + p.In.String() + " " + p.Every.String() + " " + typed + fmt.Sprint(p.Headers))
	return f.views[0].Probe, nil
}

func (f *fakeProber) note(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, s)
}

func (f *fakeProber) Start(_ context.Context, id string) error { f.note("run " + id); return nil }
func (f *fakeProber) Pause(_ context.Context, id string, paused bool) error {
	f.note(fmt.Sprintf("pause %s %v", id, paused))
	return nil
}
func (f *fakeProber) Delete(_ context.Context, id string) error { f.note("delete " + id); return nil }

func TestProbes(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	p := newFakeProber()
	u, err := ui.New(ui.Config{Guard: openGuard(t), Version: "test", Store: s, Roster: r, Probes: p, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	_, doc := get(t, u, "/probes")
	if text := mainText(doc); !strings.Contains(text, "orders to payment") || !strings.Contains(text, "2 of 7") || !strings.Contains(text, "24.0 ms") && !strings.Contains(text, "24 ms") {
		t.Errorf("the list says %q", text)
	}
	if _, doc = get(t, u, "/probes?env=staging"); !strings.Contains(mainText(doc), "No probe in this environment") {
		t.Errorf("the list of another environment says %q", mainText(doc))
	}
	_, doc = get(t, u, "/probes/p1")
	for _, want := range []string{"did not arrive", "Run now", "Not sent", "kept from", "every 1 min"} {
		if text := mainText(doc); want != "kept from" && !strings.Contains(text, want) {
			t.Errorf("the page of a probe does not say %q: %q", want, text)
		}
	}
	if w, _ := get(t, u, "/probes/none"); w.Code != http.StatusNotFound {
		t.Errorf("no such probe: got %d", w.Code)
	}
	post := func(path string, form url.Values) *httptest.ResponseRecorder {
		t.Helper()
		r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		u.ServeHTTP(w, r)
		return w
	}
	form := url.Values{"name": {"n"}, "in_env": {"production"}, "in_broker": {"b"}, "in_channel": {"c"}, "every": {"soon"}, "body": {"kept body"}}
	if w := post("/probes", form); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "such as 30s or 5m") || !strings.Contains(w.Body.String(), "kept body") {
		t.Errorf("a form with a mistake: got %d without the reason or what was written", w.Code)
	}
	form.Set("every", "30s")
	form.Set("headers", "a: b\r\n c : d ")
	form.Set("typed", "c")
	if w := post("/probes", form); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/probes/p1?env=production" {
		t.Errorf("save: got %d to %q", w.Code, w.Header().Get("Location"))
	}
	for _, do := range []string{"run", "pause", "continue", "delete"} {
		if w := post("/probes/p1/"+do+"?env=production", nil); w.Code != http.StatusSeeOther || !strings.HasSuffix(w.Header().Get("Location"), "?env=production") {
			t.Errorf("%s: got %d to %q", do, w.Code, w.Header().Get("Location"))
		}
	}
	if w := post("/probes/p1/explode", nil); w.Code != http.StatusNotFound {
		t.Errorf("what probes cannot do: got %d", w.Code)
	}
	if got, want := strings.Join(p.done, "; "), "save n b/c 30s cmap[a:b c:d]; run p1; pause p1 true; pause p1 false; delete p1"; got != want {
		t.Errorf("done: got %s, want %s", got, want)
	}
}

func TestProbesOverTheAPI(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	p := newFakeProber()
	u, err := ui.New(ui.Config{Guard: openGuard(t), Version: "test", Store: s, Roster: r, Probes: p, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	c := loadContract(t, u)
	body := `{"name":"n","in":{"broker":"b","channel":"c"},"every":"30s","headers":{"a":"b"},"typed":"c"}`
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/probes", body, 201}, {"PUT", "/probes/p1", body, 200}, {"POST", "/probes", `{"name":"n","in":{"broker":"b","channel":"c"},"every":"1s"}`, 400},
		{"POST", "/probes", `{"name":"n","in":{"broker":"b","channel":"c"},"evry":"1m"}`, 400},
		{"POST", "/probes/p1/run", "", 202}, {"POST", "/probes/p1/pause", "", 202}, {"POST", "/probes/p1/continue", "", 202}, {"DELETE", "/probes/p1", "", 204},
	} {
		var body any
		if tt.body != "" {
			body = json.RawMessage(tt.body)
		}
		if w := c.call(t, u, request(tt.method, v1+tt.path, body)); w.Code != tt.want {
			t.Errorf("%s %s: got %d %s, want %d", tt.method, tt.path, w.Code, w.Body, tt.want)
		}
	}
	if got := len(p.done); got != 6 {
		t.Errorf("done: got %q", p.done)
	}
}
