package ui_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/ui"
	"github.com/signalbox-dev/signalbox/ui/live"
	auditpage "github.com/signalbox-dev/signalbox/ui/page/audit"
)

// serveUI serves a console over loopback with the real clock.
func serveUI(t *testing.T, s *fakeStore, r *fakeRoster, src live.Source) (string, *ui.UI) {
	t.Helper()
	cfg := ui.Config{Version: "test", Store: s, Roster: r, Live: src, Guard: openGuard(t), Self: fakeSelf{}, Effective: fakeEffective, Searches: searches(t)}
	if cfg.Verifier = (&fakeVerifier{report: auditpage.Report{Entries: 12041, Root: "cm9vdA==", Heads: 3}}); len(s.messages) > 0 {
		cfg.Commands, cfg.Probes = newCommands(time.Now()), newFakeProber()
	} else {
		cfg.Commands, cfg.Probes = &fakeCommands{}, &fakeProber{}
	}
	u, err := ui.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !u.AssetsBuilt() {
		browser.Missing(t, "browser assets (make generate)")
	}
	srv := httptest.NewServer(u)
	t.Cleanup(func() { u.Close(); srv.CloseClientConnections(); srv.Close() })
	return srv.URL, u
}

type finding struct {
	ID, Impact, Help string
	Nodes            []struct {
		HTML           string
		FailureSummary string
	}
}

// TestBrowserPages loads every page in Chromium: no complaint, no accessibility
// finding, nothing wider than the window, and a picture of each where asked.
func TestBrowserPages(t *testing.T) {
	axe, err := os.ReadFile(filepath.Join("..", "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		browser.Missing(t, "axe-core (npm ci)")
	}
	shots := os.Getenv("SIGNALBOX_SCREENSHOTS")
	if shots != "" {
		if err := os.MkdirAll(shots, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s, r := filled(time.Now())
	s.now = time.Now
	var frame liveFrame
	bodies := payloads(time.Now())
	for _, m := range bodies {
		s.messages = append(s.messages, m)
	}
	for i := range 30 {
		frame.Events = append(frame.Events, &s.messages[29-i].MessageEvent)
	}
	frame.Matched, frame.Sampled = 44, 14
	base, _ := serveUI(t, s, r, live.SourceFunc(func(controlbus.LiveQuery, controlbus.LiveReader) (live.Subscription, error) {
		one := newFakeTap()
		one.frames <- frame
		return one, nil
	}))
	all := pages(s)
	for name, m := range bodies {
		all[name] = "/messages/" + m.UID.String()
	}
	empty, _ := serveUI(t, &fakeStore{}, &fakeRoster{}, noLive)
	bctx := browser.Chrome(t)
	for name, path := range all {
		all[name] = base + path
	}
	for name, path := range pages(s) {
		switch name { // what needs something to be there, and what looks the same
		case "message", "channel", "invalid-record", "probe", "probe-form", "help", "missing", "wrong", "nothing":
		default:
			if strings.HasPrefix(name, "command-") || strings.HasPrefix(name, "form-") {
				continue
			}
			all["first-"+name] = empty + path
		}
	}
	for i, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			ctx, said := browser.Tab(t, bctx)
			for m, w := range []int64{1280, 390} {
				for n, th := range []string{"light", "dark"} {
					// Each width and each theme once, in turn one with the other, unless
					// there is time or pictures are wanted.
					if everything := shots != "" || os.Getenv("SIGNALBOX_SOAK") != ""; everything || (i+m+n)%2 == 0 {
						look(ctx, t, said, picture{name: name, at: all[name], width: w, theme: th, axe: string(axe), dir: shots})
					}
				}
			}
		})
	}
}

// picture is one page in one theme and width.
type picture struct {
	name, at, theme string
	width           int64
	axe, dir        string
}

// look opens a page and holds what it finds against it.
func look(ctx context.Context, t *testing.T, said func() []string, p picture) {
	t.Helper()
	label := fmt.Sprintf("%s-%s-%d", p.name, p.theme, p.width)
	before := len(said())
	h := int64(900)
	if p.width == 390 {
		h = 844
	}
	var wide int64
	var raw string
	acts := []browser.Action{
		browser.Size(p.width, h, p.width == 390), browser.Theme(p.theme),
	}
	if p.at != "" { // else the page that is open
		acts = append(acts, chromedp.Navigate(p.at))
	}
	acts = append(acts, browser.Until(`document.readyState === "complete"`),
		browser.Until(`document.getAnimations().every((a) => a.playState !== "running" || !(a instanceof CSSTransition))`),
		browser.Until(`!document.querySelector("[data-chart]") || !!document.querySelector(".uplot canvas")`),
	)
	if p.name == "live" {
		acts = append(acts, browser.Until(`document.querySelectorAll(".taprow").length > 20`))
	}
	acts = append(acts,
		browser.Value(`document.documentElement.scrollWidth - innerWidth`, &wide),
		browser.JS(p.axe+`;0`),
		browser.Value(`axe.run(document, {runOnly: ["wcag2a","wcag2aa","wcag21a","wcag21aa","wcag22aa","best-practice"]}).then(r => JSON.stringify(r.violations))`, &raw, chromedp.EvalAwaitPromise),
	)
	if p.dir != "" {
		acts = append(acts, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
			shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(p.dir, label+".png"), shot, 0o644)
		}))
	}
	if err := chromedp.Do(ctx, acts...); err != nil {
		t.Fatalf("%s: %v; the browser said %q", label, err, said())
	}
	for _, line := range said()[before:] {
		if strings.HasSuffix(p.name, "missing") && strings.Contains(line, "404") {
			continue
		}
		t.Errorf("%s: the browser complains: %s", label, line)
	}
	if wide > 0 {
		t.Errorf("%s: %d px wider than the window", label, wide)
	}
	var found []finding
	if err := json.Unmarshal([]byte(raw), &found); err != nil {
		t.Fatalf("%s: axe: %v", label, err)
	}
	for _, f := range found {
		node := ""
		if len(f.Nodes) > 0 {
			node = f.Nodes[0].HTML + " " + f.Nodes[0].FailureSummary
		}
		if f.Impact == "serious" || f.Impact == "critical" {
			t.Errorf("%s: axe %s (%s): %s: %d nodes, first %.400s", label, f.ID, f.Impact, f.Help, len(f.Nodes), node)
		} else {
			t.Logf("%s: axe %s (%s): %s: %.200s", label, f.ID, f.Impact, f.Help, node)
		}
	}
}

// TestBrowserLiveTap watches frames arrive, holds the list, and loses a console.
func TestBrowserLiveTap(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	tap := newFakeTap()
	var once sync.Once
	base, u := serveUI(t, s, r, live.SourceFunc(func(q controlbus.LiveQuery, _ controlbus.LiveReader) (live.Subscription, error) {
		first := false
		once.Do(func() { first = true })
		if !first || q.Filter != "channel:payments.*" || q.Env != "production" {
			return nil, fmt.Errorf("want one tap on payments.* of production, have %+v: %w", q, controlbus.ErrUnavailable)
		}
		return tap, nil
	}))
	send := func(from, to int, sampled int64) {
		f := liveFrame{Matched: int64(to-from) + sampled, Sampled: sampled}
		for i := to - 1; i >= from; i-- {
			f.Events = append(f.Events, &s.messages[i].MessageEvent)
		}
		tap.frames <- f
	}
	ctx, said := browser.Tab(t, browser.Chrome(t))
	send(0, 10, 14)
	rows := `document.querySelectorAll(".taprow").length`
	err := chromedp.Do(ctx, browser.Size(1280, 900, false), chromedp.Navigate(base+"/live?q="+url.QueryEscape("channel:payments.*")),
		browser.Until(rows+" === 10"), browser.Until(`document.querySelector(".tapcut").textContent.startsWith("14 not shown here")`),
		browser.Until(`document.querySelector("[data-live=tap-matched]").textContent === "24"`),
		browser.Until(`document.querySelector("[data-tap-state]").textContent.includes("Running")`),
		chromedp.KeyEvent(" "), browser.Until(`document.querySelector("[data-tap-state]").textContent.startsWith("Paused at")`))
	if err != nil {
		t.Fatalf("%v; the browser said %q", err, said())
	}
	send(10, 17, 0)
	err = chromedp.Do(ctx, browser.Until(`/^Paused at .*, 7 newer$/.test(document.querySelector("[data-tap-newer]").textContent)`),
		browser.Until(rows+" === 10"), chromedp.KeyEvent(" "), browser.Until(rows+" === 17"),
		chromedp.KeyEvent("j"), chromedp.KeyEvent("j"), browser.Until(`document.querySelectorAll(".taprow")[1].classList.contains("at")`),
		chromedp.KeyEvent(kb.Enter), browser.Until(`location.pathname.startsWith("/messages/") && document.readyState === "complete"`))
	if err != nil {
		t.Fatalf("%v; the browser said %q", err, said())
	}
	if got := said(); len(got) > 0 {
		t.Errorf("the browser complains: %q", got)
	}
	select {
	case <-tap.closed:
	case <-time.After(10 * time.Second):
		t.Error("leaving the page did not close the tap")
	}
	u.Close()
}

// TestBrowserKeysAndRefresh drives the list by keyboard while the console
// refreshes it, then loses the console.
func TestBrowserKeysAndRefresh(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	s.now = time.Now
	u, err := ui.New(ui.Config{Version: "test", Store: s, Roster: r, Live: noLive, Guard: openGuard(t), Self: fakeSelf{}, Effective: fakeEffective})
	if err != nil {
		t.Fatal(err)
	}
	if !u.AssetsBuilt() {
		browser.Missing(t, "browser assets (make generate)")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	down, refreshed := false, 0
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		d := down
		if r.Header.Get("HX-Request") == "true" {
			refreshed++
		}
		mu.Unlock()
		if d {
			http.Error(w, "gone", http.StatusBadGateway)
			return
		}
		u.ServeHTTP(w, r)
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { u.Close(); _ = srv.Close() })
	ctx, said := browser.Tab(t, browser.Chrome(t))
	at := "http://" + ln.Addr().String()
	row := `document.querySelector("tr.at a[data-open]")?.textContent`
	run := func(step string, acts ...browser.Action) {
		t.Helper()
		if err := chromedp.Do(ctx, acts...); err != nil {
			t.Fatalf("%s: %v; the browser said %q", step, err, said())
		}
	}
	run("open", browser.Size(1280, 900, false), chromedp.Navigate(at+"/"), browser.Until(`document.readyState === "complete" && !document.getElementById("live").hidden`))
	run("g c", chromedp.KeyEvent("g"), chromedp.KeyEvent("c"), browser.Until(`location.pathname === "/channels" && document.readyState === "complete"`))
	run("? and Esc", chromedp.KeyEvent("?"), browser.Until(`document.getElementById("keys").open`), chromedp.KeyEvent(kb.Escape), browser.Until(`!document.getElementById("keys").open`))
	run("/", chromedp.KeyEvent("/"), browser.Until(`document.activeElement.id === "filter"`), chromedp.KeyEvent("j"), browser.Until(`document.getElementById("filter").value.endsWith("j") && location.pathname === "/channels"`),
		browser.JS(`document.getElementById("filter").value = ""`), chromedp.KeyEvent(kb.Escape), browser.Until(`document.activeElement.id !== "filter"`))
	run("j j k", chromedp.KeyEvent("j"), chromedp.KeyEvent("j"), browser.Until(row+` === "payments.capture.dlq"`))
	run("refresh", browser.JS(`window.__row = document.querySelector("tr.at"), 0`), browser.Until(`document.getElementById("live").dataset.state === "live"`))
	mu.Lock()
	seen := refreshed
	mu.Unlock()
	run("wait for a refresh", chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				mu.Lock()
				more := refreshed > seen
				mu.Unlock()
				if more {
					return nil
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}), browser.Until(row+` === "payments.capture.dlq" && window.__row.isConnected && document.activeElement.closest("tr") === window.__row`))
	if got := said(); len(got) > 0 {
		t.Errorf("the browser complains: %q", got)
	}
	run("pause", browser.JS(`document.activeElement.blur()`), chromedp.KeyEvent(" "), browser.Until(`document.getElementById("live").textContent.trim().startsWith("Paused")`),
		chromedp.KeyEvent(" "), browser.Until(`document.getElementById("live").dataset.state === "live"`))
	mu.Lock()
	down = true
	mu.Unlock()
	run("late", browser.Until(`document.getElementById("live").dataset.state === "late"`),
		browser.Until(`document.querySelectorAll("tbody tr").length === 8`))
	run("open a row", chromedp.KeyEvent("j"), browser.Until(row+` !== undefined`))
}
