package action

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/test/broker"
)

func TestMain(m *testing.M) { broker.Main(m) }

// rig is an agent's command side with a fake broker: a real executor, journal and
// archive, which die and come back as a test wants.
type rig struct {
	t     *testing.T
	dir   string
	b     *agenttest.Queues
	other *agenttest.Queues
	real  agents.Adapter // in place of b, where set
	pages func(after string, limit int) (link.FetchPage, error)
	rules []link.AllowRule
	red   export.Redaction
	max   int64 // of the archive

	// step is called at each step of a command, on its goroutine.
	step func(what string)
	lose bool

	mu      sync.Mutex
	records []map[string]any
	full    bool // the spool
	results map[controlbus.CommandID]controlbus.CommandResult
	told    []controlbus.CommandProgress

	a    *Actions
	exec *link.Executor
	j    *journal.Journal
	wg   sync.WaitGroup
}

func newRig(t *testing.T, b *agenttest.Queues) *rig {
	r := &rig{t: t, dir: t.TempDir(), b: b, other: agenttest.NewQueues("elsewhere"), rules: []link.AllowRule{{Broker: "*", Channel: "*"}},
		red: export.DefaultRedaction(), max: 1 << 30, results: map[controlbus.CommandID]controlbus.CommandResult{}}
	for _, m := range []string{"Inspect", "Intake", "Next", "Accept", "Accepted", "Return", "Outlet", "Send", "Sent", "Purge"} {
		b.Fail(m, func(string) error {
			if r.step != nil {
				r.step(m)
			}
			if r.lose { // whatever it was, nobody knows whether it was done
				r.lose = false
				return agents.ErrNotConnected
			}
			return nil
		})
	}
	r.start()
	t.Cleanup(r.stop)
	return r
}

// stepping tells of the journal's steps, too.
type stepping struct {
	*journal.Journal
	r *rig
}

func (s stepping) Checkpoint(ctx context.Context, id controlbus.CommandID, at json.RawMessage, p *controlbus.CommandProgress) (int64, error) {
	s.r.at("checkpoint")
	n, err := s.Journal.Checkpoint(ctx, id, at, p)
	s.r.at("checkpointed")
	return n, err
}

func (s stepping) Done(ctx context.Context, id controlbus.CommandID, kind controlbus.CommandKind, res controlbus.CommandResult) (int64, error) {
	s.r.at("done")
	n, err := s.Journal.Done(ctx, id, kind, res)
	s.r.at("noted")
	return n, err
}

func (r *rig) at(what string) {
	if r.step != nil {
		r.step(what)
	}
}

func (r *rig) start() {
	var err error
	env := agents.CommandEnv{
		Self: controlbus.Agent{ID: "a1", Env: "test", Version: "v1"}, Dir: r.dir, Brokers: []string{"b", "other"}, Allow: r.rules, Redaction: r.red,
		Archive: agents.ArchiveConfig{MaxBytes: r.max, MaxAge: time.Hour}, Log: slog.New(slog.DiscardHandler), Changed: func() {},
		Broker: func(name string) (agents.Adapter, bool) {
			ad := map[string]agents.Adapter{"b": r.b, "other": r.other}[name]
			if name == "b" && r.real != nil {
				ad = r.real
			}
			return ad, ad != nil
		},
		Lost: func(string) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if r.real != nil {
				_, _ = r.real.Connect(ctx)
				return
			}
			_, _ = r.b.Connect(ctx)
		},
		Logs: r.logs,
	}
	if r.a, err = New(env); err != nil {
		r.t.Fatal(err)
	}
	r.a.fetch = func(_ context.Context, _ controlbus.CommandID, after string, limit int) (link.FetchPage, error) {
		return r.pages(after, limit)
	}
	if r.j, err = journal.Open(journal.Config{Dir: filepath.Join(r.dir, "journal")}); err != nil {
		r.t.Fatal(err)
	}
	r.exec, err = link.NewExecutor(context.Background(), link.ExecutorConfig{
		Agent: "a1", Journal: stepping{r.j, r}, Handlers: r.a.Handlers(), Allow: r.rules, Plan: r.a.Plan,
		Go: func(f func()) { r.wg.Go(f) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	var nonce string
	r.exec.Connect(func(f link.Frame) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if f.Hello != nil && f.Epoch == 0 {
			nonce = f.Hello.Nonce
		}
		if f.Event != nil && f.Event.Type == link.Result {
			r.results[f.Event.Command] = *f.Event.Result
		}
		if f.Event != nil && f.Event.Progress != nil {
			r.told = append(r.told, *f.Event.Progress)
		}
	})
	r.exec.Handle(r.t.Context(), link.Frame{Epoch: 7, Hello: &link.Hello{Nonce: nonce}})
}

func (r *rig) stop() {
	r.exec.Stop()
	r.wg.Wait()
	_ = r.j.Close()
}

// restart is the end of one process and the beginning of the next.
func (r *rig) restart() {
	r.step = nil
	r.stop()
	r.b.Break() // its connections die with it
	_, _ = r.b.Connect(context.Background())
	r.start()
}

func (r *rig) logs(_ context.Context, ld plog.Logs) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		return fmt.Errorf("%w: full", controlbus.ErrOverloaded)
	}
	for _, rl := range ld.ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for _, lr := range sl.LogRecords().All() {
				m := lr.Attributes().AsRaw()
				m["event"] = lr.EventName()
				r.records = append(r.records, m)
			}
		}
	}
	return nil
}

func (r *rig) outcomes(name string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.records {
		if m[controlbus.AttrCommandOutcome] == name {
			n++
		}
	}
	return n
}

// order makes an order; order and await wait for its result.
func (r *rig) dispatch(kind controlbus.CommandKind, channel string, args any, change ...func(*link.Dispatch)) link.Dispatch {
	raw, err := json.Marshal(args)
	if err != nil {
		r.t.Fatal(err)
	}
	d := link.Dispatch{
		Command: controlbus.NewCommandID(time.Now()), Kind: kind, Class: kind.Class(), Attempt: 1, AcceptWithin: time.Minute, RunWithin: time.Minute, Args: raw,
		Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "test", System: "fake", Broker: "b", Name: channel}},
		Expect: &controlbus.Expect{MaxCount: -1},
	}
	for _, c := range change {
		c(&d)
	}
	return d
}

func (r *rig) order(d link.Dispatch) {
	r.exec.Handle(r.t.Context(), link.Frame{Epoch: 7, Dispatch: &d})
}

func (r *rig) result(id controlbus.CommandID) (controlbus.CommandResult, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	res, ok := r.results[id]
	return res, ok
}

func (r *rig) await(id controlbus.CommandID) controlbus.CommandResult {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		if res, ok := r.result(id); ok {
			return res
		}
		if time.Now().After(end) {
			r.t.Fatal("no result within 2m")
		}
	}
}

func (r *rig) do(d link.Dispatch) controlbus.CommandResult {
	r.t.Helper()
	r.order(d)
	return r.await(d.Command)
}

func want(t *testing.T, res controlbus.CommandResult, state controlbus.CommandState, done int64) Evidence {
	t.Helper()
	if res.Outcome != state || res.Counts.Done != done {
		t.Errorf("got %s, %+v, %q; want %s with %d done", res.Outcome, res.Counts, res.Detail, state, done)
	}
	var ev Evidence
	if len(res.Evidence) > 0 {
		if err := json.Unmarshal(res.Evidence, &ev); err != nil {
			t.Error(err)
		}
	}
	return ev
}

// dieAt kills the process at its nth step: the goroutine ends where it is.
func (r *rig) dieAt(n int, died *bool) {
	r.step = func(string) {
		if n--; n == 0 {
			*died = true
			r.step = nil
			runtime.Goexit()
		}
	}
}

// numbered makes messages with ids 0 to n-1.
func numbered(n int) []*agents.Message {
	out := make([]*agents.Message, n)
	for i := range out {
		out[i] = &agents.Message{
			MessageID: strconv.Itoa(i), Body: []byte(`{"n":` + strconv.Itoa(i) + `,"password":"hunter2"}`), ContentType: "application/json", Persistent: true,
			Headers: []agents.Field{{Key: "n", Value: int32(i)}, {Key: "even", Value: i%2 == 0}, {Key: "parity", Value: []string{"even", "odd"}[i%2]}},
		}
	}
	return out
}

func ids(msgs []*agents.Message) []string {
	out := make([]string, len(msgs))
	for i, m := range msgs {
		out[i] = m.MessageID
	}
	return out
}

// dead makes dead letters that died in a channel.
func dead(n int, in string) []*agents.Message {
	out := numbered(n)
	for _, m := range out {
		m.Headers = append(m.Headers, agents.Field{Key: "x-original-queue", Value: in}, agents.Field{Key: "x-error", Value: "it broke"},
			agents.Field{Key: "x-death", Value: []any{map[string]any{"queue": in, "reason": "rejected", "count": int64(1)}}},
			agents.Field{Key: "CC", Value: []any{"copies"}}, agents.Field{Key: "Nats-Rollup", Value: "all"})
	}
	return out
}

// once checks that each of n messages is there at least once, and more often only
// under one operation id.
func once(t *testing.T, got []*agents.Message, n int, mark string) (twice int) {
	t.Helper()
	seen := map[string][]string{}
	for _, m := range got {
		seen[m.MessageID] = append(seen[m.MessageID], m.Header(mark))
	}
	for i := range n {
		marks := seen[strconv.Itoa(i)]
		if len(marks) == 0 {
			t.Errorf("message %d is lost", i)
		}
		if len(slices.Compact(slices.Clone(marks))) > 1 {
			t.Errorf("message %d was sent under different operation ids: %q", i, marks)
		}
		twice += max(len(marks)-1, 0)
	}
	return twice
}
