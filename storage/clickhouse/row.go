package clickhouse

import (
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// messageRow is a row of query/messages.sql.
type messageRow struct {
	TimeNs     int64    `ch:"time_ns"`
	AgentMs    int64    `ch:"agent_ms"`
	StoredMs   int64    `ch:"stored_ms"`
	TimeSource int8     `ch:"time_source_n"`
	UID        string   `ch:"uid"`
	Env        string   `ch:"env"`
	System     string   `ch:"system"`
	Broker     string   `ch:"broker"`
	Channel    string   `ch:"destination"`
	Op         int8     `ch:"op_n"`
	Outcome    int8     `ch:"outcome_n"`
	Service    string   `ch:"service"`
	Group      string   `ch:"consumer_group"`
	Partition  string   `ch:"partition_id"`
	RoutingKey string   `ch:"routing_key"`
	Position   int64    `ch:"position"`
	Delivery   uint16   `ch:"delivery"`
	MessageID  string   `ch:"message_id"`
	Corr       string   `ch:"correlation"`
	CorrID     string   `ch:"correlation_id"`
	CauseID    string   `ch:"causation_id"`
	ReplyTo    string   `ch:"reply_to"`
	Trace      string   `ch:"trace_id"`
	Span       string   `ch:"span_id"`
	LatencyNs  uint64   `ch:"latency_ns"`
	ErrorType  string   `ch:"error_type"`
	DeadSource string   `ch:"dead_letter_source"`
	DeadReason string   `ch:"dead_letter_reason"`
	Content    string   `ch:"content_type"`
	Encoding   string   `ch:"content_encoding"`
	Names      []string `ch:"header_names"`
	Values     []string `ch:"header_values"`
	BodySize   uint64   `ch:"body_size"`
	Policy     int8     `ch:"body_policy_n"`
	Truncated  bool     `ch:"body_truncated"`
	SHA256     string   `ch:"body_sha256"`
	Tap        string   `ch:"tap"`
	Gap        int64    `ch:"gap_before"`
	Redacted   []string `ch:"redacted"`
}

func (r *messageRow) message() storage.Message {
	m := storage.Message{
		StoredAt:    instant(r.StoredMs * 1e6),
		Correlation: id16(r.Corr),
		MessageEvent: controlbus.MessageEvent{
			UID: id16(r.UID), Time: r.TimeNs, AgentTime: r.AgentMs * 1e6, TimeSource: controlbus.TimeSource(r.TimeSource),
			Env: r.Env, System: r.System, Broker: r.Broker, Destination: r.Channel,
			Op: controlbus.Op(r.Op), Outcome: controlbus.Outcome(r.Outcome),
			Service: r.Service, ConsumerGroup: r.Group, Partition: r.Partition, RoutingKey: r.RoutingKey,
			Position: r.Position, Delivery: int(r.Delivery),
			MessageID: r.MessageID, CorrelationID: r.CorrID, CausationID: r.CauseID, ReplyTo: r.ReplyTo,
			TraceID: id16(r.Trace), SpanID: id8(r.Span), LatencyNs: int64(r.LatencyNs), ErrorType: r.ErrorType,
			DeadLetterSource: r.DeadSource, DeadLetterReason: r.DeadReason,
			ContentType: r.Content, ContentEncoding: r.Encoding,
			BodySize: int64(r.BodySize), BodyPolicy: controlbus.BodyPolicy(r.Policy), Truncated: r.Truncated, BodySHA256: r.SHA256,
			Tap: r.Tap, GapBefore: r.Gap,
		},
	}
	if len(r.Names) > 0 {
		m.Headers = make([]controlbus.Header, len(r.Names))
		for i := range r.Names {
			m.Headers[i] = controlbus.Header{Key: r.Names[i], Value: r.Values[i]}
		}
	}
	if len(r.Redacted) > 0 {
		m.Redacted = r.Redacted
	}
	return m
}

// spanRow is a row of query/spans.sql.
type spanRow struct {
	TimeNs          int64      `ch:"time_ns"`
	DurationNs      uint64     `ch:"duration_ns"`
	Trace           string     `ch:"trace_id"`
	Span            string     `ch:"span_id"`
	Parent          string     `ch:"parent_id"`
	Env             string     `ch:"env"`
	Service         string     `ch:"service"`
	Name            string     `ch:"name"`
	Kind            int8       `ch:"kind_n"`
	Status          int8       `ch:"status_n"`
	StatusText      string     `ch:"status_text"`
	System          string     `ch:"system"`
	Channel         string     `ch:"destination"`
	Op              int8       `ch:"op_n"`
	MessageID       string     `ch:"message_id"`
	CorrID          string     `ch:"correlation_id"`
	AttrNames       []string   `ch:"attr_names"`
	AttrValues      []string   `ch:"attr_values"`
	Resource        uint64     `ch:"resource_id"`
	EventNs         []int64    `ch:"event_ns"`
	EventName       []string   `ch:"event_name"`
	EventAttrNames  [][]string `ch:"event_attr_names"`
	EventAttrValues [][]string `ch:"event_attr_values"`
	LinkTrace       []string   `ch:"link_trace"`
	LinkSpan        []string   `ch:"link_span"`
	LinkAttrNames   [][]string `ch:"link_attr_names"`
	LinkAttrValues  [][]string `ch:"link_attr_values"`
}

func (r *spanRow) span() storage.Span {
	s := storage.Span{
		Time: r.TimeNs, DurationNs: r.DurationNs, TraceID: id16(r.Trace), SpanID: id8(r.Span), ParentID: id8(r.Parent),
		Env: r.Env, Service: r.Service, Name: r.Name, Kind: uint8(r.Kind), Status: uint8(r.Status), StatusText: r.StatusText,
		System: r.System, Destination: r.Channel, MessageID: r.MessageID, CorrelationID: r.CorrID, Op: controlbus.Op(r.Op),
		Attrs: attrs(r.AttrNames, r.AttrValues), ResourceID: r.Resource,
	}
	for i := range r.EventNs {
		s.Events = append(s.Events, storage.SpanEvent{Time: r.EventNs[i], Name: r.EventName[i], Attrs: attrs(r.EventAttrNames[i], r.EventAttrValues[i])})
	}
	for i := range r.LinkTrace {
		s.Links = append(s.Links, storage.SpanLink{TraceID: id16(r.LinkTrace[i]), SpanID: id8(r.LinkSpan[i]), Attrs: attrs(r.LinkAttrNames[i], r.LinkAttrValues[i])})
	}
	return s
}

// logRow is a row of query/logs.sql.
type logRow struct {
	TimeNs     int64    `ch:"time_ns"`
	AgentMs    int64    `ch:"agent_ms"`
	UID        string   `ch:"uid"`
	Env        string   `ch:"env"`
	Service    string   `ch:"service"`
	Severity   uint8    `ch:"severity"`
	EventName  string   `ch:"event_name"`
	Body       string   `ch:"body"`
	Trace      string   `ch:"trace_id"`
	Span       string   `ch:"span_id"`
	CorrID     string   `ch:"correlation_id"`
	Channel    string   `ch:"destination"`
	AttrNames  []string `ch:"attr_names"`
	AttrValues []string `ch:"attr_values"`
	Resource   uint64   `ch:"resource_id"`
}

func (r *logRow) log() storage.Log {
	return storage.Log{
		Time: r.TimeNs, AgentTime: r.AgentMs * 1e6, UID: id16(r.UID), Env: r.Env, Service: r.Service, Severity: r.Severity,
		EventName: r.EventName, Body: r.Body, TraceID: id16(r.Trace), SpanID: id8(r.Span), CorrelationID: r.CorrID,
		Destination: r.Channel, Attrs: attrs(r.AttrNames, r.AttrValues), ResourceID: r.Resource,
	}
}

func attrs(names, values []string) []storage.Attr {
	if len(names) == 0 {
		return nil
	}
	list := make([]storage.Attr, len(names))
	for i := range names {
		list[i] = storage.Attr{Key: names[i], Value: values[i]}
	}
	return list
}

func id16(s string) (id [16]byte) { copy(id[:], s); return id }
func id8(s string) (id [8]byte)   { copy(id[:], s); return id }
