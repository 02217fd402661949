package agents_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// desk is a console that keeps the last report and answers what the test says.
type desk struct {
	mu      sync.Mutex
	report  controlbus.Agent
	desired controlbus.Desired
	exports map[string]int
}

func (d *desk) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if req.URL.Path != link.Path {
		d.exports[req.URL.Path]++
		return
	}
	d.report = controlbus.Agent{}
	if err := json.NewDecoder(req.Body).Decode(&d.report); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(d.desired)
}

func (d *desk) want(desired controlbus.Desired) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.desired = desired
}

func (d *desk) last() (controlbus.Agent, map[string]int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.report, d.exports
}

func agentConfig(t *testing.T, url string, fake agents.Adapter) agents.Config {
	cfg := agents.DefaultConfig()
	cfg.Agent.ID, cfg.Agent.DataDir = "a1", t.TempDir()
	cfg.Console.URL, cfg.Console.ReportInterval = url, 100*time.Millisecond
	cfg.Brokers = []agents.BrokerConfig{{
		Name: "b", Taps: []controlbus.TapSpec{{Channel: "orders"}},
		New: func(id agents.Identity, _ *slog.Logger) (agents.Adapter, error) {
			if id.Agent != "a1" || id.Incarnation == "" {
				t.Errorf("identity %+v", id)
			}
			return fake, nil
		},
	}}
	return cfg
}

func TestAgentFollowsItsConsole(t *testing.T) {
	t.Parallel()
	d := &desk{exports: map[string]int{}}
	srv := httptest.NewServer(d)
	defer srv.Close()
	fake := agenttest.NewFake("orders", "payments")
	a, err := agents.New(agentConfig(t, srv.URL, fake), "v9", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	reported := func(what string, ok func(controlbus.Agent, map[string]int) bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) { // a poll over HTTP
			d.mu.Lock()
			r, yes := d.report, ok(d.report, d.exports)
			d.mu.Unlock()
			if yes {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: last report %+v", what, r)
			}
		}
	}
	running := func(r controlbus.Agent, channel, origin string) bool {
		return slices.ContainsFunc(r.Taps, func(s controlbus.TapStatus) bool {
			return s.Channel == channel && s.State == controlbus.TapRunning && s.Spec.Origin == origin
		})
	}
	reported("the configured tap", func(r controlbus.Agent, _ map[string]int) bool { return running(r, "orders", "config") })
	r, _ := d.last()
	if r.Version != "v9" || r.Env != "production" || r.Incarnation == "" || !r.Brokers[0].Connected || r.Brokers[0].Product != "Fake 1" ||
		!slices.Equal(r.Brokers[0].Capabilities, []string{"observe", "tap"}) || r.Spool.MaxBytes == 0 {
		t.Errorf("report %+v", r)
	}

	d.want(controlbus.Desired{Revision: 7, Taps: []controlbus.TapSpec{
		{ID: "c", Broker: "b", Channel: "payments", Until: time.Now().Add(time.Minute)},
		{ID: "x", Broker: "of another agent", Channel: "payments", Until: time.Now().Add(time.Minute)},
	}})
	reported("the requested tap", func(r controlbus.Agent, _ map[string]int) bool {
		return r.Revision == 7 && running(r, "payments", "console") && len(r.Taps) == 2
	})
	fake.Publish("payments", msgs(0, 10)...)
	reported("the messages", func(r controlbus.Agent, exports map[string]int) bool {
		return exports["/v1/logs"] > 0 && exports["/v1/metrics"] > 0 && r.Spool.Error == "" &&
			slices.ContainsFunc(r.Taps, func(s controlbus.TapStatus) bool { return s.Loss.Received == 10 })
	})
	d.want(controlbus.Desired{Revision: 8})
	reported("the released tap", func(r controlbus.Agent, _ map[string]int) bool { return r.Revision == 8 && len(r.Taps) == 1 })

	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if !fake.Closed() || fake.Taps() != 0 {
		t.Errorf("after the end: closed %v, %d taps", fake.Closed(), fake.Taps())
	}
}

// What the agent does beside the broker does not depend on the console.
func TestAgentWithoutConsoleStopsInTime(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	url := srv.URL
	srv.Close() // nothing listens there any more
	fake := agenttest.NewFake("orders")
	cfg := agentConfig(t, url, fake)
	cfg.Export.Grace = 100 * time.Millisecond
	a, err := agents.New(cfg, "v", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); fake.Taps() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the tap does not start without a console")
		}
	}
	fake.Publish("orders", msgs(0, 10)...)
	cancel()
	began := time.Now()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the end took %v", d)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*agents.Config){
		"id":          func(c *agents.Config) { c.Agent.ID = "a b" },
		"console":     func(c *agents.Config) { c.Console.URL = "x" },
		"two of them": func(c *agents.Config) { c.Brokers = append(c.Brokers, c.Brokers[0]) },
		"no adapter":  func(c *agents.Config) { c.Brokers[0].New = nil },
		"tap":         func(c *agents.Config) { c.Brokers[0].Taps = []controlbus.TapSpec{{}} },
		"spool":       func(c *agents.Config) { c.Export.MaxBytes = 1 },
	} {
		cfg := agentConfig(t, "http://127.0.0.1:1", agenttest.NewFake())
		edit(&cfg)
		if _, err := agents.New(cfg, "v", slog.New(slog.DiscardHandler)); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}
