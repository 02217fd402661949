// Package page holds what the pages of the console share: how a request's
// environment, time range and filter are read from its URL and written back
// into links, and how content is put into the frame. The pages themselves are
// the sub-packages; each declares the small interfaces it needs. Package ui
// mounts them.
package page

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
)

// Handler is a page: errors become pages by the one table in package ui.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Route is one address of the console.
type Route struct {
	Pattern string // of http.ServeMux, such as "GET /channels"
	Handler Handler
	// Action is what it does. A route without one keeps the console from
	// starting.
	Action access.Action
}

// EnvironmentLister names the environments that have data. It may be called
// concurrently and blocks for one query at most.
type EnvironmentLister interface {
	Environments(ctx context.Context, within storage.TimeRange) ([]string, error)
}

// Site is what is the same for all pages of one console.
type Site struct {
	Version      string
	Now          func() time.Time
	Environments EnvironmentLister // nil: one nameless environment
	Nav          []component.NavItem
	// Counts are, by area of Nav, what waits for whoever asks; nil: nothing ever
	// does. It is asked for every page and blocks for one small query at most.
	Counts func(ctx context.Context) map[string]Waiting
	// NavActions are what an area of Nav needs.
	NavActions map[string]access.Action
	// Open says that nobody signs in here; every page says so.
	Open    bool
	CSS, JS string
	Favicon string
	// Timeout bounds what one page may wait for the store.
	Timeout time.Duration

	environments environments
}

// Waiting is what waits for a person in one area.
type Waiting struct {
	Count int
	Hot   bool // broken now, not only waiting
}

// environments remembers the menu's entries for a moment: every page has the
// menu, and new environments are rare. They are kept apart by what may be seen.
type environments struct {
	mu   sync.Mutex
	seen map[string]menu
}

type menu struct {
	at    time.Time
	names []string
}

const (
	environmentsKept = 5 * time.Second
	// environmentsWithin bounds the wait for them: no page is to wait for its menu.
	environmentsWithin = 800 * time.Millisecond
	maxMenus           = 100 // of different rights
)

// list returns the environments in the menu's order, none when the store does
// not tell: the page itself will say what is down.
func (e *environments) list(ctx context.Context, from EnvironmentLister, within storage.TimeRange) []string {
	scope, _ := controlbus.ScopeFrom(ctx)
	key := fmt.Sprintf("%t %q", scope.All(), scope.Sets())
	e.mu.Lock()
	kept := e.seen[key]
	e.mu.Unlock()
	if age := within.To.Sub(kept.at); len(kept.names) > 0 && age >= 0 && age < environmentsKept {
		return kept.names
	}
	names, err := from.Environments(ctx, within)
	if err != nil {
		return nil
	}
	slices.SortFunc(names, func(a, b string) int {
		if c := rank(a) - rank(b); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil || len(e.seen) >= maxMenus {
		e.seen = map[string]menu{}
	}
	e.seen[key] = menu{within.To, names}
	return names
}

// Cookies of choices that are the reader's own and do not belong into a URL.
const (
	CookieTheme  = "signalbox-theme"
	CookieNarrow = "signalbox-narrow"
	// CookieDensity is "compact" or "comfortable".
	CookieDensity = "signalbox-density"
	// CookieZone is a time zone's name, or BrowserZone.
	CookieZone = "signalbox-zone"
	// CookieBrowserZone is set by script: the zone that the browser has, so that
	// the server can write it too.
	CookieBrowserZone = "signalbox-browser-zone"
)

// View is one request, read.
type View struct {
	Env   string // empty: all
	Envs  []string
	Range storage.TimeRange
	Now   time.Time
	Query string // the filter
	Form  url.Values
	Zone  *time.Location // times are written in it

	site *Site
	zone string // chosen by name; empty: the browser's
	r    *http.Request
	kept url.Values // env and range as the URL has them
}

// ranges offered in the menu.
var ranges = []struct {
	param, label string
	d            time.Duration
}{
	{"15m", "Last 15 minutes", 15 * time.Minute},
	{"1h", "Last hour", time.Hour},
	{"6h", "Last 6 hours", 6 * time.Hour},
	{"24h", "Last 24 hours", 24 * time.Hour},
	{"7d", "Last 7 days", 7 * 24 * time.Hour},
	{"30d", "Last 30 days", 30 * 24 * time.Hour},
}

const (
	defaultRange = "1h"
	maxRange     = 400 * 24 * time.Hour
)

// Begin reads a request. Errors are ErrInvalid and name the parameter.
func (s *Site) Begin(r *http.Request) (*View, error) { return s.BeginOver(r, defaultRange) }

// BeginOver is Begin for a page that looks further back than others where its
// address names no range.
func (s *Site) BeginOver(r *http.Request, span string) (*View, error) {
	form := r.URL.Query()
	v := &View{site: s, r: r, Form: form, Now: s.Now(), Query: strings.TrimSpace(form.Get("q"))}
	if len(v.Query) > 2000 {
		return nil, fmt.Errorf("%w: filter of %d characters: want at most 2000", controlbus.ErrTooLarge, len(v.Query))
	}
	v.Zone, v.zone = readZone(r)
	var err error
	if v.Range, v.kept, err = readRange(form, v.Now, span); err != nil {
		return nil, err
	}
	if s.Environments != nil {
		// Environments come from a wider range than the page: the one looked at
		// must not vanish from the menu because the last hour was quiet.
		wide := storage.TimeRange{From: v.Now.Add(-7 * 24 * time.Hour), To: v.Now}
		ctx, cancel := Bound(r, min(environmentsWithin, s.Timeout))
		v.Envs = s.environments.list(ctx, s.Environments, wide)
		cancel()
	}
	switch env, given := form["env"]; {
	case given && len(env) == 1:
		v.Env = env[0]
		v.kept.Set("env", v.Env)
	case len(v.Envs) > 0:
		v.Env = v.Envs[0]
	}
	return v, nil
}

// ReadRange reads a time range from from, to and range: both ends, a start up to
// now, or a length up to to or now. kept are the parameters to write into links.
// Errors are ErrInvalid and name the parameter.
func ReadRange(f url.Values, now time.Time) (within storage.TimeRange, kept url.Values, err error) {
	return readRange(f, now, defaultRange)
}

func readRange(f url.Values, now time.Time, span string) (within storage.TimeRange, kept url.Values, err error) {
	kept = url.Values{}
	end := now
	if text := f.Get("to"); text != "" {
		if end, err = time.Parse(time.RFC3339, text); err != nil {
			return within, nil, fmt.Errorf("%w: to %q: want a time such as 2026-11-21T15:00:00Z", controlbus.ErrInvalid, text)
		}
		kept.Set("to", text)
	}
	if text := f.Get("from"); text != "" {
		from, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return within, nil, fmt.Errorf("%w: from %q: want a time such as 2026-11-21T14:00:00Z", controlbus.ErrInvalid, text)
		}
		kept.Set("from", text)
		if !from.Before(end) || end.Sub(from) > maxRange {
			return within, nil, fmt.Errorf("%w: range: from must be before to, and at most 400 days", controlbus.ErrInvalid)
		}
		return storage.TimeRange{From: from.UTC(), To: end.UTC()}, kept, nil
	}
	name := f.Get("range")
	if name == "" {
		name = span
	} else {
		kept.Set("range", name)
	}
	for _, o := range ranges {
		if o.param == name {
			return storage.Last(o.d, end.UTC()), kept, nil
		}
	}
	d, err := time.ParseDuration(name)
	if err != nil || d < time.Second || d > maxRange {
		return within, nil, fmt.Errorf("%w: range %q: want 15m, 1h, 6h, 24h, 7d, 30d or a duration", controlbus.ErrInvalid, name)
	}
	return storage.Last(d, end.UTC()), kept, nil
}

// May says whether who asks may do a anywhere: whether a link or button for it
// is worth showing.
func (v *View) May(a access.Action) bool {
	id, _ := access.From(v.r.Context())
	return id.Somewhere(a)
}

// Relative says that the range ends now, so that the page can refresh itself.
func (v *View) Relative() bool { return v.kept.Get("from") == "" && v.kept.Get("to") == "" }

// RangeLabel is the range in words.
func (v *View) RangeLabel() string {
	if !v.Relative() {
		return v.Range.From.In(v.Zone).Format("2 Jan 15:04") + " to " + v.Range.To.In(v.Zone).Format("15:04")
	}
	for _, o := range ranges {
		if v.Range.Duration() == o.d {
			return o.label
		}
	}
	return "Last " + component.Span(v.Range.Duration())
}

// URL is a link to a path of the console that keeps environment and time range.
// Further parameters come in pairs; empty values are left out.
func (v *View) URL(path string, pairs ...string) string {
	q := url.Values{}
	for k, vals := range v.kept {
		q[k] = vals
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			q.Del(pairs[i])
		} else {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// With is this page with some parameters changed.
func (v *View) With(pairs ...string) string {
	q := url.Values{}
	for k, vals := range v.Form {
		q[k] = vals
	}
	q.Del("cursor")
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			q.Del(pairs[i])
		} else {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return v.r.URL.Path
	}
	return v.r.URL.Path + "?" + q.Encode()
}

// Kept are the hidden fields with which a form keeps environment and range.
func (v *View) Kept(names ...string) []component.Pair {
	var out []component.Pair
	for _, name := range append([]string{"env", "range", "from", "to"}, names...) {
		if vals, ok := v.Form[name]; ok && len(vals) > 0 {
			out = append(out, component.Pair{Name: name, Value: vals[0]})
		}
	}
	return out
}

// Channel is the address of a channel's page. Names hold anything, slashes
// too, so they are parameters and not path segments.
func (v *View) Channel(c controlbus.ChannelName) string {
	return v.URL("/channel", "broker", c.Broker, "system", c.System, "name", c.Name, "env", c.Env)
}

// Message is the address of a message event's page.
func (v *View) Message(m *controlbus.MessageEvent) string {
	return v.URL("/messages/"+m.UID.String(), "at", time.Unix(0, m.Time).UTC().Format(time.RFC3339Nano))
}

// Options say how a page uses the frame.
type Options struct {
	Title, Area string
	Filter      *component.FilterView
	Refresh     time.Duration // 0: the page stays as it is
	Status      int           // 0: 200
	// Still is a page that belongs to no environment and no time.
	Still bool
}

// Theme is the reader's choice, empty: as the system has it.
func Theme(r *http.Request) string {
	if c, err := r.Cookie(CookieTheme); err == nil && (c.Value == "light" || c.Value == "dark") {
		return c.Value
	}
	return ""
}

// Shell builds the frame.
func (v *View) Shell(o Options) component.Shell {
	s := component.Shell{
		Title: o.Title, Area: o.Area, Filter: o.Filter,
		Version: v.site.Version, Here: v.r.URL.RequestURI(), TookAt: v.Now,
		CSS: v.site.CSS, JS: v.site.JS, Favicon: v.site.Favicon, Config: HtmxConfig, Still: o.Still,
		Env: component.EnvView{Name: component.Visible(v.Env), Level: Level(v.Env)},
	}
	s.Theme = Theme(v.r)
	if c, err := v.r.Cookie(CookieNarrow); err == nil {
		s.Narrow = c.Value == "1"
	}
	if c, err := v.r.Cookie(CookieDensity); err == nil && (c.Value == "compact" || c.Value == "comfortable") {
		s.Density = c.Value
	}
	s.Zone = v.zone
	if h, ok := HelpOn(o.Area); ok {
		s.Help = h.Text
	}
	if o.Refresh > 0 && v.Relative() {
		s.Refresh, s.Seconds = true, fmt.Sprint(int(o.Refresh.Seconds()))
	}
	for _, e := range v.Envs {
		s.Env.Options = append(s.Env.Options, component.Option{
			Label: component.Visible(e), Level: Level(e), Current: e == v.Env, URL: v.envURL(e),
		})
	}
	s.Env.Options = append(s.Env.Options, component.Option{Label: "all environments", Current: v.Env == "", URL: v.envURL("")})
	s.Range = component.RangeView{
		Label: v.RangeLabel(), Fixed: !v.Relative(), Start: v.Range.From, End: v.Range.To, Action: v.r.URL.Path,
		From: v.Range.From.UTC().Format(time.RFC3339), To: v.Range.To.UTC().Format(time.RFC3339),
	}
	for _, o := range ranges {
		s.Range.Options = append(s.Range.Options, component.Option{
			Label: o.label, URL: v.With("range", o.param, "from", "", "to", ""),
			Current: v.Relative() && v.Range.Duration() == o.d,
		})
	}
	for k, vals := range v.Form {
		if k != "from" && k != "to" && k != "range" && k != "cursor" {
			for _, val := range vals {
				s.Range.Kept = append(s.Range.Kept, component.Pair{Name: k, Value: val})
			}
		}
	}
	slices.SortFunc(s.Range.Kept, func(a, b component.Pair) int { return strings.Compare(a.Name, b.Name) })
	id, _ := access.From(v.r.Context())
	for _, n := range v.site.Nav {
		if id.Somewhere(v.site.NavActions[n.Area]) {
			s.Nav = append(s.Nav, n)
		}
	}
	s.Open = v.site.Open
	if id.Kind == access.KindUser {
		s.User = component.Visible(id.Name)
	}
	var waiting map[string]Waiting
	if v.site.Counts != nil {
		waiting = v.site.Counts(v.r.Context())
	}
	for i := range s.Nav {
		n := &s.Nav[i]
		n.URL, n.Count, n.Hot = v.URL(n.URL), waiting[n.Area].Count, waiting[n.Area].Hot
	}
	return s
}

// envURL names an environment in the URL even where it is empty: "env=" is all
// of them, no env is the first. A page about one thing of one environment is
// left for the list it is on.
func (v *View) envURL(env string) string {
	path := v.r.URL.Path
	q := url.Values{"env": {env}}
	for _, k := range []string{"range", "from", "to"} {
		if v.kept.Has(k) {
			q[k] = v.kept[k]
		}
	}
	if path == "/channel" {
		path = "/channels"
	} else if strings.HasPrefix(path, "/messages/") {
		path = "/messages"
	} else if strings.HasPrefix(path, "/control/") {
		path = "/control"
	} else if strings.HasPrefix(path, "/detours/") {
		path = "/detours"
	} else if strings.HasPrefix(path, "/invalid/") {
		path = "/invalid"
	} else {
		if v.Query != "" {
			q.Set("q", v.Query)
		}
		if path == "/live" && v.Form.Has("channel") {
			q["channel"] = v.Form["channel"]
		}
	}
	return path + "?" + q.Encode()
}

// HtmxConfig gives htmx nothing that would need a weaker policy: no inline styles, no
// history copies of pages in local storage, requests to this origin only.
const HtmxConfig = `{"includeIndicatorCSS":false,"history":false,"mode":"same-origin","morphIgnore":["data-htmx-powered","open"],"extensions":"signalbox","morphSkip":"[hx-morph-skip]","defaultTimeout":20000}`

// Render writes a page, or its content alone where a refresh asked for it.
func (v *View) Render(w http.ResponseWriter, o Options, content templ.Component) error {
	s := v.Shell(o)
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store") // bodies of messages are in it
	h.Add("Vary", "HX-Request, Cookie")
	frame := component.Page(s)
	if v.r.Header.Get("HX-Request") == "true" {
		frame = component.Fragment(s)
	}
	// Rendered whole before the first byte leaves, so that an error can still
	// become an error page.
	buf := templ.GetBuffer()
	defer templ.ReleaseBuffer(buf)
	if err := frame.Render(component.WithZone(templ.WithChildren(v.r.Context(), content), v.Zone), buf); err != nil {
		return fmt.Errorf("render %s: %w", o.Area, err)
	}
	if o.Status != 0 {
		w.WriteHeader(o.Status)
	}
	_, _ = w.Write(buf.Bytes()) // a reader that went away is not our error
	return nil
}

// Context bounds what a page waits for its sources.
func (v *View) Context() (context.Context, context.CancelFunc) { return Bound(v.r, v.site.Timeout) }

// Bound bounds what an answer to r waits for its sources.
func Bound(r *http.Request, patience time.Duration) (context.Context, context.CancelFunc) {
	if at, ok := r.Context().Value(patienceKey{}).(time.Duration); ok {
		patience = min(patience, at)
	}
	return context.WithTimeout(r.Context(), patience)
}

// Answered is the function Answered for the page's own request.
func (v *View) Answered(found storage.MessagePage, err error) (storage.MessagePage, error) {
	return Answered(v.r, found, err)
}

// Within is Context with a budget of its own, where that is less.
func (v *View) Within(budget time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := v.Context()
	ctx, stop := context.WithTimeout(ctx, budget)
	return ctx, func() { stop(); cancel() }
}

// Part writes a part of a page that the page fetches by itself.
func (v *View) Part(w http.ResponseWriter, content templ.Component) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Add("Vary", "Cookie")
	buf := templ.GetBuffer()
	defer templ.ReleaseBuffer(buf)
	if err := content.Render(component.WithZone(v.r.Context(), v.Zone), buf); err != nil {
		return fmt.Errorf("render part of %s: %w", v.r.URL.Path, err)
	}
	_, _ = w.Write(buf.Bytes()) // a reader that went away is not our error
	return nil
}

// Answered turns a search that ran out of time without looking at anything
// into an error where the store is known not to answer: nothing was found
// because nobody was there, not because there is nothing.
func Answered(r *http.Request, found storage.MessagePage, err error) (storage.MessagePage, error) {
	_, hurried := r.Context().Value(patienceKey{}).(time.Duration)
	if err == nil && hurried && found.Scan.Stopped == storage.StopDeadline && found.Scan.Rows == 0 && len(found.Messages) == 0 {
		return found, fmt.Errorf("the store does not answer: %w", controlbus.ErrUnavailable)
	}
	return found, err
}

// Level sorts an environment's name into the four that have a colour.
func Level(env string) string {
	e := strings.ToLower(env)
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(e, p) })
	}
	switch {
	case e == "":
		return ""
	case has("nonprod", "non-prod", "preprod", "pre-prod", "stag", "uat"):
		return "staging"
	case has("prod", "live"):
		return "production"
	case has("test", "qa", "ci"):
		return "test"
	}
	return "development"
}

func rank(env string) int {
	return slices.Index([]string{"production", "staging", "test", "development", ""}, Level(env))
}

// RoutingKey is a message's routing key or subject where it says more than the
// channel's name: a stream's name alone does not tell which subject it was.
func RoutingKey(m *controlbus.MessageEvent) string {
	if m.RoutingKey == m.Destination {
		return ""
	}
	return component.Visible(m.RoutingKey)
}

// Outcome is how a message event ended, as a state.
func Outcome(m *controlbus.MessageEvent) component.State {
	switch m.Outcome {
	case controlbus.OutcomeFailed:
		return component.State{Kind: component.Failed, Word: "failed"}
	case controlbus.OutcomeRetried:
		return component.State{Kind: component.FailAgain, Word: "failed, retried"}
	case controlbus.OutcomeDeadLettered:
		return component.State{Kind: component.Stop, Word: "dead"}
	case controlbus.OutcomeExpired:
		return component.State{Kind: component.Off, Word: "expired"}
	case controlbus.OutcomeDetoured:
		return component.State{Kind: component.Running, Word: "detoured"}
	}
	switch m.Op {
	case controlbus.OpCreate, controlbus.OpSend:
		return component.State{Kind: component.Running, Word: "sent"}
	case controlbus.OpReceive:
		return component.State{Kind: component.Running, Word: "received"}
	case controlbus.OpProcess:
		if m.Delivery > 1 {
			return component.State{Kind: component.DoneAgain, Word: "done after retry"}
		}
		return component.State{Kind: component.Clear, Word: "processed"}
	case controlbus.OpSettle:
		return component.State{Kind: component.Done, Word: "settled"}
	}
	return component.State{Kind: component.Off, Word: "tapped"}
}

// System is a broker product's usual spelling.
func System(system string) string {
	names := map[string]string{
		"rabbitmq": "RabbitMQ", "kafka": "Kafka", "nats": "NATS", "mqtt": "MQTT", "redis": "Redis",
		"amqp": "AMQP", "celery": "Celery", "http": "HTTP",
	}
	if n, ok := names[system]; ok {
		return n
	}
	return component.Visible(system)
}

type patienceKey struct{}

// WithPatience bounds what a page waits for the store, where it is known not
// to answer. The request itself has no deadline by it: the page that says so
// has to be written.
func WithPatience(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, patienceKey{}, d)
}
