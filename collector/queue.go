package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/signalbox-dev/signalbox/storage/spool"
)

// Queue is the durable queue between Consume and the sink. Ingest is its one
// reader.
type Queue struct {
	dir         string
	log         *spool.Log
	forgetAfter time.Duration
	slog        *slog.Logger

	checkpoint Checkpoint // as saved; owned by the reader once it runs
}

// segmentBytes is small because the newest segment is never trimmed: on a full
// disk what the others give back must be enough to go on with.
const segmentBytes = 8 << 20

// openQueue opens the log and its checkpoint.
func openQueue(cfg Config, log *slog.Logger) (*Queue, error) {
	l, recovery, err := spool.Open(spool.Config{Dir: cfg.Dir, MaxBytes: cfg.MaxBytes, SegmentBytes: segmentBytes})
	if err != nil {
		return nil, fmt.Errorf("collector: open queue: %w", err)
	}
	if recovery.TornBytes > 0 {
		log.Info("cut an unacknowledged request off the end of the queue", "bytes", recovery.TornBytes)
	}
	for _, d := range recovery.Damaged {
		log.Error("part of the queue was damaged and is in quarantine", "from", int64(d.From), "to", int64(d.To), "reason", d.Reason, "kept", d.Kept)
	}
	c, damaged := loadCheckpoint(cfg.Dir)
	if damaged != nil {
		log.Error("checkpoint cannot be read; the queue is stored again from its beginning", "error", damaged)
	}
	if c.Marks == nil {
		c.Marks = make(map[string]Mark)
	}
	return &Queue{dir: cfg.Dir, log: l, forgetAfter: cfg.ForgetAfter, slog: log, checkpoint: c}, nil
}

// marks are those of the checkpoint and of everything behind it.
func (q *Queue) marks() (map[string]Mark, error) {
	marks := maps.Clone(q.checkpoint.Marks)
	err := q.log.All(q.checkpoint.Position, func(rec spool.Record) error {
		r, err := parseEntry(rec.Payload)
		if err != nil {
			return nil //nolint:nilerr // the reader reports it
		}
		mark(marks, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("collector: read queue: %w", err)
	}
	return marks, nil
}

func mark(marks map[string]Mark, r Request) {
	if r.Sender != "" && r.Batch >= marks[r.Sender].Batch {
		marks[r.Sender] = Mark{Batch: r.Batch, At: r.ReceivedAt}
	}
}

// ID names the queue for ever; deduplication tokens begin with it.
func (q *Queue) ID() string { return q.log.ID().String() }

// Checkpoint is where the reader begins.
func (q *Queue) Checkpoint() Checkpoint { return q.checkpoint }

// Entry is one request as it lies in the queue.
type Entry struct {
	Request // Payload is valid until the reader's next call
	Position,
	Next spool.Position
	Raw []byte // the entry itself, valid as long
	Err error  // the entry cannot be read; Raw has its bytes
}

// QueueReader reads entries in order. One goroutine uses it.
type QueueReader struct{ r *spool.Reader }

// Reader reads from a position.
func (q *Queue) Reader(from spool.Position) *QueueReader { return &QueueReader{q.log.Reader(from)} }

// Next waits for an entry until ctx ends.
func (r *QueueReader) Next(ctx context.Context) (Entry, error) {
	rec, err := r.r.Next(ctx)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Position: rec.Position, Next: rec.Next, Raw: rec.Payload}
	e.Request, e.Err = parseEntry(rec.Payload)
	return e, nil
}

// Close releases the reader.
func (r *QueueReader) Close() error { return r.r.Close() }

// Begin records durably that the range up to the position is about to be written,
// so that it is the same range again after a crash.
func (q *Queue) Begin(to spool.Position) error {
	c := q.checkpoint
	c.Writing = to
	return q.save(c)
}

// Stored records that everything before the position is in the store, with the
// senders' marks up to there, and that the range up to next, where it is not
// zero, is about to be written. Segments that are not needed any more are
// deleted.
func (q *Queue) Stored(to spool.Position, marks map[string]Mark, next spool.Position) error {
	c := Checkpoint{Position: to, Writing: next, Marks: maps.Clone(q.checkpoint.Marks)}
	newest := time.Time{}
	for sender, m := range marks {
		if m.Batch >= c.Marks[sender].Batch {
			c.Marks[sender] = m
		}
		if m.At.After(newest) {
			newest = m.At
		}
	}
	maps.DeleteFunc(c.Marks, func(_ string, m Mark) bool { return newest.Sub(m.At) > q.forgetAfter })
	if err := q.save(c); err != nil {
		return err
	}
	if err := q.log.Trim(to); err != nil && !errors.Is(err, spool.ErrClosed) {
		// Space is not given back yet; the next call tries again.
		q.slog.Warn("cannot delete stored segments of the queue", "error", err)
	}
	return nil
}

func (q *Queue) save(c Checkpoint) error {
	if err := saveCheckpoint(q.dir, c); err != nil {
		return err
	}
	q.checkpoint = c
	return nil
}

// End is the position behind the last durable entry.
func (q *Queue) End() spool.Position { return q.log.End() }

// Pending is how many bytes wait behind a position.
func (q *Queue) Pending(from spool.Position) int64 { return q.log.Pending(from) }

// Size is what the queue takes on disk.
func (q *Queue) Size() int64 { return q.log.Size() }
