package telemetry

import (
	"encoding/binary"
	"unsafe"
)

// Protobuf wire types.
const (
	typeVarint     = 0
	typeI64        = 1
	typeLen        = 2
	typeStartGroup = 3
	typeEndGroup   = 4
	typeI32        = 5
)

// wire reads protobuf fields. The first mistake ends reading and stays in bad.
// It accepts exactly what pdata accepts.
type wire struct {
	b   []byte
	i   int
	bad bool
}

func (w *wire) fail() { w.bad, w.i = true, len(w.b) }

// next reads a tag; ok is false at the end and after a mistake.
func (w *wire) next() (field int32, typ int8, ok bool) {
	if w.i >= len(w.b) {
		return 0, 0, false
	}
	tag := w.varint()
	field = int32(tag >> 3)
	if w.bad || field <= 0 {
		w.fail()
		return 0, 0, false
	}
	return field, int8(tag & 7), true
}

func (w *wire) varint() uint64 {
	if w.i < len(w.b) && w.b[w.i] < 0x80 {
		w.i++
		return uint64(w.b[w.i-1])
	}
	var n uint64
	for shift := uint(0); shift < 64; shift += 7 {
		if w.i >= len(w.b) {
			break
		}
		c := w.b[w.i]
		w.i++
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	w.fail()
	return 0
}

func (w *wire) fixed64() uint64 {
	if len(w.b)-w.i < 8 {
		w.fail()
		return 0
	}
	w.i += 8
	return binary.LittleEndian.Uint64(w.b[w.i-8:])
}

func (w *wire) bytes() []byte {
	n := w.varint()
	if w.bad || n > uint64(len(w.b)-w.i) {
		w.fail()
		return nil
	}
	w.i += int(n)
	return w.b[w.i-int(n) : w.i : w.i]
}

// lengthDelimited reads the bytes of a field that must be of that type.
func (w *wire) lengthDelimited(typ int8) []byte {
	if typ != typeLen {
		w.fail()
		return nil
	}
	return w.bytes()
}

// expect fails unless the field has the type it should have.
func (w *wire) expect(have, want int8) bool {
	if have != want {
		w.fail()
		return false
	}
	return true
}

// skip steps over an unknown field. Groups, which OTLP never had, are treated
// as pdata treats them, oddities included, so that both refuse the same bytes.
func (w *wire) skip(typ int8) {
	depth := 0
	for w.i < len(w.b) {
		switch typ {
		case typeVarint:
			w.varint()
			return
		case typeI64:
			w.fixed64()
			return
		case typeLen:
			w.bytes()
			return
		case typeI32:
			if len(w.b)-w.i < 4 {
				w.fail()
				return
			}
			w.i += 4
			return
		case typeStartGroup:
			depth++
		case typeEndGroup:
			if depth == 0 {
				w.fail()
				return
			}
			depth--
		default:
			w.fail()
			return
		}
		if depth == 0 {
			return
		}
		if _, typ, _ = w.next(); w.bad {
			return
		}
	}
	w.fail()
}

// view is b as a string without a copy: valid as long as b is unchanged.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Field tags with their types, for the encoder.
func appendTag(dst []byte, field int, typ byte) []byte {
	return binary.AppendUvarint(dst, uint64(field)<<3|uint64(typ))
}

func appendBytes[T string | []byte](dst []byte, field int, b T) []byte {
	dst = appendTag(dst, field, typeLen)
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func appendFixed64(dst []byte, field int, n uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendTag(dst, field, typeI64), n)
}

func sizeVarint(n uint64) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// sizeBytes is what a length-delimited field with a one-byte tag takes.
func sizeBytes(n int) int { return 1 + sizeVarint(uint64(n)) + n }

func appendVarint(dst []byte, field int, n uint64) []byte {
	return binary.AppendUvarint(appendTag(dst, field, typeVarint), n)
}

// raw is s as bytes without a copy, for reading only.
func raw(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
