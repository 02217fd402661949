package job_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/job"
)

// endless has so many items; sink sends each in a time of its own.
type endless struct {
	mu     sync.Mutex
	left   int64
	taken  int64
	rests  int
	unsent int64 // taken and neither settled nor given back
}

func (e *endless) Next(_ context.Context, most int) ([]int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := min(int64(most), e.left-e.taken)
	if n <= 0 {
		return nil, io.EOF
	}
	e.taken += n
	e.unsent += n
	return make([]int, n), nil
}

func (e *endless) Settle(_ context.Context, done, kept []int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unsent -= int64(len(done) + len(kept))
	return nil
}

func (e *endless) Rest(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rests++
	e.taken, e.unsent = e.taken-e.unsent, 0
	return nil
}

type sink struct {
	each time.Duration
	mu   sync.Mutex
	sent int64
	last time.Time
	most int
	fail func(n int64) error
}

func (s *sink) Send(ctx context.Context, items []int) []error {
	errs := make([]error, len(items))
	s.mu.Lock()
	s.most = max(s.most, len(items))
	s.mu.Unlock()
	for i := range items {
		if s.each > 0 {
			time.Sleep(s.each)
		}
		s.mu.Lock()
		if s.fail != nil {
			errs[i] = s.fail(s.sent)
		}
		if errs[i] == nil {
			s.sent++
			s.last = time.Now()
		}
		s.mu.Unlock()
	}
	return errs
}

func (s *sink) count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// wish is a JobControl that a test changes.
type wish struct {
	mu      sync.Mutex
	c       controlbus.JobControl
	changed chan struct{}
}

func (w *wish) get() (controlbus.JobControl, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.c, w.changed
}

func (w *wish) set(rate float64, paused bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.c = controlbus.JobControl{Seq: w.c.Seq + 1, Rate: rate, Paused: paused}
	if w.changed != nil {
		close(w.changed)
	}
	w.changed = make(chan struct{})
}

// journal is what Save was told last.
type journal struct {
	mu sync.Mutex
	p  job.Progress
	n  int
}

func (j *journal) save(_ context.Context, p job.Progress) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.p, j.n = p, j.n+1
	return nil
}

func (j *journal) last() job.Progress {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.p
}

func TestRateIsKept(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0.5, 1, 7, 100, 5000, 50000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const seconds = 20
				src, out, kept := &endless{left: 1 << 40}, &sink{}, &journal{}
				j := job.New(job.Config[int]{Options: controlbus.JobOptions{Rate: rate}, Total: -1, Source: src, Sink: out, Save: kept.save})
				ctx, cancel := context.WithTimeout(t.Context(), seconds*time.Second)
				defer cancel()
				if err := j.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				want := rate * seconds
				if got := float64(out.count()); got < want*0.97-1 || got > want*1.01+1 {
					t.Errorf("got %v messages in %d s, want %v", got, seconds, want)
				}
				if p := kept.last(); rate >= 7 && (p.Job.Rate < rate*0.9 || p.Job.Rate > rate*1.1) {
					t.Errorf("the rate told is %v, want about %v", p.Job.Rate, rate)
				}
				if kept.n > seconds*60 {
					t.Errorf("saved %d times in %d s", kept.n, seconds)
				}
				if float64(out.most) > max(rate/15, 1) {
					t.Errorf("a batch of %d at %v per second", out.most, rate)
				}
			})
		})
	}
}

// Whatever the job is doing, it does what people want within 100 ms.
func TestControlActsAtOnce(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0, 0.1, 1, 50, 50000} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				// 4,000 a second is what the broker can do.
				src, out, kept, w := &endless{left: 1 << 40}, &sink{each: 250 * time.Microsecond}, &journal{}, &wish{}
				j := job.New(job.Config[int]{Options: controlbus.JobOptions{Rate: rate}, Total: -1, Source: src, Sink: out, Save: kept.save, Control: w.get})
				ctx, cancel := context.WithCancelCause(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- j.Run(ctx) }()
				time.Sleep(5*time.Second + 3*time.Millisecond)

				w.set(rate, true)
				time.Sleep(100 * time.Millisecond)
				before := out.count()
				time.Sleep(10 * time.Second)
				if got := out.count(); got != before {
					t.Errorf("paused, and %d messages went later than 100 ms", got-before)
				}
				if p := kept.last(); !p.Job.Paused || p.Job.Control != 1 || p.Left != -1 {
					t.Errorf("told %+v", p)
				}
				// Faster, from the pause.
				w.set(1000, false)
				time.Sleep(100 * time.Millisecond)
				before = out.count()
				if kept.last().Job.Control != 2 || kept.last().Job.Paused {
					t.Errorf("told %+v", kept.last().Job)
				}
				time.Sleep(3 * time.Second)
				if got := out.count() - before; got < 2900 || got > 3050 {
					t.Errorf("%d messages in 3 s, want 3000", got)
				}
				// Almost nothing, while it runs.
				w.set(0.1, false)
				time.Sleep(100 * time.Millisecond)
				before = out.count()
				time.Sleep(5 * time.Second)
				if got := out.count() - before; got > 1 {
					t.Errorf("%d messages in 5 s at 0.1 a second", got)
				}
				if kept.last().Job.Control != 3 {
					t.Errorf("told %+v", kept.last().Job)
				}
				w.set(0, false)
				time.Sleep(time.Second)
				if got := out.count() - before; got < 2000 {
					t.Errorf("%d messages in a second without a limit", got)
				}
				why := errors.New("cancelled")
				cancel(why)
				began := time.Now()
				if err := <-ended; !errors.Is(err, why) || time.Since(began) > 100*time.Millisecond {
					t.Errorf("ended with %v after %v", err, time.Since(began))
				}
				if got := kept.last().Done; got != out.count() {
					t.Errorf("%d saved, %d sent", got, out.count())
				}
			})
		})
	}
}

func TestLongPauseGivesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src, out, kept, w := &endless{left: 1000}, &sink{each: time.Millisecond}, &journal{}, &wish{}
		j := job.New(job.Config[int]{Total: 1000, Source: src, Sink: out, Save: kept.save, Control: w.get})
		ended := make(chan error, 1)
		go func() { ended <- j.Run(t.Context()) }()
		time.Sleep(200 * time.Millisecond)
		w.set(0, true)
		time.Sleep(time.Hour)
		src.mu.Lock()
		if src.rests != 1 || src.unsent != 0 {
			t.Errorf("%d rests, %d items held over an hour's pause", src.rests, src.unsent)
		}
		src.mu.Unlock()
		w.set(0, false)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if out.count() != 1000 || j.Progress().Left != 0 {
			t.Errorf("%d sent, %v left", out.count(), j.Progress().Left)
		}
	})
}

func TestRampLooksAfterEachStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src, out, kept := &endless{left: 5000}, &sink{}, &journal{}
		var looks []int64
		start := time.Now()
		var at []time.Duration
		j := job.New(job.Config[int]{
			Options: controlbus.JobOptions{Ramp: []int64{1, 10, 100}, Settle: 3 * time.Second, StopRatio: 0.5}, Total: 5000,
			Source: src, Sink: out, Save: kept.save,
			Refailed: func(context.Context) (int64, error) {
				looks = append(looks, out.count())
				at = append(at, time.Since(start))
				if !kept.last().Job.Settling && out.count() <= 111 {
					// It was told that the job settles before the look.
					t.Errorf("at %d sent: told %+v", out.count(), kept.last().Job)
				}
				return 0, nil
			},
		})
		if err := j.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if len(looks) < 3 || looks[0] != 1 || looks[1] != 11 || looks[2] != 111 || at[2] < 9*time.Second {
			t.Errorf("looked at %v after %v", looks, at)
		}
		if p := j.Progress(); p.Done != 5000 || p.Job.Step != 3 {
			t.Errorf("ended with %+v", p)
		}
	})
}

func TestAutoStop(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		o     controlbus.JobOptions
		dead  float64 // share of what was sent that comes back
		fails float64 // share that cannot be sent
		most  int64   // tried at most; 0: all
		least int64
	}{
		{"the first canary dies", controlbus.JobOptions{Ramp: []int64{1, 10}, StopRatio: 0.2}, 1, 0, 1, 1},
		{"too few to judge", controlbus.JobOptions{Ramp: []int64{1, 10, 100}, StopRatio: 0.2, StopMin: 50}, 1, 0, 111, 111},
		{"under the ratio", controlbus.JobOptions{Ramp: []int64{1, 10, 100}, StopRatio: 0.2, StopMin: 50}, 0.15, 0, 0, 20000},
		{"without a ramp", controlbus.JobOptions{StopRatio: 0.1, Rate: 1000}, 0.5, 0, 1500, 500},
		{"the first canary cannot be sent", controlbus.JobOptions{Ramp: []int64{1, 10}, StopRatio: 0.2}, 0, 1, 1, 1},
		{"half cannot be sent", controlbus.JobOptions{StopRatio: 0.4, StopMin: 100}, 0, 0.5, 2000, 100},
		{"some die, some cannot be sent", controlbus.JobOptions{StopRatio: 0.3, Rate: 1000}, 0.25, 0.2, 1500, 500},
		{"nobody asked", controlbus.JobOptions{}, 1, 0, 0, 20000},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				src, out, kept := &endless{left: 20000}, &sink{}, &journal{}
				if c.fails > 0 {
					var n int64
					out.fail = func(int64) error {
						n++
						if float64(n%10) < 10*c.fails {
							return errors.New("no such queue")
						}
						return nil
					}
				}
				j := job.New(job.Config[int]{
					Options: c.o, Total: 20000, Source: src, Sink: out, Save: kept.save,
					Refailed: func(context.Context) (int64, error) { return int64(float64(out.count()) * c.dead), nil },
				})
				err := j.Run(t.Context())
				if stopped := errors.Is(err, job.ErrStopped); stopped != (c.most > 0) {
					t.Fatalf("ended with %v", err)
				}
				p := j.Progress()
				if got := p.Done + p.Failed; p.Done != out.count() || c.most > 0 && got > c.most || got < c.least {
					t.Errorf("%d tried, want %d to %d", got, c.least, c.most)
				}
				if p.Job.Refailed != int64(float64(out.count())*c.dead) {
					t.Errorf("%d told as come back", p.Job.Refailed)
				}
			})
		})
	}
}

// A connection that is lost in the middle of a batch ends Run; with new ends the
// job goes on where it was.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src, out, kept := &endless{left: 1000}, &sink{}, &journal{}
		out.fail = func(n int64) error {
			if n == 500 {
				return fmt.Errorf("%w: the broker went away", job.ErrLost)
			}
			return nil
		}
		j := job.New(job.Config[int]{Total: 1000, Source: src, Sink: out, Save: kept.save})
		if err := j.Run(t.Context()); !errors.Is(err, job.ErrLost) {
			t.Fatal(err)
		}
		if p := j.Progress(); p.Done != 500 || p.Failed != 0 || p.Doubt != 0 {
			t.Errorf("at the loss: %+v", p)
		}
		out.fail = nil
		j.Attach(&endless{left: 500}, out, true)
		if err := j.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if p := j.Progress(); p.Done != 1000 || p.Number != 1000 {
			t.Errorf("at the end: %+v", p)
		}
	})
}
