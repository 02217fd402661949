package action

import (
	"context"
	"fmt"
	"strconv"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/job"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// redrive moves dead letters to a destination, or each to where it died.
func (a *Actions) redrive(ctx context.Context, run *link.Run) controlbus.CommandResult {
	args, err := controlbus.DecodeArgs[controlbus.RedriveArgs](run.Dispatch.Args)
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
	if to := run.Dispatch.Destination; to != nil {
		if err := a.destination(w.target, *to); err != nil {
			return reject(err)
		}
	}
	taker, err := verb[agents.Taker](w.adapter, "take messages out of a channel")
	if err != nil {
		return reject(err)
	}
	view, err := w.look(ctx)
	if err != nil {
		if run.Resumed {
			return w.cutShort(err)
		}
		return reject(err)
	}
	expect := run.Dispatch.Expect
	if !run.Resumed && expect != nil && expect.Topology != "" && expect.Topology != view.Topology {
		return reject(fmt.Errorf("%w: the broker's topology has changed since the preview; nothing was done", controlbus.ErrConflict))
	}
	from := w.at.Job
	if w.fresh {
		w.at.Start = view.Ready
	} else {
		from = takenUp(from, w.at.Start, view.Ready)
	}
	w.ev.DepthBefore, w.ev.UpTo = w.at.Start, view.UpTo
	w.ev.Technique = "sent with confirmation, then taken out of the dead-letter channel"
	upTo := ""
	if expect != nil {
		upTo = expect.UpTo
	}
	ramp := args.Job.Ramp
	var j *job.Job[*item]
	src := newTaking(taking{
		match: match, start: max(w.at.Start-from.Done, 0), lasting: view.UpTo != "",
		open: func(ctx context.Context, window int) (agents.Intake, error) {
			return taker.Intake(ctx, w.target.Name, agents.IntakeOptions{Window: window, UpTo: upTo})
		},
		window: func() int {
			// A canary takes no more than its step, so that the rest of the channel is
			// as it was when it looks.
			if s := j.Progress().Job.Step; s < len(ramp) {
				return int(min(ramp[s], window))
			}
			return window
		},
	})
	sink := newSending(a, w.revive(src, args.Force))
	most := limit(args.Job, expect)
	if most < 0 {
		src.eof = true
	}
	w.out = a.newOutcomes(w, w.target.Name, outcomeSent)
	count := w.counted(sink)
	begun := from.Done
	j = job.New(job.Config[*item]{
		Options: args.Job, Limit: max(most, 0), Total: total(w.at.Start, most), Source: src, Sink: count, From: from,
		Control: run.Control, Save: w.save, Outcome: w.out.add,
		Refailed: func(ctx context.Context) (int64, error) {
			if s := j.Progress().Job.Step; s < len(ramp) || src.eof {
				if err := src.Rest(ctx); err != nil {
					return 0, err
				}
			}
			v, err := inspect(ctx, w.adapter, w.target.Name)
			if err != nil {
				return 0, err
			}
			// Arrivals since it began. What the intake holds is not ready, so while
			// one is open this is at most as many too few, and never too many.
			return v.Ready - (w.at.Start - begun - src.gone), nil
		},
	})
	err = w.drive(ctx, j, src, count)
	w.ev.Position = src.last
	return w.result(ctx, j, err, "messages sent again")
}

// takenUp is the progress of a redrive whose process died. Of the messages that
// were sent, and of which it is not noted that they left the channel, the channel's
// depth tells how many did: without that they would be counted neither as done nor
// as left, and as many that came later be taken in their stead.
func takenUp(p job.Progress, start, ready int64) job.Progress {
	doubt := p.Doubt
	p = p.Restart()
	if ready >= 0 {
		left := min(max(start-p.Done-ready, 0), doubt)
		p.Done += left
		p.Matched += left
		p.Job.Sent += left
	}
	return p
}

// destination checks where a command is to send.
func (a *Actions) destination(from, to controlbus.ChannelName) error {
	if to.Broker == from.Broker && to.Name == from.Name {
		return fmt.Errorf("%w: source and destination are the same channel, %s", controlbus.ErrInvalid, to)
	}
	ad, err := a.broker(to)
	if err != nil {
		return err
	}
	_, err = verb[agents.Sender](ad, "send messages")
	return err
}

// revive makes of a dead letter the message to be sent, and says where to.
func (w *work) revive(src *taking, force bool) func(*item) (controlbus.ChannelName, *agents.Message, error) {
	d := w.run.Dispatch
	return func(it *item) (to controlbus.ChannelName, _ *agents.Message, err error) {
		n := redrives(it.msg)
		if n >= controlbus.MaxRedrives && !force {
			return to, nil, fmt.Errorf("%w: it was redriven %d times and died again", job.ErrSkip, n)
		}
		switch {
		case d.Destination != nil:
			to = *d.Destination
		default:
			name := diedIn(w.adapter, w.target.Name, it.msg)
			if name == "" {
				return to, nil, fmt.Errorf("%w: nothing in it says where it died; give a destination", controlbus.ErrInvalid)
			}
			to = controlbus.ChannelName{Env: w.target.Env, System: w.adapter.System(), Broker: w.target.Broker, Name: name}
			if to.Name == w.target.Name {
				return to, nil, fmt.Errorf("%w: it died in this very channel; give a destination", controlbus.ErrInvalid)
			}
			// Whoever sent the message wrote this name.
			if err := w.a.allowed(d.Kind, w.target, &to); err != nil {
				return to, nil, err
			}
		}
		out, stripped := copyOf(it.msg, true)
		if note := deathNote(stripped); len(stripped) > 0 && note != "" {
			out.SetHeader(controlbus.HeaderDeaths, note)
		}
		out.SetHeader(controlbus.HeaderRedrive, strconv.Itoa(n+1))
		out.SetHeader(controlbus.HeaderRedriveID, string(d.Command)+":"+w.operation(src, it))
		return to, out, nil
	}
}

// operation is the part of an operation id that names the message.
func (w *work) operation(src *taking, it *item) string {
	id := src.operation(it)
	if !it.known && w.at.Resumes > 0 {
		// An earlier process may have sent an equal message under the plain id, and a
		// destination that knows ids would take this one for it and drop it.
		id += "~" + strconv.Itoa(w.at.Resumes)
	}
	return id
}

// cutShort is the end of a resumed command that could not go on.
func (w *work) cutShort(err error) controlbus.CommandResult {
	r := reject(err)
	r.Counts = w.at.Job.Counts
	if r.Counts.Done > 0 {
		r.Outcome = controlbus.CommandPartial
	}
	r.Detail = fmt.Sprintf("it could not go on after the agent had stopped: %v", err)
	return r
}

// counting is a sink that notes how much went where.
type counting struct {
	*sending
	w *work
}

func (w *work) counted(s *sending) *counting {
	w.ev.SentTo = map[string]int64{}
	return &counting{s, w}
}

func (c *counting) Send(ctx context.Context, items []*item) []error {
	errs := c.sending.Send(ctx, items)
	for i, it := range items {
		if errs[i] != nil {
			continue
		}
		key := it.to.String()
		if _, ok := c.w.ev.SentTo[key]; !ok && len(c.w.ev.SentTo) >= 50 {
			key = "other channels"
		}
		c.w.ev.SentTo[key]++
	}
	return errs
}
