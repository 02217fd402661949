package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Main is the verb "signalbox engine": it reads the flags and serves until ctx
// ends. Tests call it too, from a test binary that plays the child.
func Main(ctx context.Context, args []string, stdin io.Reader, stderr io.Writer) error {
	cfg := DefaultConfig()
	fs := flag.NewFlagSet("signalbox engine", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, `Usage: signalbox engine [flags]

Runs the embedded ClickHouse alone: its HTTP interface on a Unix socket, and,
with -tcp, a read-only one for curl and Grafana. "signalbox serve" starts this
by itself unless storage.dsn names a server.

`)
		fs.PrintDefaults()
	}
	cfg.RegisterFlags(fs)
	child := fs.Bool("child", false, "log as JSON and stop when standard input ends; used by signalbox serve")
	// Package flag would tell a mistake together with the whole usage; who calls
	// tells it, once.
	usage := fs.Usage
	fs.Usage = func() {}
	fs.SetOutput(io.Discard)
	err := fs.Parse(args)
	fs.SetOutput(stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		usage()
		return err
	case err != nil:
		return fmt.Errorf("%w: engine: %w; see signalbox engine -h", controlbus.ErrInvalid, err)
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%w: engine: unexpected argument %q", controlbus.ErrInvalid, fs.Arg(0))
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if *child {
		log = slog.New(slog.NewJSONHandler(stderr, nil))
		var cancel context.CancelFunc
		ctx, cancel = WithParent(ctx, stdin)
		defer cancel()
	}
	// A statement that does not react to being killed must not keep the
	// process, and so the data directory's lock, alive.
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(cfg.Grace+2*cutOff, func() {
			log.Error("a statement does not end; leaving without it")
			os.Exit(1)
		})
	})
	defer stop()
	return Serve(ctx, cfg, log)
}
