package ui_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui"
)

// newCommanding is an open console with a bus.
func newCommanding(t testing.TB) (*ui.UI, *fakeBus) {
	t.Helper()
	s, r := filled(now)
	bus := newFakeBus()
	u, err := ui.New(ui.Config{Guard: openGuard(t), Version: "test", Store: s, Roster: r, Commands: bus, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u, bus
}

// said reads an answer's JSON.
func said(t testing.TB, w *httptest.ResponseRecorder, want int) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != want {
		t.Fatalf("got %d %s (%v), want %d", w.Code, w.Body, err, want)
	}
	return out
}

func TestEveryAnswerAboutCommandsIsAsDescribed(t *testing.T) {
	t.Parallel()
	h, bus := newCommanding(t)
	c := loadContract(t, h)
	one := "/commands/" + string(runningID)
	draft := said(t, c.call(t, h, request("POST", v1+"/previews", map[string]any{"kind": "purge", "broker": "rabbit-eu1", "channel": "orders.dead"})), 201)
	asked := map[string]bool{}
	for path, want := range map[string]int{
		"/commands": 200, "/commands?env=production&broker=rabbit-eu1&channel=orders.*&kind=purge&state=succeeded,%20failed&requester=u1&from=2026-11-21T00:00:00Z&to=2026-11-22T00:00:00Z": 200,
		"/commands?open=true&limit=1": 200, "/commands?requester=me": 200, "/commands?kind=explode": 400, "/commands?state=gone": 400, "/commands?cursor=x": 400, "/commands?limit=501": 400,
		one: 200, "/commands/" + string(purgeID): 200, "/commands/xyz": 400, "/commands/0193a5c0ffee000000000000000000ff": 404, one + "?wait=soon": 400,
		one + "/events": 200, one + "/outcomes": 200, one + "/outcomes?limit=2": 200, one + "/outcomes?cursor=-1": 400, "/commands/0193a5c0ffee000000000000000000ff/events": 404,
		"/previews/" + draft["id"].(string): 200, "/previews/nothing": 404,
		"/abilities?broker=rabbit-eu1": 200, "/abilities?broker=unknown": 200, "/abilities": 400,
		"/detours": 200, "/detours?env=staging": 200, "/detours?broker=rabbit-eu1": 200,
		"/audit": 200, "/audit?code=command.*&actor=mia&limit=5&from=2026-11-21T00:00:00Z": 200, "/audit?limit=0": 400, "/audit?cursor=x": 400,
	} {
		if w := c.call(t, h, request("GET", v1+path, nil)); w.Code != want {
			t.Errorf("%s: got %d %s, want %d", path, w.Code, w.Body, want)
		} else if w.Code == 200 && w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s may be kept by a cache", path)
		}
		asked[strings.SplitN(path, "?", 2)[0]] = true
	}
	names := strings.NewReplacer("/previews/{id}", "/previews/"+draft["id"].(string), "{id}", string(runningID))
	for path, item := range c.doc.Paths.Map() {
		if item.Get != nil && (slices.Contains(item.Get.Tags, "commands") || path == "/audit") && !asked[names.Replace(path)] {
			t.Errorf("GET %s is described and was not tried", path)
		}
	}
	bus.err = controlbus.ErrUnavailable
	for _, path := range []string{"/commands", one, one + "/events", one + "/outcomes"} {
		if w := c.call(t, h, request("GET", v1+path, nil)); w.Code != 503 {
			t.Errorf("%s without an answer: got %d, want 503", path, w.Code)
		}
	}
	s, r := filled(now)
	none, err := ui.New(ui.Config{Guard: openGuard(t), Version: "test", Store: s, Roster: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(none.Close)
	for _, path := range []string{"/commands", one, "/detours", "/abilities?broker=x"} {
		if w := c.call(t, none, request("GET", v1+path, nil)); w.Code != 404 || !strings.Contains(w.Body.String(), "takes no commands") {
			t.Errorf("%s of a console without: got %d %s", path, w.Code, w.Body)
		}
	}
}

func TestACommandGoesFromItsPreviewToItsOrder(t *testing.T) {
	t.Parallel()
	h, bus := newCommanding(t)
	c := loadContract(t, h)
	d := said(t, c.call(t, h, request("POST", v1+"/previews", map[string]any{
		"kind": "redrive", "env": "production", "broker": "rabbit-eu1", "channel": "orders.dead", "destination": map[string]any{"broker": "rabbit-eu1", "channel": "orders.placed"},
		"args": map[string]any{"filter": "failed:true", "job": map[string]any{"rate": 50, "ramp": []int{1, 10, 100}, "settle": "3s", "stop_ratio": 0.1}, "force": true}, "run_within": "2h",
	})), 201)
	p := d["preview"].(map[string]any)
	if p["count"] != 1250.0 || p["reversible"] != "partly" || p["fingerprint"] == "" || d["policy"] != "type_name" || d["kind"] != "redrive" || d["expires"] != "2026-11-21T14:35:59.870000000Z" {
		t.Errorf("preview: %v", d)
	}
	got := bus.asked[0]
	if string(got.Args) != `{"filter":"failed:true","job":{"rate":50,"ramp":[1,10,100],"settle_ns":3000000000,"stop_ratio":0.1},"force":true}` || got.RunWithin != 2*time.Hour || got.Destination.Name != "orders.placed" {
		t.Errorf("asked of the agent: %+v %s", got, got.Args)
	}
	if diff := cmp.Diff(map[string]any{"filter": "failed:true", "force": true, "job": map[string]any{"rate": 50.0, "ramp": []any{1.0, 10.0, 100.0}, "settle": "3s", "stop_ratio": 0.1}}, d["args"]); diff != "" {
		t.Errorf("arguments in the answer: %s", diff)
	}
	order := func(body any) *httptest.ResponseRecorder { return c.call(t, h, request("POST", v1+"/commands", body)) }
	for _, bad := range []map[string]any{{}, {"preview": ""}, {"preview": d["id"], "typed": "orders.alive"}, {"preview": d["id"], "typo": "x"}} {
		if w := order(bad); w.Code != 400 || len(bus.ordered) != 0 {
			t.Errorf("order %v: got %d %s", bad, w.Code, w.Body)
		}
	}
	if w := order(map[string]any{"preview": "made-up"}); w.Code != 404 {
		t.Errorf("a preview that was never taken: got %d", w.Code)
	}
	w := order(map[string]any{"preview": d["id"], "typed": "orders.dead", "reason": "fixed now"})
	cmd := said(t, w, 201)
	if cmd["state"] != "queued" || cmd["ended"] != false || cmd["reason"] != "fixed now" || w.Header().Get("Location") != v1+"/commands/"+cmd["id"].(string) {
		t.Errorf("ordered: %v at %q", cmd, w.Header().Get("Location"))
	}
	if again := said(t, order(map[string]any{"preview": d["id"], "typed": "orders.dead"}), 201); again["id"] != cmd["id"] || len(bus.ordered) != 1 {
		t.Errorf("ordered twice: got %v and %d orders, want %v again", again["id"], len(bus.ordered), cmd["id"])
	}
	// What another site's page sends, or what is no JSON, orders nothing.
	cross := request("POST", v1+"/commands", map[string]any{"preview": d["id"], "typed": "orders.dead"})
	cross.Header.Set("Sec-Fetch-Site", "cross-site")
	if w := c.call(t, h, cross); w.Code != 403 {
		t.Errorf("another site's order: got %d", w.Code)
	}
	undo := said(t, c.call(t, h, request("POST", v1+"/commands/"+string(purgeID)+"/undo", map[string]any{"rate": 100})), 201)
	if undo["kind"] != "replay" || undo["undo_of"] != string(purgeID) || undo["args"].(map[string]any)["job"].(map[string]any)["rate"] != 100.0 {
		t.Errorf("undo: %v", undo)
	}
	if w := c.call(t, h, request("POST", v1+"/commands/"+string(runningID)+"/undo", map[string]any{})); w.Code != 422 {
		t.Errorf("undo of what cannot be undone: got %d %s", w.Code, w.Body)
	}
}

func TestArgumentsOfCommandsAreRead(t *testing.T) {
	t.Parallel()
	h, bus := newCommanding(t)
	c := loadContract(t, h)
	for _, tc := range []struct {
		kind, args string
		status     int
		sent       string // what the agent gets, or what the refusal names
	}{
		{"purge", ``, 201, `{}`},
		{"purge", `{"no_backup":true}`, 201, `{"no_backup":true}`},
		{"purge", `{"no_bakcup":true}`, 400, "no_bakcup"},
		{"purge", `{"filter":"chanel:x"}`, 400, "position 1"},
		{"discard", `{"force":true}`, 400, "force is for redrive"},
		{"redrive", `{"job":{"rate":-1}}`, 400, "messages per second"},
		{"replay", `{}`, 400, "want a selection"},
		{"replay", `{"selection":{"env":"production","filter":"failed:true","from":"2026-11-21T13:00:00Z"}}`, 201,
			`{"selection":{"env":"production","filter":"failed:true","from":"2026-11-21T13:00:00Z","to":"0001-01-01T00:00:00Z"}}`},
		{"test", `{"run":"r1","body":"hello","headers":{"a":"b"}}`, 201, `{"run":"r1","body":"hello","headers":{"a":"b"}}`},
		{"pause", `{"for":"10m"}`, 201, `{"for_ns":600000000000}`},
		{"pause", `{"for":"25h"}`, 400, "want 1s to 24h"},
		{"pause", `{"for":"soon"}`, 400, "no length such as"},
		{"pause", `{}`, 400, "want 1s to 24h"},
		{"resume", ``, 201, `{"for_ns":0}`},
		{"undetour", `{}`, 400, "want the id"},
		{"undetour", `{"id":"check"}`, 201, `{"id":"check"}`},
		{"detour", `{"id":"check","for":"1h","steps":[{"validate":{"schema":{"type":"object"}}},{"http":{"url":"http://127.0.0.1:9/","timeout":"3s"}}]}`, 201,
			`{"id":"check","owner":{"kind":"anonymous","id":"anonymous","name":"anonymous"},"for_ns":3600000000000,"steps":[{"validate":{"schema":{"type":"object"}}},{"http":{"url":"http://127.0.0.1:9/","timeout_ns":3000000000}}]}`},
		{"detour", `{"id":"check","for":"1h","steps":[]}`, 400, "0 steps"},
		{"detour", `{"id":"check","for":"1h","owner":{"name":"somebody else"},"steps":[{"hold":{}}]}`, 400, "owner"},
		{"explode", ``, 400, "want one of detour"},
	} {
		body := map[string]any{"kind": tc.kind, "broker": "rabbit-eu1", "channel": "orders.dead"}
		if tc.args != "" {
			body["args"] = json.RawMessage(tc.args)
		}
		before := len(bus.asked)
		w := c.call(t, h, request("POST", v1+"/previews", body))
		switch {
		case w.Code != tc.status:
			t.Errorf("%s %s: got %d %s, want %d", tc.kind, tc.args, w.Code, w.Body, tc.status)
		case w.Code == 201 && string(bus.asked[before].Args) != tc.sent:
			t.Errorf("%s %s: the agent gets %s, want %s", tc.kind, tc.args, bus.asked[before].Args, tc.sent)
		case w.Code >= 400 && (!strings.Contains(w.Body.String(), tc.sent) || len(bus.asked) != before):
			t.Errorf("%s %s: %s, want %q and no question to an agent", tc.kind, tc.args, w.Body, tc.sent)
		}
	}
	if w := c.call(t, h, request("POST", v1+"/previews", map[string]any{"kind": "test", "broker": "rabbit-eu1", "channel": "x", "args": map[string]any{"body": "x"}})); w.Code != 201 {
		t.Fatalf("got %d", w.Code)
	}
	if run := (controlbus.TestArgs{}); json.Unmarshal(bus.asked[len(bus.asked)-1].Args, &run) != nil || len(run.Run) != 16 {
		t.Errorf("a test message without a mark: %s", bus.asked[len(bus.asked)-1].Args)
	}
	if w := c.call(t, h, request("POST", v1+"/previews", map[string]any{"kind": "purge", "broker": "rabbit-eu1", "channel": "refuses"})); w.Code != 422 || !strings.Contains(w.Body.String(), "cannot be purged by filter") {
		t.Errorf("what the broker cannot do: got %d %s", w.Code, w.Body)
	}
}

func TestDecisionsReachTheLedger(t *testing.T) {
	t.Parallel()
	h, bus := newCommanding(t)
	c := loadContract(t, h)
	at := v1 + "/commands/" + string(runningID)
	for _, tc := range []struct {
		path string
		body map[string]any
		want int
		said string
	}{
		{"/approve", map[string]any{"fingerprint": "F"}, 200, "approve F"},
		{"/approve", map[string]any{}, 400, ""},
		{"/refuse", map[string]any{"reason": "no"}, 200, "refuse no"},
		{"/cancel", map[string]any{}, 200, "cancel "},
		{"/abandon", map[string]any{"reason": "gone"}, 200, "abandon gone"},
		{"/control", map[string]any{"rate": 0}, 200, "control rate 0"},
		{"/control", map[string]any{"paused": true}, 200, "control paused true"},
		{"/control", map[string]any{"rate": 5, "paused": false}, 200, "control rate 5 paused false"},
		{"/control", map[string]any{}, 400, ""},
		{"/control", map[string]any{"rat": 5}, 400, ""},
	} {
		before := len(bus.said)
		w := c.call(t, h, request("POST", at+tc.path, tc.body))
		if w.Code != tc.want {
			t.Errorf("%s %v: got %d %s, want %d", tc.path, tc.body, w.Code, w.Body, tc.want)
		}
		if tc.want == 200 && (len(bus.said) != before+1 || bus.said[before] != tc.said) || tc.want != 200 && len(bus.said) != before {
			t.Errorf("%s %v: the ledger heard %q, want %q", tc.path, tc.body, bus.said[before:], tc.said)
		}
	}
}

func TestACommandIsShownWithWhatIsKnown(t *testing.T) {
	t.Parallel()
	h, _ := newCommanding(t)
	c := loadContract(t, h)
	got := fetch(t, c, h, v1+"/commands/"+string(runningID), 200)
	p := got["progress"].(map[string]any)
	// 38 of 100 are left at 19 a second.
	if p["remaining_seconds"] != 2.0 || p["total"] != 100.0 || p["job"].(map[string]any)["refailed"] != 2.0 || got["control"].(map[string]any)["rate"] != 40.0 || got["undone_with"] != nil || got["result"] != nil || got["approved_by"] != nil {
		t.Errorf("running: %v", got)
	}
	if args := got["args"].(map[string]any)["job"].(map[string]any); args["settle"] != "3s" || args["settle_ns"] != nil {
		t.Errorf("arguments: %v", args)
	}
	got = fetch(t, c, h, v1+"/commands/"+string(purgeID), 200)
	if got["undone_with"] != "replay" || got["ended"] != true || got["progress"] != nil || got["result"].(map[string]any)["evidence"].(map[string]any)["before"] != 1250.0 || got["preview"] == nil {
		t.Errorf("ended: %v", got)
	}
	list := fetch(t, c, h, v1+"/commands?limit=1", 200)
	if first := list["commands"].([]any); len(first) != 1 || list["next"] != string(runningID) || first[0].(map[string]any)["preview"] != nil {
		t.Errorf("a page: %v", list)
	}
	rest := fetch(t, c, h, v1+"/commands?limit=1&cursor="+list["next"].(string), 200)
	if second := rest["commands"].([]any); len(second) != 1 || second[0].(map[string]any)["id"] != string(purgeID) {
		t.Errorf("the next page: %v", rest)
	}
	d := fetch(t, c, h, v1+"/detours", 200)["detours"].([]any)[0].(map[string]any)
	if d["backlog"] != 12.0 || d["parked"] != nil || d["steps"].([]any)[1].(map[string]any)["http"].(map[string]any)["timeout"] != "3s" {
		t.Errorf("detour: %v", d)
	}
	seen, cursor := 0, ""
	for range 5 {
		page := fetch(t, c, h, v1+"/commands/"+string(runningID)+"/outcomes?limit=2"+cursor, 200)
		seen += len(page["outcomes"].([]any))
		if page["next"] == nil {
			break
		}
		cursor = "&cursor=" + page["next"].(string)
	}
	if seen != 5 {
		t.Errorf("followed the pages to %d outcomes, want 5", seen)
	}
}

// TestAQuestionThatWaitsIsAnsweredByAChange has one reader wait while the
// command goes on.
func TestAQuestionThatWaitsIsAnsweredByAChange(t *testing.T) {
	t.Parallel()
	h, bus := newCommanding(t)
	c := loadContract(t, h)
	at := v1 + "/commands/" + string(runningID)
	ask := func(query string) (map[string]any, time.Duration) {
		begun := time.Now()
		w := c.call(t, h, request("GET", at+query, nil))
		return said(t, w, 200), time.Since(begun)
	}
	first, _ := ask("")
	known := first["version"].(string)
	if _, took := ask("?wait=100ms&version=" + known); took < 100*time.Millisecond {
		t.Errorf("answered after %v though nothing changed", took)
	}
	type answer struct {
		got  map[string]any
		took time.Duration
	}
	waiting := make(chan answer, 1)
	go func() {
		got, took := ask("?wait=50s&version=" + known)
		waiting <- answer{got, took}
	}()
	time.AfterFunc(50*time.Millisecond, func() {
		bus.change(purgeID, func(*controlbus.Command) {}) // another command's change is none
		bus.change(runningID, func(c *controlbus.Command) { c.Progress.Done = 80 })
	})
	a := <-waiting
	if a.took > 40*time.Second || a.got["progress"].(map[string]any)["done"] != 80.0 || a.got["version"] == known {
		t.Errorf("after %v: %v", a.took, a.got["progress"])
	}
	// Who knows less than is there needs not wait.
	if _, took := ask("?wait=50s&version=" + known); took > 40*time.Second {
		t.Errorf("waited %v for what was there", took)
	}
	bus.change(runningID, func(c *controlbus.Command) { c.State = controlbus.CommandSucceeded })
	if got, took := ask("?wait=50s"); took > 40*time.Second || got["ended"] != true {
		t.Errorf("waited %v for one that has ended", took)
	}
	// A console that ends answers what waits.
	bus.change(runningID, func(c *controlbus.Command) { c.State = controlbus.CommandRunning })
	time.AfterFunc(50*time.Millisecond, h.Close)
	if _, took := ask("?wait=50s"); took > 40*time.Second {
		t.Errorf("waited %v for a console that ends", took)
	}
}

// TestRolesAndCommands asks as people who may a part.
func TestRolesAndCommands(t *testing.T) {
	p := newPeople(t, access.DefaultPrivacy())
	p.add("part", access.Grant{Role: access.Viewer, Env: "production", Channel: "payments.*"})
	p.add("viewer", access.Grant{Role: access.Viewer})
	p.add("operator", access.Grant{Role: access.Operator})
	for _, tc := range []struct {
		as, path string
		want     int
		has      string
		hasNo    string
	}{
		{"part", "/commands", 200, `"commands":[]`, "orders.dead"},
		{"part", "/commands/" + string(purgeID), 404, "not-found", "orders.dead"},
		{"part", "/commands/" + string(purgeID) + "/events", 404, "not-found", "orders.dead"},
		{"part", "/detours", 200, "payments.capture", ""},
		{"viewer", "/commands", 200, "orders.dead", ""},
		{"viewer", "/audit", 403, "audit.read", ""},
		{"operator", "/audit", 403, "audit.read", ""},
		{"root", "/audit?limit=2", 200, `"code":"`, ""},
		{"", "/commands", 401, "unauthenticated", "orders.dead"},
		{"part", "/abilities?broker=rabbit-eu1", 400, "want the environment", "purge"},
		{"part", "/abilities?broker=rabbit-eu1&env=staging", 404, "not-found", "purge"},
		{"part", "/abilities?broker=rabbit-eu1&env=production", 200, "this broker cannot stop consumers", ""},
		{"viewer", "/abilities?broker=rabbit-eu1", 200, "purge", ""},
	} {
		w := p.ask(tc.as, "GET", v1+tc.path)
		if w.Code != tc.want || !strings.Contains(w.Body.String(), tc.has) || tc.hasNo != "" && strings.Contains(w.Body.String(), tc.hasNo) {
			t.Errorf("%s asks for %s: got %d %s, want %d with %q and without %q", tc.as, tc.path, w.Code, w.Body, tc.want, tc.has, tc.hasNo)
		}
	}
	for _, tc := range []struct {
		as, path string
		want     int
	}{
		{"viewer", "/previews", 403}, {"viewer", "/commands", 403}, {"viewer", "/commands/" + string(runningID) + "/cancel", 403},
		{"operator", "/previews", 201}, {"operator", "/commands/" + string(runningID) + "/cancel", 200},
		{"operator", "/commands/" + string(runningID) + "/approve", 403}, {"operator", "/commands/" + string(runningID) + "/abandon", 403},
		{"root", "/commands/" + string(runningID) + "/approve", 200},
	} {
		body := `{}`
		switch {
		case tc.path == "/previews":
			body = `{"kind":"purge","broker":"rabbit-eu1","channel":"orders.dead"}`
		case strings.HasSuffix(tc.path, "/approve"):
			body = `{"fingerprint":"F"}`
		}
		r := httptest.NewRequest("POST", v1+tc.path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.AddCookie(&http.Cookie{Name: "signalbox-session", Value: p.cookies[tc.as]})
		w := httptest.NewRecorder()
		p.ui.ServeHTTP(w, r)
		if w.Code != tc.want {
			t.Errorf("%s posts %s: got %d %s, want %d", tc.as, tc.path, w.Code, w.Body, tc.want)
		}
	}
	// The trail's pages hang together.
	var seqs []float64
	cursor := ""
	for range 50 {
		page := said(t, p.ask("root", "GET", v1+"/audit?limit=2"+cursor), 200)
		for _, e := range page["entries"].([]any) {
			seqs = append(seqs, e.(map[string]any)["seq"].(float64))
		}
		if page["next"] == nil {
			break
		}
		cursor = "&cursor=" + page["next"].(string)
	}
	for i := 1; i < len(seqs); i++ {
		if seqs[i] != seqs[i-1]-1 {
			t.Fatalf("entries %v: want each once, newest first", seqs)
		}
	}
	if len(seqs) < 5 || seqs[len(seqs)-1] != 1 {
		t.Errorf("entries %v: want all of them", seqs)
	}
}
