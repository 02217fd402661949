package live

import (
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// matcher is a LiveQuery made ready: no allocation per event.
type matcher struct {
	q      controlbus.LiveQuery
	filter *filter.Filter // nil: everything
}

// newMatcher reads the filter. Errors are ErrInvalid with the position.
func newMatcher(q controlbus.LiveQuery, now time.Time) (matcher, error) {
	f, err := filter.Parse(q.Filter, now)
	if err != nil {
		return matcher{}, err
	}
	if f.Empty() {
		f = nil
	}
	q.Channels = slices.Clone(q.Channels)
	slices.Sort(q.Channels)
	q.Channels = slices.Compact(q.Channels)
	return matcher{q: q, filter: f}, nil
}

// sight is what a reader sees of a channel.
type sight uint8

const (
	nothing  sight = iota
	metadata       // everything but payloads
	whole
)

// place asks what depends on environment and channel alone.
func (m *matcher) place(env, channel string) sight {
	q := &m.q
	switch {
	case q.Env != "" && q.Env != env, !m.channel(channel), !q.Scope.Allows(env, channel):
		return nothing
	case !q.Bodies.Allows(env, channel):
		return metadata
	}
	return whole
}

func (m *matcher) channel(name string) bool {
	if len(m.q.Channels) == 0 {
		return true
	}
	for _, pattern := range m.q.Channels {
		if controlbus.MatchPattern(pattern, name) {
			return true
		}
	}
	return false
}
