// Command load fills a store with generated messages and measures the queries
// of the console's pages:
//
//	go run ./test/load/cmd -data /tmp/load -messages 10000000
//
// A data directory that is filled already is measured again at once, when -end
// is the same.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/clickhouse"
	"github.com/signalbox-dev/signalbox/storage/engine"
	"github.com/signalbox-dev/signalbox/test/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == "engine" {
		err = engine.Main(ctx, os.Args[2:], os.Stdin, os.Stderr)
	} else {
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

var errMissed = errors.New("a target was missed")

func run(ctx context.Context) (err error) {
	cfg := load.DefaultConfig()
	data := flag.String("data", "/tmp/signalbox-load", "data directory of the embedded engine")
	dsn := flag.String("dsn", "", "a ClickHouse server instead of the embedded engine")
	runs := flag.Int("runs", 40, "runs of each query; 0 measures nothing")
	fill := flag.Bool("fill", true, "write the messages before measuring")
	end := flag.String("end", "", "time of the last message (RFC 3339; default now)")
	flag.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "the same seed makes the same messages")
	flag.IntVar(&cfg.Messages, "messages", cfg.Messages, "message events to write")
	flag.DurationVar(&cfg.Span, "span", cfg.Span, "time they are spread over")
	flag.BoolVar(&cfg.Bodies, "bodies", cfg.Bodies, "write bodies too")
	flag.Parse()
	if *end != "" {
		if cfg.End, err = time.Parse(time.RFC3339, *end); err != nil {
			return err
		}
	}
	fmt.Println("end", cfg.End.Format(time.RFC3339))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	sc := clickhouse.DefaultConfig()
	sc.Database = "load"
	sc.Retention = clickhouse.Retention{Every: time.Hour}
	sc.DSN = controlbus.Secret(*dsn)
	if *dsn == "" {
		ec := engine.DefaultConfig()
		ec.DataDir = *data
		sv := engine.New(ec, log)
		ectx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan error, 1)
		go func() { done <- sv.Run(ectx) }()
		defer func() {
			cancel()
			err = errors.Join(err, <-done)
		}()
		if err := sv.WaitReady(ctx); err != nil {
			return err
		}
		sc.DialContext = sv.DialContext
	}
	store, err := clickhouse.Open(ctx, sc, log)
	if err != nil {
		return err
	}
	defer store.Close()
	if *fill {
		begin, next := time.Now(), 0
		err := load.Fill(ctx, store, cfg, func(n int) {
			if n >= next {
				fmt.Printf("%d messages, %.0f/s\n", n, float64(n)/time.Since(begin).Seconds())
				next = n + cfg.Messages/10
			}
		})
		if err != nil {
			return err
		}
		fmt.Printf("filled %d messages in %v\n", cfg.Messages, time.Since(begin).Round(time.Second))
	}
	sizes, err := store.Tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range sizes {
		if t.Rows > 0 {
			fmt.Printf("%-10s %10d rows %8.1f MB %6.1f B/row %4d parts\n", t.Name, t.Rows, float64(t.Bytes)/1e6, float64(t.Bytes)/float64(t.Rows), t.Parts)
		}
	}
	if *runs == 0 {
		return nil
	}
	figures, err := load.Measure(ctx, store, cfg, *runs, os.Stdout)
	if err != nil {
		return err
	}
	for _, f := range figures {
		if f.Missed() {
			return errMissed
		}
	}
	return nil
}
