// Package overview is the first page: the situation in a sentence, what needs a
// person, the key figures, and the channels in which most waits.
package overview

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Reader is the store as the overview needs it. Its methods block until ctx
// ends at most and may be called concurrently.
type Reader interface {
	Totals(ctx context.Context, env string, within storage.TimeRange) (storage.Totals, error)
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
}

// Pages is the overview.
type Pages struct {
	site   *page.Site
	store  Reader
	agents AgentLister
	health Health
}

// New returns the page; agents and health may be nil.
func New(site *page.Site, store Reader, agents AgentLister, health Health) *Pages {
	return &Pages{site: site, store: store, agents: agents, health: health}
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
	wg.Wait()
	if p.agents != nil {
		f.HasAgents = true
		for _, a := range p.agents.Agents(ctx) {
			if v.Env == "" || a.Env == v.Env {
				f.Agents = append(f.Agents, a)
			}
		}
	}
	if p.health != nil {
		f.Troubles = p.health.Troubles()
	}
	return v.Render(w, page.Options{Title: "Overview", Area: "overview", Refresh: 5 * time.Second}, Overview(build(v, f)))
}
