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
		{"open to the network", "listen: 0.0.0.0:8470\n", []string{"listen", "loopback", "no sign-in"}},
		{"several at once", "collector:\n  max_bytes: 1\nlive:\n  max_rate: 0\n", []string{"collector.max_bytes", "live.max_rate"}},
		{"two places for a secret", "storage:\n  dsn: http://x\n  dsn_file: y\n", []string{"dsn or dsn_file"}},
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
		for _, part := range c.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", c.name, err, part)
			}
		}
	}
}
