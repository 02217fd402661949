package ledger

import (
	"context"
	"fmt"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Control changes what is wanted of a job: its rate, whether it pauses, or both;
// nil leaves as it is. It may come before the command is sent, and reaches the
// agent as soon as it is connected. Whoever could request the command may; its
// requester may slow it down and pause it even after losing that right. Errors
// are controlbus.ErrInvalid, ErrDenied, ErrUnsupported for a kind that is no job,
// and ErrConflict for one that has ended.
func (l *Ledger) Control(ctx context.Context, id controlbus.CommandID, rate *float64, paused *bool) (controlbus.Command, error) {
	if rate == nil && paused == nil {
		return controlbus.Command{}, fmt.Errorf("ledger: control %s: %w: want a rate, or whether it pauses", id, controlbus.ErrInvalid)
	}
	if rate != nil {
		if err := (controlbus.JobOptions{Rate: *rate}).Check(); err != nil {
			return controlbus.Command{}, fmt.Errorf("ledger: control %s: %w", id, err)
		}
	}
	seen, err := l.store.Command(ctx, id)
	if err != nil {
		return seen, err
	}
	switch seen.Kind {
	case controlbus.CommandReplay, controlbus.CommandRedrive, controlbus.CommandDiscard, controlbus.CommandPurge:
	default:
		return seen, fmt.Errorf("ledger: control %s: %w: %s has neither a rate nor a pause", id, controlbus.ErrUnsupported, seen.Kind)
	}
	permit := l.requesterOr
	if hastens(&seen, rate, paused) {
		permit = l.requesting
	}
	by, err := permit(ctx, seen, "command.control")
	if err != nil {
		return seen, err
	}
	return l.change(ctx, id, func(tx Tx, c *controlbus.Command, step func(Event) error) error {
		if c.State.Terminal() {
			return fmt.Errorf("ledger: control %s: %w: it has ended: %s", id, controlbus.ErrConflict, c.State.Title())
		}
		want := wanted(c)
		var said []string
		if rate != nil && *rate != want.Rate {
			want.Rate = *rate
			said = append(said, rateText(*rate))
		}
		if paused != nil && *paused != want.Paused {
			want.Paused = *paused
			said = append(said, map[bool]string{true: "pause", false: "go on"}[*paused])
		}
		if len(said) == 0 {
			return nil // it is wanted already
		}
		want.Seq++
		if err := step(Event{Type: EventControl, Actor: by, Detail: strings.Join(said, ", "), Control: &want}); err != nil {
			return err
		}
		if !c.State.Sent() {
			return nil // the order will say it
		}
		return tx.Queue(Outgoing{Agent: c.Target.Agent, Command: id, What: SendControl})
	})
}

// wanted is what people want of a job by now.
func wanted(c *controlbus.Command) controlbus.JobControl {
	want := c.Control
	if want.Seq == 0 {
		want.Rate = optionsRate(c)
	}
	return want
}

// hastens says whether a job would get on faster than it does; a rate of 0 is
// without a limit.
func hastens(c *controlbus.Command, rate *float64, paused *bool) bool {
	now := wanted(c)
	return now.Paused && paused != nil && !*paused ||
		rate != nil && now.Rate != 0 && (*rate == 0 || *rate > now.Rate)
}

func rateText(rate float64) string {
	if rate == 0 {
		return "as fast as the broker confirms"
	}
	return fmt.Sprintf("at most %g messages/s", rate)
}

// optionsRate is the rate that the command was requested with.
func optionsRate(c *controlbus.Command) float64 {
	args, err := controlbus.DecodeArgs[struct {
		Job controlbus.JobOptions `json:"job"`
	}](c.Args)
	if err != nil {
		return 0
	}
	return args.Job.Rate
}

// requesterOr returns who acts if they requested the command, or could have.
func (l *Ledger) requesterOr(ctx context.Context, c controlbus.Command, code string) (controlbus.Actor, error) {
	who, _ := access.From(ctx)
	if by := actorOf(who); by.ID != "" && by.ID == c.RequestedBy.ID {
		return by, nil
	}
	return l.requesting(ctx, c, code)
}

// requesting returns who acts if they could request the command now.
func (l *Ledger) requesting(ctx context.Context, c controlbus.Command, code string) (controlbus.Actor, error) {
	return l.may(ctx, Action(c.Kind), code, string(c.ID), c.Target.Channel)
}
