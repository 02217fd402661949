package nats

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// event translates what every message has; the caller fills in UID, Position
// and, for a stored message, the broker's time. It takes over data.
func event(broker, channel, subject string, h nats.Header, data []byte, now time.Time) *controlbus.MessageEvent {
	ev := &controlbus.MessageEvent{
		Time: now.UnixNano(), AgentTime: now.UnixNano(), TimeSource: controlbus.TimeAgent,
		System: system, Broker: broker, Destination: channel, Op: controlbus.OpTap,
		RoutingKey: subject, Body: data, BodySize: int64(len(data)), Headers: headers(h),
	}
	// The id under which Signalbox sent a copy is not the message's own.
	if ids := h[nats.MsgIdHdr]; len(ids) > 0 && ids[0] != operation(h) {
		ev.MessageID = ids[0]
	}
	agents.LiftHeaders(ev)
	return ev
}

// headers lists the headers by name, because the client hands them over as a
// map, and each name's values in their order.
func headers(h nats.Header) []controlbus.Header {
	if len(h) == 0 {
		return nil
	}
	out := make([]controlbus.Header, 0, len(h))
	for _, k := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[k] {
			out = append(out, controlbus.Header{Key: k, Value: v})
		}
	}
	return out
}

// storedUID is the same whoever reads the stored message, and how often.
func storedUID(broker, stream, created string, seq uint64) controlbus.ID {
	return controlbus.HashID(system, broker, stream, created, strconv.FormatUint(seq, 10))
}

func stamp(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }
