package ledger_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/ledger/ledgertest"
)

// Whoever belongs to no person may be the one who asked.
func TestNobodyIsNoSecondPerson(t *testing.T) {
	t.Parallel()
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveSecond}}
	l, err := ledger.New(cfg, ledgertest.NewMemory(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	as := func(id string, kind access.Kind) context.Context {
		return access.With(t.Context(), access.Identity{ID: id, Name: id, Kind: kind, Grants: access.Everywhere(access.Admin)})
	}
	s := controlbus.CommandSpec{
		Kind: controlbus.CommandPurge, Reason: "x", Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "prod", Broker: "b", Name: "orders"}},
		Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "prod", Effect: "x", Reversible: controlbus.ReversibleNo},
	}
	s.Preview.Seal(s.Kind, s.Target, s.Args)
	c, err := l.Request(as("ann", access.KindUser), ledger.Request{CommandSpec: s})
	if err != nil {
		t.Fatal(err)
	}
	for name, ctx := range map[string]context.Context{
		"everybody where nobody signs in": as("anonymous", access.KindAnonymous),
		"a token of nobody's":             as("t1", access.KindToken),
	} {
		if _, err := l.Approve(ctx, c.ID, s.Preview.Fingerprint); !errors.Is(err, controlbus.ErrDenied) {
			t.Errorf("%s agrees: got %v, want ErrDenied", name, err)
		}
	}
	if c, err := l.Command(as("ann", access.KindUser), c.ID); err != nil || c.State != controlbus.CommandAwaitingApproval {
		t.Errorf("the command is %s, %v", c.State, err)
	}
	if _, err := l.Approve(as("bob", access.KindUser), c.ID, s.Preview.Fingerprint); err != nil {
		t.Errorf("a second person agrees: %v", err)
	}
}
