package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/test/broker"
)

func TestMain(m *testing.M) { broker.Main(m) }

// A console that starts before its PostgreSQL waits for it and says so, without
// the password; one that cannot succeed ends.
func TestTheStateIsWaitedFor(t *testing.T) {
	t.Parallel()
	server := broker.PostgreSQLAlone(t)
	server.Stop(t)
	cfg := defaultConfig()
	cfg.DataDir, cfg.State.DSN = t.TempDir(), controlbus.Secret(server.URL)
	var log lockedBuffer
	done := make(chan error, 1)
	go func() {
		s, err := openState(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)))
		if err == nil {
			if !s.Shared() || !strings.HasPrefix(s.Version(), "PostgreSQL 1") {
				err = fmt.Errorf("opened %s, shared %v", s.Version(), s.Shared())
			}
			err = errors.Join(err, s.Close())
		}
		done <- err
	}()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(log.String(), "not there yet; trying again"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not say that it waits:\n%s", log.String())
		}
	}
	server.Start(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
	_, password, _ := strings.Cut(strings.TrimPrefix(server.URL, "postgres://"), ":")
	password, _, _ = strings.Cut(password, "@")
	if password == "" || strings.Contains(log.String(), password) || strings.Contains(fmt.Sprintf("%v %+v", cfg, effective(cfg)), password) {
		t.Errorf("the password is shown:\n%s", log.String())
	}

	cfg.State.DSN = controlbus.Secret(strings.Replace(server.URL, password, "wrong", 1))
	if _, err := openState(t.Context(), cfg, slog.New(slog.DiscardHandler)); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("with a wrong password: got %v, want ErrDenied", err)
	}
	server.Stop(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openState(ctx, cfg, slog.New(slog.DiscardHandler)); !errors.Is(err, context.Canceled) {
		t.Errorf("told to end while it waits: got %v", err)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func TestAuditVerifyInPostgreSQL(t *testing.T) {
	t.Parallel()
	dsn := broker.PostgreSQL(t).Schema(t)
	dir := t.TempDir()
	config, dsnFile := filepath.Join(dir, "console.yaml"), filepath.Join(dir, "state.dsn")
	for name, text := range map[string]string{config: fmt.Sprintf("data_dir: %q\nstate: {dsn_file: %q}\n", dir, dsnFile), dsnFile: dsn + "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := state.OpenDSN(t.Context(), controlbus.Secret(dsn), filepath.Join(dir, state.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := s.AddEvent(t.Context(), access.Event{At: time.Now(), Code: "test.done", Target: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := errors.Join(keepHeads(ended, s, filepath.Join(dir, "audit-heads"), slog.New(slog.DiscardHandler)), s.Close()); err != nil {
		t.Fatal(err)
	}
	verify := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := audit(t.Context(), args, &out)
		return out.String(), err
	}
	if out, err := verify("--config", config, "verify"); err != nil || !strings.Contains(out, "3 entries") || !strings.Contains(out, "1 heads") || !strings.Contains(out, "is whole") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	key, err := verify("--config", config, "key")
	if err != nil || !strings.HasPrefix(key, "signalbox-audit+") {
		t.Fatalf("key: %q, %v", key, err)
	}
	if out, err := verify("--dsn-file", dsnFile, "--key", strings.TrimSpace(key), "verify"); err != nil {
		t.Errorf("verify from elsewhere: %v\n%s", err, out)
	}
	raw, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.ExecContext(t.Context(), `DROP TRIGGER audit_no_update ON audit; UPDATE audit SET target = 'other' WHERE seq = 2`); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := verify("--config", config, "verify"); !errors.Is(err, errTampered) || !strings.Contains(out, "entry 2: it is not what was written") {
		t.Errorf("verify after an edit: %v\n%s", err, out)
	}
	for _, bad := range [][]string{{"--dsn-file", dsnFile, "verify"}, {"--dsn-file", dsnFile, "--db", "x", "verify"}, {"--dsn-file", filepath.Join(dir, "none"), "--key", "k", "verify"}} {
		if _, err := verify(bad...); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v, want a usage error", bad, err)
		}
	}
}
