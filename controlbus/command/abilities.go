package command

import (
	"context"
	"fmt"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Abilities are all kinds of commands, each with the reason where it cannot be
// carried out on a broker now: pages grey it out. Of several agents the best one
// counts. Rights are the caller's to look at.
func (s *Service) Abilities(ctx context.Context, env, broker string) []controlbus.Ability {
	who, err := person(ctx)
	if err != nil || !who.Scope(access.ViewMetadata).AllowsEnv(env) {
		return nil
	}
	all := s.reaches(env, broker)
	var out []controlbus.Ability
	for _, kind := range controlbus.CommandKinds() {
		best := controlbus.Ability{Kind: kind, Reason: fmt.Sprintf("no agent has the broker %s in %s", broker, env)}
		for i, r := range all {
			a := s.ability(r, kind)
			if i == 0 || a.Reason == "" {
				best = a
			}
			if a.Reason == "" {
				break
			}
		}
		out = append(out, best)
	}
	return out
}
