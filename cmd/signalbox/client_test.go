package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// screen is a terminal that remembers.
type screen struct {
	*terminal
	out, err bytes.Buffer
}

func newScreen(t *testing.T, env map[string]string) *screen {
	t.Helper()
	s := &screen{terminal: &terminal{}}
	all := map[string]string{"HOME": t.TempDir()}
	for k, v := range env {
		all[k] = v
	}
	*s.terminal = terminal{in: strings.NewReader(""), out: &s.out, err: &s.err, env: func(k string) string { return all[k] }}
	return s
}

func problemOf(status int, kind, detail string) string {
	said, _ := json.Marshal(detail)
	return fmt.Sprintf(`{"type":"tag:signalbox.dev,2026:problem:%s","title":"t","status":%d,"detail":%s,"instance":"/x","reference":"REF1"}`, kind, status, said)
}

const emptyPage = `{"messages":[],"scan":{"rows":0,"bytes":0,"elapsed_ms":1,"from":"2026-11-21T14:00:00.000000000Z","to":"2026-11-21T15:00:00.000000000Z","reached":"2026-11-21T14:00:00.000000000Z","stopped":"end"}}`

// answers serves one answer to everything.
func answers(t *testing.T, status int, kind, body string) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestAnswersBecomeExitCodes(t *testing.T) {
	t.Parallel()
	const problem = "application/problem+json"
	for _, tc := range []struct {
		status     int
		kind, body string
		code       int
		says       string
	}{
		{200, "application/json", emptyPage, 0, ""},
		{400, problem, problemOf(400, "invalid", "position 8: no field \x1b[31m"), exitUsage, "position 8: no field ␛[31m"},
		{413, problem, problemOf(413, "too-large", "filter"), exitUsage, "filter"},
		{401, problem, problemOf(401, "unauthenticated", "who"), exitDenied, "not signed in"},
		{403, problem, problemOf(403, "denied", "body.read: the role viewer"), exitDenied, "body.read: the role viewer"},
		{404, problem, problemOf(404, "not-found", "message x"), exitNothing, "message x"},
		{429, problem, problemOf(429, "overloaded", "4 exports"), exitNoAnswer, "4 exports"},
		{503, problem, problemOf(503, "unavailable", "engine restarts"), exitNoAnswer, "engine restarts"},
		{500, problem, problemOf(500, "internal", "The page could not be made."), exitError, "REF1"},
		{404, "text/html", "<h1>nginx</h1>", exitNoAnswer, "no Signalbox console"},
		{200, "text/html", "<h1>welcome</h1>", exitNoAnswer, "no Signalbox console"},
		{502, "text/plain", "bad gateway", exitNoAnswer, "no Signalbox console"},
	} {
		s := newScreen(t, map[string]string{"SIGNALBOX_URL": answers(t, tc.status, tc.kind, tc.body)})
		err := s.search(t.Context(), nil)
		if exitCode(err) != tc.code || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%d %s: got %d, %v; want %d and %q", tc.status, tc.kind, exitCode(err), err, tc.code, tc.says)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\x1b\x07") {
			t.Errorf("%d: %q steers a terminal", tc.status, err)
		}
	}
}

// A token goes to the console it is for, and nowhere else.
func TestATokenGoesNowhereElse(t *testing.T) {
	t.Parallel()
	var other atomic.Value
	other.Store("nothing was asked")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		other.Store(r.Header.Get("Authorization"))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, emptyPage)
	}))
	defer elsewhere.Close()
	var sends atomic.Bool
	own := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sends.Load() {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer sbx_own" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, problemOf(401, "unauthenticated", "this token has expired"))
			return
		}
		if strings.HasSuffix(r.URL.Path, "/whoami") {
			fmt.Fprint(w, `{"name":"mia","kind":"token","grants":[]}`)
			return
		}
		fmt.Fprint(w, emptyPage)
	}))
	defer own.Close()
	env := map[string]string{}
	s := newScreen(t, env)
	path, _ := s.loginFile()

	// Without a token, and nobody to ask for one.
	if err := s.login(t.Context(), []string{own.URL}); exitCode(err) != exitDenied || !strings.Contains(err.Error(), "--token-stdin") {
		t.Fatalf("login without a token: %v", err)
	}
	s.in = strings.NewReader("sbx_wrong\n")
	if err := s.login(t.Context(), []string{own.URL, "--token-stdin"}); exitCode(err) != exitDenied || !strings.Contains(err.Error(), "has expired") || strings.Contains(err.Error(), "sbx_wrong") {
		t.Fatalf("login with a wrong token: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a token that is not taken was kept")
	}
	s.in = strings.NewReader("sbx_own\n")
	if err := s.login(t.Context(), []string{own.URL + "/", "--token-stdin"}); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v %v, want mode %o", p, info, err, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".login-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if err := s.search(t.Context(), nil); err != nil {
		t.Errorf("search with the token that was kept: %v", err)
	}
	if err := s.search(t.Context(), []string{"--url", elsewhere.URL}); err != nil || other.Load() != "" {
		t.Errorf("another console was shown %q (%v)", other.Load(), err)
	}
	other.Store("nothing was asked")
	sends.Store(true)
	if err := s.search(t.Context(), nil); exitCode(err) != exitNoAnswer || !strings.Contains(err.Error(), "sends on to "+elsewhere.URL) || other.Load() != "nothing was asked" {
		t.Errorf("a redirect: %v, and %q was shown there", err, other.Load())
	}
	sends.Store(false)
	env2 := newScreen(t, map[string]string{"SIGNALBOX_URL": own.URL, "SIGNALBOX_TOKEN": "sbx_own"})
	if err := env2.search(t.Context(), nil); err != nil {
		t.Errorf("token of the environment: %v", err)
	}
}

func TestColoursAreForTerminals(t *testing.T) {
	t.Parallel()
	s := newScreen(t, nil)
	s.colour, s.tty = true, true
	tb := s.table("A", "#B")
	tb.add(painted{"x\x1b[2J", red}, "7")
	tb.add("longer than x", painted{"", green})
	tb.flush()
	if got, want := s.out.String(), "\x1b[2mA\x1b[0m              \x1b[2mB\x1b[0m\n\x1b[31mx␛[2J\x1b[0m          7\nlonger than x   \n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.out.Reset()
	s.json([]byte("{\"a\":\"b\u009b\u202e\U000e0001é\\u001b\"}\n"))
	if got, want := s.out.String(), `{"a":"b\u009b\u202e\udb40\udc01é\u001b"}`+"\n"; got != want {
		t.Errorf("JSON: got %q, want %q", got, want)
	}
}

func TestSpansAndTimes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"15m": 15 * time.Minute, "7d": 7 * 24 * time.Hour, "0.5d": 12 * time.Hour, "1h30m": 90 * time.Minute} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "d", "-1h", "0s", "yesterday", "1e9d", "NaNd"} {
		if got, err := parseSpan(bad); err == nil {
			t.Errorf("%q: got %v", bad, got)
		}
	}
}

// TestATapComesBack breaks the connection: the tap goes on with the token it
// has, says how that went, and stops coming back when it is told to.
func TestATapComesBack(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	up := websocket.Upgrader{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/whoami") { // the filter looks into payloads
			fmt.Fprint(w, `{"name":"mia","kind":"token","grants":[],"actions":["live.tap","body.read"]}`)
			return
		}
		n := opened.Add(1)
		if r.Header.Get("Origin") != "http://"+r.Host || r.URL.Query().Get("form") != "event" || r.URL.Query().Get("channel") != "orders.*" || r.URL.Query().Get("filter") != "failed" {
			t.Errorf("asked for %s from %q", r.URL, r.Header.Get("Origin"))
		}
		if want := map[int32]string{1: "", 2: "T1", 3: "T2"}[n]; r.URL.Query().Get("resume") != want {
			t.Errorf("connection %d resumes %q, want %q", n, r.URL.Query().Get("resume"), want)
		}
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		row := `{"uid":"0","time":"2026-11-21T14:00:00Z","broker":"b","channel":"orders.placed","operation":"tap","outcome":"failed","body":"n ` + fmt.Sprint(n) + `"}`
		switch n {
		case 1:
			_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"rows":[`+row+`],"matched":4,"sampled":3,"dropped":0,"resume":"T1"}`))
		case 2:
			_ = conn.WriteMessage(websocket.TextMessage, []byte(`{"rows":[`+row+`],"matched":1,"sampled":0,"dropped":0,"resume":"T2","resumed":true,"missed":2}`))
		default:
			_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(closeNoMore, "your rights changed"), time.Now().Add(time.Second))
		}
	}))
	defer srv.Close()
	s := newScreen(t, map[string]string{"SIGNALBOX_URL": srv.URL})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := s.tap(ctx, []string{"orders.*", "failed"})
	if exitCode(err) != exitDenied || !strings.Contains(err.Error(), "your rights changed") {
		t.Errorf("got %v, want the console's reason", err)
	}
	if got := s.out.String(); strings.Count(got, "\n") != 3 || !strings.Contains(got, "n 1") || !strings.Contains(got, "n 2") {
		t.Errorf("shown: %q", got)
	}
	for _, want := range []string{"3 not shown: 3 sampled", "The connection is lost", "2 messages passed meanwhile"} {
		if !strings.Contains(s.err.String(), want) {
			t.Errorf("not told: %q in %q", want, &s.err)
		}
	}
}

// Who may not read payloads is told so, instead of that nothing passed.
func TestATapSaysThatItsFilterNeedsPayloads(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/live") {
			asked.Add(1)
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, problemOf(400, "invalid", "enough of this test"))
			return
		}
		fmt.Fprint(w, `{"name":"mia","kind":"token","grants":[{"role":"viewer"}],"actions":["live.tap","metadata.view"]}`)
	}))
	defer srv.Close()
	for filter, want := range map[string]int32{"timeout": 0, "body.total > 3": 0, "NOT body:x": 0, "failed:true": 1, "": 1} {
		asked.Store(0)
		err := newScreen(t, map[string]string{"SIGNALBOX_URL": srv.URL}).tap(t.Context(), []string{"*", filter})
		if want == 0 && (exitCode(err) != exitDenied || !strings.Contains(err.Error(), "looks into payloads, and mia may not read them")) || asked.Load() > 0 != (want > 0) {
			t.Errorf("%q: %v, and the tap was asked for %d times", filter, err, asked.Load())
		}
	}
}

// An export that broke off is no export, whatever its length.
func TestAnExportThatBrokeOffIsTold(t *testing.T) {
	t.Parallel()
	trailers := map[string]http.Header{
		"off":      nil,
		"deadline": {"Signalbox-Export-Complete": {"false"}, "Signalbox-Export-Messages": {"1"}, "Signalbox-Export-Stopped": {"deadline"}, "Signalbox-Export-Next": {"C"}},
		"all":      {"Signalbox-Export-Complete": {"true"}, "Signalbox-Export-Messages": {"1"}},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		how := r.URL.Query().Get("q")
		for name := range trailers[how] {
			w.Header().Add("Trailer", name)
		}
		fmt.Fprintln(w, `{"uid":"0"}`)
		if how == "cut" {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		for name, v := range trailers[how] {
			w.Header().Set(name, v[0])
		}
	}))
	defer srv.Close()
	dir := t.TempDir()
	for how, want := range map[string]struct {
		code int
		says string
	}{"off": {exitError, "broke off"}, "cut": {exitError, "broke off"}, "deadline": {exitError, "stopped by deadline; go on with --cursor C"}, "all": {0, ""}} {
		s := newScreen(t, map[string]string{"SIGNALBOX_URL": srv.URL})
		file := filepath.Join(dir, how)
		err := s.export(t.Context(), []string{how, "--file", file})
		if exitCode(err) != want.code || err != nil && !strings.Contains(err.Error(), want.says) {
			t.Errorf("%s: got %v, want %d and %q", how, err, want.code, want.says)
		}
		if _, err := os.Stat(file); (err != nil) != (how == "cut" || how == "off") {
			t.Errorf("%s: file: %v", how, err)
		}
	}
	if !errors.Is(newScreen(t, nil).export(t.Context(), nil), errUsage) {
		t.Error("an export without a file is no mistake")
	}
}
