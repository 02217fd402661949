// Package api is the console's use cases as JSON under /api/v1: what the pages
// show, for programs. openapi.yaml beside this file is the one description of
// it: the console serves it, refuses query parameters that it does not name, and
// does not start when a route is missing in it or the other way round.
//
// Handlers return errors; package ui turns them into problem documents (RFC
// 9457) by the table that makes its error pages. Package ui mounts the routes.
package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/channels"
	"github.com/signalbox-dev/signalbox/ui/page/overview"
)

// Root is the path under which everything here is.
const Root = "/api/"

// base is the path of this version.
const base = Root + "v1"

// Store is the message store. Its methods block until ctx ends at most, may be
// called concurrently, and return ErrNotFound, ErrInvalid and ErrUnavailable.
type Store interface {
	Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error)
	Message(ctx context.Context, uid controlbus.ID, near time.Time) (storage.MessageDetail, error)
	// Bodies returns the stored bodies of messages that a search found.
	Bodies(ctx context.Context, of []storage.Message) (map[controlbus.ID][]byte, error)
	Conversation(ctx context.Context, q storage.ConversationQuery) (storage.Conversation, error)
	Channels(ctx context.Context, q storage.ChannelQuery) ([]storage.ChannelState, error)
	ChannelSeries(ctx context.Context, q storage.SeriesQuery) (storage.ChannelSeries, error)
	Environments(ctx context.Context, within storage.TimeRange) ([]string, error)
	Totals(ctx context.Context, env string, within storage.TimeRange) (storage.Totals, error)
	Tables(ctx context.Context) ([]storage.TableSize, error)
	// Histogram counts what a search would find. Invalid lists records nobody
	// could read; ErrDenied where not all environments may be seen.
	Histogram(ctx context.Context, q storage.MessageQuery, step time.Duration) (storage.Histogram, error)
	Invalid(ctx context.Context, within storage.TimeRange, limit int) ([]storage.Invalid, error)
}

// Fleet lists agents and asks them for taps.
type Fleet interface {
	channels.TapControl
	Agents(ctx context.Context) []controlbus.AgentView
}

// Deps are what the API reads from. Store is required; without a Fleet there
// are no agents and taps.
type Deps struct {
	Version string
	Store   Store
	Fleet   Fleet
	Health  overview.Health // nil: nothing is known to be wrong
	// Commands acts on brokers; nil: this console does not.
	Commands Commands
	// Probes sends test messages on a schedule; nil: this console does not.
	Probes Prober
	// Trail is the audit trail; nil: there is none to read.
	Trail Trail
	Now   func() time.Time
	// Timeout bounds what one answer, or one page of an export, waits for the
	// store.
	Timeout time.Duration
	// ExportTime bounds one export; 0 is a quarter of an hour.
	ExportTime time.Duration
}

// API is the routes.
type API struct {
	deps   Deps
	doc    *document
	routes []page.Route

	exports chan struct{} // one place for each that is being written

	close  sync.Once
	closed chan struct{} // nobody waits any more
}

// operation is a method and path of the document with its handler.
type operation struct {
	method, path string
	action       access.Action
	handler      page.Handler
}

// New checks the routes against the document.
func New(deps Deps) (*API, error) {
	doc, err := loadDocument()
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	if deps.ExportTime == 0 {
		deps.ExportTime = exportTime
	}
	a := &API{deps: deps, doc: doc, exports: make(chan struct{}, maxExports), closed: make(chan struct{})}
	all := append(a.operations(), a.probeOperations()...)
	mounted := map[string]bool{}
	for _, op := range all {
		key := op.method + " " + op.path
		known, ok := doc.parameters[key]
		if !ok {
			return nil, fmt.Errorf("api: %s is not in openapi.yaml", key)
		}
		mounted[key] = true
		a.routes = append(a.routes, page.Route{Pattern: op.method + " " + base + op.path, Action: op.action, Handler: only(known, op.handler)})
	}
	for key := range doc.parameters {
		if !mounted[key] && !doc.elsewhere[key] {
			return nil, fmt.Errorf("api: openapi.yaml has %s, which nothing serves", key)
		}
	}
	a.routes = append(a.routes, page.Route{Pattern: Root, Action: access.Self, Handler: a.missing})
	return a, nil
}

func (a *API) operations() []operation {
	return []operation{
		{"GET", "/version", access.Self, a.version},
		{"GET", "/whoami", access.Self, a.whoami},
		{"GET", "/openapi.json", access.Public, a.doc.serveJSON},
		{"GET", "/openapi.yaml", access.Public, a.doc.serveYAML},
		{"GET", "/environments", access.ViewMetadata, a.environments},
		{"GET", "/overview", access.ViewMetadata, a.overview},
		{"GET", "/health", access.Self, a.health},
		{"GET", "/store", access.ViewMetadata, a.store},
		{"GET", "/channels", access.ViewMetadata, a.channels},
		{"GET", "/channel", access.ViewMetadata, a.channel},
		{"GET", "/messages", access.ViewMetadata, a.messages},
		{"GET", "/messages/histogram", access.ViewMetadata, a.histogram},
		{"GET", "/messages/export", access.Export, a.export},
		{"GET", "/messages/{uid}", access.ViewMetadata, a.message},
		{"GET", "/messages/{uid}/body", access.ReadBody, a.body},
		{"GET", "/messages/{uid}/history", access.ViewMetadata, a.messageHistory},
		{"GET", "/invalid", access.ViewMetadata, a.invalid},
		{"GET", "/filter", access.Self, a.filterFields},
		{"GET", "/filter/check", access.Self, a.checkFilter},
		{"GET", "/history", access.ViewMetadata, a.history},
		{"GET", "/agents", access.ViewMetadata, a.agents},
		{"GET", "/taps", access.ViewMetadata, a.taps},
		{"POST", "/taps", access.RequestTap, a.startTap},
		{"DELETE", "/taps", access.RequestTap, a.endTap},
		{"POST", "/previews", access.Operate, a.preview},
		{"GET", "/previews/{id}", access.Operate, a.draft},
		{"GET", "/commands", access.ViewMetadata, a.listCommands},
		{"POST", "/commands", access.Operate, a.order},
		{"GET", "/commands/{id}", access.ViewMetadata, a.command},
		{"GET", "/commands/{id}/events", access.ViewMetadata, a.commandEvents},
		{"GET", "/commands/{id}/outcomes", access.ViewMetadata, a.commandOutcomes},
		{"POST", "/commands/{id}/approve", access.Approve, decide(a, approve)},
		{"POST", "/commands/{id}/refuse", access.Approve, decide(a, refuse)},
		{"POST", "/commands/{id}/cancel", access.Operate, decide(a, cancel)},
		{"POST", "/commands/{id}/abandon", access.Approve, decide(a, abandon)},
		{"POST", "/commands/{id}/control", access.Operate, decide(a, control)},
		{"POST", "/commands/{id}/undo", access.Operate, a.undo},
		{"GET", "/abilities", access.ViewMetadata, a.abilities},
		{"GET", "/detours", access.ViewMetadata, a.detours},
		{"GET", "/audit", access.ReadAudit, a.audit},
	}
}

// Routes lists the addresses.
func (a *API) Routes() []page.Route { return a.routes }

// only refuses query parameters that are not known: a misspelt one would be
// ignored, and the answer be taken for something it is not.
func only(known []string, next page.Handler) page.Handler {
	allowed := map[string]bool{}
	for _, name := range known {
		allowed[name] = true
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		for name, values := range r.URL.Query() {
			switch {
			case !allowed[name] && len(known) == 0:
				return fmt.Errorf("%w: unknown parameter %q: none is taken here", controlbus.ErrInvalid, name)
			case !allowed[name]:
				return fmt.Errorf("%w: unknown parameter %q: want %s", controlbus.ErrInvalid, name, strings.Join(known, ", "))
			case len(values) > 1:
				return fmt.Errorf("%w: parameter %q is given %d times", controlbus.ErrInvalid, name, len(values))
			}
		}
		return next(w, r)
	}
}

// missing answers what no route takes: a path that is not there, or a method
// that its path does not have.
func (a *API) missing(w http.ResponseWriter, r *http.Request) error {
	if methods := a.doc.methods(strings.TrimPrefix(r.URL.Path, base)); len(methods) > 0 {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		return errMethod{r.Method, r.URL.Path, methods}
	}
	return fmt.Errorf("%s: see %s/openapi.json for what there is: %w", r.URL.Path, base, controlbus.ErrNotFound)
}

// errMethod is an ErrInvalid that WriteProblem gives the status of its own.
type errMethod struct {
	method, path string
	allowed      []string
}

func (e errMethod) Error() string {
	return fmt.Sprintf("%s does not take %s; want %s", e.path, e.method, strings.Join(e.allowed, ", "))
}

func (errMethod) Unwrap() error { return controlbus.ErrInvalid }

// write answers with JSON.
func write(w http.ResponseWriter, status int, v any) error {
	b, err := encode(v)
	if err != nil {
		return fmt.Errorf("api: encode: %w", err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store") // what messages hold is in it
	w.WriteHeader(status)
	_, _ = w.Write(b) // a reader that went away is not our error
	return nil
}

// encode leaves <, > and & as they are: the content type is JSON and no browser
// may guess another.
func encode(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(b.String()), nil
}

// bound is the time an answer may take.
func (a *API) bound(r *http.Request) (context.Context, context.CancelFunc) {
	return page.Bound(r, a.deps.Timeout)
}

// errNoFleet answers for agents and taps where the console has none.
var errNoFleet = fmt.Errorf("this console has no agents: %w", controlbus.ErrNotFound)

func (a *API) fleet(ctx context.Context) ([]controlbus.AgentView, error) {
	if a.deps.Fleet == nil {
		return nil, errNoFleet
	}
	return a.deps.Fleet.Agents(ctx), nil
}
