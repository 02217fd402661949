package command

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
)

const (
	defaultOutcomes = 100
	maxOutcomes     = 1000
	// lateOutcomes is how long after a command's end its records may still be on
	// their way.
	lateOutcomes = 24 * time.Hour
	clockSlack   = time.Hour // between agents' clocks and the console's
)

// Outcomes says what a command did with each message, by number, behind after;
// next is where the next page begins, 0 at the end. They come by the way of
// telemetry and are complete some seconds after the command.
func (s *Service) Outcomes(ctx context.Context, id controlbus.CommandID, after int64, limit int) ([]Outcome, int64, error) {
	c, err := s.Command(ctx, id) // whoever may not see it gets no further
	if err != nil {
		return nil, 0, err
	}
	if limit <= 0 {
		limit = defaultOutcomes
	}
	limit = min(limit, maxOutcomes)
	to := s.now()
	if c.State.Terminal() && c.StateAt.Add(lateOutcomes).Before(to) {
		to = c.StateAt.Add(lateOutcomes)
	}
	who, err := person(ctx)
	if err != nil {
		return nil, 0, err
	}
	list, err := s.cfg.Store.Outcomes(controlbus.WithScope(ctx, who.Scope(access.ViewMetadata)), storage.OutcomeQuery{
		Command: id, After: after, Limit: limit, Range: storage.TimeRange{From: c.RequestedAt.Add(-clockSlack), To: to.Add(clockSlack)},
	})
	if err != nil {
		return nil, 0, fmt.Errorf("command: outcomes of %s: %w", short(id), err)
	}
	next := int64(0)
	if len(list) == limit {
		next = list[len(list)-1].Number
	}
	from := "" // the environment of what was sent, where it is another
	if args, err := controlbus.DecodeArgs[controlbus.ReplayArgs](c.Args); err == nil && c.Kind == controlbus.CommandReplay && args.Selection != nil {
		from = args.Selection.Env
	}
	return shown(list, who.Scope(access.ViewMetadata), from), next, nil
}

// OutcomesOf says which commands dealt with a message, by its uid in the message
// store, its message id, or both, newest first.
func (s *Service) OutcomesOf(ctx context.Context, uid, messageID string, within storage.TimeRange) ([]Outcome, error) {
	who, err := person(ctx)
	if err != nil {
		return nil, err
	}
	q := storage.OutcomeQuery{Range: within, MessageID: messageID}
	if uid != "" {
		if q.UID, err = controlbus.ParseID(uid); err != nil {
			return nil, fmt.Errorf("command: %w", err)
		}
	}
	if q.UID.IsZero() && messageID == "" {
		return nil, fmt.Errorf("command: %w: want a message's uid or id", controlbus.ErrInvalid)
	}
	list, err := s.cfg.Store.Outcomes(controlbus.WithScope(ctx, who.Scope(access.ViewMetadata)), q)
	if err != nil {
		return nil, fmt.Errorf("command: outcomes of a message: %w", err)
	}
	return shown(list, who.Scope(access.ViewMetadata), ""), nil
}

// shown leaves out names of channels that may not be seen, and what tells which
// of their messages it was.
func shown(list []storage.Outcome, scope controlbus.Scope, from string) []Outcome {
	out := make([]Outcome, 0, len(list))
	for _, o := range list {
		v := Outcome{
			Command: o.Command, Kind: o.Kind, Number: o.Number, At: o.At, Outcome: o.Outcome, MessageID: o.MessageID, Correlation: o.CorrelationID,
			Source: o.Source, Broker: o.Broker, Destination: o.Destination, Detail: o.Detail,
		}
		if !o.UID.IsZero() {
			v.UID = o.UID.String()
		}
		if o.Source != "" && !scope.Allows(cmp.Or(from, o.Env), o.Source) {
			v.UID, v.MessageID, v.Correlation, v.Source = "", "", "", ""
		}
		if o.Destination != "" && !scope.Allows(o.Env, o.Destination) {
			v.Broker, v.Destination = "", ""
		}
		out = append(out, v)
	}
	return out
}
