// Command signalbox is the console and its client: serve, engine, demo and the
// verbs that call the API. It wires packages together and holds no logic.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // readers choose time zones, and not every host has them
)

// version is set by the linker.
var version = "dev"

// command is one verb. Its file registers nothing: the table below is the list.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string) error
}

var commands = []command{
	serveCommand, demoCommand, engineCommand,
	searchCommand, historyCommand, tapCommand, channelsCommand, agentsCommand, exportCommand, loginCommand, logoutCommand,
	purgeCommand, redriveCommand, discardCommand, replayCommand, testCommand,
	detourCommand, undetourCommand, detoursCommand, pauseCommand, resumeCommand,
	tapOnCommand, tapOffCommand, commandsCommand,
	probeCommand, auditCommand,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if code := exitCode(err); code != 0 {
		if err != errUsage { //nolint:errorlint // bare: the usage was printed, there is nothing to add
			fmt.Fprintln(os.Stderr, "signalbox:", err)
		}
		os.Exit(code)
	}
}

// exitCode is what the program ends with; client.go names the codes.
func exitCode(err error) int {
	var e exit
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, errUsage):
		return exitUsage
	}
	return exitError
}

// errUsage marks a mistake on the command line; the program ends with 2.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		usage(os.Stderr)
		return errUsage
	}
	switch args[0] {
	case "-h", "-help", "--help", "help":
		usage(os.Stdout)
		return nil
	case "-version", "--version", "version":
		fmt.Println("signalbox", version)
		return nil
	}
	for _, c := range commands {
		if c.name == args[0] {
			return c.run(ctx, args[1:])
		}
	}
	return fmt.Errorf("%w: unknown command %q; see signalbox help", errUsage, args[0])
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Signalbox watches message brokers and acts on them.\n\nUsage: signalbox COMMAND [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-8s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "  version  print the version\n\nEach command explains itself with -h.\n")
}
