package clickhouse

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// outcomeRow is a row of query/outcomes.sql.
type outcomeRow struct {
	TimeNs        int64  `ch:"time_ns"`
	Command       string `ch:"command"`
	Number        int64  `ch:"number"`
	Kind          string `ch:"kind"`
	Outcome       string `ch:"outcome"`
	Detail        string `ch:"detail"`
	Env           string `ch:"env"`
	Broker        string `ch:"broker"`
	Destination   string `ch:"destination"`
	Source        string `ch:"source"`
	MessageID     string `ch:"message_id"`
	CorrelationID string `ch:"correlation_id"`
	UID           string `ch:"uid"`
}

// Outcomes says what a command did with each message, by number, or which
// commands dealt with one message, newest first. Where an agent told twice of
// one message, after a crash, the later word counts.
func (s *Store) Outcomes(ctx context.Context, q storage.OutcomeQuery) ([]storage.Outcome, error) {
	defer s.timed("outcomes of commands")()
	list, err := s.outcomes(ctx, q)
	return list, wrap("outcomes of commands", err)
}

func (s *Store) outcomes(ctx context.Context, oq storage.OutcomeQuery) ([]storage.Outcome, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	limit := oq.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	q := newSelection(s.query("outcomes"))
	q.between("ts", nanos(oq.Range), false)
	switch {
	case oq.Command != "":
		if !oq.Command.Valid() {
			return nil, fmt.Errorf("%w: %.40q is no command", controlbus.ErrInvalid, string(oq.Command))
		}
		id, err := hex.DecodeString(string(oq.Command))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", controlbus.ErrInvalid, err)
		}
		q.fixed("command", "command", id)
		q.where("number > {after:Int64}")
		q.bind("after", oq.After)
		q.visible("env", "") // whoever may see the command may see what it did
		q.add("ORDER BY number, ts DESC\nLIMIT 1 BY number")
	case oq.UID.IsZero() && oq.MessageID == "":
		return nil, fmt.Errorf("%w: want a command or a message", controlbus.ErrInvalid)
	default:
		var sets []set
		if !oq.UID.IsZero() {
			sets = append(sets, idSet("uid", "uids", [][16]byte{oq.UID}))
		}
		if oq.MessageID != "" {
			sets = append(sets, textSet("message_id", "messages", []string{oq.MessageID}))
		}
		q.anyOf(sets...)
		q.visible("env", "channel")
		q.add("ORDER BY ts DESC, command, number\nLIMIT 1 BY command, number")
	}
	q.add("LIMIT {limit:UInt32}")
	q.bind("limit", limit)
	rows, err := collect[outcomeRow](ctx, s, nil, q)
	if err != nil {
		return nil, err
	}
	list := make([]storage.Outcome, len(rows))
	for i, r := range rows {
		list[i] = storage.Outcome{
			Command: controlbus.CommandID(hex.EncodeToString([]byte(r.Command))), Kind: controlbus.CommandKind(r.Kind), At: time.Unix(0, r.TimeNs).UTC(), Number: r.Number,
			Outcome: r.Outcome, Detail: r.Detail, Env: r.Env, Broker: r.Broker, Destination: r.Destination, Source: r.Source,
			MessageID: r.MessageID, CorrelationID: r.CorrelationID, UID: id16(r.UID),
		}
	}
	return list, nil
}
