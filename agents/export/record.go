package export

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// signal says to which endpoint a record goes. The numbers are on disk.
type signal byte

const (
	logs    signal = 1
	metrics signal = 2
	records signal = 3 // logs that are no message events: they are not counted as such
)

func (s signal) path() string {
	if s == metrics {
		return "/v1/metrics"
	}
	return "/v1/logs"
}

// record is one batch as the spool holds it. The positions its messages reach
// are in the same record, so that a message is durable exactly when the
// position behind it is.
type record struct {
	signal    signal
	count     int
	positions map[string]Position // of resumable taps, as far as this batch moved them
	body      []byte              // an OTLP request, zstd
}

const recordVersion = 1

func appendRecord(dst []byte, r record) ([]byte, error) {
	dst = append(dst, recordVersion, byte(r.signal))
	dst = binary.AppendUvarint(dst, uint64(r.count))
	var pos []byte
	if len(r.positions) > 0 {
		var err error
		if pos, err = json.Marshal(r.positions); err != nil {
			return nil, fmt.Errorf("export: encode positions: %w", err)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(pos)))
	dst = append(dst, pos...)
	return append(dst, r.body...), nil
}

// parseRecord reads a record; its body is a view into b.
func parseRecord(b []byte) (record, error) {
	bad := func(what string) (record, error) {
		return record{}, errors.New("export: spool record: " + what)
	}
	if len(b) < 2 || b[0] != recordVersion {
		return bad("unknown version")
	}
	r := record{signal: signal(b[1])}
	if r.signal < logs || r.signal > records {
		return bad("unknown signal")
	}
	b = b[2:]
	count, n := binary.Uvarint(b)
	if n <= 0 {
		return bad("no count")
	}
	r.count, b = int(count), b[n:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return bad("no positions")
	}
	pos := b[n : n+int(size)]
	r.body = b[n+int(size):]
	if len(pos) > 0 {
		if err := json.Unmarshal(pos, &r.positions); err != nil {
			return bad("positions: " + err.Error())
		}
	}
	return r, nil
}
