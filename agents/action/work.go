package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/controlbus/job"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// work is one bulk command being carried out.
type work struct {
	a       *Actions
	run     *link.Run
	target  controlbus.ChannelName
	adapter agents.Adapter
	out     *outcomes
	ev      Evidence
	// cursor is where a source that is read by position stands; it goes into the
	// checkpoint.
	cursor func() *cursor
	at     checkpoint
	fresh  bool   // there is no checkpoint
	notice string // why it waits
}

// checkpoint is what a resumable command begins again from.
type checkpoint struct {
	Job    job.Progress `json:"job"`
	Start  int64        `json:"start"` // messages in the channel when it began
	Cursor *cursor      `json:"cursor,omitempty"`
	// Resumes counts the processes before this one.
	Resumes int `json:"resumes,omitempty"`
}

// Evidence is controlbus.CommandResult.Evidence of the bulk commands. Numbers are
// -1 where nobody knows.
type Evidence struct {
	Technique   string           `json:"technique,omitempty"`
	DepthBefore int64            `json:"depth_before"`
	DepthAfter  int64            `json:"depth_after"`
	Removed     int64            `json:"removed,omitempty"`
	UpTo        string           `json:"up_to,omitempty"`
	Position    string           `json:"position,omitempty"` // reached
	Archive     string           `json:"archive,omitempty"`  // the command whose copy it is
	ArchiveSize int64            `json:"archive_bytes,omitempty"`
	SentTo      map[string]int64 `json:"sent_to,omitempty"`
	Refailed    int64            `json:"refailed,omitempty"`
	// Doubtful were confirmed where they went, and nobody knows whether they left
	// the channel they came from.
	Doubtful int64 `json:"doubtful,omitempty"`
	// Damaged counts the places of an archive's copy that could not be read, Missing
	// the messages that lay there, where their number is known.
	Damaged int   `json:"damaged,omitempty"`
	Missing int64 `json:"missing,omitempty"`
	// Reasons are why messages failed or were left alone.
	Reasons map[string]int64 `json:"reasons,omitempty"`
	// OutcomesDropped counts the messages of which nobody was told what became of
	// them: the agent's spool was full.
	OutcomesDropped int64 `json:"outcomes_dropped,omitempty"`
	Reconnects      int   `json:"reconnects,omitempty"`
}

// begin finds the broker and takes up the checkpoint of an earlier process.
func (a *Actions) begin(run *link.Run) (*work, error) {
	w := &work{a: a, run: run, target: run.Dispatch.Target.Channel, ev: Evidence{DepthBefore: -1, DepthAfter: -1}}
	var err error
	if w.adapter, err = a.broker(w.target); err != nil {
		return nil, err
	}
	w.fresh = !run.Resumed || len(run.Checkpoint) == 0
	if !w.fresh {
		if err := json.Unmarshal(run.Checkpoint, &w.at); err != nil {
			return nil, fmt.Errorf("%w: the checkpoint cannot be read: %w", controlbus.ErrInvalid, err)
		}
	}
	if run.Resumed {
		w.at.Resumes++ // an earlier process may have sent something before its first checkpoint
	}
	return w, nil
}

// look inspects the target, waiting for the broker while there is time: an order
// that arrives while it restarts is not lost.
func (w *work) look(ctx context.Context) (v agents.ChannelView, err error) {
	err = w.patiently(ctx, func() error {
		v, err = inspect(ctx, w.adapter, w.target.Name)
		return err
	})
	return v, err
}

// patiently does something again and again while the broker or the console is
// away and ctx lasts.
func (w *work) patiently(ctx context.Context, f func() error) error {
	for wait := (backoff.Backoff{Base: 100 * time.Millisecond, Cap: 5 * time.Second}); ; {
		err := f()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !away(err):
			return err
		}
		if errors.Is(err, agents.ErrNotConnected) && w.a.env.Lost != nil {
			w.a.env.Lost(w.target.Broker)
		}
		if !backoff.Sleep(ctx, wait.Next()) {
			return context.Cause(ctx)
		}
	}
}

// limit is how many messages a bulk command may take: what its options say, and
// no more than the preview counted.
func limit(o controlbus.JobOptions, expect *controlbus.Expect) int64 {
	n := o.Max
	if expect != nil && expect.MaxCount >= 0 && (n == 0 || expect.MaxCount < n) {
		n = expect.MaxCount
		if n == 0 {
			n = -1 // the preview counted nothing
		}
	}
	return n
}

// matcher compiles a filter against the messages of the target; nil matches all.
func (w *work) matcher(text string) (func(*agents.Message) bool, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	f, err := filter.Parse(text, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%w: filter: %w", controlbus.ErrInvalid, err)
	}
	return func(m *agents.Message) bool { return f.Match(w.a.event(w.adapter, w.target, m)) }, nil
}

// save makes a job's progress durable.
func (w *work) save(ctx context.Context, p job.Progress) error {
	w.at.Job = p
	if w.cursor != nil {
		w.at.Cursor = w.cursor()
	}
	b, err := json.Marshal(w.at)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	note := w.notice
	if note == "" && p.Left > 0 {
		note = "about " + p.Left.Round(time.Second).String() + " left"
	}
	state := p.Job
	err = w.run.Save(ctx, b, controlbus.CommandProgress{Counts: p.Counts, Total: p.Total, Note: note, Job: &state})
	if err != nil && !errors.Is(err, controlbus.ErrConflict) {
		// Not "away": what cannot be noted must not go on.
		return fmt.Errorf("the agent's journal takes no checkpoint: %v", err) //nolint:errorlint // on purpose
	}
	if w.out != nil {
		w.out.flushDue(ctx)
	}
	return err
}

// drive runs a job to its end. When a connection is lost both ends are given up
// and opened again, for as long as ctx lasts.
func (w *work) drive(ctx context.Context, j *job.Job[*item], src interface {
	job.Source[*item]
	job.Rester
}, sink job.Sink[*item]) error {
	var s *sending
	switch k := sink.(type) {
	case *counting:
		s = k.sending
	case *advancing:
		s = k.sending
	}
	defer func() {
		_ = src.Rest(ctx) // what is not settled is the broker's again, whatever it answers
		if s != nil {
			s.close(ctx)
		}
	}()
	wait := backoff.Backoff{Base: 100 * time.Millisecond, Cap: 5 * time.Second}
	for {
		before := j.Progress().Number
		err := j.Run(ctx)
		if ctx.Err() != nil && (errors.Is(err, job.ErrLost) || away(err)) {
			err = context.Cause(ctx)
		}
		if err == nil || !errors.Is(err, job.ErrLost) && !away(err) {
			return err
		}
		p := j.Progress()
		if p.Number > before {
			wait.Reset()
		}
		w.ev.Reconnects++
		lost := []string{w.target.Broker}
		if s != nil {
			lost = append(lost, s.takeLost()...)
			s.close(ctx)
		}
		if errors.Is(err, agents.ErrNotConnected) && w.a.env.Lost != nil {
			for _, b := range lost {
				w.a.env.Lost(b)
			}
		}
		_ = src.Rest(ctx)
		if l, ok := src.(interface{ lost() }); ok {
			l.lost()
		}
		w.a.env.Log.WarnContext(ctx, "command waits", "command", w.run.Dispatch.Command, "error", err)
		w.notice = "waits: " + cutText(err.Error(), 300)
		saving, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		err = w.save(saving, p)
		cancel()
		if err != nil {
			return err
		}
		if !backoff.Sleep(ctx, wait.Next()) {
			return context.Cause(ctx)
		}
		w.notice = ""
		j.Attach(src, sink, false)
	}
}

// reject answers a command that nothing was done of.
func reject(err error) controlbus.CommandResult {
	switch {
	case errors.Is(err, link.ErrCancelled):
		return controlbus.CommandResult{Outcome: controlbus.CommandCancelled, Detail: "cancelled before anything was done"}
	case errors.Is(err, link.ErrOverdue), errors.Is(err, link.ErrStopping), away(err):
		return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: "nothing was done: " + err.Error()}
	}
	return controlbus.CommandResult{Outcome: controlbus.CommandRejected, Detail: err.Error()}
}

// result says how a job ended.
func (w *work) result(ctx context.Context, j *job.Job[*item], err error, done string) controlbus.CommandResult {
	p := j.Progress()
	r := controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: p.Counts}
	w.ev.Refailed, w.ev.Doubtful = p.Job.Refailed, max(w.ev.Doubtful, p.Doubt)
	var parts []string
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	say("%d %s", p.Done, done)
	if p.Failed > 0 {
		say("%d failed", p.Failed)
	}
	if p.Skipped > 0 {
		say("%d left alone", p.Skipped)
	}
	if w.out != nil {
		w.out.flush(ctx)
		w.ev.Reasons, w.ev.OutcomesDropped = w.out.reasons, w.out.dropped
		if why := w.out.why(); why != "" {
			say("most often because: %s", why)
		}
		if w.out.dropped > 0 {
			say("of %d messages nobody could be told what became of them, because the agent's spool is full", w.out.dropped)
		}
	}
	none := p.Done == 0
	pick := func(nothing controlbus.CommandState) controlbus.CommandState {
		if none {
			return nothing
		}
		return controlbus.CommandPartial
	}
	switch {
	case err == nil && p.Failed > 0:
		r.Outcome = pick(controlbus.CommandFailed)
	case err == nil:
	case errors.Is(err, link.ErrCancelled):
		r.Outcome = pick(controlbus.CommandCancelled)
		parts = append([]string{"cancelled"}, parts...)
	case errors.Is(err, job.ErrStopped):
		r.Outcome = pick(controlbus.CommandFailed)
		parts = append([]string{err.Error()}, parts...)
	default:
		r.Outcome = pick(controlbus.CommandFailed)
		parts = append([]string{"it ended early: " + err.Error()}, parts...)
	}
	if p.Job.Refailed > 0 {
		say("%d arrived dead since it began", p.Job.Refailed)
	}
	if w.ev.Reconnects > 0 {
		say("it waited for the broker %d times", w.ev.Reconnects)
	}
	r.Detail = cutText(strings.Join(parts, "; "), 1500)
	w.finishEvidence(ctx, &r)
	return r
}

// finishEvidence looks at the channel a last time and writes the evidence.
func (w *work) finishEvidence(ctx context.Context, r *controlbus.CommandResult) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if v, err := inspect(last, w.adapter, w.target.Name); err == nil {
		w.ev.DepthAfter = v.Ready
	}
	if b, err := json.Marshal(w.ev); err == nil {
		r.Evidence = b
	}
}
