package export

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Where a tap begins is on disk when Begin returns, whatever happens next, and
// with many beginning at once.
func TestBeginIsDurable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	x := exporter(t, dir, newCollector(t), nil)
	want := map[string]Position{}
	var wg sync.WaitGroup
	for i := range 20 {
		key := fmt.Sprintf("b/%d", i)
		pos := Position{Stream: "s", Seq: uint64(i)}
		want[key] = pos
		wg.Go(func() {
			q := x.Open(key)
			if err := x.Begin(q, pos); err != nil {
				t.Error(err)
			}
			if got := q.Position(); got != pos {
				t.Errorf("%s: position %+v after Begin, want %+v", key, got, pos)
			}
		})
	}
	wg.Wait()
	// Killed: nothing is closed in order, only the lock is let go.
	if err := x.spool.Close(); err != nil {
		t.Fatal(err)
	}
	again := exporter(t, dir, newCollector(t), nil)
	got := map[string]Position{}
	for key := range want {
		got[key] = again.Open(key).Position()
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("positions after a kill (-want +got):\n%s", diff)
	}
	if err := again.spool.Close(); err != nil {
		t.Error(err)
	}
}

// A tap that ended for good and is asked for again begins anew, and the end of
// the old one takes nothing of the new one along.
func TestTapAskedForAgainBeginsAnew(t *testing.T) {
	t.Parallel()
	x := exporter(t, t.TempDir(), newCollector(t), nil)
	old := x.Open("b/c")
	if err := x.Begin(old, Position{Stream: "s", Seq: 1}); err != nil {
		t.Fatal(err)
	}
	old.Close(true)
	q := x.Open("b/c")
	if got := q.Position(); got != (Position{}) {
		t.Errorf("asked for again it stands at %+v", got)
	}
	if err := x.Begin(q, Position{Stream: "s", Seq: 9}); err != nil {
		t.Fatal(err)
	}
	x.retire(newBatch())
	if got := x.positions["b/c"]; got.Seq != 9 || len(x.queues) != 1 {
		t.Errorf("after the old one was retired: position %+v, %d queues", got, len(x.queues))
	}
	q.Close(true)
	x.retire(newBatch())
	if _, kept := x.positions["b/c"]; kept || len(x.queues) != 0 {
		t.Errorf("after the new one was retired: position kept %v, %d queues", kept, len(x.queues))
	}
	if err := x.spool.Close(); err != nil {
		t.Error(err)
	}
}
