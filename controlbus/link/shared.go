package link

import (
	"context"
	"fmt"
	"time"
)

// Where several consoles share one store, each hears from some of the agents and
// reads of the others there.
const (
	// shareEvery is how often a report is written, for the other consoles.
	shareEvery = 3 * ReportInterval
	// RefreshEvery is how often they look.
	RefreshEvery = 2 * ReportInterval
)

// Share tells the roster that other consoles use the same store. It is called
// once, before the roster is used; Refresh is then to be called every
// RefreshEvery, and when another console has changed something.
func (r *Roster) Share() { r.shared = true }

// heard says whether the agent is heard from, here or on another console.
func (e *entry) heard(now time.Time) bool {
	limit := MissedReports * ReportInterval
	if e.remote {
		limit += shareEvery + RefreshEvery
	}
	return now.Sub(e.view.LastSeen) <= limit
}

// Elsewhere says whether another console hears from the agent.
func (r *Roster) Elsewhere(agentID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.agents[agentID]
	return e != nil && e.remote && e.heard(time.Now())
}

// Refresh takes in what other consoles have written: agents that they hear from,
// what is wanted of agents, and which were forgotten.
func (r *Roster) Refresh(ctx context.Context) error {
	begun := time.Now()
	known, err := r.store.LoadAgents(ctx)
	if err != nil {
		return fmt.Errorf("link: load agents: %w", err)
	}
	var changed []string
	r.mu.Lock()
	kept := make(map[string]bool, len(known))
	for _, v := range known {
		kept[v.ID] = true
		e := r.agents[v.ID]
		if e == nil {
			r.agents[v.ID] = &entry{view: v, savedAt: v.LastSeen, remote: true}
			continue
		}
		if v.LastSeen.After(e.view.LastSeen) {
			e.view.Agent, e.view.LastSeen, e.view.ClockOffset = v.Agent, v.LastSeen, v.ClockOffset
			e.savedAt, e.remote = v.LastSeen, true
		}
		if v.Desired.Revision > e.view.Desired.Revision {
			e.view.Desired = v.Desired
			changed = append(changed, v.ID)
		}
	}
	for id, e := range r.agents {
		// One that reported since is on its way into the store.
		if !kept[id] && e.savedAt.Before(begun) && (e.remote || !e.heard(begun)) {
			delete(r.agents, id)
		}
	}
	r.mu.Unlock()
	for _, id := range changed {
		if r.wake != nil {
			r.wake(id)
		}
	}
	return nil
}
