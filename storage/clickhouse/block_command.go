package clickhouse

import (
	"encoding/hex"
	"strconv"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// outcomeBlock is rows of the table outcomes.
type outcomeBlock struct {
	base
	ts                                                       int64Col
	command, uid                                             proto.ColFixedStr16
	number                                                   proto.ColInt64
	kind, outcome, env, broker, channel, destination, source lowCard
	detail, messageID, correlationID                         proto.ColStr
}

func newOutcomeBlock() *outcomeBlock {
	b := new(outcomeBlock)
	b.ts.typ = typeTime9
	b.add("ts", &b.ts)
	b.add("command", &b.command)
	b.add("number", &b.number)
	b.add("kind", &b.kind)
	b.add("outcome", &b.outcome)
	b.add("detail", &b.detail)
	b.add("env", &b.env)
	b.add("broker", &b.broker)
	b.add("channel", &b.channel)
	b.add("destination", &b.destination)
	b.add("source", &b.source)
	b.add("message_id", &b.messageID)
	b.add("correlation_id", &b.correlationID)
	b.add("uid", &b.uid)
	return b
}

func (b *outcomeBlock) append(ts int64, o *storage.Outcome, command [16]byte) {
	b.n++
	b.ts.Append(ts)
	b.command.Append(command)
	b.number.Append(o.Number)
	b.kind.Append(string(o.Kind))
	b.outcome.Append(o.Outcome)
	b.detail.Append(o.Detail)
	b.env.Append(o.Env)
	b.broker.Append(o.Broker)
	// The channel by which it is decided who may see it.
	channel := o.Destination
	if channel == "" {
		channel = o.Source
	}
	b.channel.Append(channel)
	b.destination.Append(o.Destination)
	b.source.Append(o.Source)
	b.messageID.Append(o.MessageID)
	b.correlationID.Append(o.CorrelationID)
	b.uid.Append(o.UID)
}

// outcomeOf reads a log record that says what a command did with a message. One
// that names no command stays a log record.
func outcomeOf(l *storage.Log) (o storage.Outcome, command [16]byte, ok bool) {
	if l.EventName != controlbus.EventCommandMessage {
		return o, command, false
	}
	o.Env, o.Destination, o.CorrelationID = l.Env, l.Destination, l.CorrelationID
	for i := range l.Attrs {
		switch v := l.Attrs[i].Value; l.Attrs[i].Key {
		case controlbus.AttrCommand:
			o.Command = controlbus.CommandID(v)
		case controlbus.AttrCommandKind:
			o.Kind = controlbus.CommandKind(v)
		case controlbus.AttrCommandOutcome:
			o.Outcome = v
		case controlbus.AttrCommandNumber:
			o.Number, _ = strconv.ParseInt(v, 10, 64)
		case controlbus.AttrCommandSource:
			o.Source = v
		case controlbus.AttrCommandDetail:
			o.Detail = v
		case controlbus.AttrBroker:
			o.Broker = v
		case controlbus.AttrDestination:
			o.Destination = v
		case controlbus.AttrMessageID:
			o.MessageID = v
		case controlbus.AttrConversationID:
			o.CorrelationID = v
		case controlbus.AttrUID:
			o.UID, _ = controlbus.ParseID(v)
		}
	}
	b, err := hex.DecodeString(string(o.Command))
	if !o.Command.Valid() || err != nil || o.Outcome == "" {
		return o, command, false
	}
	return o, [16]byte(b), true
}
