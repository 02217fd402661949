package live

import (
	"fmt"
	"net/url"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// What one live tap may ask for.
const (
	MaxChannels = 50  // patterns
	MaxName     = 500 // characters of a name or a pattern

	maxToken = 200
)

// Query reads a live tap's selection, and the token of a reader that comes
// back, from a URL. Errors are ErrInvalid and name the parameter.
func Query(v url.Values) (controlbus.LiveQuery, string, error) {
	q := controlbus.LiveQuery{Env: v.Get("env"), Filter: v.Get("filter")}
	for name := range v {
		switch name {
		case "env", "channel", "filter", "form", "resume":
		default:
			return q, "", fmt.Errorf("%w: %.40q is no parameter of a live tap: want channel, env, filter, form or resume", controlbus.ErrInvalid, name)
		}
	}
	for _, c := range v["channel"] {
		if c != "" {
			q.Channels = append(q.Channels, c)
		}
	}
	if len(q.Channels) > MaxChannels {
		return q, "", fmt.Errorf("%w: channel: %d patterns, want at most %d", controlbus.ErrInvalid, len(q.Channels), MaxChannels)
	}
	for _, c := range append(q.Channels[:len(q.Channels):len(q.Channels)], q.Env) {
		if len(c) > MaxName {
			return q, "", fmt.Errorf("%w: channel and env: want names of at most %d characters", controlbus.ErrInvalid, MaxName)
		}
	}
	if len(q.Filter) > filter.MaxLength {
		return q, "", fmt.Errorf("%w: filter: want at most %d characters", controlbus.ErrInvalid, filter.MaxLength)
	}
	switch v.Get("form") {
	case "", "row":
	case "event":
		q.Form = controlbus.LiveEvent
	default:
		return q, "", fmt.Errorf("%w: form %.20q: want row or event", controlbus.ErrInvalid, v.Get("form"))
	}
	token := v.Get("resume")
	if len(token) > maxToken {
		return q, "", fmt.Errorf("%w: resume: want a token from a frame", controlbus.ErrInvalid)
	}
	return q, token, nil
}
