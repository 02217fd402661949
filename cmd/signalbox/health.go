package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/storage/engine"
	healthpage "github.com/signalbox-dev/signalbox/ui/page/health"
	"github.com/signalbox-dev/signalbox/ui/page/overview"
)

// health tells the overview what is wrong within the console itself.
type health struct{ c *console }

// lagLimit is how old the oldest request not stored yet may be before it is
// called trouble.
const lagLimit = 30 * time.Second

// Troubles implements overview.Health.
func (h health) Troubles() []overview.Trouble {
	var all []overview.Trouble
	if h.c.engine != nil {
		if s := h.c.engine.Status(); s.State != engine.Running {
			all = append(all, overview.Trouble{
				Title:  "The embedded store is " + string(s.State),
				Detail: sentence(s.LastError) + "What agents and services send is kept in the queue on disk and stored once it runs again.",
				Since:  s.Since, Stop: true,
			})
		}
	}
	in := h.c.ingest.Stats()
	switch {
	case in.Error != "":
		all = append(all, overview.Trouble{
			Title:  "Nothing is stored at the moment",
			Detail: fmt.Sprintf("%s%d bytes wait in the queue on disk; nothing is lost, and writing is tried again by itself.", sentence(in.Error), in.PendingBytes),
			Since:  in.ErrorSince, Stop: true,
		})
	case !in.Oldest.IsZero() && time.Since(in.Oldest) > lagLimit:
		all = append(all, overview.Trouble{
			Title:  fmt.Sprintf("The store is %v behind", time.Since(in.Oldest).Round(time.Second)),
			Detail: fmt.Sprintf("%d bytes wait in the queue on disk.", in.PendingBytes),
			Since:  in.Oldest,
		})
	}
	if in.Quarantined > 0 {
		all = append(all, overview.Trouble{
			Title:  fmt.Sprintf("%d blocks are in quarantine", in.Quarantined),
			Detail: "The store refused them for good; their requests are kept in " + h.c.cfg.Ingest.Quarantine + ". The log names the cause.",
		})
	}
	s := h.c.collector.Stats()
	for _, reason := range slices.Sorted(maps.Keys(s.Refused)) {
		if reason == "malformed" {
			continue // the sender's mistake, told to the sender
		}
		all = append(all, overview.Trouble{
			Title:  fmt.Sprintf("%d requests were told to come back later", s.Refused[reason]),
			Detail: "Reason: " + strings.ReplaceAll(reason, "_", " ") + ". Agents keep what was refused on their own disk; services may not.",
		})
	}
	return all
}

// Lag implements overview.Health.
func (h health) Lag() time.Duration {
	if oldest := h.c.ingest.Stats().Oldest; !oldest.IsZero() {
		return max(0, time.Since(oldest))
	}
	return 0
}

// Snapshot implements health.Source of ui/page/health.
func (h health) Snapshot(ctx context.Context) healthpage.Snapshot {
	c := h.c
	in, col, taps := c.ingest.Stats(), c.collector.Stats(), c.hub.Stats()
	s := healthpage.Snapshot{
		Started: c.started,
		Lag:     h.Lag(), Pending: in.PendingBytes, Queue: col.QueueBytes, QueueMax: col.QueueMax, QueueDir: c.cfg.Collector.Dir,
		LastWrite: in.LastWrite, WriteError: in.Error, ErrorSince: in.ErrorSince,
		Rows: in.Rows, Blocks: in.Blocks, Retries: in.Retries, Quarantined: in.Quarantined, QuarantineDir: c.cfg.Ingest.Quarantine,
		Accepted: col.Accepted, Duplicates: col.Duplicates, Invalid: col.Invalid, Senders: col.Senders,
		Taps: taps.Taps, MaxTaps: taps.MaxTaps,
		State: c.state.Version(), StateShared: c.state.Shared(),
		Server: c.store.Version(), Queries: c.store.QueryTimes(),
	}
	for _, reason := range slices.Sorted(maps.Keys(col.Refused)) {
		s.Shed = append(s.Shed, healthpage.Shed{What: "requests refused", Reason: reason, N: col.Refused[reason]})
	}
	s.Shed = append(s.Shed,
		healthpage.Shed{What: "live taps refused", Reason: "max_taps", N: taps.Refused},
		healthpage.Shed{What: "live messages dropped", Reason: "slow_reader", N: taps.Dropped})
	if c.engine != nil {
		st := c.engine.Status()
		s.Engine = &healthpage.Engine{State: string(st.State), Running: st.State == engine.Running, Since: st.Since, Restarts: st.Restarts, LastError: st.LastError}
	}
	if err := c.state.Check(ctx); err != nil {
		s.StateError = err.Error()
	}
	// A store that does not answer does not tell of its disk either; the page
	// says so beside the tables.
	if disk, err := c.store.Disk(ctx); err == nil {
		s.Disk = &disk
	}
	return s
}

// sentence ends a message so that another can follow it.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.TrimRight(s, ". ") + ". "
}
