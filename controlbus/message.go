package controlbus

import "strings"

import "fmt"

// MessageEvent is one observation of one message: a tap saw it pass, or a
// service said that it sent, received, processed or settled it.
//
// Agents fill it from a broker and send it as an OTLP log record; the
// collector reads it back (package controlbus/telemetry does both). Its strings may be
// views into a buffer that is reused: whoever keeps an event beyond the call
// that handed it over must Clone it.
//
// Times are nanoseconds since the Unix epoch, 0 where unknown.
type MessageEvent struct {
	UID  ID    // identity of this observation, stable across retries and re-sends
	Time int64 // event time: the broker's, else the producer's, else the agent's
	// AgentTime is the agent's clock when it saw the message.
	AgentTime  int64
	TimeSource TimeSource

	Env         string // deployment.environment.name
	System      string // messaging.system, such as "rabbitmq"
	Broker      string // configured name of the broker, such as "rabbit-eu1"
	Destination string // messaging.destination.name: the channel
	Op          Op
	Outcome     Outcome

	Service       string // who sent or processed it, where the broker or SDK knows
	ConsumerGroup string
	Partition     string
	RoutingKey    string // RabbitMQ routing key, NATS subject, Kafka key, ...
	Position      int64  // offset, sequence or delivery number within the channel; -1 unknown
	Delivery      int    // how often it has been delivered, 1 for the first; 0 unknown

	MessageID     string
	CorrelationID string
	CausationID   string // message id of the message that caused this one
	ReplyTo       string // EIP Return Address
	TraceID       [16]byte
	SpanID        [8]byte

	LatencyNs int64  // duration of the operation, 0 unknown
	ErrorType string // error.type, or the dead-letter reason

	DeadLetterSource string // channel it was dead-lettered from
	DeadLetterReason string

	ContentType     string
	ContentEncoding string
	// Headers are the broker's properties and headers in their order, values
	// as text; nested ones are flattened (x-death[0].reason). Names may repeat.
	Headers []Header

	Body       []byte     // payload as the broker carried it, maybe cut or absent
	BodySize   int64      // true size in bytes, before any cut
	BodyPolicy BodyPolicy // what the agent's redaction kept of the body
	Truncated  bool       // Body is shorter than BodySize because of the size cap
	BodySHA256 string     // hex, over the true body; only where the policy asks

	Tap       string   // id of the tap that saw it, empty for a service's own events
	GapBefore int64    // messages known to be lost between this and the one before
	Redacted  []string // names of the redaction rules that changed it
}

// Header is one property or header of a message.
type Header struct{ Key, Value string }

// Op is what was done to the message. The numbers are stored; do not renumber.
type Op uint8

// Operations, after messaging.operation.type; OpTap is our own: a wire tap saw
// it on the channel.
const (
	OpUnknown Op = iota
	OpCreate
	OpSend
	OpReceive
	OpProcess
	OpSettle
	OpTap
)

var opNames = [...]string{"unknown", "create", "send", "receive", "process", "settle", "tap"}

func (o Op) String() string { return name(opNames[:], int(o)) }

// ParseOp reads messaging.operation.type, old names (publish, deliver)
// included. Anything else is OpUnknown.
func ParseOp(s string) Op {
	switch s {
	case "publish":
		return OpSend
	case "deliver":
		return OpProcess
	}
	return Op(index(opNames[:], s))
}

// Outcome is how the operation ended. The numbers are stored.
type Outcome uint8

// Outcomes.
const (
	OutcomeOK Outcome = iota
	OutcomeFailed
	OutcomeRetried
	OutcomeDeadLettered
	OutcomeExpired
	OutcomeDetoured
)

var outcomeNames = [...]string{"ok", "failed", "retried", "dead_lettered", "expired", "detoured"}

func (o Outcome) String() string { return name(outcomeNames[:], int(o)) }

// ParseOutcome reads an outcome's name; anything else is OutcomeOK.
func ParseOutcome(s string) Outcome { return Outcome(index(outcomeNames[:], s)) }

// TimeSource says whose clock MessageEvent.Time is from.
type TimeSource uint8

// Time sources, best first.
const (
	TimeUnknown TimeSource = iota
	TimeBroker
	TimeProducer
	TimeAgent
)

var timeSourceNames = [...]string{"unknown", "broker", "producer", "agent"}

func (t TimeSource) String() string { return name(timeSourceNames[:], int(t)) }

// ParseTimeSource reads a source's name; anything else is TimeUnknown.
func ParseTimeSource(s string) TimeSource { return TimeSource(index(timeSourceNames[:], s)) }

// BodyPolicy says what of a body leaves the agent.
type BodyPolicy uint8

// Body policies. BodyFull is the zero value of an event that nothing redacted.
const (
	BodyFull     BodyPolicy = iota
	BodyMetadata            // size only
	BodyHash                // size and SHA-256
)

var bodyPolicyNames = [...]string{"full", "metadata", "hash"}

func (b BodyPolicy) String() string { return name(bodyPolicyNames[:], int(b)) }

// ParseBodyPolicy reads a policy's name and says whether it is one.
func ParseBodyPolicy(s string) (BodyPolicy, bool) {
	i := index(bodyPolicyNames[:], s)
	return BodyPolicy(i), i != 0 || s == bodyPolicyNames[0]
}

// MarshalText serves JSON, YAML and every other text encoding.
func (b BodyPolicy) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText reads a policy's name. Errors are ErrInvalid.
func (b *BodyPolicy) UnmarshalText(text []byte) error {
	p, ok := ParseBodyPolicy(string(text))
	if !ok {
		return fmt.Errorf("%w: body policy %.32q: want full, metadata or hash", ErrInvalid, text)
	}
	*b = p
	return nil
}

func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return names[0]
}

func index(names []string, s string) int {
	for i, n := range names {
		if n == s {
			return i
		}
	}
	return 0
}

// Clone returns a copy that shares nothing with e, in few allocations: all
// strings are views into one buffer of the copy's own.
func (e *MessageEvent) Clone() *MessageEvent {
	c := *e
	n := 0
	c.eachString(func(s *string) { n += len(*s) })
	c.Headers = append([]Header(nil), e.Headers...)
	c.Redacted = append([]string(nil), e.Redacted...)
	for i := range c.Headers {
		n += len(c.Headers[i].Key) + len(c.Headers[i].Value)
	}
	for _, r := range c.Redacted {
		n += len(r)
	}
	var b strings.Builder
	b.Grow(n)
	keep := func(s *string) {
		at := b.Len()
		b.WriteString(*s)
		*s = b.String()[at:]
	}
	c.eachString(keep)
	for i := range c.Headers {
		keep(&c.Headers[i].Key)
		keep(&c.Headers[i].Value)
	}
	for i := range c.Redacted {
		keep(&c.Redacted[i])
	}
	if e.Body != nil {
		c.Body = append([]byte{}, e.Body...)
	}
	return &c
}

func (e *MessageEvent) eachString(f func(*string)) {
	for _, s := range [...]*string{
		&e.Env, &e.System, &e.Broker, &e.Destination, &e.Service, &e.ConsumerGroup, &e.Partition, &e.RoutingKey,
		&e.MessageID, &e.CorrelationID, &e.CausationID, &e.ReplyTo, &e.ErrorType,
		&e.DeadLetterSource, &e.DeadLetterReason, &e.ContentType, &e.ContentEncoding, &e.BodySHA256, &e.Tap,
	} {
		f(s)
	}
}
