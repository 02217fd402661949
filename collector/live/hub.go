// Package live is the fan-out of live taps: every passing batch is matched once
// per subscriber and kept in that subscriber's bounded ring, from which a socket
// takes frames at its own pace. A slow reader loses its oldest events, counted;
// it never slows ingest or another reader. The collector publishes, ui/live
// subscribes; nothing here knows about sockets.
package live

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Config is the "live" section of the configuration file.
type Config struct {
	MaxTaps        int           `yaml:"max_taps"`          // of all users together
	MaxTapsPerUser int           `yaml:"max_taps_per_user"` //
	MaxRows        int           `yaml:"max_rows"`          // waiting per tap
	MaxBytes       int           `yaml:"max_bytes"`         // waiting per tap
	MaxRate        int           `yaml:"max_rate"`          // events per second and tap; above it "1 of n" is shown
	BodyPreview    int           `yaml:"body_preview"`      // bytes of a body that a frame carries
	FrameInterval  time.Duration `yaml:"frame_interval"`
	Lifetime       time.Duration `yaml:"lifetime"` // of one tap; the page opens a new one
}

// DefaultConfig suits a console of some dozens of people.
func DefaultConfig() Config {
	return Config{
		MaxTaps: 10_000, MaxTapsPerUser: 50,
		MaxRows: 1_000, MaxBytes: 1 << 20, MaxRate: 500, BodyPreview: 2 << 10,
		FrameInterval: 200 * time.Millisecond, Lifetime: time.Hour,
	}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		key  string
		have int
	}{
		{"max_taps", c.MaxTaps}, {"max_taps_per_user", c.MaxTapsPerUser}, {"max_rows", c.MaxRows},
		{"max_bytes", c.MaxBytes}, {"max_rate", c.MaxRate},
	} {
		if f.have <= 0 {
			errs = append(errs, fmt.Errorf("%s: want a positive number, have %d", f.key, f.have))
		}
	}
	if c.BodyPreview < 0 {
		errs = append(errs, fmt.Errorf("body_preview: want 0 or more bytes, have %d", c.BodyPreview))
	}
	if c.FrameInterval < 100*time.Millisecond || c.FrameInterval > 250*time.Millisecond {
		errs = append(errs, fmt.Errorf("frame_interval: want 100ms to 250ms, have %v", c.FrameInterval))
	}
	if c.Lifetime <= 0 {
		errs = append(errs, fmt.Errorf("lifetime: want a positive duration, have %v", c.Lifetime))
	}
	return errors.Join(errs...)
}

// Hub knows the open live taps. Its methods may be called concurrently.
type Hub struct {
	cfg    Config
	active atomic.Int64 // read without the lock on every batch
	closed chan struct{}

	mu      sync.RWMutex
	subs    map[*Subscription]struct{}
	perUser map[string]int
	shut    bool
}

// NewHub starts nothing; it has no goroutines.
func NewHub(cfg Config) *Hub {
	return &Hub{
		cfg:     cfg,
		closed:  make(chan struct{}),
		subs:    make(map[*Subscription]struct{}),
		perUser: make(map[string]int),
	}
}

// Options of one live tap.
type Options struct {
	// User is whose cap it counts against; empty where people are not told apart,
	// then only the cap of all together holds.
	User string
}

// Subscribe opens a live tap. It is refused with controlbus.ErrOverloaded when a cap
// is reached, with controlbus.ErrUnavailable when the console is stopping. The
// caller closes the subscription.
func (h *Hub) Subscribe(q controlbus.LiveQuery, o Options) (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.shut:
		return nil, fmt.Errorf("live: subscribe: console is stopping: %w", controlbus.ErrUnavailable)
	case len(h.subs) >= h.cfg.MaxTaps:
		return nil, fmt.Errorf("live: subscribe: %d live taps are open, the most this console allows: %w", len(h.subs), controlbus.ErrOverloaded)
	case o.User != "" && h.perUser[o.User] >= h.cfg.MaxTapsPerUser:
		return nil, fmt.Errorf("live: subscribe: you have %d live taps open, the most one person may have; close one: %w", h.perUser[o.User], controlbus.ErrOverloaded)
	}
	s := newSubscription(h, newMatcher(q), o)
	h.subs[s] = struct{}{}
	h.perUser[o.User]++
	h.active.Store(int64(len(h.subs)))
	return s, nil
}

// Active says whether anybody watches; the collector skips decoding for live
// taps when nobody does.
func (h *Hub) Active() bool { return h.active.Load() > 0 }

// Taps is the number of open live taps.
func (h *Hub) Taps() int { return int(h.active.Load()) }

// Publish offers a batch to every live tap. It never blocks on a reader.
// The events may be views: what matched is copied before Publish returns, once
// for all taps that match it.
func (h *Hub) Publish(events []*controlbus.MessageEvent) {
	if len(events) == 0 || !h.Active() {
		return
	}
	now := time.Now()
	copies := make([]*controlbus.MessageEvent, len(events))
	h.mu.RLock()
	defer h.mu.RUnlock()
	for s := range h.subs {
		s.offer(now, events, copies)
	}
}

// Close ends every live tap and refuses new ones.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.shut {
		h.shut = true
		close(h.closed)
	}
}

func (h *Hub) remove(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, open := h.subs[s]; !open {
		return
	}
	delete(h.subs, s)
	if h.perUser[s.user]--; h.perUser[s.user] == 0 {
		delete(h.perUser, s.user)
	}
	h.active.Store(int64(len(h.subs)))
}
