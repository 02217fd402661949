package spool

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
)

// Position is a byte offset over the whole life of a log. Positions rise with
// gaps; only those the log gave out mean anything.
type Position int64

// ID names a log for ever: it is made at random when the log is.
type ID [16]byte

// String writes the id as a UUID.
func (id ID) String() string {
	h := hex.EncodeToString(id[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Layout of a segment, little endian:
//
//	header   magic[8] id[16] base[8] crc[4] 0[4]
//	record   magic[4] length[4] position[8] payloadCRC[4] headerCRC[4] payload pad
//
// A gap record has the length of a damaged stretch that was put aside; its
// payload is whatever lies there.
const (
	segmentHeader = 40
	recordHeader  = 24
	align         = 8

	magicRecord = 0x64524253 // "SBRd"
	magicGap    = 0x67524253 // "SBRg"
)

var (
	segmentMagic = [8]byte{'S', 'B', 'S', 'P', 'O', 'O', 'L', '1'}
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

func recordSize(payload int) int64 {
	return int64(recordHeader+payload+align-1) &^ (align - 1)
}

func (id ID) seed() uint32 { return crc32.Checksum(id[:], castagnoli) }

func appendSegmentHeader(dst []byte, id ID, base Position) []byte {
	start := len(dst)
	dst = append(dst, segmentMagic[:]...)
	dst = append(dst, id[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(base))
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
	return append(dst, 0, 0, 0, 0)
}

// parseSegmentHeader returns the id and base of a whole header.
func parseSegmentHeader(b []byte) (id ID, base Position, ok bool) {
	if len(b) < segmentHeader || [8]byte(b[:8]) != segmentMagic ||
		crc32.Checksum(b[:32], castagnoli) != binary.LittleEndian.Uint32(b[32:]) {
		return id, 0, false
	}
	return ID(b[8:24]), Position(binary.LittleEndian.Uint64(b[24:])), true
}

func appendRecordHeader(dst []byte, seed uint32, magic uint32, pos Position, length int, payloadCRC uint32) []byte {
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(length))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(pos))
	dst = binary.LittleEndian.AppendUint32(dst, payloadCRC)
	return binary.LittleEndian.AppendUint32(dst, crc32.Update(seed, castagnoli, dst[start:]))
}

type recordHead struct {
	gap    bool
	length int
	crc    uint32
}

func (h recordHead) size() int64 { return recordSize(h.length) }

// parseRecordHeader says whether b begins with the header of the record at pos.
func parseRecordHeader(b []byte, seed uint32, pos Position) (h recordHead, ok bool) {
	if len(b) < recordHeader {
		return h, false
	}
	magic := binary.LittleEndian.Uint32(b)
	if magic != magicRecord && magic != magicGap {
		return h, false
	}
	if Position(binary.LittleEndian.Uint64(b[8:])) != pos ||
		crc32.Update(seed, castagnoli, b[:20]) != binary.LittleEndian.Uint32(b[20:]) {
		return h, false
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > maxSegment || magic == magicRecord && n > MaxRecord {
		return h, false
	}
	return recordHead{gap: magic == magicGap, length: int(n), crc: binary.LittleEndian.Uint32(b[16:])}, true
}

var zeros [align]byte

func segmentName(base Position) string { return fmt.Sprintf("%020d.seg", int64(base)) }

func parseSegmentName(name string) (Position, bool) {
	if len(name) != 24 || name[20:] != ".seg" {
		return 0, false
	}
	var n int64
	for _, c := range []byte(name[:20]) {
		if c < '0' || c > '9' || n > (1<<62)/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return Position(n), n%align == 0
}
