package agenttest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Sink is a TapSink that keeps everything.
type Sink struct {
	mu      sync.Mutex
	events  []*controlbus.MessageEvent
	pos     []agents.Position
	begun   agents.Position
	lost    int64
	unknown bool
	blind   time.Duration
	changed chan struct{} // closed and made anew at every Put
}

// NewSink returns an empty sink.
func NewSink() *Sink { return &Sink{changed: make(chan struct{})} }

// Put keeps the event.
func (s *Sink) Put(_ context.Context, ev *controlbus.MessageEvent, pos agents.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events, s.pos = append(s.events, ev), append(s.pos, pos)
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// Begin keeps where the tap begins.
func (s *Sink) Begin(_ context.Context, pos agents.Position) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = pos
	return nil
}

// Begun is what Begin was told last.
func (s *Sink) Begun() agents.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.begun
}

// LostByBroker adds up what the tap reported.
func (s *Sink) LostByBroker(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < 0 {
		s.unknown = true
		return
	}
	s.lost += n
}

// Blind adds up what the tap reported.
func (s *Sink) Blind(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blind += d
}

// Events returns what has been put so far.
func (s *Sink) Events() []*controlbus.MessageEvent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[:len(s.events):len(s.events)]
}

// Positions returns the positions of Events.
func (s *Sink) Positions() []agents.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos[:len(s.pos):len(s.pos)]
}

// Lost is what the broker dropped, -1 where that is unknown.
func (s *Sink) Lost() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unknown {
		return -1
	}
	return s.lost
}

// BlindTime is the time the tap said it was not attached.
func (s *Sink) BlindTime() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blind
}

// Wait returns once n events are there, and false when ctx ended first.
func (s *Sink) Wait(ctx context.Context, n int) bool {
	for {
		s.mu.Lock()
		have, changed := len(s.events), s.changed
		s.mu.Unlock()
		if have >= n {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (s *Sink) wait(t *testing.T, patience time.Duration, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if !s.Wait(ctx, n) {
		t.Fatalf("%d of %d messages after %v", len(s.Events()), n, patience)
	}
}
