package detour

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// Config of a manager.
type Config struct {
	Dir   string // where detours.json lies; it exists
	Agent string // its id
	Env   string // commands for another one are refused; empty: for any
	// Broker finds the adapter of a configured broker.
	Broker func(name string) (agents.Adapter, bool)
	// Allow is commands.allow: every channel that a detour names must be under it.
	// Without a rule none may be named.
	Allow []link.AllowRule
	// HTTPAllow is commands.http_allow.
	HTTPAllow []string
	// Lost is told that a broker's adapter answered ErrNotConnected. It must not
	// block.
	Lost func(broker string)
	// Changed is called, from any goroutine, when a detour has come to another
	// state, so that it is reported soon. It must not block.
	Changed func()
	Log     *slog.Logger
}

// FromEnv is the configuration that an agent's parts make.
func FromEnv(env agents.CommandEnv) Config {
	return Config{
		Dir: env.Dir, Agent: env.Self.ID, Env: env.Self.Env, Broker: env.Broker, Allow: env.Allow, HTTPAllow: env.HTTPAllow,
		Lost: env.Lost, Changed: env.Changed, Log: env.Log.With("component", "detour"),
	}
}

var _ agents.Commands = (*Manager)(nil)

const (
	maxDetours     = 64               // of one agent
	saveEvery      = time.Second      // of counters that changed
	saveClock      = time.Minute      // of what is left of a detour's time
	sweepEvery     = time.Minute      // of park channels that were left
	stuckAfter     = 30 * time.Second // without progress a detour is broken
	pollEvery      = 5 * time.Second  // of the gate's state
	brokerPatience = 30 * time.Second // for one call
)

// Manager holds an agent's detours. It is safe for concurrent use.
type Manager struct {
	cfg   Config
	allow *allowList
	file  string
	wg    sync.WaitGroup

	saving sync.Mutex // held while the file is written, and taken before mu

	mu        sync.Mutex
	ctx       context.Context // of Run; nil while it does not run
	workers   map[string]*worker
	leftovers []leftover
	saved     time.Time
	dirty     bool
}

// New takes up the detours that the file has; Run works on them.
func New(cfg Config) (*Manager, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Lost == nil {
		cfg.Lost = func(string) {}
	}
	if cfg.Changed == nil {
		cfg.Changed = func() {}
	}
	allow, err := parseAllow(cfg.HTTPAllow)
	if err != nil {
		return nil, fmt.Errorf("detour: %w", err)
	}
	m := &Manager{cfg: cfg, allow: allow, file: filepath.Join(cfg.Dir, "detours.json"), workers: map[string]*worker{}}
	c, err := load(m.file)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, r := range c.Detours {
		m.workers[r.Detour.ID] = newWorker(m, r, r.Left-max(0, now.Round(0).Sub(r.Saved)))
	}
	m.leftovers = c.Leftovers
	return m, nil
}

// Run works on the detours until ctx ends and every worker has settled what it
// had in hand. Gates that are on stay on: messages wait in their backlogs.
func (m *Manager) Run(ctx context.Context) error {
	m.mu.Lock()
	m.ctx = ctx
	for _, w := range m.workers {
		m.startLocked(w)
	}
	m.mu.Unlock()
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	swept := time.Now()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			m.saveCounters(ctx, false)
			if time.Since(swept) >= sweepEvery {
				swept = time.Now()
				m.sweep(ctx)
			}
		}
	}
	m.mu.Lock()
	m.ctx = nil
	m.mu.Unlock()
	m.wg.Wait()
	m.saveCounters(context.WithoutCancel(ctx), true)
	return nil
}

// startLocked starts a worker that is not, while Run runs.
func (m *Manager) startLocked(w *worker) {
	if ctx := m.ctx; ctx != nil && !w.started {
		w.started = true
		m.wg.Go(func() { w.run(ctx) })
	}
}

// Handlers carry out the kinds of commands that are detours.
func (m *Manager) Handlers() map[controlbus.CommandKind]link.Handler {
	return map[controlbus.CommandKind]link.Handler{
		controlbus.CommandDetour: m.detour, controlbus.CommandUndetour: m.undetour,
		controlbus.CommandPause: m.pause, controlbus.CommandResume: m.resume,
	}
}

// Statuses are the detours as they stand, by id.
func (m *Manager) Statuses() []controlbus.DetourStatus {
	var out []controlbus.DetourStatus
	for _, w := range m.all() {
		out = append(out, w.status())
	}
	return out
}

func (m *Manager) all() []*worker {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.workers), func(a, b *worker) int { return strings.Compare(a.id, b.id) })
}

// find returns the detour of that id, or else of that channel.
func (m *Manager) find(id, broker, channel string) (w *worker, same bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.workers[id]; w != nil {
		return w, true
	}
	for _, w := range m.workers {
		if w.broker == broker && w.channel == channel {
			return w, false
		}
	}
	return nil, false
}

// add keeps a new detour, durably, and starts on it.
func (m *Manager) add(r record) (*worker, error) {
	w := newWorker(m, r, r.Detour.For)
	m.mu.Lock()
	for _, other := range m.workers {
		if other.id == w.id || other.broker == w.broker && other.channel == w.channel {
			m.mu.Unlock()
			return nil, fmt.Errorf("%w: the channel has detour %s meanwhile", controlbus.ErrConflict, other.id)
		}
	}
	if len(m.workers) >= maxDetours {
		m.mu.Unlock()
		return nil, fmt.Errorf("%w: the agent has %d detours, the most it takes", controlbus.ErrOverloaded, maxDetours)
	}
	m.workers[w.id] = w
	m.mu.Unlock()
	if err := m.save(); err != nil {
		m.mu.Lock()
		delete(m.workers, w.id)
		m.mu.Unlock()
		return nil, err
	}
	m.mu.Lock()
	m.startLocked(w)
	m.mu.Unlock()
	m.cfg.Changed()
	return w, nil
}

// forget removes a detour that has been undone; left is its park channel where
// messages are in that still.
func (m *Manager) forget(w *worker, left *leftover) error {
	m.mu.Lock()
	delete(m.workers, w.id)
	if left != nil && !slices.Contains(m.leftovers, *left) {
		m.leftovers = append(m.leftovers, *left)
	}
	m.mu.Unlock()
	if err := m.save(); err != nil {
		m.mu.Lock()
		m.workers[w.id] = w
		m.mu.Unlock()
		return err
	}
	return nil
}

// save writes everything. What it has written when it returns survives a crash.
func (m *Manager) save() error {
	m.saving.Lock()
	defer m.saving.Unlock()
	c := contents{Version: stateVersion, Detours: []record{}}
	now := time.Now()
	for _, w := range m.all() {
		c.Detours = append(c.Detours, w.snapshot(now))
	}
	m.mu.Lock()
	c.Leftovers = slices.Clone(m.leftovers)
	m.dirty = false
	m.mu.Unlock()
	if err := store(m.file, c); err != nil {
		return err
	}
	m.mu.Lock()
	m.saved = now
	m.mu.Unlock()
	return nil
}

func (m *Manager) saveCounters(ctx context.Context, last bool) {
	m.mu.Lock()
	due := m.dirty || len(m.workers) > 0 && (last || time.Since(m.saved) >= saveClock)
	m.mu.Unlock()
	if !due {
		return
	}
	if err := m.save(); err != nil {
		m.cfg.Log.WarnContext(ctx, "the counters of detours cannot be kept; trying again", "error", err)
		m.counted()
	}
}

// counted says that there are counters to save.
func (m *Manager) counted() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dirty = true
}

// sweep removes park channels of detours that are gone, once they are empty.
func (m *Manager) sweep(ctx context.Context) {
	m.mu.Lock()
	list := slices.Clone(m.leftovers)
	m.mu.Unlock()
	for _, l := range list {
		a, _ := m.cfg.Broker(l.Broker)
		p, ok := a.(agents.Parker)
		if !ok {
			continue
		}
		call, cancel := context.WithTimeout(ctx, brokerPatience)
		err := p.Unpark(call, l.ID)
		cancel()
		if err != nil && !errors.Is(err, controlbus.ErrNotFound) {
			continue // not empty, or the broker is away
		}
		m.mu.Lock()
		m.leftovers = slices.DeleteFunc(m.leftovers, func(x leftover) bool { return x == l })
		m.dirty = true
		m.mu.Unlock()
	}
}
