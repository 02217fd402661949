package ui_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/live"
)

// contract holds answers to what the console's own OpenAPI document says.
type contract struct {
	doc    *openapi3.T
	router routers.Router
}

func init() {
	// A file is text to the contract; what is in it has tests of its own.
	for _, kind := range []string{"application/x-ndjson", "application/vnd.apache.parquet", "application/yaml"} {
		openapi3filter.RegisterBodyDecoder(kind, func(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
			b, err := io.ReadAll(body)
			return string(b), err
		})
	}
}

func loadContract(t testing.TB, h http.Handler) *contract {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/openapi.json", nil))
	if w.Code != 200 {
		t.Fatalf("openapi.json: %d %s", w.Code, w.Body)
	}
	doc, err := openapi3.NewLoader().LoadFromData(w.Body.Bytes())
	if err != nil {
		t.Fatalf("openapi.json: %v", err)
	}
	if err := doc.Validate(context.Background()); err != nil {
		t.Fatalf("openapi.json: %v", err)
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return &contract{doc, router}
}

// call asks for a path and checks that question and answer are as described.
// Refusals are asked for on purpose, so only the answer counts there.
func (c *contract) call(t testing.TB, h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	ask := func() *http.Request {
		again := r.Clone(r.Context())
		if r.GetBody != nil {
			again.Body, _ = r.GetBody()
		}
		return again
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, ask())
	route, params, err := c.router.FindRoute(ask())
	if err != nil {
		t.Fatalf("%s %s is not described: %v", r.Method, r.URL, err)
	}
	in := &openapi3filter.RequestValidationInput{
		Request: ask(), PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}, // package guard has tests of its own
	}
	if w.Code < 400 {
		if err := openapi3filter.ValidateRequest(r.Context(), in); err != nil {
			t.Errorf("%s %s was taken, and the document refuses it: %v", r.Method, r.URL, err)
		}
	}
	out := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: w.Code, Header: w.Header(), Body: io.NopCloser(bytes.NewReader(w.Body.Bytes())),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(r.Context(), out); err != nil {
		t.Errorf("%s %s answers %d otherwise than described: %v", r.Method, r.URL, w.Code, err)
	}
	return w
}

func request(method, path string, body any) *http.Request {
	if body == nil {
		return httptest.NewRequest(method, path, nil)
	}
	b, _ := json.Marshal(body)
	r := httptest.NewRequest(method, path, bytes.NewReader(b))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	r.Header.Set("Content-Type", "application/json")
	return r
}

// fetch asks, wants a status, and reads the answer's JSON.
func fetch(t testing.TB, c *contract, h http.Handler, path string, status int) map[string]any {
	t.Helper()
	w := c.call(t, h, request("GET", path, nil))
	if w.Code != status {
		t.Fatalf("%s: got %d %s, want %d", path, w.Code, w.Body, status)
	}
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		t.Fatalf("%s: %v in %s", path, err, w.Body)
	}
	return out
}

const v1 = "/api/v1"

func TestEveryAnswerOfTheAPIIsAsDescribed(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	h := newUI(t, s, r, noLive)
	c := loadContract(t, h)
	dead := s.messages[0].UID.String()
	asked := map[string]bool{}
	for path, want := range map[string]int{
		"/version": 200, "/whoami": 200, "/environments": 200, "/overview": 200, "/overview?env=production&range=6h": 200, "/health": 200, "/store": 200,
		"/channels": 200, "/channels?env=production&name=orders.*&limit=3": 200, "/channels?range=forever": 400,
		"/channel?broker=rabbit-eu1&name=payments.capture&env=production": 200, "/channel?broker=rabbit-eu1&name=nowhere": 404, "/channel": 400,
		"/messages": 200, "/messages?q=failed:true&limit=5&order=oldest&snippets=true": 200, "/messages?q=chanel:orders": 400, "/messages?limit=0": 400, "/messages?limit=1001": 400,
		"/messages?from=2026-11-21T14:00:00Z&to=2026-11-21T14:20:59.5Z": 200, "/messages?from=2026-11-21T15:00:00Z&to=2026-11-21T14:00:00Z": 400,
		"/messages?q=" + strings.Repeat("x", 4097): 400, "/messages?q=time+%3E+now-15m&now=2026-11-21T14:00:00Z": 200, "/messages?now=soon": 400, "/messages?cursor=zzz": 400, "/messages?order=up": 400, "/messages?snippets=yes": 400,
		"/messages/" + dead: 200, "/messages/" + dead + "?body=base64&at=2026-11-21T14:20:59Z": 200, "/messages/" + dead + "?body=none": 200, "/messages/xyz": 400, "/messages/" + strings.Repeat("00", 16): 404,
		"/messages/histogram": 200, "/messages/histogram?q=failed:true&bars=10&range=6h": 200, "/messages/histogram?bars=0": 400,
		"/invalid": 200, "/invalid?limit=2&data=true": 200, "/filter": 200, "/filter/check?q=failed:true+size+%3E+3": 200, "/filter/check?q=(": 400,
		"/messages/export": 200, "/messages/export?format=xml": 400, "/messages/export?limit=0": 400, "/messages/export?format=csv&q=failed:true&bodies=true": 200,
		"/messages/" + dead + "/body": 200, "/messages/" + dead + "/history": 200, "/messages/" + dead + "/history?limit=2": 200,
		"/history?correlation_id=" + s.messages[0].CorrelationID: 200, "/history?trace_id=5B8A0000000000000000000000000000": 200, "/history?message_id=x": 200, "/history": 400, "/history?trace_id=xyz": 400,
		"/agents": 200, "/agents?env=production": 200, "/taps": 200, "/taps?broker=rabbit-eu1": 200, "/openapi.json": 200,
		"/probes": 200, "/probes?env=staging": 200, "/probes/p1": 200, "/probes/none": 404, "/probes/p1/runs": 200, "/probes/p1/runs?limit=2&before=099": 200, "/probes/p1/runs?limit=0": 400,
	} {
		if w := c.call(t, h, request("GET", v1+path, nil)); w.Code != want {
			t.Errorf("%s: got %d %s, want %d", path, w.Code, w.Body, want)
		} else if w.Code == 200 && w.Header().Get("Cache-Control") != "no-store" && path != "/openapi.json" {
			t.Errorf("%s may be kept by a cache: it shows what messages hold", path)
		}
		asked[strings.SplitN(path, "?", 2)[0]] = true
	}
	for path, item := range c.doc.Paths.Map() {
		if item.Get != nil && (slices.Contains(item.Get.Tags, "commands") || path == "/audit") {
			continue // api_commands_test.go tries them
		}
		if item.Get != nil && !asked[strings.NewReplacer("{uid}", dead, "/probes/{id}", "/probes/p1").Replace(path)] && path != "/openapi.yaml" && path != "/live" {
			t.Errorf("GET %s is described and was not tried", path)
		}
	}

	s.err = fmt.Errorf("engine restarts: %w", controlbus.ErrUnavailable)
	for _, path := range []string{"/environments", "/overview", "/health", "/store", "/channels", "/channel?broker=a&name=b", "/messages", "/messages/" + dead, "/messages/" + dead + "/body", "/history?message_id=x"} {
		w := c.call(t, h, request("GET", v1+path, nil))
		if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "engine restarts") {
			t.Errorf("%s with the store away: got %d %s, want 503 and the reason", path, w.Code, w.Body)
		}
	}
}

func TestAProblemDocumentSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	h := newUI(t, s, r, noLive)
	for _, tc := range []struct {
		method, path string
		status       int
		kind, detail string
	}{
		{"GET", "/messages?quary=x", 400, "invalid", `unknown parameter "quary": want q, env, from`},
		{"GET", "/version?x=1", 400, "invalid", `unknown parameter "x": none is taken here`},
		{"GET", "/messages?env=a&env=b", 400, "invalid", `parameter "env" is given 2 times`},
		{"GET", "/messages?q=" + url.QueryEscape("failed:true chanel:x"), 400, "filter", "position 13"},
		{"GET", "/nothing", 404, "not-found", "openapi.json"},
		{"POST", "/messages", 405, "method", "want GET"},
		{"PUT", "/taps", 405, "method", "want DELETE, GET, POST"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tc.method, v1+tc.path, nil))
		var p struct {
			Type, Title, Detail, Instance, Reference, Hint string
			Status                                         int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Errorf("%s %s: %v in %q", tc.method, tc.path, err, w.Body)
			continue
		}
		if w.Code != tc.status || p.Status != tc.status || p.Type != "tag:signalbox.dev,2026:problem:"+tc.kind || !strings.Contains(p.Detail, tc.detail) || p.Title == "" || p.Reference == "" ||
			p.Instance != v1+strings.SplitN(tc.path, "?", 2)[0] || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: got %d %s, want %d %s with %q", tc.method, tc.path, w.Code, w.Body, tc.status, tc.kind, tc.detail)
		}
	}
	// A filter's mistake has its place.
	parses := live.SourceFunc(func(q controlbus.LiveQuery, _ controlbus.LiveReader) (live.Subscription, error) {
		_, err := filter.Parse(q.Filter, now)
		return newFakeTap(), err
	})
	for _, path := range []string{"/live?filter=", "/messages?q=", "/messages/export?q="} {
		w := httptest.NewRecorder()
		newUI(t, s, r, parses).ServeHTTP(w, httptest.NewRequest("GET", v1+path+url.QueryEscape("size > 3 AND chanel:x"), nil))
		var p struct {
			Type, Detail, Suggestion string
			Position, Length         int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 400 || !strings.HasSuffix(p.Type, ":filter") || p.Position != 13 || p.Length != 6 || p.Suggestion != "channel" {
			t.Errorf("%s with a wrong filter: got %d %s", path, w.Code, w.Body)
		}
	}
	// What is not foreseen may hold what only the log should.
	s.err = fmt.Errorf("dial tcp: password=hunter2")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", v1+"/messages", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "hunter2") {
		t.Errorf("an unforeseen error: got %d %s", w.Code, w.Body)
	}
}

// Pages are followed by the Link header until it is gone: nothing is missed and
// nothing comes twice, though the clock goes on meanwhile.
func TestPagesOfTheAPIAreFollowedByTheirLink(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	h := newUI(t, s, r, noLive)
	c := loadContract(t, h)
	link := regexp.MustCompile(`^<([^>]+)>; rel="next"$`)
	seen := map[string]bool{}
	pages := 0
	for path := v1 + "/messages?env=production&limit=50&range=1h"; path != ""; pages++ {
		w := c.call(t, h, request("GET", path, nil))
		var page struct {
			Messages []struct{ UID string }
			Next     string
			Scan     struct{ Stopped, From string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Messages {
			if seen[m.UID] {
				t.Fatalf("message %s comes twice", m.UID)
			}
			seen[m.UID] = true
		}
		path = ""
		if m := link.FindStringSubmatch(w.Header().Get("Link")); m != nil {
			path = m[1]
			if strings.Contains(path, "range=") || !strings.Contains(path, "from=2026-11-21T13") || !strings.Contains(path, "env=production") {
				t.Fatalf("next is %s, want the ends of the range", path)
			}
		}
		if (path == "") != (page.Next == "") || (path == "") != (page.Scan.Stopped == "end") {
			t.Errorf("link %q, next %q, stopped %q do not agree", path, page.Next, page.Scan.Stopped)
		}
	}
	if len(seen) != len(s.messages) || pages != 3 {
		t.Errorf("got %d messages on %d pages, want %d on 3", len(seen), pages, len(s.messages))
	}
	w := c.call(t, h, request("GET", v1+"/messages?limit=2&q=time+%3E+now-15m", nil))
	if l := w.Header().Get("Link"); !strings.Contains(l, "now=2026-11-21T14%3A20%3A59.87Z") {
		t.Errorf("the next page would read now otherwise: %s", l)
	}
	s.stopped = storage.StopDeadline
	got := fetch(t, c, h, v1+"/messages?q=timeout", 200)
	if got["scan"].(map[string]any)["stopped"] != "deadline" || got["next"] == nil {
		t.Errorf("a search out of time: got %v", got["scan"])
	}
}

func TestTheAPIKeepsNumbersTimesAndBytes(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	m := event(now.Add(-time.Second), "kafka", "kafka-eu1", "raw", controlbus.OpProcess, controlbus.OutcomeOK, 999)
	m.Time, m.Position, m.LatencyNs = now.UnixNano()-7, 9007199254740993, 9007199254740995
	m.Body, m.BodySize, m.Truncated, m.Redacted = []byte("\xff\x00<script>"), 9000, true, []string{"card.pan"}
	m.Headers = []controlbus.Header{{Key: "b", Value: "2"}, {Key: "a", Value: "1"}, {Key: "b", Value: "<\x1b[31m"}}
	m.ContentType = "text/html; charset=utf-8"
	s.messages = append(s.messages, m)
	h := newUI(t, s, r, noLive)
	c := loadContract(t, h)
	got := fetch(t, c, h, v1+"/messages/"+m.UID.String(), 200)
	body := got["body"].(map[string]any)
	for name, want := range map[string]any{"position": "9007199254740993", "latency_ns": "9007199254740995", "time": "2026-11-21T14:20:59.869999993Z", "channel": "raw"} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
	raw, err := base64.StdEncoding.DecodeString(body["content"].(string))
	if err != nil || body["encoding"] != "base64" || string(raw) != string(m.Body) {
		t.Errorf("body: got %v %q %v, want the bytes in base64", body, raw, err)
	}
	if body["size"] != 9000.0 || body["bytes"] != 10.0 || body["truncated"] != true {
		t.Errorf("body says %v, want 10 of 9000 bytes, cut", body)
	}
	want := []any{map[string]any{"name": "b", "value": "2"}, map[string]any{"name": "a", "value": "1"}, map[string]any{"name": "b", "value": "<\x1b[31m"}}
	if d := cmp.Diff(want, got["headers"]); d != "" {
		t.Errorf("headers: %s", d)
	}
	if got := fetch(t, c, h, v1+"/messages/"+s.messages[0].UID.String(), 200)["body"].(map[string]any); got["encoding"] != "text" || got["content"] != string(s.messages[0].Body) {
		t.Errorf("a body of text: got %v", got)
	}
	w := c.call(t, h, request("GET", v1+"/messages/"+m.UID.String()+"/body", nil))
	if w.Body.String() != string(m.Body) || w.Header().Get("Content-Type") != "application/octet-stream" || w.Header().Get("Signalbox-Content-Type") != m.ContentType || w.Header().Get("Signalbox-Body-Size") != "9000" {
		t.Errorf("body download: %q %v", w.Body, w.Header())
	}
}

func TestTapsAreAskedForAndReleasedThroughTheAPI(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	h := newUI(t, s, r, noLive)
	c := loadContract(t, h)
	ask := map[string]any{"env": "production", "system": "rabbitmq", "broker": "rabbit-eu1", "channel": "notifications.email", "reason": "mail is late", "lease": "1h"}
	w := c.call(t, h, request("POST", v1+"/taps", ask))
	var tap struct{ ID, Agent, State, Owner, Until string }
	if err := json.Unmarshal(w.Body.Bytes(), &tap); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusAccepted || tap.State != "asked" || tap.Owner != "anonymous" || tap.Agent != "rabbit-eu1-a" || tap.Until != "2026-11-21T15:20:59.870000000Z" || len(r.asked) != 1 {
		t.Fatalf("got %d %s and %d taps", w.Code, w.Body, len(r.asked))
	}
	for field, bad := range map[string]any{"reason": "", "lease": "99h", "broker": "nats-eu1", "channel": "", "chanel": "x"} {
		f := map[string]any{}
		for k, v := range ask {
			f[k] = v
		}
		f[field] = bad
		if w := c.call(t, h, request("POST", v1+"/taps", f)); w.Code < 400 || w.Code >= 500 && field != "broker" || len(r.asked) != 1 {
			t.Errorf("%s=%q: got %d %s and %d taps, want a refusal", field, bad, w.Code, w.Body, len(r.asked))
		}
	}
	form := request("POST", v1+"/taps", ask)
	form.Header.Set("Content-Type", "text/plain") // what a page of another site may send without being asked
	if w := c.call(t, h, form); w.Code != 400 || len(r.asked) != 1 {
		t.Errorf("a body that is no JSON: got %d", w.Code)
	}
	cross := request("POST", v1+"/taps", ask)
	cross.Header.Set("Sec-Fetch-Site", "cross-site")
	if w := c.call(t, h, cross); w.Code != 403 || len(r.asked) != 1 {
		t.Errorf("another site's request: got %d %s", w.Code, w.Body)
	}
	if w := c.call(t, h, request("DELETE", v1+"/taps?"+url.Values{"agent": {tap.Agent}, "id": {tap.ID}}.Encode(), nil)); w.Code != 204 || len(r.released) != 1 || r.released[0] != tap.Agent+"/"+tap.ID {
		t.Errorf("release: got %d %s and %q", w.Code, w.Body, r.released)
	}
	if w := c.call(t, h, request("DELETE", v1+"/taps?agent=x", nil)); w.Code != 400 {
		t.Errorf("release of nothing: got %d", w.Code)
	}
	none := newUI(t, s, nil, noLive)
	if w := c.call(t, none, request("GET", v1+"/agents", nil)); w.Code != 404 {
		t.Errorf("agents of a console without: got %d", w.Code)
	}
}
