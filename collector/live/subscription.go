package live

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Subscription is one live tap: a place in its group's log. One goroutine calls
// Next.
type Subscription struct {
	group *group
	user  string
	born  time.Time
	wake  chan struct{} // holds one token while something may wait
	gone  chan struct{}
	once  sync.Once
	idle  *time.Timer

	// Guarded by the group's lock.
	hello   greeting
	at      int64 // number of the frame to take next
	told    tally // what the reader knows of
	catchUp int64 // a reader that came back may lag until it has admitted this many
}

// Next returns the next frame: JSON, shared with other readers, not to be
// changed. It blocks for at most patience, and returns nil when nothing came.
// It ends with controlbus.ErrUnavailable when the console stops and
// controlbus.ErrNotFound when the tap's lifetime is over or it was closed.
func (s *Subscription) Next(ctx context.Context, patience time.Duration) ([]byte, error) {
	if time.Since(s.born) > s.group.hub.cfg.Lifetime {
		return nil, fmt.Errorf("this tap was open for %v: %w", s.group.hub.cfg.Lifetime, controlbus.ErrNotFound)
	}
	if payload := s.take(); payload != nil {
		return payload, nil
	}
	if s.idle == nil {
		s.idle = time.NewTimer(patience)
	} else {
		s.idle.Reset(patience)
	}
	defer s.idle.Stop()
	for {
		select {
		case <-s.wake:
			if payload := s.take(); payload != nil {
				return payload, nil
			}
		case <-s.idle.C:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.gone:
			return nil, fmt.Errorf("tap closed: %w", controlbus.ErrNotFound)
		case <-s.group.hub.closed:
			return nil, fmt.Errorf("console is stopping: %w", controlbus.ErrUnavailable)
		}
	}
}

// take returns what is next for this reader, nil for nothing.
func (s *Subscription) take() []byte {
	g := s.group
	g.mu.Lock()
	defer g.mu.Unlock()
	end := g.first + int64(len(g.frames))
	s.at = max(s.at, g.first)
	if s.told.admitted >= s.catchUp {
		s.skip(end)
	}
	// before is what the reader should know of when it takes its next frame.
	before := g.sent
	if s.at < end {
		before = g.frames[s.at-g.first].from
	}
	switch lost := before.admitted - s.told.admitted; {
	case s.hello.due || lost > 0:
		lost = max(lost, 0)
		c := counts{matched: max(before.matched-s.told.matched, lost), dropped: lost}
		c.sampled = c.matched - lost
		hello := s.hello
		s.hello.due, s.told = false, before
		if hello.asked {
			if hello.known && lost == 0 {
				g.hub.resumed.Inc()
			} else {
				g.hub.resumedLate.Inc()
			}
		}
		g.hub.dropped.Add(int(lost))
		if hello.due {
			return appendGreeting(make([]byte, 0, 160), hello, c, g.token(before))
		}
		return appendFrame(make([]byte, 0, 128), nil, c, g.token(before))
	case s.at < end:
		f := &g.frames[s.at-g.first]
		s.at++
		s.told = f.to
		return f.payload
	}
	return nil
}

// skip passes over the oldest frames of a reader that lags too much. The newest
// is never passed over.
func (s *Subscription) skip(end int64) {
	g, cfg := s.group, &s.group.hub.cfg
	for s.at < end-1 {
		f := &g.frames[s.at-g.first]
		if g.sent.admitted-f.from.admitted <= int64(cfg.MaxRows) && g.sentB-f.fromB <= int64(cfg.MaxBytes) {
			return
		}
		s.at++
	}
}

func (s *Subscription) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close ends the tap. comesBack says that its reader was cut off and may want
// to go on where it was. Close may be called more than once.
func (s *Subscription) Close(comesBack bool) {
	s.once.Do(func() {
		close(s.gone)
		s.group.hub.leave(s, comesBack)
	})
}
