package ui_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage"
)

// fakeCommands is a control bus in memory. It keeps what was asked of it.
type fakeCommands struct {
	mu        sync.Mutex
	commands  []controlbus.Command // newest first
	events    map[controlbus.CommandID][]ledger.Event
	outcomes  map[controlbus.CommandID][]command.Outcome
	drafts    map[string]command.Draft
	detours   []command.DetourView
	abilities []controlbus.Ability
	policy    controlbus.ApprovalPolicy
	sample    func(i int) controlbus.PreviewSample
	err       error // of what changes something
	asked     []command.Request
	did       []string
	now       func() time.Time
}

func cid(n int) controlbus.CommandID { return controlbus.CommandID(fmt.Sprintf("019aa8c4%024d", n)) }

func (f *fakeCommands) note(format string, args ...any) {
	f.did = append(f.did, fmt.Sprintf(format, args...))
}

func (f *fakeCommands) actions() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.did)
}

func (f *fakeCommands) Commands(ctx context.Context, q ledger.Query) ([]controlbus.Command, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	who, _ := access.From(ctx)
	q.Scope = who.Scope(access.ViewMetadata)
	limit := q.Limit
	if limit == 0 {
		limit = 100
	}
	var out []controlbus.Command
	for _, c := range f.commands {
		if q.Matches(&c) && len(out) < limit {
			out = append(out, c)
		}
	}
	return out, nil
}

func (f *fakeCommands) Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	who, _ := access.From(ctx)
	for _, c := range f.commands {
		if c.ID == id && who.Can(access.ViewMetadata, c.Target.Channel.Env, c.Target.Channel.Name) {
			return c, nil
		}
	}
	return controlbus.Command{}, fmt.Errorf("ledger: command %s: %w", id, controlbus.ErrNotFound)
}

func (f *fakeCommands) Events(_ context.Context, id controlbus.CommandID) ([]ledger.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events[id]), nil
}

func (f *fakeCommands) change(ctx context.Context, id controlbus.CommandID, what string, edit func(*controlbus.Command)) (controlbus.Command, error) {
	c, err := f.Command(ctx, id)
	if err != nil {
		return c, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return c, f.err
	}
	f.note("%s %s", what, id)
	for i := range f.commands {
		if f.commands[i].ID == id {
			edit(&f.commands[i])
			c = f.commands[i]
		}
	}
	return c, nil
}

func (f *fakeCommands) Approve(ctx context.Context, id controlbus.CommandID, fingerprint string) (controlbus.Command, error) {
	return f.change(ctx, id, "approve "+fingerprint, func(c *controlbus.Command) { c.State = controlbus.CommandQueued })
}

func (f *fakeCommands) Refuse(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error) {
	return f.change(ctx, id, "refuse "+reason, func(c *controlbus.Command) { c.State, c.Detail = controlbus.CommandRefused, reason })
}

func (f *fakeCommands) Cancel(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error) {
	return f.change(ctx, id, "cancel "+reason, func(c *controlbus.Command) { c.CancelAsked = &controlbus.Actor{Name: "me"} })
}

func (f *fakeCommands) Abandon(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error) {
	return f.change(ctx, id, "abandon "+reason, func(c *controlbus.Command) { c.State = controlbus.CommandIndeterminate })
}

func (f *fakeCommands) Control(ctx context.Context, id controlbus.CommandID, rate *float64, paused *bool) (controlbus.Command, error) {
	what := "control"
	if rate != nil {
		what += fmt.Sprintf(" rate %v", *rate)
	}
	if paused != nil {
		what += fmt.Sprintf(" paused %v", *paused)
	}
	return f.change(ctx, id, what, func(c *controlbus.Command) {
		c.Control.Seq++
		if rate != nil {
			c.Control.Rate = *rate
		}
		if paused != nil {
			c.Control.Paused = *paused
		}
	})
}

func (f *fakeCommands) Preview(_ context.Context, q command.Request) (command.Draft, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return command.Draft{}, f.err
	}
	f.asked = append(f.asked, q)
	return f.make(q), nil
}

// make seals a preview and keeps it.
func (f *fakeCommands) make(q command.Request) command.Draft {
	at := f.now()
	d := command.Draft{ID: fmt.Sprintf("draft-%d", len(f.drafts)+1), Expires: at.Add(15 * time.Minute), Policy: f.policy, Spec: controlbus.CommandSpec{
		Kind: q.Kind, Target: controlbus.Target{Agent: "rabbit-eu1-a", Channel: controlbus.ChannelName{Env: q.Env, System: "rabbitmq", Broker: q.Broker, Name: q.Channel}},
		Destination: q.Destination, Args: q.Args, AcceptWithin: q.AcceptWithin, RunWithin: q.RunWithin, UndoOf: q.UndoOf,
	}}
	p := &controlbus.Preview{
		TakenAt: at.Add(-4 * time.Second), Env: q.Env, Effect: "Removes every message that waits in " + q.Channel + "; a copy is kept by the agent for 7 days", Count: 1204,
		Oldest: at.Add(-17*time.Minute - 20*time.Second), Newest: at.Add(-6 * time.Second), Destination: q.Destination, Reversible: controlbus.ReversiblePartly,
		Undo: "the messages can be put back at the end of the channel until 28 Nov", Technique: "taken with acknowledgements, copied to the agent's disk first", Impact: []string{"the channel is still written to, 1.2 messages a second", "consumers that are connected get nothing of what is taken"},
		Needs: []string{"configure", "read"}, Expect: controlbus.Expect{MaxCount: 1250},
	}
	switch q.Kind {
	case controlbus.CommandRedrive:
		p.Effect, p.Undo = "Each is published to where it died with confirmation, then taken off "+q.Channel+"; consumers see it again", "what is not consumed yet goes back on cancel"
		p.Destination = q.Destination
	case controlbus.CommandReplay, controlbus.CommandTest:
		p.Effect, p.Reversible, p.Undo, p.Impact = "Sends stored messages again", controlbus.ReversibleNo, "what is sent is sent", nil
		p.Samples = nil
	case controlbus.CommandDetour, controlbus.CommandPause:
		p.Effect, p.Count, p.Reversible, p.Undo = "Messages take the way through the steps", -1, controlbus.ReversibleYes, "the direct way is restored when it ends"
	}
	if p.Count > 0 {
		for i := range 10 {
			p.Samples = append(p.Samples, f.sample(i))
		}
	}
	p.Seal(q.Kind, d.Spec.Target, q.Args)
	d.Spec.Preview = p
	f.drafts[d.ID] = d
	return d
}

func (f *fakeCommands) PreviewUndo(ctx context.Context, id controlbus.CommandID, o controlbus.JobOptions) (command.Draft, error) {
	c, err := f.Command(ctx, id)
	if err != nil {
		return command.Draft{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return command.Draft{}, f.err
	}
	f.note("undo %s at %v", id, o.Rate)
	ch := c.Target.Channel
	args, _ := json.Marshal(controlbus.ReplayArgs{Job: o})
	return f.make(command.Request{Kind: controlbus.CommandReplay, Env: ch.Env, Broker: ch.Broker, Channel: ch.Name, Args: args, UndoOf: id}), nil
}

func (f *fakeCommands) Draft(_ context.Context, id string) (command.Draft, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.drafts[id]
	if !ok {
		return d, fmt.Errorf("command: draft: %w", controlbus.ErrNotFound)
	}
	return d, nil
}

func (f *fakeCommands) Order(ctx context.Context, draft, reason, typed string) (controlbus.Command, error) {
	d, err := f.Draft(ctx, draft)
	if err != nil {
		return controlbus.Command{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return controlbus.Command{}, f.err
	}
	f.note("order %s %q %q", draft, reason, typed)
	who, _ := access.From(ctx)
	c := controlbus.Command{CommandSpec: d.Spec, ID: cid(900 + len(f.did)), Class: d.Spec.Kind.Class(), Policy: d.Policy, State: controlbus.CommandQueued,
		RequestedBy: controlbus.Actor{Kind: string(who.Kind), ID: who.Person(), Name: who.Name}, RequestedAt: f.now()}
	c.Reason = reason
	if d.Policy == controlbus.ApproveSecond {
		c.State = controlbus.CommandAwaitingApproval
	}
	f.commands = append([]controlbus.Command{c}, f.commands...)
	delete(f.drafts, draft)
	return c, nil
}

func (f *fakeCommands) Outcomes(_ context.Context, id controlbus.CommandID, after int64, limit int) ([]command.Outcome, int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []command.Outcome
	for _, o := range f.outcomes[id] {
		if o.Number > after && len(out) < limit {
			out = append(out, o)
		}
	}
	if len(out) == 0 {
		return nil, 0, nil
	}
	return out, out[len(out)-1].Number, nil
}

func (f *fakeCommands) OutcomesOf(_ context.Context, uid, messageID string, _ storage.TimeRange) ([]command.Outcome, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []command.Outcome
	for _, all := range f.outcomes {
		for _, o := range all {
			if uid != "" && o.UID == uid || messageID != "" && o.MessageID == messageID {
				out = append(out, o)
			}
		}
	}
	return out, nil
}

func (f *fakeCommands) Abilities(_ context.Context, env, broker string) []controlbus.Ability {
	if strings.HasPrefix(broker, "kafka") {
		return nil
	}
	return f.abilities
}

func (f *fakeCommands) Detours(context.Context) []command.DetourView {
	return slices.Clone(f.detours) // pages may sort it
}

// newCommands is a control bus on which much goes on.
func newCommands(at time.Time) *fakeCommands {
	f := &fakeCommands{
		events: map[controlbus.CommandID][]ledger.Event{}, outcomes: map[controlbus.CommandID][]command.Outcome{}, drafts: map[string]command.Draft{},
		policy: controlbus.ApproveByName, now: func() time.Time { return at },
	}
	store, _ := filled(at)
	f.sample = func(i int) controlbus.PreviewSample {
		stored := store.messages[i]
		s := controlbus.PreviewSample{UID: stored.UID.String(), MessageID: stored.MessageID, At: at.Add(-time.Duration(i*104) * time.Second), Size: int64(900 + i*37), ContentType: "application/json"}
		if i%3 == 0 {
			s.ErrorType, s.Excerpt = "GatewayTimeout", `{"orderId":"ORD-`+fmt.Sprint(7731904-i)+`","amount":{"value":"129.90","currency":"EUR"}}`
		}
		return s
	}
	for _, k := range controlbus.CommandKinds() {
		a := controlbus.Ability{Kind: k}
		if k == controlbus.CommandPause {
			a.Reason = "RabbitMQ 3.13 cannot pause consumers; a detour that holds does the same"
		}
		if k == controlbus.CommandDetour {
			a.Note = "queues that are bound to a named exchange"
		}
		f.abilities = append(f.abilities, a)
	}
	mara, jonas, li := controlbus.Actor{Kind: "user", ID: "u-mara", Name: "Mara Lindqvist"}, controlbus.Actor{Kind: "user", ID: "u-jonas", Name: "Jonas Weber"}, controlbus.Actor{Kind: "user", ID: "u-li", Name: "Li Chen"}
	n := 0
	add := func(kind controlbus.CommandKind, channel string, args any, by controlbus.Actor, reason string, ago time.Duration, state controlbus.CommandState, edit func(*controlbus.Command)) {
		n++
		raw, _ := json.Marshal(args)
		d := f.make(command.Request{Kind: kind, Env: "production", Broker: "rabbit-eu1", Channel: channel, Args: raw})
		delete(f.drafts, d.ID)
		c := controlbus.Command{CommandSpec: d.Spec, ID: cid(100 - n), Class: kind.Class(), Policy: controlbus.ApproveByName, RequestedBy: by, RequestedAt: at.Add(-ago), State: state, StateAt: at.Add(-ago + time.Second)}
		c.Reason, c.AcceptWithin, c.RunWithin, c.Seq = reason, 2*time.Minute, time.Hour, 4
		c.Preview.TakenAt = c.RequestedAt.Add(-30 * time.Second)
		if edit != nil {
			edit(&c)
		}
		f.commands = append(f.commands, c)
		start := c.RequestedAt
		ev := []ledger.Event{{Command: c.ID, N: 1, At: start, Type: ledger.EventRequested, Actor: by, Spec: &c.CommandSpec}}
		switch {
		case state == controlbus.CommandAwaitingApproval:
			ev = append(ev, ledger.Event{N: 2, At: start, Type: ledger.EventAwaiting})
		case state.Sent() || state.Result():
			ev = append(ev, ledger.Event{N: 2, At: start.Add(2 * time.Millisecond), Type: ledger.EventQueued}, ledger.Event{N: 3, At: start.Add(20 * time.Millisecond), Type: ledger.EventDispatched},
				ledger.Event{N: 4, At: start.Add(38 * time.Millisecond), Type: ledger.EventAccepted}, ledger.Event{N: 5, At: start.Add(time.Second), Type: ledger.EventProgress, Progress: &controlbus.CommandProgress{Counts: controlbus.Counts{Done: 20}, Total: 1204}},
				ledger.Event{N: 6, At: start.Add(2 * time.Second), Type: ledger.EventProgress, Progress: &controlbus.CommandProgress{Counts: controlbus.Counts{Done: 120}, Total: 1204}})
		}
		if state == controlbus.CommandUnconfirmed || state == controlbus.CommandIndeterminate {
			ev = append(ev, ledger.Event{N: 7, At: start.Add(90 * time.Second), Type: ledger.EventUnconfirmed, Detail: "no word for 90 s"})
		}
		if c.Result != nil {
			ev = append(ev, ledger.Event{N: 8, At: start.Add(24 * time.Second), Type: ledger.EventResult, Result: c.Result})
		}
		f.events[c.ID] = ev
	}
	job := controlbus.JobOptions{Rate: 50, Ramp: []int64{1, 10, 100}, StopRatio: .05, StopMin: 20}
	add(controlbus.CommandRedrive, "payments.capture.dlq", controlbus.RedriveArgs{Filter: "cause:GatewayTimeout", Job: job}, mara, "printer firmware fixed, INC-479", 100*time.Second, controlbus.CommandRunning, func(c *controlbus.Command) {
		c.Progress = controlbus.CommandProgress{Counts: controlbus.Counts{Matched: 1204, Done: 401, Failed: 8, Skipped: 3}, Total: 1204, Job: &controlbus.JobState{Sent: 401, Refailed: 3, Step: 3, Rate: 48.2}}
		c.ProgressAt = at.Add(-time.Second)
		c.Destination = &controlbus.ChannelName{Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Name: "payments.capture"}
	})
	add(controlbus.CommandReplay, "orders.placed", controlbus.ReplayArgs{Selection: &controlbus.Selection{Env: "production", Filter: "channel:orders.placed", From: at.Add(-time.Hour), To: at}, Job: job}, li, "ledger missed the hour", 3*time.Minute, controlbus.CommandRunning, func(c *controlbus.Command) {
		c.Progress = controlbus.CommandProgress{Counts: controlbus.Counts{Matched: 860, Done: 11}, Total: 860, Job: &controlbus.JobState{Sent: 11, Step: 1, Settling: true, Paused: true}}
		c.ProgressAt, c.Control = at.Add(-40*time.Second), controlbus.JobControl{Seq: 1, Rate: 20, Paused: true}
	})
	add(controlbus.CommandPurge, "carts.abandoned", controlbus.PurgeArgs{}, jonas, "consumer retired in October, nobody reads it", 7*time.Minute, controlbus.CommandAwaitingApproval, func(c *controlbus.Command) { c.Policy = controlbus.ApproveSecond })
	add(controlbus.CommandPurge, "orders.placed", controlbus.PurgeArgs{Filter: "attempts > 3"}, controlbus.Actor{Kind: "anonymous", ID: "anonymous", Name: "anonymous"}, "poisoned since the deploy", 9*time.Minute, controlbus.CommandAwaitingApproval, nil)
	add(controlbus.CommandPurge, "notifications.email", controlbus.PurgeArgs{NoBackup: true}, li, "test data", 23*time.Minute, controlbus.CommandUnconfirmed, func(c *controlbus.Command) {
		c.Progress, c.ProgressAt = controlbus.CommandProgress{Counts: controlbus.Counts{Matched: 1204, Done: 120}, Total: 1204}, at.Add(-22*time.Minute)
	})
	add(controlbus.CommandDiscard, "payments.capture.dlq", controlbus.DiscardArgs{Filter: "cause:CurrencyUnknown"}, mara, "currency was never valid", 50*time.Minute, controlbus.CommandIndeterminate, func(c *controlbus.Command) {
		c.Detail = "the agent began and did not finish; it was started anew"
		c.Progress = controlbus.CommandProgress{Counts: controlbus.Counts{Matched: 88, Done: 40}, Total: 88}
	})
	add(controlbus.CommandPurge, "orders.retry", controlbus.PurgeArgs{}, jonas, "retry storm", time.Hour, controlbus.CommandRejected, func(c *controlbus.Command) {
		c.Detail = "5120 messages are there, the preview expected at most 1250"
		c.Result = &controlbus.CommandResult{Outcome: controlbus.CommandRejected, Detail: c.Detail}
	})
	add(controlbus.CommandPurge, "carts.abandoned", controlbus.PurgeArgs{}, mara, "stale carts", 100*time.Minute, controlbus.CommandSucceeded, func(c *controlbus.Command) {
		c.Result = &controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Matched: 1204, Done: 1204}, Detail: "the channel was empty afterwards",
			Evidence: json.RawMessage(`{"depth_before":1204,"depth_after":0,"archive":"archive/019aa8c4","sha256":"8d21f0","steps":[{"at":1}]}`)}
		c.ApprovedBy, c.ApprovedAt = &jonas, c.RequestedAt.Add(time.Minute)
	})
	add(controlbus.CommandRedrive, "payments.capture.dlq", controlbus.RedriveArgs{Job: job}, li, "", 3*time.Hour, controlbus.CommandPartial, func(c *controlbus.Command) {
		c.Result = &controlbus.CommandResult{Outcome: controlbus.CommandPartial, Counts: controlbus.Counts{Matched: 860, Done: 412, Failed: 3, Skipped: 1}, Detail: "cancelled by Li Chen"}
		c.Progress.Job = &controlbus.JobState{Refailed: 3, Step: 3}
		c.CancelAsked, c.CancelReason = &li, "payments is deploying"
	})
	add(controlbus.CommandDetour, "orders.placed", controlbus.Detour{ID: "orders-schema", For: time.Hour, Steps: []controlbus.DetourStep{{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(`{"type":"object"}`)}}, {Headers: &controlbus.HeadersStep{Set: map[string]string{"x-checked": "yes"}, Remove: []string{"x-debug"}}}, {Hold: &controlbus.HoldStep{}}}}, mara, "orders without id since 2.31.0", 25*time.Minute, controlbus.CommandSucceeded, nil)
	add(controlbus.CommandTest, "orders.placed", controlbus.TestArgs{Run: "probe-1", Body: "{}"}, controlbus.Actor{Kind: "system", Name: "console"}, "probe checkout-path", 30*time.Second, controlbus.CommandSucceeded, nil)
	slices.SortStableFunc(f.commands, func(a, b controlbus.Command) int { return b.RequestedAt.Compare(a.RequestedAt) })
	for i := range f.commands { // ids sort by time
		old, id := f.commands[i].ID, cid(500-i)
		f.commands[i].ID = id
		f.events[id] = f.events[old]
		delete(f.events, old)
	}
	for i := range 120 {
		id := f.id(controlbus.CommandRunning, controlbus.CommandRedrive)
		o := command.Outcome{Command: id, Kind: controlbus.CommandRedrive, Number: int64(i + 1), At: at.Add(-time.Duration(i) * 200 * time.Millisecond), Outcome: "sent", UID: store.messages[i].UID.String(), MessageID: store.messages[i].MessageID, Source: "payments.capture.dlq"}
		switch i {
		case 3:
			o.Outcome, o.Detail = "failed", "unroutable"
		case 7:
			o.Outcome, o.Detail = "skipped", "it was redriven 3 times before"
		}
		f.outcomes[id] = append(f.outcomes[id], o)
	}
	detour := func(id, channel string, state controlbus.DetourState, until time.Duration, pause bool) command.DetourView {
		d := command.DetourView{Agent: "rabbit-eu1-a", Env: "production", Heard: at.Add(-2 * time.Second), DetourStatus: controlbus.DetourStatus{
			Detour: controlbus.Detour{ID: id, Owner: mara, Reason: "orders without id since 2.31.0", For: time.Hour, Pause: pause}, Broker: "rabbit-eu1", Channel: channel, Command: cid(498),
			State: state, Technique: "alternate-exchange gate", Since: at.Add(-25 * time.Minute), Until: at.Add(until), Backlog: 38, Parked: 12, In: 3412, Passed: 3362, Refused: 12, Rate: 22.4,
		}}
		if !pause {
			d.Detour.Steps = []controlbus.DetourStep{{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(`{"type":"object","required":["orderId"]}`)}}, {Rate: &controlbus.RateStep{PerSecond: 30}}}
		} else {
			d.Technique = "consumer pause"
		}
		return d
	}
	broken := detour("mail-check", "notifications.email", controlbus.DetourBroken, 2*time.Hour, false)
	broken.Error, broken.Notes, broken.Backlog = "step 1, http https://checks.example/mail: connection refused", []string{"a binding from exchange mail goes around the gate: messages on it are not led aside"}, 18402
	silent := detour("pack-pause", "carts.abandoned", controlbus.DetourOn, 12*time.Minute, true)
	silent.Heard = at.Add(-3 * time.Minute)
	f.detours = []command.DetourView{detour("orders-schema", "orders.placed", controlbus.DetourOn, 35*time.Minute, false), broken, silent}
	f.make(command.Request{Kind: controlbus.CommandPurge, Env: "production", Broker: "rabbit-eu1", Channel: "payments.capture.dlq"}) // draft-1
	hold, _ := json.Marshal(controlbus.Detour{ID: "orders-hold", For: time.Hour, Steps: []controlbus.DetourStep{{Hold: &controlbus.HoldStep{}}}})
	f.make(command.Request{Kind: controlbus.CommandDetour, Env: "production", Broker: "rabbit-eu1", Channel: "orders.placed", Args: hold}) // draft-2, without samples
	return f
}

// id finds a command by its state and kind.
func (f *fakeCommands) id(state controlbus.CommandState, kind controlbus.CommandKind) controlbus.CommandID {
	for _, c := range f.commands {
		if c.State == state && c.Kind == kind {
			return c.ID
		}
	}
	panic(fmt.Sprintf("no %s is %s", kind, state))
}

// controlPages are the pages of the control bus.
func controlPages(f *fakeCommands) map[string]string {
	at := func(state controlbus.CommandState, kind controlbus.CommandKind) string {
		return "/control/" + string(f.id(state, kind))
	}
	form := func(kind string) string {
		return "/control/new?env=production&broker=rabbit-eu1&system=rabbitmq&channel=payments.capture.dlq&kind=" + kind
	}
	return map[string]string{
		"control": "/control", "control-none": "/control?q=nowhere", "command-running": at(controlbus.CommandRunning, controlbus.CommandRedrive),
		"command-paused": at(controlbus.CommandRunning, controlbus.CommandReplay), "command-waiting": at(controlbus.CommandAwaitingApproval, controlbus.CommandPurge),
		"command-unconfirmed": at(controlbus.CommandUnconfirmed, controlbus.CommandPurge), "command-unknown": at(controlbus.CommandIndeterminate, controlbus.CommandDiscard),
		"command-refused": at(controlbus.CommandRejected, controlbus.CommandPurge), "command-done": at(controlbus.CommandSucceeded, controlbus.CommandPurge),
		"command-part": at(controlbus.CommandPartial, controlbus.CommandRedrive), "command-detour": at(controlbus.CommandSucceeded, controlbus.CommandDetour),
		"command-new": "/control/new", "audit": "/audit", "command-draft": "/control/drafts/draft-1", "command-draft-bare": "/control/drafts/draft-2",
		"form-purge": form("purge"), "form-redrive": form("redrive"), "form-replay": form("replay"), "form-test": form("test"), "form-pause": form("pause"),
		"form-detour": "/detours/new?env=production&broker=rabbit-eu1&channel=orders.placed&step=validate&step=headers&step=http&step=hold", "detours": "/detours",
	}
}

// Changed is never closed: nothing here changes by itself.
func (f *fakeCommands) Changed() <-chan struct{} { return nil }
