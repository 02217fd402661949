package state_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/storage/storagetest"
	"github.com/signalbox-dev/signalbox/test/broker"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("SIGNALBOX_TEST_LEDGER_CHILD"); path != "" {
		if err := ledgerChild(place{path: path, dsn: controlbus.Secret(os.Getenv("SIGNALBOX_TEST_LEDGER_DSN"))}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	broker.Main(m)
}

func TestLedger(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, fresh func(testing.TB) place) {
		storagetest.RunLedger(t, func(tb testing.TB) storagetest.LedgerStore { return open(tb, fresh(tb)) })
	})
}

func everybody(ctx context.Context) context.Context {
	return access.With(ctx, access.Identity{ID: "u1", Name: "ann", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)})
}

func newLedger(s *state.Store) (*ledger.Ledger, error) {
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveNone}}
	return ledger.New(cfg, s, slog.New(slog.DiscardHandler))
}

func purgeOf(channel string) ledger.Request {
	s := controlbus.CommandSpec{
		Kind: controlbus.CommandPurge, Reason: "test", Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "e", Broker: "b", Name: channel}},
		Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "e", Effect: "Removes.", Reversible: controlbus.ReversibleNo},
	}
	s.Preview.Seal(s.Kind, s.Target, s.Args)
	return ledger.Request{CommandSpec: s}
}

// contended is the channel that every writer wants for itself.
const contended = "contended"

// ledgerChild takes commands through their lives, eight at a time, and prints
// each step once it has been told that the step is kept.
func ledgerChild(at place) error {
	ctx := everybody(context.Background())
	s, err := at.open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := newLedger(s)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(id controlbus.CommandID, st controlbus.CommandState) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(id, st)
	}
	life := func(channel string) error {
		c, err := l.Request(ctx, purgeOf(channel))
		if err != nil {
			return err
		}
		say(c.ID, c.State)
		if _, _, _, err := l.Dispatch(ctx, ledger.Session{Agent: "a1", Epoch: 1, Journal: "j"}, c.ID); err != nil {
			return err
		}
		say(c.ID, controlbus.CommandDispatched)
		r := controlbus.CommandResult{Outcome: controlbus.CommandSucceeded}
		if err := l.Merge(ctx, "a1", ledger.AgentEvent{Command: c.ID, Seq: 1, Type: ledger.EventResult, Result: &r}); err != nil {
			return err
		}
		say(c.ID, r.Outcome)
		return nil
	}
	fmt.Println("ready")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				// One channel that all want, on every console.
				if err := life(contended); err != nil && !errors.Is(err, controlbus.ErrConflict) {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				if err := life(fmt.Sprintf("%d.%d.%d", os.Getpid(), w, n)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return nil
}

func TestAPersonCannotConsentThroughATokenOfTheirs(t *testing.T) {
	t.Parallel()
	s := open(t, sqliteAt(t))
	svc, err := access.New(access.DefaultConfig(), access.DefaultPrivacy(), s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ann := access.User{ID: "u1", Name: "ann", Grants: access.Everywhere(access.Admin), CreatedAt: time.Now()}
	if err := s.AddUser(t.Context(), ann, access.Event{At: time.Now(), Code: access.EventUserAdd}); err != nil {
		t.Fatal(err)
	}
	id := access.Identity{ID: "u1", Name: "ann", Kind: access.KindUser, Grants: ann.Grants}
	_, secret, err := svc.CreateToken(t.Context(), id, access.NewToken{Name: "ci", Grants: access.Everywhere(access.Approver)})
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := svc.FromToken(t.Context(), secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveSecond}}
	l, err := ledger.New(cfg, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Request(access.With(t.Context(), id), purgeOf("orders"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Approve(access.With(t.Context(), token), c.ID, c.Preview.Fingerprint); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("consent by the requester's token: got %v, want ErrDenied", err)
	}
}

func BenchmarkLedgerLife(b *testing.B) {
	for _, p := range []func(testing.TB) place{sqliteAt, postgresAt} {
		at := p(b)
		b.Run(at.name(), func(b *testing.B) { benchmarkLedgerLife(b, at) })
	}
}

func benchmarkLedgerLife(b *testing.B, at place) {
	s := open(b, at)
	l, err := newLedger(s)
	if err != nil {
		b.Fatal(err)
	}
	ctx := everybody(b.Context())
	n := 0
	for b.Loop() {
		n++
		c, err := l.Request(ctx, purgeOf(strconv.Itoa(n)))
		if err != nil {
			b.Fatal(err)
		}
		if _, _, _, err := l.Dispatch(ctx, ledger.Session{Agent: "a1", Journal: "j"}, c.ID); err != nil {
			b.Fatal(err)
		}
		if err := l.Merge(ctx, "a1", ledger.AgentEvent{Command: c.ID, Seq: 1, Type: ledger.EventResult, Result: &controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Evidence: json.RawMessage(`{}`)}}); err != nil {
			b.Fatal(err)
		}
	}
}
