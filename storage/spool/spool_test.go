package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, rec, err := Open(cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if len(rec.Damaged) != 0 {
		t.Fatalf("damaged: %v", rec.Damaged)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func appendAll(t testing.TB, l *Log, payloads ...string) (first Position) {
	t.Helper()
	for i, p := range payloads {
		pos, err := l.Append(t.Context(), []byte(p))
		if err != nil {
			t.Fatalf("append %q: %v", p, err)
		}
		if i == 0 {
			first = pos
		}
	}
	return first
}

func readAll(t testing.TB, l *Log, from Position) (got []string) {
	t.Helper()
	if err := l.All(from, func(r Record) error { got = append(got, string(r.Payload)); return nil }); err != nil {
		t.Fatalf("read: %v", err)
	}
	return got
}

func TestLogOnDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "wal")
	cfg := Config{Dir: dir, SegmentBytes: minSegment}
	l := open(t, cfg)
	big := string(bytes.Repeat([]byte("x"), 3*minSegment))
	appendAll(t, l, "one", "", big, "two")
	if _, _, err := Open(cfg); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("second open: got %v, want ErrConflict", err)
	}
	id := l.ID()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	l = open(t, cfg)
	if l.ID() != id {
		t.Errorf("id: got %v, want %v", l.ID(), id)
	}
	third := appendAll(t, l, "three")
	if got, want := fmt.Sprint(readAll(t, l, 0)), fmt.Sprint([]string{"one", "", big, "two", "three"}); got != want {
		t.Errorf("got %.80s, want %.80s", got, want)
	}
	if got := l.Pending(third); got != recordSize(len("three")) {
		t.Errorf("pending: got %d", got)
	}
	if err := l.Trim(third); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, l, 0); len(got) != 1 || got[0] != "three" {
		t.Errorf("after trim: %q", got)
	}
	if s := l.Stats(); s.Segments != 1 || s.Bytes != l.Size() || s.Bytes != segmentHeader+recordSize(5) {
		t.Errorf("stats: %+v", s)
	}
}

func TestReaderFollowsWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _, err := Open(Config{Dir: "/wal", FS: newSimFS(), SegmentBytes: minSegment})
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan string)
		go func() {
			defer close(got)
			r := l.Reader(0)
			for {
				rec, err := r.Next(t.Context())
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Errorf("next: %v", err)
					}
					return
				}
				got <- string(rec.Payload)
			}
		}()
		for i := range 300 {
			synctest.Wait() // the reader is waiting
			want := fmt.Sprintf("record %d", i)
			appendAll(t, l, want)
			if g := <-got; g != want {
				t.Fatalf("got %q, want %q", g, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Reader(l.End()).Next(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("next with ended context: %v", err)
		}
		l.Close()
		<-got
	})
}

// One fsync serves everybody who waits meanwhile.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	fs := newSimFS()
	l := open(t, Config{Dir: "/wal", FS: fs})
	release := make(chan struct{})
	first := make(chan struct{})
	var once sync.Once
	fs.failAt = func(op, name string) error {
		if op == "sync" {
			once.Do(func() {
				close(first)
				fs.mu.Unlock() // the hook runs under the file system's lock
				<-release
				fs.mu.Lock()
			})
		}
		return nil
	}
	const n = 50
	var wg sync.WaitGroup
	wg.Go(func() { appendAll(t, l, "leader") })
	<-first
	ctx, cancel := context.WithCancel(t.Context())
	for i := range n {
		wg.Go(func() {
			if _, err := l.Append(t.Context(), fmt.Append(nil, i)); err != nil {
				t.Error(err)
			}
		})
	}
	for queued := 0; queued < n; {
		l.mu.Lock()
		queued = len(l.queue)
		l.mu.Unlock()
	}
	withdrawn := make(chan error)
	go func() { _, err := l.Append(ctx, []byte("withdrawn")); withdrawn <- err }()
	for queued := n; queued == n; {
		l.mu.Lock()
		queued = len(l.queue)
		l.mu.Unlock()
	}
	cancel()
	if err := <-withdrawn; !errors.Is(err, context.Canceled) {
		t.Errorf("withdrawn: %v", err)
	}
	close(release)
	wg.Wait()
	if s := l.Stats(); s.Commits != 2 || s.Appends != n+1 {
		t.Errorf("stats: %+v, want 2 commits of %d records", s, n+1)
	}
	if got := readAll(t, l, 0); len(got) != n+1 {
		t.Errorf("%d records", len(got))
	}
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	fs := newSimFS()
	cfg := Config{Dir: "/wal", FS: fs, SegmentBytes: minSegment}
	l := open(t, cfg)
	appendAll(t, l, "before")
	for free := range int64(300) {
		fs.space = free
		if _, err := l.AppendBatch(t.Context(), [][]byte{make([]byte, 10), make([]byte, 500)}); !errors.Is(err, ErrNoSpace) {
			t.Fatalf("with %d bytes free: got %v, want ErrNoSpace", free, err)
		}
		if got := readAll(t, l, 0); len(got) != 1 {
			t.Fatalf("with %d bytes free: %d records", free, len(got))
		}
	}
	fs.space = 1 << 30
	appendAll(t, l, "after")
	l.Close()
	l = open(t, cfg)
	if got := readAll(t, l, 0); len(got) != 2 || got[1] != "after" {
		t.Errorf("got %q", got)
	}
}

func TestSizeLimit(t *testing.T) {
	t.Parallel()
	l := open(t, Config{Dir: "/wal", FS: newSimFS(), MaxBytes: 8 * minSegment})
	record := make([]byte, 1000)
	var last Position
	n := 0
	for {
		pos, err := l.Append(t.Context(), record)
		if errors.Is(err, ErrFull) {
			if !errors.Is(err, controlbus.ErrOverloaded) {
				t.Error("ErrFull is not retryable")
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = pos
		n++
	}
	if s := l.Stats(); s.Bytes > s.MaxBytes || s.Refused != 1 || n < 20 {
		t.Errorf("stats after %d records: %+v", n, s)
	}
	if err := l.Trim(last); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, "room again")
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"no dir":        {},
		"tiny segment":  {Dir: "x", SegmentBytes: 1},
		"cap < segment": {Dir: "x", SegmentBytes: 1 << 20, MaxBytes: 1 << 20},
		"tiny cap":      {Dir: "x", MaxBytes: 1},
	} {
		if _, _, err := Open(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestQuarantineOnDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := Config{Dir: dir, SegmentBytes: minSegment}
	l := open(t, cfg)
	pos := appendAll(t, l, "first", "second", "third")
	l.Close()
	name := filepath.Join(dir, segmentName(0))
	b, _ := os.ReadFile(name)
	b[bytes.Index(b, []byte("second"))] ^= 1
	os.WriteFile(name, b, 0o600)
	os.WriteFile(filepath.Join(dir, segmentName(1<<40)), bytes.Repeat([]byte("junk"), 100), 0o600)
	os.WriteFile(filepath.Join(dir, "id"), []byte("garbage"), 0o600)
	l, rec, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if len(rec.Damaged) != 2 || rec.Records != 2 {
		t.Errorf("recovery: %+v", rec)
	}
	for _, d := range rec.Damaged {
		if _, err := os.Stat(d.Kept); err != nil {
			t.Errorf("damage %+v: %v", d, err)
		}
	}
	if got := readAll(t, l, 0); fmt.Sprint(got) != "[first third]" {
		t.Errorf("got %q", got)
	}
	if next := appendAll(t, l, "fourth"); next <= pos || next < 1<<40 {
		t.Errorf("position %d could have been used before", next)
	}
}

// FuzzRecovery opens whatever bytes a segment may hold.
func FuzzRecovery(f *testing.F) {
	fs := newSimFS()
	l, _, _ := Open(Config{Dir: "/wal", FS: fs})
	for _, p := range []string{"alpha", "", "beta beta beta"} {
		l.Append(context.Background(), []byte(p))
	}
	good := fs.dir("/wal").live[segmentName(0)].data
	id := fs.dir("/wal").live["id"].data
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(good[8:])
	f.Add(append(append([]byte{}, good...), make([]byte, 100)...))
	f.Fuzz(func(t *testing.T, segment []byte) {
		fs := newSimFS()
		fs.MkdirAll("/wal")
		for name, data := range map[string][]byte{"id": id, segmentName(0): segment} {
			w, _ := fs.Open("/wal/"+name, true)
			w.WriteAt(data, 0)
		}
		cfg := Config{Dir: "/wal", FS: fs}
		l, rec, err := Open(cfg)
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		before := readAll(t, l, 0)
		if int64(len(before)) != rec.Records {
			t.Fatalf("recovery counted %d records, read %d", rec.Records, len(before))
		}
		if _, err := l.Append(t.Context(), []byte("more")); err != nil {
			t.Fatalf("append: %v", err)
		}
		l.Close()
		l, rec, err = Open(cfg)
		if err != nil || len(rec.Damaged) != 0 {
			t.Fatalf("second open: %v %v", rec.Damaged, err)
		}
		if after := readAll(t, l, 0); len(after) != len(before)+1 || after[len(before)] != "more" {
			t.Fatalf("had %d records, have %d", len(before), len(after))
		}
	})
}

// BenchmarkAppend is the collector's load: requests of 300 KB with 512 rows
// from many connections, each acknowledged after its fsync.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			l := open(b, Config{Dir: b.TempDir()})
			payload := bytes.Repeat([]byte("0123456789abcdef"), 300<<10/16)
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			b.SetParallelism((writers + 1) / 2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					pos, err := l.Append(context.Background(), payload)
					if err != nil {
						b.Error(err)
					}
					if l.Size() > 512<<20 {
						l.Trim(pos)
					}
				}
			})
			b.ReportMetric(float64(b.N)*512/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(l.Stats().Appends)/float64(max(1, l.Stats().Commits)), "appends/fsync")
		})
	}
}
