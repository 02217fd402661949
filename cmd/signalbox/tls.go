package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// tlsConfig is the "tls" section of the configuration.
type tlsConfig struct {
	CertFile string `yaml:"cert_file"` // PEM, with the chain
	KeyFile  string `yaml:"key_file"`
	// TerminatedByProxy says that a proxy speaks TLS with browsers and agents,
	// and that nobody else reaches the console's port.
	TerminatedByProxy bool `yaml:"terminated_by_proxy"`
}

func (c tlsConfig) validate() error {
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("cert_file, key_file: want both or neither")
	}
	return nil
}

// speaks says that the console's own ports speak TLS.
func (c tlsConfig) speaks() bool { return c.CertFile != "" }

// certificate hands out what is in the files and looks at them again, so that a
// renewed certificate needs no restart. One that cannot be read leaves the last
// good one in place.
type certificate struct {
	cfg tlsConfig
	log *slog.Logger

	mu      sync.Mutex
	have    *tls.Certificate
	stamp   [2]time.Time
	checked time.Time
}

// certCheck is how often the files are looked at, at most.
const certCheck = 10 * time.Second

func newCertificate(cfg tlsConfig, log *slog.Logger) (*certificate, error) {
	c := &certificate{cfg: cfg, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *certificate) stamps() (s [2]time.Time, err error) {
	for i, name := range []string{c.cfg.CertFile, c.cfg.KeyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, fmt.Errorf("tls: %w", err)
		}
		s[i] = info.ModTime()
	}
	return s, nil
}

// load reads the files. The caller holds mu or is alone.
func (c *certificate) load() error {
	stamp, err := c.stamps()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.cfg.CertFile, c.cfg.KeyFile)
	if err != nil {
		return fmt.Errorf("tls: %s, %s: %w", c.cfg.CertFile, c.cfg.KeyFile, err)
	}
	c.have, c.stamp, c.checked = &pair, stamp, time.Now()
	return nil
}

// get is for tls.Config.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.checked) < certCheck {
		return c.have, nil
	}
	c.checked = now
	stamp, err := c.stamps()
	if err == nil && stamp == c.stamp {
		return c.have, nil
	}
	if err == nil {
		err = c.load()
	}
	if err != nil {
		// Half of a renewal may be written: it is tried again soon.
		c.log.Error("certificate cannot be read again; the one before stays", "error", err)
	} else {
		c.log.Info("certificate was renewed", "file", c.cfg.CertFile, "expires", c.have.Leaf.NotAfter)
	}
	return c.have, nil
}

func (c *certificate) config(protocols ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: protocols}
}
