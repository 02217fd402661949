package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

const tokenColumns = `id, hash, kind, name, owner_id, agent_id, hint, grants, created_at, expires_at, last_used, revoked_at, uses_left`

func insertToken(ctx context.Context, tx querier, t access.Token) error {
	grants, err := json.Marshal(t.Grants)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO tokens (`+tokenColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		t.ID, t.Hash[:], string(t.Kind), t.Name, t.OwnerID, t.AgentID, t.Hint, string(grants), nanos(t.CreatedAt), nanos(t.ExpiresAt), nanos(t.LastUsed), nanos(t.RevokedAt), t.Left)
	return err
}

func scanToken(row scanner) (access.Token, error) {
	var (
		t                               access.Token
		kind, grants                    string
		hash                            []byte
		created, expires, used, revoked int64
	)
	if err := row.Scan(&t.ID, &hash, &kind, &t.Name, &t.OwnerID, &t.AgentID, &t.Hint, &grants, &created, &expires, &used, &revoked, &t.Left); err != nil {
		return t, err
	}
	copy(t.Hash[:], hash)
	t.Kind = access.TokenKind(kind)
	t.CreatedAt, t.ExpiresAt, t.LastUsed, t.RevokedAt = at(created), at(expires), at(used), at(revoked)
	if err := json.Unmarshal([]byte(grants), &t.Grants); err != nil {
		return t, fmt.Errorf("token %q: grants: %w", t.ID, err)
	}
	return t, nil
}

// AddToken implements access.Store.
func (s *Store) AddToken(ctx context.Context, t access.Token, e access.Event) error {
	return s.inTx(ctx, "add token", func(tx querier) error {
		if err := insertToken(ctx, tx, t); err != nil {
			return err
		}
		return addEvent(ctx, tx, e)
	})
}

// Token implements access.Store.
func (s *Store) Token(ctx context.Context, hash [32]byte) (access.Token, error) {
	t, err := scanToken(s.db.QueryRowContext(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE hash = ?`, hash[:]))
	if err != nil {
		return t, fmt.Errorf("state: token: %w", known(err))
	}
	return t, nil
}

// Tokens implements access.Store.
func (s *Store) Tokens(ctx context.Context, kind access.TokenKind, ownerID string) ([]access.Token, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT `+tokenColumns+` FROM tokens WHERE kind = ? AND (? = '' OR owner_id = ?) ORDER BY created_at DESC, id`, string(kind), ownerID, ownerID)
	if err != nil {
		return nil, fmt.Errorf("state: tokens: %w", known(err))
	}
	defer rows.Close()
	var all []access.Token
	for rows.Next() {
		t, err := scanToken(rows)
		if err != nil {
			return nil, fmt.Errorf("state: tokens: %w", known(err))
		}
		all = append(all, t)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: tokens: %w", known(err))
	}
	return all, nil
}

// TouchToken implements access.Store.
func (s *Store) TouchToken(ctx context.Context, id string, used time.Time) error {
	if _, err := s.db.ExecContext(ctx, `UPDATE tokens SET last_used = ? WHERE id = ? AND last_used < ?`, nanos(used), id, nanos(used)); err != nil {
		return fmt.Errorf("state: token: %w", known(err))
	}
	return nil
}

// RevokeToken implements access.Store.
func (s *Store) RevokeToken(ctx context.Context, id, ownerID string, when time.Time, e access.Event) error {
	return s.inTx(ctx, "revoke token", func(tx querier) error {
		res, err := tx.ExecContext(ctx, `UPDATE tokens SET revoked_at = ? WHERE id = ? AND revoked_at = 0 AND (? = '' OR owner_id = ?)`, nanos(when), id, ownerID, ownerID)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, controlbus.ErrNotFound)
		}
		return addEvent(ctx, tx, e)
	})
}

// UseEnrolment implements access.Store.
func (s *Store) UseEnrolment(ctx context.Context, enrolmentID string, now time.Time, credential access.Token, e access.Event) error {
	return s.inTx(ctx, "enrol", func(tx querier) error {
		res, err := tx.ExecContext(ctx, `UPDATE tokens SET uses_left = uses_left - 1, last_used = ?
			WHERE id = ? AND kind = 'enrol' AND uses_left > 0 AND revoked_at = 0 AND (expires_at = 0 OR expires_at > ?)`, nanos(now), enrolmentID, nanos(now))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, controlbus.ErrNotFound)
		}
		if err := insertToken(ctx, tx, credential); err != nil {
			return err
		}
		return addEvent(ctx, tx, e)
	})
}
