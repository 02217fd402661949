package spool

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"
)

// killEnv names the directory of the log that the child process appends to.
const killEnv = "SPOOL_TEST_KILL_DIR"

// TestKilledChild is the process that TestKill9 kills.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv(killEnv)
	if dir == "" {
		t.Skip("runs as the child of TestKill9")
	}
	from, _ := strconv.ParseUint(os.Getenv(killEnv+"_FROM"), 10, 64)
	l, _, err := Open(Config{Dir: dir, SegmentBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex // of the output and the number
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				mu.Lock()
				n := from
				from++
				mu.Unlock()
				if _, err := l.Append(t.Context(), numbered(n)); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				fmt.Printf("acked %d\n", n)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// numbered is a record that proves its own content.
func numbered(n uint64) []byte {
	rng := rand.New(rand.NewPCG(n, 7))
	b := binary.LittleEndian.AppendUint64(nil, n)
	for range 1 + rng.IntN(4000) {
		b = append(b, byte(rng.Uint32()))
	}
	return b
}

// TestKill9 kills a process that appends, again and again: what it was told is
// durable is there exactly once after each restart.
func TestKill9(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts processes")
	}
	rounds := 8
	if n, err := strconv.Atoi(os.Getenv("SIGNALBOX_SOAK")); err == nil {
		rounds = max(100, n)
	}
	dir := t.TempDir()
	acked := map[uint64]bool{}
	next := uint64(0)
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledChild$", "-test.v")
		cmd.Env = append(os.Environ(), killEnv+"="+dir, fmt.Sprintf("%s_FROM=%d", killEnv, next))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := 200 + rand.IntN(800) // acknowledgements until the kill
		seen := 0
		guard := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var n uint64
			if _, err := fmt.Sscanf(lines.Text(), "acked %d", &n); err != nil {
				continue
			}
			acked[n] = true
			next = max(next, n+100) // leaves numbers that were in flight alone
			if seen++; seen == stop {
				cmd.Process.Kill()
			}
		}
		guard.Stop()
		cmd.Wait()
		if seen < stop {
			t.Fatalf("round %d: child ended after %d acknowledgements", round, seen)
		}
		l, rec, err := Open(Config{Dir: dir, SegmentBytes: 256 << 10})
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if len(rec.Damaged) != 0 {
			t.Errorf("round %d: damage after a kill: %v", round, rec.Damaged)
		}
		found := map[uint64]int{}
		if err := l.All(0, func(r Record) error {
			n := binary.LittleEndian.Uint64(r.Payload)
			if string(r.Payload) != string(numbered(n)) {
				t.Fatalf("record %d has wrong content", n)
			}
			found[n]++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for n := range acked {
			if found[n] != 1 {
				t.Fatalf("round %d: acknowledged record %d found %d times", round, n, found[n])
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records acknowledged over %d kills", len(acked), rounds)
}
