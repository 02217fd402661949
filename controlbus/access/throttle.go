package access

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Limits of tries to sign in.
const (
	triesPerMinute = 5
	triesWindow    = time.Minute
	firstBlock     = time.Minute
	// longestBlock is short enough that a stranger who knows a name cannot lock
	// its owner out for a day.
	longestBlock = 15 * time.Minute
	forgetAfter  = time.Hour
	maxThrottled = 20000 // keys held; beyond, the one tried longest ago is let go
)

// ThrottledError says when to try again. It is controlbus.ErrOverloaded.
type ThrottledError struct{ After time.Duration }

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many tries: try again in %v", e.After.Round(time.Second))
}

// Is makes errors.Is(err, controlbus.ErrOverloaded) true.
func (e *ThrottledError) Is(target error) bool { return target == controlbus.ErrOverloaded }

// throttle counts tries by key. A key gets five a minute; the one after blocks
// it, and each block that follows lasts twice as long. Tries count before their
// outcome is known, so that many at once gain nothing.
type throttle struct {
	mu   sync.Mutex
	keys map[string]*tries
}

type tries struct {
	at      []time.Time // within the window
	blocks  int         // in a row
	blocked time.Time   // until
	last    time.Time
}

func newThrottle() *throttle { return &throttle{keys: map[string]*tries{}} }

// try takes one try of each key, or of none: then it says how long to wait, and
// whether a block began just now.
func (t *throttle) try(keys ...string) (wait time.Duration, began bool) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := make([]*tries, len(keys))
	for i, k := range keys {
		e := t.entry(k, now)
		entries[i] = e
		if left := e.blocked.Sub(now); left > 0 {
			wait = max(wait, left)
		}
	}
	if wait > 0 {
		return wait, false
	}
	for _, e := range entries {
		if len(e.at) >= triesPerMinute {
			d := min(firstBlock<<min(e.blocks, 10), longestBlock)
			e.blocks++
			e.blocked, e.at = now.Add(d), nil
			wait, began = max(wait, d), true
		}
	}
	if began {
		return wait, true
	}
	for _, e := range entries {
		e.at = append(e.at, now)
	}
	return 0, false
}

func (t *throttle) entry(key string, now time.Time) *tries {
	e := t.keys[key]
	if e == nil || now.Sub(e.last) > forgetAfter {
		if e == nil && len(t.keys) >= maxThrottled {
			t.evict(now)
		}
		e = &tries{}
		t.keys[key] = e
	}
	e.last = now
	fresh := e.at[:0]
	for _, at := range e.at {
		if now.Sub(at) < triesWindow {
			fresh = append(fresh, at)
		}
	}
	e.at = fresh
	return e
}

func (t *throttle) evict(now time.Time) {
	oldest, when, free := "", now, false
	for k, e := range t.keys {
		if now.Sub(e.last) > forgetAfter {
			delete(t.keys, k)
			continue
		}
		// One that is not blocked goes before one that is.
		if f := !e.blocked.After(now); oldest == "" || f && !free || f == free && e.last.Before(when) {
			oldest, when, free = k, e.last, f
		}
	}
	if len(t.keys) >= maxThrottled {
		delete(t.keys, oldest)
	}
}

// succeed forgives an account its tries, and gives the address back the one
// that was no guess. The address keeps the others: who has one account must not
// try all others with it.
func (t *throttle) succeed(account, address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, account)
	if e := t.keys[address]; e != nil && len(e.at) > 0 {
		e.at = e.at[:len(e.at)-1]
	}
}

func accountKey(name string) string { return "account " + strings.ToLower(name) }

// addressKey takes an IPv6 address by its network: one host has 2^64 of them.
func addressKey(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return "address " + address
	}
	if ip = ip.Unmap(); ip.Is6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return "address " + p.String()
		}
	}
	return "address " + ip.String()
}
