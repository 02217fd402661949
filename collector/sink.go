// Package collector takes telemetry in, keeps it in a durable queue and hands
// it to a Sink in blocks that are written exactly once.
package collector

import (
	"context"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Sink is the store as the collector needs it.
type Sink interface {
	// NewBatch returns an empty batch. Batches are reused through Reset and
	// used by one goroutine at a time.
	NewBatch() Batch
	// Write stores the batch. Token names the batch's content for ever: a
	// second Write with the same token and content stores nothing twice, also
	// after a crash in the middle of the first. Rows of different days are
	// split by the sink. It blocks until the store has everything, and returns
	// nil only then. Errors wrap controlbus.ErrUnavailable when the same write
	// may succeed later, controlbus.ErrInvalid when this content never will.
	Write(ctx context.Context, token string, b Batch) error
}

// Batch collects rows column by column. Append methods copy what they keep.
type Batch interface {
	AppendMessage(*controlbus.MessageEvent)
	AppendLog(*storage.Log)
	AppendSpan(*storage.Span)
	AppendResource(*storage.Resource, int64) // with the time it was seen
	AppendSample(*storage.Sample)
	AppendPane(*storage.Pane)
	AppendInvalid(*storage.Invalid)
	// Rows and Bytes are what has been appended since Reset, bytes roughly.
	Rows() int
	Bytes() int
	Reset()
}
