package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEffectiveConfigurationTellsChangesAndNoSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "console.yaml")
	text := "listen: 127.0.0.1:9999\nstorage:\n  dsn: clickhouse://user:canary-secret@db/x\n  retention:\n    messages_days: 3\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string]string{}
	list := effective(cfg)
	for _, s := range list {
		if strings.Contains(fmt.Sprint(s), "canary-secret") {
			t.Errorf("a secret is shown: %+v", s)
		}
		if s.Changed {
			changed[s.Key] = s.Value + " was " + s.Default
		}
	}
	want := map[string]string{"listen": "127.0.0.1:9999 was 127.0.0.1:8470", "storage.dsn": "*** was ", "storage.retention.messages_days": "3 was 14"}
	for k, v := range want {
		if changed[k] != v {
			t.Errorf("%s: got %q, want %q", k, changed[k], v)
		}
	}
	if len(changed) != len(want) {
		t.Errorf("changed: %v", changed)
	}
	if len(list) < 40 || list[0].Key != "data_dir" {
		t.Errorf("%d keys, the first %+v", len(list), list[0])
	}
}
