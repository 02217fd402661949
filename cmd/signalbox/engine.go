package main

import (
	"context"
	"os"

	"github.com/signalbox-dev/signalbox/storage/engine"
)

var engineCommand = command{
	name:    "engine",
	summary: "run the embedded ClickHouse alone",
	run: func(ctx context.Context, args []string) error {
		return engine.Main(ctx, args, os.Stdin, os.Stderr)
	},
}
