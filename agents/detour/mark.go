package detour

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// maxHops is how many hops a message remembers.
const maxHops = 16

// messageKey names a message for as long as it lies in its channel, whoever
// takes it and how often: brokers' delivery numbers begin anew with every
// connection. It is over what its sender wrote, and the broker's time where
// there is one, which tells equal messages apart.
func messageKey(m *agents.Message) string {
	h := sha256.New()
	text := func(s string) {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	for _, s := range []string{m.MessageID, m.CorrelationID, m.ReplyTo, m.Type, m.AppID, m.ContentType, m.Key} {
		text(s)
	}
	if !m.Time.IsZero() {
		text(strconv.FormatInt(m.Time.UnixNano(), 10))
	}
	h.Write(m.Body)
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// marker writes who a message has passed.
type marker struct {
	detour string
	hop    string // agent@channel, escaped
	since  int64  // Unix ms: hops of before are of an earlier detour here
}

func newMarker(agent, channel, detour string, since time.Time) marker {
	return marker{detour, url.QueryEscape(agent) + "@" + url.QueryEscape(channel), since.UnixMilli()}
}

// circles says whether this very detour has sent the message on before.
func (k marker) circles(m *agents.Message) bool {
	for hop := range strings.SplitSeq(m.Header(controlbus.HeaderHops), ",") {
		where, at, _ := strings.Cut(strings.TrimSpace(hop), ";")
		if ms, err := strconv.ParseInt(at, 10, 64); where == k.hop && err == nil && ms >= k.since {
			return true
		}
	}
	return false
}

// id is the value of controlbus.HeaderDetour: the same whenever the same message
// is taken again. again says that the message may have it already, from an
// earlier stage of the same detour.
func (k marker) id(m *agents.Message, again bool) string {
	if again {
		if have := m.Header(controlbus.HeaderDetour); strings.HasPrefix(have, k.detour+":") && len(have) <= len(k.detour)+64 {
			return have
		}
	}
	return k.detour + ":" + messageKey(m)
}

// stamp marks a message that goes on. The hops are those it came with: a step
// cannot take them away.
func (k marker) stamp(it *item, now time.Time) {
	m := it.change()
	m.SetHeader(controlbus.HeaderHops, k.hops(it, now))
	m.SetHeader(controlbus.HeaderDetour, it.id)
}

// stampCopy marks what a copy step sends, as which: without hops of their own two
// detours that copy into each other's channel would do so for ever, and under an
// id that its producer wrote a stream would take it for one that is there.
func (k marker) stampCopy(it *item, m *agents.Message, which string, now time.Time) {
	m.SetHeader(controlbus.HeaderHops, k.hops(it, now))
	m.SetHeader(controlbus.HeaderDetour, it.id+"/"+which)
}

func (k marker) hops(it *item, now time.Time) string {
	var hops []string
	if have := it.src.Header(controlbus.HeaderHops); have != "" {
		hops = strings.Split(have, ",")
	}
	if !k.circles(it.src) {
		hops = append(hops, k.hop+";"+strconv.FormatInt(now.UnixMilli(), 10))
	}
	return strings.Join(hops[max(0, len(hops)-maxHops):], ",")
}

// event shows a message to a filter.
func event(m *agents.Message, env, system, broker, channel string, now time.Time) *controlbus.MessageEvent {
	ev := &controlbus.MessageEvent{
		Time: now.UnixNano(), AgentTime: now.UnixNano(), TimeSource: controlbus.TimeAgent,
		Env: env, System: system, Broker: broker, Destination: channel, Op: controlbus.OpReceive,
		Service: m.AppID, RoutingKey: m.Key, Position: -1, Delivery: max(0, m.Deliveries+1),
		MessageID: m.MessageID, CorrelationID: m.CorrelationID, ReplyTo: m.ReplyTo,
		ContentType: m.ContentType, ContentEncoding: m.ContentEncoding,
		Body: m.Body, BodySize: int64(len(m.Body)),
	}
	if !m.Time.IsZero() {
		ev.Time, ev.TimeSource = m.Time.UnixNano(), controlbus.TimeProducer
	}
	for _, f := range m.Headers {
		ev.Headers = agents.AppendText(ev.Headers, f.Key, f.Value)
	}
	agents.LiftHeaders(ev)
	return ev
}
