package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/spool"
)

// Info is a copy as it is on disk.
type Info struct {
	Meta
	Count int64 // messages that can be read
	// Missing were in it when it was closed, and cannot be read any more; 0 also
	// where the agent died before it was closed.
	Missing int64
	// Doubtful are the last of them, of which nobody knows whether their originals
	// left the channel: the agent died, or the connection, before that was noted.
	Doubtful       int64
	Bytes          int64 // of their bodies
	Oldest, Newest time.Time
	// Damaged counts the places at which messages could not be read.
	Damaged int
}

// Reader gives the messages of a copy in the order in which they were removed. It
// is used by one goroutine; while it is open the copy is not deleted.
type Reader struct {
	store *Store
	id    controlbus.CommandID
	meta  Meta
	log   *spool.Log
	r     *spool.Reader
	bad   int
}

// Cursor is where a reader stands: the zero value is the beginning.
type Cursor struct {
	Position spool.Position `json:"position"`
	Number   int64          `json:"number"` // of messages before it
}

// Open reads a command's copy from a cursor. Errors are controlbus.ErrNotFound,
// and ErrConflict while it is being written or read.
func (s *Store) Open(id controlbus.CommandID, from Cursor) (*Reader, error) {
	meta, err := s.use(id)
	if err != nil {
		return nil, err
	}
	log, rec, err := spool.Open(spool.Config{Dir: s.dir(id), SegmentBytes: segmentBytes})
	if err != nil {
		s.release(id)
		return nil, fmt.Errorf("archive: copy of %s: %w", id, err)
	}
	return &Reader{store: s, id: id, meta: meta, log: log, r: log.Reader(from.Position), bad: len(rec.Damaged)}, nil
}

// Meta is what the copy is of.
func (r *Reader) Meta() Meta { return r.meta }

// Position is where Next goes on.
func (r *Reader) Position() spool.Position { return r.r.Position() }

// Damaged is how many places could not be read.
func (r *Reader) Damaged() int { return r.bad }

// Next returns the next message; io.EOF at the end.
func (r *Reader) Next() (*agents.Message, error) {
	for {
		rec, ok, err := r.r.TryNext()
		switch {
		case err != nil:
			return nil, fmt.Errorf("archive: copy of %s: %w", r.id, err)
		case !ok:
			return nil, io.EOF
		case len(rec.Payload) == 0 || rec.Payload[0] != recMessage:
			continue
		}
		m, err := parseMessage(rec.Payload[1:])
		if err != nil {
			r.bad++
			continue // counted: the checksum held, so another version wrote it
		}
		return m, nil
	}
}

// Close gives the copy back.
func (r *Reader) Close() error {
	defer r.store.release(r.id)
	return errors.Join(r.r.Close(), r.log.Close())
}

// Info reads a copy through and says what is in it.
func (s *Store) Info(id controlbus.CommandID) (_ Info, err error) {
	r, err := s.Open(id, Cursor{})
	if err != nil {
		return Info{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	i := Info{Meta: r.meta, Damaged: r.bad}
	var removed int64
	err = r.log.All(0, func(rec spool.Record) error {
		if len(rec.Payload) == 0 {
			return nil
		}
		switch rec.Payload[0] {
		case recRemoved:
			if n, w := binary.Uvarint(rec.Payload[1:]); w > 0 {
				removed = max(removed, int64(n))
			}
		case recMessage:
			m, bad := parseMessage(rec.Payload[1:])
			if bad != nil {
				i.Damaged++
				return nil //nolint:nilerr // counted
			}
			i.Count++
			i.Bytes += int64(len(m.Body))
			if t := m.Time; !t.IsZero() {
				if i.Oldest.IsZero() || t.Before(i.Oldest) {
					i.Oldest = t
				}
				if t.After(i.Newest) {
					i.Newest = t
				}
			}
		}
		return nil
	})
	i.Doubtful = max(i.Count-removed, 0)
	i.Missing = max(i.Meta.Count-i.Count, 0)
	i.Damaged += int(r.log.Stats().Damaged)
	if err != nil {
		return Info{}, fmt.Errorf("archive: copy of %s: %w", id, err)
	}
	return i, nil
}
