package engine

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Bytes is a size, written "512MiB", "2GiB" or as a plain number.
type Bytes int64

// Sizes in the units operators think in.
const (
	KiB Bytes = 1 << 10
	MiB Bytes = 1 << 20
	GiB Bytes = 1 << 30
)

// UnmarshalText reads a size from YAML and from flags.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	unit := Bytes(1)
	for suffix, u := range map[string]Bytes{"KiB": KiB, "MiB": MiB, "GiB": GiB} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = strings.TrimSpace(rest), u
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > int64(1<<62)/int64(unit) {
		return fmt.Errorf("want a size such as 512MiB, 2GiB or a number of bytes, have %q", text)
	}
	*b = Bytes(n) * unit
	return nil
}

// MarshalText writes the largest unit that divides the size.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

func (b Bytes) String() string {
	switch {
	case b == 0:
		return "0"
	case b%GiB == 0:
		return fmt.Sprintf("%dGiB", b/GiB)
	case b%MiB == 0:
		return fmt.Sprintf("%dMiB", b/MiB)
	case b%KiB == 0:
		return fmt.Sprintf("%dKiB", b/KiB)
	}
	return strconv.FormatInt(int64(b), 10)
}

// Config is the "storage.engine" section of the configuration file. The same
// values reach the child as flags.
type Config struct {
	Library      string        `yaml:"library"`       // path of libchdb; empty looks beside the program and in node_modules
	DataDir      string        `yaml:"data_dir"`      // one process at a time
	Socket       string        `yaml:"socket"`        // Unix socket; empty for one in the data directory
	TCPListen    string        `yaml:"tcp_listen"`    // read-only listener for curl and Grafana, loopback only; empty for none
	Memory       Bytes         `yaml:"memory"`        // cap on the whole engine
	QueryMemory  Bytes         `yaml:"query_memory"`  // cap on one statement
	MarkCache    Bytes         `yaml:"mark_cache"`    // index marks kept in memory
	QueryTimeout time.Duration `yaml:"query_timeout"` // default deadline of a statement; max_execution_time overrides it
	Connections  int           `yaml:"connections"`   // statements that run at once
	QueueTimeout time.Duration `yaml:"queue_timeout"` // longest wait for a free connection
	DiskReserve  Bytes         `yaml:"disk_reserve"`  // inserts are refused when less disk than this is free
	Grace        time.Duration `yaml:"grace"`         // time that running statements get at shutdown
}

// DefaultConfig suits two cores and a host shared with the console.
func DefaultConfig() Config {
	return Config{
		DataDir:      filepath.Join(".data", "engine"),
		Memory:       2 * GiB,
		QueryMemory:  1 * GiB,
		MarkCache:    256 * MiB,
		QueryTimeout: 30 * time.Second,
		Connections:  8,
		QueueTimeout: 10 * time.Second,
		DiskReserve:  512 * MiB,
		Grace:        10 * time.Second,
	}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.DataDir == "" {
		bad("data_dir", "want a directory, have none")
	}
	if len(c.Socket) > maxSocketPath {
		bad("socket", "want at most %d bytes, which is what the system allows, have %d", maxSocketPath, len(c.Socket))
	}
	if c.Memory < 256*MiB {
		bad("memory", "want at least 256MiB, have %v", c.Memory)
	}
	if c.QueryMemory < 16*MiB || c.QueryMemory > c.Memory {
		bad("query_memory", "want between 16MiB and memory (%v), have %v", c.Memory, c.QueryMemory)
	}
	if c.MarkCache < 0 || c.MarkCache > c.Memory {
		bad("mark_cache", "want at most memory (%v), have %v", c.Memory, c.MarkCache)
	}
	if c.QueryTimeout < time.Second {
		bad("query_timeout", "want at least 1s, have %v", c.QueryTimeout)
	}
	if c.Connections < 1 || c.Connections > 256 {
		bad("connections", "want 1 to 256, have %d", c.Connections)
	}
	if c.QueueTimeout <= 0 {
		bad("queue_timeout", "want a positive duration, have %v", c.QueueTimeout)
	}
	if c.DiskReserve < 0 {
		bad("disk_reserve", "want a size, have %d", int64(c.DiskReserve))
	}
	if c.Grace < 0 {
		bad("grace", "want a duration, have %v", c.Grace)
	}
	if c.TCPListen != "" {
		if err := checkLoopback(c.TCPListen); err != nil {
			bad("tcp_listen", "%v", err)
		}
	}
	return errors.Join(errs...)
}

// checkLoopback refuses an address that others can reach: the listener knows
// no passwords.
func checkLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("want host:port, have %q", addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("want a loopback address such as 127.0.0.1:8123, because this listener asks for no password; have %q", addr)
	}
	return nil
}

// RegisterFlags binds c to the flags of "signalbox engine". Args is its inverse.
func (c *Config) RegisterFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.Library, "library", c.Library, "path of libchdb.so (default: SIGNALBOX_LIBCHDB, beside the program, node_modules)")
	fs.StringVar(&c.DataDir, "data", c.DataDir, "data directory")
	fs.StringVar(&c.Socket, "socket", c.Socket, "Unix socket to answer on (default: engine.sock in the data directory)")
	fs.StringVar(&c.TCPListen, "tcp", c.TCPListen, "read-only listener on a loopback address, such as 127.0.0.1:8123")
	fs.TextVar(&c.Memory, "memory", c.Memory, "memory cap of the whole engine")
	fs.TextVar(&c.QueryMemory, "query-memory", c.QueryMemory, "memory cap of one statement")
	fs.TextVar(&c.MarkCache, "mark-cache", c.MarkCache, "memory for index marks")
	fs.DurationVar(&c.QueryTimeout, "query-timeout", c.QueryTimeout, "default deadline of a statement")
	fs.IntVar(&c.Connections, "connections", c.Connections, "statements that run at once")
	fs.DurationVar(&c.QueueTimeout, "queue-timeout", c.QueueTimeout, "longest wait for a free connection")
	fs.TextVar(&c.DiskReserve, "disk-reserve", c.DiskReserve, "free disk below which inserts are refused")
	fs.DurationVar(&c.Grace, "grace", c.Grace, "time that running statements get at shutdown")
}

// Args are the flags that give another process this configuration.
func (c Config) Args() []string {
	return []string{
		"-library", c.Library, "-data", c.DataDir, "-socket", c.Socket, "-tcp", c.TCPListen,
		"-memory", c.Memory.String(), "-query-memory", c.QueryMemory.String(), "-mark-cache", c.MarkCache.String(),
		"-query-timeout", c.QueryTimeout.String(), "-connections", strconv.Itoa(c.Connections),
		"-queue-timeout", c.QueueTimeout.String(), "-disk-reserve", c.DiskReserve.String(), "-grace", c.Grace.String(),
	}
}

// maxSocketPath is what sockaddr_un holds on macOS, the shorter one.
const maxSocketPath = 103

// socketPath is where the child listens. A data directory with a long name
// gets a socket in a private directory of its own.
func (c Config) socketPath() (string, error) {
	if c.Socket != "" {
		return c.Socket, nil
	}
	abs, err := filepath.Abs(filepath.Join(c.DataDir, "engine.sock"))
	if err != nil {
		return "", fmt.Errorf("engine: socket path: %w", err)
	}
	if len(abs) <= maxSocketPath {
		return abs, nil
	}
	dir, err := os.MkdirTemp("", "signalbox-")
	if err != nil {
		return "", fmt.Errorf("engine: socket directory: %w", err)
	}
	return filepath.Join(dir, "engine.sock"), nil
}
