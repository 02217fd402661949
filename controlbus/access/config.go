package access

import (
	"errors"
	"fmt"
	"time"
)

// Config is the "access" section of the console's configuration.
type Config struct {
	// Mode is signin, or open: everybody who reaches the console is its
	// administrator. Open is for loopback only.
	Mode string `yaml:"mode"`
	// Agents is token: agents and services show a credential; or open: they need
	// none. Empty means open where the console listens on loopback only, and
	// token elsewhere.
	Agents      string        `yaml:"agents"`
	SessionIdle time.Duration `yaml:"session_idle"`
	SessionMax  time.Duration `yaml:"session_max"`
}

// Modes.
const (
	ModeSignIn = "signin"
	ModeOpen   = "open"

	AgentsOpen  = "open"
	AgentsToken = "token"
)

// DefaultConfig asks people to sign in.
func DefaultConfig() Config {
	return Config{Mode: ModeSignIn, SessionIdle: 30 * time.Minute, SessionMax: 12 * time.Hour}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	if c.Mode != ModeSignIn && c.Mode != ModeOpen {
		errs = append(errs, fmt.Errorf("mode: want %s or %s, have %q", ModeSignIn, ModeOpen, c.Mode))
	}
	if c.Agents != "" && c.Agents != AgentsOpen && c.Agents != AgentsToken {
		errs = append(errs, fmt.Errorf("agents: want %s or %s, have %q", AgentsOpen, AgentsToken, c.Agents))
	}
	if c.SessionIdle < time.Minute {
		errs = append(errs, fmt.Errorf("session_idle: want at least 1m, have %v", c.SessionIdle))
	}
	if c.SessionMax < c.SessionIdle || c.SessionMax > 7*24*time.Hour {
		errs = append(errs, fmt.Errorf("session_max: want between session_idle and 168h, have %v", c.SessionMax))
	}
	return errors.Join(errs...)
}

// Privacy is the "privacy" section of the console's configuration: what it
// allows at all, whatever role somebody has.
type Privacy struct {
	PayloadView bool `yaml:"payload_view"` // payloads on pages and in the API, and searching in them
	Export      bool `yaml:"export"`       // results as files
	LiveTap     bool `yaml:"live_tap"`
}

// DefaultPrivacy leaves it to the roles.
func DefaultPrivacy() Privacy { return Privacy{PayloadView: true, Export: true, LiveTap: true} }

func (p Privacy) withheld() []Action {
	var out []Action
	if !p.PayloadView {
		out = append(out, ReadBody)
	}
	if !p.Export {
		out = append(out, Export)
	}
	if !p.LiveTap {
		out = append(out, LiveTap)
	}
	return out
}
