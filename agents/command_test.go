package agents_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/ledger/ledgertest"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage/state"
)

// Over its connection an agent reports, learns what is wanted of it, and carries
// out orders; reports by themselves cease while it lasts.
func TestAgentOverItsConnection(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	ctx := access.With(t.Context(), access.Identity{ID: "u", Name: "ann", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)})
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveNone}}
	l, err := ledger.New(cfg, ledgertest.NewMemory(), log)
	if err != nil {
		t.Fatal(err)
	}
	disp := link.NewDispatcher(l, log)
	l.Wake(disp.Wake)
	store, err := state.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	roster, err := link.NewRoster(t.Context(), store, log)
	if err != nil {
		t.Fatal(err)
	}
	roster.Wake(disp.Wake)
	opamp := link.NewServer(link.ServerConfig{Dispatcher: disp, Roster: roster, Log: log})
	defer opamp.Close()
	var posts atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = r.WithContext(access.With(r.Context(), access.Identity{Kind: access.KindAgent, Grants: access.Everywhere(access.Agent)}))
		switch r.URL.Path {
		case link.OpAMPPath:
			opamp.ServeHTTP(w, r)
		case link.Path:
			posts.Add(1)
			roster.Handler().ServeHTTP(w, r)
		} // the rest is telemetry
	}))
	defer srv.Close()

	ac := agentConfig(t, srv.URL, agenttest.NewFake("orders", "payments"))
	ac.Commands.Allow = []link.AllowRule{{Broker: "b", Channel: "orders"}}
	ac.Commands.Handlers = map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: func(context.Context, *link.Run) controlbus.CommandResult {
		return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Done: 3}}
	}}
	a, err := agents.New(ac, "v9", log)
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(run) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	soon := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("not within 20s: ", what)
			}
		}
	}
	soon("connected", func() bool { return disp.Online("a1") })
	purge := func(channel string) controlbus.CommandID {
		s := controlbus.CommandSpec{
			Kind: controlbus.CommandPurge, Reason: "test", Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "production", Broker: "b", Name: channel}},
			Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "production", Effect: "x", Reversible: controlbus.ReversibleNo},
		}
		s.Preview.Seal(s.Kind, s.Target, s.Args)
		c, err := l.Request(ctx, ledger.Request{CommandSpec: s})
		if err != nil {
			t.Fatal(err)
		}
		return c.ID
	}
	ends := func(id controlbus.CommandID, want controlbus.CommandState) {
		t.Helper()
		var c controlbus.Command
		soon("an end", func() bool {
			var err error
			if c, err = l.Command(ctx, id); err != nil {
				t.Fatal(err)
			}
			return c.State.Terminal()
		})
		if c.State != want {
			t.Errorf("purge of %s: %s, %s; want %s", c.Target.Channel, c.State, c.Detail, want)
		}
	}
	ends(purge("orders"), controlbus.CommandSucceeded)
	ends(purge("payments"), controlbus.CommandRejected)

	soon("reported", func() bool { return len(roster.Agents()) == 1 && len(roster.Agents()[0].Brokers) == 1 })
	if err := roster.RequestTap(t.Context(), "a1", controlbus.TapSpec{Broker: "b", Channel: "payments"}); err != nil {
		t.Fatal(err)
	}
	soon("the tap asked for runs", func() bool {
		for _, tap := range roster.Agents()[0].Taps {
			if tap.Channel == "payments" && tap.State == controlbus.TapRunning {
				return true
			}
		}
		return false
	})
	before := posts.Load()
	seen := roster.Agents()[0].SentAt
	soon("five more reports", func() bool { return roster.Agents()[0].SentAt.Sub(seen) > 500*time.Millisecond })
	if n := posts.Load(); n != before {
		t.Errorf("%d reports by themselves beside the connection", n-before)
	}
	// Without the connection reports go by themselves again.
	opamp.Close()
	soon("reports by themselves", func() bool { return posts.Load() > before })
}

func TestCommandRulesAreChecked(t *testing.T) {
	t.Parallel()
	cfg := agentConfig(t, "http://127.0.0.1:1", agenttest.NewFake())
	cfg.Commands.Allow = []link.AllowRule{{Kinds: []controlbus.CommandKind{"explode"}, Broker: "b", Channel: "*"}, {Broker: "b"}}
	err := cfg.Validate()
	if err == nil || !strings.Contains(err.Error(), "commands.allow[0].kinds[0]") || !strings.Contains(err.Error(), "commands.allow[1]: want a broker and a channel") {
		t.Errorf("got %v", err)
	}
}
