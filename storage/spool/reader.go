package spool

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// Record is one record as read. Payload is valid until the reader's next call.
type Record struct {
	Position Position
	Next     Position // where to go on behind this record
	Payload  []byte
}

// Reader reads records in order and follows the writer. It is used by one
// goroutine at a time.
type Reader struct {
	log  *Log
	pos  Position
	base Position // of the open segment
	win  window
}

// Reader reads from the first record at or behind the position; 0 is the
// oldest kept. Close it when done.
func (l *Log) Reader(from Position) *Reader { return &Reader{log: l, pos: max(from, 0)} }

// Position is where the reader goes on.
func (r *Reader) Position() Position { return r.pos }

// Next returns the next durable record, waiting for one until ctx ends or the
// log is closed (ErrClosed). Damaged stretches are stepped over and counted.
func (r *Reader) Next(ctx context.Context) (Record, error) {
	for {
		rec, wait, err := r.next(true)
		if err != nil || wait == nil {
			return rec, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Record{}, ctx.Err()
		}
	}
}

// TryNext is Next without waiting: ok is false where Next would wait.
func (r *Reader) TryNext() (rec Record, ok bool, err error) {
	rec, wait, err := r.next(false)
	return rec, err == nil && wait == nil, err
}

var never = make(chan struct{})

// next returns a record, or a channel that is closed when there may be one.
func (r *Reader) next(willWait bool) (Record, <-chan struct{}, error) {
	for {
		seg, wait, err := r.log.locate(r.pos, willWait)
		if err != nil {
			return Record{}, nil, err
		}
		if wait != nil {
			return Record{}, wait, nil
		}
		if r.win.file == nil || r.base != seg.base {
			if err := r.open(seg.base); err != nil {
				return Record{}, nil, fmt.Errorf("spool: read: %w", err)
			}
		}
		r.win.limit = seg.size
		off := max(int64(r.pos-seg.base), segmentHeader)
		off = (off + align - 1) &^ (align - 1)
		what, next, payload, err := r.win.scan(r.log.seed, seg.base, off)
		if err != nil {
			return Record{}, nil, fmt.Errorf("spool: read %s: %w", segmentName(seg.base), err)
		}
		pos := seg.base + Position(off)
		r.pos = seg.base + Position(next)
		switch what {
		case foundRecord:
			return Record{Position: pos, Next: r.pos, Payload: payload}, nil, nil
		case foundDamage, foundDamaged, foundTorn:
			r.log.mu.Lock()
			r.log.stats.Damaged++
			r.log.mu.Unlock()
		}
	}
}

// locate finds the segment in which to read on from pos. With nothing to read
// it returns a channel that is closed by the next commit.
func (l *Log) locate(pos Position, willWait bool) (seg segment, wait <-chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.segs, pos, func(s segment, pos Position) int {
		if s.end() > pos {
			return 1
		}
		return -1
	})
	for _, s := range l.segs[i:] {
		if s.size > segmentHeader { // an empty one was left by a crash
			return s, nil, nil
		}
	}
	if l.closed {
		return segment{}, nil, ErrClosed
	}
	if !willWait {
		return segment{}, never, nil
	}
	if l.wake == nil {
		l.wake = make(chan struct{})
	}
	return segment{}, l.wake, nil
}

func (r *Reader) open(base Position) error {
	if err := r.Close(); err != nil {
		return err
	}
	f, err := r.log.fs.Open(filepath.Join(r.log.cfg.Dir, segmentName(base)), false)
	if err != nil {
		return err
	}
	r.base = base
	r.win = window{file: f, buf: r.win.buf[:0]}
	return nil
}

// Close releases the open segment. The reader may be used again after it.
func (r *Reader) Close() error {
	if r.win.file == nil {
		return nil
	}
	err := r.win.file.Close()
	r.win = window{buf: r.win.buf[:0]}
	return err
}

// All reads what is there now, from the position to the end, and calls visit
// for each record until it returns an error, which All returns.
func (l *Log) All(from Position, visit func(Record) error) (err error) {
	r := l.Reader(from)
	defer func() { err = errors.Join(err, r.Close()) }()
	for end := l.End(); r.pos < end; {
		rec, ok, err := r.TryNext()
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if err := visit(rec); err != nil {
			return err
		}
	}
	return nil
}
