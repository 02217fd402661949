package command

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Drafts live in memory: a restart of the console forgets them, and nothing was
// promised. Each person's are bounded, so that nobody displaces another's.
const (
	maxDrafts      = 1000
	maxDraftsOfOne = 100
	draftLife      = controlbus.PreviewMaxAge
)

type draft struct {
	Draft
	owner string // the person
	maker string // the identity: another of the person's tokens may do less

	ordering sync.Mutex
	ordered  controlbus.CommandID // under ordering
}

// keep remembers a draft for who made it.
func (s *Service) keep(who access.Identity, spec controlbus.CommandSpec) (Draft, error) {
	now, owner := s.now(), who.Person()
	d := &draft{owner: owner, maker: who.ID, Draft: Draft{
		ID: rand.Text(), Expires: now.Add(draftLife), Spec: spec,
		Policy: s.Policy(spec.Target.Channel.Env, spec.Kind.Class()),
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	own, oldest := 0, (*draft)(nil)
	for id, o := range s.drafts {
		if !now.Before(o.Expires) {
			delete(s.drafts, id)
			continue
		}
		if o.owner == owner {
			own++
			if oldest == nil || o.Expires.Before(oldest.Expires) {
				oldest = o
			}
		}
	}
	switch {
	case own >= maxDraftsOfOne:
		delete(s.drafts, oldest.ID)
	case len(s.drafts) >= maxDrafts:
		return Draft{}, fmt.Errorf("command: %w: %d previews are open on this console; try again in some minutes", controlbus.ErrOverloaded, len(s.drafts))
	}
	s.drafts[d.ID] = d
	return d.Draft, nil
}

// Draft returns a draft to who made it; to others it does not exist.
func (s *Service) Draft(ctx context.Context, id string) (Draft, error) {
	d, err := s.find(ctx, id)
	if err != nil {
		return Draft{}, err
	}
	return d.Draft, nil
}

func (s *Service) find(ctx context.Context, id string) (*draft, error) {
	who, err := person(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.drafts[id]
	if d == nil || d.maker != who.ID || !s.now().Before(d.Expires) {
		return nil, fmt.Errorf("command: preview %.40q: %w: previews are kept for %v; take it again", id, controlbus.ErrNotFound, draftLife)
	}
	return d, nil
}
