// Command load fills a message store with a seeded world of believable traffic
// and measures what pages ask of it.
//
//	go run ./test/load -messages 10000000 fill     into .data/load
//	go run ./test/load -messages 10000000 query    each query's p50 and p95, against its target, and what it costs
//	go run ./test/load -url http://127.0.0.1:8470 pages    server time of every page of a running console
//
// fill and query start an embedded engine of their own, or use -dsn. The same
// flags make the same world. A query that misses its target ends the program
// with 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/clickhouse"
	"github.com/signalbox-dev/signalbox/storage/engine"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var (
		data     = flag.String("data", filepath.Join(".data", "load"), "data directory of the embedded engine")
		dsn      = flag.String("dsn", "", "ClickHouse to use instead of an embedded engine")
		program  = flag.String("signalbox", filepath.Join("bin", "signalbox"), "program whose verb engine is started")
		messages = flag.Int("messages", 1_000_000, "messages in the world")
		hours    = flag.Float64("hours", 26, "time range they are spread over")
		end      = flag.String("end", time.Now().UTC().Truncate(24*time.Hour).Format(time.RFC3339), "end of that range; the default is last midnight UTC, so that it stays the same for a day")
		seed     = flag.Uint64("seed", 1, "seed of the world")
		rows     = flag.Int("batch", 100_000, "messages per block")
		rounds   = flag.Int("rounds", 40, "times each query or page is asked")
		only     = flag.String("only", "", "regular expression of the names of the queries or pages to ask")
		url      = flag.String("url", "http://127.0.0.1:8470", "console for pages")
	)
	flag.Parse()
	to, err := time.Parse(time.RFC3339, *end)
	if err != nil {
		return fmt.Errorf("-end: %w", err)
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	w := world{seed: *seed, to: to, from: to.Add(-time.Duration(*hours * float64(time.Hour))), conversations: *messages / perConversation}
	switch verb := flag.Arg(0); verb {
	case "pages":
		return pages(ctx, *url, w, wanted, *rounds)
	case "fill", "query":
		return withStore(ctx, *data, *dsn, *program, func(ctx context.Context, s *clickhouse.Store, cpu cpuClock) error {
			if verb == "fill" {
				return fill(ctx, w, s, *rows)
			}
			return query(ctx, w, s, cpu, wanted, *rounds)
		})
	}
	flag.Usage()
	return errors.New("want one of fill, query, pages")
}

// withStore runs f on an open store and stops what it started.
func withStore(ctx context.Context, data, dsn, program string, f func(context.Context, *clickhouse.Store, cpuClock) error) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg := clickhouse.DefaultConfig()
	cfg.DSN = controlbus.Secret(dsn)
	cpu := cpuClock{"self"}
	if dsn == "" {
		abs, err := filepath.Abs(program)
		if err != nil {
			return err
		}
		engineCfg := engine.DefaultConfig()
		engineCfg.DataDir = data
		sup := engine.New(engineCfg, log)
		sup.SetCommand([]string{abs, "engine"}, nil)
		engineCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan error, 1)
		go func() { done <- sup.Run(engineCtx) }()
		defer func() {
			stop()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				log.Error("engine", "error", err)
			}
		}()
		if err := sup.WaitReady(ctx); err != nil {
			return err
		}
		cfg.DialContext = sup.DialContext
		cpu = append(cpu, strconv.Itoa(sup.Status().PID))
	}
	s, err := clickhouse.Open(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(ctx, s, cpu)
}

func fill(ctx context.Context, w world, s *clickhouse.Store, rows int) error {
	start, last, written := time.Now(), time.Now(), 0
	total := w.conversations * perConversation
	fmt.Printf("writing %d messages from %s to %s, seed %d\n", total, w.from.Format(time.RFC3339), w.to.Format(time.RFC3339), w.seed)
	err := w.fill(ctx, s, rows, func(n int) {
		written += n
		if time.Since(last) > 5*time.Second || written == total {
			last = time.Now()
			rate := float64(written) / time.Since(start).Seconds()
			left := time.Duration(float64(total-written)/rate) * time.Second
			fmt.Printf("%3d %%  %d messages, %.0f/s, about %v left\n", 100*written/total, written, rate, left)
		}
	})
	if err != nil {
		return err
	}
	tables, err := s.Tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		perRow := 0.0
		if t.Rows > 0 {
			perRow = float64(t.Bytes) / float64(t.Rows)
		}
		fmt.Printf("%-12s %12d rows %14d bytes %7.1f B/row %5d parts\n", t.Name, t.Rows, t.Bytes, perRow, t.Parts)
	}
	return nil
}
