package ui_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui"
)

// hungStore never answers what the menu asks.
type hungStore struct{ *fakeStore }

func (hungStore) Environments(ctx context.Context, _ storage.TimeRange) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// hungOutcomes is a control bus whose message store never answers.
type hungOutcomes struct{ *fakeCommands }

func (hungOutcomes) Outcomes(ctx context.Context, _ controlbus.CommandID, _ int64, _ int) ([]command.Outcome, int64, error) {
	<-ctx.Done()
	return nil, 0, fmt.Errorf("command: outcomes: %w", ctx.Err())
}

// The control bus is the ledger's: it is there while the message store hangs.
func TestControlBusWithAHungStore(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	f := newCommands(now)
	u, err := ui.New(ui.Config{Guard: openGuard(t), Version: "test", Store: hungStore{s}, Roster: r, Commands: hungOutcomes{f}, Probes: newFakeProber(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	one := "/control/" + string(f.id(controlbus.CommandSucceeded, controlbus.CommandPurge))
	for _, path := range []string{one, "/control", "/detours", "/probes", "/audit", "/control/new?kind=purge"} {
		begun := time.Now()
		w, doc := get(t, u, path)
		if took := time.Since(begun); took > 2*time.Second || w.Code != http.StatusOK {
			t.Errorf("%s: %d after %v, want 200 within 2s", path, w.Code, took)
		}
		if text := mainText(doc); path == one && (!strings.Contains(text, "The store does not answer now") || strings.Contains(text, "agent did not answer")) {
			t.Errorf("%s does not say what is down: %s", path, text)
		}
	}
}

// The menu's environments are remembered, for whoever may see them alone.
func TestMenuIsEachReadersOwn(t *testing.T) {
	t.Parallel()
	p := newPeople(t, access.Privacy{})
	p.add("tess", access.Grant{Role: access.Viewer, Env: "staging", Channel: "*"})
	for _, c := range []struct {
		as         string
		has, hasNo string
	}{{"root", "production", "nothing of the kind"}, {"tess", "staging", "production"}, {"root", "production", "nothing of the kind"}} {
		body := p.ask(c.as, "GET", "/channels").Body.String()
		if !strings.Contains(body, c.has) || strings.Contains(body, c.hasNo) {
			t.Errorf("the menu of %s: want %q and not %q in it", c.as, c.has, c.hasNo)
		}
	}
}

// What a command shows of bodies is recorded like a body that is read elsewhere.
func TestBodiesInCommandsAreRecorded(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/control/" + string(purgeID), "/api/v1/commands/" + string(purgeID)} {
		p := newPeople(t, access.Privacy{})
		for range 2 { // a page that refreshes itself is one entry
			if w := p.ask("root", "GET", path); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "order") {
				t.Fatalf("%s: %d", path, w.Code)
			}
		}
		events, err := p.svc.Events(t.Context(), access.EventQuery{Code: access.EventBodyPreview})
		if err != nil || len(events) != 1 || events[0].Target != "command "+string(purgeID) {
			t.Errorf("%s: recorded %+v, %v; want one entry", path, events, err)
		}
	}
}
