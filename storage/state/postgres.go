package state

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/signalbox-dev/signalbox/controlbus"
)

var postgresDialect = dialect{
	schema: "schema/postgres",
	migrations: `CREATE TABLE IF NOT EXISTS schema_migrations (
		version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL DEFAULT now()::text)`,
	shared: true, numbered: true,
	limit: 30 * time.Second,
	// Whatever the database's default: each statement sees what was committed
	// before it, thus everything of those who had the writers' lock before.
	tx: &sql.TxOptions{Isolation: sql.LevelReadCommitted},
}

const (
	// postgresOldest is the oldest server that is still looked after.
	postgresOldest = 140000
	// postgresPool bounds what one console takes of the server's connections.
	postgresPool = 8
)

// settle makes a new connection safe, whatever its role's defaults: what is told
// is on disk, and a statement, a wait for a lock, or a console that froze within
// a transaction ends. A stricter synchronous_commit is left as it is.
const settle = `SET lock_timeout = '15s'; SET statement_timeout = '25s'; SET idle_in_transaction_session_timeout = '25s';
	SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`

// lockWriters waits until no other transaction writes, on any console. It is the
// first statement of every transaction that changes more than one row, which
// gives PostgreSQL what SQLite has by nature: the audit trail's chain is one, no
// transaction fails because of another, and numbers become visible in their
// order, so that who reads events after a number misses none. The lock is the
// schema's, and gone with the transaction.
const lockWriters = `SELECT pg_advisory_xact_lock(1399276152, hashtext(current_schema()))::text, pg_current_xact_id()::text`

// OpenDSN opens the state in a PostgreSQL database, which several consoles may
// share, and brings its schema up to date. dsn is postgres://user@host/database
// or key=value pairs. keyFile is the key that signs the audit trail; all consoles
// on the database need the same. Errors are controlbus.ErrInvalid for a DSN that
// cannot be read, ErrUnavailable while there is no server to reach, which is worth
// another try, and ErrUnsupported for a server or a schema that does not fit.
func OpenDSN(ctx context.Context, dsn controlbus.Secret, keyFile string) (*Store, error) {
	cfg, err := postgresConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	s := newStore(openPostgres(cfg), &postgresDialect)
	s.config, s.id = cfg, rand.Text()
	if err := s.checkServer(ctx); err != nil {
		return nil, s.giveUp("PostgreSQL", err)
	}
	return s.prepare(ctx, s.version, keyFile)
}

// CheckDSN reads a DSN as OpenDSN would, without connecting.
func CheckDSN(dsn controlbus.Secret) error {
	_, err := postgresConfig(dsn)
	return err
}

func postgresConfig(dsn controlbus.Secret) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(dsn.Reveal())
	if err != nil {
		// The driver's own words quote the DSN, and with it perhaps its password.
		return nil, fmt.Errorf("%w: the DSN cannot be read: want an address such as postgres://user:password@host:5432/signalbox?sslmode=verify-full (%%-escape what is special in the password), or host=... user=... dbname=...; files that sslrootcert, sslcert or passfile name must be there", controlbus.ErrInvalid)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	cfg.DialFunc = (&net.Dialer{
		Timeout:         cfg.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}).DialContext
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "signalbox"
	}
	if cfg.ValidateConnect == nil { // of several hosts, the one that takes writes
		cfg.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return cfg, nil
}

func openPostgres(cfg *pgx.ConnConfig) *sql.DB {
	pool := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, settle)
		return err
	}))
	pool.SetMaxOpenConns(postgresPool)
	pool.SetMaxIdleConns(postgresPool / 2)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	pool.SetConnMaxLifetime(30 * time.Minute) // after a failover everybody arrives in the end
	return pool
}

// checkServer refuses a server on which what is told would not be kept as it was
// written.
func (s *Store) checkServer(ctx context.Context) error {
	var (
		number                           int
		version, encoding, fsync, schema string
	)
	if err := s.db.QueryRowContext(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('server_encoding'),
		current_setting('fsync'), coalesce(current_schema(), '')`).Scan(&number, &version, &encoding, &fsync, &schema); err != nil {
		return err
	}
	version, _, _ = strings.Cut(version, " ")
	s.version, s.schemaName = "PostgreSQL "+version, schema
	switch {
	case number < postgresOldest:
		return fmt.Errorf("%w: the server is version %s; want %d or newer", controlbus.ErrUnsupported, version, postgresOldest/10000)
	case encoding != "UTF8":
		return fmt.Errorf("%w: the database is encoded in %s; want UTF8: CREATE DATABASE signalbox ENCODING 'UTF8' TEMPLATE template0", controlbus.ErrUnsupported, encoding)
	case fsync != "on":
		return fmt.Errorf("%w: the server runs with fsync = %s and would lose in a power cut what people were told is kept: turn it on", controlbus.ErrUnsupported, fsync)
	case schema == "":
		return fmt.Errorf("%w: the role finds no schema in its search_path: CREATE SCHEMA signalbox AUTHORIZATION its role, and name it in the DSN with search_path=signalbox", controlbus.ErrUnsupported)
	}
	return nil
}

// fate asks the server what became of a transaction whose commit was not
// answered.
func (s *Store) fate(ctx context.Context, xid string) (committed bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	pause := 20 * time.Millisecond
	for {
		var status sql.NullString
		err = s.db.QueryRowContext(ctx, `SELECT pg_xact_status(?::text::xid8)`, xid).Scan(&status)
		switch {
		case err == nil && status.String == "committed":
			return true, nil
		case err == nil && status.String == "aborted":
			return false, nil
		}
		// In progress: its session has not noticed that nobody listens.
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, errors.Join(err, ctx.Err())
		case <-timer.C:
		}
		pause = min(2*pause, time.Second)
	}
}
