package state

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// tries is how often a transaction that collides with others is run.
const tries = 6

// inTx runs f in a transaction, signs the audit trail where it has grown, and
// commits where f returns nil. f may run more than once.
func (s *Store) inTx(ctx context.Context, what string, f func(querier) error) error {
	begun := time.Now()
	err := s.transact(ctx, func(tx querier) error {
		if err := f(tx); err != nil {
			return err
		}
		if err := s.signHead(ctx, tx); err != nil {
			return fmt.Errorf("audit tree: %w", err)
		}
		return nil
	})
	s.observe(begun, err)
	if err != nil {
		return fmt.Errorf("state: %s: %w", what, known(err))
	}
	return nil
}

// transact runs f in a transaction that no other writes beside, again where it
// has collided with something nevertheless.
func (s *Store) transact(ctx context.Context, f func(querier) error) error {
	for try := 1; ; try++ {
		begun := false
		err := s.once(ctx, func(tx querier) error { begun = true; return f(tx) })
		if try == tries || !collided(err) && (begun || !stale(err)) {
			return err
		}
		s.retries.Add(1)
		timer := time.NewTimer(time.Duration(try)*20*time.Millisecond + rand.N(20*time.Millisecond))
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

func (s *Store) once(ctx context.Context, f func(querier) error) error {
	begun := ctx
	if s.shared {
		// Statements end with ctx, a commit on its way does not: whoever asked
		// may have gone, but what became of it should not be a guess.
		begun = s.bound(context.WithoutCancel(ctx))
	}
	raw, err := s.pool.BeginTx(begun, s.tx)
	if err != nil {
		return err
	}
	defer raw.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	tx := conn{raw, s.dialect}
	var xid string
	if s.shared {
		var void string
		if err := tx.QueryRowContext(ctx, lockWriters).Scan(&void, &xid); err != nil {
			return err
		}
	}
	if err := f(tx); err != nil {
		return err
	}
	err = raw.Commit()
	if err == nil || !s.shared {
		return err
	}
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) && !away(e.Code) {
		return err // the server has said no
	}
	s.unanswered.Add(1)
	committed, asked := s.fate(ctx, xid)
	switch {
	case asked != nil:
		return fmt.Errorf("%w: the connection was lost while it was written down, and whether it was is not known: look before trying again: %w", controlbus.ErrUnavailable, errors.Join(err, asked))
	case committed:
		return nil
	}
	return fmt.Errorf("%w: the connection was lost and nothing was changed: try again: %w", controlbus.ErrUnavailable, err)
}
