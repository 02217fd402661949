package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/job"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// replay sends stored messages into a channel: those of a selection, from the
// console's message store; or those that another command removed, from the
// agent's archive, which undoes it.
func (a *Actions) replay(ctx context.Context, run *link.Run) controlbus.CommandResult {
	d := run.Dispatch
	args, err := controlbus.DecodeArgs[controlbus.ReplayArgs](d.Args)
	if err == nil {
		err = args.Job.Check()
	}
	if err == nil && d.UndoOf == "" && args.Selection == nil {
		err = fmt.Errorf("%w: nothing says which messages to send", controlbus.ErrInvalid)
	}
	if err != nil {
		return reject(err)
	}
	w, err := a.begin(run)
	if err != nil {
		return reject(err)
	}
	if _, err := verb[agents.Sender](w.adapter, "send messages"); err != nil {
		return reject(err)
	}
	view, err := w.look(ctx)
	switch {
	case err == nil:
		w.ev.DepthBefore = view.Ready
	case errors.Is(err, controlbus.ErrUnsupported): // a channel that nobody can count takes messages, too
	case run.Resumed:
		return w.cutShort(err)
	default:
		return reject(err)
	}
	if e := d.Expect; !run.Resumed && e != nil && e.Topology != "" && e.Topology != view.Topology {
		return reject(fmt.Errorf("%w: the broker's topology has changed since the preview; nothing was done", controlbus.ErrConflict))
	}
	src, count, err := w.stored(args)
	if err != nil {
		if run.Resumed {
			return w.cutShort(err)
		}
		return reject(err)
	}
	from := w.at.Job
	from.Doubt = 0
	if w.at.Cursor != nil {
		src.committed = *w.at.Cursor
	}
	w.cursor = func() *cursor { c := src.committed; return &c }
	w.out = a.newOutcomes(w, "", outcomeSent)
	if d.UndoOf != "" {
		w.out.source = "archive of " + string(d.UndoOf)
	}
	sink := &advancing{w.counted(newSending(a, w.again(d.UndoOf == ""))), src}
	most := limit(args.Job, d.Expect)
	if most < 0 {
		src.eof = true
	}
	j := job.New(job.Config[*item]{
		Options: args.Job, Limit: max(most, 0), Total: total(count, most), Source: src, Sink: sink, From: from,
		Control: run.Control, Save: w.save, Outcome: w.out.add,
	})
	err = w.drive(ctx, j, src, sink)
	w.ev.Position = strconv.FormatInt(src.committed.N, 10)
	r := w.result(ctx, j, err, "messages sent")
	if w.ev.Damaged > 0 || w.ev.Missing > 0 {
		what := fmt.Sprintf("%d messages", w.ev.Missing)
		if w.ev.Missing == 0 {
			what = fmt.Sprintf("what lay in %d places", w.ev.Damaged)
		}
		r.Detail = cutText(r.Detail+"; the copy is damaged, and "+what+" of it could not be sent", 2000)
		if r.Outcome == controlbus.CommandSucceeded {
			r.Outcome = controlbus.CommandPartial
		}
	}
	return r
}

// stored is the source of a replay, and how many messages it has; -1 unknown.
func (w *work) stored(args controlbus.ReplayArgs) (*reading, int64, error) {
	d := w.run.Dispatch
	if d.UndoOf == "" {
		w.ev.Technique = "got from the message store, sent with confirmation"
		return newReading(&storePages{fetch: w.a.fetch, id: d.Command}), -1, nil
	}
	w.ev.Technique = "sent from the agent's archive, with confirmation"
	info, err := w.a.archive.Info(d.UndoOf)
	if err != nil {
		return nil, 0, err
	}
	if info.Channel.Name != "" && (info.Channel.Broker != w.target.Broker || info.Channel.Name != w.target.Name) {
		// Undo puts back where it was; elsewhere is what replay is for.
		return nil, 0, fmt.Errorf("%w: command %s removed these messages from %s, not from %s", controlbus.ErrConflict, d.UndoOf, info.Channel, w.target)
	}
	w.ev.Archive, w.ev.Doubtful, w.ev.Damaged, w.ev.Missing = string(d.UndoOf), info.Doubtful, info.Damaged, info.Missing
	return newReading(&archived{store: w.a.archive, id: d.UndoOf}), info.Count, nil
}

// again makes the message to be sent.
func (w *work) again(deaths bool) func(*item) (controlbus.ChannelName, *agents.Message, error) {
	return func(it *item) (controlbus.ChannelName, *agents.Message, error) {
		if it.skip != nil {
			return w.target, nil, it.skip
		}
		out, _ := copyOf(it.msg, deaths)
		out.SetHeader(controlbus.HeaderReplay, string(w.run.Dispatch.Command)+":"+strconv.FormatInt(it.n, 10))
		return w.target, out, nil
	}
}

// cursor is a place in a selection that does not change.
type cursor struct {
	After string `json:"after,omitempty"` // of the page, in the message store
	Index int    `json:"index,omitempty"` // messages of that page before it
	Pos   int64  `json:"pos,omitempty"`   // in the archive
	N     int64  `json:"n"`               // messages before it, all in all
}

// selection gives messages in their order from a cursor.
type selection interface {
	seek(ctx context.Context, at cursor) error
	// read returns 1 to most items, each with the cursor behind it; io.EOF at the end.
	read(ctx context.Context, most int) ([]*item, error)
	close() error
}

// reading is the job's source for messages that are only read. What has been sent
// is behind its cursor, which the checkpoint holds.
type reading struct {
	sel       selection
	open, eof bool
	committed cursor
	// ahead were sent although one before them was not: after a lost connection
	// they are met again.
	ahead map[int64]bool
}

func newReading(s selection) *reading { return &reading{sel: s, ahead: map[int64]bool{}} }

func (r *reading) Next(ctx context.Context, most int) ([]*item, error) {
	if r.eof {
		return nil, io.EOF
	}
	if !r.open {
		if err := r.sel.seek(ctx, r.committed); err != nil {
			return nil, err
		}
		r.open = true
	}
	for {
		items, err := r.sel.read(ctx, most)
		if errors.Is(err, io.EOF) {
			r.eof = true
		}
		if err != nil {
			return nil, err
		}
		out := items[:0]
		for _, it := range items {
			if !r.ahead[it.n] {
				out = append(out, it)
				continue
			}
			delete(r.ahead, it.n)
			if len(out) == 0 {
				r.committed = it.at
			} else {
				out[len(out)-1].at = it.at // it moves on with the one before it
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
}

// Settle has nothing to do: the messages stay where they are read.
func (r *reading) Settle(context.Context, []*item, []*item) error { return nil }

// Rest lets go of pages and files; the next Next goes on behind what was sent.
func (r *reading) Rest(context.Context) error {
	if !r.open {
		return nil
	}
	r.open = false
	return r.sel.close()
}

// advancing moves the cursor of a reading behind what was sent, before the job
// saves it.
type advancing struct {
	*counting
	r *reading
}

func (s *advancing) Send(ctx context.Context, items []*item) []error {
	errs := s.counting.Send(ctx, items)
	whole := true
	for i, it := range items {
		if err := errs[i]; errors.Is(err, job.ErrLost) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			whole = false
			continue
		}
		if whole {
			s.r.committed = it.at
		} else {
			s.r.ahead[it.n] = true
		}
	}
	return errs
}
