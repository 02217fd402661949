package agents

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// gate is a console that wants a credential.
type gate struct {
	mu    sync.Mutex
	seen  []string // path and Authorization
	spent bool
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	auth := r.Header.Get("Authorization")
	g.seen = append(g.seen, r.URL.Path+" "+auth)
	switch {
	case r.URL.Path == link.EnrolPath && auth == "Bearer sbxe_token" && !g.spent:
		g.spent = true
		_ = json.NewEncoder(w).Encode(map[string]string{"credential": "sbxa_mine"})
	case auth != "Bearer sbxa_mine":
		http.Error(w, "who are you", http.StatusUnauthorized)
	case r.URL.Path == "/elsewhere":
		http.Redirect(w, r, "http://evil.invalid/", http.StatusFound)
	}
}

func TestAnAgentEnrolsOnceAndKeepsItsCredential(t *testing.T) {
	g := &gate{}
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	tokenFile := filepath.Join(t.TempDir(), "token")
	cfg := DefaultConfig()
	cfg.Agent.ID, cfg.Agent.DataDir, cfg.Console.URL, cfg.Console.EnrolmentTokenFile = "a1", dir, srv.URL, tokenFile
	open := func() *credential {
		c, err := newCredential(cfg, slog.New(slog.NewTextHandler(t.Output(), nil)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.base.(*http.Transport).CloseIdleConnections)
		return c
	}
	get := func(c *credential, path string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.client(5 * time.Second).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	first := open()
	if got := get(first, "/v1/logs"); got != http.StatusUnauthorized {
		t.Errorf("before enrolment: got %d, want 401", got)
	}
	// The token comes late, as it does where people put it there by hand.
	enrolled := enrolLater(first, t)
	if err := os.WriteFile(tokenFile, []byte("sbxe_token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-enrolled; err != nil {
		t.Fatal(err)
	}
	if got := get(first, "/v1/logs"); got != http.StatusOK {
		t.Errorf("after enrolment: got %d, want 200", got)
	}
	info, err := os.Stat(filepath.Join(dir, credentialFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("credential on disk: got %v, %v; want mode 0600", info, err)
	}
	// After a restart it is used, and the token, which is spent, is not.
	second := open()
	if err := second.enrol(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := get(second, "/v1/logs"); got != http.StatusOK {
		t.Errorf("after a restart: got %d, want 200", got)
	}
	// A credential goes nowhere else.
	if got := get(second, "/elsewhere"); got != http.StatusFound {
		t.Errorf("redirect: got %d, want it not followed", got)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, s := range g.seen {
		if strings.HasPrefix(s, link.EnrolPath) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("enrolments: got %d, want 1 (%q)", n, g.seen)
	}
}

func enrolLater(c *credential, t *testing.T) <-chan error {
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	go func() { done <- c.enrol(ctx) }()
	return done
}

func TestAConsoleIsTrustedByTheFileThatIsNamed(t *testing.T) {
	srv := httptest.NewTLSServer(&gate{})
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	t.Cleanup(srv.Close)
	cfg := DefaultConfig()
	cfg.Agent.ID, cfg.Agent.DataDir, cfg.Console.URL = "a1", t.TempDir(), srv.URL
	cfg.Console.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(cfg.Console.CAFile, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newCredential(cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a file without certificates was taken")
	}
	ask := func(ca string) error {
		cfg.Console.CAFile = ca
		c, err := newCredential(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer c.base.(*http.Transport).CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.client(5 * time.Second).Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := os.WriteFile(cfg.Console.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(cfg.Console.CAFile); err != nil {
		t.Errorf("with its certificate: %v", err)
	}
	if err := ask(""); err == nil {
		t.Error("a console that nobody vouches for was trusted")
	}
}
