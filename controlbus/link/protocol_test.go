package link_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/ledger/ledgertest"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// rig is a console and one agent, joined by a pipe that can be cut.
type rig struct {
	t      *testing.T
	ctx    context.Context
	ledger *ledger.Ledger
	disp   *link.Dispatcher
	exec   *link.Executor
	cut    func()
	wg     sync.WaitGroup
}

func newRig(t *testing.T, handlers map[controlbus.CommandKind]link.Handler, allow ...link.AllowRule) *rig {
	t.Helper()
	return buildRig(t, link.ExecutorConfig{Handlers: handlers}, allow)
}

// newPlanningRig has an agent that says what a purge would do.
func newPlanningRig(t *testing.T, plan func(context.Context, controlbus.Ask) (controlbus.Plan, error), allow ...link.AllowRule) *rig {
	t.Helper()
	return buildRig(t, link.ExecutorConfig{Plan: plan, Handlers: map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: done}}, allow)
}

func buildRig(t *testing.T, agent link.ExecutorConfig, allow []link.AllowRule) *rig {
	t.Helper()
	if allow == nil {
		allow = []link.AllowRule{{Broker: "*", Channel: "*"}}
	}
	r := &rig{t: t, ctx: access.With(context.Background(), access.Identity{ID: "u", Name: "ann", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)})}
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveNone}}
	var err error
	if r.ledger, err = ledger.New(cfg, ledgertest.NewMemory(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	r.disp = link.NewDispatcher(r.ledger, slog.New(slog.DiscardHandler))
	r.ledger.Wake(r.disp.Wake)
	j, err := journal.Open(journal.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	agent.Agent, agent.Journal, agent.Allow = "a1", j, allow
	if r.exec, err = link.NewExecutor(r.ctx, agent); err != nil {
		t.Fatal(err)
	}
	r.connect()
	t.Cleanup(func() {
		r.cut()
		r.exec.Stop()
		r.wg.Wait()
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) connect() {
	console, agent := link.Pipe()
	r.cut = func() { _ = agent.Close() }
	r.wg.Go(func() { _ = r.disp.Serve(r.ctx, "a1", console, nil) })
	r.wg.Go(func() { _ = r.exec.Serve(r.ctx, agent, nil) })
}

func (r *rig) request(kind controlbus.CommandKind, channel string, run time.Duration) controlbus.CommandID {
	r.t.Helper()
	s := controlbus.CommandSpec{
		Kind: kind, Reason: "test", RunWithin: run, Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "e", Broker: "b", Name: channel}},
		Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "e", Effect: "x", Reversible: controlbus.ReversibleNo, Expect: controlbus.Expect{MaxCount: 7}},
	}
	s.Preview.Seal(s.Kind, s.Target, s.Args)
	c, err := r.ledger.Request(r.ctx, ledger.Request{CommandSpec: s})
	if err != nil {
		r.t.Fatal(err)
	}
	return c.ID
}

func (r *rig) command(id controlbus.CommandID) controlbus.Command {
	r.t.Helper()
	c, err := r.ledger.Command(r.ctx, id)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// settled waits for a command to end, in the bubble's time.
func (r *rig) settled(id controlbus.CommandID, within time.Duration) controlbus.Command {
	r.t.Helper()
	for end := time.Now().Add(within); ; {
		changed := r.ledger.Changed()
		c := r.command(id)
		if c.State.Terminal() {
			return c
		}
		select {
		case <-changed:
		case <-time.After(time.Until(end)):
			r.t.Fatalf("after %v the command is %s", within, c.State)
		}
	}
}

func done(context.Context, *link.Run) controlbus.CommandResult {
	return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Matched: 2, Done: 2}}
}

func TestACommandGoesToTheAgentAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order link.Dispatch
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: func(ctx context.Context, run *link.Run) controlbus.CommandResult {
			order = run.Dispatch
			return done(ctx, run)
		}})
		synctest.Wait()
		if kinds, ok := r.disp.Kinds("a1"); !ok || len(kinds) != 1 || kinds[0] != controlbus.CommandPurge {
			t.Errorf("kinds: got %v, %v", kinds, ok)
		}
		if _, ok := r.disp.Kinds("a2"); ok {
			t.Error("an agent that is not there says what it can")
		}
		began := time.Now()
		c := r.settled(r.request(controlbus.CommandPurge, "orders", time.Hour), time.Minute)
		if c.State != controlbus.CommandSucceeded || c.Result.Counts.Done != 2 || time.Since(began) > 0 {
			t.Errorf("%s after %v: %+v", c.State, time.Since(began), c.Result)
		}
		if order.Expect == nil || order.Expect.MaxCount != 7 || order.Class != controlbus.EffectDestructive || order.RunWithin != time.Hour {
			t.Errorf("order: %+v", order)
		}
	})
}

func TestAnAgentRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran atomic.Int32
		count := func(ctx context.Context, run *link.Run) controlbus.CommandResult { ran.Add(1); return done(ctx, run) }
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: count, controlbus.CommandReplay: count},
			link.AllowRule{Kinds: []controlbus.CommandKind{controlbus.CommandPurge}, Broker: "b", Channel: "test.*"}, link.AllowRule{Kinds: []controlbus.CommandKind{controlbus.CommandReplay}, Broker: "b", Channel: "*"})
		for _, c := range []struct {
			kind    controlbus.CommandKind
			channel string
			why     string
		}{
			{controlbus.CommandPurge, "orders", "the agent's own configuration does not allow purge on b/orders"},
			{controlbus.CommandRedrive, "orders", "this agent does not know how to redrive"},
		} {
			if got := r.settled(r.request(c.kind, c.channel, time.Hour), time.Minute); got.State != controlbus.CommandRejected || got.Detail != c.why {
				t.Errorf("%s %s: %s, %q", c.kind, c.channel, got.State, got.Detail)
			}
		}
		if ran.Load() > 0 {
			t.Error("what was refused was done")
		}
		if got := r.settled(r.request(controlbus.CommandPurge, "test.a", time.Hour), time.Minute); got.State != controlbus.CommandSucceeded {
			t.Errorf("what is allowed: %s, %q", got.State, got.Detail)
		}
	})
}

// At most four run and eight more are on the agent; the rest waits on the
// console, and all of them get their turn.
func TestCredits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandReplay: func(ctx context.Context, run *link.Run) controlbus.CommandResult {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			time.Sleep(5 * time.Second)
			return done(ctx, run)
		}})
		var ids []controlbus.CommandID
		for i := range 30 {
			ids = append(ids, r.request(controlbus.CommandReplay, fmt.Sprint(i), time.Hour))
		}
		synctest.Wait()
		states := map[controlbus.CommandState]int{}
		for _, id := range ids {
			states[r.command(id).State]++
		}
		if states[controlbus.CommandAccepted] != link.MaxRunning || states[controlbus.CommandDispatched] != link.MaxUnaccepted || states[controlbus.CommandQueued] != 30-link.MaxRunning-link.MaxUnaccepted {
			t.Errorf("of 30: %v", states)
		}
		for _, id := range ids {
			if c := r.settled(id, time.Minute); c.State != controlbus.CommandSucceeded {
				t.Errorf("%s: %s, %s", id, c.State, c.Detail)
			}
		}
		if most.Load() != link.MaxRunning {
			t.Errorf("%d ran at a time, want %d", most.Load(), link.MaxRunning)
		}
	})
}

func TestCancelProgressAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandReplay: func(ctx context.Context, run *link.Run) controlbus.CommandResult {
			for n := int64(0); ; n++ {
				if err := run.Save(context.WithoutCancel(ctx), json.RawMessage(fmt.Sprint(n)), controlbus.CommandProgress{Counts: controlbus.Counts{Done: n}, Total: 1000}); err != nil {
					return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: err.Error()}
				}
				select {
				case <-ctx.Done():
					return controlbus.CommandResult{Outcome: controlbus.CommandPartial, Counts: controlbus.Counts{Done: n}, Detail: context.Cause(ctx).Error()}
				case <-time.After(100 * time.Millisecond):
				}
			}
		}})
		id := r.request(controlbus.CommandReplay, "orders", time.Hour)
		time.Sleep(10050 * time.Millisecond)
		synctest.Wait()
		c := r.command(id)
		if c.State != controlbus.CommandRunning || c.Progress.Done < 90 || c.Progress.Done > 101 {
			t.Errorf("after 10s: %s, %+v", c.State, c.Progress)
		}
		events, err := r.ledger.Events(r.ctx, id)
		if err != nil || len(events) > 16 {
			t.Errorf("%d events for 100 checkpoints in 10s, %v: want one a second", len(events), err)
		}
		if _, err := r.ledger.Cancel(r.ctx, id, "enough"); err != nil {
			t.Fatal(err)
		}
		if c := r.settled(id, time.Second); c.State != controlbus.CommandPartial || c.Detail != "cancelled" {
			t.Errorf("cancelled: %s, %q", c.State, c.Detail)
		}
		if c := r.settled(r.request(controlbus.CommandReplay, "orders", 3*time.Second), 4*time.Second); c.State != controlbus.CommandPartial || c.Detail != link.ErrOverdue.Error() {
			t.Errorf("over its time: %s, %q", c.State, c.Detail)
		}
	})
}

// A job that waits to see what became of a step is seen to wait, although it told
// its progress just before.
func TestSettlingIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandReplay: func(ctx context.Context, run *link.Run) controlbus.CommandResult {
			for n, settling := range []bool{false, true} {
				p := controlbus.CommandProgress{Counts: controlbus.Counts{Done: int64(n)}, Job: &controlbus.JobState{Settling: settling}}
				if err := run.Save(ctx, json.RawMessage(fmt.Sprint(n)), p); err != nil {
					return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: err.Error()}
				}
			}
			time.Sleep(10 * time.Second)
			return done(ctx, run)
		}})
		id := r.request(controlbus.CommandReplay, "orders", time.Hour)
		time.Sleep(5 * time.Second)
		if p := r.command(id).Progress; p.Job == nil || !p.Job.Settling || p.Done != 1 {
			t.Errorf("while it waits: %+v", p)
		}
	})
}

// A cut in the middle of a run changes nothing; the result comes with the next
// connection.
func TestACutLinkLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ran atomic.Int32
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: func(ctx context.Context, run *link.Run) controlbus.CommandResult {
			ran.Add(1)
			time.Sleep(10 * time.Second)
			return done(ctx, run)
		}})
		id := r.request(controlbus.CommandPurge, "orders", time.Hour)
		time.Sleep(time.Second)
		r.cut()
		synctest.Wait()
		if r.disp.Online("a1") {
			t.Error("the agent counts as online after the cut")
		}
		if err := r.ledger.Tick(r.ctx, r.disp.Online); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second)
		if c := r.command(id); c.State != controlbus.CommandAccepted {
			t.Errorf("during the cut: %s", c.State)
		}
		r.connect()
		if c := r.settled(id, time.Minute); c.State != controlbus.CommandSucceeded || ran.Load() != 1 {
			t.Errorf("after the cut: %s, ran %d times", c.State, ran.Load())
		}
		if c := r.settled(r.request(controlbus.CommandPurge, "orders", time.Hour), time.Minute); c.State != controlbus.CommandSucceeded {
			t.Errorf("the next one: %s", c.State)
		}
	})
}

func TestANewerSessionEndsTheOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: done})
		console, agent := link.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- r.disp.Serve(r.ctx, "a2", console, nil) }()
		synctest.Wait()
		second, other := link.Pipe()
		r.wg.Go(func() { _ = r.disp.Serve(r.ctx, "a2", second, nil) })
		if err := <-ended; !errors.Is(err, controlbus.ErrConflict) {
			t.Errorf("the older session ended with %v, want ErrConflict", err)
		}
		if _, err := agent.Recv(r.ctx); !errors.Is(err, link.ErrClosed) {
			t.Errorf("its link: %v, want ErrClosed", err)
		}
		if !r.disp.Online("a2") || !r.disp.Online("a1") {
			t.Error("an agent went offline with somebody's older session")
		}
		_ = other.Close()
	})
}
