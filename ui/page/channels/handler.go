// Package channels is the table of channels and the page of one channel with
// its charts, taps and losses.
package channels

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/commands"
	"github.com/signalbox-dev/signalbox/ui/page/detours"
)

// Reader is the store as channels need it. Its methods block until ctx ends at
// most, may be called concurrently, and return ErrInvalid and ErrUnavailable.
type Reader interface {
	Channels(ctx context.Context, q storage.ChannelQuery) ([]storage.ChannelState, error)
	ChannelSeries(ctx context.Context, q storage.SeriesQuery) (storage.ChannelSeries, error)
}

// MessageReader lists the latest messages of a channel.
type MessageReader interface {
	Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error)
}

// AgentLister says which taps exist. It does not block.
type AgentLister interface {
	Agents(ctx context.Context) []controlbus.AgentView
}

// TapControl starts and ends wire taps through an agent. RequestTap returns once
// the wish is recorded; the agent's report says how it went. Errors are
// ErrNotFound, ErrConflict, ErrInvalid, ErrUnsupported and ErrUnavailable.
type TapControl interface {
	RequestTap(ctx context.Context, agentID string, spec controlbus.TapSpec) error
	ReleaseTap(ctx context.Context, agentID, tapID string) error
}

// Commands is the control bus as a channel's page needs it.
type Commands interface {
	commands.Ledger
	commands.Surveyor
}

// Deps are what the pages read from. Agents and Taps may be nil: then nothing
// is said of taps, and none can be started.
type Deps struct {
	Channels Reader
	Messages MessageReader
	Agents   AgentLister
	Taps     TapControl
	Live     bool
	// Commands is what can be done to a channel, and was; nil: nothing can.
	Commands Commands
	// Owner names who asks for a tap, for the agent's record.
	Owner func(*http.Request) string
}

// Pages are the channel pages.
type Pages struct {
	site *page.Site
	deps Deps
}

// New returns the pages.
func New(site *page.Site, deps Deps) *Pages { return &Pages{site: site, deps: deps} }

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	routes := []page.Route{
		{Pattern: "GET /channels", Handler: p.list, Action: access.ViewMetadata},
		{Pattern: "GET /channel", Handler: p.one, Action: access.ViewMetadata},
	}
	if p.deps.Taps != nil && p.deps.Agents != nil {
		routes = append(routes,
			page.Route{Pattern: "POST /channel/tap", Handler: p.startTap, Action: access.RequestTap},
			page.Route{Pattern: "POST /channel/untap", Handler: p.endTap, Action: access.RequestTap})
	}
	return routes
}

func (p *Pages) agents(ctx context.Context) []controlbus.AgentView {
	if p.deps.Agents == nil {
		return nil
	}
	return p.deps.Agents.Agents(ctx)
}

func (p *Pages) list(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	pattern := v.Query
	if pattern != "" && !strings.Contains(pattern, "*") {
		pattern = "*" + pattern + "*"
	}
	states, err := p.deps.Channels.Channels(ctx, storage.ChannelQuery{Range: v.Range, Env: v.Env, Pattern: pattern})
	if err != nil && (errors.Is(err, controlbus.ErrInvalid) || errors.Is(err, controlbus.ErrTooLarge)) {
		return err
	}
	m := buildList(v, states, p.agents(ctx), err)
	return v.Render(w, page.Options{Title: "Channels", Area: "channels", Refresh: 5 * time.Second, Filter: &component.FilterView{
		Action: "/channels", Label: "Filter channels by name", Hint: "Filter by name: orders.* or any part", Value: v.Query, Kept: v.Kept("sort"),
	}}, List(m))
}

func name(r *http.Request, get func(string) string) (controlbus.ChannelName, error) {
	c := controlbus.ChannelName{Env: get("env"), System: get("system"), Broker: get("broker"), Name: get("name")}
	if c.Name == "" || c.Broker == "" {
		return c, fmt.Errorf("%w: a channel is named by broker and name", controlbus.ErrInvalid)
	}
	return c, nil
}

func (p *Pages) one(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ch, err := name(r, v.Form.Get)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	m := channelView{Name: component.Visible(ch.Name), Broker: component.Visible(ch.Broker), System: page.System(ch.System), Live: p.deps.Live && v.May(access.LiveTap)}
	m.fill(v, ch)

	states, err := p.deps.Channels.Channels(ctx, storage.ChannelQuery{Range: v.Range, Env: ch.Env, Broker: ch.Broker, Pattern: ch.Name})
	if err != nil {
		return fmt.Errorf("read channel %s: %w", ch, err)
	}
	var state *storage.ChannelState
	for i := range states {
		if s := &states[i]; s.Name == ch.Name && s.Broker == ch.Broker && (ch.System == "" || s.System == ch.System) {
			state = s
			break
		}
	}
	if state != nil {
		ch = state.ChannelName
		m.System = page.System(ch.System)
	}
	series, err := p.deps.Channels.ChannelSeries(ctx, storage.SeriesQuery{Channel: ch, Range: v.Range, Step: Step(v.Range)})
	if err != nil {
		return fmt.Errorf("read series of %s: %w", ch, err)
	}
	m.now(v, state, series)
	m.charts(series)
	m.taps(v, ch, p.agents(ctx), p.deps.Taps != nil && v.May(access.RequestTap))
	if p.deps.Messages != nil {
		found, err := p.deps.Messages.Messages(ctx, storage.MessageQuery{Range: v.Range, Env: ch.Env, Broker: ch.Broker, Channel: ch.Name, Limit: 10, Snippets: true})
		m.latest(v, found, err)
	}
	m.Told = v.Form.Get("told")
	if c := p.deps.Commands; c != nil {
		m.First, m.More = commands.ChannelActs(ctx, c, ch, DeadLetters(ch.Name))
		m.Detours = detours.On(ctx, v, c, ch)
		m.Recent = commands.Recent(ctx, v, c, ch)
	}
	return v.Render(w, page.Options{Title: m.Name, Area: "channels", Refresh: 5 * time.Second}, Channel(m))
}

// Step gives a chart about a hundred points on round boundaries.
func Step(r storage.TimeRange) time.Duration {
	for _, s := range []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 12 * time.Hour} {
		if r.Duration() <= 120*s {
			return s
		}
	}
	return 24 * time.Hour
}

// Leases offered for a tap. A tap always ends by itself: one that was forgotten
// must not copy for ever.
var leases = []struct {
	value, label string
	d            time.Duration
}{
	{"15m", "15 minutes", 15 * time.Minute}, {"1h", "1 hour", time.Hour},
	{"8h", "8 hours", 8 * time.Hour}, {"24h", "24 hours", 24 * time.Hour},
}

// TapRequest asks for a tap on one channel for a while.
type TapRequest struct {
	Channel controlbus.ChannelName
	Reason  string
	Lease   time.Duration
	Owner   string
}

// Ask asks the agent that can tap the channel for it, and returns that agent's
// id. Errors are ErrInvalid, ErrUnavailable where no agent can, and the
// TapControl's own.
func Ask(ctx context.Context, agents []controlbus.AgentView, taps TapControl, now time.Time, q TapRequest) (agentID string, err error) {
	ch, why := q.Channel, strings.TrimSpace(q.Reason)
	if why == "" || len(why) > 500 {
		return "", fmt.Errorf("%w: reason: say in a few words why %s is tapped, up to 500 characters", controlbus.ErrInvalid, component.Visible(ch.Name))
	}
	agent := agentFor(agents, ch)
	if agent == nil {
		return "", fmt.Errorf("tap %s: no agent that can tap is connected to broker %s: %w", component.Visible(ch.Name), component.Visible(ch.Broker), controlbus.ErrUnavailable)
	}
	spec := controlbus.TapSpec{
		ID: "console-" + controlbus.HashID("tap", ch.Env, ch.Broker, ch.Name).String()[:12], Broker: ch.Broker, Channel: ch.Name,
		Origin: "console", Owner: q.Owner, Reason: why, Until: now.Add(q.Lease).UTC(),
	}
	if err := taps.RequestTap(ctx, agent.ID, spec); err != nil {
		return "", fmt.Errorf("tap %s: %w", component.Visible(ch.Name), err)
	}
	return agent.ID, nil
}

func (p *Pages) startTap(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: form: %w", controlbus.ErrInvalid, err)
	}
	ch, err := name(r, r.PostForm.Get)
	if err != nil {
		return err
	}
	why := strings.TrimSpace(r.PostForm.Get("reason"))
	var lease time.Duration
	for _, l := range leases {
		if l.value == r.PostForm.Get("lease") {
			lease = l.d
		}
	}
	if lease == 0 {
		return fmt.Errorf("%w: lease: want one of those offered", controlbus.ErrInvalid)
	}
	ask := TapRequest{Channel: ch, Reason: why, Lease: lease}
	if p.deps.Owner != nil {
		ask.Owner = p.deps.Owner(r)
	}
	if _, err := Ask(r.Context(), p.agents(r.Context()), p.deps.Taps, p.site.Now(), ask); err != nil {
		return err
	}
	return back(w, r, p.site, ch, "asked")
}

func (p *Pages) endTap(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: form: %w", controlbus.ErrInvalid, err)
	}
	ch, err := name(r, r.PostForm.Get)
	if err != nil {
		return err
	}
	if err := p.deps.Taps.ReleaseTap(r.Context(), r.PostForm.Get("agent"), r.PostForm.Get("tap")); err != nil {
		return fmt.Errorf("end tap on %s: %w", component.Visible(ch.Name), err)
	}
	return back(w, r, p.site, ch, "ended")
}

// back redirects to the channel, so that a reload does not send the form again.
func back(w http.ResponseWriter, r *http.Request, site *page.Site, ch controlbus.ChannelName, told string) error {
	v, err := site.Begin(r)
	if err != nil {
		return err
	}
	http.Redirect(w, r, v.URL("/channel", "broker", ch.Broker, "system", ch.System, "name", ch.Name, "env", ch.Env, "told", told), http.StatusSeeOther)
	return nil
}

// agentFor finds an agent that is heard from, connected to the broker, and able
// to tap it.
func agentFor(agents []controlbus.AgentView, ch controlbus.ChannelName) *controlbus.AgentView {
	for i := range agents {
		a := &agents[i]
		if a.Presence != controlbus.Online || ch.Env != "" && a.Env != ch.Env {
			continue
		}
		for _, b := range a.Brokers {
			if b.Name != ch.Broker || !b.Connected {
				continue
			}
			for _, c := range b.Capabilities {
				if c == "tap" {
					return a
				}
			}
		}
	}
	return nil
}
