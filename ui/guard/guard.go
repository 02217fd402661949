// Package guard stands before everything the console serves. A handler is
// mounted with the action it does; the guard finds out who asks, refuses who may
// not, and hands the handler a context that says who acts (access.From), from
// where (access.ClientFrom), and what reads are limited to
// (controlbus.ScopeFrom). There is no way to mount a handler without an action.
//
// Who asks is told by a session cookie or a bearer token; a token that does not
// hold is refused and never falls back to the cookie. Where the console is open,
// everybody is its anonymous administrator, but only under a name that can be
// trusted: a page of another site that rebinds its own name to this address
// would otherwise be the administrator, too.
package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Config sets a Guard up.
type Config struct {
	Access *access.Service
	Log    *slog.Logger
	// AgentsOpen takes telemetry and reports from who shows no credential.
	AgentsOpen bool
	// Public is the console's address as browsers know it, where that is not the
	// address asked; nil otherwise.
	Public *url.URL
	// HTTPS says that browsers speak TLS with a proxy before the console.
	HTTPS bool
	// Hosts are names under which an open console is trusted, besides loopback
	// and Public.
	Hosts []string
	// Proxies may say for whom they ask, in X-Forwarded-For.
	Proxies []netip.Prefix
}

// Guard is safe for concurrent use.
type Guard struct {
	cfg Config
	log *slog.Logger
}

// New returns a guard; it starts nothing.
func New(cfg Config) (*Guard, error) {
	if cfg.Access == nil {
		return nil, errors.New("guard: no access service")
	}
	g := &Guard{cfg: cfg, log: cfg.Log}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	return g, nil
}

// Access is the service behind the guard.
func (g *Guard) Access() *access.Service { return g.cfg.Access }

// AgentsOpen says that agents and services need no credential.
func (g *Guard) AgentsOpen() bool { return g.cfg.AgentsOpen }

// Route is a mounted handler as lists and tests see it.
type Route struct {
	Pattern string
	Action  access.Action
}

// Refuse answers who may not. err is access.ErrUnauthenticated,
// controlbus.ErrDenied, or that the state does not answer.
type Refuse func(w http.ResponseWriter, r *http.Request, err error)

// Mux is an http.ServeMux whose routes have actions.
type Mux struct {
	guard  *Guard
	mux    *http.ServeMux
	routes []Route
	errs   []error
}

// Mux returns an empty one.
func (g *Guard) Mux() *Mux { return &Mux{guard: g, mux: http.NewServeMux()} }

// Handle mounts a handler. nil for refuse answers with a problem document. A
// pattern without an action that exists is not served, and Err says so.
func (m *Mux) Handle(pattern string, a access.Action, h http.Handler, refuse Refuse) {
	if !a.Known() {
		m.errs = append(m.errs, fmt.Errorf("guard: route %q: want one of the actions of package access, have %q", pattern, string(a)))
		return
	}
	m.routes = append(m.routes, Route{pattern, a})
	m.mux.Handle(pattern, m.guard.protect(a, h, refuse))
}

// Guarded is a handler that guards its own routes.
type Guarded interface {
	http.Handler
	Routes() []Route
}

// Wrap puts a middleware around a handler that guards its own routes.
func Wrap(h Guarded, middleware func(http.Handler) http.Handler) Guarded {
	return wrapped{middleware(h), h}
}

type wrapped struct {
	http.Handler
	inner Guarded
}

func (w wrapped) Routes() []Route { return w.inner.Routes() }

// Mount serves a handler that guards its own routes.
func (m *Mux) Mount(pattern string, h Guarded) {
	m.routes = append(m.routes, h.Routes()...)
	m.mux.Handle(pattern, h)
}

// Err is what was wrong with what was mounted. A program with an error here
// must not start.
func (m *Mux) Err() error { return errors.Join(m.errs...) }

// Routes lists what is mounted.
func (m *Mux) Routes() []Route { return slices.Clone(m.routes) }

// Pattern is the route that a request takes.
func (m *Mux) Pattern(r *http.Request) string {
	_, pattern := m.mux.Handler(r)
	return pattern
}

// ServeHTTP serves.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.mux.ServeHTTP(w, r) }

func (g *Guard) protect(a access.Action, next http.Handler, refuse Refuse) http.Handler {
	if refuse == nil {
		refuse = Problem
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := access.WithClient(r.Context(), g.client(r))
		id, err := g.identify(ctx, r, a)
		switch {
		case err == nil && !id.Somewhere(a):
			err = fmt.Errorf("%s: %w. %s", a, controlbus.ErrDenied, id.Why(a))
			if id.Kind == "" {
				err = access.ErrUnauthenticated
			}
		case err != nil && a == access.Public && errors.Is(err, access.ErrUnauthenticated):
			err = nil
		}
		ctx = g.carry(ctx, id, a)
		if err != nil {
			refuse(w, r.WithContext(ctx), err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// carry puts into the context who acts and what reads are limited to.
func (g *Guard) carry(ctx context.Context, id access.Identity, a access.Action) context.Context {
	limit := a
	if a == access.Public || a == access.Self || a.Global() {
		limit = access.ViewMetadata // what their pages show beside
	}
	ctx = controlbus.WithScope(ctx, id.Scope(limit))
	return access.With(ctx, id)
}

// Sender says who sends telemetry outside of HTTP, by a bearer token; empty for
// none.
func (g *Guard) Sender(ctx context.Context, token string) (context.Context, error) {
	r := &http.Request{Header: http.Header{}}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	id, err := g.identify(ctx, r, access.IngestTelemetry)
	if err == nil && !id.Somewhere(access.IngestTelemetry) {
		err = fmt.Errorf("%s: %w", access.IngestTelemetry, controlbus.ErrDenied)
	}
	if err != nil {
		return ctx, err
	}
	return g.carry(ctx, id, access.IngestTelemetry), nil
}

// identify finds out who asks.
func (g *Guard) identify(ctx context.Context, r *http.Request, a access.Action) (access.Identity, error) {
	if token := access.Bearer(r.Header); token != "" {
		id, _, err := g.cfg.Access.FromToken(ctx, token)
		return id, err
	}
	switch a {
	case access.IngestTelemetry, access.AgentLink:
		// Cookies are for people; what browsers send by themselves writes nothing.
		if !g.cfg.AgentsOpen {
			return access.Identity{}, fmt.Errorf("agents and services show a credential here, as Authorization: Bearer: %w", access.ErrUnauthenticated)
		}
		return access.Identity{Kind: access.KindAgent, Grants: access.Everywhere(access.Agent)}, nil
	case access.Enrol:
		return access.Identity{}, fmt.Errorf("want an enrolment token, as Authorization: Bearer: %w", access.ErrUnauthenticated)
	}
	if g.cfg.Access.Open() {
		if !g.trusted(r.Host) {
			return access.Identity{}, fmt.Errorf("host %.100q: an open console answers under its loopback address only: %w", r.Host, controlbus.ErrDenied)
		}
		return g.cfg.Access.Anonymous(), nil
	}
	c, err := r.Cookie(g.cookieName(r))
	if err != nil {
		return access.Identity{}, access.ErrUnauthenticated
	}
	return g.cfg.Access.FromSession(ctx, c.Value, !Automatic(r))
}

// Automatic says that a page asks by itself and nobody did anything: its
// refresh, or a live tap that connects again. That keeps no session alive.
func Automatic(r *http.Request) bool {
	return r.Header.Get("HX-Request") == "true" || websocket.IsWebSocketUpgrade(r)
}

// trusted says whether an open console answers under this name.
func (g *Guard) trusted(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.IsLoopback()
	}
	return strings.EqualFold(name, "localhost") || g.cfg.Public != nil && strings.EqualFold(g.cfg.Public.Hostname(), name) ||
		slices.ContainsFunc(g.cfg.Hosts, func(h string) bool { return strings.EqualFold(h, name) })
}

// client is where a request comes from. A proxy's word counts from the right:
// what stands left of the last one that is trusted, anybody may have written.
func (g *Guard) client(r *http.Request) access.Client {
	address := r.RemoteAddr
	if h, _, err := net.SplitHostPort(address); err == nil {
		address = h
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && g.proxy(address); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		address = hop.String()
	}
	return access.Client{Address: address, UserAgent: r.UserAgent()}
}

func (g *Guard) proxy(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && slices.ContainsFunc(g.cfg.Proxies, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
}

// Secure says that the browser speaks TLS.
func (g *Guard) Secure(r *http.Request) bool {
	return r.TLS != nil || g.cfg.HTTPS || g.cfg.Public != nil && g.cfg.Public.Scheme == "https"
}

// URL is an address of the console as a browser reaches it.
func (g *Guard) URL(r *http.Request, path string) string {
	base := url.URL{Scheme: "http", Host: r.Host}
	if g.Secure(r) {
		base.Scheme = "https"
	}
	if g.cfg.Public != nil {
		base = url.URL{Scheme: g.cfg.Public.Scheme, Host: g.cfg.Public.Host}
	}
	return base.String() + path
}

// cookieName has the prefix that browsers keep others from writing, wherever
// they take it: it wants TLS.
func (g *Guard) cookieName(r *http.Request) string {
	if g.Secure(r) {
		return "__Host-signalbox"
	}
	return "signalbox-session"
}

// Session is the secret of the session that the browser sends, empty for none.
func (g *Guard) Session(r *http.Request) string {
	if c, err := r.Cookie(g.cookieName(r)); err == nil {
		return c.Value
	}
	return ""
}

// Begin gives the browser a session.
func (g *Guard) Begin(w http.ResponseWriter, r *http.Request, secret controlbus.Secret) {
	http.SetCookie(w, &http.Cookie{
		Name: g.cookieName(r), Value: secret.Reveal(), Path: "/", MaxAge: int(g.cfg.Access.SessionMax().Seconds()),
		HttpOnly: true, Secure: g.Secure(r), SameSite: http.SameSiteLaxMode,
	})
}

// End takes it back.
func (g *Guard) End(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name: g.cookieName(r), Path: "/", MaxAge: -1, HttpOnly: true, Secure: g.Secure(r), SameSite: http.SameSiteLaxMode,
	})
}

// Status is what a refusal is in HTTP.
func Status(err error) int {
	switch {
	case errors.Is(err, access.ErrUnauthenticated):
		return http.StatusUnauthorized
	case errors.Is(err, controlbus.ErrDenied):
		return http.StatusForbidden
	}
	return http.StatusServiceUnavailable
}

// Challenge names how to sign in, where that is what a program lacks.
func Challenge(w http.ResponseWriter, err error) {
	if Status(err) == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="signalbox"`)
	}
}

// Problem refuses with a problem document.
func Problem(w http.ResponseWriter, r *http.Request, err error) {
	code := Status(err)
	Challenge(w, err)
	detail := err.Error()
	if code == http.StatusServiceUnavailable {
		detail = "The console cannot tell now who asks." // the cause is for its log
		w.Header().Set("Retry-After", "5")
	}
	b, err := json.Marshal(map[string]any{
		"type": "about:blank", "title": http.StatusText(code), "status": code, "detail": detail, "instance": r.URL.Path,
	})
	if err != nil { // strings and a number always encode
		http.Error(w, detail, code)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(b) // a reader that went away is not our error
}
