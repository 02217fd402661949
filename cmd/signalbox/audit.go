package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/signalbox-dev/signalbox/storage/state"
)

var auditCommand = command{
	name:    "audit",
	summary: "verify the audit trail, print the key it is signed with",
	run:     func(ctx context.Context, args []string) error { return audit(ctx, args, os.Stdout) },
}

// errTampered ends the program with 1: the trail is not what was written.
var errTampered = errors.New("the audit trail is not what was written")

func audit(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("signalbox audit", flag.ContinueOnError)
	file := flags.String("config", "", "the console's configuration `file`, for where the trail is; without one the defaults hold")
	dsnFile := flags.String("dsn-file", "", "`file` with the DSN of a PostgreSQL database whose trail to verify instead")
	db := flags.String("db", "", "state `file` to verify instead, such as a copy of a console's state.db")
	key := flags.String("key", "", "public `key` the heads must be signed with; without one the key beside the state file, or in the data directory")
	heads := flags.String("heads", "", "`file` of signed heads kept elsewhere; without one audit_heads of the configuration, where it exists")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), `Usage: signalbox audit verify | key [flags]

verify computes the audit trail anew and compares it with its chain, its tree and
its signed heads. It only reads, and may run beside the console. A trail that was
cut off, with an older head put over it, is found by heads kept elsewhere alone.
key prints the public key. Keep it, and copies of the heads, on another machine.

`)
		flags.PrintDefaults()
	}
	if err := quietly(flags, args); err != nil {
		return err
	}
	verb := flags.Arg(0)
	if verb != "" { // flags may stand behind it, too
		if err := quietly(flags, flags.Args()[1:]); err != nil {
			return err
		}
	}
	if flags.NArg() > 0 || verb != "verify" && verb != "key" {
		return fmt.Errorf("%w: signalbox audit: want verify or key", errUsage)
	}
	path, kept := *db, *heads
	in := stateConfig{DSNFile: *dsnFile}
	if err := in.read(); err != nil {
		return fmt.Errorf("%w: --dsn-file: %w", errUsage, err)
	}
	switch {
	case path != "" && in.DSN != "":
		return fmt.Errorf("%w: signalbox audit: give --db or --dsn-file, not both", errUsage)
	case in.DSN != "" && *key == "":
		return fmt.Errorf("%w: signalbox audit: --dsn-file wants --key, which signalbox audit key prints on a console", errUsage)
	case path == "" && in.DSN == "":
		cfg, err := loadConfig(*file)
		if err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		path, in = filepath.Join(cfg.DataDir, "state.db"), cfg.State // the key is beside it, whatever the database
		if kept == "" {
			kept = cfg.AuditHeads
		}
	}
	if in.DSN == "" {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("audit trail: %w", err)
		}
	}
	if *key == "" {
		var err error
		if *key, err = state.AuditKey(path); err != nil {
			return err
		}
	}
	if verb == "key" {
		fmt.Fprintln(out, *key)
		return nil
	}
	var list []string
	switch text, err := os.ReadFile(kept); {
	case err == nil:
		list = state.SplitHeads(string(text))
	case kept != "" && (*heads != "" || !errors.Is(err, fs.ErrNotExist)):
		return fmt.Errorf("heads: %w", err)
	}
	var r state.AuditReport
	var err error
	if in.DSN != "" {
		r, err = state.VerifyAuditDSN(ctx, in.DSN, *key, list)
	} else {
		r, err = state.VerifyAudit(ctx, path, *key, list)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d entries, tree %s, %d heads kept elsewhere\n", r.Entries, r.Root, r.Heads)
	if len(r.Findings) == 0 {
		fmt.Fprintln(out, "the audit trail is whole")
		return nil
	}
	for _, f := range r.Findings {
		fmt.Fprintln(out, f)
	}
	return errTampered
}

// headsEvery is how often the tree's head is written out where it has changed.
const headsEvery = time.Minute

// keepHeads writes the audit tree's signed heads to a file and to the log, which
// usually leaves the machine. It ends with ctx, after one last head.
func keepHeads(ctx context.Context, s *state.Store, file string, log *slog.Logger) error {
	tick := time.NewTicker(headsEvery)
	defer tick.Stop()
	var last int64
	keep := func(ctx context.Context) {
		head, size, err := s.AuditHead(ctx)
		if err == nil && size != last && size > 0 {
			if err = appendFile(file, head); err == nil {
				last = size
				log.InfoContext(ctx, "audit head", "size", size, "head", head)
			}
		}
		if err != nil {
			log.ErrorContext(ctx, "the audit trail's head cannot be kept", "file", file, "error", err)
		}
	}
	for {
		keep(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			keep(context.WithoutCancel(ctx))
			return nil
		}
	}
}

func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}
