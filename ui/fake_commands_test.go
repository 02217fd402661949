package ui_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage"
)

const (
	purgeID   = controlbus.CommandID("0193a5c0ffee00000000000000000001")
	runningID = controlbus.CommandID("0193a5c0ffee00000000000000000002")
)

// fakeBus holds commands in memory: it carries out nothing, but keeps what it is
// asked for and answers as the service does.
type fakeBus struct {
	mu       sync.Mutex
	commands []controlbus.Command // newest first
	drafts   map[string]command.Draft
	asked    []command.Request
	ordered  []string
	said     []string
	err      error
	changed  chan struct{}
}

func newFakeBus() *fakeBus {
	orders := controlbus.ChannelName{Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Name: "orders.dead"}
	spec := controlbus.CommandSpec{
		Kind: controlbus.CommandPurge, Target: controlbus.Target{Agent: "rabbit-eu1-a", Channel: orders}, Args: json.RawMessage(`{"filter":"failed:true"}`),
		Reason: "poison", AcceptWithin: 2 * time.Minute, RunWithin: time.Hour,
	}
	spec.Preview = previewOf(&spec)
	done := controlbus.Command{
		CommandSpec: spec, ID: purgeID, Class: controlbus.EffectDestructive, Policy: controlbus.ApproveByName, RequestedBy: controlbus.Actor{Kind: "user", ID: "u1", Name: "mia"}, RequestedAt: now.Add(-time.Hour),
		State: controlbus.CommandSucceeded, StateAt: now.Add(-time.Hour), ApprovedBy: &controlbus.Actor{Kind: "user", ID: "u1", Name: "mia"}, ApprovedAt: now.Add(-time.Hour), Attempt: 1, Seq: 7,
		Result: &controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Matched: 1250, Done: 1250}, Detail: "1250 messages removed", Evidence: json.RawMessage(`{"before":1250,"after":0}`)},
	}
	redrive := spec
	redrive.Kind, redrive.Destination = controlbus.CommandRedrive, &controlbus.ChannelName{Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Name: "orders.placed"}
	redrive.Args = json.RawMessage(`{"job":{"rate":50,"ramp":[1,10],"settle_ns":3000000000}}`)
	redrive.Preview = previewOf(&redrive)
	running := controlbus.Command{
		CommandSpec: redrive, ID: runningID, Class: controlbus.EffectAdditive, Policy: controlbus.ApproveNone, RequestedBy: controlbus.Actor{Kind: "token", ID: "u2", Name: "script"}, RequestedAt: now.Add(-time.Minute),
		State: controlbus.CommandRunning, StateAt: now.Add(-time.Minute), Attempt: 1, Seq: 6, ProgressSeq: 3, ProgressAt: now.Add(-time.Second), Control: controlbus.JobControl{Seq: 1, Rate: 40},
		Progress: controlbus.CommandProgress{Counts: controlbus.Counts{Matched: 100, Done: 60, Failed: 2}, Total: 100, Note: "step 3", Job: &controlbus.JobState{Sent: 60, Refailed: 2, Step: 2, Rate: 19, Control: 1}},
	}
	return &fakeBus{commands: []controlbus.Command{running, done}, drafts: map[string]command.Draft{}, changed: make(chan struct{})}
}

func previewOf(s *controlbus.CommandSpec) *controlbus.Preview {
	p := &controlbus.Preview{
		TakenAt: now, Env: s.Target.Channel.Env, Effect: "1,250 messages are removed from orders.dead", Count: 1250, Oldest: now.Add(-time.Hour), Newest: now.Add(-time.Minute), Destination: s.Destination,
		Samples:    []controlbus.PreviewSample{{UID: "00000000000000000000000000000001", MessageID: "m-1", At: now.Add(-time.Hour), Size: 412, ErrorType: "Timeout", Excerpt: `{"order":1}`}},
		Reversible: controlbus.ReversiblePartly, Undo: "they are sent again from the agent's copy", Technique: "consume and acknowledge", Impact: []string{"order is lost"}, Needs: []string{"read"},
		Expect: controlbus.Expect{MaxCount: 1250},
	}
	p.Seal(s.Kind, s.Target, s.Args)
	return p
}

func (f *fakeBus) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// change does something to the newest command and tells.
func (f *fakeBus) change(id controlbus.CommandID, do func(c *controlbus.Command)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.commands {
		if f.commands[i].ID == id {
			f.commands[i].Seq++
			do(&f.commands[i])
		}
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeBus) Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	who, _ := access.From(ctx)
	for _, c := range f.commands {
		if c.ID == id && who.Can(access.ViewMetadata, c.Target.Channel.Env, c.Target.Channel.Name) {
			return c, f.err
		}
	}
	return controlbus.Command{}, controlbus.ErrNotFound
}

func (f *fakeBus) Events(ctx context.Context, id controlbus.CommandID) ([]ledger.Event, error) {
	c, err := f.Command(ctx, id)
	return []ledger.Event{
		{N: 1, At: c.RequestedAt, Type: ledger.EventRequested, Actor: c.RequestedBy},
		{N: 2, At: c.RequestedAt, Type: ledger.EventProgress, Actor: controlbus.Actor{Kind: "agent", Name: "rabbit-eu1-a"}, Progress: &c.Progress},
		{N: 3, At: c.RequestedAt, Type: ledger.EventControl, Actor: c.RequestedBy, Detail: "pause", Control: &controlbus.JobControl{Seq: 1, Paused: true}},
		{N: 4, At: c.RequestedAt, Type: ledger.EventResult, Actor: controlbus.Actor{Kind: "agent", Name: "rabbit-eu1-a"}, Result: c.Result},
	}, err
}

func (f *fakeBus) Commands(ctx context.Context, q ledger.Query) ([]controlbus.Command, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	who, _ := access.From(ctx)
	q.Scope = who.Scope(access.ViewMetadata)
	var out []controlbus.Command
	for i := range f.commands {
		if c := &f.commands[i]; q.Matches(c) && (q.Limit == 0 || len(out) < q.Limit) {
			out = append(out, *c)
		}
	}
	return out, f.err
}

func (f *fakeBus) Preview(_ context.Context, q command.Request) (command.Draft, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, q)
	switch {
	case f.err != nil:
		return command.Draft{}, f.err
	case q.Channel == "refuses":
		return command.Draft{}, fmt.Errorf("%w: a stream cannot be purged by filter", controlbus.ErrUnsupported)
	}
	s := controlbus.CommandSpec{
		Kind: q.Kind, Target: controlbus.Target{Agent: "rabbit-eu1-a", Channel: controlbus.ChannelName{Env: "production", System: "rabbitmq", Broker: q.Broker, Name: q.Channel}},
		Destination: q.Destination, Args: q.Args, AcceptWithin: controlbus.DefaultAcceptWithin, RunWithin: controlbus.DefaultRunWithin, UndoOf: q.UndoOf,
	}
	s.Preview = previewOf(&s)
	d := command.Draft{ID: fmt.Sprintf("D%d", len(f.drafts)+1), Expires: now.Add(controlbus.PreviewMaxAge), Spec: s, Policy: controlbus.ApproveByName}
	f.drafts[d.ID] = d
	return d, nil
}

func (f *fakeBus) PreviewUndo(ctx context.Context, id controlbus.CommandID, o controlbus.JobOptions) (command.Draft, error) {
	c, err := f.Command(ctx, id)
	if err != nil {
		return command.Draft{}, err
	}
	if _, err := c.Undoable(); err != nil {
		return command.Draft{}, err
	}
	args, _ := json.Marshal(controlbus.ReplayArgs{Job: o})
	return f.Preview(ctx, command.Request{Kind: controlbus.CommandReplay, Broker: c.Target.Channel.Broker, Channel: c.Target.Channel.Name, Args: args, UndoOf: id})
}

func (f *fakeBus) Draft(_ context.Context, id string) (command.Draft, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.drafts[id]
	if !ok {
		return d, controlbus.ErrNotFound
	}
	return d, nil
}

func (f *fakeBus) Order(ctx context.Context, draft, reason, typed string) (controlbus.Command, error) {
	d, err := f.Draft(ctx, draft)
	if err != nil {
		return controlbus.Command{}, err
	}
	if i := slices.Index(f.ordered, draft); i >= 0 {
		return f.Command(ctx, orderedID(i))
	}
	if typed != d.Spec.Target.Channel.Name {
		return controlbus.Command{}, fmt.Errorf("%w: type the channel's name", controlbus.ErrInvalid)
	}
	who, _ := access.From(ctx)
	d.Spec.Reason = reason
	c := controlbus.Command{
		CommandSpec: d.Spec, ID: orderedID(len(f.ordered)), Class: d.Spec.Kind.Class(), Policy: d.Policy,
		RequestedBy: controlbus.Actor{Kind: string(who.Kind), ID: who.Person(), Name: who.Name}, RequestedAt: now, State: controlbus.CommandQueued, StateAt: now, Seq: 3,
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ordered = append(f.ordered, draft)
	f.commands = append([]controlbus.Command{c}, f.commands...)
	return c, nil
}

func orderedID(n int) controlbus.CommandID {
	return controlbus.CommandID(fmt.Sprintf("0193a5c0ffee000000000000000001%02d", n))
}

func (f *fakeBus) Outcomes(ctx context.Context, id controlbus.CommandID, after int64, limit int) ([]command.Outcome, int64, error) {
	c, err := f.Command(ctx, id)
	var out []command.Outcome
	for n := after + 1; err == nil && n <= 5 && len(out) < limit; n++ {
		out = append(out, command.Outcome{Command: id, Kind: c.Kind, Number: n, At: now, Outcome: "sent", MessageID: fmt.Sprint("m-", n), Source: "orders.dead", Broker: "rabbit-eu1", Destination: "orders.placed"})
	}
	if len(out) == limit && err == nil {
		return out, after + int64(limit), nil
	}
	return out, 0, err
}

func (f *fakeBus) Abilities(_ context.Context, _, broker string) []controlbus.Ability {
	if broker != "rabbit-eu1" {
		return nil
	}
	return []controlbus.Ability{{Kind: controlbus.CommandPurge, Note: "queues"}, {Kind: controlbus.CommandPause, Reason: "this broker cannot stop consumers"}}
}

func (f *fakeBus) Detours(context.Context) []command.DetourView {
	status := controlbus.DetourStatus{
		Broker: "rabbit-eu1", Channel: "payments.capture", Command: runningID, State: controlbus.DetourOn, Technique: "alternate-exchange gate", Since: now, Until: now.Add(time.Hour), Backlog: 12, Parked: -1, In: 100, Passed: 88, Rate: 4.5,
		Detour: controlbus.Detour{
			ID: "check", Owner: controlbus.Actor{Kind: "user", ID: "u1", Name: "mia"}, For: time.Hour, OnFailure: controlbus.DetourPark,
			Steps: []controlbus.DetourStep{{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(`{"type":"object"}`)}}, {HTTP: &controlbus.HTTPStep{URL: "http://127.0.0.1:9/x", Timeout: 3 * time.Second, Retries: 2}}, {Hold: &controlbus.HoldStep{}}},
		},
	}
	return []command.DetourView{{Agent: "rabbit-eu1-a", Env: "production", Heard: now, DetourStatus: status}}
}

func (f *fakeBus) say(ctx context.Context, id controlbus.CommandID, format string, a ...any) (controlbus.Command, error) {
	c, err := f.Command(ctx, id)
	if err == nil {
		f.mu.Lock()
		f.said = append(f.said, fmt.Sprintf(format, a...))
		f.mu.Unlock()
	}
	return c, err
}

func (f *fakeBus) Approve(ctx context.Context, id controlbus.CommandID, fingerprint string) (controlbus.Command, error) {
	return f.say(ctx, id, "approve %s", fingerprint)
}

func (f *fakeBus) Refuse(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error) {
	return f.say(ctx, id, "refuse %s", reason)
}

func (f *fakeBus) Cancel(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error) {
	return f.say(ctx, id, "cancel %s", reason)
}

func (f *fakeBus) Abandon(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error) {
	return f.say(ctx, id, "abandon %s", reason)
}

func (f *fakeBus) Control(ctx context.Context, id controlbus.CommandID, rate *float64, paused *bool) (controlbus.Command, error) {
	text := "control"
	if rate != nil {
		text += fmt.Sprintf(" rate %g", *rate)
	}
	if paused != nil {
		text += fmt.Sprintf(" paused %v", *paused)
	}
	return f.say(ctx, id, "%s", text)
}

func (f *fakeBus) OutcomesOf(context.Context, string, string, storage.TimeRange) ([]command.Outcome, error) {
	return nil, nil
}
