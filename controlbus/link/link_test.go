package link_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("SIGNALBOX_TEST_LINK_CHILD"); dir != "" {
		if err := childAgent(dir, os.Getenv("SIGNALBOX_TEST_LINK_URL")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// memory is a Store that forgets with the process.
type memory struct {
	agents map[string]controlbus.AgentView
	fail   error
}

func (m *memory) LoadAgents(context.Context) ([]controlbus.AgentView, error) {
	var all []controlbus.AgentView
	for _, a := range m.agents {
		all = append(all, a)
	}
	return all, m.fail
}

func (m *memory) SaveAgent(_ context.Context, a controlbus.AgentView) error {
	if m.fail == nil {
		a.Desired = m.agents[a.ID].Desired
		m.agents[a.ID] = a
	}
	return m.fail
}

func (m *memory) SaveDesired(_ context.Context, id string, d controlbus.Desired) error {
	if m.fail == nil {
		a := m.agents[id]
		a.ID, a.Desired = id, d
		m.agents[id] = a
	}
	return m.fail
}

func (m *memory) ForgetAgent(_ context.Context, id string) error {
	delete(m.agents, id)
	return m.fail
}

func newRoster(t *testing.T, m *memory) *link.Roster {
	t.Helper()
	r, err := link.NewRoster(t.Context(), m, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func agent(id, incarnation string) controlbus.Agent {
	now := time.Now()
	return controlbus.Agent{ID: id, Incarnation: incarnation, StartedAt: now, SentAt: now}
}

func TestAnAgentIsSilentAfterThreeMissedReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoster(t, &memory{agents: map[string]controlbus.AgentView{}})
		if _, err := r.Report(t.Context(), agent("a", "1")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		if got := r.Agents()[0].Presence; got != controlbus.Online {
			t.Errorf("after 15s: got %v, want online", got)
		}
		time.Sleep(time.Second)
		if got := r.Agents()[0].Presence; got != controlbus.Silent {
			t.Errorf("after 16s: got %v, want silent", got)
		}
	})
}

func TestDesiredTapsReachTheAgentSurviveARestartAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{agents: map[string]controlbus.AgentView{}}
		r := newRoster(t, m)
		if err := r.RequestTap(t.Context(), "a", controlbus.TapSpec{Broker: "b", Channel: "c"}); !errors.Is(err, controlbus.ErrNotFound) {
			t.Errorf("tap by an unknown agent: got %v, want ErrNotFound", err)
		}
		if _, err := r.Report(t.Context(), agent("a", "1")); err != nil {
			t.Fatal(err)
		}
		if err := r.RequestTap(t.Context(), "a", controlbus.TapSpec{Broker: "b", Channel: "c", Owner: "ann", Reason: "lost order"}); err != nil {
			t.Fatal(err)
		}
		if err := r.RequestTap(t.Context(), "a", controlbus.TapSpec{Broker: "b", Channel: "d", Until: time.Now().Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}

		r = newRoster(t, m) // the console restarts
		d, err := r.Report(t.Context(), agent("a", "1"))
		if err != nil {
			t.Fatal(err)
		}
		want := controlbus.Desired{Revision: 2, Taps: []controlbus.TapSpec{
			{ID: "console:b/c", Broker: "b", Channel: "c", Origin: "console", Owner: "ann", Reason: "lost order", Until: time.Now().Add(link.DefaultLease)},
			{ID: "console:b/d", Broker: "b", Channel: "d", Origin: "console", Until: time.Now().Add(time.Hour)},
		}}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("desired (-want +got):\n%s", diff)
		}

		time.Sleep(link.DefaultLease)
		d, err = r.Report(t.Context(), agent("a", "1"))
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Taps) != 1 || d.Taps[0].Channel != "d" {
			t.Errorf("after the lease: got %+v, want only the tap on d", d.Taps)
		}
		if err := r.ReleaseTap(t.Context(), "a", "console:b/d"); err != nil {
			t.Fatal(err)
		}
		if err := r.ReleaseTap(t.Context(), "a", "console:b/d"); !errors.Is(err, controlbus.ErrNotFound) {
			t.Errorf("releasing twice: got %v, want ErrNotFound", err)
		}
		if err := r.ReleaseTap(t.Context(), "a", "orders"); !errors.Is(err, controlbus.ErrUnsupported) {
			t.Errorf("releasing a configured tap: got %v, want ErrUnsupported", err)
		}
		if d, err = r.Report(t.Context(), agent("a", "1")); err != nil || len(d.Taps) != 0 || d.Revision != 3 {
			t.Errorf("after release: got %+v, %v, want no taps at revision 3", d, err)
		}
	})
}

func TestWhatIsNotStoredIsNotShown(t *testing.T) {
	t.Parallel()
	m := &memory{agents: map[string]controlbus.AgentView{}}
	r := newRoster(t, m)
	if _, err := r.Report(t.Context(), agent("a", "1")); err != nil {
		t.Fatal(err)
	}
	m.fail = errors.New("disk full")
	if err := r.RequestTap(t.Context(), "a", controlbus.TapSpec{Broker: "b", Channel: "c"}); !errors.Is(err, m.fail) {
		t.Errorf("request: got %v, want %v", err, m.fail)
	}
	m.fail = nil
	if d, err := r.Report(t.Context(), agent("a", "1")); err != nil || len(d.Taps) != 0 {
		t.Errorf("desired: got %+v, %v, want nothing", d, err)
	}
}

func TestTwoProcessesUnderOneIDAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoster(t, &memory{agents: map[string]controlbus.AgentView{}})
		first := agent("a", "first")
		time.Sleep(time.Second)
		second := agent("a", "second")
		for _, a := range []controlbus.Agent{first, second} {
			if _, err := r.Report(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.Agents()[0].Rival; got != "" {
			t.Errorf("a restarted agent has rival %q, want none", got)
		}
		if _, err := r.Report(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		if got := r.Agents()[0].Rival; got != "second" {
			t.Errorf("rival: got %q, want second", got)
		}
	})
}

func TestTheFastestReportTellsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoster(t, &memory{agents: map[string]controlbus.AgentView{}})
		const ahead = 38 * time.Millisecond
		for _, travelled := range []time.Duration{20 * time.Millisecond, time.Millisecond, 300 * time.Millisecond} {
			a := agent("a", "1")
			a.SentAt = time.Now().Add(ahead)
			a.Brokers = []controlbus.BrokerStatus{{Name: "rabbit"}}
			time.Sleep(travelled)
			if _, err := r.Report(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := r.BrokerClockOffset("rabbit"), ahead-time.Millisecond; got != want {
			t.Errorf("clock offset: got %v, want %v", got, want)
		}
		if got := r.BrokerClockOffset("nats"); got != 0 {
			t.Errorf("clock offset of an unknown broker: got %v, want 0", got)
		}
	})
}

func TestClientAndHandler(t *testing.T) {
	t.Parallel()
	m := &memory{agents: map[string]controlbus.AgentView{}}
	r := newRoster(t, m)
	server := httptest.NewServer(r.Handler())
	defer server.Close()
	httpClient := server.Client()
	defer httpClient.CloseIdleConnections()
	c, err := link.NewClient(link.ClientConfig{URL: server.URL, HTTP: httpClient})
	if err != nil {
		t.Fatal(err)
	}
	sent := agent("a", "1")
	sent.Taps = []controlbus.TapStatus{{Channel: "orders", State: controlbus.TapRunning, Loss: controlbus.Loss{Received: 7, DroppedByBroker: -1}}}
	if _, err := c.Report(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sent.Taps, r.Agents()[0].Taps); diff != "" {
		t.Errorf("taps as reported (-want +got):\n%s", diff)
	}
	if _, err := c.Report(t.Context(), controlbus.Agent{}); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("a report without an id: got %v, want ErrInvalid", err)
	}
	m.fail = errors.New("disk full")
	if _, err := c.Report(t.Context(), agent("b", "1")); !errors.Is(err, controlbus.ErrUnavailable) {
		t.Errorf("store down: got %v, want ErrUnavailable", err)
	}
	for _, bad := range []string{"", "ftp://x", "http://", "::"} {
		if _, err := link.NewClient(link.ClientConfig{URL: bad}); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("NewClient(%q): got %v, want ErrInvalid", bad, err)
		}
	}
}

func TestHandlerRefusesWhatIsNoReport(t *testing.T) {
	t.Parallel()
	h := newRoster(t, &memory{agents: map[string]controlbus.AgentView{}}).Handler()
	for _, c := range []struct {
		method, kind, body string
		want               int
	}{
		{http.MethodGet, "application/json", "", http.StatusMethodNotAllowed},
		{http.MethodPost, "text/plain", "{}", http.StatusUnsupportedMediaType},
		{http.MethodPost, "application/json", "{", http.StatusBadRequest},
		{http.MethodPost, "application/json", `{"id":"a"}`, http.StatusBadRequest},
		{http.MethodPost, "application/json", `{"id":"` + strings.Repeat("x", link.MaxReport) + `"}`, http.StatusRequestEntityTooLarge},
		{http.MethodPost, "application/json; charset=utf-8", `{"id":"a","incarnation":"1"}`, http.StatusOK},
	} {
		req := httptest.NewRequest(c.method, link.Path, strings.NewReader(c.body))
		req.Header.Set("Content-Type", c.kind)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != c.want {
			t.Errorf("%s %s %.30q: got %d, want %d", c.method, c.kind, c.body, w.Code, c.want)
		}
	}
}

func FuzzReport(f *testing.F) {
	f.Add(`{"id":"a","incarnation":"1","taps":[{"state":"running","loss":{"received":1}}]}`)
	f.Add(`{"id":"a","incarnation":"1","brokers":null}`)
	m := &memory{agents: map[string]controlbus.AgentView{}}
	r, err := link.NewRoster(context.Background(), m, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	h := r.Handler()
	f.Fuzz(func(t *testing.T, body string) {
		req := httptest.NewRequest(http.MethodPost, link.Path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Errorf("%q: got %d", body, w.Code)
		}
		_ = fmt.Sprint(r.Agents())
	})
}
