package state_test

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage/state"
)

var _ link.Store = (*state.Store)(nil)

func open(t *testing.T, path string) *state.Store {
	t.Helper()
	s, err := state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestAgentsSurviveAReopening(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "odd?name#%20", "state.db")
	s := open(t, path)
	want := controlbus.AgentView{
		Agent:       controlbus.Agent{ID: "a", Incarnation: "1", Brokers: []controlbus.BrokerStatus{{Name: "b", Connected: true}}},
		LastSeen:    time.Unix(1_700_000_000, 5),
		ClockOffset: -38 * time.Millisecond,
		Desired: controlbus.Desired{Revision: 3, Taps: []controlbus.TapSpec{
			{ID: "console:b/c", Broker: "b", Channel: "c", Until: time.Unix(1_800_000_000, 0).UTC()}}},
	}
	if err := s.SaveDesired(t.Context(), "a", want.Desired); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is an update
		if err := s.SaveAgent(t.Context(), want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := open(t, path).LoadAgents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]controlbus.AgentView{want}, got); diff != "" {
		t.Errorf("agents (-want +got):\n%s", diff)
	}
	if err := s.ForgetAgent(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.ForgetAgent(t.Context(), "a"); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("forgetting twice: got %v, want ErrNotFound", err)
	}
}

func TestTheFileIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	open(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode: got %v, want 0600", got)
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	s, err := state.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `INSERT INTO schema_migrations (version, name) VALUES (9999, 'from the future')`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(t.Context(), path); !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("open: got %v, want ErrUnsupported", err)
	}
}

// sqlite runs statements on a closed database, as somebody with the file can.
func sqlite(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
