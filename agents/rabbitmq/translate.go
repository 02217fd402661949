package rabbitmq

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// origin is what a tap knows of a message beyond the message itself.
type origin struct {
	broker, channel string // configured broker name, tapped channel
	queue           string // the channel's own queue, as x-death names it
	tap             string // the tap's queue, unique to this run of the tap
}

// event translates a delivery. It takes over the delivery's body.
func event(d *amqp.Delivery, o origin, now time.Time) *controlbus.MessageEvent {
	ev := &controlbus.MessageEvent{
		UID:       controlbus.HashID("rabbitmq", o.broker, o.tap, strconv.FormatUint(d.DeliveryTag, 10)),
		Time:      now.UnixNano(),
		AgentTime: now.UnixNano(), TimeSource: controlbus.TimeAgent,
		System: system, Broker: o.broker, Destination: o.channel, Op: controlbus.OpTap,
		Service: d.AppId, RoutingKey: d.RoutingKey, Position: int64(d.DeliveryTag),
		MessageID: d.MessageId, CorrelationID: d.CorrelationId, ReplyTo: d.ReplyTo,
		ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		Body: d.Body, BodySize: int64(len(d.Body)),
		Headers: headers(d),
	}
	// AMQP's timestamps are whole seconds: one of the last second says no more
	// than the agent's clock, and would put a message before those it followed.
	if plausible(d.Timestamp, now) && !d.Timestamp.After(now.Add(-2*time.Second)) {
		ev.Time, ev.TimeSource = d.Timestamp.UnixNano(), controlbus.TimeProducer
	}
	agents.LiftHeaders(ev)
	if died := deaths(ev, d.Headers, o.queue); !died.IsZero() {
		// It came here when it died, not when it was first published.
		ev.Time, ev.TimeSource = now.UnixNano(), controlbus.TimeAgent
		if plausible(died, now) && !died.After(now.Add(-2*time.Second)) {
			ev.Time, ev.TimeSource = died.UnixNano(), controlbus.TimeBroker
		}
	}
	return ev
}

// plausible refuses timestamps that are a unit mistake (milliseconds written as
// seconds) or an unset clock.
func plausible(t, now time.Time) bool {
	return !t.IsZero() && t.Before(now.Add(5*time.Minute)) && t.After(now.AddDate(-10, 0, 0))
}

// headers lists the properties in AMQP's order, where the message came from,
// and the headers by name: the client library hands them over as a map, so
// their order on the wire is not known.
func headers(d *amqp.Delivery) []controlbus.Header {
	hs := make([]controlbus.Header, 0, 8+len(d.Headers))
	text := func(k, v string) {
		if v != "" {
			hs = append(hs, controlbus.Header{Key: k, Value: v})
		}
	}
	text("content_type", d.ContentType)
	text("content_encoding", d.ContentEncoding)
	if d.DeliveryMode != 0 {
		text("delivery_mode", strconv.Itoa(int(d.DeliveryMode)))
	}
	if d.Priority != 0 {
		text("priority", strconv.Itoa(int(d.Priority)))
	}
	text("correlation_id", d.CorrelationId)
	text("reply_to", d.ReplyTo)
	text("expiration", d.Expiration)
	text("message_id", d.MessageId)
	if !d.Timestamp.IsZero() {
		text("timestamp", scalar(d.Timestamp))
	}
	text("type", d.Type)
	text("user_id", d.UserId)
	text("app_id", d.AppId)
	text("exchange", d.Exchange)
	text("routing_key", d.RoutingKey)
	return flattenTable(hs, "", d.Headers)
}

func flattenTable(hs []controlbus.Header, prefix string, t amqp.Table) []controlbus.Header {
	for _, k := range slices.Sorted(maps.Keys(t)) {
		hs = flatten(hs, prefix+k, t[k])
	}
	return hs
}

func flatten(hs []controlbus.Header, key string, v any) []controlbus.Header {
	switch v := v.(type) {
	case amqp.Table:
		if len(v) == 0 {
			return append(hs, controlbus.Header{Key: key, Value: "{}"})
		}
		return flattenTable(hs, key+".", v)
	case []any:
		if len(v) == 0 {
			return append(hs, controlbus.Header{Key: key, Value: "[]"})
		}
		for i, e := range v {
			hs = flatten(hs, key+"["+strconv.Itoa(i)+"]", e)
		}
		return hs
	default:
		return append(hs, controlbus.Header{Key: key, Value: scalar(v)})
	}
}

// scalar writes a field value so that nothing of it is lost.
func scalar(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		return v
	case []byte:
		return string(v)
	case bool:
		return strconv.FormatBool(v)
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return v.UTC().Format(time.RFC3339)
	case amqp.Decimal:
		return decimal(v)
	default:
		return fmt.Sprint(v) // the integers
	}
}

func decimal(d amqp.Decimal) string {
	digits := strconv.FormatInt(int64(d.Value), 10)
	if d.Scale == 0 {
		return digits
	}
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	if pad := int(d.Scale) + 1 - len(digits); pad > 0 {
		digits = strings.Repeat("0", pad) + digits
	}
	at := len(digits) - int(d.Scale)
	return sign + digits[:at] + "." + digits[at:]
}

// deaths reads what the broker wrote when it dead-lettered the message:
// x-death has the newest death first, one entry per queue and reason. What a
// consumer wrote when it put the message aside itself (LiftHeaders) says more
// than the broker knows and stays.
//
// It returns when the newest death was, or the zero time where none is known.
func deaths(ev *controlbus.MessageEvent, h amqp.Table, queue string) (died time.Time) {
	list, _ := h["x-death"].([]any)
	var total int64
	var source, reason string
	back := false
	for i, e := range list {
		d, _ := e.(amqp.Table)
		if d == nil {
			continue
		}
		q, _ := d["queue"].(string)
		if i == 0 {
			source = q
			reason, _ = d["reason"].(string)
			died, _ = d["time"].(time.Time)
		}
		back = back || (q != "" && q == queue)
		total += integer(d["count"])
	}
	if reason == "" {
		source, _ = h["x-first-death-queue"].(string)
		reason, _ = h["x-first-death-reason"].(string)
	}
	if reason != "" {
		if ev.DeadLetterReason == "" {
			ev.DeadLetterSource, ev.DeadLetterReason = source, reason
		}
		if ev.ErrorType == "" {
			ev.ErrorType = reason
		}
		// A message that died in this very queue before and is here again is
		// going round a retry loop; elsewhere this is a dead letter channel.
		switch {
		case back:
			ev.Outcome = controlbus.OutcomeRetried
		case ev.Outcome != controlbus.OutcomeRetried:
			ev.Outcome = controlbus.OutcomeDeadLettered
		}
	}
	// The broker's counts are better than those of a header.
	if n, ok := h["x-delivery-count"]; ok {
		ev.Delivery = int(integer(n)+total) + 1
	} else if total > 0 {
		ev.Delivery = int(total) + 1
	}
	return died
}

func integer(v any) int64 {
	switch v := v.(type) {
	case int64:
		return max(v, 0)
	case int32:
		return int64(max(v, 0))
	case int16:
		return int64(max(v, 0))
	case int:
		return int64(max(v, 0))
	case uint8:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	default:
		return 0
	}
}

// untrace rebuilds the traced message from what the firehose published: the
// tracer puts its properties in a header and keeps the body.
func untrace(d *amqp.Delivery) {
	h := d.Headers
	props, _ := h["properties"].(amqp.Table)
	str := func(k string) string { s, _ := props[k].(string); return s }
	d.Exchange, _ = h["exchange_name"].(string)
	if keys, _ := h["routing_keys"].([]any); len(keys) > 0 {
		d.RoutingKey, _ = keys[0].(string)
	}
	d.ContentType, d.ContentEncoding = str("content_type"), str("content_encoding")
	d.CorrelationId, d.ReplyTo, d.Expiration = str("correlation_id"), str("reply_to"), str("expiration")
	d.MessageId, d.Type, d.UserId, d.AppId = str("message_id"), str("type"), str("user_id"), str("app_id")
	d.DeliveryMode, d.Priority = uint8(integer(props["delivery_mode"])), uint8(integer(props["priority"]))
	d.Timestamp = time.Time{}
	switch ts := props["timestamp"].(type) {
	case time.Time:
		d.Timestamp = ts
	case int64:
		d.Timestamp = time.Unix(ts, 0)
	}
	d.Headers, _ = props["headers"].(amqp.Table)
}
