package state

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// maxSearches is how many searches one owner may save: they are all on a page.
const maxSearches = 200

// Searches returns the searches an owner sees, by name: the owner's, everybody's
// and those that others share.
func (s *Store) Searches(ctx context.Context, owner string) ([]controlbus.SavedSearch, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, owner, shared, name, query, env, any_env, range, columns, oldest FROM searches
		WHERE owner = ? OR owner = '' OR shared = 1 ORDER BY lower(name), id`, owner)
	if err != nil {
		return nil, fmt.Errorf("state: read searches: %w", known(err))
	}
	defer rows.Close()
	var all []controlbus.SavedSearch
	for rows.Next() {
		var v controlbus.SavedSearch
		if err := rows.Scan(&v.ID, &v.Owner, &v.Shared, &v.Name, &v.Query, &v.Env, &v.AnyEnv, &v.Range, &v.Columns, &v.Oldest); err != nil {
			return nil, fmt.Errorf("state: read searches: %w", known(err))
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: read searches: %w", known(err))
	}
	return all, nil
}

// AddSearch saves a new search and returns its id. A name the owner uses
// already is ErrConflict.
func (s *Store) AddSearch(ctx context.Context, v controlbus.SavedSearch) (string, error) {
	if err := v.Validate(); err != nil {
		return "", fmt.Errorf("state: %w", err)
	}
	v.ID = rand.Text()
	// The bound is checked in the same transaction, so that two at once keep it.
	err := s.inTx(ctx, fmt.Sprintf("save search %q", v.Name), func(tx querier) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM searches WHERE owner = ?`, v.Owner).Scan(&n); err != nil {
			return err
		}
		if n >= maxSearches {
			return fmt.Errorf("%w: %d are saved already; delete one that nobody needs", controlbus.ErrTooLarge, maxSearches)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO searches (id, owner, shared, name, query, env, any_env, range, columns, oldest, created_at)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			v.ID, v.Owner, v.Shared, v.Name, v.Query, v.Env, v.AnyEnv, v.Range, v.Columns, v.Oldest, time.Now().UnixNano())
		return err
	})
	if err != nil {
		return "", err
	}
	return v.ID, nil
}

// RenameSearch gives a search of the owner's, or of everybody's, another name
// and shares it or not.
func (s *Store) RenameSearch(ctx context.Context, owner, id, name string, shared bool) error {
	v := controlbus.SavedSearch{Name: name}
	if err := v.Validate(); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	res, err := s.db.ExecContext(ctx, `UPDATE searches SET name = ?, shared = ? WHERE id = ? AND owner IN (?, '')`, name, shared, id, owner)
	if err != nil {
		return fmt.Errorf("state: rename search to %q: %w", name, known(err))
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		return fmt.Errorf("state: search %q: %w", id, controlbus.ErrNotFound)
	}
	return nil
}

// DeleteSearch forgets a search of the owner's, or of everybody's.
func (s *Store) DeleteSearch(ctx context.Context, owner, id string) error {
	res, err := s.db.ExecContext(ctx, `DELETE FROM searches WHERE id = ? AND owner IN (?, '')`, id, owner)
	if err != nil {
		return fmt.Errorf("state: delete search: %w", known(err))
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		return fmt.Errorf("state: search %q: %w", id, controlbus.ErrNotFound)
	}
	return nil
}
