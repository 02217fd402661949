package ledger_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/ledger/ledgertest"
)

// Bodies that a preview or a peek has shown are not for those who may not read
// them, wherever they look.
func TestExcerptsNeedTheRight(t *testing.T) {
	t.Parallel()
	l, err := ledger.New(ledger.DefaultConfig(), ledgertest.NewMemory(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	as := func(r access.Role) context.Context {
		return access.With(t.Context(), access.Identity{ID: string(r), Name: string(r), Kind: access.KindUser, Grants: access.Everywhere(r)})
	}
	s := controlbus.CommandSpec{
		Kind: controlbus.CommandPeek, Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "prod", Broker: "b", Name: "orders"}},
		Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "prod", Effect: "x", Reversible: controlbus.ReversibleYes, Samples: []controlbus.PreviewSample{{MessageID: "m1", Excerpt: "canary 1"}}},
	}
	s.Preview.Seal(s.Kind, s.Target, s.Args)
	c, err := l.Request(as(access.Admin), ledger.Request{CommandSpec: s})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := l.Dispatch(t.Context(), ledger.Session{Agent: "a1", Journal: "j"}, c.ID); err != nil {
		t.Fatal(err)
	}
	for i, evidence := range []string{
		`{"ready":12345678901234567890,"samples":[{"message_id":"m2","excerpt":"canary 2"},{"deep":[{"excerpt":"canary 3"}]}]}`,
		`{"late":{"\u0065xcerpt":"canary 4"}}`,
	} {
		r := controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Evidence: json.RawMessage(evidence)}
		if err := l.Merge(t.Context(), "a1", ledger.AgentEvent{Command: c.ID, Seq: int64(i + 1), Journal: "j", Type: ledger.EventResult, Result: &r}); err != nil {
			t.Fatal(err)
		}
	}
	seen := func(ctx context.Context) string {
		t.Helper()
		one, err := l.Command(ctx, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		list, err := l.Commands(ctx, ledger.Query{})
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		events, err := l.Events(ctx, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal([]any{one, list, events})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if text := seen(as(access.Viewer)); strings.Contains(text, "canary") || !strings.Contains(text, `"m2"`) || !strings.Contains(text, "12345678901234567890") {
		t.Errorf("a viewer sees %s", text)
	}
	if text := seen(as(access.Reader)); strings.Count(text, "canary") != 12 {
		t.Errorf("a reader sees %d excerpts: %s", strings.Count(text, "canary"), text)
	}
}
