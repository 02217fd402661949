// Package state is the transactional store beside the message store: what must
// be read back exactly as it was written: agents and what is wanted of them,
// users and their rights, the ledger of commands, and the audit trail with the
// signed tree over it.
//
// It is SQLite in WAL mode with synchronous=FULL, so a change is on disk when
// the call returns. The key that signs the tree is a file beside the database.
package state

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	_ "modernc.org/sqlite" // the driver, in pure Go

	"github.com/signalbox-dev/signalbox/controlbus"
)

//go:embed schema/*.sql
var schema embed.FS

// Store is safe for concurrent use.
type Store struct {
	db     *sql.DB
	signer note.Signer // of the audit trail's heads
}

// Open opens or creates the database file, readable by its owner only, and
// brings its schema up to date. A file written by a newer program is refused
// with controlbus.ErrUnsupported.
func Open(ctx context.Context, path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	db, err := sql.Open("sqlite", "file:"+escape(path)+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)&_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("state: open %s: %w", path, err)
	}
	// One connection: SQLite has one writer, and waiting here beats busy errors.
	db.SetMaxOpenConns(1)
	s := &Store{db: db}
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("state: %s: %w", path, err), db.Close())
	}
	if s.signer, err = auditKey(keyPath(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("state: audit key: %w", err), db.Close())
	}
	if err := s.sealOldAudit(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Close ends the connection.
func (s *Store) Close() error { return s.db.Close() }

// escape keeps a path with ? or # from being read as part of the URI.
func escape(path string) string {
	return strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(path)
}

// migrate runs each schema file once, in order, each in its own transaction
// with its record.
func (s *Store) migrate(ctx context.Context) error {
	if _, err := s.db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (
		version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL DEFAULT (datetime('now'))) STRICT`); err != nil {
		return err
	}
	var have int
	if err := s.db.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_migrations`).Scan(&have); err != nil {
		return err
	}
	files, err := fs.Glob(schema, "schema/*.sql") // sorted by name
	if err != nil {
		return err
	}
	known := 0
	for _, file := range files {
		number, _, _ := strings.Cut(filepath.Base(file), "_")
		version, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("schema file %s: want a number before the first _", file)
		}
		known = version
		if version <= have {
			continue
		}
		if err := s.apply(ctx, version, file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	if have > known {
		return fmt.Errorf("%w: schema version %d was written by a newer signalbox; this one knows %d: upgrade it, or restore an older copy of the file", controlbus.ErrUnsupported, have, known)
	}
	return nil
}

func (s *Store) apply(ctx context.Context, version int, file string) error {
	statement, err := schema.ReadFile(file)
	if err != nil {
		return err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	if _, err := tx.ExecContext(ctx, string(statement)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO schema_migrations (version, name) VALUES (?, ?)`, version, filepath.Base(file)); err != nil {
		return err
	}
	return tx.Commit()
}
