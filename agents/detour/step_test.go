package detour

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// watch is a flow that counts.
type watch struct {
	flushes, failures int
	err               error
}

func (w *watch) flush(context.Context) error { w.flushes++; return w.err }
func (w *watch) failed(string, error)        { w.failures++ }
func (w *watch) alive()                      {}

func itemOf(m *agents.Message) *item { return &item{src: m, msg: m, id: "d1:abc"} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refusedBy returns the reason of a refusal, and fails for any other error.
func refusedBy(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	r := (*refusal)(nil)
	if !errors.As(err, &r) {
		t.Fatalf("got error %v, want a refusal", err)
	}
	return r.reason
}

func TestValidate(t *testing.T) {
	t.Parallel()
	s, err := compile(controlbus.DetourStep{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(`{
		"type": "object", "required": ["id"], "properties": {"id": {"type": "integer", "minimum": 1}, "at": {"$ref": "#/$defs/at"}},
		"$defs": {"at": {"type": "string", "pattern": "^[0-9]{4}-"}}}`)}}, &allowList{})
	must(t, err)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(`{"id":7}`))
	must(t, z.Close())
	var bomb bytes.Buffer
	z = gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, maxInflated+1))
	must(t, z.Close())
	for _, c := range []struct{ name, body, encoding, want string }{
		{"right", `{"id":1,"at":"2026-01-01"}`, "", ""},
		{"gzip", zipped.String(), "gzip", ""},
		{"big number", `{"id":12345678901234567890}`, "", ""},
		{"missing", `{}`, "", "missing property"},
		{"type", `{"id":"1"}`, "", "at '/id'"},
		{"two faults", `{"id":0,"at":"x"}`, "", "; "},
		{"no JSON", `{"id":`, "", "not JSON"},
		{"trailing", `{"id":1} {}`, "", "not JSON"},
		{"empty", ``, "", "not JSON"},
		{"bomb", bomb.String(), "gzip", "larger than 16 MiB"},
		{"lies", `{"id":1}`, "gzip", "not gzip"},
		{"unknown encoding", `{"id":1}`, "br", `"br" cannot be validated`},
	} {
		err := s.do(t.Context(), itemOf(&agents.Message{Body: []byte(c.body), ContentEncoding: c.encoding}), &watch{})
		if got := refusedBy(t, err); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestBadSchema(t *testing.T) {
	t.Parallel()
	called := atomic.Int32{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		called.Add(1)
		_, _ = io.WriteString(w, `true`)
	}))
	defer srv.Close()
	for _, schema := range []string{
		`{"type":"nonsense"}`, `{"$ref":"` + srv.URL + `/x.json"}`, `{"$ref":"file:///etc/passwd"}`, `{"$schema":"` + srv.URL + `/draft"}`,
		`{"$ref":"#/$defs/none"}`, `{"pattern":"("}`, `[]`, `"x"`, `{`, `{"$ref":"other.json"}`,
	} {
		_, err := compileSchema(json.RawMessage(schema))
		if !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("schema %s: got %v, want %v", schema, err, controlbus.ErrInvalid)
		}
	}
	if called.Load() != 0 {
		t.Errorf("a schema made %d requests", called.Load())
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	src := &agents.Message{Headers: []agents.Field{{Key: "a", Value: "1"}, {Key: "b", Value: int64(2)}, {Key: "a", Value: "3"}, {Key: "c", Value: true}}}
	s, err := compile(controlbus.DetourStep{Headers: &controlbus.HeadersStep{Set: map[string]string{"c": "x", "d": "y"}, Remove: []string{"a"}}}, &allowList{})
	must(t, err)
	it := itemOf(src)
	must(t, s.do(t.Context(), it, &watch{}))
	want := []agents.Field{{Key: "b", Value: int64(2)}, {Key: "c", Value: "x"}, {Key: "d", Value: "y"}}
	if diff := cmp.Diff(want, it.msg.Headers); diff != "" {
		t.Error(diff)
	}
	if len(src.Headers) != 4 || src.Headers[3].Value != true {
		t.Errorf("the message as it was taken was changed: %v", src.Headers)
	}
	for _, bad := range []controlbus.HeadersStep{
		{Remove: []string{controlbus.HeaderHops}}, {Set: map[string]string{controlbus.HeaderDetour: "x"}}, {Set: map[string]string{"": "x"}}, {Remove: []string{"a\nb"}},
	} {
		if _, err := compile(controlbus.DetourStep{Headers: &bad}, &allowList{}); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("%+v: got %v, want %v", bad, err, controlbus.ErrInvalid)
		}
	}
}

func TestCopyIsAsItWas(t *testing.T) {
	t.Parallel()
	it := itemOf(&agents.Message{Body: []byte("x"), Headers: []agents.Field{{Key: "a", Value: "1"}}})
	for _, s := range []controlbus.DetourStep{{Copy: &controlbus.CopyStep{Channel: "audit"}}, {Headers: &controlbus.HeadersStep{Set: map[string]string{"a": "2"}}}} {
		c, err := compile(s, &allowList{})
		must(t, err)
		must(t, c.do(t.Context(), it, &watch{}))
	}
	if len(it.copies) != 1 || it.copies[0].channel != "audit" || it.copies[0].msg.Header("a") != "1" || it.msg.Header("a") != "2" {
		t.Errorf("got copies %+v and message %+v", it.copies, it.msg)
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := compile(controlbus.DetourStep{Rate: &controlbus.RateStep{PerSecond: 50}}, &allowList{})
		must(t, err)
		w, start := &watch{}, time.Now()
		for range 22 {
			must(t, s.do(t.Context(), itemOf(&agents.Message{}), w))
		}
		if took := time.Since(start).Round(time.Millisecond); took != 400*time.Millisecond || w.flushes != 20 {
			t.Errorf("22 messages at 50/s with a burst of 2: %v and %d flushes, want 400ms and 20", took, w.flushes)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.do(ctx, itemOf(&agents.Message{}), w); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v", err)
		}
	})
}

func httpStepFor(t *testing.T, cfg controlbus.HTTPStep, allow ...string) step {
	t.Helper()
	l, err := parseAllow(allow)
	must(t, err)
	s, err := newHTTPStep(cfg, l)
	must(t, err)
	t.Cleanup(s.close)
	return s
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	var got http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.Header
		switch r.URL.Path {
		case "/ok/echo":
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write(append([]byte("seen "), body...))
		case "/ok/refuse":
			w.WriteHeader(422)
			_, _ = io.WriteString(w, "bad\x00\norder")
		case "/ok/late":
			if tries.Add(1) < 3 {
				w.WriteHeader([]int{503, 429}[tries.Load()-1])
			}
		case "/ok/never":
			tries.Add(1)
			w.WriteHeader(500)
		case "/ok/moved":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/ok/big":
			_, _ = w.Write(make([]byte, maxReply+1))
		case "/ok/slow":
			<-r.Context().Done()
		default:
			t.Errorf("called %s", r.URL.Path)
		}
	}))
	defer srv.Close()
	allow := srv.URL + "/ok/"
	do := func(cfg controlbus.HTTPStep, m *agents.Message) (*item, *watch, error) {
		it, w := itemOf(m), &watch{}
		cfg.URL = srv.URL + cfg.URL
		return it, w, httpStepFor(t, cfg, allow).do(t.Context(), it, w)
	}
	m := &agents.Message{Body: []byte("x"), MessageID: "m\r\n1%", ContentType: "application/json", Headers: []agents.Field{
		{Key: "tenant", Value: "äcme"}, {Key: "n", Value: int64(5)}, {Key: "bad name", Value: "x"}, {Key: "huge", Value: strings.Repeat("x", maxHTTPHeaders)}}}

	it, w, err := do(controlbus.HTTPStep{URL: "/ok/echo"}, m)
	must(t, err)
	if string(it.msg.Body) != "x" || w.flushes != 1 {
		t.Errorf("got body %q and %d flushes, want x and 1", it.msg.Body, w.flushes)
	}
	for k, want := range map[string]string{
		"X-Signalbox-Detour": "d1:abc", "X-Signalbox-Message-Id": "m%0D%0A1%25", "Content-Type": "application/json",
		"X-Signalbox-Header-Tenant": "%C3%A4cme", "X-Signalbox-Header-N": "5", "X-Signalbox-Header-Huge": "",
	} {
		if v := got.Get(k); v != want {
			t.Errorf("header %s: got %q, want %q", k, v, want)
		}
	}
	it, _, err = do(controlbus.HTTPStep{URL: "/ok/echo", Replace: true}, m)
	must(t, err)
	if string(it.msg.Body) != "seen x" || it.msg.ContentType != "text/plain" || string(m.Body) != "x" {
		t.Errorf("got %q of type %q, source %q", it.msg.Body, it.msg.ContentType, m.Body)
	}
	_, w, err = do(controlbus.HTTPStep{URL: "/ok/refuse", Retries: 5}, m)
	if r := refusedBy(t, err); r != "the endpoint answered 422: bad  order" || w.failures != 1 {
		t.Errorf("got %q after %d attempts", r, w.failures)
	}
	_, w, err = do(controlbus.HTTPStep{URL: "/ok/late", Retries: 3}, m)
	if err != nil || w.failures != 2 {
		t.Errorf("got %v after %d failures, want to pass after 2", err, w.failures)
	}
	tries.Store(0)
	_, _, err = do(controlbus.HTTPStep{URL: "/ok/never", Retries: 2}, m)
	if r := refusedBy(t, err); !strings.Contains(r, "3 attempts") || tries.Load() != 3 {
		t.Errorf("got %q after %d", r, tries.Load())
	}
	_, _, err = do(controlbus.HTTPStep{URL: "/ok/moved"}, m)
	if r := refusedBy(t, err); !strings.Contains(r, "answered 302") {
		t.Errorf("redirect: got %q", r)
	}
	_, _, err = do(controlbus.HTTPStep{URL: "/ok/big", Replace: true}, m)
	if r := refusedBy(t, err); !strings.Contains(r, "larger than 1 MiB") {
		t.Errorf("big answer: got %q", r)
	}
	_, _, err = do(controlbus.HTTPStep{URL: "/ok/slow", Timeout: 50 * time.Millisecond}, m)
	if r := refusedBy(t, err); !strings.Contains(r, "deadline") {
		t.Errorf("slow endpoint: got %q", r)
	}
}

func TestAllowedURLs(t *testing.T) {
	t.Parallel()
	l, err := parseAllow([]string{"https://hooks.example.com/sb/", "http://10.0.0.5:8080/check", "HTTPS://Api.Example.com:443"})
	must(t, err)
	for url, want := range map[string]error{
		"https://hooks.example.com/sb/x?y=1":     nil,
		"https://hooks.example.com:443/sb/":      nil,
		"https://HOOKS.example.com/sb/a/b":       nil,
		"http://10.0.0.5:8080/check":             nil,
		"http://10.0.0.5:8080/check/more":        nil,
		"https://api.example.com/anything":       nil,
		"https://hooks.example.com/sb":           controlbus.ErrDenied,
		"https://hooks.example.com/sbx":          controlbus.ErrDenied,
		"http://hooks.example.com/sb/":           controlbus.ErrDenied,
		"https://hooks.example.com:8443/sb/":     controlbus.ErrDenied,
		"https://hooks.example.com.evil.org/sb/": controlbus.ErrDenied,
		"http://10.0.0.5:8080/checkmate":         controlbus.ErrDenied,
		"http://10.0.0.5/check":                  controlbus.ErrDenied,
		"https://hooks.example.com/sb/../admin":  controlbus.ErrInvalid,
		"https://hooks.example.com/sb/%2e%2e/x":  controlbus.ErrInvalid,
		"https://hooks.example.com/sb/..%2fx":    controlbus.ErrInvalid,
		"https://hooks.example.com/sb/a%5C..":    controlbus.ErrInvalid,
		"https://hooks.example.com/sb//x":        controlbus.ErrInvalid,
		"https://u:p@hooks.example.com/sb/":      controlbus.ErrInvalid,
		"https://hooks.example.com/sb/#x":        controlbus.ErrInvalid,
		"file:///etc/passwd":                     controlbus.ErrInvalid,
		"gopher://hooks.example.com/sb/":         controlbus.ErrInvalid,
		"https:hooks.example.com/sb/":            controlbus.ErrInvalid,
		"//hooks.example.com/sb/":                controlbus.ErrInvalid,
		"":                                       controlbus.ErrInvalid,
	} {
		if _, err := l.check(url); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", url, err, want)
		}
	}
	if _, err := (&allowList{}).check("https://hooks.example.com/sb/"); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("without an entry: got %v, want %v", err, controlbus.ErrDenied)
	}
	err = ParseHTTPAllow([]string{"https://ok.example.com", "ftp://x", "https://x/?q=1", "10.0.0.0/8", "nonsense"})
	for _, want := range []string{"http_allow[1]", "http_allow[2]", "http_allow[4]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseHTTPAllow: got %v, want %s in it", err, want)
		}
	}
	if err != nil && (strings.Contains(err.Error(), "http_allow[0]") || strings.Contains(err.Error(), "http_allow[3]")) {
		t.Errorf("ParseHTTPAllow refuses what is right: %v", err)
	}
}

func TestReach(t *testing.T) {
	t.Parallel()
	l, err := parseAllow([]string{"http://validator.internal/", "http://10.0.0.5:8080/", "http://localhost:1/", "http://[::1]:1/", "10.1.0.0/16", "169.254.0.0/16", "http://169.254.169.254/"})
	must(t, err)
	for _, c := range []struct {
		host, addr string
		ok         bool
	}{
		{"validator.internal", "93.184.216.34", true},
		{"validator.internal", "2606:2800:220:1::1", true},
		{"validator.internal", "10.1.2.3", true}, // the prefix is listed
		{"validator.internal", "10.2.0.1", false},
		{"validator.internal", "127.0.0.1", false},
		{"validator.internal", "::1", false},
		{"validator.internal", "::ffff:127.0.0.1", false},
		{"validator.internal", "::ffff:10.1.0.1", true},
		{"validator.internal", "64:ff9b::a9fe:a9fe", false},
		{"validator.internal", "64:ff9b::7f00:1", false},
		{"validator.internal", "2002:7f00:1::", false},
		{"validator.internal", "0.0.0.0", false},
		{"validator.internal", "::", false},
		{"validator.internal", "100.64.0.1", false},
		{"validator.internal", "192.168.1.1", false},
		{"validator.internal", "172.16.0.1", false},
		{"validator.internal", "fd00::1", false},
		{"validator.internal", "fe80::1%eth0", false},
		{"validator.internal", "224.0.0.1", false},
		{"validator.internal", "10.0.0.5", false}, // listed, but as another host
		{"10.0.0.5", "10.0.0.5", true},
		{"localhost", "127.0.0.1", true},
		{"localhost", "::1", true},
		{"::1", "::1", true},
		{"169.254.169.254", "169.254.169.254", false}, // whatever the list says
		{"validator.internal", "100.100.100.200", false},
		{"validator.internal", "fd00:ec2::254", false},
	} {
		if err := l.reach(c.host, netip.MustParseAddr(c.addr)); (err == nil) != c.ok {
			t.Errorf("%s as %s: got %v, want allowed %v", c.host, c.addr, err, c.ok)
		}
	}
}

// TestGuardedDial goes through the real dialer: a name that is allowed, and leads
// to this machine, is not called.
func TestGuardedDial(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	port := srv.URL[strings.LastIndexByte(srv.URL, ':'):]
	must(t, httpStepFor(t, controlbus.HTTPStep{URL: "http://127.0.0.1" + port}, "http://127.0.0.1"+port).do(t.Context(), itemOf(&agents.Message{}), &watch{}))
	must(t, httpStepFor(t, controlbus.HTTPStep{URL: "http://localhost" + port}, "http://localhost"+port).do(t.Context(), itemOf(&agents.Message{}), &watch{}))
	for _, host := range []string{"localhost.localdomain", "2130706433", "127.1", "0x7f000001", "[::ffff:127.0.0.2]"} {
		err := httpStepFor(t, controlbus.HTTPStep{URL: "http://" + host + port, Timeout: 2 * time.Second}, "http://"+host+port).do(t.Context(), itemOf(&agents.Message{}), &watch{})
		if host == "[::ffff:127.0.0.2]" { // named literally: it may be dialled
			continue
		}
		if err == nil {
			t.Errorf("%s was called", host)
		}
	}
}

func TestMarks(t *testing.T) {
	t.Parallel()
	installed := time.UnixMilli(1_000_000)
	k := newMarker("agent,1", "or;ders", "d1", installed)
	m := &agents.Message{MessageID: "m1", Body: []byte("x"), Headers: []agents.Field{{Key: controlbus.HeaderHops, Value: "other@c;5"}}}
	it := &item{src: m, msg: m, id: k.id(m, false)}
	k.stamp(it, installed.Add(time.Second))
	if got, want := it.msg.Header(controlbus.HeaderHops), "other@c;5,agent%2C1@or%3Bders;1001000"; got != want {
		t.Errorf("hops: got %q, want %q", got, want)
	}
	if got := it.msg.Header(controlbus.HeaderDetour); got != "d1:"+messageKey(m) {
		t.Errorf("detour: got %q", got)
	}
	if k.circles(m) || !k.circles(it.msg) {
		t.Errorf("circles: got %v before and %v after it went on", k.circles(m), k.circles(it.msg))
	}
	if newMarker("agent,1", "or;ders", "d2", installed.Add(time.Minute)).circles(it.msg) {
		t.Error("a later detour of the same channel takes an earlier one's hop for a circle")
	}
	if newMarker("agent,1", "other", "d1", installed).circles(it.msg) {
		t.Error("another channel's detour sees a circle")
	}
	if id := k.id(it.msg, true); id != it.id {
		t.Errorf("second stage: got id %q, want %q", id, it.id)
	}
	if id := k.id(&agents.Message{Headers: []agents.Field{{Key: controlbus.HeaderDetour, Value: "d1:" + strings.Repeat("x", 100)}}}, true); len(id) > 60 {
		t.Errorf("a long id was taken over: %q", id)
	}
	for i := range 40 {
		m = &agents.Message{Headers: it.msg.Headers}
		it = &item{src: m, msg: m, id: "x"}
		newMarker("a", strings.Repeat("c", i+1), "d", installed).stamp(it, installed)
	}
	if n := strings.Count(it.msg.Header(controlbus.HeaderHops), ",") + 1; n != maxHops {
		t.Errorf("%d hops, want %d", n, maxHops)
	}
	same, other := *m, *m
	same.Position, same.Deliveries, same.Headers = "99", 7, nil
	other.Body = []byte("y")
	if messageKey(m) != messageKey(&same) || messageKey(m) == messageKey(&other) {
		t.Error("the key changes with what changes at delivery, or not with the body")
	}
}
