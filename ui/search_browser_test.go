package ui_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/signalbox-dev/signalbox/test/browser"
)

// TestBrowserHistogram narrows the time by keyboard and by pointer, and fetches
// the histogram of a search that has to be counted.
func TestBrowserHistogram(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	s.now = time.Now
	base, u := serveUI(t, s, r, noLive)
	defer u.Close()
	ctx, said := browser.Tab(t, browser.Chrome(t))
	run := func(step string, acts ...browser.Action) {
		t.Helper()
		if err := chromedp.Do(ctx, acts...); err != nil {
			t.Fatalf("%s: %v; the browser said %q", step, err, said())
		}
	}
	ready := `document.readyState === "complete" && document.querySelectorAll(".bars a").length > 20 && !document.querySelector(".brush").hidden`
	width := `(new Date(new URL(location.href).searchParams.get("to")) - new Date(new URL(location.href).searchParams.get("from"))) / 1000`
	run("open", browser.Size(1280, 900, false), chromedp.Navigate(base+"/messages?range=15m&env=production"), browser.Until(ready))
	shoot(ctx, t, "histogram")
	run("move the end by keyboard", browser.JS(`document.querySelectorAll(".grip")[0].focus(), 0`), chromedp.KeyEvent(kb.End), chromedp.KeyEvent(kb.ArrowLeft), chromedp.KeyEvent(kb.ArrowLeft),
		browser.Until(`document.querySelector(".grip").getAttribute("aria-valuenow") === String(document.querySelectorAll(".bars a").length - 3)`),
		browser.Until(`/ to .* messages?/.test(document.querySelector(".brush .tip").textContent) && !document.querySelector(".brush .chosen").hidden`))
	run("the other end", browser.JS(`document.querySelectorAll(".grip")[1].focus(), 0`), chromedp.KeyEvent(kb.ArrowLeft),
		browser.Until(`document.querySelector(".chosen").clientWidth > 10`))
	shoot(ctx, t, "histogram-brush")
	run("give up", chromedp.KeyEvent(kb.Escape), browser.Until(`document.querySelector(".brush .chosen").hidden`))
	run("zoom", browser.JS(`document.querySelector(".grip").focus(), 0`), chromedp.KeyEvent(kb.End), chromedp.KeyEvent(kb.ArrowLeft), chromedp.KeyEvent(kb.Enter),
		browser.Until(`location.search.includes("from=") && `+ready), browser.Until(`Math.abs(`+width+` - 20) < 10 && !location.search.includes("range=") && location.search.includes("env=production")`))

	run("open again", chromedp.Navigate(base+"/messages?range=15m&env=production"), browser.Until(ready))
	var box []float64
	run("where it is", browser.Value(`(r => [r.left, r.top, r.width, r.height])(document.querySelector(".ground").getBoundingClientRect())`, &box))
	y := box[1] + box[3]/2
	run("drag", drag(box[0]+box[2]*.25, box[0]+box[2]*.75, y), browser.Until(`location.search.includes("from=") && `+ready), browser.Until(`Math.abs(`+width+` - 450) < 30`))
	run("click a bar", chromedp.Navigate(base+"/messages?range=15m&env=production"), browser.Until(ready),
		chromedp.MouseClickXY(box[0]+box[2]*.5, y), browser.Until(`location.search.includes("from=") && `+width+` === 10`))

	run("a search that is counted apart", chromedp.Navigate(base+"/messages?range=15m&env=production&q="+url.QueryEscape("header.x-tenant:acme")), browser.Until(ready),
		browser.Until(`document.querySelector("#histogram h2").textContent.includes("messages")`), browser.Until(`!document.querySelector("#histogram title")`))
	if got := said(); len(got) > 0 {
		t.Errorf("the browser complains: %q", got)
	}
}

// TestBrowserColumns chooses columns by the form, and looks at them on a phone.
func TestBrowserColumns(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	s.now = time.Now
	base, u := serveUI(t, s, r, noLive)
	defer u.Close()
	ctx, said := browser.Tab(t, browser.Chrome(t))
	var wide int64
	err := chromedp.Do(ctx, browser.Size(1280, 900, false), chromedp.Navigate(base+"/messages?q=GatewayTimeout"), browser.Until(`document.readyState === "complete"`),
		browser.JS(`document.querySelector(".columns summary").click(), 0`), browser.Until(`document.querySelector(".columns").open`))
	if err != nil {
		t.Fatalf("%v; the browser said %q", err, said())
	}
	shoot(ctx, t, "columns")
	err = chromedp.Do(ctx,
		browser.JS(`for (const b of document.querySelectorAll(".columns input[type=checkbox]")) b.checked = ["outcome", "channel", "service", "trace", "header.x-tenant"].includes(b.value)`),
		browser.JS(`document.querySelector(".columns button[type=submit]").click(), 0`), browser.Until(`location.search.includes("header.x-tenant") && document.readyState === "complete"`),
		browser.Until(`[...document.querySelectorAll("[data-rows] thead th")].map(t => t.textContent.trim().replace(/\s.*/s, "")).join() === "Time,Outcome,Channel,Service,Trace,x-tenant"`),
		browser.Until(`location.search.includes("q=GatewayTimeout")`),
		chromedp.Navigate(base+"/messages"), browser.Until(`document.readyState === "complete" && document.querySelectorAll("[data-rows] thead th").length === 6`),
		browser.Size(390, 844, true), chromedp.Navigate(base+"/messages"), browser.Until(`document.readyState === "complete"`),
		browser.Until(`getComputedStyle(document.querySelector("td[data-label=x-tenant]"), "::before").content.includes("x-tenant")`),
		browser.Value(`document.documentElement.scrollWidth - innerWidth`, &wide))
	if err != nil {
		t.Fatalf("%v; the browser said %q", err, said())
	}
	shoot(ctx, t, "columns-390")
	if wide > 0 {
		t.Errorf("on a phone the page is %d px wider than the window", wide)
	}
	err = chromedp.Do(ctx, browser.JS(`document.querySelector(".share summary").click(), navigator.clipboard.writeText = async t => { window.copied = t }, 0`),
		browser.JS(`document.querySelector("[data-copy-link]").click(), 0`), browser.Until(`window.copied?.startsWith("`+base+`/messages?") && window.copied.includes("cols=time%2Coutcome")`))
	if err != nil {
		t.Fatalf("%v; the browser said %q", err, said())
	}
	shoot(ctx, t, "share-390")
	if got := said(); len(got) > 0 {
		t.Errorf("the browser complains: %q", got)
	}
}

// drag moves the pointer from one place to another with the button held.
func drag(from, to, y float64) browser.Action {
	mouse := func(kind input.DispatchMouseEventType, x float64, held int64) browser.Action {
		return chromedp.Func(func(ctx context.Context, tg *chromedp.Target) error {
			_, err := cdp.Call(ctx, tg, input.DispatchMouseEvent, input.DispatchMouseEventParams{Type: kind, X: x, Y: y, Button: input.MouseButtonLeft, Buttons: held, ClickCount: 1})
			return err
		})
	}
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		return chromedp.Do(ctx, mouse(input.DispatchMouseEventTypeMousePressed, from, 1), mouse(input.DispatchMouseEventTypeMouseMoved, (from+to)/2, 1),
			mouse(input.DispatchMouseEventTypeMouseMoved, to, 1), mouse(input.DispatchMouseEventTypeMouseReleased, to, 0))
	})
}

// enter is the key as a keyboard has it: what is prevented does not submit.
func enter() browser.Action {
	return chromedp.Func(func(ctx context.Context, tg *chromedp.Target) error {
		for _, kind := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
			p := input.DispatchKeyEventParams{Type: kind, Key: "Enter", Code: "Enter", WindowsVirtualKeyCode: 13}
			if kind == input.DispatchKeyEventTypeKeyDown {
				p.Text = "\r"
			}
			if _, err := cdp.Call(ctx, tg, input.DispatchKeyEvent, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// shoot takes a picture where pictures are asked for.
func shoot(ctx context.Context, t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("SIGNALBOX_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestBrowserCompletion writes a filter with the keyboard: fields and values are
// taken, the sentence under the box follows, a mistake is marked and put right.
func TestBrowserCompletion(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	s.now = time.Now
	base, u := serveUI(t, s, r, noLive)
	defer u.Close()
	ctx, said := browser.Tab(t, browser.Chrome(t))
	run := func(step string, acts ...browser.Action) {
		t.Helper()
		if err := chromedp.Do(ctx, acts...); err != nil {
			t.Fatalf("%s: %v; the browser said %q", step, err, said())
		}
	}
	box := `document.getElementById("filter")`
	items := `[...document.querySelectorAll("#filter-list li .mono")].map(e => e.textContent).join("|")`
	open := box + `.getAttribute("aria-expanded") === "true"`
	run("open", browser.Size(1280, 900, false), chromedp.Navigate(base+"/messages?env=production"), browser.Until(`document.readyState === "complete" && `+box+`.getAttribute("role") === "combobox"`))
	run("a field", chromedp.KeyEvent("/"), browser.Until(`document.activeElement === `+box), browser.JS(box+`.value = ""`), chromedp.KeyEvent("cha"), browser.Until(items+` === "channel:" && `+open))
	run("Tab takes", chromedp.KeyEvent(kb.Tab), browser.Until(box+`.value === "channel:" && document.activeElement === `+box), browser.Until(items+`.startsWith("orders.events|") && `+open))
	run("a value by arrows", chromedp.KeyEvent("pay"), browser.Until(items+` === "payments.capture|payments.capture.dlq"`),
		chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.ArrowDown), browser.Until(box+`.getAttribute("aria-activedescendant") === "filter-item-1"`))
	shoot(ctx, t, "completion")
	run("Enter takes what was moved to", enter(), browser.Until(box+`.value === "channel:payments.capture.dlq " && location.search === "?env=production"`),
		browser.Until(`document.querySelector(".pop .why").textContent.startsWith("Reads: channel is payments.capture.dlq.")`))
	run("Escape closes, and the field keeps the focus", browser.Until(open), chromedp.KeyEvent(kb.Escape), browser.Until(box+`.getAttribute("aria-expanded") === "false" && document.activeElement === `+box))
	run("a mistake", chromedp.KeyEvent("atempts > 3 timeout"), browser.Until(`document.querySelector(".mirror .wrong")?.textContent === "atempts"`))
	shoot(ctx, t, "completion-wrong")
	run("put right", browser.JS(`document.querySelector(".pop .linklike").dispatchEvent(new MouseEvent("mousedown", {bubbles: true, cancelable: true})), 0`),
		browser.Until(box+`.value === "channel:payments.capture.dlq attempts > 3 timeout" && !document.querySelector(".mirror .wrong")`),
		browser.Until(`document.querySelector(".mirror").textContent === `+box+`.value && document.querySelector(".mirror .num").textContent === "3"`))
	run("Enter searches", chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent(kb.Enter), browser.Until(`location.search.includes("attempts") && document.readyState === "complete"`),
		browser.Until(`document.querySelector(".head p").textContent.includes("attempts")`))

	run("a mistake from an address", chromedp.Navigate(base+"/messages?q="+url.QueryEscape("timeout chanel:orders")), browser.Until(`document.querySelector(".mirror .wrong")?.textContent === "chanel" && document.activeElement === `+box))
	shoot(ctx, t, "wrong")
	run("its suggestion", browser.JS(`document.querySelector(".notice a").click(), 0`), browser.Until(`document.readyState === "complete" && `+box+`.value === "timeout channel:orders"`))

	var left, wide int64
	run("on a phone", browser.Size(390, 844, true), chromedp.Navigate(base+"/messages"), browser.Until(`document.readyState === "complete" && `+box+`.getAttribute("role") === "combobox"`),
		browser.JS(box+`.focus(), 0`), chromedp.KeyEvent("channel:p"), browser.Until(open),
		browser.Value(`Math.round(document.querySelector(".pop").getBoundingClientRect().left)`, &left), browser.Value(`document.documentElement.scrollWidth - innerWidth`, &wide))
	shoot(ctx, t, "completion-390")
	if left < 0 || wide > 0 {
		t.Errorf("the list begins at %d px and makes the page %d px too wide", left, wide)
	}
	if got := said(); len(got) > 0 {
		t.Errorf("the browser complains: %q", got)
	}
}

// TestBrowserSavedSearch saves, renames and deletes.
func TestBrowserSavedSearch(t *testing.T) {
	t.Parallel()
	s, r := filled(time.Now())
	s.now = time.Now
	base, u := serveUI(t, s, r, noLive)
	defer u.Close()
	ctx, said := browser.Tab(t, browser.Chrome(t))
	run := func(step string, acts ...browser.Action) {
		t.Helper()
		if err := chromedp.Do(ctx, acts...); err != nil {
			t.Fatalf("%s: %v; the browser said %q", step, err, said())
		}
	}
	chips := `[...document.querySelectorAll(".chips a")].map(a => a.textContent).join("|")`
	ready := `document.readyState === "complete"`
	save := func(name string) []browser.Action {
		return []browser.Action{browser.JS(`document.querySelector(".saved summary").click(), document.getElementById("search-name").focus(), 0`), chromedp.KeyEvent(name), chromedp.KeyEvent(kb.Enter)}
	}
	run("open", browser.Size(1280, 900, false), chromedp.Navigate(base+"/messages?env=production&q=timeout"), browser.Until(ready))
	run("save", append(save("Timeouts"), browser.Until(chips+` === "Timeouts" && `+ready), browser.Until(`document.querySelector(".chips a").getAttribute("aria-current") === "page"`))...)
	run("another", chromedp.Navigate(base+"/messages?env=production&q="+url.QueryEscape("failed:true size > 100")), browser.Until(ready))
	run("save it", append(save("Failed and not small"), browser.Until(chips+` === "Failed and not small|Timeouts" && `+ready))...)
	run("rename", browser.JS(`document.querySelector(".saved summary").click(), document.querySelector(".savedone summary").click(), 0`))
	shoot(ctx, t, "saved")
	run("rename", browser.JS(`document.querySelector(".savedone input[name=name]").value = "Renamed", document.querySelector(".savedone form button").click(), 0`),
		browser.Until(chips+` === "Renamed|Timeouts" && `+ready))
	run("delete", browser.JS(`document.querySelectorAll(".savedone form button")[1].click(), 0`), browser.Until(chips+` === "Timeouts" && `+ready))
	run("on a phone", browser.Size(390, 844, true), chromedp.Navigate(base+"/messages?env=production"), browser.Until(ready), browser.JS(`document.querySelector(".saved summary").click(), 0`))
	shoot(ctx, t, "saved-390")
	if got := said(); len(got) > 0 {
		t.Errorf("the browser complains: %q", got)
	}
}
