package prometheus

import (
	"errors"
	"fmt"
	"time"
)

// Config is the "prometheus" section of the configuration file.
type Config struct {
	// MaxSamples bounds what one query reads, and what it holds at a time. A
	// sample takes 16 bytes: with the default, four queries at once take 640 MB
	// at the very worst, where Prometheus's own default of 50 million would
	// take ten times that.
	MaxSamples  int           `yaml:"max_samples"`
	MaxSeries   int           `yaml:"max_series"`  // that one selector may select
	Timeout     time.Duration `yaml:"timeout"`     // of one query, waiting included
	Concurrency int           `yaml:"concurrency"` // queries that run at a time
	MaxWaiting  int           `yaml:"max_waiting"` // queries that wait for their turn; more are refused
	Lookback    time.Duration `yaml:"lookback"`    // how long a sample counts as the present value
}

// DefaultConfig suits a console beside its embedded store.
func DefaultConfig() Config {
	return Config{
		MaxSamples: 10_000_000, MaxSeries: 50_000, Timeout: 30 * time.Second,
		Concurrency: 4, MaxWaiting: 100, Lookback: 5 * time.Minute,
	}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		key  string
		have int
	}{{"max_samples", c.MaxSamples}, {"max_series", c.MaxSeries}, {"concurrency", c.Concurrency}} {
		if f.have <= 0 {
			errs = append(errs, fmt.Errorf("%s: want a positive number, have %d", f.key, f.have))
		}
	}
	if c.MaxWaiting < 0 {
		errs = append(errs, fmt.Errorf("max_waiting: want 0 or more, have %d", c.MaxWaiting))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout: want a positive duration, have %v", c.Timeout))
	}
	if c.Lookback < time.Second {
		errs = append(errs, fmt.Errorf("lookback: want a second or more, have %v", c.Lookback))
	}
	return errors.Join(errs...)
}
