package state

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// known gives the drivers' errors the sentinels that callers ask for.
func known(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return controlbus.ErrNotFound
	}
	if e := (*sqlite.Error)(nil); errors.As(err, &e) {
		switch e.Code() {
		case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
			return fmt.Errorf("%w: there is one already", controlbus.ErrConflict)
		}
		return err
	}
	if errors.Is(err, controlbus.ErrUnavailable) || errors.Is(err, controlbus.ErrDenied) {
		return err
	}
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		switch {
		case e.Code == "23505":
			return fmt.Errorf("%w: there is one already", controlbus.ErrConflict)
		case e.Code == "42501":
			return fmt.Errorf("%w: %w: give the role of the DSN the right to create tables and to write in the schema", controlbus.ErrDenied, err)
		case e.Code == "55P03":
			return fmt.Errorf("%w: another console writes for longer than a write should take: %w", controlbus.ErrUnavailable, err)
		case e.Code == "28P01" || e.Code == "28000" || e.Code == "3D000":
			return fmt.Errorf("%w: %w: check user, password and database of the DSN, and the server's pg_hba.conf", controlbus.ErrDenied, err)
		case away(e.Code):
			return fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
		}
		return err
	}
	if lost(err) {
		return fmt.Errorf("%w: the state's database does not answer: %w", controlbus.ErrUnavailable, err)
	}
	return err
}

// away says whether a server says that it cannot serve now: it starts, stops, is
// a standby, has no connection, memory or disk to spare, or took too long.
func away(code string) bool {
	switch code {
	case "57P01", "57P02", "57P03", "57P05", "57014", "25006":
		return true
	}
	return strings.HasPrefix(code, "08") || strings.HasPrefix(code, "53")
}

// lost says whether the connection, rather than the server, has said it.
func lost(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, context.DeadlineExceeded) || pgconn.SafeToRetry(err)
}

// stale says whether a connection that was kept has turned out to be dead, as they
// all are after the server was away for a moment. A new one may do.
func stale(err error) bool {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		return e.Code == "57P01" || e.Code == "57P02" || e.Code == "57P05"
	}
	return err != nil && lost(err)
}

// collided says whether a transaction failed only because of another one, so that
// it may succeed when run again: a serialization failure or a deadlock.
func collided(err error) bool {
	e := (*pgconn.PgError)(nil)
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
}
