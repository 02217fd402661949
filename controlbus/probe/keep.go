package probe

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// View is a probe with its recent history.
type View struct {
	Probe
	Summary
	Recent  []Run // newest first
	Running bool
	Next    time.Time // zero: not on a schedule
}

const recentRuns = 60

// List returns the probes that the identity in ctx may see, by name.
func (s *Service) List(ctx context.Context) ([]View, error) {
	all, err := s.Store.Probes(ctx)
	if err != nil {
		return nil, err
	}
	var out []View
	for _, p := range all {
		if !visible(ctx, p) {
			continue
		}
		v, err := s.view(ctx, p, recentRuns)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// Get returns one probe under the same condition.
func (s *Service) Get(ctx context.Context, id string) (View, error) {
	p, err := s.find(ctx, id)
	if err != nil {
		return View{}, err
	}
	return s.view(ctx, p, 500)
}

// Runs of a probe, newest first.
func (s *Service) Runs(ctx context.Context, id, before string, limit int) ([]Run, error) {
	if _, err := s.find(ctx, id); err != nil {
		return nil, err
	}
	return s.Store.ProbeRuns(ctx, id, before, limit)
}

func (s *Service) view(ctx context.Context, p Probe, n int) (View, error) {
	runs, err := s.Store.ProbeRuns(ctx, p.ID, "", n)
	if err != nil {
		return View{}, err
	}
	id, _ := access.From(ctx)
	if !id.Can(access.ReadBody, p.In.Env, p.In.Name) {
		p.Body = ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return View{Probe: p, Summary: summary(runs), Recent: runs, Running: s.running[p.ID] || s.asked[p.ID], Next: s.next[p.ID]}, nil
}

func (s *Service) find(ctx context.Context, id string) (Probe, error) {
	p, err := s.Store.Probe(ctx, id)
	if err != nil {
		return p, err
	}
	if !visible(ctx, p) {
		return Probe{}, fmt.Errorf("probe %q: %w", id, controlbus.ErrNotFound)
	}
	return p, nil
}

func visible(ctx context.Context, p Probe) bool {
	id, _ := access.From(ctx)
	return id.Can(access.ViewMetadata, p.In.Env, p.In.Name) && (p.Out.Name == "" || id.Can(access.ViewMetadata, p.Out.Env, p.Out.Name))
}

func may(ctx context.Context, a access.Action, ch controlbus.ChannelName) error {
	id, _ := access.From(ctx)
	if !id.Can(a, ch.Env, ch.Name) {
		return fmt.Errorf("probe: %w: it needs the right %s on %s in %s", controlbus.ErrDenied, a, ch, ch.Env)
	}
	return nil
}

// Save keeps a new probe, or replaces one. It is one consent for all of the
// probe's messages, on a schedule or not, so where the environment asks for the
// channel's name it is typed here; and where it asks for a second person there
// are no schedules.
func (s *Service) Save(ctx context.Context, p Probe, typed string) (Probe, error) {
	if err := p.Check(); err != nil {
		return p, err
	}
	if err := may(ctx, access.Operate, p.In); err != nil {
		return p, err
	}
	if p.Out.Name != "" {
		if err := may(ctx, access.RequestTap, p.Out); err != nil {
			return p, err
		}
	}
	switch policy := s.Sender.Consent(p.In.Env); {
	case policy == controlbus.ApproveSecond && p.Every > 0:
		return p, fmt.Errorf("probe: %w: in %s a second person consents to each test message; a schedule cannot ask", controlbus.ErrConflict, p.In.Env)
	case policy == controlbus.ApproveByName && typed != p.In.Name:
		return p, fmt.Errorf("probe: %w: in %s this needs the channel's name typed: %q", controlbus.ErrInvalid, p.In.Env, p.In.Name)
	}
	id, _ := access.From(ctx)
	if p.ID == "" {
		p.ID = strings.ToLower(rand.Text()[:12])
		p.CreatedAt = s.Now().UTC()
	} else if old, err := s.find(ctx, p.ID); err != nil {
		return p, err
	} else if err := may(ctx, access.Operate, old.In); err != nil {
		return p, err
	} else {
		p.CreatedAt = old.CreatedAt
	}
	p.Owner = controlbus.Actor{Kind: string(id.Kind), ID: id.Person(), Name: id.Name}
	if err := s.record(ctx, "probe.save", p, fmt.Sprintf("every %v, deadline %v, to arrive at %s", p.Every, p.Deadline, p.Out)); err != nil {
		return p, err
	}
	if err := s.Store.SaveProbe(ctx, p); err != nil {
		return p, err
	}
	s.tell()
	return p, nil
}

// Start lets a probe run now, once, on a schedule or not. It does not wait.
func (s *Service) Start(ctx context.Context, id string) error {
	p, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	if err := may(ctx, access.Operate, p.In); err != nil {
		return err
	}
	if s.Sender.Consent(p.In.Env) == controlbus.ApproveSecond {
		return fmt.Errorf("probe: %w: in %s a second person consents to each test message; send it from the control bus", controlbus.ErrConflict, p.In.Env)
	}
	if err := s.record(ctx, "probe.run", p, ""); err != nil {
		return err
	}
	s.mu.Lock()
	s.asked[id] = true
	s.mu.Unlock()
	s.tell()
	return nil
}

// Pause stops a probe's schedule, or lets it go on.
func (s *Service) Pause(ctx context.Context, id string, paused bool) error {
	p, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	if err := may(ctx, access.Operate, p.In); err != nil {
		return err
	}
	p.Paused = paused
	code := map[bool]string{true: "probe.pause", false: "probe.continue"}[paused]
	if err := s.record(ctx, code, p, ""); err != nil {
		return err
	}
	if err := s.Store.SaveProbe(ctx, p); err != nil {
		return err
	}
	s.tell()
	return nil
}

// Delete forgets a probe and its runs.
func (s *Service) Delete(ctx context.Context, id string) error {
	p, err := s.find(ctx, id)
	if err != nil {
		return err
	}
	if err := may(ctx, access.Operate, p.In); err != nil {
		return err
	}
	if err := s.record(ctx, "probe.delete", p, ""); err != nil {
		return err
	}
	if err := s.Store.DeleteProbe(ctx, id); err != nil {
		return err
	}
	s.tell()
	return nil
}

// record writes down who does what, before it is done.
func (s *Service) record(ctx context.Context, code string, p Probe, detail string) error {
	if s.Record == nil {
		return nil
	}
	id, _ := access.From(ctx)
	return s.Record(ctx, access.Event{
		At: s.Now(), Actor: access.Actor{Kind: id.Kind, ID: id.Person(), Name: id.Name}, Code: code, Target: "probe " + p.Name,
		Env: p.In.Env, Channel: p.In.String(), Detail: detail, Address: access.ClientFrom(ctx).Address,
	}.Trimmed())
}
