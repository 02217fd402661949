package ui_test

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui"
	"github.com/signalbox-dev/signalbox/ui/guard"
)

var updateGolden = flag.Bool("update", false, "write the golden files")

const goodPassword = "correct horse battery"

// people is a console where people sign in, and its first administrator.
type people struct {
	t     testing.TB
	ui    *ui.UI
	guard *guard.Guard
	svc   *access.Service
	root  access.Identity
	n     int
	// sessions by user name
	cookies map[string]string
}

func (p *people) ctx() context.Context {
	p.n++ // another address each time: tries do not add up
	return access.WithClient(p.t.Context(), access.Client{Address: fmt.Sprintf("192.0.2.%d", p.n), UserAgent: "test"})
}

func newPeople(t testing.TB, privacy access.Privacy) *people {
	t.Helper()
	s, r := filled(now)
	p := &people{t: t, guard: newGuard(t, func(*access.Config) {}, privacy), cookies: map[string]string{}}
	p.svc = p.guard.Access()
	var err error
	if p.ui, err = ui.New(ui.Config{Guard: p.guard, Version: "test", Store: s, Roster: r, Commands: newFakeBus(), Probes: newFakeProber(), Live: noLive, Self: fakeSelf{}, Effective: fakeEffective, Searches: searches(t), Now: func() time.Time { return now }}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.ui.Close)
	link, err := p.svc.Setup(p.ctx())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := p.svc.CompleteSetup(p.ctx(), link.Reveal(), "root", goodPassword)
	if err != nil {
		t.Fatal(err)
	}
	p.cookies["root"] = secret.Reveal()
	if p.root, err = p.svc.FromSession(p.ctx(), secret.Reveal(), true); err != nil {
		t.Fatal(err)
	}
	return p
}

// add makes a user and signs them in.
func (p *people) add(name string, grants ...access.Grant) access.User {
	p.t.Helper()
	u, link, err := p.svc.AddUser(p.ctx(), p.root, name, grants)
	if err != nil {
		p.t.Fatal(err)
	}
	secret, err := p.svc.UsePasswordLink(p.ctx(), link.Reveal(), goodPassword)
	if err != nil {
		p.t.Fatal(err)
	}
	p.cookies[name] = secret.Reveal()
	return u
}

// ask sends a request as somebody: a user's name, a token, or nobody.
func (p *people) ask(as, method, path string) *httptest.ResponseRecorder {
	p.t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Origin", "http://example.com") // as browsers do where it matters
	switch {
	case strings.HasPrefix(as, "sbx"):
		r.Header.Set("Authorization", "Bearer "+as)
	case as != "":
		r.AddCookie(&http.Cookie{Name: "signalbox-session", Value: p.cookies[as]})
	}
	w := httptest.NewRecorder()
	p.ui.ServeHTTP(w, r)
	return w
}

// verdict is how far a request came.
func verdict(w *httptest.ResponseRecorder) string {
	switch {
	case w.Code == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") != "",
		w.Code == http.StatusSeeOther && (w.Header().Get("Location") == "/login" || strings.HasPrefix(w.Header().Get("Location"), "/login?next=")):
		return "sign in"
	case w.Code == http.StatusForbidden:
		return "-"
	}
	return "yes"
}

var wildcard = regexp.MustCompile(`\{[^}]*\}`)

// TestRoutesByRole asks for every route as everybody. The table is a file, so
// that a route, or a change of who may use it, is seen by whoever reviews it.
func TestRoutesByRole(t *testing.T) {
	p := newPeople(t, access.DefaultPrivacy())
	columns := []string{""}
	for _, role := range access.Roles() {
		p.add(string(role), access.Everywhere(role)...)
		columns = append(columns, string(role))
	}
	_, sender, err := p.svc.CreateToken(p.ctx(), p.root, access.NewToken{Name: "sender", Grants: access.Everywhere(access.Sender)})
	if err != nil {
		t.Fatal(err)
	}
	columns = append(columns, sender.Reveal())
	routes := p.ui.Routes()
	slices.SortFunc(routes, func(a, b guard.Route) int { return cmp.Compare(key(a.Pattern), key(b.Pattern)) })
	var b strings.Builder
	fmt.Fprintf(&b, "%-48s%-16s%-9s%-8s%-8s%-10s%-10s%-7s%s\n", "", "action", "nobody", "viewer", "reader", "operator", "approver", "admin", "sender")
	for _, r := range routes {
		method, path, ok := strings.Cut(r.Pattern, " ")
		if !ok {
			method, path = "GET", r.Pattern
			if path == "/" {
				path = "/no-such-page"
			}
		}
		path = wildcard.ReplaceAllStringFunc(path, func(s string) string {
			if s == "{$}" {
				return ""
			}
			return "1"
		})
		var row []any
		for _, as := range columns {
			if r.Pattern == "POST /logout" && as != "" && !strings.HasPrefix(as, "sbx") {
				row = append(row, "yes") // the session is needed for the other routes
				continue
			}
			row = append(row, verdict(p.ask(as, method, path)))
		}
		fmt.Fprintf(&b, "%-48s%-16s%-9s%-8s%-8s%-10s%-10s%-7s%s\n", append([]any{r.Pattern, string(r.Action)}, row...)...)
		// What the table must say whatever is in the file.
		for i, role := range access.Roles() {
			id := access.Identity{Kind: access.KindUser, Grants: access.Everywhere(role)}
			if got, want := row[i+1] == "yes", id.Can(r.Action, "", ""); got != want {
				t.Errorf("%s as %s: got in %v, want %v by action %s", r.Pattern, role, got, want, r.Action)
			}
		}
		if r.Action != access.Public && row[0] == "yes" {
			t.Errorf("%s: nobody got in", r.Pattern)
		}
	}
	got := b.String()
	const file = "testdata/routes.txt"
	if *updateGolden {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what is served; if it should be, run go test ./ui -run TestRoutesByRole -update (-want +got):\n%s", file, diff)
	}
}

func key(pattern string) string {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		return pattern
	}
	return path + " " + method
}

func TestARouteWithoutAnActionKeepsTheConsoleFromStarting(t *testing.T) {
	for _, a := range []access.Action{"", "made.up"} {
		m := openGuard(t).Mux()
		m.Handle("GET /x", a, http.NotFoundHandler(), nil)
		if err := m.Err(); err == nil || !strings.Contains(err.Error(), "GET /x") {
			t.Errorf("action %q: got %v, want an error that names the route", a, err)
		}
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest("GET", "/x", nil))
		if len(m.Routes()) != 0 {
			t.Errorf("action %q: the route is served all the same", a)
		}
	}
	if _, err := ui.New(ui.Config{Store: &fakeStore{}}); err == nil {
		t.Error("a console without a guard starts")
	}
}

// TestReadsAreLimited signs in who may see a part, and looks for the rest.
func TestReadsAreLimited(t *testing.T) {
	p := newPeople(t, access.DefaultPrivacy())
	p.add("part", access.Grant{Role: access.Reader, Env: "production", Channel: "payments.*"})
	p.add("staging", access.Grant{Role: access.Admin, Env: "staging", Channel: "*"})
	p.add("meta", access.Grant{Role: access.Viewer, Env: "production", Channel: "*"}, access.Grant{Role: access.Reader, Env: "production", Channel: "shipping.*"})
	s, _ := filled(now)
	find := func(channel string) storage.Message {
		for _, m := range s.messages {
			if m.Destination == channel && len(m.Body) > 0 {
				return m
			}
		}
		t.Fatalf("no message on %s", channel)
		return storage.Message{}
	}
	payments, orders, shipping := find("payments.capture"), find("orders.events"), find("shipping.labels")

	for _, c := range []struct {
		as, path   string
		code       int
		has, hasNo string
	}{
		{"part", "/messages?env=production", 200, "payments.capture", "orders.events"},
		{"part", "/api/v1/messages?env=production&limit=1000", 200, "payments.capture", "orders.events"},
		{"part", "/channels?env=production", 200, "payments.capture", "orders.placed"},
		{"part", "/api/v1/channels?env=production", 200, "payments.capture", "orders.placed"},
		{"part", "/agents?env=production", 200, "payments.capture", "orders.placed"},
		{"part", "/messages/" + payments.UID.String(), 200, "payments.capture", "This is not here"},
		{"part", "/messages/" + orders.UID.String(), 404, "not found", "orders.events"},
		{"part", "/messages/" + orders.UID.String() + "/body", 404, "not found", "orders.events"},
		{"part", "/api/v1/messages/" + orders.UID.String(), 404, "not found", "orders.events"},
		{"part", "/channel?env=production&broker=rabbit-eu1&name=orders.placed", 404, "not found", "80123"},
		{"part", "/api/v1/environments", 200, "production", "staging"},
		{"staging", "/api/v1/environments", 200, "staging", "production"},
		{"staging", "/messages?env=production", 200, "", "payments.capture"},
		{"staging", "/messages?env=", 200, "", "payments.capture"},
		{"staging", "/agents", 200, "", "rabbit-eu1-a"},
		{"staging", "/api/v1/overview?env=production", 200, `"messages":0`, "payments"},
		// Payloads need reader where the message is.
		{"meta", "/messages/" + payments.UID.String(), 200, "payments.capture", string(payments.Body)},
		{"meta", "/messages/" + payments.UID.String() + "/body", 404, "", string(payments.Body)},
		{"meta", "/messages/" + shipping.UID.String() + "/body", 200, string(shipping.Body), "not found"},
		{"meta", "/api/v1/messages?env=production&limit=1000&snippets=true", 200, "payments.capture", ""},
	} {
		w := p.ask(c.as, "GET", c.path)
		body := w.Body.String()
		if w.Code != c.code {
			t.Errorf("%s asks for %s: got %d, want %d", c.as, c.path, w.Code, c.code)
		}
		if !strings.Contains(body, c.has) || c.hasNo != "" && strings.Contains(mainOf(body), c.hasNo) {
			t.Errorf("%s asks for %s: want %q and not %q in it", c.as, c.path, c.has, c.hasNo)
			if i := strings.Index(mainOf(body), c.hasNo); i >= 0 {
				t.Logf("… %s …", mainOf(body)[max(0, i-300):min(len(mainOf(body)), i+100)])
			}
		}
	}
	var listed struct {
		Messages []struct{ Channel, Snippet string }
	}
	w := p.ask("meta", "GET", "/api/v1/messages?env=production&limit=1000&snippets=true")
	if err := json.Unmarshal(w.Body.Bytes(), &listed); err != nil {
		t.Fatal(err)
	}
	begun := map[bool]int{}
	for _, m := range listed.Messages {
		if (m.Channel == "shipping.labels") != (m.Snippet != "") {
			t.Errorf("beginning of a payload on %s: got %q", m.Channel, m.Snippet)
		}
		begun[m.Snippet != ""]++
	}
	if begun[true] == 0 || begun[false] == 0 {
		t.Errorf("beginnings of payloads: got %v, want some and some not", begun)
	}
	for _, path := range []string{"/messages?q=body:captured&env=production", "/api/v1/messages?q=body:captured&env=production"} {
		w := p.ask("meta", "GET", path)
		if strings.Contains(mainOf(w.Body.String()), "payments.capture") {
			t.Errorf("%s: a search in payloads told where a word is that may not be read", path)
		}
	}
	events, err := p.svc.Events(t.Context(), access.EventQuery{Code: access.EventBodyRead})
	if err != nil || len(events) != 2 {
		t.Fatalf("bodies read: got %d entries in the audit trail (%v), want those of part and of meta", len(events), err)
	}
	for _, e := range events {
		if (e.Actor.Name != "meta" || e.Channel != "shipping.labels") && (e.Actor.Name != "part" || e.Channel != "payments.capture") {
			t.Errorf("unexpected entry %+v", e)
		}
	}
}

// mainOf leaves out the frame: an environment's name may stand in a link that
// was typed.
func mainOf(body string) string {
	if _, rest, ok := strings.Cut(body, "<main"); ok {
		_, rest, _ = strings.Cut(rest, ">")
		return rest
	}
	return body
}

func TestPrivacyHoldsForEverybody(t *testing.T) {
	p := newPeople(t, access.Privacy{})
	s, _ := filled(now)
	uid := s.messages[0].UID.String()
	for path, want := range map[string]int{
		"/messages/" + uid: 200, "/messages/" + uid + "/body": 403, "/live": 403, "/api/v1/messages/" + uid + "/body": 403,
	} {
		w := p.ask("root", "GET", path)
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", path, w.Code, want)
		}
		if strings.Contains(w.Body.String(), string(s.messages[0].Body)) {
			t.Errorf("%s shows a payload", path)
		}
	}
	if w := p.ask("root", "GET", "/messages"); strings.Contains(w.Body.String(), `href="/live"`) {
		t.Error("the navigation leads to the live tap, which is forbidden")
	}
}

func TestSignInLeadsBack(t *testing.T) {
	p := newPeople(t, access.DefaultPrivacy())
	if got := p.ask("", "GET", "/messages?q=a+b").Header().Get("Location"); got != "/login?next=%2Fmessages%3Fq%3Da%2Bb" {
		t.Errorf("page: got %q", got)
	}
	r := httptest.NewRequest("GET", "/channels", nil)
	r.Header.Set("HX-Request", "true")
	r.Header.Set("HX-Current-URL", "http://example.com/channels?sort=failed")
	w := httptest.NewRecorder()
	p.ui.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized || w.Header().Get("HX-Redirect") != "/login?next=%2Fchannels%3Fsort%3Dfailed" {
		t.Errorf("refresh: got %d, %q", w.Code, w.Header().Get("HX-Redirect"))
	}
	w = p.ask("", "GET", "/api/v1/messages")
	if w.Code != http.StatusUnauthorized || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("WWW-Authenticate") == "" {
		t.Errorf("API: got %d %v", w.Code, w.Header())
	}
	// A token that does not hold is not helped out by a cookie.
	r = httptest.NewRequest("GET", "/api/v1/messages", nil)
	r.Header.Set("Authorization", "Bearer sbx_nothing")
	r.AddCookie(&http.Cookie{Name: "signalbox-session", Value: p.cookies["root"]})
	w = httptest.NewRecorder()
	p.ui.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("wrong token with a cookie: got %d, want 401", w.Code)
	}
}

// TestAnOpenConsoleAnswersUnderItsOwnNameOnly stops a page of another site that
// lets its own name point to this address.
func TestAnOpenConsoleAnswersUnderItsOwnNameOnly(t *testing.T) {
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	for host, want := range map[string]int{
		"127.0.0.1:8470": 200, "localhost:8470": 200, "[::1]:8470": 200, "evil.example:8470": 403, "127.0.0.1.evil.example": 403,
	} {
		req := httptest.NewRequest("GET", "/channels", nil)
		req.Host = host
		w := httptest.NewRecorder()
		u.ServeHTTP(w, req)
		if w.Code != want {
			t.Errorf("host %s: got %d, want %d", host, w.Code, want)
		}
	}
}

func TestATapIsAskedForWhereOneMay(t *testing.T) {
	p := newPeople(t, access.DefaultPrivacy())
	p.add("ops", access.Grant{Role: access.Operator, Env: "production", Channel: "orders.*"})
	ask := func(channel string) int {
		r := httptest.NewRequest("POST", "/api/v1/taps", strings.NewReader(`{"env":"production","system":"rabbitmq","broker":"rabbit-eu1","channel":"`+channel+`","reason":"why not","lease":"15m"}`))
		r.Header.Set("Content-Type", "application/json")
		r.AddCookie(&http.Cookie{Name: "signalbox-session", Value: p.cookies["ops"]})
		w := httptest.NewRecorder()
		p.ui.ServeHTTP(w, r)
		return w.Code
	}
	for channel, want := range map[string]int{"orders.placed": 202, "payments.capture": 403, "*": 403, "orders*": 403} {
		if got := ask(channel); got != want {
			t.Errorf("tap on %s: got %d, want %d", channel, got, want)
		}
	}
	events, err := p.svc.Events(t.Context(), access.EventQuery{Code: access.EventTapRequest})
	if err != nil || len(events) != 1 || events[0].Channel != "orders.placed" || events[0].Actor.Name != "ops" || events[0].Detail != "why not" {
		t.Errorf("audit: got %+v, %v", events, err)
	}
}

// elsewhere is a provider that vouches for whoever brings the right cookie.
type elsewhere struct{ state, next string }

func (e *elsewhere) Name() string { return "the company" }

func (e *elsewhere) Begin(_ context.Context, next string) (string, controlbus.Secret, error) {
	e.next = next
	return "https://id.example/auth?state=1", controlbus.Secret(e.state), nil
}

func (e *elsewhere) Finish(_ context.Context, state string, answer url.Values) (access.External, string, error) {
	if state != e.state || answer.Get("state") != "1" {
		return access.External{}, "", controlbus.ErrDenied
	}
	return access.External{Issuer: "https://id.example", Subject: answer.Get("sub"), Name: answer.Get("sub"), Grants: access.Everywhere(access.Role(answer.Get("role")))}, e.next, nil
}

func TestSigningInElsewhere(t *testing.T) {
	s, r := filled(now)
	g := newGuard(t, func(*access.Config) {}, access.DefaultPrivacy())
	e := &elsewhere{state: "a secret of this sign-in"}
	u, err := ui.New(ui.Config{Guard: g, Provider: e, Version: "test", Store: s, Roster: r, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	do := func(method, path string, body io.Reader, cookies ...*http.Cookie) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, body)
		if body != nil {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		u.ServeHTTP(w, r)
		return w
	}
	if w := do("GET", "/login", nil); !strings.Contains(w.Body.String(), "Sign in with the company") {
		t.Error("the page does not offer it")
	}
	begin := func(next string) *http.Cookie {
		t.Helper()
		w := do("GET", "/login/oidc?"+url.Values{"next": {next}}.Encode(), nil)
		cookies := w.Result().Cookies()
		if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "https://id.example/auth?state=1" || len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode {
			t.Fatalf("begin: got %d, %v", w.Code, w.Header())
		}
		return cookies[0]
	}
	back := begin("/channels")
	if w := do("GET", "/login/oidc/callback?state=1&sub=mia&role=viewer", nil); w.Code != http.StatusForbidden || len(w.Result().Cookies()) > 1 {
		t.Errorf("without the cookie: got %d", w.Code)
	}
	w := do("GET", "/login/oidc/callback?state=1&sub=mia&role=viewer", nil, back)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/channels" {
		t.Fatalf("callback: got %d, %q: %s", w.Code, w.Header().Get("Location"), mainOf(w.Body.String()))
	}
	var session *http.Cookie
	for _, c := range w.Result().Cookies() {
		if c.Name == "signalbox-session" {
			session = c
		}
	}
	if session == nil {
		t.Fatal("no session")
	}
	if w := do("GET", "/channels", nil, session); w.Code != http.StatusOK {
		t.Errorf("signed in: got %d", w.Code)
	}
	// A provider, or who plays it, leads nowhere else, and gives no role that is
	// not for people.
	if w := do("GET", "/login/oidc/callback?state=1&sub=mia&role=viewer", nil, begin("//evil.example/")); w.Header().Get("Location") != "/" {
		t.Errorf("next: got %q, want the console's own page", w.Header().Get("Location"))
	}
	if w := do("GET", "/login/oidc/callback?state=1&sub=robot&role=agent", nil, begin("/")); w.Code < 400 {
		t.Errorf("a role of programs: got %d", w.Code)
	}
	users, err := g.Access().Users(t.Context())
	if err != nil || len(users) != 1 || users[0].Local() || users[0].Name != "mia" {
		t.Errorf("users: got %+v, %v", users, err)
	}
}
