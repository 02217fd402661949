package main

import (
	"log/slog"

	"gopkg.in/yaml.v3"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/nats"
	"github.com/signalbox-dev/signalbox/agents/rabbitmq"
)

// adapters has every adapter by the name that a broker's "type" gives.
var adapters = map[string]builder{
	"nats":     adapter(nats.DefaultConfig, nats.New),
	"rabbitmq": adapter(rabbitmq.DefaultConfig, rabbitmq.New),
}

// builder reads a broker's options and returns what makes its adapter.
type builder func(name string, options *yaml.Node) (maker, error)

type maker = func(agents.Identity, *slog.Logger) (agents.Adapter, error)

// adapter fits a package's Config and New to the map.
func adapter[C interface{ Validate() error }, A agents.Adapter](
	defaults func() C, build func(string, agents.Identity, C, *slog.Logger) A,
) builder {
	return func(name string, options *yaml.Node) (maker, error) {
		cfg := defaults()
		if err := strict(options, &cfg); err != nil {
			return nil, err
		}
		if err := cfg.Validate(); err != nil {
			return nil, err
		}
		return func(id agents.Identity, log *slog.Logger) (agents.Adapter, error) {
			return build(name, id, cfg, log), nil
		}, nil
	}
}
