package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/engine"
	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
)

// crash kills the child and waits until the Supervisor has noticed.
func crash(t *testing.T, s *engine.Supervisor) {
	t.Helper()
	before := s.Status()
	if before.PID == 0 {
		return // between two lives already
	}
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
}

func TestRestartAfterCrash(t *testing.T) {
	t.Parallel()
	s := enginetest.Start(t)
	post(t, s, "CREATE TABLE t (a UInt64) ENGINE=MergeTree ORDER BY a", nil, "")
	post(t, s, "INSERT INTO t VALUES (1)", nil, "")
	first := s.Status()
	if first.State != engine.Running || first.PID == 0 || first.Restarts != 0 || first.Since.IsZero() {
		t.Errorf("status of a running engine: %+v", first)
	}
	for n := 1; n <= 2; n++ {
		pid := s.Status().PID
		crash(t, s)
		for s.Status().PID == pid { // until it has noticed
			time.Sleep(time.Millisecond)
		}
		if err := s.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := s.Status()
		if got.State != engine.Running || got.PID == pid || got.Restarts != n || !strings.Contains(got.LastError, "signal: killed") {
			t.Errorf("status after crash %d: %+v", n, got)
		}
		if r := post(t, s, "SELECT sum(a) FROM t", nil, ""); r != "1\n" {
			t.Errorf("data after crash %d: got %q", n, r)
		}
	}
}

// Every block is sent until it is acknowledged, under a token of its own, while
// the engine is killed over and over. Every row is there exactly once.
func TestInsertsAreExactlyOnceAcrossCrashes(t *testing.T) {
	t.Parallel()
	s := enginetest.Start(t)
	post(t, s, `CREATE TABLE t (id UInt64, body String) ENGINE=MergeTree ORDER BY id
		SETTINGS non_replicated_deduplication_window=10000`, nil, "")
	post(t, s, `CREATE TABLE sums (k UInt8, n SimpleAggregateFunction(sum, UInt64)) ENGINE=AggregatingMergeTree ORDER BY k
		SETTINGS non_replicated_deduplication_window=10000`, nil, "")
	post(t, s, "CREATE MATERIALIZED VIEW mv TO sums AS SELECT 0::UInt8 AS k, count() AS n FROM t GROUP BY k", nil, "")
	c := dial(t, s)
	const blocks, rows, kills = 30, 5000, 4
	var sent, killed atomic.Int64
	go func() {
		for killed.Load() < kills {
			// A crash every few blocks, at whatever moment of the insert.
			if sent.Load() >= (killed.Load()+1)*blocks/(kills+2) && s.Ready() {
				pid := s.Status().PID
				if pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
					killed.Add(1)
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	for round := range 2 { // the second round repeats what is there already
		for b := range blocks {
			ctx := clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{
				"insert_deduplication_token": fmt.Sprintf("block-%d", b), "async_insert": 0, "deduplicate_blocks_in_dependent_materialized_views": 1}))
			for {
				err := func() error {
					batch, err := c.PrepareBatch(ctx, "INSERT INTO t")
					if err != nil {
						return err
					}
					defer batch.Close()
					for i := range rows {
						if err := batch.Append(uint64(b*rows+i), "some body text"); err != nil {
							return err
						}
					}
					sent.Add(1)
					return batch.Send()
				}()
				if err == nil {
					break
				}
				var e *clickhouse.Exception
				if errors.As(err, &e) {
					t.Fatalf("round %d, block %d: %v", round, b, err)
				}
				if t.Context().Err() != nil {
					t.Fatal(err)
				}
			}
		}
	}
	got := post(t, s, "SELECT count(), uniqExact(id), sum(id), (SELECT sum(n) FROM sums) FROM t", nil, "")
	const n = blocks * rows
	if want := fmt.Sprintf("%d\t%d\t%d\t%d\n", n, n, n*(n-1)/2, n); got != want {
		t.Errorf("rows, distinct, sum, in the view: got %q, want %q", got, want)
	}
	if st := s.Status(); killed.Load() != kills || st.Restarts < 1 {
		t.Errorf("killed %d times, restarted %d times: the test did not test", killed.Load(), st.Restarts)
	}
}

func TestStopFinishesRunningStatements(t *testing.T) {
	t.Parallel()
	enginetest.Require(t)
	cfg := enginetest.Config(t.TempDir())
	cfg.Grace = 20 * time.Second
	s := enginetest.New(cfg, discard())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	post(t, s, "CREATE TABLE t (a UInt64) ENGINE=MergeTree ORDER BY a", nil, "")
	answered := make(chan error, 1)
	go func() {
		res, err := s.HTTPClient().Post("http://engine/?"+url.Values{"query": {"INSERT INTO t FORMAT CSV"}}.Encode(), "", pr)
		if err == nil {
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %s", res.Status)
			}
		}
		answered <- err
	}()
	fmt.Fprintln(pw, "1")
	for post(t, s, "SELECT count() FROM system.processes WHERE query LIKE 'INSERT%'", nil, "") == "0\n" {
	}
	cancel()
	fmt.Fprintln(pw, "2")
	pw.Close()
	if err := <-answered; err != nil {
		t.Errorf("the insert under way at shutdown: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if st := s.Status(); st.State != engine.Stopped || st.PID != 0 {
		t.Errorf("status after the end: %+v", st)
	}
	again := enginetest.StartConfig(t, cfg)
	if got := post(t, again, "SELECT sum(a) FROM t", nil, ""); got != "3\n" {
		t.Errorf("rows after a clean stop: got %q", got)
	}
}

func TestRunGivesUpWithoutLibrary(t *testing.T) {
	t.Setenv(engine.LibraryEnv, "")
	t.Chdir(t.TempDir())
	cfg := enginetest.Config(t.TempDir())
	err := enginetest.New(cfg, discard()).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "run `make deps` (or `npm ci`)") || strings.Contains(err.Error(), "\n") {
		t.Errorf("without the library: got %v", err)
	}
	cfg.Library = filepath.Join(t.TempDir(), "none.so")
	if err := enginetest.New(cfg, discard()).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "library names "+cfg.Library) {
		t.Errorf("with a wrong path: got %v", err)
	}
	cfg.Library = filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(cfg.Library, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := enginetest.New(cfg, discard()).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "load "+cfg.Library) {
		t.Errorf("with a file that is no library: got %v", err)
	}
}

func TestRunGivesUpOnAChildThatNeverAnswers(t *testing.T) {
	t.Parallel()
	enginetest.Require(t)
	s := engine.New(enginetest.Config(t.TempDir()), discard())
	s.SetCommand([]string{"/bin/sh", "-c", "echo no such luck >&2; exit 3"}, nil)
	err := s.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 3: no such luck") {
		t.Errorf("Run: got %v", err)
	}
}

// Somebody who kills the engine while it starts for the first time says nothing
// about the next start.
func TestAChildKilledBeforeItAnswersIsStartedAgain(t *testing.T) {
	t.Parallel()
	enginetest.Require(t)
	starts := filepath.Join(t.TempDir(), "starts")
	s := engine.New(enginetest.Config(t.TempDir()), discard())
	s.SetCommand([]string{"/bin/sh", "-c", `echo >> "$0"; [ $(wc -l < "$0") -lt 3 ] && kill -9 $$; exit 3`, starts}, nil)
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("Run: got %v, want the end of the third child", err)
	}
	if b, err := os.ReadFile(starts); err != nil || len(b) != 3 {
		t.Errorf("started %d times, %v, want 3", len(b), err)
	}
}

func TestDialWaitsAndThenGivesUp(t *testing.T) {
	t.Parallel()
	s := engine.New(enginetest.Config(t.TempDir()), discard()) // never run
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := s.DialContext(ctx, "engine:80"); !errors.Is(err, controlbus.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial before Run: got %v", err)
	}
}

// The child must not outlive a parent that had no chance to stop it.
func TestChildEndsWithItsInput(t *testing.T) {
	t.Parallel()
	enginetest.Require(t)
	cfg := enginetest.Config(t.TempDir())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	child, err := os.StartProcess(os.Args[0], append([]string{os.Args[0], "-child"}, cfg.Args()...), &os.ProcAttr{
		Env: append(os.Environ(), "SIGNALBOX_ENGINE_TEST_CHILD=1"), Files: []*os.File{r, nil, nil}})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close() // as the kernel does when the parent dies
	st, err := child.Wait()
	if err != nil || !st.Success() {
		t.Errorf("child: %v, %v", st, err)
	}
	// Its lock is free at once.
	s := enginetest.StartConfig(t, cfg)
	post(t, s, "SELECT 1", nil, "")
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	enginetest.Require(t)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err) // an ordinary user cannot, even on CI
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	cfg := enginetest.Config(filepath.Join(dir, "data"))
	s := enginetest.StartConfig(t, cfg)
	post(t, s, "CREATE TABLE t (a UInt64, s String CODEC(NONE)) ENGINE=MergeTree ORDER BY a", nil, "")
	const insert = "INSERT INTO t SELECT number, randomString(1000) FROM numbers(%d)"
	post(t, s, fmt.Sprintf(insert, 1000), nil, "")
	// Without a reserve the engine itself meets the end of the disk.
	r := do(t, s.HTTPClient(), "http://engine", "POST", fmt.Sprintf(insert, 60000), nil, "")
	if r.status != http.StatusInsufficientStorage || r.header.Get("X-ClickHouse-Exception-Code") != "243" || !strings.Contains(r.body, "the disk is full") {
		t.Errorf("insert past the end of the disk: got %d %s", r.status, r.body)
	}
	if got := post(t, s, "SELECT count() FROM t", nil, ""); got != "1000\n" {
		t.Errorf("rows after the refused insert: got %q", got)
	}
	post(t, s, "INSERT INTO t VALUES (1, 'fits')", nil, "")
}

func TestDiskReserveRefusesInserts(t *testing.T) {
	t.Parallel()
	cfg := enginetest.Config(t.TempDir())
	cfg.DiskReserve = 1 << 50
	s := enginetest.StartConfig(t, cfg)
	post(t, s, "CREATE TABLE t (a UInt64) ENGINE=MergeTree ORDER BY a", nil, "")
	for _, q := range []string{"INSERT INTO t VALUES (1)", "INSERT INTO t SELECT 1", "INSERT INTO t FORMAT CSV"} {
		r := do(t, s.HTTPClient(), "http://engine", "POST", q, nil, "1\n"[:2*strings.Count(q, "CSV")])
		if r.status != http.StatusInsufficientStorage || r.header.Get("X-ClickHouse-Exception-Code") != "243" || !strings.Contains(r.body, "kept in reserve") {
			t.Errorf("%s: got %d %s", q, r.status, r.body)
		}
	}
	post(t, s, "SELECT count() FROM t", nil, "")
	post(t, s, "DROP TABLE t", nil, "") // making room stays possible
}
