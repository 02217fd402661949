package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writePair puts a certificate of its own making into two files.
func writePair(t *testing.T, cfg tlsConfig, serial int64, at time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "signalbox"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1")}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{cfg.CertFile: {Type: "CERTIFICATE", Bytes: der}, cfg.KeyFile: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARenewedCertificateNeedsNoRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := tlsConfig{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	begin := time.Now().Add(-time.Hour)
	writePair(t, cfg, 1, begin)
	var log bytes.Buffer
	c, err := newCertificate(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", c.config("http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	serial := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // which certificate it is, is the question
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	later := func() { // as if certCheck had gone by
		c.mu.Lock()
		c.checked = time.Time{}
		c.mu.Unlock()
	}
	if got := serial(); got != 1 {
		t.Errorf("serial: got %d, want 1", got)
	}
	writePair(t, cfg, 2, begin.Add(time.Minute))
	if got := serial(); got != 1 {
		t.Errorf("files are looked at on every connection: got %d", got)
	}
	later()
	if got := serial(); got != 2 {
		t.Errorf("after the renewal: got %d, want 2", got)
	}
	// Half of the next renewal is written: the key does not fit.
	cert, err := os.ReadFile(cfg.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	writePair(t, cfg, 3, begin.Add(2*time.Minute))
	if err := os.WriteFile(cfg.CertFile, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	later()
	if got := serial(); got != 2 || !strings.Contains(log.String(), "the one before stays") {
		t.Errorf("with half a renewal: got %d, want 2, and the log to say so:\n%s", got, log.String())
	}
	writePair(t, cfg, 3, begin.Add(3*time.Minute))
	later()
	if got := serial(); got != 3 {
		t.Errorf("after the other half: got %d, want 3", got)
	}
}

func TestWhoNeedsACredential(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		edit func(*config)
		want bool
	}{
		{"loopback", func(*config) {}, true},
		{"asked for", func(c *config) { c.Access.Agents = "token" }, false},
		{"the network", func(c *config) { c.Listen = "0.0.0.0:8470" }, false},
		{"OTLP on the network", func(c *config) { c.ListenGRPC = "0.0.0.0:4317" }, false},
		{"behind a proxy", func(c *config) { c.TLS.TerminatedByProxy = true }, false},
		{"under another name", func(c *config) { c.PublicURL = "https://signalbox.example" }, false},
		{"the network, and told to be open", func(c *config) { c.Listen, c.Access.Agents = "0.0.0.0:8470", "open" }, true},
	} {
		cfg := defaultConfig()
		c.edit(&cfg)
		if got := cfg.agentsOpen(); got != c.want {
			t.Errorf("%s: agents need no credential: got %v, want %v", c.name, got, c.want)
		}
	}
}
