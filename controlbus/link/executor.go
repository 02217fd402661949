package link

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

// Journal is what an agent must not forget; agents/journal is one. What a method
// has noted when it returns nil survives a crash.
type Journal interface {
	// Begin fails with controlbus.ErrConflict for a command the journal knows.
	Begin(ctx context.Context, id controlbus.CommandID, kind controlbus.CommandKind, dispatch json.RawMessage) (controlbus.JournalEntry, error)
	Checkpoint(ctx context.Context, id controlbus.CommandID, at json.RawMessage, p *controlbus.CommandProgress) (seq int64, err error)
	Done(ctx context.Context, id controlbus.CommandID, kind controlbus.CommandKind, r controlbus.CommandResult) (seq int64, err error)
	Acked(ctx context.Context, id controlbus.CommandID) error
	Entry(id controlbus.CommandID) (controlbus.JournalEntry, bool)
	Entries(states ...controlbus.JournalState) []controlbus.JournalEntry
	ID() string
	Head() uint64
}

// Handler carries out one kind of command and says how it ended. It compares
// run.Dispatch.Expect with what it finds before its first effect, and answers
// controlbus.CommandRejected where they differ. When ctx ends it stops soon and
// answers with what it has done: context.Cause is ErrCancelled, ErrOverdue or
// ErrStopping. A resumable kind saves its checkpoint as it goes, and begins at
// run.Checkpoint.
type Handler func(ctx context.Context, run *Run) controlbus.CommandResult

// Why a command's context ended.
var (
	ErrCancelled = errors.New("cancelled")
	ErrOverdue   = errors.New("its time to run is over")
	ErrStopping  = errors.New("the agent stops")
)

// AllowRule lets commands of some kinds act on some channels. It comes from the
// agent's own configuration and cannot be changed by the console.
type AllowRule struct {
	Kinds   []controlbus.CommandKind `yaml:"kinds"`   // empty: all
	Broker  string                   `yaml:"broker"`  // configured name, or a pattern with *
	Channel string                   `yaml:"channel"` // name, or a pattern with *
}

func (r AllowRule) allows(d *Dispatch) bool {
	ch := d.Target.Channel
	return (len(r.Kinds) == 0 || slices.Contains(r.Kinds, d.Kind)) && controlbus.MatchPattern(r.Broker, ch.Broker) && controlbus.MatchPattern(r.Channel, ch.Name) &&
		(d.Destination == nil || controlbus.MatchPattern(r.Broker, d.Destination.Broker) && controlbus.MatchPattern(r.Channel, d.Destination.Name))
}

// ExecutorConfig of an executor.
type ExecutorConfig struct {
	Agent    string
	Journal  Journal
	Handlers map[controlbus.CommandKind]Handler
	// Plan says what a command would do, changing nothing; nil: the agent cannot
	// say. It runs off the receive loop, a few at a time. An error that is
	// controlbus.ErrUnavailable means that asking again may help; any other is the
	// reason why the command cannot be carried out.
	Plan func(ctx context.Context, ask controlbus.Ask) (controlbus.Plan, error)
	// Allow lists what may be done; without a rule nothing may.
	Allow []AllowRule
	Log   *slog.Logger

	// Now and Go are time.Now and a goroutine unless a test has its own.
	Now func() time.Time
	Go  func(func())
}

// Executor is the agent's end of the command protocol: it does what is ordered,
// once, and tells how it went until the console has it. It outlives sessions.
// It is safe for concurrent use.
type Executor struct {
	cfg  ExecutorConfig
	boot string
	stop context.CancelCauseFunc
	ctx  context.Context

	work    sync.WaitGroup // taken places and open questions; grows under mu, and never once ctx is over
	mu      sync.Mutex
	running map[controlbus.CommandID]*running
	waiting []waiting // for a free place, oldest first
	answers answers
	session *agentSession
}

// running holds a place, from before the command begins.
type running struct {
	ctx    context.Context
	cancel context.CancelCauseFunc

	// Under the executor's mu: what people want of the job.
	control controlbus.JobControl
	changed chan struct{} // closed, and replaced, when control changes
}

type waiting struct {
	d     Dispatch
	since time.Time
}

// agentSession is one connection, as the agent sees it.
type agentSession struct {
	nonce string
	epoch uint64 // 0 until the console has returned the nonce
	send  func(Frame)
}

// NewExecutor takes up the journal: what was cut off and cannot go on ends as
// indeterminate, now, so that it is told at the next connection.
func NewExecutor(ctx context.Context, cfg ExecutorConfig) (*Executor, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Executor{cfg: cfg, boot: rand.Text(), running: map[controlbus.CommandID]*running{}}
	e.ctx, e.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	if e.cfg.Go == nil {
		e.cfg.Go = func(f func()) { go f() }
	}
	for _, entry := range cfg.Journal.Entries(controlbus.JournalBegun) {
		if info, known := entry.Kind.Info(); known && info.Resumable && cfg.Handlers[entry.Kind] != nil {
			continue // when the console orders it again: it may have been cancelled
		}
		if _, err := cfg.Journal.Done(ctx, entry.Command, entry.Kind, cutOff(entry)); err != nil {
			return nil, fmt.Errorf("link: take up the journal: %w", err)
		}
	}
	return e, nil
}

func cutOff(entry controlbus.JournalEntry) controlbus.CommandResult {
	r := controlbus.CommandResult{Outcome: controlbus.CommandIndeterminate, Detail: "the agent stopped in the middle of it: it may have been done, in whole or in part"}
	if entry.Progress != nil {
		r.Counts = entry.Progress.Counts
	}
	return r
}

// Stop ends what runs and waits for it; nothing begins afterwards, whatever a
// session still hands in. Resumable commands go on after the next start.
func (e *Executor) Stop() {
	e.mu.Lock()
	e.stop(ErrStopping)
	e.mu.Unlock()
	e.work.Wait()
}

// Kinds are those the executor carries out.
func (e *Executor) Kinds() []controlbus.CommandKind {
	return slices.Sorted(maps.Keys(e.cfg.Handlers))
}

// Serve runs one session over a link until the link or ctx ends. other takes the
// frames that are not commands; it may be nil.
func (e *Executor) Serve(ctx context.Context, l Link, other func(Frame)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := make(chan Frame, 64)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		resend := time.Now().Add(Redeliver)
		for {
			select {
			case f := <-out:
				if err := l.Send(ctx, f); err != nil {
					cancel()
					return
				}
			case now := <-tick.C:
				full := !now.Before(resend)
				if full {
					resend = now.Add(Redeliver)
				}
				e.Tick(ctx, full)
			case <-ctx.Done():
				return
			}
		}
	})
	defer wg.Wait()
	defer cancel()
	own := e.connect(func(f Frame) {
		select {
		case out <- f:
		default: // the link is slower than we tell: what matters is told again
		}
	})
	defer e.disconnect(own)
	for {
		f, err := l.Recv(ctx)
		if err != nil {
			return err
		}
		if f.Desired != nil && other != nil {
			other(f)
			continue
		}
		e.Handle(ctx, f)
	}
}

// Connect begins a session: everything told from now on goes to send, which must
// not block.
func (e *Executor) Connect(send func(Frame)) { e.connect(send) }

func (e *Executor) connect(send func(Frame)) *agentSession {
	s := &agentSession{nonce: rand.Text(), send: send}
	e.mu.Lock()
	e.session = s
	e.mu.Unlock()
	send(Frame{Hello: &Hello{Nonce: s.nonce}})
	return s
}

// greet answers the console's Hello.
func (e *Executor) greet(s *agentSession, epoch uint64) {
	var open []controlbus.CommandID
	for _, entry := range e.cfg.Journal.Entries(controlbus.JournalBegun, controlbus.JournalDone) {
		if len(open) < 500 {
			open = append(open, entry.Command)
		}
	}
	s.send(Frame{Epoch: epoch, Hello: &Hello{BootID: e.boot, Journal: e.cfg.Journal.ID(), Head: e.cfg.Journal.Head(), Kinds: e.Kinds(), Open: open, Answers: e.cfg.Plan != nil}})
}

// Disconnect ends the session.
func (e *Executor) Disconnect() {
	e.mu.Lock()
	e.session = nil
	e.mu.Unlock()
}

// disconnect ends a session, if it is still the one.
func (e *Executor) disconnect(own *agentSession) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session == own {
		e.session = nil
	}
}

// Epoch is the session's, 0 while there is none.
func (e *Executor) Epoch() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session == nil {
		return 0
	}
	return e.session.epoch
}

// tell sends an event if there is a session. What must not be lost is told again
// by Tick.
func (e *Executor) tell(ev Event) {
	e.mu.Lock()
	s := e.session
	var epoch uint64
	if s != nil {
		epoch = s.epoch
	}
	e.mu.Unlock()
	if epoch == 0 {
		return
	}
	ev.Journal, ev.Head = e.cfg.Journal.ID(), e.cfg.Journal.Head()
	s.send(Frame{Epoch: epoch, Event: &ev})
}

func (e *Executor) tellResult(entry controlbus.JournalEntry) {
	e.tell(Event{Type: Result, Command: entry.Command, Seq: entry.ResultSeq(), Result: entry.Result})
}

// Tick lets time pass: what waited too long for a free place is rejected, and
// with again, what was not answered is told once more: Hello, and results.
func (e *Executor) Tick(ctx context.Context, again bool) {
	now := e.cfg.Now()
	e.mu.Lock()
	var late []Dispatch
	e.waiting = slices.DeleteFunc(e.waiting, func(w waiting) bool {
		over := now.Sub(w.since) > w.d.AcceptWithin
		if over {
			late = append(late, w.d)
		}
		return over
	})
	e.mu.Unlock()
	for _, d := range late {
		e.end(ctx, d, controlbus.CommandRejected, "the agent had no free place in time")
	}
	e.startWaiting(ctx)
	e.mu.Lock()
	s := e.session
	strange := s != nil && s.epoch == 0
	e.mu.Unlock()
	switch {
	case !again:
	case strange:
		s.send(Frame{Hello: &Hello{Nonce: s.nonce}})
	default:
		for _, entry := range e.cfg.Journal.Entries(controlbus.JournalDone) {
			e.tellResult(entry)
		}
	}
}

// Handle takes a frame from the console.
func (e *Executor) Handle(ctx context.Context, f Frame) {
	e.mu.Lock()
	s := e.session
	if s == nil {
		e.mu.Unlock()
		return
	}
	if f.Hello != nil {
		fresh := s.epoch == 0 && f.Epoch != 0 && f.Hello.Nonce == s.nonce
		if fresh {
			s.epoch = f.Epoch
		}
		same := f.Epoch == s.epoch && f.Epoch != 0
		e.mu.Unlock()
		if same {
			e.greet(s, f.Epoch)
		}
		if fresh {
			e.Tick(ctx, true)
		}
		return
	}
	fenced := f.Epoch != s.epoch || s.epoch == 0
	e.mu.Unlock()
	switch {
	case fenced:
		e.cfg.Log.DebugContext(ctx, "frame of another session dropped", "frame", f.name())
	case f.Dispatch != nil:
		e.dispatch(ctx, *f.Dispatch)
	case f.Cancel != nil:
		e.cancel(ctx, *f.Cancel)
	case f.Control != nil:
		e.control(*f.Control)
	case f.Ask != nil:
		e.ask(*f.Ask)
	case f.AckEvent != nil:
		if entry, ok := e.cfg.Journal.Entry(f.AckEvent.Command); ok && entry.State == controlbus.JournalDone && entry.Seq == f.AckEvent.Seq {
			if err := e.cfg.Journal.Acked(ctx, entry.Command); err != nil {
				e.cfg.Log.WarnContext(ctx, "acknowledgement cannot be kept", "command", entry.Command, "error", err) // it is told again
			}
		}
	}
}

func (e *Executor) dispatch(ctx context.Context, d Dispatch) {
	if !d.Command.Valid() {
		return
	}
	if entry, known := e.cfg.Journal.Entry(d.Command); known {
		e.again(ctx, d, entry)
		return
	}
	switch why := e.refusal(&d); {
	case why != "":
		e.end(ctx, d, controlbus.CommandRejected, why)
		return
	case d.AcceptWithin <= 0:
		e.end(ctx, d, controlbus.CommandRejected, "it arrived after its time")
		return
	}
	if e.obey(d.Command, d.Control) {
		e.startWaiting(ctx)
		return
	}
	e.mu.Lock()
	if e.running[d.Command] == nil && !slices.ContainsFunc(e.waiting, func(w waiting) bool { return w.d.Command == d.Command }) && len(e.waiting) < MaxUnaccepted {
		e.waiting = append(e.waiting, waiting{d, e.cfg.Now()})
	}
	e.mu.Unlock()
	e.startWaiting(ctx)
}

// refusal is why the agent does not take an order at all; empty: it does.
func (e *Executor) refusal(d *Dispatch) string {
	switch {
	case d.Target.Agent != e.cfg.Agent:
		return fmt.Sprintf("it is for agent %q", d.Target.Agent)
	case e.cfg.Handlers[d.Kind] == nil:
		return fmt.Sprintf("this agent does not know how to %s", d.Kind)
	case d.Class != d.Kind.Class():
		return fmt.Sprintf("console and agent disagree on what %s does: %s, %s", d.Kind, d.Class, d.Kind.Class())
	case !slices.ContainsFunc(e.cfg.Allow, func(r AllowRule) bool { return r.allows(d) }):
		return fmt.Sprintf("the agent's own configuration does not allow %s on %s", d.Kind, d.Target.Channel)
	}
	return ""
}

// again answers an order for a command that the journal knows.
func (e *Executor) again(ctx context.Context, d Dispatch, entry controlbus.JournalEntry) {
	if entry.State != controlbus.JournalBegun {
		e.tellResult(entry)
		return
	}
	e.mu.Lock()
	runs := e.running[d.Command] != nil
	var place *running
	if !runs && len(e.running) < MaxRunning && e.ctx.Err() == nil {
		place = e.placeLocked(d.Command)
	}
	e.mu.Unlock()
	switch {
	case runs:
		e.obey(d.Command, d.Control)
		e.tell(Event{Type: Accepted, Command: d.Command, Seq: entry.BegunSeq})
	case place == nil: // it is ordered again
	default:
		// It was cut off, and is resumable: of the others NewExecutor made an end.
		var order Dispatch
		if err := json.Unmarshal(entry.Dispatch, &order); err != nil {
			e.abandon(d.Command)
			e.end(ctx, d, controlbus.CommandIndeterminate, "the journal's copy of the order cannot be read")
			return
		}
		order.Control = newer(order.Control, d.Control)
		e.tell(Event{Type: Accepted, Command: d.Command, Seq: entry.BegunSeq})
		e.start(place, order, entry, true)
	}
}

// placeLocked takes one of the places for a command, to be started or abandoned.
func (e *Executor) placeLocked(id controlbus.CommandID) *running {
	e.work.Add(1)
	r := &running{changed: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(e.ctx)
	e.running[id] = r
	return r
}

// startWaiting begins what waits while there are free places.
func (e *Executor) startWaiting(ctx context.Context) {
	for {
		e.mu.Lock()
		if len(e.waiting) == 0 || len(e.running) >= MaxRunning || e.ctx.Err() != nil {
			e.mu.Unlock()
			return
		}
		w := e.waiting[0]
		e.waiting = e.waiting[1:]
		place := e.placeLocked(w.d.Command)
		e.mu.Unlock()
		order, err := json.Marshal(w.d)
		if err != nil {
			e.abandon(w.d.Command)
			e.end(ctx, w.d, controlbus.CommandRejected, "the order cannot be kept")
			continue
		}
		entry, err := e.cfg.Journal.Begin(ctx, w.d.Command, w.d.Kind, order)
		if errors.Is(err, controlbus.ErrConflict) {
			e.abandon(w.d.Command)
			continue // it has ended meanwhile
		}
		if err != nil {
			e.abandon(w.d.Command)
			// Nothing was begun; the console orders again.
			e.cfg.Log.ErrorContext(ctx, "command not begun", "command", w.d.Command, "error", err)
			return
		}
		e.tell(Event{Type: Accepted, Command: w.d.Command, Seq: entry.BegunSeq})
		e.start(place, w.d, entry, false)
	}
}

// start runs a begun command in its place.
func (e *Executor) start(place *running, d Dispatch, entry controlbus.JournalEntry, resumed bool) {
	e.obey(d.Command, d.Control)
	run := &Run{Dispatch: d, Resumed: resumed, Checkpoint: entry.Checkpoint, exec: e, place: place}
	e.cfg.Go(func() {
		defer e.work.Done()
		ctx, over := context.WithTimeoutCause(place.ctx, d.RunWithin, ErrOverdue)
		defer over()
		r := e.cfg.Handlers[d.Kind](ctx, run)
		if !r.Outcome.Result() {
			r = controlbus.CommandResult{Outcome: controlbus.CommandIndeterminate, Counts: r.Counts, Detail: fmt.Sprintf("the handler ended with %q", r.Outcome)}
		}
		info, _ := d.Kind.Info()
		if info.Resumable && r.Outcome != controlbus.CommandSucceeded && errors.Is(context.Cause(ctx), ErrStopping) {
			e.free(d.Command)
			return // begun, and goes on after the next start
		}
		e.finish(d, r)
	})
}

// finish keeps a result, however long the disk refuses it, and tells it. Until
// it is kept the command counts as running.
func (e *Executor) finish(d Dispatch, r controlbus.CommandResult) {
	ctx := context.WithoutCancel(e.ctx)
	for wait := (backoff.Backoff{Base: 100 * time.Millisecond, Cap: 10 * time.Second}); ; {
		_, err := e.cfg.Journal.Done(ctx, d.Command, d.Kind, r)
		if err == nil || errors.Is(err, controlbus.ErrConflict) {
			break
		}
		e.cfg.Log.ErrorContext(ctx, "result cannot be kept; trying again", "command", d.Command, "error", err)
		if !backoff.Sleep(e.ctx, wait.Next()) {
			return // the agent stops: the next start finds it cut off
		}
	}
	e.free(d.Command)
	if entry, ok := e.cfg.Journal.Entry(d.Command); ok {
		e.tellResult(entry)
	}
	e.startWaiting(ctx)
}

func (e *Executor) free(id controlbus.CommandID) {
	e.mu.Lock()
	r := e.running[id]
	delete(e.running, id)
	e.mu.Unlock()
	if r != nil {
		r.cancel(nil)
	}
}

// abandon gives back the place of a command that was not started.
func (e *Executor) abandon(id controlbus.CommandID) {
	e.free(id)
	e.work.Done()
}

// end keeps and tells the result of a command that never began. The answer is
// final: a command that was rejected once is not begun by a later order.
func (e *Executor) end(ctx context.Context, d Dispatch, outcome controlbus.CommandState, why string) {
	if _, err := e.cfg.Journal.Done(ctx, d.Command, d.Kind, controlbus.CommandResult{Outcome: outcome, Detail: why}); err != nil {
		if !errors.Is(err, controlbus.ErrConflict) {
			e.cfg.Log.ErrorContext(ctx, "answer cannot be kept", "command", d.Command, "error", err) // the console orders again
		}
		return
	}
	if entry, ok := e.cfg.Journal.Entry(d.Command); ok {
		e.tellResult(entry)
	}
}

func (e *Executor) cancel(ctx context.Context, c Cancel) {
	if !c.Command.Valid() {
		return
	}
	e.mu.Lock()
	r := e.running[c.Command]
	e.waiting = slices.DeleteFunc(e.waiting, func(w waiting) bool { return w.d.Command == c.Command })
	e.mu.Unlock()
	if r != nil {
		r.cancel(ErrCancelled)
		return
	}
	entry, known := e.cfg.Journal.Entry(c.Command)
	switch {
	case !known:
		e.end(ctx, Dispatch{Command: c.Command}, controlbus.CommandCancelled, "it had not begun")
	case entry.State == controlbus.JournalBegun:
		// Cut off, resumable, and not to go on.
		res := controlbus.CommandResult{Outcome: controlbus.CommandPartial, Detail: "cancelled after the agent had stopped in the middle of it"}
		if entry.Progress != nil {
			res.Counts = entry.Progress.Counts
		}
		e.finish(Dispatch{Command: c.Command, Kind: entry.Kind}, res)
	default:
		e.tellResult(entry)
	}
}

// Run is one command being carried out.
type Run struct {
	Dispatch Dispatch
	// Resumed says that an earlier process began it; Checkpoint is how far it was.
	Resumed    bool
	Checkpoint json.RawMessage

	exec  *Executor
	place *running

	told             time.Time
	obeyed           int64 // the wish told last
	paused, settling bool
}

// Save makes a checkpoint durable, before what lies behind it is acknowledged to
// the broker, and tells the progress where it has not been told for a second, or
// shows that the job obeys a new wish, or begins or ends to wait for something.
func (r *Run) Save(ctx context.Context, checkpoint json.RawMessage, p controlbus.CommandProgress) error {
	seq, err := r.exec.cfg.Journal.Checkpoint(ctx, r.Dispatch.Command, checkpoint, &p)
	if err != nil {
		return fmt.Errorf("link: checkpoint of %s: %w", r.Dispatch.Command, err)
	}
	news := p.Job != nil && (p.Job.Control != r.obeyed || p.Job.Paused != r.paused || p.Job.Settling != r.settling)
	if now := r.exec.cfg.Now(); news || now.Sub(r.told) >= ProgressEvery {
		r.told = now
		if p.Job != nil {
			r.obeyed, r.paused, r.settling = p.Job.Control, p.Job.Paused, p.Job.Settling
		}
		r.exec.tell(Event{Type: Progress, Command: r.Dispatch.Command, Seq: seq, Progress: &p})
	}
	return nil
}
