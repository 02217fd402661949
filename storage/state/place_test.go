package state_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// place is where a state is kept: the same tests run on SQLite and PostgreSQL.
type place struct {
	path string            // of the SQLite file; the key is beside it, whatever the database
	dsn  controlbus.Secret // of PostgreSQL; empty: SQLite
}

func sqliteAt(t testing.TB) place { return place{path: filepath.Join(t.TempDir(), "state.db")} }

func postgresAt(t testing.TB) place {
	return place{path: filepath.Join(t.TempDir(), "state.db"), dsn: controlbus.Secret(broker.PostgreSQL(t).Schema(t))}
}

// each runs f on both. fresh makes an empty place.
func each(t *testing.T, f func(t *testing.T, fresh func(testing.TB) place)) {
	t.Run("SQLite", func(t *testing.T) { t.Parallel(); f(t, sqliteAt) })
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		broker.PostgreSQL(t) // skips by name
		f(t, postgresAt)
	})
}

func (p place) name() string {
	if p.dsn == "" {
		return "SQLite"
	}
	return "PostgreSQL"
}

func (p place) open(ctx context.Context) (*state.Store, error) {
	if p.dsn == "" {
		return state.Open(ctx, p.path)
	}
	return state.OpenDSN(ctx, p.dsn, filepath.Join(filepath.Dir(p.path), state.KeyFile))
}

func (p place) verify(ctx context.Context, key string, heads []string) (state.AuditReport, error) {
	if p.dsn == "" {
		return state.VerifyAudit(ctx, p.path, key, heads)
	}
	return state.VerifyAuditDSN(ctx, p.dsn, key, heads)
}

// raw is the database as somebody with the file, or with the DSN, has it.
func (p place) raw(t testing.TB) *sql.DB {
	t.Helper()
	driver, name := "sqlite", p.path
	if p.dsn != "" {
		driver, name = "pgx", p.dsn.Reveal()
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// exec runs statements beside the console. FREE drops the triggers that guard
// the audit trail, and CHAR10 is a line's end.
func (p place) exec(t testing.TB, statements string) {
	t.Helper()
	free, line := `DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete`, `char(10)`
	if p.dsn != "" {
		free, line = `DROP TRIGGER audit_no_update ON audit; DROP TRIGGER audit_no_delete ON audit`, `chr(10)`
	}
	statements = strings.NewReplacer("FREE", free, "CHAR10", line).Replace(statements)
	db := p.raw(t)
	if _, err := db.ExecContext(t.Context(), statements); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
