package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// A metric is written whole, as a literal: that is how it is found, by
	// people and by this test.
	metricLiteral  = regexp.MustCompile("[\"`](signalbox_[a-z0-9_]+)[\"`{]")
	otelLiteral    = regexp.MustCompile(`"(signalbox\.(?:channel|broker|traffic)\.[a-z_.]+)"`)
	documentedName = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\|")
	documentedOTel = regexp.MustCompile("`(signalbox\\.[a-z_.]+)`")
	unitSuffix     = regexp.MustCompile(`_(total|seconds|bytes|ratio|info)$`)
)

// notMetrics are literals of the same look.
var notMetrics = []string{
	"signalbox_broker", "signalbox_message_state", "signalbox_channel_kind", // labels
	"signalbox.channel.kind",
}

// sources calls each for the text of every Go file that is in a program.
func sources(t *testing.T, each func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (name == "node_modules" || name == "test" || name == "testdata" || name != ".." && name != "../.." && strings.HasPrefix(name, ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "_templ.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			each(path, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryMetricIsDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range documentedName.FindAllStringSubmatch(string(doc), -1) {
		if documented[m[1]] {
			t.Errorf("%s is in docs/metrics.md twice", m[1])
		}
		documented[m[1]] = true
	}
	sent := map[string]bool{}
	for _, m := range documentedOTel.FindAllStringSubmatch(string(doc), -1) {
		sent[m[1]] = true
	}
	found := map[string]string{}
	sources(t, func(path, text string) {
		for _, m := range metricLiteral.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(notMetrics, m[1]) {
				found[m[1]] = path
			}
		}
		for _, m := range otelLiteral.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(notMetrics, m[1]) {
				found[m[1]] = path
			}
		}
	})
	if len(found) < 50 {
		t.Fatalf("only %d metrics found in the sources: is the test looking in the right place?", len(found))
	}
	for name, path := range found {
		if !documented[name] && !sent[name] {
			t.Errorf("%s (%s) is not in docs/metrics.md", name, path)
		}
	}
	for name := range documented {
		otel := strings.ReplaceAll(unitSuffix.ReplaceAllString(name, ""), "_", ".")
		if found[name] == "" && found[otel] == "" && found[strings.TrimSuffix(otel, ".bytes")] == "" && found[otel+".bytes"] == "" {
			t.Errorf("docs/metrics.md tells of %s, and nothing counts it", name)
		}
	}
}

func TestMetricNamesFollowTheStyle(t *testing.T) {
	t.Parallel()
	sources(t, func(path, text string) {
		for _, call := range regexp.MustCompile("\\.(New|GetOrCreate)(Counter|FloatCounter|Gauge|Histogram|Summary)\\(([\"`])([a-zA-Z0-9_]+)").FindAllStringSubmatch(text, -1) {
			kind, name := call[2], call[4]
			switch {
			case !strings.HasPrefix(name, "signalbox_"):
				t.Errorf("%s: %s does not begin with signalbox_", path, name)
			case strings.Contains(kind, "Counter") && !strings.HasSuffix(name, "_total"):
				t.Errorf("%s: counter %s does not end in _total", path, name)
			case kind == "Histogram" || kind == "Summary":
				t.Errorf("%s: %s: use measure.Seconds, which Prometheus understands", path, name)
			}
		}
		for _, m := range regexp.MustCompile("NewSeconds\\([^,]+, \"([a-z0-9_]+)\"").FindAllStringSubmatch(text, -1) {
			if !strings.HasSuffix(m[1], "_seconds") {
				t.Errorf("%s: %s is in seconds and does not say so", path, m[1])
			}
		}
	})
}
