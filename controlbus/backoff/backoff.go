// Package backoff spreads retries over time: exponential, full jitter, and the
// jitter after the cap, so that a thousand agents that lost the same console
// do not come back in the same second for ever.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff counts failures in a row. Its zero value is not usable; set Base and
// Cap. One goroutine uses it at a time.
type Backoff struct {
	Base  time.Duration // upper bound of the wait after the first failure
	Cap   time.Duration // upper bound of every wait
	Floor time.Duration // lower bound of every wait

	failures int
}

// Next returns how long to wait after one more failure: anything between Floor
// and the bound with equal chance.
func (b *Backoff) Next() time.Duration {
	bound := b.Cap
	if shift := b.failures; shift < 32 {
		if d := b.Base << shift; d > 0 && d>>shift == b.Base && d < b.Cap {
			bound = d
		}
	}
	b.failures++
	if bound <= b.Floor {
		return b.Floor
	}
	return b.Floor + rand.N(bound-b.Floor)
}

// Reset is called after a success.
func (b *Backoff) Reset() { b.failures = 0 }

// Failures is how many came in a row.
func (b *Backoff) Failures() int { return b.failures }

// Sleep waits for d and returns false when ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
