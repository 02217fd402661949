package detour

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// console is the other end of an executor: it notes what is told.
type console struct {
	mu     sync.Mutex
	events []link.Event
}

// agent is an executor with a real journal, greeted by a console.
func (c *console) agent(t *testing.T, dir string, m *Manager) (*link.Executor, func()) {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: dir})
	must(t, err)
	e, err := link.NewExecutor(t.Context(), link.ExecutorConfig{Agent: "agent-1", Journal: j, Handlers: m.Handlers(), Allow: allowed})
	must(t, err)
	var nonce string
	e.Connect(func(f link.Frame) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.Hello != nil {
			nonce = f.Hello.Nonce
		}
		if f.Event != nil {
			c.events = append(c.events, *f.Event)
		}
	})
	e.Handle(t.Context(), link.Frame{Epoch: 1, Hello: &link.Hello{Nonce: nonce}})
	return e, func() {
		e.Stop()
		must(t, j.Close())
	}
}

// result waits for a command's end and returns it with the progress told.
func (c *console) result(t *testing.T, id controlbus.CommandID, within time.Duration) (r *controlbus.CommandResult, progress []controlbus.CommandProgress) {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		c.mu.Lock()
		progress = nil
		for _, ev := range c.events {
			if ev.Command == id && ev.Type == link.Result {
				r = ev.Result
			}
			if ev.Command == id && ev.Type == link.Progress {
				progress = append(progress, *ev.Progress)
			}
		}
		c.mu.Unlock()
		if r != nil || time.Now().After(deadline) {
			return r, progress
		}
	}
}

func dispatched(d link.Dispatch) link.Frame {
	d.Class, d.Attempt, d.AcceptWithin, d.RunWithin = d.Kind.Class(), 1, time.Minute, time.Hour
	return link.Frame{Epoch: 1, Dispatch: &d}
}

// TestThroughTheProtocol orders a detour and its end as the console does, over a
// restart of the agent in the middle of the end.
func TestThroughTheProtocol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, dir, jdir := agenttest.NewMemory("orders"), t.TempDir(), t.TempDir()
		a := mem.Adapter()
		l := begin(t, dir, a)
		c := &console{}
		e, stop := c.agent(t, jdir, l.m)
		d := orderOf(controlbus.CommandDetour, "orders", simple("d", controlbus.DetourStep{Rate: &controlbus.RateStep{PerSecond: 10}}))
		d.RequestedBy, d.Reason = controlbus.Actor{Kind: "user", ID: "u1", Name: "Ann"}, "checking"
		e.Handle(t.Context(), dispatched(d))
		r, _ := c.result(t, d.Command, 10*time.Second)
		if r == nil || r.Outcome != controlbus.CommandSucceeded {
			t.Fatalf("detour: %+v", r)
		}
		var evidence struct{ Detour, Technique string }
		if err := json.Unmarshal(r.Evidence, &evidence); err != nil || evidence.Detour != "d" || evidence.Technique == "" {
			t.Errorf("evidence %s: %v", r.Evidence, err)
		}
		if s := l.status("d"); s.Detour.Owner.Name != "Ann" || s.Detour.Reason != "checking" || s.Command != d.Command {
			t.Errorf("status: %+v", s)
		}
		mem.Publish("orders", msgs(0, 100)...)
		u := orderOf(controlbus.CommandUndetour, "orders", controlbus.UndetourArgs{ID: "d"})
		u.UndoOf = d.Command
		e.Handle(t.Context(), dispatched(u))
		time.Sleep(5 * time.Second)
		mem.Publish("orders", msgs(100, 101)...) // the direct way
		r, progress := c.result(t, u.Command, 0)
		if r != nil || len(progress) < 3 {
			t.Fatalf("while it drains: %+v, %d reports of progress", r, len(progress))
		}
		if p := progress[len(progress)-1]; p.Done == 0 || p.Total < 90 || p.Total > 120 || p.Note == "" {
			t.Errorf("progress: %+v", p)
		}
		stop()
		l.end()
		a.Kill()

		l = begin(t, dir, mem.Adapter())
		e, stop = c.agent(t, jdir, l.m)
		e.Handle(t.Context(), dispatched(u)) // the console repeats what was not answered
		if r, _ := c.result(t, u.Command, time.Minute); r == nil || r.Outcome != controlbus.CommandSucceeded {
			t.Errorf("undetour: %+v", r)
		}
		if n := len(mem.Waiting("orders")); n != 101 {
			t.Errorf("%d messages, want 101: nothing broke, so none comes twice", n)
		}
		nothingLeft(t, mem, "orders")

		// A cancelled end goes on in the background.
		d2 := orderOf(controlbus.CommandDetour, "orders", simple("d2", controlbus.DetourStep{Rate: &controlbus.RateStep{PerSecond: 10}}))
		e.Handle(t.Context(), dispatched(d2))
		if r, _ := c.result(t, d2.Command, 10*time.Second); r == nil || r.Outcome != controlbus.CommandSucceeded {
			t.Fatalf("detour: %+v", r)
		}
		mem.Publish("orders", msgs(200, 300)...)
		u2 := orderOf(controlbus.CommandUndetour, "orders", nil)
		e.Handle(t.Context(), dispatched(u2))
		time.Sleep(2 * time.Second)
		e.Handle(t.Context(), link.Frame{Epoch: 1, Cancel: &link.Cancel{Command: u2.Command}})
		if r, _ := c.result(t, u2.Command, time.Second); r == nil || r.Outcome != controlbus.CommandPartial {
			t.Errorf("cancelled: %+v", r)
		}
		time.Sleep(20 * time.Second)
		nothingLeft(t, mem, "orders")
		stop()
		l.end()
	})
}

// TestCancelledBeforeOn takes back what could not be switched on.
func TestCancelledBeforeOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders")
		a := mem.Adapter()
		var away sync.Map
		a.Script = func(verb, _ string, after bool) error {
			if _, yes := away.Load(verb); yes {
				return controlbus.ErrUnavailable
			}
			return nil
		}
		l := begin(t, t.TempDir(), a)
		defer l.end()
		away.Store("SetGate", true)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(5*time.Second, func() { cancel(link.ErrCancelled) })
		r := l.m.makeDetour(ctx, orderOf(controlbus.CommandDetour, "orders", simple("d")), false)
		if r.Outcome != controlbus.CommandCancelled {
			t.Errorf("got %s: %s", r.Outcome, r.Detail)
		}
		away.Delete("SetGate")
		time.Sleep(10 * time.Second)
		nothingLeft(t, mem, "orders")
	})
}

// TestJunctionEndsUnderLoad ends a junction whose channel never runs empty.
func TestJunctionEndsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("in", "out")
		a := mem.Adapter()
		l := begin(t, t.TempDir(), limited{a, a, a, a, a})
		defer l.end()
		d := simple("j")
		d.To = "out"
		l.succeed(orderOf(controlbus.CommandDetour, "in", d))
		stop, sent := make(chan struct{}), make(chan int)
		go func() {
			for n := 0; ; n += 10 {
				select {
				case <-stop:
					sent <- n
					return
				case <-time.After(time.Millisecond):
					mem.Publish("in", msgs(n, n+10)...)
				}
			}
		}()
		time.Sleep(time.Second)
		if r := l.doWithin(orderOf(controlbus.CommandUndetour, "in", nil), 10*time.Second); r.Outcome != controlbus.CommandSucceeded {
			t.Errorf("undetour: %s: %s", r.Outcome, r.Detail)
		}
		time.Sleep(100 * time.Millisecond)
		close(stop)
		n := <-sent
		list := append(mem.Waiting("out"), mem.Waiting("in")...)
		seen := map[string]bool{}
		for _, m := range list {
			seen[m.MessageID] = true
		}
		if len(list) != n || len(seen) != n || len(mem.Waiting("in")) == 0 {
			t.Errorf("%d messages sent, %d there, %d distinct, %d of them left in the channel", n, len(list), len(seen), len(mem.Waiting("in")))
		}
		nothingLeft(t, mem, "in", "out")
	})
}
