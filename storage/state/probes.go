package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/probe"
)

// Probes returns every probe by name.
func (s *Store) Probes(ctx context.Context) ([]probe.Probe, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT body FROM probes ORDER BY name, id LIMIT 1000`)
	if err != nil {
		return nil, fmt.Errorf("state: read probes: %w", known(err))
	}
	defer rows.Close()
	var all []probe.Probe
	for rows.Next() {
		var body string
		var p probe.Probe
		if err := rows.Scan(&body); err != nil {
			return nil, fmt.Errorf("state: read probes: %w", known(err))
		}
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			return nil, fmt.Errorf("state: read probes: %w", err)
		}
		all = append(all, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: read probes: %w", known(err))
	}
	return all, nil
}

// Probe returns one probe.
func (s *Store) Probe(ctx context.Context, id string) (probe.Probe, error) {
	var body string
	var p probe.Probe
	err := s.db.QueryRowContext(ctx, `SELECT body FROM probes WHERE id = ?`, id).Scan(&body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return p, fmt.Errorf("state: probe %.40q: %w", id, controlbus.ErrNotFound)
	case err != nil:
		return p, fmt.Errorf("state: probe %.40q: %w", id, known(err))
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		return p, fmt.Errorf("state: probe %.40q: %w", id, err)
	}
	return p, nil
}

// SaveProbe adds or replaces a probe. A name that another one has is
// ErrConflict.
func (s *Store) SaveProbe(ctx context.Context, p probe.Probe) error {
	body, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("state: save probe %q: %w", p.Name, err)
	}
	return s.inTx(ctx, fmt.Sprintf("save probe %q", p.Name), func(tx querier) error {
		var others, same int
		if err := tx.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(CASE WHEN name = ? THEN 1 ELSE 0 END), 0) FROM probes WHERE id <> ?`, p.Name, p.ID).Scan(&others, &same); err != nil {
			return err
		}
		switch {
		case same > 0:
			return fmt.Errorf("%w: another probe has this name", controlbus.ErrConflict)
		case others >= probe.MaxProbes:
			return fmt.Errorf("%w: there are %d probes already; delete one that nobody needs", controlbus.ErrTooLarge, others)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO probes (id, name, body) VALUES (?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, body = excluded.body`, p.ID, p.Name, string(body))
		return err
	})
}

// DeleteProbe forgets a probe and its runs.
func (s *Store) DeleteProbe(ctx context.Context, id string) error {
	return s.inTx(ctx, "delete probe", func(tx querier) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM probe_runs WHERE probe = ?`, id); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM probe_turns WHERE probe = ?`, id); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM probes WHERE id = ?`, id)
		return err
	})
}

// TakeTurn says whether a probe's next run is this console's: nobody has begun
// one since the time given.
func (s *Store) TakeTurn(ctx context.Context, id string, now, since time.Time) (mine bool, err error) {
	err = s.inTx(ctx, "take a probe's turn", func(tx querier) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO probe_turns (probe, at) VALUES (?, ?)
			ON CONFLICT (probe) DO UPDATE SET at = excluded.at WHERE probe_turns.at <= ?`, id, now.UnixMilli(), since.UnixMilli())
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		mine = n == 1
		return err
	})
	return mine, err
}

// AddRun keeps a run, and of its probe the newest. One of a probe that was
// deleted meanwhile is not kept.
func (s *Store) AddRun(ctx context.Context, r probe.Run) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("state: keep probe run: %w", err)
	}
	return s.inTx(ctx, "keep probe run", func(tx querier) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO probe_runs (probe, id, body) SELECT id, ?, ? FROM probes WHERE id = ?`, r.ID, string(body), r.Probe); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM probe_runs WHERE probe = ? AND id <= (SELECT id FROM probe_runs WHERE probe = ? ORDER BY id DESC LIMIT 1 OFFSET ?)`,
			r.Probe, r.Probe, probe.KeptRuns)
		return err
	})
}

// ProbeRuns returns a probe's runs, newest first.
func (s *Store) ProbeRuns(ctx context.Context, id, before string, limit int) ([]probe.Run, error) {
	if limit <= 0 || limit > 1000 {
		limit = 1000
	}
	rows, err := s.db.QueryContext(ctx, `SELECT body FROM probe_runs WHERE probe = ? AND (? = '' OR id < ?) ORDER BY id DESC LIMIT ?`, id, before, before, limit)
	if err != nil {
		return nil, fmt.Errorf("state: read probe runs: %w", known(err))
	}
	defer rows.Close()
	var all []probe.Run
	for rows.Next() {
		var body string
		var r probe.Run
		if err := rows.Scan(&body); err != nil {
			return nil, fmt.Errorf("state: read probe runs: %w", known(err))
		}
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			return nil, fmt.Errorf("state: read probe runs: %w", err)
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: read probe runs: %w", known(err))
	}
	return all, nil
}
