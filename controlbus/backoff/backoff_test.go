package backoff_test

import (
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

// The mistake of clamping after the jitter gives every agent the same wait at
// the cap; this measures the spread there.
func TestJitterRemainsAtTheCap(t *testing.T) {
	t.Parallel()
	b := backoff.Backoff{Base: time.Second, Cap: time.Minute}
	for range 40 {
		b.Next()
	}
	var low, high int
	for range 10_000 {
		d := b.Next()
		if d < 0 || d >= time.Minute {
			t.Fatalf("wait %v is outside [0, 1m)", d)
		}
		switch {
		case d < 15*time.Second:
			low++
		case d >= 45*time.Second:
			high++
		}
	}
	for name, n := range map[string]int{"first": low, "last": high} {
		if n < 2200 || n > 2800 {
			t.Errorf("%s quarter of the minute got %d of 10,000 waits, want about 2,500", name, n)
		}
	}
}

func TestBoundDoublesAndResets(t *testing.T) {
	t.Parallel()
	for range 200 {
		b := backoff.Backoff{Base: time.Second, Cap: time.Minute}
		for _, bound := range []int{1, 2, 4, 8, 16, 32, 60, 60} {
			if d := b.Next(); d >= time.Duration(bound)*time.Second {
				t.Fatalf("wait %v, want less than %ds", d, bound)
			}
		}
		b.Reset()
		if d := b.Next(); d >= time.Second {
			t.Fatalf("wait %v after a reset, want less than 1s", d)
		}
	}
	b := backoff.Backoff{Base: time.Second, Cap: 10 * time.Second, Floor: 5 * time.Second}
	if d := b.Next(); d != 5*time.Second {
		t.Errorf("wait %v, want the floor of 5s", d)
	}
}
