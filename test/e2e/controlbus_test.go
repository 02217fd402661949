package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/test/broker"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/test/program"
)

const (
	waiting = 1_200  // messages in the backlog
	dead    = 10_000 // dead letters
)

// depot is a company with a backlog nobody wants and a heap of dead letters.
type depot struct {
	t      *testing.T
	rabbit *broker.Server
	vhost  string
	ch     *amqp.Channel
	js     jetstream.JetStream
}

func openDepot(t *testing.T, rabbit *broker.Server, vhost, vhostURL, natsURL string) *depot {
	t.Helper()
	d := &depot{t: t, rabbit: rabbit, vhost: vhost}
	var err error
	if d.ch, err = broker.DialAMQP(t, vhostURL).Channel(); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.ch.ExchangeDeclare("depot", "topic", true, false, false, false, nil))
	must(d.ch.ExchangeDeclare("depot.dead", "fanout", true, false, false, false, nil))
	for queue, q := range map[string]struct {
		exchange, key string
		args          amqp.Table
	}{
		"backlog":     {"depot", "backlog", nil},
		"orders.new":  {"depot", "order.new", amqp.Table{"x-dead-letter-exchange": "depot.dead"}},
		"orders.dead": {"depot.dead", "", nil},
	} {
		_, err := d.ch.QueueDeclare(queue, true, false, false, false, q.args)
		must(err)
		must(d.ch.QueueBind(queue, q.key, q.exchange, false, nil))
	}
	must(d.ch.Confirm(false))
	if d.js, err = jetstream.New(broker.DialNATS(t, natsURL)); err != nil {
		t.Fatal(err)
	}
	// The server is other tests', too.
	archive, err := d.js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "ARCHIVE", Subjects: []string{"archive"}})
	must(err)
	must(archive.Purge(t.Context()))
	return d
}

// publish sends n confirmed messages; body makes each of its number.
func (d *depot) publish(key string, n int, body func(i int) string) {
	d.t.Helper()
	var last *amqp.DeferredConfirmation
	for i := range n {
		var err error
		last, err = d.ch.PublishWithDeferredConfirm("depot", key, true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, ContentType: "application/json", MessageId: fmt.Sprintf("%s-%d", key, i), Timestamp: time.Now(), Body: []byte(body(i)),
		})
		if err != nil {
			d.t.Fatal(err)
		}
	}
	if last != nil && !last.Wait() {
		d.t.Fatal("the broker refused what was published")
	}
}

// die lets every message of orders.new be rejected.
func (d *depot) die(n int) {
	d.t.Helper()
	for range n {
		m, ok, err := d.ch.Get("orders.new", false)
		if err != nil || !ok {
			d.t.Fatalf("take an order: %v, %v", ok, err)
		}
		if err := m.Reject(false); err != nil {
			d.t.Fatal(err)
		}
	}
	d.depth("orders.dead", n)
}

// depth waits until a queue has so many messages.
func (d *depot) depth(queue string, want int) {
	d.t.Helper()
	var got int
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		q, err := d.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err != nil {
			d.t.Fatal(err)
		}
		if got = q.Messages; got == want {
			return
		}
	}
	var all []struct {
		Name                                         string
		Messages, Messages_unacknowledged, Consumers int //nolint:revive // the broker's names
	}
	d.rabbit.API(d.t, http.MethodGet, "/api/queues/"+url.PathEscape(d.vhost), nil, &all)
	d.t.Fatalf("queue %s: %d messages, want %d; the broker has %+v", queue, got, want, all)
}

func (d *depot) count(queue string) int {
	d.t.Helper()
	q, err := d.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return q.Messages
}

// bodies are those of a queue in their order; the queue is empty afterwards.
func (d *depot) bodies(queue string) []string {
	d.t.Helper()
	var out []string
	for {
		m, ok, err := d.ch.Get(queue, true)
		if err != nil {
			d.t.Fatal(err)
		}
		if !ok {
			return out
		}
		out = append(out, string(m.Body))
	}
}

func (d *depot) archived(want uint64) {
	d.t.Helper()
	s, err := d.js.Stream(d.t.Context(), "ARCHIVE")
	if err != nil {
		d.t.Fatal(err)
	}
	var got uint64
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		info, err := s.Info(d.t.Context())
		if err != nil {
			d.t.Fatal(err)
		}
		if got = info.State.Msgs; got == want {
			return
		}
	}
	d.t.Fatalf("stream ARCHIVE: %d messages, want %d", got, want)
}

const orderSchema = `{"type":"object","required":["order","total"],"properties":{"total":{"type":"number","minimum":0}}}`

func goodOrder(i int) string { return fmt.Sprintf(`{"order":%d,"total":%d}`, i, i) }

// site is a console with an agent beside both brokers, and its people.
type site struct {
	t       *testing.T
	dir     string
	address string
	console *program.Process
	agent   *program.Process
	config  string
	depot   *depot
	ada     *person
	mara    *person
}

func (s *site) write(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// openSite starts everything: ada set the console up, mara is the second person.
func openSite(t *testing.T) *site {
	t.Helper()
	enginetest.Require(t)
	rabbit, natsServer := broker.RabbitMQ(t), broker.NATS(t)
	vhost, vhostURL := rabbit.VHost(t)
	s := &site{t: t, dir: t.TempDir()}
	s.depot = openDepot(t, rabbit, vhost, vhostURL, natsServer.URL)
	s.config = s.write("console.yaml", fmt.Sprintf(`
listen: 127.0.0.1:0
listen_grpc: ""
data_dir: %s
access: {agents: token}
commands: {policies: [{env: production, destructive: second_person}]}
`, filepath.Join(s.dir, "console")))
	s.console = program.Start(t, program.Console, nil, "serve", "--config", s.config)
	setup := await(t, s.console, `(http://\S+)/setup\?token=(\S+)`)
	s.address = setup[1]
	await(t, s.console, `console is ready`)

	s.ada = newPerson(t, "ada")
	s.ada.do("sets the console up", chromedp.Navigate(setup[0]), at("/setup"),
		s.ada.fill("name", "ada"), s.ada.fill("password", newPassword), s.ada.fill("again", newPassword), s.ada.submit("/setup"), at("/"))
	secret := func(what string, actions ...browser.Action) (text string) {
		t.Helper()
		s.ada.do(what, append(actions, browser.Until(`!!document.querySelector(".secret code")`), browser.Value(`document.querySelector(".secret code").textContent`, &text))...)
		return text
	}
	enrol := secret("enrols the agent", chromedp.Navigate(s.address+"/settings/agents"), at("/settings/agents"),
		s.ada.fill("name", "site"), s.ada.fill("env", "production"), s.ada.submit("/settings/agents"))

	plain, err := url.Parse(vhostURL)
	if err != nil {
		t.Fatal(err)
	}
	user := plain.User.Username()
	password, _ := plain.User.Password()
	plain.User = nil
	management, err := url.Parse(rabbit.ManagementURL)
	if err != nil {
		t.Fatal(err)
	}
	management.User = nil
	s.agent = program.Start(t, program.Agent, nil, "--config", s.write("agent.yaml", fmt.Sprintf(`
agent: {id: site-1, env: production, data_dir: %s}
console: {url: %s, report_interval: 1s, enrolment_token_file: %s}
commands: {allow: [{broker: "*", channel: "*"}]}
brokers:
  - name: rabbit-eu1
    type: rabbitmq
    observe_interval: 1s
    options: {url: "%s", management_url: "%s", user: %s, password_file: %s}
    taps: [{channel: backlog}, {channel: orders.*}]
  - name: nats-eu1
    type: nats
    observe_interval: 1s
    options: {urls: ["%s"]}
    taps: [{channel: ARCHIVE}]
`, filepath.Join(s.dir, "agent"), s.address, s.write("enrol.token", enrol), plain, management, user, s.write("password", password), natsServer.URL)))

	invitation := secret("adds a second person", chromedp.Navigate(s.address+"/settings/users"), at("/settings/users"), s.ada.fill("name", "mara"),
		browser.JS(`document.querySelector("[name=role]").value = "approver"; document.querySelector("[name=env]").value = "production"; 0`), s.ada.submit("/settings/users"))
	s.mara = newPerson(t, "mara")
	s.mara.do("sets a password", chromedp.Navigate(invitation), at("/password"),
		s.mara.fill("password", newPassword), s.mara.fill("again", newPassword), s.mara.submit("/password"), at("/"))
	return s
}

// token makes an API token of a person's and returns it.
func (s *site) token(p *person, role string) (text string) {
	s.t.Helper()
	p.do("makes a token", chromedp.Navigate(s.address+"/settings/tokens"), at("/settings/tokens"), p.fill("name", "terminal"),
		browser.JS(fmt.Sprintf(`document.querySelector("[name=role]").value = %q; document.querySelector("[name=env]").value = "production"; 0`, role)), p.submit("/settings/tokens"),
		browser.Until(`!!document.querySelector(".secret code")`), browser.Value(`document.querySelector(".secret code").textContent`, &text))
	return text
}

// field sets a form's field by its name and tells the page.
func field(name, value string) browser.Action {
	return browser.JS(fmt.Sprintf(`(() => { const f = document.querySelector('main [name=%q], dialog [name=%q]'); f.value = %q; f.dispatchEvent(new Event("input", {bubbles: true})); return 0 })()`, name, name, value))
}

// press clicks the button of the page whose text contains the label.
func press(label string) browser.Action {
	return browser.JS(fmt.Sprintf(`(() => { const b = [...document.querySelectorAll("main button, dialog button")].find((b) => !b.disabled && b.innerText.includes(%q)); b.click(); return 0 })()`, label))
}

func loaded(pattern string) browser.Action {
	return browser.Until(fmt.Sprintf(`/%s/.test(location.pathname) && document.readyState === "complete"`, strings.ReplaceAll(pattern, "/", `\/`)))
}

// ask fills the form of a command and goes on to its preview, which must say
// what is expected.
func (s *site) ask(p *person, kind, brokerName, channel string, says []string, fields ...browser.Action) {
	s.t.Helper()
	at := s.address + "/control/new?" + url.Values{"kind": {kind}, "env": {"production"}, "broker": {brokerName}, "channel": {channel}}.Encode()
	p.do("asks for "+kind, chromedp.Navigate(at), loaded("^/control/new$"))
	p.do("fills the form of "+kind, fields...)
	s.previewed(p, kind, says, browser.JS(`document.querySelector('main form[action="/control/preview"]').requestSubmit(document.querySelector('main form[action="/control/preview"] .btn.primary')); 0`))
}

// previewed goes to a preview and looks at what it says.
func (s *site) previewed(p *person, kind string, says []string, go_ browser.Action) {
	s.t.Helper()
	p.do("previews "+kind, go_, loaded("^/control/drafts/"))
	var text string
	p.do("reads the preview of "+kind, browser.Value(`document.body.innerText`, &text))
	for _, want := range says {
		if !strings.Contains(text, want) {
			s.t.Errorf("the preview of %s does not say %q:\n%s", kind, want, text)
		}
	}
	p.picture("preview-" + kind)
}

// order orders what is previewed and returns the command's ID.
func (s *site) order(p *person, kind string) (id string) {
	s.t.Helper()
	p.do("orders "+kind, field("reason", "as agreed on the phone"), browser.JS(`document.querySelector("[data-order]").click(); 0`), loaded("^/control/[0-9a-f]{32}$"),
		browser.Value(`location.pathname.split("/").pop()`, &id))
	return id
}

// picture is for looking at.
func (p *person) picture(name string) {
	p.t.Helper()
	to := os.Getenv("SIGNALBOX_E2E_PICTURES")
	if to == "" {
		return
	}
	shot, err := chromedp.Run(p.tab, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(to, "controlbus-"+name+".png"), shot, 0o644)
	}
	if err != nil {
		p.t.Logf("picture %s: %v", name, err)
	}
}

// wire is a command as the API has it.
type wire struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Detail   string `json:"detail"`
	Progress struct {
		Done int64 `json:"done"`
	} `json:"progress"`
	Result *struct {
		Outcome string `json:"outcome"`
		Done    int64  `json:"done"`
		Detail  string `json:"detail"`
	} `json:"result"`
}

// command asks the API for a command.
func (s *site) command(token, id string) (c wire, raw string) {
	s.t.Helper()
	code, body := request(s.t, s.address+"/api/v1/commands/"+id, token)
	if code != http.StatusOK || json.Unmarshal(body, &c) != nil {
		s.t.Fatalf("command %s: %d %s", id, code, body)
	}
	return c, string(body)
}

// until waits for a state of a command, which must be the one it ends in.
func (s *site) until(token, id string, ok func(wire) bool, what string) wire {
	s.t.Helper()
	var c wire
	var raw string
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if c, raw = s.command(token, id); ok(c) {
			return c
		}
		if c.Result != nil && what != "end" {
			break
		}
	}
	s.t.Fatalf("command %s: want %s, have %s\nagent:\n%s", id, what, raw, s.agent.Output())
	return c
}

func (s *site) succeeded(token, id string, done int64) {
	s.t.Helper()
	c := s.until(token, id, func(c wire) bool { return c.Result != nil }, "end")
	if c.State != "succeeded" || done >= 0 && c.Result.Done != done {
		_, raw := s.command(token, id)
		s.t.Fatalf("command %s: want %d done, have %s", id, done, raw)
	}
}

// On a real RabbitMQ with a real backlog: a purge is previewed, approved by a
// second person, carried out and undone; a channel goes through a JSON Schema
// check and back; ten thousand dead letters are redriven at a limit, with pause
// and cancel; and a filter's messages are replayed to NATS. First in browsers.
func TestControlBusInABrowser(t *testing.T) {
	if testing.Short() {
		broker.Missing(t, "time for real programs", "left out with -short")
	}
	s := openSite(t)
	d := s.depot
	token := s.token(s.ada, "admin")
	s.tapped(token)
	d.publish("backlog", waiting, goodOrder)
	d.depth("backlog", waiting)

	// Purge, by two people.
	s.ask(s.ada, "purge", "rabbit-eu1", "backlog", []string{"1,200", "backlog", "production", "second person"})
	purge := s.order(s.ada, "purge")
	if c, raw := s.command(token, purge); c.State != "awaiting_approval" {
		t.Errorf("the purge before consent: %s", raw)
	}
	s.ada.do("cannot agree with herself", browser.Until(`document.readyState === "complete" && !document.querySelector('form[action$="/approve"]')`))
	d.depth("backlog", waiting)
	began := time.Now()
	s.mara.do("agrees", chromedp.Navigate(s.address+"/control?env=production"), at("/control"), browser.Until(says("as agreed on the phone")))
	s.mara.picture("approval")
	s.mara.do("agrees to what she sees", browser.JS(fmt.Sprintf(`document.querySelector('form[action="/control/%s/approve"]').requestSubmit(); 0`, purge)), loaded("^/control"))
	s.succeeded(token, purge, waiting)
	d.depth("backlog", 0)
	t.Logf("purged %d messages %v after the second person saw the request", waiting, time.Since(began).Round(time.Millisecond))

	// Undo: the same messages, in order.
	s.ada.do("looks at the purge", chromedp.Navigate(s.address+"/control/"+purge), loaded("^/control/"), browser.Until(`!!document.querySelector('form[action$="/undo"]')`))
	s.ada.picture("purged")
	s.previewed(s.ada, "undo", []string{"1,200"}, browser.JS(`document.querySelector('form[action$="/undo"]').requestSubmit(); 0`))
	s.succeeded(token, s.order(s.ada, "undo"), waiting)
	d.depth("backlog", waiting)
	for i, b := range d.bodies("backlog") {
		if b != goodOrder(i) {
			t.Fatalf("after the undo message %d is %s, want %s", i, b, goodOrder(i))
		}
	}

	// A detour through a JSON Schema.
	s.ask(s.ada, "detour", "rabbit-eu1", "orders.new", []string{"orders.new", "gate"},
		field("id", "check-orders"), field("for", "1h"), field("add", "validate"), press("Add it"), loaded("^/control/form$"), field("s0_schema", orderSchema))
	s.succeeded(token, s.order(s.ada, "detour"), -1)
	d.publish("order.new", 100, goodOrder)
	d.publish("order.new", 20, func(i int) string { return fmt.Sprintf(`{"order":%d,"total":"lots"}`, i) })
	d.depth("orders.new", 100)
	s.ada.do("looks at the detours", arrives(s.address+"/detours?env=production", says("check-orders")+" && "+says("20")))
	s.ada.picture("detours")
	s.previewed(s.ada, "undetour", []string{"check-orders"}, browser.JS(`[...document.querySelectorAll('main form[action="/control/preview"]')].find((f) => f.innerText.includes("check-orders") || true).requestSubmit(); 0`))
	s.succeeded(token, s.order(s.ada, "undetour"), -1)
	d.publish("order.new", 5, func(i int) string { return "not even JSON" })
	d.depth("orders.new", 105)
	if n := len(d.bodies("orders.new")); n != 105 {
		t.Errorf("orders after the detour: %d, want 105", n)
	}

	// Ten thousand dead letters, at a limit.
	d.publish("order.new", dead, goodOrder)
	d.depth("orders.new", dead)
	d.die(dead)
	s.ask(s.ada, "redrive", "rabbit-eu1", "orders.dead", []string{"10,000", "orders.dead"}, field("rate", "1000"), field("ramp", ""))
	redrive := s.order(s.ada, "redrive")
	s.until(token, redrive, func(c wire) bool { return c.Progress.Done >= 1000 }, "1,000 done")
	s.ada.do("pauses", browser.Until(`!!document.querySelector('button[name=paused][value="1"]')`), browser.JS(`document.querySelector('button[name=paused][value="1"]').click(); 0`),
		browser.Until(`!!document.querySelector('button[name=paused][value="0"]')`))
	s.ada.picture("paused")
	held := d.still("orders.new")
	if held < 1000 || held > 9000 {
		t.Errorf("paused with %d redriven, want some and not all", held)
	}
	s.ada.do("goes on", browser.JS(`document.querySelector('button[name=paused][value="0"]').click(); 0`), browser.Until(`!!document.querySelector('button[name=paused][value="1"]')`))
	s.until(token, redrive, func(c wire) bool { return c.Progress.Done >= int64(held)+500 }, "500 more done")
	s.ada.do("cancels", browser.JS(`document.querySelector('form[action$="/cancel"]').requestSubmit(); 0`))
	c := s.until(token, redrive, func(c wire) bool { return c.Result != nil }, "end")
	if c.State != "partial" || int(c.Result.Done) != d.count("orders.new") || d.count("orders.new")+d.count("orders.dead") != dead {
		t.Errorf("cancelled redrive: %s, %d done, %d in orders.new, %d in orders.dead", c.State, c.Result.Done, d.count("orders.new"), d.count("orders.dead"))
	}
	s.ask(s.ada, "redrive", "rabbit-eu1", "orders.dead", []string{"orders.dead"}, field("rate", ""), field("ramp", ""))
	began = time.Now()
	s.succeeded(token, s.order(s.ada, "redrive"), int64(dead)-c.Result.Done)
	t.Logf("the other %d dead letters took %v without a limit", dead-c.Result.Done, time.Since(began).Round(time.Millisecond))
	d.depth("orders.new", dead)
	d.depth("orders.dead", 0)

	// By filter to another broker.
	s.ask(s.ada, "replay", "nats-eu1", "ARCHIVE", []string{"1,200", "ARCHIVE"}, field("filter", "channel:backlog NOT header.sb-replay:*"), field("since", "1h"), field("rate", ""), field("ramp", ""))
	s.succeeded(token, s.order(s.ada, "replay"), waiting)
	d.archived(waiting)

	s.verified()
	for _, p := range []*person{s.ada, s.mara} {
		if said := p.complaints(); len(said) > 0 {
			t.Errorf("%s's browser complains:\n%s", p.name, strings.Join(said, "\n"))
		}
	}
}

// still waits until nothing more arrives in a queue and says how many are there.
func (d *depot) still(queue string) int {
	d.t.Helper()
	last := -1
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		n := d.count(queue)
		if n == last {
			return n
		}
		last = n
		time.Sleep(time.Second)
	}
	d.t.Fatalf("queue %s does not stand still", queue)
	return 0
}

// tapped waits until the agent's taps run.
func (s *site) tapped(token string) {
	s.t.Helper()
	var text string
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		_, body := request(s.t, s.address+"/api/v1/taps", token)
		if text = string(body); strings.Count(text, `"state":"running"`) >= 4 {
			return
		}
	}
	s.t.Fatalf("the taps do not run: %s\n%s", text, s.agent.Output())
}

// verified checks the audit trail from a terminal.
func (s *site) verified() {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), filepath.Join(program.Dir(s.t), program.Console), "audit", "-config", s.config, "verify")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Errorf("audit verify: %v", err)
	}
	s.t.Logf("signalbox audit verify:\n%s", out)
}

// The same from a terminal.
func TestControlBusFromATerminal(t *testing.T) {
	if testing.Short() {
		broker.Missing(t, "time for real programs", "left out with -short")
	}
	s := openSite(t)
	d := s.depot
	tokens := map[string]string{"ada": s.token(s.ada, "admin"), "mara": s.token(s.mara, "approver")}
	s.tapped(tokens["ada"])
	d.publish("backlog", waiting, goodOrder)
	d.depth("backlog", waiting)

	cli := func(who string, code int, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(program.Dir(t), program.Console), args...)
		cmd.Env = append(os.Environ(), "HOME="+filepath.Join(s.dir, "home"), "XDG_CONFIG_HOME=", "SIGNALBOX_URL="+s.address, "SIGNALBOX_TOKEN="+tokens[who])
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("%s$ signalbox %s: ends with %d, want %d: %v\n%s\nagent:\n%s", who, strings.Join(args, " "), got, code, err, out, s.agent.Output())
		}
		t.Logf("%s$ signalbox %s\n%s", who, strings.Join(args, " "), out)
		return string(out)
	}
	ordered := func(out string) string {
		t.Helper()
		var c wire
		if err := json.NewDecoder(strings.NewReader(out[strings.Index(out, "{"):])).Decode(&c); err != nil || c.ID == "" {
			t.Fatalf("no command in %s: %v", out, err)
		}
		return c.ID
	}

	// Nothing is done by looking, nor without a yes.
	if out := cli("ada", 0, "purge", "rabbit-eu1/backlog", "--dry-run"); !strings.Contains(out, "1,200") {
		t.Errorf("the dry run does not say how many: %s", out)
	}
	cli("ada", 10, "purge", "rabbit-eu1/backlog", "--reason", "test")
	d.depth("backlog", waiting)

	purge := ordered(cli("ada", 9, "purge", "rabbit-eu1/backlog", "--yes", "--reason", "nobody wants these", "-o", "json"))
	cli("ada", 4, "commands", "approve", purge, "--yes") // not by who asked
	cli("mara", 0, "commands", "approve", purge, "--yes", "--wait")
	d.depth("backlog", 0)
	cli("ada", 0, "commands", "undo", purge, "--yes", "--rate", "5000")
	d.depth("backlog", waiting)
	for i, b := range d.bodies("backlog") {
		if b != goodOrder(i) {
			t.Fatalf("after the undo message %d is %s, want %s", i, b, goodOrder(i))
		}
	}

	cli("ada", 0, "detour", "rabbit-eu1/orders.new", "--id", "check-orders", "--for", "1h", "--schema", s.write("order.schema.json", orderSchema), "--yes", "--reason", "bad orders")
	d.publish("order.new", 100, goodOrder)
	d.publish("order.new", 20, func(i int) string { return fmt.Sprintf(`{"order":%d,"total":"lots"}`, i) })
	d.depth("orders.new", 100)
	if out := cli("ada", 0, "detours"); !strings.Contains(out, "check-orders") {
		t.Errorf("detours: %s", out)
	}
	cli("ada", 0, "undetour", "check-orders", "--yes")
	d.publish("order.new", 5, func(int) string { return "not even JSON" })
	d.depth("orders.new", 105)
	d.bodies("orders.new")

	d.publish("order.new", dead, goodOrder)
	d.depth("orders.new", dead)
	d.die(dead)
	redrive := ordered(cli("ada", 0, "redrive", "rabbit-eu1/orders.dead", "--rate", "1000", "--yes", "--wait=false", "-o", "json"))
	s.until(tokens["ada"], redrive, func(c wire) bool { return c.Progress.Done >= 1000 }, "1,000 done")
	cli("ada", 0, "commands", "pause", redrive)
	held := d.still("orders.new")
	if held < 1000 || held > 9000 {
		t.Errorf("paused with %d redriven, want some and not all", held)
	}
	cli("ada", 0, "commands", "rate", redrive, "2000")
	cli("ada", 0, "commands", "continue", redrive)
	s.until(tokens["ada"], redrive, func(c wire) bool { return c.Progress.Done >= int64(held)+500 }, "500 more done")
	cli("ada", 0, "commands", "cancel", redrive, "--reason", "enough")
	c := s.until(tokens["ada"], redrive, func(c wire) bool { return c.Result != nil }, "end")
	if c.State != "partial" || d.count("orders.new")+d.count("orders.dead") != dead {
		t.Errorf("cancelled redrive: %+v", c)
	}
	cli("ada", 0, "redrive", "rabbit-eu1/orders.dead", "--yes")
	d.depth("orders.new", dead)
	d.depth("orders.dead", 0)

	cli("ada", 0, "replay", "--filter", "channel:backlog NOT header.sb-replay:*", "--since", "1h", "--to", "nats-eu1/ARCHIVE", "--env", "production", "--yes")
	d.archived(waiting)
	cli("ada", 0, "commands")

	// A probe from one broker to the other would need an application between
	// them; the confirmation of the broker is enough for this one.
	cli("ada", 0, "probe", "add", "archive is taken", "--in", "nats-eu1/ARCHIVE", "--out", "nats-eu1/ARCHIVE", "--body", `{"test":true}`, "--env", "production")
	if out := cli("ada", 0, "probe", "run", "archive is taken"); !strings.Contains(out, "passed") {
		t.Errorf("probe: %s", out)
	}
	s.verified()
}
