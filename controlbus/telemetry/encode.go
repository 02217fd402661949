package telemetry

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// AgentService is the service.name of what an agent sends.
const AgentService = "signalbox-agent"

const scopeName = "github.com/signalbox-dev/signalbox"

// Origin says who sends: it becomes the resource of every batch.
type Origin struct {
	AgentID string // service.instance.id
	Version string
	Host    string
	Env     string // of events that name none themselves
}

// Encoder collects message events and turns them into one OTLP logs request.
// It is used by one goroutine at a time; its buffers are reused.
type Encoder struct {
	origin Origin
	groups []group
	record []byte
	count  int
	size   int
}

// group is what shares a resource.
type group struct {
	env, system, broker string
	records             []byte // framed log records
}

// NewEncoder returns an empty encoder.
func NewEncoder(o Origin) *Encoder { return &Encoder{origin: o} }

// Append adds one event; nothing of it is kept.
func (e *Encoder) Append(ev *controlbus.MessageEvent) {
	e.record = appendRecord(e.record[:0], ev)
	g := e.group(ev)
	before := len(g.records)
	g.records = appendBytes(g.records, 2, e.record)
	e.size += len(g.records) - before
	e.count++
}

func (e *Encoder) group(ev *controlbus.MessageEvent) *group {
	env := ev.Env
	if env == "" {
		env = e.origin.Env
	}
	for i := range e.groups {
		g := &e.groups[i]
		if g.env == env && g.system == ev.System && g.broker == ev.Broker {
			return g
		}
	}
	e.groups = append(e.groups, group{env: env, system: ev.System, broker: ev.Broker})
	return &e.groups[len(e.groups)-1]
}

// Count is the number of events appended since the last Request.
func (e *Encoder) Count() int { return e.count }

// Size is about how many bytes Request would return.
func (e *Encoder) Size() int { return e.size + 256*len(e.groups) }

// Request appends the ExportLogsServiceRequest of what was appended to dst and
// empties the encoder.
func (e *Encoder) Request(dst []byte) []byte {
	var resource, scope []byte
	for i := range e.groups {
		g := &e.groups[i]
		if len(g.records) == 0 {
			continue
		}
		resource = e.appendResource(resource[:0], g)
		scope = appendBytes(scope[:0], 1, scopeName)
		if e.origin.Version != "" {
			scope = appendBytes(scope, 2, e.origin.Version)
		}
		scopeLogs := sizeBytes(len(scope)) + len(g.records)
		dst = appendTag(dst, 1, typeLen)
		dst = binary.AppendUvarint(dst, uint64(sizeBytes(len(resource))+sizeBytes(scopeLogs)))
		dst = appendBytes(dst, 1, resource)
		dst = appendTag(dst, 2, typeLen)
		dst = binary.AppendUvarint(dst, uint64(scopeLogs))
		dst = appendBytes(dst, 1, scope)
		dst = append(dst, g.records...)
		g.records = g.records[:0]
	}
	if len(e.groups) > 64 {
		e.groups = nil // many brokers passed; do not hold buffers for all of them
	}
	e.count, e.size = 0, 0
	return dst
}

func (e *Encoder) appendResource(dst []byte, g *group) []byte {
	dst = appendText(dst, 1, controlbus.AttrServiceName, AgentService)
	dst = appendText(dst, 1, controlbus.AttrServiceInstance, e.origin.AgentID)
	dst = appendText(dst, 1, controlbus.AttrServiceVersion, e.origin.Version)
	dst = appendText(dst, 1, controlbus.AttrHostName, e.origin.Host)
	dst = appendText(dst, 1, controlbus.AttrEnvironment, g.env)
	dst = appendText(dst, 1, controlbus.AttrSystem, g.system)
	return appendText(dst, 1, controlbus.AttrBroker, g.broker)
}

// Field numbers of a LogRecord.
const (
	fieldTime      = 1
	fieldSeverity  = 2
	fieldSevText   = 3
	fieldBody      = 5
	fieldAttribute = 6
	fieldDropped   = 7
	fieldFlags     = 8
	fieldTraceID   = 9
	fieldSpanID    = 10
	fieldObserved  = 11
	fieldEventName = 12
)

// appendRecord writes ev as a LogRecord. Broker, system and environment are
// the resource's.
func appendRecord(dst []byte, ev *controlbus.MessageEvent) []byte {
	dst = appendFixed64(dst, fieldTime, uint64(ev.Time))
	if len(ev.Body) > 0 {
		dst = appendTag(dst, fieldBody, typeLen)
		dst = binary.AppendUvarint(dst, uint64(sizeBytes(len(ev.Body))))
		dst = appendBytes(dst, 7, ev.Body)
	}
	const f = fieldAttribute
	if !ev.UID.IsZero() {
		var uid [32]byte
		hex.Encode(uid[:], ev.UID[:])
		dst = appendText(dst, f, controlbus.AttrUID, string(uid[:]))
	}
	dst = appendText(dst, f, controlbus.AttrDestination, ev.Destination)
	dst = appendText(dst, f, controlbus.AttrOperationName, ev.Op.String())
	dst = appendText(dst, f, controlbus.AttrOperationType, ev.Op.String())
	if ev.Outcome != controlbus.OutcomeOK {
		dst = appendText(dst, f, controlbus.AttrOutcome, ev.Outcome.String())
	}
	if ev.TimeSource != controlbus.TimeUnknown {
		dst = appendText(dst, f, controlbus.AttrTimeSource, ev.TimeSource.String())
	}
	dst = appendText(dst, f, controlbus.AttrPublisher, ev.Service)
	dst = appendText(dst, f, controlbus.AttrConsumerGroup, ev.ConsumerGroup)
	dst = appendText(dst, f, controlbus.AttrPartition, ev.Partition)
	dst = appendText(dst, f, controlbus.AttrRoutingKey, ev.RoutingKey)
	if ev.Position >= 0 {
		dst = appendInt(dst, f, controlbus.AttrPosition, ev.Position)
	}
	if ev.Delivery > 0 {
		dst = appendInt(dst, f, controlbus.AttrDelivery, int64(ev.Delivery))
	}
	dst = appendText(dst, f, controlbus.AttrMessageID, ev.MessageID)
	dst = appendText(dst, f, controlbus.AttrConversationID, ev.CorrelationID)
	dst = appendText(dst, f, controlbus.AttrCausationID, ev.CausationID)
	dst = appendText(dst, f, controlbus.AttrReplyTo, ev.ReplyTo)
	if ev.LatencyNs > 0 {
		dst = appendInt(dst, f, controlbus.AttrLatency, ev.LatencyNs)
	}
	dst = appendText(dst, f, controlbus.AttrErrorType, ev.ErrorType)
	dst = appendText(dst, f, controlbus.AttrDeadLetterSource, ev.DeadLetterSource)
	dst = appendText(dst, f, controlbus.AttrDeadLetterReason, ev.DeadLetterReason)
	dst = appendText(dst, f, controlbus.AttrContentType, ev.ContentType)
	dst = appendText(dst, f, controlbus.AttrContentEncoding, ev.ContentEncoding)
	dst = appendHeaders(dst, ev.Headers)
	dst = appendInt(dst, f, controlbus.AttrBodySize, max(ev.BodySize, int64(len(ev.Body))))
	if ev.BodyPolicy != controlbus.BodyFull {
		dst = appendText(dst, f, controlbus.AttrBodyPolicy, ev.BodyPolicy.String())
	}
	if ev.Truncated {
		dst = appendAttr(dst, f, controlbus.AttrBodyTruncated, []byte{2 << 3, 1})
	}
	dst = appendText(dst, f, controlbus.AttrBodySHA256, ev.BodySHA256)
	dst = appendText(dst, f, controlbus.AttrTap, ev.Tap)
	if ev.GapBefore != 0 {
		dst = appendInt(dst, f, controlbus.AttrGapBefore, ev.GapBefore)
	}
	if len(ev.Redacted) > 0 {
		var list []byte
		for _, rule := range ev.Redacted {
			list = appendBytes(list, 1, appendBytes(nil, 1, rule))
		}
		dst = appendAttr(dst, f, controlbus.AttrRedacted, appendBytes(nil, 5, list))
	}
	if ev.TraceID != [16]byte{} {
		dst = appendBytes(dst, fieldTraceID, ev.TraceID[:])
	}
	if ev.SpanID != [8]byte{} {
		dst = appendBytes(dst, fieldSpanID, ev.SpanID[:])
	}
	dst = appendFixed64(dst, fieldObserved, uint64(ev.AgentTime))
	return appendBytes(dst, fieldEventName, controlbus.EventMessage)
}

// appendHeaders writes the headers as one kvlist, in their order.
func appendHeaders(dst []byte, headers []controlbus.Header) []byte {
	if len(headers) == 0 {
		return dst
	}
	list := 0
	for i := range headers {
		list += sizeBytes(sizeTextPair(headers[i].Key, headers[i].Value))
	}
	dst = appendTag(dst, fieldAttribute, typeLen)
	dst = binary.AppendUvarint(dst, uint64(sizeBytes(len(controlbus.AttrHeaders))+sizeBytes(sizeBytes(list))))
	dst = appendBytes(dst, 1, controlbus.AttrHeaders)
	dst = appendTag(dst, 2, typeLen)
	dst = binary.AppendUvarint(dst, uint64(sizeBytes(list)))
	dst = appendTag(dst, 6, typeLen)
	dst = binary.AppendUvarint(dst, uint64(list))
	for i := range headers {
		dst = appendTextPair(dst, 1, headers[i].Key, headers[i].Value)
	}
	return dst
}

// sizeTextPair is the size of a KeyValue with a text.
func sizeTextPair(key, text string) int {
	return sizeBytes(len(key)) + sizeBytes(sizeBytes(len(text)))
}

func appendTextPair(dst []byte, field int, key, text string) []byte {
	dst = appendTag(dst, field, typeLen)
	dst = binary.AppendUvarint(dst, uint64(sizeTextPair(key, text)))
	dst = appendBytes(dst, 1, key)
	dst = appendTag(dst, 2, typeLen)
	dst = binary.AppendUvarint(dst, uint64(sizeBytes(len(text))))
	return appendBytes(dst, 1, text)
}

// appendText writes an attribute, or nothing where the text is empty.
func appendText(dst []byte, field int, key, text string) []byte {
	if text == "" {
		return dst
	}
	return appendTextPair(dst, field, key, text)
}

func appendInt(dst []byte, field int, key string, n int64) []byte {
	var v [11]byte
	return appendAttr(dst, field, key, binary.AppendUvarint(append(v[:0], 3<<3), uint64(n)))
}

// appendAttr writes a KeyValue whose AnyValue is encoded already.
func appendAttr(dst []byte, field int, key string, anyValue []byte) []byte {
	dst = appendTag(dst, field, typeLen)
	dst = binary.AppendUvarint(dst, uint64(sizeBytes(len(key))+sizeBytes(len(anyValue))))
	dst = appendBytes(dst, 1, key)
	return appendBytes(dst, 2, anyValue)
}
