package link

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/ledger/ledgertest"
)

// The simulation runs the protocol's two ends, the real ledger and the real
// executor, in one goroutine over a network that drops, repeats and reorders
// frames across sessions, and kills either end between any two durable writes
// and between an effect and the journal. A schedule is a seed.

// crash is what a simulated kill -9 panics with.
type crash struct{}

// simJournal is durable unless forgetful; it crashes before or after it writes.
type simJournal struct {
	w       *world
	id      int
	head    uint64
	entries map[controlbus.CommandID]controlbus.JournalEntry
}

func (j *simJournal) put(id controlbus.CommandID, f func(*controlbus.JournalEntry)) controlbus.JournalEntry {
	j.w.mayCrash()
	e := j.entries[id]
	e.Command = id
	e.Seq++
	f(&e)
	j.head++
	j.entries[id] = e
	j.w.mayCrash()
	return e
}

func (j *simJournal) Begin(_ context.Context, id controlbus.CommandID, kind controlbus.CommandKind, d json.RawMessage) (controlbus.JournalEntry, error) {
	if _, known := j.entries[id]; known {
		return controlbus.JournalEntry{}, controlbus.ErrConflict
	}
	return j.put(id, func(e *controlbus.JournalEntry) {
		e.Kind, e.State, e.BegunSeq, e.Dispatch = kind, controlbus.JournalBegun, e.Seq, d
	}), nil
}

func (j *simJournal) Checkpoint(_ context.Context, id controlbus.CommandID, at json.RawMessage, p *controlbus.CommandProgress) (int64, error) {
	return j.put(id, func(e *controlbus.JournalEntry) { e.Checkpoint, e.Progress = at, p }).Seq, nil
}

func (j *simJournal) Done(_ context.Context, id controlbus.CommandID, kind controlbus.CommandKind, r controlbus.CommandResult) (int64, error) {
	if e := j.entries[id]; e.State == controlbus.JournalDone || e.State == controlbus.JournalAcked {
		return 0, controlbus.ErrConflict
	}
	return j.put(id, func(e *controlbus.JournalEntry) {
		e.State, e.Result = controlbus.JournalDone, &r
		if kind != "" {
			e.Kind = kind
		}
	}).Seq, nil
}

func (j *simJournal) Acked(_ context.Context, id controlbus.CommandID) error {
	if j.entries[id].State == controlbus.JournalDone {
		j.put(id, func(e *controlbus.JournalEntry) { e.State = controlbus.JournalAcked })
	}
	return nil
}

func (j *simJournal) Entry(id controlbus.CommandID) (controlbus.JournalEntry, bool) {
	e, ok := j.entries[id]
	return e, ok
}

func (j *simJournal) Entries(states ...controlbus.JournalState) (all []controlbus.JournalEntry) {
	for _, e := range j.entries {
		if slices.Contains(states, e.State) {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b controlbus.JournalEntry) int { return strings.Compare(string(a.Command), string(b.Command)) })
	return all
}

func (j *simJournal) ID() string   { return fmt.Sprint("j", j.id) }
func (j *simJournal) Head() uint64 { return j.head }

// simStore crashes the console before or after a transaction.
type simStore struct {
	*ledgertest.Memory
	w *world
}

func (s simStore) ChangeLedger(ctx context.Context, f func(ledger.Tx) error) error {
	s.w.mayCrash()
	err := s.Memory.ChangeLedger(ctx, f)
	s.w.mayCrash()
	return err
}

type packet struct {
	toAgent bool
	f       Frame
}

// loss is what happens to the journal when the agent is killed.
type loss int

const (
	durable  loss = iota
	secretly      // everything is forgotten, and nobody can tell: no journal at all
	openly        // everything is forgotten, under a new name: the disk was replaced
)

type world struct {
	r     *rand.Rand
	loss  loss
	calm  bool // no more faults
	ctx   context.Context
	now   time.Time
	trace []string

	store   *ledgertest.Memory
	ledger  *ledger.Ledger // nil: killed
	disp    *Dispatcher
	session *session // nil: not connected

	journal *simJournal
	exec    *Executor // nil: killed
	tasks   []func()
	net     []packet

	effects map[controlbus.CommandID][]int // how often each item was done
	killed  map[controlbus.CommandID]int   // kills between an item's effect and its checkpoint
	inside  controlbus.CommandID
	obeyed  map[controlbus.CommandID]int64 // the newest wish a job has seen

	asks  []*question // open ones, of the console that lives
	asked int
	wrong string // what was seen to be wrong on the way
}

func (w *world) log(format string, args ...any) {
	if w.trace != nil {
		w.trace = append(w.trace, fmt.Sprintf(format, args...))
	}
}

func (w *world) mayCrash() {
	if !w.calm && w.r.IntN(40) == 0 {
		panic(crash{})
	}
}

// survive runs f and says whether it was not killed.
func survive(f func()) (alive bool) {
	defer func() {
		switch p := recover(); p {
		case nil:
		default:
			if _, ok := p.(crash); !ok {
				panic(p)
			}
			alive = false
		}
	}()
	f()
	return true
}

func (w *world) console(f func()) {
	if w.ledger != nil && !survive(f) {
		w.killConsole()
	}
}

func (w *world) agent(f func()) {
	if w.exec != nil && !survive(f) {
		w.killAgent()
	}
}

func (w *world) killConsole() {
	w.log("console killed")
	w.disconnect()
	w.ledger, w.disp, w.asks = nil, nil, nil
}

func (w *world) killAgent() {
	w.log("agent killed")
	w.disconnect()
	w.exec, w.tasks = nil, nil
	if w.inside != "" {
		w.killed[w.inside]++
		w.inside = ""
	}
	switch w.loss {
	case secretly:
		w.journal = &simJournal{w: w, id: w.journal.id, head: w.journal.head, entries: map[controlbus.CommandID]controlbus.JournalEntry{}}
	case openly:
		w.journal = &simJournal{w: w, id: w.journal.id + 1, entries: map[controlbus.CommandID]controlbus.JournalEntry{}}
	}
}

func (w *world) disconnect() {
	if w.session != nil {
		w.session.close()
		w.session = nil
	}
	if w.exec != nil {
		w.exec.Disconnect()
	}
}

func (w *world) startConsole() {
	if w.ledger != nil {
		return
	}
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveNone}}
	l, err := ledger.New(cfg, simStore{w.store, w}, discard)
	if err != nil {
		panic(err)
	}
	l.Clock(func() time.Time { return w.now })
	w.ledger, w.disp = l, NewDispatcher(l, discard)
	w.disp.now = func() time.Time { return w.now }
}

var discard = slog.New(slog.DiscardHandler)

const items = 3 // of a replay

func (w *world) startAgent() {
	if w.exec != nil {
		return
	}
	if !survive(func() {
		e, err := NewExecutor(w.ctx, ExecutorConfig{
			Agent: "a1", Journal: w.journal, Allow: []AllowRule{{Broker: "*", Channel: "*"}}, Now: func() time.Time { return w.now },
			Go:   func(f func()) { w.tasks = append(w.tasks, f) },
			Plan: w.plan,
			Handlers: map[controlbus.CommandKind]Handler{
				controlbus.CommandPurge: w.once, controlbus.CommandTest: w.once, controlbus.CommandReplay: w.replay,
			},
		})
		if err != nil {
			panic(err)
		}
		w.exec = e
	}) {
		w.killAgent()
	}
}

// once does one thing that is not to be done twice.
func (w *world) once(ctx context.Context, run *Run) controlbus.CommandResult {
	id := run.Dispatch.Command
	if ctx.Err() != nil {
		return controlbus.CommandResult{Outcome: controlbus.CommandCancelled}
	}
	w.mayCrash()
	w.do(id, 0)
	w.mayCrash()
	return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}
}

// replay does several things, each journalled behind its effect.
func (w *world) replay(ctx context.Context, run *Run) controlbus.CommandResult {
	id, from := run.Dispatch.Command, 0
	if len(run.Checkpoint) > 0 {
		if err := json.Unmarshal(run.Checkpoint, &from); err != nil {
			panic(err)
		}
	}
	for i := from; i < items; i++ {
		w.interrupt()
		wish := w.obey(run)
		if ctx.Err() != nil || !w.calm && w.r.IntN(30) == 0 && w.stopHere(id) {
			if i == 0 && !run.Resumed {
				return controlbus.CommandResult{Outcome: controlbus.CommandCancelled}
			}
			return controlbus.CommandResult{Outcome: controlbus.CommandPartial}
		}
		w.mayCrash()
		w.do(id, i)
		w.inside = id
		w.mayCrash()
		if err := run.Save(ctx, json.RawMessage(fmt.Sprint(i+1)), controlbus.CommandProgress{Total: items, Job: &controlbus.JobState{Control: wish}}); err != nil {
			panic(err)
		}
		w.inside = ""
	}
	return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}
}

// obey notes the wish that a job has, which never goes back to an older one.
func (w *world) obey(run *Run) int64 {
	id := run.Dispatch.Command
	wish, changed := run.Control()
	select {
	case <-changed:
		w.wrong = fmt.Sprintf("%s: the wish is new and its channel is closed already", id)
	default:
	}
	if wish.Seq < w.obeyed[id] {
		w.wrong = fmt.Sprintf("%s: wish %d after %d", id, wish.Seq, w.obeyed[id])
	}
	if wish.Seq > 0 && wish.Rate != float64(wish.Seq) {
		w.wrong = fmt.Sprintf("%s: wish %d has rate %v", id, wish.Seq, wish.Rate)
	}
	w.obeyed[id] = wish.Seq
	return wish.Seq
}

// interrupt lets a wish or a cancel arrive while a job runs.
func (w *world) interrupt() {
	for i, p := range w.net {
		if p.toAgent && (p.f.Control != nil || p.f.Cancel != nil) && (w.calm || w.r.IntN(2) == 0) {
			w.net = slices.Delete(w.net, i, i+1)
			w.exec.Handle(w.ctx, p.f)
			return
		}
	}
}

// plan says which question it answers.
func (w *world) plan(_ context.Context, a controlbus.Ask) (controlbus.Plan, error) {
	w.mayCrash()
	n, err := strconv.ParseInt(a.Target.Channel.Name, 10, 64)
	return controlbus.Plan{Count: n}, err
}

// ask opens a question as Dispatcher.Ask does, without waiting.
func (w *world) ask() {
	if w.session == nil || w.disp == nil || len(w.asks) > 3 {
		return
	}
	if s, err := w.disp.answering("a1"); err != nil || s != w.session || !s.ready {
		return
	}
	w.asked++
	q, err := w.disp.openAsk("a1", controlbus.Ask{
		Kind: controlbus.CommandPurge, Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "e", Broker: "b", Name: fmt.Sprint(w.asked)}},
	})
	if err != nil {
		panic(err)
	}
	w.asks = append(w.asks, q)
	w.repeatAsks()
}

// repeatAsks sends the open questions again, and looks at those answered.
func (w *world) repeatAsks() {
	w.asks = slices.DeleteFunc(w.asks, func(q *question) bool {
		select {
		case a := <-q.answer:
			if a.Plan == nil || fmt.Sprint(a.Plan.Count) != q.ask.Target.Channel.Name {
				w.wrong = fmt.Sprintf("question %s is answered with %+v", q.ask.Target.Channel.Name, a)
			}
			w.disp.closeAsk(q)
			return true
		default:
			return false
		}
	})
	if w.session == nil {
		return
	}
	for _, q := range w.asks {
		w.net = append(w.net, packet{true, Frame{Epoch: w.session.epoch, Ask: &q.ask}})
	}
}

// wish changes what is wanted of a job.
func (w *world) wish(c controlbus.Command) {
	w.console(func() {
		rate := float64(c.Control.Seq + 1)
		got, err := w.ledger.Control(w.ctx, c.ID, &rate, nil)
		w.log("wish %s %d: %v", c.ID[:14], got.Control.Seq, err)
		if err == nil && w.session != nil {
			w.send(w.session.pump(w.ctx, false))
		}
	})
}

// stopHere lets a cancel arrive in the middle of a run.
func (w *world) stopHere(id controlbus.CommandID) bool {
	e, ok := w.journal.Entry(id)
	return ok && e.State == controlbus.JournalBegun
}

func (w *world) do(id controlbus.CommandID, item int) {
	if w.effects[id] == nil {
		w.effects[id] = make([]int, items)
	}
	w.effects[id][item]++
	w.log("effect %s %d", id[:14], item)
}

func (w *world) connect() {
	if w.session != nil || w.exec == nil || w.disp == nil {
		return
	}
	w.now = w.now.Add(time.Millisecond)
	w.session = w.disp.open("a1")
	w.exec.Connect(func(f Frame) { w.net = append(w.net, packet{false, f}) })
	w.log("connected, epoch %d", w.session.epoch)
}

func (w *world) send(out []Frame, err error) {
	for _, f := range out {
		w.net = append(w.net, packet{true, f})
	}
	if err != nil {
		panic(err)
	}
}

func (w *world) deliver(i int, keep bool) {
	p := w.net[i]
	if !keep {
		w.net = slices.Delete(w.net, i, i+1)
	}
	w.log("deliver to agent=%v %s epoch %d again=%v", p.toAgent, p.f.name(), p.f.Epoch, keep)
	if p.toAgent {
		w.agent(func() { w.exec.Handle(w.ctx, p.f) })
	} else if w.session != nil {
		w.console(func() { w.send(w.session.handle(w.ctx, p.f)) })
	}
}

func (w *world) request() {
	kind := []controlbus.CommandKind{controlbus.CommandPurge, controlbus.CommandReplay, controlbus.CommandTest}[w.r.IntN(3)]
	s := controlbus.CommandSpec{
		Kind: kind, Reason: "test", AcceptWithin: time.Minute, RunWithin: time.Hour,
		Target:  controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "e", Broker: "b", Name: fmt.Sprint("c", w.r.IntN(2))}},
		Preview: &controlbus.Preview{TakenAt: w.now, Env: "e", Effect: "x", Reversible: controlbus.ReversibleNo},
	}
	s.Preview.Seal(s.Kind, s.Target, s.Args)
	w.console(func() {
		c, err := w.ledger.Request(w.ctx, ledger.Request{CommandSpec: s})
		w.log("request %s %s: %v", kind, c.ID, err) // a conflict of purges is an answer, too
		if err == nil && w.session != nil {
			w.send(w.session.pump(w.ctx, false))
		}
	})
}

func (w *world) commands() []controlbus.Command {
	all, err := w.store.Commands(w.ctx, ledger.Query{Scope: controlbus.Everything()})
	if err != nil {
		panic(err)
	}
	return all
}

func (w *world) step() {
	switch n := w.r.IntN(100); {
	case n < 40 && len(w.net) > 0:
		i := w.r.IntN(len(w.net))
		if w.r.IntN(3) > 0 {
			i = 0 // mostly in order
		}
		switch w.r.IntN(10) {
		case 0:
			w.log("drop %s", w.net[i].f.name())
			w.net = slices.Delete(w.net, i, i+1)
		case 1:
			w.deliver(i, true)
		default:
			w.deliver(i, false)
		}
	case n < 55 && len(w.tasks) > 0:
		i := w.r.IntN(len(w.tasks))
		task := w.tasks[i]
		w.tasks = slices.Delete(w.tasks, i, i+1)
		w.agent(task)
	case n < 62:
		if all := w.commands(); len(all) < 4 {
			w.request()
		} else if w.r.IntN(2) == 0 {
			c := all[w.r.IntN(len(all))]
			w.log("cancel %s", c.ID[:14])
			w.console(func() {
				if _, err := w.ledger.Cancel(w.ctx, c.ID, "no"); err == nil && w.session != nil {
					w.send(w.session.pump(w.ctx, false))
				}
			})
		}
	case n < 72:
		w.startConsole()
		w.startAgent()
		w.connect()
	case n < 80:
		if w.session != nil {
			w.console(func() { w.send(w.session.pump(w.ctx, true)) })
		}
	case n < 84:
		w.agent(func() { w.exec.Tick(w.ctx, true) })
	case n < 88:
		w.now = w.now.Add(time.Duration(w.r.IntN(25)) * time.Second)
		w.console(func() {
			if err := w.ledger.Tick(w.ctx, w.disp.Online); err != nil {
				panic(err)
			}
		})
	case n < 91:
		w.disconnect()
	case n < 93:
		w.killAgent()
	case n < 95:
		w.killConsole()
	case n < 97:
		w.ask()
		w.repeatAsks()
	default:
		open := slices.DeleteFunc(w.commands(), func(c controlbus.Command) bool {
			return c.State.Terminal() || c.Kind != controlbus.CommandReplay
		})
		if len(open) > 0 {
			w.wish(open[w.r.IntN(len(open))])
		}
	}
}

// settle lets everything heal, and says what is still open.
func (w *world) settle() []controlbus.Command {
	w.calm = true
	w.log("calm")
	for range 40 {
		w.startConsole()
		w.startAgent()
		w.connect()
		for n := 0; (len(w.net) > 0 || len(w.tasks) > 0) && n < 1000; n++ {
			if len(w.net) > 0 {
				w.deliver(0, false)
			}
			if len(w.tasks) > 0 {
				task := w.tasks[0]
				w.tasks = w.tasks[1:]
				w.agent(task)
			}
		}
		open := w.commands()
		open = slices.DeleteFunc(open, func(c controlbus.Command) bool { return c.State.Terminal() })
		if len(open) == 0 && len(w.journal.Entries(controlbus.JournalDone)) == 0 && len(w.asks) == 0 {
			return nil
		}
		w.now = w.now.Add(Redeliver)
		w.repeatAsks()
		w.console(func() { w.send(w.session.pump(w.ctx, true)) })
		w.agent(func() { w.exec.Tick(w.ctx, true) })
		w.console(func() {
			if err := w.ledger.Tick(w.ctx, w.disp.Online); err != nil {
				panic(err)
			}
		})
	}
	return slices.DeleteFunc(w.commands(), func(c controlbus.Command) bool { return c.State.Terminal() })
}

// schedule runs one seed and returns what is wrong.
func schedule(seed uint64, l loss, traced bool) (wrong string, trace []string) {
	w := &world{
		r: rand.New(rand.NewPCG(seed, uint64(l))), loss: l, now: time.Unix(1_800_000_000, 0), store: ledgertest.NewMemory(),
		effects: map[controlbus.CommandID][]int{}, killed: map[controlbus.CommandID]int{}, obeyed: map[controlbus.CommandID]int64{},
		ctx: access.With(context.Background(), access.Identity{ID: "u", Name: "ann", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)}),
	}
	if traced {
		w.trace = []string{}
	}
	w.journal = &simJournal{w: w, entries: map[controlbus.CommandID]controlbus.JournalEntry{}}
	w.startConsole()
	w.startAgent()
	w.connect()
	w.request()
	for range 30 + w.r.IntN(60) {
		w.step()
	}
	if stuck := w.settle(); len(stuck) > 0 {
		return fmt.Sprintf("stuck: %s is %s, journal %+v", stuck[0].ID, stuck[0].State, w.journal.entries[stuck[0].ID]), w.trace
	}
	if len(w.asks) > 0 {
		return fmt.Sprintf("question %s is not answered", w.asks[0].ask.Target.Channel.Name), w.trace
	}
	if w.wrong != "" {
		return w.wrong, w.trace
	}
	return w.check(), w.trace
}

func (w *world) check() string {
	changes := 0
	for _, c := range w.commands() {
		did := w.effects[c.ID]
		if did == nil {
			did = make([]int, items)
		}
		if c.LateResult != nil && w.loss == durable {
			return fmt.Sprintf("%s ended twice: %s and %s", c.ID, c.State, c.LateResult.Outcome)
		}
		if c.Kind != controlbus.CommandReplay {
			switch {
			// A test message may come twice where its journal is gone: at least once.
			case did[0] > 1 && (c.Kind == controlbus.CommandPurge || w.loss == durable):
				return fmt.Sprintf("%s %s done %d times", c.Kind, c.ID, did[0])
			case c.State == controlbus.CommandSucceeded && did[0] < 1:
				return fmt.Sprintf("%s %s succeeded, and was done %d times", c.Kind, c.ID, did[0])
			case c.State != controlbus.CommandSucceeded && c.State != controlbus.CommandIndeterminate && did[0] > 0 && w.loss == durable:
				return fmt.Sprintf("%s %s is %s, and was done", c.Kind, c.ID, c.State)
			}
		} else {
			extra := 0
			for i, n := range did {
				extra += max(0, n-1)
				if c.State == controlbus.CommandSucceeded && n < 1 {
					return fmt.Sprintf("replay %s succeeded without item %d", c.ID, i)
				}
			}
			if extra > w.killed[c.ID] && w.loss == durable {
				return fmt.Sprintf("replay %s: %d copies too many, %d kills between effect and journal", c.ID, extra, w.killed[c.ID])
			}
			if (c.State == controlbus.CommandCancelled || c.State == controlbus.CommandRejected || c.State == controlbus.CommandExpired) && did[0] > 0 && w.loss == durable {
				return fmt.Sprintf("replay %s is %s, and sent something", c.ID, c.State)
			}
		}
		var fold controlbus.Command
		events, _ := w.store.CommandEvents(w.ctx, c.ID)
		for _, e := range events {
			before := fold.State
			if err := ledger.Fold(&fold, e); err != nil {
				return err.Error()
			}
			if fold.State != before {
				changes++
			}
		}
		if fold.Control != c.Control || w.obeyed[c.ID] > c.Control.Seq {
			return fmt.Sprintf("%s: wish %+v, by its events %+v, obeyed %d", c.ID, c.Control, fold.Control, w.obeyed[c.ID])
		}
	}
	audit, _ := w.store.Events(w.ctx, access.EventQuery{Code: "command.*", Limit: 1 << 20})
	n := 0
	for _, e := range audit {
		if controlbus.CommandState(strings.TrimPrefix(e.Code, "command.")).Valid() && !strings.HasPrefix(e.Detail, "it needs") {
			n++
		}
	}
	if n != changes {
		return fmt.Sprintf("%d changes of state, %d audit entries", changes, n)
	}
	if box, _ := w.store.Outbox(w.ctx, ""); len(box) > 0 {
		return fmt.Sprintf("everything has ended, and the outbox has %v", box)
	}
	return ""
}

// schedules runs seeds until one goes wrong in a way that contains what, on two
// goroutines, and returns it.
func schedules(n int, l loss, what string) (failed uint64, wrong string) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for part := range 2 {
		wg.Go(func() {
			for seed := uint64(part + 1); seed <= uint64(n); seed += 2 {
				bad, _ := schedule(seed, l, false)
				mu.Lock()
				if bad != "" && strings.Contains(bad, what) && (wrong == "" || seed < failed) {
					failed, wrong = seed, bad
				}
				stop := wrong != "" && seed > failed
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	return failed, wrong
}

func howMany() int {
	if os.Getenv("SIGNALBOX_SOAK") != "" {
		return 100_000
	}
	if testing.Short() {
		return 1_000
	}
	return 5_000
}

// No schedule does a thing twice, leaves a command stuck, or says that one
// succeeded that was not done exactly once.
func TestProtocol(t *testing.T) {
	for name, l := range map[string]loss{"journal kept": durable, "disk replaced": openly} {
		t.Run(name, func(t *testing.T) {
			n := howMany()
			seed, wrong := schedules(n, l, "")
			if wrong != "" {
				again, trace := schedule(seed, l, true)
				t.Fatalf("seed %d: %s (again: %s)\n%s", seed, wrong, again, strings.Join(trace, "\n"))
			}
			t.Logf("%d schedules", n)
		})
	}
}

// The same check finds what redelivery without a journal does: it can fail.
func TestProtocolWithoutJournalFails(t *testing.T) {
	seed, wrong := schedules(5_000, secretly, "done 2 times")
	if wrong == "" {
		t.Fatal("5000 schedules without a journal, and nothing was done twice")
	}
	t.Logf("seed %d: %s", seed, wrong)
}

// Whatever arrives is an error or a frame that can be written again.
func FuzzFrame(f *testing.F) {
	for _, seed := range []Frame{
		{Hello: &Hello{Nonce: "n"}}, {Epoch: 7, Dispatch: &Dispatch{Command: "c", Args: json.RawMessage(`{"a":[1]}`)}},
		{Epoch: 7, Event: &Event{Type: Result, Result: &controlbus.CommandResult{Outcome: controlbus.CommandPartial}}}, {Epoch: 1, Desired: &controlbus.Desired{}},
	} {
		b, err := encode(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(got)
		if err != nil {
			return // larger when written out: escapes
		}
		back, err := decode(again)
		if err != nil || back.name() != got.name() || back.Epoch != got.Epoch {
			t.Errorf("%q became %s, %v", b, again, err)
		}
	})
}
