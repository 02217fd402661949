package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Store keeps what must survive a restart of the console.
type Store interface {
	// LoadAgents returns every agent ever seen and not forgotten.
	LoadAgents(ctx context.Context) ([]controlbus.AgentView, error)
	// SaveAgent keeps the agent's last report.
	SaveAgent(ctx context.Context, a controlbus.AgentView) error
	// SaveDesired keeps what is wanted of an agent. It is durable when it returns.
	SaveDesired(ctx context.Context, agentID string, d controlbus.Desired) error
	// ForgetAgent removes an agent and what is wanted of it.
	ForgetAgent(ctx context.Context, agentID string) error
}

// Lease of a tap that the console asks for.
const (
	DefaultLease = 15 * time.Minute
	MaxLease     = 24 * time.Hour
)

// saveEvery bounds how often an unchanged agent's "last seen" is written.
const saveEvery = time.Minute

// Roster knows the agents: what they last reported, whether they are heard
// from, and what the console wants of them. It is safe for concurrent use.
type Roster struct {
	store  Store
	log    *slog.Logger
	wake   func(agent string)
	shared bool // other consoles use the same store

	mu     sync.Mutex
	agents map[string]*entry
}

type entry struct {
	view    controlbus.AgentView
	savedAt time.Time
	offsets controlbus.ClockWindow
	// remote: another console hears from the agent, as the store tells.
	remote bool
	// rival is the other live process that reports under the same id.
	rival   string
	rivalAt time.Time
}

// NewRoster reads the agents known so far.
func NewRoster(ctx context.Context, store Store, log *slog.Logger) (*Roster, error) {
	known, err := store.LoadAgents(ctx)
	if err != nil {
		return nil, fmt.Errorf("link: load agents: %w", err)
	}
	r := &Roster{store: store, log: log, agents: make(map[string]*entry, len(known))}
	for _, v := range known {
		r.agents[v.ID] = &entry{view: v, savedAt: v.LastSeen}
	}
	return r, nil
}

// Wake names who is called when what is wanted of an agent has changed. It must
// not block. It is set once, before the roster is used.
func (r *Roster) Wake(f func(agent string)) { r.wake = f }

// Desired is what is wanted of an agent now.
func (r *Roster) Desired(agentID string) (controlbus.Desired, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.agents[agentID]
	if e == nil {
		return controlbus.Desired{}, false
	}
	return alive(e.view.Desired, time.Now()), true
}

// Heard notes that an agent's connection lives.
func (r *Roster) Heard(agentID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.agents[agentID]; e != nil {
		e.view.LastSeen, e.remote = time.Now(), false
	}
}

// Report takes an agent's report and returns what is wanted of it. Errors are
// controlbus.ErrInvalid for a report that names no agent.
func (r *Roster) Report(ctx context.Context, a controlbus.Agent) (controlbus.Desired, error) {
	if a.ID == "" || len(a.ID) > 200 || a.Incarnation == "" {
		return controlbus.Desired{}, fmt.Errorf("link: report: %w: want an id of 1 to 200 bytes and an incarnation", controlbus.ErrInvalid)
	}
	now := time.Now()
	r.mu.Lock()
	e := r.agents[a.ID]
	fresh := e == nil
	if fresh {
		e = &entry{}
		r.agents[a.ID] = e
	}
	e.noticeRival(a, now)
	if !a.SentAt.IsZero() {
		e.view.ClockOffset = e.offsets.Add(now, a.SentAt.Sub(now))
	}
	e.view.Agent, e.view.LastSeen = a, now
	every := saveEvery
	if r.shared {
		every = shareEvery
	}
	save := fresh || e.remote || now.Sub(e.savedAt) >= every
	e.remote = false
	if save {
		e.savedAt = now
	}
	view := e.view
	desired := alive(e.view.Desired, now)
	r.mu.Unlock()

	if save {
		if err := r.store.SaveAgent(ctx, view); err != nil {
			return controlbus.Desired{}, fmt.Errorf("link: save agent %q: %w", a.ID, err)
		}
	}
	if fresh {
		r.log.InfoContext(ctx, "agent reports for the first time", "agent", a.ID, "version", a.Version, "host", a.Host)
	}
	return desired, nil
}

// noticeRival sees two processes under one id: each report then brings another
// incarnation that was alive a moment ago.
func (e *entry) noticeRival(a controlbus.Agent, now time.Time) {
	old := e.view.Agent
	if old.Incarnation == "" || old.Incarnation == a.Incarnation || a.StartedAt.After(old.StartedAt) {
		// The same process, or a later one that replaced it.
		return
	}
	e.rival, e.rivalAt = old.Incarnation, now
}

// Agents lists every agent by id.
func (r *Roster) Agents() []controlbus.AgentView {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	views := make([]controlbus.AgentView, 0, len(r.agents))
	for _, e := range r.agents {
		v := e.view
		v.Presence = controlbus.Online
		if !e.heard(now) {
			v.Presence = controlbus.Silent
		}
		if e.rival != "" && now.Sub(e.rivalAt) < MissedReports*ReportInterval {
			v.Rival = e.rival
		}
		v.Desired = alive(v.Desired, now)
		views = append(views, v)
	}
	slices.SortFunc(views, func(a, b controlbus.AgentView) int { return cmp.Compare(a.ID, b.ID) })
	return views
}

// clockNoise is the offset below which a clock counts as right. Offsets are
// estimated from one-way delays, and what is this small is the network's share
// as likely as the clock's: correcting for it would only shuffle events.
const clockNoise = 10 * time.Millisecond

// BrokerClockOffset is how far the clock of the agent beside a broker is ahead
// of the console's, 0 where nobody reports of it or the difference is within
// what the estimate can tell.
func (r *Roster) BrokerClockOffset(broker string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.agents {
		for _, b := range e.view.Brokers {
			if b.Name != broker {
				continue
			}
			if e.view.ClockOffset.Abs() < clockNoise {
				return 0
			}
			return e.view.ClockOffset
		}
	}
	return 0
}

// RequestTap makes a tap part of what is wanted of an agent, or renews it: a
// spec with the same broker and channel replaces the earlier one. It is durable
// when it returns; the agent learns of it with its next report. Errors are
// controlbus.ErrNotFound and controlbus.ErrInvalid.
func (r *Roster) RequestTap(ctx context.Context, agentID string, spec controlbus.TapSpec) error {
	now := time.Now()
	if spec.Until.IsZero() {
		spec.Until = now.Add(DefaultLease)
	}
	switch {
	case spec.Broker == "" || spec.Channel == "":
		return fmt.Errorf("link: request tap: %w: want a broker and a channel", controlbus.ErrInvalid)
	case !spec.Until.After(now):
		return fmt.Errorf("link: request tap: %w: the tap would have ended already", controlbus.ErrInvalid)
	case spec.Until.Sub(now) > MaxLease+time.Minute:
		return fmt.Errorf("link: request tap: %w: a tap from the console lasts %v at most; put a lasting one into the agent's configuration", controlbus.ErrInvalid, MaxLease)
	}
	spec.ID = "console:" + spec.Broker + "/" + spec.Channel
	spec.Origin = "console"
	return r.change(ctx, agentID, func(d *controlbus.Desired) error {
		d.Taps = slices.DeleteFunc(d.Taps, func(t controlbus.TapSpec) bool { return t.ID == spec.ID })
		d.Taps = append(d.Taps, spec)
		return nil
	})
}

// ReleaseTap takes a tap that the console asked for back. Taps of the agent's
// configuration are not the console's to end: controlbus.ErrUnsupported.
func (r *Roster) ReleaseTap(ctx context.Context, agentID, tapID string) error {
	return r.change(ctx, agentID, func(d *controlbus.Desired) error {
		had := len(d.Taps)
		d.Taps = slices.DeleteFunc(d.Taps, func(t controlbus.TapSpec) bool { return t.ID == tapID })
		switch {
		case len(d.Taps) < had:
			return nil
		case strings.HasPrefix(tapID, "console:"):
			return fmt.Errorf("%w: tap %q", controlbus.ErrNotFound, tapID)
		}
		return fmt.Errorf("%w: tap %q is in the agent's configuration; remove it there", controlbus.ErrUnsupported, tapID)
	})
}

// change edits what is wanted of an agent: stored first, shown after.
func (r *Roster) change(ctx context.Context, agentID string, edit func(*controlbus.Desired) error) error {
	if r.shared { // another console may have changed it
		if err := r.Refresh(ctx); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock() // across the store's write: two changes must not overtake each other
	e := r.agents[agentID]
	if e == nil {
		return fmt.Errorf("link: agent %q: %w", agentID, controlbus.ErrNotFound)
	}
	d := alive(e.view.Desired, time.Now())
	if err := edit(&d); err != nil {
		return fmt.Errorf("link: agent %q: %w", agentID, err)
	}
	d.Revision = e.view.Desired.Revision + 1
	if err := r.store.SaveDesired(ctx, agentID, d); err != nil {
		return fmt.Errorf("link: save what is wanted of agent %q: %w", agentID, err)
	}
	e.view.Desired = d
	if r.wake != nil {
		r.wake(agentID)
	}
	return nil
}

// Forget removes an agent that is gone for good. One that still reports comes
// back with its next report.
func (r *Roster) Forget(ctx context.Context, agentID string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.agents[agentID] == nil {
		return fmt.Errorf("link: agent %q: %w", agentID, controlbus.ErrNotFound)
	}
	if err := r.store.ForgetAgent(ctx, agentID); err != nil && !errors.Is(err, controlbus.ErrNotFound) {
		return fmt.Errorf("link: forget agent %q: %w", agentID, err)
	}
	delete(r.agents, agentID)
	return nil
}

// alive is a copy of d without the taps whose lease is over.
func alive(d controlbus.Desired, now time.Time) controlbus.Desired {
	taps := make([]controlbus.TapSpec, 0, len(d.Taps))
	for _, t := range d.Taps {
		if t.Until.After(now) {
			taps = append(taps, t)
		}
	}
	d.Taps = taps
	return d
}
