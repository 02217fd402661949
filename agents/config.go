package agents

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// Config is an agent's configuration file.
type Config struct {
	Agent     AgentConfig      `yaml:"agent"`
	Console   ConsoleConfig    `yaml:"console"`
	Brokers   []BrokerConfig   `yaml:"brokers"`
	Redaction export.Redaction `yaml:"redaction"`
	Export    export.Config    `yaml:"export"`
	Commands  CommandConfig    `yaml:"commands"`
}

// AgentConfig says who the agent is and where it keeps what must survive it.
type AgentConfig struct {
	ID      string `yaml:"id"` // stable across restarts; unique among the console's agents
	Env     string `yaml:"env"`
	DataDir string `yaml:"data_dir"`
}

// ConsoleConfig says where the console is.
type ConsoleConfig struct {
	URL            string        `yaml:"url"`
	ReportInterval time.Duration `yaml:"report_interval"`
	// EnrolmentTokenFile holds the token that is exchanged, once, for a
	// credential of the agent's own, which is kept in the data directory.
	EnrolmentTokenFile string `yaml:"enrolment_token_file"`
	// CAFile has the certificates that vouch for the console, where the system's
	// do not.
	CAFile string `yaml:"ca_file"`
}

// BrokerConfig is one broker beside the agent.
type BrokerConfig struct {
	Name            string               `yaml:"name"` // as the console shows it
	Type            string               `yaml:"type"` // of the adapter
	ObserveInterval time.Duration        `yaml:"observe_interval"`
	Taps            []controlbus.TapSpec `yaml:"taps"`
	// Options are the adapter's own section.
	Options yaml.Node `yaml:"options"`
	// New makes the adapter. The command sets it by Type; a program that
	// embeds an agent sets it itself.
	New func(Identity, *slog.Logger) (Adapter, error) `yaml:"-"`
}

// DefaultConfig is what an empty file means.
func DefaultConfig() Config {
	return Config{
		Agent:     AgentConfig{Env: "production", DataDir: "/var/lib/signalbox-agent"},
		Console:   ConsoleConfig{URL: "http://127.0.0.1:8470", ReportInterval: link.ReportInterval},
		Redaction: export.DefaultRedaction(),
		Export:    export.DefaultConfig(),
		Commands:  CommandConfig{Archive: DefaultArchive()},
	}
}

// DefaultObserveInterval is the time between two observations of a broker.
const DefaultObserveInterval = 10 * time.Second

// idPattern keeps the ID fit for names on brokers, headers and files.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	add := func(key string, err error) {
		if err == nil {
			return
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			errs = append(errs, fmt.Errorf("%s%s", key, line))
		}
	}
	if !idPattern.MatchString(c.Agent.ID) {
		errs = append(errs, fmt.Errorf("agent.id: want 1 to 64 letters, digits, - and _, have %q", c.Agent.ID))
	}
	if c.Agent.Env == "" {
		errs = append(errs, errors.New("agent.env: want a name"))
	}
	if c.Agent.DataDir == "" {
		errs = append(errs, errors.New("agent.data_dir: want a directory"))
	}
	if _, err := link.NewClient(link.ClientConfig{URL: c.Console.URL}); err != nil {
		add("console.url: ", err)
	}
	if c.Console.ReportInterval < 100*time.Millisecond {
		errs = append(errs, fmt.Errorf("console.report_interval: want at least 100ms, have %v", c.Console.ReportInterval))
	}
	add("commands.", c.Commands.validate())
	names := map[string]bool{}
	for i, b := range c.Brokers {
		key := fmt.Sprintf("brokers[%d].", i)
		if b.Name == "" || len(b.Name) > 128 {
			errs = append(errs, fmt.Errorf("%sname: want 1 to 128 bytes, have %d", key, len(b.Name)))
		}
		if names[b.Name] {
			errs = append(errs, fmt.Errorf("%sname: %q is there twice", key, b.Name))
		}
		names[b.Name] = true
		if b.ObserveInterval != 0 && b.ObserveInterval < time.Second {
			errs = append(errs, fmt.Errorf("%sobserve_interval: want at least 1s, have %v", key, b.ObserveInterval))
		}
		if b.New == nil {
			errs = append(errs, fmt.Errorf("%stype: no adapter is called %q", key, b.Type))
		}
		for j, t := range b.Taps {
			if t.Channel == "" {
				errs = append(errs, fmt.Errorf("%staps[%d].channel: want a name or a pattern", key, j))
			}
			if t.MaxBytes < 0 {
				errs = append(errs, fmt.Errorf("%staps[%d].max_bytes: want 0 or more, have %d", key, j, t.MaxBytes))
			}
			if t.Broker != "" && t.Broker != b.Name {
				errs = append(errs, fmt.Errorf("%staps[%d].broker: want nothing or %q, have %q", key, j, b.Name, t.Broker))
			}
		}
	}
	add("redaction.", c.Redaction.Validate())
	add("export.", c.Export.Validate())
	return errors.Join(errs...)
}
