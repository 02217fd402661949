package clickhouse

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/storage"
)

// commandEventBlock is rows of the table command_events.
type commandEventBlock struct {
	base
	seq, n                                                             proto.ColUInt64
	at                                                                 int64Col
	typ, kind, agent, env, system, broker, channel, actorKind, outcome lowCard
	command, actorID, actorName, reason, detail, body                  proto.ColStr
	done, failed, skipped                                              proto.ColInt64
}

func newCommandEventBlock() *commandEventBlock {
	b := new(commandEventBlock)
	b.at.typ = typeTime9
	b.add("seq", &b.seq)
	b.add("at", &b.at)
	b.add("command", &b.command)
	b.add("n", &b.n)
	b.add("type", &b.typ)
	b.add("kind", &b.kind)
	b.add("agent", &b.agent)
	b.add("env", &b.env)
	b.add("system", &b.system)
	b.add("broker", &b.broker)
	b.add("channel", &b.channel)
	b.add("actor_kind", &b.actorKind)
	b.add("actor_id", &b.actorID)
	b.add("actor_name", &b.actorName)
	b.add("reason", &b.reason)
	b.add("detail", &b.detail)
	b.add("outcome", &b.outcome)
	b.add("done", &b.done)
	b.add("failed", &b.failed)
	b.add("skipped", &b.skipped)
	b.add("body", &b.body)
	return b
}

func (b *commandEventBlock) append(e *storage.CommandEvent) {
	b.base.n++
	b.seq.Append(uint64(e.Seq))
	b.at.Append(clampTime(nanosOf(e.At)))
	b.command.Append(string(e.Command))
	b.n.Append(uint64(e.N))
	b.typ.Append(e.Type)
	b.kind.Append(string(e.Kind))
	b.agent.Append(e.Target.Agent)
	b.env.Append(e.Target.Channel.Env)
	b.system.Append(e.Target.Channel.System)
	b.broker.Append(e.Target.Channel.Broker)
	b.channel.Append(e.Target.Channel.Name)
	b.actorKind.Append(e.Actor.Kind)
	b.actorID.Append(e.Actor.ID)
	b.actorName.Append(e.Actor.Name)
	b.reason.Append(e.Reason)
	b.detail.Append(e.Detail)
	b.outcome.Append(e.Outcome)
	b.done.Append(e.Counts.Done)
	b.failed.Append(e.Counts.Failed)
	b.skipped.Append(e.Counts.Skipped)
	b.body.Append(e.Body)
}

// CopyCommandEvents stores events of the ledger, in order and of one month: all
// of them or none. Storing them again does no harm.
func (s *Store) CopyCommandEvents(ctx context.Context, events []storage.CommandEvent) error {
	if len(events) == 0 {
		return nil
	}
	blk := newCommandEventBlock()
	sum := sha256.New() // a ledger that was restored reuses numbers
	for i := range events {
		blk.append(&events[i])
		_, _ = io.WriteString(sum, string(events[i].Command)+events[i].Body)
	}
	token := fmt.Sprintf("ledger/%d-%d/%x", events[0].Seq, events[len(events)-1].Seq, sum.Sum(nil)[:8])
	ctx, cancel := context.WithTimeout(ctx, s.cfg.InsertTimeout)
	defer cancel()
	err := s.insert(ctx, s.writer("ledger"), "command_events", day(clampTime(nanosOf(events[0].At))), token, blk)
	return wrap("copy the ledger", err)
}

// CommandEventsCopied is the number of the newest event that is stored, 0 for
// none.
func (s *Store) CommandEventsCopied(ctx context.Context) (int64, error) {
	q := newSelection(s.sql("SELECT max(seq) AS seq\nFROM @db.command_events\nWHERE")).unlimited("a number, for the console itself")
	q.where("at >= fromUnixTimestamp64Nano({from:Int64}, 'UTC')")
	q.bind("from", nanosOf(time.Unix(0, 0)))
	list, err := collect[struct {
		Seq uint64 `ch:"seq"`
	}](ctx, s, nil, q)
	if err != nil || len(list) == 0 {
		return 0, wrap("how far the ledger is copied", err)
	}
	return int64(list[0].Seq), nil
}
