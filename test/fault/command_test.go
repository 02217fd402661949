package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage/state"
)

const (
	orderers = 50 // who order commands at a time
	pieces   = 5  // of a job
)

// worker is an agent that lives through the console's deaths. Each effect is
// counted as a broker would see it.
type worker struct {
	mu      sync.Mutex
	effects map[controlbus.CommandID][]int
}

func (w *worker) do(id controlbus.CommandID, piece int) {
	time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
	w.mu.Lock()
	if w.effects[id] == nil {
		w.effects[id] = make([]int, pieces)
	}
	w.effects[id][piece]++
	w.mu.Unlock()
	time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
}

func (w *worker) did(id controlbus.CommandID) []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := w.effects[id]; n != nil {
		return n
	}
	return make([]int, pieces)
}

func (w *worker) once(_ context.Context, run *link.Run) controlbus.CommandResult {
	w.do(run.Dispatch.Command, 0)
	return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Matched: 1, Done: 1}}
}

func (w *worker) job(ctx context.Context, run *link.Run) controlbus.CommandResult {
	for n := range int64(pieces) {
		if ctx.Err() != nil {
			return controlbus.CommandResult{Outcome: controlbus.CommandPartial, Counts: controlbus.Counts{Done: n}, Detail: context.Cause(ctx).Error()}
		}
		w.do(run.Dispatch.Command, int(n))
		wish, _ := run.Control()
		p := controlbus.CommandProgress{Counts: controlbus.Counts{Matched: pieces, Done: n + 1}, Total: pieces, Job: &controlbus.JobState{Sent: n + 1, Control: wish.Seq}}
		if err := run.Save(context.WithoutCancel(ctx), json.RawMessage(fmt.Sprint(n+1)), p); err != nil {
			return controlbus.CommandResult{Outcome: controlbus.CommandPartial, Detail: err.Error()}
		}
	}
	return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Matched: pieces, Done: pieces}}
}

// serve runs the agent until ctx ends.
func (w *worker) serve(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	exec, err := link.NewExecutor(ctx, link.ExecutorConfig{
		Agent: "fault-agent", Journal: j, Allow: []link.AllowRule{{Broker: "*", Channel: "*"}},
		Handlers: map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: w.once, controlbus.CommandTest: w.once, controlbus.CommandRedrive: w.job},
		Plan: func(context.Context, controlbus.Ask) (controlbus.Plan, error) {
			return controlbus.Plan{Technique: "counting", Count: pieces, Reversible: controlbus.ReversibleNo, Expect: controlbus.Expect{MaxCount: -1}}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	self := func() controlbus.Agent {
		return controlbus.Agent{
			ID: "fault-agent", Incarnation: "one", Env: agentEnv, StartedAt: time.Now().Add(-time.Hour), SentAt: time.Now(),
			Brokers: []controlbus.BrokerStatus{{Name: "rabbit", System: "rabbitmq", Connected: true, Capabilities: []string{"tap"}}},
		}
	}
	reports, err := link.NewClient(link.ClientConfig{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for sleep(ctx, 500*time.Millisecond) == nil {
			_, _ = reports.Report(ctx, self()) // the console may be dead
		}
	})
	wg.Go(func() {
		// A real agent spreads its first attempt over ten seconds, for the sake of
		// a console with thousands of them.
		dial := link.Dialer{URL: url, Agent: self, Log: slog.New(slog.DiscardHandler)}
		for sleep(ctx, 50*time.Millisecond) == nil {
			if l, err := dial.Dial(ctx); err == nil {
				_ = exec.Serve(ctx, l, nil)
			}
		}
	})
	t.Cleanup(func() {
		wg.Wait()
		exec.Stop()
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
}

// told is what the console has said of commands: it may never say otherwise.
type told struct {
	mu     sync.Mutex
	states map[controlbus.CommandID][]controlbus.CommandState
	lost   atomic.Int64 // orders of which no answer came
}

func (s *told) hear(id controlbus.CommandID, st controlbus.CommandState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if all := s.states[id]; len(all) == 0 || all[len(all)-1] != st {
		s.states[id] = append(all, st)
	}
}

// call asks the API. ok is false where no answer came, or none of the console's
// own.
func call(ctx context.Context, method, url string, in, out any) (status int, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, _ := json.Marshal(in)
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, false
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return 0, false
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode < 300 && json.Unmarshal(text, out) != nil {
		return 0, false
	}
	return res.StatusCode, true
}

type apiCommand struct {
	ID    controlbus.CommandID    `json:"id"`
	State controlbus.CommandState `json:"state"`
	Ended bool                    `json:"ended"`
}

// order takes commands from a preview to their end, until ctx ends.
func (s *told) order(ctx context.Context, url string, who int) {
	rng := rand.New(rand.NewPCG(seed, uint64(who)))
	for n := 0; ctx.Err() == nil; n++ {
		kind := []string{"purge", "redrive", "redrive", "test", "tap"}[rng.IntN(5)]
		ask := map[string]any{"kind": kind, "env": agentEnv, "broker": "rabbit", "channel": fmt.Sprintf("c%d", rng.IntN(40)), "accept_within": "1h"}
		if kind == "test" {
			ask["args"] = map[string]any{"body": "x"}
		}
		var draft struct {
			ID string `json:"id"`
		}
		if status, ok := call(ctx, http.MethodPost, url+"/api/v1/previews", ask, &draft); !ok || status != http.StatusCreated {
			_ = sleep(ctx, 200*time.Millisecond)
			continue
		}
		var c apiCommand
		status, ok := call(ctx, http.MethodPost, url+"/api/v1/commands", map[string]any{"preview": draft.ID, "reason": fmt.Sprintf("w%d n%d", who, n)}, &c)
		switch {
		case !ok:
			s.lost.Add(1) // it stands, or not; asking for it again would be another one
			continue
		case status != http.StatusCreated: // a purge of the channel is under way
			_ = sleep(ctx, 100*time.Millisecond)
			continue
		}
		s.hear(c.ID, c.State)
		for steered := false; !c.Ended; {
			if sleep(ctx, time.Duration(200+rng.IntN(400))*time.Millisecond) != nil {
				return
			}
			if status, ok := call(ctx, http.MethodGet, url+"/api/v1/commands/"+string(c.ID), nil, &c); ok && status == http.StatusOK {
				s.hear(c.ID, c.State)
			} else if ok && status == http.StatusNotFound {
				s.hear(c.ID, "not found")
				break
			}
			if kind == "redrive" && !steered && rng.IntN(3) == 0 {
				steered = true
				var after apiCommand
				if status, ok := call(ctx, http.MethodPost, url+"/api/v1/commands/"+string(c.ID)+"/control", map[string]any{"rate": 100 + rng.IntN(100)}, &after); ok && status == http.StatusOK {
					s.hear(c.ID, after.State)
				}
			}
		}
	}
}

// The console is killed with -9 again and again while fifty people order
// commands and an agent carries them out: it is back within five seconds, no
// command is lost, done twice or stuck, what was told is in the ledger, and the
// audit trail has each change of state once and verifies.
func TestConsoleKilledDuringCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("kills the console for a minute")
	}
	kills := 6
	if os.Getenv("SIGNALBOX_SOAK") == "1" {
		kills = 200
	}
	s := newSite(t, func(cfg map[string]any) {
		cfg["commands"] = map[string]any{"policies": []any{map[string]any{"env": "*", "destructive": "none"}}}
	})
	ctx, stopAgent := context.WithCancel(t.Context())
	defer stopAgent()
	v := &victim{t: t, name: "signalbox", args: s.args()}
	v.start()
	s.ready(ctx, t, v.proc)
	agent := &worker{effects: map[controlbus.CommandID][]int{}}
	agent.serve(ctx, t, s.url())
	heard := &told{states: map[controlbus.CommandID][]controlbus.CommandState{}}
	ordering, enough := context.WithCancel(ctx)
	defer enough()
	var wg sync.WaitGroup
	for who := range orderers {
		wg.Go(func() { heard.order(ordering, s.url(), who) })
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	var back []time.Duration
	for range kills {
		if sleep(ctx, time.Duration(rng.IntN(2000))*time.Millisecond) != nil {
			t.Fatal(ctx.Err())
		}
		v.kill()
		began := time.Now()
		v.start()
		s.answers(ctx, t, v)
		back = append(back, time.Since(began))
	}
	_ = sleep(ctx, 2*time.Second)
	enough()
	wg.Wait()
	quiet := time.Now()
	for {
		var open struct {
			Commands []apiCommand `json:"commands"`
		}
		if status, ok := call(ctx, http.MethodGet, s.url()+"/api/v1/commands?open=true&limit=500", nil, &open); ok && status == http.StatusOK && len(open.Commands) == 0 {
			break
		}
		if time.Since(quiet) > time.Minute+30*time.Second {
			t.Fatalf("stuck: %d commands stay open: %+v", len(open.Commands), open.Commands[:min(len(open.Commands), 5)])
		}
		_ = sleep(ctx, 200*time.Millisecond)
	}
	settled := time.Since(quiet)
	stop, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if code, err := v.proc.Stop(stop); err != nil || code != 0 {
		t.Errorf("the console ends with %d, %v", code, err)
	}
	stopAgent()
	slices.Sort(back)
	if p50 := back[len(back)/2]; p50 > 5*time.Second {
		t.Errorf("half of the restarts took longer than %v, want 5s", p50)
	}
	figures := checkLedger(t, filepath.Join(s.dir, "data", "state.db"), agent, heard)
	t.Logf("%d kills; back after %v (half), %v (most); %s; all ended %v after the last order", kills, back[len(back)/2].Round(time.Millisecond), back[len(back)-1].Round(time.Millisecond), figures, settled.Round(time.Millisecond))
}

// answers waits until the console takes commands again.
func (s *site) answers(ctx context.Context, t *testing.T, v *victim) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		var list struct{}
		if status, ok := call(ctx, http.MethodGet, s.url()+"/api/v1/commands?limit=1", nil, &list); ok && status == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the console does not come back:\n%s", v.proc.Output())
		}
		_ = sleep(ctx, 10*time.Millisecond)
	}
}

// checkLedger looks at what is left, by the console's own store.
func checkLedger(t *testing.T, path string, agent *worker, heard *told) string {
	t.Helper()
	db, err := state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	all := map[controlbus.CommandID]controlbus.Command{}
	for before := controlbus.CommandID(""); ; {
		page, err := db.Commands(t.Context(), ledger.Query{Before: before, Scope: controlbus.Everything(), Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range page {
			all[c.ID], before = c, c.ID
		}
		if len(page) < 500 {
			break
		}
	}
	tally, reasons := map[string]int{}, map[string]controlbus.CommandID{}
	changes := map[string][]string{} // per command, in order
	total := 0
	for id, c := range all {
		tally[string(c.Kind)+" "+string(c.State)]++
		if other, twice := reasons[c.Reason]; twice {
			t.Errorf("what was asked for once (%s) stands twice: %s and %s", c.Reason, id, other)
		}
		reasons[c.Reason] = id
		// I5: at most once, and as the result says.
		switch did := agent.did(id); c.Kind {
		case controlbus.CommandPurge, controlbus.CommandTest:
			if did[0] > 1 || (c.State == controlbus.CommandSucceeded) != (did[0] == 1) {
				t.Errorf("%s %s is %s, and was done %d times", c.Kind, id, c.State, did[0])
			}
		case controlbus.CommandRedrive:
			for i, n := range did {
				if n > 1 || c.State == controlbus.CommandSucceeded && n != 1 {
					t.Errorf("redrive %s is %s, and piece %d was done %d times", id, c.State, i, n)
				}
			}
		}
		if !c.State.Terminal() {
			t.Errorf("%s %s is %s", c.Kind, id, c.State)
		}
		if c.State != controlbus.CommandSucceeded {
			t.Errorf("%s %s is %s: %s", c.Kind, id, c.State, c.Detail)
		}
		events, err := db.CommandEvents(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var fold controlbus.Command
		was := map[controlbus.CommandState]int{"": 0}
		for i, e := range events {
			before := fold.State
			if err := ledger.Fold(&fold, e); err != nil {
				t.Errorf("%s: %v", id, err)
			}
			if fold.State != before {
				changes[string(id)] = append(changes[string(id)], "command."+string(fold.State))
				was[fold.State] = i + 1
				total++
			}
		}
		if fold.State != c.State || fold.Control != c.Control {
			t.Errorf("%s is %s %+v, by its events %s %+v", id, c.State, c.Control, fold.State, fold.Control)
		}
		// I7: what was told had happened, and in that order.
		last := 0
		for _, st := range heard.states[id] {
			if was[st] == 0 {
				t.Errorf("%s was told to be %s, which it never was", id, st)
			}
			if was[st] < last {
				t.Errorf("%s was told to be %v: not in the order of the ledger", id, heard.states[id])
			}
			last = was[st]
		}
	}
	for id := range heard.states {
		if _, ok := all[id]; !ok {
			t.Errorf("command %s was told of and is lost", id)
		}
	}
	// I6: one record for each change of state, in order.
	var trail []access.Event
	for before := int64(0); ; {
		page, err := db.Events(t.Context(), access.EventQuery{Before: before, Code: "command.*", Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			trail, before = append(trail, e), e.Seq
		}
		if len(page) == 0 {
			break
		}
	}
	slices.Reverse(trail)
	audited := map[string][]string{}
	records := 0
	for _, e := range trail {
		if !controlbus.CommandState(strings.TrimPrefix(e.Code, "command.")).Valid() {
			continue // asked to cancel, to steer; refused
		}
		_, id, _ := strings.Cut(e.Target, " ")
		audited[id] = append(audited[id], e.Code)
		records++
	}
	for id, want := range changes {
		if !slices.Equal(audited[id], want) {
			t.Errorf("%s: audited %v, changed %v", id, audited[id], want)
		}
	}
	if records != total {
		t.Errorf("%d audit records for %d changes of state", records, total)
	}
	if box, err := db.Outbox(t.Context(), ""); err != nil || len(box) > 0 {
		t.Errorf("everything has ended, and the outbox has %+v, %v", box, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	key, err := state.AuditKey(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := state.VerifyAudit(t.Context(), path, key, nil)
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("audit trail: %v, %v", report.Findings, err)
	}
	if len(all) == 0 {
		t.Error("no command was ordered")
	}
	return fmt.Sprintf("%d commands %v, %d told of, %d orders without an answer; %d changes of state, each audited; %d audit entries verify", len(all), tally, len(heard.states), heard.lost.Load(), total, report.Entries)
}
