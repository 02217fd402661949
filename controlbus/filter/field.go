package filter

import (
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Type is what a field holds, which decides how values are read and which
// operators it has.
type Type string

// Types.
const (
	Text     Type = "text"
	Hex      Type = "hex id"   // binary identifier, written in hexadecimal digits
	Number   Type = "number"   // integer
	Size     Type = "size"     // bytes, with units
	Duration Type = "duration" // with units
	Time     Type = "time"     // absolute, or relative to now
	Enum     Type = "one of"   // of the field's Values
	Bool     Type = "yes/no"   // true or false
	List     Type = "list"     // of texts; a comparison holds if it holds for one of them
	Dynamic  Type = "dynamic"  // text that compares as a number with numbers
	Body     Type = "body"     // the payload
)

// Field describes one field of the language. Fields that stand for a family
// have a Name that ends in a dot: header. and body.
type Field struct {
	Name     string
	Aliases  []string
	Type     Type
	Doc      string
	Examples []string
	Values   []string // of an Enum
	// Lookup says that the store knows values worth offering: Completion then
	// asks the caller for those that begin with what was typed.
	Lookup bool

	column string // of the messages table, or an expression on it
	shared bool   // the bodies table has the column too
	text   func(*controlbus.MessageEvent) string
	num    func(*controlbus.MessageEvent) (int64, bool)
	guard  string                                // SQL: there is a number
	id     func(*controlbus.MessageEvent) []byte // of Hex
	bytes  int
	list   func(*controlbus.MessageEvent) []string
	jms    string // name in a JMS selector
}

type event = controlbus.MessageEvent

// Operators returns what may stand behind the field's name.
func (f *Field) Operators() []string {
	switch f.Type {
	case Text, List, Dynamic:
		return []string{":", "=", "!=", "<", "<=", ">", ">=", "IN", "BETWEEN", "LIKE", "~"}
	case Hex:
		return []string{":", "=", "!=", "IN", "LIKE", "~"}
	case Number, Size, Duration:
		return []string{":", "=", "!=", "<", "<=", ">", ">=", "IN", "BETWEEN"}
	case Time:
		return []string{"=", "!=", "<", "<=", ">", ">=", "IN", "BETWEEN"}
	case Enum:
		return []string{":", "=", "!=", "IN"}
	case Bool:
		return []string{":", "=", "!="}
	default:
		return []string{":", "=", "!=", "IN", "LIKE", "~"}
	}
}

func (f *Field) has(o op) bool {
	switch o {
	case opPresent, opWord:
		return true
	case opWild:
		return f.Type != Time && slices.Contains(f.Operators(), ":")
	}
	return slices.Contains(f.Operators(), o.String())
}

// Fields returns the registry, in the order in which it is best shown. The
// caller may change what it gets.
func Fields() []Field {
	out := make([]Field, len(fields))
	for i, f := range fields {
		f.Aliases, f.Examples, f.Values = slices.Clone(f.Aliases), slices.Clone(f.Examples), slices.Clone(f.Values)
		out[i] = f
	}
	return out
}

func some(n int64) (int64, bool) { return n, n != 0 }

var (
	opNames      = []string{"create", "send", "receive", "process", "settle", "tap"} // 1…
	outcomeNames = []string{"ok", "failed", "retried", "dead_lettered", "expired", "detoured"}
	sourceNames  = []string{"broker", "producer", "agent"} // 1…
	policyNames  = []string{"full", "metadata", "hash"}
)

var fields = []Field{
	{Name: "channel", Aliases: []string{"destination", "queue", "topic", "subject", "JMSDestination"}, Type: Text, Lookup: true, column: "destination", shared: true,
		Doc: "the channel's name", Examples: []string{"channel:orders.*", "channel IN ('orders.new', 'orders.paid')"},
		text: func(e *event) string { return e.Destination }},
	{Name: "service", Type: Text, Lookup: true, column: "service",
		Doc: "who sent or processed it", Examples: []string{"service:payment-service"},
		text: func(e *event) string { return e.Service }},
	{Name: "failed", Type: Bool, column: "toInt8(outcome) != 0",
		Doc: "it did not end well: the outcome is not ok", Examples: []string{"failed:true"},
		num: func(e *event) (int64, bool) { return truth(e.Outcome != 0), true }},
	{Name: "outcome", Type: Enum, Values: outcomeNames, column: "toInt8(outcome)",
		Doc: "how the operation ended", Examples: []string{"outcome:dead_lettered", "outcome IN (failed, retried)"},
		num: func(e *event) (int64, bool) { return int64(e.Outcome), true }},
	{Name: "op", Aliases: []string{"operation"}, Type: Enum, Values: opNames, column: "toInt8(op)", guard: "toInt8(op) != 0",
		Doc: "what was done to the message; tap: a wire tap saw it", Examples: []string{"op:process"},
		num: func(e *event) (int64, bool) { return some(int64(e.Op)) }},
	{Name: "attempts", Aliases: []string{"deliveries", "delivery", "delivery_count", "JMSXDeliveryCount"}, Type: Number, column: "delivery", guard: "delivery != 0",
		Doc: "how often it has been delivered, 1 for the first", Examples: []string{"attempts > 3"},
		num: func(e *event) (int64, bool) { return some(int64(min(max(e.Delivery, 0), 65535))) }},
	{Name: "size", Aliases: []string{"body_size"}, Type: Size, column: "body_size",
		Doc: "the body's true size, before any cut", Examples: []string{"size >= 100kb", "size:>1mib"},
		num: func(e *event) (int64, bool) { return max(e.BodySize, 0), true }},
	{Name: "latency", Aliases: []string{"duration"}, Type: Duration, column: "latency_ns", guard: "latency_ns != 0",
		Doc: "how long the operation took", Examples: []string{"latency > 250ms", "latency BETWEEN 1s AND 1m30s"},
		num: func(e *event) (int64, bool) { return some(max(e.LatencyNs, 0)) }},
	{Name: "time", Aliases: []string{"timestamp", "ts"}, Type: Time, column: "toUnixTimestamp64Nano(ts)", shared: true,
		Doc: "when it happened", Examples: []string{"time > now-15m", "time BETWEEN 2026-07-23T10:00 AND 2026-07-23T11:00"},
		num: func(e *event) (int64, bool) { return controlbus.EventTime(e.Time, e.AgentTime), true }},
	{Name: "id", Aliases: []string{"message_id", "JMSMessageID"}, Type: Text, column: "message_id", jms: "JMSMessageID",
		Doc: "message id", Examples: []string{"id:018f6a3e-51c7"},
		text: func(e *event) string { return e.MessageID }},
	{Name: "correlation", Aliases: []string{"correlation_id", "conversation", "JMSCorrelationID"}, Type: Text, column: "correlation_id", jms: "JMSCorrelationID",
		Doc: "correlation id", Examples: []string{"correlation:ORD-7731904"},
		text: func(e *event) string { return e.CorrelationID }},
	{Name: "causation", Aliases: []string{"causation_id", "cause"}, Type: Text, column: "causation_id",
		Doc: "id of the message that caused this one", Examples: []string{"causation:018f6a3e-51c7"},
		text: func(e *event) string { return e.CausationID }},
	{Name: "reply_to", Aliases: []string{"JMSReplyTo"}, Type: Text, column: "reply_to",
		Doc: "where an answer is to go", Examples: []string{"reply_to:*"},
		text: func(e *event) string { return e.ReplyTo }},
	{Name: "trace", Aliases: []string{"trace_id"}, Type: Hex, column: "trace_id", bytes: 16,
		Doc: "trace id, 32 hexadecimal digits", Examples: []string{"trace:5b8aa5a2d2c872e8321cf37308d69df2"},
		id: func(e *event) []byte { return e.TraceID[:] }},
	{Name: "span", Aliases: []string{"span_id"}, Type: Hex, column: "span_id", bytes: 8,
		Doc: "span id, 16 hexadecimal digits", Examples: []string{"span:051581bf3cb55c13"},
		id: func(e *event) []byte { return e.SpanID[:] }},
	{Name: "uid", Type: Hex, column: "uid", shared: true, bytes: 16,
		Doc: "one observation of a message, 32 hexadecimal digits", Examples: []string{"uid:00112233445566778899aabbccddeeff"},
		id: func(e *event) []byte { return e.UID[:] }},
	{Name: "error", Aliases: []string{"error_type"}, Type: Text, Lookup: true, column: "error_type",
		Doc: "type of the error", Examples: []string{"error:*Timeout*"},
		text: func(e *event) string { return e.ErrorType }},
	{Name: "dead_letter.source", Aliases: []string{"dead_letter_source", "dlq.source"}, Type: Text, Lookup: true, column: "dead_letter_source",
		Doc: "the channel it was dead-lettered from", Examples: []string{"dead_letter.source:orders.new"},
		text: func(e *event) string { return e.DeadLetterSource }},
	{Name: "dead_letter.reason", Aliases: []string{"dead_letter_reason", "dlq.reason", "reason"}, Type: Text, Lookup: true, column: "dead_letter_reason",
		Doc: "why it was dead-lettered", Examples: []string{"dead_letter.reason:rejected"},
		text: func(e *event) string { return e.DeadLetterReason }},
	{Name: "env", Aliases: []string{"environment"}, Type: Text, Lookup: true, column: "env", shared: true,
		Doc: "environment", Examples: []string{"env:production"},
		text: func(e *event) string { return e.Env }},
	{Name: "system", Type: Text, Lookup: true, column: "system", shared: true,
		Doc: "kind of broker", Examples: []string{"system:rabbitmq"},
		text: func(e *event) string { return e.System }},
	{Name: "broker", Type: Text, Lookup: true, column: "broker", shared: true,
		Doc: "the broker's configured name", Examples: []string{"broker:rabbit-eu1"},
		text: func(e *event) string { return e.Broker }},
	{Name: "group", Aliases: []string{"consumer_group"}, Type: Text, Lookup: true, column: "consumer_group",
		Doc: "consumer group", Examples: []string{"group:billing"},
		text: func(e *event) string { return e.ConsumerGroup }},
	{Name: "partition", Type: Text, column: "partition_id",
		Doc: "partition", Examples: []string{"partition:7"},
		text: func(e *event) string { return e.Partition }},
	{Name: "key", Aliases: []string{"routing_key"}, Type: Text, column: "routing_key",
		Doc: "routing key, subject or record key", Examples: []string{"key:customer-42"},
		text: func(e *event) string { return e.RoutingKey }},
	{Name: "position", Aliases: []string{"offset", "sequence"}, Type: Number, column: "position", guard: "position >= 0",
		Doc: "offset or sequence number within the channel", Examples: []string{"position BETWEEN 100 AND 200"},
		num: func(e *event) (int64, bool) { return e.Position, e.Position >= 0 }},
	{Name: "content_type", Type: Text, Lookup: true, column: "content_type",
		Doc: "content type", Examples: []string{"content_type:application/*"},
		text: func(e *event) string { return e.ContentType }},
	{Name: "content_encoding", Aliases: []string{"encoding"}, Type: Text, Lookup: true, column: "content_encoding",
		Doc: "content encoding", Examples: []string{"content_encoding:gzip"},
		text: func(e *event) string { return e.ContentEncoding }},
	{Name: "truncated", Type: Bool, column: "body_truncated",
		Doc: "the stored body is shorter than the true one", Examples: []string{"truncated:true"},
		num: func(e *event) (int64, bool) { return truth(e.Truncated), true }},
	{Name: "body_policy", Type: Enum, Values: policyNames, column: "toInt8(body_policy)",
		Doc: "what the agent's redaction kept of the body", Examples: []string{"body_policy:hash"},
		num: func(e *event) (int64, bool) { return int64(e.BodyPolicy), true }},
	{Name: "sha256", Aliases: []string{"body_sha256"}, Type: Text, column: "body_sha256",
		Doc: "SHA-256 of the true body, where the agent keeps it", Examples: []string{"sha256:9f86d0*"},
		text: func(e *event) string { return e.BodySHA256 }},
	{Name: "redacted", Type: List, column: "redacted",
		Doc: "names of the redaction rules that changed it", Examples: []string{"redacted:*", "redacted:card-number"},
		list: func(e *event) []string { return e.Redacted }},
	{Name: "tap", Type: Text, Lookup: true, column: "tap",
		Doc: "id of the tap that saw it; none for a service's own events", Examples: []string{"NOT tap:*"},
		text: func(e *event) string { return e.Tap }},
	{Name: "gap", Aliases: []string{"gap_before"}, Type: Number, column: "gap_before",
		Doc: "messages known to be lost just before it", Examples: []string{"gap > 0"},
		num: func(e *event) (int64, bool) { return e.GapBefore, true }},
	{Name: "time_source", Type: Enum, Values: sourceNames, column: "toInt8(time_source)", guard: "toInt8(time_source) != 0",
		Doc: "whose clock the time is from", Examples: []string{"time_source:agent"},
		num: func(e *event) (int64, bool) { return some(int64(e.TimeSource)) }},
	{Name: "agent_time", Type: Time, column: "toUnixTimestamp64Milli(agent_ts) * 1000000", guard: "toUnixTimestamp64Milli(agent_ts) != 0",
		Doc: "the agent's clock when it saw the message, in milliseconds", Examples: []string{"agent_time > now-1h"},
		num: func(e *event) (int64, bool) { return some(e.AgentTime / 1e6 * 1e6) }},
	{Name: "header.", Type: Dynamic, Lookup: true,
		Doc: "a header by its exact name; in quotes if it has unusual characters", Examples: []string{"header.x-tenant:acme", "header.retries > 3", `header."my header":*`}},
	{Name: "body.", Type: Dynamic,
		Doc: "a value in a JSON body", Examples: []string{"body.total BETWEEN 100 AND 5000", "body.items[0].sku:A-*", `body."strange key" = 'x'`}},
	{Name: "body", Type: Body,
		Doc: "the payload; a word or phrase is enough", Examples: []string{"timeout", `"card declined"`, "body:*declin*", `body ~ 'order [0-9]+'`}},
}

// base is the number of an enum's first value.
func (f *Field) base() int64 {
	if f.guard != "" {
		return 1
	}
	return 0
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

var (
	byName      = map[string]*Field{} // lower case, aliases included
	headerField *Field
	pathField   *Field
	bodyField   *Field
)

func init() {
	for i := range fields {
		f := &fields[i]
		switch f.Name {
		case "header.":
			headerField = f
		case "body.":
			pathField = f
		case "body":
			bodyField = f
			byName["body"] = f
		default:
			byName[strings.ToLower(f.Name)] = f
		}
		for _, a := range f.Aliases {
			byName[strings.ToLower(a)] = f
		}
	}
}
