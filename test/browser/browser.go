// Package browser drives a real Chromium in tests: tabs that collect every
// complaint of the page, and the few steps that tests share.
package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Missing skips by name, and fails where everything must be there.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("SIGNALBOX_TEST_STRICT") == "1" {
		t.Fatalf("missing: %s", what)
	}
	t.Skipf("missing: %s", what)
}

// Action is a step without a result.
type Action = chromedp.Action[chromedp.Void]

// Chrome starts a real Chromium with a profile of its own.
func Chrome(t testing.TB) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("-short")
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		Missing(t, "chromium")
	}
	opts := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true), chromedp.Env("TZ=UTC"), chromedp.WSURLReadTimeout(60 * time.Second),
	}
	alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, stop := chromedp.NewContext(alloc)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		stop()
		stopAlloc()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// Tab opens a tab that lives for a minute and collects everything the browser complains about.
func Tab(t testing.TB, browserCtx context.Context) (context.Context, func() []string) {
	t.Helper()
	return TabFor(t, browserCtx, time.Minute)
}

// TabFor is Tab with another life.
func TabFor(t testing.TB, browserCtx context.Context, life time.Duration) (context.Context, func() []string) {
	t.Helper()
	ctx, stop := chromedp.NewContext(browserCtx)
	ctx, stopTime := context.WithTimeout(ctx, life)
	t.Cleanup(func() { stopTime(); stop() })
	var mu sync.Mutex
	var said []string
	add := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, s)
	}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("open tab: %v", err)
	}
	err := chromedp.Listen(ctx, func(ev any) {
		switch e := ev.(type) {
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.EntryLevelError || e.Entry.Source == cdplog.EntrySourceSecurity {
				add(e.Entry.Text + " " + e.Entry.URL)
			}
		case *runtime.EventExceptionThrown:
			add(fmt.Sprintf("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception))
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
				b, _ := json.Marshal(e.Args)
				add(string(e.Type) + ": " + string(b))
			}
		}
	})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	enable := chromedp.Func(func(ctx context.Context, tg *chromedp.Target) error {
		if _, err := cdp.Call(ctx, tg, cdplog.Enable, cdp.Empty{}); err != nil {
			return err
		}
		_, err := cdp.Call(ctx, tg, runtime.Enable, cdp.Empty{})
		return err
	})
	if err := chromedp.Do(ctx, enable); err != nil {
		t.Fatalf("open tab: %v", err)
	}
	return ctx, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), said...)
	}
}

// Size sets the window, and makes it a phone's where mobile.
func Size(w, h int64, mobile bool) Action {
	if mobile {
		return chromedp.EmulateViewport(w, h, chromedp.EmulateMobile)
	}
	return chromedp.EmulateViewport(w, h)
}

// Theme sets what the reader's system prefers: light or dark.
func Theme(name string) Action {
	return chromedp.Func(func(ctx context.Context, tg *chromedp.Target) error {
		_, err := cdp.Call(ctx, tg, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
		return err
	})
}

// Until waits for a condition, also across navigations.
func Until(cond string) Action {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		tick := time.NewTicker(40 * time.Millisecond)
		defer tick.Stop()
		for {
			ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+cond+")"))
			if ok {
				return nil
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("until %s: %w (%v)", cond, ctx.Err(), err) //nolint:errorlint // nil where the condition is only false
			}
		}
	})
}

// Value evaluates an expression into v.
func Value[T any](code string, v *T, opts ...chromedp.EvaluateOption) Action {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) (err error) {
		*v, err = chromedp.Run(ctx, chromedp.Evaluate[T](code, opts...))
		return err
	})
}

// JS runs code for its effect.
func JS(code string) Action { return chromedp.Evaluate[chromedp.Void](code) }
