package company

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestBreakerOpensTriesAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var got []string
		b := newBreaker(breakerConfig{Window: 10, MinimumCalls: 4, FailureRatio: .5, OpenFor: 5 * time.Second, Trials: 1},
			func(c breakerChange) { got = append(got, string(c.From)+" "+string(c.To)+" "+c.Reason) })
		calls := 0
		call := func(result error) error {
			return b.do(t.Context(), func(context.Context) error { calls++; return result },
				func(error) bool { return true })
		}
		broken := errors.New("broken")
		for _, result := range []error{nil, nil, broken, broken} {
			if err := call(result); !errors.Is(err, result) {
				t.Errorf("closed: got %v, want the call's own %v", err, result)
			}
		}
		if err := call(nil); !errors.Is(err, errOpen) || calls != 4 {
			t.Errorf("open: got %v after %d calls, want errOpen after 4", err, calls)
		}
		begin := time.Now()
		if err := b.wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(begin); waited != 5*time.Second {
			t.Errorf("waited %v for the trial, want 5s", waited)
		}
		_ = call(broken) // the trial fails: open again
		if err := call(nil); !errors.Is(err, errOpen) {
			t.Errorf("after a failed trial: got %v, want errOpen", err)
		}
		time.Sleep(5 * time.Second)
		if err := call(nil); err != nil {
			t.Errorf("second trial: got %v, want it let through", err)
		}
		// What failed before it closed is forgotten: one failure must not open it.
		for range 3 {
			_ = call(nil)
		}
		_ = call(broken)
		want := []string{"closed open threshold", "open half_open timer", "half_open open probe",
			"open half_open timer", "half_open closed probe"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("transitions (-want +got):\n%s", diff)
		}
	})
}

func TestBreakerLetsOneTrialThroughAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(breakerConfig{Window: 1, MinimumCalls: 1, FailureRatio: 1, OpenFor: time.Second, Trials: 1}, nil)
		broken := errors.New("broken")
		always := func(error) bool { return true }
		_ = b.do(t.Context(), func(context.Context) error { return broken }, always)
		time.Sleep(time.Second)

		answer := make(chan error)
		trial := make(chan error, 1)
		go func() {
			trial <- b.do(t.Context(), func(context.Context) error { return <-answer }, always)
		}()
		synctest.Wait()
		if err := b.do(t.Context(), func(context.Context) error { return nil }, always); !errors.Is(err, errOpen) {
			t.Errorf("beside the trial: got %v, want errOpen", err)
		}
		freed := make(chan error, 1)
		go func() { freed <- b.wait(t.Context()) }()
		synctest.Wait()
		select {
		case <-freed:
			t.Error("wait returned while the trial was under way")
		default:
		}
		answer <- nil
		if err := <-trial; err != nil {
			t.Errorf("trial: got %v", err)
		}
		if err := <-freed; err != nil {
			t.Errorf("wait after the trial: got %v", err)
		}
	})
}

func TestBreakerClosesAfterAllTrials(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(breakerConfig{Window: 1, MinimumCalls: 1, FailureRatio: 1, OpenFor: time.Second, Trials: 3}, nil)
		always := func(error) bool { return true }
		_ = b.do(t.Context(), func(context.Context) error { return errors.New("broken") }, always)
		time.Sleep(time.Second)
		answer, results := make(chan error), make(chan error, 4)
		for range 4 {
			go func() {
				results <- b.do(t.Context(), func(context.Context) error { return <-answer }, always)
			}()
		}
		if err := <-results; !errors.Is(err, errOpen) {
			t.Errorf("fourth beside three trials: got %v, want errOpen", err)
		}
		for i := range 3 {
			if state, _, _ := b.now(); state != breakerHalfOpen {
				t.Errorf("after %d trials: got %v, want half_open", i, state)
			}
			answer <- nil
			<-results
		}
		if state, _, _ := b.now(); state != breakerClosed {
			t.Errorf("after all trials: got %v, want closed", state)
		}
	})
}

func TestBreakerForgetsAbandonedCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(breakerConfig{Window: 1, MinimumCalls: 1, FailureRatio: 1, OpenFor: time.Second, Trials: 1}, nil)
		always := func(error) bool { return true }
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		_ = b.do(gone, func(ctx context.Context) error { return ctx.Err() }, always)
		if state, _, _ := b.now(); state != breakerClosed {
			t.Errorf("after a call its caller gave up: got %v, want closed", state)
		}
		_ = b.do(t.Context(), func(context.Context) error { return errors.New("broken") }, always)
		time.Sleep(time.Second)
		_ = b.do(gone, func(ctx context.Context) error { return ctx.Err() }, always)
		if err := b.do(t.Context(), func(context.Context) error { return nil }, always); err != nil {
			t.Errorf("after an abandoned trial: got %v, want another trial", err)
		}
	})
}
