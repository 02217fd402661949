package spool

import (
	"errors"
	"hash/crc32"
	"io"
)

// window reads a file forward through a buffer.
type window struct {
	file  File
	limit int64 // nothing is read at or behind it
	off   int64 // file offset of buf[0]
	buf   []byte
}

const windowBytes = 256 << 10

// bytes returns n bytes at off, or fewer where the limit comes first. They are
// valid until the next call.
func (w *window) bytes(off int64, n int64) ([]byte, error) {
	n = max(0, min(n, w.limit-off))
	if off >= w.off && off+n <= w.off+int64(len(w.buf)) {
		return w.buf[off-w.off:][:n], nil
	}
	want := max(n, min(windowBytes, w.limit-off))
	keep := 0
	if i := off - w.off; i >= 0 && i < int64(len(w.buf)) {
		keep = copy(w.buf, w.buf[i:])
	}
	if int64(cap(w.buf)) < want {
		grown := make([]byte, want)
		copy(grown, w.buf[:keep])
		w.buf = grown
	}
	w.buf, w.off = w.buf[:want], off
	m, err := w.file.ReadAt(w.buf[keep:], off+int64(keep))
	w.buf = w.buf[:keep+m]
	if err != nil && (!errors.Is(err, io.EOF) || int64(len(w.buf)) < n) {
		return nil, err
	}
	return w.buf[:n], nil
}

// found is what lies at an offset of a segment.
type found int

const (
	foundRecord  found = iota // a whole record
	foundGap                  // a stretch put aside earlier
	foundDamage               // damage; something whole comes behind it
	foundTorn                 // a record whose end is missing; nothing behind it
	foundDamaged              // damage up to the end; nothing whole behind it
	foundEnd                  // the segment's end
)

// scan looks at one place of a segment and returns what is there, where it
// ends, and a record's payload, valid until the next call.
func (w *window) scan(seed uint32, base Position, off int64) (what found, next int64, payload []byte, err error) {
	if off >= w.limit {
		return foundEnd, off, nil, nil
	}
	b, err := w.bytes(off, recordHeader)
	if err != nil {
		return 0, 0, nil, err
	}
	h, ok := parseRecordHeader(b, seed, base+Position(off))
	if ok && off+h.size() > w.limit {
		return foundTorn, w.limit, nil, nil
	}
	if ok {
		next = off + h.size()
		if h.gap {
			return foundGap, next, nil, nil
		}
		b, err := w.bytes(off, h.size())
		if err != nil {
			return 0, 0, nil, err
		}
		payload = b[recordHeader:][:h.length]
		if crc32.Checksum(payload, castagnoli) == h.crc {
			return foundRecord, next, payload, nil
		}
		return foundDamage, next, nil, nil
	}
	// A record is at least a header long, so the next one cannot begin sooner.
	for next = off + recordHeader; next+recordHeader <= w.limit; next += align {
		b, err := w.bytes(next, recordHeader)
		if err != nil {
			return 0, 0, nil, err
		}
		if b[0] != 'S' || b[1] != 'B' {
			continue
		}
		if h, ok := parseRecordHeader(b, seed, base+Position(next)); ok && next+h.size() <= w.limit {
			return foundDamage, next, nil, nil
		}
	}
	return foundDamaged, w.limit, nil, nil
}
