package ui_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/chromedp/chromedp"

	hub "github.com/signalbox-dev/signalbox/collector/live"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/ui/live"
)

// cuttable is a real hub whose taps a test can cut off or refuse.
type cuttable struct {
	hub *hub.Hub

	mu      sync.Mutex
	refusal error
	cut     chan struct{}
}

type cuttableTap struct {
	live.Subscription
	cut chan struct{}
	of  *cuttable
}

// why a tap was cut: its reader may come back, or not.
func (t cuttableTap) why() error {
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	if errors.Is(t.of.refusal, controlbus.ErrDenied) {
		return t.of.refusal
	}
	return controlbus.ErrNotFound
}

func (c *cuttable) Subscribe(q controlbus.LiveQuery, who controlbus.LiveReader) (live.Subscription, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusal != nil {
		return nil, c.refusal
	}
	s, err := c.hub.Subscribe(q, who)
	if err != nil {
		return nil, err
	}
	return cuttableTap{s, c.cut, c}, nil
}

func (t cuttableTap) Next(ctx context.Context, patience time.Duration) ([]byte, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-t.cut:
			stop()
		case <-ctx.Done():
		}
	}()
	b, err := t.Subscription.Next(ctx, patience)
	select {
	case <-t.cut:
		return nil, t.why()
	default:
		return b, err
	}
}

// cutOff ends all taps; until allow, new ones are refused with why.
func (c *cuttable) cutOff(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.cut)
	c.cut, c.refusal = make(chan struct{}), why
}

func (c *cuttable) allow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refusal = nil
}

// TestBrowserLiveTapComesBack loses its connection, is refused, comes back
// without a hole, keeps what passes during a pause, holds still while it is
// read, and ends when its reader may not any more.
func TestBrowserLiveTapComesBack(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	s.now = time.Now
	src := &cuttable{hub: hub.NewHub(hub.DefaultConfig(), live.AppendRow, metrics.NewSet()), cut: make(chan struct{})}
	base, _ := serveUI(t, s, r, src)
	sent := 0
	send := func(n int) {
		var batch []*controlbus.MessageEvent
		for range n {
			ev := s.messages[sent%len(s.messages)].MessageEvent
			ev.UID, ev.Time = controlbus.HashID("live", fmt.Sprint(sent)), time.Now().UnixNano()
			ev.Destination, ev.Body = "payments.capture", fmt.Appendf(nil, "message %d", sent)
			batch = append(batch, &ev)
			sent++
		}
		src.hub.Publish(batch)
	}
	ctx, said := browser.Tab(t, browser.Chrome(t))
	run := func(step string, acts ...browser.Action) {
		t.Helper()
		if err := chromedp.Do(ctx, acts...); err != nil {
			t.Fatalf("%s: %v; the browser said %q", step, err, said())
		}
	}
	shoot := func(name string) {
		t.Helper()
		dir := os.Getenv("SIGNALBOX_SCREENSHOTS")
		if dir == "" {
			return
		}
		for _, w := range []int64{1280, 390} {
			for _, theme := range []string{"light", "dark"} {
				var shot []byte
				run(name, browser.Size(w, 844, w == 390), browser.Theme(theme), chromedp.Func(func(ctx context.Context, _ *chromedp.Target) (err error) {
					shot, err = chromedp.Run(ctx, chromedp.CaptureScreenshot())
					return err
				}))
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%s-%d.png", name, theme, w)), shot, 0o644); err != nil {
					t.Error(err)
				}
			}
		}
		run(name, browser.Size(1280, 900, false), browser.Theme("light"))
	}
	const (
		rows  = `document.querySelectorAll(".taprow").length`
		state = `document.querySelector("[data-tap-state]").textContent.trim()`
		wrong = `document.querySelector("[data-tap-trouble]")`
		first = `document.querySelector(".taprow .body").textContent`
		heard = `document.querySelector("#said").textContent`
	)
	run("open", browser.Size(1280, 900, false), chromedp.Navigate(base+"/live?env=production&channel=payments.*&channel=orders.*"),
		browser.Until(state+` === "Running"`), browser.Until(`!document.querySelector("[data-tap-empty]").hidden && `+wrong+`.hidden`))
	shoot("livetap-empty")
	send(20)
	run("rows", browser.Until(rows+` === 20 && document.querySelector("[data-tap-empty]").hidden`))

	src.cutOff(fmt.Errorf("you have 50 live taps open, the most one person may have; close one: %w", controlbus.ErrOverloaded))
	run("refused", browser.Until(state+` === "Refused"`), browser.Until(wrong+`.textContent.includes("You have 50 live taps open") && `+wrong+`.textContent.includes("Trying again in")`))
	send(7) // while nobody listens
	shoot("livetap-refused")
	src.allow()
	run("back", browser.JS(wrong+`.querySelector("button").click()`), browser.Until(rows+` === 27 && `+state+` === "Running" && `+wrong+`.hidden`),
		browser.Until(first+` === "message 26"`), browser.Until(heard+` === "Connected again, nothing was missed"`), browser.Until(`document.querySelectorAll(".tapcut").length === 0`))

	run("pause", chromedp.KeyEvent(" "), browser.Until(state+`.startsWith("Paused at")`))
	for range 7 { // more than the page keeps, well within the rate also where the clock stutters
		send(80)
		time.Sleep(400 * time.Millisecond)
	}
	run("newer", browser.Until(`/^Paused at .*, 560 newer; the newest 500 are kept$/.test(document.querySelector("[data-tap-newer]").textContent)`), browser.Until(rows+` === 27`))
	shoot("livetap-paused")
	run("follow", browser.JS(`document.querySelector("[data-tap-follow]").click()`), browser.Until(rows+` === 500 && `+first+` === "message 586" && `+state+` === "Running"`))

	run("read", chromedp.KeyEvent("j"), chromedp.KeyEvent("j"), browser.Until(`document.querySelector("[data-tap-follow]").ariaPressed === "false"`))
	send(3)
	run("held", browser.Until(`document.querySelector("[data-tap-newer]").textContent === "3 new since you stopped following"`), browser.Until(first+` === "message 586"`),
		browser.JS(`document.querySelector("[data-tap-newer]").click()`), browser.Until(first+` === "message 589"`))
	run("scroll", browser.JS(`scrollTo(0, 2000)`), browser.Until(`document.querySelector("[data-tap-follow]").ariaPressed === "false"`), browser.JS(`scrollTo(0, 0)`),
		browser.Until(`document.querySelector("[data-tap-follow]").ariaPressed === "true"`))

	var search, without string
	run("links", browser.Value(`[...document.querySelectorAll(".actions a")].find(a => a.textContent.includes("Open as search")).href`, &search),
		browser.Value(`document.querySelector(".patterns .tag a").href`, &without))
	if !strings.HasPrefix(search, base+"/messages") || !strings.Contains(without, "channel=orders.") || strings.Contains(without, "payments") {
		t.Errorf("got links %s and %s", search, without)
	}
	// Chromium itself reports that a socket or the question why was answered with 429.
	for _, line := range said() {
		if !strings.Contains(line, "429") {
			t.Errorf("the browser complains: %s", line)
		}
	}
	src.cutOff(controlbus.ErrDenied)
	run("revoked", browser.Until(state+` === "Ended" && `+wrong+`.textContent.includes("you have signed out, or an administrator has taken the right back")`))
	shoot("livetap-ended")
}

// TestLiveRefusalsAreProblems asks the socket of a whole console.
func TestLiveRefusalsAreProblems(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	for _, c := range []struct {
		refusal error
		want    int
	}{
		{controlbus.ErrOverloaded, http.StatusTooManyRequests}, {controlbus.ErrUnavailable, http.StatusServiceUnavailable}, {controlbus.ErrInvalid, http.StatusBadRequest}, {controlbus.ErrDenied, http.StatusForbidden},
	} {
		u := newUI(t, s, r, live.SourceFunc(func(controlbus.LiveQuery, controlbus.LiveReader) (live.Subscription, error) {
			return nil, fmt.Errorf("this is why: %w", c.refusal)
		}))
		w, _ := get(t, u, live.Path)
		if body := w.Body.String(); w.Code != c.want || w.Header().Get("Content-Type") != "application/problem+json" || !strings.Contains(body, "this is why") {
			t.Errorf("%v: got %d %s %s", c.refusal, w.Code, w.Header().Get("Content-Type"), body)
		}
		if again := w.Header().Get("Retry-After") != ""; again != (errors.Is(c.refusal, controlbus.ErrOverloaded) || errors.Is(c.refusal, controlbus.ErrUnavailable)) {
			t.Errorf("%v: Retry-After %q", c.refusal, w.Header().Get("Retry-After"))
		}
	}
}

// TestLiveTapFilterBox: the page has the box of the search, and says what is wrong
// with a filter where it is wrong, keeping the channels.
func TestLiveTapFilterBox(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	u := newUI(t, s, r, noLive)
	w, _ := get(t, u, "/live?channel=orders.*&q=tea+channle%3Ax")
	for _, want := range []string{`data-complete="/messages/complete`, `data-wrong-from="4"`, `data-wrong-to="11"`, "<mark>channle</mark>", "q=tea+channel%3Ax", "channel=orders.%2A"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(w.Body.String(), "data-tap=") {
		t.Error("a tap is opened with a filter that cannot be read")
	}
}
