package nats

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/signalbox-dev/signalbox/agents"
)

// maxPeek is the most messages one look shows.
const maxPeek = 50

// Peek reads a stream's first messages. It leaves no traces.
func (a *Adapter) Peek(ctx context.Context, channel string, n int, _ bool) ([]*agents.Message, string, error) {
	n = max(1, min(n, maxPeek))
	in, err := a.Intake(ctx, channel, agents.IntakeOptions{Window: n, Copy: true})
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = in.Close(ctx) }()
	var out []*agents.Message
	for len(out) < n {
		msgs, err := in.Next(ctx, n-len(out))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, "", fmt.Errorf("nats: peek into %q: %w", channel, err)
		}
		out = append(out, msgs...)
	}
	return out, "", nil
}
