package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The example says what the defaults are, so it must be right about them.
func TestTheExampleIsTheDefault(t *testing.T) {
	t.Parallel()
	got, err := loadConfig(filepath.Join("..", "..", "deploy", "example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := loadConfig("")
	if err != nil {
		t.Fatal(err)
	}
	ignoreFuncs := cmp.FilterPath(func(p cmp.Path) bool {
		name := p.Last().String()
		return name == ".DialContext" || name == ".ClockOffset"
	}, cmp.Ignore())
	if diff := cmp.Diff(want, got, ignoreFuncs); diff != "" {
		t.Errorf("deploy/example.yaml differs from the defaults (-default +example):\n%s", diff)
	}
}

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"misspelt key", "listen: 127.0.0.1:0\nlisten_grcp: x\n", []string{"line 2", "listen_grcp"}},
		{"wrong type", "grace: soon\n", []string{"line 1", "soon"}},
		{"open to the network", "listen: 0.0.0.0:8470\n", []string{"listen", "loopback", "tls.cert_file"}},
		{"open to the network for everybody", "listen: 0.0.0.0:8470\ntls: {cert_file: c, key_file: k}\naccess: {mode: open}\n", []string{"listen", "loopback", "administrator"}},
		{"half of a certificate", "tls: {cert_file: c}\n", []string{"tls.cert_file, key_file"}},
		{"an address with a path", "public_url: https://x.example/signalbox\n", []string{"public_url", "https://signalbox.example"}},
		{"a mode that is none", "access: {mode: closed, agents: maybe, session_idle: 1s}\n", []string{"access.mode", "access.agents", "access.session_idle"}},
		{"several at once", "collector:\n  max_bytes: 1\nlive:\n  max_rate: 0\n", []string{"collector.max_bytes", "live.max_rate"}},
		{"two places for a secret", "storage:\n  dsn: http://x\n  dsn_file: y\n", []string{"dsn or dsn_file"}},
		{"two places for the state", "state:\n  dsn: postgres://x\n  dsn_file: y\n", []string{"state", "dsn or dsn_file"}},
		{"a DSN that cannot be read", "state:\n  dsn: postgres://ann:geheim@host:notaport/db\n", []string{"state.dsn", "postgres://user:password@host"}},
	} {
		file := filepath.Join(t.TempDir(), "console.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := loadConfig(file)
		if err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the password is in %q", c.name, err)
		}
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", c.name, err, part)
			}
		}
	}
}
