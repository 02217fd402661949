package ui_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/ui"
	"github.com/signalbox-dev/signalbox/ui/guard"
)

// safeBuffer is a log that several write to.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}

// TestSecretsStayWhereTheyAre signs in, makes every kind of secret, makes every
// kind of mistake with them, and looks for them in the log, the metrics, the
// state file, the audit trail, and every page that is not the one that shows
// them once.
func TestSecretsStayWhereTheyAre(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	store, err := state.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var log safeBuffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	svc, err := access.New(access.DefaultConfig(), access.DefaultPrivacy(), store, logger)
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(guard.Config{Access: svc, Log: logger})
	if err != nil {
		t.Fatal(err)
	}
	set := metrics.NewSet()
	s, r := filled(now)
	u, err := ui.New(ui.Config{Guard: g, Log: logger, Metrics: set, Version: "test", Store: s, Roster: r})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)

	var cookie *http.Cookie
	do := func(method, path string, form url.Values, bearer string) *httptest.ResponseRecorder {
		req := httptest.NewRequest(method, path, strings.NewReader(form.Encode()))
		if form != nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		if cookie != nil && bearer == "" {
			req.AddCookie(cookie)
		}
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		w := httptest.NewRecorder()
		u.ServeHTTP(w, req)
		for _, c := range w.Result().Cookies() {
			if c.Name == "signalbox-session" && c.Value != "" {
				cookie = c
			}
		}
		return w
	}
	shown := func(w *httptest.ResponseRecorder, pattern string) string {
		t.Helper()
		m := regexp.MustCompile(pattern).FindString(w.Body.String())
		if m == "" {
			t.Fatalf("nothing like %s in an answer of status %d", pattern, w.Code)
		}
		return m
	}
	const password, wrong = "canary-password-of-root", "canary-password-mistyped"
	canaries := map[string]string{"password": password, "mistyped password": wrong}

	setup, err := svc.Setup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	canaries["setup token"] = setup.Reveal()
	do("GET", "/setup?token="+setup.Reveal(), nil, "")
	do("POST", "/setup", url.Values{"token": {setup.Reveal()}, "name": {"root"}, "password": {password}, "again": {wrong}}, "")
	if w := do("POST", "/setup", url.Values{"token": {setup.Reveal()}, "name": {"root"}, "password": {password}, "again": {password}}, ""); w.Code != http.StatusSeeOther || cookie == nil {
		t.Fatalf("setup: got %d", w.Code)
	}
	canaries["session"] = cookie.Value
	root := cookie
	cookie = nil
	do("POST", "/login", url.Values{"name": {"root"}, "password": {wrong}}, "")
	do("POST", "/login", url.Values{"name": {wrong}, "password": {"x"}}, "") // typed into the wrong field
	cookie = root
	canaries["password link"] = strings.TrimPrefix(shown(do("POST", "/settings/users", url.Values{"name": {"mara"}, "role": {"viewer"}, "env": {"*"}, "channel": {"*"}}, ""), `token=[A-Z2-7]{26}`), "token=")
	canaries["API token"] = shown(do("POST", "/settings/tokens", url.Values{"name": {"ci"}, "role": {"viewer"}, "env": {"*"}, "channel": {"*"}, "life": {"24h"}}, ""), `sbx_[0-9A-Za-z]{49}`)
	canaries["enrolment token"] = shown(do("POST", "/settings/agents", url.Values{"name": {"site"}, "count": {"1"}, "env": {"*"}, "life": {"24h"}}, ""), `sbxe_[0-9A-Za-z]{49}`)
	enroller, _, err := svc.FromToken(t.Context(), canaries["enrolment token"])
	if err != nil {
		t.Fatal(err)
	}
	credential, err := svc.Enrol(t.Context(), enroller, "a1")
	if err != nil {
		t.Fatal(err)
	}
	canaries["agent's credential"] = credential.Reveal()

	for range 8 { // until it is slowed down, which is recorded, too
		do("POST", "/password", url.Values{"token": {canaries["password link"]}, "password": {"short"}, "again": {"short"}}, "")
	}

	// Every mistake with them.
	var pages bytes.Buffer
	see := func(w *httptest.ResponseRecorder) {
		pages.Write(w.Body.Bytes())
	}
	for _, c := range canaries {
		see(do("GET", "/no/such/page", nil, c))
		see(do("GET", "/api/v1/messages?q=x", nil, c+"x"))
		see(do("GET", "/api/v1/agents?token="+url.QueryEscape("not a parameter"), nil, c))
		see(do("POST", "/settings/account/password", url.Values{"old": {c}, "password": {"short"}, "again": {"short"}}, ""))
	}
	for _, r := range u.Routes() {
		if method, path, ok := strings.Cut(r.Pattern, " "); ok && method == "GET" && !strings.Contains(path, "{") {
			see(do("GET", path, nil, ""))
		}
	}
	see(do("GET", "/settings/users/"+enroller.ID, nil, ""))
	set.WritePrometheus(&pages)

	dump := log.Bytes()
	for _, name := range []string{file, file + "-wal"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		dump = append(dump, b...)
	}
	if !bytes.Contains(log.Bytes(), []byte("page refused")) || !bytes.Contains(dump, []byte("mara")) || !bytes.Contains(pages.Bytes(), []byte("mara")) {
		t.Fatal("the log, the state or the pages are not what is looked at")
	}
	for what, c := range canaries {
		if bytes.Contains(dump, []byte(c)) {
			t.Errorf("the %s is in the log or the state", what)
		}
		if bytes.Contains(pages.Bytes(), []byte(c)) {
			t.Errorf("the %s is on a page or in the metrics", what)
		}
	}
}
