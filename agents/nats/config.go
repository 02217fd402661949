// Package nats is the adapter for NATS: JetStream streams and core subjects. A
// stream is a channel called by its name, a subject of the configuration one
// called by the subject.
//
// How a channel is tapped depends on what an observer costs there:
//
//   - ordered-consumer, on streams with limits retention: an ephemeral consumer
//     in memory that acknowledges nothing. It is resumable, and sequence numbers
//     show what the stream dropped.
//   - republish, on a stream that republishes all it stores: a subscription to
//     the copies.
//   - core-subscription, on interest and work-queue streams, where one more
//     consumer would hold messages back or be refused, and on plain subjects.
//     A subscription that is not read slows every publisher of the server, so
//     the client always reads, drops in process, and closes its connection
//     when it cannot keep up for a second.
//
// What commands are made of goes with streams; on a plain subject nothing waits,
// so that one can only send to it.
//
//   - Reading and removing go by sequence, through the stream's leader: no consumer
//     notices, and what comes after a bound is never touched. A purge is one
//     operation of the server with the same bound.
//   - Following (a junction) is a durable consumer that acknowledges one by one.
//     A work queue that has a consumer already refuses another.
//   - Sending waits for the stream's acknowledgement of each message, many at once.
//     The marks of the operation become the Nats-Msg-Id, by which the stream knows
//     a copy within its duplicate window; other Nats-* headers are left out.
//   - Messages are put aside in streams called sb_park_<id>.
//   - Pausing consumers needs nats-server 2.11; older ones are not even asked.
//
// Scheduling, buffering, retries and export are the Runner's; New starts
// nothing.
package nats

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Config is one NATS server, cluster or account in the agent's configuration.
type Config struct {
	URLs []string `yaml:"urls"` // nats://, tls://, ws:// or wss://
	// One of: nothing, a credentials file, a token, or a user with password.
	CredsFile    string            `yaml:"creds_file"`
	NkeyFile     string            `yaml:"nkey_file"`
	TokenFile    string            `yaml:"token_file"`
	User         string            `yaml:"user"`
	PasswordFile string            `yaml:"password_file"`
	Password     controlbus.Secret `yaml:"-"` // for wiring in code
	TLS          TLSConfig         `yaml:"tls"`

	// Domain is the JetStream domain, empty for the account's own.
	Domain string `yaml:"jetstream_domain"`
	// Subjects are the core subjects of interest: core NATS has no registry.
	Subjects []string `yaml:"subjects"`
	// ServiceSubjects are subjects, patterns with * allowed, that requests are
	// sent to. A tap on one that nobody listens to would hide "no responders"
	// from the requester, so it is refused unless monitor_url shows a listener.
	ServiceSubjects []string `yaml:"service_subjects"`
	// MonitorURL is the server's monitoring port, such as http://host:8222. It
	// tells how many subscriptions a subject has.
	MonitorURL string        `yaml:"monitor_url"`
	Timeout    time.Duration `yaml:"timeout"` // of every call
	Tap        TapConfig     `yaml:"tap"`
}

// TLSConfig is how to speak to servers with TLS.
type TLSConfig struct {
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// TapConfig bounds what a tap holds.
type TapConfig struct {
	PendingMessages int   `yaml:"pending_messages"` // a core tap's buffer in the client
	PendingBytes    int   `yaml:"pending_bytes"`
	Batch           int   `yaml:"batch"`       // messages asked of a stream at once
	BatchBytes      int64 `yaml:"batch_bytes"` // and their size
	// InactiveThreshold is when the server removes the consumer of a dead agent.
	InactiveThreshold time.Duration `yaml:"inactive_threshold"`
	// Watchdog ends a core tap that was not serviced for so long.
	Watchdog time.Duration `yaml:"watchdog"`
}

// DefaultConfig has everything but the addresses and credentials.
func DefaultConfig() Config {
	return Config{
		Timeout: 10 * time.Second,
		Tap: TapConfig{
			PendingMessages: 16_384, PendingBytes: 32 << 20, Batch: 500, BatchBytes: 4 << 20,
			InactiveThreshold: 5 * time.Minute, Watchdog: 900 * time.Millisecond,
		},
	}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.URLs) == 0 {
		bad("urls: want at least one")
	}
	for i, raw := range c.URLs {
		u, err := url.Parse(raw)
		if err != nil || u.Host == "" {
			bad("urls[%d]: want nats://host:port", i)
			continue
		}
		switch u.Scheme {
		case "nats", "tls", "ws", "wss":
		default:
			bad("urls[%d]: scheme %q: want nats, tls, ws or wss", i, u.Scheme)
		}
	}
	ways := 0
	for _, set := range []bool{c.CredsFile != "", c.NkeyFile != "", c.TokenFile != "", c.User != ""} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		bad("creds_file, nkey_file, token_file, user: want at most one of them")
	}
	if (c.User == "") != (c.PasswordFile == "" && c.Password == "") {
		bad("user, password_file: want both or neither")
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		bad("tls: cert_file and key_file: want both or neither")
	}
	if strings.ContainsAny(c.Domain, ".*> \t") {
		bad("jetstream_domain: %q is not a domain name", c.Domain)
	}
	for i, s := range c.Subjects {
		if why := checkSubject(s); why != "" {
			bad("subjects[%d]: %q: %s", i, s, why)
		}
	}
	if c.MonitorURL != "" {
		if u, err := url.Parse(c.MonitorURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			bad("monitor_url: want http://host:port")
		}
	}
	if c.Timeout <= 0 {
		bad("timeout: want a positive duration, have %s", c.Timeout)
	}
	if c.Tap.PendingMessages < 1 || c.Tap.PendingBytes < 1 {
		bad("tap.pending_messages, tap.pending_bytes: want positive numbers")
	}
	if c.Tap.Batch < 1 || c.Tap.Batch > 10_000 {
		bad("tap.batch: want 1 to 10000, have %d", c.Tap.Batch)
	}
	if c.Tap.BatchBytes < 1<<10 {
		bad("tap.batch_bytes: want at least 1024, have %d", c.Tap.BatchBytes)
	}
	if c.Tap.InactiveThreshold < time.Second {
		bad("tap.inactive_threshold: want at least 1s, have %s", c.Tap.InactiveThreshold)
	}
	if c.Tap.Watchdog < 100*time.Millisecond || c.Tap.Watchdog >= time.Second {
		bad("tap.watchdog: want 100ms to less than 1s, have %s", c.Tap.Watchdog)
	}
	return errors.Join(errs...)
}

// checkSubject says what is wrong with a subject to tap, or nothing.
func checkSubject(s string) string {
	if s == "" || strings.ContainsAny(s, " \t\r\n") {
		return "not a subject"
	}
	tokens := strings.Split(s, ".")
	for i, tok := range tokens {
		switch {
		case tok == "":
			return "not a subject: it has an empty token"
		case tok == ">" && i != len(tokens)-1:
			return "not a subject: > must be the last token"
		}
	}
	switch first := tokens[0]; {
	case first == ">" || first == "*":
		return "it takes in the server's own traffic ($JS, $SYS, _INBOX); name what it begins with"
	case strings.HasPrefix(first, "$"):
		return "it is the server's own traffic"
	}
	return ""
}

func (c TLSConfig) load() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
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
