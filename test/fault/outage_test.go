package fault

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/test/program"
)

// feed sends numbered messages of a size until the console refuses, or until n
// were taken, and returns how many were and the refusal.
func (s *site) feed(ctx context.Context, name string, n, size int) (taken int, refusal *http.Response, err error) {
	for taken < n {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url()+"/v1/logs",
			bytes.NewReader(message(fmt.Sprintf("%s-%d", name, taken), bytes.Repeat([]byte("b"), size))))
		if err != nil {
			return taken, nil, err
		}
		req.Header.Set("Content-Type", protobuf)
		res, err := client.Do(req)
		if err != nil {
			return taken, nil, err
		}
		_, _ = io.Copy(io.Discard, res.Body) // only the status counts
		if err := res.Body.Close(); err != nil {
			return taken, nil, err
		}
		if res.StatusCode != http.StatusOK {
			return taken, res, nil
		}
		taken++
	}
	return taken, nil, nil
}

// settled waits until exactly want messages of a name are stored, each once.
func (s *site) settled(t *testing.T, name string, want int) time.Duration {
	t.Helper()
	return await(t, 90*time.Second, func(ctx context.Context) error {
		text, err := s.query(ctx, "SELECT count(), uniqExact(uid) FROM signalbox.messages WHERE destination LIKE 'hostile."+name+"-%'")
		if expect := fmt.Sprintf("%d\t%d", want, want); err == nil && text != expect {
			err = fmt.Errorf("%s: rows and distinct rows: got %q, want %q", name, text, expect)
		}
		return err
	})
}

// TestFaultStoreAway stops the engine, and then kills it again and again: pages
// say so at once, requests are taken until the queue is full, and everything
// that was taken is stored when the engine is back.
func TestFaultStoreAway(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a console")
	}
	site := newSite(t, func(cfg map[string]any) {
		cfg["collector"] = map[string]any{"max_bytes": 64 << 20}
		cfg["ingest"] = map[string]any{"max_delay": "100ms"}
	})
	console := program.Start(t, program.Console, nil, site.args()...)
	site.ready(t.Context(), t, console)
	if n, refusal, err := site.feed(t.Context(), "before", 10, 10); n != 10 {
		t.Fatalf("took %d, %v, %v", n, refusal, err)
	}
	site.settled(t, "before", 10)

	engine := engineOf(console.PID())
	if err := syscall.Kill(engine, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	taken, refusal, err := site.feed(t.Context(), "stopped", 1000, 1<<20)
	if err != nil || refusal == nil {
		t.Fatalf("took %d requests of 1 MiB into a queue of 64 MiB (%v)", taken, err)
	}
	if after, err := strconv.Atoi(refusal.Header.Get("Retry-After")); refusal.StatusCode != http.StatusTooManyRequests || err != nil || after < 1 {
		t.Errorf("full queue: got %d, Retry-After %q, want 429 and a delay", refusal.StatusCode, refusal.Header.Get("Retry-After"))
	}
	if taken < 40 {
		t.Errorf("a queue of 64 MiB took only %d requests of 1 MiB", taken)
	}
	// A page that was asked for in the first second may still wait.
	if err := sleep(t.Context(), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{
		"/": "", "/channels": "", "/agents": "", "/messages": "does not answer", "/live": "does not answer",
	} {
		begin := time.Now()
		code, text, err := fetch(t.Context(), site.url()+path)
		took := time.Since(begin)
		t.Logf("engine stopped: %-10s %d in %v", path, code, took.Round(time.Millisecond))
		if err != nil || code != http.StatusOK && code != http.StatusServiceUnavailable {
			t.Errorf("%s while the engine is stopped: got %d, %v", path, code, err)
		}
		if !strings.Contains(text, says) {
			t.Errorf("%s while the engine is stopped does not say that the store %s", path, says)
		}
		if took > 2*time.Second {
			t.Errorf("%s while the engine is stopped: took %v, want at most 2s", path, took)
		}
	}
	if err := syscall.Kill(engine, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	t.Logf("engine stopped: %d requests taken, all stored %v after it went on", taken, site.settled(t, "stopped", taken).Round(time.Millisecond))

	// Killed whenever it comes up again.
	ctx, stop := context.WithTimeout(t.Context(), 6*time.Second)
	defer stop()
	kills := 0
	var killer sync.WaitGroup
	killer.Go(func() {
		for sleep(ctx, 100*time.Millisecond) == nil {
			if pid := engineOf(console.PID()); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
				kills++
			}
		}
	})
	taken, refusal, err = site.feed(t.Context(), "killed", 200, 1000)
	if err != nil || refusal != nil {
		t.Errorf("while the engine is killed: took %d, %v, %v", taken, refusal, err)
	}
	var slowest time.Duration
	for ctx.Err() == nil {
		begin := time.Now()
		if code, _, err := fetch(t.Context(), site.url()+"/"); err != nil || code != http.StatusOK {
			t.Errorf("/ while the engine is killed: got %d, %v", code, err)
		}
		slowest = max(slowest, time.Since(begin))
	}
	if slowest > 2*time.Second {
		t.Errorf("/ while the engine is killed: took up to %v, want at most 2s", slowest)
	}
	t.Logf("engine killed: / took up to %v", slowest.Round(time.Millisecond))
	killer.Wait()
	t.Logf("engine killed %d times: everything stored %v after the last", kills, site.settled(t, "killed", taken).Round(time.Millisecond))
}

// TestFaultQueueDisk fills the disk of the queue: senders are told to come
// back, and once there is room it goes on without a restart.
func TestFaultQueueDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a console")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("needs to mount a tmpfs: %v", err) // an ordinary user cannot
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	site := newSite(t, func(cfg map[string]any) {
		cfg["collector"] = map[string]any{"dir": filepath.Join(disk, "queue")}
		cfg["ingest"] = map[string]any{"max_delay": "100ms"}
	})
	console := program.Start(t, program.Console, nil, site.args()...)
	site.ready(t.Context(), t, console)
	engine := engineOf(console.PID())
	if err := syscall.Kill(engine, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	taken, refusal, err := site.feed(t.Context(), "disk", 100, 1<<20)
	if err != nil || refusal == nil || refusal.StatusCode != http.StatusTooManyRequests && refusal.StatusCode != http.StatusServiceUnavailable || refusal.Header.Get("Retry-After") == "" {
		t.Fatalf("full disk: took %d, then %v, %v; want 429 or 503 with Retry-After", taken, refusal, err)
	}
	refused := refusal.StatusCode
	// Also with no byte left at all, which is when half a record is written.
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 24<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	if n, refusal, err := site.feed(t.Context(), "never", 1, 10_000); n != 0 || err != nil || refusal.StatusCode < 429 {
		t.Errorf("no byte left: took %d, %v, %v", n, refusal, err)
	}
	if code, _, err := fetch(t.Context(), site.url()+"/agents"); err != nil || code != http.StatusOK {
		t.Errorf("a page while the disk is full: %d, %v", code, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(engine, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB taken, then %d; stored %v after the engine went on", taken, refused, site.settled(t, "disk", taken).Round(time.Millisecond))
	await(t, 30*time.Second, func(ctx context.Context) error {
		if n, refusal, err := site.feed(ctx, "room", 1, 1<<20); err != nil || n != 1 {
			return fmt.Errorf("with room again: %v, %w", refusal, err)
		}
		return nil
	})
	site.settled(t, "room", 1)
	if n, err := site.query(t.Context(), "SELECT count() FROM signalbox.messages WHERE destination LIKE 'hostile.never-%'"); err != nil || n != "0" {
		t.Errorf("refused and stored all the same: %s, %v", n, err)
	}
}

// TestFaultTerminate ends console and agent in the middle of their work: in
// time, with 0, leaving nobody behind; and both go on where they were.
func TestFaultTerminate(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs")
	}
	site := newSite(t, nil)
	src := newSource(t)
	agentArgs := []string{"-config", agentConfig(t, src.url, site.url())}
	console := program.Start(t, program.Console, nil, site.args()...)
	site.ready(t.Context(), t, console)
	agent := &victim{t: t, name: program.Agent, args: agentArgs}
	agent.start()
	awaitTap(t.Context(), t, src, func() bool { rows, _, err := site.stored(t.Context()); return err == nil && rows > 0 }, agent)

	const n = 20_000
	var publisher sync.WaitGroup
	published := make(chan error, 1)
	publisher.Go(func() { published <- src.publish(t.Context(), n, 6*time.Second) })
	defer publisher.Wait()
	for range 2 {
		if err := sleep(t.Context(), time.Second); err != nil {
			t.Fatal(err)
		}
		engine := engineOf(console.PID())
		for _, p := range []*program.Process{agent.proc, console} {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			begin := time.Now()
			code, err := p.Stop(ctx)
			cancel()
			if err != nil || code != 0 {
				t.Errorf("SIGTERM under load: exit code %d, %v after %v\n%s", code, err, time.Since(begin), p.Output())
			}
			t.Logf("ended %v after SIGTERM", time.Since(begin).Round(time.Millisecond))
			if p.Left() {
				t.Error("a process of its group is left")
			}
		}
		if syscall.Kill(engine, 0) == nil {
			t.Error("the engine is left")
		}
		console = program.Start(t, program.Console, nil, site.args()...)
		agent.start()
		site.ready(t.Context(), t, console)
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	last, err := src.last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	await(t, time.Minute, func(ctx context.Context) error {
		var first, rows, distinct int
		text, err := site.query(ctx, "SELECT min(position), count(), uniqExact(uid) FROM signalbox.messages WHERE env = '"+agentEnv+"'")
		if err == nil {
			_, err = fmt.Sscan(text, &first, &rows, &distinct)
		}
		if want := int(last) - first + 1; err == nil && (rows != want || distinct != want || want < n) {
			err = fmt.Errorf("stored %d rows, %d distinct, want %d", rows, distinct, want)
		}
		return err
	})
}
