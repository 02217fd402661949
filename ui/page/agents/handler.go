// Package agents is the page of the fleet: who is heard from, what brokers and
// taps each agent holds, what it buffers and what it lost.
package agents

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/channels"
)

// Lister lists the fleet. It does not block.
type Lister interface {
	Agents(ctx context.Context) []controlbus.AgentView
}

// TableReader says how large the store is. It blocks for one query at most.
type TableReader interface {
	Tables(ctx context.Context) ([]storage.TableSize, error)
}

// Pages is the fleet's page.
type Pages struct {
	site   *page.Site
	agents Lister
	tables TableReader
}

// New returns the page; tables may be nil.
func New(site *page.Site, agents Lister, tables TableReader) *Pages {
	return &Pages{site: site, agents: agents, tables: tables}
}

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{{Pattern: "GET /agents", Handler: p.show, Action: access.ViewMetadata}}
}

type view struct {
	Title, Sub string
	Agents     []agentView
	Empty      *component.Empty
	Tables     []tableView
	TablesDown string
	TablesSub  string
}

type tableView struct {
	Name, Rows, Bytes, Parts string
	Oldest                   time.Time
}

type agentView struct {
	ID, Host, Env, Version string
	State                  component.State
	LastSeen, Started      time.Time
	Facts                  []fact
	SpoolShare             float64
	SpoolText              string
	Brokers                []brokerView
	Taps                   []tapView
	TapsSub                string
	Notices                []notice
	// Kind is the name of a program that is no signalbox-agent; it has parts with
	// a health, and neither brokers nor a disk buffer here.
	Kind  string
	Parts []partView
}

type partView struct {
	Path, Status, Error string
	State               component.State
}

type fact struct {
	Name, Value string
	At          time.Time
}

type notice struct {
	State       component.State
	Title, Text string
}

type brokerView struct {
	Name, System, Product, Capabilities, Error, Leftovers string
	State                                                 component.State
	Since                                                 time.Time
}

type tapView struct {
	channels.TapRow
	Channel, URL, Broker string
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	m := view{}
	silent := 0
	all := slices.Clone(p.agents.Agents(r.Context()))
	slices.SortFunc(all, func(a, b controlbus.AgentView) int { return cmp.Compare(a.ID, b.ID) })
	for i := range all {
		a := &all[i]
		if v.Env != "" && a.Env != v.Env {
			continue
		}
		if a.Presence == controlbus.Silent {
			silent++
		}
		m.Agents = append(m.Agents, build(v, a))
	}
	switch {
	case len(m.Agents) == 0 && len(all) > 0:
		m.Sub = component.Plural(len(all), "agent") + " in other environments."
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Off, Word: "Not configured"}, Title: "No agent reports from this environment", Links: []component.Option{{Label: "All environments", URL: "/agents?env="}}}
	case len(m.Agents) == 0:
		m.Sub = "No agent has reported yet."
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Off, Word: "Not configured"}, Title: "No agent has reported yet", Text: "Start one beside a broker. Its configuration names the broker and the address of this console.", Command: "signalbox-agent --config agent.yaml"}
	case silent == 0:
		m.Sub = component.Plural(len(m.Agents), "agent") + ", all heard from."
	default:
		m.Sub = component.Plural(len(m.Agents), "agent") + ", " + component.Count(silent) + " silent."
	}
	ctx, cancel := v.Context()
	defer cancel()
	p.store(ctx, &m)
	return v.Render(w, page.Options{Title: "Agents", Area: "agents", Refresh: 5 * time.Second}, Fleet(m))
}

func (p *Pages) store(ctx context.Context, m *view) {
	if p.tables == nil {
		return
	}
	tables, err := p.tables.Tables(ctx)
	if err != nil {
		m.TablesDown = component.Visible(err.Error())
		return
	}
	var total uint64
	slices.SortFunc(tables, func(a, b storage.TableSize) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name))
	})
	for _, t := range tables {
		total += t.Bytes
		m.Tables = append(m.Tables, tableView{Name: t.Name, Rows: component.Count(t.Rows), Bytes: component.Size(int64(t.Bytes)), Parts: component.Count(t.Parts), Oldest: t.Oldest})
	}
	m.TablesSub = component.Size(int64(total)) + " on disk"
}

// program is what there is to say of another program that speaks OpAMP.
func program(out *agentView, a *controlbus.AgentView, add func(name, value string, at time.Time)) {
	out.Kind = component.Visible(a.Kind)
	add("Program", out.Kind, time.Time{})
	add("Version", out.Version, time.Time{})
	add("Host", out.Host, time.Time{})
	add("Environment", out.Env, time.Time{})
	if a.Health == nil {
		add("Health", "not told", time.Time{})
		return
	}
	add("Health", cmp.Or(component.Visible(a.Health.Status), map[bool]string{true: "healthy", false: "not healthy"}[a.Health.Healthy]), time.Time{})
	if !a.Health.Healthy {
		out.Notices = append(out.Notices, notice{component.State{Kind: component.Caution}, "It says that it is not healthy", component.Visible(a.Health.Error)})
	}
	for _, c := range a.Health.Components {
		pv := partView{Path: component.Visible(c.Path), Status: component.Visible(c.Status), Error: component.Visible(c.Error), State: component.State{Kind: component.Clear, Word: "healthy"}}
		switch {
		case a.Presence == controlbus.Silent:
			pv.State = component.State{Kind: component.Doubt, Word: "not known"}
		case !c.Healthy:
			pv.State = component.State{Kind: component.Stop, Word: "not healthy"}
		}
		out.Parts = append(out.Parts, pv)
	}
}

func build(v *page.View, a *controlbus.AgentView) agentView {
	out := agentView{
		ID: component.Visible(a.ID), Host: component.Visible(a.Host), Env: component.Visible(a.Env), Version: component.Visible(a.Version),
		State: component.State{Kind: component.Clear, Word: "heard from"}, LastSeen: a.LastSeen, Started: a.StartedAt,
	}
	if a.Presence == controlbus.Silent {
		out.State = component.State{Kind: component.Stale, Word: "silent for " + component.Span(v.Now.Sub(a.LastSeen).Round(time.Second))}
	}
	add := func(name, value string, at time.Time) {
		if value != "" || !at.IsZero() {
			out.Facts = append(out.Facts, fact{name, value, at})
		}
	}
	add("Last report", "", a.LastSeen)
	add("Started", "", a.StartedAt)
	if a.Kind != "" {
		program(&out, a, add)
		return out
	}
	add("Version", out.Version, time.Time{})
	add("Host", out.Host, time.Time{})
	add("Environment", out.Env, time.Time{})
	offset := "none"
	if o := a.ClockOffset; o.Abs() >= time.Millisecond {
		offset = component.Span(o.Abs().Round(time.Millisecond)) + " behind, corrected"
		if o > 0 {
			offset = component.Span(o.Round(time.Millisecond)) + " ahead, corrected"
		}
	}
	add("Clock offset", offset, time.Time{})
	desired := "applied"
	if a.Desired.Revision > a.Revision {
		desired = "revision " + component.Count(a.Revision) + " of " + component.Count(a.Desired.Revision)
	}
	add("Wishes of the console", desired, time.Time{})
	add("Last sent", "", a.Spool.SentLast)
	if a.Spool.MaxBytes > 0 {
		out.SpoolShare = float64(a.Spool.Bytes) / float64(a.Spool.MaxBytes)
	}
	out.SpoolText = component.Size(a.Spool.Bytes) + " of " + component.Size(a.Spool.MaxBytes) + ", " + component.Plural(a.Spool.Records, "record")
	if a.Spool.Error != "" {
		out.Notices = append(out.Notices, notice{component.State{Kind: component.Caution}, "It cannot send what it copies", component.Visible(a.Spool.Error)})
	}
	if a.Spool.Dropped > 0 {
		out.Notices = append(out.Notices, notice{component.State{Kind: component.Caution}, component.Plural(a.Spool.Dropped, "record") + " left out because its disk buffer was full", "The messages went their way; only their copies are missing."})
	}
	for _, b := range a.Brokers {
		bv := brokerView{
			Name: component.Visible(b.Name), System: page.System(b.System), Product: component.Visible(b.Product), Since: b.Since,
			Capabilities: component.Visible(strings.Join(b.Capabilities, ", ")), Error: component.Visible(b.Error),
			State: component.State{Kind: component.Clear, Word: "connected"}, Leftovers: component.Visible(strings.Join(b.Leftovers, ", ")),
		}
		if !b.Connected {
			bv.State = component.State{Kind: component.Stop, Word: "not reached"}
		}
		if a.Presence == controlbus.Silent {
			bv.State = component.State{Kind: component.Doubt, Word: "not known"}
		}
		out.Brokers = append(out.Brokers, bv)
	}
	running := 0
	for i := range a.Taps {
		t := &a.Taps[i]
		tv := tapView{TapRow: channels.LossRow(t), Channel: component.Visible(t.Channel), Broker: component.Visible(t.Spec.Broker)}
		if tv.Channel == "" {
			tv.Channel = component.Visible(t.Spec.Channel)
		}
		tv.URL = v.Channel(controlbus.ChannelName{Env: a.Env, Broker: t.Spec.Broker, Name: t.Channel})
		if t.State == controlbus.TapRunning {
			running++
		}
		if a.Presence == controlbus.Silent {
			tv.State = component.State{Kind: component.Doubt, Word: "not known"}
		}
		out.Taps = append(out.Taps, tv)
	}
	out.TapsSub = component.Count(running) + " of " + component.Count(len(a.Taps)) + " running"
	return out
}
