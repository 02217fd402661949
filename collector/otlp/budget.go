package otlp

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// budget bounds the bytes that all requests in flight hold. It refuses instead
// of queueing: the sender has the data and knows how to wait.
type budget struct {
	limit int64
	used  atomic.Int64
}

func (b *budget) take(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.used.Add(-n) }

var errBudget = &collector.RetryError{
	After: time.Second,
	Err:   fmt.Errorf("otlp: too much telemetry is in flight: %w", controlbus.ErrOverloaded),
}

// body is a request body in memory, paid for by the budget.
type body struct {
	bytes  []byte
	paid   int64
	budget *budget
}

const readStep = 64 << 10

// read takes in all of src, at most limit bytes, paying for each step before it
// reads it. A body over limit is controlbus.ErrTooLarge; a source that breaks off
// or cannot be decompressed is controlbus.ErrInvalid.
func (b *budget) read(src io.Reader, limit int64) (*body, error) {
	got := &body{budget: b}
	for {
		if len(got.bytes) == cap(got.bytes) {
			step := min(int64(max(2*cap(got.bytes), readStep)), limit+1)
			if !b.take(step) {
				got.release()
				return nil, errBudget
			}
			grown := make([]byte, len(got.bytes), step)
			copy(grown, got.bytes)
			b.give(got.paid)
			got.bytes, got.paid = grown, step
		}
		n, err := src.Read(got.bytes[len(got.bytes):cap(got.bytes)])
		got.bytes = got.bytes[:len(got.bytes)+n]
		switch {
		case int64(len(got.bytes)) > limit:
			got.release()
			return nil, fmt.Errorf("otlp: request is over %d bytes when decompressed: %w", limit, controlbus.ErrTooLarge)
		case errors.Is(err, io.EOF):
			return got, nil
		case err != nil:
			got.release()
			return nil, fmt.Errorf("otlp: request did not arrive whole: %w: %w", controlbus.ErrInvalid, err)
		}
	}
}

func (b *body) release() {
	b.budget.give(b.paid)
	b.bytes, b.paid = nil, 0
}
