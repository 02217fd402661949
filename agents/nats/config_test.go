package nats

import (
	"testing"
	"time"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	ok := DefaultConfig()
	ok.URLs = []string{"nats://localhost:4222"}
	if err := ok.Validate(); err != nil {
		t.Errorf("default configuration with an address: %v", err)
	}
	for name, edit := range map[string]func(*Config){
		"urls":                   func(c *Config) { c.URLs = nil },
		"scheme":                 func(c *Config) { c.URLs = []string{"http://x"} },
		"two ways to sign in":    func(c *Config) { c.CredsFile, c.TokenFile = "a", "b" },
		"password":               func(c *Config) { c.User = "u" },
		"everything":             func(c *Config) { c.Subjects = []string{">"} },
		"the server's own":       func(c *Config) { c.Subjects = []string{"$JS.API.>"} },
		"> in the middle":        func(c *Config) { c.Subjects = []string{"a.>.b"} },
		"watchdog of a second":   func(c *Config) { c.Tap.Watchdog = time.Second },
		"no room":                func(c *Config) { c.Tap.PendingMessages = 0 },
		"monitor without a host": func(c *Config) { c.MonitorURL = "x" },
	} {
		c := ok
		edit(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHostsHaveNoCredentials(t *testing.T) {
	t.Parallel()
	if got := hosts([]string{"nats://me:hunter2@a:4222", "tls://token@b:4222"}); got != "a:4222, b:4222" {
		t.Errorf("got %q", got)
	}
}

func TestAtLeast(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]bool{"2.10.0": true, "2.9.10": false, "2.15.2": true, "3.0.0": true, "2.10.0-RC1": true, "": false, "2": false} {
		if got := atLeast(v, 2, 10); got != want {
			t.Errorf("atLeast(%q, 2, 10): got %v, want %v", v, got, want)
		}
	}
}
