package decode

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
)

var errShort = errors.New("it ends too early")

// msgpackTokens walks one MessagePack value. Scalars are read by msgp; the walk
// is our own, so that order, duplicates and bounds are kept.
func msgpackTokens(b []byte, lim Limits, partial bool) (*builder, error) {
	out := &builder{limit: lim.Values}
	rest, bad := b, 0
	for started := false; ; started = true {
		for f := out.top(); f != nil && f.left == 0; f = out.top() {
			out.finish()
		}
		if started && len(out.open) == 0 {
			break
		}
		next, err := msgpackItem(out, rest, partial, &bad)
		if err != nil {
			if partial && (errors.Is(err, errShort) || errors.Is(err, msgp.ErrShortBytes)) {
				return out, nil
			}
			if errors.Is(err, msgp.ErrShortBytes) {
				err = errShort
			}
			return nil, fmt.Errorf("byte %d: %w", len(b)-len(rest), err)
		}
		rest = next
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("byte %d: %s follow the value", len(b)-len(rest), bytesWords(len(rest)))
	}
	if bad > 0 {
		out.notes = append(out.notes, "some strings are not UTF-8")
	}
	return out, nil
}

func msgpackItem(out *builder, b []byte, partial bool, bad *int) ([]byte, error) {
	if len(b) == 0 {
		return nil, errShort
	}
	if c := b[0]; c >= 0xc7 && c <= 0xc9 || c >= 0xd4 && c <= 0xd8 {
		return msgpackExt(out, b)
	}
	fits := func(n uint64, rest []byte) error {
		if n > uint64(len(rest)) && !partial {
			return fmt.Errorf("%d values are announced and %s are left", n, bytesWords(len(rest)))
		}
		return nil
	}
	switch t := msgp.NextType(b); t {
	case msgp.MapType:
		n, rest, err := msgp.ReadMapHeaderBytes(b)
		if err == nil {
			err = fits(2*uint64(n), rest)
		}
		if err != nil {
			return nil, err
		}
		out.begin(frame{kind: '{', left: 2 * uint64(n)}, "{")
		return rest, nil
	case msgp.ArrayType:
		n, rest, err := msgp.ReadArrayHeaderBytes(b)
		if err == nil {
			err = fits(uint64(n), rest)
		}
		if err != nil {
			return nil, err
		}
		out.begin(frame{kind: '[', left: uint64(n)}, "[")
		return rest, nil
	case msgp.StrType:
		s, rest, err := msgp.ReadStringZC(b)
		if err != nil {
			return nil, err
		}
		if !utf8.Valid(s) {
			*bad++
		}
		out.scalar('"', quote(string(s)))
		return rest, nil
	case msgp.BinType:
		s, rest, err := msgp.ReadBytesZC(b)
		if err != nil {
			return nil, err
		}
		out.bytes(s)
		return rest, nil
	case msgp.IntType:
		n, rest, err := msgp.ReadInt64Bytes(b)
		if err != nil {
			return nil, err
		}
		out.scalar('0', strconv.FormatInt(n, 10))
		return rest, nil
	case msgp.UintType:
		n, rest, err := msgp.ReadUint64Bytes(b)
		if err != nil {
			return nil, err
		}
		out.scalar('0', strconv.FormatUint(n, 10))
		return rest, nil
	case msgp.Float32Type:
		f, rest, err := msgp.ReadFloat32Bytes(b)
		if err != nil {
			return nil, err
		}
		out.scalar('0', float(float64(f), 32))
		return rest, nil
	case msgp.Float64Type:
		f, rest, err := msgp.ReadFloat64Bytes(b)
		if err != nil {
			return nil, err
		}
		out.scalar('0', float(f, 64))
		return rest, nil
	case msgp.BoolType:
		v, rest, err := msgp.ReadBoolBytes(b)
		if err != nil {
			return nil, err
		}
		out.scalar('l', strconv.FormatBool(v))
		return rest, nil
	case msgp.NilType:
		out.scalar('l', "null")
		return b[1:], nil
	}
	return nil, fmt.Errorf("no value begins with %02x", b[0])
}

// msgpackExt reads an extension: a type number and bytes. Type -1 is a time.
func msgpackExt(out *builder, b []byte) ([]byte, error) {
	head, size := 2, 0
	switch c := b[0]; {
	case c >= 0xd4:
		size = 1 << (c - 0xd4)
	default:
		width := 1 << (c - 0xc7)
		if head = 2 + width; len(b) < head {
			return nil, errShort
		}
		for _, d := range b[1 : 1+width] {
			size = size<<8 | int(d)
		}
	}
	if len(b) < head || len(b)-head < size {
		return nil, errShort
	}
	kind, data := int8(b[head-1]), b[head:head+size]
	out.begin(frame{kind: '(', left: 1}, "ext "+strconv.Itoa(int(kind))+"(")
	out.bytes(data)
	out.finish()
	if kind == -1 {
		if t, ok := msgpackTime(data); ok {
			out.remark(t.UTC().Format(time.RFC3339Nano))
		}
	}
	return b[head+size:], nil
}

func msgpackTime(d []byte) (time.Time, bool) {
	switch len(d) {
	case 4:
		return time.Unix(int64(binary.BigEndian.Uint32(d)), 0), true
	case 8:
		v := binary.BigEndian.Uint64(d)
		return time.Unix(int64(v&(1<<34-1)), int64(v>>34)), v>>34 < 1e9
	case 12:
		ns, s := binary.BigEndian.Uint32(d), int64(binary.BigEndian.Uint64(d[4:]))
		return time.Unix(s, int64(ns)), ns < 1e9 && writable(s)
	}
	return time.Time{}, false
}

// writable says that a Unix time has a year of four digits.
func writable(s int64) bool { return s > -62135596800 && s < 253402300800 }

// maxBytesShown is how much of a byte string stands in a line.
const maxBytesShown = 64

func (b *builder) bytes(s []byte) {
	if len(s) <= maxBytesShown {
		b.scalar('b', "h'"+hex.EncodeToString(s)+"'")
		return
	}
	b.scalar('b', "h'"+hex.EncodeToString(s[:maxBytesShown])+"…'")
	b.remark("cut here: " + count(maxBytesShown) + " of " + bytesWords(len(s)) + " are shown")
}

func bytesWords(n int) string {
	if n == 1 {
		return "1 byte"
	}
	return count(n) + " bytes"
}

// float writes a float so that it is told from an integer.
func float(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	s := strconv.FormatFloat(f, 'g', -1, bits)
	for i := range len(s) {
		if s[i] == '.' || s[i] == 'e' {
			return s
		}
	}
	return s + ".0"
}

// quote writes a string in quotes, as JSON does, except that bytes that are not
// UTF-8 stay as they are.
func quote(s string) string {
	out := make([]byte, 0, len(s)+2)
	out = append(out, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			out = append(out, '\\', c)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		default:
			if c < 0x20 || c == 0x7f {
				out = append(out, fmt.Sprintf(`\u%04x`, c)...)
				continue
			}
			out = append(out, c)
		}
	}
	return string(append(out, '"'))
}
