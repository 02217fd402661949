package rabbitmq

import "time"

// lossPatience is how long the counters may take to tell of a loss: three
// statistics intervals. The broker emits those of the queue and those of the
// channel that published on timers of their own.
const lossPatience = 15 * time.Second

// lossSample is one look at a tap's queue. The broker's counters are up to
// collect_statistics_interval (5 s) old; received is newer than both.
type lossSample struct {
	at        time.Time
	published int64 // routed into the queue, -1 unknown: the broker has not counted yet, or never does
	held      int64 // ready and unacknowledged
	received  int64 // deliveries the agent has taken
	full      bool  // the queue was seen at one of its limits
}

// lossEstimate finds what drop-head took, which the broker does not count:
// published - received - held. Since received is newer than published, and a
// message may be in received and in an old held at once, every error makes the
// difference too small: it is a lower bound at any time, and exact once the
// queue has been quiet for a statistics interval. Only its growth is reported.
type lossEstimate struct {
	reported int64
	// full is since when the queue, seen full, should have had its loss told by
	// the counters; zero: it was not full, or they told.
	full time.Time
}

// add returns how many losses to report now: n, 0, or -1 for an unknown number.
func (l *lossEstimate) add(s lossSample) int64 {
	if s.published >= 0 {
		if missing := s.published - s.received - s.held; missing > l.reported {
			n := missing - l.reported
			l.reported, l.full = missing, time.Time{}
			return n
		}
	}
	// While the queue is full the counters may yet tell.
	if s.full && (s.published >= 0 || l.full.IsZero()) {
		l.full = s.at
	}
	if l.full.IsZero() || s.at.Sub(l.full) < lossPatience {
		return 0
	}
	// No counter says what went: dead-lettered messages, for one, are not counted
	// as published.
	l.full = time.Time{}
	return -1
}

// end is what is still to be reported when the tap ends: -1 where its queue was
// full and the counters have not told.
func (l *lossEstimate) end() int64 {
	if l.full.IsZero() {
		return 0
	}
	return -1
}
