package archive

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// The encoding of a message: its fields in the order of agents.Message, numbers as
// varints, texts with their length before them, header values with a letter for
// their kind. The version stands first; fields are only ever added at the end.
const version = 1

// maxDepth bounds how deep lists and maps of headers nest: producers write them.
const maxDepth = 32

// appendMessage encodes m. Values of a kind that agents.Message does not name are
// an error: a copy that is not true is none.
func appendMessage(b []byte, m *agents.Message) (_ []byte, err error) {
	b = append(b, version)
	b = appendTime(b, m.Time)
	for _, s := range [...]string{m.Position, m.MessageID, m.CorrelationID, m.ReplyTo, m.Type, m.AppID, m.ContentType, m.ContentEncoding, m.Key} {
		b = appendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Headers)))
	for _, h := range m.Headers {
		b = appendText(b, h.Key)
		if b, err = appendValue(b, h.Value, 0); err != nil {
			return nil, fmt.Errorf("archive: header %.80q: %w", h.Key, err)
		}
	}
	b = appendText(b, m.Body)
	b = binary.AppendVarint(b, int64(m.TTL))
	b = binary.AppendVarint(b, int64(m.Priority))
	b = append(b, flag(m.Persistent))
	return binary.AppendVarint(b, int64(m.Deliveries)), nil
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendTime writes seconds and nanoseconds: a header may hold a year that
// nanoseconds alone cannot reach.
func appendTime(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	b = append(b, 1)
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}

func appendValue(b []byte, v any, depth int) (_ []byte, err error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%w: nested deeper than %d", controlbus.ErrInvalid, maxDepth)
	}
	switch v := v.(type) {
	case nil:
		return append(b, 'n'), nil
	case bool:
		return append(b, 't', flag(v)), nil
	case int8:
		return binary.AppendVarint(append(b, 'a'), int64(v)), nil
	case int16:
		return binary.AppendVarint(append(b, 'b'), int64(v)), nil
	case int32:
		return binary.AppendVarint(append(b, 'c'), int64(v)), nil
	case int64:
		return binary.AppendVarint(append(b, 'd'), v), nil
	case int:
		return binary.AppendVarint(append(b, 'i'), int64(v)), nil
	case uint8:
		return binary.AppendUvarint(append(b, 'A'), uint64(v)), nil
	case uint16:
		return binary.AppendUvarint(append(b, 'B'), uint64(v)), nil
	case uint32:
		return binary.AppendUvarint(append(b, 'C'), uint64(v)), nil
	case uint64:
		return binary.AppendUvarint(append(b, 'D'), v), nil
	case float32:
		return binary.LittleEndian.AppendUint32(append(b, 'f'), math.Float32bits(v)), nil
	case float64:
		return binary.LittleEndian.AppendUint64(append(b, 'F'), math.Float64bits(v)), nil
	case string:
		return appendText(append(b, 's'), v), nil
	case []byte:
		return appendText(append(b, 'x'), v), nil
	case time.Time:
		return appendTime(append(b, 'T'), v), nil
	case []any:
		b = binary.AppendUvarint(append(b, 'l'), uint64(len(v)))
		for _, e := range v {
			if b, err = appendValue(b, e, depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	case map[string]any:
		b = binary.AppendUvarint(append(b, 'm'), uint64(len(v)))
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys) // the same message is the same bytes
		for _, k := range keys {
			b = appendText(b, k)
			if b, err = appendValue(b, v[k], depth+1); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	return nil, fmt.Errorf("%w: a value of type %T cannot be kept as it is", controlbus.ErrUnsupported, v)
}

// decoder reads what was written. The first thing that is not whole makes it bad,
// and everything after it empty.
type decoder struct {
	b   []byte
	bad bool
}

func parseMessage(b []byte) (*agents.Message, error) {
	if len(b) == 0 || b[0] != version {
		return nil, fmt.Errorf("archive: message: %w: version is not %d", controlbus.ErrUnsupported, version)
	}
	d := &decoder{b: b[1:]}
	m := &agents.Message{Time: d.time()}
	for _, s := range [...]*string{&m.Position, &m.MessageID, &m.CorrelationID, &m.ReplyTo, &m.Type, &m.AppID, &m.ContentType, &m.ContentEncoding, &m.Key} {
		*s = string(d.bytes())
	}
	if n := d.count(2); n > 0 {
		m.Headers = make([]agents.Field, 0, n)
		for range n {
			m.Headers = append(m.Headers, agents.Field{Key: string(d.bytes()), Value: d.value(0)})
		}
	}
	if body := d.bytes(); body != nil {
		m.Body = append([]byte{}, body...)
	}
	m.TTL, m.Priority, m.Persistent, m.Deliveries = time.Duration(d.varint()), int(d.varint()), d.byte() == 1, int(d.varint())
	if d.bad {
		return nil, fmt.Errorf("archive: message: %w: it is not whole", controlbus.ErrInvalid)
	}
	return m, nil
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many of something of at least size bytes follow.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

// bytes is a view into what is decoded.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if d.bad || n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) fixed(n int) []byte {
	if len(d.b) < n {
		d.fail()
		return make([]byte, n)
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) time() time.Time {
	if d.byte() == 0 {
		return time.Time{}
	}
	s, ns := d.varint(), d.uvarint()
	if ns >= uint64(time.Second) {
		d.fail()
		return time.Time{}
	}
	return time.Unix(s, int64(ns)).UTC()
}

func (d *decoder) value(depth int) any {
	if depth > maxDepth {
		d.fail()
		return nil
	}
	switch d.byte() {
	case 'n':
		return nil
	case 't':
		return d.byte() == 1
	case 'a':
		return int8(d.varint())
	case 'b':
		return int16(d.varint())
	case 'c':
		return int32(d.varint())
	case 'd':
		return d.varint()
	case 'i':
		return int(d.varint())
	case 'A':
		return uint8(d.uvarint())
	case 'B':
		return uint16(d.uvarint())
	case 'C':
		return uint32(d.uvarint())
	case 'D':
		return d.uvarint()
	case 'f':
		return math.Float32frombits(binary.LittleEndian.Uint32(d.fixed(4)))
	case 'F':
		return math.Float64frombits(binary.LittleEndian.Uint64(d.fixed(8)))
	case 's':
		return string(d.bytes())
	case 'x':
		return append([]byte{}, d.bytes()...)
	case 'T':
		return d.time()
	case 'l':
		n := d.count(1)
		list := make([]any, 0, n)
		for range n {
			list = append(list, d.value(depth+1))
		}
		return list
	case 'm':
		n := d.count(2)
		m := make(map[string]any, n)
		for range n {
			k := string(d.bytes())
			m[k] = d.value(depth + 1)
		}
		return m
	}
	d.fail()
	return nil
}
