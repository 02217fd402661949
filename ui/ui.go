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
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/measure"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/asset"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/guard"
	"github.com/signalbox-dev/signalbox/ui/live"
	"github.com/signalbox-dev/signalbox/ui/page"
	accesspages "github.com/signalbox-dev/signalbox/ui/page/access"
	"github.com/signalbox-dev/signalbox/ui/page/agents"
	auditpage "github.com/signalbox-dev/signalbox/ui/page/audit"
	"github.com/signalbox-dev/signalbox/ui/page/channels"
	"github.com/signalbox-dev/signalbox/ui/page/commands"
	"github.com/signalbox-dev/signalbox/ui/page/detours"
	"github.com/signalbox-dev/signalbox/ui/page/health"
	"github.com/signalbox-dev/signalbox/ui/page/help"
	"github.com/signalbox-dev/signalbox/ui/page/invalid"
	"github.com/signalbox-dev/signalbox/ui/page/livetap"
	"github.com/signalbox-dev/signalbox/ui/page/messages"
	"github.com/signalbox-dev/signalbox/ui/page/overview"
	"github.com/signalbox-dev/signalbox/ui/page/probes"
	"github.com/signalbox-dev/signalbox/ui/page/settings"
)

// Store is everything the pages read from the message store.
type Store interface {
	messages.Reader
	channels.Reader
	page.EnvironmentLister
	Bodies(ctx context.Context, of []storage.Message) (map[controlbus.ID][]byte, error)
	Totals(ctx context.Context, env string, within storage.TimeRange) (storage.Totals, error)
	Passed(ctx context.Context, env string, within storage.TimeRange) (storage.Passed, error)
	Tables(ctx context.Context) ([]storage.TableSize, error)
	invalid.Reader
}

// Roster is the fleet: who is there, and which taps are asked of whom.
type Roster interface {
	channels.TapControl
	Agents() []controlbus.AgentView
}

// Commands is what people do to brokers, for pages and programs.
type Commands interface {
	commands.Service
	api.Commands
}

// Config is what the console needs. Guard and Store are required; what else is
// nil has no page and no navigation.
type Config struct {
	// Guard knows who asks; every route is mounted behind it.
	Guard *guard.Guard
	// Provider signs people in somewhere else; nil for none.
	Provider accesspages.Provider
	Log      *slog.Logger
	Version  string
	Store    Store
	Roster   Roster
	Live     live.Source
	Health   overview.Health
	Self     health.Source // the page of the console itself; Health where that is nil
	// Effective is what the console runs with, secrets masked; nil: not told.
	Effective func() settings.Effective
	// Searches keeps saved searches; nil for none.
	Searches messages.Searches
	// Verifier reads the audit trail anew; nil: the page does not offer it.
	Verifier auditpage.Verifier
	// Commands acts on brokers; nil: this console does not.
	Commands Commands
	// Probes are test messages on a schedule; nil: there are none.
	Probes api.Prober
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
	store  *limited
	audit  *audit
	assets *asset.Set
	live   *live.Handler
	api    *api.API
	mux    *guard.Mux
	root   http.Handler
	took   *measure.Seconds // of requests
}

// pageTimeout bounds what a page waits for the store; a search that needs
// longer says how far it came.
const pageTimeout = 15 * time.Second

// New builds the console. It starts nothing.
func New(cfg Config) (*UI, error) {
	if cfg.Store == nil {
		return nil, errors.New("ui: no store")
	}
	if cfg.Guard == nil {
		return nil, errors.New("ui: no guard")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	u := &UI{cfg: cfg, mux: cfg.Guard.Mux()}
	if cfg.Metrics != nil {
		u.took = measure.NewSeconds(cfg.Metrics, "signalbox_ui_request_seconds", "route")
	}
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
	u.audit = &audit{access: cfg.Guard.Access(), now: cfg.Now, seen: map[string]time.Time{}}
	u.store = &limited{store: cfg.Store, audit: u.audit}
	u.site = &page.Site{
		NavActions: map[string]access.Action{}, Open: cfg.Guard.Access().Open(),
		Version: cfg.Version, Now: cfg.Now, Environments: u.store, Timeout: pageTimeout,
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
	group := ""
	nav := func(area, label, icon, url, key string, needs access.Action) {
		u.site.NavActions[area] = needs
		u.site.Nav = append(u.site.Nav, component.NavItem{Area: area, Label: label, Icon: icon, URL: url, Key: key, Group: group})
		group = ""
	}
	c := u.cfg
	if c.Commands != nil {
		c.Commands = &witnessed{bus: c.Commands, audit: u.audit}
	}
	if c.Health == nil && c.Self != nil {
		c.Health = c.Self
	}
	var roster *fleet
	// A nil roster must not become a non-nil interface of another type.
	var lister channels.AgentLister
	var taps channels.TapControl
	if c.Roster != nil {
		roster = &fleet{roster: c.Roster, audit: u.audit}
		lister, taps = roster, roster
	}
	var ledger commands.Ledger
	var acts channels.Commands
	var history commands.Historian
	if c.Commands != nil {
		ledger, acts, history = c.Commands, c.Commands, c.Commands
	}
	nav("overview", "Overview", "overview", "/", "o", access.ViewMetadata)
	areas = append(areas, overview.New(u.site, u.store, lister, c.Health, ledger).Routes()...)
	nav("channels", "Channels", "channels", "/channels", "c", access.ViewMetadata)
	areas = append(areas, channels.New(u.site, channels.Deps{Channels: u.store, Messages: u.store, Agents: lister, Taps: taps, Live: c.Live != nil, Commands: acts}).Routes()...)
	nav("messages", "Messages", "messages", "/messages", "m", access.ViewMetadata)
	areas = append(areas, messages.New(u.site, messages.Deps{Store: u.store, Live: c.Live != nil, Exports: u.exports, Searches: c.Searches, Commands: history}).Routes()...)
	if c.Live != nil {
		nav("live", "Live tap", "live", "/live", "l", access.LiveTap)
		areas = append(areas, livetap.New(u.site, u.store).Routes()...)
		rights := &tapRights{access: c.Guard.Access(), audit: u.audit}
		u.live = live.New(live.Config{Source: c.Live, Log: c.Log, Origins: c.Origins, Limit: rights.limit, Recheck: rights.still, Changed: c.Guard.Access().Changed})
		areas = append(areas, page.Route{Pattern: "GET " + live.Path, Handler: u.live.Serve, Action: access.LiveTap})
	}
	if c.Probes != nil {
		nav("probes", "Probes", "probes", "/probes", "p", access.ViewMetadata)
		areas = append(areas, probes.New(u.site, c.Probes).Routes()...)
	}
	nav("invalid", "Invalid messages", "invalid", "/invalid", "i", access.ViewMetadata)
	areas = append(areas, invalid.New(u.site, u.store).Routes()...)
	if c.Commands != nil {
		group = "Control"
		bus := commands.New(u.site, c.Commands, lister)
		nav("control", "Control bus", "control", "/control", "b", access.ViewMetadata)
		areas = append(areas, bus.Routes()...)
		nav("detours", "Detours", "detours", "/detours", "d", access.ViewMetadata)
		areas = append(areas, detours.New(u.site, c.Commands, bus.NewDetour).Routes()...)
		u.site.Counts = u.waiting
	}
	group = "Observe"
	if lister != nil {
		nav("agents", "Agents", "agents", "/agents", "a", access.ViewMetadata)
		var tables agents.TableReader
		if c.Self == nil { // else the page of the console itself has them
			tables = u.store
		}
		areas = append(areas, agents.New(u.site, lister, tables).Routes()...)
	}
	if c.Self != nil {
		nav("health", "Health", "health", "/health", "h", access.ViewMetadata)
		areas = append(areas, health.New(u.site, c.Self, u.store, lister).Routes()...)
	}
	group = "Keep"
	nav("audit", "Audit", "audit", "/audit", "u", access.ReadAudit)
	areas = append(areas, auditpage.New(u.site, c.Guard.Access(), c.Verifier, c.Commands != nil).Routes()...)
	nav("settings", "Settings", "settings", "/settings", "s", access.Self)
	var known settings.Lister
	if roster != nil {
		known = roster
	}
	areas = append(areas, settings.New(u.site, settings.Deps{Effective: c.Effective, Agents: known, Links: u.settingsLinks}).Routes()...)
	areas = append(areas, help.New(u.site).Routes()...)
	deps := api.Deps{Version: c.Version, Store: u.store, Health: c.Health, Trail: c.Guard.Access(), Now: c.Now, Timeout: pageTimeout}
	if c.Commands != nil {
		deps.Commands = c.Commands
	}
	if c.Roster != nil {
		deps.Fleet = roster
	}
	deps.Probes = c.Probes
	programs, err := api.New(deps)
	if err != nil {
		return err
	}
	u.api = programs
	areas = append(areas, programs.Routes()...)
	areas = append(areas, accesspages.New(u.site, c.Guard, c.Provider).Routes()...)
	areas = append(areas,
		page.Route{Pattern: "POST /preferences", Handler: u.preferences, Action: access.Public},
		page.Route{Pattern: "/", Action: access.Self, Handler: func(_ http.ResponseWriter, r *http.Request) error {
			return fmt.Errorf("page %s: %w", component.Visible(r.URL.Path), controlbus.ErrNotFound)
		}})
	for _, r := range areas {
		if r.Action == access.Export {
			r.Handler = u.recorded(r.Handler)
		}
		u.mux.Handle(r.Pattern, r.Action, u.wrap(r.Handler), u.refuse)
	}
	u.mux.Handle("GET "+asset.Prefix, access.Public, u.assets, u.refuse)
	return u.mux.Err()
}

// waiting is what of the control bus waits for whoever asks.
func (u *UI) waiting(ctx context.Context) map[string]page.Waiting {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return map[string]page.Waiting{
		"control": {Count: commands.Waiting(ctx, u.cfg.Commands)},
		"detours": {Count: detours.Broken(ctx, u.cfg.Commands), Hot: true},
	}
}

// recorded puts into the audit trail that results leave as a file, before they
// do.
func (u *UI) recorded(next page.Handler) page.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		e := access.Event{Code: access.EventExport, Target: component.Visible(r.URL.Path), Env: r.URL.Query().Get("env"), Detail: component.Visible(r.URL.RawQuery)}
		if err := u.cfg.Guard.Access().Record(r.Context(), e); err != nil {
			return fmt.Errorf("exports are recorded, and that fails now: %w: %w", controlbus.ErrUnavailable, err)
		}
		return next(w, r)
	}
}

// settingsLinks are the pages about people and agents that are mounted here.
func (u *UI) settingsLinks() []settings.Link {
	var out []settings.Link
	for _, l := range []settings.Link{
		{Label: "Users", Text: "who may sign in, and what they may do where", URL: "/users"},
		{Label: "Your account", Text: "password, sessions and your own API tokens", URL: "/account"},
		{Label: "API tokens", Text: "programs that ask this console", URL: "/tokens"},
		{Label: "Enrolment of agents", Text: "tokens with which agents introduce themselves", URL: "/settings/agents"},
		{Label: "Audit", Text: "who did and read what", URL: "/audit"},
	} {
		for _, r := range u.mux.Routes() {
			for _, prefix := range []string{"", "/settings", "/access"} {
				if r.Pattern == "GET "+prefix+l.URL {
					l.URL, l.Action = prefix+l.URL, r.Action
					out = append(out, l)
					break
				}
			}
		}
	}
	return out
}

// Routes lists what is mounted, with what each route does.
func (u *UI) Routes() []guard.Route { return u.mux.Routes() }

// refuse answers who may not: whoever can sign in is asked to, and comes back.
func (u *UI) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, access.ErrUnauthenticated) {
		guard.Challenge(w, err)
		u.askIn(w, r, err)
		return
	}
	u.fail(w, r, err, nil)
}

// exports says whether the API that hands out results as files is mounted.
func (u *UI) exports() bool {
	pattern := u.mux.Pattern(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: messages.ExportPath}, Host: "-"})
	return strings.HasSuffix(pattern, messages.ExportPath)
}

// ServeHTTP serves the pages.
func (u *UI) ServeHTTP(w http.ResponseWriter, r *http.Request) { u.root.ServeHTTP(w, r) }

// AssetsBuilt says whether the front end was built into the program.
func (u *UI) AssetsBuilt() bool { return u.assets.Built() }

// Close ends the live taps and waits for them, and answers questions that wait
// for a change. Call it before or while the HTTP server shuts down: the server
// does not know upgraded connections.
func (u *UI) Close() {
	u.api.Close()
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
	switch density := r.PostForm.Get("density"); density {
	case "compact", "normal", "comfortable":
		set(page.CookieDensity, density)
	}
	zone := r.PostForm.Get("zone")
	if zone == "named" {
		zone = strings.TrimSpace(r.PostForm.Get("zone_name"))
		if zone == "" {
			return fmt.Errorf("%w: time zone: want a name such as Europe/Berlin, have none", controlbus.ErrInvalid)
		}
	}
	if zone != "" {
		if _, err := page.LoadZone(zone); err != nil && zone != page.BrowserZone {
			return err
		}
		set(page.CookieZone, zone)
	}
	http.Redirect(w, r, page.LocalPath(r.PostForm.Get("back")), http.StatusSeeOther)
	return nil
}
