package ui_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui"
)

// newControl is an open console with a control bus.
func newControl(t testing.TB) (http.Handler, *fakeCommands) {
	t.Helper()
	s, r := filled(now)
	f := newCommands(now)
	u, err := ui.New(ui.Config{Guard: openGuard(t), Version: "test", Store: s, Roster: r, Commands: f, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u, f
}

// post sends a form as a browser does, without following.
func post(t testing.TB, h http.Handler, path string, f url.Values) (*httptest.ResponseRecorder, *html.Node) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(f.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	doc, err := html.Parse(strings.NewReader(w.Body.String()))
	if err != nil {
		t.Fatal(err)
	}
	return w, doc
}

// filledForm is what a browser would send of a page's form, with its fields as
// they stand.
func filledForm(t testing.TB, doc *html.Node, action string) url.Values {
	t.Helper()
	forms := all(doc, func(n *html.Node) bool { return tag("form")(n) && attr(n, "action") == action })
	if len(forms) == 0 {
		t.Fatalf("no form goes to %s: %s", action, mainText(doc))
	}
	f := url.Values{}
	for _, n := range all(forms[0], func(n *html.Node) bool { return tag("input")(n) || tag("textarea")(n) || tag("select")(n) }) {
		switch {
		case n.Data == "textarea":
			f.Add(attr(n, "name"), strings.TrimPrefix(raw(n), "\n"))
		case n.Data == "select":
			options := all(n, tag("option"))
			value := attr(options[0], "value")
			for _, o := range options {
				if has(o, "selected") {
					value = attr(o, "value")
				}
			}
			f.Add(attr(n, "name"), value)
		case attr(n, "type") == "checkbox" && !has(n, "checked"):
		default:
			f.Add(attr(n, "name"), attr(n, "value"))
		}
	}
	return f
}

func raw(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

// TestEveryKindIsPreviewedAsItsFormSays fills each form as it is offered, with
// some fields changed, and looks at what the service is asked for.
func TestEveryKindIsPreviewedAsItsFormSays(t *testing.T) {
	t.Parallel()
	schema := `{"type":"object"}`
	uid := strings.Repeat("ab", 16)
	for _, tt := range []struct {
		name, query string
		set         url.Values
		want        any // arguments; a JSON text is compared as such
		dest        *controlbus.ChannelName
	}{
		{"purge", "kind=purge", url.Values{"filter": {"attempts > 3"}, "backup": {"none"}}, controlbus.PurgeArgs{Filter: "attempts > 3", NoBackup: true}, nil},
		{"discard", "kind=discard", url.Values{"rate": {"1,000/s"}, "max": {"12"}}, controlbus.DiscardArgs{Job: controlbus.JobOptions{Rate: 1000, Max: 12}}, nil},
		{"redrive", "kind=redrive", url.Values{"to_channel": {"orders.second"}, "settle": {"30s"}, "force": {"1"}}, controlbus.RedriveArgs{Force: true, Job: controlbus.JobOptions{Rate: 50, Ramp: []int64{1, 10, 100}, Settle: 30 * time.Second, StopRatio: .05, StopMin: 20}},
			&controlbus.ChannelName{Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Name: "orders.second"}},
		{"replay", "kind=replay", url.Values{"since": {"2h"}, "filter": {"channel:orders.*"}, "rate": {""}, "ramp": {""}, "stop_ratio": {""}}, controlbus.ReplayArgs{Selection: &controlbus.Selection{Env: "production", Filter: "channel:orders.*", From: now.Add(-2 * time.Hour), To: now}}, nil},
		{"replay of one", "kind=replay&uid=" + uid + "&from_env=staging", url.Values{"rate": {""}, "ramp": {""}, "stop_ratio": {""}}, controlbus.ReplayArgs{Selection: &controlbus.Selection{Env: "staging", UIDs: []string{uid}}}, nil},
		{"test", "kind=test", url.Values{"headers": {"x-tenant: acme\r\nx-when: 10:30\r\n"}, "key": {"k"}, "separate": {"1"}, "run": {"r-1"}}, controlbus.TestArgs{Run: "r-1", ContentType: "application/json", Body: `{"test": true}`, Headers: map[string]string{"x-tenant": "acme", "x-when": "10:30"}, Key: "k", Separate: true}, nil},
		{"pause", "kind=pause", url.Values{"for": {"1h30m"}}, controlbus.PauseArgs{For: 90 * time.Minute}, nil},
		{"tap", "kind=tap", url.Values{"max_bytes": {"64kb"}}, controlbus.TapArgs{For: time.Hour, MaxBytes: 64000}, nil},
		{"undetour", "kind=undetour", url.Values{"id": {"orders-schema"}}, controlbus.UndetourArgs{ID: "orders-schema"}, nil},
		{"detour", "kind=detour&step=validate&step=headers&step=rate&step=copy&step=http&step=channel&step=hold",
			url.Values{"id": {"d1"}, "for": {"2d"}, "on_failure": {"bypass"}, "s0_schema": {schema}, "s1_set": {"a: b"}, "s1_remove": {"x, y"}, "s2_per_second": {"0.5"}, "s3_channel": {"copy"}, "s4_url": {"https://checks.example/a"}, "s4_replace": {"1"}, "s5_send": {"to"}, "s5_receive": {"back"}},
			controlbus.Detour{ID: "d1", Owner: controlbus.Actor{Kind: "anonymous", ID: "anonymous", Name: "anonymous"}, For: 48 * time.Hour, OnFailure: controlbus.DetourBypass, Steps: []controlbus.DetourStep{
				{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(schema)}}, {Headers: &controlbus.HeadersStep{Set: map[string]string{"a": "b"}, Remove: []string{"x", "y"}}}, {Rate: &controlbus.RateStep{PerSecond: .5}},
				{Copy: &controlbus.CopyStep{Channel: "copy"}}, {HTTP: &controlbus.HTTPStep{URL: "https://checks.example/a", Timeout: 5 * time.Second, Retries: 2, Replace: true}}, {Channel: &controlbus.ChannelStep{Send: "to", Receive: "back"}}, {Hold: &controlbus.HoldStep{}}}}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h, f := newControl(t)
			w, doc := get(t, h, "/control/new?env=production&broker=rabbit-eu1&channel=orders.dead&"+tt.query)
			if w.Code != 200 {
				t.Fatalf("form: %d %s", w.Code, mainText(doc))
			}
			form := filledForm(t, doc, "/control/preview")
			for name, v := range tt.set {
				form[name] = v
			}
			w, doc = post(t, h, "/control/preview", form)
			if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/control/drafts/draft-") {
				t.Fatalf("preview: %d %q %s", w.Code, w.Header().Get("Location"), mainText(doc))
			}
			if len(f.asked) != 1 {
				t.Fatalf("%d previews were asked for", len(f.asked))
			}
			q := f.asked[0]
			want, err := json.Marshal(tt.want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(q.Args)); diff != "" {
				t.Errorf("arguments (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.dest, q.Destination); diff != "" || q.Env != "production" || q.Broker != "rabbit-eu1" || q.Channel != "orders.dead" || q.AcceptWithin != 2*time.Minute || q.RunWithin != time.Hour {
				t.Errorf("got %+v, destination %s", q, diff)
			}
			// The dialog, and from it the same form again.
			w, doc = get(t, h, w.Header().Get("Location"))
			if w.Code != 200 || len(all(doc, tag("dialog"))) < 2 {
				t.Fatalf("dialog: %d %s", w.Code, mainText(doc))
			}
			for _, a := range all(doc, func(n *html.Node) bool { return tag("a")(n) && text(n) == "Change it" }) {
				w, doc := get(t, h, attr(a, "href"))
				if w.Code != 200 {
					t.Fatalf("change it: %d %s", w.Code, mainText(doc))
				}
				again := filledForm(t, doc, "/control/preview")
				if tt.name == "detour" {
					again.Set("id", "d1") // a new name is proposed: the old one may stand
				}
				if tt.name == "test" {
					again.Set("run", "r-1")
				}
				if w, doc := post(t, h, "/control/preview", again); w.Code != http.StatusSeeOther {
					t.Fatalf("preview again: %d %s", w.Code, mainText(doc))
				}
				if diff := cmp.Diff(string(want), string(f.asked[1].Args)); diff != "" {
					t.Errorf("asked again (-first +second):\n%s", diff)
				}
			}
		})
	}
}

func TestAFormSaysWhatItCannotRead(t *testing.T) {
	t.Parallel()
	h, f := newControl(t)
	base := url.Values{"env": {"production"}, "broker": {"rabbit-eu1"}, "channel": {"orders.dead"}}
	for _, tt := range []struct {
		kind string
		set  url.Values
		want string
	}{
		{"purge", url.Values{"channel": {""}}, "Type the channel's name."},
		{"purge", url.Values{"filter": {"attempts >"}}, "value"},
		{"redrive", url.Values{"rate": {"fast"}}, "Type messages per second"},
		{"redrive", url.Values{"ramp": {"1, x"}}, "Type whole numbers with commas between"},
		{"redrive", url.Values{"stop_ratio": {"400"}}, "Type a share such as 5 %"},
		{"pause", url.Values{"for": {"30h"}}, "Type a duration from 1s to 24 h"},
		{"pause", url.Values{"for": {"soon"}}, "Type a duration such as 30s"},
		{"test", url.Values{"headers": {"nonsense"}}, "Line 1: type a name, a colon and a value"},
		{"replay", url.Values{"since": {"yesterday"}}, "Type a time such as"},
		{"replay", url.Values{"uid": {"../../x"}}, "32 hexadecimal digits"},
		{"detour", url.Values{"id": {"d1"}, "for": {"1h"}}, "Add at least one step"},
		{"detour", url.Values{"id": {"d1"}, "for": {"1h"}, "step": {"validate"}, "s0_schema": {"{"}}, "This is not JSON"},
		{"detour", url.Values{"id": {"../d"}, "for": {"1h"}, "step": {"hold"}}, "want 1 to 48 letters"},
		{"detour", url.Values{"id": {"d1"}, "for": {"1h"}, "step": {"hold", "rate"}, "s1_per_second": {"1"}}, "othing comes after hold"},
		{"detour", url.Values{"id": {"d1"}, "for": {"1h"}, "step": {"http"}, "s0_url": {"file:///etc/passwd"}}, "Type an address such as https://"},
	} {
		form := url.Values{"kind": {tt.kind}}
		for _, more := range []url.Values{base, tt.set} {
			for k, v := range more {
				form[k] = v
			}
		}
		w, doc := post(t, h, "/control/preview", form)
		if got := mainText(doc); w.Code != 400 || !strings.Contains(got, tt.want) || !strings.Contains(got, "Nothing was asked for yet.") {
			t.Errorf("%s %v: got %d without %q:\n%s", tt.kind, tt.set, w.Code, tt.want, got)
		}
		for name, v := range tt.set { // what was typed is still there
			if back := filledForm(t, doc, "/control/preview"); !slices.Equal(back[name], v) && name != "uid" {
				t.Errorf("%s: %s is %q after the mistake, want %q", tt.kind, name, back[name], v)
			}
		}
	}
	if len(f.asked) != 0 {
		t.Errorf("previews were asked for: %v", f.asked)
	}
	f.err = fmt.Errorf("command: agent rabbit-eu1-a: %w: queue orders.dead does not exist", controlbus.ErrUnsupported)
	if w, doc := post(t, h, "/control/preview", url.Values{"kind": {"purge"}, "env": {"production"}, "broker": {"rabbit-eu1"}, "channel": {"orders.dead"}}); w.Code != 422 || !strings.Contains(mainText(doc), "queue orders.dead does not exist") {
		t.Errorf("a refused preview: got %d %s", w.Code, mainText(doc))
	}
}

// TestStepsAreEditedWithoutScript adds, moves and removes steps by buttons; what
// was typed stays with its step.
func TestStepsAreEditedWithoutScript(t *testing.T) {
	t.Parallel()
	h, _ := newControl(t)
	form := url.Values{"kind": {"detour"}, "env": {"production"}, "broker": {"b"}, "channel": {"c"}, "id": {"mine"}}
	press := func(do, add string) {
		t.Helper()
		form.Set("do", do)
		form.Set("add", add)
		w, doc := post(t, h, "/control/form", form)
		if w.Code != 200 {
			t.Fatalf("%s: %d %s", do, w.Code, mainText(doc))
		}
		form = filledForm(t, doc, "/control/preview")
	}
	press("add", "rate")
	form.Set("s0_per_second", "7")
	press("add", "copy")
	form.Set("s1_channel", "audit")
	press("add", "hold")
	press("add", "headers") // goes before hold
	if diff := cmp.Diff([]string{"rate", "copy", "headers", "hold"}, form["step"]); diff != "" {
		t.Fatal(diff)
	}
	press("up-1", "")
	if form.Get("s0_channel") != "audit" || form.Get("s1_per_second") != "7" || form.Get("id") != "mine" {
		t.Errorf("after moving: %v", form)
	}
	press("remove-0", "")
	if diff := cmp.Diff([]string{"rate", "headers", "hold"}, form["step"]); diff != "" || form.Get("s0_per_second") != "7" {
		t.Errorf("after removing: %v %s", form, diff)
	}
	for _, do := range []string{"remove-9", "up-x", "steal-0", ""} {
		form.Set("do", do)
		if w, _ := post(t, h, "/control/form", form); w.Code != 400 {
			t.Errorf("%q: got %d, want 400", do, w.Code)
		}
	}
}

func TestAnOrderIsWhatItsDialogShows(t *testing.T) {
	t.Parallel()
	h, f := newControl(t)
	at := controlPages(f)["command-draft"]
	_, doc := get(t, h, at)
	got := mainText(doc)
	for _, want := range []string{"Purge 1,204 messages from payments.capture.dlq", "production", "oldest 17 min 16 s", "1.2 messages a second", "can be undone in part", "put back at the end of the channel until 28 Nov",
		"Taken with acknowledgements", "configure", "Refused if more than 1,250 are there", "Samples, 10 of 1,204", "Keep them there", "Purge 1,204 messages from payments.capture.dlq in production", "good for 15 min", "GatewayTimeout"} {
		if !strings.Contains(got, want) {
			t.Errorf("the dialog lacks %q:\n%s", want, got)
		}
	}
	for _, tt := range []struct{ reason, typed, want string }{
		{"", "payments.capture.dlq", "Type why"},
		{"because", "payments.capture", "Type payments.capture.dlq, exactly."},
		{strings.Repeat("x", 1001), "payments.capture.dlq", "at most 1000"},
	} {
		w, doc := post(t, h, at+"/order", url.Values{"reason": {tt.reason}, "typed": {tt.typed}})
		if w.Code != 400 || !strings.Contains(mainText(doc), tt.want) {
			t.Errorf("%.20q %q: got %d without %q", tt.reason, tt.typed, w.Code, tt.want)
		}
	}
	if did := f.actions(); len(did) > 0 {
		t.Fatalf("something was done: %v", did)
	}
	f.err = fmt.Errorf("ledger: %w: command x acts on it; wait for its end", controlbus.ErrConflict)
	if w, doc := post(t, h, at+"/order", url.Values{"reason": {"because"}, "typed": {"payments.capture.dlq"}}); w.Code != 409 || !strings.Contains(mainText(doc), "wait for its end") {
		t.Errorf("a conflict: got %d %s", w.Code, mainText(doc))
	}
	f.err = nil
	w, _ := post(t, h, at+"/order", url.Values{"reason": {" because "}, "typed": {"payments.capture.dlq "}})
	if w.Code != 303 || !strings.HasPrefix(w.Header().Get("Location"), "/control/019aa8c4") {
		t.Fatalf("order: %d %q", w.Code, w.Header().Get("Location"))
	}
	if diff := cmp.Diff([]string{`order draft-1 "because" "payments.capture.dlq"`}, f.actions()); diff != "" {
		t.Error(diff)
	}
	if w, doc := get(t, h, w.Header().Get("Location")); w.Code != 200 || !strings.Contains(mainText(doc), "on its way") {
		t.Errorf("the command's page: %d %s", w.Code, mainText(doc))
	}
	if w, doc := get(t, h, at); w.Code != 404 || !strings.Contains(mainText(doc), "This preview is gone") {
		t.Errorf("the draft again: %d %s", w.Code, mainText(doc))
	}
	if w, _ := post(t, h, at+"/order", url.Values{"reason": {"because"}, "typed": {"payments.capture.dlq"}}); w.Code != 404 {
		t.Errorf("ordered twice: %d", w.Code)
	}
	f.mu.Lock()
	f.policy = controlbus.ApproveSecond
	f.mu.Unlock()
	w, _ = post(t, h, "/control/preview", url.Values{"kind": {"purge"}, "env": {"production"}, "broker": {"rabbit-eu1"}, "channel": {"orders.dead"}})
	at = w.Header().Get("Location")
	if _, doc = get(t, h, at); !strings.Contains(mainText(doc), "Ask for consent: purge 1,204 messages") {
		t.Errorf("two-person dialog: %s", mainText(doc))
	}
	if w, _ = post(t, h, at+"/order", url.Values{"reason": {"because"}}); !strings.HasSuffix(w.Header().Get("Location"), "told=held") {
		t.Errorf("two-person order: %d %q", w.Code, w.Header().Get("Location"))
	}
}

func TestDecisionsReachTheService(t *testing.T) {
	t.Parallel()
	h, f := newControl(t)
	p := controlPages(f)
	waiting := ""
	for _, c := range f.commands { // of somebody else
		if c.State == controlbus.CommandAwaitingApproval && c.RequestedBy.ID != "anonymous" {
			waiting = "/control/" + string(c.ID)
		}
	}
	_, doc := get(t, h, waiting)
	print := filledForm(t, doc, waiting+"/approve").Get("fingerprint")
	if len(print) != 32 {
		t.Fatalf("the page binds the approval to %q", print)
	}
	id := func(page string) string { return strings.TrimPrefix(p[page], "/control/") }
	for _, tt := range []struct {
		path string
		form url.Values
		code int
		want string // done; or on the page
	}{
		{waiting + "/refuse", url.Values{}, 400, "say why, for who asked"},
		{waiting + "/approve", url.Values{"fingerprint": {print}}, 303, "approve " + print + " " + strings.TrimPrefix(waiting, "/control/")},
		{p["command-running"] + "/control", url.Values{"rate": {"120/s"}}, 303, "control rate 120 " + id("command-running")},
		{p["command-running"] + "/control", url.Values{"rate": {"quick"}}, 400, "want messages per second"},
		{p["command-running"] + "/control", url.Values{"paused": {"1"}}, 303, "control paused true " + id("command-running")},
		{p["command-paused"] + "/control", url.Values{"paused": {"0"}}, 303, "control paused false " + id("command-paused")},
		{p["command-paused"] + "/control", url.Values{}, 400, "Want a rate, or paused"},
		{p["command-running"] + "/cancel", url.Values{"reason": {"enough"}}, 303, "cancel enough " + id("command-running")},
		{p["command-unconfirmed"] + "/abandon", url.Values{}, 400, "say why nobody waits"},
		{p["command-unconfirmed"] + "/abandon", url.Values{"reason": {"host is gone"}}, 303, "abandon host is gone " + id("command-unconfirmed")},
		{p["command-done"] + "/undo", url.Values{"rate": {"30"}}, 303, "undo " + id("command-done") + " at 30"},
		{"/control/nonsense/cancel", url.Values{}, 404, ""},
	} {
		w, doc := post(t, h, tt.path, tt.form)
		if w.Code != tt.code {
			t.Errorf("%s %v: got %d %s, want %d", tt.path, tt.form, w.Code, mainText(doc), tt.code)
		}
		if tt.code == 303 && !slices.Contains(f.actions(), tt.want) {
			t.Errorf("%s %v: %q is not among %q", tt.path, tt.form, tt.want, f.actions())
		}
		if tt.code == 400 && (!strings.Contains(mainText(doc), tt.want) || !strings.Contains(mainText(doc), "That was not done.")) {
			t.Errorf("%s %v: no %q on the page: %s", tt.path, tt.form, tt.want, mainText(doc))
		}
	}
	if n := len(f.actions()); n != 7 {
		t.Errorf("%d things were done: %q", n, f.actions())
	}
}

// TestTheLedgerFiltersAndPages asks for parts of the ledger by their addresses.
func TestTheLedgerFiltersAndPages(t *testing.T) {
	t.Parallel()
	h, f := newControl(t)
	names := func(path string) (out []string) {
		t.Helper()
		w, doc := get(t, h, path)
		if w.Code != 200 {
			t.Fatalf("%s: %d %s", path, w.Code, mainText(doc))
		}
		for _, row := range all(doc, func(n *html.Node) bool { return tag("tr")(n) && n.Parent.Data == "tbody" }) {
			out = append(out, text(all(row, tag("th"))[0]))
		}
		return out
	}
	if got := names("/control"); len(got) != 10 || slices.Contains(got, "Test message") {
		t.Errorf("without the console's own: %q", got)
	}
	for path, want := range map[string][]string{
		"/control?system=1&kind=test": {"Test message"}, "/control?show=unknown": {"Purge", "Discard"}, "/control?show=mine": {"Purge"}, "/control?state=partial": {"Redrive"},
		"/control?q=carts&state=succeeded": {"Purge"}, "/control?by=u-jonas": {"Purge", "Purge"}, "/control?broker=nats-eu1": nil, "/control?env=staging": nil, "/control?range=15m&kind=discard": nil,
	} {
		if diff := cmp.Diff(want, names(path)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	for _, path := range []string{"/control?kind=nuke", "/control?state=odd", "/control?before=x", "/control?show=all"} {
		if w, _ := get(t, h, path); w.Code != 400 {
			t.Errorf("%s: got %d, want 400", path, w.Code)
		}
	}
	template := f.commands[len(f.commands)-1]
	for i := range 120 {
		c := template
		c.ID, c.RequestedAt = cid(300-i), now.Add(-time.Duration(i)*time.Minute-5*time.Hour)
		c.Target.Channel.Name = "paged"
		f.commands = append(f.commands, c)
	}
	seen, path := 0, "/control?q=paged"
	for range 5 {
		seen += len(names(path))
		_, doc := get(t, h, path)
		path = ""
		for _, a := range all(doc, func(n *html.Node) bool { return tag("a")(n) && text(n) == "Older" }) {
			path = attr(a, "href")
		}
		if path == "" {
			break
		}
	}
	if seen != 120 || path != "" {
		t.Errorf("%d of 120 on all pages, then %q", seen, path)
	}
}

// TestProgressIsExact looks at the numbers of a running job.
func TestProgressIsExact(t *testing.T) {
	t.Parallel()
	h, f := newControl(t)
	_, doc := get(t, h, controlPages(f)["command-running"])
	bars := all(doc, tag("progress"))
	if len(bars) != 1 || attr(bars[0], "value") != "412" || attr(bars[0], "max") != "1204" || !strings.Contains(attr(bars[0], "aria-label"), "Redrive 1,204 messages") {
		t.Errorf("bars: %d, %v", len(bars), bars[0].Attr)
	}
	got := mainText(doc)
	for _, want := range []string{"412 of 1,204", "48.2/s", "about 16 s left", "8 failed, 3 left alone, 3 dead letters arrived since", "792 messages stay where they are; 401 are done and stay done", "Unroutable", "Next 50"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	if main := all(doc, tag("main"))[0]; attr(main, "data-refresh") == "" || attr(main, "data-seconds") != "2" {
		t.Errorf("the page does not refresh: %v", main.Attr)
	}
	// The second page of outcomes.
	if _, doc := get(t, h, controlPages(f)["command-running"]+"?after=100"); !strings.Contains(mainText(doc), "These are the last.") {
		t.Errorf("outcomes after 100: %s", mainText(doc))
	}
}
