package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// access.Store is implemented here for users, links and sessions, in tokens.go
// for tokens, and in audit.go for events.
var _ access.Store = (*Store)(nil)

// nanos keeps the zero time apart from 1970.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func at(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

const userColumns = `id, name, password, issuer, subject, grants, disabled, created_at, last_login`

// scanner is a row or the rows.
type scanner interface{ Scan(...any) error }

func scanUser(row scanner, more ...any) (access.User, error) {
	var (
		u              access.User
		grants         string
		created, login int64
	)
	if err := row.Scan(append([]any{&u.ID, &u.Name, &u.Password, &u.Issuer, &u.Subject, &grants, &u.Disabled, &created, &login}, more...)...); err != nil {
		return u, err
	}
	u.CreatedAt, u.LastLogin = at(created), at(login)
	if err := json.Unmarshal([]byte(grants), &u.Grants); err != nil {
		return u, fmt.Errorf("user %q: grants: %w", u.ID, err)
	}
	return u, nil
}

func users(ctx context.Context, q querier) ([]access.User, error) {
	rows, err := q.QueryContext(ctx, `SELECT `+userColumns+` FROM users ORDER BY name_key`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []access.User
	for rows.Next() {
		u, err := scanUser(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, rows.Err()
}

// Users implements access.Store.
func (s *Store) Users(ctx context.Context) ([]access.User, error) {
	all, err := users(ctx, s.db)
	if err != nil {
		return nil, fmt.Errorf("state: users: %w", known(err))
	}
	return all, nil
}

func (s *Store) user(ctx context.Context, where string, args ...any) (access.User, error) {
	u, err := scanUser(s.db.QueryRowContext(ctx, `SELECT `+userColumns+` FROM users WHERE `+where, args...))
	if err != nil {
		return u, fmt.Errorf("state: user: %w", known(err))
	}
	return u, nil
}

// User implements access.Store.
func (s *Store) User(ctx context.Context, id string) (access.User, error) {
	return s.user(ctx, `id = ?`, id)
}

// UserByName implements access.Store.
func (s *Store) UserByName(ctx context.Context, name string) (access.User, error) {
	return s.user(ctx, `name_key = ?`, strings.ToLower(name))
}

// UserBySubject implements access.Store.
func (s *Store) UserBySubject(ctx context.Context, issuer, subject string) (access.User, error) {
	return s.user(ctx, `issuer = ? AND subject = ? AND issuer <> ''`, issuer, subject)
}

func insertUser(ctx context.Context, tx querier, u access.User) error {
	grants, err := json.Marshal(u.Grants)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO users (`+userColumns+`, name_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		u.ID, u.Name, u.Password, u.Issuer, u.Subject, string(grants), u.Disabled, nanos(u.CreatedAt), nanos(u.LastLogin), strings.ToLower(u.Name))
	if err = known(err); errors.Is(err, controlbus.ErrConflict) {
		return fmt.Errorf("%w: there is a user %q already", controlbus.ErrConflict, u.Name)
	}
	return err
}

// AddUser implements access.Store.
func (s *Store) AddUser(ctx context.Context, u access.User, e access.Event) error {
	return s.inTx(ctx, "add user", func(tx querier) error {
		return errors.Join(insertUser(ctx, tx, u), addEvent(ctx, tx, e))
	})
}

// one finds a user among all, and the others.
func one(ctx context.Context, tx querier, id string) (u access.User, others []access.User, err error) {
	all, err := users(ctx, tx)
	if err != nil {
		return u, nil, err
	}
	found := false
	for _, x := range all {
		if x.ID == id {
			u, found = x, true
		} else {
			others = append(others, x)
		}
	}
	if !found {
		return u, nil, controlbus.ErrNotFound
	}
	return u, others, nil
}

// ChangeUser implements access.Store.
func (s *Store) ChangeUser(ctx context.Context, id string, e access.Event, edit func(*access.User, []access.User) error) error {
	return s.inTx(ctx, "change user", func(tx querier) error {
		u, others, err := one(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := edit(&u, others); err != nil {
			return err
		}
		grants, err := json.Marshal(u.Grants)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE users SET password = ?, grants = ?, disabled = ? WHERE id = ?`,
			u.Password, string(grants), u.Disabled, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = ?`, id); err != nil {
			return err
		}
		return addEvent(ctx, tx, e)
	})
}

// DeleteUser implements access.Store.
func (s *Store) DeleteUser(ctx context.Context, id string, e access.Event, check func(access.User, []access.User) error) error {
	return s.inTx(ctx, "delete user", func(tx querier) error {
		u, others, err := one(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := check(u, others); err != nil {
			return err
		}
		// Tokens that only send have no owner and stay, and so do enrolments.
		for _, q := range []string{
			`DELETE FROM user_links WHERE user_id = ?`,
			`DELETE FROM tokens WHERE owner_id = ? AND kind = 'api'`,
			`UPDATE tokens SET owner_id = '' WHERE owner_id = ?`,
			`DELETE FROM users WHERE id = ?`,
		} {
			if _, err := tx.ExecContext(ctx, q, id); err != nil {
				return err
			}
		}
		return addEvent(ctx, tx, e)
	})
}

// PutLink implements access.Store.
func (s *Store) PutLink(ctx context.Context, l access.Link, e *access.Event) error {
	return s.inTx(ctx, "one-time link", func(tx querier) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO user_links (hash, user_id, expires_at) VALUES (?, ?, ?)
			ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, expires_at = excluded.expires_at`, l.Hash[:], l.UserID, nanos(l.ExpiresAt)); err != nil {
			return err
		}
		if e == nil {
			return nil
		}
		return addEvent(ctx, tx, *e)
	})
}

func link(ctx context.Context, q querier, hash [32]byte) (access.Link, error) {
	l := access.Link{Hash: hash}
	var expires int64
	err := q.QueryRowContext(ctx, `SELECT user_id, expires_at FROM user_links WHERE hash = ?`, hash[:]).Scan(&l.UserID, &expires)
	l.ExpiresAt = at(expires)
	return l, known(err)
}

// Link implements access.Store.
func (s *Store) Link(ctx context.Context, hash [32]byte) (access.Link, error) {
	l, err := link(ctx, s.db, hash)
	if err != nil {
		return l, fmt.Errorf("state: one-time link: %w", known(err))
	}
	return l, nil
}

// useLink consumes a link that holds.
func useLink(ctx context.Context, tx querier, hash [32]byte, now time.Time) (access.Link, error) {
	l, err := link(ctx, tx, hash)
	if err != nil {
		return l, err
	}
	if !now.Before(l.ExpiresAt) {
		return l, controlbus.ErrNotFound
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM user_links WHERE hash = ?`, hash[:])
	return l, err
}

// UseSetupLink implements access.Store.
func (s *Store) UseSetupLink(ctx context.Context, hash [32]byte, now time.Time, u access.User, session access.Session, e access.Event) error {
	return s.inTx(ctx, "first user", func(tx querier) error {
		l, err := useLink(ctx, tx, hash, now)
		if err != nil {
			return err
		}
		if l.UserID != "" {
			return controlbus.ErrNotFound
		}
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM users`).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("%w: there is a user already", controlbus.ErrConflict)
		}
		if err := insertUser(ctx, tx, u); err != nil {
			return err
		}
		return errors.Join(insertSession(ctx, tx, session), addEvent(ctx, tx, e))
	})
}

// UsePasswordLink implements access.Store.
func (s *Store) UsePasswordLink(ctx context.Context, hash [32]byte, now time.Time, password string, e access.Event) error {
	return s.inTx(ctx, "set password", func(tx querier) error {
		l, err := useLink(ctx, tx, hash, now)
		if err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, `UPDATE users SET password = ? WHERE id = ? AND disabled = 0 AND issuer = ''`, password, l.UserID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, controlbus.ErrNotFound)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = ?`, l.UserID); err != nil {
			return err
		}
		return addEvent(ctx, tx, e)
	})
}

func insertSession(ctx context.Context, tx querier, x access.Session) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO sessions (hash, id, user_id, created_at, seen_at, expires_at, address, user_agent) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		x.Hash[:], x.ID, x.UserID, nanos(x.CreatedAt), nanos(x.SeenAt), nanos(x.ExpiresAt), x.Address, x.UserAgent)
	return err
}

// AddSession implements access.Store.
func (s *Store) AddSession(ctx context.Context, x access.Session, replaces *[32]byte, e access.Event) error {
	return s.inTx(ctx, "add session", func(tx querier) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE expires_at <= ?`, nanos(x.CreatedAt)); err != nil {
			return err
		}
		if replaces != nil {
			if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE hash = ?`, replaces[:]); err != nil {
				return err
			}
		}
		// The user may have been disabled since the password was checked.
		res, err := tx.ExecContext(ctx, `UPDATE users SET last_login = ? WHERE id = ? AND disabled = 0`, nanos(x.CreatedAt), x.UserID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, controlbus.ErrDenied)
		}
		if err := insertSession(ctx, tx, x); err != nil {
			return err
		}
		return addEvent(ctx, tx, e)
	})
}

const sessionColumns = `s.hash, s.id, s.user_id, s.created_at, s.seen_at, s.expires_at, s.address, s.user_agent`

type sessionRow struct {
	access.Session
	hash                   []byte
	created, seen, expires int64
}

func (r *sessionRow) fields() []any {
	return []any{&r.hash, &r.ID, &r.UserID, &r.created, &r.seen, &r.expires, &r.Address, &r.UserAgent}
}

func (r *sessionRow) session() access.Session {
	copy(r.Hash[:], r.hash)
	r.CreatedAt, r.SeenAt, r.ExpiresAt = at(r.created), at(r.seen), at(r.expires)
	return r.Session
}

// Session implements access.Store.
func (s *Store) Session(ctx context.Context, hash [32]byte) (access.Session, access.User, error) {
	var r sessionRow
	u, err := scanUser(s.db.QueryRowContext(ctx, `SELECT u.id, u.name, u.password, u.issuer, u.subject, u.grants, u.disabled, u.created_at, u.last_login, `+sessionColumns+`
		FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.hash = ?`, hash[:]), r.fields()...)
	if err != nil {
		return access.Session{}, access.User{}, fmt.Errorf("state: session: %w", known(err))
	}
	return r.session(), u, nil
}

// TouchSession implements access.Store.
func (s *Store) TouchSession(ctx context.Context, hash [32]byte, seen time.Time) error {
	if _, err := s.db.ExecContext(ctx, `UPDATE sessions SET seen_at = ? WHERE hash = ? AND seen_at < ?`, nanos(seen), hash[:], nanos(seen)); err != nil {
		return fmt.Errorf("state: session: %w", known(err))
	}
	return nil
}

// Sessions implements access.Store.
func (s *Store) Sessions(ctx context.Context, userID string) ([]access.Session, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT `+sessionColumns+` FROM sessions s WHERE s.user_id = ? ORDER BY s.seen_at DESC`, userID)
	if err != nil {
		return nil, fmt.Errorf("state: sessions: %w", known(err))
	}
	defer rows.Close()
	var all []access.Session
	for rows.Next() {
		var r sessionRow
		if err := rows.Scan(r.fields()...); err != nil {
			return nil, fmt.Errorf("state: sessions: %w", known(err))
		}
		all = append(all, r.session())
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: sessions: %w", known(err))
	}
	return all, nil
}

// EndSession implements access.Store.
func (s *Store) EndSession(ctx context.Context, userID, id string, e access.Event) error {
	return s.inTx(ctx, "end session", func(tx querier) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE user_id = ? AND id = ?`, userID, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, controlbus.ErrNotFound)
		}
		return addEvent(ctx, tx, e)
	})
}
