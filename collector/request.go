package collector

import (
	"fmt"
	"time"
)

// Signal is one of OTLP's three kinds of telemetry. The numbers are written to
// the durable queue; do not renumber.
type Signal uint8

// Signals.
const (
	Logs Signal = iota + 1 // message events among them
	Traces
	Metrics
)

func (s Signal) String() string {
	switch s {
	case Logs:
		return "logs"
	case Traces:
		return "traces"
	case Metrics:
		return "metrics"
	}
	return fmt.Sprintf("signal %d", uint8(s))
}

// Request is one OTLP export request as it arrived.
type Request struct {
	Signal  Signal
	Payload []byte // Export…ServiceRequest in protobuf, decompressed
	// Sender and Batch number the request for the Idempotent Receiver. An empty
	// Sender means a client that does not number its batches.
	Sender string
	Batch  uint64
	// SentAt is the sender's clock in Unix nanoseconds, 0 unknown.
	SentAt     int64
	ReceivedAt time.Time
}

// Result of a request that was acknowledged.
type Result struct {
	// Rejected counts records that can never be stored; they are in the invalid
	// message channel, and the sender must not send them again.
	Rejected int64
	Reason   string // of the first of them
	// Duplicate says that this batch had been acknowledged before.
	Duplicate bool
}

// RetryError is a refusal that ends by itself. It wraps
// controlbus.ErrOverloaded or controlbus.ErrUnavailable.
type RetryError struct {
	After time.Duration // when a new attempt makes sense
	Err   error
}

func (e *RetryError) Error() string { return e.Err.Error() }
func (e *RetryError) Unwrap() error { return e.Err }
