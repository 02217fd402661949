// Package messages is the search of the message store and the page of one
// message with its payload, headers and history.
package messages

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/decode"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/commands"
)

// Reader is the message store. Its methods block until ctx ends at most, may be
// called concurrently, and return ErrNotFound, ErrInvalid and ErrUnavailable.
type Reader interface {
	Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error)
	Histogram(ctx context.Context, q storage.MessageQuery, step time.Duration) (storage.Histogram, error)
	FieldValues(ctx context.Context, q storage.ValuesQuery) ([]storage.FieldValue, error)
	Message(ctx context.Context, uid controlbus.ID, near time.Time) (storage.MessageDetail, error)
	Conversation(ctx context.Context, q storage.ConversationQuery) (storage.Conversation, error)
}

// Deps are what the pages need.
type Deps struct {
	Store Reader
	Live  bool // a live tap can be linked to
	// Exports says whether results can be had as files, at ExportPath; nil for no.
	Exports func() bool
	// Searches keeps saved searches; nil for none.
	Searches Searches
	// Commands can replay a message, and knows what became of it; nil: neither.
	Commands commands.Historian
}

// ExportPath is where results are exported.
const ExportPath = "/api/v1/messages/export"

// Pages are the message pages.
type Pages struct {
	site  *page.Site
	store Reader
	deps  Deps
	cache valueCache
}

// New returns the pages.
func New(site *page.Site, d Deps) *Pages { return &Pages{site: site, store: d.Store, deps: d} }

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	routes := []page.Route{
		{Pattern: "GET /messages", Handler: p.list, Action: access.ViewMetadata},
		{Pattern: "GET " + CompletePath, Handler: p.complete, Action: access.ViewMetadata},
		{Pattern: "GET /messages/histogram", Handler: p.histogram, Action: access.ViewMetadata},
		{Pattern: "POST /messages/columns", Handler: p.chooseColumns, Action: access.Self},
		{Pattern: "GET /messages/{uid}", Handler: p.one, Action: access.ViewMetadata},
		{Pattern: "GET /messages/{uid}/body", Handler: p.body, Action: access.ReadBody},
	}
	if p.deps.Searches != nil {
		routes = append(routes,
			page.Route{Pattern: "POST /messages/searches", Handler: p.addSearch, Action: access.SaveSearch},
			page.Route{Pattern: "POST /messages/searches/{id}", Handler: p.renameSearch, Action: access.SaveSearch},
			page.Route{Pattern: "POST /messages/searches/{id}/delete", Handler: p.deleteSearch, Action: access.SaveSearch})
	}
	return routes
}

const (
	pageSize = 100

	// A first look answers soon, with what it found; whoever asks it to go on
	// has decided to wait.
	searchBudget   = 2500 * time.Millisecond
	continueBudget = 9 * time.Second
	// The histogram is in the page where it costs next to nothing, else it is
	// fetched behind it.
	sumBudget   = 250 * time.Millisecond
	countBudget = 4 * time.Second
)

// query reads what is searched for.
func (p *Pages) query(v *page.View) (storage.MessageQuery, error) {
	q := storage.MessageQuery{Range: v.Range, Env: v.Env, Limit: pageSize, Snippets: true}
	if v.Form.Get("order") == "oldest" {
		q.Order = storage.OldestFirst
	}
	var err error
	if q.Filter, err = filter.Parse(v.Query, v.Now); err != nil {
		return q, fmt.Errorf("filter: %w", err)
	}
	return q, nil
}

func (p *Pages) list(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	cols, err := chosenColumns(r, v)
	if err != nil {
		return err
	}
	q, err := p.query(v)
	q.Cursor = v.Form.Get("cursor")
	m := listView{Live: p.deps.Live && v.May(access.LiveTap), Oldest: q.Order == storage.OldestFirst, More: q.Cursor != ""}
	box := Box(v, "/messages", "Filter messages", v.Kept("order", "cols"), err)
	if err != nil {
		m.Wrong = fault(v.Query, err)
		if m.Wrong == nil {
			return err
		}
		if m.Wrong.Fixed != "" {
			m.Wrong.URL = v.With("q", m.Wrong.Fixed)
		}
		m.build(v, q, cols, storage.MessagePage{}, nil)
	} else {
		if !q.Filter.Empty() {
			m.Reads = component.Visible(q.Filter.Explain())
		}
		m.Meant = meant(v)
		if err := p.search(r.Context(), v, q, cols, &m); err != nil {
			return err
		}
	}
	m.Saved = p.saved(r.Context(), v, cols)
	o := page.Options{Title: "Messages", Area: "messages", Filter: box}
	if q.Cursor == "" && !m.Oldest && m.Wrong == nil {
		o.Refresh = 10 * time.Second
	}
	return v.Render(w, o, List(m))
}

// meant offers what somebody probably meant who wrote the name of a yes/no
// field as a plain word, which is looked for in the payload.
func meant(v *page.View) *component.Option {
	words := strings.Fields(v.Query)
	at := slices.Index(words, "failed")
	if at < 0 {
		return nil
	}
	words[at] = "failed:true"
	return &component.Option{Label: "failed:true", URL: v.With("q", strings.Join(words, " "))}
}

// search fills the list, and the histogram beside it where that is cheap or
// asked for.
func (p *Pages) search(ctx context.Context, v *page.View, q storage.MessageQuery, cols []Column, m *listView) error {
	budget, patience := searchBudget, sumBudget
	if q.Cursor != "" {
		budget = continueBudget
	}
	asked := v.Form.Get("count") == "1"
	if asked {
		patience = countBudget
	}
	var hist storage.Histogram
	var histErr error
	var counting sync.WaitGroup
	if q.Summed() || asked {
		counting.Go(func() {
			hctx, cancel := v.Within(patience)
			defer cancel()
			hist, histErr = p.store.Histogram(hctx, q, histStep(v.Range.Duration()))
		})
	}
	sctx, cancel := v.Within(budget)
	defer cancel()
	found, err := v.Answered(p.store.Messages(sctx, q))
	counting.Wait()
	if err != nil && (errors.Is(err, controlbus.ErrInvalid) || errors.Is(err, controlbus.ErrTooLarge)) {
		return err
	}
	m.build(v, q, cols, found, err)
	switch {
	case err != nil || ctx.Err() != nil:
	case !q.Summed() && !asked, !asked && histErr == nil && hist.Scan.Stopped == storage.StopDeadline:
		m.Hist = laterHist(v)
	default:
		m.Hist = makeHist(v, q, hist, histErr)
		m.Hist.Load = "" // it is here
	}
	m.Columns = makeColumnsView(v, cols, found.Messages)
	if p.deps.Exports != nil && p.deps.Exports() && v.May(access.Export) {
		m.Export = exports(v, q)
	}
	return nil
}

// exports are the result as files: the whole of it, not the page.
func exports(v *page.View, q storage.MessageQuery) []component.Option {
	form := url.Values{"from": {q.Range.From.UTC().Format(time.RFC3339Nano)}, "to": {q.Range.To.UTC().Format(time.RFC3339Nano)}}
	if v.Env != "" {
		form.Set("env", v.Env)
	}
	if v.Query != "" {
		form.Set("q", v.Query)
	}
	if q.Order == storage.OldestFirst {
		form.Set("order", "oldest")
	}
	var out []component.Option
	for _, f := range []struct{ name, label string }{{"ndjson", "JSON, one message a line"}, {"csv", "CSV"}, {"parquet", "Parquet"}} {
		form.Set("format", f.name)
		out = append(out, component.Option{Label: f.label, URL: ExportPath + "?" + form.Encode()})
	}
	return out
}

func (p *Pages) read(ctx context.Context, r *http.Request, v *page.View) (storage.MessageDetail, error) {
	uid, err := controlbus.ParseID(r.PathValue("uid"))
	if err != nil {
		return storage.MessageDetail{}, err
	}
	near := v.Now
	if at := v.Form.Get("at"); at != "" {
		if near, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return storage.MessageDetail{}, fmt.Errorf("%w: at %q: want a time such as 2026-11-21T14:00:00.5Z", controlbus.ErrInvalid, at)
		}
	}
	d, err := p.store.Message(ctx, uid, near)
	if err != nil {
		return d, fmt.Errorf("read message %s: %w", uid, err)
	}
	return d, nil
}

func (p *Pages) one(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	as, known := decode.Parse(v.Form.Get("as"))
	if !known && as != "" {
		return fmt.Errorf("%w: as %q: want json, xml, msgpack, cbor, text or hex", controlbus.ErrInvalid, string(as))
	}
	ctx, cancel := v.Context()
	defer cancel()
	d, err := p.read(ctx, r, v)
	if err != nil {
		return err
	}
	// A conversation may be long over or still going on: a day to both sides.
	at := time.Unix(0, d.Time)
	cq := storage.ConversationQuery{
		Range:       storage.TimeRange{From: at.Add(-24 * time.Hour), To: at.Add(24 * time.Hour)},
		Correlation: d.Correlation, TraceID: d.TraceID, MessageID: d.MessageID,
	}
	var conv storage.Conversation
	var convErr error
	if !cq.Correlation.IsZero() || cq.TraceID != [16]byte{} || cq.MessageID != "" {
		conv, convErr = p.store.Conversation(ctx, cq)
	}
	m := messageView(v, d, conv, convErr, as)
	if c := p.deps.Commands; c != nil {
		if d.Destination != "" {
			act := commands.ReplayAct(ctx, c, controlbus.ChannelName{Env: d.Env, System: d.System, Broker: d.Broker, Name: d.Destination}, d.UID.String())
			m.Replay = &act
		}
		m.Done = commands.Done(ctx, c, d.UID.String(), d.MessageID, at, v.Now)
	}
	return v.Render(w, page.Options{Title: m.Channel, Area: "messages"}, Message(m))
}

// body hands out the payload as it was carried: as a download, never as
// something a browser would render.
func (p *Pages) body(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	d, err := p.read(ctx, r, v)
	if err != nil {
		return err
	}
	if !d.BodyStored {
		return fmt.Errorf("body of message %s: %w", d.UID, controlbus.ErrNotFound)
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", `attachment; filename="message-`+d.UID.String()+`.bin"`)
	h.Set("Content-Length", strconv.Itoa(len(d.Body)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(d.Body) // a reader that went away is not our error
	return nil
}
