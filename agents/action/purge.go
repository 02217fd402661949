package action

import (
	"context"
	"errors"
	"fmt"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/archive"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/job"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// purge empties a channel, or takes out of it what matches.
func (a *Actions) purge(ctx context.Context, run *link.Run) controlbus.CommandResult {
	args, err := controlbus.DecodeArgs[controlbus.PurgeArgs](run.Dispatch.Args)
	if err != nil {
		return reject(err)
	}
	w, err := a.begin(run)
	if err != nil {
		return reject(err)
	}
	match, err := w.matcher(args.Filter)
	if err != nil {
		return reject(err)
	}
	view, err := w.look(ctx)
	if err != nil {
		return reject(err)
	}
	w.ev.DepthBefore = view.Ready
	if e := run.Dispatch.Expect; e != nil {
		if why := e.Mismatch(view.Ready, view.Topology); why != "" {
			return reject(fmt.Errorf("%w: %s; nothing was done", controlbus.ErrConflict, why))
		}
	}
	if args.NoBackup && match == nil {
		if p, ok := w.adapter.(agents.Purger); ok {
			return w.purgeWhole(ctx, p)
		}
	}
	return w.remove(ctx, view, removal{match: match, backup: !args.NoBackup, limit: limit(controlbus.JobOptions{}, run.Dispatch.Expect)})
}

// purgeWhole lets the broker empty the channel. It is asked once.
func (w *work) purgeWhole(ctx context.Context, p agents.Purger) controlbus.CommandResult {
	if ctx.Err() != nil {
		return reject(context.Cause(ctx))
	}
	if e := w.run.Dispatch.Expect; e != nil {
		w.ev.UpTo = e.UpTo
	}
	w.ev.Technique = "the broker's own purge, without a copy"
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*callTimeout)
	defer cancel()
	n, err := p.Purge(asking, w.target.Name, w.ev.UpTo)
	w.ev.Removed = n
	r := controlbus.CommandResult{
		Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Matched: n, Done: n},
		Detail: fmt.Sprintf("%d messages removed by the broker; no copy was kept", n),
	}
	switch {
	case err == nil:
	case away(err), errors.Is(err, context.DeadlineExceeded):
		r.Outcome = controlbus.CommandIndeterminate
		r.Detail = "the broker was asked to empty the channel and has not answered: " + err.Error()
	default:
		r.Outcome, r.Detail = controlbus.CommandFailed, "nothing was removed: "+err.Error()
		if n > 0 {
			r.Outcome, r.Detail = controlbus.CommandPartial, fmt.Sprintf("%d messages removed; then: %v", n, err)
		}
	}
	w.finishEvidence(ctx, &r)
	return r
}

// discard removes dead letters, keeping a copy.
func (a *Actions) discard(ctx context.Context, run *link.Run) controlbus.CommandResult {
	args, err := controlbus.DecodeArgs[controlbus.DiscardArgs](run.Dispatch.Args)
	if err == nil {
		err = args.Job.Check()
	}
	if err != nil {
		return reject(err)
	}
	w, err := a.begin(run)
	if err != nil {
		return reject(err)
	}
	match, err := w.matcher(args.Filter)
	if err != nil {
		return reject(err)
	}
	view, err := w.look(ctx)
	if err != nil {
		return reject(err)
	}
	w.ev.DepthBefore = view.Ready
	if e := run.Dispatch.Expect; e != nil && e.Topology != "" && e.Topology != view.Topology {
		return reject(fmt.Errorf("%w: the broker's topology has changed since the preview; nothing was done", controlbus.ErrConflict))
	}
	return w.remove(ctx, view, removal{match: match, backup: true, options: args.Job, limit: limit(args.Job, run.Dispatch.Expect)})
}

// removal is what to remove, and how.
type removal struct {
	match   func(*agents.Message) bool
	backup  bool
	options controlbus.JobOptions
	limit   int64 // 0 none, -1 nothing
}

// remove takes messages out of the target: copied first, unless nobody wants one.
func (w *work) remove(ctx context.Context, view agents.ChannelView, o removal) (r controlbus.CommandResult) {
	taker, err := verb[agents.Taker](w.adapter, "take messages out of a channel, which a copy or a filter needs")
	if err != nil {
		return reject(err)
	}
	id := w.run.Dispatch.Command
	sink := &keeping{}
	w.ev.Technique = "taken out one batch after the other, without a copy"
	if o.backup {
		w.ev.Technique = "copied to the agent's archive, then taken out"
		copied, err := w.a.archive.Create(archive.Meta{Command: id, Kind: w.run.Dispatch.Kind, Channel: w.target})
		if err != nil {
			return reject(fmt.Errorf("nothing was removed, because no copy can be kept: %v", err)) //nolint:errorlint // final
		}
		sink.to = copied
		defer func() {
			w.closeCopy(copied, &r)
		}()
	}
	upTo := ""
	if e := w.run.Dispatch.Expect; e != nil {
		upTo = e.UpTo
	}
	if upTo == "" {
		upTo = view.UpTo
	}
	w.ev.UpTo = upTo
	src := newTaking(taking{
		match: o.match, start: view.Ready, lasting: view.UpTo != "",
		open: func(ctx context.Context, window int) (agents.Intake, error) {
			return taker.Intake(ctx, w.target.Name, agents.IntakeOptions{Window: window, UpTo: upTo})
		},
	})
	sink.src = src
	w.out = w.a.newOutcomes(w, w.target.Name, outcomeRemoved)
	if o.limit < 0 {
		src.eof = true
	}
	o.options.Ramp, o.options.StopRatio = nil, 0 // nothing comes back
	j := job.New(job.Config[*item]{
		Options: o.options, Limit: max(o.limit, 0), Total: total(view.Ready, o.limit), Source: sink.after(src), Sink: sink,
		Control: w.run.Control, Save: w.save, Outcome: w.out.add,
	})
	err = w.drive(ctx, j, sink.after(src), sink)
	if src.eof && sink.to != nil {
		sink.to.Removed() // what was in doubt is not there any more
	}
	p := j.Progress()
	w.ev.Removed, w.ev.Position = p.Done, sink.position
	what := "messages removed"
	if o.backup {
		what = "messages removed and kept in the agent's archive"
	}
	return w.result(ctx, j, err, what)
}

// closeCopy ends the copy and puts it into the evidence.
func (w *work) closeCopy(c *archive.Writer, r *controlbus.CommandResult) {
	n, size := c.Count(), c.Bytes()
	if err := c.Close(); err != nil {
		w.a.env.Log.Error("a copy of removed messages was not closed", "command", w.run.Dispatch.Command, "error", err)
		r.Detail = cutText(r.Detail+"; closing the copy failed: "+err.Error(), 2000)
	}
	if n == 0 {
		return
	}
	w.ev.Archive, w.ev.ArchiveSize = string(w.run.Dispatch.Command), size
	w.finishEvidence(context.Background(), r)
}

// total is how many messages a job will have gone through.
func total(ready, limit int64) int64 {
	switch {
	case limit < 0:
		return 0
	case limit > 0 && (ready < 0 || limit < ready):
		return limit
	}
	return ready
}

// keeping is the job's sink for commands that remove: the archive.
type keeping struct {
	to       *archive.Writer // nil: nothing is kept
	src      *taking
	position string
	full     bool // the archive takes nothing more
}

// Send makes the items durable. A message that cannot be kept stays where it is;
// an archive that is full ends the job.
func (k *keeping) Send(ctx context.Context, items []*item) []error {
	errs := make([]error, len(items))
	if k.to == nil {
		return errs
	}
	err := k.to.Append(ctx, messages(items))
	if err == nil {
		return errs
	}
	for i, it := range items {
		// The fault of one message, which its producer may have made like that, is
		// not that of the others.
		one := err
		if unkeepable(err) && len(items) > 1 {
			one = k.to.Append(ctx, []*agents.Message{it.msg})
		}
		if one != nil {
			errs[i] = fmt.Errorf("no copy can be kept: %v", one) //nolint:errorlint // not to be taken for a broker that is away
			k.full = k.full || !unkeepable(one)
		}
	}
	return errs
}

// unkeepable says whether a copy failed by what is in a message.
func unkeepable(err error) bool {
	return errors.Is(err, controlbus.ErrUnsupported) || errors.Is(err, controlbus.ErrInvalid) || errors.Is(err, controlbus.ErrTooLarge)
}

// after notes in the copy what has left the channel.
func (k *keeping) after(src *taking) *removing { return &removing{src, k} }

type removing struct {
	*taking
	k *keeping
}

func (r *removing) Settle(ctx context.Context, done, kept []*item) error {
	if len(done) == 0 && len(kept) > 0 && r.k.full {
		// Nothing could be kept: there is no use in going on.
		if err := r.taking.Settle(ctx, done, kept); err != nil {
			return err
		}
		return errNoCopy
	}
	err := r.taking.Settle(ctx, done, kept)
	if err == nil && len(done) > 0 {
		r.k.position = done[len(done)-1].msg.Position
		if r.k.to != nil && r.doubtful() == 0 {
			r.k.to.Removed()
		}
	}
	return err
}

var errNoCopy = errors.New("no copy of the messages can be kept, so the rest stays where it is")
