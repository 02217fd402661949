package command

import (
	"cmp"
	"context"
	"slices"

	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Detours lists those on channels that the identity in ctx may see.
func (s *Service) Detours(ctx context.Context) []DetourView {
	who, err := person(ctx)
	if err != nil {
		return nil
	}
	scope := who.Scope(access.ViewMetadata)
	var all []DetourView
	for _, a := range s.cfg.Roster.Agents() {
		for _, d := range a.Detours {
			if scope.Allows(a.Env, d.Channel) {
				all = append(all, DetourView{Agent: a.ID, Env: a.Env, Heard: a.LastSeen, DetourStatus: d})
			}
		}
	}
	slices.SortFunc(all, func(a, b DetourView) int {
		return cmp.Or(cmp.Compare(a.Env, b.Env), cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.Detour.ID, b.Detour.ID))
	})
	return all
}
