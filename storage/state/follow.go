package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

// Consoles that share a database tell one another what they change, with
// PostgreSQL's NOTIFY. It is a hint that saves waiting: what a console misses it
// finds when it looks the next time.

// notice is what is told.
type notice struct {
	Schema string `json:"schema"` // there may be several states in one database
	From   string `json:"from"`   // the store that tells
	Agent  string `json:"agent"`
}

// notify tells the other consoles that something of the agent has changed: with
// the commit, where q is a transaction.
func (s *Store) notify(ctx context.Context, q querier, agent string) error {
	if !s.shared {
		return nil
	}
	text, err := json.Marshal(notice{s.schemaName, s.id, agent})
	if err != nil {
		return err
	}
	_, err = q.ExecContext(ctx, `SELECT pg_notify('signalbox_state', ?)`, string(text))
	return err
}

// Follow calls heard with the agent whose commands, or wanted state, another
// console has changed, and with an empty one when it may have missed something.
// heard must not block. Follow returns when ctx ends; it reconnects by itself.
func (s *Store) Follow(ctx context.Context, log *slog.Logger, heard func(agent string)) error {
	if !s.shared {
		<-ctx.Done()
		return nil
	}
	retry := backoff.Backoff{Base: 500 * time.Millisecond, Cap: 15 * time.Second, Floor: 200 * time.Millisecond}
	for ctx.Err() == nil {
		err := s.listen(ctx, func(agent string) { retry.Reset(); heard(agent) })
		if err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "what other consoles change is not heard at once for now", "error", known(err))
			backoff.Sleep(ctx, retry.Next())
		}
	}
	return nil
}

// quiet is how long nothing may be heard before the connection is tried.
const quiet = 30 * time.Second

func (s *Store) listen(ctx context.Context, heard func(agent string)) error {
	c, err := pgx.ConnectConfig(ctx, s.config.Copy())
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(ctx) // nothing was written
	}()
	begin, cancel := context.WithTimeout(ctx, quiet)
	_, err = c.Exec(begin, `LISTEN signalbox_state`)
	cancel()
	if err != nil {
		return err
	}
	heard("")
	for {
		wait, cancel := context.WithTimeout(ctx, quiet)
		n, err := c.WaitForNotification(wait)
		cancel()
		if err != nil {
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			ping, cancel := context.WithTimeout(ctx, quiet/3)
			err = c.Ping(ping)
			cancel()
			if err != nil {
				return fmt.Errorf("listening: %w", err)
			}
			continue
		}
		var told notice
		if err := json.Unmarshal([]byte(n.Payload), &told); err != nil || told.Schema != s.schemaName || told.From == s.id {
			continue // not ours, or of ourselves
		}
		heard(told.Agent)
	}
}
