package ui_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// prefer posts choices and returns the cookies they became.
func prefer(t *testing.T, h http.Handler, form url.Values) (int, []*http.Cookie, string) {
	t.Helper()
	r := httptest.NewRequest("POST", "/preferences", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Result().Cookies(), w.Body.String()
}

func with(t *testing.T, h http.Handler, path string, cookies ...*http.Cookie) *html.Node {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	doc, err := html.Parse(w.Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("%s: %d, %v", path, w.Code, err)
	}
	return doc
}

func TestTimesAreInTheZoneThatTheReaderChose(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	first := func(doc *html.Node) (text1, title, tz string) {
		for _, n := range all(doc, tag("time")) {
			return text(n), attr(n, "title"), attr(all(doc, tag("html"))[0], "data-tz")
		}
		return "", "", ""
	}
	for _, tt := range []struct {
		form                url.Values
		browser             string
		clock, title, chose string
	}{
		{url.Values{}, "", "14:20:59.770", "Sat 2026-11-21 14:20:59.770000 UTC", ""},
		{url.Values{"zone": {"named"}, "zone_name": {"Asia/Kolkata"}}, "Europe/Berlin", "19:50:59.770", "Sat 2026-11-21 19:50:59.770000 IST, Sat 2026-11-21 14:20:59.770000 UTC", "Asia/Kolkata"},
		{url.Values{"zone": {"UTC"}}, "Europe/Berlin", "14:20:59.770", "Sat 2026-11-21 14:20:59.770000 UTC", "UTC"},
		{url.Values{"zone": {"browser"}}, "Europe/Berlin", "15:20:59.770", "Sat 2026-11-21 15:20:59.770000 CET, Sat 2026-11-21 14:20:59.770000 UTC", ""},
		{url.Values{"zone": {"browser"}}, "../../etc/passwd", "14:20:59.770", "Sat 2026-11-21 14:20:59.770000 UTC", ""},
	} {
		_, cookies, _ := prefer(t, u, tt.form)
		if tt.browser != "" {
			cookies = append(cookies, &http.Cookie{Name: "signalbox-browser-zone", Value: tt.browser})
		}
		doc := with(t, u, "/messages", cookies...)
		list := all(doc, func(n *html.Node) bool { return attr(n, "id") == "found" || attr(n, "aria-labelledby") == "found" })
		if len(list) == 0 {
			t.Fatal("no list of messages")
		}
		rows := all(doc, func(n *html.Node) bool { return tag("time")(n) && attr(n, "data-time") == "milli" })
		if len(rows) == 0 {
			t.Fatal("no times")
		}
		_, _, chose := first(doc)
		if got := text(rows[0]); got != tt.clock || attr(rows[0], "title") != tt.title || chose != tt.chose {
			t.Errorf("%v with a browser in %q: got %q, %q, chosen %q; want %q, %q, %q", tt.form, tt.browser, got, attr(rows[0], "title"), chose, tt.clock, tt.title, tt.chose)
		}
	}
	for _, bad := range []string{"Mars/Olympus", "../etc/passwd", "Local", "", strings.Repeat("x", 100)} {
		code, cookies, body := prefer(t, u, url.Values{"zone": {"named"}, "zone_name": {bad}})
		if code != http.StatusBadRequest || len(cookies) > 0 || !strings.Contains(body, "Europe/Berlin") {
			t.Errorf("zone %q: got %d, %v, want 400 with what would be right", bad, code, cookies)
		}
	}
}

func TestSettingsKeepChoicesAndShowTheConfiguration(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	code, cookies, _ := prefer(t, u, url.Values{"density": {"compact"}, "theme": {"dark"}, "zone": {"UTC"}, "back": {"/settings"}})
	if code != http.StatusSeeOther || len(cookies) != 3 {
		t.Fatalf("got %d and %d cookies, want a redirect and 3", code, len(cookies))
	}
	doc := with(t, u, "/settings", cookies...)
	root := all(doc, tag("html"))[0]
	if attr(root, "data-theme") != "dark" || attr(root, "data-density") != "compact" {
		t.Errorf("theme %q, rows %q", attr(root, "data-theme"), attr(root, "data-density"))
	}
	checked := map[string]string{}
	for _, n := range all(doc, tag("input")) {
		for _, a := range n.Attr {
			if a.Key == "checked" {
				checked[attr(n, "name")] = attr(n, "value")
			}
		}
	}
	if checked["theme"] != "dark" || checked["density"] != "compact" || checked["zone"] != "UTC" {
		t.Errorf("checked: %v", checked)
	}
	got := mainText(doc)
	for _, want := range []string{"console.yaml over the defaults, 2 keys differ; secrets are masked", "storage.retention.messages_days3014", "storage.dsn***", "All 4 keys", "productionproduction: plum, solid2", "stagingstaging: ochre, hatched0", "Apache License 2.0", "ClickHouse 26.7.1.1, embedded"} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q in:\n%s", want, got)
		}
	}
}

func TestTheConfigurationIsForAdministrators(t *testing.T) {
	t.Parallel()
	p := newPeople(t, access.Privacy{})
	p.add("rita", access.Grant{Role: access.Approver, Env: "*", Channel: "*"})
	for who, want := range map[string]bool{"root": true, "rita": false} {
		w := p.ask(who, "GET", "/settings")
		if got := strings.Contains(w.Body.String(), "messages_days"); w.Code != 200 || got != want {
			t.Errorf("%s: got %d, configuration shown: %v, want %v", who, w.Code, got, want)
		}
	}
}

func TestHelpTellsOfEveryPage(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	_, doc := get(t, u, "/help")
	got := mainText(doc)
	for _, n := range all(doc, func(n *html.Node) bool { return attr(n, "data-go") != "" }) {
		if label := attr(n, "title"); strings.Count(got, label) < 2 { // its text and its key
			t.Errorf("help does not tell of %s", label)
		}
	}
	for path, want := range map[string]string{"/": "A gap in a chart is a time when nobody watched", "/health": "How Signalbox itself is"} {
		_, doc := get(t, u, path)
		for _, n := range all(doc, func(n *html.Node) bool { return attr(n, "id") == "keys" }) {
			if !strings.Contains(text(n), want) {
				t.Errorf("%s: the help drawer says %q", path, text(n))
			}
		}
	}
}
