package command

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// reach is a broker as one agent reaches it.
type reach struct {
	agent  controlbus.AgentView
	broker controlbus.BrokerStatus
	online bool
}

// reaches lists the agents of an environment that have a broker, the best one
// first: connected, with a connection to the broker.
func (s *Service) reaches(env, broker string) []reach {
	var all []reach
	for _, a := range s.cfg.Roster.Agents() {
		if a.Env != env {
			continue
		}
		for _, b := range a.Brokers {
			if b.Name == broker {
				all = append(all, reach{agent: a, broker: b, online: s.cfg.Agents.Online(a.ID)})
			}
		}
	}
	rank := func(r reach) int {
		switch {
		case r.online && r.broker.Connected:
			return 0
		case r.online:
			return 1
		case r.agent.Presence == controlbus.Online:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(all, func(a, b reach) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a.agent.ID, b.agent.ID)) })
	return all
}

// resolve finds the agent for a broker: the one that is named, or the best.
func (s *Service) resolve(env, broker, agent string) (reach, error) {
	all := s.reaches(env, broker)
	for _, r := range all {
		if agent == "" || r.agent.ID == agent {
			return r, nil
		}
	}
	switch {
	case len(all) == 0:
		return reach{}, fmt.Errorf("command: broker %q in %q: %w: no agent has it; start one beside it, with the broker in its configuration", broker, env, controlbus.ErrNotFound)
	default:
		return reach{}, fmt.Errorf("command: agent %q: %w: it has no broker %q in %q", agent, controlbus.ErrNotFound, broker, env)
	}
}

// ability is whether a kind can be carried out through an agent, as far as is
// known without asking it.
func (s *Service) ability(r reach, kind controlbus.CommandKind) controlbus.Ability {
	a := controlbus.Ability{Kind: kind}
	said := -1
	for i, b := range r.broker.Abilities {
		if b.Kind == kind {
			said, a.Note = i, b.Note
		}
	}
	kinds, talks := s.cfg.Agents.Kinds(r.agent.ID)
	switch {
	case kind.ByConsole():
		// Wanted state: an agent that is away takes it up when it comes back.
		switch {
		case r.agent.Kind != "":
			a.Reason = fmt.Sprintf("agent %s is a %s, which takes no orders", r.agent.ID, r.agent.Kind)
		case kind == controlbus.CommandTap && len(r.broker.Capabilities) > 0 && !slices.Contains(r.broker.Capabilities, "tap"):
			a.Reason = fmt.Sprintf("agent %s cannot tap %s", r.agent.ID, r.broker.Product)
		}
	case r.agent.Kind != "":
		a.Reason = fmt.Sprintf("agent %s is a %s, which takes no orders", r.agent.ID, r.agent.Kind)
	case !r.online:
		a.Reason = fmt.Sprintf("agent %s is not connected", r.agent.ID)
	case talks && !slices.Contains(kinds, kind):
		a.Reason = fmt.Sprintf("agent %s does not carry out %s: it is too old, or its configuration (commands.allow) takes no orders", r.agent.ID, kind)
	case said >= 0 && r.broker.Abilities[said].Reason != "":
		a.Reason = r.broker.Abilities[said].Reason
	case said < 0 && len(r.broker.Abilities) > 0:
		a.Reason = fmt.Sprintf("agent %s cannot %s on this broker", r.agent.ID, kind)
	case !r.broker.Connected:
		a.Reason = fmt.Sprintf("agent %s is not connected to %s: %s", r.agent.ID, r.broker.Name, cmp.Or(r.broker.Error, "it is trying"))
	}
	return a
}
