package agents

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// credential is what the agent shows the console: none, where the console asks
// for none; else one of its own, which it got for an enrolment token and keeps
// in its data directory.
type credential struct {
	file    string // where it is kept
	token   string // file with the enrolment token; empty for none
	console string
	agent   string
	log     *slog.Logger
	base    http.RoundTripper
	// settings are those of base, for who dials by itself. It carries no request.
	settings *http.Transport
	have     atomic.Pointer[controlbus.Secret]
}

// credentialFile is in the data directory.
const credentialFile = "credential"

func newCredential(cfg Config, log *slog.Logger) (*credential, error) {
	c := &credential{
		file: filepath.Join(cfg.Agent.DataDir, credentialFile), token: cfg.Console.EnrolmentTokenFile,
		console: cfg.Console.URL, agent: cfg.Agent.ID, log: log,
	}
	tr := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second, DisableCompression: true, ForceAttemptHTTP2: true}
	if cfg.Console.CAFile != "" {
		pem, err := os.ReadFile(cfg.Console.CAFile)
		if err != nil {
			return nil, fmt.Errorf("agents: console.ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("agents: console.ca_file %s: %w: want certificates in PEM form", cfg.Console.CAFile, controlbus.ErrInvalid)
		}
		tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	c.base = tr
	c.settings = tr.Clone() // before its first use, which writes into it
	kept, err := controlbus.SecretFromFile(c.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("agents: credential: %w", err)
	case kept != "":
		c.have.Store(&kept)
	}
	return c, nil
}

// client talks to the console and shows the credential. It follows no redirect:
// a credential goes nowhere else.
func (c *credential) client(timeout time.Duration) *http.Client {
	return &http.Client{Transport: c, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// transport is what connections that are not requests are made with.
func (c *credential) transport() *http.Transport { return c.settings }

// RoundTrip implements http.RoundTripper.
func (c *credential) RoundTrip(r *http.Request) (*http.Response, error) {
	if secret := c.have.Load(); secret != nil && r.Header.Get("Authorization") == "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+secret.Reveal())
	}
	return c.base.RoundTrip(r)
}

// enrol gets a credential where the agent has none and was given a token. It
// tries until it has one or ctx ends; what is tapped meanwhile waits in the
// spool.
func (c *credential) enrol(ctx context.Context) error {
	if c.have.Load() != nil || c.token == "" {
		return nil
	}
	client := c.client(15 * time.Second)
	wait := backoff.Backoff{Base: 2 * time.Second, Cap: time.Minute}
	for {
		err := c.tryEnrol(ctx, client)
		if err == nil {
			c.log.InfoContext(ctx, "enrolled", "agent", c.agent, "kept", c.file)
			return nil
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the agent stops, and says so elsewhere
		}
		if wait.Failures() == 0 || errors.Is(err, controlbus.ErrDenied) || errors.Is(err, controlbus.ErrConflict) {
			c.log.WarnContext(ctx, "not enrolled yet; what is tapped waits on disk", "error", err)
		}
		if !backoff.Sleep(ctx, wait.Next()) {
			return nil
		}
	}
}

// first tries once before anything else speaks to the console, so that a start
// that goes well shows no refusals.
func (c *credential) first(ctx context.Context) {
	if c.have.Load() != nil || c.token == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := c.tryEnrol(ctx, c.client(5*time.Second)); err == nil {
		c.log.InfoContext(ctx, "enrolled", "agent", c.agent, "kept", c.file)
	}
}

func (c *credential) tryEnrol(ctx context.Context, client *http.Client) error {
	token, err := controlbus.SecretFromFile(c.token) // read each time: it may be put right meanwhile
	if err != nil {
		return fmt.Errorf("enrolment token: %w", err)
	}
	if token == "" {
		return fmt.Errorf("enrolment token: %s is empty", c.token)
	}
	secret, err := link.EnrolAgent(ctx, client, c.console, token, c.agent)
	if err != nil {
		return err
	}
	// Used from now on even if it cannot be kept: the token is spent.
	c.have.Store(&secret)
	if err := keepSecret(c.file, secret); err != nil {
		c.log.ErrorContext(ctx, "credential could not be kept: after a restart the agent must enrol again", "error", err)
	}
	return nil
}

// keepSecret writes a file that only its owner reads, whole or not at all.
func keepSecret(name string, s controlbus.Secret) error {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s.Reveal() + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
