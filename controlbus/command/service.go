package command

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage"
)

// Agents are those that are connected; link.Dispatcher is it. Ask blocks until
// the answer or its deadline.
type Agents interface {
	Ask(ctx context.Context, agent string, ask controlbus.Ask) (controlbus.Plan, error)
	Online(agent string) bool
	Kinds(agent string) (kinds []controlbus.CommandKind, ok bool)
}

// Roster is what agents said of themselves, and what is wanted of them;
// link.Roster is it.
type Roster interface {
	Agents() []controlbus.AgentView
	RequestTap(ctx context.Context, agentID string, spec controlbus.TapSpec) error
	ReleaseTap(ctx context.Context, agentID, tapID string) error
}

// Store is the message store. What it reads is limited by the scope in ctx.
type Store interface {
	Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error)
	// CountSelected says at its deadline how far it came.
	CountSelected(ctx context.Context, sel storage.Selection) (storage.SelectionCount, error)
	// Selected reads a page behind a cursor, bodies included, at most limit
	// messages and maxBytes of bodies, but one message at least.
	Selected(ctx context.Context, sel storage.Selection, after string, limit int, maxBytes int64) (storage.SelectionPage, error)
	// Clock is the clock by which stored messages are stamped.
	Clock(ctx context.Context) (time.Time, error)
	Outcomes(ctx context.Context, q storage.OutcomeQuery) ([]storage.Outcome, error)
}

// Config of a service.
type Config struct {
	Ledger *ledger.Ledger
	Agents Agents
	Roster Roster
	Store  Store
	// Record appends to the audit trail, before it is shown, that somebody read
	// beginnings of bodies, and that somebody asked for what they may not do; nil
	// where nothing is recorded.
	Record func(ctx context.Context, e access.Event) error
	Log    *slog.Logger
	Now    func() time.Time // nil: time.Now
}

// Service is what pages, API and the command line do with commands. Who acts is
// the identity in ctx. It is safe for concurrent use.
type Service struct {
	*ledger.Ledger // Approve, Refuse, Cancel, Abandon, Control, Command, Events, Commands, Changed

	cfg Config
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	drafts map[string]*draft
}

// New returns a service. It starts nothing.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{Ledger: cfg.Ledger, cfg: cfg, log: cfg.Log, now: cfg.Now, drafts: map[string]*draft{}}
}

// askWithin bounds the wait for an agent's answer, countWithin the count of
// stored messages: a dialog is waited for by a person.
const (
	askWithin   = 10 * time.Second
	countWithin = 3 * time.Second
)

// person is who acts, or access.ErrUnauthenticated.
func person(ctx context.Context) (access.Identity, error) {
	id, ok := access.From(ctx)
	if !ok || id.Person() == "" {
		return id, fmt.Errorf("command: nobody is known to ask: %w", access.ErrUnauthenticated)
	}
	return id, nil
}

// may is controlbus.ErrDenied, with what is missing, unless who acts has the
// right.
func may(id access.Identity, a access.Action, ch controlbus.ChannelName) error {
	if id.Can(a, ch.Env, ch.Name) {
		return nil
	}
	return fmt.Errorf("%w: it needs the right %s on %s in %s. %s", controlbus.ErrDenied, a, ch, ch.Env, id.Why(a))
}

// Order enters a draft as a command. typed is the channel's name where the
// draft's policy asks for it. Ordering the same draft again, as a form that is
// sent twice does, returns the command it became. Errors are those of
// ledger.Request, and controlbus.ErrNotFound for a draft that is gone.
func (s *Service) Order(ctx context.Context, draftID, reason, typed string) (controlbus.Command, error) {
	d, err := s.find(ctx, draftID)
	if err != nil {
		return controlbus.Command{}, err
	}
	d.ordering.Lock()
	defer d.ordering.Unlock()
	if d.ordered != "" {
		return s.Command(ctx, d.ordered)
	}
	spec := d.Spec
	spec.Reason = reason
	if err := s.stillThere(spec.Target.Agent); err != nil {
		return controlbus.Command{}, err
	}
	c, err := s.Request(ctx, ledger.Request{CommandSpec: spec, Typed: typed})
	if err != nil {
		return c, err
	}
	d.ordered = c.ID
	return c, nil
}

// stillThere refuses to order from an agent that was forgotten since the
// preview: nobody would ever answer.
func (s *Service) stillThere(agent string) error {
	for _, a := range s.cfg.Roster.Agents() {
		if a.ID == agent {
			return nil
		}
	}
	return fmt.Errorf("command: agent %q: %w: it was removed from this console since the preview; take the preview again", agent, controlbus.ErrConflict)
}
