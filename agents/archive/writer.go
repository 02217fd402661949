package archive

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/spool"
)

// A record of a copy begins with what it is.
const (
	recMessage byte = 'm' // a message
	recRemoved byte = 'r' // how many messages from the first have left their channel
)

const (
	segmentBytes = 16 << 20
	// overhead of one record on disk, at most.
	overhead = 40
)

// Writer makes one command's copy. It is used by one goroutine.
type Writer struct {
	store   *Store
	meta    Meta
	log     *spool.Log
	count   int64 // messages that are durable
	removed int64 // of them, from the first: gone from their channel
	noted   int64 // of removed, as it is on disk
	bytes   int64
	buf     [][]byte
}

// Create begins the copy of a command. One that exists is controlbus.ErrConflict:
// a destructive command is done at most once.
func (s *Store) Create(m Meta) (*Writer, error) {
	if !m.Command.Valid() {
		return nil, fmt.Errorf("archive: %w: command %q", controlbus.ErrInvalid, m.Command)
	}
	m.Began, m.Ended = s.cfg.Now().UTC(), m.Ended.UTC()
	s.mu.Lock()
	err := s.fullLocked(overhead)
	if err == nil && s.copies[m.Command] != nil {
		err = fmt.Errorf("archive: %w: there is a copy of command %s already", controlbus.ErrConflict, m.Command)
	}
	if err == nil {
		s.copies[m.Command] = &copied{meta: m, users: 1}
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	w := &Writer{store: s, meta: m}
	if err = os.MkdirAll(s.dir(m.Command), 0o700); err == nil {
		err = w.saveMeta()
	}
	if err == nil {
		w.log, _, err = spool.Open(spool.Config{Dir: s.dir(m.Command), SegmentBytes: segmentBytes})
	}
	if err == nil {
		err = spool.OS.SyncDir(s.cfg.Dir) // the directory's own entry
	}
	if err != nil {
		s.mu.Lock()
		delete(s.copies, m.Command)
		s.mu.Unlock()
		if w.log != nil {
			err = errors.Join(err, w.log.Close())
		}
		return nil, fmt.Errorf("archive: %w", errors.Join(err, os.RemoveAll(s.dir(m.Command))))
	}
	return w, nil
}

func (w *Writer) saveMeta() error {
	b, err := json.Marshal(w.meta)
	if err != nil {
		return err
	}
	return spool.WriteFile(spool.OS, filepath.Join(w.store.dir(w.meta.Command), metaFile), b)
}

// Append makes messages durable, all or none. Errors are controlbus.ErrOverloaded
// where the archive has no room, ErrUnsupported for a message that cannot be kept
// as it is.
func (w *Writer) Append(ctx context.Context, msgs []*agents.Message) error {
	w.buf = w.buf[:0]
	var need int64
	if w.removed > w.noted {
		w.buf = append(w.buf, binary.AppendUvarint([]byte{recRemoved}, uint64(w.removed)))
		need += 2 * overhead
	}
	for _, m := range msgs {
		b, err := appendMessage(append(make([]byte, 0, 256+len(m.Body)), recMessage), m)
		if err != nil {
			return err
		}
		w.buf = append(w.buf, b)
		need += int64(len(b)) + overhead
	}
	if len(w.buf) == 0 {
		return nil
	}
	if err := w.store.grow(w.meta.Command, need); err != nil {
		return err
	}
	if _, err := w.log.AppendBatch(ctx, w.buf); err != nil {
		_ = w.store.grow(w.meta.Command, -need) // never refused
		return fmt.Errorf("archive: copy of %s: %w", w.meta.Command, err)
	}
	clear(w.buf)
	w.noted = w.removed
	w.count += int64(len(msgs))
	w.bytes += need
	return nil
}

// Count is how many messages the copy has.
func (w *Writer) Count() int64 { return w.count }

// Bytes is what the copy takes on disk, about.
func (w *Writer) Bytes() int64 { return w.bytes }

// Removed tells that everything appended so far has left its channel. It becomes
// durable with the next Append, or with Close.
func (w *Writer) Removed() { w.removed = w.count }

// Close ends the copy. An empty one is deleted.
func (w *Writer) Close() error {
	defer w.store.release(w.meta.Command)
	err := w.Append(context.Background(), nil)
	err = errors.Join(err, w.log.Close())
	if w.count == 0 {
		w.store.mu.Lock()
		w.store.total -= w.store.copies[w.meta.Command].bytes
		delete(w.store.copies, w.meta.Command)
		w.store.mu.Unlock()
		return errors.Join(err, os.RemoveAll(w.store.dir(w.meta.Command)))
	}
	w.meta.Ended, w.meta.Count = w.store.cfg.Now().UTC(), w.count
	w.store.mu.Lock()
	w.store.copies[w.meta.Command].meta = w.meta
	w.store.mu.Unlock()
	if err = errors.Join(err, w.saveMeta()); err != nil {
		return fmt.Errorf("archive: close copy of %s: %w", w.meta.Command, err)
	}
	return nil
}
