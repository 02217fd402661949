package agents_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// planner is a broker on which purging is possible and pausing is not.
type planner struct{ *agenttest.Fake }

func (planner) PlanCommand(context.Context, controlbus.CommandKind, string) (agents.CommandPlan, error) {
	return agents.CommandPlan{}, nil
}

func (planner) Abilities() []controlbus.Ability {
	return []controlbus.Ability{
		{Kind: controlbus.CommandPurge, Note: "ready messages"}, {Kind: controlbus.CommandReplay}, {Kind: controlbus.CommandTest},
		{Kind: controlbus.CommandPause, Reason: "the server is too old"},
	}
}

// acts are commands that know how to purge and to replay.
type acts struct{ env agents.CommandEnv }

func (a acts) Handlers() map[controlbus.CommandKind]link.Handler {
	done := func(context.Context, *link.Run) controlbus.CommandResult {
		return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}
	}
	return map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: done, controlbus.CommandReplay: done}
}
func (a acts) Plan(context.Context, controlbus.Ask) (controlbus.Plan, error) {
	return controlbus.Plan{}, nil
}
func (a acts) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (a acts) Statuses() []controlbus.DetourStatus {
	return []controlbus.DetourStatus{{Broker: a.env.Brokers[0], State: controlbus.DetourOn}}
}

func TestAgentTellsWhatItsCommandsCanDo(t *testing.T) {
	t.Parallel()
	fake := agenttest.NewFake("orders")
	cfg := agentConfig(t, "http://127.0.0.1:1", planner{fake})
	cfg.Commands.Allow = []link.AllowRule{{Kinds: []controlbus.CommandKind{controlbus.CommandPurge, controlbus.CommandTest}, Broker: "b*", Channel: "orders"}}
	var env agents.CommandEnv
	cfg.Commands.New = func(e agents.CommandEnv) (agents.Commands, error) { env = e; return acts{e}, nil }
	a, err := agents.New(cfg, "v9", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := map[controlbus.CommandKind]string{
		controlbus.CommandPurge: "", controlbus.CommandReplay: "not allowed by commands.allow of agent a1",
		controlbus.CommandTest: "agent a1 does not know how to test", controlbus.CommandPause: "the server is too old",
	}
	r := a.Report()
	if len(r.Brokers) != 1 || len(r.Brokers[0].Abilities) != len(want) || len(r.Detours) != 1 {
		t.Fatalf("reported %+v", r)
	}
	for _, one := range r.Brokers[0].Abilities {
		if one.Reason != want[one.Kind] {
			t.Errorf("%s: got reason %q, want %q", one.Kind, one.Reason, want[one.Kind])
		}
	}
	if got, ok := env.Broker("b"); !ok || got == nil {
		t.Error("the commands do not find the broker")
	}
	if _, ok := env.Broker("other"); ok {
		t.Error("the commands find a broker that is not configured")
	}
	// What commands say goes through the spool, and a lost broker is looked at at
	// once instead of at the next observation.
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	defer func() { stop(); <-ended }()
	for end := time.Now().Add(10 * time.Second); fake.Calls("Observe") == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never observed")
		}
	}
	before := fake.Calls("Observe")
	env.Lost("b")
	for end := time.Now().Add(5 * time.Second); fake.Calls("Observe") == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not observed again within 5s of being lost")
		}
	}
	ld := plog.NewLogs()
	ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords().AppendEmpty().SetEventName(controlbus.EventCommandMessage)
	if err := env.Logs(ctx, ld); err != nil {
		t.Errorf("a record of a command: %v", err)
	}
}

func TestArchiveAndAddressesAreChecked(t *testing.T) {
	t.Parallel()
	cfg := agentConfig(t, "http://127.0.0.1:1", agenttest.NewFake())
	cfg.Commands.Archive = agents.ArchiveConfig{MaxBytes: 5, MaxAge: time.Second}
	cfg.Commands.HTTPAllow = []string{"https://check.example/v1", "ftp://x/", "https://user:pw@host/"}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("a wrong configuration is taken")
	}
	for _, want := range []string{"commands.archive.max_bytes", "commands.archive.max_age", "commands.http_allow[1]", "commands.http_allow[2]"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "http_allow[0]") {
		t.Errorf("a good address is refused: %v", err)
	}
}
