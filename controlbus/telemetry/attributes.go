package telemetry

import (
	"encoding/hex"
	"strconv"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// attributes says which kinds of operation names a record carried: the type
// beats the old name, and that beats the free operation name.
type attributes struct {
	opType, opOld, opName bool
	publisher             bool
	bodySize              bool
}

// older keeps an old name from beating a new one.
func older(field *string, text string) {
	if *field == "" {
		*field = text
	}
}

// lift puts a messaging attribute into its field and says whether the key is
// one of ours. Names after the first in a case are older ones.
func (d *Decoder) lift(ev *controlbus.MessageEvent, a *attributes, key string, v *value) bool {
	name, long := d.limits.Name, d.limits.Text
	switch key {
	case controlbus.AttrSystem:
		ev.System = d.text(v, name)
	case controlbus.AttrBroker:
		ev.Broker = d.text(v, name)
	case controlbus.AttrEnvironment:
		ev.Env = d.text(v, name)
	case "deployment.environment":
		older(&ev.Env, d.text(v, name))
	case controlbus.AttrDestination:
		ev.Destination = d.text(v, name)
	case "messaging.destination", "messaging.url_destination":
		older(&ev.Destination, d.text(v, name))
	case controlbus.AttrOperationType:
		a.opType, ev.Op = true, controlbus.ParseOp(d.text(v, name))
	case "messaging.operation":
		if !a.opType {
			a.opOld, ev.Op = true, controlbus.ParseOp(d.text(v, name))
		}
	case controlbus.AttrOperationName:
		if !a.opType && !a.opOld {
			a.opName, ev.Op = true, operationByName(d.text(v, name))
		}
	case controlbus.AttrPartition:
		ev.Partition = d.text(v, name)
	case "messaging.kafka.destination.partition", "messaging.kafka.partition", "messaging.kafka.source.partition":
		older(&ev.Partition, d.text(v, name))
	case controlbus.AttrConsumerGroup:
		ev.ConsumerGroup = d.text(v, name)
	case "messaging.kafka.consumer.group", "messaging.kafka.consumer_group", "messaging.eventhubs.consumer.group",
		"messaging.rocketmq.client_group", "messaging.consumer_id", "messaging.destination.subscription.name",
		"messaging.servicebus.destination.subscription_name":
		older(&ev.ConsumerGroup, d.text(v, name))
	case controlbus.AttrMessageID:
		ev.MessageID = d.text(v, long)
	case "messaging.message_id":
		older(&ev.MessageID, d.text(v, long))
	case controlbus.AttrConversationID:
		ev.CorrelationID = d.text(v, long)
	case "messaging.conversation_id":
		older(&ev.CorrelationID, d.text(v, long))
	case controlbus.AttrBodySize:
		if n, ok := v.int(); ok {
			a.bodySize, ev.BodySize = true, max(0, n)
		}
	case "messaging.message.payload_size_bytes", "messaging.message_payload_size_bytes":
		if n, ok := v.int(); ok && !a.bodySize {
			a.bodySize, ev.BodySize = true, max(0, n)
		}
	case controlbus.AttrRoutingKey:
		ev.RoutingKey = d.text(v, name)
	case controlbus.AttrRabbitMQRouting, "messaging.rabbitmq.routing_key", "messaging.kafka.message.key", "messaging.kafka.message_key":
		older(&ev.RoutingKey, d.text(v, name))
	case controlbus.AttrPosition:
		if n, ok := v.int(); ok {
			ev.Position = n
		}
	case "messaging.kafka.offset", "messaging.kafka.message.offset":
		if n, ok := v.int(); ok && ev.Position < 0 {
			ev.Position = n
		}
	case controlbus.AttrDelivery:
		if n, ok := v.int(); ok {
			ev.Delivery = clampInt(n)
		}
	case "messaging.gcp_pubsub.message.delivery_attempt", "messaging.servicebus.message.delivery_count":
		if n, ok := v.int(); ok && ev.Delivery == 0 {
			ev.Delivery = clampInt(n)
		}
	case controlbus.AttrErrorType:
		ev.ErrorType = d.text(v, name)
	case "messaging.servicebus.disposition_status":
		if d.text(v, name) == "dead_letter" && ev.Outcome == controlbus.OutcomeOK {
			ev.Outcome = controlbus.OutcomeDeadLettered
		}
	case controlbus.AttrUID:
		if v.kind == kindText && len(v.b) == 32 {
			var uid controlbus.ID
			if _, err := hex.Decode(uid[:], v.b); err == nil {
				ev.UID = uid
			}
		}
	case controlbus.AttrTimeSource:
		ev.TimeSource = controlbus.ParseTimeSource(d.text(v, name))
	case controlbus.AttrOutcome:
		ev.Outcome = controlbus.ParseOutcome(d.text(v, name))
	case controlbus.AttrPublisher:
		a.publisher, ev.Service = true, d.text(v, name)
	case controlbus.AttrCausationID:
		ev.CausationID = d.text(v, long)
	case controlbus.AttrReplyTo:
		ev.ReplyTo = d.text(v, name)
	case controlbus.AttrLatency:
		if n, ok := v.int(); ok {
			ev.LatencyNs = max(0, n)
		}
	case controlbus.AttrDeadLetterSource:
		ev.DeadLetterSource = d.text(v, name)
	case controlbus.AttrDeadLetterReason:
		ev.DeadLetterReason = d.text(v, name)
	case controlbus.AttrContentType:
		ev.ContentType = d.text(v, name)
	case controlbus.AttrContentEncoding:
		ev.ContentEncoding = d.text(v, name)
	case controlbus.AttrHeaders:
		d.headers(ev, v)
	case controlbus.AttrBodyPolicy:
		ev.BodyPolicy, _ = controlbus.ParseBodyPolicy(d.text(v, name))
	case controlbus.AttrBodyTruncated:
		ev.Truncated = ev.Truncated || v.kind == kindBool && v.n != 0
	case controlbus.AttrBodySHA256:
		ev.BodySHA256 = d.text(v, 64)
	case controlbus.AttrTap:
		ev.Tap = d.text(v, name)
	case controlbus.AttrGapBefore:
		if n, ok := v.int(); ok {
			ev.GapBefore = max(0, n)
		}
	case controlbus.AttrRedacted:
		if v.kind == kindArray {
			it := list{w: wire{b: v.b}, kind: kindArray, depth: checked}
			for kv := (keyValue{}); len(ev.Redacted) < 100 && d.nextIn(&it, &kv); {
				ev.Redacted = append(ev.Redacted, d.text(&kv.value, name))
			}
		}
	case "event.name":
	default:
		return false
	}
	return true
}

func clampInt(n int64) int { return int(min(max(n, 0), 1<<31-1)) }

// operationByName reads what clients call their operations, where the type is
// not told.
func operationByName(s string) controlbus.Op {
	switch s {
	case "ack", "nack", "reject", "complete", "abandon", "commit", "delete":
		return controlbus.OpSettle
	case "poll", "consume", "get", "subscribe":
		return controlbus.OpReceive
	case "produce", "enqueue":
		return controlbus.OpSend
	}
	return controlbus.ParseOp(s)
}

func (d *Decoder) headers(ev *controlbus.MessageEvent, v *value) {
	if v.kind != kindMap {
		return
	}
	it := list{w: wire{b: v.b}, kind: kindMap, depth: checked}
	for kv := (keyValue{}); d.nextIn(&it, &kv); {
		d.header(ev, kv.key, &kv.value)
	}
}

// header keeps one header, or counts it once the limit is reached.
func (d *Decoder) header(ev *controlbus.MessageEvent, key string, v *value) {
	if len(ev.Headers) >= d.limits.Headers {
		d.headersCut++
		return
	}
	ev.Headers = append(ev.Headers, controlbus.Header{
		Key: d.clean(raw(key), d.limits.Name), Value: d.text(v, d.limits.Text),
	})
}

// HeadersCut is the name of a header that stands for those over the limit; its
// value is their number.
const HeadersCut = "signalbox.headers.cut"

// UID is the identity of an event that came without one: of its place on the
// channel, else of its message id, else of what little is known. The same
// observation sent twice has the same identity.
func UID(ev *controlbus.MessageEvent) controlbus.ID {
	op, delivery := ev.Op.String(), strconv.Itoa(ev.Delivery)
	switch {
	case ev.Position >= 0:
		return controlbus.HashID("position", ev.Env, ev.System, ev.Broker, ev.Destination, ev.Partition,
			strconv.FormatInt(ev.Position, 10), op, delivery, ev.ConsumerGroup)
	case ev.MessageID != "":
		return controlbus.HashID("message", ev.Env, ev.System, ev.Broker, ev.Destination, ev.MessageID, op, delivery, ev.ConsumerGroup, ev.Service)
	}
	return controlbus.HashID("event", ev.Env, ev.System, ev.Broker, ev.Destination, op, string(ev.TraceID[:]), string(ev.SpanID[:]),
		strconv.FormatInt(ev.Time, 10), string(ev.Body), ev.BodySHA256)
}
