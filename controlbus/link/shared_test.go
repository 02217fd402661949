package link_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage/state"
)

// Two consoles on one store: each knows the agents that the other hears from,
// what is wanted of an agent reaches it over the console that it reports to, and
// who changes it last has seen what was there.
func TestConsolesShareTheRoster(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store, err := state.Open(ctx, filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var mu sync.Mutex
	var woken []string
	console := func() *link.Roster {
		r, err := link.NewRoster(ctx, store, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		r.Share()
		return r
	}
	a, b := console(), console()
	b.Wake(func(agent string) { mu.Lock(); defer mu.Unlock(); woken = append(woken, agent) })
	report := func(r *link.Roster) controlbus.Desired {
		t.Helper()
		d, err := r.Report(ctx, controlbus.Agent{ID: "a1", Incarnation: "1", Version: "7"})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	refresh := func(r *link.Roster) {
		t.Helper()
		if err := r.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
	}
	report(b)
	if got := a.Agents(); len(got) != 0 {
		t.Fatalf("known before it was looked: %+v", got)
	}
	refresh(a)
	if got := a.Agents(); len(got) != 1 || got[0].Presence != controlbus.Online || got[0].Version != "7" {
		t.Fatalf("an agent of the other console: %+v", got)
	}
	if !a.Elsewhere("a1") || b.Elsewhere("a1") || a.Elsewhere("a2") {
		t.Errorf("elsewhere: %v, %v, %v, want true, false, false", a.Elsewhere("a1"), b.Elsewhere("a1"), a.Elsewhere("a2"))
	}

	until := time.Now().Add(time.Hour)
	if err := a.RequestTap(ctx, "a1", controlbus.TapSpec{Broker: "b", Channel: "orders", Until: until}); err != nil {
		t.Fatal(err)
	}
	if d := report(b); len(d.Taps) != 0 {
		t.Fatalf("wanted before it was looked: %+v", d)
	}
	refresh(b)
	mu.Lock()
	if len(woken) != 1 || woken[0] != "a1" {
		t.Errorf("woken: %v, want a1", woken)
	}
	mu.Unlock()
	if d := report(b); len(d.Taps) != 1 {
		t.Errorf("wanted: %+v, want the tap", d)
	}
	// b adds to what a has asked for since b looked.
	if err := a.RequestTap(ctx, "a1", controlbus.TapSpec{Broker: "b", Channel: "payments", Until: until}); err != nil {
		t.Fatal(err)
	}
	if err := b.RequestTap(ctx, "a1", controlbus.TapSpec{Broker: "b", Channel: "refunds", Until: until}); err != nil {
		t.Fatal(err)
	}
	if d := report(b); len(d.Taps) != 3 {
		t.Errorf("wanted in the end: %+v, want three taps", d)
	}

	report(a) // it has moved
	if a.Elsewhere("a1") {
		t.Error("an agent that reports here is called elsewhere")
	}
	refresh(b)
	if !b.Elsewhere("a1") {
		t.Error("an agent that has moved away is not elsewhere")
	}
	// One that is heard from stays, and one that another console has forgotten goes.
	if err := store.ForgetAgent(ctx, "a1"); err != nil {
		t.Fatal(err)
	}
	refresh(a)
	refresh(b)
	if len(a.Agents()) != 1 || len(b.Agents()) != 0 {
		t.Errorf("after it was forgotten: %d and %d, want 1 and 0", len(a.Agents()), len(b.Agents()))
	}
}

// A dispatcher does not take an agent for away that another console hears from.
func TestAnAgentElsewhereIsNotAway(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan [2]bool, 1)
	d := link.NewDispatcher(ticker{tick: func(online func(string) bool) {
		select {
		case seen <- [2]bool{online("there"), online("nowhere")}:
		default:
		}
	}}, slog.New(slog.DiscardHandler))
	d.Elsewhere(func(agent string) bool { return agent == "there" })
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	if got := <-seen; got != [2]bool{true, false} {
		t.Errorf("online: got %v, want there and not nowhere", got)
	}
	cancel()
	wg.Wait()
}

// ticker is a ledger of which only time matters.
type ticker struct {
	link.Ledger
	tick func(online func(string) bool)
}

func (t ticker) Tick(_ context.Context, online func(agent string) bool) error {
	t.tick(online)
	return nil
}
