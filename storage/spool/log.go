package spool

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Log is an open log. Its methods may be called concurrently.
type Log struct {
	cfg  Config
	fs   FS
	id   ID
	seed uint32
	lock io.Closer

	w writer // belongs to whoever leads

	mu      sync.Mutex
	queue   []*waiter
	leading bool
	idle    sync.Cond // signalled when nobody leads any more
	segs    []segment // ascending, the newest last
	size    int64     // bytes of all segments
	wake    chan struct{}
	closed  bool
	stats   Stats
}

// segment is what readers may see of a segment file.
type segment struct {
	base Position
	size int64 // durable bytes, header included
}

func (s segment) end() Position { return s.base + Position(s.size) }

// Stats of a log.
type Stats struct {
	Bytes    int64 // on disk
	MaxBytes int64 // 0 = no cap
	Segments int
	Oldest   Position // of the first byte kept
	End      Position // behind the last durable record
	Appends  uint64   // records since Open
	Commits  uint64   // fsyncs they took
	Refused  uint64   // appends refused because of MaxBytes
	Failed   uint64   // appends failed by the file system
	Damaged  uint64   // damaged stretches that readers stepped over since Open
}

// waiter is one Append call in the queue.
type waiter struct {
	payloads [][]byte
	crcs     []uint32
	first    Position
	done     chan struct{} // closed when err is set, or lead is
	lead     bool          // the waiter is to lead from now on
	taken    bool          // a leader has it; it cannot be withdrawn
	err      error
	one      [1][]byte
	oneCRC   [1]uint32
}

// Append writes one record and returns its position once it is durable. While
// it waits in the queue the end of ctx withdraws it; once writing has begun it
// runs to its end, so an error always means that the record is not in the log,
// short of a file system that fails even to cut it off again: then a restart
// may bring it back. Errors: ErrFull, ErrNoSpace, ErrClosed, all retryable;
// controlbus.ErrTooLarge; else controlbus.ErrUnavailable with the cause.
func (l *Log) Append(ctx context.Context, payload []byte) (Position, error) {
	w := &waiter{done: make(chan struct{})}
	w.one[0] = payload
	w.payloads = w.one[:]
	w.crcs = w.oneCRC[:]
	return l.append(ctx, w)
}

// AppendBatch writes the records one after the other with one fsync and
// returns the first one's position. Either all are acknowledged or none.
func (l *Log) AppendBatch(ctx context.Context, payloads [][]byte) (Position, error) {
	if len(payloads) == 0 {
		return 0, fmt.Errorf("spool: append: %w: empty batch", controlbus.ErrInvalid)
	}
	return l.append(ctx, &waiter{payloads: payloads, crcs: make([]uint32, len(payloads)), done: make(chan struct{})})
}

func (l *Log) append(ctx context.Context, w *waiter) (Position, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var need int64
	for i, p := range w.payloads {
		if len(p) > MaxRecord {
			return 0, fmt.Errorf("spool: append %d bytes: %w", len(p), controlbus.ErrTooLarge)
		}
		w.crcs[i] = crc32.Checksum(p, castagnoli)
		need += recordSize(len(p))
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, ErrClosed
	}
	if l.cfg.MaxBytes > 0 && l.size+need+segmentHeader > l.cfg.MaxBytes {
		l.stats.Refused++
		l.mu.Unlock()
		return 0, ErrFull
	}
	l.queue = append(l.queue, w)
	lead := !l.leading
	l.leading = true
	l.mu.Unlock()
	if !lead {
		select {
		case <-w.done:
		case <-ctx.Done():
			if l.withdraw(w) {
				return 0, ctx.Err()
			}
			<-w.done
		}
		lead = w.lead
	}
	if lead {
		l.lead(w)
	}
	if w.err != nil {
		return 0, fmt.Errorf("spool: append: %w", w.err)
	}
	return w.first, nil
}

// withdraw takes w out of the queue unless a leader has it or it is to lead.
func (l *Log) withdraw(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.taken || w.lead {
		return false
	}
	for i, q := range l.queue {
		if q == w {
			l.queue = append(l.queue[:i], l.queue[i+1:]...)
			break
		}
	}
	return true
}

// lead commits what is queued, self first, and hands the lead over to whoever
// came meanwhile. So nobody leads for others longer than one commit.
func (l *Log) lead(self *waiter) {
	l.mu.Lock()
	var batch []*waiter
	var bytes int64
	n := 0
	for _, w := range l.queue {
		var need int64
		for _, p := range w.payloads {
			need += recordSize(len(p))
		}
		if n > 0 && bytes+need > maxCommit {
			break
		}
		if n == 0 || l.cfg.MaxBytes == 0 || l.size+bytes+need+segmentHeader <= l.cfg.MaxBytes {
			bytes += need
			batch = append(batch, w)
		} else {
			// Together they would pass the cap, although each alone did not.
			w.err = ErrFull
			l.stats.Refused++
			close(w.done)
		}
		w.taken = true
		n++
	}
	l.queue = append(l.queue[:0], l.queue[n:]...)
	l.mu.Unlock()

	err := l.commit(batch)

	l.mu.Lock()
	for _, w := range batch {
		w.err = err
		if err != nil {
			l.stats.Failed += uint64(len(w.payloads))
		} else {
			l.stats.Appends += uint64(len(w.payloads))
		}
		if w != self {
			close(w.done)
		}
	}
	if len(l.queue) > 0 {
		next := l.queue[0]
		next.lead = true
		close(next.done)
	} else {
		l.leading = false
		l.idle.Broadcast()
	}
	l.mu.Unlock()
}

// publish makes what the writer has synced visible to readers.
func (l *Log) publish(segs []segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range segs {
		last := len(l.segs) - 1
		if last >= 0 && l.segs[last].base == s.base {
			l.size += s.size - l.segs[last].size
			l.segs[last] = s
			continue
		}
		l.segs = append(l.segs, s)
		l.size += s.size
	}
	l.stats.Commits++
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

// Trim deletes the segments that lie wholly before the position. The newest
// segment always stays, because its name carries the positions on.
func (l *Log) Trim(before Position) error {
	l.mu.Lock()
	n := 0
	for n < len(l.segs)-1 && l.segs[n].end() <= before {
		n++
	}
	gone := append([]segment(nil), l.segs[:n]...)
	l.segs = append(l.segs[:0], l.segs[n:]...)
	for _, s := range gone {
		l.size -= s.size
	}
	l.mu.Unlock()
	var errs []error
	for _, s := range gone {
		// A file that stays behind is found again, and trimmed, after a restart.
		if err := l.fs.Remove(filepath.Join(l.cfg.Dir, segmentName(s.base))); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("spool: trim: %w", err)
	}
	return nil
}

// ID is the random id the log got when it was made.
func (l *Log) ID() ID { return l.id }

// Size is what the log takes on disk.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// End is the position behind the last durable record.
func (l *Log) End() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.endLocked()
}

func (l *Log) endLocked() Position {
	if len(l.segs) == 0 {
		return 0
	}
	return l.segs[len(l.segs)-1].end()
}

// Pending is how many bytes of the log lie behind the position. Positions have
// gaps, so their difference does not tell.
func (l *Log) Pending(from Position) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, s := range l.segs {
		if s.end() > from {
			n += int64(s.end() - max(from, s.base+segmentHeader))
		}
	}
	return n
}

// Stats returns the present figures.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Bytes, s.MaxBytes, s.Segments, s.End = l.size, l.cfg.MaxBytes, len(l.segs), l.endLocked()
	if len(l.segs) > 0 {
		s.Oldest = l.segs[0].base
	}
	return s
}

// Close waits for the appends that were called before it, refuses new ones and
// wakes the readers. What was acknowledged is on disk already.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	for l.leading {
		l.idle.Wait()
	}
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
	l.mu.Unlock()
	return errors.Join(l.w.close(), l.lock.Close())
}

// explain makes a file system's error one of ours.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, controlbus.ErrUnavailable):
		return err
	}
	return fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
}
