package live

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Subscription is one live tap: a ring bounded by rows and bytes that drops its
// oldest events.
type Subscription struct {
	hub   *Hub
	user  string
	match matcher
	born  time.Time
	wake  chan struct{} // holds one token while something waits
	gone  chan struct{}
	once  sync.Once

	mu      sync.Mutex
	ring    []*controlbus.MessageEvent
	bytes   int
	matched int64
	sampled int64
	dropped int64
	// The rate limit counts in windows of one second. keep is "1 of keep",
	// chosen from the second before.
	window    time.Time
	inWindow  int64
	keep      int64
	lastFrame time.Time
}

func newSubscription(h *Hub, m matcher, o Options) *Subscription {
	now := time.Now()
	return &Subscription{
		hub: h, user: o.User, match: m, born: now, window: now, keep: 1,
		wake: make(chan struct{}, 1), gone: make(chan struct{}),
	}
}

// offer keeps what matches. copies[i] is the copy of events[i], made by the
// first subscription that wants it.
func (s *Subscription) offer(now time.Time, events, copies []*controlbus.MessageEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, ev := range events {
		if !s.match.event(ev) {
			continue
		}
		s.matched++
		if !s.admit(now) {
			s.sampled++
			continue
		}
		if copies[i] == nil {
			copies[i] = preview(ev, s.hub.cfg.BodyPreview)
		}
		s.push(copies[i])
	}
	if s.matched > 0 {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// admit is the "1 of n" sampling: n is what would have brought the second
// before down to the limit, so the choice is even instead of a burst at the
// start of each second. Within a second the limit still holds.
func (s *Subscription) admit(now time.Time) bool {
	limit := int64(s.hub.cfg.MaxRate)
	if now.Sub(s.window) >= time.Second {
		s.keep = max(1, (s.inWindow+limit-1)/limit)
		s.window, s.inWindow = now, 0
	}
	s.inWindow++
	return s.inWindow%s.keep == 0 && s.inWindow/s.keep <= limit
}

func (s *Subscription) push(ev *controlbus.MessageEvent) {
	size := weight(ev)
	for len(s.ring) > 0 && (len(s.ring) >= s.hub.cfg.MaxRows || s.bytes+size > s.hub.cfg.MaxBytes) {
		s.bytes -= weight(s.ring[0])
		s.ring[0] = nil
		s.ring = s.ring[1:]
		s.dropped++
	}
	s.ring = append(s.ring, ev)
	s.bytes += size
}

// Next blocks until there is something to show and the frame interval has
// passed since the frame before, or until a second went by, when it returns an
// empty frame so that the reader knows the tap is alive. It ends with
// controlbus.ErrUnavailable when the console stops and controlbus.ErrNotFound
// when the tap's lifetime is over or it was closed. One goroutine calls it.
func (s *Subscription) Next(ctx context.Context) (controlbus.LiveFrame, error) {
	idle := time.NewTimer(time.Second)
	defer idle.Stop()
	select {
	case <-s.wake:
	case <-idle.C:
	case <-ctx.Done():
		return controlbus.LiveFrame{}, ctx.Err()
	case <-s.gone:
		return controlbus.LiveFrame{}, fmt.Errorf("live: tap closed: %w", controlbus.ErrNotFound)
	case <-s.hub.closed:
		return controlbus.LiveFrame{}, fmt.Errorf("live: console is stopping: %w", controlbus.ErrUnavailable)
	}
	if wait := s.hub.cfg.FrameInterval - time.Since(s.lastFrame); wait > 0 {
		pace := time.NewTimer(wait)
		defer pace.Stop()
		select {
		case <-pace.C:
		case <-ctx.Done():
			return controlbus.LiveFrame{}, ctx.Err()
		}
	}
	if time.Since(s.born) > s.hub.cfg.Lifetime {
		return controlbus.LiveFrame{}, fmt.Errorf("live: tap was open for %v: %w", s.hub.cfg.Lifetime, controlbus.ErrNotFound)
	}
	s.lastFrame = time.Now()

	s.mu.Lock()
	defer s.mu.Unlock()
	frame := controlbus.LiveFrame{Events: s.ring, Matched: s.matched, Sampled: s.sampled, Dropped: s.dropped}
	s.ring, s.bytes, s.matched, s.sampled, s.dropped = nil, 0, 0, 0, 0
	return frame, nil
}

// Close ends the tap. It may be called more than once.
func (s *Subscription) Close() {
	s.once.Do(func() {
		close(s.gone)
		s.hub.remove(s)
	})
}

// preview copies an event whose strings are views, with its body cut.
func preview(ev *controlbus.MessageEvent, bodyLimit int) *controlbus.MessageEvent {
	cut := *ev
	if len(cut.Body) > bodyLimit {
		cut.Body, cut.Truncated = cut.Body[:bodyLimit], true
	}
	return cut.Clone()
}

// weight is roughly what an event occupies.
func weight(ev *controlbus.MessageEvent) int {
	n := 400 + len(ev.Body) + len(ev.Destination) + len(ev.MessageID) + len(ev.CorrelationID)
	for _, h := range ev.Headers {
		n += 32 + len(h.Key) + len(h.Value)
	}
	return n
}

// matcher is a LiveQuery made ready: no allocation per event.
type matcher struct {
	q    controlbus.LiveQuery
	word string
}

func newMatcher(q controlbus.LiveQuery) matcher { return matcher{q: q, word: strings.ToLower(q.Word)} }

func (m matcher) event(ev *controlbus.MessageEvent) bool {
	q := &m.q
	switch {
	case q.Env != "" && q.Env != ev.Env,
		q.Broker != "" && q.Broker != ev.Broker,
		q.Channel != "" && !controlbus.MatchPattern(q.Channel, ev.Destination),
		q.Failed && ev.Outcome == controlbus.OutcomeOK:
		return false
	case m.word == "":
		return true
	}
	if containsFold(ev.Body, m.word) || containsFold(ev.MessageID, m.word) || containsFold(ev.CorrelationID, m.word) {
		return true
	}
	for _, h := range ev.Headers {
		if containsFold(h.Value, m.word) {
			return true
		}
	}
	return false
}

// containsFold reports whether s holds word, which is lower case already;
// ASCII letters of s are folded, other bytes must be equal.
func containsFold[T string | []byte](s T, word string) bool {
	for i := 0; i+len(word) <= len(s); i++ {
		j := 0
		for j < len(word) && lower(s[i+j]) == word[j] {
			j++
		}
		if j == len(word) {
			return true
		}
	}
	return false
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
