package export

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"strings"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// encoder writes message events as one ExportLogsServiceRequest, straight into
// a buffer that is used again for the next batch: at 20,000 messages a second
// a tree of objects per batch would be most of the agent's garbage. Nested
// lengths are reserved as four-byte varints and filled in afterwards, which
// every protobuf reader accepts.
type encoder struct {
	buf      []byte
	resource []byte // encoded Resource, the same for all batches
	scope    []byte
	rl, sl   int // where the open ResourceLogs and ScopeLogs began
	records  int
}

// lengthSize is what a reserved length takes; it holds up to 256 MiB.
const lengthSize = 4

func newEncoder(resource [][2]string, version string) *encoder {
	e := &encoder{}
	for _, kv := range resource {
		e.attr(1, kv[0], kv[1])
	}
	e.resource = e.buf
	e.buf = nil
	e.str(1, "signalbox-agent")
	e.str(2, version)
	e.scope = e.buf
	e.buf = nil
	e.reset()
	return e
}

func (e *encoder) reset() {
	e.buf, e.records = e.buf[:0], 0
	e.rl = e.open(1)
	e.bytes(1, e.resource)
	e.sl = e.open(2)
	e.bytes(1, e.scope)
}

// finish closes the request. The result is valid until reset.
func (e *encoder) finish() []byte {
	e.close(e.sl)
	e.close(e.rl)
	return e.buf
}

func (e *encoder) size() int { return len(e.buf) }

// Wire types.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
)

func (e *encoder) tag(field, wire int) { e.varint(uint64(field<<3 | wire)) }

func (e *encoder) varint(v uint64) { e.buf = binary.AppendUvarint(e.buf, v) }

func (e *encoder) str(field int, s string) {
	e.tag(field, wireBytes)
	e.varint(uint64(len(s)))
	e.buf = append(e.buf, s...)
}

func (e *encoder) bytes(field int, b []byte) {
	e.tag(field, wireBytes)
	e.varint(uint64(len(b)))
	e.buf = append(e.buf, b...)
}

func (e *encoder) fixed64(field int, v uint64) {
	e.tag(field, wireFixed64)
	e.buf = binary.LittleEndian.AppendUint64(e.buf, v)
}

// open begins a nested message and returns where its length goes.
func (e *encoder) open(field int) int {
	e.tag(field, wireBytes)
	e.buf = append(e.buf, 0, 0, 0, 0)
	return len(e.buf)
}

func (e *encoder) close(start int) {
	n := len(e.buf) - start
	at := e.buf[start-lengthSize : start]
	for i := range at {
		at[i] = byte(n>>(7*i)) | 0x80
	}
	at[lengthSize-1] &= 0x7f
}

func uvarintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

// lenStr is what a string field with a one-byte tag takes.
func lenStr(n int) int { return 1 + uvarintLen(uint64(n)) + n }

// attr writes a KeyValue with a string value. Protobuf strings are UTF-8, so
// what is not travels as bytes.
func (e *encoder) attr(field int, key, value string) {
	valueField := 1
	if !utf8.ValidString(value) {
		valueField = 7
	}
	if !utf8.ValidString(key) {
		key = strings.ToValidUTF8(key, "\uFFFD")
	}
	any := lenStr(len(value))
	e.tag(field, wireBytes)
	e.varint(uint64(lenStr(len(key)) + lenStr(any)))
	e.str(1, key)
	e.tag(2, wireBytes)
	e.varint(uint64(any))
	e.str(valueField, value)
}

func (e *encoder) optional(key, value string) {
	if value != "" {
		e.attr(fieldAttributes, key, value)
	}
}

func (e *encoder) int(key string, v int64) {
	any := 1 + uvarintLen(uint64(v))
	e.tag(fieldAttributes, wireBytes)
	e.varint(uint64(lenStr(len(key)) + lenStr(any)))
	e.str(1, key)
	e.tag(2, wireBytes)
	e.varint(uint64(any))
	e.tag(3, wireVarint)
	e.varint(uint64(v))
}

func (e *encoder) bool(key string) {
	e.tag(fieldAttributes, wireBytes)
	e.varint(uint64(lenStr(len(key)) + lenStr(2)))
	e.str(1, key)
	e.tag(2, wireBytes)
	e.varint(2)
	e.tag(2, wireVarint)
	e.varint(1)
}

const fieldAttributes = 6 // of LogRecord

// add appends one event as a LogRecord; it keeps nothing of it.
func (e *encoder) add(ev *controlbus.MessageEvent) {
	rec := e.open(2)
	if ev.Time != 0 {
		e.fixed64(1, uint64(ev.Time))
	}
	if ev.AgentTime != 0 {
		e.fixed64(11, uint64(ev.AgentTime))
	}
	e.str(12, controlbus.EventMessage)
	if ev.BodyPolicy == controlbus.BodyFull {
		body := e.open(5)
		e.bytes(7, ev.Body)
		e.close(body)
	}
	if ev.TraceID != ([16]byte{}) {
		e.bytes(9, ev.TraceID[:])
	}
	if ev.SpanID != ([8]byte{}) {
		e.bytes(10, ev.SpanID[:])
	}
	var uid [32]byte
	hex.Encode(uid[:], ev.UID[:])
	e.attr(fieldAttributes, controlbus.AttrUID, string(uid[:]))
	e.optional(controlbus.AttrSystem, ev.System)
	e.optional(controlbus.AttrBroker, ev.Broker)
	e.optional(controlbus.AttrDestination, ev.Destination)
	e.attr(fieldAttributes, controlbus.AttrOperationType, ev.Op.String())
	if ev.Outcome != controlbus.OutcomeOK {
		e.attr(fieldAttributes, controlbus.AttrOutcome, ev.Outcome.String())
	}
	if ev.TimeSource != controlbus.TimeUnknown {
		e.attr(fieldAttributes, controlbus.AttrTimeSource, ev.TimeSource.String())
	}
	e.optional(controlbus.AttrPublisher, ev.Service)
	e.optional(controlbus.AttrConsumerGroup, ev.ConsumerGroup)
	e.optional(controlbus.AttrPartition, ev.Partition)
	e.optional(controlbus.AttrRoutingKey, ev.RoutingKey)
	if ev.Position >= 0 {
		e.int(controlbus.AttrPosition, ev.Position)
	}
	if ev.Delivery != 0 {
		e.int(controlbus.AttrDelivery, int64(ev.Delivery))
	}
	e.optional(controlbus.AttrMessageID, ev.MessageID)
	e.optional(controlbus.AttrConversationID, ev.CorrelationID)
	e.optional(controlbus.AttrCausationID, ev.CausationID)
	e.optional(controlbus.AttrReplyTo, ev.ReplyTo)
	if ev.LatencyNs != 0 {
		e.int(controlbus.AttrLatency, ev.LatencyNs)
	}
	e.optional(controlbus.AttrErrorType, ev.ErrorType)
	e.optional(controlbus.AttrDeadLetterSource, ev.DeadLetterSource)
	e.optional(controlbus.AttrDeadLetterReason, ev.DeadLetterReason)
	e.optional(controlbus.AttrContentType, ev.ContentType)
	e.optional(controlbus.AttrContentEncoding, ev.ContentEncoding)
	e.int(controlbus.AttrBodySize, ev.BodySize)
	if ev.BodyPolicy != controlbus.BodyFull {
		e.attr(fieldAttributes, controlbus.AttrBodyPolicy, ev.BodyPolicy.String())
	}
	if ev.Truncated {
		e.bool(controlbus.AttrBodyTruncated)
	}
	e.optional(controlbus.AttrBodySHA256, ev.BodySHA256)
	e.optional(controlbus.AttrTap, ev.Tap)
	if ev.GapBefore != 0 {
		e.int(controlbus.AttrGapBefore, ev.GapBefore)
	}
	if len(ev.Headers) > 0 {
		kv := e.open(fieldAttributes)
		e.str(1, controlbus.AttrHeaders)
		any := e.open(2)
		list := e.open(6)
		for _, h := range ev.Headers {
			e.attr(1, h.Key, h.Value)
		}
		e.close(list)
		e.close(any)
		e.close(kv)
	}
	if len(ev.Redacted) > 0 {
		kv := e.open(fieldAttributes)
		e.str(1, controlbus.AttrRedacted)
		any := e.open(2)
		array := e.open(5)
		for _, name := range ev.Redacted {
			e.tag(1, wireBytes)
			e.varint(uint64(lenStr(len(name))))
			e.str(1, name)
		}
		e.close(array)
		e.close(any)
		e.close(kv)
	}
	e.close(rec)
	e.records++
}
