// Package live serves live taps over WebSockets at /api/v1/live, to pages and to
// programs: frames of JSON several times a second, as docs/live.md describes. A
// frame says how many events matched, how many of them were left out by
// sampling, and how many were dropped because the reader was too slow, so that a
// screen never looks complete when it is not.
//
// Each connection has one reader and one writer goroutine, a read limit, pings
// with a read deadline and a write deadline on every write. Frames are shared
// between connections; one that does not read holds nothing but its place until
// its write deadline ends it. The handler owns its connections:
// http.Server.Shutdown does not know them, Close ends them.
package live

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Path of the socket.
const Path = "/api/v1/live"

// Subscription delivers frames: JSON texts that are shared and not to be
// changed. Next blocks for at most patience and returns nil when nothing came;
// when the source ends it returns an error. It is used by one goroutine. Close
// says whether the reader was cut off and may come back with its token.
type Subscription interface {
	Next(ctx context.Context, patience time.Duration) ([]byte, error)
	Close(comesBack bool)
}

// Source opens live taps. Subscribe does not block, may be called concurrently,
// and returns ErrOverloaded or ErrUnavailable when no more readers are taken.
type Source interface {
	Subscribe(q controlbus.LiveQuery, who controlbus.LiveReader) (Subscription, error)
}

// SourceFunc adapts a function to Source.
type SourceFunc func(controlbus.LiveQuery, controlbus.LiveReader) (Subscription, error)

// Subscribe calls f.
func (f SourceFunc) Subscribe(q controlbus.LiveQuery, who controlbus.LiveReader) (Subscription, error) {
	return f(q, who)
}

const (
	readLimit    = 1 << 10 // a browser has nothing to say here but pongs
	pongTimeout  = 60 * time.Second
	pingEvery    = 25 * time.Second
	idleEvery    = 5 * time.Second // an empty frame, so that a page knows the tap is alive
	closeTimeout = time.Second
	// recheckMost is how long a socket stays open while nobody can say whether
	// its reader still may.
	recheckMost = time.Minute
	// kernelBuffer bounds what the kernel holds for a reader that does not read.
	kernelBuffer = 128 << 10
)

// Close codes of our own; docs/live.md lists them.
const (
	CloseRevoked = 4401 // the reader may not any more; the reason says why
)

var idleFrame = []byte(`{"rows":[],"matched":0,"sampled":0,"dropped":0}`)

// Config sets a Handler up.
type Config struct {
	Source Source
	Log    *slog.Logger
	// Origins are allowed besides the host that was asked, such as
	// "https://signalbox.example" behind a proxy that rewrites Host.
	Origins []string
	// Limit writes into q what whoever asks may see, and names them for the caps.
	// Its errors refuse. It is required: without it nothing would be seen.
	Limit func(ctx context.Context, q *controlbus.LiveQuery) (user string, err error)
	// Recheck says whether whoever opened a socket still may see what q says:
	// ErrDenied when they may nothing any more, ErrConflict when they may
	// something else and have to ask again. It gets the values of the request's
	// context and is called for each socket every RecheckEvery, and for all when
	// Changed says so; nil never asks.
	Recheck      func(ctx context.Context, q controlbus.LiveQuery) error
	RecheckEvery time.Duration // 0: 30 s
	// Changed returns a channel that is closed when it is time to ask again.
	Changed func() <-chan struct{}
	// WriteTimeout ends a connection that takes nothing for so long; 0: 15 s.
	WriteTimeout time.Duration
}

// Handler upgrades requests and holds their connections.
type Handler struct {
	cfg      Config
	upgrader websocket.Upgrader

	mu     sync.Mutex
	closed bool
	taps   map[*tap]struct{}
	watch  context.CancelFunc // runs while there are taps; nil when there are none
	wg     sync.WaitGroup
}

// New returns a handler; it starts nothing.
func New(cfg Config) *Handler {
	if cfg.RecheckEvery == 0 {
		cfg.RecheckEvery = 30 * time.Second
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = 15 * time.Second
	}
	h := &Handler{cfg: cfg, taps: map[*tap]struct{}{}}
	h.upgrader = websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second,
		// A frame is written from where it lies; what a connection needs of its
		// own is room for the header of a frame, and only while it writes one.
		ReadBufferSize:  256,
		WriteBufferSize: 256,
		WriteBufferPool: &sync.Pool{},
		CheckOrigin:     h.originAllowed,
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			http.Error(w, reason.Error(), status)
		},
	}
	return h
}

// originAllowed asks for an exact match. Upgrades are GET requests, so
// CrossOriginProtection does not cover them, and a page of another site could
// otherwise read every message through its visitor's browser. Every browser
// sends Origin here. A program sends the console's own address, or shows a token,
// which no browser does by itself.
func (h *Handler) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" && r.Header.Get("Sec-Fetch-Site") == "" && strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		return true
	}
	for _, o := range h.cfg.Origins {
		if strings.EqualFold(o, origin) {
			return true
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || r.TLS != nil && u.Scheme != "https" {
		return false
	}
	return strings.EqualFold(u.Host, r.Host)
}

// Close ends all connections and waits for their goroutines. Requests that come
// later are refused.
func (h *Handler) Close() {
	h.mu.Lock()
	h.closed = true
	if h.watch != nil {
		h.watch()
		h.watch = nil
	}
	for t := range h.taps {
		t.end(ending{websocket.CloseGoingAway, "the console stops"})
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// Readers is how many connections are open.
func (h *Handler) Readers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.taps)
}

// recheckOnChange asks for every connection again when rights have changed.
func (h *Handler) recheckOnChange(ctx context.Context, changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		changed = h.cfg.Changed() // before asking, so that no change is missed
		h.mu.Lock()
		all := make([]*tap, 0, len(h.taps))
		for t := range h.taps {
			all = append(all, t)
		}
		h.mu.Unlock()
		for _, t := range all {
			if why, over := t.ask(); over {
				t.end(why)
			}
		}
	}
}

func (h *Handler) remove(t *tap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.taps, t)
	if len(h.taps) == 0 && h.watch != nil {
		h.watch()
		h.watch = nil
	}
}

// Serve upgrades a request and returns; the connection has goroutines of its
// own, so that what the request needed is free. A plain request is answered with
// the refusal that a socket would have met, for a browser does not show one of
// an upgrade to its page.
func (h *Handler) Serve(w http.ResponseWriter, r *http.Request) error {
	q, token, err := Query(r.URL.Query())
	if err != nil {
		return err
	}
	upgrade := websocket.IsWebSocketUpgrade(r)
	if upgrade && !h.originAllowed(r) {
		return fmt.Errorf("live tap: origin %.200q is not the console's own: %w", r.Header.Get("Origin"), controlbus.ErrDenied)
	}
	// Taken before asking, so that a change in between is seen.
	var changed <-chan struct{}
	if h.cfg.Changed != nil {
		changed = h.cfg.Changed()
	}
	who := controlbus.LiveReader{Resume: token}
	if who.User, err = h.cfg.Limit(r.Context(), &q); err != nil {
		return err
	}
	sub, err := h.cfg.Source.Subscribe(q, who)
	if err != nil {
		return err
	}
	if !upgrade {
		sub.Close(false)
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "This address is a WebSocket; nothing else is in the way of one.", http.StatusUpgradeRequired)
		return nil
	}
	conn, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		sub.Close(false)
		return nil //nolint:nilerr // Upgrade has answered
	}
	if s, ok := conn.NetConn().(interface{ SetWriteBuffer(int) error }); ok {
		_ = s.SetWriteBuffer(kernelBuffer)
	}
	t := &tap{h: h, conn: conn, sub: sub, query: q}
	t.ctx, t.cancel = context.WithCancelCause(context.WithoutCancel(r.Context()))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taps[t] = struct{}{}
	if h.watch == nil && h.cfg.Changed != nil && !h.closed {
		var ctx context.Context
		ctx, h.watch = context.WithCancel(context.Background())
		h.wg.Go(func() { h.recheckOnChange(ctx, changed) })
	}
	select {
	case <-changed:
		t.doubted = true
	default:
	}
	h.wg.Add(2)
	if h.closed {
		t.end(ending{websocket.CloseGoingAway, "the console stops"})
	}
	go t.read()
	go t.write()
	return nil
}
