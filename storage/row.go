// Package storage holds the types in which the collector hands rows to a store
// and in which pages ask it questions. It knows no driver: storage/clickhouse
// implements these shapes, storage/storagetest checks that it does.
package storage

import "github.com/signalbox-dev/signalbox/controlbus"

// Row types of a Batch. Strings and byte slices may be views into a buffer
// that is reused after the Append call returns. Times are Unix nanoseconds.

// Attr is an attribute as text.
type Attr struct{ Key, Value string }

// Resource describes who sent a row. ID is a hash of its attributes.
type Resource struct {
	ID      uint64
	Service string
	Host    string
	Attrs   []Attr
}

// Log is one log record that is not a message event.
type Log struct {
	Time, AgentTime int64
	UID             controlbus.ID
	Env, Service    string
	Severity        uint8 // OpenTelemetry severity number, 0 unknown
	EventName       string
	Body            string
	TraceID         [16]byte
	SpanID          [8]byte
	CorrelationID   string
	Destination     string
	Attrs           []Attr
	ResourceID      uint64
}

// Span is one span. Messaging attributes are lifted to fields.
type Span struct {
	Time       int64 // start
	DurationNs uint64
	TraceID    [16]byte
	SpanID     [8]byte
	ParentID   [8]byte
	Env        string
	Service    string
	Name       string
	Kind       uint8 // OTLP SpanKind
	Status     uint8 // OTLP StatusCode
	StatusText string
	System     string
	Destination,
	MessageID, CorrelationID string
	Op         controlbus.Op
	Attrs      []Attr
	ResourceID uint64
	Events     []SpanEvent
	Links      []SpanLink
}

// SpanEvent is an event within a span.
type SpanEvent struct {
	Time  int64
	Name  string
	Attrs []Attr
}

// SpanLink points at another span, usually the producer of a message.
type SpanLink struct {
	TraceID [16]byte
	SpanID  [8]byte
	Attrs   []Attr
}

// Sample is one point of one metric series. Series is a hash over metric name
// and labels; Labels are sorted by name. Cumulative sums keep their running
// value; deltas have been added up by the collector. Histograms arrive as
// Prometheus does it: _bucket{le}, _sum and _count series. Labels are named as
// the attributes are (messaging.destination.name); deployment.environment.name
// and service.name of the resource are labels too.
type Sample struct {
	Metric string
	Series uint64
	Kind   string // gauge, counter, histogram
	Unit   string
	Labels []Attr
	Time   int64
	Value  float64
}

// Pane is one closed or amended 10 s roll-up of one channel's traffic. Rows for
// the same key add up.
type Pane struct {
	Time                                 int64 // start of the pane
	Env, System, Broker, Destination     string
	Service                              string
	Op                                   controlbus.Op
	Count, Failed, Bytes                 uint64
	LatencySumNs, LatencyMaxNs, LatencyN uint64
	// Latency counts operations by log2 bucket with 8 steps per octave:
	// index 8*log2(ns), clamped to 0..255 after an offset of 80 (1 µs).
	Latency map[uint8]uint64
}

// Invalid is a record that could not be understood: the invalid message channel.
type Invalid struct {
	Time   int64
	Sender string
	Signal string // logs, traces, metrics
	Reason string
	Data   []byte // the record as it came, cut to 64 KiB
	Size   int64
}
