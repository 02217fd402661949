package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestExampleConfigurationIsValid(t *testing.T) {
	t.Parallel()
	cfg, err := load("../../deploy/agent.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Agent.ID != "site-1" || len(cfg.Brokers) != 2 || cfg.Brokers[0].Taps[1].Body != controlbus.BodyHash {
		t.Errorf("read %+v", cfg)
	}
	if got := cfg.Redaction.Headers; len(got) < 7 {
		t.Errorf("the example lost the default header list: %q", got)
	}
}

func TestConfigurationErrorsNameTheirPlace(t *testing.T) {
	t.Parallel()
	const head = "agent: {id: a}\nbrokers:\n- name: r\n  type: rabbitmq\n"
	for name, c := range map[string]struct{ file, want string }{
		"unknown key":          {"agent:\n  id: a\n  envv: x\n", "line 3: field envv not found"},
		"unknown option":       {head + "  options:\n    url: amqp://h/\n    tap:\n      max_lengt: 3\n", "line 8: field max_lengt not found"},
		"option of wrong sort": {head + "  options:\n    page_size: many\n", "line 6: cannot unmarshal"},
		"option not valid":     {head + "  options:\n    url: http://h/\n", "brokers[0].options.url: want amqp://"},
		"unknown adapter":      {"agent: {id: a}\nbrokers:\n- name: r\n  type: carrier-pigeon\n", `brokers[0].type: no adapter is called "carrier-pigeon"`},
		"no id":                {"agent: {env: x}\n", "agent.id: want"},
		"body policy":          {head + "  options: {url: 'amqp://h/'}\n  taps:\n  - {channel: q, body: some}\n", `body policy "some"`},
		"json path":            {"agent: {id: a}\nredaction:\n  paths:\n  - path: card.pan\n", "redaction.paths[0].path"},
		"not yaml":             {"agent: [", "line 1"},
		"duration":             {"agent: {id: a}\nexport: {linger: fast}\n", "line 2"},
		"console":              {"agent: {id: a}\nconsole: {url: console}\n", "console.url"},
	} {
		_, err := parse([]byte(c.file))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}

func TestSecretsStayOutOfErrors(t *testing.T) {
	t.Parallel()
	_, err := parse([]byte("agent: {id: a}\nbrokers:\n- name: r\n  type: rabbitmq\n  options: {url: 'amqpx://me:hunter2@h/'}\n"))
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want an error without the password", err)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(file, []byte("agent: {id: a}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if err := run(t.Context(), []string{"--config", file, "--check-config"}, &out, &errOut); err != nil || !strings.Contains(out.String(), "is valid") {
		t.Errorf("check: %v, %q", err, out.String())
	}
	out.Reset()
	if err := run(t.Context(), []string{"--version"}, &out, &errOut); err != nil || out.String() != "signalbox-agent dev\n" {
		t.Errorf("version: %v, %q", err, out.String())
	}
	if err := run(t.Context(), []string{"--config", filepath.Join(dir, "none.yaml")}, &out, &errOut); err == nil {
		t.Error("a missing file is no error")
	}
}

// The agent runs beside brokers on small machines and holds other people's
// credentials: the fewer it links, the better.
func TestNoStoreAndNoPagesAreLinkedIn(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, banned := range []string{"clickhouse", "ClickHouse", "a-h/templ", "modernc.org", "purego", "signalbox/collector", "signalbox/ui", "nats-server"} {
			if strings.Contains(dep, banned) {
				t.Errorf("the agent links %s", dep)
			}
		}
	}
}
