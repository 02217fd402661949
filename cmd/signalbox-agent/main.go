// Command signalbox-agent runs beside message brokers: it observes them, taps
// their channels and sends what it sees to a Signalbox console. It wires
// packages together and holds no logic; no store and no UI is linked in.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/action"
)

// version is set by the linker.
var version = "dev"

// memoryLimit is the garbage collector's target when GOMEMLIMIT is not set.
// The queues are bounded well below it; it keeps a burst of large messages from
// doubling the heap before the next collection.
const memoryLimit = 48 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "signalbox-agent:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "signalbox-agent:", err)
		os.Exit(1)
	}
}

// errUsage marks a mistake on the command line or in the configuration file;
// the program ends with 2.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("signalbox-agent", flag.ContinueOnError)
	file := flags.String("config", "/etc/signalbox/agent.yaml", "configuration `file`")
	check := flags.Bool("check-config", false, "check the configuration and end")
	show := flags.Bool("version", false, "print the version and end")
	// Package flag would tell a mistake together with the whole usage; main tells
	// it, once.
	flags.Usage = func() {}
	flags.SetOutput(io.Discard)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(stderr)
		fmt.Fprintln(stderr, "Usage: signalbox-agent [flags]")
		flags.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%w: %w; see signalbox-agent -h", errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	}
	if *show {
		fmt.Fprintln(stdout, "signalbox-agent", version)
		return nil
	}
	cfg, err := load(*file)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *check {
		fmt.Fprintf(stdout, "%s is valid: agent %s, %d brokers\n", *file, cfg.Agent.ID, len(cfg.Brokers))
		return nil
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	log := slog.New(slog.NewJSONHandler(stderr, nil)).With("agent", cfg.Agent.ID)
	cfg.Commands.New = action.Commands
	agent, err := agents.New(cfg, version, log)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "agent starts", "version", version, "console", cfg.Console.URL, "brokers", len(cfg.Brokers))
	err = agent.Run(ctx)
	log.InfoContext(context.WithoutCancel(ctx), "agent ended")
	return err
}
