package link_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage/state"
)

// items of a replay in the child.
const childItems = 5

// childAgent is an agent in a process of its own: each effect is a line in a
// file, which outlives it as a broker does.
func childAgent(dir, url string) error {
	ctx := context.Background()
	j, err := journal.Open(journal.Config{Dir: filepath.Join(dir, "journal")})
	if err != nil {
		return err
	}
	effects, err := os.OpenFile(filepath.Join(dir, "effects"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	effect := func(id controlbus.CommandID, n int) {
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
		if _, err := fmt.Fprintf(effects, "%s %d\n", id, n); err != nil {
			panic(err)
		}
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	}
	purge := func(_ context.Context, run *link.Run) controlbus.CommandResult {
		effect(run.Dispatch.Command, 0)
		return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}
	}
	replay := func(ctx context.Context, run *link.Run) controlbus.CommandResult {
		from := 0
		if len(run.Checkpoint) > 0 {
			if err := json.Unmarshal(run.Checkpoint, &from); err != nil {
				panic(err)
			}
		}
		for n := from; n < childItems; n++ {
			effect(run.Dispatch.Command, n)
			if err := run.Save(ctx, json.RawMessage(fmt.Sprint(n+1)), controlbus.CommandProgress{Total: childItems}); err != nil {
				return controlbus.CommandResult{Outcome: controlbus.CommandPartial, Detail: err.Error()}
			}
		}
		return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}
	}
	log := slog.New(slog.DiscardHandler)
	exec, err := link.NewExecutor(ctx, link.ExecutorConfig{
		Agent: "a1", Journal: j, Log: log, Allow: []link.AllowRule{{Broker: "*", Channel: "*"}},
		Handlers: map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: purge, controlbus.CommandReplay: replay},
	})
	if err != nil {
		return err
	}
	d := link.Dialer{URL: url, Log: log, Agent: func() controlbus.Agent { return agent("a1", "i") }}
	d.Run(ctx, func(ctx context.Context, l link.Link) error { return exec.Serve(ctx, l, nil) })
	return nil
}

// An agent is killed with -9 again and again, at whatever step of its journal,
// while the console, on its real store, orders purges and replays: no purge is
// done twice, none that is said to have succeeded was not done, no item of a
// replay is missing, and nothing stays open.
func TestKilledAgent(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for some seconds")
	}
	dir := t.TempDir()
	kills, commands := 12, 120
	if os.Getenv("SIGNALBOX_SOAK") != "" {
		kills, commands = 200, 2000
	}
	ctx := access.With(context.Background(), access.Identity{ID: "u", Name: "ann", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)})
	store, err := state.Open(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveNone}}
	log := slog.New(slog.DiscardHandler)
	l, err := ledger.New(cfg, store, log)
	if err != nil {
		t.Fatal(err)
	}
	disp := link.NewDispatcher(l, log)
	l.Wake(disp.Wake)
	roster, err := link.NewRoster(ctx, store, log)
	if err != nil {
		t.Fatal(err)
	}
	opamp := link.NewServer(link.ServerConfig{Dispatcher: disp, Roster: roster, Log: log})
	defer opamp.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		opamp.ServeHTTP(w, r.WithContext(access.With(r.Context(), access.Identity{Kind: access.KindAgent, Grants: access.Everywhere(access.Agent)})))
	}))
	defer srv.Close()

	start := func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "SIGNALBOX_TEST_LINK_CHILD="+dir, "SIGNALBOX_TEST_LINK_URL="+srv.URL)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	var ids []controlbus.CommandID
	ask := func() {
		kind := controlbus.CommandPurge
		if rand.IntN(2) == 0 {
			kind = controlbus.CommandReplay
		}
		s := controlbus.CommandSpec{
			Kind: kind, Reason: "test", AcceptWithin: time.Hour, Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "e", Broker: "b", Name: fmt.Sprint(rand.IntN(10))}},
			Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "e", Effect: "x", Reversible: controlbus.ReversibleNo},
		}
		s.Preview.Seal(s.Kind, s.Target, s.Args)
		c, err := l.Request(ctx, ledger.Request{CommandSpec: s})
		switch {
		case errors.Is(err, controlbus.ErrConflict): // a purge of the channel is under way
		case err != nil:
			t.Fatal(err)
		default:
			ids = append(ids, c.ID)
		}
	}
	cmd := start()
	for n := range kills {
		for len(ids) < (n+1)*commands/kills {
			ask()
		}
		eventually(t, "the agent connected", func() bool { return disp.Online("a1") })
		time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		cmd = start()
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		open, err := store.Commands(ctx, ledger.Query{Open: true, Scope: controlbus.Everything()})
		if err != nil {
			t.Fatal(err)
		}
		if len(open) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("stuck: %d commands, the first is %s: %+v", len(open), open[0].State, open[0])
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "effects"))
	if err != nil {
		t.Fatal(err)
	}
	did := map[string]int{}
	for line := range strings.Lines(string(b)) {
		did[strings.TrimSpace(line)]++
	}
	states := map[string]int{}
	extra := 0
	for _, id := range ids {
		c, err := store.Command(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		states[string(c.Kind)+" "+string(c.State)]++
		if c.Kind == controlbus.CommandPurge {
			n := did[fmt.Sprintf("%s 0", id)]
			if n > 1 || c.State == controlbus.CommandSucceeded && n != 1 || c.State == controlbus.CommandRejected && n != 0 {
				t.Errorf("purge %s is %s and was done %d times", id, c.State, n)
			}
			continue
		}
		for item := range childItems {
			n := did[fmt.Sprintf("%s %d", id, item)]
			extra += max(0, n-1)
			if n < 1 {
				t.Errorf("replay %s is %s, and item %d is missing", id, c.State, item)
			}
		}
		if c.State != controlbus.CommandSucceeded {
			t.Errorf("replay %s is %s: %s", id, c.State, c.Detail)
		}
	}
	if extra > kills*link.MaxRunning {
		t.Errorf("%d copies too many, after %d kills", extra, kills)
	}
	key, err := state.AuditKey(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	report, err := state.VerifyAudit(ctx, filepath.Join(dir, "state.db"), key, nil)
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("audit trail: %v, %v", report.Findings, err)
	}
	t.Logf("%d kills, %d commands: %v, %d copies too many of replayed items, %d audit entries", kills, len(ids), states, extra, report.Entries)
}
