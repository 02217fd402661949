package live

import (
	"fmt"
	"net/url"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// What one live tap may ask for.
const (
	MaxChannels = 50  // patterns
	MaxName     = 500 // characters of a name or a pattern

	maxFilter = 2000
	maxToken  = 200
)

// Query reads a live tap's selection, and the token of a reader that comes
// back, from a URL. Errors are ErrInvalid and name the parameter.
func Query(v url.Values) (controlbus.LiveQuery, string, error) {
	q := controlbus.LiveQuery{Env: v.Get("env"), Broker: v.Get("broker"), Word: v.Get("word")}
	for name := range v {
		switch name {
		case "env", "broker", "channel", "word", "failed", "form", "resume":
		default:
			return q, "", fmt.Errorf("%w: %.40q is no parameter of a live tap: want channel, env, broker, word, failed, form or resume", controlbus.ErrInvalid, name)
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
	for _, c := range append(q.Channels[:len(q.Channels):len(q.Channels)], q.Env, q.Broker) {
		if len(c) > MaxName {
			return q, "", fmt.Errorf("%w: channel, env and broker: want names of at most %d characters", controlbus.ErrInvalid, MaxName)
		}
	}
	if len(q.Word) > maxFilter {
		return q, "", fmt.Errorf("%w: word: want at most %d characters", controlbus.ErrInvalid, maxFilter)
	}
	switch v.Get("failed") {
	case "", "0", "false":
	case "1", "true":
		q.Failed = true
	default:
		return q, "", fmt.Errorf("%w: failed %.20q: want 0 or 1", controlbus.ErrInvalid, v.Get("failed"))
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
