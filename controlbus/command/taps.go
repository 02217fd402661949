package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

func checkTap(t controlbus.TapArgs) error {
	switch {
	case t.For < 0 || t.For > link.MaxLease || t.For > 0 && t.For < time.Second:
		return fmt.Errorf("%w: it lasts %v: want 1s to %v", controlbus.ErrInvalid, t.For, link.MaxLease)
	case t.MaxBytes < 0:
		return fmt.Errorf("%w: bodies are cut at %d bytes: want 0 or more", controlbus.ErrInvalid, t.MaxBytes)
	}
	return nil
}

func lease(t controlbus.TapArgs) time.Duration {
	if t.For == 0 {
		return link.DefaultLease
	}
	return t.For
}

// tapID is the name under which the roster keeps the console's tap on a channel.
func tapID(ch controlbus.ChannelName) string { return "console:" + ch.Broker + "/" + ch.Name }

// planTap is the plan of a tap, and of its end: wanted state, which the console
// keeps and the agent converges to.
func (s *Service) planTap(a *asked, to reach, p *controlbus.Preview) {
	p.Technique, p.Reversible = "wanted state", controlbus.ReversibleYes
	there := false
	for _, t := range to.agent.Desired.Taps {
		there = there || t.ID == tapID(a.target)
	}
	switch {
	case a.Kind == controlbus.CommandTap:
		p.Undo = "End the tap."
		p.Impact = append(p.Impact, "Consumers get what they got before: a tap sees copies.")
		if there {
			p.Impact = append(p.Impact, "A tap is there already; it is renewed.")
		}
	case !there:
		p.Undo = "Start it again."
		p.Impact = append(p.Impact, "The console wants no tap there now: nothing changes. Taps of the agent's own configuration are ended there.")
	default:
		p.Undo = "Start it again; what passes meanwhile is not copied."
	}
	if !to.online {
		p.Impact = append(p.Impact, fmt.Sprintf("Agent %s is not connected: it follows when it comes back.", to.agent.ID))
	}
}

// sweep is how often commands of the console's own are looked for besides when
// the ledger tells of changes.
const sweep = 5 * time.Second

// Run carries out what the console does itself, until ctx ends: what a crash
// has left as well.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	for {
		changed := s.Changed()
		if err := s.carryOut(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "taps asked for cannot be carried out; trying again", "error", err)
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// carryOut does what is queued, and enters that it is done. What fails for now
// stays queued until its time is over.
func (s *Service) carryOut(ctx context.Context) error {
	queued, err := s.OfConsole(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i := range queued {
		r, err := s.tap(ctx, &queued[i])
		if err == nil {
			_, err = s.Conclude(ctx, queued[i].ID, r)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// tap asks the roster for what a command wants; doing it twice changes nothing.
// An error means that it can be tried again.
func (s *Service) tap(ctx context.Context, c *controlbus.Command) (controlbus.CommandResult, error) {
	ok := controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}
	var err error
	switch c.Kind {
	case controlbus.CommandTap:
		var args controlbus.TapArgs
		if args, err = controlbus.DecodeArgs[controlbus.TapArgs](c.Args); err == nil {
			until := s.now().Add(lease(args))
			ok.Detail = "wanted until " + until.UTC().Format(time.DateTime) + " UTC"
			err = s.cfg.Roster.RequestTap(ctx, c.Target.Agent, controlbus.TapSpec{
				Broker: c.Target.Channel.Broker, Channel: c.Target.Channel.Name, MaxBytes: args.MaxBytes,
				Owner: c.RequestedBy.Name, Reason: c.Reason, Until: until,
			})
		}
	default:
		err = s.cfg.Roster.ReleaseTap(ctx, c.Target.Agent, tapID(c.Target.Channel))
		if errors.Is(err, controlbus.ErrNotFound) {
			ok.Detail, err = "there was no such tap any more", nil
		}
	}
	switch {
	case err == nil:
		return ok, nil
	case errors.Is(err, controlbus.ErrInvalid), errors.Is(err, controlbus.ErrNotFound), errors.Is(err, controlbus.ErrUnsupported):
		return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: err.Error()}, nil
	}
	return ok, err
}
