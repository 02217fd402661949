package access

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestFiveTriesAMinuteThenLongerAndLonger(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		for round, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 15 * time.Minute, 15 * time.Minute} {
			for i := range triesPerMinute {
				if wait, _ := th.try("account a"); wait != 0 {
					t.Fatalf("round %d, try %d: got %v to wait", round, i, wait)
				}
			}
			wait, began := th.try("account a")
			if wait != want || !began {
				t.Errorf("round %d: got %v, began %v; want %v", round, wait, began, want)
			}
			time.Sleep(want - time.Second)
			if wait, began := th.try("account a"); wait != time.Second || began {
				t.Errorf("round %d, a second before the end: got %v, began %v", round, wait, began)
			}
			if wait, _ := th.try("account b"); wait != 0 {
				t.Errorf("round %d: another account waits %v", round, wait)
			}
			time.Sleep(time.Second)
		}
		// Slower than the limit is never blocked, and an hour forgets.
		time.Sleep(forgetAfter + time.Second)
		for i := range 50 {
			if wait, _ := th.try("account a"); wait != 0 {
				t.Fatalf("slow try %d waits %v", i, wait)
			}
			time.Sleep(13 * time.Second)
		}
	})
}

func TestSuccessForgivesTheAccountNotTheAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		// Somebody with an account of their own guesses at others in between.
		guesses := 0
		for range 20 {
			if wait, _ := th.try("account mine", "address x"); wait > 0 {
				break
			}
			th.succeed("account mine", "address x")
			if wait, _ := th.try(fmt.Sprint("account victim", guesses), "address x"); wait > 0 {
				break
			}
			guesses++
		}
		if guesses > triesPerMinute {
			t.Errorf("guesses from one address in a moment: got %d, want at most %d", guesses, triesPerMinute)
		}
	})
}

func TestAnAddressIsItsNetworkInIPv6(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b string }{
		{"2001:db8:1:2:3::1", "2001:db8:1:2:ffff::9"}, {"::ffff:192.0.2.1", "192.0.2.1"}, {"fe80::1%eth0", "fe80::2"},
	} {
		if addressKey(c.a) != addressKey(c.b) {
			t.Errorf("%s and %s: got different keys", c.a, c.b)
		}
	}
	if addressKey("192.0.2.1") == addressKey("192.0.2.2") {
		t.Error("two hosts share a key")
	}
}

func TestTheThrottleIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle()
		for range triesPerMinute + 1 {
			th.try("account blocked")
		}
		for i := range maxThrottled + 50 {
			th.try(fmt.Sprint("account ", i))
		}
		if len(th.keys) > maxThrottled {
			t.Errorf("keys: got %d, want at most %d", len(th.keys), maxThrottled)
		}
		if wait, _ := th.try("account blocked"); wait == 0 {
			t.Error("a flood of names freed the one that was blocked")
		}
	})
}
