package ui_test

import (
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/ui"
)

// TestBrowserAccess goes the way of a newcomer: the link of the first start, a
// second user, tokens, the audit trail, signing out and in again, and a user
// whose access ends while a page is open.
func TestBrowserAccess(t *testing.T) {
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
	g := newGuard(t, func(*access.Config) {}, access.DefaultPrivacy())
	u, err := ui.New(ui.Config{Guard: g, Version: "test", Store: s, Roster: r, Live: noLive})
	if err != nil {
		t.Fatal(err)
	}
	if !u.AssetsBuilt() {
		browser.Missing(t, "browser assets (make generate)")
	}
	srv := httptest.NewServer(u)
	t.Cleanup(func() { u.Close(); srv.CloseClientConnections(); srv.Close() })
	svc := g.Access()
	link, err := svc.Setup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, said := browser.Tab(t, browser.Chrome(t))
	do := func(acts ...browser.Action) {
		t.Helper()
		if err := chromedp.Do(ctx, acts...); err != nil {
			t.Fatalf("%v; the browser said %q", err, said())
		}
	}
	// every looks at the page that is open in both themes and widths.
	every := func(name string) {
		t.Helper()
		for _, w := range []int64{390, 1280} {
			for _, th := range []string{"dark", "light"} {
				look(ctx, t, said, picture{name: name, width: w, theme: th, axe: string(axe), dir: shots})
			}
		}
	}
	at := func(path string) browser.Action {
		return browser.Until(`location.pathname === "` + path + `" && document.readyState === "complete"`)
	}
	fill := func(id, value string) browser.Action {
		return browser.JS(`document.getElementById("` + id + `").value = ` + "`" + value + "`" + `;0`)
	}
	submit := func(action string) browser.Action {
		return browser.JS(`document.querySelector('main form[action="` + action + `"]').requestSubmit();0`)
	}

	do(chromedp.Navigate(srv.URL+"/messages?q=timeout"), at("/login"))
	every("login-first")
	do(chromedp.Navigate(srv.URL+"/setup?token="+link.Reveal()), at("/setup"))
	every("setup")
	do(fill("name", "ada"), fill("password", goodPassword), fill("again", goodPassword), submit("/setup"), at("/"))
	do(chromedp.Navigate(srv.URL+"/settings/account"), at("/settings/account"))
	every("account")

	do(chromedp.Navigate(srv.URL+"/settings/users"), at("/settings/users"), fill("name", "mara"),
		browser.JS(`document.querySelector("[name=role]").value = "reader"; document.querySelector("[name=env]").value = "production";0`),
		submit("/settings/users"), browser.Until(`!!document.querySelector(".secret code")`))
	every("users")
	var address string
	do(browser.Value(`document.querySelector(".secret code").textContent`, &address))
	do(chromedp.Navigate(srv.URL+"/settings/tokens"), at("/settings/tokens"), fill("name", "grafana"), submit("/settings/tokens"), browser.Until(`!!document.querySelector(".secret code")`))
	every("tokens")
	do(chromedp.Navigate(srv.URL+"/settings/agents"), at("/settings/agents"), fill("name", "Frankfurt"), submit("/settings/agents"), browser.Until(`!!document.querySelector(".secret code")`))
	every("enrolment")
	do(chromedp.Navigate(srv.URL+"/settings/audit"), at("/audit"))
	every("audit")
	do(chromedp.Navigate(srv.URL+"/settings/users"), browser.JS(`[...document.querySelectorAll("tbody th a")].find((a) => a.textContent === "mara").click();0`),
		browser.Until(`location.pathname.startsWith("/settings/users/") && document.readyState === "complete"`))
	every("user")

	// Out, a mistake, and in again to where one wanted to go.
	do(browser.JS(`document.querySelector('form[action="/logout"]').requestSubmit();0`), at("/login"),
		chromedp.Navigate(srv.URL+"/channels?sort=failed"), at("/login"), fill("name", "ada"), fill("password", "not this one"), submit("/login"),
		browser.Until(`document.querySelector(".mistake")?.textContent.includes("Name or password is wrong")`))
	every("login-wrong")
	do(fill("password", goodPassword), submit("/login"), browser.Until(`location.pathname + location.search === "/channels?sort=failed" && document.readyState === "complete"`))

	// The second user sets a password, looks at a page, and is disabled.
	do(browser.JS(`document.querySelector('form[action="/logout"]').requestSubmit();0`), at("/login"), chromedp.Navigate(address), at("/password"))
	every("password")
	do(fill("password", goodPassword), fill("again", goodPassword), submit("/password"), at("/"), chromedp.Navigate(srv.URL+"/channels"), at("/channels"))
	users, err := svc.Users(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root := access.Identity{ID: users[0].ID, Name: "ada", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)}
	for _, x := range users {
		if x.Name == "mara" {
			if err := svc.SetDisabled(context.WithoutCancel(t.Context()), root, x.ID, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	began := time.Now()
	do(browser.Until(`location.pathname === "/login" && new URLSearchParams(location.search).get("next") === "/channels"`))
	t.Logf("the open page of the disabled user was left after %v", time.Since(began).Round(10*time.Millisecond))
}
