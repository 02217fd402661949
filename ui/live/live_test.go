package live_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/live"
)

type fakeTap struct {
	frames chan string
	closed chan struct{}
	back   atomic.Bool
}

func newFakeTap() *fakeTap {
	return &fakeTap{frames: make(chan string, 4), closed: make(chan struct{})}
}

func (f *fakeTap) Next(ctx context.Context, patience time.Duration) ([]byte, error) {
	idle := time.NewTimer(patience)
	defer idle.Stop()
	select {
	case fr, ok := <-f.frames:
		if !ok {
			return nil, fmt.Errorf("ended: %w", controlbus.ErrNotFound)
		}
		return []byte(fr), nil
	case <-idle.C:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fakeTap) Close(comesBack bool) {
	f.back.Store(comesBack)
	close(f.closed)
}

// everything may be seen by everybody.
func everything(_ context.Context, q *controlbus.LiveQuery) (string, error) {
	q.Scope, q.Bodies = controlbus.Everything(), controlbus.Everything()
	return "", nil
}

func start(t *testing.T, cfg live.Config, with ...func(*http.Request) *http.Request) (*fakeTap, *live.Handler, string, string) {
	t.Helper()
	tap := newFakeTap()
	cfg.Log = slog.New(slog.DiscardHandler)
	if cfg.Source == nil {
		cfg.Source = live.SourceFunc(func(controlbus.LiveQuery, controlbus.LiveReader) (live.Subscription, error) { return tap, nil })
	}
	if cfg.Limit == nil {
		cfg.Limit = everything
	}
	h := live.New(cfg)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, f := range with {
			r = f(r)
		}
		err := h.Serve(w, r)
		switch {
		case errors.Is(err, controlbus.ErrDenied):
			http.Error(w, err.Error(), http.StatusForbidden)
		case errors.Is(err, controlbus.ErrOverloaded):
			http.Error(w, err.Error(), http.StatusTooManyRequests)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
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
	return dialWith(t, url, h)
}

func dialWith(t *testing.T, url string, h http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	c, resp, err := websocket.DefaultDialer.Dial(url, h)
	if c != nil {
		t.Cleanup(func() { _ = c.Close() })
	}
	return c, resp, err
}

func wait(t *testing.T, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal(what)
	}
}

func TestFramesArriveAndCloseIsClean(t *testing.T) {
	t.Parallel()
	tap, h, ws, origin := start(t, live.Config{})
	c, _, err := dial(t, ws+"/?channel=orders.*", origin)
	if err != nil {
		t.Fatal(err)
	}
	tap.frames <- `{"rows":[],"matched":5}`
	if _, b, err := c.ReadMessage(); err != nil || string(b) != `{"rows":[],"matched":5}` {
		t.Fatalf("got %s, %v", b, err)
	}
	done := make(chan struct{})
	go func() { h.Close(); close(done) }()
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("at shutdown: got %v, want close 1001", err)
	}
	wait(t, "Close does not return", done)
	<-tap.closed
	if h.Readers() != 0 {
		t.Errorf("%d readers left", h.Readers())
	}
}

// What a browser of another site can send is refused; so is what no browser
// sends.
func TestForeignOriginIsRefused(t *testing.T) {
	t.Parallel()
	_, _, ws, own := start(t, live.Config{Origins: []string{"https://console.example"}})
	port := own[strings.LastIndex(own, ":"):]
	for _, origin := range []string{"", "null", "https://evil.example", own + ".evil.example", "https://console.example.evil", "https://console.example:8443", "http://console.example",
		strings.Replace(own, "http://", "ftp://", 1), "http://127.0.0.1", "http://127.0.0.1:1", "http://localhost" + port, "file://", own + "@evil.example", "http://evil.example#" + own} {
		if _, resp, err := dial(t, ws, origin); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("origin %q: got %v, want 403", origin, err)
		}
	}
	for _, site := range []string{"cross-site", "same-site", "anything"} {
		if _, resp, err := dialWith(t, ws, http.Header{"Origin": {own}, "Sec-Fetch-Site": {site}}); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("own origin with Sec-Fetch-Site %q: got %v, want 403", site, err)
		}
	}
	if _, resp, err := dialWith(t, ws, http.Header{"Authorization": {"Bearer x"}, "Origin": {"https://evil.example"}}); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a foreign origin with a token: got %v, want 403", err)
	}
	for _, good := range []http.Header{
		{"Authorization": {"Bearer x"}},
		{"Origin": {own}}, {"Origin": {own}, "Sec-Fetch-Site": {"same-origin"}}, {"Origin": {"https://console.example"}}, {"Origin": {"https://console.example"}, "Sec-Fetch-Site": {"same-site"}},
	} {
		tap2, _, ws2, own2 := start(t, live.Config{Origins: []string{"https://console.example"}})
		if good.Get("Origin") == own {
			good.Set("Origin", own2)
		}
		if _, _, err := dialWith(t, ws2, good); err != nil {
			t.Errorf("%v is refused: %v", good, err)
		} else {
			_ = tap2
		}
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
	wait(t, "a message of 64 KiB did not end the connection", tap.closed)
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

// A reader that closes is not waited for, one that is cut off or hides is.
func TestWhoComesBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(*websocket.Conn)
		want bool
	}{
		{"leaves the page", func(c *websocket.Conn) {
			_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, ""), time.Now().Add(time.Second))
		}, false},
		{"ends the program", func(c *websocket.Conn) {
			_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
		}, false},
		{"hides the tab", func(c *websocket.Conn) {
			_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(live.CloseAway, ""), time.Now().Add(time.Second))
		}, true},
		{"loses the network", func(c *websocket.Conn) { _ = c.NetConn().Close() }, true},
	} {
		tap, _, ws, origin := start(t, live.Config{})
		conn, _, err := dial(t, ws, origin)
		if err != nil {
			t.Fatal(err)
		}
		c.do(conn)
		wait(t, c.name+": the tap stays open", tap.closed)
		if tap.back.Load() != c.want {
			t.Errorf("%s: expected back: %v, want %v", c.name, tap.back.Load(), c.want)
		}
	}
}

func TestReadersAreCheckedAgain(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var answer error
	asked := make(chan controlbus.LiveQuery, 100)
	tap, _, ws, origin := start(t, live.Config{RecheckEvery: 20 * time.Millisecond, Recheck: func(_ context.Context, q controlbus.LiveQuery) error {
		asked <- q
		mu.Lock()
		defer mu.Unlock()
		return answer
	}})
	set := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		answer = err
	}
	c, _, err := dial(t, ws+"/?channel=orders.*", origin)
	if err != nil {
		t.Fatal(err)
	}
	if q := <-asked; !slices.Equal(q.Channels, []string{"orders.*"}) || !q.Scope.All() {
		t.Errorf("asked about %+v", q)
	}
	set(errors.New("the database is away")) // not yet a reason
	<-asked
	<-asked
	tap.frames <- `{"rows":[]}`
	if _, _, err := c.ReadMessage(); err != nil {
		t.Fatalf("cut while nobody can say: %v", err)
	}
	set(fmt.Errorf("gone: %w", controlbus.ErrDenied))
	<-asked
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, live.CloseRevoked) {
		t.Errorf("got %v, want close 4401", err)
	}
	wait(t, "the tap of a revoked reader stays open", tap.closed)
	if tap.back.Load() {
		t.Error("a revoked reader is expected back")
	}
}

// A change of rights reaches everybody at once, not only when their turn comes,
// and ends nobody whom it does not concern.
func TestAChangeOfRightsReachesAll(t *testing.T) {
	t.Parallel()
	type key struct{}
	taps := map[string]*fakeTap{"ann": newFakeTap(), "bob": newFakeTap(), "cid": newFakeTap()}
	var mu sync.Mutex
	changed := make(chan struct{})
	rights := map[string]error{}
	change := func(user string, err error) {
		mu.Lock()
		defer mu.Unlock()
		rights[user] = err
		close(changed)
		changed = make(chan struct{})
	}
	_, h, ws, origin := start(t, live.Config{
		Source: live.SourceFunc(func(_ controlbus.LiveQuery, who controlbus.LiveReader) (live.Subscription, error) {
			return taps[who.User], nil
		}),
		Limit: func(ctx context.Context, _ *controlbus.LiveQuery) (string, error) {
			return ctx.Value(key{}).(string), nil
		},
		Recheck: func(ctx context.Context, _ controlbus.LiveQuery) error {
			mu.Lock()
			defer mu.Unlock()
			return rights[ctx.Value(key{}).(string)]
		},
		Changed: func() <-chan struct{} {
			mu.Lock()
			defer mu.Unlock()
			return changed
		},
	}, func(r *http.Request) *http.Request {
		return r.WithContext(context.WithValue(r.Context(), key{}, r.Header.Get("X-User")))
	})
	conns := map[string]*websocket.Conn{}
	for user := range taps {
		c, _, err := dialWith(t, ws, http.Header{"Origin": {origin}, "X-User": {user}})
		if err != nil {
			t.Fatal(err)
		}
		conns[user] = c
	}
	change("ann", fmt.Errorf("signed out: %w", controlbus.ErrDenied))
	var closed *websocket.CloseError
	if _, _, err := conns["ann"].ReadMessage(); !errors.As(err, &closed) || closed.Code != live.CloseRevoked || !strings.Contains(closed.Text, "signed out") {
		t.Errorf("got %v, want close 4401 with a reason", err)
	}
	change("bob", fmt.Errorf("another role: %w", controlbus.ErrConflict))
	if _, _, err := conns["bob"].ReadMessage(); !websocket.IsCloseError(err, websocket.CloseTryAgainLater) {
		t.Errorf("got %v, want close 1013", err)
	}
	wait(t, "the tap stays open", taps["ann"].closed)
	wait(t, "the tap stays open", taps["bob"].closed)
	taps["cid"].frames <- `{"rows":[]}`
	if _, _, err := conns["cid"].ReadMessage(); err != nil {
		t.Errorf("somebody else was cut: %v", err)
	}
	for deadline := time.Now().Add(5 * time.Second); h.Readers() != 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d readers left, want 1", h.Readers())
		}
	}
}

func TestAPlainRequestIsToldWhyASocketWouldBeRefused(t *testing.T) {
	t.Parallel()
	_, _, ws, base := start(t, live.Config{Source: live.SourceFunc(func(controlbus.LiveQuery, controlbus.LiveReader) (live.Subscription, error) {
		return nil, fmt.Errorf("you have 50 live taps open: %w", controlbus.ErrOverloaded)
	})})
	if _, resp, err := dial(t, ws, base); err == nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("socket: got %v, want 429", err)
	}
	resp, err := http.Get(base)
	if err != nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("plain request: got %v, %v, want 429", resp.Status, err)
	}
	resp.Body.Close()
	tap, _, _, base := start(t, live.Config{})
	resp, err = http.Get(base)
	if err != nil || resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("plain request to an open console: got %v, %v, want 426", resp.Status, err)
	}
	resp.Body.Close()
	wait(t, "a plain request keeps a tap", tap.closed)
}

func TestQueries(t *testing.T) {
	t.Parallel()
	good, token, err := live.Query(url.Values{"channel": {"a", "", "b.*"}, "env": {"test"}, "filter": {"w OR x"}, "form": {"event"}, "resume": {"x.1"}})
	if err != nil || token != "x.1" || good.Env != "test" || good.Filter != "w OR x" || !slices.Equal(good.Channels, []string{"a", "b.*"}) || good.Form != controlbus.LiveEvent {
		t.Errorf("got %+v, token %q, %v", good, token, err)
	}
	for _, bad := range []string{"word=x", "filter=" + strings.Repeat("x", 5000), "form=xml", "chanel=x", "channel=" + strings.Repeat("x", 501), "resume=" + strings.Repeat("x", 201), strings.Repeat("channel=x&", 51)} {
		v, err := url.ParseQuery(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := live.Query(v); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("%.40s: got %v, want ErrInvalid", bad, err)
		}
	}
}

func TestRowsAreHarmless(t *testing.T) {
	t.Parallel()
	ev := &controlbus.MessageEvent{Destination: "orders\u202e.x", Body: []byte("<b>\x00\u2028"), BodySize: 9, Time: 1e18, Env: "a&b\"", Position: -1}
	b := live.AppendRow(nil, ev, controlbus.LiveRow)
	var row map[string]any
	if err := json.Unmarshal(b, &row); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	if row["channel"] != "orders⟨U+202E⟩.x" || row["text"] != "<b>␀⟨U+2028⟩" || row["url"] != "/messages/"+ev.UID.String()+"?at=2001-09-09T01%3A46%3A40Z&env=a%26b%22" || row["ms"] != 1e12 {
		t.Errorf("got %s", b)
	}
	if strings.ContainsAny(string(b), "<>&") {
		t.Errorf("markup is not escaped: %s", b)
	}
	if b := live.AppendRow(nil, &controlbus.MessageEvent{BodySize: 12}, controlbus.LiveRow); !strings.Contains(string(b), "payload not shown here") {
		t.Errorf("a payload that may not be read is not told from none: %s", b)
	}
	long := &controlbus.MessageEvent{Body: []byte(strings.Repeat("ä", 200))}
	if b := live.AppendRow(nil, long, controlbus.LiveRow); strings.Contains(string(b), "⟨") {
		t.Errorf("a body was cut within a character: %s", b)
	}
}

func TestEventsHaveTheValuesAsTheyAre(t *testing.T) {
	t.Parallel()
	ev := &controlbus.MessageEvent{
		Destination: "a\u202e", Env: "test", System: "kafka", Op: controlbus.OpSend, Outcome: controlbus.OutcomeFailed, Position: 9007199254740993, Delivery: 2, TraceID: [16]byte{1},
		Headers: []controlbus.Header{{Key: "k", Value: "1"}, {Key: "k", Value: "2"}}, Body: []byte(strings.Repeat("x", 3000)), BodySize: 3000,
	}
	var got map[string]any
	if err := json.Unmarshal(live.AppendRow(nil, ev, controlbus.LiveEvent), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"uid": ev.UID.String(), "time": "1970-01-01T00:00:00Z", "env": "test", "system": "kafka", "channel": "a\u202e", "operation": "send", "outcome": "failed",
		"position": "9007199254740993", "delivery": 2.0, "trace_id": "01000000000000000000000000000000", "headers": []any{[]any{"k", "1"}, []any{"k", "2"}},
		"body_size": 3000.0, "body_policy": "full", "body": strings.Repeat("x", 2048), "body_cut": true,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	ev.Body, ev.Headers = []byte{0xff, 0, 1}, []controlbus.Header{{Key: "big", Value: strings.Repeat("x", 5000)}}
	clear(got)
	if err := json.Unmarshal(live.AppendRow(nil, ev, controlbus.LiveEvent), &got); err != nil {
		t.Fatal(err)
	}
	if got["body_base64"] != "/wAB" || got["headers_cut"] != true {
		t.Errorf("got %v", got)
	}
}

// What is written by hand reads back as what encoding/json would have written.
func FuzzAppendRow(f *testing.F) {
	f.Add([]byte(`{"a":"b"}`), "orders", "key\xff\u2029\x7f")
	f.Add([]byte("\xf0\x9f\x98"), "<script>", "\\\"\r\n\t")
	f.Fuzz(func(t *testing.T, body []byte, channel, key string) {
		ev := &controlbus.MessageEvent{Body: body, Destination: channel, RoutingKey: key, Env: key, Headers: []controlbus.Header{{Key: key, Value: channel}}}
		for _, form := range []controlbus.LiveForm{controlbus.LiveRow, controlbus.LiveEvent} {
			var got map[string]any
			b := live.AppendRow(nil, ev, form)
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatalf("%q: %v", b, err)
			}
			if form == controlbus.LiveEvent && channel != "" && got["channel"] != strings.ToValidUTF8(channel, "\ufffd") && !strings.Contains(got["channel"].(string), "\ufffd") {
				t.Errorf("channel %q became %q", channel, got["channel"])
			}
			if strings.ContainsAny(string(b), "<>&\u2028\u2029") {
				t.Errorf("not escaped: %q", b)
			}
		}
	})
}

func BenchmarkAppendRow(b *testing.B) {
	ev := &controlbus.MessageEvent{Destination: "orders.eu", Broker: "rabbit", Env: "production", RoutingKey: "orders.eu.new", Time: time.Now().UnixNano(), BodySize: 400,
		Body: []byte(`{"orderId":"ORD-7731904","total":"129.90","items":[{"sku":"TEA-0412","qty":2,"price":"24.95"}],"customer":{"id":"c-991","mail":"***"}}`)}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = live.AppendRow(dst[:0], ev, controlbus.LiveRow)
	}
}
