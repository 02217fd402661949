package ledger_test

import (
	"errors"
	"testing"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/ledger/ledgertest"
	"github.com/signalbox-dev/signalbox/storage/storagetest"
)

func TestMemoryIsALedgerStore(t *testing.T) {
	t.Parallel()
	storagetest.RunLedger(t, func(testing.TB) storagetest.LedgerStore { return ledgertest.NewMemory() })
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	cfg := ledger.DefaultConfig()
	cfg.Policies = []ledger.Policy{{Env: "prod-*", Destructive: controlbus.ApproveSecond}, {Env: "*", Additive: controlbus.ApproveByName}}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		env   string
		class controlbus.EffectClass
		want  controlbus.ApprovalPolicy
	}{
		{"prod-eu", controlbus.EffectDestructive, controlbus.ApproveSecond},
		{"prod-eu", controlbus.EffectAdditive, controlbus.ApproveNone}, // the first that matches holds
		{"dev", controlbus.EffectDestructive, controlbus.ApproveByName},
		{"dev", controlbus.EffectAdditive, controlbus.ApproveByName},
		{"dev", controlbus.EffectObserve, controlbus.ApproveNone},
	} {
		if got := cfg.Policy(c.env, c.class); got != c.want {
			t.Errorf("%s in %s: got %s, want %s", c.class, c.env, got, c.want)
		}
	}
	cfg.Policies = []ledger.Policy{{Destructive: "two"}}
	cfg.ApproveWithin = 0
	if err := cfg.Validate(); err == nil {
		t.Error("a configuration with three mistakes is taken")
	}
	if _, err := ledger.New(cfg, ledgertest.NewMemory(), nil); err == nil {
		t.Error("a ledger is made with it")
	}
}

func TestAnEventThatCannotFollowIsRefused(t *testing.T) {
	t.Parallel()
	var c controlbus.Command
	for _, kind := range []ledger.EventType{ledger.EventApproved, ledger.EventQueued, ledger.EventDispatched, ledger.EventExpired, "unheard of"} {
		if err := ledger.Fold(&c, ledger.Event{Type: kind}); !errors.Is(err, controlbus.ErrConflict) {
			t.Errorf("%s at first: got %v, want ErrConflict", kind, err)
		}
	}
}
