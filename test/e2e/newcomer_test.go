package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/test/broker"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/test/program"
)

// person is somebody at a browser of their own.
type person struct {
	t          *testing.T
	name       string
	tab        context.Context
	complaints func() []string
}

func newPerson(t *testing.T, name string) *person {
	t.Helper()
	p := &person{t: t, name: name}
	p.tab, p.complaints = browser.TabFor(t, browser.Chrome(t), 5*time.Minute)
	p.do("window", browser.Size(1280, 1000, false))
	return p
}

func (p *person) do(what string, actions ...browser.Action) {
	p.t.Helper()
	for _, a := range actions {
		if err := chromedp.Do(p.tab, a); err != nil {
			var where string
			_ = chromedp.Do(p.tab, browser.Value(`location.href + " says " + document.body.innerText.slice(0, 1500)`, &where))
			p.t.Fatalf("%s, %s: %v\nat %s\n%s", p.name, what, err, where, strings.Join(p.complaints(), "\n"))
		}
	}
}

func (p *person) fill(id, value string) browser.Action {
	return browser.JS(fmt.Sprintf(`document.getElementById(%q).value = %q; 0`, id, value))
}

func (p *person) submit(action string) browser.Action {
	return browser.JS(fmt.Sprintf(`document.querySelector('main form[action=%q]').requestSubmit(); 0`, action))
}

// text types into whatever has the focus; key presses one key.
func typeText(s string) browser.Action {
	return chromedp.Func(func(ctx context.Context, tg *chromedp.Target) error {
		_, err := cdp.Call(ctx, tg, input.InsertText, input.InsertTextParams{Text: s})
		return err
	})
}

func at(path string) browser.Action {
	return browser.Until(fmt.Sprintf(`location.pathname === %q && document.readyState === "complete"`, path))
}

func says(s string) string { return fmt.Sprintf("document.body.innerText.includes(%q)", s) }

const newPassword = "correct horse battery staple"

// A newcomer starts the console, signs in through the link it prints, gives a
// second user one environment, finds a message with a filter that completes
// itself, shares the link, watches a filtered channel in the browser and in a
// terminal, asks for metrics as Grafana does, and takes the second user's
// access back, whose open tap closes.
func TestNewcomer(t *testing.T) {
	if testing.Short() {
		broker.Missing(t, "time for real programs", "left out with -short")
	}
	enginetest.Require(t)
	natsServer := broker.NATS(t)
	js, err := jetstream.New(broker.DialNATS(t, natsServer.URL))
	if err != nil {
		t.Fatal(err)
	}
	for stream, subject := range map[string]string{"ORDERS": "orders.>", "TRIALS": "trials.>"} {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: stream, Subjects: []string{subject}}); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for i := 0; ; i++ {
			state := "paid"
			if i%4 == 0 {
				state = "declined"
			}
			for _, subject := range []string{"orders.placed", "trials.placed"} {
				body := fmt.Appendf(nil, `{"order":"%s-%04d","state":%q}`, strings.ToUpper(subject[:1]), i, state)
				if _, err := js.Publish(t.Context(), subject, body); err != nil {
					return // the test has ended
				}
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-t.Context().Done():
				return
			}
		}
	}()

	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	console := program.Start(t, program.Console, nil, "serve", "--config", write("console.yaml", fmt.Sprintf(
		"listen: 127.0.0.1:0\nlisten_grpc: \"\"\ndata_dir: %s\naccess: {agents: token}\n", filepath.Join(dir, "console"))))
	setup := await(t, console, `(http://\S+)/setup\?token=(\S+)`)
	address, link := setup[1], setup[0]
	await(t, console, `console is ready`)

	ada := newPerson(t, "ada")
	ada.do("nobody comes in without the link", chromedp.Navigate(address+"/messages"), at("/login"))
	ada.do("sets the console up", chromedp.Navigate(link), at("/setup"),
		ada.fill("name", "ada"), ada.fill("password", newPassword), ada.fill("again", newPassword), ada.submit("/setup"), at("/"))

	// The agents of two environments get credentials of their own.
	for _, env := range []string{"production", "staging"} {
		var token string
		ada.do("enrols an agent", chromedp.Navigate(address+"/settings/agents"), at("/settings/agents"),
			ada.fill("name", env), ada.fill("env", env), ada.submit("/settings/agents"),
			browser.Until(`!!document.querySelector(".secret code")`), browser.Value(`document.querySelector(".secret code").textContent`, &token))
		stream := map[string]string{"production": "ORDERS", "staging": "TRIALS"}[env]
		program.Start(t, program.Agent, nil, "--config", write(env+".yaml", fmt.Sprintf(`
agent: {id: %s-agent, env: %s, data_dir: %s}
console: {url: %s, report_interval: 1s, enrolment_token_file: %s}
brokers:
  - name: nats-%s
    type: nats
    observe_interval: 1s
    options: {urls: ["%s"]}
    taps: [{channel: %s}]
`, env, env, filepath.Join(dir, env), address, write(env+".token", token), env, natsServer.URL, stream)))
	}

	ada.do("adds a second user", chromedp.Navigate(address+"/settings/users"), at("/settings/users"), ada.fill("name", "mara"),
		browser.JS(`document.querySelector("[name=role]").value = "viewer"; document.querySelector("[name=env]").value = "staging"; 0`),
		ada.submit("/settings/users"), browser.Until(`!!document.querySelector(".secret code")`))
	var invitation string
	ada.do("reads the invitation", browser.Value(`document.querySelector(".secret code").textContent`, &invitation))

	ada.do("messages arrive", arrives(address+"/messages?env=staging", says("TRIALS")), arrives(address+"/messages?env=production", says("ORDERS")))
	option := func(s string) string {
		return fmt.Sprintf(`[...document.querySelectorAll('[role=listbox]:not([hidden]) [role=option]')].some((o) => o.innerText.includes(%q))`, s)
	}
	typed := func(s string) string {
		return fmt.Sprintf(`document.querySelector("input[name=q]").value.trim() === %q`, s)
	}
	ada.do("types a filter that completes itself", chromedp.Navigate(address+"/messages?env=staging"), at("/messages"),
		browser.JS(`document.querySelector("input[name=q]").focus(); 0`),
		typeText("chan"), browser.Until(option("channel")), key("Tab"), browser.Until(typed("channel:")),
		typeText("TRI"), browser.Until(option("TRIALS")), key("Tab"), browser.Until(typed("channel:TRIALS")),
		typeText(` body.state:declined`))
	ada.do("finds the messages", key("Enter"),
		browser.Until(`location.search.includes("declined") && document.readyState === "complete"`),
		browser.Until(`document.querySelectorAll('main tbody a[href^="/messages/"]').length > 0`),
		browser.Until(says("declined")+" && !"+says(`"paid"`)))
	var shared string
	ada.do("shares the link", browser.Value(`location.href`, &shared))

	mara := newPerson(t, "mara")
	mara.do("sets a password", chromedp.Navigate(invitation), at("/password"),
		mara.fill("password", newPassword), mara.fill("again", newPassword), mara.submit("/password"), at("/"))
	mara.do("opens the shared link: what was found, without payloads", chromedp.Navigate(shared), at("/messages"))
	plain := address + "/messages?env=staging&q=" + url.QueryEscape("channel:TRIALS")
	mara.do("sees her environment", arrives(plain, `document.querySelectorAll('main tbody a[href^="/messages/"]').length > 0`))
	var leak bool
	mara.do("and nothing else", browser.Value(says("declined")+" || "+says("ORDERS")+" || "+says("production"), &leak))
	if leak {
		t.Error("a viewer of staging sees payloads or another environment")
	}
	mara.do("nor of another environment", chromedp.Navigate(address+"/messages?env=production&q="), browser.Until(`document.readyState === "complete" && !`+says("ORDERS")))

	// A terminal.
	var token, shown string
	ada.do("makes an API token", chromedp.Navigate(address+"/settings/tokens"), at("/settings/tokens"), ada.fill("name", "terminal"),
		browser.JS(`document.querySelector("[name=role]").value = "reader"; 0`), ada.submit("/settings/tokens"),
		browser.Until(`!!document.querySelector(".secret code")`), browser.Value(`document.querySelector(".secret code").textContent`, &token),
		browser.Value(`[...document.querySelectorAll("main code")].map(e => e.textContent).find(t => t.startsWith("signalbox login"))`, &shown))
	home := filepath.Join(dir, "home")
	cli := func(in string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(program.Dir(t), program.Console), args...)
		cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME=", "SIGNALBOX_URL=", "SIGNALBOX_TOKEN=")
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("signalbox %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	cli(token+"\n", append(strings.Fields(shown)[1:], "--token-stdin")...) // as the page says; no terminal to ask on
	if out := cli("", "tap", "TRIALS", "body.state:declined", "--count", "3", "--for", "20s", "--fail-empty"); strings.Count(out, "declined") < 3 || strings.Contains(out, `"paid"`) {
		t.Errorf("signalbox tap shows:\n%s", out)
	}
	if out := cli("", "search", "channel:TRIALS body.state:declined", "--limit", "2"); strings.Count(out, "declined") < 2 {
		t.Errorf("signalbox search shows:\n%s", out)
	}

	// Metrics, as Grafana asks for them.
	query := address + "/prometheus/api/v1/query?" + url.Values{"query": {`count by (__name__) ({deployment_environment_name="staging"})`}}.Encode()
	if code := fetch(t, query, "", nil); code != http.StatusUnauthorized {
		t.Errorf("metrics without a token: got %d, want 401", code)
	}
	var found struct {
		Status string
		Data   struct{ Result []any }
	}
	for deadline := time.Now().Add(30 * time.Second); len(found.Data.Result) == 0 && time.Now().Before(deadline); time.Sleep(time.Second) {
		if code := fetch(t, query, token, &found); code != http.StatusOK {
			t.Fatalf("metrics with a token: got %d", code)
		}
	}
	if found.Status != "success" || len(found.Data.Result) == 0 {
		t.Errorf("metrics of staging: %+v", found)
	}

	// The second user watches, until that is taken back.
	mara.do("watches live", chromedp.Navigate(address+"/live?env=staging&channel=TRIALS"), at("/live"),
		browser.Until(`document.querySelectorAll("main a[href^='/messages/']").length > 3`))
	ada.do("disables the second user", chromedp.Navigate(address+"/settings/users"), at("/settings/users"),
		browser.JS(`[...document.querySelectorAll("tbody th a")].find((a) => a.textContent === "mara").click(); 0`),
		browser.Until(`location.pathname.startsWith("/settings/users/") && document.readyState === "complete"`),
		browser.JS(`document.querySelector('main form[action$="/disable"]').requestSubmit(); 0`))
	began := time.Now()
	mara.do("is cut off", browser.Until(`document.querySelector("[data-tap-state]")?.innerText.includes("Ended") || location.pathname === "/login"`))
	t.Logf("the open tap ended %v after its reader was disabled", time.Since(began).Round(time.Millisecond))
	mara.do("cannot come back", chromedp.Navigate(address+"/messages"), at("/login"))

	if said := ada.complaints(); len(said) > 0 {
		t.Errorf("the browser complains:\n%s", strings.Join(said, "\n"))
	}
}

// key presses one named key.
func key(name string) browser.Action {
	codes := map[string]int64{"Enter": 13, "Escape": 27, "Tab": 9}
	return chromedp.Func(func(ctx context.Context, tg *chromedp.Target) error {
		for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
			p := input.DispatchKeyEventParams{Type: kind, Key: name, Code: name, WindowsVirtualKeyCode: codes[name]}
			if name == "Enter" && kind == input.DispatchKeyEventTypeKeyDown {
				p.Text = "\r"
			}
			if _, err := cdp.Call(ctx, tg, input.DispatchKeyEvent, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// fetch asks for JSON with a token and returns the status.
func fetch(t *testing.T, address, token string, into any) int {
	t.Helper()
	code, body := request(t, address, token)
	if into != nil && code == http.StatusOK {
		if err := json.Unmarshal(body, into); err != nil {
			t.Fatal(err)
		}
	}
	return code
}

func fetchText(t *testing.T, address string, into *string) int {
	t.Helper()
	code, body := request(t, address, "")
	*into = string(body)
	return code
}

func request(t *testing.T, address, token string) (code int, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, body
}
