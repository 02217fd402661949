package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage"
)

// Preview says what a command would do, and keeps that as a draft which who
// asked can order. Nothing is changed. Errors are controlbus.ErrInvalid,
// ErrDenied, ErrNotFound where no agent has the broker, ErrUnavailable where the
// agent is not connected, and ErrUnsupported, with the agent's reason, for what
// cannot be carried out.
func (s *Service) Preview(ctx context.Context, r Request) (Draft, error) {
	d, err := s.preview(ctx, r)
	if errors.Is(err, controlbus.ErrDenied) && !errors.Is(err, access.ErrUnauthenticated) {
		err = errors.Join(err, s.recordRefusal(ctx, r, err))
	}
	return d, err
}

// recordRefusal notes that somebody asked for what they may not do: most get no
// further than to the preview, and it would be in the trail had they ordered it.
func (s *Service) recordRefusal(ctx context.Context, r Request, why error) error {
	if s.cfg.Record == nil {
		return nil
	}
	ch := controlbus.ChannelName{Env: r.Env, Broker: r.Broker, Name: r.Channel}
	return s.cfg.Record(ctx, access.Event{Code: "command.request", Target: string(r.Kind), Env: r.Env, Channel: ch.String(), Refused: true, Detail: why.Error()})
}

func (s *Service) preview(ctx context.Context, r Request) (Draft, error) {
	who, err := person(ctx)
	if err != nil {
		return Draft{}, err
	}
	a, err := s.read(who, r)
	if err != nil {
		return Draft{}, err
	}
	to, err := s.resolve(r.Env, r.Broker, r.Agent)
	if err != nil {
		return Draft{}, err
	}
	a.target.System = to.broker.System
	if err := s.rights(a); err != nil {
		return Draft{}, err
	}
	if why := s.ability(to, a.Kind).Reason; why != "" {
		if !to.online && !a.Kind.ByConsole() {
			return Draft{}, fmt.Errorf("command: %w: %s; start it, or look at its log", controlbus.ErrUnavailable, why)
		}
		return Draft{}, fmt.Errorf("command: %s on %s: %w: %s", a.Kind, a.target, controlbus.ErrUnsupported, why)
	}
	spec := controlbus.CommandSpec{
		Kind: a.Kind, Target: controlbus.Target{Agent: to.agent.ID, Channel: a.target}, Destination: a.Destination,
		AcceptWithin: r.AcceptWithin, RunWithin: r.RunWithin, UndoOf: r.UndoOf,
	}
	p := &controlbus.Preview{TakenAt: s.now().UTC().Round(0), Env: r.Env, Destination: a.Destination, Count: -1, Expect: controlbus.Expect{MaxCount: -1}}
	if a.Kind.ByConsole() {
		s.planTap(a, to, p)
	} else if err := s.ask(ctx, a, spec, p); err != nil {
		return Draft{}, err
	}
	p.Effect = effect(a, to, p)
	spec.Args, spec.Preview = a.raw, p
	p.Seal(spec.Kind, spec.Target, spec.Args)
	// As it will be checked when it is ordered; the reason comes with the order.
	check := spec
	check.Reason = "-"
	if err := check.Check(); err != nil {
		return Draft{}, fmt.Errorf("command: %w", err)
	}
	spec.AcceptWithin, spec.RunWithin = check.AcceptWithin, check.RunWithin
	if err := s.recordExcerpts(ctx, a, p); err != nil {
		return Draft{}, err
	}
	return s.keep(who, spec)
}

// rights looks at everything the command would reach.
func (s *Service) rights(a *asked) error {
	if err := may(a.who, ledger.Action(a.Kind), a.target); err != nil {
		return fmt.Errorf("command: %s: %w", a.Kind, err)
	}
	if d := a.Destination; d != nil {
		switch {
		case d.Name == "" || d.Broker == "":
			return fmt.Errorf("command: %w: destination: want a broker and a channel", controlbus.ErrInvalid)
		case a.Kind != controlbus.CommandRedrive:
			return fmt.Errorf("command: %w: %s has no destination", controlbus.ErrInvalid, a.Kind)
		}
		to := *d
		if to.Env == "" {
			to.Env = a.Env
		}
		if all := s.reaches(to.Env, to.Broker); to.System == "" && len(all) > 0 {
			to.System = all[0].broker.System
		}
		a.Destination = &to
		if err := may(a.who, access.Operate, to); err != nil {
			return fmt.Errorf("command: %s: destination: %w", a.Kind, err)
		}
	}
	for _, name := range a.touches {
		ch := a.target
		ch.Name = name
		if err := may(a.who, access.Operate, ch); err != nil {
			return fmt.Errorf("command: %s: it sends messages to another channel: %w", a.Kind, err)
		}
	}
	return nil
}

// ask puts the question to the agent and completes its answer with what the
// message store knows.
func (s *Service) ask(ctx context.Context, a *asked, spec controlbus.CommandSpec, p *controlbus.Preview) error {
	if a.selection != nil {
		if err := s.freeze(ctx, a, p); err != nil {
			return err
		}
	}
	within, over := context.WithTimeout(ctx, askWithin)
	defer over()
	plan, err := s.cfg.Agents.Ask(within, spec.Target.Agent, controlbus.Ask{
		Kind: a.Kind, Target: spec.Target, Destination: a.Destination, Args: a.raw, UndoOf: a.UndoOf, Look: a.Look,
	})
	switch {
	case err != nil:
		return fmt.Errorf("command: %w", err)
	case plan.Refused != "":
		return fmt.Errorf("command: %s on %s: %w: %s", a.Kind, a.target, controlbus.ErrUnsupported, plan.Refused)
	}
	p.Technique, p.Needs, p.Expect = plan.Technique, plan.Needs, plan.Expect
	p.Impact = append(p.Impact, plan.Impact...)
	p.Reversible, p.Undo = plan.Reversible, plan.Undo
	if p.Reversible == "" {
		p.Reversible = controlbus.ReversibleNo
	}
	if a.selection != nil {
		return nil // the store has counted
	}
	p.Count, p.AtLeast = plan.Count, plan.AtLeast
	if plan.Oldest > 0 {
		p.Oldest = time.Unix(0, plan.Oldest).UTC()
	}
	if plan.Newest > 0 {
		p.Newest = time.Unix(0, plan.Newest).UTC()
	}
	bodies := a.who.Can(access.ReadBody, a.Env, a.Channel)
	for i, sm := range plan.Samples {
		if i == controlbus.MaxSamples {
			break
		}
		if sm.Excerpt = excerpt(sm.Excerpt); !bodies {
			sm.Excerpt = ""
		}
		p.Samples = append(p.Samples, sm)
	}
	return s.fromTap(ctx, a, p)
}

// tapDays is how far back copies of what waits are looked for.
const tapDays = 7

// fromTap fills in, from the copies that taps have stored, what the broker does
// not show of the messages that wait in a channel.
func (s *Service) fromTap(ctx context.Context, a *asked, p *controlbus.Preview) error {
	switch a.Kind {
	case controlbus.CommandPurge, controlbus.CommandDiscard, controlbus.CommandRedrive:
	default:
		return nil
	}
	if p.Count == 0 || len(p.Samples) > 0 && !p.Oldest.IsZero() {
		return nil
	}
	ctx, over := context.WithTimeout(controlbus.WithScope(ctx, a.who.Scope(access.ViewMetadata)), countWithin)
	defer over()
	now := s.now()
	q := storage.MessageQuery{
		Range: storage.Last(tapDays*24*time.Hour, now), Env: a.Env, Broker: a.Broker, Channel: a.Channel, Filter: a.filter,
		Limit: controlbus.MaxSamples, Snippets: a.who.Can(access.ReadBody, a.Env, a.Channel),
	}
	newest, err := s.cfg.Store.Messages(ctx, q)
	if err != nil {
		if errors.Is(err, controlbus.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			p.Impact = append(p.Impact, "The message store does not answer: no samples can be shown.")
			return nil
		}
		return fmt.Errorf("command: read the tap's copies: %w", err)
	}
	copies := newest.Messages
	if p.Count >= 0 {
		copies = copies[:min(int64(len(copies)), p.Count)]
	}
	if len(copies) == 0 {
		p.Impact = append(p.Impact, fmt.Sprintf("No tap has copied what waits here in the last %d days: neither samples nor ages are known. To see them, look at the waiting messages first.", tapDays))
		return nil
	}
	read := func(list []storage.Message) []controlbus.PreviewSample {
		var out []controlbus.PreviewSample
		for i := range list {
			sm := sample(&list[i])
			sm.Excerpt = excerpt(list[i].Snippet)
			out = append(out, sm)
		}
		return out
	}
	if p.Newest.IsZero() {
		p.Newest = time.Unix(0, copies[0].Time).UTC()
	}
	said := "Samples and ages are as seen by the tap; what consumers have taken since may be among them."
	if p.Oldest.IsZero() {
		if p.Oldest = s.oldestCopy(ctx, q, p.Count); p.Oldest.IsZero() {
			said = "Samples, the newest, are as seen by the tap; what consumers have taken since may be among them. How old the oldest message is, is not known."
		}
	}
	if len(p.Samples) == 0 {
		p.Samples = read(copies)
		if !p.Oldest.IsZero() && p.Count > int64(len(copies)) {
			q.Limit = 1
			p.Samples = spread(p.Samples, p.Oldest, p.Newest, func(r storage.TimeRange) ([]controlbus.PreviewSample, error) {
				q.Range = r
				page, err := s.cfg.Store.Messages(ctx, q)
				return read(page.Messages), err
			})
			slices.Reverse(p.Samples) // the newest first, as everywhere
		}
	}
	p.Impact = append(p.Impact, said)
	return nil
}

// oldestCopy is the time of the copy that is as many behind the newest as wait,
// where few enough do.
func (s *Service) oldestCopy(ctx context.Context, q storage.MessageQuery, waiting int64) time.Time {
	const most = 1000
	if waiting <= 0 || waiting > most {
		return time.Time{}
	}
	q.Limit, q.Snippets = int(waiting), false
	page, err := s.cfg.Store.Messages(ctx, q)
	if err != nil || int64(len(page.Messages)) < waiting {
		return time.Time{}
	}
	return time.Unix(0, page.Messages[waiting-1].Time).UTC()
}

// recordExcerpts notes, before they are shown, that beginnings of bodies were.
func (s *Service) recordExcerpts(ctx context.Context, a *asked, p *controlbus.Preview) error {
	if s.cfg.Record == nil {
		return nil
	}
	for _, sm := range p.Samples {
		if sm.Excerpt == "" {
			continue
		}
		e := access.Event{Code: access.EventBodyPreview, Target: "preview of " + string(a.Kind), Env: a.Env, Channel: a.target.String(), Detail: "Beginnings of payloads among samples."}
		if err := s.cfg.Record(ctx, e); err != nil {
			return fmt.Errorf("command: what is read is recorded, and that fails now: %w: %w", controlbus.ErrUnavailable, err)
		}
		return nil
	}
	return nil
}
