package live_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/live"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fakeTap struct {
	frames chan controlbus.LiveFrame
	closed chan struct{}
}

func (f *fakeTap) Next(ctx context.Context) (controlbus.LiveFrame, error) {
	select {
	case fr, ok := <-f.frames:
		if !ok {
			return fr, errors.New("ended")
		}
		return fr, nil
	case <-ctx.Done():
		return controlbus.LiveFrame{}, ctx.Err()
	}
}

func (f *fakeTap) Close() { close(f.closed) }

func start(t *testing.T, cfg live.Config) (*fakeTap, *live.Handler, string, string) {
	t.Helper()
	tap := &fakeTap{frames: make(chan controlbus.LiveFrame, 4), closed: make(chan struct{})}
	cfg.Log = slog.New(slog.DiscardHandler)
	if cfg.Source == nil {
		cfg.Source = live.SourceFunc(func(controlbus.LiveQuery) (live.Subscription, error) { return tap, nil })
	}
	h := live.New(cfg)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h.Serve(w, r)
		switch {
		case errors.Is(err, controlbus.ErrDenied):
			http.Error(w, "denied", http.StatusForbidden)
		case err != nil:
			http.Error(w, "refused", http.StatusBadRequest)
		}
	}))
	t.Cleanup(func() { h.Close(); srv.Close() })
	return tap, h, "ws" + strings.TrimPrefix(srv.URL, "http"), srv.URL
}

func dial(t *testing.T, url, origin string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	h := http.Header{}
	if origin != "" {
		h.Set("Origin", origin)
	}
	c, resp, err := websocket.DefaultDialer.Dial(url, h)
	if c != nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, resp, err
}

func TestFramesArriveAndCloseIsClean(t *testing.T) {
	t.Parallel()
	tap, h, ws, origin := start(t, live.Config{})
	c, _, err := dial(t, ws+"/?channel=orders.*", origin)
	if err != nil {
		t.Fatal(err)
	}
	tap.frames <- controlbus.LiveFrame{Matched: 5, Sampled: 3, Dropped: 1, Events: []*controlbus.MessageEvent{{Destination: "orders\u202e.x", Body: []byte("<b>\x00"), Time: 1e18}}}
	_, b, err := c.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	var f live.Frame
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	if f.Matched != 5 || f.Sampled != 3 || f.Dropped != 1 || len(f.Rows) != 1 || f.Rows[0].Channel != "orders⟨U+202E⟩.x" || f.Rows[0].Text != "<b>␀" {
		t.Errorf("got %s", b)
	}
	if strings.Contains(string(b), "<b>") {
		t.Errorf("markup is not escaped in the frame: %s", b)
	}
	done := make(chan struct{})
	go func() { h.Close(); close(done) }()
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("at shutdown: got %v, want close 1001", err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("Close does not return")
	}
	<-tap.closed
	if h.Readers() != 0 {
		t.Errorf("%d readers left", h.Readers())
	}
}

func TestForeignOriginIsRefused(t *testing.T) {
	t.Parallel()
	_, _, ws, own := start(t, live.Config{Origins: []string{"https://console.example"}})
	for _, origin := range []string{"", "null", "https://evil.example", own + ".evil.example", "https://console.example.evil", strings.Replace(own, "http://", "ftp://", 1)} {
		if _, resp, err := dial(t, ws, origin); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("origin %q: got %v, want 403", origin, err)
		}
	}
	if _, _, err := dial(t, ws, "https://console.example"); err != nil {
		t.Errorf("an allowed origin is refused: %v", err)
	}
}

func TestAReaderThatTalksTooMuchIsCut(t *testing.T) {
	t.Parallel()
	tap, _, ws, origin := start(t, live.Config{})
	c, _, err := dial(t, ws, origin)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.WriteMessage(websocket.TextMessage, make([]byte, 64<<10)) // may be cut in its middle already
	select {
	case <-tap.closed:
	case <-time.After(10 * time.Second):
		t.Fatal("a message of 64 KiB did not end the connection")
	}
}

func TestTheEndOfATapIsToldToTheBrowser(t *testing.T) {
	t.Parallel()
	tap, _, ws, origin := start(t, live.Config{})
	c, _, err := dial(t, ws, origin)
	if err != nil {
		t.Fatal(err)
	}
	close(tap.frames)
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseTryAgainLater) {
		t.Errorf("got %v, want close 1013", err)
	}
}
