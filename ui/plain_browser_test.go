package ui_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/signalbox-dev/signalbox/test/browser"
)

// call makes a call of the protocol a step.
func call[P, R any](c cdp.Command[P, R], params P) browser.Action {
	return chromedp.Func(func(ctx context.Context, tg *chromedp.Target) error {
		_, err := cdp.Call(ctx, tg, c, params)
		return err
	})
}

// TestBrowserZone is a reader in another zone: times are in theirs, the server
// learns it, and a choice in the settings wins.
func TestBrowserZone(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	s.now = time.Now
	base, _ := serveUI(t, s, r, noLive)
	ctx, said := browser.Tab(t, browser.Chrome(t))
	run := func(step string, acts ...browser.Action) {
		t.Helper()
		if err := chromedp.Do(ctx, acts...); err != nil {
			t.Fatalf("%s: %v; the browser said %q", step, err, said())
		}
	}
	loaded := browser.Until(`document.readyState === "complete"`)
	row := `document.querySelector("main tbody time[data-time=milli]")`
	utc := row + `.dateTime.slice(11, 23)`
	shifted := func(minutes int) string {
		return fmt.Sprintf(`new Date(Date.parse(%s.dateTime) + %d * 60000).toISOString().slice(11, 23)`, row, minutes)
	}
	run("open", call(emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "Asia/Tokyo"}), browser.Size(1280, 900, false),
		chromedp.Navigate(base+"/messages"), loaded, browser.Until(row+`.textContent === `+shifted(540)), browser.Until(`document.cookie.includes("signalbox-browser-zone=Asia/Tokyo")`))
	run("the server writes it", browser.JS(`window.__html = "", fetch(location.href).then(r => r.text()).then(t => { window.__html = t }), 0`),
		browser.Until(`window.__html.includes("</html>") && new DOMParser`), browser.Until(`/ JST, [A-Z][a-z]{2} [-0-9]+ [0-9:.]+ UTC"/.test(window.__html)`))
	run("choose UTC", chromedp.Navigate(base+"/settings"), loaded, browser.JS(`document.querySelector("input[name=zone][value=UTC]").click(), 0`),
		browser.JS(`document.querySelector(".choices button[type=submit]").click(), 0`), browser.Until(`document.documentElement.dataset.tz === "UTC" && document.readyState === "complete"`),
		chromedp.Navigate(base+"/messages"), loaded, browser.Until(row+`.textContent === `+utc))
	run("choose one by name", chromedp.Navigate(base+"/settings"), loaded, browser.JS(`document.querySelector("input[name=zone][value=named]").click(), document.querySelector("input[name=zone_name]").value = "Asia/Kathmandu", 0`),
		browser.JS(`document.querySelector(".choices button[type=submit]").click(), 0`), browser.Until(`document.documentElement.dataset.tz === "Asia/Kathmandu" && document.readyState === "complete"`),
		chromedp.Navigate(base+"/messages"), loaded, browser.Until(row+`.textContent === `+shifted(345)))
	if got := said(); len(got) > 0 {
		t.Errorf("the browser complains: %q", got)
	}
}

// TestBrowserHelp opens the drawer by key and by button.
func TestBrowserHelp(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	base, _ := serveUI(t, s, r, noLive)
	ctx, said := browser.Tab(t, browser.Chrome(t))
	open := `document.getElementById("keys").open`
	err := chromedp.Do(ctx, browser.Size(1280, 900, false), chromedp.Navigate(base+"/health"), browser.Until(`document.readyState === "complete"`),
		chromedp.KeyEvent("?"), browser.Until(open+` && document.getElementById("keys").innerText.includes("How Signalbox itself is")`),
		browser.JS(`document.querySelector("#keys form button").click(), 0`), browser.Until("!"+open),
		browser.JS(`document.querySelector("[data-keys-open]").click(), 0`), browser.Until(open+` && location.pathname === "/health"`))
	if err != nil {
		t.Fatalf("%v; the browser said %q", err, said())
	}
}

// TestBrowserWithoutScript reads every page with scripts off. What forms do is
// tested without a browser.
func TestBrowserWithoutScript(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	s.now = time.Now
	base, _ := serveUI(t, s, r, noLive)
	ctx, said := browser.Tab(t, browser.Chrome(t))
	run := func(step string, acts ...browser.Action) {
		t.Helper()
		if err := chromedp.Do(ctx, acts...); err != nil {
			t.Fatalf("%s: %v; the browser said %q", step, err, said())
		}
	}
	run("scripts off", call(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}), browser.Size(1280, 900, false))
	all := pages(s)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		var dead, words string
		run(name, chromedp.Navigate(base+all[name]), browser.Until(`document.readyState === "complete"`),
			browser.Value(`document.querySelector("main").innerText`, &words),
			// What only script can do must not be offered.
			browser.Value(`[...document.querySelectorAll("button")].filter(b => b.offsetParent && !b.form).map(b => b.outerHTML).join("\n")`, &dead))
		if len(strings.Fields(words)) < 8 {
			t.Errorf("%s says %q", name, words)
		}
		if dead != "" {
			t.Errorf("%s offers what needs script: %s", name, dead)
		}
	}
	var shape, table bool
	run("charts", chromedp.Navigate(base+"/"), browser.Until(`document.readyState === "complete"`),
		browser.Value(`[...document.querySelectorAll("svg.still")].length === 2 && [...document.querySelectorAll("svg.still")].every(s => s.getBoundingClientRect().height > 50 && s.querySelector("path:not(.mark)").getAttribute("d").length > 50)`, &shape),
		browser.Value(`document.querySelectorAll("figure.chart details table tbody tr").length > 50`, &table))
	if !shape || !table {
		t.Errorf("without script a chart's shape is there: %v, its table: %v", shape, table)
	}
	var forms, help string
	run("forms", chromedp.Navigate(base+"/settings"), browser.Until(`document.readyState === "complete"`),
		browser.Value(`[...document.forms].filter(f => f.method !== "dialog" && !(new URL(f.action).origin === location.origin && f.querySelector("button[type=submit], input[type=search]"))).map(f => f.outerHTML).join("\n")`, &forms),
		browser.Value(`document.querySelector("[data-keys-open]").getAttribute("href")`, &help))
	if forms != "" || help != "/help" {
		t.Errorf("forms that need script: %s; help is at %q", forms, help)
	}
}
