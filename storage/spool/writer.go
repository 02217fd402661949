package spool

import (
	"errors"
	"os"
	"path/filepath"
)

// writer is the state of the newest segment. Only the leader touches it.
type writer struct {
	file  File
	base  Position
	off   int64    // durable end within file
	next  Position // base of the next segment
	fresh bool     // the directory entry is not yet durable
	buf   []byte

	// undo lists what a failed commit left behind and could not clear away.
	undo []undoStep
}

// undoStep brings a segment file back to a size; 0 removes it.
type undoStep struct {
	base Position
	size int64
}

// commit writes the waiters' records and syncs them. On an error none of them
// is in the log.
func (l *Log) commit(batch []*waiter) (err error) {
	if len(batch) == 0 {
		return nil
	}
	w := &l.w
	if err := l.clearAway(); err != nil {
		return explain(err)
	}
	var done []segment // finished or grown segments
	undo := []undoStep(nil)
	if w.file != nil {
		undo = append(undo, undoStep{w.base, w.off})
	}
	defer func() {
		if err == nil {
			return
		}
		// After a failed write or sync nothing is known of the pages behind
		// the last sync, so the file is cut there and never written again.
		err = explain(err)
		w.undo = undo
		if closeErr := w.close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
		if len(undo) > 0 && undo[0].size > 0 {
			w.next = max(w.next, undo[0].base+maxSegment)
		}
		if undoErr := l.clearAway(); undoErr != nil {
			err = errors.Join(err, undoErr)
		}
	}()

	end := w.off
	w.buf = w.buf[:0]
	flush := func() error {
		if _, err := w.file.WriteAt(w.buf, end); err != nil {
			return err
		}
		end += int64(len(w.buf))
		w.buf = w.buf[:0]
		return nil
	}
	sync := func() error {
		if err := flush(); err != nil {
			return err
		}
		if err := w.file.Sync(); err != nil {
			return err
		}
		if w.fresh {
			if err := l.fs.SyncDir(l.cfg.Dir); err != nil {
				return err
			}
			w.fresh = false
		}
		done = append(done, segment{w.base, end})
		return nil
	}
	for _, waiter := range batch {
		for i, p := range waiter.payloads {
			size := recordSize(len(p))
			if w.file != nil && end+int64(len(w.buf))+size > l.cfg.SegmentBytes && end+int64(len(w.buf)) > segmentHeader {
				if err := sync(); err != nil {
					return err
				}
				w.next = w.base + Position(end)
				if err := w.close(); err != nil {
					return err
				}
			}
			if w.file == nil {
				undo = append(undo, undoStep{w.next, 0})
				f, err := l.fs.Open(filepath.Join(l.cfg.Dir, segmentName(w.next)), true)
				if err != nil {
					return err
				}
				w.file, w.base, w.fresh, end = f, w.next, true, 0
				w.buf = appendSegmentHeader(w.buf, l.id, w.base)
			}
			pos := w.base + Position(end) + Position(len(w.buf))
			if i == 0 {
				waiter.first = pos
			}
			w.buf = appendRecordHeader(w.buf, l.seed, magicRecord, pos, len(p), waiter.crcs[i])
			w.buf = append(w.buf, p...)
			w.buf = append(w.buf, zeros[:size-int64(recordHeader)-int64(len(p))]...)
			if len(w.buf) >= 4<<20 {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	if err := sync(); err != nil {
		return err
	}
	w.off = end
	if cap(w.buf) > 16<<20 {
		w.buf = nil // one huge record must not hold memory for ever
	}
	l.publish(done)
	return nil
}

// clearAway undoes what failed commits wrote. While it cannot, nothing is
// appended: a later record behind half-written ones could be lost to recovery.
func (l *Log) clearAway() error {
	w := &l.w
	for len(w.undo) > 0 {
		step := w.undo[len(w.undo)-1]
		name := filepath.Join(l.cfg.Dir, segmentName(step.base))
		if step.size == 0 {
			if err := l.fs.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		} else if err := l.cut(name, step.size); err != nil {
			return err
		}
		w.undo = w.undo[:len(w.undo)-1]
	}
	return nil
}

// cut truncates a file and makes that durable.
func (l *Log) cut(name string, size int64) error {
	f, err := l.fs.Open(name, false)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (w *writer) close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}
