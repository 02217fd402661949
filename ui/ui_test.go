package ui_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/html"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/live"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// get asks for a page and parses it.
func get(t testing.TB, h http.Handler, path string) (*httptest.ResponseRecorder, *html.Node) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	doc, err := html.Parse(strings.NewReader(w.Body.String()))
	if err != nil {
		t.Fatalf("parse %s: %v", path, err)
	}
	return w, doc
}

func all(n *html.Node, match func(*html.Node) bool) []*html.Node {
	var out []*html.Node
	for d := range n.Descendants() {
		if match(d) {
			out = append(out, d)
		}
	}
	return out
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == name })
}

func tag(name string) func(*html.Node) bool {
	return func(n *html.Node) bool { return n.Type == html.ElementNode && n.Data == name }
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func mainText(doc *html.Node) string {
	for _, n := range all(doc, tag("main")) {
		return text(n)
	}
	return ""
}

var noLive = live.SourceFunc(func(controlbus.LiveQuery, controlbus.LiveReader) (live.Subscription, error) { return newFakeTap(), nil })

// pages are all addresses with the filled fakes.
func pages(s *fakeStore) map[string]string {
	dead := s.messages[0]
	for _, m := range s.messages {
		if m.Outcome == controlbus.OutcomeDeadLettered && m.CorrelationID == s.messages[len(s.messages)-1].CorrelationID {
			dead = m
		}
	}
	for _, m := range s.messages {
		if m.Outcome == controlbus.OutcomeDeadLettered {
			dead = m
			break
		}
	}
	all := map[string]string{
		"overview": "/", "channels": "/channels", "messages": "/messages",
		"channel": "/channel?" + url.Values{"env": {"production"}, "broker": {"rabbit-eu1"}, "system": {"rabbitmq"}, "name": {"payments.capture"}}.Encode(),
		"message": "/messages/" + dead.UID.String(), "live": "/live", "agents": "/agents", "health": "/health", "settings": "/settings", "help": "/help", "invalid": "/invalid", "probes": "/probes", "probe": "/probes/p1", "probe-form": "/probes/p1/edit",
		"invalid-record": "/invalid/record?at=" + strconv.FormatInt(s.born.Add(-time.Minute).Truncate(time.Second).UnixNano(), 10),
		"search":         "/messages?q=" + url.QueryEscape("channel:payments.* GatewayTimeout"), "nothing": "/messages?q=nowhere-to-be-found",
		"wrong": "/messages?q=" + url.QueryEscape("chanel:orders"), "missing": "/no-such-page",
	}
	maps.Copy(all, controlPages(newCommands(now)))
	return all
}

func TestEveryPageIsWellFormedAndLabelled(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	for name, path := range pages(s) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, doc := get(t, u, path)
			if name != "missing" && w.Code != 200 {
				t.Fatalf("%s: got %d, want 200: %s", path, w.Code, mainText(doc))
			}
			if n := len(all(doc, tag("h1"))); n != 1 {
				t.Errorf("%d h1 elements, want 1", n)
			}
			ids := map[string]bool{}
			for _, n := range all(doc, func(n *html.Node) bool { return n.Type == html.ElementNode }) {
				if id := attr(n, "id"); id != "" {
					if ids[id] {
						t.Errorf("id %q is used twice", id)
					}
					ids[id] = true
				}
				for _, a := range n.Attr {
					if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
						t.Errorf("<%s> has an inline %s", n.Data, a.Key)
					}
					if a.Key == "href" && strings.HasPrefix(a.Val, "javascript") {
						t.Errorf("link to %q", a.Val)
					}
				}
				switch n.Data {
				case "script":
					if attr(n, "nonce") == "" || attr(n, "src") == "" || n.FirstChild != nil {
						t.Errorf("script without nonce and source")
					}
				case "style":
					t.Error("inline style element")
				case "button", "a", "summary":
					if text(n) == "" && attr(n, "aria-label") == "" {
						t.Errorf("<%s> without a name", n.Data)
					}
				case "input", "select":
					if attr(n, "type") != "hidden" && attr(n, "aria-label") == "" && attr(n, "id") == "" && !tag("label")(n.Parent) {
						t.Errorf("field %q without a label", attr(n, "name"))
					}
				}
			}
			csp := w.Header().Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"} {
				if !strings.Contains(csp, want) {
					t.Errorf("policy %q lacks %q", csp, want)
				}
			}
			if strings.Contains(csp, "unsafe") {
				t.Errorf("policy %q is weak", csp)
			}
		})
	}
}

func TestOverviewSaysTheSituation(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	_, doc := get(t, newUI(t, s, r, noLive), "/")
	got := mainText(doc)
	for _, want := range []string{
		"Nobody takes messages from payments.capture", "18,402 wait and it has no consumer; 22.1/s more arrive",
		"Agent nats-eu1-a is silent", "Not heard from for 9 min", "The tap on carts.abandoned does not run", "Exchange carts is gone. It is tried again.",
		"The tap on orders.placed has losses", "14 copies dropped by the agent",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("overview lacks %q in:\n%s", want, got)
		}
	}

	s, r = filled(now)
	s.invalid = 0
	s.channels = s.channels[5:7]
	r.agents = r.agents[:1]
	r.agents[0].Taps = r.agents[0].Taps[:1]
	_, doc = get(t, newUI(t, s, r, noLive), "/")
	if got := text(all(doc, tag("h1"))[0]); got != "Everything runs" {
		t.Errorf("title of a healthy company: got %q, want %q", got, "Everything runs")
	}
	_, doc = get(t, newUI(t, &fakeStore{}, &fakeRoster{}, noLive), "/")
	if got := mainText(doc); !strings.Contains(got, "Nothing has passed yet") || !strings.Contains(got, "signalbox-agent --config") {
		t.Errorf("first start does not say what to do:\n%s", got)
	}
}

// A collector that speaks OpAMP is shown with its health, and without what only
// a signalbox-agent has.
func TestACollectorIsShownWithItsHealth(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	r.agents = []controlbus.AgentView{{
		Agent: controlbus.Agent{ID: "col-eu", Kind: "otelcol-contrib", Version: "0.140", Host: "h1", Incarnation: "i", Health: &controlbus.Health{
			Status: "StatusRecoverableError", Error: "no disk", Components: []controlbus.ComponentHealth{
				{Path: "pipeline:logs", Error: "exporter refuses"}, {Path: "pipeline:logs/receiver:otlp", Healthy: true, Status: "StatusOK"}}}},
		Presence: controlbus.Online, LastSeen: now,
	}}
	_, doc := get(t, newUI(t, s, r, noLive), "/agents?env=")
	got := mainText(doc)
	for _, want := range []string{"col-eu", "otelcol-contrib", "0.140", "StatusRecoverableError", "It says that it is not healthy", "no disk", "pipeline:logs", "exporter refuses", "receiver:otlp", "StatusOK"} {
		if !strings.Contains(got, want) {
			t.Errorf("the page lacks %q in:\n%s", want, got)
		}
	}
	for _, no := range []string{"Disk buffer", "Brokers of", "Clock offset", "Taps:"} {
		if strings.Contains(got, no) {
			t.Errorf("the page of a collector has %q", no)
		}
	}
}

func TestOverviewTellsWhatChanged(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	rows := func(doc *html.Node, section string) (out []string) {
		for _, n := range all(doc, func(n *html.Node) bool { return attr(n, "aria-labelledby") == section }) {
			for _, tr := range all(n, tag("tr")) {
				var cells []string
				for _, c := range all(tr, func(n *html.Node) bool { return tag("td")(n) || tag("th")(n) && attr(n, "scope") == "row" }) {
					cells = append(cells, text(c))
				}
				if len(cells) > 0 {
					out = append(out, strings.Join(cells, "|"))
				}
			}
		}
		return out
	}
	_, doc := get(t, newUI(t, s, r, noLive), "/")
	want := []string{
		"More dead|payments.capture.dlq|100 times the dead letters|1,204|12",
		"Went|nats-eu1-a|agent, last heard from 21 Nov 14:11:59||",
		"Silent|carts.abandoned|nothing passed|0|2,210",
		"New|warehouse.berlin.pack|appeared|68,010|0",
		"Grew|notifications.email|4.7 times the messages|43,100|9,100",
		"Recovered|shipping.labels|no failures any more|0|812",
	}
	if diff := cmp.Diff(want, rows(doc, "changes")); diff != "" {
		t.Errorf("what changed (-want +got)\n%s", diff)
	}
	if got := mainText(doc); !strings.Contains(got, "against the same hour a day before") {
		t.Error("it does not say what it is compared with")
	}
	var marks []string
	for _, n := range all(doc, func(n *html.Node) bool { return attr(n, "data-label") != "" }) {
		marks = append(marks, attr(n, "data-label")+" "+attr(n, "data-at"))
	}
	if want := []string{fmt.Sprintf("agent nats-eu1-a silent %d", now.Add(-9*time.Minute).Unix())}; !cmp.Equal(marks, want) {
		t.Errorf("marks on the chart: got %q, want %q", marks, want)
	}
	want = []string{"payments.capture.dlq|1,204 failed on payments.capture.dlq|100|21 Nov 14:20:58", "orders.placed|312 failed on orders.placed|0.39|21 Nov 14:20:58"}
	if diff := cmp.Diff(want, rows(doc, "failing")); diff != "" {
		t.Errorf("failing most (-want +got)\n%s", diff)
	}
	s.before = s.channels
	r.agents = nil
	if _, doc = get(t, newUI(t, s, r, noLive), "/"); !strings.Contains(mainText(doc), "Nothing changed much") {
		t.Error("it does not say that nothing changed")
	}
	s.before = nil // no yesterday: the hour before is taken, which is as the present one here
	if _, doc = get(t, newUI(t, s, r, noLive), "/"); !strings.Contains(mainText(doc), "against the hour before") {
		t.Error("it does not fall back to the hour before")
	}
}

func TestAStoreThatIsDownIsNotAnErrorPage(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	s.err = fmt.Errorf("engine restarts: %w", controlbus.ErrUnavailable)
	u := newUI(t, s, r, noLive)
	for _, path := range []string{"/", "/channels", "/messages", "/live", "/health", "/invalid"} {
		w, doc := get(t, u, path)
		if got := mainText(doc); w.Code != 200 || !strings.Contains(got, "engine restarts") {
			t.Errorf("%s: got %d %q, want the page with the reason", path, w.Code, got)
		}
	}
	w, doc := get(t, u, "/messages/"+strings.Repeat("ab", 16))
	if got := mainText(doc); w.Code != http.StatusServiceUnavailable || !strings.Contains(got, "Reference") {
		t.Errorf("message: got %d %q, want 503 with a reference", w.Code, got)
	}
}

func TestErrorsBecomePagesWithTheRightStatus(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	for path, want := range map[string]int{
		"/nothing": 404, "/messages/" + strings.Repeat("00", 16): 404, "/messages/xyz": 400, "/?range=forever": 400,
		"/messages?from=yesterday": 400, "/channel": 400, "/messages?q=" + strings.Repeat("x", 2001): 413, "/messages?cursor=zzz": 400,
	} {
		if w, _ := get(t, u, path); w.Code != want {
			t.Errorf("%s: got %d, want %d", path, w.Code, want)
		}
	}
}

// The corpus of what a message producer may send.
var hostile = []string{
	`<script>window.pwned=1</script>`, `"><img src=x onerror="window.pwned=1">`, `'><svg onload=window.pwned=1>`, `</script><script>window.pwned=1</script>`,
	`javascript:window.pwned=1`, `{{constructor.constructor('window.pwned=1')()}}`, `<a href="javascript:window.pwned=1" autofocus onfocus=window.pwned=1>x</a>`,
	"invoice\u202Egpj.exe", "zero\u200Bwidth", "null\x00byte\x1b[31m", "bad\xff\xfeutf8", `<div hx-get="/agents" hx-trigger="load" hx-on:htmx:load="window.pwned=1">`, `]]><!--`, `<base href="https://evil.example/">`,
}

func hostileStore() (*fakeStore, *fakeRoster) {
	s, r := filled(now)
	s.messages, s.channels = nil, nil
	for i, h := range hostile {
		m := event(now.Add(-time.Duration(i)*time.Second), "rabbitmq", h, h, controlbus.OpTap, controlbus.OutcomeFailed, i)
		m.Service, m.MessageID, m.ErrorType, m.ReplyTo, m.RoutingKey, m.ConsumerGroup, m.ContentType, m.DeadLetterReason = h, h, h, h, h, h, h, h
		m.Body = []byte(`{"` + h + `": 1} ` + h)
		m.BodySize = int64(len(m.Body))
		m.Headers = []controlbus.Header{{Key: h, Value: h}}
		m.UID = controlbus.HashID("hostile", h)
		m.Correlation = controlbus.CorrelationKey("hostile")
		s.messages = append(s.messages, m)
		s.channels = append(s.channels, storage.ChannelState{ChannelName: controlbus.ChannelName{Env: "production", System: h, Broker: h, Name: h}, Kind: h, SeenAt: now, Ready: 3, Tapped: 4, Failed: 4, LastMessage: now})
	}
	return s, r
}

func TestHostileTextStaysText(t *testing.T) {
	t.Parallel()
	s, r := hostileStore()
	u := newUI(t, s, r, noLive)
	clean, _ := filled(now)
	_, plain := get(t, newUI(t, clean, r, noLive), "/messages")
	scripts := len(all(plain, tag("script")))
	paths := []string{"/", "/channels", "/messages", "/live", "/agents", "/health", "/invalid"}
	for _, m := range s.messages {
		paths = append(paths, "/messages/"+m.UID.String(), "/messages/"+m.UID.String()+"?as=text", "/messages/"+m.UID.String()+"?as=hex", "/messages/"+m.UID.String()+"?as=xml",
			"/channel?"+url.Values{"env": {"production"}, "broker": {m.Broker}, "name": {m.Destination}}.Encode(), "/messages?q="+url.QueryEscape(m.Destination), "/messages?env="+url.QueryEscape(m.Destination))
	}
	for _, path := range paths {
		w, doc := get(t, u, path)
		if w.Code >= 500 {
			t.Errorf("%s: %d", path, w.Code)
		}
		if n := len(all(doc, tag("script"))); n != scripts {
			t.Errorf("%s: %d script elements, want %d", path, n, scripts)
		}
		for _, bad := range []string{"img", "base", "iframe", "object", "style"} {
			if n := len(all(doc, tag(bad))); n > 0 {
				t.Errorf("%s: producer made a <%s>", path, bad)
			}
		}
		for _, n := range all(doc, func(n *html.Node) bool { return n.Type == html.ElementNode }) {
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || strings.HasPrefix(a.Key, "hx-on") || a.Key == "href" && strings.HasPrefix(strings.TrimSpace(a.Val), "javascript") {
					t.Errorf("%s: producer made %s=%q", path, a.Key, a.Val)
				}
			}
		}
		body := mainText(doc)
		if strings.ContainsAny(body, "\u202e\u200b\x00\x1b") {
			t.Errorf("%s: control or bidirectional characters are not made visible", path)
		}
	}
}

func TestTapFormAsksTheRosterOnceAndRedirects(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	form := url.Values{"env": {"production"}, "system": {"rabbitmq"}, "broker": {"rabbit-eu1"}, "name": {"notifications.email"}, "reason": {"mail is late"}, "lease": {"1h"}}
	post := func(f url.Values, site string) *httptest.ResponseRecorder {
		req := httptest.NewRequest("POST", "/channel/tap", strings.NewReader(f.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		u.ServeHTTP(w, req)
		return w
	}
	if w := post(form, "cross-site"); w.Code != http.StatusForbidden || len(r.asked) != 0 {
		t.Fatalf("form of another site: got %d and %d taps, want 403 and none", w.Code, len(r.asked))
	}
	w := post(form, "same-origin")
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/channel?") {
		t.Fatalf("got %d to %q, want a redirect to the channel", w.Code, w.Header().Get("Location"))
	}
	if len(r.asked) != 1 || r.asked[0].Channel != "notifications.email" || r.asked[0].Owner != "anonymous" || r.asked[0].Reason != "mail is late" || !r.asked[0].Until.Equal(now.Add(time.Hour)) {
		t.Errorf("asked for %+v", r.asked)
	}
	for field, bad := range map[string]string{"reason": "", "lease": "99y", "broker": "nats-eu1"} {
		f := url.Values{}
		for k, v := range form {
			f[k] = v
		}
		f.Set(field, bad)
		if w := post(f, "same-origin"); w.Code < 400 || len(r.asked) != 1 {
			t.Errorf("%s=%q: got %d and %d taps, want a refusal", field, bad, w.Code, len(r.asked))
		}
	}
}

func TestSearchPagesAndSaysWhatItScanned(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	_, doc := get(t, u, "/messages")
	if got := mainText(doc); !strings.Contains(got, "Page full") || !strings.Contains(got, "not looked at yet") {
		t.Errorf("scan line missing: %s", got)
	}
	next := ""
	for _, n := range all(doc, tag("a")) {
		if strings.Contains(text(n), "Continue") {
			next = attr(n, "href")
		}
	}
	_, doc2 := get(t, u, next)
	rows := func(d *html.Node) int {
		return len(all(d, func(n *html.Node) bool { return tag("a")(n) && has(n, "data-open") }))
	}
	if rows(doc) != 100 || rows(doc2) != len(s.messages)-100 {
		t.Errorf("pages of %d and %d rows, want 100 and %d", rows(doc), rows(doc2), len(s.messages)-100)
	}
	s.stopped = storage.StopDeadline
	_, doc = get(t, u, "/messages?q=timeout")
	if got := mainText(doc); !strings.Contains(got, "Partly scanned") || !strings.Contains(got, "Stopped at the time budget") {
		t.Errorf("a search out of time does not say so: %s", got)
	}
}

func TestMessageKeepsNumbersAndKeyOrder(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	_, doc := get(t, u, pages(s)["message"])
	got := mainText(doc)
	for _, want := range []string{"9007199254740993127", "masked at the agent", "Dead-lettered to payments.capture.dlq", "Attempt 1 failed on payments.capture", "Not observed", "POST /checkout", "clock corrected by −38 ms", "delivery_limit"} {
		if !strings.Contains(got, want) {
			t.Errorf("message page lacks %q in:\n%s", want, got)
		}
	}
	if strings.Index(got, `"orderId"`) > strings.Index(got, `"paymentId"`) {
		t.Error("order of keys was changed")
	}
	w, _ := get(t, u, pages(s)["message"]+"/body")
	if b, _ := io.ReadAll(w.Body); !strings.HasPrefix(string(b), `{"orderId":"ORD-`) || w.Header().Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment") {
		t.Errorf("body download: %q %v", b, w.Header())
	}
}

func TestNavigationShowsOnlyWhatExists(t *testing.T) {
	t.Parallel()
	s, _ := filled(now)
	_, doc := get(t, newUI(t, s, nil, nil), "/")
	for _, n := range all(doc, tag("a")) {
		if h := attr(n, "href"); strings.HasPrefix(h, "/live") || strings.HasPrefix(h, "/agents") {
			t.Errorf("link to %s, which does not exist here", h)
		}
	}
}

func TestPreferencesStayInTheConsole(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, nil)
	for back, want := range map[string]string{"/channels?range=6h": "/channels?range=6h", "//evil.example/": "/", "https://evil.example/": "/", `/\evil.example`: "/", "javascript:1": "/"} {
		req := httptest.NewRequest("POST", "/preferences", strings.NewReader(url.Values{"theme": {"dark"}, "back": {back}}.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		u.ServeHTTP(w, req)
		if got := w.Header().Get("Location"); got != want {
			t.Errorf("back %q: redirected to %q, want %q", back, got, want)
		}
	}
	req := httptest.NewRequest("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "signalbox-theme", Value: "dark"})
	w := httptest.NewRecorder()
	u.ServeHTTP(w, req)
	if !strings.Contains(w.Body.String(), `data-theme="dark"`) {
		t.Error("the server does not render the theme of the cookie")
	}
}

func BenchmarkPages(b *testing.B) {
	s, r := filled(now)
	u := newUI(b, s, r, noLive)
	for _, name := range []string{"overview", "channels", "channel", "messages", "message"} {
		path := pages(s)[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				u.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if w.Code != 200 {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
