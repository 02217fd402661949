package storagetest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
)

// LedgerStore is what RunLedger tests: a ledger's store and the audit trail that
// it writes to.
type LedgerStore interface {
	ledger.Store
	Events(ctx context.Context, q access.EventQuery) ([]access.Event, error)
}

// RunLedger is the suite that every ledger's store passes. open returns an
// empty store, closed by the test's cleanup.
func RunLedger(t *testing.T, open func(testing.TB) LedgerStore) {
	for name, f := range map[string]func(*bench, *testing.T){
		"a life":                         (*bench).life,
		"answers in any order":           (*bench).anyOrder,
		"a second person":                (*bench).secondPerson,
		"the name typed":                 (*bench).typed,
		"one destructive per channel":    (*bench).exclusive,
		"time passes":                    (*bench).time,
		"the truth comes late":           (*bench).late,
		"cancel":                         (*bench).cancel,
		"undo once":                      (*bench).undo,
		"a journal that was lost":        (*bench).lostJournal,
		"an error changes nothing":       (*bench).rollback,
		"only what one may see":          (*bench).scope,
		"lists":                          (*bench).lists,
		"two at once":                    (*bench).race,
		"stale previews and no rights":   (*bench).refusals,
		"a ledger older than its agents": (*bench).restored,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			b := &bench{store: s, now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
			cfg := ledger.DefaultConfig()
			cfg.Policies = []ledger.Policy{
				{Env: "prod*", Destructive: controlbus.ApproveSecond, Additive: controlbus.ApproveNone},
				{Env: "stage", Destructive: controlbus.ApproveByName, Desired: controlbus.ApproveSecond},
				{Env: "dev", Destructive: controlbus.ApproveNone},
			}
			var err error
			if b.Ledger, err = ledger.New(cfg, s, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			b.Clock(func() time.Time { b.mu.Lock(); defer b.mu.Unlock(); return b.now })
			f(b, t)
			b.invariants(t)
		})
	}
}

type bench struct {
	*ledger.Ledger
	store LedgerStore
	mu    sync.Mutex
	now   time.Time
}

func (b *bench) pass(d time.Duration) { b.mu.Lock(); b.now = b.now.Add(d); b.mu.Unlock() }

func as(t testing.TB, name string, grants ...access.Grant) context.Context {
	if len(grants) == 0 {
		grants = access.Everywhere(access.Approver)
	}
	return access.With(t.Context(), access.Identity{ID: "u-" + name, Name: name, Kind: access.KindUser, Grants: grants})
}

func (b *bench) spec(kind controlbus.CommandKind, env, channel string) ledger.Request {
	s := controlbus.CommandSpec{
		Kind: kind, Reason: "test", Args: json.RawMessage(`{"rate":5}`), AcceptWithin: time.Minute, RunWithin: 10 * time.Minute,
		Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: env, System: "rabbitmq", Broker: "r1", Name: channel}},
	}
	b.mu.Lock()
	s.Preview = &controlbus.Preview{TakenAt: b.now, Env: env, Effect: "Does it.", Count: 2, Reversible: controlbus.ReversiblePartly,
		Samples: []controlbus.PreviewSample{{MessageID: "m1", Excerpt: "secret"}}, Expect: controlbus.Expect{MaxCount: 5}}
	b.mu.Unlock()
	s.Preview.Seal(s.Kind, s.Target, s.Args)
	return ledger.Request{CommandSpec: s}
}

func (b *bench) request(t *testing.T, r ledger.Request) controlbus.Command {
	t.Helper()
	b.pass(time.Millisecond) // ids of one bench sort by request
	c, err := b.Request(as(t, "ann"), r)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (b *bench) dispatch(t *testing.T, id controlbus.CommandID, head uint64) bool {
	t.Helper()
	_, _, ok, err := b.Dispatch(t.Context(), ledger.Session{Agent: "a1", Epoch: 1, Journal: "j1", Head: head}, id)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func (b *bench) say(t *testing.T, id controlbus.CommandID, seq int64, kind ledger.EventType, outcome controlbus.CommandState) {
	t.Helper()
	e := ledger.AgentEvent{Command: id, Seq: seq, Type: kind, Journal: "j1", Head: uint64(seq)}
	switch kind {
	case ledger.EventProgress:
		e.Progress = &controlbus.CommandProgress{Counts: controlbus.Counts{Done: seq}, Total: 2}
	case ledger.EventResult:
		e.Result = &controlbus.CommandResult{Outcome: outcome, Counts: controlbus.Counts{Matched: 2, Done: 2}, Detail: "said " + string(outcome)}
	}
	if err := b.Merge(t.Context(), "a1", e); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) state(t *testing.T, id controlbus.CommandID, want controlbus.CommandState) controlbus.Command {
	t.Helper()
	c, err := b.store.Command(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if c.State != want {
		t.Errorf("state: got %s (%s), want %s", c.State, c.Detail, want)
	}
	return c
}

func wants(t *testing.T, err, want error, what string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// invariants hold whatever happened: commands are the fold of their events, and
// the audit trail has each change of state once, in order.
func (b *bench) invariants(t *testing.T) {
	t.Helper()
	all, err := b.store.EventsAfter(t.Context(), 0, 10000)
	if err != nil {
		t.Fatal(err)
	}
	folded := map[controlbus.CommandID]*controlbus.Command{}
	var changes []string
	for i, e := range all {
		if i > 0 && e.Seq <= all[i-1].Seq {
			t.Errorf("event %d is numbered %d behind %d", i, e.Seq, all[i-1].Seq)
		}
		c := folded[e.Command]
		if c == nil {
			c = &controlbus.Command{}
			folded[e.Command] = c
		}
		before := c.State
		if err := ledger.Fold(c, e); err != nil {
			t.Fatal(err)
		}
		if c.Seq != e.N {
			t.Errorf("event %d of command %s is numbered %d", c.Seq, e.Command, e.N)
		}
		if c.State != before {
			changes = append(changes, "command."+string(c.State)+" "+string(c.Kind)+" "+string(c.ID))
		}
	}
	for id, c := range folded {
		kept, err := b.store.Command(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*c, kept); diff != "" {
			t.Errorf("command %s is not the fold of its events (-fold +kept):\n%s", id, diff)
		}
	}
	var audit []string
	for before := int64(0); ; {
		page, err := b.store.Events(t.Context(), access.EventQuery{Code: "command.*", Before: before, Limit: 500})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			before = e.Seq
			if controlbus.CommandState(e.Code[len("command."):]).Valid() {
				audit = append([]string{e.Code + " " + e.Target}, audit...)
			}
		}
		if len(page) == 0 {
			break
		}
	}
	if diff := cmp.Diff(changes, audit); diff != "" {
		t.Errorf("audit trail (-changes of state +audit):\n%s", diff)
	}
}

func (b *bench) life(t *testing.T) {
	c := b.request(t, b.spec(controlbus.CommandPurge, "dev", "orders"))
	if c.State != controlbus.CommandQueued {
		t.Fatalf("requested where no consent is needed: got %s", c.State)
	}
	want := []ledger.Outgoing{{Agent: "a1", Command: c.ID, What: ledger.SendDispatch}}
	if out, err := b.Outbox(t.Context(), "a1"); err != nil || cmp.Diff(want, out) != "" {
		t.Errorf("outbox: got %v, %v", out, err)
	}
	if out, err := b.Outbox(t.Context(), "a2"); err != nil || len(out) != 0 {
		t.Errorf("another agent's outbox: got %v, %v", out, err)
	}
	for range 2 {
		if !b.dispatch(t, c.ID, 4) {
			t.Error("an open command is not sent, or not sent again")
		}
	}
	if got := b.state(t, c.ID, controlbus.CommandDispatched); got.Attempt != 2 || got.JournalHead != 4 {
		t.Errorf("after two attempts: %+v", got)
	}
	b.say(t, c.ID, 5, ledger.EventAccepted, "")
	b.state(t, c.ID, controlbus.CommandAccepted)
	if out, _ := b.Outbox(t.Context(), ""); len(out) != 0 {
		t.Errorf("outbox once accepted: got %v", out)
	}
	held, err := b.Held(t.Context(), "a1")
	if err != nil || len(held) != 1 {
		t.Errorf("held: got %v, %v", held, err)
	}
	b.say(t, c.ID, 6, ledger.EventProgress, "")
	b.say(t, c.ID, 7, ledger.EventProgress, "")
	if got := b.state(t, c.ID, controlbus.CommandRunning); got.Progress.Done != 7 {
		t.Errorf("progress: got %+v", got.Progress)
	}
	b.say(t, c.ID, 8, ledger.EventResult, controlbus.CommandSucceeded)
	got := b.state(t, c.ID, controlbus.CommandSucceeded)
	if got.Result == nil || got.Result.Counts.Done != 2 || got.Detail != "said succeeded" {
		t.Errorf("result: got %+v", got)
	}
	if b.dispatch(t, c.ID, 8) {
		t.Error("an ended command is sent")
	}
	_, _, _, err = b.Dispatch(t.Context(), ledger.Session{Agent: "a2"}, c.ID)
	wants(t, err, controlbus.ErrDenied, "dispatch to another agent")
}

func (b *bench) anyOrder(t *testing.T) {
	c := b.request(t, b.spec(controlbus.CommandReplay, "prod", "orders"))
	b.dispatch(t, c.ID, 0)
	b.say(t, c.ID, 4, ledger.EventProgress, "")
	b.say(t, c.ID, 3, ledger.EventProgress, "") // overtaken
	b.say(t, c.ID, 1, ledger.EventAccepted, "")
	if got := b.state(t, c.ID, controlbus.CommandRunning); got.Progress.Done != 4 {
		t.Errorf("progress that was overtaken counts: %+v", got.Progress)
	}
	for range 3 {
		b.say(t, c.ID, 5, ledger.EventResult, controlbus.CommandPartial)
		b.say(t, c.ID, 1, ledger.EventAccepted, "")
		b.say(t, c.ID, 2, ledger.EventProgress, "")
	}
	b.state(t, c.ID, controlbus.CommandPartial)
	events, err := b.store.CommandEvents(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 8 { // requested approved queued dispatched progress progress accepted result
		t.Errorf("%d events, want each once: %+v", len(events), events)
	}
	// The answer to a dispatch may be the result at once.
	c = b.request(t, b.spec(controlbus.CommandReplay, "prod", "orders"))
	b.dispatch(t, c.ID, 0)
	b.say(t, c.ID, 2, ledger.EventResult, controlbus.CommandRejected)
	b.state(t, c.ID, controlbus.CommandRejected)
	// The same result under another journal's number is the same result.
	e := ledger.AgentEvent{Command: c.ID, Seq: 2, Type: ledger.EventResult, Journal: "j1.1", Result: &controlbus.CommandResult{
		Outcome: controlbus.CommandRejected, Counts: controlbus.Counts{Matched: 2, Done: 2}, Detail: "said rejected"}}
	if err := b.Merge(t.Context(), "a1", e); err != nil {
		t.Fatal(err)
	}
	if got := b.state(t, c.ID, controlbus.CommandRejected); got.LateResult != nil {
		t.Errorf("the same result counts as late: %+v", got.LateResult)
	}
	wants(t, b.Merge(t.Context(), "a2", ledger.AgentEvent{Command: c.ID, Seq: 9, Type: ledger.EventAccepted}), controlbus.ErrDenied, "another agent's word")
	wants(t, b.Merge(t.Context(), "a1", ledger.AgentEvent{Command: controlbus.NewCommandID(time.Now()), Seq: 9, Type: ledger.EventAccepted}), controlbus.ErrNotFound, "an unknown command")
	wants(t, b.Merge(t.Context(), "a1", ledger.AgentEvent{Command: c.ID, Seq: 0, Type: ledger.EventAccepted}), controlbus.ErrInvalid, "no number")
	wants(t, b.Merge(t.Context(), "a1", ledger.AgentEvent{Command: c.ID, Seq: 1, Type: ledger.EventResult, Result: &controlbus.CommandResult{Outcome: controlbus.CommandQueued}}), controlbus.ErrInvalid, "no outcome")
}

func (b *bench) secondPerson(t *testing.T) {
	c := b.request(t, b.spec(controlbus.CommandPurge, "prod-eu", "orders"))
	if c.State != controlbus.CommandAwaitingApproval {
		t.Fatalf("got %s", c.State)
	}
	if b.dispatch(t, c.ID, 0) {
		t.Error("sent without consent")
	}
	_, err := b.Approve(as(t, "ann"), c.ID, c.Preview.Fingerprint)
	wants(t, err, controlbus.ErrDenied, "consent of who requested it")
	_, err = b.Approve(as(t, "bob", access.Everywhere(access.Operator)...), c.ID, c.Preview.Fingerprint)
	wants(t, err, controlbus.ErrDenied, "consent of an operator")
	_, err = b.Approve(as(t, "bob", access.Grant{Role: access.Approver, Env: "dev", Channel: "*"}), c.ID, c.Preview.Fingerprint)
	wants(t, err, controlbus.ErrDenied, "consent of an approver of another environment")
	_, err = b.Approve(as(t, "bob"), c.ID, "another preview")
	wants(t, err, controlbus.ErrConflict, "consent to another preview")
	_, err = b.Approve(t.Context(), c.ID, c.Preview.Fingerprint)
	wants(t, err, controlbus.ErrDenied, "consent of nobody")
	b.state(t, c.ID, controlbus.CommandAwaitingApproval)
	refused, err := b.store.Events(t.Context(), access.EventQuery{Code: "command.approve"})
	if err != nil || len(refused) != 4 || !refused[0].Refused {
		t.Errorf("refused consents in the audit trail: got %+v, %v, want 4", refused, err)
	}
	if _, err := b.Approve(as(t, "bob"), c.ID, c.Preview.Fingerprint); err != nil {
		t.Fatal(err)
	}
	if got := b.state(t, c.ID, controlbus.CommandQueued); got.ApprovedBy == nil || got.ApprovedBy.Name != "bob" {
		t.Errorf("approved by %+v", got.ApprovedBy)
	}
	_, err = b.Approve(as(t, "eve"), c.ID, c.Preview.Fingerprint)
	wants(t, err, controlbus.ErrConflict, "consent twice")
	b.dispatch(t, c.ID, 0)
	b.say(t, c.ID, 1, ledger.EventResult, controlbus.CommandSucceeded)

	c = b.request(t, b.spec(controlbus.CommandPurge, "prod-eu", "orders"))
	if _, err := b.Refuse(as(t, "bob"), c.ID, "not now"); err != nil {
		t.Fatal(err)
	}
	if got := b.state(t, c.ID, controlbus.CommandRefused); got.Detail != "not now" {
		t.Errorf("why: got %q", got.Detail)
	}
	// Refusing has freed the channel.
	b.request(t, b.spec(controlbus.CommandPurge, "prod-eu", "orders"))
}

func (b *bench) typed(t *testing.T) {
	r := b.spec(controlbus.CommandPurge, "stage", "orders")
	for _, wrong := range []string{"", "order", "Orders"} {
		r.Typed = wrong
		_, err := b.Request(as(t, "ann"), r)
		wants(t, err, controlbus.ErrInvalid, "typed "+wrong)
	}
	r.Typed = "orders"
	if c := b.request(t, r); c.State != controlbus.CommandQueued || c.ApprovedBy == nil || c.ApprovedBy.Name != "ann" {
		t.Errorf("typed right: got %s by %+v", c.State, c.ApprovedBy)
	}
	// An environment that no policy names still wants it typed.
	_, err := b.Request(as(t, "ann"), b.spec(controlbus.CommandPurge, "elsewhere", "orders"))
	wants(t, err, controlbus.ErrInvalid, "no policy")
	if c := b.request(t, b.spec(controlbus.CommandDetour, "stage", "orders")); c.State != controlbus.CommandAwaitingApproval {
		t.Errorf("a detour on stage: got %s", c.State)
	}
}

func (b *bench) exclusive(t *testing.T) {
	first := b.request(t, b.spec(controlbus.CommandPurge, "dev", "orders"))
	_, err := b.Request(as(t, "bob"), b.spec(controlbus.CommandDiscard, "dev", "orders"))
	wants(t, err, controlbus.ErrConflict, "a second destructive command")
	b.request(t, b.spec(controlbus.CommandReplay, "dev", "orders")) // adds only
	b.request(t, b.spec(controlbus.CommandPurge, "dev", "payments"))
	b.request(t, b.spec(controlbus.CommandPurge, "prod", "orders")) // another environment's
	b.dispatch(t, first.ID, 0)
	b.say(t, first.ID, 1, ledger.EventResult, controlbus.CommandIndeterminate)
	b.request(t, b.spec(controlbus.CommandDiscard, "dev", "orders"))
}

func (b *bench) time(t *testing.T) {
	none := func(string) bool { return false }
	all := func(string) bool { return true }
	tick := func(online func(string) bool) {
		t.Helper()
		if err := b.Tick(t.Context(), online); err != nil {
			t.Fatal(err)
		}
	}
	waiting := b.request(t, b.spec(controlbus.CommandPurge, "prod", "orders"))
	queued := b.request(t, b.spec(controlbus.CommandPurge, "dev", "a"))
	sent := b.request(t, b.spec(controlbus.CommandPurge, "dev", "b"))
	running := b.request(t, b.spec(controlbus.CommandPurge, "dev", "c"))
	b.dispatch(t, sent.ID, 0)
	b.dispatch(t, running.ID, 0)
	b.say(t, running.ID, 1, ledger.EventAccepted, "")
	b.pass(59 * time.Second)
	tick(none)
	b.state(t, queued.ID, controlbus.CommandQueued)
	b.pass(2 * time.Second)
	tick(none)
	b.state(t, queued.ID, controlbus.CommandExpired)
	b.state(t, sent.ID, controlbus.CommandDispatched) // it may have arrived
	b.state(t, waiting.ID, controlbus.CommandAwaitingApproval)
	b.pass(time.Minute)
	tick(all)
	b.state(t, sent.ID, controlbus.CommandDispatched)
	tick(none)
	b.state(t, sent.ID, controlbus.CommandUnconfirmed)
	b.state(t, running.ID, controlbus.CommandAccepted)
	b.pass(9 * time.Minute)
	tick(none)
	b.state(t, running.ID, controlbus.CommandUnconfirmed)
	b.dispatch(t, sent.ID, 0) // the agent is back and is asked again
	b.state(t, sent.ID, controlbus.CommandDispatched)
	b.pass(24 * time.Hour)
	tick(none)
	b.state(t, waiting.ID, controlbus.CommandExpired)
	_, err := b.Approve(as(t, "bob"), waiting.ID, waiting.Preview.Fingerprint)
	wants(t, err, controlbus.ErrConflict, "consent to what has expired")
	late := b.request(t, b.spec(controlbus.CommandPurge, "dev", "d"))
	b.pass(2 * time.Minute)
	if b.dispatch(t, late.ID, 0) {
		t.Error("sent after its time")
	}
	b.state(t, late.ID, controlbus.CommandExpired)
}

func (b *bench) late(t *testing.T) {
	c := b.request(t, b.spec(controlbus.CommandPurge, "dev", "orders"))
	b.dispatch(t, c.ID, 0)
	_, err := b.Abandon(as(t, "bob"), c.ID, "gave up")
	wants(t, err, controlbus.ErrConflict, "giving up on an agent that is there")
	b.pass(time.Hour)
	if err := b.Tick(t.Context(), func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Abandon(as(t, "bob"), c.ID, "the host burnt down"); err != nil {
		t.Fatal(err)
	}
	b.state(t, c.ID, controlbus.CommandIndeterminate)
	_, err = b.Cancel(as(t, "bob"), c.ID, "after all")
	wants(t, err, controlbus.ErrConflict, "cancel what nobody knows the end of")
	next := b.request(t, b.spec(controlbus.CommandPurge, "dev", "orders")) // the channel is free
	b.say(t, c.ID, 2, ledger.EventResult, controlbus.CommandSucceeded)
	b.state(t, c.ID, controlbus.CommandSucceeded)
	b.say(t, c.ID, 3, ledger.EventResult, controlbus.CommandFailed) // cannot be, and is kept nevertheless
	if got := b.state(t, c.ID, controlbus.CommandSucceeded); got.LateResult == nil || got.LateResult.Outcome != controlbus.CommandFailed {
		t.Errorf("late result: got %+v", got.LateResult)
	}
	if got := b.state(t, next.ID, controlbus.CommandQueued); got.Attempt != 0 {
		t.Error("the late result touched the next command")
	}
	if _, err := b.Request(as(t, "bob"), b.spec(controlbus.CommandPurge, "dev", "orders")); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("the late result freed another command's channel: got %v", err)
	}
}

func (b *bench) cancel(t *testing.T) {
	c := b.request(t, b.spec(controlbus.CommandPurge, "dev", "orders"))
	_, err := b.Cancel(as(t, "eve", access.Everywhere(access.Operator)...), c.ID, "mine now")
	wants(t, err, controlbus.ErrDenied, "an operator cancels a purge")
	if _, err := b.Cancel(as(t, "ann", access.Everywhere(access.Viewer)...), c.ID, "no"); err != nil {
		t.Errorf("who requested it cannot cancel it any more: %v", err)
	}
	b.state(t, c.ID, controlbus.CommandCancelled)
	if out, _ := b.Outbox(t.Context(), ""); len(out) != 0 {
		t.Errorf("outbox after cancel: got %v", out)
	}
	_, err = b.Cancel(as(t, "bob"), c.ID, "again")
	wants(t, err, controlbus.ErrConflict, "cancel what has ended")
	c = b.request(t, b.spec(controlbus.CommandPurge, "dev", "orders"))
	b.dispatch(t, c.ID, 0)
	for range 2 {
		if _, err := b.Cancel(as(t, "bob"), c.ID, "stop"); err != nil {
			t.Fatal(err)
		}
	}
	out, err := b.Outbox(t.Context(), "a1")
	want := []ledger.Outgoing{{Agent: "a1", Command: c.ID, What: ledger.SendDispatch}, {Agent: "a1", Command: c.ID, What: ledger.SendCancel}}
	if err != nil || cmp.Diff(want, out) != "" {
		t.Errorf("outbox: got %v, %v, want %v", out, err, want)
	}
	b.say(t, c.ID, 3, ledger.EventResult, controlbus.CommandPartial)
	if got := b.state(t, c.ID, controlbus.CommandPartial); got.CancelAsked == nil || got.CancelAsked.Name != "bob" {
		t.Errorf("cancel asked by %+v", got.CancelAsked)
	}
	if out, _ := b.Outbox(t.Context(), ""); len(out) != 0 {
		t.Errorf("outbox after the end: got %v", out)
	}
}

func (b *bench) undo(t *testing.T) {
	purge := b.request(t, b.spec(controlbus.CommandPurge, "dev", "orders"))
	undo := func(kind controlbus.CommandKind, channel string) (controlbus.Command, error) {
		r := b.spec(kind, "dev", channel)
		r.UndoOf = purge.ID
		b.pass(time.Millisecond)
		return b.Request(as(t, "bob"), r)
	}
	_, err := undo(controlbus.CommandReplay, "orders")
	wants(t, err, controlbus.ErrConflict, "undo before the end")
	b.dispatch(t, purge.ID, 0)
	b.say(t, purge.ID, 1, ledger.EventResult, controlbus.CommandSucceeded)
	_, err = undo(controlbus.CommandRedrive, "orders")
	wants(t, err, controlbus.ErrInvalid, "undo by another kind")
	_, err = undo(controlbus.CommandReplay, "payments")
	wants(t, err, controlbus.ErrInvalid, "undo of another channel")
	first, err := undo(controlbus.CommandReplay, "orders")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.state(t, purge.ID, controlbus.CommandSucceeded); got.UndoneBy != first.ID {
		t.Errorf("undone by %q, want %q", got.UndoneBy, first.ID)
	}
	_, err = undo(controlbus.CommandReplay, "orders")
	wants(t, err, controlbus.ErrConflict, "undo twice")
	b.dispatch(t, first.ID, 0)
	b.say(t, first.ID, 1, ledger.EventResult, controlbus.CommandFailed)
	second, err := undo(controlbus.CommandReplay, "orders")
	if err != nil {
		t.Fatalf("undo again, after the first did nothing: %v", err)
	}
	b.state(t, second.ID, controlbus.CommandQueued)
}

func (b *bench) lostJournal(t *testing.T) {
	again := func(id controlbus.CommandID, journal string, head uint64) bool {
		t.Helper()
		_, _, ok, err := b.Dispatch(t.Context(), ledger.Session{Agent: "a1", Epoch: 2, Journal: journal, Head: head}, id)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	lost := b.request(t, b.spec(controlbus.CommandPurge, "dev", "a"))
	set := b.request(t, b.spec(controlbus.CommandPurge, "dev", "b"))
	kept := b.request(t, b.spec(controlbus.CommandPurge, "dev", "c"))
	adds := b.request(t, b.spec(controlbus.CommandReplay, "dev", "d"))
	for _, c := range []controlbus.Command{lost, set, kept, adds} {
		b.dispatch(t, c.ID, 7)
	}
	if again(lost.ID, "j2", 9) {
		t.Error("a purge goes to an agent whose journal is another one")
	}
	b.state(t, lost.ID, controlbus.CommandIndeterminate)
	if again(set.ID, "j1", 6) {
		t.Error("a purge goes to an agent whose journal was set back")
	}
	b.state(t, set.ID, controlbus.CommandIndeterminate)
	if !again(kept.ID, "j1", 7) {
		t.Error("a purge is not sent again to the agent that remembers")
	}
	b.say(t, adds.ID, 1, ledger.EventAccepted, "")
	b.say(t, adds.ID, 2, ledger.EventProgress, "")
	if !again(adds.ID, "j2", 0) {
		t.Error("a replay is not sent again: it may be done twice")
	}
	// The other journal numbers from 1 again.
	if err := b.Merge(t.Context(), "a1", ledger.AgentEvent{Command: adds.ID, Seq: 2, Type: ledger.EventResult, Journal: "j2", Result: &controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}}); err != nil {
		t.Fatal(err)
	}
	b.state(t, adds.ID, controlbus.CommandSucceeded)
	b.say(t, kept.ID, 12, ledger.EventAccepted, "")
	if again(kept.ID, "j1", 11) {
		t.Error("a purge goes to an agent whose journal was set back behind its acceptance")
	}
}

func (b *bench) rollback(t *testing.T) {
	c := b.request(t, b.spec(controlbus.CommandPurge, "dev", "orders"))
	boom := errors.New("boom")
	err := b.store.ChangeLedger(t.Context(), func(tx ledger.Tx) error {
		c, err := tx.Command(c.ID)
		if err != nil {
			return err
		}
		e := ledger.Event{Command: c.ID, Type: ledger.EventDispatched, At: b.now, AgentSeq: 3}
		return errors.Join(tx.Append(&c, e), tx.Unlock(c.ID), tx.Unqueue(c.ID, ""), tx.Audit(access.Event{Code: "command.dispatched"}),
			tx.Lock("other", c.ID), tx.Queue(ledger.Outgoing{Agent: "a9", Command: c.ID, What: ledger.SendCancel}), boom)
	})
	wants(t, err, boom, "the error of f")
	b.state(t, c.ID, controlbus.CommandQueued)
	if out, err := b.Outbox(t.Context(), ""); err != nil || len(out) != 1 || out[0].Agent != "a1" {
		t.Errorf("outbox: got %v, %v", out, err)
	}
	_, err = b.Request(as(t, "bob"), b.spec(controlbus.CommandPurge, "dev", "orders"))
	wants(t, err, controlbus.ErrConflict, "the lock after a rollback")
	b.dispatch(t, c.ID, 0)
	b.say(t, c.ID, 3, ledger.EventAccepted, "") // its number was not taken
	b.state(t, c.ID, controlbus.CommandAccepted)
}

func (b *bench) scope(t *testing.T) {
	mine := b.request(t, b.spec(controlbus.CommandReplay, "prod", "orders.eu"))
	other := b.request(t, b.spec(controlbus.CommandReplay, "prod", "payments"))
	viewer := as(t, "vic", access.Grant{Role: access.Viewer, Env: "prod", Channel: "orders.*"})
	got, err := b.Commands(viewer, ledger.Query{})
	if err != nil || len(got) != 1 || got[0].ID != mine.ID {
		t.Fatalf("a viewer of orders.* sees %d commands, %v", len(got), err)
	}
	if got[0].Preview.Samples[0].Excerpt != "" || got[0].Preview.Samples[0].MessageID != "m1" {
		t.Errorf("a viewer sees %+v", got[0].Preview.Samples[0])
	}
	_, err = b.Command(viewer, other.ID)
	wants(t, err, controlbus.ErrNotFound, "another channel's command")
	_, err = b.Events(viewer, other.ID)
	wants(t, err, controlbus.ErrNotFound, "another channel's events")
	events, err := b.Events(viewer, mine.ID)
	if err != nil || len(events) != 3 || events[0].Spec == nil || events[0].Spec.Preview.Samples[0].Excerpt != "" {
		t.Errorf("events for a viewer: %+v, %v", events, err)
	}
	reader, err := b.Command(as(t, "rob", access.Grant{Role: access.Reader, Env: "prod", Channel: "*"}), mine.ID)
	if err != nil || reader.Preview.Samples[0].Excerpt != "secret" {
		t.Errorf("a reader sees %+v, %v", reader.Preview, err)
	}
	if got, err := b.Commands(t.Context(), ledger.Query{}); err != nil || len(got) != 0 {
		t.Errorf("nobody sees %d commands, %v", len(got), err)
	}
}

func (b *bench) lists(t *testing.T) {
	var ids []controlbus.CommandID
	for i := range 5 {
		ids = append(ids, b.request(t, b.spec(controlbus.CommandReplay, "prod", "c"+string(rune('0'+i)))).ID)
	}
	if _, err := b.Cancel(as(t, "ann"), ids[2], "no"); err != nil {
		t.Fatal(err)
	}
	find := func(q ledger.Query) (got []controlbus.CommandID) {
		t.Helper()
		all, err := b.Commands(as(t, "ann"), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			got = append(got, c.ID)
		}
		return got
	}
	for name, c := range map[string]struct {
		q    ledger.Query
		want []controlbus.CommandID
	}{
		"all, newest first": {ledger.Query{}, []controlbus.CommandID{ids[4], ids[3], ids[2], ids[1], ids[0]}},
		"a page":            {ledger.Query{Before: ids[3], Limit: 2}, []controlbus.CommandID{ids[2], ids[1]}},
		"open":              {ledger.Query{Open: true, Limit: 3}, []controlbus.CommandID{ids[4], ids[3], ids[1]}},
		"a state":           {ledger.Query{States: []controlbus.CommandState{controlbus.CommandCancelled}}, ids[2:3]},
		"a pattern":         {ledger.Query{Channel: "*1"}, ids[1:2]},
		"a name":            {ledger.Query{Channel: "c1", Env: "prod", Broker: "r1", Agent: "a1", Kind: controlbus.CommandReplay, Requester: "u-ann"}, ids[1:2]},
		"another agent":     {ledger.Query{Agent: "a2"}, nil},
		"another time":      {ledger.Query{To: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, nil},
	} {
		if diff := cmp.Diff(c.want, find(c.q)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func (b *bench) race(t *testing.T) {
	for range 10 {
		var wg sync.WaitGroup
		won := make(chan controlbus.CommandID, 8)
		for range 8 {
			r := b.spec(controlbus.CommandPurge, "dev", "orders")
			wg.Go(func() {
				c, err := b.Request(as(t, "ann"), r)
				switch {
				case err == nil:
					won <- c.ID
				case !errors.Is(err, controlbus.ErrConflict):
					t.Errorf("got %v, want ErrConflict", err)
				}
			})
		}
		wg.Wait()
		close(won)
		n := 0
		for id := range won {
			n++
			b.dispatch(t, id, 0)
			for range 4 { // and four times the same word at once
				wg.Go(func() {
					if err := b.Merge(context.WithoutCancel(t.Context()), "a1", ledger.AgentEvent{Command: id, Seq: 1, Type: ledger.EventResult, Result: &controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := b.state(t, id, controlbus.CommandSucceeded); got.LateResult != nil {
				t.Error("the same word counted twice")
			}
		}
		if n != 1 {
			t.Errorf("%d purges of one channel were let in", n)
		}
	}
}

func (b *bench) refusals(t *testing.T) {
	r := b.spec(controlbus.CommandPurge, "dev", "orders")
	_, err := b.Request(as(t, "olga", access.Everywhere(access.Operator)...), r)
	wants(t, err, controlbus.ErrDenied, "a purge by an operator")
	_, err = b.Request(t.Context(), r)
	wants(t, err, controlbus.ErrDenied, "a purge by nobody")
	r.Reason = ""
	_, err = b.Request(as(t, "ann"), r)
	wants(t, err, controlbus.ErrInvalid, "no reason")
	r = b.spec(controlbus.CommandPurge, "dev", "orders")
	r.Preview.Expect.MaxCount = 1 << 40
	_, err = b.Request(as(t, "ann"), r)
	wants(t, err, controlbus.ErrConflict, "an edited preview")
	r = b.spec(controlbus.CommandPurge, "dev", "orders")
	b.pass(controlbus.PreviewMaxAge + time.Second)
	_, err = b.Request(as(t, "ann"), r)
	wants(t, err, controlbus.ErrConflict, "a stale preview")
	r = b.spec(controlbus.CommandReplay, "dev", "orders")
	r.Destination = &controlbus.ChannelName{Env: "prod", Broker: "r2", Name: "x"}
	r.Preview.Destination = r.Destination
	r.Preview.Seal(r.Kind, r.Target, r.Args)
	_, err = b.Request(as(t, "dan", access.Grant{Role: access.Operator, Env: "dev", Channel: "*"}), r)
	wants(t, err, controlbus.ErrDenied, "a replay into an environment one may not touch")
	audit, err := b.store.Events(t.Context(), access.EventQuery{Code: "command.request"})
	if err != nil || len(audit) != 3 {
		t.Errorf("refusals in the audit trail: got %+v, %v, want 3", audit, err)
	}
	if got, err := b.store.Commands(t.Context(), ledger.Query{Scope: controlbus.Everything()}); err != nil || len(got) != 0 {
		t.Errorf("what was refused is in the ledger: %+v, %v", got, err)
	}
	_, err = b.Approve(as(t, "bob"), controlbus.NewCommandID(time.Now()), "")
	wants(t, err, controlbus.ErrNotFound, "consent to no command")
}

func (b *bench) restored(t *testing.T) {
	c := b.request(t, b.spec(controlbus.CommandPurge, "dev", "orders"))
	b.say(t, c.ID, 2, ledger.EventResult, controlbus.CommandSucceeded)
	b.state(t, c.ID, controlbus.CommandSucceeded)
	waiting := b.request(t, b.spec(controlbus.CommandPurge, "prod", "orders"))
	e := ledger.AgentEvent{Command: waiting.ID, Seq: 2, Type: ledger.EventResult, Result: &controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}}
	wants(t, b.Merge(t.Context(), "a1", e), controlbus.ErrConflict, "a result before the consent")
	if _, err := b.Approve(as(t, "bob"), waiting.ID, waiting.Preview.Fingerprint); err != nil {
		t.Fatal(err)
	}
	if err := b.Merge(t.Context(), "a1", e); err != nil {
		t.Fatal(err)
	}
	b.state(t, waiting.ID, controlbus.CommandSucceeded)
}
