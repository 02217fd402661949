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

// testLedger has one command in it, asked for by an admin.
func testLedger(t *testing.T, s controlbus.CommandSpec) (*ledger.Ledger, controlbus.Command) {
	t.Helper()
	l, err := ledger.New(ledger.DefaultConfig(), ledgertest.NewMemory(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s.Preview.Seal(s.Kind, s.Target, s.Args)
	admin := access.Identity{ID: "admin", Name: "admin", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)}
	c, err := l.Request(access.With(t.Context(), admin), ledger.Request{CommandSpec: s, Typed: s.Target.Channel.Name})
	if err != nil {
		t.Fatal(err)
	}
	return l, c
}

// told is all that the ledger tells of a command to somebody with these grants.
func told(t *testing.T, l *ledger.Ledger, id controlbus.CommandID, grants ...access.Grant) string {
	t.Helper()
	ctx := access.With(t.Context(), access.Identity{ID: "x", Name: "x", Kind: access.KindUser, Grants: grants})
	one, err := l.Command(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	list, err := l.Commands(ctx, ledger.Query{})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	events, err := l.Events(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal([]any{one, list, events})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTestBodyNeedsTheRight(t *testing.T) {
	t.Parallel()
	l, c := testLedger(t, controlbus.CommandSpec{
		Kind: controlbus.CommandTest, Reason: "x", Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "prod", Broker: "b", Name: "orders"}},
		Args:    json.RawMessage(`{"run":"run-1","Body":"canary 0","body":"canary 1","headers":{"h":"v"}}`),
		Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "prod", Effect: "x", Reversible: controlbus.ReversibleNo},
	})
	if text := told(t, l, c.ID, access.Everywhere(access.Viewer)...); strings.Contains(text, "canary") || strings.Count(text, "run-1") != 3 {
		t.Errorf("a viewer sees %s", text)
	}
	if text := told(t, l, c.ID, access.Everywhere(access.Reader)...); strings.Count(text, "canary 1") != 3 {
		t.Errorf("a reader sees %s", text)
	}
	// What is answered to a change is no way around it: here the one who asked has
	// lost the right since.
	demoted := access.With(t.Context(), access.Identity{ID: "admin", Name: "admin", Kind: access.KindUser, Grants: access.Everywhere(access.Viewer)})
	after, err := l.Cancel(demoted, c.ID, "wrong channel")
	if err != nil || strings.Contains(string(after.Args), "canary") {
		t.Errorf("answer to a cancel: %s, %v", after.Args, err)
	}
}

// What a replay sends is of other channels than the one it sends to.
func TestSamplesOfAReplayNeedTheRightToTheirChannels(t *testing.T) {
	t.Parallel()
	spec := func(selection string) controlbus.CommandSpec {
		return controlbus.CommandSpec{
			Kind: controlbus.CommandReplay, Reason: "x", Target: controlbus.Target{Agent: "a1", Channel: controlbus.ChannelName{Env: "prod", Broker: "b", Name: "orders"}},
			Args:    json.RawMessage(`{"selection":` + selection + `}`),
			Preview: &controlbus.Preview{TakenAt: time.Now(), Env: "prod", Effect: "x", Reversible: controlbus.ReversibleNo, Samples: []controlbus.PreviewSample{{MessageID: "salary-1", Excerpt: "canary"}}},
		}
	}
	on := func(r access.Role, channel string) []access.Grant {
		return []access.Grant{{Role: r, Env: "prod", Channel: channel}}
	}
	for _, c := range []struct {
		name, selection   string
		grants            []access.Grant
		excerpts, samples bool
	}{
		{"of everything, read by who reads the target", `{"env":"prod","all":true}`, on(access.Reader, "orders*"), false, false},
		{"of everything, read by who sees all and reads the target", `{"env":"prod","all":true}`, append(on(access.Reader, "orders*"), on(access.Viewer, "*")...), false, true},
		{"of everything, read by who reads everything", `{"env":"prod","all":true}`, on(access.Reader, "*"), true, true},
		{"of another environment", `{"env":"hr","all":true}`, on(access.Reader, "*"), false, false},
		{"of what the reader may read", `{"env":"prod","scope":[[{"Env":"*","Channel":"orders.*"},{"Env":"hr","Channel":"*"}]]}`, on(access.Reader, "orders*"), true, true},
		{"of more than the reader may read", `{"env":"prod","scope":[[{"Env":"*","Channel":"*.eu"}]]}`, on(access.Reader, "orders*"), false, false},
	} {
		l, cmd := testLedger(t, spec(c.selection))
		text := told(t, l, cmd.ID, c.grants...)
		if got := strings.Contains(text, "canary"); got != c.excerpts {
			t.Errorf("%s: excerpts %v: %s", c.name, got, text)
		}
		if got := strings.Contains(text, "salary-1"); got != c.samples {
			t.Errorf("%s: samples %v: %s", c.name, got, text)
		}
	}
}
