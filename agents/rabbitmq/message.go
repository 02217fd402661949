package rabbitmq

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Headers that the broker adds to a delivery: they tell of the queue it lay in
// and are no part of the message.
const (
	headerDeliveryCount = "x-delivery-count"
	headerAcquiredCount = "x-acquired-count"
)

// Keys of the map by which an AMQP decimal travels in a Message.
const (
	decimalScale = "amqp:decimal-scale"
	decimalValue = "amqp:decimal-value"
)

// message turns a delivery into a Message, whose body it takes over. The order
// of headers on the wire is not known: the client library reads them into a map.
func message(d *amqp.Delivery) *agents.Message {
	m := &agents.Message{
		Time: d.Timestamp, MessageID: d.MessageId, CorrelationID: d.CorrelationId, ReplyTo: d.ReplyTo,
		Type: d.Type, AppID: d.AppId, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		Key: d.RoutingKey, Body: d.Body, Priority: int(d.Priority),
		Persistent: d.DeliveryMode == amqp.Persistent,
	}
	if ms, err := strconv.ParseInt(d.Expiration, 10, 64); err == nil && ms >= 0 && ms < math.MaxInt64/int64(time.Millisecond) {
		m.TTL = max(time.Duration(ms)*time.Millisecond, time.Millisecond)
	}
	if d.Redelivered {
		m.Deliveries = -1
	}
	if n, ok := d.Headers[headerDeliveryCount]; ok {
		m.Deliveries = int(integer(n))
	}
	for _, k := range slices.Sorted(maps.Keys(d.Headers)) {
		switch k {
		case headerDeliveryCount, headerAcquiredCount, headerOffset:
		default:
			m.Headers = append(m.Headers, agents.Field{Key: k, Value: loosen(d.Headers[k])})
		}
	}
	return m
}

// loosen gives a field of AMQP the kinds that a Message has.
func loosen(v any) any {
	switch v := v.(type) {
	case amqp.Decimal:
		return map[string]any{decimalScale: v.Scale, decimalValue: v.Value}
	case amqp.Table:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = loosen(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = loosen(e)
		}
		return out
	default:
		return v
	}
}

// tighten is loosen's inverse. AMQP as RabbitMQ speaks it has no unsigned 64-bit
// integers, and its times are whole seconds.
func tighten(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, int8, int16, int32, int64, uint8, uint16, uint32, float32, float64, string, []byte:
		return v, nil
	case int:
		return int64(v), nil
	case uint64:
		if v > math.MaxInt64 {
			return nil, fmt.Errorf("%w: the number %d is more than AMQP can carry", controlbus.ErrInvalid, v)
		}
		return int64(v), nil
	case time.Time:
		return time.Unix(v.Unix(), 0), nil
	case map[string]any:
		if d, ok := asDecimal(v); ok {
			return d, nil
		}
		out := make(amqp.Table, len(v))
		for k, e := range v {
			if len(k) > maxShort {
				return nil, fmt.Errorf("%w: a field name of %d bytes, AMQP has room for %d", controlbus.ErrInvalid, len(k), maxShort)
			}
			t, err := tighten(e)
			if err != nil {
				return nil, err
			}
			out[k] = t
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			t, err := tighten(e)
			if err != nil {
				return nil, err
			}
			out[i] = t
		}
		return out, nil
	default:
		return nil, fmt.Errorf("%w: AMQP has no field of kind %T", controlbus.ErrInvalid, v)
	}
}

func asDecimal(m map[string]any) (amqp.Decimal, bool) {
	scale, ok1 := m[decimalScale].(uint8)
	value, ok2 := m[decimalValue].(int32)
	return amqp.Decimal{Scale: scale, Value: value}, ok1 && ok2 && len(m) == 2
}

// Sizes of AMQP.
const (
	maxShort     = 255      // of short strings: most properties and every field name
	propertyRoom = 14 + 256 // the frame around the properties, and what of them is of fixed size
)

// publishing turns a Message into what goes out. Errors are ErrInvalid: what
// would break the connection for the messages after it is refused here.
//
// CC and BCC are left out: they are instructions to route copies elsewhere. So
// is user-id, which the broker accepts from its own user alone. Header names
// that repeat, which AMQP does not have, become one with a list.
func publishing(m *agents.Message, maxBody, frame int) (amqp.Publishing, error) {
	wrong := func(format string, args ...any) (amqp.Publishing, error) {
		return amqp.Publishing{}, fmt.Errorf("%w: %s", controlbus.ErrInvalid, fmt.Sprintf(format, args...))
	}
	if len(m.Body) > maxBody {
		return wrong("a body of %d bytes, the broker takes %d", len(m.Body), maxBody)
	}
	if m.Priority < 0 || m.Priority > 255 {
		return wrong("priority %d, AMQP has 0 to 255", m.Priority)
	}
	p := amqp.Publishing{
		Timestamp: m.Time, MessageId: m.MessageID, CorrelationId: m.CorrelationID, ReplyTo: m.ReplyTo,
		Type: m.Type, AppId: m.AppID, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding,
		Priority: uint8(m.Priority), DeliveryMode: amqp.Transient, Body: m.Body,
	}
	if !p.Timestamp.IsZero() {
		p.Timestamp = time.Unix(p.Timestamp.Unix(), 0)
	}
	if m.Persistent {
		p.DeliveryMode = amqp.Persistent
	}
	if m.TTL > 0 {
		p.Expiration = strconv.FormatInt(int64((m.TTL+time.Millisecond-1)/time.Millisecond), 10)
	}
	size := propertyRoom
	for name, text := range map[string]string{
		"message id": p.MessageId, "correlation id": p.CorrelationId, "reply address": p.ReplyTo, "type": p.Type,
		"application id": p.AppId, "content type": p.ContentType, "content encoding": p.ContentEncoding,
	} {
		if len(text) > maxShort {
			return wrong("a %s of %d bytes, AMQP has room for %d", name, len(text), maxShort)
		}
		size += 1 + len(text)
	}
	repeated := map[string]bool{}
	for _, h := range m.Headers {
		if h.Key == "CC" || h.Key == "BCC" {
			continue
		}
		if len(h.Key) > maxShort {
			return wrong("a header name of %d bytes, AMQP has room for %d", len(h.Key), maxShort)
		}
		v, err := tighten(h.Value)
		if err != nil {
			return amqp.Publishing{}, fmt.Errorf("header %.80q: %w", h.Key, err)
		}
		if p.Headers == nil {
			p.Headers = make(amqp.Table, len(m.Headers))
		}
		if before, ok := p.Headers[h.Key]; ok {
			if repeated[h.Key] {
				v = append(before.([]any), v)
			} else {
				v, repeated[h.Key] = []any{before, v}, true
			}
		}
		p.Headers[h.Key] = v
	}
	// Properties and headers travel in one frame.
	if size += fieldSize(p.Headers); frame > 0 && size > frame {
		return wrong("headers of %d bytes, the broker takes %d with its frame size", size, frame)
	}
	return p, nil
}

// fieldSize is how many bytes a field takes, its kind included.
func fieldSize(v any) int {
	switch v := v.(type) {
	case nil:
		return 1
	case bool, int8, uint8:
		return 2
	case int16, uint16:
		return 3
	case int32, uint32, float32:
		return 5
	case amqp.Decimal:
		return 6
	case string:
		return 5 + len(v)
	case []byte:
		return 5 + len(v)
	case []any:
		n := 5
		for _, e := range v {
			n += fieldSize(e)
		}
		return n
	case amqp.Table:
		n := 5
		for k, e := range v {
			n += 1 + len(k) + fieldSize(e)
		}
		return n
	default:
		return 9
	}
}
