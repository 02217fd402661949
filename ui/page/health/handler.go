// Package health is the page of Signalbox itself: whether it keeps up, what it
// shed, how large the store is and how long reading takes, each with what it
// means and what to do.
package health

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/overview"
)

// Snapshot is what the console knows of itself. Counters are since Started.
type Snapshot struct {
	Started time.Time

	Lag                  time.Duration // of the oldest request that is not stored yet
	Pending              int64         // bytes received and not stored yet
	Queue, QueueMax      int64         // bytes of the queue on disk
	QueueDir             string
	LastWrite            time.Time
	WriteError           string
	ErrorSince           time.Time
	Rows, Blocks         uint64
	Retries, Quarantined uint64
	QuarantineDir        string

	Accepted, Duplicates, Invalid uint64
	Senders                       int
	Shed                          []Shed

	Engine *Engine // nil with a server of one's own
	Server string  // version of the store

	State       string // name and version of what keeps users, commands and the audit trail
	StateShared bool   // other consoles may use it
	StateError  string // empty while it answers

	Taps, MaxTaps int
	Queries       []storage.QueryTime
	Disk          *storage.Disk // nil where the store does not tell
}

// Shed is what was refused or dropped for one reason.
type Shed struct {
	What, Reason string // "requests refused", "queue_full"
	N            uint64
}

// Engine is the embedded store's process.
type Engine struct {
	State     string
	Running   bool
	Since     time.Time
	Restarts  int
	LastError string
}

// Source tells how the console is. Snapshot blocks for one query at most; the
// methods may be called concurrently.
type Source interface {
	overview.Health
	Snapshot(ctx context.Context) Snapshot
}

// TableReader says how large the store is.
type TableReader interface {
	Tables(ctx context.Context) ([]storage.TableSize, error)
}

// Lister lists the fleet. It does not block.
type Lister interface {
	Agents(ctx context.Context) []controlbus.AgentView
}

// Pages is the page.
type Pages struct {
	site   *page.Site
	source Source
	tables TableReader
	agents Lister
}

// New returns the page; agents may be nil.
func New(site *page.Site, source Source, tables TableReader, agents Lister) *Pages {
	return &Pages{site: site, source: source, tables: tables, agents: agents}
}

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{{Pattern: "GET /health", Handler: p.show, Action: access.ViewMetadata}}
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	var f facts
	f.Now = v.Now
	var wg sync.WaitGroup
	wg.Go(func() { f.Snapshot = p.source.Snapshot(ctx) })
	wg.Go(func() { f.Tables, f.TablesErr = p.tables.Tables(ctx) })
	wg.Wait()
	f.Troubles = p.source.Troubles()
	if p.agents != nil {
		f.Agents, f.HasAgents = p.agents.Agents(r.Context()), true
	}
	return v.Render(w, page.Options{Title: "Health of Signalbox", Area: "health", Refresh: 5 * time.Second}, Health(build(v, f)))
}
