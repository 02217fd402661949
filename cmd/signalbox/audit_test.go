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
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage/state"
)

func TestAuditVerify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "console.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "data_dir: %q\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	db := filepath.Join(dir, "state.db")
	s, err := state.Open(t.Context(), db)
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
	for range 2 { // the console's life, twice: the second has nothing new to keep but its own start
		if err := keepHeads(ended, s, filepath.Join(dir, "audit-heads"), slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	verify := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := audit(t.Context(), args, &out)
		return out.String(), err
	}
	if out, err := verify("--config", config, "verify"); err != nil || !strings.Contains(out, "3 entries") || !strings.Contains(out, "2 heads") || !strings.Contains(out, "is whole") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	key, err := verify("--config", config, "key")
	if err != nil || !strings.HasPrefix(key, "signalbox-audit+") {
		t.Fatalf("key: %q, %v", key, err)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	b, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := verify("--db", copied, "--key", strings.TrimSpace(key), "verify"); err != nil {
		t.Errorf("verify a copy: %v\n%s", err, out)
	}
	raw, err := sql.Open("sqlite", db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.ExecContext(t.Context(), `DROP TRIGGER audit_no_update; UPDATE audit SET target = 'other' WHERE seq = 2`); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := verify("--config", config, "verify"); !errors.Is(err, errTampered) || !strings.Contains(out, "entry 2: it is not what was written") {
		t.Errorf("verify after an edit: %v\n%s", err, out)
	}
	for _, bad := range [][]string{{}, {"check"}, {"verify", "more"}, {"--nope", "verify"}} {
		if _, err := verify(bad...); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v, want a usage error", bad, err)
		}
	}
	if _, err := verify("--db", filepath.Join(dir, "none.db"), "verify"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
}
