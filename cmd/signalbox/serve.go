package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
)

var serveCommand = command{
	name:    "serve",
	summary: "run the console: OTLP in, store, pages",
	run:     serve,
}

// memoryLimit is the garbage collector's target when GOMEMLIMIT is not set. All
// that requests may hold is bounded below it; it keeps a burst of large ones
// from doubling the heap before the next collection.
const memoryLimit = 400 << 20

func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("signalbox serve", flag.ContinueOnError)
	file := flags.String("config", "", "configuration `file`; without one the defaults hold")
	check := flags.Bool("check-config", false, "check the configuration and end")
	dev := flags.Bool("dev", false, "serve browser assets from ui/asset/dist instead of the built-in copy")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "Usage: signalbox serve [flags]\n\nRuns the console. Data goes to .data/console unless the configuration says otherwise.\n\n")
		flags.PrintDefaults()
	}
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	cfg, err := loadConfig(*file)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *check {
		fmt.Println("configuration is valid")
		return nil
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	log := cfg.Log.logger(os.Stderr)
	c, err := newConsole(ctx, cfg, log)
	if err != nil {
		return err
	}
	c.file = *file
	if *dev {
		c.assets = os.DirFS("ui/asset/dist")
	}
	announce := stage{name: "announce", run: func(ctx context.Context) error {
		log.InfoContext(ctx, "console is ready", "url", c.url(), "version", version)
		if err := c.invite(ctx, os.Stdout); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}}
	err = runStages(ctx, log, cfg.Grace, append(c.stages(), announce)...)
	return errors.Join(err, c.close())
}

// quietly parses flags. Package flag tells a mistake together with the whole
// usage; here main tells it, once.
func quietly(flags *flag.FlagSet, args []string) error {
	usage, out := flags.Usage, flags.Output()
	flags.Usage = func() {}
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	flags.Usage = usage
	flags.SetOutput(out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.Usage()
		return err
	case err != nil:
		return fmt.Errorf("%w: %w; see %s -h", errUsage, err, flags.Name())
	}
	return nil
}

// parseFlags parses and refuses what is left over. A wrong flag ends the
// program with 2.
func parseFlags(flags *flag.FlagSet, args []string) error {
	if err := quietly(flags, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: %s takes no argument %q", errUsage, flags.Name(), flags.Arg(0))
	}
	return nil
}
