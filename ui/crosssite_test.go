package ui_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/ui/live"
)

// TestForeignPagesWriteNothing sends what a page of another site can make a
// browser send, to every route that changes something.
func TestForeignPagesWriteNothing(t *testing.T) {
	t.Parallel()
	p := newPeople(t, access.DefaultPrivacy())
	host := "example.com:8470"
	foreign := []http.Header{
		{"Origin": {"https://evil.example"}},
		{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}},
		{"Origin": {"null"}},
		{"Origin": {"null"}, "Sec-Fetch-Site": {"cross-site"}},
		{"Origin": {"http://example.com"}},      // another port
		{"Origin": {"http://example.com:8471"}}, // another port
		{"Origin": {"http://example.com:8471"}, "Sec-Fetch-Site": {"same-site"}},
		{"Origin": {"http://" + host}, "Sec-Fetch-Site": {"cross-site"}},
		{"Origin": {"http://" + host + ".evil.example"}},
		{"Origin": {"http://evil.example@" + host + ".evil.example"}},
		{"Sec-Fetch-Site": {"cross-site"}},
		{"Sec-Fetch-Site": {"same-site"}},
	}
	own := []http.Header{
		{"Origin": {"http://" + host}, "Sec-Fetch-Site": {"same-origin"}},
		{"Origin": {"http://" + host}},
		{"Sec-Fetch-Site": {"none"}},
		{}, // no browser
	}
	ask := func(method, path string, h http.Header) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "http://"+host+path, strings.NewReader("back=%2F&theme=dark"))
		r.Header = h.Clone()
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.AddCookie(&http.Cookie{Name: "signalbox-session", Value: p.cookies["root"]})
		w := httptest.NewRecorder()
		p.ui.ServeHTTP(w, r)
		return w
	}
	writes := 0
	for _, route := range p.ui.Routes() {
		method, path, ok := strings.Cut(route.Pattern, " ")
		if !ok || method == http.MethodGet || method == http.MethodHead {
			continue
		}
		writes++
		path = wildcard.ReplaceAllString(path, "x")
		for _, h := range foreign {
			if w := ask(method, path, h); w.Code != http.StatusForbidden || w.Header().Get("Set-Cookie") != "" {
				t.Errorf("%s with %v: got %d, Set-Cookie %q, want 403", route.Pattern, h, w.Code, w.Header().Get("Set-Cookie"))
			}
		}
	}
	if writes < 3 {
		t.Errorf("only %d routes write; is the list of routes empty?", writes)
	}
	for _, h := range own {
		if w := ask(http.MethodPost, "/preferences", h); w.Code != http.StatusSeeOther || !strings.Contains(w.Header().Get("Set-Cookie"), "dark") {
			t.Errorf("POST /preferences with %v: got %d, Set-Cookie %q, want 303", h, w.Code, w.Header().Get("Set-Cookie"))
		}
	}
	// No page lets another origin read or embed it.
	for _, path := range []string{"/", "/messages", "/live", "/api/v1/messages", "/nothing"} {
		w := ask(http.MethodGet, path, http.Header{"Origin": {"https://evil.example"}})
		h := w.Header()
		if h.Get("Access-Control-Allow-Origin") != "" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("X-Frame-Options") != "DENY" ||
			!strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %v", path, h)
		}
	}
}

// TestBrowserForeignPages visits another site while signed in, which tries to
// write, read, listen and embed.
func TestBrowserForeignPages(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	opened := make(chan struct{}, 100)
	base, _ := serveUI(t, s, r, live.SourceFunc(func(controlbus.LiveQuery, controlbus.LiveReader) (live.Subscription, error) {
		opened <- struct{}{}
		return newFakeTap(), nil
	}))
	// In front of the console, so that what arrived is known.
	var mu sync.Mutex
	answers := map[string][]int{}
	console := httptest.NewServer(spy(base, func(r *http.Request, code int) {
		mu.Lock()
		defer mu.Unlock()
		key := r.Method + " " + r.URL.Path
		answers[key] = append(answers[key], code)
	}))
	t.Cleanup(console.Close)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, attack, console.URL)
	}))
	t.Cleanup(evil.Close)
	ctx, _ := browser.Tab(t, browser.Chrome(t))
	// Another port of the same host is another origin of the same site; another
	// name is another site.
	for _, at := range []string{evil.URL, strings.Replace(evil.URL, "127.0.0.1", "localhost", 1)} {
		var raw string
		if err := chromedp.Do(ctx, chromedp.Navigate(console.URL+"/"), browser.JS(`document.cookie = "theme-of-mine=1"`),
			chromedp.Navigate(at), browser.Until(`"done" in window`), browser.Value(`JSON.stringify(window.done)`, &raw)); err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(raw), &got); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			"socket": "refused", "read": "blocked", "api": "blocked", "script": "blocked", "image": "blocked", "frame": "blocked", "write": "blocked", "json": "blocked",
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("from %s: %s was %q, want %q", at, k, got[k], v)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, key := range []string{"POST /preferences", "POST /channel/tap"} {
		codes := answers[key]
		if len(codes) == 0 && key == "POST /preferences" {
			t.Errorf("%s never arrived: nothing was tried", key)
		}
		if slices.ContainsFunc(codes, func(c int) bool { return c != http.StatusForbidden }) {
			t.Errorf("%s: got %v, want 403 always", key, codes)
		}
	}
	if codes := answers["GET "+live.Path]; len(codes) < 2 || slices.ContainsFunc(codes, func(c int) bool { return c != http.StatusForbidden }) {
		t.Errorf("sockets: got %v, want 403 for each of two", codes)
	}
	if len(opened) > 0 {
		t.Errorf("%d taps were opened for foreign pages", len(opened))
	}
	if len(r.asked) > 0 {
		t.Errorf("a foreign page had %v tapped", r.asked)
	}
}

// attack is a page that tries everything and says how that went.
const attack = `<!doctype html><title>evil</title><iframe name=sink></iframe><iframe id=frame></iframe><script>
const to = %q, got = {};
const within = (p, otherwise) => Promise.race([p, new Promise(r => setTimeout(r, 3000, otherwise))]);
const socket = () => new Promise(r => { const s = new WebSocket(to.replace("http", "ws") + "/api/v1/live"); s.onopen = () => r("open"); s.onclose = () => r("refused"); });
const element = (name, src) => new Promise(r => { const e = document.createElement(name); e.onload = () => r("loaded"); e.onerror = () => r("blocked"); e.src = src; document.body.append(e); });
const read = (path) => fetch(to + path, {credentials: "include"}).then(a => a.text()).then(() => "read", () => "blocked");
const form = (path) => { const f = document.createElement("form"); f.method = "post"; f.action = to + path; f.target = "sink"; f.innerHTML = '<input name=theme value=dark><input name=back value="/"><input name=name value="orders">'; document.body.append(f); f.submit(); };
(async () => {
  got.socket = await within(socket(), "silent");
  got.read = await within(read("/messages"), "silent");
  got.api = await within(read("/api/v1/messages"), "silent");
  got.script = await within(element("script", to + "/api/v1/messages"), "silent");
  got.image = await within(element("img", to + "/messages"), "silent");
  got.json = await within(fetch(to + "/api/v1/taps", {method: "POST", credentials: "include", headers: {"Content-Type": "application/json"}, body: "{}"}).then(() => "sent", () => "blocked"), "silent");
  // Its answer may not be read, but it arrives: the console has to refuse it.
  got.write = await within(fetch(to + "/preferences", {method: "POST", mode: "no-cors", credentials: "include", body: new URLSearchParams({theme: "dark"})}).then(() => "sent", () => "blocked"), "silent");
  form("/preferences");
  form("/channel/tap");
  const frame = document.getElementById("frame");
  frame.src = to + "/";
  await new Promise(r => { frame.onload = r; setTimeout(r, 2000); });
  try { got.frame = frame.contentDocument ? "empty" : "blocked"; } catch { got.frame = "blocked"; }
  await new Promise(r => setTimeout(r, 300));
  window.done = got;
})();
</script>`

// spy passes requests on and tells how they were answered.
func spy(to string, tell func(*http.Request, int)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), r.Method, to+r.URL.RequestURI(), r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		out.Header, out.Host = r.Header.Clone(), r.Host
		resp, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		tell(r, resp.StatusCode)
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		buf := make([]byte, 32<<10)
		for {
			n, err := resp.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			if err != nil {
				return
			}
		}
	})
}
