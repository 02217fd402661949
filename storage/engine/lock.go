package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockPause is the time between attempts to take the lock.
const lockPause = 50 * time.Millisecond

// waitLockDir is lockDir with patience: after the console was killed and
// started again, its last engine may still be closing the directory.
func waitLockDir(ctx context.Context, dir string, patience time.Duration) (*os.File, error) {
	deadline := time.Now().Add(patience)
	for {
		f, err := lockDir(dir)
		if !errors.Is(err, errInUse) || time.Now().After(deadline) {
			return f, err
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

var errInUse = errors.New("is in use by process")

// lockDir makes the directory this process's own until the returned file is
// closed or the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "signalbox.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("engine: lock %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("engine: lock %s: %w", dir, err)
		}
		holder, _ := io.ReadAll(io.LimitReader(f, 32))
		return nil, fmt.Errorf("engine: data directory %s %w %s", dir, errInUse, strings.TrimSpace(string(holder)))
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("engine: write lock of %s: %w", dir, err)
	}
	return f, nil
}

// diskFree is what an ordinary user may still write to dir's file system.
func diskFree(dir string) (Bytes, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return Bytes(st.Bavail * uint64(st.Bsize)), nil
}
