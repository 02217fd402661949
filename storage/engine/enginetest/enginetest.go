// Package enginetest gives tests a real embedded engine. Importing it is all a
// test package does: the test's own binary plays the child, which an init
// function recognises by an environment variable before any test runs.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/storage/engine"
)

const (
	childEnv  = "SIGNALBOX_ENGINE_TEST_CHILD"
	removeEnv = "SIGNALBOX_ENGINE_TEST_REMOVE" // directory that the child removes when it ends
	strictEnv = "SIGNALBOX_TEST_STRICT"
)

func init() {
	if os.Getenv(childEnv) == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := engine.Main(ctx, os.Args[1:], os.Stdin, os.Stderr)
	stop()
	if dir := os.Getenv(removeEnv); dir != "" {
		_ = os.RemoveAll(dir) // scratch of a finished test run
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Config is small enough for several engines on one test machine.
func Config(dir string) engine.Config {
	cfg := engine.DefaultConfig()
	cfg.DataDir = dir
	cfg.Memory = 1 * engine.GiB
	cfg.QueryMemory = 512 * engine.MiB
	cfg.MarkCache = 64 * engine.MiB
	cfg.DiskReserve = 0
	cfg.Grace = 2 * time.Second
	return cfg
}

// Require skips the test, or fails it under SIGNALBOX_TEST_STRICT=1, when the
// engine's library is not installed.
func Require(tb testing.TB) {
	tb.Helper()
	if _, err := engine.FindLibrary(""); err != nil {
		if os.Getenv(strictEnv) == "1" {
			tb.Fatal(err)
		}
		tb.Skipf("needs the embedded engine: %v", err)
	}
}

// New returns a Supervisor, not yet running, whose child is this test binary.
func New(cfg engine.Config, log *slog.Logger, env ...string) *engine.Supervisor {
	s := engine.New(cfg, log)
	s.SetCommand([]string{os.Args[0]}, append(env, childEnv+"=1"))
	return s
}

// Start runs an engine of the test's own, with its data in a temporary
// directory, and stops it when the test ends.
func Start(tb testing.TB) *engine.Supervisor {
	tb.Helper()
	return StartConfig(tb, Config(tb.TempDir()))
}

// StartConfig is Start with a configuration.
func StartConfig(tb testing.TB, cfg engine.Config) *engine.Supervisor {
	tb.Helper()
	Require(tb)
	s := New(cfg, slog.New(slog.NewTextHandler(tb.Output(), nil)))
	stop, err := run(s)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := stop(); err != nil {
			tb.Errorf("stop the engine: %v", err)
		}
	})
	return s
}

func run(s *engine.Supervisor) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	wctx, wcancel := context.WithTimeout(ctx, time.Minute)
	defer wcancel()
	if err := s.WaitReady(wctx); err != nil {
		cancel()
		return nil, errors.Join(err, <-done)
	}
	return func() error {
		cancel()
		return <-done
	}, nil
}

var shared struct {
	sync.Mutex
	s    *engine.Supervisor
	stop func() error
}

// Shared returns the one engine of this test binary, started at the first
// call. Tests keep apart by using databases of their own. Stop ends it; without
// Stop it ends, and its data are removed, with the test binary.
func Shared(tb testing.TB) *engine.Supervisor {
	tb.Helper()
	Require(tb)
	shared.Lock()
	defer shared.Unlock()
	if shared.s != nil {
		return shared.s
	}
	dir, err := os.MkdirTemp("", "signalbox-engine-")
	if err != nil {
		tb.Fatal(err)
	}
	s := New(Config(dir), slog.New(slog.NewTextHandler(io.Discard, nil)), removeEnv+"="+dir)
	stop, err := run(s)
	if err != nil {
		tb.Fatal(err)
	}
	shared.s, shared.stop = s, stop
	return s
}

// Stop ends the shared engine, if there is one.
func Stop() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.s == nil {
		return nil
	}
	stop := shared.stop
	shared.s, shared.stop = nil, nil
	return stop()
}

// M wraps a testing.M so that the shared engine is gone before goleak looks:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(enginetest.M{M: m}) }
type M struct{ M interface{ Run() int } }

// Run runs the tests and stops the shared engine.
func (m M) Run() int {
	code := m.M.Run()
	if err := Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the shared engine:", err)
		return max(code, 1)
	}
	return code
}
