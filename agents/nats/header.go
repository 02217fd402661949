package nats

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// The names under which fields of a message travel that NATS has no place for.
// agents.LiftHeaders reads them back, and they sort before the other names it
// knows, so that a tap sees the field and not what some header says beside it.
const (
	headerMessageID     = "Message-Id"
	headerCorrelationID = "Correlation-Id"
	headerReplyTo       = "Reply-To"
	headerContentType   = "Content-Type"
	headerEncoding      = "Content-Encoding"
	headerType          = "Message-Type"
	headerAppID         = "App-Id"
)

// outgoing are a message's headers for the wire. What tells the server to do
// something is left out, whoever wrote it: a copied "Nats-Rollup: all" wipes the
// stream it gets into, a copied Nats-Msg-Id is dropped as a duplicate,
// Nats-Expected-* refuse it, Nats-TTL deletes it, Nats-Schedule and Nats-Trace-*
// send it elsewhere or nowhere.
func outgoing(m *agents.Message) nats.Header {
	h := nats.Header{}
	for _, f := range m.Headers {
		if commands(f.Key) {
			continue
		}
		key := headerKey(f.Key)
		h[key] = append(h[key], headerValue(f.Value))
	}
	lift := lifted(m.Headers)
	put := func(key, value, there string) {
		if value != "" && value != there {
			h[key] = []string{clean(value)}
		}
	}
	put(headerMessageID, m.MessageID, lift.MessageID)
	put(headerCorrelationID, m.CorrelationID, lift.CorrelationID)
	put(headerReplyTo, m.ReplyTo, lift.ReplyTo)
	put(headerContentType, m.ContentType, lift.ContentType)
	put(headerEncoding, m.ContentEncoding, lift.ContentEncoding)
	put(headerType, m.Type, strings.Join(h[headerType], ""))
	put(headerAppID, m.AppID, strings.Join(h[headerAppID], ""))
	if id := operation(h); id != "" {
		h[nats.MsgIdHdr] = []string{id}
	}
	return h
}

// lifted is what a tap would read out of the headers alone.
func lifted(fields []agents.Field) *controlbus.MessageEvent {
	ev := &controlbus.MessageEvent{}
	for _, f := range fields {
		if s, ok := f.Value.(string); ok {
			ev.Headers = append(ev.Headers, controlbus.Header{Key: f.Key, Value: s})
		}
	}
	agents.LiftHeaders(ev)
	return ev
}

// commands says whether a header tells the server something, or is something it
// told. All names of Nats- are its own, those of the service framework apart.
// The server compares names exactly; other spellings are not worth the risk.
func commands(key string) bool {
	const prefix = "nats-"
	k := strings.ToLower(strings.TrimSpace(key))
	return strings.HasPrefix(k, prefix) && !strings.HasPrefix(k, "nats-service-")
}

// operation is the id by which the server knows a copy of what Signalbox sends:
// made of the marks that the operation wrote on the message. All of them, because
// a mark may be of an earlier operation: alone it would make the server drop the
// message as one that is there.
func operation(h nats.Header) string {
	var ids []string
	for _, key := range []string{controlbus.HeaderRedriveID, controlbus.HeaderReplay, controlbus.HeaderDetour} {
		if v := h[key]; len(v) > 0 && v[0] != "" {
			ids = append(ids, v[0])
		}
	}
	return strings.Join(ids, "|")
}

// headerKey makes a name that the protocol can carry: what it cannot becomes _.
func headerKey(key string) string {
	if key == "" {
		return "_"
	}
	ok := func(c byte) bool { return c > ' ' && c < 0x7f && c != ':' }
	for i := range len(key) {
		if !ok(key[i]) {
			b := []byte(key)
			for j := range b {
				if !ok(b[j]) {
					b[j] = '_'
				}
			}
			return string(b)
		}
	}
	return key
}

// headerValue is a typed value as text.
func headerValue(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return clean(v)
	case []byte:
		return clean(string(v))
	case bool:
		return strconv.FormatBool(v)
	case float32:
		return strconv.FormatFloat(float64(v), 'g', -1, 32)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case []any, map[string]any:
		if b, err := json.Marshal(v); err == nil {
			return clean(string(b))
		}
	}
	return clean(fmt.Sprint(v))
}

var ends = strings.NewReplacer("\r", "%0D", "\n", "%0A", "\x00", "%00")

// clean writes the bytes that would end a header as %0D, %0A and %00.
func clean(s string) string {
	if !strings.ContainsAny(s, "\r\n\x00") {
		return s
	}
	return ends.Replace(s)
}

// incoming makes a message of what was read.
func incoming(position uint64, at time.Time, subject string, h nats.Header, data []byte) *agents.Message {
	ev := event("", "", subject, h, data, at)
	m := &agents.Message{
		Position: strconv.FormatUint(position, 10), Time: at,
		MessageID: ev.MessageID, CorrelationID: ev.CorrelationID, ReplyTo: ev.ReplyTo,
		ContentType: ev.ContentType, ContentEncoding: ev.ContentEncoding,
		Type: h.Get(headerType), AppID: h.Get(headerAppID),
		Key: subject, Body: data, Persistent: true, Deliveries: -1,
		Headers: make([]agents.Field, 0, len(ev.Headers)),
	}
	for _, f := range ev.Headers {
		if f.Key == jetstream.ExpectedStreamHeader {
			continue // of who sent it, such as an outlet
		}
		if utf8.ValidString(f.Value) {
			m.Headers = append(m.Headers, agents.Field{Key: f.Key, Value: f.Value})
		} else {
			m.Headers = append(m.Headers, agents.Field{Key: f.Key, Value: []byte(f.Value)})
		}
	}
	return m
}
