package ui_test

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
)

func byID(doc *html.Node, id string) *html.Node {
	for _, n := range all(doc, func(n *html.Node) bool { return attr(n, "id") == id }) {
		return n
	}
	return nil
}

// links by their text.
func links(doc *html.Node) map[string]string {
	out := map[string]string{}
	for _, n := range all(doc, tag("a")) {
		out[text(n)] = attr(n, "href")
	}
	return out
}

func form(t *testing.T, address string) url.Values {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query()
}

func TestHistogramIsInThePageWhereItIsCheap(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	_, doc := get(t, u, "/messages?range=15m&env=production")
	hist := byID(doc, "histogram")
	bars := all(hist, func(n *html.Node) bool { return has(n, "data-from") })
	if len(bars) < 90 || len(bars) > 96 {
		t.Fatalf("%d bars for 15 minutes, want one each 10 s", len(bars))
	}
	total := 0
	for _, b := range bars {
		n, _ := strconv.Atoi(attr(b, "data-n"))
		total += n
		q := form(t, attr(b, "href"))
		from, err1 := time.Parse(time.RFC3339, q.Get("from"))
		to, err2 := time.Parse(time.RFC3339, q.Get("to"))
		if err1 != nil || err2 != nil || to.Sub(from) > 10*time.Second || !from.Before(to) || q.Has("range") || q.Get("env") != "production" {
			t.Fatalf("a bar links to %v", q)
		}
		if w, sub := get(t, u, attr(b, "href")); n > 0 && (w.Code != 200 || len(all(sub, func(x *html.Node) bool { return has(x, "data-open") })) != n) {
			t.Fatalf("a bar says %d messages, its link shows another number", n)
		}
	}
	if got := mainText(doc); total != len(s.messages) || !strings.Contains(got, "133 messages") || !strings.Contains(got, "did not end well, per 10 s") {
		t.Errorf("bars add up to %d of %d: %s", total, len(s.messages), got)
	}
	if has(hist, "data-load") && attr(hist, "data-load") != "" {
		t.Error("a histogram that is there is fetched again")
	}
	// Everything but sums is fetched behind the page, or asked for by a link.
	s.counts.Store(0)
	_, doc = get(t, u, "/messages?range=15m&q="+url.QueryEscape("header.x-tenant:acme"))
	hist = byID(doc, "histogram")
	if s.counts.Load() != 0 || attr(hist, "data-load") == "" {
		t.Fatalf("%d counts in a page that should not wait for one", s.counts.Load())
	}
	w, part := get(t, u, attr(hist, "data-load"))
	if n := len(all(part, func(n *html.Node) bool { return has(n, "data-from") })); w.Code != 200 || n < 90 || len(all(part, tag("main"))) > 0 {
		t.Errorf("fragment: %d with %d bars", w.Code, n)
	}
	for name, at := range links(part) {
		if strings.Contains(at, "/messages/histogram") {
			t.Errorf("%s leads to the fragment: %s", name, at)
		}
	}
	_, doc = get(t, u, links(doc)["Count the matches over time"])
	if n := len(all(byID(doc, "histogram"), func(n *html.Node) bool { return has(n, "data-from") })); n < 90 {
		t.Errorf("the link for readers without script shows %d bars", n)
	}
	// What was not counted is hatched and said.
	s.stopped = storage.StopDeadline
	_, part = get(t, u, attr(hist, "data-load"))
	if got := text(part); !strings.Contains(got, "At least") || !strings.Contains(got, "Not counted within the time budget") || len(all(part, func(n *html.Node) bool { return tag("rect")(n) && attr(n, "class") == "unseen" })) != 1 {
		t.Errorf("a partial count does not say so: %s", got)
	}
	s.err = controlbus.ErrUnavailable
	if w, part = get(t, u, attr(hist, "data-load")); w.Code != 200 || !strings.Contains(text(part), "could not be counted") {
		t.Errorf("a count that failed: %d %s", w.Code, text(part))
	}
}

func TestHistogramStepsFitTheRange(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	for _, d := range []string{"1s", "17s", "2m", "15m", "1h", "6h", "24h", "7d", "30d", "9000h"} {
		w, doc := get(t, u, "/messages?env=&range="+d)
		hist := byID(doc, "histogram")
		bars := all(hist, func(n *html.Node) bool { return has(n, "data-from") })
		ticks := all(hist, tag("text"))
		if w.Code != 200 || len(bars) < 30 || len(bars) > 97 || len(ticks) > 8 || len(ticks) < 2 {
			t.Errorf("%s: %d, %d bars, %d ticks", d, w.Code, len(bars), len(ticks))
		}
	}
}

func TestContinueGoesOnWhenNothingMatchedYet(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	s.stopped = storage.StopDeadline
	_, doc := get(t, newUI(t, s, r, noLive), "/messages?q=nowhere-to-be-found&env=production")
	got := mainText(doc)
	for _, want := range []string{"Partly scanned", "Nothing matched so far", "Looked at 133 messages (4.2 MB)", "Stopped at the time budget", "not looked at", "in 42 ms"} {
		if !strings.Contains(got, want) {
			t.Errorf("page lacks %q: %s", want, got)
		}
	}
	q := form(t, links(doc)["Continue"])
	if q.Get("cursor") != "after-3" || q.Get("q") != "nowhere-to-be-found" {
		t.Errorf("Continue leads to %v", q)
	}
	times := 0
	for _, n := range all(doc, tag("time")) {
		if attr(n, "datetime") != "" && attr(n, "data-time") != "" {
			times++
		}
	}
	if times < 4 {
		t.Errorf("%d times that the browser can write in the reader's zone, want the four of the scan line", times)
	}
}

func heads(doc *html.Node) string {
	var out []string
	for _, n := range all(doc, func(n *html.Node) bool { return tag("table")(n) && has(n, "data-rows") }) {
		for _, h := range all(n, tag("th")) {
			if attr(h, "scope") == "col" {
				out = append(out, strings.TrimRight(text(h), " ↓↑"))
			}
		}
	}
	return strings.Join(out, "|")
}

func TestColumnsAreChosenAndRemembered(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	s.messages[0].Headers = append(s.messages[0].Headers, controlbus.Header{Key: "odd, %name", Value: "v1"}, controlbus.Header{Key: "x-tenant", Value: "second"})
	u := newUI(t, s, r, noLive)
	_, doc := get(t, u, "/messages")
	if got := heads(doc); got != "Time|Outcome|Channel|Correlation or id|Delivery|Size|Body" {
		t.Errorf("usual columns: %s", got)
	}
	// The order is the list's, whatever the address says.
	_, doc = get(t, u, "/messages?cols=body,header.x-tenant,service,channel,header.a")
	if got := heads(doc); got != "Time|Channel|Service|a|x-tenant|Body" {
		t.Errorf("columns of the address: %s", got)
	}
	if got := mainText(doc); !strings.Contains(got, "acme, second") {
		t.Errorf("a header given twice: %s", got)
	}
	for bad, want := range map[string]int{"nonsense": 400, "header.": 400, strings.Repeat("time,", 30): 413, "header." + strings.Repeat("x", 300): 413} {
		if w, _ := get(t, u, "/messages?cols="+url.QueryEscape(bad)); w.Code != want {
			t.Errorf("cols=%.40s: got %d, want %d", bad, w.Code, want)
		}
	}
	post := func(f url.Values) *http.Response {
		req := httptest.NewRequest("POST", "/messages/columns", strings.NewReader(f.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		w := httptest.NewRecorder()
		u.ServeHTTP(w, req)
		return w.Result()
	}
	res := post(url.Values{"col": {"outcome", "header.odd%2C %25name"}, "headers": {"x-tenant header.b"}, "back": {"?q=GatewayTimeout&env=production&cursor=x&cols=time"}})
	at := res.Header.Get("Location")
	q := form(t, at)
	if res.StatusCode != 303 || !strings.HasPrefix(at, "/messages?") || q.Get("q") != "GatewayTimeout" || q.Get("env") != "production" || q.Has("cursor") {
		t.Fatalf("%d to %s", res.StatusCode, at)
	}
	_, doc = get(t, u, at)
	if got := heads(doc); got != "Time|Outcome|b|odd, %name|x-tenant" {
		t.Errorf("chosen columns: %s", got)
	}
	cookies := res.Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly {
		t.Fatalf("cookies %v", cookies)
	}
	again := func(value string) string {
		req := httptest.NewRequest("GET", "/messages", nil)
		req.AddCookie(&http.Cookie{Name: cookies[0].Name, Value: value})
		w := httptest.NewRecorder()
		u.ServeHTTP(w, req)
		doc, err := html.Parse(w.Body)
		if err != nil || w.Code != 200 {
			t.Fatal(err, w.Code)
		}
		return heads(doc)
	}
	if got := again(cookies[0].Value); got != "Time|Outcome|b|odd, %name|x-tenant" {
		t.Errorf("remembered columns: %s", got)
	}
	if got := again("no-such-column"); got != "Time|Outcome|Channel|Correlation or id|Delivery|Size|Body" {
		t.Errorf("with a choice that cannot be read: %s", got)
	}
	if res = post(url.Values{"reset": {"1"}, "col": {"size"}, "back": {"//evil.example/?q=1"}}); !strings.HasPrefix(res.Header.Get("Location"), "/messages") || res.Cookies()[0].MaxAge >= 0 {
		t.Errorf("reset: to %s with %v", res.Header.Get("Location"), res.Cookies())
	}
	if res = post(url.Values{"col": {"nonsense"}}); res.StatusCode != 400 {
		t.Errorf("a column that does not exist: %d", res.StatusCode)
	}
}

func TestSharedLinksHoldEverything(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	_, doc := get(t, newUI(t, s, r, noLive), "/messages?q=GatewayTimeout&cols=time,size&order=oldest")
	all := links(doc)
	moving, fixed := form(t, all["This search"]), form(t, all["Exactly this period"])
	for name, q := range map[string]url.Values{"moving": moving, "fixed": fixed} {
		if q.Get("q") != "GatewayTimeout" || q.Get("cols") != "time,size" || q.Get("order") != "oldest" || q.Get("env") != "production" {
			t.Errorf("%s link: %v", name, q)
		}
	}
	if moving.Has("from") || fixed.Get("to") != now.Format(time.RFC3339Nano) || fixed.Get("from") != now.Add(-time.Hour).Format(time.RFC3339Nano) || fixed.Has("range") {
		t.Errorf("ranges: %v and %v", moving, fixed)
	}
	if !strings.Contains(mainText(doc), "Parquet") {
		t.Error("no export is offered to who may have one")
	}
	p := newPeople(t, access.DefaultPrivacy())
	p.add("mia", access.Everywhere(access.Viewer)...)
	if w := p.ask("mia", "GET", "/messages?q=GatewayTimeout"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "This search looks into payloads") || strings.Contains(w.Body.String(), "ORD-77310") {
		t.Errorf("a viewer's search in payloads: %d %s", w.Code, w.Body)
	}
	if w := p.ask("mia", "GET", "/messages?q=channel:payments.*"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "payments.capture.dlq") || strings.Contains(w.Body.String(), "Parquet") {
		t.Errorf("an export is offered to who may not have one, or nothing is found (%d)", w.Code)
	}
}

type answer struct {
	Start, End int
	Items      []struct{ Text, Label, Kind, Doc, Sample string }
	Reads      string
	Error      *struct {
		Start, End                 int
		Message, Suggestion, Fixed string
	}
	Partial bool
}

func ask(t *testing.T, u http.Handler, text string, cursor int) answer {
	t.Helper()
	w := httptest.NewRecorder()
	u.ServeHTTP(w, httptest.NewRequest("GET", "/messages/complete?"+url.Values{"q": {text}, "cursor": {strconv.Itoa(cursor)}, "env": {"production"}}.Encode(), nil))
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("complete %q: %d %s", text, w.Code, w.Body)
	}
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func itemTexts(a answer) string {
	var out []string
	for _, i := range a.Items {
		out = append(out, i.Text)
	}
	return strings.Join(out, "|")
}

func TestCompletionOffersFieldsAndValues(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	s.messages[0].Destination = `odd "name", x`
	u := newUI(t, s, r, noLive)
	if a := ask(t, u, "cha", 3); a.Start != 0 || a.End != 3 || itemTexts(a) != "channel:" || a.Items[0].Doc == "" {
		t.Errorf("a field: %+v", a)
	}
	if a := ask(t, u, "channel:pay", 11); a.Start != 8 || a.End != 11 || itemTexts(a) != "payments.capture|payments.capture.dlq" || a.Items[0].Kind != "value" || a.Items[0].Sample == "" {
		t.Errorf("values that begin so: %+v", a)
	}
	if a := ask(t, u, "channel:ev", 10); itemTexts(a) != "orders.events" {
		t.Errorf("values that hold it: %s", itemTexts(a))
	}
	if a := ask(t, u, "channel:odd", 11); itemTexts(a) != `"odd ""name"", x"` {
		t.Errorf("a value that needs quotes: %s", itemTexts(a))
	}
	if a := ask(t, u, "header.x-t", 10); itemTexts(a) != "header.x-tenant:" || a.Items[0].Kind != "field" {
		t.Errorf("names of headers: %+v", a)
	}
	if a := ask(t, u, "header.death", 12); itemTexts(a) != `header."x-death[0].queue":|header."x-death[0].reason":` {
		t.Errorf("names of headers that need quotes: %s", itemTexts(a))
	}
	if a := ask(t, u, "channel:a ", 10); !strings.HasPrefix(itemTexts(a), "AND ") || a.Reads != "channel is a" {
		t.Errorf("behind a condition: %+v", a)
	}
	// Positions count as scripts do.
	if a := ask(t, u, `"💥ü" cha timeout`, 9); a.Start != 6 || a.End != 9 {
		t.Errorf("behind characters of other sizes: %+v", a)
	}
	a := ask(t, u, `"💥" chanel:orders`, 4)
	if a.Error == nil || a.Error.Start != 5 || a.Error.End != 11 || a.Error.Suggestion != "channel" || a.Error.Fixed != `"💥" channel:orders` {
		t.Errorf("a mistake: %+v", a.Error)
	}
	if n := s.asked.Load(); n != 2 {
		t.Errorf("the store was asked %d times, want once for each field", n)
	}
	if n := len(ask(t, u, "", 0).Items); n != 20 {
		t.Errorf("%d items at the beginning, want the bound of 20", n)
	}
	for path, want := range map[string]int{"?cursor=x": 400, "?cursor=-1": 400, "?cursor=99999999999": 200, "?q=" + strings.Repeat("x", 5000): 413} {
		if w, _ := get(t, u, "/messages/complete"+path); w.Code != want {
			t.Errorf("%.40s: got %d, want %d", path, w.Code, want)
		}
	}
}

func TestCompletionDoesNotWaitForASlowStore(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	s.slow = make(chan struct{})
	u := newUI(t, s, r, noLive)
	before := time.Now()
	a := ask(t, u, "channel:pay", 11)
	if took := time.Since(before); !a.Partial || len(a.Items) != 0 || took > 500*time.Millisecond {
		t.Fatalf("after %v: %+v, want an answer without values", took, a)
	}
	close(s.slow)
	for range 100 { // the question goes on behind the answer
		if a = ask(t, u, "channel:pay", 11); !a.Partial {
			break
		}
	}
	if a.Partial || len(a.Items) != 2 || s.asked.Load() != 1 {
		t.Errorf("when the store has answered: %+v after %d questions", a, s.asked.Load())
	}
}

func TestAMistakeInAFilterIsMarkedWhereItIs(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	_, doc := get(t, u, "/messages?q="+url.QueryEscape("timeout chanel:orders.*"))
	got := mainText(doc)
	if !strings.Contains(got, `The filter cannot be read: no field "chanel"`) || !strings.Contains(got, "Nothing was searched") || !strings.Contains(got, "dead_letter.reason:rejected") {
		t.Errorf("the page does not say what is wrong: %s", got)
	}
	if marks := all(doc, tag("mark")); len(marks) != 1 || text(marks[0]) != "chanel" {
		t.Errorf("marked: %v", marks)
	}
	if q := form(t, links(doc)["channel"]); q.Get("q") != "timeout channel:orders.*" {
		t.Errorf("the suggestion leads to %v", q)
	}
	box := byID(doc, "filter")
	if attr(box, "data-wrong-from") != "8" || attr(box, "data-wrong-to") != "14" || attr(box, "aria-invalid") != "true" {
		t.Errorf("the box does not know the place: %v", box.Attr)
	}
	// A field's name as a plain word is a word of the payload; the page says so.
	_, doc = get(t, u, "/messages?q=failed")
	if q := form(t, links(doc)["failed:true"]); q.Get("q") != "failed:true" {
		t.Errorf("what was probably meant: %v", q)
	}
	_, doc = get(t, u, "/messages?q="+url.QueryEscape("failed:true channel:payments.*"))
	if got := mainText(doc); !strings.Contains(got, "Reads: ") || !strings.Contains(got, "channel matches payments.*") {
		t.Errorf("the filter is not explained: %s", got)
	}
}

// Addresses made before the language had a name.
func TestOldLinksStillWork(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	m := s.messages[1]
	for _, q := range []string{
		"channel:" + m.Destination, "id:" + m.MessageID, "correlation:" + m.CorrelationID, "trace:" + hex.EncodeToString(m.TraceID[:]),
		"header.x-tenant:acme", "header.x-tenant=acme", `body:"GatewayTimeout"`, "GatewayTimeout channel:p*", "broker:" + m.Broker, "system:" + m.System, "uid:" + m.UID.String(), "service:order-service",
	} {
		w, doc := get(t, u, "/messages?env=production&q="+url.QueryEscape(q))
		if n := len(all(doc, func(n *html.Node) bool { return has(n, "data-open") })); w.Code != 200 || n == 0 {
			t.Errorf("%s: %d with %d messages: %s", q, w.Code, n, mainText(doc))
		}
	}
}

func TestSavedSearches(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	post := func(path string, f url.Values) *http.Response {
		t.Helper()
		req := httptest.NewRequest("POST", path, strings.NewReader(f.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		w := httptest.NewRecorder()
		u.ServeHTTP(w, req)
		return w.Result()
	}
	// The form as the page has it.
	fields := func(doc *html.Node, action string) url.Values {
		t.Helper()
		f := url.Values{}
		for _, n := range all(doc, func(n *html.Node) bool { return tag("form")(n) && attr(n, "action") == action }) {
			for _, i := range all(n, func(n *html.Node) bool { return tag("input")(n) && attr(n, "type") != "checkbox" }) {
				f.Set(attr(i, "name"), attr(i, "value"))
			}
		}
		if !f.Has("back") {
			t.Fatalf("no form %s", action)
		}
		return f
	}
	_, doc := get(t, u, "/messages?q=timeout&range=6h&cols=time,size&order=oldest&env=staging")
	f := fields(doc, "/messages/searches")
	f.Set("name", " Dead <today> ")
	res := post("/messages/searches", f)
	if res.StatusCode != 303 || form(t, res.Header.Get("Location")).Get("q") != "timeout" {
		t.Fatalf("save: %d to %s", res.StatusCode, res.Header.Get("Location"))
	}
	_, doc = get(t, u, "/messages?env=production")
	q := form(t, links(doc)["Dead <today>"])
	for name, want := range map[string]string{"q": "timeout", "range": "6h", "cols": "time,size", "order": "oldest", "env": "staging"} {
		if q.Get(name) != want {
			t.Errorf("the saved search has %s %q, want %q", name, q.Get(name), want)
		}
	}
	if w, _ := get(t, u, links(doc)["Dead <today>"]); w.Code != 200 {
		t.Errorf("opening it: %d", w.Code)
	}
	if res = post("/messages/searches", f); res.StatusCode != 409 {
		t.Errorf("the same name again: %d, want 409", res.StatusCode)
	}
	f.Set("name", "")
	if res = post("/messages/searches", f); res.StatusCode != 400 {
		t.Errorf("no name: %d, want 400", res.StatusCode)
	}
	// A fixed period is not saved, nor an environment that does not matter.
	_, doc = get(t, u, "/messages?q=x&from=2026-11-21T10:00:00Z&to=2026-11-21T11:00:00Z&env=staging")
	f = fields(doc, "/messages/searches")
	f.Set("name", "anywhere")
	f.Set("anyenv", "1")
	post("/messages/searches", f)
	_, doc = get(t, u, "/messages?env=production")
	if q = form(t, links(doc)["anywhere"]); q.Get("env") != "production" || q.Has("from") || q.Has("range") {
		t.Errorf("a search for any environment leads to %v", q)
	}
	action := ""
	for _, n := range all(doc, tag("form")) {
		if a := attr(n, "action"); strings.HasPrefix(a, "/messages/searches/") && strings.Contains(text(n), "Delete anywhere") {
			action = a
		}
	}
	f = fields(doc, action)
	f.Set("name", "elsewhere")
	if res = post(action, f); res.StatusCode != 303 || res.Header.Get("Location") != "/messages?env=production" {
		t.Errorf("rename: %d to %s", res.StatusCode, res.Header.Get("Location"))
	}
	if _, doc = get(t, u, "/messages"); links(doc)["elsewhere"] == "" || links(doc)["anywhere"] != "" {
		t.Errorf("after renaming: %v", links(doc))
	}
	if res = post(action+"/delete", url.Values{"back": {"//evil.example/"}}); res.StatusCode != 303 || !strings.HasPrefix(res.Header.Get("Location"), "/messages") {
		t.Errorf("delete: %d to %s", res.StatusCode, res.Header.Get("Location"))
	}
	if res = post(action+"/delete", url.Values{}); res.StatusCode != 404 {
		t.Errorf("delete twice: %d, want 404", res.StatusCode)
	}
	if _, doc = get(t, u, "/messages"); links(doc)["elsewhere"] != "" {
		t.Error("a deleted search is still there")
	}
}
