package script

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/test/program"
)

// site is a real console with messages in it.
type site struct {
	url   string
	token string // of who asks; empty where the console is open
	n     int    // sent by drip
}

// Messages of the site, oldest first, a second apart and ten minutes ago.
const (
	stored  = 250
	hostile = "evil\x1b]0;pwned\x07\u202e\u009b31m"
)

func messagesAt(at time.Time) []*controlbus.MessageEvent {
	var out []*controlbus.MessageEvent
	for i := range stored {
		e := &controlbus.MessageEvent{
			Time: at.Add(time.Duration(i) * time.Second).UnixNano(), AgentTime: at.Add(time.Duration(i) * time.Second).UnixNano(), TimeSource: controlbus.TimeBroker,
			Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Destination: "orders.placed", Op: controlbus.OpTap, Position: int64(9007199254740993 + i),
			MessageID: fmt.Sprintf("m-%d", i), CorrelationID: fmt.Sprintf("ORD-%d", i/5), ContentType: "application/json",
			Headers: []controlbus.Header{{Key: "x-tenant", Value: "acme"}}, Body: fmt.Appendf(nil, `{"orderId":"ORD-%d","n":9007199254740993}`, i/5),
		}
		if i%50 == 7 {
			e.Destination, e.Outcome, e.ErrorType, e.CausationID = "payments.capture", controlbus.OutcomeFailed, "GatewayTimeout", fmt.Sprintf("m-%d", i-1)
		}
		if i == 99 {
			e.Destination, e.Service, e.Body, e.Headers[0].Value = hostile, hostile, []byte("=cmd"+hostile), hostile
		}
		e.BodySize = int64(len(e.Body))
		e.UID = controlbus.HashID("script", fmt.Sprint(i))
		out = append(out, e)
	}
	return out
}

func (s *site) send(events ...*controlbus.MessageEvent) error {
	enc := telemetry.NewEncoder(telemetry.Origin{AgentID: "script", Version: "test"})
	for _, e := range events {
		enc.Append(e)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/logs", bytes.NewReader(enc.Request(nil)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("send: %s", res.Status)
	}
	return nil
}

// drip lets a message pass again and again, so that a tap has something to see
// whenever it is there.
func (s *site) drip(ctx context.Context, t *testing.T) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.n++
		e := &controlbus.MessageEvent{
			UID: controlbus.HashID("drip", fmt.Sprint(s.n)), Time: time.Now().UnixNano(), Env: "staging", System: "nats", Broker: "nats-eu1", Destination: "drip." + fmt.Sprint(s.n%2),
			Op: controlbus.OpTap, Body: []byte("drop " + hostile), Position: -1,
		}
		if s.n%2 == 1 {
			e.Outcome = controlbus.OutcomeFailed
		}
		if err := s.send(e); err != nil && ctx.Err() == nil {
			t.Log(err)
		}
	}
}

func startSite(t *testing.T) *site {
	t.Helper()
	return startSiteWith(t, map[string]any{"access": map[string]any{"mode": "open"}}, func(*site, string) {})
}

// startSiteWith adds keys to the console's configuration. before is called while
// the console is not there yet, with its data directory.
func startSiteWith(t *testing.T, keys map[string]any, before func(s *site, data string)) *site {
	t.Helper()
	enginetest.Require(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	s := &site{url: "http://" + addr}
	before(s, filepath.Join(dir, "data"))
	all := map[string]any{"data_dir": filepath.Join(dir, "data"), "listen": addr, "listen_grpc": "", "grace": "10s"}
	maps.Copy(all, keys)
	cfg, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "console.yaml")
	if err := os.WriteFile(path, cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	p := program.Start(t, program.Console, nil, "serve", "-config", path)
	s.until(t, "console", "/api/v1/health", p, func([]byte) bool { return true })
	if err := s.send(messagesAt(time.Now().Add(-10 * time.Minute))...); err != nil {
		t.Fatal(err)
	}
	s.until(t, "messages", "/api/v1/messages?limit=1000", p, func(b []byte) bool {
		var page struct{ Messages []any }
		return json.Unmarshal(b, &page) == nil && len(page.Messages) == stored
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.drip(ctx, t) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

// until asks for a path until its answer is as wanted; p is shown when it never
// is.
func (s *site) until(t *testing.T, what, path string, p *program.Process, ok func([]byte) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.token != "" {
			req.Header.Set("Authorization", "Bearer "+s.token)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			b, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil && res.StatusCode == 200 && ok(b) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute:\n%s", what, p.Output())
		}
	}
}

// TestVerbsAgainstAConsole runs the stories of testdata/console against a real
// console, and what docs/api.md tells people to type.
func TestVerbsAgainstAConsole(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real console")
	}
	s := startSite(t)
	dir := program.Dir(t)
	t.Run("verbs", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir:                 "testdata/console",
			RequireExplicitExec: true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("PATH", dir+string(os.PathListSeparator)+env.Getenv("PATH"))
				env.Setenv("SIGNALBOX_URL", s.url)
				env.Setenv("HOME", env.WorkDir)
				env.Setenv("CONSOLE", s.url)
				env.Setenv("FIRST", controlbus.HashID("script", "7").String())
				return nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "harmless": harmless, "lines": countLines},
		})
	})
	t.Run("docs", func(t *testing.T) { documented(t, s) })
}

// harmless FILE wants a file (or stdout, stderr) without a byte that a terminal
// obeys, but with what was there in another form.
func harmless(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || neg {
		ts.Fatalf("usage: harmless FILE")
	}
	text := ts.ReadFile(args[0])
	for _, r := range text {
		if r < 0x20 && r != '\n' || r >= 0x7f && r < 0xa0 || r == 0x202e {
			ts.Fatalf("%s has %U in %q", args[0], r, text)
		}
	}
	if !strings.Contains(text, "evil") {
		ts.Fatalf("%s does not show the message at all: %q", args[0], text)
	}
}

// lines N FILE wants so many lines.
func countLines(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: lines N FILE")
	}
	if got := fmt.Sprint(strings.Count(ts.ReadFile(args[1]), "\n")); got != args[0] {
		ts.Fatalf("%s has %s lines, want %s", args[1], got, args[0])
	}
}

var shell = regexp.MustCompile("(?s)```sh\n(.*?)```")

// documented runs every shell block of docs/api.md, in one shell and in order.
func documented(t *testing.T, s *site) {
	for _, name := range []string{"curl", "jq", "bash"} {
		if _, err := exec.LookPath(name); err != nil {
			browser.Missing(t, name)
		}
	}
	text, err := os.ReadFile(filepath.Join(program.Root(), "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := shell.FindAllSubmatch(text, -1)
	if len(blocks) < 5 {
		t.Fatalf("docs/api.md has %d examples", len(blocks))
	}
	var script strings.Builder
	for _, b := range blocks {
		script.WriteString("echo '-----' >&2\n" + strings.ReplaceAll(string(b[1]), "http://127.0.0.1:8470", s.url))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// -f turns an answer that is no success into an error of curl.
	cmd := exec.CommandContext(ctx, "bash", "-euxo", "pipefail", "-c", "curl() { command curl -fsS \"$@\"; }\n"+script.String())
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+program.Dir(t)+string(os.PathListSeparator)+os.Getenv("PATH"), "TOKEN=", "SIGNALBOX_URL="+s.url, "HOME="+cmd.Dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docs/api.md: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "ORD-") {
		t.Errorf("the examples show no message:\n%s", out)
	}
}
