package ui

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/a-h/templ"
	"github.com/gorilla/websocket"
	"github.com/klauspost/compress/gzhttp"

	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/asset"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/problem"
)

// secure sets the headers that make a slip elsewhere harmless. The policy names
// everything a page may load: scripts and styles that carry this response's
// nonce, images and connections of this origin; nothing inline, no eval, no
// frames. What a message's producer writes can therefore never run, not even
// if it were not escaped.
func (u *UI) secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		nonce := rand.Text()
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+nonce+"'; style-src 'nonce-"+nonce+"'; "+
			"img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types signalbox")
		h.Set("X-Content-Type-Options", "nosniff")
		if u.cfg.Guard.Secure(r) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		next.ServeHTTP(w, r.WithContext(templ.WithNonce(r.Context(), nonce)))
	})
}

// compress leaves WebSockets alone, and assets, which are compressed once when
// they are loaded.
func compress(next http.Handler) http.Handler {
	zip := gzhttp.GzipHandler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if websocket.IsWebSocketUpgrade(r) || len(r.URL.Path) > len(asset.Prefix) && r.URL.Path[:len(asset.Prefix)] == asset.Prefix {
			next.ServeHTTP(w, r)
			return
		}
		zip.ServeHTTP(w, r)
	})
}

// status remembers what was answered.
type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	if s.code == 0 {
		s.code = code
	}
	s.ResponseWriter.WriteHeader(code)
}

func (s *status) Write(b []byte) (int, error) {
	if s.code == 0 {
		s.code = http.StatusOK
	}
	return s.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController and the WebSocket upgrade through.
func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// count counts requests by route and class of status. Routes are the patterns
// of the mux: bounded, whatever is asked for.
func (u *UI) count(next http.Handler) http.Handler {
	if u.cfg.Metrics == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := u.mux.Pattern(r)
		started := u.cfg.Now()
		if websocket.IsWebSocketUpgrade(r) {
			u.cfg.Metrics.GetOrCreateCounter(`signalbox_ui_requests_total{route="` + route + `",code="101"}`).Inc()
			next.ServeHTTP(w, r)
			return
		}
		s := &status{ResponseWriter: w}
		next.ServeHTTP(s, r)
		if s.code == 0 {
			s.code = http.StatusOK
		}
		u.cfg.Metrics.GetOrCreateCounter(`signalbox_ui_requests_total{route="` + route + `",code="` + strconv.Itoa(s.code) + `"}`).Inc()
		u.took.Observe(route, u.cfg.Now().Sub(started))
	})
}

// wrap turns a page into a handler: its error or panic becomes a page.
func (u *UI) wrap(h page.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					panic(p)
				}
				u.fail(w, r, fmt.Errorf("panic: %v", p), debug.Stack())
			}
		}()
		if err := h(w, r); err != nil {
			u.fail(w, r, err, nil)
		}
	})
}

func (u *UI) fail(w http.ResponseWriter, r *http.Request, err error, stack []byte) {
	a, known := problem.Of(err)
	ref := rand.Text()[:10]
	text := component.Visible(problem.Text(err))
	if !known {
		// An unforeseen error may hold what only the log should.
		text = "The page could not be made."
		attrs := []any{slog.String("reference", ref), slog.String("path", r.URL.Path), slog.Any("error", err)}
		if stack != nil {
			attrs = append(attrs, slog.String("stack", string(stack)))
		}
		if errors.Is(err, context.Canceled) {
			return // the reader has gone
		}
		u.cfg.Log.ErrorContext(r.Context(), "page failed", attrs...)
	} else {
		u.cfg.Log.InfoContext(r.Context(), "page refused", slog.String("reference", ref), slog.String("path", r.URL.Path), slog.Int("status", a.Status), slog.Any("error", err))
	}
	if strings.HasPrefix(r.URL.Path, api.Root) {
		api.WriteProblem(w, r, a, err, text, ref)
		return
	}
	// The frame is built from a bare address: the one asked for may be what
	// could not be read.
	bare := r.Clone(r.Context())
	bare.URL.RawQuery, bare.URL.Path = "", "/"
	v, beginErr := u.site.Begin(bare)
	if beginErr != nil {
		http.Error(w, a.Title, a.Status)
		return
	}
	body := problem.Page(problem.View{Title: a.Title, Text: text, Next: a.Next, Reference: ref, Back: "/"})
	if err := v.Render(w, page.Options{Title: a.Title, Status: a.Status}, body); err != nil {
		http.Error(w, a.Title, a.Status)
	}
}

// askIn answers who is not signed in: pages lead to the sign-in and back, what
// a page asked by itself is told to go there, and programs get a problem.
func (u *UI) askIn(w http.ResponseWriter, r *http.Request, err error) {
	next := r.URL.RequestURI()
	switch {
	case strings.HasPrefix(r.URL.Path, api.Root), websocket.IsWebSocketUpgrade(r), r.Method != http.MethodGet && r.Method != http.MethodHead:
		u.fail(w, r, err, nil)
	case r.Header.Get("HX-Request") == "true":
		if at, err := url.Parse(r.Header.Get("HX-Current-URL")); err == nil && at.Path != "" {
			next = at.RequestURI()
		}
		w.Header().Set("HX-Redirect", signIn(next))
		w.WriteHeader(http.StatusUnauthorized)
	default:
		http.Redirect(w, r, signIn(next), http.StatusSeeOther)
	}
}

// signIn is the address of the sign-in that leads on to a page of the console.
func signIn(next string) string {
	if next = page.LocalPath(next); next == "/" {
		return "/login"
	}
	return "/login?" + url.Values{"next": {next}}.Encode()
}
