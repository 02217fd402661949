package clickhouse

import (
	"encoding/binary"
	"hash/maphash"
	"math"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/storage"
)

// The columns ch-go lacks, or has only at the price of keeping a Go string per
// row. Everything appended here is copied, because the collector's strings are
// views into a buffer that it reuses.

// int64Col is an integer column under another name, such as DateTime64.
type int64Col struct {
	proto.ColInt64
	typ proto.ColumnType
}

func (c *int64Col) Type() proto.ColumnType { return c.typ }

// int8Col is an Int8 column under another name: an Enum8.
type int8Col struct {
	proto.ColInt8
	typ proto.ColumnType
}

func (c *int8Col) Type() proto.ColumnType { return c.typ }

const (
	typeTime9 proto.ColumnType = "DateTime64(9, 'UTC')"
	typeTime3 proto.ColumnType = "DateTime64(3, 'UTC')"

	typeOp      proto.ColumnType = "Enum8('unknown' = 0, 'create' = 1, 'send' = 2, 'receive' = 3, 'process' = 4, 'settle' = 5, 'tap' = 6)"
	typeOutcome proto.ColumnType = "Enum8('ok' = 0, 'failed' = 1, 'retried' = 2, 'dead_lettered' = 3, 'expired' = 4, 'detoured' = 5)"
	typeSource  proto.ColumnType = "Enum8('unknown' = 0, 'broker' = 1, 'producer' = 2, 'agent' = 3)"
	typePolicy  proto.ColumnType = "Enum8('full' = 0, 'metadata' = 1, 'hash' = 2)"
	typeKind    proto.ColumnType = "Enum8('unspecified' = 0, 'internal' = 1, 'server' = 2, 'client' = 3, 'producer' = 4, 'consumer' = 5)"
	typeStatus  proto.ColumnType = "Enum8('unset' = 0, 'ok' = 1, 'error' = 2)"
)

// boolCol is a Bool column.
type boolCol struct{ proto.ColUInt8 }

func (*boolCol) Type() proto.ColumnType { return proto.ColumnTypeBool }

func (c *boolCol) Append(v bool) {
	var b uint8
	if v {
		b = 1
	}
	c.ColUInt8.Append(b)
}

// uint16Col and uint32Col are Date and DateTime.
type uint16Col struct {
	proto.ColUInt16
	typ proto.ColumnType
}

func (c *uint16Col) Type() proto.ColumnType { return c.typ }

type uint32Col struct {
	proto.ColUInt32
	typ proto.ColumnType
}

func (c *uint32Col) Type() proto.ColumnType { return c.typ }

// lowCard is LowCardinality(String). It keeps each distinct value of the block
// once, in one buffer, behind an open-addressing table: no allocation per row
// even when a producer makes every value different.
type lowCard struct {
	values proto.ColStr // the dictionary
	hashes []uint64     // of the dictionary's values
	keys   []uint32     // one per row
	table  []uint32     // hash slot to dictionary index + 1
	mask   uint64
}

var lowCardSeed = maphash.MakeSeed()

const lowCardSlots = 64 // at least, and a power of two

func (c *lowCard) Append(v string) {
	// Runs of one value are the rule: neighbours share a channel.
	if n := len(c.keys); n > 0 {
		if last := c.keys[n-1]; string(c.values.RowBytes(int(last))) == v {
			c.keys = append(c.keys, last)
			return
		}
	}
	if c.table == nil {
		c.table, c.mask = make([]uint32, lowCardSlots), lowCardSlots-1
	}
	h := maphash.String(lowCardSeed, v)
	slot := h & c.mask
	for {
		i := c.table[slot]
		if i == 0 {
			break
		}
		if c.hashes[i-1] == h && string(c.values.RowBytes(int(i-1))) == v {
			c.keys = append(c.keys, i-1)
			return
		}
		slot = (slot + 1) & c.mask
	}
	c.values.Append(v)
	c.hashes = append(c.hashes, h)
	c.table[slot] = uint32(len(c.hashes))
	c.keys = append(c.keys, uint32(len(c.hashes)-1))
	if 2*len(c.hashes) > len(c.table) {
		c.grow()
	}
}

func (c *lowCard) grow() {
	c.table = make([]uint32, 2*len(c.table))
	c.mask = uint64(len(c.table) - 1)
	for i, h := range c.hashes {
		slot := h & c.mask
		for c.table[slot] != 0 {
			slot = (slot + 1) & c.mask
		}
		c.table[slot] = uint32(i + 1)
	}
}

func (c *lowCard) Reset() {
	c.values.Reset()
	c.hashes, c.keys = c.hashes[:0], c.keys[:0]
	clear(c.table)
}

func (c *lowCard) Type() proto.ColumnType { return "LowCardinality(String)" }
func (c *lowCard) Rows() int              { return len(c.keys) }

// EncodeState writes the version of the key serialization.
func (c *lowCard) EncodeState(b *proto.Buffer) { b.PutInt64(1) }

func (c *lowCard) EncodeColumn(b *proto.Buffer) {
	if len(c.keys) == 0 {
		return
	}
	const additionalKeys, updateDictionary = 1 << 9, 1 << 10
	n := len(c.hashes)
	width := int64(0)
	switch {
	case n > math.MaxUint16+1:
		width = 2
	case n > math.MaxUint8+1:
		width = 1
	}
	b.PutInt64(additionalKeys | updateDictionary | width)
	b.PutInt64(int64(n))
	c.values.EncodeColumn(b)
	b.PutInt64(int64(len(c.keys)))
	switch width {
	case 0:
		for _, k := range c.keys {
			b.Buf = append(b.Buf, byte(k))
		}
	case 1:
		for _, k := range c.keys {
			b.Buf = binary.LittleEndian.AppendUint16(b.Buf, uint16(k))
		}
	default:
		for _, k := range c.keys {
			b.Buf = binary.LittleEndian.AppendUint32(b.Buf, k)
		}
	}
}

func (c *lowCard) WriteColumn(w *proto.Writer) { w.ChainBuffer(c.EncodeColumn) }

// textMap is Map(LowCardinality(String), String). It keeps the order of the
// entries, and names that repeat.
type textMap struct {
	ends   proto.ColUInt64
	keys   lowCard
	values proto.ColStr
}

func (c *textMap) add(key, value string) {
	c.keys.Append(key)
	c.values.Append(value)
}

// end closes the row.
func (c *textMap) end() { c.ends.Append(uint64(c.keys.Rows())) }

func (c *textMap) Append(attrs []storage.Attr) {
	for i := range attrs {
		c.add(attrs[i].Key, attrs[i].Value)
	}
	c.end()
}

func (c *textMap) Reset() {
	c.ends.Reset()
	c.keys.Reset()
	c.values.Reset()
}

func (c *textMap) Type() proto.ColumnType      { return "Map(LowCardinality(String), String)" }
func (c *textMap) Rows() int                   { return len(c.ends) }
func (c *textMap) EncodeState(b *proto.Buffer) { c.keys.EncodeState(b) }
func (c *textMap) WriteColumn(w *proto.Writer) { w.ChainBuffer(c.EncodeColumn) }
func (c *textMap) EncodeColumn(b *proto.Buffer) {
	c.ends.EncodeColumn(b)
	c.keys.EncodeColumn(b)
	c.values.EncodeColumn(b)
}

// bucketMap is Map(UInt8, UInt64): a latency histogram.
type bucketMap struct {
	ends   proto.ColUInt64
	keys   proto.ColUInt8
	values proto.ColUInt64
}

// Append adds the buckets in rising order, so that equal panes make equal
// bytes whatever order Go's map has.
func (c *bucketMap) Append(m map[uint8]uint64) {
	if len(m) > 0 {
		for k := range 256 {
			if n, ok := m[uint8(k)]; ok {
				c.keys.Append(uint8(k))
				c.values.Append(n)
			}
		}
	}
	c.ends.Append(uint64(len(c.keys)))
}

func (c *bucketMap) Reset() {
	c.ends.Reset()
	c.keys.Reset()
	c.values.Reset()
}

func (c *bucketMap) Type() proto.ColumnType      { return "Map(UInt8, UInt64)" }
func (c *bucketMap) Rows() int                   { return len(c.ends) }
func (c *bucketMap) WriteColumn(w *proto.Writer) { w.ChainBuffer(c.EncodeColumn) }
func (c *bucketMap) EncodeColumn(b *proto.Buffer) {
	c.ends.EncodeColumn(b)
	c.keys.EncodeColumn(b)
	c.values.EncodeColumn(b)
}

// array is Array(T) over any column here. Append to inner, then end the row.
type array[C interface {
	proto.ColInput
	Reset()
}] struct {
	ends  proto.ColUInt64
	inner C
}

func (c *array[C]) end() { c.ends.Append(uint64(c.inner.Rows())) }

func (c *array[C]) Reset() {
	c.ends.Reset()
	c.inner.Reset()
}

func (c *array[C]) Type() proto.ColumnType      { return c.inner.Type().Array() }
func (c *array[C]) Rows() int                   { return len(c.ends) }
func (c *array[C]) WriteColumn(w *proto.Writer) { w.ChainBuffer(c.EncodeColumn) }
func (c *array[C]) EncodeColumn(b *proto.Buffer) {
	c.ends.EncodeColumn(b)
	c.inner.EncodeColumn(b)
}

func (c *array[C]) EncodeState(b *proto.Buffer) {
	if s, ok := any(c.inner).(proto.StateEncoder); ok {
		s.EncodeState(b)
	}
}
