package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage/state"
)

// stateConfig says where users, rights, commands and the audit trail are kept.
type stateConfig struct {
	// DSN is a PostgreSQL database that several consoles may share; empty: SQLite
	// in the data directory.
	DSN controlbus.Secret `yaml:"dsn"`
	// DSNFile names a file that holds the DSN, with its password.
	DSNFile string `yaml:"dsn_file"`
}

// read fills in the DSN from its file. Errors begin with the key they are about.
func (c *stateConfig) read() error {
	if c.DSNFile == "" {
		return nil
	}
	if c.DSN != "" {
		return errors.New(": give dsn or dsn_file, not both")
	}
	dsn, err := controlbus.SecretFromFile(c.DSNFile)
	if err != nil {
		return fmt.Errorf(".dsn_file: %w", err)
	}
	if dsn == "" {
		return fmt.Errorf(".dsn_file: %s is empty", c.DSNFile)
	}
	c.DSN = dsn
	return nil
}

func (c stateConfig) validate() error {
	if c.DSN == "" {
		return nil
	}
	if err := state.CheckDSN(c.DSN); err != nil {
		return fmt.Errorf("dsn: %w", err)
	}
	return nil
}

// openState opens the state, however long its server takes to be there.
func openState(ctx context.Context, cfg config, log *slog.Logger) (*state.Store, error) {
	if cfg.State.DSN == "" {
		return state.Open(ctx, filepath.Join(cfg.DataDir, "state.db"))
	}
	for retry := (backoff.Backoff{Base: 500 * time.Millisecond, Cap: 10 * time.Second, Floor: 200 * time.Millisecond}); ; {
		s, err := state.OpenDSN(ctx, cfg.State.DSN, filepath.Join(cfg.DataDir, state.KeyFile))
		switch {
		case err == nil:
			log.InfoContext(ctx, "state is open", "store", s.Version())
			return s, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, controlbus.ErrUnavailable):
			return nil, err
		}
		log.WarnContext(ctx, "the PostgreSQL of state.dsn is not there yet; trying again", "error", err)
		if !backoff.Sleep(ctx, retry.Next()) {
			return nil, ctx.Err()
		}
	}
}

// followState takes in what other consoles on the same database change, until ctx
// ends: at once where they tell, and by looking now and then in any case.
func (c *console) followState(ctx context.Context) error {
	if !c.state.Shared() {
		<-ctx.Done()
		return nil
	}
	log := c.log.With("component", "state")
	heard := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	var followed error
	wg.Go(func() {
		followed = c.state.Follow(ctx, log, func(agent string) {
			c.ledger.Heard(agent)
			select {
			case heard <- struct{}{}:
			default: // it will be looked at anyway
			}
		})
	})
	tick := time.NewTicker(link.RefreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-heard:
		case <-tick.C:
		case <-ctx.Done():
			wg.Wait()
			return followed
		}
		if err := c.roster.Refresh(ctx); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "what other consoles know of agents cannot be read", "error", err)
		}
		if !backoff.Sleep(ctx, 200*time.Millisecond) { // a job's progress is told, too
			wg.Wait()
			return followed
		}
	}
}
