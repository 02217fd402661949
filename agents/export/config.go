// Package export takes what taps see to the console: queue, redaction, spool
// on disk, OTLP/HTTP. The agent opens one Queue per tap and runs one Exporter;
// the spool is in order and sent in order, one batch at a time, each with a
// number by which the collector knows it again.
//
//	tap ─ Put ─▶ Queue ─▶ redact, encode ─▶ spool (fsync) ─▶ POST ─▶ collector
//	             bounded                     bounded
//
// When the collector is away the spool fills; when the spool is full the
// queues fill; then a resumable tap waits and any other drops its oldest
// message and counts it. Nothing else ever drops a message silently.
package export

import (
	"errors"
	"fmt"
	"time"
)

// Config is the "export" section of the agent's configuration.
type Config struct {
	MaxBytes      int64         `yaml:"max_bytes"`      // of the spool on disk
	BatchBytes    int           `yaml:"batch_bytes"`    // of a batch before compression
	BatchMessages int           `yaml:"batch_messages"` // in a batch
	Linger        time.Duration `yaml:"linger"`         // longest wait for a batch to fill
	Timeout       time.Duration `yaml:"timeout"`        // of one request
	QueueMessages int           `yaml:"queue_messages"` // in memory, per tap
	QueueBytes    int64         `yaml:"queue_bytes"`    // in memory, per tap
	MemoryBytes   int64         `yaml:"memory_bytes"`   // in memory, all taps together
	Grace         time.Duration `yaml:"grace"`          // to send what is left when the agent stops
}

// DefaultConfig is what an empty section means.
func DefaultConfig() Config {
	return Config{
		MaxBytes: 1 << 30, BatchBytes: 512 << 10, BatchMessages: 2000, Linger: 100 * time.Millisecond, Timeout: 30 * time.Second,
		QueueMessages: 8192, QueueBytes: 4 << 20, MemoryBytes: 12 << 20, Grace: 5 * time.Second,
	}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		key        string
		have, want int64
	}{
		{"max_bytes", c.MaxBytes, 1 << 20}, {"batch_bytes", int64(c.BatchBytes), 1024}, {"batch_messages", int64(c.BatchMessages), 1},
		{"queue_messages", int64(c.QueueMessages), 1}, {"queue_bytes", c.QueueBytes, 1024}, {"memory_bytes", c.MemoryBytes, c.QueueBytes},
	} {
		if f.have < f.want {
			errs = append(errs, fmt.Errorf("%s: want at least %d, have %d", f.key, f.want, f.have))
		}
	}
	if c.BatchBytes > 8<<20 {
		errs = append(errs, fmt.Errorf("batch_bytes: want at most %d, have %d", 8<<20, c.BatchBytes))
	}
	if c.Linger < 0 || c.Linger > 10*time.Second {
		errs = append(errs, fmt.Errorf("linger: want 0 to 10s, have %v", c.Linger))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout: want a positive duration, have %v", c.Timeout))
	}
	if c.Grace < 0 {
		errs = append(errs, fmt.Errorf("grace: want 0 or more, have %v", c.Grace))
	}
	return errors.Join(errs...)
}
