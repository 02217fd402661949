package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/archive"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// Plan says what a command would do. It changes nothing; only with ask.Look may
// looking at waiting messages leave traces. Errors that are
// controlbus.ErrUnavailable pass; others say why it cannot be done.
func (a *Actions) Plan(ctx context.Context, ask controlbus.Ask) (controlbus.Plan, error) {
	for _, p := range a.parts {
		if p.Handlers()[ask.Kind] != nil {
			return p.Plan(ctx, ask)
		}
	}
	plan, err := a.plan(ctx, ask)
	switch {
	case err == nil:
		return plan, nil
	case away(err) && !errors.Is(err, controlbus.ErrUnavailable):
		return controlbus.Plan{}, fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return controlbus.Plan{}, fmt.Errorf("%w: the broker has not answered in time: %w", controlbus.ErrUnavailable, err)
	case away(err):
		return controlbus.Plan{}, err
	}
	return controlbus.Plan{Refused: sentence(err, controlbus.ErrUnsupported)}, nil
}

func (a *Actions) plan(ctx context.Context, ask controlbus.Ask) (controlbus.Plan, error) {
	target := ask.Target.Channel
	if err := a.allowed(ask.Kind, target, ask.Destination); err != nil {
		return controlbus.Plan{}, err
	}
	ad, err := a.broker(target)
	if err != nil {
		return controlbus.Plan{}, err
	}
	planner, err := verb[agents.Planner](ad, "carry out commands")
	if err != nil {
		return controlbus.Plan{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	how, err := planner.PlanCommand(ctx, ask.Kind, target.Name)
	if err != nil {
		return controlbus.Plan{}, err
	}
	p := controlbus.Plan{Technique: how.Technique, Impact: slices.Clone(how.Impact), Needs: how.Needs, Count: -1, Expect: controlbus.Expect{MaxCount: -1}}
	view, err := inspect(ctx, ad, target.Name)
	sends := ask.Kind == controlbus.CommandReplay || ask.Kind == controlbus.CommandTest
	if uncounted := sends && errors.Is(err, controlbus.ErrUnsupported); err != nil && !uncounted {
		return controlbus.Plan{}, err
	}
	p.Impact = append(p.Impact, view.Notes...)
	q := &question{a: a, ask: ask, ad: ad, target: target, view: view, plan: &p}
	switch ask.Kind {
	case controlbus.CommandPurge:
		err = q.purge(ctx)
	case controlbus.CommandDiscard:
		err = q.discard(ctx)
	case controlbus.CommandRedrive:
		err = q.redrive(ctx)
	case controlbus.CommandReplay:
		err = q.replay()
	case controlbus.CommandTest:
		err = q.test(ctx)
	case controlbus.CommandPeek:
		q.waiting()
		p.Reversible = controlbus.ReversibleYes
	default:
		err = fmt.Errorf("%w: this agent does not know how to %s", controlbus.ErrUnsupported, ask.Kind)
	}
	return p, err
}

// question is an Ask while it is answered.
type question struct {
	a      *Actions
	ask    controlbus.Ask
	ad     agents.Adapter
	target controlbus.ChannelName
	view   agents.ChannelView
	plan   *controlbus.Plan
}

func (q *question) note(format string, args ...any) {
	q.plan.Impact = append(q.plan.Impact, fmt.Sprintf(format, args...))
}

// waiting fills in what is in the channel.
func (q *question) waiting() {
	q.plan.Count = q.view.Ready
	q.plan.Oldest, q.plan.Newest = nanos(q.view.Oldest), nanos(q.view.Newest)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// bound is what must still hold when the command begins.
func (q *question) bound() {
	q.plan.Expect.UpTo, q.plan.Expect.Topology = q.view.UpTo, q.view.Topology
	q.plan.Expect.MaxCount = q.view.Ready
}

// look takes samples of what waits, those that match, and returns the mean size of
// a message; 0 unknown.
func (q *question) look(ctx context.Context, text string) (mean int64, err error) {
	var f *filter.Filter
	if text != "" {
		if f, err = filter.Parse(text, time.Now()); err != nil {
			return 0, fmt.Errorf("%w: filter: %w", controlbus.ErrInvalid, err)
		}
		q.note("The broker cannot count what matches the filter: at most %d messages do.", max(q.view.Ready, 0))
	}
	p, ok := q.ad.(agents.Peeker)
	if !ok || q.view.Ready == 0 {
		return 0, nil
	}
	n := controlbus.MaxSamples
	if f != nil {
		n = maxPeek
	}
	msgs, traces, err := p.Peek(ctx, q.target.Name, n, q.ask.Look)
	switch {
	case errors.Is(err, controlbus.ErrConflict):
		q.note("The waiting messages were not looked at, because that leaves traces. %s", sentence(err, controlbus.ErrConflict))
		return 0, nil
	case away(err), ctx.Err() != nil:
		return 0, err
	case err != nil:
		q.note("Waiting messages cannot be shown: %s", sentence(err, controlbus.ErrUnsupported))
		return 0, nil
	}
	if traces != "" {
		q.note("Looking at the waiting messages left traces: %s", traces)
	}
	var size int64
	for _, m := range msgs {
		size += int64(len(m.Body)) + 300
		if f != nil && !f.Match(q.a.event(q.ad, q.target, m)) || len(q.plan.Samples) >= controlbus.MaxSamples {
			continue
		}
		q.plan.Samples = append(q.plan.Samples, q.a.sample(q.ad, q.target, m))
	}
	if len(msgs) > 0 {
		mean = size / int64(len(msgs))
	}
	return mean, nil
}

// room refuses a removal whose copy does not fit.
func (q *question) room(mean int64) error {
	free := q.a.archive.Free()
	need := max(q.view.Ready, 0) * max(mean, 300)
	if err := q.a.archive.CheckRoom(min(need, max(q.view.Ready, 1)*400)); err != nil {
		return fmt.Errorf("no copy can be kept: %v", err) //nolint:errorlint // final as it is
	}
	if need > free {
		return fmt.Errorf("%w: a copy of about %s does not fit into the agent's archive, which has %s free (commands.archive.max_bytes)", controlbus.ErrTooLarge, size(need), size(free))
	}
	q.note("A copy is kept in the agent's archive (%s free) for %s.", size(free), span(q.a.env.Archive.MaxAge))
	return nil
}

const (
	undoFromCopy = "Replay of the agent's copy puts the same messages back, in their order. They come after what arrived meanwhile, count as new to the broker, and an expiry of their own is not put back."
	undoNever    = "No copy is kept: the messages are gone for good."
)

func (q *question) purge(ctx context.Context) error {
	args, err := controlbus.DecodeArgs[controlbus.PurgeArgs](q.ask.Args)
	if err != nil {
		return err
	}
	q.waiting()
	q.bound()
	if q.view.UpTo != "" {
		q.plan.Expect.MaxCount = -1 // the position bounds it: what comes later is not touched
	}
	mean, err := q.look(ctx, args.Filter)
	if err != nil {
		return err
	}
	q.plan.Reversible, q.plan.Undo = controlbus.ReversiblePartly, undoFromCopy
	if args.NoBackup {
		q.plan.Reversible, q.plan.Undo = controlbus.ReversibleNo, undoNever
	}
	_, whole := q.ad.(agents.Purger)
	if !args.NoBackup || args.Filter != "" || !whole {
		if _, err := verb[agents.Taker](q.ad, "take messages out of a channel, which a copy or a filter needs"); err != nil {
			return err
		}
	}
	if args.NoBackup {
		return nil
	}
	return q.room(mean)
}

func (q *question) discard(ctx context.Context) error {
	args, err := controlbus.DecodeArgs[controlbus.DiscardArgs](q.ask.Args)
	if err == nil {
		err = args.Job.Check()
	}
	if err == nil {
		_, err = verb[agents.Taker](q.ad, "take messages out of a channel")
	}
	if err != nil {
		return err
	}
	q.waiting()
	q.bound()
	q.atMost(args.Job.Max)
	mean, err := q.look(ctx, args.Filter)
	if err != nil {
		return err
	}
	q.plan.Reversible, q.plan.Undo = controlbus.ReversiblePartly, undoFromCopy
	return q.room(mean)
}

// atMost bounds the count by what a job may take.
func (q *question) atMost(most int64) {
	if most > 0 && (q.plan.Count < 0 || q.plan.Count > most) {
		q.plan.Count = most
	}
}

func (q *question) redrive(ctx context.Context) error {
	args, err := controlbus.DecodeArgs[controlbus.RedriveArgs](q.ask.Args)
	if err == nil {
		err = args.Job.Check()
	}
	if err == nil {
		_, err = verb[agents.Taker](q.ad, "take messages out of a channel")
	}
	if err == nil && q.ask.Destination != nil {
		err = q.a.destination(q.target, *q.ask.Destination)
	}
	if err != nil {
		return err
	}
	q.waiting()
	q.bound()
	q.atMost(args.Job.Max)
	if to := q.ask.Destination; to != nil {
		if err := q.reachable(ctx, *to); err != nil {
			return err
		}
	} else {
		q.note("Each message goes to the channel it died in, where the agent's rules allow that; what does not say where it died stays.")
	}
	if !args.Force {
		q.note("Messages that were redriven %d times before are left where they are.", controlbus.MaxRedrives)
	}
	q.plan.Reversible = controlbus.ReversiblePartly
	q.plan.Undo = "What consumers do with the messages cannot be taken back; those that fail again come back here."
	_, err = q.look(ctx, args.Filter)
	return err
}

// reachable says whether a destination is there.
func (q *question) reachable(ctx context.Context, to controlbus.ChannelName) error {
	ad, err := q.a.broker(to)
	if err != nil {
		return err
	}
	_, err = inspect(ctx, ad, to.Name)
	if errors.Is(err, controlbus.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destination %s: %w", to, err)
	}
	return nil
}

func (q *question) replay() error {
	args, err := controlbus.DecodeArgs[controlbus.ReplayArgs](q.ask.Args)
	if err == nil {
		err = args.Job.Check()
	}
	if err == nil {
		_, err = verb[agents.Sender](q.ad, "send messages")
	}
	if err != nil {
		return err
	}
	q.plan.Expect.Topology = q.view.Topology
	q.plan.Reversible = controlbus.ReversiblePartly
	q.plan.Undo = "Sent messages can be purged from the channel while they wait; what consumers did with them cannot be taken back."
	if q.view.Ready > 0 {
		q.note("%d messages wait in the channel already.", q.view.Ready)
	}
	if q.ask.UndoOf == "" {
		q.note("The message store has headers as text: kinds such as numbers and times are not put back.")
		return nil
	}
	return q.undo(args.Job.Max)
}

// undo says what the archive has.
func (q *question) undo(most int64) error {
	info, err := q.a.archive.Info(q.ask.UndoOf)
	if errors.Is(err, controlbus.ErrConflict) {
		return fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
	}
	if err != nil {
		return err
	}
	if info.Channel.Name != "" && (info.Channel.Broker != q.target.Broker || info.Channel.Name != q.target.Name) {
		return fmt.Errorf("%w: command %s removed these messages from %s", controlbus.ErrConflict, q.ask.UndoOf, info.Channel)
	}
	q.plan.Count, q.plan.Oldest, q.plan.Newest = info.Count, nanos(info.Oldest), nanos(info.Newest)
	q.atMost(most)
	if info.Doubtful > 0 {
		q.note("Of the last %d messages of the copy nobody knows whether they left the channel: some may be there twice afterwards.", info.Doubtful)
	}
	switch {
	case info.Missing > 0:
		q.note("The copy is damaged: %d messages of it cannot be read, and not be sent again.", info.Missing)
	case info.Damaged > 0:
		q.note("The copy is damaged in %d places; what lay there cannot be sent again.", info.Damaged)
	}
	r, err := q.a.archive.Open(q.ask.UndoOf, archive.Cursor{})
	if err != nil {
		return fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
	}
	defer func() { _ = r.Close() }()
	for len(q.plan.Samples) < controlbus.MaxSamples {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		q.plan.Samples = append(q.plan.Samples, q.a.sample(q.ad, q.target, m))
	}
	return nil
}

func (q *question) test(ctx context.Context) error {
	args, err := controlbus.DecodeArgs[controlbus.TestArgs](q.ask.Args)
	if err == nil {
		err = checkTest(args)
	}
	if err == nil {
		_, err = verb[agents.Sender](q.ad, "send messages")
	}
	if err == nil && args.Separate {
		_, err = verb[agents.Separator](q.ad, "keep test messages from a channel's consumers")
	}
	if err != nil {
		return err
	}
	if err := q.addressed(ctx, testMessage(args)); err != nil {
		return err
	}
	q.plan.Count, q.plan.Expect.Topology = 1, q.view.Topology
	q.plan.Reversible, q.plan.Undo = controlbus.ReversibleNo, "A message that was sent cannot be called back."
	if !args.Separate {
		q.note("The channel's consumers get the message like any other: they must know the header %s.", controlbus.HeaderTest)
	}
	return nil
}

// addressed says now what sending would say: that the channel has no place for
// such a message, as a stream of several subjects for one without any.
func (q *question) addressed(ctx context.Context, m *agents.Message) error {
	out, err := q.a.outlet(ctx, q.target)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		_ = out.Close(closing) // nothing was sent
	}()
	if to, ok := out.(agents.Addresser); ok {
		return to.Address(m)
	}
	return nil
}
