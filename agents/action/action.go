package action

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/archive"
	"github.com/signalbox-dev/signalbox/agents/detour"
	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// Actions are an agent's commands. They are safe for concurrent use.
type Actions struct {
	env     agents.CommandEnv
	archive *archive.Store
	fetch   fetcher
	parts   []agents.Commands // of other packages, composed in

	mu       sync.Mutex // guards redactor, which one goroutine uses at a time
	redactor *export.Redactor
}

var _ agents.Commands = (*Actions)(nil)

// New opens the archive and takes up the detours below the agent's data directory.
func New(env agents.CommandEnv) (*Actions, error) {
	redactor, err := export.NewRedactor(env.Redaction)
	if err != nil {
		return nil, fmt.Errorf("action: %w", err)
	}
	store, err := archive.Open(archive.Config{
		Dir: filepath.Join(env.Dir, "archive"), MaxBytes: env.Archive.MaxBytes, MaxAge: env.Archive.MaxAge, Log: env.Log.With("component", "archive"),
	})
	if err != nil {
		return nil, fmt.Errorf("action: %w", err)
	}
	detours, err := detour.New(detour.FromEnv(env))
	if err != nil {
		return nil, fmt.Errorf("action: %w", err)
	}
	return &Actions{env: env, archive: store, fetch: consoleFetcher(env.Console), redactor: redactor, parts: []agents.Commands{detours}}, nil
}

// Commands is New in the form that agents.CommandConfig wants.
func Commands(env agents.CommandEnv) (agents.Commands, error) {
	a, err := New(env)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Handlers by kind.
func (a *Actions) Handlers() map[controlbus.CommandKind]link.Handler {
	all := map[controlbus.CommandKind]link.Handler{
		controlbus.CommandPurge:   a.purge,
		controlbus.CommandDiscard: a.discard,
		controlbus.CommandRedrive: a.redrive,
		controlbus.CommandReplay:  a.replay,
		controlbus.CommandTest:    a.test,
		controlbus.CommandPeek:    a.peek,
	}
	for _, p := range a.parts {
		maps.Copy(all, p.Handlers())
	}
	return all
}

// Run keeps the archive within its age, and the parts running, until ctx ends.
func (a *Actions) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.archive.Run(gctx) })
	for _, p := range a.parts {
		g.Go(func() error { return p.Run(gctx) })
	}
	return g.Wait()
}

// Statuses are the detours and pauses.
func (a *Actions) Statuses() []controlbus.DetourStatus {
	var all []controlbus.DetourStatus
	for _, p := range a.parts {
		all = append(all, p.Statuses()...)
	}
	return all
}

// callTimeout bounds one question to a broker.
const callTimeout = 30 * time.Second

// broker finds the adapter of a channel that a command names.
func (a *Actions) broker(ch controlbus.ChannelName) (agents.Adapter, error) {
	if ch.Env != "" && ch.Env != a.env.Self.Env {
		return nil, fmt.Errorf("%w: this agent is of environment %q, the command is for %q", controlbus.ErrDenied, a.env.Self.Env, ch.Env)
	}
	ad, ok := a.env.Broker(ch.Broker)
	if !ok {
		return nil, fmt.Errorf("%w: agent %s has no broker %q; it has %q", controlbus.ErrNotFound, a.env.Self.ID, ch.Broker, slices.Sorted(slices.Values(a.env.Brokers)))
	}
	return ad, nil
}

// verb is an adapter's ability, or ErrUnsupported with the reason.
func verb[V any](ad agents.Adapter, what string) (V, error) {
	v, ok := ad.(V)
	if !ok {
		return v, fmt.Errorf("%w: the %s adapter cannot %s", controlbus.ErrUnsupported, ad.System(), what)
	}
	return v, nil
}

// inspect looks at a channel with a deadline.
func inspect(ctx context.Context, ad agents.Adapter, channel string) (agents.ChannelView, error) {
	i, err := verb[agents.Inspector](ad, "count messages in a channel")
	if err != nil {
		return agents.ChannelView{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return i.Inspect(ctx, channel)
}

// allowed says whether the agent's own rules let a kind act on a channel.
func (a *Actions) allowed(kind controlbus.CommandKind, target controlbus.ChannelName, to *controlbus.ChannelName) error {
	if link.Allowed(a.env.Allow, kind, target, to) {
		return nil
	}
	ch := target
	if to != nil && link.Allowed(a.env.Allow, kind, target, nil) {
		ch = *to
	}
	return fmt.Errorf("%w: the agent's own configuration does not allow %s on %s (commands.allow of agent %s)", controlbus.ErrDenied, kind, ch, a.env.Self.ID)
}

// away says that trying again later may help: the broker, the console or the
// connection is gone for now.
func away(err error) bool {
	return errors.Is(err, agents.ErrNotConnected) || errors.Is(err, controlbus.ErrUnavailable)
}
