package state

import (
	"context"

	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Collide appends an event in a transaction that fails the first times as one
// does that PostgreSQL ends because of another, and returns how often it ran.
func (s *Store) Collide(ctx context.Context, e access.Event, code string, times int) (ran int, err error) {
	err = s.inTx(ctx, "collide", func(tx querier) error {
		ran++
		if err := addEvent(ctx, tx, e); err != nil {
			return err
		}
		if ran <= times {
			_, err := tx.ExecContext(ctx, `DO $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '`+code+`'; END $$`)
			return err
		}
		return nil
	})
	return ran, err
}

// Settings are what a connection runs with.
func (s *Store) Settings(ctx context.Context) (synchronous, isolation string, err error) {
	err = s.transact(ctx, func(tx querier) error {
		return tx.QueryRowContext(ctx, `SELECT current_setting('synchronous_commit'), current_setting('transaction_isolation')`).Scan(&synchronous, &isolation)
	})
	return synchronous, isolation, err
}
