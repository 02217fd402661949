package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

func undoOf(id controlbus.CommandID) func(*link.Dispatch) {
	return func(d *link.Dispatch) { d.UndoOf = id }
}

func TestPurgeAndUndo(t *testing.T) {
	t.Parallel()
	for _, lasting := range []bool{false, true} {
		b := agenttest.NewQueues("orders")
		b.Lasting = lasting
		r := newRig(t, b)
		before := numbered(2500)
		b.Put("orders", before...)
		d := r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{}, func(d *link.Dispatch) { d.Expect.MaxCount = 2500 })
		ev := want(t, r.do(d), controlbus.CommandSucceeded, 2500)
		if ev.DepthBefore != 2500 || ev.DepthAfter != 0 || ev.Removed != 2500 || ev.Archive != string(d.Command) || ev.ArchiveSize == 0 || ev.Position == "" {
			t.Errorf("evidence %+v", ev)
		}
		if n := len(b.In("orders")); n != 0 {
			t.Fatalf("%d messages are left", n)
		}
		if n := r.outcomes(outcomeRemoved); n != 2500 {
			t.Errorf("told of %d messages", n)
		}
		// Ordered once more it is not done once more.
		b.Put("orders", numbered(1)...)
		r.order(d)
		if got := len(b.In("orders")); got != 1 {
			t.Errorf("a repeated order purged again: %d left", got)
		}
		undo := r.dispatch(controlbus.CommandReplay, "orders", controlbus.ReplayArgs{}, undoOf(d.Command))
		ev = want(t, r.do(undo), controlbus.CommandSucceeded, 2500)
		if ev.Doubtful != 0 || ev.SentTo["b/orders"] != 2500 {
			t.Errorf("evidence %+v", ev)
		}
		after := b.In("orders")[1:]
		if !slices.Equal(ids(after), ids(before)) {
			t.Fatal("they did not come back in their order")
		}
		for i, m := range after {
			if got, want := m.Header(controlbus.HeaderReplay), fmt.Sprintf("%s:%d", undo.Command, i+1); got != want {
				t.Fatalf("marked %q, want %q", got, want)
			}
			m.Headers = slices.DeleteFunc(m.Headers, func(f agents.Field) bool { return f.Key == controlbus.HeaderReplay })
		}
		if diff := cmp.Diff(before, after, cmpopts.IgnoreFields(agents.Message{}, "Position", "Raw")); diff != "" {
			t.Error("they came back changed:\n", diff)
		}
	}
}

// What does not match what was agreed to is not touched.
func TestStalePreview(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("orders")
	b.SetTopology("one")
	r := newRig(t, b)
	b.Put("orders", numbered(10)...)
	for name, e := range map[string]controlbus.Expect{
		"at most 9": {MaxCount: 9}, "topology": {MaxCount: -1, Topology: "another"},
	} {
		res := r.do(r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{}, func(d *link.Dispatch) { d.Expect = &e }))
		if res.Outcome != controlbus.CommandRejected || !strings.Contains(res.Detail, "preview") {
			t.Errorf("%s: %+v", name, res)
		}
	}
	stale := controlbus.Expect{MaxCount: -1, Topology: "another"}
	res := r.do(r.dispatch(controlbus.CommandTest, "orders", controlbus.TestArgs{Run: "r1"}, func(d *link.Dispatch) { d.Expect = &stale }))
	if res.Outcome != controlbus.CommandRejected || !strings.Contains(res.Detail, "preview") {
		t.Errorf("test message: %+v", res)
	}
	if n := len(b.In("orders")); n != 10 || b.Calls("Intake") != 0 || b.Calls("Purge") != 0 {
		t.Errorf("%d messages are left; taken from %d times", n, b.Calls("Intake"))
	}
}

func TestPurgeByFilterLeavesTheRest(t *testing.T) {
	t.Parallel()
	for _, noBackup := range []bool{false, true} {
		b := agenttest.NewQueues("orders")
		r := newRig(t, b)
		b.Put("orders", numbered(300)...)
		d := r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{Filter: `header.parity:odd`, NoBackup: noBackup})
		ev := want(t, r.do(d), controlbus.CommandSucceeded, 150)
		left := b.In("orders")
		if len(left) != 150 || !slices.IsSortedFunc(left, func(a, b *agents.Message) int {
			x, _ := strconv.Atoi(a.MessageID)
			y, _ := strconv.Atoi(b.MessageID)
			return x - y
		}) {
			t.Errorf("%d left: %v", len(left), ids(left))
		}
		if (ev.Archive == "") != noBackup {
			t.Errorf("evidence %+v", ev)
		}
	}
	b := agenttest.NewQueues("orders")
	r := newRig(t, b)
	b.Put("orders", numbered(30)...)
	ev := want(t, r.do(r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{NoBackup: true})), controlbus.CommandSucceeded, 30)
	if b.Calls("Purge") != 1 || b.Calls("Intake") != 0 || ev.DepthAfter != 0 {
		t.Errorf("without a copy the broker's own purge was not used: %+v", ev)
	}
	if res := r.do(r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{Filter: "((("})); res.Outcome != controlbus.CommandRejected {
		t.Errorf("a filter that is none: %+v", res)
	}
	if res := r.do(r.dispatch(controlbus.CommandPurge, "nowhere", controlbus.PurgeArgs{})); res.Outcome != controlbus.CommandRejected || !strings.Contains(res.Detail, "not found") {
		t.Errorf("a channel that is not there: %+v", res)
	}
}

func TestFullArchiveStopsAPurge(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("orders")
	r := newRig(t, b)
	r.stop()
	r.max = 1 << 20
	r.start()
	msgs := numbered(60)
	for _, m := range msgs {
		m.Body = make([]byte, 50_000)
	}
	b.Put("orders", msgs...)
	d := r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{})
	res := r.do(d)
	if res.Outcome != controlbus.CommandPartial || !strings.Contains(res.Detail, "commands.archive.max_bytes") {
		t.Errorf("got %+v", res)
	}
	left := b.In("orders")
	info, err := r.a.archive.Info(d.Command)
	if err != nil || info.Count != res.Counts.Done || info.Count+int64(len(left)) != 60 || info.Doubtful != 0 {
		t.Errorf("%d left, archive %+v, %v", len(left), info, err)
	}
	if res := r.do(r.dispatch(controlbus.CommandReplay, "orders", controlbus.ReplayArgs{}, undoOf(d.Command))); res.Outcome != controlbus.CommandSucceeded {
		t.Errorf("undo: %+v", res)
	}
	once(t, b.In("orders"), 60, controlbus.HeaderReplay)
	p, err := r.a.Plan(t.Context(), controlbus.Ask{Kind: controlbus.CommandPurge, Target: d.Target, Look: true})
	if err != nil || !strings.Contains(p.Refused, "commands.archive.max_bytes") {
		t.Errorf("planned %+v, %v", p, err)
	}
}

func TestRedrive(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("dlq", "orders", "payments")
	r := newRig(t, b)
	msgs := append(dead(40, "orders"), dead(60, "payments")[40:]...)
	msgs[7].Headers = append(msgs[7].Headers, agents.Field{Key: controlbus.HeaderRedrive, Value: "3"})
	msgs[8].Headers = append(msgs[8].Headers, agents.Field{Key: controlbus.HeaderRedrive, Value: "2"})
	msgs[50].Headers = []agents.Field{{Key: "x", Value: "y"}} // nothing says where it died
	msgs[51].Headers = dead(1, "gone")[0].Headers
	b.Put("dlq", msgs...)
	d := r.dispatch(controlbus.CommandRedrive, "dlq", controlbus.RedriveArgs{})
	ev := want(t, r.do(d), controlbus.CommandPartial, 57)
	if ev.SentTo["b/orders"] != 39 || ev.SentTo["b/payments"] != 18 || ev.DepthAfter != 3 || len(ev.Reasons) != 3 {
		t.Errorf("evidence %+v", ev)
	}
	if left := ids(b.In("dlq")); !slices.Equal(left, []string{"7", "50", "51"}) {
		t.Errorf("left: %v", left)
	}
	for _, m := range append(b.In("orders"), b.In("payments")...) {
		n := "1"
		if m.MessageID == "8" {
			n = "3"
		}
		if m.Header(controlbus.HeaderRedrive) != n || !strings.HasPrefix(m.Header(controlbus.HeaderRedriveID), string(d.Command)+":") {
			t.Fatalf("message %s: headers %v", m.MessageID, m.Headers)
		}
		var deaths []struct {
			Header string
			Value  any
		}
		if err := json.Unmarshal([]byte(m.Header(controlbus.HeaderDeaths)), &deaths); err != nil || len(deaths) != 1 || deaths[0].Header != "x-death" {
			t.Fatalf("deaths %q: %v", m.Header(controlbus.HeaderDeaths), err)
		}
		for _, h := range m.Headers {
			if tellsDeath(h.Key) || orders(h.Key) {
				t.Fatalf("header %q was carried along", h.Key)
			}
		}
	}
	// Force takes the one that was left alone, too; a destination those that do not
	// say where they died, even on another broker.
	d = r.dispatch(controlbus.CommandRedrive, "dlq", controlbus.RedriveArgs{Force: true}, func(d *link.Dispatch) {
		d.Destination = &controlbus.ChannelName{Env: "test", System: "fake", Broker: "other", Name: "elsewhere"}
	})
	want(t, r.do(d), controlbus.CommandSucceeded, 3)
	if got := ids(r.other.In("elsewhere")); !slices.Equal(got, []string{"7", "50", "51"}) || len(b.In("dlq")) != 0 {
		t.Errorf("got %v", got)
	}
}

// The name of the channel to send to is a header that a producer wrote: it is
// held against the agent's rules.
func TestRedriveObeysTheRules(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("dlq", "orders", "secret")
	r := newRig(t, b)
	r.stop()
	r.rules = []link.AllowRule{{Broker: "b", Channel: "dlq"}, {Broker: "b", Channel: "orders"}, {Broker: "b", Channel: "*q"}}
	r.rules = []link.AllowRule{{Kinds: []controlbus.CommandKind{controlbus.CommandRedrive}, Broker: "b", Channel: "*d*"}} // dlq and orders
	r.start()
	b.Put("dlq", append(dead(3, "orders"), dead(5, "secret")[3:]...)...)
	res := r.do(r.dispatch(controlbus.CommandRedrive, "dlq", controlbus.RedriveArgs{}))
	want(t, res, controlbus.CommandPartial, 3)
	if len(b.In("secret")) != 0 || len(b.In("dlq")) != 2 || !strings.Contains(res.Detail, "does not allow") {
		t.Errorf("sent to a channel that is not allowed: %+v", res)
	}
}

func TestCanaryStops(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("dlq", "orders")
	r := newRig(t, b)
	b.Put("dlq", dead(500, "orders")...)
	stop := make(chan struct{})
	go func() { // a consumer that fails on everything
		defer close(stop)
		for moved := 0; moved < 1; time.Sleep(time.Millisecond) {
			if len(b.In("orders")) > 0 {
				b.Put("dlq", dead(1, "orders")...)
				moved++
			}
		}
	}()
	res := r.do(r.dispatch(controlbus.CommandRedrive, "dlq", controlbus.RedriveArgs{Job: controlbus.JobOptions{Ramp: []int64{1, 10}, Settle: 300 * time.Millisecond, StopRatio: 0.5}}))
	<-stop
	ev := want(t, res, controlbus.CommandPartial, 1)
	if ev.Refailed != 1 || !strings.Contains(res.Detail, "1 arrived dead while it sent 1") || len(b.In("dlq")) != 500 {
		t.Errorf("got %+v, %q", ev, res.Detail)
	}
}

func TestDiscardOnlySoMany(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("dlq")
	r := newRig(t, b)
	b.Put("dlq", dead(100, "orders")...)
	d := r.dispatch(controlbus.CommandDiscard, "dlq", controlbus.DiscardArgs{Job: controlbus.JobOptions{Max: 30}}, func(d *link.Dispatch) { d.Expect.MaxCount = 50 })
	want(t, r.do(d), controlbus.CommandSucceeded, 30)
	// New dead letters do not make it stale: no more than were seen are taken.
	d = r.dispatch(controlbus.CommandDiscard, "dlq", controlbus.DiscardArgs{}, func(d *link.Dispatch) { d.Expect.MaxCount = 50 })
	want(t, r.do(d), controlbus.CommandSucceeded, 50)
	if left := ids(b.In("dlq")); len(left) != 20 || left[0] != "80" {
		t.Errorf("left %v", left)
	}
	want(t, r.do(r.dispatch(controlbus.CommandReplay, "dlq", controlbus.ReplayArgs{}, undoOf(d.Command))), controlbus.CommandSucceeded, 50)
	m := b.In("dlq")[20]
	if m.MessageID != "30" || !slices.ContainsFunc(m.Headers, func(f agents.Field) bool { return f.Key == "x-death" }) {
		t.Errorf("a dead letter that came back does not say any more how it died: %+v", m)
	}
}

// store is a message store of n messages, given in small pages.
func store(n int) func(after string, limit int) (link.FetchPage, error) {
	return func(after string, _ int) (link.FetchPage, error) {
		from, _ := strconv.Atoi(after)
		var p link.FetchPage
		for i := from; i < min(from+37, n); i++ {
			f := link.Fetched{
				UID: fmt.Sprintf("%032x", i), MessageID: strconv.Itoa(i), Body: []byte("body"), BodySize: 4, BodyStored: true, BodyPolicy: "full",
				Headers: [][2]string{{"delivery_mode", "2"}, {"priority", "4"}, {"timestamp", "2026-01-02T03:04:05Z"}, {"app_id", "shop"}, {"routing_key", "orders"}, {"priority", "a header"}, {"x-death[0].reason", "rejected"}},
			}
			switch i {
			case 5:
				f.Truncated = true
			case 6:
				f.Redacted = []string{"card number"}
			case 7:
				f.Body, f.BodyStored = nil, false
			}
			p.Messages = append(p.Messages, f)
		}
		p.Next = strconv.Itoa(from + 37)
		if from+37 >= n {
			p.Next, p.End = "", true
		}
		return p, nil
	}
}

func replayArgs() controlbus.ReplayArgs {
	return controlbus.ReplayArgs{Selection: &controlbus.Selection{Env: "test", All: true}}
}

func TestReplayFromTheStore(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("orders")
	r := newRig(t, b)
	calls := 0
	pages := store(400)
	r.pages = func(after string, limit int) (link.FetchPage, error) {
		if calls++; calls%3 == 0 { // the console is away now and then
			return link.FetchPage{}, fmt.Errorf("%w: away", controlbus.ErrUnavailable)
		}
		return pages(after, limit)
	}
	d := r.dispatch(controlbus.CommandReplay, "orders", replayArgs())
	res := r.do(d)
	ev := want(t, res, controlbus.CommandSucceeded, 397)
	if res.Counts.Skipped != 3 || len(ev.Reasons) != 3 || ev.Reconnects == 0 {
		t.Errorf("%+v, %+v", res.Counts, ev)
	}
	got := b.In("orders")
	if len(got) != 397 || !slices.IsSortedFunc(got, func(a, b *agents.Message) int {
		x, _ := strconv.Atoi(a.MessageID)
		y, _ := strconv.Atoi(b.MessageID)
		return x - y
	}) {
		t.Fatalf("%d messages: %v", len(got), ids(got))
	}
	m := got[10]
	if m.Header(controlbus.HeaderReplay) != string(d.Command)+":14" || m.MessageID != "13" || m.AppID != "shop" || m.Priority != 4 || !m.Persistent ||
		m.Header("priority") != "a header" || len(m.Headers) != 2 || m.Time.IsZero() {
		t.Errorf("sent %+v", m)
	}
	if n := r.outcomes(outcomeSent) + r.outcomes(outcomeSkipped); n != 400 {
		t.Errorf("told of %d messages", n)
	}
	r.full = true
	res = r.do(r.dispatch(controlbus.CommandReplay, "orders", replayArgs()))
	if ev := want(t, res, controlbus.CommandSucceeded, 397); ev.OutcomesDropped != 400 || !strings.Contains(res.Detail, "spool is full") {
		t.Errorf("a full spool: %+v, %q", ev, res.Detail)
	}
}

func TestControlPauseAndCancel(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("orders")
	r := newRig(t, b)
	r.pages = store(100000)
	args := replayArgs()
	args.Job.Rate = 200
	d := r.dispatch(controlbus.CommandReplay, "orders", args)
	r.order(d)
	count := func() int { return len(b.In("orders")) }
	soon := func(what string, f func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("not within 10s: ", what)
			}
		}
	}
	soon("it sends", func() bool { return count() > 10 })
	control := func(c controlbus.JobControl) {
		r.exec.Handle(t.Context(), link.Frame{Epoch: 7, Control: &link.Control{Command: d.Command, JobControl: c}})
	}
	control(controlbus.JobControl{Seq: 1, Rate: 200, Paused: true})
	soon("it says that it is paused", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := len(r.told)
		return n > 0 && r.told[n-1].Job.Paused && r.told[n-1].Job.Control == 1
	})
	at := count()
	time.Sleep(300 * time.Millisecond)
	if got := count(); got != at {
		t.Errorf("paused, and %d messages went", got-at)
	}
	control(controlbus.JobControl{Seq: 2, Rate: 2000})
	soon("it goes on", func() bool { return count() > at+100 })
	r.exec.Handle(t.Context(), link.Frame{Epoch: 7, Cancel: &link.Cancel{Command: d.Command}})
	res := r.await(d.Command)
	want(t, res, controlbus.CommandPartial, int64(count()))
	if !strings.HasPrefix(res.Detail, "cancelled") {
		t.Errorf("detail %q", res.Detail)
	}
}

func TestTestMessage(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("orders")
	r := newRig(t, b)
	args := controlbus.TestArgs{Run: "r1", Body: "ping", ContentType: "text/plain", Headers: map[string]string{"tenant": "t1"}, Key: "orders.new"}
	res := r.do(r.dispatch(controlbus.CommandTest, "orders", args))
	want(t, res, controlbus.CommandSucceeded, 1)
	var ev TestEvidence
	if err := json.Unmarshal(res.Evidence, &ev); err != nil || ev.SentAt == 0 || ev.ConfirmedAt < ev.SentAt || ev.Agent != "a1" || ev.MessageID != "sb-test-r1" {
		t.Errorf("evidence %s, %v", res.Evidence, err)
	}
	m := b.In("orders")[0]
	if m.MessageID != "sb-test-r1" || m.CorrelationID != "r1" || m.Header(controlbus.HeaderTest) != "r1" || m.Header("tenant") != "t1" || m.Persistent || m.Priority != 0 || string(m.Body) != "ping" || m.Key != "orders.new" {
		t.Errorf("sent %+v", m)
	}
	args.Run, args.Separate = "r2", true
	res = r.do(r.dispatch(controlbus.CommandTest, "orders", args))
	want(t, res, controlbus.CommandSucceeded, 1)
	if err := json.Unmarshal(res.Evidence, &ev); err != nil || ev.SeparatedTo != "sb.test.orders" || ev.SeparatedAt < ev.ConfirmedAt || len(b.In("orders")) != 1 {
		t.Errorf("evidence %s, %v; %d messages for the consumers", res.Evidence, err, len(b.In("orders")))
	}
	args = controlbus.TestArgs{Run: "r3", Headers: map[string]string{"Nats-Rollup": "all"}}
	if res = r.do(r.dispatch(controlbus.CommandTest, "orders", args)); res.Outcome != controlbus.CommandRejected {
		t.Errorf("a header that orders the broker about: %+v", res)
	}
}

func TestPeekIsRedacted(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("orders")
	r := newRig(t, b)
	r.stop()
	r.red.Paths = append(r.red.Paths, export.PathRule{Path: "$.password"})
	r.start()
	b.Put("orders", numbered(30)...)
	if res := r.do(r.dispatch(controlbus.CommandPeek, "orders", nil)); res.Outcome != controlbus.CommandRejected || !strings.Contains(res.Detail, "redelivered") {
		t.Errorf("it looked although that leaves traces: %+v", res)
	}
	res := r.do(r.dispatch(controlbus.CommandPeek, "orders", PeekArgs{Look: true}))
	want(t, res, controlbus.CommandSucceeded, 20)
	var ev PeekEvidence
	if err := json.Unmarshal(res.Evidence, &ev); err != nil || len(ev.Samples) != 20 || ev.Ready != 30 || ev.Traces == "" {
		t.Errorf("evidence %s, %v", res.Evidence, err)
	}
	if strings.Contains(string(res.Evidence), "hunter2") || !strings.Contains(ev.Samples[0].Excerpt, `"n":0`) {
		t.Errorf("sample %+v", ev.Samples[0])
	}
}

func TestPlans(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("dlq", "orders")
	b.SetTopology("one")
	r := newRig(t, b)
	b.Put("dlq", dead(20, "orders")...)
	ask := func(kind controlbus.CommandKind, channel string, args any, change ...func(*controlbus.Ask)) controlbus.Plan {
		t.Helper()
		raw, _ := json.Marshal(args)
		q := controlbus.Ask{Kind: kind, Args: raw, Target: r.dispatch(kind, channel, nil).Target, Look: true}
		for _, c := range change {
			c(&q)
		}
		p, err := r.a.Plan(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := ask(controlbus.CommandPurge, "dlq", controlbus.PurgeArgs{})
	if p.Refused != "" || p.Count != 20 || p.Expect != (controlbus.Expect{MaxCount: 20, Topology: "one"}) || len(p.Samples) != 10 || p.Reversible != controlbus.ReversiblePartly || p.Undo == "" || p.Samples[0].ErrorType == "" {
		t.Errorf("purge: %+v", p)
	}
	if p = ask(controlbus.CommandPurge, "dlq", controlbus.PurgeArgs{NoBackup: true}); p.Reversible != controlbus.ReversibleNo {
		t.Errorf("purge without a copy: %+v", p)
	}
	if p = ask(controlbus.CommandPurge, "dlq", nil, func(q *controlbus.Ask) { q.Look = false }); len(p.Samples) != 0 || !strings.Contains(strings.Join(p.Impact, " "), "leaves traces. Messages would be marked as redelivered.") {
		t.Errorf("without a look: %+v", p)
	}
	if p = ask(controlbus.CommandPurge, "dlq", controlbus.PurgeArgs{Filter: "header.parity:odd"}); len(p.Samples) != 10 || p.Samples[0].MessageID != "1" {
		t.Errorf("with a filter: %+v", p)
	}
	if p = ask(controlbus.CommandRedrive, "dlq", nil); p.Count != 20 || p.Refused != "" || p.Expect.MaxCount != 20 {
		t.Errorf("redrive: %+v", p)
	}
	if p = ask(controlbus.CommandRedrive, "dlq", nil, func(q *controlbus.Ask) {
		q.Destination = &controlbus.ChannelName{Env: "test", Broker: "b", Name: "nowhere"}
	}); !strings.Contains(p.Refused, "nowhere") {
		t.Errorf("redrive to nowhere: %+v", p)
	}
	if p = ask(controlbus.CommandDiscard, "dlq", controlbus.DiscardArgs{Job: controlbus.JobOptions{Max: 5}}); p.Count != 5 {
		t.Errorf("discard: %+v", p)
	}
	if p = ask(controlbus.CommandReplay, "orders", replayArgs()); p.Refused != "" || p.Count != -1 {
		t.Errorf("replay: %+v", p)
	}
	if p = ask(controlbus.CommandTest, "orders", controlbus.TestArgs{Run: "x"}); p.Count != 1 {
		t.Errorf("test: %+v", p)
	}
	if p = ask(controlbus.CommandPeek, "orders", nil); p.Refused != "" {
		t.Errorf("peek: %+v", p)
	}
	d := r.dispatch(controlbus.CommandPurge, "dlq", controlbus.PurgeArgs{})
	want(t, r.do(d), controlbus.CommandSucceeded, 20)
	if p = ask(controlbus.CommandReplay, "dlq", controlbus.ReplayArgs{}, func(q *controlbus.Ask) { q.UndoOf = d.Command }); p.Count != 20 || len(p.Samples) != 10 {
		t.Errorf("undo: %+v", p)
	}
	if p = ask(controlbus.CommandReplay, "orders", controlbus.ReplayArgs{}, func(q *controlbus.Ask) { q.UndoOf = d.Command }); !strings.Contains(p.Refused, "dlq") {
		t.Errorf("undo elsewhere: %+v", p)
	}
	if p = ask(controlbus.CommandReplay, "dlq", controlbus.ReplayArgs{}, func(q *controlbus.Ask) { q.UndoOf = controlbus.NewCommandID(time.Now()) }); !strings.Contains(p.Refused, "no copy") {
		t.Errorf("undo of nothing: %+v", p)
	}
	b.Reason = "the server is too old"
	if p = ask(controlbus.CommandPurge, "dlq", nil); p.Refused != "The server is too old." {
		t.Errorf("an old server: %+v", p)
	}
	b.Reason = ""
	r.stop()
	r.rules = nil
	r.start()
	if p = ask(controlbus.CommandPurge, "dlq", nil); !strings.Contains(p.Refused, "own configuration does not allow purge") {
		t.Errorf("without a rule: %+v", p)
	}
	b.Cut()
	r.stop()
	r.rules = []link.AllowRule{{Broker: "*", Channel: "*"}}
	r.start()
	if _, err := r.a.Plan(context.Background(), controlbus.Ask{Kind: controlbus.CommandPurge, Target: d.Target}); !away(err) {
		t.Errorf("a broker that is away: %v", err)
	}
	b.Heal()
}

// A message that no copy can be made of, which is its producer's doing, stays and
// keeps no other from being removed.
func TestUnkeepableMessage(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("orders")
	r := newRig(t, b)
	msgs := numbered(40)
	var deep any = "x"
	for range 100 {
		deep = []any{deep}
	}
	for _, i := range []int{0, 17} {
		msgs[i].Headers = append(msgs[i].Headers, agents.Field{Key: "deep", Value: deep})
	}
	b.Put("orders", msgs...)
	d := r.dispatch(controlbus.CommandDiscard, "orders", controlbus.DiscardArgs{Job: controlbus.JobOptions{Rate: 900}}, func(d *link.Dispatch) { d.Expect.MaxCount = 40 })
	res := r.do(d)
	if res.Outcome != controlbus.CommandPartial || res.Counts.Done != 38 || res.Counts.Failed != 2 || !strings.Contains(res.Detail, "nested deeper") {
		t.Errorf("got %+v", res)
	}
	if left := ids(b.In("orders")); !slices.Equal(left, []string{msgs[0].MessageID, msgs[17].MessageID}) {
		t.Errorf("left: %q", left)
	}
	if info, err := r.a.archive.Info(d.Command); err != nil || info.Count != 38 {
		t.Errorf("archive %+v, %v", info, err)
	}
}

// A broker that does not answer may have emptied the channel all the same.
func TestPurgeWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("orders")
	r := newRig(t, b)
	b.Put("orders", numbered(3)...)
	b.Fail("Purge", func(string) error { return fmt.Errorf("%w: no answer within 5s", controlbus.ErrUnavailable) })
	res := r.do(r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{NoBackup: true}))
	if res.Outcome != controlbus.CommandIndeterminate {
		t.Errorf("got %+v", res)
	}
}

// An undo from a copy that the disk has damaged says how much is missing, also
// when an earlier look has put the damaged part away.
func TestUndoOfADamagedCopy(t *testing.T) {
	t.Parallel()
	for _, at := range []float64{0.5, 0.98} {
		b := agenttest.NewQueues("orders")
		r := newRig(t, b)
		b.Put("orders", numbered(200)...)
		d := r.dispatch(controlbus.CommandPurge, "orders", controlbus.PurgeArgs{})
		want(t, r.do(d), controlbus.CommandSucceeded, 200)
		segments, err := filepath.Glob(filepath.Join(r.dir, "archive", string(d.Command), "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range segments {
			raw, err := os.ReadFile(name)
			if err != nil || filepath.Base(name) == "meta.json" || len(raw) < 1000 {
				continue
			}
			for i := range 100 {
				raw[int(float64(len(raw))*at)+i-150] ^= 0x55
			}
			if err := os.WriteFile(name, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		undo := r.dispatch(controlbus.CommandReplay, "orders", controlbus.ReplayArgs{}, undoOf(d.Command))
		p, err := r.a.Plan(t.Context(), controlbus.Ask{Kind: undo.Kind, Target: undo.Target, UndoOf: d.Command, Args: undo.Args})
		if err != nil || !strings.Contains(strings.Join(p.Impact, " "), "damaged") {
			t.Errorf("%v: planned %+v, %v", at, p, err)
		}
		res := r.do(undo)
		if n := len(b.In("orders")); res.Outcome != controlbus.CommandPartial || n >= 200 || n == 0 || !strings.Contains(res.Detail, fmt.Sprintf("damaged, and %d messages", 200-n)) {
			t.Errorf("%v: %d came back: %+v", at, n, res)
		}
	}
}

// What fails stays known, so that it is not sent again; how much may is bounded.
func TestKeptIsBounded(t *testing.T) {
	t.Parallel()
	b := agenttest.NewQueues("orders")
	src := newTaking(taking{lasting: true, start: -1, open: func(ctx context.Context, window int) (agents.Intake, error) {
		return b.Intake(ctx, "orders", agents.IntakeOptions{Window: window})
	}})
	if err := src.ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept := make([]*item, 50_000)
	for round := range 5 {
		for i := range kept {
			kept[i] = &item{msg: &agents.Message{}, id: strconv.Itoa(round*len(kept) + i)}
		}
		if err := src.Settle(t.Context(), nil, kept); (err != nil) != (round == 4) || err != nil && !errors.Is(err, controlbus.ErrTooLarge) {
			t.Fatalf("after %d: %v", (round+1)*len(kept), err)
		}
	}
}
