package live

import (
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// matcher is a LiveQuery made ready: no allocation per event.
type matcher struct {
	q    controlbus.LiveQuery
	word string
}

func newMatcher(q controlbus.LiveQuery) matcher {
	q.Channels = slices.Clone(q.Channels)
	return matcher{q: q, word: strings.ToLower(q.Word)}
}

// place asks what depends on environment, broker and channel alone.
func (m *matcher) place(ev *controlbus.MessageEvent) bool {
	q := &m.q
	return (q.Env == "" || q.Env == ev.Env) && (q.Broker == "" || q.Broker == ev.Broker) && m.channel(ev.Destination)
}

// event asks the rest.
func (m *matcher) event(ev *controlbus.MessageEvent) bool {
	switch {
	case m.q.Failed && ev.Outcome == controlbus.OutcomeOK:
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
