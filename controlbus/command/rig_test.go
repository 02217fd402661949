package command_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/storage/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// rig is a console with the real ledger in SQLite and the real link, and an
// agent behind a pipe whose plans and handlers a test chooses.
type rig struct {
	t       *testing.T
	dir     string
	state   *state.Store
	ledger  *ledger.Ledger
	disp    *link.Dispatcher
	roster  *link.Roster
	store   *fakeStore
	service *command.Service
	audited []access.Event
	wg      sync.WaitGroup
	ends    []func()
}

type options struct {
	policies []ledger.Policy
	plan     func(context.Context, controlbus.Ask) (controlbus.Plan, error)
	handlers map[controlbus.CommandKind]link.Handler
}

func newRig(t *testing.T, o options) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), store: &fakeStore{}}
	var err error
	if r.state, err = state.Open(t.Context(), filepath.Join(r.dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	cfg := ledger.DefaultConfig()
	cfg.Policies = o.policies
	if r.ledger, err = ledger.New(cfg, r.state, quiet); err != nil {
		t.Fatal(err)
	}
	r.disp = link.NewDispatcher(r.ledger, quiet)
	r.ledger.Wake(r.disp.Wake)
	if r.roster, err = link.NewRoster(t.Context(), r.state, quiet); err != nil {
		t.Fatal(err)
	}
	r.service = command.New(command.Config{
		Ledger: r.ledger, Agents: r.disp, Roster: r.roster, Store: r.store, Log: quiet,
		Record: func(_ context.Context, e access.Event) error { r.audited = append(r.audited, e); return nil },
	})
	t.Cleanup(func() {
		for _, end := range slices.Backward(r.ends) {
			end()
		}
		r.wg.Wait()
		if err := r.state.Close(); err != nil {
			t.Error(err)
		}
	})
	if o.plan != nil || o.handlers != nil {
		r.agent("a1", o)
	}
	return r
}

// agent connects one, with a broker "rabbit" in the environment "prod".
func (r *rig) agent(id string, o options) {
	r.t.Helper()
	r.report(id, controlbus.BrokerStatus{Name: "rabbit", System: "rabbitmq", Product: "RabbitMQ 4", Connected: true, Capabilities: []string{"observe", "tap"}})
	j, err := journal.Open(journal.Config{Dir: filepath.Join(r.dir, "journal-"+id)})
	if err != nil {
		r.t.Fatal(err)
	}
	handlers := o.handlers
	if handlers == nil {
		handlers = map[controlbus.CommandKind]link.Handler{}
		for _, k := range controlbus.CommandKinds() {
			if !k.ByConsole() {
				handlers[k] = succeed
			}
		}
	}
	exec, err := link.NewExecutor(r.t.Context(), link.ExecutorConfig{
		Agent: id, Journal: j, Handlers: handlers, Plan: o.plan, Allow: []link.AllowRule{{Broker: "*", Channel: "*"}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	console, agent := link.Pipe()
	ctx, stop := context.WithCancel(context.Background())
	r.wg.Go(func() { _ = r.disp.Serve(ctx, id, console, nil) })
	r.wg.Go(func() { _ = exec.Serve(ctx, agent, nil) })
	r.ends = append(r.ends, func() {
		stop()
		exec.Stop()
		r.wg.Wait()
		if err := j.Close(); err != nil {
			r.t.Error(err)
		}
	})
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, ok := r.disp.Kinds(id); ok {
			return
		}
		if time.Now().After(end) {
			r.t.Fatal("the agent did not connect")
		}
	}
}

func (r *rig) report(id string, brokers ...controlbus.BrokerStatus) {
	r.t.Helper()
	a := controlbus.Agent{ID: id, Incarnation: "i-" + id, Env: "prod", StartedAt: time.Now(), SentAt: time.Now(), Brokers: brokers}
	if _, err := r.roster.Report(r.t.Context(), a); err != nil {
		r.t.Fatal(err)
	}
}

func succeed(context.Context, *link.Run) controlbus.CommandResult {
	return controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Matched: 3, Done: 3}}
}

// as is a context in which somebody acts.
func as(t *testing.T, name string, grants ...access.Grant) context.Context {
	return access.With(t.Context(), access.Identity{ID: "id-" + name, Name: name, Kind: access.KindUser, Grants: grants})
}

func ann(t *testing.T) context.Context { return as(t, "ann", access.Everywhere(access.Admin)...) }

// settled waits for a command's end.
func (r *rig) settled(ctx context.Context, id controlbus.CommandID) controlbus.Command {
	r.t.Helper()
	for end := time.After(10 * time.Second); ; {
		changed := r.service.Changed()
		c, err := r.service.Command(ctx, id)
		if err != nil {
			r.t.Fatal(err)
		}
		if c.State.Terminal() {
			return c
		}
		select {
		case <-changed:
		case <-end:
			r.t.Fatalf("command %s stays %s", id, c.State)
		}
	}
}

// fakeStore is a message store of few messages, which looks at the scope as the
// real one does.
type fakeStore struct {
	mu       sync.Mutex
	messages []storage.MessageDetail // oldest first
	count    storage.SelectionCount
	err      error
	outcomes []storage.Outcome
	asked    []storage.Selection
}

var errNoScope = errors.New("a read without a scope")

func (f *fakeStore) Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	scope, ok := controlbus.ScopeFrom(ctx)
	if !ok {
		return storage.MessagePage{}, errNoScope
	}
	var page storage.MessagePage
	for _, m := range slices.Backward(f.messages) {
		if scope.Allows(m.Env, m.Destination) && m.Env == q.Env && m.Destination == q.Channel && within(q.Range, m.Time) && len(page.Messages) < q.Limit {
			one := m.Message
			if q.Snippets {
				one.Snippet = string(m.Body)
			}
			page.Messages = append(page.Messages, one)
		}
	}
	return page, f.err
}

func within(r storage.TimeRange, ns int64) bool {
	at := time.Unix(0, ns)
	return (r.From.IsZero() || !at.Before(r.From)) && (r.To.IsZero() || at.Before(r.To))
}

func (f *fakeStore) CountSelected(ctx context.Context, sel storage.Selection) (storage.SelectionCount, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := controlbus.ScopeFrom(ctx); !ok {
		return storage.SelectionCount{}, errNoScope
	}
	f.asked = append(f.asked, sel)
	return f.count, f.err
}

func (f *fakeStore) Selected(ctx context.Context, sel storage.Selection, _ string, limit int, _ int64) (storage.SelectionPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	scope, ok := controlbus.ScopeFrom(ctx)
	if !ok {
		return storage.SelectionPage{}, errNoScope
	}
	var page storage.SelectionPage
	for _, m := range f.messages {
		if scope.Allows(m.Env, m.Destination) && m.Env == sel.Env && within(sel.Range, m.Time) && len(page.Messages) < limit {
			page.Messages = append(page.Messages, m)
		}
	}
	return page, f.err
}

func (f *fakeStore) Clock(context.Context) (time.Time, error) { return time.Now(), f.err }

func (f *fakeStore) Outcomes(ctx context.Context, q storage.OutcomeQuery) ([]storage.Outcome, error) {
	if _, ok := controlbus.ScopeFrom(ctx); !ok {
		return nil, errNoScope
	}
	var out []storage.Outcome
	for _, o := range f.outcomes {
		if o.Command == q.Command && o.Number > q.After && len(out) < q.Limit {
			out = append(out, o)
		}
	}
	return out, nil
}
