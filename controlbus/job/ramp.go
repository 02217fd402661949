package job

import (
	"context"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// ramp ends a step of the canary once its items are sent: it gives consumers time
// to fail on them, looks, and goes to the next step.
func (j *Job[M]) ramp(ctx context.Context) error {
	steps := j.cfg.Options.Ramp
	for s := j.p.Job.Step; s < len(steps) && j.p.InStep >= steps[s]; s = j.p.Job.Step {
		settle := j.cfg.Options.Settle
		if settle == 0 {
			settle = controlbus.DefaultSettle
		}
		j.p.Job.Settling = true
		err := j.save(ctx)
		if err == nil {
			err = j.rest(ctx, settle)
		}
		j.p.Job.Settling = false
		if err != nil {
			return err
		}
		if err := j.look(ctx, true); err != nil {
			return err
		}
		j.p.Job.Step, j.p.InStep = s+1, 0
		j.meter.reset()
		if err := j.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// rest waits; a change of the control is told and does not shorten the wait.
func (j *Job[M]) rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		before := j.ctl.Seq
		changed := j.obey()
		if j.ctl.Seq != before {
			if err := j.save(ctx); err != nil {
				return err
			}
		}
		select {
		case <-t.C:
			return nil
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// look counts the dead letters that arrived, now or where it is time, and stops
// the job if that and what could not be sent is too much of what it tried.
func (j *Job[M]) look(ctx context.Context, now bool) error {
	if j.cfg.Refailed != nil && (now || time.Since(j.looked) >= lookEvery) {
		j.looked = time.Now()
		n, err := j.cfg.Refailed(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("look at what came back: %w", err)
		}
		j.p.Job.Refailed = max(n, 0)
	}
	o, back, failed := j.cfg.Options, j.p.Job.Refailed, j.p.Failed
	tried := j.p.Job.Sent + failed
	if o.StopRatio == 0 || tried < max(o.StopMin, 1) || float64(back+failed) <= o.StopRatio*float64(tried) {
		return nil
	}
	what := fmt.Sprintf("%d arrived dead while it sent %d", back, tried-failed)
	switch {
	case back == 0:
		what = fmt.Sprintf("%d of %d messages could not be sent", failed, tried)
	case failed > 0:
		what += fmt.Sprintf(", and %d could not be sent", failed)
	}
	return fmt.Errorf("%w: %s, over %.3g %%", ErrStopped, what, 100*o.StopRatio)
}

// finish takes a last look. What cannot be seen any more changes nothing: all is
// sent.
func (j *Job[M]) finish(ctx context.Context) {
	if j.cfg.Refailed != nil {
		if n, err := j.cfg.Refailed(ctx); err == nil {
			j.p.Job.Refailed = max(n, 0)
		}
	}
}
