package live

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

const (
	previewBytes = 240     // of a body, in a row
	bodyBytes    = 2 << 10 // of a body, in an event
	headerBytes  = 4 << 10 // of all headers together, in an event
)

// AppendRow writes a message event as a JSON object; docs/live.md lists its
// fields. A row is what a page shows: its texts have hidden characters made
// visible already, and the browser still only ever sets them as text. An event
// has the values as they are.
func AppendRow(dst []byte, e *controlbus.MessageEvent, form controlbus.LiveForm) []byte {
	if form == controlbus.LiveEvent {
		return appendEvent(dst, e)
	}
	st := page.Outcome(e)
	at := time.Unix(0, e.Time).UTC()
	dst = append(dst, `{"uid":"`...)
	dst = hex.AppendEncode(dst, e.UID[:])
	dst = append(dst, `","at":"`...)
	dst = at.AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","ms":`...)
	dst = strconv.AppendInt(dst, at.UnixMilli(), 10)
	dst = appendField(dst, "kind", string(st.Kind))
	dst = appendField(dst, "tone", st.Kind.Class())
	dst = appendField(dst, "word", st.Word)
	dst = appendField(dst, "channel", component.Visible(e.Destination))
	dst = appendField(dst, "broker", component.Visible(e.Broker))
	dst = appendField(dst, "key", page.RoutingKey(e)) // where it says more
	dst = appendField(dst, "size", component.Size(e.BodySize))
	dst = appendField(dst, "text", preview(e))
	dst = append(dst, `,"url":"/messages/`...)
	dst = hex.AppendEncode(dst, e.UID[:])
	dst = append(dst, "?at="...)
	dst = append(dst, url.QueryEscape(at.Format(time.RFC3339Nano))...)
	dst = append(dst, `\u0026env=`...)
	dst = append(dst, url.QueryEscape(e.Env)...)
	return append(dst, `"}`...)
}

func preview(e *controlbus.MessageEvent) string {
	if len(e.Body) == 0 {
		if e.BodyPolicy != controlbus.BodyFull {
			return "body not kept: " + e.BodyPolicy.String()
		}
		if e.BodySize > 0 {
			return "payload not shown here"
		}
		return ""
	}
	return component.Visible(string(cutBody(e.Body, previewBytes)))
}

// cutBody cuts at a border of characters where the body has them.
func cutBody(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			return b[:i]
		}
	}
	return b[:n]
}

func appendEvent(dst []byte, e *controlbus.MessageEvent) []byte {
	at := time.Unix(0, e.Time).UTC()
	dst = append(dst, `{"uid":"`...)
	dst = hex.AppendEncode(dst, e.UID[:])
	dst = append(dst, `","time":"`...)
	dst = at.AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, '"')
	for _, f := range [...]struct{ name, value string }{
		{"env", e.Env}, {"system", e.System}, {"broker", e.Broker}, {"channel", e.Destination}, {"operation", e.Op.String()}, {"outcome", e.Outcome.String()},
		{"service", e.Service}, {"consumer_group", e.ConsumerGroup}, {"partition", e.Partition}, {"routing_key", e.RoutingKey},
		{"message_id", e.MessageID}, {"correlation_id", e.CorrelationID}, {"causation_id", e.CausationID}, {"reply_to", e.ReplyTo},
		{"error_type", e.ErrorType}, {"dead_letter_source", e.DeadLetterSource}, {"dead_letter_reason", e.DeadLetterReason},
		{"content_type", e.ContentType}, {"content_encoding", e.ContentEncoding}, {"tap", e.Tap},
	} {
		if f.value != "" {
			dst = appendField(dst, f.name, f.value)
		}
	}
	if e.TraceID != [16]byte{} {
		dst = appendField(dst, "trace_id", hex.EncodeToString(e.TraceID[:]))
	}
	if e.Delivery > 0 {
		dst = append(dst, `,"delivery":`...)
		dst = strconv.AppendInt(dst, int64(e.Delivery), 10)
	}
	if e.Position >= 0 {
		dst = append(dst, `,"position":"`...) // a string: it may be more than a JavaScript number holds
		dst = strconv.AppendInt(dst, e.Position, 10)
		dst = append(dst, '"')
	}
	if e.GapBefore > 0 {
		dst = append(dst, `,"gap_before":`...)
		dst = strconv.AppendInt(dst, e.GapBefore, 10)
	}
	dst = appendHeaders(dst, e.Headers)
	dst = append(dst, `,"body_size":`...)
	dst = strconv.AppendInt(dst, e.BodySize, 10)
	dst = appendField(dst, "body_policy", e.BodyPolicy.String())
	if len(e.Body) > 0 {
		body := cutBody(e.Body, bodyBytes)
		if utf8.Valid(body) {
			dst = append(dst, `,"body":`...)
			dst = appendString(dst, body)
		} else {
			dst = append(dst, `,"body_base64":"`...)
			dst = base64.StdEncoding.AppendEncode(dst, body)
			dst = append(dst, '"')
		}
		if len(body) < len(e.Body) || e.Truncated {
			dst = append(dst, `,"body_cut":true`...)
		}
	}
	return append(dst, '}')
}

// appendHeaders writes headers as pairs: names may repeat and order may matter.
func appendHeaders(dst []byte, all []controlbus.Header) []byte {
	if len(all) == 0 {
		return dst
	}
	dst = append(dst, `,"headers":[`...)
	left := headerBytes
	for i, h := range all {
		if left -= len(h.Key) + len(h.Value); left < 0 {
			dst = append(dst, `],"headers_cut":true`...)
			return dst
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '[')
		dst = appendString(dst, h.Key)
		dst = append(dst, ',')
		dst = appendString(dst, h.Value)
		dst = append(dst, ']')
	}
	return append(dst, ']')
}

func appendField(dst []byte, name, value string) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return appendString(dst, value)
}

const digits = "0123456789abcdef"

// appendString writes a JSON string as encoding/json does: markup escaped, so
// that a frame is harmless even where it is taken for a page, and invalid bytes
// replaced.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&' && c != 0x7f {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := decodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\ufffd`...)
			start = i + size
		case r == '\u2028', r == '\u2029':
			dst = append(dst, s[start:i]...)
			dst = append(dst, '\\', 'u', '2', '0', '2', digits[r&15])
			start = i + size
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func decodeRune[T string | []byte](s T) (rune, int) {
	if len(s) > utf8.UTFMax {
		s = s[:utf8.UTFMax]
	}
	return utf8.DecodeRuneInString(string(s))
}
