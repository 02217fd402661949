package ui_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui"
	auditpage "github.com/signalbox-dev/signalbox/ui/page/audit"
)

// fakeVerifier answers what it is told to.
type fakeVerifier struct {
	report auditpage.Report
	err    error
}

func (f *fakeVerifier) VerifyAudit(context.Context) (auditpage.Report, error) { return f.report, f.err }

func newAudited(t testing.TB) (http.Handler, *access.Service, *fakeVerifier) {
	t.Helper()
	s, r := filled(now)
	g := openGuard(t)
	v := &fakeVerifier{report: auditpage.Report{Entries: 12041, Root: "cm9vdA==", Heads: 3}}
	u, err := ui.New(ui.Config{Guard: g, Version: "test", Store: s, Roster: r, Commands: newCommands(now), Verifier: v})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	for _, e := range []access.Event{
		{Actor: access.Actor{Kind: access.KindUser, ID: "u-1", Name: "Mara"}, Code: "command.requested", Target: "purge " + string(cid(500)), Env: "production", Channel: "rabbit-eu1/orders.dead", Detail: "retry storm"},
		{Actor: access.Actor{Kind: access.KindUser, ID: "u-2", Name: "Jonas"}, Code: "command.approve", Target: string(cid(500)), Env: "production", Channel: "rabbit-eu1/orders.dead", Refused: true, Detail: "who requested a command cannot decide on it"},
		{Actor: access.Actor{Kind: access.KindUser, ID: "u-2", Name: "=cmd|'/c calc'!A1"}, Code: access.EventBodyRead, Target: "message 1", Env: "staging", Channel: "carts"},
		{Actor: access.Actor{Kind: access.KindUser, ID: "u-1", Name: "Mara"}, Code: access.EventLogin},
	} {
		if err := g.Access().Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	return u, g.Access(), v
}

func TestTheAuditPageFiltersLinksAndVerifies(t *testing.T) {
	t.Parallel()
	h, svc, v := newAudited(t)
	rows := func(path string) []*html.Node {
		t.Helper()
		w, doc := get(t, h, path)
		if w.Code != 200 {
			t.Fatalf("%s: %d %s", path, w.Code, mainText(doc))
		}
		return all(doc, func(n *html.Node) bool { return tag("tr")(n) && n.Parent.Data == "tbody" })
	}
	for path, want := range map[string]int{
		"/audit": 4, "/audit?code=command.*": 2, "/audit?who=mara": 2, "/audit?env=production": 2, "/audit?q=orders": 2, "/audit?q=ORDERS.dead": 2, "/audit?q=carts": 1, "/audit?q=arts&env=production": 0,
		"/audit?range=15m": 4, "/audit?to=2020-01-01T00:00:00Z&from=2019-12-01T00:00:00Z": 0, "/audit?before=3": 2,
	} {
		if got := rows(path); len(got) != want {
			t.Errorf("%s: %d entries, want %d", path, len(got), want)
		}
	}
	links := all(rows("/audit?code=command.requested")[0], tag("a"))
	if len(links) != 1 || attr(links[0], "href") != "/control/"+string(cid(500)) {
		t.Errorf("a command's entry links to %v", links)
	}
	if w, _ := get(t, h, "/settings/audit?code=auth.*"); w.Code != 301 || w.Header().Get("Location") != "/audit?code=auth.*" {
		t.Errorf("the old address: %d %q", w.Code, w.Header().Get("Location"))
	}
	says := func(want string) {
		t.Helper()
		if _, doc := get(t, h, "/audit"); !strings.Contains(mainText(doc), want) {
			t.Errorf("no %q in %s", want, mainText(doc))
		}
	}
	says("not verified since the console started")
	verify := func() {
		t.Helper()
		if w, _ := post(t, h, "/audit/verify", nil); w.Code != 303 {
			t.Fatalf("verify: %d", w.Code)
		}
	}
	verify()
	says("12,041 entries in an unbroken chain; 3 signed heads kept elsewhere fit.")
	v.report.Findings = []string{"entry 2: its hash is not what was chained"}
	verify()
	says("entry 2: its hash is not what was chained")
	v.err = errors.New("database is locked")
	verify()
	says("could not be finished: database is locked")
	if events, err := svc.Events(t.Context(), access.EventQuery{Code: "audit.verify"}); err != nil || len(events) != 3 {
		t.Errorf("%d verifications are on record, %v", len(events), err)
	}
}

func TestTheAuditTrailLeavesAsAFile(t *testing.T) {
	t.Parallel()
	h, svc, _ := newAudited(t)
	ask := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w
	}
	w := ask("/audit/export?format=csv&code=*")
	all, err := csv.NewReader(w.Body).ReadAll()
	if err != nil || len(all) != 6 || w.Header().Get("X-Content-Type-Options") != "nosniff" { // heads, four, and the export itself
		t.Fatalf("%d lines, %v", len(all), err)
	}
	for _, line := range all {
		for _, c := range line {
			if c != "" && strings.ContainsRune("=+-@", rune(c[0])) {
				t.Errorf("a spreadsheet runs %q", c)
			}
		}
	}
	w = ask("/audit/export?format=ndjson&code=command.*&env=production")
	lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	var e struct {
		Actor, Code, Channel string
		At                   time.Time
		Refused              bool
	}
	if err := json.Unmarshal([]byte(lines[0]), &e); err != nil || len(lines) != 2 || e.Actor != "Jonas" || e.Code != "command.approve" || !e.Refused || e.At.IsZero() {
		t.Errorf("%d lines, %v, first %+v", len(lines), err, e)
	}
	if w := ask("/audit/export?format=xls"); w.Code != 400 {
		t.Errorf("another format: %d", w.Code)
	}
	if events, err := svc.Events(t.Context(), access.EventQuery{Code: access.EventExport}); err != nil || len(events) != 2 || events[0].Target != "audit trail" {
		t.Errorf("exports on record: %v %v", events, err)
	}
}
