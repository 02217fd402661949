package detour

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// life is one run of an agent's manager.
type life struct {
	t    *testing.T
	m    *Manager
	stop context.CancelFunc
	done chan struct{}
}

func begin(t *testing.T, dir string, a agents.Adapter, allow ...string) *life {
	t.Helper()
	return beginWith(t, Config{Dir: dir, Agent: "agent-1", Env: "test", HTTPAllow: allow, Log: slog.New(slog.DiscardHandler), Broker: func(name string) (agents.Adapter, bool) {
		return a, name == "mem"
	}})
}

func beginWith(t *testing.T, c Config) *life {
	t.Helper()
	if c.Allow == nil {
		c.Allow = allowed
	}
	m, err := New(c)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	l := &life{t, m, stop, make(chan struct{})}
	go func() {
		defer close(l.done)
		_ = m.Run(ctx)
	}()
	return l
}

func (l *life) end() {
	l.stop()
	<-l.done
}

var allowed = []link.AllowRule{{Broker: "*", Channel: "*"}}

var number = 0

func orderOf(kind controlbus.CommandKind, channel string, args any) link.Dispatch {
	raw, err := json.Marshal(args)
	if err != nil {
		panic(err)
	}
	number++
	return link.Dispatch{
		Command: controlbus.CommandID(fmt.Sprintf("%032x", number)), Kind: kind, Args: raw,
		Target: controlbus.Target{Agent: "agent-1", Channel: controlbus.ChannelName{Env: "test", Broker: "mem", Name: channel}},
	}
}

func (l *life) do(d link.Dispatch) controlbus.CommandResult {
	return l.doWithin(d, time.Minute)
}

func (l *life) doWithin(d link.Dispatch, within time.Duration) controlbus.CommandResult {
	ctx, cancel := context.WithTimeoutCause(l.t.Context(), within, link.ErrOverdue)
	defer cancel()
	tell := func(context.Context, controlbus.CommandProgress) {}
	switch d.Kind {
	case controlbus.CommandDetour:
		return l.m.makeDetour(ctx, d, false)
	case controlbus.CommandPause:
		return l.m.makePause(ctx, d)
	case controlbus.CommandResume:
		return l.m.endPause(ctx, d, false, tell)
	}
	return l.m.end(ctx, d, false, tell)
}

// succeed orders and fails the test for any other outcome.
func (l *life) succeed(d link.Dispatch) controlbus.CommandResult {
	l.t.Helper()
	r := l.do(d)
	if r.Outcome != controlbus.CommandSucceeded {
		l.t.Fatalf("%s: got %s: %s", d.Kind, r.Outcome, r.Detail)
	}
	return r
}

// refuse orders what must be refused with a reason.
func (l *life) refuse(d link.Dispatch, want string) {
	l.t.Helper()
	before := len(l.m.Statuses())
	r := l.do(d)
	if r.Outcome != controlbus.CommandRejected || !strings.Contains(r.Detail, want) {
		l.t.Errorf("%s: got %s: %s; want rejected: %s", d.Kind, r.Outcome, r.Detail, want)
	}
	if n := len(l.m.Statuses()); n != before {
		l.t.Errorf("%s: a refused order left %d detours, %d before", d.Kind, n, before)
	}
}

func (l *life) status(id string) controlbus.DetourStatus {
	for _, s := range l.m.Statuses() {
		if s.Detour.ID == id {
			return s
		}
	}
	return controlbus.DetourStatus{}
}

func msgs(from, to int) []*agents.Message {
	var list []*agents.Message
	for i := from; i < to; i++ {
		list = append(list, &agents.Message{MessageID: fmt.Sprintf("m%d", i), Body: fmt.Appendf(nil, `{"n":%d}`, i)})
	}
	return list
}

func bodies(list []*agents.Message) []string {
	var all []string
	for _, m := range list {
		all = append(all, string(m.Body))
	}
	return all
}

// wantMessages fails unless the channel has the numbers, in order.
func wantMessages(t *testing.T, mem *agenttest.Memory, channel string, numbers ...int) {
	t.Helper()
	var want []string
	for _, n := range numbers {
		want = append(want, fmt.Sprintf(`{"n":%d}`, n))
	}
	if got := bodies(mem.Waiting(channel)); !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", channel, got, want)
	}
}

func simple(id string, steps ...controlbus.DetourStep) controlbus.Detour {
	if len(steps) == 0 {
		steps = []controlbus.DetourStep{{Headers: &controlbus.HeadersStep{Set: map[string]string{"seen": "yes"}}}}
	}
	return controlbus.Detour{ID: id, For: time.Hour, Steps: steps}
}

var hold = controlbus.DetourStep{Hold: &controlbus.HoldStep{}}

// nothingLeft fails unless the broker is as it was.
func nothingLeft(t *testing.T, mem *agenttest.Memory, channels ...string) {
	t.Helper()
	if g := mem.Gates(); len(g) != 0 {
		t.Errorf("gates are left: %v", g)
	}
	slices.Sort(channels)
	if got := mem.Channels(); !slices.Equal(got, channels) {
		t.Errorf("channels: got %v, want %v", got, channels)
	}
}

func TestDetourByGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, dir := agenttest.NewMemory("orders"), t.TempDir()
		l := begin(t, dir, mem.Adapter())
		mem.Publish("orders", msgs(0, 1)...)
		d := orderOf(controlbus.CommandDetour, "orders", simple("d1"))
		d.Expect = &controlbus.Expect{Topology: "gate false"}
		l.succeed(d)
		if s := l.status("d1"); s.State != controlbus.DetourOn || s.Technique != "memory detour" || time.Until(s.Until) != time.Hour {
			t.Errorf("status: %+v", s)
		}
		mem.Publish("orders", msgs(1, 300)...)
		time.Sleep(2 * time.Second)
		got := mem.Waiting("orders")
		if len(got) != 300 {
			t.Fatalf("%d messages, want 300", len(got))
		}
		for i, m := range got {
			if want := fmt.Sprintf(`{"n":%d}`, i); string(m.Body) != want {
				t.Fatalf("message %d: got %s", i, m.Body)
			}
			through := i > 0
			if (m.Header("seen") == "yes") != through || strings.HasPrefix(m.Header(controlbus.HeaderDetour), "d1:") != through || strings.HasPrefix(m.Header(controlbus.HeaderHops), "agent-1@orders;") != through {
				t.Fatalf("message %d: headers %v", i, m.Headers)
			}
		}
		mem.Bypass("orders", "binding x -> orders")
		time.Sleep(6 * time.Second)
		if s := l.status("d1"); s.In != 299 || s.Passed != 299 || s.Refused != 0 || s.Backlog != 0 || len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "x -> orders") {
			t.Errorf("status: %+v", s)
		}
		mem.Bypass("orders")
		r := l.succeed(orderOf(controlbus.CommandUndetour, "orders", controlbus.UndetourArgs{ID: "d1"}))
		if !strings.Contains(r.Detail, "removed") {
			t.Error(r.Detail)
		}
		nothingLeft(t, mem, "orders")
		if n := len(l.m.Statuses()); n != 0 {
			t.Errorf("%d detours are left", n)
		}
		l.refuse(orderOf(controlbus.CommandUndetour, "orders", controlbus.UndetourArgs{ID: "d1"}), "no such detour")
		l.end()
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders", "other", "to")
		a := mem.Adapter()
		l := begin(t, t.TempDir(), a)
		defer l.end()
		det := func(channel string, d controlbus.Detour) link.Dispatch {
			return orderOf(controlbus.CommandDetour, channel, d)
		}
		with := func(change func(*controlbus.Detour)) controlbus.Detour {
			d := simple("x")
			change(&d)
			return d
		}
		l.refuse(det("none", simple("x")), "not found")
		l.refuse(det("orders", simple("x", controlbus.DetourStep{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(`{"type":"no"}`)}})), "JSON Schema cannot be used")
		l.refuse(det("orders", simple("x", controlbus.DetourStep{HTTP: &controlbus.HTTPStep{URL: "https://example.com/"}})), "http_allow")
		l.refuse(det("orders", simple("x", controlbus.DetourStep{Copy: &controlbus.CopyStep{Channel: "nowhere"}})), `"nowhere": not found`)
		l.refuse(det("orders", simple("x", controlbus.DetourStep{Copy: &controlbus.CopyStep{Channel: "orders"}})), "the detour itself")
		l.refuse(det("orders", with(func(d *controlbus.Detour) { d.To = "orders" })), "the detour itself")
		l.refuse(det("orders", with(func(d *controlbus.Detour) { d.Park = "nowhere" })), "park")
		l.refuse(det("orders", with(func(d *controlbus.Detour) { d.Filter = "(((" })), "filter")
		l.refuse(det("orders", with(func(d *controlbus.Detour) { d.Steps = nil })), "0 steps")
		l.m.cfg.Allow = []link.AllowRule{{Kinds: []controlbus.CommandKind{controlbus.CommandDetour}, Broker: "mem", Channel: "o*"}}
		l.refuse(det("orders", with(func(d *controlbus.Detour) { d.To = "to" })), `does not allow detours on "to"`)
		l.m.cfg.Allow = allowed
		d := det("orders", simple("x"))
		d.Expect = &controlbus.Expect{Topology: "another"}
		l.refuse(d, "topology has changed")
		d = det("orders", simple("x"))
		d.Target.Channel.Broker = "nobody"
		l.refuse(d, `no broker "nobody"`)
		d = det("orders", simple("x"))
		d.Args = json.RawMessage(`{"id":5}`)
		l.refuse(d, "arguments")
		nothingLeft(t, mem, "orders", "other", "to")

		l.succeed(det("orders", simple("x")))
		l.refuse(det("orders", simple("y")), "has detour x already")
		l.refuse(det("other", simple("x")), "detour x is of channel orders")
		l.refuse(det("orders", with(func(d *controlbus.Detour) { d.To = "to" })), "remove it first")
		l.refuse(orderOf(controlbus.CommandPause, "orders", controlbus.PauseArgs{For: time.Minute}), "has detour x already")
		l.refuse(orderOf(controlbus.CommandUndetour, "other", controlbus.UndetourArgs{ID: "x"}), "is of channel orders")
		l.refuse(orderOf(controlbus.CommandResume, "orders", nil), "undetour ends it")
		l.succeed(orderOf(controlbus.CommandUndetour, "orders", nil))
		a.NoGate = true
		l.refuse(det("orders", simple("x")), "or name the channel where messages are to go on")
		a.NoPause = true
		l.refuse(orderOf(controlbus.CommandPause, "orders", controlbus.PauseArgs{For: time.Minute}), "no way to detour")
		l.refuse(orderOf(controlbus.CommandPause, "orders", controlbus.PauseArgs{For: 48 * time.Hour}), "a pause of 48h")
	})
}

func TestUpdateKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders")
		l := begin(t, t.TempDir(), mem.Adapter())
		defer l.end()
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d", hold)))
		mem.Publish("orders", msgs(0, 10)...)
		time.Sleep(time.Minute)
		wantMessages(t, mem, "orders")
		if s := l.status("d"); s.Backlog != 10 || s.State != controlbus.DetourOn {
			t.Errorf("held: %+v", s)
		}
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d")))
		mem.Publish("orders", msgs(10, 20)...)
		time.Sleep(time.Second)
		wantMessages(t, mem, "orders", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
		if left := time.Until(l.status("d").Until); left < 59*time.Minute {
			t.Errorf("its time did not begin anew: %v left", left)
		}
	})
}

func TestParkAndLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders")
		l := begin(t, t.TempDir(), mem.Adapter())
		schema := controlbus.DetourStep{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(`{"properties":{"n":{"not":{"multipleOf":3}}}}`)}}
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d", schema)))
		mem.Publish("orders", msgs(1, 8)...)
		time.Sleep(time.Second)
		wantMessages(t, mem, "orders", 1, 2, 4, 5, 7)
		wantMessages(t, mem, "sb.park.d", 3, 6)
		// One that went through comes back by its application: it goes no second time.
		mem.Publish("orders", mem.Waiting("orders")[0])
		time.Sleep(6 * time.Second)
		wantMessages(t, mem, "sb.park.d", 3, 6, 1)
		for i, want := range []string{"validate", "validate", "loop guard"} {
			p := mem.Waiting("sb.park.d")[i]
			if p.Header(controlbus.HeaderParkStep) != want || p.Header(controlbus.HeaderParkReason) == "" || !strings.HasPrefix(p.Header(controlbus.HeaderDetour), "d:") {
				t.Errorf("parked %d: %v", i, p.Headers)
			}
		}
		if s := l.status("d"); s.Refused != 3 || s.Passed != 5 || s.In != 8 || s.Parked != 3 {
			t.Errorf("status: %+v", s)
		}
		mem.Publish("orders", msgs(9, 10)...) // parked after the last look
		if res := l.succeed(orderOf(controlbus.CommandUndetour, "orders", nil)); !strings.HasSuffix(res.Detail, "parked in sb.park.d: 4") {
			t.Errorf("its last word: %q", res.Detail)
		}
		nothingLeft(t, mem, "orders", "sb.park.d") // it has messages
		if in, err := mem.Adapter().Intake(t.Context(), "sb.park.d", agents.IntakeOptions{}); err != nil {
			t.Fatal(err)
		} else if got, err := in.Next(t.Context(), 10); err != nil || in.Accept(t.Context(), got) != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * sweepEvery)
		nothingLeft(t, mem, "orders")
		l.end()
	})
}

func TestBypass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders", "audit")
		l := begin(t, t.TempDir(), mem.Adapter())
		defer l.end()
		d := simple("d", controlbus.DetourStep{Headers: &controlbus.HeadersStep{Set: map[string]string{"seen": "yes"}}}, controlbus.DetourStep{Copy: &controlbus.CopyStep{Channel: "audit"}},
			controlbus.DetourStep{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(`{"properties":{"n":{"minimum":2}}}`)}})
		d.OnFailure, d.Filter = controlbus.DetourBypass, "message_id != m0"
		l.succeed(orderOf(controlbus.CommandDetour, "orders", d))
		mem.Publish("orders", msgs(0, 3)...)
		time.Sleep(time.Second)
		wantMessages(t, mem, "orders", 0, 1, 2)
		wantMessages(t, mem, "audit", 1, 2)
		var seen []string
		for _, m := range mem.Waiting("orders") {
			seen = append(seen, m.Header("seen"))
		}
		if want := []string{"", "", "yes"}; !slices.Equal(seen, want) {
			t.Errorf("went through the steps: got %q, want %q", seen, want)
		}
		if s := l.status("d"); s.In != 3 || s.Passed != 3 || s.Refused != 1 || s.Copied != 2 {
			t.Errorf("status: %+v", s)
		}
		mem.Drop("audit") // an unroutable copy is a failed step
		mem.Publish("orders", msgs(5, 6)...)
		time.Sleep(time.Second)
		wantMessages(t, mem, "orders", 0, 1, 2, 5)
	})
}

func TestHoldWithFilter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders")
		l := begin(t, t.TempDir(), mem.Adapter())
		defer l.end()
		d := simple("d", hold)
		d.Filter = "message_id = 'm1' OR message_id = 'm3'"
		l.succeed(orderOf(controlbus.CommandDetour, "orders", d))
		mem.Publish("orders", msgs(0, 5)...)
		time.Sleep(time.Second)
		wantMessages(t, mem, "orders", 0, 2, 4)
		wantMessages(t, mem, "sb.park.d-hold", 1, 3)
		l.succeed(orderOf(controlbus.CommandUndetour, "orders", controlbus.UndetourArgs{ID: "d"}))
		wantMessages(t, mem, "orders", 0, 2, 4, 1, 3)
		nothingLeft(t, mem, "orders")

		// Other steps without hold let go what is held; a plain hold does at its end.
		l.succeed(orderOf(controlbus.CommandDetour, "orders", d))
		mem.Publish("orders", msgs(1, 2)...)
		time.Sleep(time.Second)
		wantMessages(t, mem, "sb.park.d-hold", 1)
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d")))
		time.Sleep(time.Second)
		wantMessages(t, mem, "orders", 0, 2, 4, 1, 3, 1)
		l.succeed(orderOf(controlbus.CommandDetour, "orders", d))
		mem.Publish("orders", msgs(3, 4)...)
		time.Sleep(time.Second)
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d", hold)))
		mem.Publish("orders", msgs(7, 8)...)
		time.Sleep(time.Second)
		wantMessages(t, mem, "orders", 0, 2, 4, 1, 3, 1)
		l.succeed(orderOf(controlbus.CommandUndetour, "orders", controlbus.UndetourArgs{ID: "d"}))
		if n := len(mem.Waiting("orders")); n != 8 {
			t.Errorf("%d messages, want 8", n)
		}
		nothingLeft(t, mem, "orders")
	})
}

// limited is an adapter without gates and pauses.
type limited struct {
	agents.Adapter
	agents.Taker
	agents.Sender
	agents.Inspector
	agents.Parker
}

func TestJunctionWithChannelStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("in", "out", "work", "back")
		a := mem.Adapter()
		l := begin(t, t.TempDir(), limited{a, a, a, a, a})
		defer l.end()
		step := controlbus.DetourStep{Channel: &controlbus.ChannelStep{Send: "work", Receive: "back"}}
		l.refuse(orderOf(controlbus.CommandDetour, "in", simple("j", step)), "junction: name the channel")
		l.refuse(orderOf(controlbus.CommandPause, "in", controlbus.PauseArgs{For: time.Minute}), "neither")
		d := simple("j", step, controlbus.DetourStep{Headers: &controlbus.HeadersStep{Set: map[string]string{"after": "yes"}}})
		d.To = "out"
		l.succeed(orderOf(controlbus.CommandDetour, "in", d))
		// The user's own program: it drops headers, and one message.
		ctx, cancel := context.WithCancel(t.Context())
		worker, done := mem.Adapter(), make(chan struct{})
		go func() {
			defer close(done)
			in, _ := worker.Intake(ctx, "work", agents.IntakeOptions{Follow: true})
			out, _ := worker.Outlet(ctx, "back")
			for {
				list, err := in.Next(ctx, 1)
				if err != nil {
					return
				}
				time.Sleep(time.Second)
				if list[0].MessageID != "m2" {
					_ = out.Send(ctx, []*agents.Message{{MessageID: list[0].MessageID, Body: list[0].Body}})
				}
				_ = in.Accept(ctx, list)
			}
		}()
		other := d
		other.Steps = d.Steps[1:]
		l.refuse(orderOf(controlbus.CommandDetour, "in", other), "on their way")
		mem.Publish("in", msgs(0, 5)...)
		time.Sleep(500 * time.Millisecond)
		l.succeed(orderOf(controlbus.CommandUndetour, "in", controlbus.UndetourArgs{ID: "j"}))
		cancel()
		<-done
		wantMessages(t, mem, "out", 0, 1, 3, 4)
		for _, m := range mem.Waiting("out") {
			if m.Header("after") != "yes" || !strings.HasPrefix(m.Header(controlbus.HeaderDetour), "j:") || m.Header(controlbus.HeaderHops) == "" {
				t.Errorf("headers: %v", m.Headers)
			}
		}
		nothingLeft(t, mem, "in", "out", "work", "back")
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders")
		a := mem.Adapter()
		l := begin(t, t.TempDir(), a)
		defer l.end()
		l.succeed(orderOf(controlbus.CommandPause, "orders", controlbus.PauseArgs{For: time.Minute}))
		if until := mem.PausedUntil("orders"); time.Until(until) != time.Minute {
			t.Errorf("paused until %v", until)
		}
		l.succeed(orderOf(controlbus.CommandPause, "orders", controlbus.PauseArgs{For: time.Hour}))
		if until := mem.PausedUntil("orders"); time.Until(until) != time.Hour {
			t.Errorf("paused again until %v", until)
		}
		l.succeed(orderOf(controlbus.CommandResume, "orders", nil))
		if until := mem.PausedUntil("orders"); !until.IsZero() || len(l.m.Statuses()) != 0 {
			t.Errorf("resumed: until %v, %v", until, l.m.Statuses())
		}
		l.succeed(orderOf(controlbus.CommandResume, "orders", nil)) // whoever paused it

		a.NoPause = true // a gate that holds, then
		l.refuse(orderOf(controlbus.CommandPause, "orders", controlbus.PauseArgs{For: time.Minute, Consumer: "c1"}), "one consumer")
		l.succeed(orderOf(controlbus.CommandPause, "orders", controlbus.PauseArgs{For: time.Minute}))
		mem.Publish("orders", msgs(0, 3)...)
		time.Sleep(30 * time.Second)
		wantMessages(t, mem, "orders")
		if s := l.m.Statuses()[0]; !s.Detour.Pause || s.Backlog != 3 || s.State != controlbus.DetourOn {
			t.Errorf("status: %+v", s)
		}
		time.Sleep(35 * time.Second) // it ends by itself
		wantMessages(t, mem, "orders", 0, 1, 2)
		nothingLeft(t, mem, "orders")
	})
}

func TestExpiresWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, dir := agenttest.NewMemory("orders"), t.TempDir()
		a := mem.Adapter()
		l := begin(t, dir, a)
		d := simple("d", hold)
		d.For = time.Minute
		l.succeed(orderOf(controlbus.CommandDetour, "orders", d))
		mem.Publish("orders", msgs(0, 2)...)
		time.Sleep(20 * time.Second)
		l.end()
		a.Kill()
		time.Sleep(20 * time.Second)
		l = begin(t, dir, mem.Adapter())
		time.Sleep(15 * time.Second)
		if s := l.status("d"); s.State != controlbus.DetourOn || time.Until(s.Until) != 5*time.Second {
			t.Errorf("after the start: %s until %v", s.State, time.Until(s.Until))
		}
		l.end()
		time.Sleep(time.Hour)
		l = begin(t, dir, mem.Adapter())
		time.Sleep(2 * time.Second)
		wantMessages(t, mem, "orders", 0, 1)
		nothingLeft(t, mem, "orders")
		l.end()
	})
}

// TestBroken looks at what people are told when it does not go on, and that it
// goes on when it can.
func TestBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders")
		a := mem.Adapter()
		var away, noGate atomic.Pointer[error]
		a.Script = func(verb, channel string, after bool) error {
			if err := away.Load(); err != nil && verb != "PlanCommand" {
				return *err
			}
			if err := noGate.Load(); err != nil && verb == "SetGate" && !after {
				return *err
			}
			return nil
		}
		fail := func(p *atomic.Pointer[error], err error) { p.Store(&err) }
		l := begin(t, t.TempDir(), a)
		defer l.end()
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d")))
		fail(&away, agents.ErrNotConnected)
		mem.Publish("orders", msgs(0, 3)...)
		time.Sleep(20 * time.Second)
		if s := l.status("d"); s.State != controlbus.DetourOn || !strings.Contains(s.Error, "not connected") {
			t.Errorf("after 20s: %s %q", s.State, s.Error)
		}
		time.Sleep(30 * time.Second)
		if s := l.status("d"); s.State != controlbus.DetourBroken || !strings.Contains(s.Error, "wait in the backlog") {
			t.Errorf("after 50s: %s %q", s.State, s.Error)
		}
		r := l.doWithin(orderOf(controlbus.CommandUndetour, "orders", nil), 10*time.Second)
		if r.Outcome != controlbus.CommandPartial || !strings.Contains(r.Detail, "background") {
			t.Errorf("undetour of a broker that is away: %s: %s", r.Outcome, r.Detail)
		}
		away.Store(nil)
		time.Sleep(10 * time.Second)
		wantMessages(t, mem, "orders", 0, 1, 2)
		nothingLeft(t, mem, "orders")

		// A new one that cannot be is taken back.
		fail(&away, controlbus.ErrDenied)
		r = l.do(orderOf(controlbus.CommandDetour, "orders", simple("e")))
		if r.Outcome == controlbus.CommandSucceeded {
			t.Errorf("got %s: %s", r.Outcome, r.Detail)
		}
		away.Store(nil)
		fail(&noGate, controlbus.ErrDenied)
		r = l.do(orderOf(controlbus.CommandDetour, "orders", simple("e")))
		if r.Outcome != controlbus.CommandFailed && r.Outcome != controlbus.CommandPartial || !strings.Contains(r.Detail, "denied") {
			t.Errorf("got %s: %s", r.Outcome, r.Detail)
		}
		time.Sleep(10 * time.Second)
		nothingLeft(t, mem, "orders")
		if n := len(l.m.Statuses()); n != 0 {
			t.Errorf("%d detours are left", n)
		}
	})
}

// A gate at which messages are lost is not left on.
func TestLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders")
		l := begin(t, t.TempDir(), mem.Adapter())
		defer l.end()
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d", hold)))
		mem.Publish("orders", msgs(0, 2)...)
		wantMessages(t, mem, "orders")
		mem.Leak("orders", "queue mirror")
		time.Sleep(10 * time.Second)
		mem.Publish("orders", msgs(2, 4)...)
		wantMessages(t, mem, "orders", 2, 3)
		if s := l.status("d"); !strings.Contains(s.Error, "queue mirror") {
			t.Errorf("with a leak: %s %q", s.State, s.Error)
		}
		mem.Leak("orders")
		time.Sleep(10 * time.Second)
		mem.Publish("orders", msgs(4, 6)...)
		wantMessages(t, mem, "orders", 2, 3)
		if s := l.status("d"); s.State != controlbus.DetourOn || s.Error != "" {
			t.Errorf("without the leak: %s %q", s.State, s.Error)
		}
		l.succeed(orderOf(controlbus.CommandUndetour, "orders", nil))
		wantMessages(t, mem, "orders", 2, 3, 0, 1, 4, 5)
		nothingLeft(t, mem, "orders")
	})
}

// TestKilledAtEveryStep ends the agent before and after every word it has with
// the broker, from the order to the removal, and looks for each message after
// another agent has taken over.
func TestKilledAtEveryStep(t *testing.T) {
	steps := 0
	for k := 1; ; k++ {
		over := false
		synctest.Test(t, func(t *testing.T) { over = killedAt(t, k) })
		if over || t.Failed() {
			break
		}
		steps++
	}
	t.Logf("killed at %d steps", steps)
	if steps < 40 {
		t.Errorf("only %d steps had words with the broker", steps)
	}
}

func killedAt(t *testing.T, k int) (over bool) {
	mem := agenttest.NewMemory("orders", "audit")
	dir, frozen := t.TempDir(), t.TempDir()
	a := mem.Adapter()
	var n atomic.Int64
	dead := make(chan struct{})
	a.Script = func(verb, channel string, after bool) error {
		if verb == "PlanCommand" {
			return nil // nothing has begun
		}
		if n.Add(1) != int64(k) {
			return nil
		}
		// What is on disk now is what a crash leaves.
		if b, err := os.ReadFile(filepath.Join(dir, "detours.json")); err == nil {
			must(t, os.WriteFile(filepath.Join(frozen, "detours.json"), b, 0o600))
		}
		a.Kill()
		close(dead)
		return agents.ErrNotConnected
	}
	l := begin(t, dir, a)
	sent := 0
	publish := func() {
		mem.Publish("orders", msgs(sent, sent+5)...)
		sent += 5
	}
	publish()
	d := orderOf(controlbus.CommandDetour, "orders", simple("d", controlbus.DetourStep{Copy: &controlbus.CopyStep{Channel: "audit"}}, controlbus.DetourStep{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(`{"properties":{"n":{"not":{"const":7}}}}`)}}))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-dead; cancel(link.ErrStopping) }()
	begun := l.m.makeDetour(ctx, d, false).Outcome
	publish()
	if begun == controlbus.CommandSucceeded {
		time.Sleep(7 * time.Second)
		publish()
		u := orderOf(controlbus.CommandUndetour, "orders", controlbus.UndetourArgs{ID: "d"})
		l.m.end(ctx, u, false, func(context.Context, controlbus.CommandProgress) {})
		publish()
	}
	select {
	case <-dead:
	default:
		close(dead)
		over = true
	}
	l.end()
	if over {
		frozen = dir
	}
	// The next agent has the order again, if its journal knows it, and ends it.
	l = begin(t, frozen, mem.Adapter())
	publish()
	time.Sleep(7 * time.Second)
	publish()
	r := l.do(orderOf(controlbus.CommandUndetour, "orders", controlbus.UndetourArgs{ID: "d"}))
	if r.Outcome != controlbus.CommandSucceeded && (r.Outcome != controlbus.CommandRejected || !strings.Contains(r.Detail, "not found")) {
		t.Errorf("step %d: undetour: %s: %s", k, r.Outcome, r.Detail)
	}
	publish()
	time.Sleep(time.Second)
	l.end()
	if g := mem.Gates(); len(g) != 0 {
		t.Errorf("step %d: gates are left: %v", k, g)
	}
	ids := map[string]map[string]int{} // by message: by detour header
	parked := 0
	for _, c := range mem.Channels() {
		if c == "audit" {
			continue
		}
		for _, m := range mem.Waiting(c) {
			if c != "orders" {
				parked++
				if m.MessageID != "m7" {
					t.Errorf("step %d: %s is in %s", k, m.MessageID, c)
				}
			}
			if ids[m.MessageID] == nil {
				ids[m.MessageID] = map[string]int{}
			}
			ids[m.MessageID][m.Header(controlbus.HeaderDetour)]++
		}
	}
	if len(ids) != sent {
		t.Errorf("step %d: %d of %d messages are there", k, len(ids), sent)
	}
	for id, marks := range ids {
		if len(marks) != 1 {
			t.Errorf("step %d: %s is there with different marks: %v", k, id, marks)
		}
		for mark, n := range marks {
			if n > 1 && mark == "" {
				t.Errorf("step %d: %s is there %d times and cannot be told apart", k, id, n)
			}
		}
	}
	return over
}

func TestStateFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "detours.json"), []byte(`{"version":1,"detours":[{`), 0o600))
	if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "detours.json") {
		t.Errorf("damaged: got %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "detours.json"), []byte(`{"version":99}`), 0o600))
	if _, err := New(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "version 99") {
		t.Errorf("newer: got %v", err)
	}
	if _, err := New(Config{Dir: t.TempDir(), HTTPAllow: []string{"x"}}); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("bad http_allow: got %v", err)
	}
}

// TestPlanChangesNothing asks about every kind.
func TestPlanChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders", "to")
		l := begin(t, t.TempDir(), mem.Adapter())
		defer l.end()
		ask := func(kind controlbus.CommandKind, args any) controlbus.Plan {
			d := orderOf(kind, "orders", args)
			p, err := l.m.Plan(t.Context(), controlbus.Ask{Kind: kind, Target: d.Target, Args: d.Args})
			must(t, err)
			return p
		}
		if p := ask(controlbus.CommandDetour, simple("d")); p.Refused != "" || p.Technique != "memory detour" || p.Expect.Topology != "gate false" || len(p.Impact) < 2 || p.Undo == "" || p.Expect.MaxCount != -1 {
			t.Errorf("detour: %+v", p)
		}
		j := simple("d")
		j.To = "to"
		if p := ask(controlbus.CommandDetour, j); p.Technique != "junction" || !strings.Contains(strings.Join(p.Impact, " "), "Nobody reads to now") {
			t.Errorf("junction: %+v", p)
		}
		for kind, args := range map[controlbus.CommandKind]any{controlbus.CommandDetour: simple("!"), controlbus.CommandUndetour: controlbus.UndetourArgs{ID: "d"}, controlbus.CommandPurge: nil} {
			if p := ask(kind, args); p.Refused == "" || p.Technique != "" || p.Impact != nil {
				t.Errorf("%s: %+v", kind, p)
			}
		}
		if p := ask(controlbus.CommandPause, controlbus.PauseArgs{For: time.Minute}); p.Technique != "memory pause" {
			t.Errorf("pause: %+v", p)
		}
		nothingLeft(t, mem, "orders", "to")
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d", hold)))
		mem.Publish("orders", msgs(0, 4)...)
		time.Sleep(6 * time.Second)
		if p := ask(controlbus.CommandUndetour, controlbus.UndetourArgs{ID: "d"}); p.Count != 4 || p.Refused != "" {
			t.Errorf("undetour: %+v", p)
		}
		if p := ask(controlbus.CommandDetour, simple("d")); len(p.Impact) == 0 || !strings.Contains(p.Impact[0], "are replaced") {
			t.Errorf("update: %+v", p)
		}
	})
}

// Two detours that copy into each other's channel: without a mark on the copies
// each would copy the other's for ever.
func TestCopiesAreMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders", "audit")
		l := begin(t, t.TempDir(), mem.Adapter())
		defer l.end()
		copyTo := func(channel string) controlbus.DetourStep {
			return controlbus.DetourStep{Copy: &controlbus.CopyStep{Channel: channel}}
		}
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d", copyTo("audit"), copyTo("audit"))))
		one := msgs(0, 1)[0]
		// Its producer wrote marks of its own.
		one.SetHeader(controlbus.HeaderDetour, "d:forged")
		mem.Publish("orders", one)
		time.Sleep(time.Second)
		got := mem.Waiting("audit")
		if len(got) != 2 {
			t.Fatalf("%d copies", len(got))
		}
		ids := map[string]bool{"d:forged": true, mem.Waiting("orders")[0].Header(controlbus.HeaderDetour): true}
		for _, m := range got {
			if id := m.Header(controlbus.HeaderDetour); ids[id] || !strings.HasPrefix(id, "d:") {
				t.Errorf("a copy is marked %q, as another message is", id)
			} else {
				ids[id] = true
			}
			if !strings.Contains(m.Header(controlbus.HeaderHops), "@orders;") {
				t.Errorf("a copy has the hops %q", m.Header(controlbus.HeaderHops))
			}
		}
		mem.Publish("orders", got...)
		time.Sleep(time.Second)
		if n := len(mem.Waiting("audit")); n != 2 {
			t.Errorf("copies that came back were copied again: %d", n)
		}
	})
}

// tight refuses messages with a header of its own for what was written on them,
// as a broker does when headers leave no room.
type tight struct{ *agenttest.MemoryAdapter }

type tightOutlet struct{ agents.Outlet }

func (a tight) Outlet(ctx context.Context, channel string) (agents.Outlet, error) {
	o, err := a.MemoryAdapter.Outlet(ctx, channel)
	return tightOutlet{o}, err
}

func (o tightOutlet) Send(ctx context.Context, list []*agents.Message) []error {
	errs := make([]error, len(list))
	for i, m := range list {
		if m.Header("huge") != "" && len(m.Headers) > 1 {
			errs[i] = fmt.Errorf("%w: no room for these headers", controlbus.ErrInvalid)
		} else {
			errs[i] = o.Outlet.Send(ctx, []*agents.Message{m})[0]
		}
	}
	return errs
}

// A message on which nothing more can be written does not stop those behind it.
func TestNoRoomForMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := agenttest.NewMemory("orders")
		l := begin(t, t.TempDir(), tight{mem.Adapter()})
		defer l.end()
		l.succeed(orderOf(controlbus.CommandDetour, "orders", simple("d", controlbus.DetourStep{Rate: &controlbus.RateStep{PerSecond: 1000}})))
		list := msgs(0, 3)
		list[1].SetHeader("huge", "x")
		mem.Publish("orders", list...)
		time.Sleep(11 * time.Second)
		wantMessages(t, mem, "orders", 0, 2)
		if s := l.status("d"); s.Refused != 1 || s.Passed != 2 || s.Parked != 1 {
			t.Errorf("status: %+v", s)
		}
	})
}
