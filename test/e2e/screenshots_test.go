package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/signalbox-dev/signalbox/test/browser"
)

// maxPicture keeps the repository small.
const maxPicture = 250 << 10

// TestScreenshots writes a picture of every page of a demo that has run for a
// while, in both themes and both widths. make screenshots keeps two of each in
// docs/screenshots. SIGNALBOX_URL names a console that runs already.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("SIGNALBOX_SCREENSHOTS")
	if dir == "" {
		t.Skip("SIGNALBOX_SCREENSHOTS names no directory: make screenshots")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	url := os.Getenv("SIGNALBOX_URL")
	if url == "" {
		warm := 5 * time.Minute // until the charts have a shape and a payment has died
		if d, err := time.ParseDuration(os.Getenv("SIGNALBOX_SCREENSHOTS_AFTER")); err == nil {
			warm = d
		}
		_, url = demo(t, "-rate", "20")
		select {
		case <-time.After(warm):
		case <-t.Context().Done():
			return
		}
	}
	tab, complaints := browser.TabFor(t, browser.Chrome(t), 5*time.Minute)
	do := func(what string, actions ...browser.Action) {
		t.Helper()
		if err := chromedp.Do(tab, actions...); err != nil {
			t.Fatalf("%s: %v; the browser said %q", what, err, complaints())
		}
	}
	loaded := browser.Until(`document.readyState === "complete"`)
	link := func(path, selector string) string {
		t.Helper()
		var href string
		do(path, chromedp.Navigate(url+path), loaded, browser.Until(`document.querySelector('`+selector+`')`),
			browser.Value(`document.querySelector('`+selector+`').href`, &href))
		return href
	}
	do("window", browser.Size(1280, 900, false))
	// A redrive slow enough to be seen at work, and the dialog of another.
	at := func(prefix string) browser.Action {
		return browser.Until(`location.pathname.startsWith("` + prefix + `") && document.readyState === "complete"`)
	}
	dialog := func() (href string) {
		t.Helper()
		do("preview", chromedp.Navigate(url+"/control/new?kind=redrive&env=demo&broker=nats-demo&system=nats&channel=DEADLETTERS&rate=0.5"), loaded,
			browser.JS(`document.querySelector("form.order").requestSubmit();0`), at("/control/drafts/"), browser.Value(`location.href`, &href))
		return href
	}
	var command string
	do("order", chromedp.Navigate(dialog()), at("/control/drafts/"), browser.JS(`document.getElementById("reason").value = "address check fixed, INC-479";0`),
		browser.JS(`document.querySelector("[data-order]").click();0`), browser.Until(`/^\/control\/[0-9a-f]{32}$/.test(location.pathname)`), browser.Value(`location.origin + location.pathname`, &command))
	pages := []struct{ name, at, ready string }{
		{"overview", url + "/?range=15m", `document.querySelector(".uplot canvas")`},
		{"channels", url + "/channels?range=15m", `document.querySelector("tbody tr")`},
		{"channel", link("/channels?range=15m&q=PAYMENTS", "main tbody th a"), `document.querySelector(".uplot canvas")`},
		{"messages", url + "/messages?range=15m", `document.querySelector("tbody tr")`},
		{"message", link("/messages?range=1h&q=channel:DEADLETTERS+paymentId", `main tbody a[href^="/messages/"]`), `document.querySelector(".line li")`},
		{"livetap", url + "/live", `document.querySelectorAll(".taprow").length > 30 && !document.querySelector("[data-live-note=tap-matched]").textContent.startsWith("0/")`},
		{"control", url + "/control", `document.querySelector("main h1")`},
		{"command", command, `document.querySelector("progress")`},
		{"dialog", dialog(), `document.querySelector("dialog.command")`},
		{"command-form", url + "/detours/new?step=validate&step=hold", `document.querySelectorAll(".steps > li").length === 2`},
		{"detours", url + "/detours", `document.querySelector("main h1")`},
		{"audit", url + "/audit", `document.querySelector("main tbody tr, main .empty")`},
		{"agents", url + "/agents", `document.querySelector("main table")`},
		{"invalid", url + "/invalid", `document.querySelector("main h1")`},
		{"health", url + "/health", `document.querySelectorAll(".checks li").length > 5`},
		{"settings", url + "/settings", `document.querySelector(".choices")`},
		{"help", url + "/help", `document.querySelector(".keylist")`},
	}
	for _, p := range pages {
		for _, theme := range []string{"light", "dark"} {
			for _, width := range []int64{1280, 390} {
				label := fmt.Sprintf("%s-%s-%d", p.name, theme, width)
				height := int64(900)
				if p.name == "livetap" || p.name == "messages" || p.name == "dialog" {
					height = 720 // payloads do not compress
				}
				if width == 390 {
					height = 844
				}
				var wide int64
				var picture []byte
				do(label, browser.Size(width, height, width == 390), browser.Theme(theme), chromedp.Navigate(p.at), loaded, browser.Until(p.ready),
					browser.Value(`document.documentElement.scrollWidth - innerWidth`, &wide),
					chromedp.Func(func(ctx context.Context, _ *chromedp.Target) (err error) {
						picture, err = chromedp.Run(ctx, chromedp.CaptureScreenshot())
						return err
					}))
				if wide > 0 {
					t.Errorf("%s: %d px wider than the window", label, wide)
				}
				if len(picture) > maxPicture {
					t.Errorf("%s: %d bytes, want at most %d", label, len(picture), maxPicture)
				}
				if err := os.WriteFile(filepath.Join(dir, label+".png"), picture, 0o644); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if said := complaints(); len(said) > 0 {
		t.Errorf("the browser complains: %q", said)
	}
}
