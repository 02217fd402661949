package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage/spool"
)

// Config of an archive. Dir, MaxBytes and MaxAge are required.
type Config struct {
	Dir      string
	MaxBytes int64
	MaxAge   time.Duration
	Log      *slog.Logger
	Now      func() time.Time // nil: time.Now
}

// Store is an agent's archive. It is safe for concurrent use.
type Store struct {
	cfg Config

	mu     sync.Mutex
	copies map[controlbus.CommandID]*copied
	total  int64
}

// copied is one command's copy, as the store accounts for it.
type copied struct {
	meta  Meta
	bytes int64
	users int // writers and readers now
}

// Meta is what is known of a copy beside its messages.
type Meta struct {
	Command controlbus.CommandID   `json:"command"`
	Kind    controlbus.CommandKind `json:"kind"`
	Channel controlbus.ChannelName `json:"channel"`
	Began   time.Time              `json:"began"`
	// Ended is when the writer was closed; zero while it is open, and for good
	// where the agent died meanwhile.
	Ended time.Time `json:"ended,omitzero"`
	// Count is how many messages were in it then.
	Count int64 `json:"count,omitempty"`
}

const metaFile = "meta.json"

// Open reads what is in the directory, or makes it. Copies older than the age are
// deleted.
func Open(cfg Config) (*Store, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{cfg: cfg, copies: map[controlbus.CommandID]*copied{}}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	for _, e := range entries {
		id := controlbus.CommandID(e.Name())
		if !e.IsDir() || !id.Valid() {
			continue
		}
		c := &copied{meta: Meta{Command: id}}
		b, err := spool.ReadFile(spool.OS, filepath.Join(s.dir(id), metaFile))
		if err == nil {
			err = json.Unmarshal(b, &c.meta)
		}
		if err != nil {
			// The messages are what counts; without a date the copy is as old as its
			// directory.
			cfg.Log.Warn("what a copy of removed messages is of cannot be read", "command", id, "error", err)
			c.meta.Command = id
			if info, err := e.Info(); err == nil {
				c.meta.Began = info.ModTime()
			}
		}
		if c.bytes, err = size(s.dir(id)); err != nil {
			return nil, fmt.Errorf("archive: %w", err)
		}
		s.copies[id], s.total = c, s.total+c.bytes
	}
	return s, s.Sweep()
}

func (s *Store) dir(id controlbus.CommandID) string { return filepath.Join(s.cfg.Dir, string(id)) }

func size(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}

// Run deletes what has become too old, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.Sweep(); err != nil {
				s.cfg.Log.WarnContext(ctx, "old copies cannot be deleted", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Sweep deletes the copies that are older than the age. One that is being read or
// written stays until the next time.
func (s *Store) Sweep() error {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for id, c := range s.copies {
		from := c.meta.Ended
		if from.IsZero() {
			from = c.meta.Began
		}
		if c.users > 0 || now.Sub(from) <= s.cfg.MaxAge {
			continue
		}
		if err := os.RemoveAll(s.dir(id)); err != nil {
			errs = append(errs, fmt.Errorf("archive: delete %s: %w", id, err))
			continue
		}
		s.total -= c.bytes
		delete(s.copies, id)
		s.cfg.Log.Info("copy of removed messages deleted: it is older than commands.archive.max_age", "command", id, "channel", c.meta.Channel.String(), "began", c.meta.Began)
	}
	return errors.Join(errs...)
}

// Free is how many bytes may still be kept.
func (s *Store) Free() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.cfg.MaxBytes-s.total, 0)
}

// full says why there is no room, and when there will be some.
func (s *Store) full(need int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fullLocked(need)
}

func (s *Store) fullLocked(need int64) error {
	if s.total+need <= s.cfg.MaxBytes {
		return nil
	}
	return fmt.Errorf("archive: %w: %d bytes of copies are kept and %d more do not fit into commands.archive.max_bytes (%d); copies are deleted %v after their command, none before",
		controlbus.ErrOverloaded, s.total, need, s.cfg.MaxBytes, s.cfg.MaxAge)
}

// CheckRoom is an error that says why so many more bytes cannot be kept.
func (s *Store) CheckRoom(need int64) error { return s.full(need) }

// use takes hold of a copy so that it is not deleted meanwhile.
func (s *Store) use(id controlbus.CommandID) (Meta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.copies[id]
	if c == nil {
		return Meta{}, fmt.Errorf("archive: %w: this agent has no copy of what command %s removed; copies are deleted after %v", controlbus.ErrNotFound, id, s.cfg.MaxAge)
	}
	if c.users > 0 {
		return Meta{}, fmt.Errorf("archive: %w: the copy of command %s is in use", controlbus.ErrConflict, id)
	}
	c.users++
	return c.meta, nil
}

func (s *Store) release(id controlbus.CommandID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.copies[id]; c != nil {
		c.users--
	}
}

// grow accounts for bytes before they are written; over the limit it refuses.
func (s *Store) grow(id controlbus.CommandID, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 {
		if err := s.fullLocked(n); err != nil {
			return err
		}
	}
	s.copies[id].bytes += n
	s.total += n
	return nil
}
