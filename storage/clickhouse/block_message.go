package clickhouse

import (
	"math"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// messageBlock is rows of the table messages.
type messageBlock struct {
	base
	ts, agentTS                          int64Col
	timeSource, op, outcome, bodyPolicy  int8Col
	uid, correlation, trace              proto.ColFixedStr16
	span                                 proto.ColFixedStr8
	env, system, broker, destination     lowCard
	service, group, partition            lowCard
	errorType, deadSource, deadReason    lowCard
	contentType, contentEncoding, tap    lowCard
	routingKey, messageID, correlationID proto.ColStr
	causationID, replyTo, sha256         proto.ColStr
	position, gap                        proto.ColInt64
	delivery                             proto.ColUInt16
	latency, bodySize                    proto.ColUInt64
	headers                              textMap
	truncated                            boolCol
	redacted                             array[*lowCard]
}

func newMessageBlock() *messageBlock {
	m := &messageBlock{redacted: array[*lowCard]{inner: new(lowCard)}}
	m.ts.typ, m.agentTS.typ = typeTime9, typeTime3
	m.timeSource.typ, m.op.typ, m.outcome.typ, m.bodyPolicy.typ = typeSource, typeOp, typeOutcome, typePolicy
	m.add("ts", &m.ts)
	m.add("agent_ts", &m.agentTS)
	m.add("time_source", &m.timeSource)
	m.add("uid", &m.uid)
	m.add("env", &m.env)
	m.add("system", &m.system)
	m.add("broker", &m.broker)
	m.add("destination", &m.destination)
	m.add("op", &m.op)
	m.add("outcome", &m.outcome)
	m.add("service", &m.service)
	m.add("consumer_group", &m.group)
	m.add("partition_id", &m.partition)
	m.add("routing_key", &m.routingKey)
	m.add("position", &m.position)
	m.add("delivery", &m.delivery)
	m.add("message_id", &m.messageID)
	m.add("correlation", &m.correlation)
	m.add("correlation_id", &m.correlationID)
	m.add("causation_id", &m.causationID)
	m.add("reply_to", &m.replyTo)
	m.add("trace_id", &m.trace)
	m.add("span_id", &m.span)
	m.add("latency_ns", &m.latency)
	m.add("error_type", &m.errorType)
	m.add("dead_letter_source", &m.deadSource)
	m.add("dead_letter_reason", &m.deadReason)
	m.add("content_type", &m.contentType)
	m.add("content_encoding", &m.contentEncoding)
	m.add("headers", &m.headers)
	m.add("body_size", &m.bodySize)
	m.add("body_policy", &m.bodyPolicy)
	m.add("body_truncated", &m.truncated)
	m.add("body_sha256", &m.sha256)
	m.add("tap", &m.tap)
	m.add("gap_before", &m.gap)
	m.add("redacted", &m.redacted)
	return m
}

func (m *messageBlock) append(ts int64, e *controlbus.MessageEvent, correlation controlbus.ID) {
	m.n++
	m.ts.Append(ts)
	m.agentTS.Append(millis(e.AgentTime))
	m.timeSource.Append(int8(e.TimeSource))
	m.uid.Append(e.UID)
	m.env.Append(e.Env)
	m.system.Append(e.System)
	m.broker.Append(e.Broker)
	m.destination.Append(e.Destination)
	m.op.Append(int8(e.Op))
	m.outcome.Append(int8(e.Outcome))
	m.service.Append(e.Service)
	m.group.Append(e.ConsumerGroup)
	m.partition.Append(e.Partition)
	m.routingKey.Append(e.RoutingKey)
	m.position.Append(e.Position)
	m.delivery.Append(uint16(min(max(e.Delivery, 0), math.MaxUint16)))
	m.messageID.Append(e.MessageID)
	m.correlation.Append(correlation)
	m.correlationID.Append(e.CorrelationID)
	m.causationID.Append(e.CausationID)
	m.replyTo.Append(e.ReplyTo)
	m.trace.Append(e.TraceID)
	m.span.Append(e.SpanID)
	m.latency.Append(uint64(max(e.LatencyNs, 0)))
	m.errorType.Append(e.ErrorType)
	m.deadSource.Append(e.DeadLetterSource)
	m.deadReason.Append(e.DeadLetterReason)
	m.contentType.Append(e.ContentType)
	m.contentEncoding.Append(e.ContentEncoding)
	for i := range e.Headers {
		m.headers.add(e.Headers[i].Key, e.Headers[i].Value)
	}
	m.headers.end()
	m.bodySize.Append(uint64(max(e.BodySize, 0)))
	m.bodyPolicy.Append(int8(e.BodyPolicy))
	m.truncated.Append(e.Truncated)
	m.sha256.Append(e.BodySHA256)
	m.tap.Append(e.Tap)
	m.gap.Append(e.GapBefore)
	for _, rule := range e.Redacted {
		m.redacted.inner.Append(rule)
	}
	m.redacted.end()
}

// bodyBlock is rows of the table bodies.
type bodyBlock struct {
	base
	ts                               int64Col
	uid                              proto.ColFixedStr16
	env, system, broker, destination lowCard
	body                             proto.ColStr
}

func newBodyBlock() *bodyBlock {
	b := new(bodyBlock)
	b.ts.typ = typeTime9
	b.add("ts", &b.ts)
	b.add("uid", &b.uid)
	b.add("env", &b.env)
	b.add("system", &b.system)
	b.add("broker", &b.broker)
	b.add("destination", &b.destination)
	b.add("body", &b.body)
	return b
}

func (b *bodyBlock) append(ts int64, e *controlbus.MessageEvent) {
	b.n++
	b.ts.Append(ts)
	b.uid.Append(e.UID)
	b.env.Append(e.Env)
	b.system.Append(e.System)
	b.broker.Append(e.Broker)
	b.destination.Append(e.Destination)
	b.body.AppendBytes(e.Body)
}

// spanIDBlock is rows of the table id_span: one per id of the block, however
// many rows name it.
type idSpanBlock struct {
	base
	id          proto.ColFixedStr16
	day         uint16Col
	first, last int64Col
	hits        proto.ColUInt64
	index       map[[16]byte]int32
}

func newIDSpanBlock() *idSpanBlock {
	b := &idSpanBlock{index: make(map[[16]byte]int32)}
	b.day.typ, b.first.typ, b.last.typ = "Date", typeTime3, typeTime3
	b.add("id", &b.id)
	b.add("day", &b.day)
	b.add("first", &b.first)
	b.add("last", &b.last)
	b.add("hits", &b.hits)
	return b
}

func (b *idSpanBlock) append(id [16]byte, day uint16, ms int64) {
	if i, ok := b.index[id]; ok {
		b.first.ColInt64[i] = min(b.first.ColInt64[i], ms)
		b.last.ColInt64[i] = max(b.last.ColInt64[i], ms)
		b.hits[i]++
		return
	}
	b.index[id] = int32(b.n)
	b.n++
	b.id.Append(id)
	b.day.Append(day)
	b.first.Append(ms)
	b.last.Append(ms)
	b.hits.Append(1)
}

func (b *idSpanBlock) reset() {
	b.base.reset()
	clear(b.index)
}
