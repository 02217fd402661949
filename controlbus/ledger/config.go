package ledger

import (
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Config is the "commands" section of the configuration file.
type Config struct {
	// Policies are tried in order; the first whose pattern matches the
	// environment holds. Where none does, the defaults of Policy hold.
	Policies []Policy `yaml:"policies"`
	// ApproveWithin is how long a request waits for a second person.
	ApproveWithin time.Duration `yaml:"approve_within"`
}

// Policy is what one kind of environment asks for. An empty field means the
// default: destructive commands need the channel's name typed, others nothing.
type Policy struct {
	Env         string                    `yaml:"env"` // name, or a pattern with *
	Destructive controlbus.ApprovalPolicy `yaml:"destructive"`
	Additive    controlbus.ApprovalPolicy `yaml:"additive"` // replay, redrive, test messages
	Desired     controlbus.ApprovalPolicy `yaml:"desired"`  // detours, pauses
}

// DefaultConfig is what holds without a configuration file.
func DefaultConfig() Config { return Config{ApproveWithin: 24 * time.Hour} }

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	if c.ApproveWithin < time.Minute || c.ApproveWithin > 30*24*time.Hour {
		errs = append(errs, fmt.Errorf("approve_within: want 1m to 720h, have %v", c.ApproveWithin))
	}
	for i, p := range c.Policies {
		if p.Env == "" {
			errs = append(errs, fmt.Errorf("policies[%d].env: is required", i))
		}
		for key, v := range map[string]controlbus.ApprovalPolicy{"destructive": p.Destructive, "additive": p.Additive, "desired": p.Desired} {
			if v != "" && !v.Valid() {
				errs = append(errs, fmt.Errorf("policies[%d].%s: want none, type_name or second_person, have %q", i, key, v))
			}
		}
	}
	return errors.Join(errs...)
}

// Policy is what an environment asks for before a command of a class goes out.
// Looking needs no consent anywhere.
func (c Config) Policy(env string, class controlbus.EffectClass) controlbus.ApprovalPolicy {
	var p Policy
	for _, one := range c.Policies {
		if controlbus.MatchPattern(one.Env, env) {
			p = one
			break
		}
	}
	want := controlbus.ApproveNone
	switch class {
	case controlbus.EffectDestructive:
		if want = p.Destructive; want == "" {
			want = controlbus.ApproveByName
		}
	case controlbus.EffectAdditive:
		want = p.Additive
	case controlbus.EffectDesired:
		want = p.Desired
	}
	if want == "" {
		want = controlbus.ApproveNone
	}
	return want
}
