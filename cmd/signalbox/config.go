package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/collector/ingest"
	"github.com/signalbox-dev/signalbox/collector/live"
	"github.com/signalbox-dev/signalbox/collector/otlp"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/access/oidc"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage/clickhouse"
	"github.com/signalbox-dev/signalbox/storage/engine"
	"github.com/signalbox-dev/signalbox/ui/prometheus"
)

// config is the console's configuration file, composed of each package's own
// section.
type config struct {
	// DataDir holds everything the console keeps: the embedded engine, the
	// durable queue and the state. Sections may name other places.
	DataDir string `yaml:"data_dir"`
	// Listen is the one HTTP port: pages, OTLP/HTTP, agents, live taps.
	Listen string `yaml:"listen"`
	// ListenGRPC is OTLP/gRPC; empty for none.
	ListenGRPC string        `yaml:"listen_grpc"`
	Grace      time.Duration `yaml:"grace"` // each part gets this long to stop
	// MetricsInterval is how often the console puts its own metrics into its
	// store; 0 for never.
	MetricsInterval time.Duration `yaml:"metrics_interval"`
	// PublicURL is the console's address as browsers know it, where that is not
	// the one listened on.
	PublicURL string    `yaml:"public_url"`
	TLS       tlsConfig `yaml:"tls"`
	// TrustedProxies may say for whom they ask (X-Forwarded-For).
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`

	Log        logConfig         `yaml:"log"`
	Storage    storageConfig     `yaml:"storage"`
	State      stateConfig       `yaml:"state"`
	Collector  collector.Config  `yaml:"collector"`
	Ingest     ingest.Config     `yaml:"ingest"`
	OTLP       otlp.Config       `yaml:"otlp"`
	Live       live.Config       `yaml:"live"`
	Prometheus prometheus.Config `yaml:"prometheus"`
	Access     access.Config     `yaml:"access"`
	Privacy    access.Privacy    `yaml:"privacy"`
	OIDC       oidc.Config       `yaml:"oidc"`
	Commands   ledger.Config     `yaml:"commands"`
	// AuditHeads is the file that the audit trail's signed heads are appended to.
	AuditHeads string `yaml:"audit_heads"`
}

type storageConfig struct {
	clickhouse.Config `yaml:",inline"`
	// DSNFile names a file that holds the DSN, with its password.
	DSNFile string        `yaml:"dsn_file"`
	Engine  engine.Config `yaml:"engine"`
}

type logConfig struct {
	Level  slog.Level `yaml:"level"`
	Format string     `yaml:"format"` // text or json
}

func defaultConfig() config {
	c := config{
		DataDir: filepath.Join(".data", "console"), Listen: "127.0.0.1:8470", ListenGRPC: "127.0.0.1:4317",
		Grace:           20 * time.Second,
		MetricsInterval: 15 * time.Second,
		Log:             logConfig{Level: slog.LevelInfo, Format: "text"},
		Storage:         storageConfig{Config: clickhouse.DefaultConfig(), Engine: engine.DefaultConfig()},
		Collector:       collector.DefaultConfig(),
		Ingest:          ingest.DefaultConfig(),
		OTLP:            otlp.DefaultConfig(),
		Live:            live.DefaultConfig(),
		Prometheus:      prometheus.DefaultConfig(),
		Access:          access.DefaultConfig(),
		Privacy:         access.DefaultPrivacy(),
		OIDC:            oidc.DefaultConfig(),
		Commands:        ledger.DefaultConfig(),
	}
	c.Storage.Engine.DataDir = "" // in DataDir, unless the file says otherwise
	c.Collector.Dir = ""
	c.Ingest.Quarantine = ""
	return c
}

// loadConfig reads a configuration file over the defaults. An empty path means
// the defaults. Every problem is reported, with its line or key.
func loadConfig(path string) (config, error) {
	c := defaultConfig()
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return config{}, fmt.Errorf("configuration: %w", err)
		}
		d := yaml.NewDecoder(bytes.NewReader(text))
		d.KnownFields(true)
		if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
			return config{}, fmt.Errorf("configuration %s: %w", path, err)
		}
	}
	if c.Storage.DSNFile != "" {
		if c.Storage.DSN != "" {
			return config{}, fmt.Errorf("configuration %s: storage: give dsn or dsn_file, not both", path)
		}
		dsn, err := controlbus.SecretFromFile(c.Storage.DSNFile)
		if err != nil {
			return config{}, fmt.Errorf("configuration %s: storage.dsn_file: %w", path, err)
		}
		c.Storage.DSN = dsn
	}
	if err := c.State.read(); err != nil {
		return config{}, fmt.Errorf("configuration %s: state%w", path, err)
	}
	if c.OIDC.ClientSecretFile != "" {
		secret, err := controlbus.SecretFromFile(c.OIDC.ClientSecretFile)
		if err != nil {
			return config{}, fmt.Errorf("configuration %s: oidc.client_secret_file: %w", path, err)
		}
		c.OIDC.ClientSecret = secret
	}
	c.derive()
	if err := c.validate(); err != nil {
		return config{}, fmt.Errorf("configuration %s is not usable:\n%w", path, err)
	}
	return c, nil
}

// derive fills in the places that follow from DataDir.
func (c *config) derive() {
	if c.Storage.Engine.DataDir == "" {
		c.Storage.Engine.DataDir = filepath.Join(c.DataDir, "engine")
	}
	if c.Collector.Dir == "" {
		c.Collector.Dir = filepath.Join(c.DataDir, "queue")
	}
	if c.AuditHeads == "" {
		c.AuditHeads = filepath.Join(c.DataDir, "audit-heads")
	}
	if c.Ingest.Quarantine == "" {
		c.Ingest.Quarantine = filepath.Join(c.DataDir, "quarantine")
	}
}

func (c config) validate() error {
	var errs []error
	section := func(prefix string, err error) {
		if err == nil {
			return
		}
		for _, line := range strings.Split(err.Error(), "\n") {
			errs = append(errs, errors.New("  "+prefix+line))
		}
	}
	if c.DataDir == "" {
		section("", errors.New("data_dir: want a directory, have none"))
	}
	section("listen: ", c.exposure(c.Listen))
	if c.ListenGRPC != "" {
		section("listen_grpc: ", c.exposure(c.ListenGRPC))
	}
	section("tls.", c.TLS.validate())
	if _, err := c.public(); err != nil {
		section("public_url: ", err)
	}
	if c.MetricsInterval != 0 && c.MetricsInterval < time.Second {
		section("", fmt.Errorf("metrics_interval: want a second or more, or 0 for never, have %v", c.MetricsInterval))
	}
	if c.Grace <= 0 {
		section("", fmt.Errorf("grace: want a positive duration, have %v", c.Grace))
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		section("", fmt.Errorf("log.format: want text or json, have %q", c.Log.Format))
	}
	section("storage.", c.Storage.Config.Validate())
	if c.Storage.DSN == "" {
		section("storage.engine.", c.Storage.Engine.Validate())
	}
	section("state.", c.State.validate())
	section("collector.", c.Collector.Validate())
	section("ingest.", c.Ingest.Validate())
	section("otlp.", c.OTLP.Validate())
	section("live.", c.Live.Validate())
	section("prometheus.", c.Prometheus.Validate())
	section("access.", c.Access.Validate())
	section("oidc.", c.OIDC.Validate())
	if c.OIDC.Issuer != "" && c.PublicURL == "" {
		section("", errors.New("public_url: want the console's address as browsers know it, because oidc sends them back there"))
	}
	section("commands.", c.Commands.Validate())
	return errors.Join(errs...)
}

// exposure refuses an address that others can reach where what is sent could be
// read on the way, or where nobody signs in.
func (c config) exposure(addr string) error {
	own, err := loopback(addr)
	switch {
	case err != nil || own:
		return err
	case c.Access.Mode == access.ModeOpen:
		return fmt.Errorf("want a loopback address such as 127.0.0.1:8470, because access.mode is open: everybody who reaches the console is its administrator; have %q", addr)
	case !c.TLS.speaks() && !c.TLS.TerminatedByProxy:
		return fmt.Errorf("want a loopback address such as 127.0.0.1:8470, or TLS: passwords and messages would cross the network readable. Name tls.cert_file and tls.key_file, or set tls.terminated_by_proxy: true where a proxy that speaks TLS is all that reaches this port; have %q", addr)
	}
	return nil
}

// loopback says whether only this machine reaches an address.
func loopback(addr string) (bool, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false, fmt.Errorf("want host:port, have %q", addr)
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback(), nil
}

// agentsOpen says whether agents and services need no credential: as the
// configuration says, else where only this machine reaches the ports.
func (c config) agentsOpen() bool {
	if c.Access.Agents != "" {
		return c.Access.Agents == access.AgentsOpen
	}
	for _, addr := range []string{c.Listen, c.ListenGRPC} {
		if own, err := loopback(addr); addr != "" && (err != nil || !own) {
			return false
		}
	}
	return !c.TLS.TerminatedByProxy && c.PublicURL == ""
}

// public is the address that browsers know, nil for the one listened on.
func (c config) public() (*url.URL, error) {
	if c.PublicURL == "" {
		return nil, nil
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("want an address such as https://signalbox.example, have %q", c.PublicURL)
	}
	return u, nil
}

func (c logConfig) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
