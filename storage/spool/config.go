package spool

import (
	"errors"
	"fmt"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Config of a log. Dir is required; the rest has defaults.
type Config struct {
	Dir string `yaml:"dir"`
	// MaxBytes caps what the log takes on disk; over it Append refuses with
	// ErrFull. 0 means no cap.
	MaxBytes int64 `yaml:"max_bytes"`
	// SegmentBytes is the size at which a new segment begins: 64 MiB, or an
	// eighth of MaxBytes where that is less, because the newest segment is
	// never trimmed and counts against the cap.
	SegmentBytes int64 `yaml:"segment_bytes"`
	// FS is OS unless a test puts another in its place.
	FS FS `yaml:"-"`
}

// Limits of the format.
const (
	// MaxRecord is the largest payload.
	MaxRecord = 256 << 20
	// maxSegment is more than any segment can hold. After a restart or a
	// failed write positions go on that far behind the base of the newest
	// segment, so none is given out twice even if a file lost its end.
	maxSegment = 1 << 30

	defaultSegment = 64 << 20
	minSegment     = 4 << 10
	maxCommit      = 32 << 20 // bytes written before one fsync
)

// Validate reports every problem at once.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dir: is required"))
	}
	if c.SegmentBytes != 0 && (c.SegmentBytes < minSegment || c.SegmentBytes > maxSegment/2) {
		errs = append(errs, fmt.Errorf("segment_bytes: want %d to %d, have %d", minSegment, maxSegment/2, c.SegmentBytes))
	}
	if c.MaxBytes != 0 && c.MaxBytes < 8*minSegment {
		errs = append(errs, fmt.Errorf("max_bytes: want 0 or at least %d, have %d", 8*minSegment, c.MaxBytes))
	}
	if c.SegmentBytes != 0 && c.MaxBytes != 0 && c.MaxBytes < 2*c.SegmentBytes {
		errs = append(errs, fmt.Errorf("max_bytes: want at least twice segment_bytes, have %d", c.MaxBytes))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = defaultSegment
		if c.MaxBytes > 0 {
			c.SegmentBytes = max(minSegment, min(c.SegmentBytes, c.MaxBytes/8))
		}
	}
	if c.FS == nil {
		c.FS = OS
	}
	return c
}

// Errors of a log, beside those of the file system.
var (
	// ErrFull: the log has reached MaxBytes. Retry once something was trimmed.
	ErrFull = fmt.Errorf("%w: spool has reached its size limit", controlbus.ErrOverloaded)
	// ErrNoSpace: the disk is full. The log is intact; retry later.
	ErrNoSpace = fmt.Errorf("%w: no space left for the spool", controlbus.ErrUnavailable)
	// ErrClosed: the log was closed.
	ErrClosed = fmt.Errorf("%w: spool is closed", controlbus.ErrUnavailable)
)
