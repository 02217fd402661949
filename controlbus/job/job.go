package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/time/rate"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Source gives out what a job is about, in order.
type Source[M any] interface {
	// Next returns 1 to most items, waiting for the first; io.EOF at the end.
	Next(ctx context.Context, most int) ([]M, error)
	// Settle is told, after Save, what became of the items of the last Next: done
	// ones leave the source, kept ones stay in it and are not given out again.
	// Items it is not told of have an unknown fate; after an Attach the source
	// gives them out once more.
	Settle(ctx context.Context, done, kept []M) error
}

// Rester is a Source that holds on to what the broker would rather have back
// while a job is paused for long. After Rest the next Next gives it out again.
type Rester interface {
	Rest(ctx context.Context) error
}

// Sink takes items.
type Sink[M any] interface {
	// Send delivers the items in their order and returns an error for each: nil
	// once somebody else is responsible for it, ErrSkip for one that is left alone
	// on purpose, ErrLost where nobody knows. Any other error is that item's own.
	Send(ctx context.Context, items []M) []error
}

// Errors that a Sink wraps, and that Run returns.
var (
	// ErrSkip: the item is left alone on purpose; the text says why.
	ErrSkip = errors.New("skipped")
	// ErrLost: the connection went away, nobody knows of this item. Run ends with
	// it; what it means to go on is the caller's.
	ErrLost = errors.New("connection lost")
	// ErrStopped: too much arrived dead or could not be sent.
	ErrStopped = errors.New("stopped")
)

// Config of a job. Source, Sink and Save are required.
type Config[M any] struct {
	Options controlbus.JobOptions
	// Limit is the most items to take; 0: as many as there are. Total is how many
	// there will be, -1 unknown; it only serves what is told.
	Limit, Total int64
	Source       Source[M]
	Sink         Sink[M]
	// Control is what people want now, and a channel closed when it changes; nil:
	// what Options say, for good.
	Control func() (controlbus.JobControl, <-chan struct{})
	// Refailed counts the dead letters that arrived since the job began, whether it
	// sent them or not, which the channel does not tell; nil: nobody can.
	Refailed func(context.Context) (int64, error)
	// Save makes the progress durable. It is called once for each batch, before the
	// batch is settled, and when the job begins or ends to wait for something.
	Save func(context.Context, Progress) error
	// Outcome is told of every item, numbered from 1 over the job's life; nil error:
	// done. It must not block.
	Outcome func(item M, number int64, err error)
	// From is where an earlier process stood.
	From Progress
}

// Progress is how far a job is: what it tells and what it resumes from.
type Progress struct {
	controlbus.Counts
	Total  int64               `json:"total"` // -1 unknown
	Job    controlbus.JobState `json:"job"`
	Number int64               `json:"number"` // of the last item
	InStep int64               `json:"in_step,omitempty"`
	// Doubt counts the done items of which the source has not yet confirmed that
	// they left it: after a crash it may give them out again.
	Doubt int64 `json:"doubt,omitempty"`
	// Left is about how long it will still take; -1 unknown.
	Left time.Duration `json:"-"`
}

// Restart is the progress of a job whose source begins again with everything that
// has not left it: what failed or was skipped is met again, and so may be what is
// in doubt.
func (p Progress) Restart() Progress {
	p.Done -= p.Doubt
	p.Job.Sent = p.Done
	p.Failed, p.Skipped, p.Doubt, p.Matched = 0, 0, 0, p.Done
	return p
}

const (
	// quantum is what a batch may take, so that a job obeys within 100 ms.
	quantum  = 50 * time.Millisecond
	maxBatch = 1000
	// lookEvery is how often at most a job looks at what came back.
	lookEvery = time.Second
	// grace is what a batch that is under way gets when the job is to end, so that
	// it ends with answers instead of doubts.
	grace = 2 * time.Second
	// deadline is of Save and Settle, which are not cut short by the end of a job.
	deadline = 30 * time.Second
	// restAfter is how long a paused job holds on to what it has taken.
	restAfter = 20 * time.Second
)

// Job runs once, though perhaps in several Runs.
type Job[M any] struct {
	cfg     Config[M]
	p       Progress
	ctl     controlbus.JobControl
	limiter *rate.Limiter // nil: as fast as it goes
	credit  int           // tokens that were paid for and not used
	size    int           // items that fit into a quantum
	meter   meter
	looked  time.Time
	told    int64 // the newest control that was saved
}

// New returns a job; Run runs it.
func New[M any](cfg Config[M]) *Job[M] {
	j := &Job[M]{cfg: cfg, p: cfg.From, size: 16}
	j.p.Total = cfg.Total
	j.p.Job.Settling, j.told = false, j.p.Job.Control
	j.ctl = controlbus.JobControl{Rate: cfg.Options.Rate}
	j.limit()
	return j
}

// Attach puts other ends in place of lost ones. restart says that the source
// begins with everything that has not left it.
func (j *Job[M]) Attach(source Source[M], sink Sink[M], restart bool) {
	j.cfg.Source, j.cfg.Sink = source, sink
	if restart {
		// Unlike another process, this one's source knows again what it was told is
		// done: of that nothing is in doubt.
		j.p.Failed, j.p.Skipped, j.p.Doubt, j.p.Matched = 0, 0, 0, j.p.Done
	}
}

// Progress is how far the job is. It is for the goroutine that runs it.
func (j *Job[M]) Progress() Progress {
	p := j.p
	p.Job.Rate = j.meter.rate(time.Now(), p.Job.Sent)
	p.Left = j.left(p)
	return p
}

// Run works until the source has no more, the limit is reached (nil), ctx ends
// (its cause), too much failed (ErrStopped), or something breaks.
func (j *Job[M]) Run(ctx context.Context) error {
	j.looked = time.Now()
	for {
		if err := j.ready(ctx); err != nil {
			return err
		}
		if err := j.ramp(ctx); err != nil {
			return err
		}
		n := j.most()
		if n == 0 {
			j.finish(ctx)
			return nil
		}
		if ok, err := j.tokens(ctx, n); err != nil {
			return err
		} else if !ok {
			continue // the control changed
		}
		batch, err := j.cfg.Source.Next(ctx, n)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			j.finish(ctx)
			return nil
		case err != nil:
			return err
		}
		j.credit = max(j.credit-len(batch), 0)
		if rested, err := j.wait(ctx, true); err != nil {
			return err
		} else if rested {
			continue // the batch was given back
		}
		if err := j.batch(ctx, batch); err != nil {
			return err
		}
		if err := j.look(ctx, false); err != nil {
			return err
		}
	}
}

// ready waits while the job is paused.
func (j *Job[M]) ready(ctx context.Context) error {
	_, err := j.wait(ctx, false)
	return err
}

// wait obeys the control and waits while it says paused. Long pauses give the
// source a rest; holding says that a batch is in hand, which is then gone.
func (j *Job[M]) wait(ctx context.Context, holding bool) (rested bool, err error) {
	var rest <-chan time.Time
	for first := true; ; first = false {
		changed := j.obey()
		if ctx.Err() != nil {
			return rested, context.Cause(ctx)
		}
		if !j.ctl.Paused {
			if !first {
				j.meter.reset()
			}
			if j.told != j.ctl.Seq { // the next batch may be long in coming
				return rested, j.save(ctx)
			}
			return rested, nil
		}
		if first {
			t := time.NewTimer(restAfter)
			defer t.Stop()
			rest = t.C
		}
		if err := j.save(ctx); err != nil {
			return rested, err
		}
		select {
		case <-changed:
		case <-rest:
			rest = nil
			if r, ok := j.cfg.Source.(Rester); ok && !rested {
				if err := r.Rest(ctx); err != nil {
					return false, err
				}
				rested = holding
			}
		case <-ctx.Done():
		}
	}
}

// obey takes up the newest control and returns what is closed when there is a
// newer one.
func (j *Job[M]) obey() <-chan struct{} {
	if j.cfg.Control == nil {
		return nil
	}
	c, changed := j.cfg.Control()
	if c.Seq == 0 {
		c.Rate = j.cfg.Options.Rate
	}
	if c.Rate < 0 || c.Rate != c.Rate {
		c.Rate = 0
	}
	if c != j.ctl {
		old := j.ctl
		j.ctl = c
		if c.Rate != old.Rate {
			j.limit()
		}
	}
	j.p.Job.Control, j.p.Job.Paused = c.Seq, c.Paused
	return changed
}

// limit makes the bucket for the present rate: it holds what a quantum needs.
func (j *Job[M]) limit() {
	j.limiter, j.credit = nil, 0
	if r := j.ctl.Rate; r > 0 {
		burst := min(max(int(r*quantum.Seconds()), 1), maxBatch)
		j.limiter = rate.NewLimiter(rate.Limit(r), burst)
		// Without a head start: one token, so that the first item need not wait.
		j.limiter.AllowN(time.Now(), burst-1)
	}
}

// most is how many items the next batch may have: 0 when the limit is reached.
func (j *Job[M]) most() int {
	n := min(j.size, maxBatch)
	if j.limiter != nil {
		n = min(n, j.limiter.Burst())
	}
	if s := j.p.Job.Step; s < len(j.cfg.Options.Ramp) {
		n = int(min(int64(n), max(j.cfg.Options.Ramp[s]-j.p.InStep, 1)))
	}
	if l := j.cfg.Limit; l > 0 {
		n = int(min(int64(n), max(l-j.p.Matched, 0)))
	}
	return n
}

// tokens waits for n tokens; false when the control changed meanwhile.
func (j *Job[M]) tokens(ctx context.Context, n int) (bool, error) {
	need := n - j.credit
	if j.limiter == nil || need <= 0 {
		return true, nil
	}
	var changed <-chan struct{}
	if j.cfg.Control != nil {
		var c controlbus.JobControl
		if c, changed = j.cfg.Control(); c.Seq != j.ctl.Seq {
			return false, nil
		}
	}
	now := time.Now()
	r := j.limiter.ReserveN(now, need)
	t := time.NewTimer(r.DelayFrom(now))
	defer t.Stop()
	select {
	case <-t.C:
		j.credit += need
		return true, nil
	case <-changed:
		r.Cancel()
		return false, nil
	case <-ctx.Done():
		r.Cancel()
		return false, context.Cause(ctx)
	}
}

// batch sends, saves and settles.
func (j *Job[M]) batch(ctx context.Context, items []M) error {
	began := time.Now()
	errs := j.send(ctx, items)
	done, kept := make([]M, 0, len(items)), []M(nil)
	var lost error
	for i, item := range items {
		err := ErrLost
		if i < len(errs) {
			err = errs[i]
		}
		switch {
		case err == nil:
			done = append(done, item)
			j.p.Done++
			j.p.Job.Sent++
		case errors.Is(err, ErrLost), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			lost = err
			if !errors.Is(err, ErrLost) {
				lost = fmt.Errorf("%w: %w", ErrLost, err)
			}
			continue
		case errors.Is(err, ErrSkip):
			kept = append(kept, item)
			j.p.Skipped++
		default:
			kept = append(kept, item)
			j.p.Failed++
		}
		j.p.Matched++
		j.p.Number++
		if !errors.Is(err, ErrSkip) {
			j.p.InStep++
		}
		if j.cfg.Outcome != nil {
			j.cfg.Outcome(item, j.p.Number, err)
		}
	}
	j.meter.add(time.Now(), j.p.Job.Sent)
	if len(done)+len(kept) > 0 {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), deadline)
		defer cancel()
		j.p.Doubt += int64(len(done))
		if err := j.save(ending); err != nil {
			return err
		}
		if err := j.cfg.Source.Settle(ending, done, kept); err != nil {
			return err
		}
		j.p.Doubt -= int64(len(done))
	}
	if lost != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return lost
	}
	j.fit(len(items), time.Since(began))
	return nil
}

func (j *Job[M]) send(ctx context.Context, items []M) []error {
	ctx, cancel := lingering(ctx, grace)
	defer cancel()
	return j.cfg.Sink.Send(ctx, items)
}

// fit adapts the size of batches to what fits into a quantum.
func (j *Job[M]) fit(n int, took time.Duration) {
	switch {
	case took > quantum:
		j.size = max(j.size/2, 1)
	case took < quantum/2 && n >= j.size:
		j.size = min(j.size*2, maxBatch)
	}
}

func (j *Job[M]) save(ctx context.Context) error {
	if err := j.cfg.Save(ctx, j.Progress()); err != nil {
		return err
	}
	j.told = j.p.Job.Control
	return nil
}

// lingering is a context that ends a while after its parent.
func lingering(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() { stop(); cancel() }
}
