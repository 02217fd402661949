package state

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// LoadAgents implements link.Store.
func (s *Store) LoadAgents(ctx context.Context) ([]controlbus.AgentView, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id, report, last_seen, clock_offset, desired FROM agents ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("state: read agents: %w", known(err))
	}
	defer rows.Close()
	var all []controlbus.AgentView
	for rows.Next() {
		var (
			id, report, desired string
			seen, offset        int64
			v                   controlbus.AgentView
		)
		if err := rows.Scan(&id, &report, &seen, &offset, &desired); err != nil {
			return nil, fmt.Errorf("state: read agents: %w", known(err))
		}
		if err := json.Unmarshal([]byte(report), &v.Agent); err != nil {
			return nil, fmt.Errorf("state: agent %q: report: %w", id, known(err))
		}
		if err := json.Unmarshal([]byte(desired), &v.Desired); err != nil {
			return nil, fmt.Errorf("state: agent %q: desired state: %w", id, known(err))
		}
		v.ID, v.ClockOffset = id, time.Duration(offset)
		if seen != 0 {
			v.LastSeen = time.Unix(0, seen)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("state: read agents: %w", known(err))
	}
	return all, nil
}

// SaveAgent implements link.Store.
func (s *Store) SaveAgent(ctx context.Context, v controlbus.AgentView) error {
	report, err := json.Marshal(v.Agent)
	if err != nil {
		return fmt.Errorf("state: agent %q: %w", v.ID, known(err))
	}
	_, err = s.db.ExecContext(ctx, `INSERT INTO agents (id, report, last_seen, clock_offset) VALUES (?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET report = excluded.report, last_seen = excluded.last_seen, clock_offset = excluded.clock_offset`,
		v.ID, string(report), v.LastSeen.UnixNano(), int64(v.ClockOffset))
	if err != nil {
		return fmt.Errorf("state: save agent %q: %w", v.ID, known(err))
	}
	return nil
}

// SaveDesired implements link.Store.
func (s *Store) SaveDesired(ctx context.Context, agentID string, d controlbus.Desired) error {
	desired, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("state: agent %q: %w", agentID, known(err))
	}
	_, err = s.db.ExecContext(ctx, `INSERT INTO agents (id, desired) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET desired = excluded.desired`,
		agentID, string(desired))
	if err != nil {
		return fmt.Errorf("state: save what is wanted of agent %q: %w", agentID, known(err))
	}
	if err := s.notify(ctx, s.db, agentID); err != nil {
		// It is kept, and the others find it when they look.
		return nil //nolint:nilerr // see above
	}
	return nil
}

// ForgetAgent implements link.Store.
func (s *Store) ForgetAgent(ctx context.Context, agentID string) error {
	res, err := s.db.ExecContext(ctx, `DELETE FROM agents WHERE id = ?`, agentID)
	if err != nil {
		return fmt.Errorf("state: forget agent %q: %w", agentID, known(err))
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		return fmt.Errorf("state: agent %q: %w", agentID, controlbus.ErrNotFound)
	}
	return nil
}
