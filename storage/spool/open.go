package spool

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Recovery is what Open found.
type Recovery struct {
	Segments int
	Records  int64
	Bytes    int64 // on disk, after recovery
	// TornBytes were cut from the end of the log: an append that a crash
	// interrupted before it was acknowledged.
	TornBytes int64
	// Damaged lists what could not be read and was put into quarantine.
	Damaged []Damage
}

// Damage is one stretch of a log that failed its checksum.
type Damage struct {
	From, To Position
	Reason   string
	// Kept is the file in quarantine that has the bytes; empty if they could
	// not be copied.
	Kept string
}

// Open opens or makes the log in cfg.Dir. Damage does not stop it: whole
// records are kept, the rest is moved to quarantine and reported. It fails
// with controlbus.ErrConflict when another process has the log open.
func Open(cfg Config) (*Log, Recovery, error) {
	var rec Recovery
	if err := cfg.Validate(); err != nil {
		return nil, rec, err
	}
	cfg = cfg.withDefaults()
	l := &Log{cfg: cfg, fs: cfg.FS}
	l.idle.L = &l.mu
	l.stats.MaxBytes = cfg.MaxBytes
	if err := l.fs.MkdirAll(cfg.Dir); err != nil {
		return nil, rec, fmt.Errorf("spool: open: %w", explain(err))
	}
	lock, err := l.fs.Lock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, rec, fmt.Errorf("spool: open: %w", err)
	}
	l.lock = lock
	if err := l.recover(&rec); err != nil {
		lock.Close()
		return nil, rec, fmt.Errorf("spool: open %s: %w", cfg.Dir, explain(err))
	}
	return l, rec, nil
}

func (l *Log) recover(rec *Recovery) error {
	names, err := l.fs.ReadDir(l.cfg.Dir)
	if err != nil {
		return err
	}
	var bases []Position
	for _, name := range names {
		if base, ok := parseSegmentName(name); ok {
			bases = append(bases, base)
		}
		if strings.HasSuffix(name, ".tmp") {
			if err := l.fs.Remove(filepath.Join(l.cfg.Dir, name)); err != nil {
				return err
			}
		}
	}
	slices.Sort(bases)
	if err := l.identify(bases); err != nil {
		return err
	}
	for _, base := range bases {
		l.w.next = max(l.w.next, base+maxSegment)
		if err := l.recoverSegment(base, rec); err != nil {
			return fmt.Errorf("segment %s: %w", segmentName(base), err)
		}
	}
	// Segments that went to quarantine whole have used up positions as well.
	quarantined, err := l.fs.ReadDir(l.quarantine())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, name := range quarantined {
		if len(name) > 24 {
			name = name[:20] + ".seg"
		}
		if base, ok := parseSegmentName(name); ok {
			l.w.next = max(l.w.next, base+maxSegment)
		}
	}
	rec.Segments, rec.Bytes = len(l.segs), l.size
	// A segment found here may owe its directory entry to luck so far.
	return l.fs.SyncDir(l.cfg.Dir)
}

func (l *Log) quarantine() string { return filepath.Join(l.cfg.Dir, "quarantine") }

// identify reads the log's id; a lost one is taken from a segment's header.
func (l *Log) identify(bases []Position) error {
	name := filepath.Join(l.cfg.Dir, "id")
	b, err := ReadFile(l.fs, name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	id, ok := parseID(b)
	// A damaged id would make every record look damaged, so the headers vote.
	votes := map[ID]int{}
	for _, base := range bases {
		if got, ok := l.headerID(base); ok {
			votes[got]++
		}
	}
	best := votes[id]
	if !ok {
		best = 0
	}
	stored := ok
	for got, n := range votes {
		if n > best {
			id, best, stored, ok = got, n, false, true
		}
	}
	if !ok {
		rand.Read(id[:])
		id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80 // UUID version 4
	}
	l.id, l.seed = id, id.seed()
	if stored {
		return nil
	}
	return WriteFile(l.fs, name, []byte(id.String()+"\n"))
}

func (l *Log) headerID(base Position) (ID, bool) {
	f, err := l.fs.Open(filepath.Join(l.cfg.Dir, segmentName(base)), false)
	if err != nil {
		return ID{}, false
	}
	defer f.Close()
	var b [segmentHeader]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return ID{}, false
	}
	id, got, ok := parseSegmentHeader(b[:])
	return id, ok && got == base
}

func parseID(b []byte) (id ID, ok bool) {
	s := strings.ReplaceAll(strings.TrimSpace(string(b)), "-", "")
	if len(s) != 2*len(id) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err == nil
}

// recoverSegment checks every record of a segment, makes its damaged stretches
// gaps and cuts what follows the last whole record.
func (l *Log) recoverSegment(base Position, rec *Recovery) (err error) {
	path := filepath.Join(l.cfg.Dir, segmentName(base))
	f, err := l.fs.Open(path, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return err
	}
	win := window{file: f, limit: size}
	head, err := win.bytes(0, segmentHeader)
	if err != nil {
		return l.setAside(base, size, "unreadable: "+err.Error(), rec)
	}
	headID, headBase, headOK := parseSegmentHeader(head)
	headOK = headOK && headID == l.id && headBase == base
	blankHead := allZero(head)

	type stretch struct {
		from, to int64
		reason   string
	}
	var damaged []stretch
	var records, end int64
	torn := false
	for off := int64(segmentHeader); ; {
		what, next, _, err := win.scan(l.seed, base, off)
		if err != nil {
			return l.setAside(base, size, "unreadable: "+err.Error(), rec)
		}
		switch what {
		case foundRecord:
			records++
		case foundDamage:
			damaged = append(damaged, stretch{off, next, "checksum"})
		case foundTorn, foundDamaged:
			torn = what == foundTorn
		}
		if what == foundEnd || what == foundTorn || what == foundDamaged {
			end = off
			break
		}
		off = next
	}
	if !headOK && !blankHead && records == 0 {
		return l.setAside(base, size, "nothing in it is readable", rec)
	}

	for _, d := range damaged {
		zero, err := l.isZero(&win, d.from, d.to)
		if err != nil {
			return err
		}
		if zero {
			// Pages that a crash never wrote, before ones that it did.
			rec.TornBytes += d.to - d.from
		} else {
			l.keep(&win, base, d.from, d.to, d.reason, rec)
		}
		gap := appendRecordHeader(nil, l.seed, magicGap, base+Position(d.from), int(d.to-d.from-recordHeader), 0)
		if _, err := f.WriteAt(gap, d.from); err != nil {
			return err
		}
	}
	if end < size {
		zero, err := l.isZero(&win, end, size)
		if err != nil {
			return err
		}
		if torn || zero {
			rec.TornBytes += size - end
		} else {
			l.keep(&win, base, end, size, "checksum", rec)
		}
		if err := f.Truncate(end); err != nil {
			return err
		}
	}
	if !headOK {
		if _, err := f.WriteAt(appendSegmentHeader(nil, l.id, base), 0); err != nil {
			return err
		}
	}
	// A record that was written but not yet synced at the crash is handed out
	// from now on, so it must be as durable as the others.
	if err := f.Sync(); err != nil {
		return err
	}
	rec.Records += records
	l.segs = append(l.segs, segment{base, end})
	l.size += end
	return nil
}

// keep copies a damaged stretch into quarantine and reports it. That the copy
// can fail, on a full disk for one, must not keep the process from starting.
func (l *Log) keep(win *window, base Position, from, to int64, reason string, rec *Recovery) {
	d := Damage{From: base + Position(from), To: base + Position(to), Reason: reason}
	name := filepath.Join(l.quarantine(), fmt.Sprintf("%020d-%d.bad", int64(base), from))
	err := l.fs.MkdirAll(l.quarantine())
	if err == nil {
		var b []byte
		if b, err = win.bytes(from, to-from); err == nil {
			err = WriteFile(l.fs, name, b)
		}
	}
	if err != nil {
		d.Reason += "; not kept: " + err.Error()
	} else {
		d.Kept = name
	}
	rec.Damaged = append(rec.Damaged, d)
}

// setAside moves a whole segment file into quarantine.
func (l *Log) setAside(base Position, size int64, reason string, rec *Recovery) error {
	kept := filepath.Join(l.quarantine(), segmentName(base))
	if err := l.fs.MkdirAll(l.quarantine()); err != nil {
		return err
	}
	if err := l.fs.Rename(filepath.Join(l.cfg.Dir, segmentName(base)), kept); err != nil {
		return err
	}
	if err := errors.Join(l.fs.SyncDir(l.quarantine()), l.fs.SyncDir(l.cfg.Dir)); err != nil {
		return err
	}
	rec.Damaged = append(rec.Damaged, Damage{From: base, To: base + Position(size), Reason: reason, Kept: kept})
	return nil
}

func (l *Log) isZero(win *window, from, to int64) (bool, error) {
	for off := from; off < to; off += windowBytes {
		b, err := win.bytes(off, min(windowBytes, to-off))
		if err != nil {
			return false, err
		}
		if !allZero(b) {
			return false, nil
		}
	}
	return true, nil
}

var zeroPage [4096]byte

func allZero(b []byte) bool {
	for len(b) > len(zeroPage) {
		if !bytes.Equal(b[:len(zeroPage)], zeroPage[:]) {
			return false
		}
		b = b[len(zeroPage):]
	}
	return bytes.Equal(b, zeroPage[:len(b)])
}
