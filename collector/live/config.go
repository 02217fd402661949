package live

import (
	"errors"
	"fmt"
	"time"
)

// Config is the "live" section of the configuration file.
type Config struct {
	MaxTaps        int           `yaml:"max_taps"`          // of all users together
	MaxTapsPerUser int           `yaml:"max_taps_per_user"` //
	MaxRows        int           `yaml:"max_rows"`          // that a tap may lag behind
	MaxBytes       int           `yaml:"max_bytes"`         // that a tap may lag behind
	MaxRate        int           `yaml:"max_rate"`          // messages per second and tap; above it "1 of n" is shown
	FrameInterval  time.Duration `yaml:"frame_interval"`
	Lifetime       time.Duration `yaml:"lifetime"`     // of one tap; its reader comes back with a token
	ResumeBytes    int           `yaml:"resume_bytes"` // of the frames kept, all taps together
	ResumeFor      time.Duration `yaml:"resume_for"`   // a tap nobody reads is kept
}

// DefaultConfig suits a console of some dozens of people.
func DefaultConfig() Config {
	return Config{
		MaxTaps: 10_000, MaxTapsPerUser: 50,
		MaxRows: 1_000, MaxBytes: 1 << 20, MaxRate: 500,
		FrameInterval: 150 * time.Millisecond, Lifetime: time.Hour,
		ResumeBytes: 32 << 20, ResumeFor: time.Minute,
	}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	for _, f := range []struct {
		key  string
		have int
	}{
		{"max_taps", c.MaxTaps}, {"max_taps_per_user", c.MaxTapsPerUser}, {"max_rows", c.MaxRows},
		{"max_bytes", c.MaxBytes}, {"max_rate", c.MaxRate}, {"resume_bytes", c.ResumeBytes},
	} {
		if f.have <= 0 {
			errs = append(errs, fmt.Errorf("%s: want a positive number, have %d", f.key, f.have))
		}
	}
	if c.FrameInterval < 100*time.Millisecond || c.FrameInterval > 250*time.Millisecond {
		errs = append(errs, fmt.Errorf("frame_interval: want 100ms to 250ms, have %v", c.FrameInterval))
	}
	if c.Lifetime <= 0 {
		errs = append(errs, fmt.Errorf("lifetime: want a positive duration, have %v", c.Lifetime))
	}
	if c.ResumeFor < 0 || c.ResumeFor > time.Hour {
		errs = append(errs, fmt.Errorf("resume_for: want at most 1h, have %v", c.ResumeFor))
	}
	return errors.Join(errs...)
}
