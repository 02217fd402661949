package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

type stationView struct {
	Kind   component.Kind
	At     time.Time
	Delta  string
	Who    string
	What   string
	Detail string
	Times  int // of the same in a row
}

type outcomeRow struct {
	N           string
	At          time.Time
	State       component.State
	Name, Full  string
	URL, Detail string
	Source      string
}

type figureRow struct {
	Name  string
	Value string
	Tone  string
	Count int64
	Share int64
}

type detailView struct {
	Title, ID  string
	State      component.State
	Channel    channelLink
	To         *channelLink
	Class      string
	By, ByID   string
	Reason     string
	Asked      time.Time
	Agent      string
	AgentURL   string
	Means      string
	Todo       string
	Tone       component.Kind
	Told       string
	Wrong      string
	Job        *jobView
	Wait       *waitView
	Approved   string
	ApprovedAt time.Time
	CancelBy   string
	CancelWhy  string
	Counts     []figureRow
	CountsOf   int64
	Late       string

	Preview   *previewView
	Args      string
	Stations  []stationView
	Outcomes  []outcomeRow
	OutDown   string
	OutNext   string
	OutFirst  string
	OutNote   string
	Evidence  []component.Pair
	EvidRaw   string
	LinksTo   []component.Option // commands this one belongs to
	Undo      *undoView
	UndoWhy   string
	Abandon   bool
	AbandonNo string
	Again     string
	LookURL   string
	Cancel    *jobView // levers while it has not begun
}

// undoView asks for the preview of an undo.
type undoView struct {
	URL, Label, Text string
	Paced            bool
}

const outcomesPage = 50

// outcomesWithin bounds the wait for what became of single messages: the page is
// the ledger's and must not hang on the message store.
const outcomesWithin = time.Second

func commandID(r *http.Request) (controlbus.CommandID, error) {
	id := controlbus.CommandID(r.PathValue("id"))
	if !id.Valid() {
		return "", fmt.Errorf("command %.60q: %w", string(id), controlbus.ErrNotFound)
	}
	return id, nil
}

func (p *Pages) one(w http.ResponseWriter, r *http.Request) error {
	return p.show(w, r, nil)
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request, wrong error) error {
	id, err := commandID(r)
	if err != nil {
		return err
	}
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	c, err := p.svc.Command(ctx, id)
	if err != nil {
		return err
	}
	events, err := p.svc.Events(ctx, id)
	if err != nil {
		return err
	}
	who, _ := access.From(r.Context())
	v.Env = c.Target.Channel.Env
	m := p.detail(v, who, &c)
	if told := v.Form.Get("told"); !c.State.Terminal() || told != "ordered" && told != "approved" && told != "control" {
		m.Told = told // on its way only while it is
	}
	m.timeline(&c, events)
	if err := p.outcomes(ctx, v, &c, &m); err != nil {
		return err
	}
	options := page.Options{Title: m.Title, Area: "control", Still: true}
	if wrong != nil {
		m.Wrong, _ = reason(wrong)
		options.Status = statusOf(wrong)
	}
	if !c.State.Terminal() && wrong == nil {
		options.Refresh = 2 * time.Second
	}
	return v.Render(w, options, Detail(m))
}

func (p *Pages) detail(v *page.View, who access.Identity, c *controlbus.Command) detailView {
	m := detailView{
		Title: title(&c.CommandSpec), ID: string(c.ID), State: StateOf(c), Channel: linkTo(v, c.Target.Channel), By: component.Visible(c.RequestedBy.Name),
		ByID: component.Visible(c.RequestedBy.ID), Reason: component.Visible(c.Reason), Asked: c.RequestedAt, Agent: component.Visible(c.Target.Agent), AgentURL: v.URL("/agents", "env", c.Target.Channel.Env),
		Preview: makePreview(v, &c.CommandSpec), Args: pretty(c.Args), LookURL: v.Channel(c.Target.Channel),
	}
	if c.Destination != nil {
		to := linkTo(v, *c.Destination)
		m.To = &to
	}
	m.Class = classWords[c.Class]
	m.Means, m.Todo = explained(c, v.Now)
	m.Tone = m.State.Kind
	r := rightsOn(who, c, ledger.Action(c.Kind))
	if c.ApprovedBy != nil && c.ApprovedBy.ID != c.RequestedBy.ID {
		m.Approved, m.ApprovedAt = component.Visible(c.ApprovedBy.Name), c.ApprovedAt
	}
	if c.CancelAsked != nil {
		m.CancelBy, m.CancelWhy = component.Visible(c.CancelAsked.Name), component.Visible(c.CancelReason)
	}
	switch {
	case c.State == controlbus.CommandAwaitingApproval:
		w := waiter(v, who, c)
		m.Wait = &w
		j := Job(v, who, c)
		j.Stop = "nothing is done"
		m.Cancel = &j
	case c.State == controlbus.CommandUnconfirmed:
		m.Abandon = r.approve
		if !m.Abandon {
			m.AbandonNo = who.Why(access.Approve)
		}
		j := Job(v, who, c)
		j.CanRate = false
		m.Cancel = &j
	case !c.State.Terminal():
		j := Job(v, who, c)
		m.Job = &j
	}
	if c.State.Terminal() || c.State == controlbus.CommandUnconfirmed {
		m.counts(c)
	}
	m.evidence(c)
	m.undo(v, who, c)
	if c.UndoOf != "" {
		m.LinksTo = append(m.LinksTo, component.Option{Label: "Takes back the effect of command " + component.Middle(string(c.UndoOf)), URL: URL(c.UndoOf)})
	}
	if c.UndoneBy != "" {
		m.LinksTo = append(m.LinksTo, component.Option{Label: "Its effect is taken back by command " + component.Middle(string(c.UndoneBy)), URL: URL(c.UndoneBy)})
	}
	if c.State.Terminal() && c.UndoOf == "" && who.Can(access.Operate, c.Target.Channel.Env, c.Target.Channel.Name) {
		m.Again = NewURL(c.Kind, c.Target.Channel, "like", string(c.ID))
	}
	return m
}

var classWords = map[controlbus.EffectClass]string{
	controlbus.EffectObserve: "looks only", controlbus.EffectDesired: "sets a state", controlbus.EffectAdditive: "adds messages", controlbus.EffectDestructive: "removes messages",
}

// counts are what became of the messages, as rows with bars.
func (m *detailView) counts(c *controlbus.Command) {
	n := c.Progress.Counts
	if c.Result != nil {
		n = c.Result.Counts
	}
	if n == (controlbus.Counts{}) {
		return
	}
	m.CountsOf = max(n.Matched, n.Done+n.Failed+n.Skipped)
	done := "done"
	switch c.Kind {
	case controlbus.CommandPurge, controlbus.CommandDiscard:
		done = "removed"
	case controlbus.CommandRedrive, controlbus.CommandReplay, controlbus.CommandTest:
		done = "sent"
	}
	add := func(name, tone string, count int64) {
		if count > 0 || name == done {
			m.Counts = append(m.Counts, figureRow{Name: name, Value: component.Count(count), Tone: tone, Count: count, Share: max(m.CountsOf, 1)})
		}
	}
	add(done, "is-clear", n.Done)
	add("failed", "is-stop", n.Failed)
	add("left alone", "is-off", n.Skipped)
	if j := c.Progress.Job; j != nil {
		refailed := j.Refailed
		if c.Result != nil { // its last word is newer than the last report
			var proof struct {
				Refailed int64 `json:"refailed"`
			}
			if json.Unmarshal(c.Result.Evidence, &proof) == nil {
				refailed = max(refailed, proof.Refailed)
			}
		}
		add("arrived dead since", "is-stop", refailed)
	}
	if rest := n.Matched - n.Done - n.Failed - n.Skipped; rest > 0 {
		what := "not reached"
		if !c.State.Terminal() || c.State == controlbus.CommandIndeterminate {
			what = "not known"
		}
		add(what, "is-off", rest)
	}
	if r := c.LateResult; r != nil {
		m.Late = "Later the agent told: " + r.Outcome.Title() + ", " + component.Count(r.Counts.Done) + " of " + component.Count(r.Counts.Matched) + " done. " + sentence(r.Detail)
	}
}

// evidence is the kind's own proof, as pairs where it is flat.
func (m *detailView) evidence(c *controlbus.Command) {
	if c.Result == nil || len(c.Result.Evidence) == 0 {
		return
	}
	var flat map[string]any
	d := json.NewDecoder(bytes.NewReader(c.Result.Evidence))
	d.UseNumber()
	if d.Decode(&flat) == nil {
		for _, k := range sortedKeys(flat) {
			var text string
			switch x := flat[k].(type) {
			case nil:
				continue
			case string:
				text = x
			case json.Number:
				text = x.String()
				if n, err := strconv.ParseInt(text, 10, 64); err == nil && n < 1e15 {
					text = component.Count(n)
				}
			case bool:
				text = map[bool]string{true: "yes", false: "no"}[x]
			default:
				b, err := json.Marshal(x)
				if err != nil {
					continue
				}
				text = string(b)
			}
			if len(text) > 300 {
				text = access.Clip(text, 300) + "…"
			}
			m.Evidence = append(m.Evidence, component.Pair{Name: component.Visible(strings.ReplaceAll(k, "_", " ")), Value: component.Visible(text)})
		}
	}
	m.EvidRaw = pretty(c.Result.Evidence)
}

// pretty is JSON for reading, bounded.
func pretty(raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var b bytes.Buffer
	text := string(raw)
	if json.Indent(&b, raw, "", "  ") == nil {
		text = b.String()
	}
	if len(text) > 16<<10 {
		text = access.Clip(text, 16<<10) + "\n…"
	}
	return component.VisibleText(text)
}

// undo offers the way back.
func (m *detailView) undo(v *page.View, who access.Identity, c *controlbus.Command) {
	kind, err := c.Undoable()
	if err != nil || c.UndoneBy != "" {
		return
	}
	if p := c.Preview; p != nil && p.Reversible == controlbus.ReversibleNo {
		m.UndoWhy = "It cannot be undone. " + sentence(p.Undo)
		return
	}
	if need := ledger.Action(kind); !who.Can(need, c.Target.Channel.Env, c.Target.Channel.Name) {
		m.UndoWhy = "Undo: " + who.Why(need)
		return
	}
	u := undoView{URL: URL(c.ID) + "/undo", Paced: kind == controlbus.CommandReplay, Label: "Preview the undo"}
	switch kind {
	case controlbus.CommandReplay:
		u.Label = "Preview putting them back"
		u.Text = "The messages come back from the agent's own copy, in their order, to the end of the channel."
	case controlbus.CommandUndetour:
		u.Label, u.Text = "Preview the end of the detour", "Messages take their direct way again; what waits is worked off first."
	case controlbus.CommandResume:
		u.Label, u.Text = "Preview going on", "Consumers get messages again at once."
	}
	m.Undo = &u
}

func (m *detailView) timeline(c *controlbus.Command, events []ledger.Event) {
	var start time.Time
	for i := range events {
		e := &events[i]
		if i == 0 {
			start = e.At
		}
		s := stationView{Kind: eventMark(e), At: e.At, What: eventWords[e.Type], Detail: sentence(e.Detail)}
		if s.What == "" {
			s.What = component.Visible(strings.ReplaceAll(string(e.Type), "_", " "))
		}
		s.Who = component.Visible(e.Actor.Name)
		if s.Who == "" {
			s.Who = "console"
			switch e.Type {
			case ledger.EventAccepted, ledger.EventProgress, ledger.EventResult:
				s.Who = component.Visible(c.Target.Agent)
			}
		}
		switch {
		case e.Spec != nil:
			s.Detail = ""
			if c.Reason != "" {
				s.Detail = "“" + component.Visible(c.Reason) + "”"
			}
		case e.Result != nil:
			s.What = "ended it: " + e.Result.Outcome.Title()
			if e.Result.Counts != (controlbus.Counts{}) {
				s.What += ", " + component.Count(e.Result.Counts.Done) + " of " + component.Count(e.Result.Counts.Matched) + failedToo(e.Result.Counts)
			}
			s.Detail = sentence(e.Result.Detail)
		case e.Progress != nil:
			s.What = "reported " + component.Count(e.Progress.Done)
			if e.Progress.Total > 0 {
				s.What += " of " + component.Count(e.Progress.Total)
			}
			s.What += failedToo(e.Progress.Counts)
			s.Detail = sentence(e.Progress.Note)
		case e.Type == ledger.EventRefused && e.Detail != "", e.Type == ledger.EventCancelAsked && e.Detail != "", e.Type == ledger.EventAbandoned && e.Detail != "":
			s.Detail = "“" + component.Visible(e.Detail) + "”"
		}
		if n := len(m.Stations); n > 0 && e.Progress != nil && events[i-1].Progress != nil {
			s.Times, s.Delta = m.Stations[n-1].Times+1, "+"+component.Span(e.At.Sub(start).Round(time.Millisecond))
			s.What += "; " + component.Count(s.Times+1) + " reports"
			m.Stations[n-1] = s
			continue
		}
		if d := e.At.Sub(start); d > 0 {
			s.Delta = "+" + component.Span(d.Round(time.Millisecond))
		}
		m.Stations = append(m.Stations, s)
	}
}

// outcomes are what became of single messages, where the kind is about some.
func (p *Pages) outcomes(ctx context.Context, v *page.View, c *controlbus.Command, m *detailView) error {
	switch c.Kind {
	case controlbus.CommandPurge, controlbus.CommandRedrive, controlbus.CommandDiscard, controlbus.CommandReplay, controlbus.CommandTest:
	default:
		return nil
	}
	if !c.State.Sent() && !c.State.Result() {
		return nil
	}
	var after int64
	if s := v.Form.Get("after"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%w: after %.40q: want a number", controlbus.ErrInvalid, s)
		}
		after = n
		m.OutFirst = URL(c.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, outcomesWithin)
	defer cancel()
	rows, next, err := p.svc.Outcomes(ctx, c.ID, after, outcomesPage)
	if err != nil {
		// The store's own words for being away are of no use here.
		if m.OutDown, _ = reason(err); m.OutDown == "" || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, controlbus.ErrUnavailable) {
			m.OutDown = "The store does not answer now. The counts above are the ledger's and hold."
		}
		return nil
	}
	for i := range rows {
		m.Outcomes = append(m.Outcomes, outcomeView(v, &rows[i]))
	}
	if next > 0 && len(rows) == outcomesPage {
		m.OutNext = URL(c.ID) + "?" + url.Values{"after": {strconv.FormatInt(next, 10)}}.Encode()
	}
	if len(rows) == 0 {
		m.OutNote = "No message has been told of yet. Agents send what became of each message through their spool, seconds behind."
		if c.State.Terminal() {
			m.OutNote = "The store has nothing on single messages of this command: it kept none, or they are past retention."
		}
	}
	return nil
}

func outcomeView(v *page.View, o *command.Outcome) outcomeRow {
	r := outcomeRow{
		N: component.Count(o.Number), At: o.At, State: outcomeState(o.Outcome), Full: component.Visible(o.MessageID), Detail: sentence(o.Detail), Source: component.Visible(o.Source),
	}
	r.Name = component.Middle(r.Full)
	if r.Name == "" {
		r.Name = "no message id"
	}
	r.URL = messageURL(v, o.UID, time.Time{})
	if r.URL == "" && o.MessageID != "" {
		r.URL = v.URL("/messages", "q", "id:"+strconv.Quote(o.MessageID), "range", "7d", "from", "", "to", "")
	}
	return r
}

// Decisions. Each answers with a redirect, so that a reload decides nothing
// again; what was wrong is said on the command's page.

func (p *Pages) decide(w http.ResponseWriter, r *http.Request, what string, f func(ctx context.Context, id controlbus.CommandID, form url.Values) error) error {
	id, err := commandID(r)
	if err != nil {
		return err
	}
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), waiting)
	defer cancel()
	if err := f(ctx, id, form); err != nil {
		if _, mine := reason(err); mine && statusOf(err) != http.StatusForbidden && statusOf(err) != http.StatusNotFound {
			return p.show(w, r, err)
		}
		return err
	}
	http.Redirect(w, r, URL(id)+"?"+url.Values{"told": {what}}.Encode(), http.StatusSeeOther)
	return nil
}

func (p *Pages) approve(w http.ResponseWriter, r *http.Request) error {
	return p.decide(w, r, "approved", func(ctx context.Context, id controlbus.CommandID, f url.Values) error {
		_, err := p.svc.Approve(ctx, id, f.Get("fingerprint"))
		return err
	})
}

func (p *Pages) refuse(w http.ResponseWriter, r *http.Request) error {
	return p.decide(w, r, "refused", func(ctx context.Context, id controlbus.CommandID, f url.Values) error {
		why, err := why(f)
		if err != nil {
			return err
		}
		if why == "" {
			return fmt.Errorf("%w: reason: say why, for who asked", controlbus.ErrInvalid)
		}
		_, err = p.svc.Refuse(ctx, id, why)
		return err
	})
}

func (p *Pages) cancel(w http.ResponseWriter, r *http.Request) error {
	return p.decide(w, r, "cancelled", func(ctx context.Context, id controlbus.CommandID, f url.Values) error {
		why, err := why(f)
		if err == nil {
			_, err = p.svc.Cancel(ctx, id, why)
		}
		return err
	})
}

func (p *Pages) abandon(w http.ResponseWriter, r *http.Request) error {
	return p.decide(w, r, "abandoned", func(ctx context.Context, id controlbus.CommandID, f url.Values) error {
		why, err := why(f)
		if err == nil && why == "" {
			err = fmt.Errorf("%w: reason: say why nobody waits for the agent any more", controlbus.ErrInvalid)
		}
		if err == nil {
			_, err = p.svc.Abandon(ctx, id, why)
		}
		return err
	})
}

func (p *Pages) control(w http.ResponseWriter, r *http.Request) error {
	return p.decide(w, r, "control", func(ctx context.Context, id controlbus.CommandID, f url.Values) error {
		var rate *float64
		var paused *bool
		if f.Has("rate") {
			n, err := parseRate(f.Get("rate"))
			if err != nil {
				return err
			}
			rate = &n
		}
		switch f.Get("paused") {
		case "1":
			paused = new(true)
		case "0":
			paused = new(false)
		}
		if rate == nil && paused == nil {
			return fmt.Errorf("%w: want a rate, or paused 0 or 1", controlbus.ErrInvalid)
		}
		_, err := p.svc.Control(ctx, id, rate, paused)
		return err
	})
}

// undo takes the preview of the way back.
func (p *Pages) undo(w http.ResponseWriter, r *http.Request) error {
	id, err := commandID(r)
	if err != nil {
		return err
	}
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	var o controlbus.JobOptions
	if o.Rate, err = parseRate(form.Get("rate")); err != nil {
		return p.show(w, r, err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), waiting)
	defer cancel()
	d, err := p.svc.PreviewUndo(ctx, id, o)
	if err != nil {
		if _, mine := reason(err); mine && statusOf(err) != http.StatusForbidden && statusOf(err) != http.StatusNotFound {
			return p.show(w, r, err)
		}
		return err
	}
	http.Redirect(w, r, draftURL(d.ID), http.StatusSeeOther)
	return nil
}

func why(f url.Values) (string, error) {
	s := strings.TrimSpace(f.Get("reason"))
	if len(s) > controlbus.MaxCommandReason {
		return "", fmt.Errorf("%w: reason of %d bytes: at most %d", controlbus.ErrInvalid, len(s), controlbus.MaxCommandReason)
	}
	return s, nil
}

// cancelWords say who asked it to stop, and why.
func cancelWords(m detailView) string {
	if m.CancelWhy == "" {
		return "by " + m.CancelBy
	}
	return "by " + m.CancelBy + ": “" + m.CancelWhy + "”"
}
