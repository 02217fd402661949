package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"runtime"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Config is the "storage" section of the configuration file.
type Config struct {
	// DSN of a ClickHouse server or cluster: http://user:password@host:8123/database,
	// https://..., or clickhouse://... which means the same server's HTTP
	// interface. Empty means the embedded engine, reached by DialContext.
	DSN controlbus.Secret `yaml:"dsn"`
	// DialContext reaches the embedded engine's HTTP interface.
	DialContext func(ctx context.Context, addr string) (net.Conn, error) `yaml:"-"`

	Database string  `yaml:"database"` // where the DSN names none
	Profile  Profile `yaml:"profile"`  // embedded, replicated-db, on-cluster
	Cluster  string  `yaml:"cluster"`  // with profile on-cluster
	// HeaderIndex is how headers are indexed: text (fast, about 19 bytes a
	// message), bloom (small), or auto: text on servers known to do it well,
	// bloom in the embedded engine. It takes effect when tables are made.
	HeaderIndex string `yaml:"header_index"`

	QueryTimeout   time.Duration `yaml:"query_timeout"`   // of a read whose caller sets no deadline
	QueryMemory    int64         `yaml:"query_memory"`    // bytes one read may use, 0 = the server's limit
	InsertTimeout  time.Duration `yaml:"insert_timeout"`  // of one batch
	InsertParallel int           `yaml:"insert_parallel"` // tables written at once

	Retention Retention `yaml:"retention"`

	// ClockOffset tells how far the clock of the agent that reported a message
	// is ahead of the console's, as the collector estimates it. Histories
	// correct by it. May be nil.
	ClockOffset func(*storage.Message) time.Duration `yaml:"-"`
}

// Retention says how long rows are kept, in days by event time; 0 keeps them
// for ever. The disk guard drops the oldest day of all tables while less than
// MinFree of the disk, or MinFreeBytes, is free.
type Retention struct {
	Messages int `yaml:"messages_days"`
	Bodies   int `yaml:"bodies_days"`
	Logs     int `yaml:"logs_days"`
	Spans    int `yaml:"spans_days"`
	Samples  int `yaml:"samples_days"`
	Rollup10 int `yaml:"rollup_10s_days"`
	Rollup60 int `yaml:"rollup_1m_days"`
	Rollup   int `yaml:"rollup_1h_days"`
	Invalid  int `yaml:"invalid_days"`

	MinFree      float64       `yaml:"min_free"`       // part of the disk, such as 0.05
	MinFreeBytes int64         `yaml:"min_free_bytes"` // the larger of the two counts
	MaxBytes     int64         `yaml:"max_bytes"`      // of all tables together, 0 = no limit
	Every        time.Duration `yaml:"every"`
}

// DefaultConfig is the embedded store of one console.
func DefaultConfig() Config {
	return Config{
		Database:       "signalbox",
		Profile:        Embedded,
		HeaderIndex:    "auto",
		QueryTimeout:   10 * time.Second,
		QueryMemory:    1 << 30,
		InsertTimeout:  2 * time.Minute,
		InsertParallel: max(2, runtime.GOMAXPROCS(0)/2),
		Retention: Retention{
			Messages: 14, Bodies: 7, Logs: 14, Spans: 14, Samples: 30,
			Rollup10: 3, Rollup60: 30, Rollup: 400, Invalid: 14,
			MinFree: 0.05, MinFreeBytes: 1 << 30, Every: time.Minute,
		},
	}
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf(key+": "+format, args...))
	}
	if c.Database != "" && !identifier.MatchString(c.Database) {
		bad("database", "want letters, digits and underscores, have %q", c.Database)
	}
	switch c.Profile {
	case Embedded, ReplicatedDB:
	case OnCluster:
		if !identifier.MatchString(c.Cluster) {
			bad("cluster", "profile on-cluster wants a name of letters, digits and underscores, have %q", c.Cluster)
		}
	default:
		bad("profile", "want embedded, replicated-db or on-cluster, have %q", c.Profile)
	}
	switch c.HeaderIndex {
	case "auto", "text", "bloom":
	default:
		bad("header_index", "want auto, text or bloom, have %q", c.HeaderIndex)
	}
	if c.QueryTimeout <= 0 {
		bad("query_timeout", "want a positive duration, have %v", c.QueryTimeout)
	}
	if c.QueryMemory < 0 {
		bad("query_memory", "want bytes, have %d", c.QueryMemory)
	}
	if c.InsertTimeout <= 0 {
		bad("insert_timeout", "want a positive duration, have %v", c.InsertTimeout)
	}
	if c.InsertParallel <= 0 {
		bad("insert_parallel", "want a positive number, have %d", c.InsertParallel)
	}
	if err := c.Retention.Validate(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Validate reports every problem at once, each under its own key.
func (r Retention) Validate() error {
	var errs []error
	for _, d := range []struct {
		key  string
		days int
	}{
		{"messages_days", r.Messages}, {"bodies_days", r.Bodies}, {"logs_days", r.Logs}, {"spans_days", r.Spans},
		{"samples_days", r.Samples}, {"rollup_10s_days", r.Rollup10}, {"rollup_1m_days", r.Rollup60},
		{"rollup_1h_days", r.Rollup}, {"invalid_days", r.Invalid},
	} {
		if d.days < 0 || d.days > 36500 {
			errs = append(errs, fmt.Errorf("retention.%s: want 0 to 36500 days, have %d", d.key, d.days))
		}
	}
	if r.MinFree < 0 || r.MinFree >= 1 {
		errs = append(errs, fmt.Errorf("retention.min_free: want a part of the disk from 0 to below 1, have %v", r.MinFree))
	}
	if r.MinFreeBytes < 0 {
		errs = append(errs, fmt.Errorf("retention.min_free_bytes: want bytes, have %d", r.MinFreeBytes))
	}
	if r.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("retention.max_bytes: want bytes, have %d", r.MaxBytes))
	}
	if r.Every <= 0 {
		errs = append(errs, fmt.Errorf("retention.every: want a positive duration, have %v", r.Every))
	}
	return errors.Join(errs...)
}
