package e2e

import (
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/test/broker"
	"github.com/signalbox-dev/signalbox/test/program"
)

// Secrets in headers, in fields of JSON and in bodies that a policy keeps back
// are nowhere behind the agent: not in its spool and log, not in the console's
// queue, store, state, log, pages, API and exports.
func TestSecretsStayAtTheAgent(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	enginetest.Require(t)
	natsServer := broker.NATS(t)
	js, err := jetstream.New(broker.DialNATS(t, natsServer.URL))
	if err != nil {
		t.Fatal(err)
	}
	streams := []string{"CANARYFULL", "CANARYMETA", "CANARYHASH"}
	for _, s := range streams {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: s, Subjects: []string{strings.ToLower(s) + ".>"}}); err != nil {
			t.Fatal(err)
		}
	}

	dir := t.TempDir()
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	engine := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	console := program.Start(t, program.Console, nil, "serve", "--config", write("console.yaml", fmt.Sprintf(
		"listen: 127.0.0.1:0\nlisten_grpc: \"\"\ndata_dir: %s\naccess: {mode: open}\nlog: {level: debug}\nstorage: {engine: {tcp_listen: %q}}\n",
		filepath.Join(dir, "console"), engine)))
	address := await(t, console, `url=(http://\S+)`)[1]
	agent := program.Start(t, program.Agent, nil, "--config", write("agent.yaml", fmt.Sprintf(`
agent: {id: canary-agent, env: production, data_dir: %s}
console: {url: %s, report_interval: 1s}
brokers:
  - name: nats-canary
    type: nats
    options: {urls: ["%s"]}
    taps: [{channel: "CANARY*"}]
redaction:
  paths: [{path: $.card.pan}, {path: $..password}]
  bodies: [{channel: CANARYMETA, policy: metadata}, {channel: CANARYHASH, policy: hash}]
`, filepath.Join(dir, "agent"), address, natsServer.URL)))

	// Every secret has a number of its own, so that a leak names its place.
	secret := func(n int) string { return fmt.Sprintf("canary%04dbird", n) }
	canary := regexp.MustCompile(`(?i)canary\d{4}bird`)
	sent := 0
	publish := func(subject, body string, header nats.Header) {
		t.Helper()
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: subject, Data: []byte(body), Header: header}); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	sql := func(query string) string {
		t.Helper()
		return get(t, "http://"+engine+"/?"+url.Values{"query": {query}}.Encode())
	}
	// A message per stream shows that its tap is in place.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(300 * time.Millisecond) {
		for _, s := range streams {
			publish(strings.ToLower(s)+".probe", `{"visible":"probe"}`, nil)
		}
		if strings.TrimSpace(sql("SELECT uniqExact(destination) FROM signalbox.messages WHERE broker = 'nats-canary'")) == "3" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the taps see nothing\n%s", agent.Output())
		}
	}
	header := nats.Header{
		"Authorization": {"Bearer " + secret(1)}, "Cookie": {"sid=" + secret(2)}, "X-Api-Key": {secret(3)}, "my-token": {secret(4)},
		"X-Shop-Password": {secret(5)}, "X-Visible": {"visible-header"},
	}
	publish("canaryfull.order", fmt.Sprintf(`{"visible":"visible-body","card":{"pan":%q,"holder":"A"},"user":{"password":%q},"more":[{"password":[%q,{"x":%q}]}]}`,
		secret(10), secret(11), secret(12), secret(13)), header)
	publish("canaryfull.twice", fmt.Sprintf(`{"visible":"visible-twice","card":{"pan":%q},"card":{"pan":%q}}`, secret(14), secret(15)), nil)
	publish("canarymeta.person", fmt.Sprintf(`{"name":%q}`, secret(20)), header)
	publish("canaryhash.person", secret(21), header)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if got := strings.TrimSpace(sql("SELECT count() FROM signalbox.messages WHERE routing_key NOT LIKE '%probe'")); got == "4" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%s of 4 messages stored", got)
		}
	}

	places := map[string]string{"agent's log": agent.Output(), "console's log": console.Output()}
	for _, table := range strings.Fields(sql("SELECT name FROM system.tables WHERE database = 'signalbox' AND engine LIKE '%MergeTree'")) {
		places["table "+table] = sql("SELECT * FROM signalbox." + table + " FORMAT JSONEachRow")
	}
	api := address + "/api/v1/messages"
	for _, format := range []string{"ndjson", "csv", "parquet"} {
		places["export as "+format] = get(t, api+"/export?env=production&format="+format)
	}
	places["list page"] = get(t, address+"/messages?env=production&cols=time,channel,body,header.authorization,header.cookie")
	for _, uid := range strings.Fields(sql("SELECT lower(hex(uid)) FROM signalbox.messages WHERE routing_key NOT LIKE '%probe'")) {
		places["page of "+uid] = get(t, address+"/messages/"+uid)
		places["API of "+uid] = get(t, api+"/"+uid)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() {
			return nil //nolint:nilerr // the store removes files while this looks
		}
		if content, err := os.ReadFile(path); err == nil {
			places["file "+strings.TrimPrefix(path, dir)] = string(content)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for place, content := range places {
		if found := canary.FindString(content); found != "" {
			t.Errorf("%s: %s", place, found)
		}
	}
	// What is no secret is there, so the places were the right ones.
	for place, want := range map[string][]string{
		"table messages": {"visible-header"}, "table bodies": {"visible-body", "visible-twice"},
		"export as ndjson": {"visible-header"}, "list page": {"visible-body"},
	} {
		for _, w := range want {
			if !strings.Contains(places[place], w) {
				t.Errorf("%s lacks %s", place, w)
			}
		}
	}
	if page := get(t, address+"/messages?env=production&q=canary0010bird"); !strings.Contains(page, "Nothing matched") {
		t.Error("a search for a secret finds something")
	}
	t.Logf("%d messages, %d places looked at", sent, len(places))
}

// get reads an address, which must answer with 200.
func get(t *testing.T, address string) string {
	t.Helper()
	var text string
	if code := fetchText(t, address, &text); code != http.StatusOK {
		t.Fatalf("%s: got %d: %.500s", address, code, text)
	}
	return text
}
