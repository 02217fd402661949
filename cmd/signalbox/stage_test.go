package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStagesStopInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		part := func(name string) stage {
			ready := make(chan struct{})
			return stage{name: name, ready: ready, run: func(ctx context.Context) error {
				order = append(order, name+" up")
				close(ready)
				<-ctx.Done()
				time.Sleep(time.Second)
				order = append(order, name+" down")
				return ctx.Err()
			}}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if err := runStages(ctx, slog.New(slog.DiscardHandler), 10*time.Second, part("storage"), part("collector"), part("http")); err != nil {
			t.Errorf("runStages: got %v, want nil after a cancelled context", err)
		}
		want := []string{"storage up", "collector up", "http up", "http down", "collector down", "storage down"}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

func TestAStageThatFailsStopsTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		stopped := false
		err := runStages(t.Context(), slog.New(slog.DiscardHandler), time.Second,
			stage{name: "storage", run: func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil }},
			stage{name: "http", run: func(context.Context) error { time.Sleep(time.Second); return boom }})
		if !errors.Is(err, boom) {
			t.Errorf("runStages: got %v, want %v", err, boom)
		}
		if !stopped {
			t.Error("the other stage was not stopped")
		}
	})
}

func TestAStageThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		err := runStages(ctx, slog.New(slog.DiscardHandler), 5*time.Second,
			stage{name: "stuck", run: func(context.Context) error { <-release; return nil }})
		if err != nil {
			t.Errorf("runStages: got %v, want nil", err)
		}
		if got := time.Since(start); got != 6*time.Second {
			t.Errorf("gave up after %v, want 6s", got)
		}
		close(release)
	})
}

func TestAPartIsNamedOnce(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"engine: no library": "engine: no library", "no library": "engine: no library", "engineer": "engine: engineer"} {
		if got := named("engine", errors.New(text)).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
