package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/engine"
)

var engineCommand = command{
	name:    "engine",
	summary: "run the embedded ClickHouse alone",
	run: func(ctx context.Context, args []string) error {
		err := engine.Main(ctx, args, os.Stdin, os.Stderr)
		if errors.Is(err, controlbus.ErrInvalid) {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		return err
	},
}
