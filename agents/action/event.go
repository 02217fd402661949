package action

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// event shows a message to a filter, and to the redactor, as a tap would have
// seen it.
func (a *Actions) event(ad agents.Adapter, ch controlbus.ChannelName, m *agents.Message) *controlbus.MessageEvent {
	now := time.Now().UnixNano()
	ev := &controlbus.MessageEvent{
		Time: now, AgentTime: now, TimeSource: controlbus.TimeAgent, Env: a.env.Self.Env, System: ad.System(), Broker: ch.Broker, Destination: ch.Name,
		Op: controlbus.OpReceive, RoutingKey: m.Key, MessageID: m.MessageID, CorrelationID: m.CorrelationID, ReplyTo: m.ReplyTo, Service: m.AppID,
		ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, Headers: flatHeaders(m), Body: m.Body, BodySize: int64(len(m.Body)), Position: -1,
	}
	if !m.Time.IsZero() {
		ev.Time, ev.TimeSource = m.Time.UnixNano(), controlbus.TimeProducer
	}
	if n, err := strconv.ParseInt(m.Position, 10, 64); err == nil {
		ev.Position = n
	}
	if m.Deliveries > 0 {
		ev.Delivery = m.Deliveries
	}
	agents.LiftHeaders(ev)
	if source := diedIn(ad, ch.Name, m); source != "" && ev.DeadLetterSource == "" {
		ev.DeadLetterSource, ev.Outcome = source, controlbus.OutcomeDeadLettered
	}
	for _, h := range ev.Headers {
		if (h.Key == "x-death[0].reason" || h.Key == "x-first-death-reason") && ev.DeadLetterReason == "" {
			ev.DeadLetterReason = h.Value
			if ev.ErrorType == "" {
				ev.ErrorType = h.Value
			}
		}
	}
	return ev
}

// maxFlat bounds the headers of one message that a filter sees.
const maxFlat = 500

// flatHeaders are a message's headers as text, as taps write them.
func flatHeaders(m *agents.Message) []controlbus.Header {
	var out []controlbus.Header
	for _, h := range m.Headers {
		if len(out) < maxFlat {
			out = agents.AppendText(out, h.Key, h.Value)
		}
	}
	return out[:min(len(out), maxFlat)]
}

// maxExcerpt is of a body in a sample.
const maxExcerpt = 400

// sample is a message as it may leave the agent: redacted by the agent's rules.
func (a *Actions) sample(ad agents.Adapter, ch controlbus.ChannelName, m *agents.Message) controlbus.PreviewSample {
	ev := a.event(ad, ch, m)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.redactor.Apply(ev, controlbus.BodyFull, 0)
	s := controlbus.PreviewSample{
		MessageID: cutText(ev.MessageID, 200), At: m.Time, Position: m.Position, ContentType: cutText(ev.ContentType, 100),
		Size: int64(len(m.Body)), ErrorType: cutText(ev.ErrorType, 200),
	}
	if utf8.Valid(ev.Body) {
		s.Excerpt = cutText(string(ev.Body), maxExcerpt)
	} else if len(ev.Body) > 0 && !ev.Truncated {
		s.Excerpt = "(not text)"
	} else if ev.Truncated {
		s.Excerpt = cutText(string(ev.Body[:validPrefix(ev.Body)]), maxExcerpt)
	}
	return s
}

// validPrefix is how much of a cut body is text.
func validPrefix(b []byte) (n int) {
	for n < len(b) && n <= maxExcerpt {
		r, size := utf8.DecodeRune(b[n:])
		if r == utf8.RuneError && size <= 1 {
			break
		}
		n += size
	}
	return n
}

// identity names a message by what its sender wrote, for as long as it lies in its
// channel: delivery numbers begin anew with every connection.
func identity(m *agents.Message) string {
	h := sha256.New()
	text := func(s string) {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	for _, s := range []string{m.MessageID, m.CorrelationID, m.ReplyTo, m.Type, m.AppID, m.ContentType, m.ContentEncoding, m.Key} {
		text(s)
	}
	if !m.Time.IsZero() {
		text(strconv.FormatInt(m.Time.UnixNano(), 10))
	}
	for _, f := range flatHeaders(m) {
		text(f.Key)
		text(f.Value)
	}
	h.Write(m.Body)
	return hex.EncodeToString(h.Sum(nil)[:12])
}
