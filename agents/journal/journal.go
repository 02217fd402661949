package journal

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/spool"
)

// Tombstone is how long an ended and acknowledged command is remembered.
const Tombstone = 7 * 24 * time.Hour

const (
	segmentBytes = 1 << 20
	compactBytes = 8 << 20 // a log larger than that is written anew
)

// Entry is what the journal knows of one command.
type Entry = controlbus.JournalEntry

// record is one line of the log.
type record struct {
	N     uint64 `json:"n"` // over all records ever; 0 of a snapshot
	Entry *Entry `json:"entry,omitempty"`
	// Damaged begins another identity: a part of what was before is gone.
	Damaged int `json:"damaged,omitempty"`
	// Head keeps N over a compaction.
	Head uint64 `json:"head,omitempty"`
	// Snapshot is all there is to know; what was before need not be. It is one
	// record, so that a crash leaves it whole or not at all.
	Snapshot *[]*Entry `json:"snapshot,omitempty"`
}

// Journal is safe for concurrent use; of one command one goroutine at a time
// tells, except Acked.
type Journal struct {
	log *spool.Log
	now func() time.Time

	// writing is held shared while a record is written, and alone by Compact.
	writing sync.RWMutex

	mu      sync.Mutex
	entries map[controlbus.CommandID]*Entry
	pending map[controlbus.CommandID]bool // Begin is under way
	head    uint64
	damaged int
	found   []spool.Damage
}

// Config of a journal.
type Config struct {
	Dir string
	FS  spool.FS         // nil: the operating system's
	Now func() time.Time // nil: time.Now
}

// Open reads the journal in a directory, or makes it. Another process that has
// it open is controlbus.ErrConflict.
func Open(cfg Config) (*Journal, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	log, recovery, err := spool.Open(spool.Config{Dir: cfg.Dir, SegmentBytes: segmentBytes, FS: cfg.FS})
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &Journal{log: log, now: cfg.Now, entries: map[controlbus.CommandID]*Entry{}, pending: map[controlbus.CommandID]bool{}, found: recovery.Damaged}
	damaged := len(recovery.Damaged) > 0
	err = log.All(0, func(rec spool.Record) error {
		var r record
		if json.Unmarshal(rec.Payload, &r) == nil {
			j.fold(r)
		} else {
			damaged = true // whole, and not ours
		}
		return nil
	})
	j.forget()
	if err == nil && damaged {
		err = j.write(context.Background(), func() record { return record{Damaged: j.damaged + 1} })
	}
	if err == nil && log.Size() > compactBytes {
		err = j.Compact(context.Background())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), log.Close())
	}
	return j, nil
}

func (j *Journal) fold(r record) {
	j.head = max(j.head, r.N, r.Head)
	j.damaged = max(j.damaged, r.Damaged)
	if r.Snapshot != nil {
		clear(j.entries)
		for _, e := range *r.Snapshot {
			j.entries[e.Command] = e
		}
	}
	if r.Entry == nil {
		return
	}
	e := *r.Entry
	// What does not change is written once. A smaller number is another life,
	// after the tombstone of the one before was taken away.
	if old := j.entries[e.Command]; old != nil && old.Seq < e.Seq {
		e.Kind, e.BegunSeq = cmp.Or(e.Kind, old.Kind), cmp.Or(e.BegunSeq, old.BegunSeq)
		if e.Dispatch == nil {
			e.Dispatch = old.Dispatch
		}
		if e.Checkpoint == nil {
			e.Checkpoint = old.Checkpoint
		}
		if e.Progress == nil {
			e.Progress = old.Progress
		}
		if e.Result == nil {
			e.Result = old.Result
		}
	}
	j.entries[e.Command] = &e
}

// Close gives the directory back.
func (j *Journal) Close() error { return j.log.Close() }

// ID names the journal. A new directory has another one, and so has one of
// which a part was found damaged.
func (j *Journal) ID() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.damaged > 0 {
		return fmt.Sprintf("%s.%d", j.log.ID(), j.damaged)
	}
	return j.log.ID().String()
}

// Head is how many records there ever were: a journal that was set back to an
// older copy has a smaller one than the console remembers.
func (j *Journal) Head() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head
}

// Damaged is what Open could not read.
func (j *Journal) Damaged() []spool.Damage { return j.found }

// write makes a record durable and then takes it in. make is called with the
// lock held.
func (j *Journal) write(ctx context.Context, build func() record) error {
	j.writing.RLock()
	defer j.writing.RUnlock()
	j.mu.Lock()
	r := build()
	j.head++
	r.N = j.head
	j.mu.Unlock()
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := j.log.Append(ctx, b); err != nil {
		return err
	}
	j.mu.Lock()
	j.fold(r)
	j.mu.Unlock()
	return nil
}

// Begin notes that a command is about to have its first effect. A command that
// the journal knows is controlbus.ErrConflict: it must not begin again. Once
// Begin has returned nil, no crash makes the journal forget.
func (j *Journal) Begin(ctx context.Context, id controlbus.CommandID, kind controlbus.CommandKind, dispatch json.RawMessage) (Entry, error) {
	j.mu.Lock()
	if j.entries[id] != nil || j.pending[id] {
		j.mu.Unlock()
		return Entry{}, fmt.Errorf("journal: begin %s: %w: it has begun already", id, controlbus.ErrConflict)
	}
	j.pending[id] = true
	j.mu.Unlock()
	defer func() {
		j.mu.Lock()
		delete(j.pending, id)
		j.mu.Unlock()
	}()
	e := Entry{Command: id, Kind: kind, State: controlbus.JournalBegun, Seq: 1, BegunSeq: 1, Dispatch: dispatch, At: j.stamp()}
	if err := j.write(ctx, func() record { return record{Entry: &e} }); err != nil {
		return Entry{}, fmt.Errorf("journal: begin %s: %w", id, err)
	}
	return e, nil
}

func (j *Journal) stamp() time.Time { return j.now().UTC().Round(0) }

// Checkpoint notes how far a begun command has come. It returns the number of
// the record.
func (j *Journal) Checkpoint(ctx context.Context, id controlbus.CommandID, at json.RawMessage, p *controlbus.CommandProgress) (int64, error) {
	return j.append(ctx, "checkpoint", id, Entry{State: controlbus.JournalBegun, Checkpoint: at, Progress: p}, controlbus.JournalBegun)
}

// Done notes how a command ended: a begun one, or one that is rejected and never
// begins. It returns the number of the record.
func (j *Journal) Done(ctx context.Context, id controlbus.CommandID, kind controlbus.CommandKind, r controlbus.CommandResult) (int64, error) {
	return j.append(ctx, "end", id, Entry{Kind: kind, State: controlbus.JournalDone, Result: &r}, controlbus.JournalBegun, "")
}

// Acked notes that the console has the result. A repeated one changes nothing.
func (j *Journal) Acked(ctx context.Context, id controlbus.CommandID) error {
	if e, ok := j.Entry(id); !ok || e.State == controlbus.JournalAcked {
		return nil
	}
	_, err := j.append(ctx, "acknowledge", id, Entry{State: controlbus.JournalAcked}, controlbus.JournalDone)
	return err
}

func (j *Journal) append(ctx context.Context, what string, id controlbus.CommandID, e Entry, from ...controlbus.JournalState) (int64, error) {
	j.mu.Lock()
	var state controlbus.JournalState
	if old := j.entries[id]; old != nil {
		state, e.Seq = old.State, old.Seq
	}
	j.mu.Unlock()
	if !slices.Contains(from, state) {
		return 0, fmt.Errorf("journal: %s %s: %w: it is %q", what, id, controlbus.ErrConflict, state)
	}
	e.Command, e.At = id, j.stamp()
	e.Seq++
	if err := j.write(ctx, func() record { return record{Entry: &e} }); err != nil {
		return 0, fmt.Errorf("journal: %s %s: %w", what, id, err)
	}
	return e.Seq, nil
}

// Entry is what is known of a command.
func (j *Journal) Entry(id controlbus.CommandID) (Entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if e := j.entries[id]; e != nil {
		return *e, true
	}
	return Entry{}, false
}

// Entries are those in one of the states, oldest command first.
func (j *Journal) Entries(states ...controlbus.JournalState) []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []Entry
	for _, e := range j.entries {
		if slices.Contains(states, e.State) {
			all = append(all, *e)
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Command, b.Command) })
	return all
}

// forget drops tombstones that have stood long enough.
func (j *Journal) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	for id, e := range j.entries {
		if e.State == controlbus.JournalAcked && now.Sub(e.At) > Tombstone {
			delete(j.entries, id)
		}
	}
}

// Compact writes what is still worth knowing behind the end of the log and gives
// the rest back. A crash in between leaves both, which say the same.
func (j *Journal) Compact(ctx context.Context) error {
	j.writing.Lock()
	defer j.writing.Unlock()
	j.forget()
	j.mu.Lock()
	all := make([]*Entry, 0, len(j.entries))
	for _, e := range j.entries {
		c := *e
		if c.State == controlbus.JournalAcked { // a tombstone need not say what was ordered
			c.Dispatch, c.Checkpoint = nil, nil
		}
		all = append(all, &c)
	}
	r := record{Head: j.head, Damaged: j.damaged, Snapshot: &all}
	j.mu.Unlock()
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("journal: compact: %w", err)
	}
	begin := j.log.End()
	if _, err := j.log.Append(ctx, b); err != nil {
		return fmt.Errorf("journal: compact: %w", err)
	}
	if err := j.log.Trim(begin); err != nil {
		return fmt.Errorf("journal: compact: %w", err)
	}
	return nil
}

// Run compacts the journal when it has grown, until ctx ends.
func (j *Journal) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if j.log.Size() > compactBytes {
				// A full disk is told by the next command that cannot begin.
				_ = j.Compact(ctx)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
