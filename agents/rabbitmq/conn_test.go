package rabbitmq_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// All commands look at queues through the same connection: one that is cancelled
// while it looks must not take it from the others.
func TestACancelledLookHarmsNobody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	b.queue(t, "orders", "x", "topic", "#")
	cancelled := 0
	for range 60 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(5_000))*time.Microsecond)
		if _, err := a.Inspect(ctx, "orders"); err != nil {
			cancelled++
		}
		cancel()
		if _, err := a.Inspect(t.Context(), "orders"); err != nil {
			t.Fatalf("after %d that were cancelled: %v", cancelled, err)
		}
	}
	if cancelled == 0 {
		t.Error("none was cancelled: the test tests nothing")
	}
}
