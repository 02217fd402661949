// Package overview is the first page: the situation in a sentence, what needs a
// person, the key figures, and the channels in which most waits.
package overview

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/commands"
)

// Reader is the store as the overview needs it. Its methods block until ctx
// ends at most and may be called concurrently.
type Reader interface {
	Totals(ctx context.Context, env string, within storage.TimeRange) (storage.Totals, error)
	Passed(ctx context.Context, env string, within storage.TimeRange) (storage.Passed, error)
	Channels(ctx context.Context, q storage.ChannelQuery) ([]storage.ChannelState, error)
}

// AgentLister lists the fleet. It does not block.
type AgentLister interface {
	Agents(ctx context.Context) []controlbus.AgentView
}

// Trouble is something wrong within the console itself: ingest held up, the
// store down, records shed.
type Trouble struct {
	Title  string // "Nothing is stored since 14:02"
	Detail string // cause and what still works
	Since  time.Time
	Stop   bool // stopped, not only degraded
}

// Health tells what is wrong within the console. It does not block.
type Health interface {
	Troubles() []Trouble
	// Lag is how long the oldest telemetry that was received and is not stored
	// yet has waited; 0 when there is none.
	Lag() time.Duration
}

// Pages is the overview.
type Pages struct {
	site   *page.Site
	store  Reader
	agents AgentLister
	health Health
	ledger commands.Ledger
}

// New returns the page; agents, health and ledger may be nil.
func New(site *page.Site, store Reader, agents AgentLister, health Health, ledger commands.Ledger) *Pages {
	return &Pages{site: site, store: store, agents: agents, health: health, ledger: ledger}
}

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{{Pattern: "GET /{$}", Handler: p.show, Action: access.ViewMetadata}}
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	f := facts{Now: v.Now}
	var wg sync.WaitGroup
	wg.Go(func() { f.Totals, f.TotalsErr = p.store.Totals(ctx, v.Env, v.Range) })
	wg.Go(func() {
		f.Channels, f.ChannelsErr = p.store.Channels(ctx, storage.ChannelQuery{Range: v.Range, Env: v.Env})
	})
	// What changed is always the last hour of the range, against the same hour a
	// day before, or the hour before where there was no yesterday. Errors show in
	// the figures above: the store is the same.
	hour := storage.Last(time.Hour, v.Range.To)
	traffic := func(r storage.TimeRange) []storage.ChannelState {
		list, _ := p.store.Channels(ctx, storage.ChannelQuery{Range: r, Env: v.Env, TrafficOnly: true})
		return list
	}
	f.Change = comparison{Against: "the same hour a day before", Since: hour.From}
	wg.Go(func() {
		if f.Change.Before = traffic(shift(hour, -24*time.Hour)); !anyTapped(f.Change.Before) {
			f.Change.Before, f.Change.Against = traffic(shift(hour, -time.Hour)), "the hour before"
		}
	})
	if v.Range != hour {
		wg.Go(func() { f.Change.Now = traffic(hour) })
	}
	if v.Range.Duration() <= 24*time.Hour {
		wg.Go(func() { f.Yesterday, _ = p.store.Passed(ctx, v.Env, shift(v.Range, -24*time.Hour)) })
	}
	wg.Wait()
	if v.Range == hour {
		f.Change.Now = f.Channels
	}
	if !anyTapped(f.Change.Before) {
		f.Change.Against = ""
	}
	if p.agents != nil {
		f.HasAgents = true
		for _, a := range p.agents.Agents(ctx) {
			if v.Env == "" || a.Env == v.Env {
				f.Agents = append(f.Agents, a)
			}
		}
	}
	if p.health != nil {
		f.Troubles, f.Lag, f.HasLag = p.health.Troubles(), p.health.Lag(), true
	}
	m := build(v, f)
	if p.ledger != nil {
		m.Strip = commands.Strip(ctx, v, p.ledger)
	}
	return v.Render(w, page.Options{Title: "Overview", Area: "overview", Refresh: 5 * time.Second}, Overview(m))
}

func shift(r storage.TimeRange, by time.Duration) storage.TimeRange {
	return storage.TimeRange{From: r.From.Add(by), To: r.To.Add(by)}
}

func anyTapped(list []storage.ChannelState) bool {
	return slices.ContainsFunc(list, func(c storage.ChannelState) bool { return c.Tapped > 0 })
}
