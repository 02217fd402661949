package api

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// The shapes of the API. openapi.yaml says what they mean; what is not known is
// left out. Numbers that need not fit the 53 bits that JavaScript keeps exact
// are text.

// Timestamp is a time with all its nanoseconds, so that texts sort as times do.
// The zero time is left out.
type Timestamp struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000000000Z"

func (t Timestamp) MarshalJSON() ([]byte, error) {
	return []byte(`"` + t.UTC().Format(timeLayout) + `"`), nil
}

func at(t time.Time) Timestamp { return Timestamp{t} }

// nanos is a time of a stored row.
func nanos(ns int64) Timestamp {
	if ns == 0 {
		return Timestamp{}
	}
	return Timestamp{time.Unix(0, ns)}
}

// big is a 64-bit integer as text; nil where it is not known.
func big[N ~int64 | ~uint64](n N, known bool) *string {
	if !known {
		return nil
	}
	s := strconv.FormatInt(int64(n), 10)
	if n > 0 && int64(n) < 0 {
		s = strconv.FormatUint(uint64(n), 10)
	}
	return &s
}

// gauge is a number that may not be known.
func gauge(f float64) *float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

func hexID(id []byte) string {
	for _, b := range id {
		if b != 0 {
			return hex.EncodeToString(id)
		}
	}
	return ""
}

// Pair is a name with its value. Names may repeat, and their order counts.
type Pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func pairs(attrs []storage.Attr) []Pair {
	out := make([]Pair, 0, len(attrs))
	for _, a := range attrs {
		out = append(out, Pair{a.Key, a.Value})
	}
	return out
}

// Message is one observation of a message, without its body.
type Message struct {
	UID             string    `json:"uid"`
	Time            Timestamp `json:"time"`
	TimeSource      string    `json:"time_source"`
	AgentTime       Timestamp `json:"agent_time,omitzero"`
	StoredAt        Timestamp `json:"stored_at,omitzero"`
	Env             string    `json:"env"`
	System          string    `json:"system"`
	Broker          string    `json:"broker"`
	Channel         string    `json:"channel"`
	Operation       string    `json:"operation"`
	Outcome         string    `json:"outcome"`
	Service         string    `json:"service,omitempty"`
	ConsumerGroup   string    `json:"consumer_group,omitempty"`
	Partition       string    `json:"partition,omitempty"`
	RoutingKey      string    `json:"routing_key,omitempty"`
	Position        *string   `json:"position,omitempty"`
	Delivery        int       `json:"delivery,omitempty"`
	MessageID       string    `json:"message_id,omitempty"`
	CorrelationID   string    `json:"correlation_id,omitempty"`
	CausationID     string    `json:"causation_id,omitempty"`
	ReplyTo         string    `json:"reply_to,omitempty"`
	TraceID         string    `json:"trace_id,omitempty"`
	SpanID          string    `json:"span_id,omitempty"`
	LatencyNs       *string   `json:"latency_ns,omitempty"`
	ErrorType       string    `json:"error_type,omitempty"`
	DeadLetter      *dead     `json:"dead_letter,omitempty"`
	ContentType     string    `json:"content_type,omitempty"`
	ContentEncoding string    `json:"content_encoding,omitempty"`
	Headers         []Pair    `json:"headers"`
	BodySize        int64     `json:"body_size"`
	BodyPolicy      string    `json:"body_policy"`
	BodySHA256      string    `json:"body_sha256,omitempty"`
	Truncated       bool      `json:"truncated"`
	Redacted        []string  `json:"redacted,omitempty"`
	Tap             string    `json:"tap,omitempty"`
	GapBefore       int64     `json:"gap_before,omitempty"`
	Snippet         string    `json:"snippet,omitempty"`
}

type dead struct {
	Source string `json:"source,omitempty"`
	Reason string `json:"reason,omitempty"`
}

func message(m *storage.Message, snippet bool) Message {
	out := Message{
		UID: m.UID.String(), Time: nanos(m.Time), TimeSource: m.TimeSource.String(), AgentTime: nanos(m.AgentTime), StoredAt: at(m.StoredAt),
		Env: m.Env, System: m.System, Broker: m.Broker, Channel: m.Destination, Operation: m.Op.String(), Outcome: m.Outcome.String(),
		Service: m.Service, ConsumerGroup: m.ConsumerGroup, Partition: m.Partition, RoutingKey: m.RoutingKey,
		Position: big(m.Position, m.Position >= 0), Delivery: m.Delivery,
		MessageID: m.MessageID, CorrelationID: m.CorrelationID, CausationID: m.CausationID, ReplyTo: m.ReplyTo,
		TraceID: hexID(m.TraceID[:]), SpanID: hexID(m.SpanID[:]), LatencyNs: big(m.LatencyNs, m.LatencyNs > 0), ErrorType: m.ErrorType,
		ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, Headers: make([]Pair, 0, len(m.Headers)),
		BodySize: m.BodySize, BodyPolicy: m.BodyPolicy.String(), BodySHA256: m.BodySHA256, Truncated: m.Truncated,
		Redacted: m.Redacted, Tap: m.Tap, GapBefore: m.GapBefore,
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, Pair{h.Key, h.Value})
	}
	if m.DeadLetterSource != "" || m.DeadLetterReason != "" {
		out.DeadLetter = &dead{m.DeadLetterSource, m.DeadLetterReason}
	}
	if snippet {
		out.Snippet = m.Snippet
	}
	return out
}

// Body is a payload as the agent let it through.
type Body struct {
	Stored    bool     `json:"stored"`
	Encoding  string   `json:"encoding,omitempty"`
	Content   string   `json:"content,omitempty"`
	Bytes     int      `json:"bytes"`
	Size      int64    `json:"size"`
	Policy    string   `json:"policy"`
	Truncated bool     `json:"truncated"`
	Redacted  []string `json:"redacted,omitempty"`
	SHA256    string   `json:"sha256,omitempty"`
	Withheld  string   `json:"withheld,omitempty"`
}

// body carries text as text where every byte survives that, and base64
// otherwise.
func body(d *storage.MessageDetail, binary bool) *Body {
	b := &Body{
		Stored: d.BodyStored, Bytes: len(d.Body), Size: d.BodySize, Policy: d.BodyPolicy.String(),
		Truncated: d.Truncated, Redacted: d.Redacted, SHA256: d.BodySHA256, Withheld: d.BodyHidden,
	}
	switch {
	case !d.BodyStored:
	case !binary && utf8.Valid(d.Body):
		b.Encoding, b.Content = "text", string(d.Body)
	default:
		b.Encoding, b.Content = "base64", base64.StdEncoding.EncodeToString(d.Body)
	}
	return b
}

// Scan says what a search looked at and why it stopped.
type Scan struct {
	Rows      uint64    `json:"rows"`
	Bytes     uint64    `json:"bytes"`
	ElapsedMs float64   `json:"elapsed_ms"`
	From      Timestamp `json:"from"`
	To        Timestamp `json:"to"`
	Reached   Timestamp `json:"reached"`
	Stopped   string    `json:"stopped"`
}

func scan(s storage.Scan) Scan {
	return Scan{
		Rows: s.Rows, Bytes: s.Bytes, ElapsedMs: float64(s.Elapsed.Microseconds()) / 1000,
		From: at(s.Range.From), To: at(s.Range.To), Reached: at(s.Reached), Stopped: string(s.Stopped),
	}
}

// Point of a series; without a value where nothing is known.
type Point struct {
	Time  Timestamp `json:"time"`
	Value *float64  `json:"value,omitempty"`
}

func points(all []storage.Point) []Point {
	out := make([]Point, 0, len(all))
	for _, p := range all {
		out = append(out, Point{at(p.Time), gauge(p.Value)})
	}
	return out
}

// Channel is one channel as its broker describes it and as taps saw it.
type Channel struct {
	Env         string     `json:"env"`
	System      string     `json:"system"`
	Broker      string     `json:"broker"`
	Name        string     `json:"name"`
	Kind        string     `json:"kind,omitempty"`
	SeenAt      Timestamp  `json:"seen_at,omitzero"`
	Ready       *float64   `json:"ready,omitempty"`
	Unacked     *float64   `json:"unacked,omitempty"`
	Bytes       *float64   `json:"bytes,omitempty"`
	Consumers   *float64   `json:"consumers,omitempty"`
	Lag         *float64   `json:"lag,omitempty"`
	Published   *float64   `json:"published_per_second,omitempty"`
	Delivered   *float64   `json:"delivered_per_second,omitempty"`
	Acked       *float64   `json:"acked_per_second,omitempty"`
	Tapped      uint64     `json:"tapped"`
	TappedBytes uint64     `json:"tapped_bytes"`
	Failed      uint64     `json:"failed"`
	LastMessage Timestamp  `json:"last_message,omitzero"`
	Spark       []*float64 `json:"spark"`
}

func channel(c *storage.ChannelState) Channel {
	out := Channel{
		Env: c.Env, System: c.System, Broker: c.Broker, Name: c.Name, Kind: c.Kind, SeenAt: at(c.SeenAt),
		Ready: gauge(c.Ready), Unacked: gauge(c.Unacked), Bytes: gauge(c.Bytes), Consumers: gauge(c.Consumers), Lag: gauge(c.Lag),
		Published: gauge(c.PublishedS), Delivered: gauge(c.DeliveredS), Acked: gauge(c.AckedS),
		Tapped: c.Tapped, TappedBytes: c.TappedBytes, Failed: c.Failed, LastMessage: at(c.LastMessage), Spark: make([]*float64, 0, len(c.Spark)),
	}
	for _, f := range c.Spark {
		out.Spark = append(out.Spark, gauge(f))
	}
	return out
}

// Span is one span of a history.
type Span struct {
	Time          Timestamp   `json:"time"`
	DurationNs    *string     `json:"duration_ns"`
	TraceID       string      `json:"trace_id"`
	SpanID        string      `json:"span_id"`
	ParentID      string      `json:"parent_id,omitempty"`
	Env           string      `json:"env"`
	Service       string      `json:"service"`
	Name          string      `json:"name"`
	Kind          string      `json:"kind"`
	Status        string      `json:"status"`
	StatusText    string      `json:"status_text,omitempty"`
	System        string      `json:"system,omitempty"`
	Channel       string      `json:"channel,omitempty"`
	MessageID     string      `json:"message_id,omitempty"`
	CorrelationID string      `json:"correlation_id,omitempty"`
	Operation     string      `json:"operation,omitempty"`
	Attributes    []Pair      `json:"attributes"`
	Events        []spanEvent `json:"events,omitempty"`
	Links         []spanLink  `json:"links,omitempty"`
}

type spanEvent struct {
	Time       Timestamp `json:"time"`
	Name       string    `json:"name"`
	Attributes []Pair    `json:"attributes"`
}

type spanLink struct {
	TraceID    string `json:"trace_id"`
	SpanID     string `json:"span_id"`
	Attributes []Pair `json:"attributes"`
}

var (
	spanKinds    = []string{"unspecified", "internal", "server", "client", "producer", "consumer"}
	spanStatuses = []string{"unset", "ok", "error"}
)

func named(names []string, n uint8) string {
	if int(n) < len(names) {
		return names[n]
	}
	return names[0]
}

func span(s *storage.Span) *Span {
	out := &Span{
		Time: nanos(s.Time), DurationNs: big(s.DurationNs, true), TraceID: hex.EncodeToString(s.TraceID[:]), SpanID: hex.EncodeToString(s.SpanID[:]), ParentID: hexID(s.ParentID[:]),
		Env: s.Env, Service: s.Service, Name: s.Name, Kind: named(spanKinds, s.Kind), Status: named(spanStatuses, s.Status), StatusText: s.StatusText,
		System: s.System, Channel: s.Destination, MessageID: s.MessageID, CorrelationID: s.CorrelationID, Attributes: pairs(s.Attrs),
	}
	if s.Op != controlbus.OpUnknown {
		out.Operation = s.Op.String()
	}
	for _, e := range s.Events {
		out.Events = append(out.Events, spanEvent{nanos(e.Time), e.Name, pairs(e.Attrs)})
	}
	for _, l := range s.Links {
		out.Links = append(out.Links, spanLink{hex.EncodeToString(l.TraceID[:]), hex.EncodeToString(l.SpanID[:]), pairs(l.Attrs)})
	}
	return out
}

// Log is one log record of a history.
type Log struct {
	Time          Timestamp `json:"time"`
	AgentTime     Timestamp `json:"agent_time,omitzero"`
	UID           string    `json:"uid,omitempty"`
	Env           string    `json:"env"`
	Service       string    `json:"service"`
	Severity      uint8     `json:"severity"`
	EventName     string    `json:"event_name,omitempty"`
	Body          string    `json:"body"`
	TraceID       string    `json:"trace_id,omitempty"`
	SpanID        string    `json:"span_id,omitempty"`
	CorrelationID string    `json:"correlation_id,omitempty"`
	Channel       string    `json:"channel,omitempty"`
	Attributes    []Pair    `json:"attributes"`
}

func logRecord(l *storage.Log) *Log {
	return &Log{
		Time: nanos(l.Time), AgentTime: nanos(l.AgentTime), UID: hexID(l.UID[:]), Env: l.Env, Service: l.Service, Severity: l.Severity, EventName: l.EventName,
		Body: l.Body, TraceID: hexID(l.TraceID[:]), SpanID: hexID(l.SpanID[:]), CorrelationID: l.CorrelationID, Channel: l.Destination, Attributes: pairs(l.Attrs),
	}
}

// Event is one of message, span and log of a history.
type Event struct {
	At       Timestamp `json:"at"`
	OffsetNs *string   `json:"offset_ns,omitempty"`
	Why      string    `json:"why"`
	Message  *Message  `json:"message,omitempty"`
	Span     *Span     `json:"span,omitempty"`
	Log      *Log      `json:"log,omitempty"`
}

// History is a conversation in causal order.
type History struct {
	Events    []Event `json:"events"`
	Truncated bool    `json:"truncated"`
	Scan      Scan    `json:"scan"`
}

func history(c storage.Conversation) History {
	out := History{Events: make([]Event, 0, len(c.Events)), Truncated: c.Truncated, Scan: scan(c.Scan)}
	for i := range c.Events {
		e := &c.Events[i]
		ev := Event{At: at(e.At), OffsetNs: big(int64(e.Offset), e.Offset != 0), Why: e.Why}
		switch {
		case e.Message != nil:
			m := message(e.Message, false)
			ev.Message = &m
		case e.Span != nil:
			ev.Span = span(e.Span)
		case e.Log != nil:
			ev.Log = logRecord(e.Log)
		}
		out.Events = append(out.Events, ev)
	}
	return out
}
