package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/test/broker"
	"github.com/signalbox-dev/signalbox/test/program"
)

// bus is a console and an agent beside a RabbitMQ, as real programs, with
// people who may act on it and programs that do, through the API.
type bus struct {
	*site
	t       *testing.T
	console *victim
	agent   *victim
	rabbit  *queues
	people  *http.Client // ada's browser: she set the console up
	admin   string       // her token
}

const (
	busBroker   = "rabbit-fault"
	busAgent    = "bus-agent"
	busPassword = "correct horse battery"
)

// everything is an agent's rule that allows all.
var everything = []any{map[string]any{"broker": "*", "channel": "*"}}

// newBus starts a console and an agent beside server, which declare has prepared.
// allow are the agent's rules.
func newBus(t *testing.T, server *broker.Server, allow []any, declare func(*queues)) *bus {
	t.Helper()
	if testing.Short() {
		t.Skip("starts programs and a broker")
	}
	b := &bus{t: t, rabbit: newQueues(t, server), site: newSite(t, func(cfg map[string]any) {
		cfg["access"] = map[string]any{"agents": "open"}
		cfg["listen_grpc"] = ""
	})}
	declare(b.rabbit)
	b.console = &victim{t: t, name: program.Console, args: b.args()}
	b.console.start()
	b.ready(t.Context(), t, b.console.proc)
	b.setUp()
	b.agent = b.newAgent(busAgent, busBroker, allow, 0)
	b.agent.start()
	b.connected()
	return b
}

// newAgent writes the configuration of an agent for a broker under a name.
func (b *bus) newAgent(id, name string, allow []any, archive int64) *victim {
	b.t.Helper()
	dir := b.t.TempDir()
	write := func(file string, text []byte) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			b.t.Fatal(err)
		}
		return path
	}
	plain, err := url.Parse(b.rabbit.url)
	if err != nil {
		b.t.Fatal(err)
	}
	user := plain.User.Username()
	password, _ := plain.User.Password()
	plain.User = nil
	management, err := url.Parse(b.rabbit.server.ManagementURL)
	if err != nil {
		b.t.Fatal(err)
	}
	management.User = nil
	commands := map[string]any{"allow": allow}
	if archive > 0 {
		commands["archive"] = map[string]any{"max_bytes": archive}
	}
	text, err := json.Marshal(map[string]any{
		"agent":    map[string]any{"id": id, "env": agentEnv, "data_dir": filepath.Join(dir, "data")},
		"console":  map[string]any{"url": b.url(), "report_interval": "1s"},
		"commands": commands,
		"brokers": []any{map[string]any{
			"name": name, "type": "rabbitmq", "observe_interval": "1s",
			"options": map[string]any{
				"url": plain.String(), "management_url": management.String(), "user": user, "password_file": write("password", []byte(password)),
			},
		}},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return &victim{t: b.t, name: program.Agent, args: []string{"-config", write("agent.yaml", text)}}
}

// says waits for what the console prints.
func (b *bus) says(pattern string) []string {
	b.t.Helper()
	var found []string
	await(b.t, 30*time.Second, func(context.Context) error {
		if found = regexp.MustCompile(pattern).FindStringSubmatch(b.console.proc.Output()); found == nil {
			return fmt.Errorf("the console does not say %s:\n%s", pattern, b.console.proc.Output())
		}
		return nil
	})
	return found
}

// setUp makes ada, by the link of the first start, and her token.
func (b *bus) setUp() {
	b.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		b.t.Fatal(err)
	}
	b.people = &http.Client{Jar: jar, Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	b.form("/setup", url.Values{"token": {b.says(`/setup\?token=(\S+)`)[1]}, "name": {"ada"}, "password": {busPassword}, "again": {busPassword}})
	b.admin = b.token("admin")
}

// form sends a form as ada and returns the page that answers it.
func (b *bus) form(path string, v url.Values) string {
	b.t.Helper()
	res, err := b.people.PostForm(b.url()+path, v)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		b.t.Fatalf("%s: %s %v\n%.2000s", path, res.Status, err, text)
	}
	return string(text)
}

var shownOnce = regexp.MustCompile(`(?s)<p class="secret">.*?<code[^>]*>([^<]+)</code>`)

// token makes an API token of ada's with a role.
func (b *bus) token(role string) string {
	b.t.Helper()
	page := b.form("/settings/tokens", url.Values{"name": {role}, "role": {role}, "env": {"*"}, "channel": {"*"}, "life": {"24h"}})
	m := shownOnce.FindStringSubmatch(page)
	if m == nil {
		b.t.Fatalf("no token on the page:\n%.3000s", page)
	}
	return strings.TrimSpace(m[1])
}

// call asks the API.
func (b *bus) call(token, method, path string, in any) (int, []byte) {
	b.t.Helper()
	code, text, err := b.ask(b.t.Context(), token, method, path, in)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	return code, text
}

func (b *bus) ask(ctx context.Context, token, method, path string, in any) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, b.url()+"/api/v1"+path, body)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, text, err
}

// want asks the API for an answer of a status, into out.
func (b *bus) want(status int, token, method, path string, in, out any) {
	b.t.Helper()
	code, text := b.call(token, method, path, in)
	if code != status {
		b.t.Fatalf("%s %s: got %d, want %d: %s\nagent:\n%s", method, path, code, status, text, b.agent.proc.Output())
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			b.t.Fatalf("%s %s: %v: %s", method, path, err, text)
		}
	}
}

// connected waits until the console has the agent's broker and its kinds.
func (b *bus) connected() {
	b.t.Helper()
	await(b.t, 60*time.Second, func(ctx context.Context) error {
		code, text, err := b.ask(ctx, b.admin, http.MethodGet, "/abilities?env="+agentEnv+"&broker="+busBroker, nil)
		if err != nil || code != http.StatusOK {
			return fmt.Errorf("abilities: %d %s %w", code, text, err)
		}
		var got struct {
			Abilities []struct{ Kind, Reason string }
		}
		if err := json.Unmarshal(text, &got); err != nil {
			return err
		}
		for _, a := range got.Abilities {
			if a.Kind == "redrive" && a.Reason == "" {
				return nil
			}
		}
		return fmt.Errorf("the agent cannot redrive: %s\nagent:\n%s", text, b.agent.proc.Output())
	})
}

// order is a request for a command.
type order map[string]any

// about is an order of a kind for a channel; more are further fields.
func about(kind, channel string, more ...order) order {
	o := order{"kind": kind, "env": agentEnv, "broker": busBroker, "channel": channel}
	for _, m := range more {
		maps.Copy(o, m)
	}
	return o
}

// preview is what the API shows before an order.
type preview struct {
	ID      string
	Agent   string
	Channel string
	Preview struct {
		Effect string
		Count  *int64
		Impact []string
	}
}

func (b *bus) preview(o order) (p preview) {
	b.t.Helper()
	b.want(http.StatusCreated, b.admin, http.MethodPost, "/previews", o, &p)
	return p
}

// place orders what was previewed.
func (b *bus) place(p preview) (id string) {
	b.t.Helper()
	var c command
	b.want(http.StatusCreated, b.admin, http.MethodPost, "/commands", map[string]any{"preview": p.ID, "reason": "the test asks for it", "typed": p.Channel}, &c)
	return c.ID
}

// do previews and orders.
func (b *bus) do(o order) (id string) {
	b.t.Helper()
	return b.place(b.preview(o))
}

// undo previews and orders the undo of a command.
func (b *bus) undo(id string) string {
	b.t.Helper()
	var p preview
	b.want(http.StatusCreated, b.admin, http.MethodPost, "/commands/"+id+"/undo", map[string]any{}, &p)
	return b.place(p)
}

// command is one as the API has it.
type command struct {
	ID       string
	State    string
	Ended    bool
	Detail   string
	Progress struct{ Done int64 }
	Result   *struct {
		Outcome  string
		Done     int64
		Failed   int64
		Skipped  int64
		Detail   string
		Evidence struct {
			DepthBefore int64            `json:"depth_before"`
			DepthAfter  int64            `json:"depth_after"`
			Removed     int64            `json:"removed"`
			Position    string           `json:"position"`
			Doubtful    int64            `json:"doubtful"`
			Reconnects  int              `json:"reconnects"`
			SentTo      map[string]int64 `json:"sent_to"`
		}
	}
	raw string
}

func (b *bus) command(id string) command {
	b.t.Helper()
	code, text := b.call(b.admin, http.MethodGet, "/commands/"+id, nil)
	var c command
	if err := json.Unmarshal(text, &c); err != nil || code != http.StatusOK {
		b.t.Fatalf("command %s: %d %v %s", id, code, err, text)
	}
	c.raw = string(text)
	return c
}

// ended waits for the end of a command.
func (b *bus) ended(id string, limit time.Duration) command {
	b.t.Helper()
	var c command
	await(b.t, limit, func(context.Context) error {
		if c = b.command(id); !c.Ended {
			return fmt.Errorf("the command has not ended: %s\nagent:\n%s", c.raw, b.agent.proc.Output())
		}
		return nil
	})
	return c
}

// succeeded waits for the end, which must be a good one.
func (b *bus) succeeded(id string, done int64) command {
	b.t.Helper()
	c := b.ended(id, time.Minute)
	if c.State != "succeeded" || c.Result == nil || c.Result.Done != done {
		b.t.Fatalf("want it succeeded with %d done, have %s\nagent:\n%s", done, c.raw, b.agent.proc.Output())
	}
	return c
}

// audit is an entry of the audit trail.
type audit struct {
	Code    string
	Target  string
	Channel string
	Refused bool
	Detail  string
}

// audited are the entries that fit, newest first.
func (b *bus) audited(fits func(audit) bool) (found []audit) {
	b.t.Helper()
	var got struct{ Entries []audit }
	b.want(http.StatusOK, b.admin, http.MethodGet, "/audit?limit=500", nil, &got)
	for _, e := range got.Entries {
		if fits(e) {
			found = append(found, e)
		}
	}
	return found
}

// verified checks the hash chain of the audit trail beside the running console.
func (b *bus) verified() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	text, err := exec.CommandContext(ctx, filepath.Join(program.Dir(b.t), program.Console), "audit", "-config", b.config, "verify").CombinedOutput()
	if err != nil {
		b.t.Errorf("audit verify: %v\n%s", err, text)
	}
}
