// Package live serves the browser's WebSockets: what a live tap sees, sent as
// frames of JSON several times a second. A frame says how many events matched,
// how many of them were left out by sampling, and how many were dropped because
// the reader was too slow, so that a screen never looks complete when it is not.
//
// Each connection has one reader and one writer goroutine, a read limit, pings
// with a read deadline and a write deadline on every write. A reader that does
// not keep up loses its connection, never the collector's time. The handler owns
// its connections: http.Server.Shutdown does not know them, Close ends them.
package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Subscription delivers frames. Next blocks until there is one; after Close or
// when the source ends it returns an error. It is used by one goroutine.
type Subscription interface {
	Next(ctx context.Context) (controlbus.LiveFrame, error)
	Close()
}

// Source opens live taps. Subscribe does not block, may be called concurrently,
// and returns ErrOverloaded when no more readers are taken.
type Source interface {
	Subscribe(q controlbus.LiveQuery) (Subscription, error)
}

// SourceFunc adapts a function to Source.
type SourceFunc func(controlbus.LiveQuery) (Subscription, error)

// Subscribe calls f.
func (f SourceFunc) Subscribe(q controlbus.LiveQuery) (Subscription, error) { return f(q) }

const (
	readLimit    = 1 << 10 // a browser has nothing to say here but pongs
	writeTimeout = 5 * time.Second
	pongTimeout  = 45 * time.Second
	pingEvery    = 20 * time.Second
	maxReaders   = 200
)

// Config sets a Handler up.
type Config struct {
	Source Source
	Log    *slog.Logger
	// Origins are allowed besides the host that was asked, such as
	// "https://signalbox.example" behind a proxy that rewrites Host.
	Origins []string
}

// Handler upgrades requests and holds their connections.
type Handler struct {
	cfg      Config
	upgrader websocket.Upgrader

	mu     sync.Mutex
	closed bool
	conns  map[*websocket.Conn]context.CancelFunc
	wg     sync.WaitGroup
}

// New returns a handler; it starts nothing.
func New(cfg Config) *Handler {
	h := &Handler{cfg: cfg, conns: map[*websocket.Conn]context.CancelFunc{}}
	h.upgrader = websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second,
		ReadBufferSize:   1 << 10,
		WriteBufferSize:  8 << 10,
		CheckOrigin:      h.originAllowed,
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			http.Error(w, reason.Error(), status)
		},
	}
	return h
}

// originAllowed asks for an exact match. Upgrades are GET requests, so
// CrossOriginProtection does not cover them, and a page of another site could
// otherwise read every message through its visitor's browser. Only browsers
// send cookies by themselves and all of them send Origin, so none is refused.
func (h *Handler) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	if strings.EqualFold(u.Host, r.Host) {
		return true
	}
	for _, o := range h.cfg.Origins {
		if strings.EqualFold(o, origin) {
			return true
		}
	}
	return false
}

// Close ends all connections and waits for their goroutines. Requests that come
// later are refused.
func (h *Handler) Close() {
	h.mu.Lock()
	h.closed = true
	for conn, cancel := range h.conns {
		deadline := time.Now().Add(time.Second)
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, "the console stops"), deadline)
		cancel()
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// Readers is how many connections are open.
func (h *Handler) Readers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// Query reads a live tap's selection from a URL.
func Query(form url.Values) (controlbus.LiveQuery, error) {
	q := controlbus.LiveQuery{Env: form.Get("env"), Broker: form.Get("broker"), Channel: form.Get("channel"), Word: form.Get("word"), Failed: form.Get("failed") == "1"}
	for _, s := range []string{q.Env, q.Broker, q.Channel, q.Word} {
		if len(s) > 500 {
			return q, fmt.Errorf("%w: live tap: want at most 500 characters in a field", controlbus.ErrInvalid)
		}
	}
	return q, nil
}

// Serve upgrades one request and returns when its connection has ended. Errors
// before the upgrade are returned; afterwards the close code tells.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) error {
	q, err := Query(r.URL.Query())
	if err != nil {
		return err
	}
	if !h.originAllowed(r) {
		return fmt.Errorf("live tap: origin %.200q: %w", r.Header.Get("Origin"), controlbus.ErrDenied)
	}
	if !websocket.IsWebSocketUpgrade(r) {
		return fmt.Errorf("%w: live tap: want a WebSocket", controlbus.ErrInvalid)
	}
	if h.Readers() >= maxReaders {
		return fmt.Errorf("live tap: %d readers already: %w", maxReaders, controlbus.ErrOverloaded)
	}
	sub, err := h.cfg.Source.Subscribe(q)
	if err != nil {
		return fmt.Errorf("live tap: %w", err)
	}
	defer sub.Close()
	conn, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return nil //nolint:nilerr // Upgrade has answered
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	if !h.add(conn, cancel) {
		return conn.Close()
	}
	defer h.remove(conn)

	readerDone := make(chan struct{})
	go func() {
		defer close(readerDone)
		defer cancel()
		h.read(conn)
	}()
	h.write(ctx, conn, sub)
	_ = conn.Close() // ends the reader
	<-readerDone
	return nil
}

func (h *Handler) add(conn *websocket.Conn, cancel context.CancelFunc) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.conns[conn] = cancel
	h.wg.Add(1)
	return true
}

func (h *Handler) remove(conn *websocket.Conn) {
	h.mu.Lock()
	delete(h.conns, conn)
	h.mu.Unlock()
	h.wg.Done()
}

// read answers pings and notices when the browser has gone.
func (h *Handler) read(conn *websocket.Conn) {
	conn.SetReadLimit(readLimit)
	alive := func(string) error { return conn.SetReadDeadline(time.Now().Add(pongTimeout)) }
	conn.SetPongHandler(alive)
	if alive("") != nil {
		return
	}
	for {
		if _, _, err := conn.NextReader(); err != nil {
			return
		}
	}
}

// write sends frames and pings until ctx ends, the source ends, or the browser
// does not take what is sent.
func (h *Handler) write(ctx context.Context, conn *websocket.Conn, sub Subscription) {
	nextPing := time.Now().Add(pingEvery)
	for {
		wait, cancel := context.WithDeadline(ctx, nextPing)
		frame, err := sub.Next(wait)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if !time.Now().Before(nextPing) {
			nextPing = time.Now().Add(pingEvery)
			if conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout)) != nil {
				return
			}
		}
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		if err != nil {
			_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseTryAgainLater, "the tap ended"), time.Now().Add(writeTimeout))
			return
		}
		b, err := json.Marshal(Encode(frame))
		if err != nil {
			h.cfg.Log.ErrorContext(ctx, "live frame cannot be written", "error", err)
			return
		}
		if conn.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil || conn.WriteMessage(websocket.TextMessage, b) != nil {
			return
		}
	}
}

// Frame is what the browser gets.
type Frame struct {
	Rows    []Row `json:"rows"`
	Matched int64 `json:"matched"`
	Sampled int64 `json:"sampled"`
	Dropped int64 `json:"dropped"`
}

// Row is one event. Its texts have hidden characters made visible already; the
// browser still only ever sets them as text.
type Row struct {
	UID     string `json:"uid"`
	Time    string `json:"at"`   // RFC 3339
	Milli   int64  `json:"ms"`   // Unix milliseconds
	Kind    string `json:"kind"` // mark
	Tone    string `json:"tone"` // class of its colour
	Word    string `json:"word"`
	Channel string `json:"channel"`
	Key     string `json:"key"` // routing key, where it says more
	Size    string `json:"size"`
	Text    string `json:"text"`
	URL     string `json:"url"`
}

const previewBytes = 240

// Encode turns a frame into its JSON form.
func Encode(f controlbus.LiveFrame) Frame {
	out := Frame{Matched: f.Matched, Sampled: f.Sampled, Dropped: f.Dropped, Rows: make([]Row, 0, len(f.Events))}
	for _, e := range f.Events {
		st := page.Outcome(e)
		at := time.Unix(0, e.Time).UTC()
		out.Rows = append(out.Rows, Row{
			UID: e.UID.String(), Time: at.Format(time.RFC3339Nano), Milli: at.UnixMilli(),
			Kind: string(st.Kind), Tone: st.Kind.Class(), Word: st.Word, Channel: component.Visible(e.Destination), Key: page.RoutingKey(e),
			Size: component.Size(e.BodySize), Text: preview(e),
			URL: "/messages/" + e.UID.String() + "?" + url.Values{"at": {at.Format(time.RFC3339Nano)}, "env": {e.Env}}.Encode(),
		})
	}
	return out
}

func preview(e *controlbus.MessageEvent) string {
	if len(e.Body) == 0 {
		if e.BodyPolicy != controlbus.BodyFull {
			return "body not kept: " + e.BodyPolicy.String()
		}
		return ""
	}
	return component.Visible(string(e.Body[:min(len(e.Body), previewBytes)]))
}
