package collector

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// A request in the durable queue: version byte, signal byte, then as varints
// received (Unix ns), sent (Unix ns), batch, length of sender; sender; payload.
const entryVersion = 1

func appendEntry(dst []byte, r Request) []byte {
	dst = append(dst, entryVersion, byte(r.Signal))
	dst = binary.AppendVarint(dst, r.ReceivedAt.UnixNano())
	dst = binary.AppendVarint(dst, r.SentAt)
	dst = binary.AppendUvarint(dst, r.Batch)
	dst = binary.AppendUvarint(dst, uint64(len(r.Sender)))
	dst = append(dst, r.Sender...)
	return append(dst, r.Payload...)
}

// parseEntry reads what appendEntry wrote. Sender and Payload are views.
func parseEntry(b []byte) (Request, error) {
	bad := fmt.Errorf("collector: queue entry: %w", controlbus.ErrInvalid)
	if len(b) < 2 || b[0] != entryVersion {
		return Request{}, bad
	}
	r := Request{Signal: Signal(b[1])}
	b = b[2:]
	received, n := binary.Varint(b)
	if n <= 0 {
		return Request{}, bad
	}
	b = b[n:]
	if r.SentAt, n = binary.Varint(b); n <= 0 {
		return Request{}, bad
	}
	b = b[n:]
	if r.Batch, n = binary.Uvarint(b); n <= 0 {
		return Request{}, bad
	}
	b = b[n:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return Request{}, bad
	}
	b = b[n:]
	r.Sender, r.Payload = string(b[:size]), b[size:]
	r.ReceivedAt = time.Unix(0, received)
	return r, nil
}
