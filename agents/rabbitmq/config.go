// Package rabbitmq is the adapter for RabbitMQ over AMQP 0-9-1 and its
// management API. It lists queues and their state, and taps them without ever
// standing in a message's way:
//
//   - mirrored binding: a bounded, exclusive queue gets the bindings the tapped
//     queue has from named exchanges. The broker hands it one copy of each
//     message, drops the oldest when the agent is slow, and removes the queue with
//     the connection.
//   - stream: the same bindings on a durable stream, for the channels that the
//     configuration names. It fills while the agent is away and the tap goes on
//     where it stood; it stays until somebody deletes it.
//   - firehose: for queues that are fed through the default exchange alone. It
//     costs the whole virtual host, so it must be allowed in the configuration,
//     and it ends with a lease.
//
// It has the verbs of commands, too: an outlet publishes with confirms and the
// mandatory flag on a connection of its own; an intake takes messages in two
// steps, no more than were there when it began; a gate leads a queue's messages
// aside by an alternate exchange, switched by one binding; a separation keeps
// test messages from a queue's consumers by a headers exchange. What holds
// customers' messages (sb.d.ID.backlog, sb.park.ID) belongs to no run of the
// agent and is removed only when it is empty.
//
// Scheduling, buffering, retries and export are the Runner's; New starts
// nothing.
package rabbitmq

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Config is one RabbitMQ in the agent's configuration file.
type Config struct {
	// URL is amqp://host:port/vhost or amqps://.... Credentials belong in user
	// and password_file.
	URL string `yaml:"url"`
	// ManagementURL is the management API, such as http://host:15672. Without
	// it only the queues listed are observed, and nothing can be tapped: the
	// bindings to mirror are not readable over AMQP.
	ManagementURL string `yaml:"management_url"`
	User          string `yaml:"user"`
	PasswordFile  string `yaml:"password_file"`
	// Password is for wiring in code; the file has only password_file.
	Password controlbus.Secret `yaml:"-"`
	TLS      TLSConfig         `yaml:"tls"`
	// VHosts are the virtual hosts to look at; empty means that of the URL. A
	// channel of any but the first is called vhost/queue.
	VHosts []string `yaml:"vhosts"`
	// Queues are observed when there is no management API.
	Queues []string `yaml:"queues"`
	// PageSize is how many queues are asked for at once; at most 500.
	PageSize int `yaml:"page_size"`
	// Timeout bounds every call to the broker.
	Timeout time.Duration `yaml:"timeout"`
	// Heartbeat decides how soon the broker notices a dead agent and removes
	// its taps: two to three times this.
	Heartbeat time.Duration   `yaml:"heartbeat"`
	Tap       TapConfig       `yaml:"tap"`
	StreamTap StreamTapConfig `yaml:"stream_tap"`
	Firehose  FirehoseConfig  `yaml:"firehose"`
}

// TLSConfig is how to speak to amqps and https addresses.
type TLSConfig struct {
	CAFile     string `yaml:"ca_file"` // instead of the system's
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"`
}

// TapConfig bounds what a tap may hold on the broker and in flight.
type TapConfig struct {
	MaxLength      int           `yaml:"max_length"`       // messages on the broker
	MaxLengthBytes int64         `yaml:"max_length_bytes"` // bytes on the broker
	Prefetch       int           `yaml:"prefetch"`         // messages in flight to the agent
	PollInterval   time.Duration `yaml:"poll_interval"`    // of the tapped queue's bindings, and for losses
}

// StreamTapConfig makes taps that go on where they stood after the agent was
// away, at the price of a durable stream on the broker for each channel.
type StreamTapConfig struct {
	Channels []string      `yaml:"channels"`  // names, or patterns with *; empty: no channel
	MaxBytes int64         `yaml:"max_bytes"` // of each stream, on each of its replicas
	MaxAge   time.Duration `yaml:"max_age"`
}

// FirehoseConfig allows taps through the broker's tracer.
type FirehoseConfig struct {
	// Allowed must be set by somebody who accepts that tracing slows the whole
	// virtual host and needs an administrator.
	Allowed bool          `yaml:"allowed"`
	Lease   time.Duration `yaml:"lease"` // a firehose tap ends by itself after this
}

// DefaultConfig has everything but the addresses and credentials.
func DefaultConfig() Config {
	return Config{
		PageSize: 500, Timeout: 15 * time.Second, Heartbeat: 10 * time.Second,
		Tap:       TapConfig{MaxLength: 10_000, MaxLengthBytes: 64 << 20, Prefetch: 200, PollInterval: 5 * time.Second},
		StreamTap: StreamTapConfig{MaxBytes: 1 << 30, MaxAge: 24 * time.Hour},
		Firehose:  FirehoseConfig{Lease: 15 * time.Minute},
	}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if u, err := url.Parse(c.URL); err != nil || u.Host == "" || (u.Scheme != "amqp" && u.Scheme != "amqps") {
		bad("url: want amqp://host:port/vhost or amqps://..., have %q", redact(c.URL))
	}
	if c.ManagementURL != "" {
		if u, err := url.Parse(c.ManagementURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			bad("management_url: want http://host:port or https://..., have %q", redact(c.ManagementURL))
		}
	}
	if (c.User == "") != (c.PasswordFile == "" && c.Password == "") {
		bad("user, password_file: want both or neither")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		bad("tls: cert_file and key_file: want both or neither")
	}
	if c.PageSize < 1 || c.PageSize > 500 {
		bad("page_size: want 1 to 500, have %d", c.PageSize)
	}
	if c.Timeout <= 0 {
		bad("timeout: want a positive duration, have %s", c.Timeout)
	}
	if c.Heartbeat < time.Second || c.Heartbeat > time.Minute {
		bad("heartbeat: want 1s to 1m, have %s", c.Heartbeat)
	}
	if c.Tap.MaxLength < 1 {
		bad("tap.max_length: want a positive number, have %d", c.Tap.MaxLength)
	}
	if c.Tap.MaxLengthBytes < 1 {
		bad("tap.max_length_bytes: want a positive number, have %d", c.Tap.MaxLengthBytes)
	}
	if c.Tap.Prefetch < 1 || c.Tap.Prefetch > 2000 {
		bad("tap.prefetch: want 1 to 2000, have %d", c.Tap.Prefetch)
	}
	if c.Tap.PollInterval < 100*time.Millisecond {
		bad("tap.poll_interval: want at least 100ms, have %s", c.Tap.PollInterval)
	}
	if slices.Contains(c.StreamTap.Channels, "") {
		bad("stream_tap.channels: want names or patterns, have an empty one")
	}
	if c.StreamTap.MaxBytes < 10<<20 {
		bad("stream_tap.max_bytes: want at least %d, have %d", 10<<20, c.StreamTap.MaxBytes)
	}
	if c.StreamTap.MaxAge < time.Minute {
		bad("stream_tap.max_age: want at least 1m, have %s", c.StreamTap.MaxAge)
	}
	if c.Firehose.Allowed && c.Firehose.Lease <= 0 {
		bad("firehose.lease: want a positive duration, have %s", c.Firehose.Lease)
	}
	if c.Firehose.Allowed && c.ManagementURL == "" {
		bad("firehose.allowed: needs management_url, where tracing is switched")
	}
	return errors.Join(errs...)
}

func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}

// credentials are those of user and password_file, else those of the URL. The
// file is read at every dial, so that a rotated password is picked up.
func (c Config) credentials() (user, password string, err error) {
	if c.User != "" {
		if c.Password != "" {
			return c.User, c.Password.Reveal(), nil
		}
		s, err := controlbus.SecretFromFile(c.PasswordFile)
		return c.User, s.Reveal(), err
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return "", "", fmt.Errorf("%w: url", controlbus.ErrInvalid)
	}
	if u.User == nil {
		return "guest", "guest", nil
	}
	password, _ = u.User.Password()
	return u.User.Username(), password, nil
}

func (c TLSConfig) load(host string) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.ServerName != "" {
		out.ServerName = c.ServerName
	}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tls.ca_file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.ca_file: %w: no certificate in %s", controlbus.ErrInvalid, c.CAFile)
		}
	}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file: %w", err)
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, nil
}
