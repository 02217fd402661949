package collector

import (
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
)

// Config is the "collector" section of the configuration file.
type Config struct {
	Dir         string           `yaml:"dir"`          // of the durable queue
	MaxBytes    int64            `yaml:"max_bytes"`    // of the queue on disk; over it senders are told to wait
	MaxSenders  int              `yaml:"max_senders"`  // numbered senders remembered at once
	ForgetAfter time.Duration    `yaml:"forget_after"` // a sender that was silent this long may be forgotten
	Limits      telemetry.Limits `yaml:"-"`
}

// DefaultConfig keeps hours of a busy company's telemetry while the store is down.
func DefaultConfig() Config {
	return Config{
		Dir: ".data/queue", MaxBytes: 8 << 30, MaxSenders: 20_000, ForgetAfter: 7 * 24 * time.Hour,
		Limits: telemetry.DefaultLimits(),
	}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("dir: want a directory, have none"))
	}
	if c.MaxBytes < 64<<20 {
		errs = append(errs, fmt.Errorf("max_bytes: want at least 67108864, have %d", c.MaxBytes))
	}
	if c.MaxSenders <= 0 {
		errs = append(errs, fmt.Errorf("max_senders: want a positive number, have %d", c.MaxSenders))
	}
	if c.ForgetAfter < time.Hour {
		errs = append(errs, fmt.Errorf("forget_after: want at least 1h, have %v", c.ForgetAfter))
	}
	return errors.Join(errs...)
}
