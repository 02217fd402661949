package spool

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// simFS is a file system in memory that forgets at a crash, page by page and
// entry by entry, whatever part of the unsynced writes chance decides.
type simFS struct {
	mu     sync.Mutex
	dirs   map[string]*simDir
	space  int64 // free bytes; writes beyond fail with ENOSPC, maybe half done
	failAt func(op, name string) error
	epoch  int // files opened before a crash are dead after it
	locked map[string]bool
}

type simDir struct {
	live, durable map[string]*simNode
	ops           []simDirOp
}

type simDirOp struct {
	name string
	node *simNode // nil removes
}

type simNode struct {
	data, durable []byte
	writes        []simWrite
}

type simWrite struct {
	off  int64
	data []byte
	size int64 // of a truncation, where data is nil
}

func newSimFS() *simFS {
	return &simFS{dirs: map[string]*simDir{}, space: 1 << 40, locked: map[string]bool{}}
}

func (s *simFS) dir(name string) *simDir { return s.dirs[filepath.Clean(name)] }

func (s *simFS) fail(op, name string) error {
	if s.failAt == nil {
		return nil
	}
	return s.failAt(op, filepath.Base(name))
}

func (s *simFS) MkdirAll(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir(dir) == nil {
		s.dirs[filepath.Clean(dir)] = &simDir{live: map[string]*simNode{}, durable: map[string]*simNode{}}
	}
	return nil
}

func (s *simFS) ReadDir(dir string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dir(dir)
	if d == nil {
		return nil, os.ErrNotExist
	}
	var names []string
	for name := range d.live {
		names = append(names, name)
	}
	return names, nil
}

func (s *simFS) Open(name string, create bool) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, base := s.dir(filepath.Dir(name)), filepath.Base(name)
	if d == nil {
		return nil, os.ErrNotExist
	}
	node := d.live[base]
	switch {
	case node == nil && !create:
		return nil, os.ErrNotExist
	case create:
		if err := s.fail("create", name); err != nil {
			return nil, err
		}
		if node == nil {
			node = &simNode{}
			d.live[base] = node
			d.ops = append(d.ops, simDirOp{base, node})
		} else {
			node.truncate(0)
		}
	}
	return &simFile{fs: s, node: node, name: name, epoch: s.epoch}, nil
}

func (s *simFS) Rename(from, to string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, b := s.dir(filepath.Dir(from)), s.dir(filepath.Dir(to))
	node := a.live[filepath.Base(from)]
	if node == nil {
		return os.ErrNotExist
	}
	delete(a.live, filepath.Base(from))
	b.live[filepath.Base(to)] = node
	// A journalling file system renames in one step; the sim does so within
	// one directory by making both halves durable together at SyncDir.
	b.ops = append(b.ops, simDirOp{filepath.Base(to), node})
	a.ops = append(a.ops, simDirOp{filepath.Base(from), nil})
	return nil
}

func (s *simFS) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail("remove", name); err != nil {
		return err
	}
	d := s.dir(filepath.Dir(name))
	if d.live[filepath.Base(name)] == nil {
		return os.ErrNotExist
	}
	delete(d.live, filepath.Base(name))
	d.ops = append(d.ops, simDirOp{filepath.Base(name), nil})
	return nil
}

func (s *simFS) SyncDir(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail("syncdir", dir); err != nil {
		return err
	}
	d := s.dir(dir)
	for _, op := range d.ops {
		d.apply(op)
	}
	d.ops = nil
	return nil
}

func (d *simDir) apply(op simDirOp) {
	if op.node == nil {
		delete(d.durable, op.name)
	} else {
		d.durable[op.name] = op.node
	}
}

type simLock struct {
	fs    *simFS
	name  string
	epoch int
}

func (l simLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.epoch == l.fs.epoch {
		delete(l.fs.locked, l.name)
	}
	return nil
}

func (s *simFS) Lock(name string) (io.Closer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked[name] {
		return nil, fmt.Errorf("%w: locked", controlbus.ErrConflict)
	}
	s.locked[name] = true
	return simLock{s, name, s.epoch}, nil
}

// crash is a power cut: of what was not synced, chance keeps some.
func (s *simFS) crash(rng *rand.Rand) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	s.locked = map[string]bool{}
	seen := map[*simNode]bool{}
	for _, d := range s.dirs {
		for _, op := range d.ops {
			if rng.IntN(2) == 0 {
				d.apply(op)
			}
		}
		d.ops = nil
		d.live = map[string]*simNode{}
		for name, node := range d.durable {
			d.live[name] = node
			if !seen[node] {
				seen[node] = true
				node.crash(rng)
			}
		}
	}
}

func (n *simNode) crash(rng *rand.Rand) {
	data := append([]byte(nil), n.durable...)
	const page = 512
	for _, w := range n.writes {
		if w.data == nil {
			if rng.IntN(2) == 0 {
				data = resize(data, w.size)
			}
			continue
		}
		for i := 0; i < len(w.data); i += page {
			if rng.IntN(3) == 0 {
				continue
			}
			chunk := w.data[i:min(i+page, len(w.data))]
			end := w.off + int64(i+len(chunk))
			if int64(len(data)) < end {
				data = resize(data, end)
			}
			copy(data[w.off+int64(i):], chunk)
		}
	}
	n.data, n.durable, n.writes = data, append([]byte(nil), data...), nil
}

func resize(b []byte, size int64) []byte {
	if int64(len(b)) >= size {
		return b[:size:size]
	}
	return append(b[:len(b):len(b)], make([]byte, size-int64(len(b)))...)
}

func (n *simNode) truncate(size int64) {
	n.data = resize(n.data, size)
	n.writes = append(n.writes, simWrite{size: size})
}

type simFile struct {
	fs    *simFS
	node  *simNode
	name  string
	epoch int
}

var errDead = errors.New("file of a process that crashed")

func (f *simFile) ReadAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.epoch != f.fs.epoch {
		return 0, errDead
	}
	err := f.fs.fail("write", f.name)
	if err != nil {
		b = b[:len(b)/2]
	}
	if grow := off + int64(len(b)) - int64(len(f.node.data)); grow > f.fs.space {
		b, err = b[:max(0, int64(len(b))-(grow-f.fs.space))], syscall.ENOSPC
	}
	if end := off + int64(len(b)); end > int64(len(f.node.data)) {
		f.fs.space -= end - int64(len(f.node.data))
		f.node.data = resize(f.node.data, end)
	}
	copy(f.node.data[off:], b)
	f.node.writes = append(f.node.writes, simWrite{off: off, data: append([]byte{}, b...)})
	return len(b), err
}

func (f *simFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.epoch != f.fs.epoch {
		return errDead
	}
	if err := f.fs.fail("truncate", f.name); err != nil {
		return err
	}
	f.node.truncate(size)
	return nil
}

func (f *simFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.epoch != f.fs.epoch {
		return errDead
	}
	if err := f.fs.fail("sync", f.name); err != nil {
		// As Linux does it: the error is told once, and the pages count as
		// clean from then on although they never reached the disk.
		f.node.writes = nil
		return err
	}
	f.node.durable, f.node.writes = append([]byte(nil), f.node.data...), nil
	return nil
}

func (f *simFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

func (f *simFile) Close() error { return nil }
