// Package state is the transactional store beside the message store: what must
// be read back exactly as it was written: agents and what is wanted of them,
// users and their rights, the ledger of commands, and the audit trail with the
// signed tree over it.
//
// It is SQLite in WAL mode with synchronous=FULL, or a PostgreSQL database that
// several consoles share, so a change is on disk when the call returns. The key
// that signs the tree is a file: beside the SQLite file, or in each console's
// data directory.
package state

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/measure"
)

//go:embed schema/*.sql schema/postgres/*.sql
var schema embed.FS

// Store is safe for concurrent use.
type Store struct {
	*dialect
	pool    *sql.DB
	db      conn // the pool, in its dialect
	version string

	config     *pgx.ConnConfig // of PostgreSQL; nil for SQLite
	schemaName string
	id         string // tells this store's notices from those of others

	signer   note.Signer // of the audit trail's heads
	verifier note.Verifier
	keyFile  string

	writes     atomic.Pointer[measure.Seconds] // nil until Measure
	retries    atomic.Int64                    // transactions run again
	unanswered atomic.Int64                    // commits whose fate had to be asked for
}

func newStore(pool *sql.DB, d *dialect) *Store {
	return &Store{dialect: d, pool: pool, db: conn{pool, d}}
}

// giveUp closes a store that cannot be opened.
func (s *Store) giveUp(where string, err error) error {
	return errors.Join(fmt.Errorf("state: %s: %w", where, known(err)), s.pool.Close())
}

// prepare brings the schema up to date and the audit trail's key in.
func (s *Store) prepare(ctx context.Context, where, keyFile string) (*Store, error) {
	if err := s.migrate(ctx); err != nil {
		return nil, s.giveUp(where, err)
	}
	if err := s.openKey(ctx, keyFile); err != nil {
		return nil, s.giveUp("audit key", err)
	}
	if err := s.sealOldAudit(ctx); err != nil {
		return nil, errors.Join(err, s.pool.Close())
	}
	return s, nil
}

// Version is the database's name and version.
func (s *Store) Version() string { return s.version }

// Shared says whether other consoles may use the same database.
func (s *Store) Shared() bool { return s.shared }

// Close ends the connections.
func (s *Store) Close() error { return s.pool.Close() }

// migrate runs each schema file once, in order, each in its own transaction
// with its record.
func (s *Store) migrate(ctx context.Context) error {
	var have int
	err := s.transact(ctx, func(tx querier) error {
		if _, err := tx.ExecContext(ctx, s.migrations); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_migrations`).Scan(&have)
	})
	if err != nil {
		return err
	}
	files, err := fs.Glob(schema, s.schema+"/*.sql") // sorted by name
	if err != nil {
		return err
	}
	newest := 0
	for _, file := range files {
		number, _, _ := strings.Cut(filepath.Base(file), "_")
		version, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("schema file %s: want a number before the first _", file)
		}
		newest = version
		if version <= have {
			continue
		}
		if err := s.apply(ctx, version, file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if have > newest {
		return fmt.Errorf("%w: schema version %d was written by a newer signalbox; this one knows %d: upgrade it, or restore an older copy", controlbus.ErrUnsupported, have, newest)
	}
	return nil
}

func (s *Store) apply(ctx context.Context, version int, file string) error {
	statement, err := schema.ReadFile(file)
	if err != nil {
		return err
	}
	return s.transact(ctx, func(tx querier) error {
		var done int // by another console, that started at the same moment
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM schema_migrations WHERE version = ?`, version).Scan(&done); err != nil || done > 0 {
			return err
		}
		if _, err := tx.(conn).querier.ExecContext(ctx, string(statement)); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO schema_migrations (version, name) VALUES (?, ?)`, version, filepath.Base(file))
		return err
	})
}
