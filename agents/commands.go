package agents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"

	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// Commands carries out what the console orders; package agents/action has them.
// Methods may be called concurrently.
type Commands interface {
	Handlers() map[controlbus.CommandKind]link.Handler
	// Plan answers what a command would do, without doing it.
	Plan(ctx context.Context, ask controlbus.Ask) (controlbus.Plan, error)
	// Run keeps up what lasts longer than a command, such as detours, until ctx
	// ends. Handlers and Plan may be called before it and after.
	Run(ctx context.Context) error
	// Statuses are the detours and pauses as they stand.
	Statuses() []controlbus.DetourStatus
}

// CommandEnv is what commands are given to work with.
type CommandEnv struct {
	// Self is the agent as it reports itself: id, incarnation, environment.
	Self controlbus.Agent
	// Dir is the agent's data directory, for what must survive it.
	Dir string
	// Brokers are the configured names; Broker returns one's adapter, which may be
	// without a connection.
	Brokers []string
	Broker  func(name string) (Adapter, bool)
	// Lost is told that an adapter answered ErrNotConnected, so that it is
	// connected again now and not when it would be observed next.
	Lost func(broker string)
	// Allow are the rules of the agent's own configuration. The executor keeps
	// them for a command's target and destination; what a command finds out later,
	// such as the channel a message died in, is kept with link.Allowed.
	Allow     []link.AllowRule
	Archive   ArchiveConfig
	HTTPAllow []string
	Redaction export.Redaction
	// Logs exports log records under the agent's name. It does not wait: what the
	// spool has no room for is an error, and counted.
	Logs func(context.Context, plog.Logs) error
	// Console speaks to the console over HTTP, as the agent.
	Console *link.Client
	// Changed asks for a report of the agent soon.
	Changed func()
	Log     *slog.Logger
}

// ArchiveConfig bounds the agent's own copies of messages that commands removed.
type ArchiveConfig struct {
	MaxBytes int64         `yaml:"max_bytes"` // of all copies on disk; a removal that has no room is refused
	MaxAge   time.Duration `yaml:"max_age"`   // a copy is deleted once it is older, and never before
}

// DefaultArchive is what an empty section means.
func DefaultArchive() ArchiveConfig {
	return ArchiveConfig{MaxBytes: 4 << 30, MaxAge: 7 * 24 * time.Hour}
}

// Validate reports every problem at once, each under its own key.
func (c ArchiveConfig) Validate() error {
	var errs []error
	if c.MaxBytes < 1<<20 {
		errs = append(errs, fmt.Errorf("max_bytes: want at least %d, have %d", 1<<20, c.MaxBytes))
	}
	if c.MaxAge < time.Hour {
		errs = append(errs, fmt.Errorf("max_age: want at least 1h, have %v", c.MaxAge))
	}
	return errors.Join(errs...)
}

// checkURLs says which of the addresses that steps may post to is none.
func checkURLs(list []string) error {
	var errs []error
	for i, s := range list {
		if _, err := netip.ParsePrefix(s); err == nil {
			continue
		}
		if u, err := url.Parse(s); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			errs = append(errs, fmt.Errorf("http_allow[%d]: want http://host or https://host, with a path or without, have %q", i, s))
		}
	}
	return errors.Join(errs...)
}

// abilities says of each kind whether the broker, and then the agent's own
// rules, let it be carried out.
func abilities(a Adapter, broker, agent string, handlers map[controlbus.CommandKind]link.Handler, rules []link.AllowRule) []controlbus.Ability {
	p, ok := a.(Planner)
	if !ok {
		return nil
	}
	list := p.Abilities()
	out := make([]controlbus.Ability, 0, len(list))
	for _, one := range list {
		switch {
		case one.Reason != "":
		case handlers[one.Kind] == nil:
			one.Reason = fmt.Sprintf("agent %s does not know how to %s", agent, one.Kind)
		case !link.AllowedOn(rules, one.Kind, broker):
			one.Reason = "not allowed by commands.allow of agent " + agent
		}
		out = append(out, one)
	}
	return out
}
