package ledger

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/storage"
)

// CopySink takes the copy of the ledger; storage/clickhouse is one.
type CopySink interface {
	// CopyCommandEvents stores events of one month, in order: all or none. Storing
	// them again does no harm.
	CopyCommandEvents(ctx context.Context, events []storage.CommandEvent) error
	// CommandEventsCopied is the number of the newest event stored, 0 for none.
	CommandEventsCopied(ctx context.Context) (int64, error)
}

const (
	copyBatch = 1000
	copyEvery = 2 * time.Second // at most; the store likes few inserts
	copyTime  = time.Minute     // for one batch
)

// Copy follows the ledger and keeps a copy of its events where they can be
// searched. What the store misses while it is away is copied when it is back.
type Copy struct {
	store  Store
	sink   CopySink
	log    *slog.Logger
	every  time.Duration
	copied int64 // up to this event
	head   int64 // the newest that was seen
	begun  bool  // both are known

	lag atomic.Int64
}

// NewCopy returns a copy that counts its lag in set.
func NewCopy(store Store, sink CopySink, set *metrics.Set, log *slog.Logger) *Copy {
	c := &Copy{store: store, sink: sink, log: log, every: copyEvery}
	set.NewGauge("signalbox_ledger_copy_lag_events", func() float64 { return float64(c.lag.Load()) })
	return c
}

// Run copies until ctx ends. Failures are logged, and tried again.
func (c *Copy) Run(ctx context.Context) error {
	failed := false
	retry := backoff.Backoff{Base: c.every, Cap: time.Minute, Floor: c.every}
	for known := false; ; {
		var err error
		if c.begun {
			err = c.look(ctx) // also while the store is away: the lag is to be seen
		}
		if err == nil && !known {
			err = c.begin(ctx)
			known = err == nil
		}
		if err == nil {
			err = c.round(ctx)
		}
		c.lag.Store(max(c.head-c.copied, 0))
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was asked to end; what failed for that is no failure
		}
		wait := c.every
		switch {
		case err != nil:
			known = false // it may have been stored all the same
			wait = retry.Next()
			if !failed {
				c.log.WarnContext(ctx, "the ledger's copy falls behind; trying again", "error", err, "events", c.head-c.copied)
			}
		case failed:
			c.log.InfoContext(ctx, "the ledger's copy is up to date again")
		}
		if failed = err != nil; !failed {
			retry = backoff.Backoff{Base: c.every, Cap: time.Minute, Floor: c.every}
		}
		if !backoff.Sleep(ctx, wait) {
			return nil
		}
	}
}

// begin finds out how far the copy is.
func (c *Copy) begin(ctx context.Context) error {
	copied, err := c.sink.CommandEventsCopied(ctx)
	if err != nil {
		return err
	}
	if copied > 0 {
		last, err := c.store.EventsAfter(ctx, copied-1, 1)
		if err != nil {
			return err
		}
		if len(last) == 0 {
			// The ledger was set back to an earlier state: its numbers begin again
			// where that ended, and rows of the same number replace each other.
			c.log.WarnContext(ctx, "the copy of the ledger is ahead of it: copying all of it again", "copied", copied)
			copied = 0
		}
	}
	if !c.begun {
		c.head, c.begun = copied, true
		if err := c.look(ctx); err != nil {
			return err
		}
	}
	c.copied = copied
	return nil
}

// look moves head to the newest event, each of which it reads once.
func (c *Copy) look(ctx context.Context) error {
	for {
		events, err := c.store.EventsAfter(ctx, c.head, copyBatch)
		if err != nil {
			return err
		}
		if len(events) > 0 {
			c.head = events[len(events)-1].Seq
		}
		if len(events) < copyBatch {
			return nil
		}
	}
}

// round copies what is there.
func (c *Copy) round(ctx context.Context) error {
	for c.copied < c.head {
		events, err := c.store.EventsAfter(ctx, c.copied, copyBatch)
		if err != nil || len(events) == 0 {
			return err
		}
		rows, err := c.rows(ctx, events)
		if err != nil {
			return err
		}
		for len(rows) > 0 {
			n := sameMonth(rows)
			if err := c.put(ctx, rows[:n]); err != nil {
				return err
			}
			c.copied = rows[n-1].Seq
			rows = rows[n:]
			c.lag.Store(max(c.head-c.copied, 0))
		}
	}
	return nil
}

func (c *Copy) put(ctx context.Context, rows []storage.CommandEvent) error {
	ctx, cancel := context.WithTimeout(ctx, copyTime)
	defer cancel()
	return c.sink.CopyCommandEvents(ctx, rows)
}

// sameMonth is how many of the rows, from the first, are of its month: a store
// keeps months apart.
func sameMonth(rows []storage.CommandEvent) int {
	y, m, _ := rows[0].At.UTC().Date()
	n := slices.IndexFunc(rows, func(r storage.CommandEvent) bool {
		yy, mm, _ := r.At.UTC().Date()
		return yy != y || mm != m
	})
	if n < 0 {
		return len(rows)
	}
	return n
}

// rows are events with what is known of their commands.
func (c *Copy) rows(ctx context.Context, events []Event) ([]storage.CommandEvent, error) {
	known := map[controlbus.CommandID]controlbus.Command{}
	rows := make([]storage.CommandEvent, 0, len(events))
	for i := range events {
		e := &events[i]
		cmd, ok := known[e.Command]
		if !ok {
			var err error
			if cmd, err = c.store.Command(ctx, e.Command); err != nil {
				return nil, fmt.Errorf("ledger: copy: %w", err)
			}
			known[e.Command] = cmd
		}
		body, err := json.Marshal(eventWithout(*e, true)) // who searches there need not have the right
		if err != nil {
			return nil, fmt.Errorf("ledger: copy: event %d: %w", e.Seq, err)
		}
		r := storage.CommandEvent{
			Seq: e.Seq, At: e.At, Command: e.Command, N: e.N, Type: string(e.Type), Kind: cmd.Kind, Target: cmd.Target, Reason: cmd.Reason,
			Actor: e.Actor, Detail: e.Detail, Body: string(body),
		}
		switch {
		case e.Result != nil:
			r.Outcome, r.Counts = string(e.Result.Outcome), e.Result.Counts
			if r.Detail == "" {
				r.Detail = e.Result.Detail
			}
		case e.Progress != nil:
			r.Counts = e.Progress.Counts
		}
		rows = append(rows, r)
	}
	return rows, nil
}
