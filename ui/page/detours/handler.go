// Package detours is the page of everything that stands in a channel's way on
// purpose: detours and pauses, with whose they are, why, until when, and what
// waits behind them. It only shows; ending one is a command like any other, and
// goes through package commands.
package detours

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/commands"
)

// Reader knows what stands and what brokers can do. It does not block.
type Reader interface {
	Detours(ctx context.Context) []command.DetourView
	Abilities(ctx context.Context, env, broker string) []controlbus.Ability
}

// Pages is the page.
type Pages struct {
	site *page.Site
	svc  Reader
	form page.Handler
}

// New returns the page; form shows the dialog of a new detour.
func New(site *page.Site, svc Reader, form page.Handler) *Pages {
	return &Pages{site: site, svc: svc, form: form}
}

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{
		{Pattern: "GET /detours", Handler: p.list, Action: access.ViewMetadata},
		{Pattern: "GET /detours/new", Handler: p.form, Action: access.Operate},
	}
}

// View is one detour or pause, here and on its channel's page.
type View struct {
	ID, Title             string
	Pause                 bool
	State                 component.State
	Channel, ChannelURL   string
	Broker, Env, EnvLevel string
	Owner, Reason         string
	Technique, Agent      string
	Since, Until          time.Time
	Left                  string
	Late                  bool // past its end
	CommandURL            string
	Counters              []component.Pair
	Backlog, Parked       string
	Words                 []component.Pair
	Notes                 []string
	Error                 string
	Stale                 string // the agent is not heard
	End                   commands.Act
	EndFields             []component.Pair
}

// silentAfter is when an agent's word is old.
const silentAfter = 45 * time.Second

// stateOf is where a detour stands.
func stateOf(d *command.DetourView) component.State {
	switch d.State {
	case controlbus.DetourOn:
		if d.Detour.Pause {
			return component.State{Kind: component.Held, Word: "paused"}
		}
		return component.State{Kind: component.Running, Word: "on"}
	case controlbus.DetourDraining:
		return component.State{Kind: component.Running, Word: "ending, works off what waits"}
	case controlbus.DetourBroken:
		return component.State{Kind: component.Stop, Word: "broken, messages pile up"}
	case controlbus.DetourInstalled:
		return component.State{Kind: component.Off, Word: "off, still in place"}
	}
	return component.State{Kind: component.Doubt, Word: component.Visible(string(d.State))}
}

// MakeView builds one; v writes links, and ctx says who asks.
func MakeView(ctx context.Context, v *page.View, svc Reader, d *command.DetourView) View {
	ch := controlbus.ChannelName{Env: d.Env, Broker: d.Broker, Name: d.Channel}
	m := View{
		ID: component.Visible(d.Detour.ID), Pause: d.Detour.Pause, State: stateOf(d), Channel: component.Visible(d.Channel), ChannelURL: v.Channel(ch), Broker: component.Visible(d.Broker),
		Env: component.Visible(d.Env), EnvLevel: page.Level(d.Env), Owner: component.Visible(cmp.Or(d.Detour.Owner.Name, d.Detour.Owner.ID, "nobody known")), Reason: component.Visible(d.Detour.Reason),
		Technique: component.Visible(d.Technique), Agent: component.Visible(d.Agent), Since: d.Since, Until: d.Until, Error: component.Visible(d.Error),
	}
	m.Title = "Detour of " + m.Channel
	if m.Pause {
		m.Title = "Pause of " + m.Channel
	} else {
		m.Words = commands.DetourWords(&d.Detour)
	}
	if !d.Until.IsZero() {
		if left := d.Until.Sub(v.Now); left > 0 {
			m.Left = "ends in " + component.Span(left.Round(time.Second))
		} else {
			m.Late, m.Left = d.State == controlbus.DetourOn || d.State == controlbus.DetourBroken, "its time is over"
		}
	}
	if d.Command.Valid() {
		m.CommandURL = commands.URL(d.Command)
	}
	amount := func(n int64) string {
		if n < 0 {
			return component.Unknown
		}
		return component.Count(n)
	}
	m.Backlog, m.Parked = amount(d.Backlog), amount(d.Parked)
	add := func(name, value string) {
		m.Counters = append(m.Counters, component.Pair{Name: name, Value: value})
	}
	add("waiting", m.Backlog)
	if !m.Pause {
		add("came in", component.Count(d.In))
		add("went on", component.Count(d.Passed))
		add("refused", component.Count(d.Refused))
		add("parked", m.Parked)
		if d.Copied > 0 {
			add("copied", component.Count(d.Copied))
		}
		add("tries failed", component.Count(d.Failed))
		add("per second", component.Rate(d.Rate))
	}
	for _, n := range d.Notes {
		m.Notes = append(m.Notes, component.Visible(n))
	}
	if age := v.Now.Sub(d.Heard); !d.Heard.IsZero() && age > silentAfter {
		m.Stale = "Agent " + m.Agent + " has not been heard for " + component.Span(age.Round(time.Second)) + "; the figures are that old."
	}
	kind := controlbus.CommandUndetour
	m.End = commands.Act{Label: "End the detour…", Icon: "cross"}
	if m.Pause {
		kind, m.End.Label, m.End.Icon = controlbus.CommandResume, "Go on…", "play"
	}
	m.End.Why, m.End.Note = commands.Able(ctx, svc.Abilities(ctx, d.Env, d.Broker), kind, ch)
	if d.State == controlbus.DetourDraining {
		m.End.Why = "It is ending: it is gone once what waits is worked off."
	}
	m.EndFields = []component.Pair{{Name: "kind", Value: string(kind)}, {Name: "env", Value: d.Env}, {Name: "broker", Value: d.Broker}, {Name: "channel", Value: d.Channel}}
	if m.Pause {
		m.EndFields = append(m.EndFields, component.Pair{Name: "consumer"})
	} else {
		m.EndFields = append(m.EndFields, component.Pair{Name: "id", Value: d.Detour.ID})
	}
	return m
}

type listView struct {
	Sub   string
	New   commands.Act
	All   []View
	Empty *component.Empty
}

func (p *Pages) list(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	if !v.Form.Has("env") {
		v.Env = "" // what stands in the way is shown wherever it stands
	}
	id, _ := access.From(r.Context())
	m := listView{New: commands.Act{Label: "New detour", Icon: "plus", URL: v.URL("/detours/new")}}
	if !id.Somewhere(access.Operate) {
		m.New.Why = id.Why(access.Operate)
	}
	pauses, broken := 0, 0
	needle := strings.ToLower(strings.Trim(v.Query, "*"))
	all := p.svc.Detours(r.Context())
	slices.SortFunc(all, func(a, b command.DetourView) int {
		return cmp.Or(worse(&a)-worse(&b), a.Until.Compare(b.Until), cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.Detour.ID, b.Detour.ID))
	})
	for i := range all {
		d := &all[i]
		if v.Env != "" && d.Env != v.Env || needle != "" && !strings.Contains(strings.ToLower(d.Channel), needle) {
			continue
		}
		one := MakeView(r.Context(), v, p.svc, d)
		m.All = append(m.All, one)
		if one.Pause {
			pauses++
		}
		if d.State == controlbus.DetourBroken {
			broken++
		}
	}
	m.Sub = component.Plural(len(m.All)-pauses, "detour") + " and " + component.Plural(pauses, "pause") + ". Each has an owner and an end."
	if broken > 0 {
		m.Sub += " " + component.Count(broken) + " broken."
	}
	if len(m.All) == 0 {
		m.Sub = "Every channel goes its direct way."
		e := component.Empty{Mark: component.State{Kind: component.Clear, Word: "Direct"}, Title: "No channel takes a detour, and none is paused",
			Text: "A detour leads a channel's messages through steps for a while: hold them, check them against a schema, change headers, slow down, copy. It always ends by itself."}
		if m.New.Why == "" {
			e.Links = append(e.Links, component.Option{Label: "New detour", URL: m.New.URL})
		}
		e.Links = append(e.Links, component.Option{Label: "Channels", URL: v.URL("/channels")})
		if needle != "" || v.Env != "" {
			e.Title = "No detour and no pause fits here"
			e.Links = append(e.Links, component.Option{Label: "All environments", URL: "/detours"})
		}
		m.Empty = &e
	}
	return v.Render(w, page.Options{Title: "Detours", Area: "detours", Refresh: 3 * time.Second, Filter: &component.FilterView{
		Action: "/detours", Label: "Filter detours by channel", Hint: "Channel: any part of its name", Value: v.Query, Kept: v.Kept(),
	}}, List(m))
}

// worse sorts what a person should see first to the top.
func worse(d *command.DetourView) int {
	switch d.State {
	case controlbus.DetourBroken:
		return 0
	case controlbus.DetourOn:
		return 1
	case controlbus.DetourDraining:
		return 2
	}
	return 3
}

// Broken counts the detours that somebody should look at, for the navigation.
func Broken(ctx context.Context, svc Reader) int {
	n := 0
	for _, d := range svc.Detours(ctx) {
		if d.State == controlbus.DetourBroken {
			n++
		}
	}
	return n
}

// ownerWords say whose it is, and why.
func ownerWords(d View) string {
	if d.Reason == "" {
		return d.Owner
	}
	return d.Owner + ": “" + d.Reason + "”"
}

// On are panels of what stands on one channel; nil where nothing does.
func On(ctx context.Context, v *page.View, svc Reader, ch controlbus.ChannelName) []templ.Component {
	var out []templ.Component
	for _, d := range svc.Detours(ctx) {
		if d.Env == ch.Env && d.Broker == ch.Broker && d.Channel == ch.Name && d.State != controlbus.DetourInstalled {
			out = append(out, Panel(MakeView(ctx, v, svc, &d)))
		}
	}
	return out
}
