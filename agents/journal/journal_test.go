package journal_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("SIGNALBOX_TEST_JOURNAL_CHILD"); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func shut(t testing.TB, j *journal.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func id(n int) controlbus.CommandID { return controlbus.CommandID(fmt.Sprintf("%032x", n)) }

var ok = controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Done: 3}, Detail: "done"}

func TestALifeIsRemembered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	ctx := t.Context()
	if _, err := j.Begin(ctx, id(1), controlbus.CommandReplay, json.RawMessage(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Begin(ctx, id(1), controlbus.CommandReplay, nil); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("begun twice: got %v, want ErrConflict", err)
	}
	if _, err := j.Checkpoint(ctx, id(2), nil, nil); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("checkpoint of what has not begun: got %v, want ErrConflict", err)
	}
	if _, err := j.Checkpoint(ctx, id(1), json.RawMessage(`"offset 7"`), &controlbus.CommandProgress{Total: 9}); err != nil {
		t.Fatal(err)
	}
	name, head := j.ID(), j.Head()
	shut(t, j)

	j = open(t, dir)
	e, found := j.Entry(id(1))
	if !found || e.State != controlbus.JournalBegun || string(e.Checkpoint) != `"offset 7"` || string(e.Dispatch) != `{"a":1}` || e.Progress.Total != 9 || e.Seq != 2 || e.BegunSeq != 1 || e.Kind != controlbus.CommandReplay {
		t.Errorf("after a restart: %+v", e)
	}
	if j.ID() != name || j.Head() != head {
		t.Errorf("identity: got %s at %d, want %s at %d", j.ID(), j.Head(), name, head)
	}
	if seq, err := j.Done(ctx, id(1), "", ok); err != nil || seq != 3 {
		t.Errorf("done: got %d, %v", seq, err)
	}
	if _, err := j.Done(ctx, id(1), "", ok); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("done twice: got %v, want ErrConflict", err)
	}
	if _, err := j.Checkpoint(ctx, id(1), nil, nil); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("checkpoint after the end: got %v, want ErrConflict", err)
	}
	if _, err := j.Done(ctx, id(2), controlbus.CommandPurge, controlbus.CommandResult{Outcome: controlbus.CommandRejected}); err != nil {
		t.Errorf("rejected without beginning: %v", err)
	}
	if got := j.Entries(controlbus.JournalDone); len(got) != 2 || got[0].Command != id(1) || got[1].Kind != controlbus.CommandPurge {
		t.Errorf("to be told: %+v", got)
	}
	for range 2 {
		if err := j.Acked(ctx, id(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Acked(ctx, id(9)); err != nil { // the console knows more than we
		t.Fatal(err)
	}
	shut(t, j)
	j = open(t, dir)
	defer shut(t, j)
	if e, _ := j.Entry(id(1)); e.State != controlbus.JournalAcked || e.Result == nil || cmp.Diff(ok, *e.Result) != "" {
		t.Errorf("tombstone: %+v", e)
	}
	if _, err := j.Begin(ctx, id(1), controlbus.CommandReplay, nil); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("begun after its end: got %v, want ErrConflict", err)
	}
	if _, err := journal.Open(journal.Config{Dir: dir}); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("opened twice: got %v, want ErrConflict", err)
	}
}

// model is what a journal should remember.
type model map[controlbus.CommandID]journal.Entry

// Whatever is told, in any order, with restarts and compactions in between, the
// journal is the model; tombstones go after seven days and not before.
func TestJournalIsItsModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		now := time.Unix(1_800_000_000, 0)
		reopen := func() *journal.Journal {
			j, err := journal.Open(journal.Config{Dir: dir, Now: func() time.Time { return now }})
			if err != nil {
				t.Fatal(err)
			}
			return j
		}
		j := reopen()
		forget := func(m model) {
			for c, e := range m {
				if e.State == controlbus.JournalAcked && now.Sub(e.At) > journal.Tombstone {
					delete(m, c)
				}
			}
		}
		defer func() { j.Close() }()
		m := model{}
		head, name := uint64(0), j.ID()
		ctx := context.Background()
		pick := rapid.IntRange(1, 5)
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				c := id(pick.Draw(t, "command"))
				_, err := j.Begin(ctx, c, controlbus.CommandPurge, json.RawMessage(`1`))
				if _, known := m[c]; known != errors.Is(err, controlbus.ErrConflict) || !known && err != nil {
					t.Fatalf("begin: known %v, got %v", known, err)
				}
				if err == nil {
					m[c] = journal.Entry{State: controlbus.JournalBegun, Seq: 1}
				}
			},
			"checkpoint": func(t *rapid.T) {
				c := id(pick.Draw(t, "command"))
				at := json.RawMessage(fmt.Sprint(rapid.IntRange(0, 99).Draw(t, "at")))
				_, err := j.Checkpoint(ctx, c, at, nil)
				if e := m[c]; (e.State == controlbus.JournalBegun) != (err == nil) {
					t.Fatalf("checkpoint of %q: %v", e.State, err)
				} else if err == nil {
					e.Checkpoint, e.Seq = at, e.Seq+1
					m[c] = e
				}
			},
			"done": func(t *rapid.T) {
				c := id(pick.Draw(t, "command"))
				_, err := j.Done(ctx, c, controlbus.CommandPurge, ok)
				if e := m[c]; (e.State == controlbus.JournalBegun || e.State == "") != (err == nil) {
					t.Fatalf("done of %q: %v", e.State, err)
				} else if err == nil {
					e.State, e.Seq = controlbus.JournalDone, e.Seq+1
					m[c] = e
				}
			},
			"acked": func(t *rapid.T) {
				c := id(pick.Draw(t, "command"))
				err := j.Acked(ctx, c)
				if e := m[c]; (e.State == controlbus.JournalBegun) != (err != nil) {
					t.Fatalf("acked of %q: %v", e.State, err)
				} else if e.State == controlbus.JournalDone {
					e.State, e.Seq, e.At = controlbus.JournalAcked, e.Seq+1, now
					m[c] = e
				}
			},
			"restart": func(t *rapid.T) {
				if err := j.Close(); err != nil {
					t.Fatal(err)
				}
				j = reopen()
				forget(m)
			},
			"compact": func(t *rapid.T) {
				if err := j.Compact(ctx); err != nil {
					t.Fatal(err)
				}
				forget(m)
			},
			"days pass": func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 5).Draw(t, "days")) * 24 * time.Hour) },
			"": func(t *rapid.T) {
				if j.Head() < head || j.ID() != name {
					t.Fatalf("%s at %d became %s at %d", name, head, j.ID(), j.Head())
				}
				head = j.Head()
				for n := 1; n <= 5; n++ {
					got, known := j.Entry(id(n))
					want, should := m[id(n)]
					if known != should || got.State != want.State || got.Seq != want.Seq ||
						want.State == controlbus.JournalBegun && !bytes.Equal(got.Checkpoint, want.Checkpoint) {
						t.Fatalf("command %d: got %+v, want %+v", n, got, want)
					}
				}
			},
		})
	})
}

// child takes commands through their lives and prints each step once it is kept.
func child(dir string) error {
	j, err := journal.Open(journal.Config{Dir: dir})
	if err != nil {
		return err
	}
	ctx := context.Background()
	var mu sync.Mutex
	say := func(c controlbus.CommandID, what string) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(c, what)
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				c := controlbus.NewCommandID(time.Now())
				_, err := j.Begin(ctx, c, controlbus.CommandReplay, json.RawMessage(`{}`))
				say(c, "1")
				for n := 2; n < 5 && err == nil; n++ {
					_, err = j.Checkpoint(ctx, c, json.RawMessage(fmt.Sprint(n)), nil)
					say(c, fmt.Sprint(n))
				}
				if err == nil {
					_, err = j.Done(ctx, c, "", ok)
					say(c, "5")
				}
				if err == nil {
					err = j.Acked(ctx, c)
					say(c, "6")
				}
				if err == nil && rand.IntN(20) == 0 {
					err = j.Compact(ctx)
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// It is not parallel: a process that is being started holds, for a moment, the
// locks of the journals that the other tests have open.
func TestKilledJournal(t *testing.T) {
	dir := t.TempDir()
	kills := 8
	if os.Getenv("SIGNALBOX_SOAK") != "" {
		kills = 200
	}
	told := map[controlbus.CommandID]int64{}
	name, head := "", uint64(0)
	for life := range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "SIGNALBOX_TEST_JOURNAL_CHILD="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var kill *time.Timer
		for lines := bufio.NewScanner(out); lines.Scan(); {
			// Any moment of its life; in every other one it is at work, however slow the
			// machine is.
			if ready := lines.Text() == "ready"; kill == nil && (life%2 == 0) == ready {
				kill = time.AfterFunc(time.Duration(rand.IntN(150))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
			c, seq, whole := strings.Cut(lines.Text(), " ")
			if whole && controlbus.CommandID(c).Valid() && len(seq) == 1 {
				told[controlbus.CommandID(c)] = int64(seq[0] - '0')
			}
		}
		if kill == nil {
			t.Fatal("the child did not start: ", cmd.Wait())
		}
		_ = cmd.Wait()
		kill.Stop()
		j := open(t, dir)
		if len(j.Damaged()) > 0 {
			t.Fatalf("damaged by kill -9: %+v", j.Damaged())
		}
		if name != "" && j.ID() != name || j.Head() < head {
			t.Fatalf("%s at %d became %s at %d", name, head, j.ID(), j.Head())
		}
		name, head = j.ID(), j.Head()
		for c, seq := range told {
			e, known := j.Entry(c)
			if !known || e.Seq < seq {
				t.Fatalf("command %s was told at %d, the journal has %+v", c, seq, e)
			}
			if e.State == controlbus.JournalBegun && e.Seq > 1 && string(e.Checkpoint) != fmt.Sprint(e.Seq) {
				t.Fatalf("command %s at %d has the checkpoint %s", c, e.Seq, e.Checkpoint)
			}
		}
		shut(t, j)
	}
	if len(told) < kills/2 {
		t.Errorf("only %d commands told of in %d lives", len(told), kills)
	}
	t.Logf("%d kills, %d commands, head %d", kills, len(told), head)
}

// A flipped bit loses what it hit, and with it the journal's name: the console
// must not trust it to remember. What is whole is kept.
func TestDamageChangesTheIdentity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := open(t, dir)
	for n := range 20 {
		if _, err := j.Begin(t.Context(), id(n+1), controlbus.CommandPurge, json.RawMessage(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	name, head := j.ID(), j.Head()
	shut(t, j)
	segments, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte(id(10)))
	b[at] ^= 1
	if err := os.WriteFile(segments[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	j = open(t, dir)
	if len(j.Damaged()) == 0 || j.ID() == name || j.Head() < head {
		t.Errorf("damage %v: %s at %d became %s at %d", j.Damaged(), name, head, j.ID(), j.Head())
	}
	for n := range 20 {
		if _, known := j.Entry(id(n + 1)); known != (n+1 != 10) {
			t.Errorf("command %d: known %v", n+1, known)
		}
	}
	name = j.ID()
	if err := j.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	shut(t, j)
	j = open(t, dir)
	defer shut(t, j)
	if j.ID() != name || len(j.Damaged()) != 0 {
		t.Errorf("the next start: %s became %s, damage %v", name, j.ID(), j.Damaged())
	}
}

func BenchmarkCheckpoint(b *testing.B) {
	j := open(b, b.TempDir())
	defer shut(b, j)
	if _, err := j.Begin(b.Context(), id(1), controlbus.CommandReplay, nil); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := j.Checkpoint(b.Context(), id(1), json.RawMessage(`{"position":"stream:123456"}`), nil); err != nil {
			b.Fatal(err)
		}
	}
}
