package controlbus

import (
	"encoding/json"
	"fmt"
	"regexp"
	"time"
)

// Detour is an EIP Detour: for a while a channel's messages take a way through
// steps before they reach its consumers. It is the Args of CommandDetour and,
// with Pause, what CommandPause becomes where the broker has no pause of its own.
type Detour struct {
	ID string `json:"id"` // chosen by who asks; unique among an agent's
	// To is where messages go on, for a junction; a gate gives them back to the
	// channel itself.
	To     string `json:"to,omitempty"`
	Owner  Actor  `json:"owner"`
	Reason string `json:"reason,omitempty"`
	// For is how long it stays on; then it ends by itself and drains.
	For time.Duration `json:"for_ns"`
	// Filter lets only matching messages through the steps; others pass.
	Filter string       `json:"filter,omitempty"`
	Steps  []DetourStep `json:"steps,omitempty"`
	// OnFailure is what becomes of a message that a step refuses or fails on
	// after its retries.
	OnFailure DetourFailure `json:"on_failure,omitempty"`
	// Park is the channel for such messages; empty: one of the detour's own,
	// which stays until it is empty.
	Park  string `json:"park,omitempty"`
	Pause bool   `json:"pause,omitempty"`
}

// MaxDetour is the longest time a detour stays on.
const MaxDetour = 30 * 24 * time.Hour

// DetourFailure is what becomes of messages that cannot take a step.
type DetourFailure string

// What becomes of them.
const (
	DetourPark   DetourFailure = "park" // default
	DetourBypass DetourFailure = "bypass"
)

// DetourStep is one step; exactly one of its fields is set.
type DetourStep struct {
	Hold     *HoldStep     `json:"hold,omitempty"`
	Validate *ValidateStep `json:"validate,omitempty"`
	Headers  *HeadersStep  `json:"headers,omitempty"`
	Rate     *RateStep     `json:"rate,omitempty"`
	Copy     *CopyStep     `json:"copy,omitempty"`
	HTTP     *HTTPStep     `json:"http,omitempty"`
	Channel  *ChannelStep  `json:"channel,omitempty"`
}

// HoldStep keeps messages in the backlog until the detour ends.
type HoldStep struct{}

// ValidateStep refuses bodies that are not as the JSON Schema says.
type ValidateStep struct {
	Schema json.RawMessage `json:"schema"`
}

// HeadersStep adds and removes headers.
type HeadersStep struct {
	Set    map[string]string `json:"set,omitempty"`
	Remove []string          `json:"remove,omitempty"`
}

// RateStep lets so many messages per second pass.
type RateStep struct {
	PerSecond float64 `json:"per_second"`
}

// CopyStep sends a copy to another channel of the same broker.
type CopyStep struct {
	Channel string `json:"channel"`
}

// HTTPStep posts the body to an endpoint that the agent's own configuration
// allows (commands.http_allow). 2xx lets the message pass; with Replace its body
// becomes the answer's. 4xx refuses it, save 408, 425 and 429, which ask to come
// again; these and anything else are tried again.
type HTTPStep struct {
	URL     string        `json:"url"`
	Timeout time.Duration `json:"timeout_ns,omitempty"` // 0: 5 s
	Retries int           `json:"retries,omitempty"`
	Replace bool          `json:"replace,omitempty"`
}

// ChannelStep sends messages through a channel of the user's own: to Send, and
// on with what comes back at Receive.
type ChannelStep struct {
	Send    string `json:"send"`
	Receive string `json:"receive"`
}

// Name of the step's kind.
func (s DetourStep) Name() string {
	switch {
	case s.Hold != nil:
		return "hold"
	case s.Validate != nil:
		return "validate"
	case s.Headers != nil:
		return "headers"
	case s.Rate != nil:
		return "rate"
	case s.Copy != nil:
		return "copy"
	case s.HTTP != nil:
		return "http"
	case s.Channel != nil:
		return "channel"
	}
	return ""
}

var detourID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,47}$`)

// Check says what is wrong with a detour, schemas and URLs aside, which the agent
// compiles. Errors are ErrInvalid.
func (d Detour) Check() error {
	wrong := func(format string, a ...any) error {
		return fmt.Errorf("%w: detour: %s", ErrInvalid, fmt.Sprintf(format, a...))
	}
	switch {
	case !detourID.MatchString(d.ID):
		return wrong("id %.60q: want 1 to 48 letters, digits, - and _", d.ID)
	case d.For < time.Second || d.For > MaxDetour:
		return wrong("it stays on for %v: want 1s to %v", d.For, MaxDetour)
	case len(d.Steps) == 0 || len(d.Steps) > 16:
		return wrong("%d steps: want 1 to 16", len(d.Steps))
	case d.OnFailure != "" && d.OnFailure != DetourPark && d.OnFailure != DetourBypass:
		return wrong("on failure %.20q: want park or bypass", d.OnFailure)
	}
	for i, s := range d.Steps {
		n := 0
		for _, set := range []bool{s.Hold != nil, s.Validate != nil, s.Headers != nil, s.Rate != nil, s.Copy != nil, s.HTTP != nil, s.Channel != nil} {
			if set {
				n++
			}
		}
		switch {
		case n != 1:
			return wrong("step %d: want exactly one of hold, validate, headers, rate, copy, http and channel", i+1)
		case s.Validate != nil && !json.Valid(s.Validate.Schema):
			return wrong("step %d: the schema is not JSON", i+1)
		case s.Headers != nil && len(s.Headers.Set)+len(s.Headers.Remove) == 0:
			return wrong("step %d: want headers to set or to remove", i+1)
		case s.Rate != nil && !(s.Rate.PerSecond > 0 && s.Rate.PerSecond <= 1e6):
			return wrong("step %d: rate %v: want more than 0 messages per second", i+1, s.Rate.PerSecond)
		case s.Copy != nil && s.Copy.Channel == "":
			return wrong("step %d: want a channel to copy to", i+1)
		case s.HTTP != nil && (s.HTTP.URL == "" || s.HTTP.Timeout < 0 || s.HTTP.Timeout > time.Minute || s.HTTP.Retries < 0 || s.HTTP.Retries > 10):
			return wrong("step %d: want a URL, a timeout of at most 1m and at most 10 retries", i+1)
		case s.Channel != nil && (s.Channel.Send == "" || s.Channel.Receive == "" || s.Channel.Send == s.Channel.Receive):
			return wrong("step %d: want two channels, one to send to and one to receive from", i+1)
		case s.Hold != nil && i != len(d.Steps)-1:
			return wrong("step %d: nothing comes after hold", i+1)
		}
	}
	return nil
}

// DetourState is where a detour stands on its broker.
type DetourState string

// States: absent → installed (off) → on → draining → installed → absent.
const (
	DetourInstalled DetourState = "installed" // in place, messages go the direct way
	DetourOn        DetourState = "on"
	DetourDraining  DetourState = "draining" // off; what is in its backlog is worked off
	DetourBroken    DetourState = "broken"   // on, and its worker cannot work: the backlog fills
)

// DetourStatus is a detour as its agent holds it.
type DetourStatus struct {
	Detour    Detour      `json:"detour"`
	Broker    string      `json:"broker"`
	Channel   string      `json:"channel"`
	Command   CommandID   `json:"command"` // that made it
	State     DetourState `json:"state"`
	Technique string      `json:"technique"` // such as "alternate-exchange gate", "junction", "consumer pause"
	Since     time.Time   `json:"since"`     // of the state, agent's clock
	Until     time.Time   `json:"until"`     // agent's clock
	Backlog   int64       `json:"backlog"`   // waiting before the steps; -1 unknown
	Parked    int64       `json:"parked"`    // in the park channel; -1 unknown
	In        int64       `json:"in"`        // came in
	Passed    int64       `json:"passed"`    // went on, changed or not
	Refused   int64       `json:"refused"`   // by a step, parked or bypassed
	Copied    int64       `json:"copied"`
	Failed    int64       `json:"failed"` // attempts of steps that failed
	Rate      float64     `json:"rate"`   // messages per second through it, lately
	Notes     []string    `json:"notes,omitempty"`
	Error     string      `json:"error,omitempty"`
}
