package job_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/signalbox-dev/signalbox/controlbus/job"
)

// errCrash stands for the end of the process.
var errCrash = errors.New("crash")

// world is a queue, a destination and a journal that survive the process, and the
// steps after which it may be killed.
type world struct {
	queue  []int            // not settled, in order
	sent   map[int][]string // by item: the operation id of each delivery
	order  []int            // of first deliveries
	saved  job.Progress
	steps  int
	crash  map[int]bool // steps after which the process dies
	refuse map[int]error
	max    int // of a batch
}

// step panics where the process is to die.
func (w *world) step() {
	w.steps++
	if w.crash[w.steps] {
		panic(errCrash)
	}
}

// source is one process's hold on the queue.
type source struct {
	w  *world
	at int
}

func (s *source) Next(_ context.Context, most int) ([]int, error) {
	s.w.step()
	n := min(most, s.w.max, len(s.w.queue)-s.at)
	if n <= 0 {
		return nil, io.EOF
	}
	out := slices.Clone(s.w.queue[s.at : s.at+n])
	s.at += n
	return out, nil
}

func (s *source) Settle(_ context.Context, done, _ []int) error {
	s.w.step()
	// A crash may bring back a part of what was settled.
	for _, d := range done {
		i := slices.Index(s.w.queue, d)
		s.w.queue = slices.Delete(s.w.queue, i, i+1)
		s.at--
		s.w.step()
	}
	return nil
}

func (w *world) Send(_ context.Context, items []int) []error {
	errs := make([]error, len(items))
	for i, m := range items {
		w.step()
		if err := w.refuse[m]; err != nil {
			errs[i] = err
			continue
		}
		if len(w.sent[m]) == 0 {
			w.order = append(w.order, m)
		}
		w.sent[m] = append(w.sent[m], fmt.Sprintf("op:%d", m))
		w.step()
	}
	return errs
}

// process runs until the job ends or dies; it says which.
func (w *world) process(limit int64, outcome func(int, int64, error)) (p job.Progress, died bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != any(errCrash) {
				panic(r)
			}
			died = true
		}
	}()
	j := job.New(job.Config[int]{
		Limit: limit, Total: int64(len(w.queue)), Source: &source{w: w}, Sink: w, Outcome: outcome, From: w.saved.Restart(),
		Save: func(_ context.Context, p job.Progress) error {
			w.step()
			w.saved = p
			w.step()
			return nil
		},
	})
	err = j.Run(context.Background())
	return j.Progress(), false, err
}

func newWorld(items, max int) *world {
	w := &world{sent: map[int][]string{}, crash: map[int]bool{}, refuse: map[int]error{}, max: max}
	for i := range items {
		w.queue = append(w.queue, i)
	}
	return w
}

// Killed after any single step, at any batch size: nothing is lost, nothing left
// behind, and what comes twice comes under the same operation id.
func TestNothingIsLostWhereverItDies(t *testing.T) {
	t.Parallel()
	const items = 12
	for _, size := range []int{1, 3, 5, 100} {
		for kill := 1; ; kill++ {
			w := newWorld(items, size)
			w.crash[kill] = true
			_, died, err := w.process(0, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !died {
				if kill < 3*items {
					t.Fatalf("it took %d steps only", kill)
				}
				break
			}
			p, died, err := w.process(0, nil)
			if died || err != nil {
				t.Fatal(died, err)
			}
			extra := 0
			for i := range items {
				ids := w.sent[i]
				if len(ids) == 0 || len(slices.Compact(slices.Clone(ids))) != 1 {
					t.Fatalf("batch %d, killed after step %d: item %d was sent as %v", size, kill, i, ids)
				}
				extra += len(ids) - 1
			}
			if extra > size || len(w.queue) != 0 {
				t.Fatalf("batch %d, killed after step %d: %d sent twice, %d left", size, kill, extra, len(w.queue))
			}
			if !slices.IsSorted(w.order) {
				t.Fatalf("batch %d, killed after step %d: order %v", size, kill, w.order)
			}
			if p.Done > items || p.Done+int64(size) < items {
				t.Fatalf("batch %d, killed after step %d: %d of %d told as done", size, kill, p.Done, items)
			}
		}
	}
}

// Any number of crashes, refusals and skips.
func TestManyCrashes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		items := rapid.IntRange(0, 60).Draw(rt, "items")
		w := newWorld(items, rapid.IntRange(1, 20).Draw(rt, "batch"))
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 59), 0, 10).Draw(rt, "failed") {
			w.refuse[i] = errors.New("unroutable")
		}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 59), 0, 10).Draw(rt, "skipped") {
			w.refuse[i] = fmt.Errorf("%w: too often", job.ErrSkip)
		}
		crashes := rapid.SliceOfN(rapid.IntRange(1, 300), 0, 8).Draw(rt, "crashes")
		for _, c := range crashes {
			w.crash[c] = true
		}
		var p job.Progress
		for range len(crashes) + 1 {
			var died bool
			var err error
			if p, died, err = w.process(0, nil); err != nil {
				rt.Fatal(err)
			} else if !died {
				break
			}
		}
		var failed, skipped int64
		for i := range items {
			ids := w.sent[i]
			switch err := w.refuse[i]; {
			case err == nil && len(ids) == 0:
				rt.Fatalf("item %d is lost", i)
			case err == nil && slices.Contains(w.queue, i):
				rt.Fatalf("item %d was sent and is still there", i)
			case err != nil && (len(ids) > 0 || !slices.Contains(w.queue, i)):
				rt.Fatalf("item %d was not to be sent and to stay: sent %v", i, ids)
			case errors.Is(err, job.ErrSkip):
				skipped++
			case err != nil:
				failed++
			}
		}
		if p.Failed != failed || p.Skipped != skipped {
			rt.Fatalf("got %d failed and %d skipped, want %d and %d", p.Failed, p.Skipped, failed, skipped)
		}
		if len(crashes) == 0 && p.Matched != int64(items) {
			rt.Fatalf("got %d matched of %d", p.Matched, items)
		}
	})
}

func TestOutcomesAndLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(30, 7)
	w.refuse[3], w.refuse[4] = errors.New("unroutable"), fmt.Errorf("%w: too often", job.ErrSkip)
	var numbers []int64
	told := map[int]error{}
	p, _, err := w.process(20, func(item int, n int64, err error) { numbers, told[item] = append(numbers, n), err })
	if err != nil {
		t.Fatal(err)
	}
	if p.Matched != 20 || p.Done != 18 || p.Failed != 1 || p.Skipped != 1 || p.Number != 20 || p.Doubt != 0 {
		t.Errorf("got %+v", p)
	}
	if len(told) != 20 || told[3] == nil || !errors.Is(told[4], job.ErrSkip) || told[5] != nil {
		t.Errorf("outcomes %v", told)
	}
	for i, n := range numbers {
		if n != int64(i)+1 {
			t.Fatalf("numbers %v", numbers)
		}
	}
	if len(w.queue) != 12 {
		t.Errorf("%d left, want the 10 beyond the limit and the 2 that were not sent", len(w.queue))
	}
}
