package commands

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Pages are the pages of the control bus.
type Pages struct {
	site   *page.Site
	svc    Service
	agents AgentLister
}

// AgentLister lists the fleet, for the brokers that a form offers. It does not
// block.
type AgentLister interface {
	Agents(ctx context.Context) []controlbus.AgentView
}

// New returns the pages; agents may be nil.
func New(site *page.Site, svc Service, agents AgentLister) *Pages {
	return &Pages{site: site, svc: svc, agents: agents}
}

// Routes lists the addresses. Requests that remove messages, and consent, need
// more than Operate: the ledger asks for it, and the form says so before.
func (p *Pages) Routes() []page.Route {
	return []page.Route{
		{Pattern: "GET /control", Handler: p.list, Action: access.ViewMetadata},
		{Pattern: "GET /control/{id}", Handler: p.one, Action: access.ViewMetadata},
		{Pattern: "GET /control/new", Handler: p.form, Action: access.Operate},
		{Pattern: "POST /control/form", Handler: p.reform, Action: access.Operate},
		{Pattern: "POST /control/preview", Handler: p.preview, Action: access.Operate},
		{Pattern: "GET /control/drafts/{id}", Handler: p.draft, Action: access.Operate},
		{Pattern: "POST /control/drafts/{id}/order", Handler: p.order, Action: access.Operate},
		{Pattern: "POST /control/{id}/approve", Handler: p.approve, Action: access.Approve},
		{Pattern: "POST /control/{id}/refuse", Handler: p.refuse, Action: access.Approve},
		{Pattern: "POST /control/{id}/abandon", Handler: p.abandon, Action: access.Approve},
		{Pattern: "POST /control/{id}/cancel", Handler: p.cancel, Action: access.Operate},
		{Pattern: "POST /control/{id}/control", Handler: p.control, Action: access.Operate},
		{Pattern: "POST /control/{id}/undo", Handler: p.undo, Action: access.Operate},
	}
}

// history is how far back the ledger is shown where nothing else is asked for.
const history = "30d"

const pageSize = 50

// jobView is a command at work, with its bar and its levers.
type jobView struct {
	ID, URL, Title string
	State          component.State
	Channel        channelLink
	By, Reason     string
	Asked          time.Time
	Done, Total    int64 // of the bar; Total 0: not known
	Words          string
	Failed         string
	Rate, Left     string
	Note           string
	Steps          []stepView
	Age            string // how old the figures are, where that is long

	Levers  bool // may be used
	Why     string
	Pause   bool // the button pauses; else it goes on
	CanRate bool
	Limit   string
	Stop    string // what cancelling leaves
}

type stepView struct {
	Label string
	State component.State
}

// waitView waits for a second person.
type waitView struct {
	ID, URL, Title string
	Channel        channelLink
	By, Reason     string
	Asked          time.Time
	Preview        *previewView
	Mine           bool   // waits for others
	Why            string // who asks may not decide
	Approve        string // what the button says
	Danger         bool
}

type rowView struct {
	ID, URL   string
	At        time.Time
	State     component.State
	Kind      string
	Channel   channelLink
	To        string
	Effect    string
	By        string
	Reason    string
	Next      string
	Mine      bool
	EnvShown  bool
	EnvLevel  string
	HasReason bool
}

type listView struct {
	Sub      string
	NewURL   string
	NewWhy   string
	Wait     []waitView
	Own      []waitView
	Doubts   []rowView
	Jobs     []jobView
	Rows     []rowView
	Tabs     []component.Option
	Kept     []component.Pair
	Kinds    []component.Option
	States   []component.Option
	Brokers  []string
	Chosen   string // how many filters
	Broker   string
	By       string
	System   bool
	Filtered bool // anything is left out
	ClearURL string
	Empty    *component.Empty
	Next     string
	First    string
	Told     string
}

// tabs are the ledger's quick choices.
var tabs = []struct{ value, label string }{{"", "All"}, {"open", "Open"}, {"mine", "Mine"}, {"unknown", "Unknown"}}

// query reads what of the ledger is asked for.
func (p *Pages) query(v *page.View, id access.Identity) (ledger.Query, error) {
	q := ledger.Query{
		Env: v.Env, Broker: strings.TrimSpace(v.Form.Get("broker")), Channel: v.Query, Requester: strings.TrimSpace(v.Form.Get("by")),
		From: v.Range.From, People: v.Form.Get("system") == "", Limit: pageSize + 1,
	}
	if !v.Form.Has("env") {
		q.Env = "" // what waits for a person is in no environment more than in others
	}
	if !v.Relative() {
		q.To = v.Range.To
	}
	if q.Channel != "" && !strings.Contains(q.Channel, "*") {
		q.Channel = "*" + q.Channel + "*"
	}
	if k := controlbus.CommandKind(v.Form.Get("kind")); k != "" {
		if _, ok := k.Info(); !ok {
			return q, fmt.Errorf("%w: kind %.40q: want one of those offered", controlbus.ErrInvalid, string(k))
		}
		q.Kind = k
	}
	if s := controlbus.CommandState(v.Form.Get("state")); s != "" {
		if !s.Valid() {
			return q, fmt.Errorf("%w: state %.40q: want one of those offered", controlbus.ErrInvalid, string(s))
		}
		q.States = []controlbus.CommandState{s}
	}
	if b := controlbus.CommandID(v.Form.Get("before")); b != "" {
		if !b.Valid() {
			return q, fmt.Errorf("%w: before %.40q: want a command's id", controlbus.ErrInvalid, string(b))
		}
		q.Before = b
	}
	switch tab := v.Form.Get("show"); tab {
	case "":
	case "open":
		q.Open = true
	case "mine":
		q.Requester = id.Person()
	case "unknown":
		q.States = []controlbus.CommandState{controlbus.CommandUnconfirmed, controlbus.CommandIndeterminate}
	default:
		return q, fmt.Errorf("%w: show %.40q: want open, mine or unknown", controlbus.ErrInvalid, tab)
	}
	return q, nil
}

func (p *Pages) list(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.BeginOver(r, history)
	if err != nil {
		return err
	}
	if !v.Form.Has("env") {
		v.Env = ""
	}
	id, _ := access.From(r.Context())
	q, err := p.query(v, id)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	all, err := p.svc.Commands(ctx, q)
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	open, err := p.svc.Commands(ctx, ledger.Query{Open: true, Limit: 500, People: true})
	if err != nil {
		return fmt.Errorf("read open commands: %w", err)
	}
	lost, err := p.svc.Commands(ctx, ledger.Query{States: []controlbus.CommandState{controlbus.CommandIndeterminate}, From: v.Now.Add(-24 * time.Hour), Limit: 20, People: true})
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	m := listView{NewURL: "/control/new", Kept: v.Kept("show", "q"), Broker: component.Visible(q.Broker), By: component.Visible(v.Form.Get("by")), System: !q.People, Told: v.Form.Get("told")}
	if !id.Somewhere(access.Operate) {
		m.NewWhy = id.Why(access.Operate)
	}
	m.now(v, id, open, lost)
	m.ledger(v, id, all, q)
	m.choices(v, q, p.brokers(ctx))
	options := page.Options{Title: "Control bus", Area: "control", Refresh: 5 * time.Second, Filter: &component.FilterView{
		Action: "/control", Label: "Filter commands by channel", Hint: "Channel: orders.* or any part of its name", Value: v.Query, Kept: v.Kept("show", "kind", "state", "broker", "by", "system"),
	}}
	if len(m.Jobs) > 0 {
		options.Refresh = 2 * time.Second
	}
	return v.Render(w, options, List(m))
}

// brokers are those the fleet knows.
func (p *Pages) brokers(ctx context.Context) []string {
	if p.agents == nil {
		return nil
	}
	var out []string
	for _, a := range p.agents.Agents(ctx) {
		for _, b := range a.Brokers {
			if !slices.Contains(out, b.Name) {
				out = append(out, b.Name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// now is what runs and what waits.
func (m *listView) now(v *page.View, id access.Identity, open, lost []controlbus.Command) {
	slices.Reverse(open) // who waits longest comes first
	running := 0
	for i := range open {
		c := &open[i]
		switch c.State {
		case controlbus.CommandAwaitingApproval:
			w := waiter(v, id, c)
			switch {
			case w.Mine:
				m.Own = append(m.Own, w)
			case w.Why == "":
				m.Wait = append(m.Wait, w)
			}
		case controlbus.CommandUnconfirmed:
			m.Doubts = append(m.Doubts, row(v, id, c))
		default:
			running++
			m.Jobs = append(m.Jobs, Job(v, id, c))
		}
	}
	for i := range lost {
		m.Doubts = append(m.Doubts, row(v, id, &lost[i]))
	}
	parts := []string{}
	if running > 0 {
		parts = append(parts, component.Plural(running, "command")+" at work")
	}
	if n := len(m.Wait); n == 1 {
		parts = append(parts, "1 waits for you")
	} else if n > 1 {
		parts = append(parts, component.Count(n)+" wait for you")
	}
	if n := len(m.Doubts); n > 0 {
		parts = append(parts, component.Count(n)+" unknown")
	}
	m.Sub = "Every command, who asked, what it did."
	if len(parts) > 0 {
		m.Sub += " " + sentence(strings.Join(parts, ", "))
	} else {
		m.Sub += " Nothing is at work, and nothing waits for you."
	}
}

func waiter(v *page.View, id access.Identity, c *controlbus.Command) waitView {
	r := rightsOn(id, c, ledger.Action(c.Kind))
	w := waitView{
		ID: string(c.ID), URL: URL(c.ID), Title: title(&c.CommandSpec), Channel: linkTo(v, c.Target.Channel), By: component.Visible(c.RequestedBy.Name),
		Reason: component.Visible(c.Reason), Asked: c.RequestedAt, Preview: makePreview(v, &c.CommandSpec), Mine: r.mine, Danger: c.Class == controlbus.EffectDestructive,
	}
	if !r.approve {
		w.Why = id.Why(access.Approve)
	}
	w.Approve = "Approve: " + lower(w.Title) + inEnv(c.Target.Channel.Env)
	return w
}

// lower begins a title within a sentence.
func lower(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// Job is a running command for its bar, here and on the overview.
func Job(v *page.View, id access.Identity, c *controlbus.Command) jobView {
	p := c.Progress
	j := jobView{
		ID: string(c.ID), URL: URL(c.ID), Title: title(&c.CommandSpec), State: StateOf(c), Channel: linkTo(v, c.Target.Channel),
		By: component.Visible(c.RequestedBy.Name), Reason: component.Visible(c.Reason), Asked: c.RequestedAt, Note: sentence(p.Note),
	}
	handled := p.Done + p.Failed + p.Skipped
	total := p.Total
	if c.State != controlbus.CommandRunning && c.State != controlbus.CommandUnconfirmed {
		total = 0
	}
	if total > 0 {
		j.Done, j.Total = min(handled, total), total
		j.Words = component.Count(handled) + " of " + component.Count(total)
	} else if handled > 0 {
		j.Words = component.Count(handled) + " so far"
	}
	if p.Failed > 0 || p.Skipped > 0 {
		j.Failed = strings.TrimPrefix(failedToo(p.Counts), ", ")
	}
	r := rightsOn(id, c, ledger.Action(c.Kind))
	j.Levers = r.mine || r.request
	if !j.Levers {
		j.Why = id.Why(ledger.Action(c.Kind))
	}
	if s := p.Job; s != nil {
		wanted := jobOptions(&c.CommandSpec).Rate
		paused := s.Paused
		if c.Control.Seq > 0 {
			wanted, paused = c.Control.Rate, c.Control.Paused
		}
		j.CanRate, j.Pause = true, !paused
		if wanted > 0 {
			j.Limit = component.Rate(wanted)
		}
		if s.Refailed > 0 {
			j.Failed = strings.TrimPrefix(j.Failed+", "+component.Plural(s.Refailed, "dead letter")+" arrived since", ", ")
		}
		if !s.Paused && s.Rate > 0 {
			j.Rate = component.Rate(s.Rate) + "/s"
			if left := total - handled; total > 0 && left > 0 {
				j.Left = "about " + component.Span((time.Duration(float64(left) / s.Rate * float64(time.Second))).Round(time.Second)) + " left"
				if strings.HasSuffix(j.Note, " left.") {
					j.Note = "" // the agent's own estimate, a little older
				}
			}
		}
		if c.Control.Seq > s.Control {
			j.Note = strings.TrimSpace("The agent has not heard the last change yet. " + j.Note)
		}
		j.Steps = steps(jobOptions(&c.CommandSpec).Ramp, s)
	}
	if left := p.Total - handled; left > 0 {
		j.Stop = component.Plural(left, "message") + " stay where they are; " + component.Count(p.Done) + " are done and stay done"
		if left == 1 {
			j.Stop = strings.Replace(j.Stop, " stay where they are", " stays where it is", 1)
		}
	}
	if age := v.Now.Sub(c.ProgressAt); !c.ProgressAt.IsZero() && age > 15*time.Second && c.State.Sent() {
		j.Age = "figures are " + component.Span(age.Round(time.Second)) + " old"
	}
	return j
}

func steps(ramp []int64, s *controlbus.JobState) []stepView {
	if len(ramp) == 0 {
		return nil
	}
	var out []stepView
	for i := range len(ramp) + 1 {
		one := stepView{Label: "the rest", State: component.State{Kind: component.Off, Word: "not yet"}}
		if i < len(ramp) {
			one.Label = component.Count(ramp[i])
		}
		switch {
		case i < s.Step:
			one.State = component.State{Kind: component.Done, Word: "passed"}
		case i == s.Step && s.Settling:
			one.State = component.State{Kind: component.Running, Word: "watching what becomes of them"}
		case i == s.Step && s.Paused:
			one.State = component.State{Kind: component.Held, Word: "paused"}
		case i == s.Step:
			one.State = component.State{Kind: component.Running, Word: "running"}
		}
		out = append(out, one)
	}
	return out
}

// row is one line of the ledger.
func row(v *page.View, id access.Identity, c *controlbus.Command) rowView {
	r := rowView{
		ID: string(c.ID), URL: URL(c.ID), At: c.RequestedAt, State: StateOf(c), Kind: short(&c.CommandSpec), Channel: linkTo(v, c.Target.Channel),
		Effect: effect(c), By: component.Visible(c.RequestedBy.Name), Reason: component.Visible(c.Reason), Next: "Details", EnvLevel: page.Level(c.Target.Channel.Env),
		Mine: id.Person() != "" && id.Person() == c.RequestedBy.ID,
	}
	if c.Destination != nil {
		r.To = component.Visible(c.Destination.Name)
	}
	switch c.State {
	case controlbus.CommandAwaitingApproval:
		r.Next = "Review"
	case controlbus.CommandUnconfirmed, controlbus.CommandIndeterminate:
		r.Next = "Check"
	case controlbus.CommandRejected:
		r.Next = "Preview again"
	case controlbus.CommandSucceeded, controlbus.CommandPartial:
		if _, err := c.Undoable(); err == nil && c.UndoneBy == "" {
			r.Next = "Undo"
		}
	default:
		if !c.State.Terminal() {
			r.Next = "Open"
		}
	}
	return r
}

// ledger is the list with its paging.
func (m *listView) ledger(v *page.View, id access.Identity, all []controlbus.Command, q ledger.Query) {
	if len(all) > pageSize {
		all = all[:pageSize]
		m.Next = v.With("before", string(all[pageSize-1].ID), "told", "")
	}
	if q.Before != "" {
		m.First = v.With("before", "", "told", "")
	}
	for i := range all {
		r := row(v, id, &all[i])
		r.EnvShown = v.Env == ""
		m.Rows = append(m.Rows, r)
	}
	m.Filtered = q.Kind != "" || len(q.States) > 0 || q.Channel != "" || q.Broker != "" || q.Requester != "" || q.Open
	m.ClearURL = v.URL("/control")
	if len(m.Rows) > 0 {
		return
	}
	e := component.Empty{Mark: component.State{Kind: component.Off, Word: "Nothing"}, Title: "No command was asked for in this time"}
	e.Text = "A command purges, redrives, replays, detours or pauses a channel, and is shown before anything happens. Begin with a channel's page, or here."
	if m.NewWhy == "" {
		e.Links = append(e.Links, component.Option{Label: "New command", URL: m.NewURL})
	}
	e.Links = append(e.Links, component.Option{Label: "Channels", URL: v.URL("/channels")})
	if m.Filtered {
		e.Title, e.Text = "No command fits", "Nothing in the ledger fits these filters, "+lower(v.RangeLabel())+"."
		e.Links = []component.Option{{Label: "All commands", URL: m.ClearURL}, {Label: "The last 400 days", URL: v.With("range", "9600h", "from", "", "to", "", "before", "")}}
	}
	if q.Before != "" {
		e = component.Empty{Mark: component.State{Kind: component.Off, Word: "Nothing"}, Title: "This is the beginning of the ledger", Links: []component.Option{{Label: "Newest", URL: m.First}}}
	}
	m.Empty = &e
}

// choices are the filters.
func (m *listView) choices(v *page.View, q ledger.Query, brokers []string) {
	show := v.Form.Get("show")
	for _, t := range tabs {
		m.Tabs = append(m.Tabs, component.Option{Label: t.label, URL: v.With("show", t.value, "state", "", "told", "", "before", ""), Current: t.value == show})
	}
	m.Kinds = append(m.Kinds, component.Option{Label: "all kinds", Current: q.Kind == ""})
	for _, k := range controlbus.CommandKinds() {
		m.Kinds = append(m.Kinds, component.Option{Label: KindWord(k), URL: string(k), Current: q.Kind == k})
	}
	state := v.Form.Get("state")
	m.States = append(m.States, component.Option{Label: "all states", Current: state == ""})
	for _, s := range controlbus.CommandStates() {
		m.States = append(m.States, component.Option{Label: s.Title(), URL: string(s), Current: string(s) == state})
	}
	for _, b := range brokers {
		m.Brokers = append(m.Brokers, component.Visible(b))
	}
	n := 0
	for _, name := range []string{"kind", "state", "broker", "by", "system"} {
		if v.Form.Get(name) != "" {
			n++
		}
	}
	if n > 0 {
		m.Chosen = component.Count(n)
	}
}

// told is what a redirect says.
var told = map[string]component.State{
	"approved":  {Kind: component.Clear, Word: "You agreed. It goes out as soon as the agent is there."},
	"refused":   {Kind: component.Off, Word: "You refused it. Nothing was done."},
	"cancelled": {Kind: component.Off, Word: "It was asked to stop. The agent tells how far it came."},
	"abandoned": {Kind: component.Doubt, Word: "Nobody waits for the agent any more. The channel is free for other commands."},
	"control":   {Kind: component.Running, Word: "The change was sent; the agent obeys within seconds."},
	"ordered":   {Kind: component.Running, Word: "It is in the ledger and on its way."},
	"held":      {Kind: component.Person, Word: "It is in the ledger and waits for a second person."},
}

// Waiting counts what whoever asks may consent to, for the navigation.
func Waiting(ctx context.Context, l Ledger) int {
	id, _ := access.From(ctx)
	if !id.Somewhere(access.Approve) {
		return 0
	}
	all, err := l.Commands(ctx, ledger.Query{States: []controlbus.CommandState{controlbus.CommandAwaitingApproval}, Limit: 500})
	if err != nil {
		return 0 // the page itself says what is wrong
	}
	n := 0
	for i := range all {
		if r := rightsOn(id, &all[i], access.Approve); r.approve && !r.mine {
			n++
		}
	}
	return n
}

// reason is an error of the service as a form shows it, where it is the
// reader's to mend.
func reason(err error) (string, bool) {
	for _, is := range []error{controlbus.ErrInvalid, controlbus.ErrConflict, controlbus.ErrUnsupported, controlbus.ErrUnavailable, controlbus.ErrOverloaded, controlbus.ErrTooLarge, controlbus.ErrDenied, controlbus.ErrNotFound, context.DeadlineExceeded} {
		if errors.Is(err, is) {
			text := err.Error()
			for _, cut := range []string{"ledger: ", "command: ", "commands: ", "link: ", "invalid: ", "conflict: ", "not supported: ", "unavailable: ", "denied: "} {
				text = strings.ReplaceAll(text, cut, "")
			}
			for _, cut := range []string{": invalid", ": conflict", ": not supported", ": unavailable", ": overloaded", ": not found", ": denied"} {
				text = strings.TrimSuffix(text, cut)
			}
			if errors.Is(err, context.DeadlineExceeded) {
				text = "the agent did not answer in time; nothing was done"
			}
			return sentence(text), true
		}
	}
	return "", false
}
