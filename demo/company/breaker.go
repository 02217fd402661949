package company

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errOpen is returned by breaker.do without a call having been made.
var errOpen = errors.New("circuit breaker is open")

// breakerState is where a breaker stands.
//
//	closed ──(half of the recent calls failed)──▶ open ──(open time is over)──▶ half_open
//	   ▲                                           ▲                               │
//	   └────────────(all trial calls went well)────┼───────────────────────────────┤
//	                                               └──────(a trial call failed)────┘
type breakerState string

const (
	breakerClosed   breakerState = "closed"
	breakerOpen     breakerState = "open"
	breakerHalfOpen breakerState = "half_open"
)

// breakerConfig says when a breaker opens and for how long.
type breakerConfig struct {
	Window       int           // recent calls that are looked at
	MinimumCalls int           // calls needed before a ratio means anything
	FailureRatio float64       // share of failures at which it opens
	OpenFor      time.Duration // time before trial calls are let through
	Trials       int           // trial calls that must go well before it closes
}

// breakerChange is one transition.
type breakerChange struct {
	From, To breakerState
	Reason   string // threshold, probe or timer
	Ratio    float64
	Calls    int
}

// breaker stops calls to something that keeps failing, so that it can recover
// and callers keep their messages where they can wait. It is count-based: it
// looks at the last Window calls.
type breaker struct {
	cfg      breakerConfig
	onChange func(breakerChange) // called without the lock, in order per caller

	mu       sync.Mutex
	state    breakerState
	until    time.Time // end of the open time
	recent   []bool    // ring, true is a failure
	next     int
	trying   int           // trial calls under way
	passed   int           // trial calls that went well
	epoch    int           // counts transitions; results of earlier epochs are ignored
	admitted chan struct{} // closed and replaced at each change that may admit callers
}

func newBreaker(cfg breakerConfig, onChange func(breakerChange)) *breaker {
	return &breaker{cfg: cfg, onChange: onChange, state: breakerClosed, admitted: make(chan struct{})}
}

// do calls fn if the breaker lets it, else returns errOpen. Whether an error of
// fn is a failure of the thing called is failed's decision.
func (b *breaker) do(ctx context.Context, fn func(context.Context) error, failed func(error) bool) error {
	epoch, ok := b.admit()
	if !ok {
		return errOpen
	}
	err := fn(ctx)
	if ctx.Err() != nil && err != nil {
		b.release(epoch) // we gave up, which says nothing about the other side
		return err
	}
	b.record(epoch, err != nil && failed(err))
	return err
}

// wait blocks until a call has a chance to be let through, or ctx ends.
func (b *breaker) wait(ctx context.Context) error {
	for {
		b.mu.Lock()
		free := b.state == breakerClosed || b.state == breakerHalfOpen && b.roomToTry() ||
			b.state == breakerOpen && !time.Now().Before(b.until)
		left, admitted := time.Until(b.until), b.admitted
		if b.state != breakerOpen {
			left = time.Hour // only a change can help
		}
		b.mu.Unlock()
		if free {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-admitted:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		timer.Stop()
	}
}

// now returns the state and the share of failures among the recent calls;
// known is false before there were enough of them.
func (b *breaker) now() (state breakerState, ratio float64, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state, b.ratio(), len(b.recent) >= b.cfg.MinimumCalls
}

func (b *breaker) admit() (epoch int, ok bool) {
	b.mu.Lock()
	var change *breakerChange
	switch {
	case b.state == breakerClosed:
		ok = true
	case b.state == breakerOpen && !time.Now().Before(b.until):
		change = b.turn(breakerHalfOpen, "timer")
		b.trying, ok = b.trying+1, true
	case b.state == breakerHalfOpen && b.roomToTry():
		b.trying, ok = b.trying+1, true
	}
	epoch = b.epoch
	b.mu.Unlock()
	b.tell(change)
	return epoch, ok
}

func (b *breaker) record(epoch int, failure bool) {
	b.mu.Lock()
	var change *breakerChange
	switch {
	case epoch != b.epoch:
		// A call that began before the last transition; its outcome is history.
	case b.state == breakerHalfOpen && failure:
		change = b.turn(breakerOpen, "probe")
	case b.state == breakerHalfOpen:
		b.trying--
		if b.passed++; b.passed >= b.cfg.Trials {
			change = b.turn(breakerClosed, "probe")
		}
	default:
		if len(b.recent) < b.cfg.Window {
			b.recent = append(b.recent, failure)
		} else {
			b.recent[b.next] = failure
			b.next = (b.next + 1) % b.cfg.Window
		}
		if len(b.recent) >= b.cfg.MinimumCalls && b.ratio() >= b.cfg.FailureRatio {
			change = b.turn(breakerOpen, "threshold")
		}
	}
	b.mu.Unlock()
	b.tell(change)
}

// release gives a trial back that ended without a verdict.
func (b *breaker) release(epoch int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if epoch == b.epoch && b.state == breakerHalfOpen {
		b.trying--
		b.wake()
	}
}

// turn changes the state. The caller holds the lock.
func (b *breaker) turn(to breakerState, reason string) *breakerChange {
	change := &breakerChange{From: b.state, To: to, Reason: reason, Ratio: b.ratio(), Calls: len(b.recent)}
	b.state, b.trying, b.passed = to, 0, 0
	b.epoch++
	switch to {
	case breakerOpen:
		b.until = time.Now().Add(b.cfg.OpenFor)
	case breakerClosed:
		b.recent, b.next = b.recent[:0], 0
	}
	b.wake()
	return change
}

// roomToTry says whether another trial call is wanted. The caller holds the lock.
func (b *breaker) roomToTry() bool { return b.trying+b.passed < b.cfg.Trials }

func (b *breaker) wake() {
	close(b.admitted)
	b.admitted = make(chan struct{})
}

func (b *breaker) ratio() float64 {
	if len(b.recent) == 0 {
		return 0
	}
	n := 0
	for _, failure := range b.recent {
		if failure {
			n++
		}
	}
	return float64(n) / float64(len(b.recent))
}

func (b *breaker) tell(change *breakerChange) {
	if change != nil && b.onChange != nil {
		b.onChange(*change)
	}
}
