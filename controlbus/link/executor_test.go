package link_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// An order and a question that arrive while the agent stops either are done when
// Stop returns, or never begin.
func TestNothingBeginsAfterStop(t *testing.T) {
	t.Parallel()
	for range 100 {
		j, err := journal.Open(journal.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		var stopped, late atomic.Bool
		work := func() {
			if stopped.Load() {
				late.Store(true)
			}
		}
		exec, err := link.NewExecutor(t.Context(), link.ExecutorConfig{
			Agent: "a1", Journal: j, Allow: []link.AllowRule{{Broker: "*", Channel: "*"}},
			Handlers: map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: func(context.Context, *link.Run) controlbus.CommandResult {
				work()
				return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}
			}},
			Plan: func(context.Context, controlbus.Ask) (controlbus.Plan, error) {
				work()
				return controlbus.Plan{}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		var nonce string
		exec.Connect(func(f link.Frame) {
			if f.Hello != nil && f.Hello.Nonce != "" {
				nonce = f.Hello.Nonce
			}
		})
		exec.Handle(t.Context(), link.Frame{Epoch: 1, Hello: &link.Hello{Nonce: nonce}})
		target := controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "e", Broker: "b", Name: "orders"}}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				exec.Handle(t.Context(), link.Frame{Epoch: 1, Dispatch: &link.Dispatch{
					Command: controlbus.NewCommandID(time.Now()), Kind: controlbus.CommandPurge, Class: controlbus.CommandPurge.Class(), Target: target,
					AcceptWithin: time.Minute, RunWithin: time.Minute,
				}})
			})
			wg.Go(func() {
				exec.Handle(t.Context(), link.Frame{Epoch: 1, Ask: &link.Ask{ID: string(controlbus.NewCommandID(time.Now())), Ask: controlbus.Ask{Kind: controlbus.CommandPurge, Target: target}}})
			})
		}
		exec.Stop()
		stopped.Store(true)
		wg.Wait()
		time.Sleep(time.Millisecond)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if late.Load() {
			t.Fatal("work began after Stop had returned")
		}
	}
}
