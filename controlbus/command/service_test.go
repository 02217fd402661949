package command_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage"
)

// backlog answers as for a queue with 1250 messages.
func backlog(_ context.Context, a controlbus.Ask) (controlbus.Plan, error) {
	return controlbus.Plan{
		Technique: "queue.purge", Count: 1250, Reversible: controlbus.ReversiblePartly, Undo: "Send the copy back.",
		Expect: controlbus.Expect{MaxCount: 1250},
	}, nil
}

func purge(channel string) command.Request {
	return command.Request{Kind: controlbus.CommandPurge, Env: "prod", Broker: "rabbit", Channel: channel}
}

func TestPreviewAndOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{plan: backlog})
	d, err := r.service.Preview(ann(t), purge("orders"))
	if err != nil {
		t.Fatal(err)
	}
	p := d.Spec.Preview
	if p.Effect != "Removes 1,250 messages from orders on rabbit in prod; agent a1 keeps a copy." || p.Count != 1250 || p.Expect.MaxCount != 1250 ||
		d.Spec.Target.Agent != "a1" || d.Spec.Target.Channel.System != "rabbitmq" || d.Policy != controlbus.ApproveByName {
		t.Errorf("draft: %+v\npreview: %+v", d, p)
	}
	if !strings.Contains(strings.Join(p.Impact, " "), "No tap has copied what waits here") {
		t.Errorf("impact: %q", p.Impact)
	}
	again, err := r.service.Draft(ann(t), d.ID)
	if err != nil || again.Spec.Preview.Fingerprint != p.Fingerprint {
		t.Errorf("the draft: %+v, %v", again, err)
	}
	if _, err := r.service.Draft(as(t, "bob", access.Everywhere(access.Admin)...), d.ID); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("somebody else's draft: %v", err)
	}
	if _, err := r.service.Order(ann(t), d.ID, "", "orders"); !errors.Is(err, controlbus.ErrInvalid) || !strings.Contains(err.Error(), "want a reason") {
		t.Errorf("without a reason: %v", err)
	}
	if _, err := r.service.Order(ann(t), d.ID, "stuck", "ordres"); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("a misspelt name: %v", err)
	}
	c, err := r.service.Order(ann(t), d.ID, "stuck", "orders")
	if err != nil {
		t.Fatal(err)
	}
	if twice, err := r.service.Order(ann(t), d.ID, "stuck", "orders"); err != nil || twice.ID != c.ID {
		t.Errorf("the form sent twice: %s, %v; want %s", twice.ID, err, c.ID)
	}
	if c := r.settled(ann(t), c.ID); c.State != controlbus.CommandSucceeded || c.Result.Counts.Done != 3 || c.Reason != "stuck" {
		t.Errorf("%s: %+v", c.State, c.Result)
	}
}

func TestPreviewIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{plan: func(_ context.Context, a controlbus.Ask) (controlbus.Plan, error) {
		switch a.Target.Channel.Name {
		case "gone":
			return controlbus.Plan{}, fmt.Errorf("queue %q: %w", "gone", controlbus.ErrNotFound)
		case "fixed":
			return controlbus.Plan{Refused: "the channel is exclusive"}, nil
		}
		return backlog(t.Context(), a)
	}})
	r.report("a2", controlbus.BrokerStatus{Name: "nats", System: "nats", Connected: true})
	operator := as(t, "olaf", access.Grant{Role: access.Operator, Env: "prod", Channel: "*"})
	for name, c := range map[string]struct {
		ctx  context.Context
		r    command.Request
		want error
		text string
	}{
		"nobody":          {t.Context(), purge("orders"), access.ErrUnauthenticated, ""},
		"no right":        {operator, purge("orders"), controlbus.ErrDenied, "command.destroy"},
		"unknown kind":    {ann(t), command.Request{Kind: "explode", Env: "prod", Broker: "rabbit", Channel: "x"}, controlbus.ErrInvalid, "want one of"},
		"no channel":      {ann(t), purge(""), controlbus.ErrInvalid, "want an environment, a broker and a channel"},
		"unknown broker":  {ann(t), command.Request{Kind: controlbus.CommandPurge, Env: "prod", Broker: "kafka", Channel: "x"}, controlbus.ErrNotFound, "no agent has it"},
		"other agent":     {ann(t), command.Request{Kind: controlbus.CommandPurge, Env: "prod", Broker: "rabbit", Channel: "x", Agent: "a2"}, controlbus.ErrNotFound, "it has no broker"},
		"agent away":      {ann(t), command.Request{Kind: controlbus.CommandPurge, Env: "prod", Broker: "nats", Channel: "x"}, controlbus.ErrUnavailable, "agent a2 is not connected"},
		"unknown channel": {ann(t), purge("gone"), controlbus.ErrUnsupported, `queue "gone": not found`},
		"agent refuses":   {ann(t), purge("fixed"), controlbus.ErrUnsupported, "the channel is exclusive"},
		"bad filter":      {ann(t), command.Request{Kind: controlbus.CommandPurge, Env: "prod", Broker: "rabbit", Channel: "x", Args: json.RawMessage(`{"filter":"((("}`)}, controlbus.ErrInvalid, ""},
		"long pause":      {ann(t), command.Request{Kind: controlbus.CommandPause, Env: "prod", Broker: "rabbit", Channel: "x", Args: json.RawMessage(`{"for_ns":1}`)}, controlbus.ErrInvalid, "want 1s to 24h"},
		"detour elsewhere": {as(t, "olaf", access.Grant{Role: access.Operator, Env: "prod", Channel: "orders*"}), command.Request{
			Kind: controlbus.CommandDetour, Env: "prod", Broker: "rabbit", Channel: "orders",
			Args: json.RawMessage(`{"for_ns":60000000000,"steps":[{"copy":{"channel":"mine"}}]}`),
		}, controlbus.ErrDenied, "sends messages to another channel"},
		"redrive elsewhere": {as(t, "olaf", access.Grant{Role: access.Operator, Env: "prod", Channel: "orders*"}), command.Request{
			Kind: controlbus.CommandRedrive, Env: "prod", Broker: "rabbit", Channel: "orders.dead", Destination: &controlbus.ChannelName{Broker: "rabbit", Name: "mine"},
		}, controlbus.ErrDenied, "destination"},
		"replay of what may not be read": {as(t, "olaf", access.Grant{Role: access.Operator, Env: "prod", Channel: "*"}), command.Request{
			Kind: controlbus.CommandReplay, Env: "prod", Broker: "rabbit", Channel: "orders", Args: json.RawMessage(`{"selection":{"env":"secret","from":"2026-01-01T00:00:00Z"}}`),
		}, controlbus.ErrDenied, "the right to read them"},
		"replay of nothing": {ann(t), command.Request{Kind: controlbus.CommandReplay, Env: "prod", Broker: "rabbit", Channel: "orders", Args: json.RawMessage(`{"selection":{"from":"2026-01-01T00:00:00Z"}}`)},
			controlbus.ErrInvalid, "no stored message falls under the selection"},
	} {
		if _, err := r.service.Preview(c.ctx, c.r); !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("%s: got %v, want %v with %q", name, err, c.want, c.text)
		}
	}
	if all, err := r.service.Commands(ann(t), ledger.Query{}); err != nil || len(all) > 0 {
		t.Errorf("previews left %d commands, %v", len(all), err)
	}
}

// tapped puts n messages of a channel into the store, a second apart.
func tapped(r *rig, channel string, n int) time.Time {
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	for i := range n {
		m := storage.MessageDetail{BodyStored: true}
		m.UID = controlbus.HashID(channel, fmt.Sprint(i))
		m.Time, m.Env, m.Broker, m.Destination, m.MessageID = begin.Add(time.Duration(i)*time.Second).UnixNano(), "prod", "rabbit", channel, fmt.Sprint("m", i)
		m.Body, m.BodySize = []byte(`{"secret":"canary"}`), 19
		r.store.messages = append(r.store.messages, m)
	}
	return begin
}

// Where the broker shows nothing of what waits, the tap's copies do; bodies only
// to who may read them, and that is recorded.
func TestSamplesOfTheTap(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{plan: func(context.Context, controlbus.Ask) (controlbus.Plan, error) {
		return controlbus.Plan{Count: 20, Expect: controlbus.Expect{MaxCount: 20}}, nil
	}})
	begin := tapped(r, "orders", 50)
	d, err := r.service.Preview(ann(t), purge("orders"))
	if err != nil {
		t.Fatal(err)
	}
	p := d.Spec.Preview
	if len(p.Samples) != controlbus.MaxSamples || p.Samples[0].MessageID != "m49" || p.Samples[0].Excerpt == "" ||
		!p.Newest.Equal(begin.Add(49*time.Second)) || !p.Oldest.Equal(begin.Add(30*time.Second)) || !strings.Contains(strings.Join(p.Impact, " "), "as seen by the tap") {
		t.Errorf("%d samples %+v, %s to %s, %q", len(p.Samples), p.Samples[0], p.Oldest, p.Newest, p.Impact)
	}
	for i, sm := range p.Samples {
		if want := fmt.Sprint("m", 49-2*i); sm.MessageID != want && i < 9 {
			t.Errorf("sample %d of the twenty newest: %s, want %s", i, sm.MessageID, want)
		}
	}
	if len(r.audited) != 1 || r.audited[0].Code != access.EventBodyPreview {
		t.Errorf("audited: %+v", r.audited)
	}
	vic := as(t, "vic", access.Grant{Role: access.Viewer, Env: "prod", Channel: "*"})
	c, err := r.service.Order(ann(t), d.ID, "x", "orders")
	if err != nil {
		t.Fatal(err)
	}
	seen, err := r.service.Command(vic, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := json.Marshal(seen); strings.Contains(string(b), "canary") {
		t.Errorf("a viewer sees bodies: %s", b)
	}
}

// A replay's choice is frozen when the preview is taken.
func TestReplayIsFrozen(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{plan: func(context.Context, controlbus.Ask) (controlbus.Plan, error) {
		return controlbus.Plan{Technique: "basic.publish", Count: 1, Reversible: controlbus.ReversibleNo, Expect: controlbus.Expect{MaxCount: -1}}, nil
	}})
	tapped(r, "orders", 3)
	r.store.count = storage.SelectionCount{Messages: 41000, AtLeast: true, Truncated: 2, Redacted: 3, Oldest: time.Unix(1_800_000_000, 0), Newest: time.Unix(1_800_000_100, 0)}
	olaf := as(t, "olaf", access.Grant{Role: access.Operator, Env: "prod", Channel: "orders*"}, access.Grant{Role: access.Viewer, Env: "*", Channel: "*"})
	before := time.Now()
	d, err := r.service.Preview(olaf, command.Request{
		Kind: controlbus.CommandReplay, Env: "prod", Broker: "rabbit", Channel: "orders",
		Args: json.RawMessage(`{"selection":{"filter":"time >= now-15m","from":"2026-01-01T00:00:00Z"},"job":{"rate":50,"ramp":[1,10]}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	args, err := controlbus.DecodeArgs[controlbus.ReplayArgs](d.Spec.Args)
	if err != nil {
		t.Fatal(err)
	}
	sel := args.Selection
	if sel.Env != "prod" || sel.To.Before(before) || sel.StoredBefore.Before(before) || sel.All || len(sel.Scope) != 1 || sel.Scope[0][0] != (controlbus.ScopeRule{Env: "prod", Channel: "orders*"}) ||
		strings.Contains(sel.Filter, "now") || sel.Filter == "" {
		t.Errorf("selection: %+v", sel)
	}
	p := d.Spec.Preview
	if want := "Sends copies of at least 41,000 messages from the message store to orders on rabbit in prod, at 50 messages/s, first 1, then 10."; p.Effect != want {
		t.Errorf("effect %q, want %q", p.Effect, want)
	}
	if said := strings.Join(p.Impact, " "); !strings.Contains(said, "2 of them were cut") || !strings.Contains(said, "3 of them were changed by redaction") {
		t.Errorf("impact %q", said)
	}
	if len(p.Samples) != 3 || p.Samples[0].UID == "" || len(r.store.asked) != 1 || !r.store.asked[0].StoredBefore.Equal(sel.StoredBefore) {
		t.Errorf("samples %+v, asked %+v", p.Samples, r.store.asked)
	}
}

// A tap is a command, carried out by the console, also after a crash.
func TestTapIsWantedState(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.report("a1", controlbus.BrokerStatus{Name: "rabbit", System: "rabbitmq", Connected: true, Capabilities: []string{"tap"}})
	tap := command.Request{Kind: controlbus.CommandTap, Env: "prod", Broker: "rabbit", Channel: "orders", Args: json.RawMessage(`{"for_ns":3600000000000,"max_bytes":1000}`)}
	d, err := r.service.Preview(ann(t), tap)
	if err != nil {
		t.Fatal(err)
	}
	if want := "Copies the messages that pass orders on rabbit in prod to the message store, for 1h."; d.Spec.Preview.Effect != want {
		t.Errorf("effect %q, want %q", d.Spec.Preview.Effect, want)
	}
	c, err := r.service.Order(ann(t), d.ID, "look", "")
	if err != nil || c.State != controlbus.CommandQueued {
		t.Fatalf("%s, %v", c.State, err)
	}
	if box, err := r.ledger.Outbox(t.Context(), ""); err != nil || len(box) > 0 {
		t.Errorf("the outbox has %+v, %v: no agent carries out taps", box, err)
	}
	// Nobody ran until now, as after a crash.
	ctx, stop := context.WithCancel(context.Background())
	r.wg.Go(func() { _ = r.service.Run(ctx) })
	defer stop()
	if c := r.settled(ann(t), c.ID); c.State != controlbus.CommandSucceeded {
		t.Fatalf("%s: %s", c.State, c.Detail)
	}
	want, _ := r.roster.Desired("a1")
	if len(want.Taps) != 1 || want.Taps[0].Owner != "ann" || want.Taps[0].Reason != "look" || want.Taps[0].MaxBytes != 1000 || time.Until(want.Taps[0].Until) < 59*time.Minute {
		t.Errorf("wanted: %+v", want.Taps)
	}
	u, err := r.service.PreviewUndo(ann(t), c.ID, controlbus.JobOptions{})
	if err != nil {
		t.Fatal(err)
	}
	un, err := r.service.Order(ann(t), u.ID, "seen", "")
	if err != nil {
		t.Fatal(err)
	}
	if un = r.settled(ann(t), un.ID); un.State != controlbus.CommandSucceeded || un.UndoOf != c.ID {
		t.Errorf("undo: %s %s", un.State, un.Detail)
	}
	if want, _ := r.roster.Desired("a1"); len(want.Taps) != 0 {
		t.Errorf("wanted after the undo: %+v", want.Taps)
	}
	// And the undo of that brings the same tap back.
	b, err := r.service.PreviewUndo(ann(t), un.ID, controlbus.JobOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if args, err := controlbus.DecodeArgs[controlbus.TapArgs](b.Spec.Args); err != nil || args.For != time.Hour || args.MaxBytes != 1000 {
		t.Errorf("the tap comes back as %+v, %v", args, err)
	}
}

func TestUndo(t *testing.T) {
	t.Parallel()
	asks := make(chan controlbus.Ask, 20)
	r := newRig(t, options{policies: []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveNone}}, plan: func(ctx context.Context, a controlbus.Ask) (controlbus.Plan, error) {
		asks <- a
		return backlog(ctx, a)
	}})
	do := func(d command.Draft, err error) controlbus.Command {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		<-asks
		c, err := r.service.Order(ann(t), d.ID, "x", "")
		if err != nil {
			t.Fatal(err)
		}
		return r.settled(ann(t), c.ID)
	}
	c := do(r.service.Preview(ann(t), purge("orders")))
	d, err := r.service.PreviewUndo(ann(t), c.ID, controlbus.JobOptions{Rate: 100})
	if err != nil {
		t.Fatal(err)
	}
	if a := <-asks; a.Kind != controlbus.CommandReplay || a.UndoOf != c.ID || a.Target != c.Target || string(a.Args) != `{"job":{"rate":100}}` {
		t.Errorf("the agent is asked %+v", a)
	}
	if !strings.HasPrefix(d.Spec.Preview.Effect, "Sends 1,250 messages that command "+string(c.ID[:12])+" removed back to orders") {
		t.Errorf("effect %q", d.Spec.Preview.Effect)
	}
	u, err := r.service.Order(ann(t), d.ID, "wrong channel", "")
	if err != nil {
		t.Fatal(err)
	}
	r.settled(ann(t), u.ID)
	if _, err := r.service.Command(ann(t), c.ID); err != nil {
		t.Error(err)
	}
	second, err := r.service.PreviewUndo(ann(t), c.ID, controlbus.JobOptions{})
	if err == nil {
		<-asks
		_, err = r.service.Order(ann(t), second.ID, "again", "")
	}
	if !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("undone twice: %v", err)
	}
	p := do(r.service.Preview(ann(t), command.Request{Kind: controlbus.CommandPause, Env: "prod", Broker: "rabbit", Channel: "orders", Args: json.RawMessage(`{"for_ns":60000000000,"consumer":"c1"}`)}))
	res := do(r.service.PreviewUndo(ann(t), p.ID, controlbus.JobOptions{}))
	if res.Kind != controlbus.CommandResume || !strings.Contains(string(res.Args), "c1") {
		t.Errorf("undo of a pause: %s %s", res.Kind, res.Args)
	}
	if d, err := r.service.PreviewUndo(ann(t), res.ID, controlbus.JobOptions{}); err != nil || d.Spec.Kind != controlbus.CommandPause || string(d.Spec.Args) != `{"for_ns":60000000000,"consumer":"c1"}` {
		t.Errorf("undo of a resume: %s %s, %v", d.Spec.Kind, d.Spec.Args, err)
	}
	<-asks
	if _, err := r.service.PreviewUndo(ann(t), u.ID, controlbus.JobOptions{}); !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("undo of a replay: %v", err)
	}
	none := do(r.service.Preview(ann(t), command.Request{Kind: controlbus.CommandPurge, Env: "prod", Broker: "rabbit", Channel: "tmp", Args: json.RawMessage(`{"no_backup":true}`)}))
	if _, err := r.service.PreviewUndo(ann(t), none.ID, controlbus.JobOptions{}); !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("undo of a purge without a copy: %v", err)
	}
}

func TestDraftsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{})
	r.report("a1", controlbus.BrokerStatus{Name: "rabbit", System: "rabbitmq", Connected: true, Capabilities: []string{"tap"}})
	tap := command.Request{Kind: controlbus.CommandTap, Env: "prod", Broker: "rabbit", Channel: "orders"}
	var first, last command.Draft
	for i := range 101 {
		d, err := r.service.Preview(ann(t), tap)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = d
		}
		last = d
		time.Sleep(time.Microsecond)
	}
	if _, err := r.service.Draft(ann(t), first.ID); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("the oldest of 101: %v", err)
	}
	if _, err := r.service.Draft(ann(t), last.ID); err != nil {
		t.Error(err)
	}
	for n := range 9 {
		for range 100 {
			if _, err := r.service.Preview(as(t, fmt.Sprint("u", n), access.Everywhere(access.Admin)...), tap); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := r.service.Preview(as(t, "one more", access.Everywhere(access.Admin)...), tap); !errors.Is(err, controlbus.ErrOverloaded) {
		t.Errorf("the 1001st draft: %v", err)
	}
	if _, err := r.service.Draft(ann(t), last.ID); err != nil {
		t.Errorf("others displaced a draft: %v", err)
	}
}

func TestAbilitiesAndDetours(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{plan: backlog, handlers: map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: succeed}})
	want := func(broker string, kind controlbus.CommandKind, reason string) {
		t.Helper()
		for _, a := range r.service.Abilities(ann(t), "prod", broker) {
			if a.Kind == kind {
				if reason == "" && a.Reason != "" || !strings.Contains(a.Reason, reason) {
					t.Errorf("%s on %s: %q, want %q", kind, broker, a.Reason, reason)
				}
				return
			}
		}
		t.Errorf("%s on %s is not listed", kind, broker)
	}
	want("rabbit", controlbus.CommandPurge, "")
	want("rabbit", controlbus.CommandTap, "")
	want("rabbit", controlbus.CommandRedrive, "does not carry out redrive")
	want("kafka", controlbus.CommandPurge, "no agent has the broker kafka")
	r.report("a2", controlbus.BrokerStatus{Name: "nats", System: "nats", Connected: true, Capabilities: []string{"observe"}})
	want("nats", controlbus.CommandPurge, "agent a2 is not connected")
	want("nats", controlbus.CommandTap, "cannot tap")
	if got := r.service.Abilities(as(t, "eve", access.Grant{Role: access.Admin, Env: "dev", Channel: "*"}), "prod", "rabbit"); got != nil {
		t.Errorf("of another environment: %+v", got)
	}
	a := controlbus.Agent{ID: "a1", Incarnation: "i-a1", Env: "prod", SentAt: time.Now(), Detours: []controlbus.DetourStatus{
		{Detour: controlbus.Detour{ID: "d1"}, Broker: "rabbit", Channel: "orders"}, {Detour: controlbus.Detour{ID: "d2"}, Broker: "rabbit", Channel: "invoices"},
	}}
	if _, err := r.roster.Report(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := r.service.Detours(ann(t)); len(got) != 2 || got[0].Channel != "invoices" || got[0].Agent != "a1" || got[0].Heard.IsZero() {
		t.Errorf("detours: %+v", got)
	}
	if got := r.service.Detours(as(t, "olaf", access.Grant{Role: access.Viewer, Env: "prod", Channel: "orders"})); len(got) != 1 || got[0].Detour.ID != "d1" {
		t.Errorf("detours of one channel: %+v", got)
	}
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{plan: backlog, policies: []ledger.Policy{{Env: "*", Destructive: controlbus.ApproveNone}}})
	d, err := r.service.Preview(ann(t), purge("orders"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.service.Order(ann(t), d.ID, "x", "")
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		r.store.outcomes = append(r.store.outcomes, storage.Outcome{Command: c.ID, Number: int64(n + 1), Outcome: "removed"})
	}
	list, next, err := r.service.Outcomes(ann(t), c.ID, 0, 3)
	if err != nil || len(list) != 3 || next != 3 {
		t.Errorf("first page: %+v, next %d, %v", list, next, err)
	}
	if list, next, err = r.service.Outcomes(ann(t), c.ID, next, 3); err != nil || len(list) != 2 || next != 0 || list[1].Number != 5 {
		t.Errorf("second page: %+v, next %d, %v", list, next, err)
	}
	r.store.outcomes = []storage.Outcome{{Command: c.ID, Number: 1, Outcome: "sent", Env: "prod", Source: "salaries", Destination: "orders", MessageID: "m-1", UID: controlbus.ID{1}}}
	for channel, want := range map[string]string{"*": "salaries m-1", "orders": " "} { // of other channels nothing is told
		list, _, err := r.service.Outcomes(as(t, "olaf", access.Grant{Role: access.Viewer, Env: "prod", Channel: channel}), c.ID, 0, 3)
		if err != nil || len(list) != 1 || list[0].Source+" "+list[0].MessageID != want || (list[0].UID != "") != (channel == "*") || list[0].Destination != "orders" {
			t.Errorf("to who sees %s: %+v, %v", channel, list, err)
		}
	}
	if _, _, err := r.service.Outcomes(as(t, "eve", access.Grant{Role: access.Admin, Env: "dev", Channel: "*"}), c.ID, 0, 3); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("of another environment: %v", err)
	}
}

// Who asks for what they may not do is in the audit trail, although they get no
// further than to the preview.
func TestRefusedPreviewIsAudited(t *testing.T) {
	r := newRig(t, options{plan: backlog})
	operator := as(t, "oscar", access.Grant{Role: access.Operator, Env: "prod", Channel: "*"})
	if _, err := r.service.Preview(operator, purge("orders")); !errors.Is(err, controlbus.ErrDenied) {
		t.Fatalf("an operator's purge: %v", err)
	}
	if len(r.audited) != 1 || !r.audited[0].Refused || r.audited[0].Code != "command.request" || r.audited[0].Target != "purge" || !strings.Contains(r.audited[0].Detail, "command.destroy") {
		t.Errorf("audited: %+v", r.audited)
	}
}

// Who waits for the message store is not told that an agent is away.
func TestPreviewSaysThatTheStoreIsAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, options{plan: backlog})
	r.store.err = fmt.Errorf("clickhouse: clock: %w", context.DeadlineExceeded)
	_, err := r.service.Preview(ann(t), command.Request{
		Kind: controlbus.CommandReplay, Env: "prod", Broker: "rabbit", Channel: "orders", Args: json.RawMessage(`{"selection":{"from":"2026-01-01T00:00:00Z"}}`),
	})
	if !errors.Is(err, controlbus.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "message store") {
		t.Errorf("got %v, want ErrUnavailable of the message store", err)
	}
}
