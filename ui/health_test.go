package ui_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui"
)

func TestHealthSaysHowSignalboxIsAndWhatToDo(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	sick := func(self fakeSelf) string {
		u, err := ui.New(ui.Config{Guard: openGuard(t), Version: "test", Store: s, Roster: r, Self: self, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(u.Close)
		_, doc := get(t, u, "/health")
		return mainText(doc)
	}
	got := sick(fakeSelf{})
	for _, want := range []string{"Signalbox keeps up, one thing to look at: invalid records", "812,345 requests from 2 numbered senders became 98,123,411 rows in its own ClickHouse 26.7.1.1", "67.1 MB of 8.6 GB, 120.0 kB not stored yet",
		"search912", "38 ms", "240 ms", "bodies their payloads9.1 GB", "412.0 GB free of 1.0 TB", "malformed: The request was no OTLP"} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q in:\n%s", want, got)
		}
	}
	got = sick(fakeSelf{sick: true})
	for _, want := range []string{"Ingest lag: nothing is stored, and 7 more things to look at", "write block 81003: connection refused", "nearly full", "queue full: The queue on disk was full", "signal: killed", "below the reserve", "put aside"} {
		if !strings.Contains(got, want) {
			t.Errorf("sick: lacks %q in:\n%s", want, got)
		}
	}
	if strings.Index(got, "Ingest lag") > strings.Index(got, "Reading") {
		t.Error("what is bad does not come first")
	}
}

func TestInvalidMessagesAreShownWithTheirBytes(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	_, doc := get(t, u, "/invalid")
	got := mainText(doc)
	for _, want := range []string{"3 records", "record 14: a body of 70 levels, at most 64", "wrong wire type for field 2", "rabbit-eu1-a/7", "not numbered", "120.0 kB"} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q in:\n%s", want, got)
		}
	}
	links := all(doc, func(n *html.Node) bool { return strings.HasPrefix(attr(n, "href"), "/invalid/record") })
	if len(links) != 3 {
		t.Fatalf("%d records are linked, want 3", len(links))
	}
	at := attr(links[0], "href")
	for as, want := range map[string]string{"": "0a 1c 7b 22", "&as=text": `{"order": <script>}␀⟨xFF⟩`, "&as=json": "It does not read as JSON"} {
		if _, doc := get(t, u, at+as); !strings.Contains(mainText(doc), want) {
			t.Errorf("%s: lacks %q in:\n%s", at+as, want, mainText(doc))
		}
	}
	w, _ := get(t, u, strings.Replace(at, "/invalid/record", "/invalid/data", 1))
	if w.Body.String() != "\x0a\x1c{\"order\": <script>}\x00\xff" || w.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("download: %q %v", w.Body.String(), w.Header())
	}
	for path, want := range map[string]int{"/invalid/record?at=x": 400, "/invalid/record?at=1": 404, "/invalid/record?at=1&n=-1": 400} {
		if w, _ := get(t, u, path); w.Code != want {
			t.Errorf("%s: got %d, want %d", path, w.Code, want)
		}
	}
	s.invalid = 0
	if _, doc := get(t, u, "/invalid"); !strings.Contains(mainText(doc), "Everything was understood in the last hour") {
		t.Errorf("nothing wrong: %s", mainText(doc))
	}
}

// Records that nobody could read belong to no environment: who may see only
// some sees none of them, and who may not read payloads sees no bytes.
func TestInvalidMessagesAreForWhoMaySeeEverything(t *testing.T) {
	t.Parallel()
	p := newPeople(t, access.Privacy{})
	p.add("some", access.Grant{Role: access.Reader, Env: "production", Channel: "*"})
	p.add("meta", access.Grant{Role: access.Viewer, Env: "*", Channel: "*"})
	if w := p.ask("some", "GET", "/invalid"); w.Code != http.StatusForbidden {
		t.Errorf("a reader of one environment: got %d, want 403", w.Code)
	}
	w := p.ask("meta", "GET", "/invalid")
	if body := w.Body.String(); w.Code != 200 || strings.Contains(body, "script&gt;}") || !strings.Contains(body, "needs the right to read payloads") {
		t.Errorf("a viewer of everything: got %d, and bytes are shown or nothing is said", w.Code)
	}
	if w := p.ask("meta", "GET", "/invalid/data?at=1"); w.Code != http.StatusForbidden {
		t.Errorf("a viewer downloads: got %d, want 403", w.Code)
	}
}
