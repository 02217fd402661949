// Package audit is the audit trail for those who answer for what was done: who
// did, asked for and read what, and whether the trail is still what was written.
package audit

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/commands"
)

// Trail is the audit trail. Record appends in the name of the identity in ctx.
type Trail interface {
	Events(ctx context.Context, q access.EventQuery) ([]access.Event, error)
	Record(ctx context.Context, e access.Event) error
}

// Report is what a verification found. Without findings the trail is whole.
type Report struct {
	Entries  int64
	Root     string // of the tree, base64
	Heads    int    // kept elsewhere, that were checked
	Findings []string
}

// Verifier computes the chain and the tree of the trail anew. It reads all of
// it: seconds for a long one.
type Verifier interface {
	VerifyAudit(ctx context.Context) (Report, error)
}

// Pages is the page.
type Pages struct {
	site     *page.Site
	trail    Trail
	verifier Verifier
	bus      bool // commands have pages

	running  sync.Mutex // one verification at a time
	mu       sync.Mutex
	verified time.Time
	report   *Report
	failed   string
}

// New returns the page; verifier may be nil. bus says that commands have pages
// to link to.
func New(site *page.Site, trail Trail, verifier Verifier, bus bool) *Pages {
	return &Pages{site: site, trail: trail, verifier: verifier, bus: bus}
}

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	routes := []page.Route{
		{Pattern: "GET /audit", Handler: p.list, Action: access.ReadAudit},
		{Pattern: "GET /audit/export", Handler: p.export, Action: access.ReadAudit},
		{Pattern: "GET /settings/audit", Handler: moved, Action: access.ReadAudit},
	}
	if p.verifier != nil {
		routes = append(routes, page.Route{Pattern: "POST /audit/verify", Handler: p.verify, Action: access.ReadAudit})
	}
	return routes
}

// moved leads from where the page was.
func moved(w http.ResponseWriter, r *http.Request) error {
	http.Redirect(w, r, (&url.URL{Path: "/audit", RawQuery: r.URL.RawQuery}).String(), http.StatusMovedPermanently)
	return nil
}

type eventView struct {
	At                    time.Time
	Who, Kind, Code, What string
	Target, TargetURL     string
	Env, Level, Channel   string
	Detail, Address       string
	Refused               bool
}

type listView struct {
	Sub         string
	Rows        []eventView
	Code, Actor string
	Kept        []component.Pair
	Known       []component.Pair
	Tabs        []component.Option
	CSV, NDJSON string
	Next, First string
	ClearURL    string
	Filtered    bool
	Verify      *verifyView
	Empty       *component.Empty
}

// verifyView is whether the trail is what was written, as far as is known.
type verifyView struct {
	State component.State
	Text  string
	At    time.Time
	Root  string
	Found []string
}

const (
	pageSize = 100
	// history is how far back the trail is shown where nothing else is asked for.
	history = "30d"
	// maxExport bounds a file; the next one goes on before its last entry.
	maxExport = 50_000
)

// tabs are the trail's quick choices.
var tabs = []struct{ label, code string }{
	{"Everything", ""}, {"Commands", "command.*"}, {"Signing in", "auth.*"}, {"Payloads", "message.*"}, {"People and tokens", "user.*"},
}

// query reads what is asked for. A page without an environment in its address
// is about all of them: much of the trail is about none.
func (p *Pages) query(v *page.View) (access.EventQuery, error) {
	if !v.Form.Has("env") {
		v.Env = ""
	}
	q := access.EventQuery{
		Code: strings.TrimSpace(v.Form.Get("code")), Actor: strings.TrimSpace(v.Form.Get("who")), Env: v.Env, Channel: v.Query,
		From: v.Range.From, Limit: pageSize + 1,
	}
	if q.Channel != "" && !strings.Contains(q.Channel, "*") {
		q.Channel = "*" + q.Channel + "*"
	}
	if !v.Relative() {
		q.To = v.Range.To
	}
	if s := v.Form.Get("before"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 1 {
			return q, fmt.Errorf("%w: before %.40q: want a number", controlbus.ErrInvalid, s)
		}
		q.Before = n
	}
	return q, nil
}

func (p *Pages) list(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.BeginOver(r, history)
	if err != nil {
		return err
	}
	q, err := p.query(v)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	all, err := p.trail.Events(ctx, q)
	if err != nil {
		return err
	}
	m := listView{
		Code: component.Visible(q.Code), Actor: component.Visible(q.Actor), Known: words, Kept: v.Kept("q"), ClearURL: v.URL("/audit"),
		Filtered: q.Code != "" || q.Actor != "" || q.Channel != "" || q.Env != "",
		Sub:      "Who did, asked for and read what, newest first. Entries are only ever added, each chained to the one before.",
	}
	for _, t := range tabs {
		m.Tabs = append(m.Tabs, component.Option{Label: t.label, URL: v.With("code", t.code, "before", ""), Current: t.code == q.Code})
	}
	more := v.With("before", "")
	sep := "?"
	if strings.Contains(more, "?") {
		sep = "&"
	}
	file := strings.Replace(more, "/audit", "/audit/export", 1)
	m.CSV, m.NDJSON = file+sep+"format=csv", file+sep+"format=ndjson"
	if len(all) > pageSize {
		all = all[:pageSize]
		m.Next = v.With("before", strconv.FormatInt(all[pageSize-1].Seq, 10))
	}
	if q.Before > 0 {
		m.First = more
	}
	for i := range all {
		m.Rows = append(m.Rows, p.row(v, &all[i]))
	}
	if len(m.Rows) == 0 {
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Off, Word: "Nothing"}, Title: "No entry fits", Text: "Nothing in the trail fits, " + strings.ToLower(v.RangeLabel()[:1]) + v.RangeLabel()[1:] + ".",
			Links: []component.Option{{Label: "All entries", URL: "/audit"}, {Label: "The last 400 days", URL: v.With("range", "9600h", "from", "", "to", "", "before", "")}}}
	}
	if p.verifier != nil {
		m.Verify = p.status()
	}
	return v.Render(w, page.Options{Title: "Audit", Area: "audit", Filter: &component.FilterView{
		Action: "/audit", Label: "Filter entries by channel", Hint: "Channel: orders.* or any part of its name", Value: v.Query, Kept: v.Kept("code", "who"),
	}}, List(m))
}

func (p *Pages) row(v *page.View, e *access.Event) eventView {
	row := eventView{
		At: e.At, Who: component.Visible(e.Actor.Name), Kind: component.Visible(string(e.Actor.Kind) + " " + e.Actor.ID), Code: component.Visible(e.Code), What: word(e.Code), Target: component.Visible(e.Target),
		Env: component.Visible(e.Env), Level: page.Level(e.Env), Channel: component.Visible(e.Channel), Detail: component.Visible(e.Detail), Address: component.Visible(e.Address), Refused: e.Refused,
	}
	if row.Who == "" {
		row.Who = "somebody"
	}
	if p.bus && strings.HasPrefix(e.Code, "command.") {
		// "purge 0197…": the kind and the id; a refused try names the id alone.
		kind, id := "", e.Target
		if i := strings.LastIndexByte(e.Target, ' '); i >= 0 {
			kind, id = e.Target[:i], e.Target[i+1:]
		}
		if controlbus.CommandID(id).Valid() {
			row.TargetURL = commands.URL(controlbus.CommandID(id))
			row.Target = strings.TrimSpace(strings.ToLower(commands.KindWord(controlbus.CommandKind(kind))) + " " + component.Middle(id))
		}
	}
	return row
}

// status is the last verification's answer.
func (p *Pages) status() *verifyView {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.failed != "":
		return &verifyView{State: component.State{Kind: component.Doubt, Word: "not verified"}, At: p.verified, Text: "The last verification could not be finished: " + p.failed}
	case p.report == nil:
		return &verifyView{State: component.State{Kind: component.Off, Word: "not verified since the console started"}, Text: "A verification reads the whole trail, computes its chain and its tree anew and compares them with the signed heads."}
	case len(p.report.Findings) > 0:
		m := &verifyView{State: component.State{Kind: component.Stop, Word: "not what was written"}, At: p.verified, Root: component.Visible(p.report.Root),
			Text: component.Plural(p.report.Entries, "entry") + " read. Keep a copy of the database and of the heads, and find out who can write to either."}
		m.Text = strings.Replace(m.Text, "entrys", "entries", 1)
		for _, f := range p.report.Findings {
			m.Found = append(m.Found, component.Visible(f))
		}
		return m
	}
	text := strings.Replace(component.Plural(p.report.Entries, "entry"), "entrys", "entries", 1) + " in an unbroken chain; " + component.Plural(p.report.Heads, "signed head") + " kept elsewhere fit."
	return &verifyView{State: component.State{Kind: component.Done, Word: "whole"}, At: p.verified, Root: component.Visible(p.report.Root), Text: text}
}

// verifyTimeout bounds a verification asked for by a page.
const verifyTimeout = 60 * time.Second

// verify reads the whole trail once.
func (p *Pages) verify(w http.ResponseWriter, r *http.Request) error {
	if !p.running.TryLock() {
		return fmt.Errorf("the trail is being verified already: %w", controlbus.ErrOverloaded)
	}
	defer p.running.Unlock()
	ctx, cancel := context.WithTimeout(r.Context(), verifyTimeout)
	defer cancel()
	report, err := p.verifier.VerifyAudit(ctx)
	e := access.Event{Code: "audit.verify", Detail: "whole"}
	p.mu.Lock()
	p.verified, p.failed = p.site.Now(), ""
	if err != nil {
		p.failed, e.Detail = component.Visible(err.Error()), "not finished"
	} else {
		p.report = &report
		if n := len(report.Findings); n > 0 {
			e.Detail = "not what was written: " + report.Findings[0]
		}
	}
	p.mu.Unlock()
	if err := p.trail.Record(r.Context(), e); err != nil {
		return err
	}
	http.Redirect(w, r, "/audit", http.StatusSeeOther)
	return nil
}
