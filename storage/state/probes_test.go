package state_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/probe"
	"github.com/signalbox-dev/signalbox/storage/state"
)

var _ probe.Store = (*state.Store)(nil)

func TestProbes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, fresh func(testing.TB) place) {
		s := open(t, fresh(t))
		ctx := t.Context()
		want := probe.Probe{
			ID: "p1", Name: "orders → payment", In: controlbus.ChannelName{Env: "prod", Broker: "rabbit", Name: "orders"}, Every: time.Minute, Deadline: time.Second,
			Body: `{"a":1}`, Headers: map[string]string{"x": "ü"}, CreatedAt: time.Unix(1_700_000_000, 0).UTC(),
		}
		for range 2 { // the second replaces
			if err := s.SaveProbe(ctx, want); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Probe(ctx, "p1"); err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("probe: got %v, %s", err, cmp.Diff(want, got))
		}
		if err := s.SaveProbe(ctx, probe.Probe{ID: "p2", Name: want.Name}); !errors.Is(err, controlbus.ErrConflict) {
			t.Errorf("a name that another probe has: got %v, want ErrConflict", err)
		}
		if _, err := s.Probe(ctx, "none"); !errors.Is(err, controlbus.ErrNotFound) {
			t.Errorf("no such probe: got %v, want ErrNotFound", err)
		}
		for i := range 12 {
			if err := s.AddRun(ctx, probe.Run{ID: fmt.Sprintf("%03d", i), Probe: "p1", Outcome: probe.Passed, Latency: time.Duration(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.AddRun(ctx, probe.Run{ID: "x", Probe: "deleted"}); err != nil {
			t.Errorf("a run of a probe that is gone: got %v, want nothing", err)
		}
		if runs, err := s.ProbeRuns(ctx, "deleted", "", 10); err != nil || len(runs) != 0 {
			t.Errorf("runs of a probe that is gone: got %v, %v", runs, err)
		}
		page, err := s.ProbeRuns(ctx, "p1", "", 5)
		if err != nil || len(page) != 5 || page[0].ID != "011" || page[4].ID != "007" {
			t.Errorf("newest runs: got %v, %v", page, err)
		}
		page, err = s.ProbeRuns(ctx, "p1", page[4].ID, 100)
		if err != nil || len(page) != 7 || page[0].ID != "006" {
			t.Errorf("runs before: got %v, %v", page, err)
		}
		at := time.Unix(1_700_000_000, 0)
		for _, turn := range []struct {
			now, since time.Time
			want       bool
		}{{at, at.Add(-time.Minute), true}, {at.Add(time.Second), at.Add(-time.Second), false}, {at.Add(time.Minute), at, true}, {at.Add(time.Minute), at.Add(59 * time.Second), false}} {
			if got, err := s.TakeTurn(ctx, "p1", turn.now, turn.since); err != nil || got != turn.want {
				t.Errorf("turn at %v, none since %v: got %v, %v, want %v", turn.now, turn.since, got, err, turn.want)
			}
		}
		if err := s.DeleteProbe(ctx, "p1"); err != nil {
			t.Fatal(err)
		}
		if all, err := s.Probes(ctx); err != nil || len(all) != 0 {
			t.Errorf("after deleting: got %v, %v", all, err)
		}
		for i := range probe.MaxProbes {
			if err := s.SaveProbe(ctx, probe.Probe{ID: fmt.Sprint(i), Name: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.SaveProbe(ctx, probe.Probe{ID: "more", Name: "more"}); !errors.Is(err, controlbus.ErrTooLarge) || !strings.Contains(err.Error(), "delete") {
			t.Errorf("one too many: got %v, want ErrTooLarge and what to do", err)
		}
	})
}
