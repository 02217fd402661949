package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// listener takes OTLP as a console does, and remembers what it was told.
type listener struct {
	mu       sync.Mutex
	channels map[string]int // tapped messages
	bodies   []string
	services map[string]bool // that sent spans
	more     chan struct{}
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := plain(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r.URL.Path {
	case "/v1/logs":
		req := plogotlp.NewExportRequest()
		if err := req.UnmarshalProto(body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, rl := range req.Logs().ResourceLogs().All() {
			for _, sl := range rl.ScopeLogs().All() {
				for _, rec := range sl.LogRecords().All() {
					if rec.EventName() != controlbus.EventMessage {
						continue
					}
					channel, _ := rec.Attributes().Get(controlbus.AttrDestination)
					l.channels[channel.AsString()]++
					l.bodies = append(l.bodies, string(rec.Body().Bytes().AsRaw())+rec.Body().Str())
				}
			}
		}
	case "/v1/traces":
		req := ptraceotlp.NewExportRequest()
		if err := req.UnmarshalProto(body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, rs := range req.Traces().ResourceSpans().All() {
			if v, ok := rs.Resource().Attributes().Get("service.name"); ok {
				l.services[v.AsString()] = true
			}
		}
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func plain(r *http.Request) ([]byte, error) {
	switch r.Header.Get("Content-Encoding") {
	case "gzip":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(z)
	case "zstd":
		z, err := zstd.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		return io.ReadAll(z)
	}
	return io.ReadAll(r.Body)
}

func TestDemoIsTapped(t *testing.T) {
	l := &listener{channels: map[string]int{}, services: map[string]bool{}, more: make(chan struct{}, 1)}
	srv := httptest.NewServer(l)
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var out, complaints bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- runDemo(ctx, []string{"-console", srv.URL, "-data", t.TempDir(), "-rate", "40"}, &out, &complaints)
	}()

	want := []string{"ORDERS", "PAYMENTS", "SHIPPING", "notifications.email"}
	deadline := time.After(30 * time.Second)
	for complete := false; !complete; {
		select {
		case <-l.more:
		case err := <-done:
			t.Fatalf("the demo ended: %v\n%s", err, &complaints)
		case <-deadline:
			t.Errorf("not all channels were tapped in 30 s")
			complete = true
			continue
		}
		l.mu.Lock()
		complete = len(l.services) >= 6
		for _, c := range want {
			complete = complete && l.channels[c] >= 10
		}
		l.mu.Unlock()
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("the demo ended with %v", err)
		}
	case <-time.After(2 * demoGrace):
		t.Fatal("the demo did not stop")
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	cards := 0
	for _, b := range l.bodies {
		if !strings.Contains(b, `"card":`) {
			continue
		}
		cards++
		if strings.Contains(b, `"pan":"400000`) {
			t.Fatalf("a card number left the agent: %s", b)
		}
	}
	if cards < 20 {
		t.Errorf("messages with a card: got %d, want at least 20", cards)
	}
	for _, line := range []string{"broker ready", "agent ready (5 taps)", "company opens", srv.URL, "stopped"} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("output lacks %q:\n%s", line, &out)
		}
	}
	t.Logf("tapped %v, services %v\n%s", l.channels, l.services, &out)
	if complaints.Len() > 0 {
		t.Logf("complaints:\n%s", &complaints)
	}
}

func TestDemoRefusesMistakes(t *testing.T) {
	for _, args := range [][]string{
		{"-rate", "0"}, {"-rate", "NaN"}, {"-rate", "1e9"}, {"-console", "nonsense"}, {"-data", ""}, {"extra"}, {"-nope"},
	} {
		if _, err := parseDemo(args, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("demo %v: got %v, want a usage error", args, err)
		}
	}
}
