package nats

import (
	"context"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// unpurgeable says why a stream cannot be purged.
func unpurgeable(c jetstream.StreamConfig) string {
	switch {
	case c.Sealed:
		return "the stream is sealed"
	case c.DenyPurge:
		return "the stream's configuration says deny_purge"
	}
	return ""
}

// Purge removes what a stream stores up to a sequence, in one operation of the
// server: what is published meanwhile stays. Without a sequence it is the last
// one there is now.
func (a *Adapter) Purge(ctx context.Context, channel, upTo string) (int64, error) {
	removed, err := a.purge(ctx, channel, upTo)
	if err != nil {
		return 0, fmt.Errorf("nats: purge %q: %w", channel, err)
	}
	return removed, nil
}

func (a *Adapter) purge(ctx context.Context, channel, upTo string) (int64, error) {
	p, err := a.place(ctx, channel)
	if err != nil {
		return 0, err
	}
	if err := p.onStream(nothingWaits); err != nil {
		return 0, err
	}
	if why := unpurgeable(p.config()); why != "" {
		return 0, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, why)
	}
	last := p.info.State.LastSeq
	if upTo != "" {
		bound, err := strconv.ParseUint(upTo, 10, 63)
		if err != nil {
			return 0, fmt.Errorf("%w: position %.40q: want a sequence", controlbus.ErrInvalid, upTo)
		}
		last = min(last, bound)
	}
	if last == 0 {
		return 0, nil // without a sequence the server would take everything
	}
	var answer struct {
		Success bool  `json:"success"`
		Purged  int64 `json:"purged"`
	}
	// The server's bound is the first sequence that stays.
	if err := a.call(ctx, p.nc, a.api()+".STREAM.PURGE."+p.config().Name, map[string]uint64{"seq": last + 1}, &answer); err != nil {
		return 0, err
	}
	if !answer.Success {
		return 0, fmt.Errorf("%w: the server did not purge and gives no reason", controlbus.ErrUnavailable)
	}
	return answer.Purged, nil
}
