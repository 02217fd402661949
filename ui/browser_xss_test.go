package ui_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"golang.org/x/net/html"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/ui"
	"github.com/signalbox-dev/signalbox/ui/live"
	"github.com/signalbox-dev/signalbox/ui/page/health"
	"github.com/signalbox-dev/signalbox/ui/page/overview"
	"github.com/signalbox-dev/signalbox/ui/page/settings"
	"github.com/signalbox-dev/signalbox/ui/xsstest"
)

// attackedStore holds every payload in every field that others choose.
type attackedStore struct {
	*fakeStore
	payloads []string
}

func (s attackedStore) Invalid(_ context.Context, within storage.TimeRange, limit int) ([]storage.Invalid, error) {
	var out []storage.Invalid
	for i, p := range s.payloads {
		if len(out) < limit {
			out = append(out, storage.Invalid{Time: within.To.Add(-time.Duration(i+1) * time.Second).UnixNano(), Sender: p, Signal: p, Reason: p, Data: []byte(strings.Join(s.payloads, "\n")), Size: int64(len(p))})
		}
	}
	return out, nil
}

// attackedSelf is a console whose own troubles quote payloads.
type attackedSelf struct {
	fakeSelf
	payloads []string
}

func (s attackedSelf) Troubles() []overview.Trouble {
	var out []overview.Trouble
	for _, p := range s.payloads {
		out = append(out, overview.Trouble{Title: p, Detail: p})
	}
	return out
}

func (s attackedSelf) Snapshot(ctx context.Context) health.Snapshot {
	snap := fakeSelf{sick: true}.Snapshot(ctx)
	all := strings.Join(s.payloads, " ")
	snap.WriteError, snap.Engine.LastError, snap.QueueDir, snap.Server = all, all, all, all
	for _, p := range s.payloads {
		snap.Shed = append(snap.Shed, health.Shed{What: p, Reason: p, N: 1})
	}
	return snap
}

// attacked is a console full of payloads.
func attacked(t *testing.T, at time.Time) (attackedStore, *fakeRoster, attackedSelf) {
	t.Helper()
	payloads := xsstest.Payloads()
	s, r := filled(at)
	s.now = time.Now
	s.envs = append([]string{"production"}, payloads...)
	s.messages, s.channels, s.spans, s.logs, s.invalid = nil, nil, nil, nil, uint64(len(payloads))
	trace := [16]byte{0xaa}
	keys := map[string]string{}
	for i, p := range payloads {
		keys[strings.ToValidUTF8(p, "\ufffd")] = strings.ToValidUTF8(p, "\ufffd")
		m := event(at.Add(-time.Duration(i)*100*time.Millisecond), "rabbitmq", p, p, controlbus.OpTap, controlbus.OutcomeFailed, i)
		m.Service, m.MessageID, m.CorrelationID, m.CausationID, m.ErrorType, m.ReplyTo, m.RoutingKey, m.ConsumerGroup = p, p, p, p, p, p, p, p
		m.Partition, m.ContentType, m.ContentEncoding, m.DeadLetterSource, m.DeadLetterReason, m.Tap, m.BodySHA256, m.System = p, p, p, p, p, p, p, p
		m.Redacted, m.Body, m.Headers = []string{p}, []byte(p), []controlbus.Header{{Key: p, Value: p}}
		m.BodySize, m.UID, m.TraceID = int64(len(p)), controlbus.HashID("attack", p), trace
		m.Correlation = controlbus.CorrelationKey("attack")
		s.messages = append(s.messages, m)
		s.channels = append(s.channels, storage.ChannelState{ChannelName: controlbus.ChannelName{Env: "production", System: p, Broker: p, Name: p}, Kind: p, SeenAt: at, Ready: 3, Tapped: 4, Failed: 4, LastMessage: at})
		s.spans = append(s.spans, storage.Span{Time: m.Time, DurationNs: 1e6, TraceID: trace, Service: p, Name: p, Env: "production", Destination: p})
		s.logs = append(s.logs, storage.Log{Time: m.Time, TraceID: trace, Severity: 17, Service: p, Body: p, Env: "production", Destination: p})
	}
	// The first ones have all payloads in one body, once for each decoder.
	asJSON, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(payloads, "\n")
	for i, body := range []string{string(asJSON), "<root><a>" + all + "</a></root>", all, "\x93\xa3" + all} {
		m := &s.messages[i]
		m.Body, m.BodySize, m.ContentType = []byte(body), int64(len(body)), []string{"application/json", "application/xml", "text/html", "application/msgpack"}[i]
		for _, p := range payloads {
			m.Headers = append(m.Headers, controlbus.Header{Key: p, Value: p})
		}
	}
	roster := &fakeRoster{}
	for i, p := range payloads {
		if i%8 != 0 { // enough of them on one page
			continue
		}
		a := r.agents[0]
		a.ID, a.Version, a.Host, a.Env, a.Rival = p, p, p, "production", p
		a.Brokers = []controlbus.BrokerStatus{{Name: p, System: p, Product: p, Error: p, Capabilities: []string{"observe", "tap", p}}}
		a.Taps = nil
		for _, q := range payloads[i:min(i+8, len(payloads))] {
			a.Taps = append(a.Taps, controlbus.TapStatus{Spec: controlbus.TapSpec{ID: q, Broker: q, Channel: q, Origin: q, Owner: q, Reason: q}, Channel: q, State: controlbus.TapBroken, Technique: q, Error: q})
		}
		a.Spool.Error = p
		roster.agents = append(roster.agents, a)
	}
	return attackedStore{s, payloads}, roster, attackedSelf{payloads: payloads}
}

// attackPeople makes users, tokens and an audit trail of payloads, and returns a
// user's id. Providers of sign-ins choose users' names, browsers their own.
func attackPeople(t *testing.T, p *people, payloads []string) (user string) {
	t.Helper()
	tokens := 0
	for i, text := range payloads {
		ctx := access.WithClient(t.Context(), access.Client{Address: fmt.Sprintf("192.0.2.%d", i%250), UserAgent: text})
		if _, err := p.svc.LoginExternal(ctx, access.External{Issuer: "https://id.example/" + text, Subject: text, Name: text, Grants: []access.Grant{{Role: access.Viewer, Env: text, Channel: text}}}, ""); err != nil && !errors.Is(err, controlbus.ErrConflict) { // names differ in more than case
			t.Fatalf("user %q: %v", text, err)
		}
		if _, _, err := p.svc.CreateToken(ctx, p.root, access.NewToken{Name: text, Grants: []access.Grant{{Role: access.Reader, Env: text, Channel: text}}}); err == nil {
			tokens++
		}
		if _, _, err := p.svc.CreateEnrolment(ctx, p.root, access.NewEnrolment{Name: text, Env: text}); err == nil {
			tokens++
		}
		if i%2 == 0 {
			continue // enough of them
		}
		if err := p.svc.Record(ctx, access.Event{Actor: access.Actor{Kind: access.KindUser, ID: text, Name: text}, Code: access.EventBodyRead, Target: text, Env: text, Channel: text, Detail: text, Address: text}); err != nil {
			t.Fatal(err)
		}
	}
	if tokens < 100 {
		t.Errorf("only %d tokens have payloads for names", tokens)
	}
	users, err := p.svc.Users(t.Context())
	if err != nil || len(users) < len(payloads)*8/10 {
		t.Fatalf("%d users, %v", len(users), err)
	}
	for _, u := range users {
		if strings.Contains(u.Name, "<script>") {
			return u.ID
		}
	}
	t.Fatal("no user's name is a payload")
	return ""
}

// strange lists what no page of ours has, whatever is in the store: elements,
// handlers and addresses that only a payload can have made.
const strange = `(() => {
  const never = ["img", "image", "iframe", "frame", "object", "embed", "base", "style", "math", "video", "audio", "source", "track", "marquee", "applet", "portal", "plaintext", "xmp", "foreignobject", "animate", "set", "xss", "isindex"];
  const out = [];
  for (const el of document.querySelectorAll(never.join(","))) if (!el.closest(".uplot")) out.push("element " + el.outerHTML.slice(0, 120));
  for (const el of document.querySelectorAll("*")) for (const a of el.attributes) {
    if (/^(on|hx-on|data-hx-on|v-|x-|ng-)/.test(a.name)) out.push("handler " + el.outerHTML.slice(0, 120));
    if (/^(href|src|action|formaction|xlink:href|data|ping|srcset|srcdoc)$/.test(a.name) && !/^(\/(?![\/\\])|#|\?|$)/.test(a.value)) out.push("address " + a.name + "=" + a.value.slice(0, 120));
  }
  for (const el of document.querySelectorAll("script")) if (!el.src.startsWith(location.origin + "/assets/")) out.push("script " + el.outerHTML.slice(0, 120));
  if (document.cookie.includes("pwned")) out.push("cookie " + document.cookie);
  return out;
})()`

// TestBrowserAttacked opens every page of a console whose every text is a
// payload: nothing runs, nothing is loaded, no page gets an element or an address
// of a payload's, and the policy has nothing to stop.
func TestBrowserAttacked(t *testing.T) {
	t.Parallel()
	s, r, self := attacked(t, time.Now().Add(-time.Second))
	var f liveFrame
	for i := range s.messages {
		f.Events = append(f.Events, &s.messages[i].MessageEvent)
	}
	f.Matched = int64(len(f.Events))
	p := newPeople(t, access.DefaultPrivacy())
	victim := attackPeople(t, p, s.payloads)
	bus := attackedCommands(time.Now(), s.payloads)
	u, err := ui.New(ui.Config{Version: "test", Store: s, Roster: r, Commands: bus, Probes: newFakeProber(s.payloads...), Self: self, Guard: p.guard, Verifier: &fakeVerifier{}, Effective: func() settings.Effective {
		e := fakeEffective()
		for _, text := range s.payloads {
			e.Settings = append(e.Settings, settings.Setting{Key: text, Value: text, Default: text, Changed: true})
		}
		return e
	}, Live: live.SourceFunc(func(controlbus.LiveQuery, controlbus.LiveReader) (live.Subscription, error) {
		one := newFakeTap()
		one.frames <- f
		return one, nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	if !u.AssetsBuilt() {
		browser.Missing(t, "browser assets (make generate)")
	}
	srv := httptest.NewServer(u)
	t.Cleanup(func() { u.Close(); srv.CloseClientConnections(); srv.Close() })

	one := func(i int, query string) string { return "/messages/" + s.messages[i].UID.String() + query }
	channel := func(i int) string {
		p := s.payloads[i]
		return "/channel?" + url.Values{"env": {"production"}, "broker": {p}, "system": {p}, "name": {p}}.Encode()
	}
	inv, err := s.Invalid(t.Context(), storage.Last(time.Hour, time.Now()), 1)
	if err != nil || len(inv) != 1 {
		t.Fatal(err)
	}
	// Every page, by its route. A page that is added is to be added here, with
	// what it shows of others' texts in attacked.
	routes := map[string][]string{
		"GET /{$}":            {"/", "/?env="},
		"GET /channels":       {"/channels", "/channels?env="},
		"GET /channel":        {channel(0), channel(60), channel(130), channel(len(s.payloads) - 1)},
		"GET /messages":       {"/messages", "/messages?cursor=after-100", "/messages?q=" + url.QueryEscape(`"><img src=x onerror=window.pwned=1>`)},
		"GET /messages/{uid}": {one(0, ""), one(1, ""), one(2, ""), one(3, ""), one(2, "?as=hex"), one(0, "?as=text"), one(9, "")},
		"GET /live":           {"/live?env=production", "/live?" + url.Values{"channel": s.payloads[:40], "q": {`<script>window.pwned=1</script>`}}.Encode()},
		"GET /agents":         {"/agents", "/agents?env="},
		"GET /invalid":        {"/invalid"},

		"GET /probes":              {"/probes"},
		"GET /probes/new":          {"/probes/new"},
		"GET /probes/{probe}":      {"/probes/p1", "/probes/p20"},
		"GET /probes/{probe}/edit": {"/probes/p2/edit"},
		"GET /invalid/record":      {"/invalid"}, // followed below
		"GET /health":              {"/health"},

		"GET /help":                  {"/help"},
		"GET /login":                 {"/login?" + url.Values{"next": {`//evil.example/"><script>window.pwned=1</script>`}}.Encode()},
		"GET /setup":                 {"/setup?link=" + url.QueryEscape(s.payloads[0])},
		"GET /password":              {"/password?link=" + url.QueryEscape(s.payloads[0])},
		"GET /settings":              {"/settings"},
		"GET /settings/account":      {"/settings/account"},
		"GET /settings/users":        {"/settings/users"},
		"GET /settings/users/{user}": {"/settings/users/" + victim},
		"GET /settings/tokens":       {"/settings/tokens", "/settings/tokens?all=1"},
		"GET /settings/agents":       {"/settings/agents"},
		"GET /settings/audit":        {"/settings/audit"}, // leads to the next
		"GET /audit":                 {"/audit", "/audit?" + url.Values{"who": {s.payloads[0]}, "code": {s.payloads[1]}}.Encode()},
		"/":                          {"/" + url.PathEscape(s.payloads[3]), "/nothing?env=" + url.QueryEscape(s.payloads[0])},
	}
	maps.Copy(routes, attackedControl(bus, s.payloads))
	files := []string{"GET /audit/export", "GET /messages/{uid}/body", "GET /messages/histogram", "GET /messages/complete", "GET /invalid/data", "GET /assets/", "GET " + live.Path} // no pages
	for _, route := range u.Routes() {
		if (strings.HasPrefix(route.Pattern, "GET ") || route.Pattern == "/") && !strings.HasPrefix(route.Pattern, "GET /api/") && !slices.Contains(files, route.Pattern) && routes[route.Pattern] == nil {
			t.Errorf("%s is not looked at: add its addresses here", route.Pattern)
		}
	}

	ctx, said := browser.TabFor(t, browser.Chrome(t), 2*time.Minute)
	dialogs := 0
	var mu sync.Mutex
	if err := chromedp.Listen(ctx, func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := ev.(*page.EventJavascriptDialogOpening); ok {
			dialogs++
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/login"), browser.JS(`document.cookie = "signalbox-session=`+p.cookies["root"]+`; path=/"`)); err != nil {
		t.Fatal(err)
	}
	look := func(at string) {
		t.Helper()
		before := len(said())
		var found []string
		var pwned, shown bool
		acts := []browser.Action{chromedp.Navigate(srv.URL + at), browser.Until(`document.readyState === "complete"`)}
		if at == "/live?env=production" {
			acts = append(acts, browser.Until(fmt.Sprintf(`document.querySelectorAll(".taprow").length === %d`, len(s.payloads))))
		}
		acts = append(acts, browser.Value(strange, &found), browser.Value(`"pwned" in window`, &pwned), browser.Value(`document.body.textContent.includes("pwned")`, &shown))
		if err := chromedp.Do(ctx, acts...); err != nil {
			t.Fatalf("%.100s: %v; the browser said %q", at, err, said())
		}
		if pwned {
			t.Errorf("%.100s: a payload ran", at)
		}
		if path, _, _ := strings.Cut(at, "?"); !shown && !slices.Contains([]string{"/help", "/login", "/setup", "/password", "/settings/account", "/nothing"}, path) {
			t.Errorf("%.100s: no payload is on the page", at)
		}
		if len(found) > 0 {
			t.Errorf("%.100s: %d strange things, first %q", at, len(found), found[0])
		}
		for _, line := range said()[before:] {
			if !strings.Contains(line, "status of 40") { // an address that is meant not to be there
				t.Errorf("%.100s: the browser complains: %s", at, line)
			}
		}
	}
	started := time.Now()
	for _, route := range slices.Sorted(maps.Keys(routes)) {
		for _, at := range routes[route] {
			look(at)
		}
	}
	var record string
	if err := chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/invalid"), browser.Until(`document.readyState === "complete"`),
		browser.Value(`new URL(document.querySelector('a[href^="/invalid/record"]').href).pathname + new URL(document.querySelector('a[href^="/invalid/record"]').href).search`, &record)); err != nil {
		t.Fatal(err)
	}
	look(record)
	look(record + "&as=text")
	mu.Lock()
	defer mu.Unlock()
	if dialogs > 0 {
		t.Errorf("%d dialogs were opened", dialogs)
	}
	t.Logf("%d payloads in every field, all pages in %v", len(s.payloads), time.Since(started).Round(time.Millisecond))
}

// TestReflectedPayloadsStayText sends every payload in every parameter that pages
// read, and parses what comes back.
func TestReflectedPayloadsStayText(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	count := func(n *html.Node) int { return len(all(n, tag("script"))) }
	_, plain := get(t, u, "/messages")
	scripts := count(plain)
	for _, p := range xsstest.Payloads() {
		e := url.QueryEscape(p)
		for _, at := range []string{"/messages?q=" + e, "/messages?env=" + e, "/messages?cursor=" + e, "/live?q=" + e + "&channel=" + e, "/live?range=" + e + "&from=" + e, "/channel?name=" + e + "&broker=" + e + "&env=" + e, "/" + url.PathEscape(p)} {
			req := httptest.NewRequest(http.MethodGet, "/", nil)
			req.URL, _ = url.Parse(at)
			if req.URL == nil {
				continue
			}
			w := httptest.NewRecorder()
			u.ServeHTTP(w, req)
			if w.Code >= 500 {
				t.Errorf("%.80s: %d", at, w.Code)
			}
			doc, err := html.Parse(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			if w.Code/100 == 3 {
				continue
			}
			if n := count(doc); n != scripts {
				t.Errorf("%.80s: %d scripts, want %d", at, n, scripts)
			}
			for _, n := range all(doc, func(n *html.Node) bool { return n.Type == html.ElementNode }) {
				for _, a := range n.Attr {
					if strings.HasPrefix(a.Key, "on") || strings.HasPrefix(a.Key, "hx-on") ||
						(a.Key == "href" || a.Key == "src" || a.Key == "action") && a.Val != "" && (!strings.HasPrefix(a.Val, "/") || strings.HasPrefix(a.Val, "//") || strings.HasPrefix(a.Val, `/\`)) && !strings.HasPrefix(a.Val, "#") && !strings.HasPrefix(a.Val, "?") {
						t.Errorf("%.80s: <%s %s=%q>", at, n.Data, a.Key, a.Val)
					}
				}
				if slices.Contains([]string{"img", "iframe", "object", "embed", "base", "style", "math", "video", "audio"}, n.Data) {
					t.Errorf("%.80s: <%s>", at, n.Data)
				}
			}
		}
	}
}
