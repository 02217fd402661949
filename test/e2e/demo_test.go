// Package e2e drives the built programs from outside, as people do: a terminal
// to start and stop them, a browser to look.
package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/test/program"
)

func TestMain(m *testing.M) { program.Main(m) }

// demo starts `signalbox demo` on free ports and returns the console's address.
func demo(t *testing.T, args ...string) (*program.Process, string) {
	t.Helper()
	enginetest.Require(t)
	p := program.Start(t, program.Console, nil, append([]string{
		"demo", "-listen", "127.0.0.1:0", "-listen-grpc", "", "-data", t.TempDir()}, args...)...)
	address := regexp.MustCompile(`watches the demo at (http://\S+)`)
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if m := address.FindStringSubmatch(p.Output()); m != nil {
			return p, m[1]
		}
		select {
		case <-tick.C:
		case <-p.Done():
			t.Fatalf("the demo ended:\n%s", p.Output())
		case <-deadline:
			t.Fatalf("the demo is not ready after 60s:\n%s", p.Output())
		}
	}
}

// A newcomer opens the demo: the overview tells of real channels, a message is
// found and followed through its conversation, the live tap streams, and
// Ctrl-C leaves nothing behind.
func TestDemo(t *testing.T) {
	ctx := browser.Chrome(t)
	p, url := demo(t, "-rate", "20", "-seed", "7")
	tab, complaints := browser.Tab(t, ctx)
	run := func(what string, actions ...browser.Action) {
		t.Helper()
		for _, a := range actions {
			if err := chromedp.Do(tab, a); err != nil {
				t.Fatalf("%s: %v\n%s", what, err, strings.Join(complaints(), "\n"))
			}
		}
	}

	text := func(s string) string { return fmt.Sprintf("document.body.innerText.includes(%q)", s) }

	run("overview shows the company's channels", arrives(url+"/", text("ORDERS")+"&&"+text("PAYMENTS")))
	run("channels", arrives(url+"/channels", text("SHIPPING")))
	run("a payment is found", arrives(url+"/messages?q=channel:PAYMENTS", `document.querySelector('main a[href^="/messages/"]')`))
	run("its conversation reaches from checkout to here",
		arrives(url+"/messages?q=channel:PAYMENTS", `document.querySelector('main a[href^="/messages/"]')`),
		browser.JS(`location.href = [...document.querySelectorAll('main a[href^="/messages/"]')].pop().href, 0`),
		browser.Until(`location.pathname.length > 20 && document.readyState === "complete"`),
		browser.Until(text("POST /checkout")+"&&"+text("Seen on ORDERS")+"&&"+text("masked at the agent")))
	run("live tap streams",
		chromedp.Navigate(url+"/live?q=channel:ORDERS"),
		browser.Until(`[...document.querySelectorAll("main a[href^='/messages/']")].length > 3`))
	run("agents", arrives(url+"/agents", text("nats-demo")))
	if said := complaints(); len(said) > 0 {
		t.Errorf("the browser complains:\n%s", strings.Join(said, "\n"))
	}

	stop, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	code, err := p.Stop(stop)
	if err != nil || code != 0 {
		t.Errorf("after SIGTERM: exit code %d, %v\n%s", code, err, p.Output())
	}
	if p.Left() {
		t.Error("a process of the demo is still there")
	}
}

// The second start of the demo finds everything in place.
func TestDemoStartsWarmInFiveSeconds(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	enginetest.Require(t)
	data := t.TempDir()
	for _, c := range []struct {
		name string
		most time.Duration
	}{{"cold", 30 * time.Second}, {"warm", 5 * time.Second}} {
		start := time.Now()
		p, _ := demo(t, "-data", data)
		took := time.Since(start)
		t.Logf("%s start: %v", c.name, took.Round(10*time.Millisecond))
		if took > c.most {
			t.Errorf("%s start took %v, want at most %v\n%s", c.name, took, c.most, p.Output())
		}
		stop, cancel := context.WithTimeout(t.Context(), 40*time.Second)
		if code, err := p.Stop(stop); err != nil || code != 0 {
			t.Errorf("%s: exit code %d, %v", c.name, code, err)
		}
		cancel()
	}
}
