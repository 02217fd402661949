// Package ui is the console's web interface: routes, middleware, and errors
// turned into pages. Pages are its sub-packages; they ask small interfaces for
// what they show, and this package knows no store, link or hub. cmd/signalbox
// builds it and mounts the handler; Close ends the WebSockets it holds.
package ui

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/asset"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/live"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/agents"
	"github.com/signalbox-dev/signalbox/ui/page/channels"
	"github.com/signalbox-dev/signalbox/ui/page/livetap"
	"github.com/signalbox-dev/signalbox/ui/page/messages"
	"github.com/signalbox-dev/signalbox/ui/page/overview"
)

// Store is everything the pages read from the message store.
type Store interface {
	messages.Reader
	channels.Reader
	page.EnvironmentLister
	Bodies(ctx context.Context, of []storage.Message) (map[controlbus.ID][]byte, error)
	Totals(ctx context.Context, env string, within storage.TimeRange) (storage.Totals, error)
	Tables(ctx context.Context) ([]storage.TableSize, error)
}

// Roster is the fleet: who is there, and which taps are asked of whom.
type Roster interface {
	channels.TapControl
	Agents() []controlbus.AgentView
}

// Config is what the console needs. Store is required; what else is nil has no
// page and no navigation.
type Config struct {
	Log     *slog.Logger
	Version string
	Store   Store
	Roster  Roster
	Live    live.Source
	Health  overview.Health
	// Owner names who asks for a tap; nil records nobody.
	Owner func(*http.Request) string
	// Origins are trusted besides the host asked, scheme and port included:
	// where a proxy rewrites Host.
	Origins []string
	// Assets is a directory to read the front end from instead of the embedded
	// build; nil in production.
	Assets fs.FS
	// Metrics counts requests; nil for none.
	Metrics *metrics.Set
	Now     func() time.Time // nil: time.Now
}

// UI is the handler of the console's pages.
type UI struct {
	cfg    Config
	site   *page.Site
	assets *asset.Set
	live   *live.Handler
	mux    *http.ServeMux
	root   http.Handler
}

// pageTimeout bounds what a page waits for the store; a search that needs
// longer says how far it came.
const pageTimeout = 15 * time.Second

// New builds the console. It starts nothing.
func New(cfg Config) (*UI, error) {
	if cfg.Store == nil {
		return nil, errors.New("ui: no store")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	u := &UI{cfg: cfg, mux: http.NewServeMux()}
	var err error
	if cfg.Assets != nil {
		u.assets, err = asset.Load(cfg.Assets)
	} else {
		u.assets, err = asset.Embedded()
	}
	if err != nil {
		return nil, fmt.Errorf("ui: %w", err)
	}
	if !u.assets.Built() {
		cfg.Log.Warn("front end not built: pages work as plain links and forms; run make generate and build again")
	}
	u.site = &page.Site{
		Version: cfg.Version, Now: cfg.Now, Environments: cfg.Store, Timeout: pageTimeout,
		CSS: u.assets.URL("style.css"), JS: u.assets.URL("app.js"), Favicon: u.assets.URL("favicon.svg"),
	}
	if err := u.routes(); err != nil {
		return nil, fmt.Errorf("ui: %w", err)
	}
	cop := http.NewCrossOriginProtection()
	for _, o := range cfg.Origins {
		if err := cop.AddTrustedOrigin(o); err != nil {
			return nil, fmt.Errorf("ui: origins: %w", err)
		}
	}
	cop.SetDenyHandler(u.wrap(func(http.ResponseWriter, *http.Request) error {
		return fmt.Errorf("this form was sent from another site: %w", controlbus.ErrDenied)
	}))
	u.root = u.count(u.secure(compress(cop.Handler(u.mux))))
	return u, nil
}

// routes mounts the pages that exist and lists them in the navigation.
func (u *UI) routes() error {
	var areas []page.Route
	nav := func(area, label, icon, url, key string) {
		u.site.Nav = append(u.site.Nav, component.NavItem{Area: area, Label: label, Icon: icon, URL: url, Key: key})
	}
	c := u.cfg
	var fleet interface{ Agents() []controlbus.AgentView }
	var taps channels.TapControl
	if c.Roster != nil { // a nil Roster must not become a non-nil interface of another type
		fleet, taps = c.Roster, c.Roster
	}
	nav("overview", "Overview", "overview", "/", "o")
	areas = append(areas, overview.New(u.site, c.Store, fleet, c.Health).Routes()...)
	nav("channels", "Channels", "channels", "/channels", "c")
	areas = append(areas, channels.New(u.site, channels.Deps{Channels: c.Store, Messages: c.Store, Agents: fleet, Taps: taps, Live: c.Live != nil, Owner: c.Owner}).Routes()...)
	nav("messages", "Messages", "messages", "/messages", "m")
	areas = append(areas, messages.New(u.site, messages.Deps{Store: c.Store, Live: c.Live != nil, Exports: u.exports}).Routes()...)
	if c.Live != nil {
		nav("live", "Live tap", "live", "/live", "l")
		areas = append(areas, livetap.New(u.site, c.Store).Routes()...)
		u.live = live.New(live.Config{Source: c.Live, Log: c.Log, Origins: c.Origins})
		u.mux.Handle("GET "+live.Path, u.wrap(u.live.Serve))
	}
	if fleet != nil {
		nav("agents", "Agents", "agents", "/agents", "a")
		areas = append(areas, agents.New(u.site, fleet, c.Store).Routes()...)
	}
	deps := api.Deps{Version: c.Version, Store: c.Store, Health: c.Health, Owner: c.Owner, Now: c.Now, Timeout: pageTimeout}
	if c.Roster != nil {
		deps.Fleet = c.Roster
	}
	programs, err := api.New(deps)
	if err != nil {
		return err
	}
	areas = append(areas, programs.Routes()...)
	for _, r := range areas {
		u.mux.Handle(r.Pattern, u.wrap(r.Handler))
	}
	u.mux.Handle("GET "+asset.Prefix, u.assets)
	u.mux.Handle("POST /preferences", u.wrap(u.preferences))
	u.mux.Handle("/", u.wrap(func(_ http.ResponseWriter, r *http.Request) error {
		return fmt.Errorf("page %s: %w", component.Visible(r.URL.Path), controlbus.ErrNotFound)
	}))
	return nil
}

// exports says whether the API that hands out results as files is mounted.
func (u *UI) exports() bool {
	_, pattern := u.mux.Handler(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: messages.ExportPath}, Host: "-"})
	return strings.HasSuffix(pattern, messages.ExportPath)
}

// ServeHTTP serves the pages.
func (u *UI) ServeHTTP(w http.ResponseWriter, r *http.Request) { u.root.ServeHTTP(w, r) }

// AssetsBuilt says whether the front end was built into the program.
func (u *UI) AssetsBuilt() bool { return u.assets.Built() }

// Close ends the live taps and waits for them. Call it before or while the HTTP
// server shuts down: the server does not know upgraded connections.
func (u *UI) Close() {
	if u.live != nil {
		u.live.Close()
	}
}

// preferences keeps the reader's own choices in cookies, so that the server
// renders them and no page flickers.
func (u *UI) preferences(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: form: %w", controlbus.ErrInvalid, err)
	}
	set := func(name, value string) {
		http.SetCookie(w, &http.Cookie{
			Name: name, Value: value, Path: "/", MaxAge: 365 * 24 * 3600,
			HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: r.TLS != nil,
		})
	}
	switch theme := r.PostForm.Get("theme"); theme {
	case "light", "dark", "system":
		set(page.CookieTheme, theme)
	}
	switch narrow := r.PostForm.Get("narrow"); narrow {
	case "0", "1":
		set(page.CookieNarrow, narrow)
	}
	http.Redirect(w, r, localPath(r.PostForm.Get("back")), http.StatusSeeOther)
	return nil
}

// localPath keeps a redirect within the console whatever the form says.
func localPath(s string) string {
	p, err := url.Parse(s)
	if err != nil || p.IsAbs() || p.Host != "" || p.Opaque != "" || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || strings.ContainsAny(s, "\\\r\n\t") {
		return "/"
	}
	return s
}
