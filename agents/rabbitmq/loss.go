package rabbitmq

// lossSample is one look at a tap's queue. The broker's counters are up to
// collect_statistics_interval (5 s) old; received is newer than both.
type lossSample struct {
	published int64 // routed into the queue, -1 unknown
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
	// unexplained counts samples since the queue was seen full in which the
	// counters told of no loss.
	full        bool
	unexplained int
}

// add returns how many losses to report now: n, 0, or -1 for an unknown number.
func (l *lossEstimate) add(s lossSample) int64 {
	if s.published >= 0 {
		if missing := s.published - s.received - s.held; missing > l.reported {
			n := missing - l.reported
			l.reported, l.full, l.unexplained = missing, false, 0
			return n
		}
	}
	l.full = l.full || s.full
	if !l.full || s.full && s.published >= 0 {
		return 0 // not full, or still full: the counters may yet tell
	}
	// It was full and no counter says what went: dead-lettered messages, for
	// one, are not counted as published.
	const patience = 3
	if l.unexplained++; l.unexplained < patience && s.published >= 0 {
		return 0
	}
	l.full, l.unexplained = false, 0
	return -1
}
