package state_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage/state"
)

var _ link.Store = (*state.Store)(nil)

func open(t testing.TB, at place) *state.Store {
	t.Helper()
	s, err := at.open(t.Context())
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
	each(t, func(t *testing.T, fresh func(testing.TB) place) {
		p := fresh(t)
		if p.dsn == "" {
			p.path = filepath.Join(filepath.Dir(p.path), "odd?name#%20", "state.db")
		}
		agentsSurvive(t, p)
	})
}

func agentsSurvive(t *testing.T, path place) {
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
	p := sqliteAt(t)
	open(t, p)
	info, err := os.Stat(p.path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode: got %v, want 0600", got)
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, fresh func(testing.TB) place) {
		p := fresh(t)
		open(t, p)
		p.exec(t, `INSERT INTO schema_migrations (version, name) VALUES (9999, 'from the future')`)
		if s, err := p.open(t.Context()); !errors.Is(err, controlbus.ErrUnsupported) || s != nil {
			t.Errorf("open: got %v, %v, want ErrUnsupported", s, err)
		}
	})
}

// Each step of the schema is there for both databases, and they have the same
// tables with the same columns in the end.
func TestBothSchemasHaveTheSameSteps(t *testing.T) {
	t.Parallel()
	steps := func(dir string) []string {
		files, err := filepath.Glob(dir + "/*.sql")
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for i := range files {
			files[i] = filepath.Base(files[i])
		}
		return files
	}
	if diff := cmp.Diff(steps("schema"), steps("schema/postgres")); diff != "" {
		t.Fatalf("every step needs a file in schema and one in schema/postgres (-SQLite +PostgreSQL):\n%s", diff)
	}
	columns := func(p place, query string) (all []string) {
		open(t, p)
		rows, err := p.raw(t).QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var c string
			if err := rows.Scan(&c); err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		if err := rows.Err(); err != nil || len(all) == 0 {
			t.Fatal(all, err)
		}
		slices.Sort(all)
		return all
	}
	want := columns(sqliteAt(t), `SELECT m.name || '.' || c.name || ' ' || CASE c.type WHEN 'INTEGER' THEN 'bigint' WHEN 'TEXT' THEN 'text' WHEN 'BLOB' THEN 'bytea' ELSE c.type END ||
		CASE WHEN c."notnull" OR c.pk > 0 THEN ' not null' ELSE '' END FROM sqlite_schema m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'`)
	got := columns(postgresAt(t), `SELECT table_name || '.' || column_name || ' ' || data_type || CASE is_nullable WHEN 'NO' THEN ' not null' ELSE '' END
		FROM information_schema.columns WHERE table_schema = current_schema()`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns (-SQLite +PostgreSQL):\n%s", diff)
	}
}
