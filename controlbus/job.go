package controlbus

import (
	"fmt"
	"time"
)

// JobOptions are how a bulk command sends: replay, redrive, discard, and the
// undo of a purge.
type JobOptions struct {
	// Rate is messages per second; 0 is as fast as the broker confirms. It can be
	// changed while the job runs.
	Rate float64 `json:"rate,omitempty"`
	// Ramp is the canary: so many messages, a look at what became of them, then
	// the next step. After its last step the rest goes.
	Ramp []int64 `json:"ramp,omitempty"`
	// Settle is how long the job waits after each step before it looks; 0 means
	// DefaultSettle.
	Settle time.Duration `json:"settle_ns,omitempty"`
	// StopRatio ends the job when more than this share of what it tried has come
	// back dead, counting each dead letter that arrives meanwhile, or could not be
	// sent; 0 never does. It is looked at from StopMin messages on.
	StopRatio float64 `json:"stop_ratio,omitempty"`
	StopMin   int64   `json:"stop_min,omitempty"`
	// Max is the most messages to take; 0 takes what the preview counted.
	Max int64 `json:"max,omitempty"`
}

// DefaultSettle is how long consumers get to fail on a canary's messages.
const DefaultSettle = 2 * time.Second

// DefaultRamp is what a dialog offers.
func DefaultRamp() []int64 { return []int64{1, 10, 100} }

// Check says what is wrong with the options. Errors are ErrInvalid.
func (o JobOptions) Check() error {
	switch {
	case o.Rate < 0 || o.Rate > 1e6 || o.Rate != o.Rate:
		return fmt.Errorf("%w: rate %v: want 0 to 1000000 messages per second", ErrInvalid, o.Rate)
	case len(o.Ramp) > 10:
		return fmt.Errorf("%w: ramp of %d steps: at most 10", ErrInvalid, len(o.Ramp))
	case o.Settle < 0 || o.Settle > time.Hour:
		return fmt.Errorf("%w: settle %v: want 0 to 1h", ErrInvalid, o.Settle)
	case o.StopRatio < 0 || o.StopRatio > 1 || o.StopRatio != o.StopRatio:
		return fmt.Errorf("%w: stop ratio %v: want 0 to 1", ErrInvalid, o.StopRatio)
	case o.StopMin < 0 || o.Max < 0:
		return fmt.Errorf("%w: want numbers of messages, have %d and %d", ErrInvalid, o.StopMin, o.Max)
	}
	for _, n := range o.Ramp {
		if n <= 0 {
			return fmt.Errorf("%w: ramp step %d: want 1 or more", ErrInvalid, n)
		}
	}
	return nil
}

// JobControl is what people want of a running job now. It is a state, not an
// event: the one with the largest Seq counts, however often it is told. Seq 0 is
// what JobOptions say.
type JobControl struct {
	Seq    int64   `json:"seq"`
	Rate   float64 `json:"rate"` // as in JobOptions
	Paused bool    `json:"paused,omitempty"`
}

// JobState is what a job tells with its progress.
type JobState struct {
	Sent     int64   `json:"sent"`     // confirmed by the destination's broker
	Refailed int64   `json:"refailed"` // dead letters that arrived in the channel since it began
	Step     int     `json:"step"`     // of the ramp; len(Ramp) when past it
	Rate     float64 `json:"rate"`     // messages per second, lately
	Paused   bool    `json:"paused,omitempty"`
	Settling bool    `json:"settling,omitempty"` // waits to see what becomes of a step
	// Control is the newest JobControl that the job obeys.
	Control int64 `json:"control"`
}
