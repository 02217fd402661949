package probe

import (
	"context"
	"time"
)

// Store keeps probes and their runs. Methods may be called concurrently; those
// that look for one probe return controlbus.ErrNotFound.
type Store interface {
	Probes(ctx context.Context) ([]Probe, error)
	Probe(ctx context.Context, id string) (Probe, error)
	// SaveProbe adds or replaces one. A name that another probe has is
	// controlbus.ErrConflict; more than MaxProbes is controlbus.ErrTooLarge.
	SaveProbe(ctx context.Context, p Probe) error
	DeleteProbe(ctx context.Context, id string) error
	// TakeTurn says whether a scheduled run is this console's to begin: none was
	// begun since the time given, by any of the consoles that share the store.
	TakeTurn(ctx context.Context, id string, now, since time.Time) (bool, error)
	// AddRun keeps a run, and of its probe the newest KeptRuns.
	AddRun(ctx context.Context, r Run) error
	// ProbeRuns are newest first; before is a run's ID, empty for the newest.
	ProbeRuns(ctx context.Context, probe, before string, limit int) ([]Run, error)
}
