package main

import (
	"log/slog"

	"gopkg.in/yaml.v3"

	"github.com/signalbox-dev/signalbox/agents"
)

// adapters has every adapter by the name that a broker's "type" gives.
var adapters = map[string]builder{}

// builder reads an adapter's options and returns what makes the adapter.
type builder func(options *yaml.Node) (func(agents.Identity, *slog.Logger) (agents.Adapter, error), error)
