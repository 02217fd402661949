package nats_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/nats"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// TestPurgeBoundaryUnderLoad: a purge takes exactly what was there when somebody
// looked, while publishing goes on.
func TestPurgeBoundaryUnderLoad(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		s := b.stream(t, jetstream.LimitsPolicy, nil)
		name := s.CachedInfo().Config.Name
		a := connected(t, identity(), config(b.url))
		var stop atomic.Bool
		done := make(chan int)
		go func() {
			n := 0
			for ; !stop.Load() && n < 200_000; n++ {
				if _, err := b.js.PublishAsync(name+".a", fmt.Append(nil, n), jetstream.WithStallWait(20*time.Second)); err != nil {
					break
				}
			}
			<-b.js.PublishAsyncComplete()
			done <- n
		}()
		var total, first int64
		for range 20 {
			view, err := a.Inspect(t.Context(), name)
			must(t, err)
			removed, err := a.Purge(t.Context(), name, view.UpTo)
			must(t, err)
			if removed != view.Ready {
				t.Errorf("purge up to %s removed %d of the %d that were there", view.UpTo, removed, view.Ready)
			}
			total += removed
			_, err = fmt.Sscan(view.UpTo, &first)
			must(t, err)
			time.Sleep(5 * time.Millisecond)
		}
		stop.Store(true)
		published := int64(<-done)
		info, err := s.Info(t.Context())
		must(t, err)
		t.Logf("%d published, %d purged in 20 goes, %d left", published, total, info.State.Msgs)
		if int64(info.State.Msgs)+total != published || int64(info.State.FirstSeq) != first+1 || total == 0 {
			t.Errorf("published %d, purged %d, left %d from sequence %d; the last bound was %d", published, total, info.State.Msgs, info.State.FirstSeq, first)
		}
		if n, err := a.Purge(t.Context(), name, ""); err != nil || uint64(n) != info.State.Msgs {
			t.Errorf("purge of the rest: %d, %v", n, err)
		}
		if _, err := a.Purge(t.Context(), name, "x"); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("purge up to x: %v", err)
		}
	})
}

// TestProtectedStreams: a stream that forbids removal is refused before anything
// is done, with the reason, and the server's own refusal would be, too.
func TestProtectedStreams(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		a := connected(t, identity(), config(b.url))
		name := b.stream(t, jetstream.LimitsPolicy, func(c *jetstream.StreamConfig) { c.DenyPurge, c.DenyDelete = true, true }).CachedInfo().Config.Name
		b.publish(t, name+".a", "1")
		refused := func(what string, err error, reason string) {
			t.Helper()
			if !errors.Is(err, controlbus.ErrUnsupported) || !strings.Contains(err.Error(), reason) {
				t.Errorf("%s: got %v, want ErrUnsupported with %s", what, err, reason)
			}
		}
		_, err := a.Purge(t.Context(), name, "1")
		refused("purge", err, "deny_purge")
		_, err = a.PlanCommand(t.Context(), controlbus.CommandPurge, name)
		refused("plan of purge", err, "deny_purge")
		_, err = a.Intake(t.Context(), name, agents.IntakeOptions{})
		refused("intake", err, "deny_delete")
		_, err = a.PlanCommand(t.Context(), controlbus.CommandRedrive, name)
		refused("plan of redrive", err, "deny_delete")
		if got := texts(takeAll(t, intake(t, a, name, agents.IntakeOptions{Copy: true}))); got != "1" {
			t.Errorf("a copy: got %q", got)
		}
	})
}

// TestPause: consumers get nothing, all or one, until the time is over; then they
// go on by themselves.
func TestPause(t *testing.T) {
	t.Parallel()
	b := newBench(t, broker.NATSEmbedded(t, nil).URL, "")
	s := b.stream(t, jetstream.InterestPolicy, nil)
	name := s.CachedInfo().Config.Name
	a := connected(t, identity(), config(b.url))
	if _, err := a.Pause(t.Context(), name, "", time.Now().Add(time.Minute)); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("a stream without consumers: %v", err)
	}
	var apps []jetstream.Consumer
	for _, n := range []string{"one", "two"} {
		c, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: n, AckPolicy: jetstream.AckExplicitPolicy})
		must(t, err)
		apps = append(apps, c)
	}
	count := func(c jetstream.Consumer) int {
		batch, err := c.FetchNoWait(100)
		must(t, err)
		n := 0
		for m := range batch.Messages() {
			must(t, m.Ack())
			n++
		}
		return n
	}
	for _, until := range []time.Time{{}, time.Now().Add(-time.Second), time.Now().Add(48 * time.Hour)} {
		if _, err := a.Pause(t.Context(), name, "", until); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("pause until %v: got %v, want ErrInvalid", until, err)
		}
	}
	plan, err := a.PlanCommand(t.Context(), controlbus.CommandPause, name)
	if err != nil || !strings.Contains(strings.Join(plan.Impact, " "), "one, two") {
		t.Errorf("plan: %+v, %v", plan, err)
	}
	must(t, func() error { _, err := a.PlanCommand(t.Context(), controlbus.CommandResume, name); return err }())
	names, err := a.Pause(t.Context(), name, "two", time.Now().Add(time.Hour))
	if err != nil || !slices.Equal(names, []string{"two"}) {
		t.Fatalf("paused %q, %v", names, err)
	}
	b.publish(t, name+".a", "1", "2", "3")
	if one, two := count(apps[0]), count(apps[1]); one != 3 || two != 0 {
		t.Errorf("with two paused: %d and %d, want 3 and 0", one, two)
	}
	if _, err := a.Resume(t.Context(), name, "two"); err != nil {
		t.Error(err)
	}
	if n := count(apps[1]); n != 3 {
		t.Errorf("resumed: %d, want 3", n)
	}
	until := time.Now().Add(2 * time.Second)
	if names, err = a.Pause(t.Context(), name, "", until); err != nil || !slices.Equal(names, []string{"one", "two"}) {
		t.Fatalf("paused %q, %v", names, err)
	}
	b.publish(t, name+".a", "4")
	for _, c := range apps {
		if n := count(c); n != 0 && time.Now().Before(until) {
			t.Errorf("a paused consumer got %d", n)
		}
	}
	eventually(t, "both to go on by themselves", 20*time.Second, func() bool { return count(apps[0]) == 1 })
	eventually(t, "both to go on by themselves", 20*time.Second, func() bool { return count(apps[1]) == 1 })
	if d := time.Until(until); d > 0 {
		t.Errorf("they went on %s early", d)
	}
	if _, err := a.Pause(t.Context(), name, "three", time.Now().Add(time.Minute)); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("a consumer that is not there: %v", err)
	}
}

// TestOldServerCannotPause: it is said at once, for asking it hangs.
func TestOldServerCannotPause(t *testing.T) {
	t.Parallel()
	s := broker.NATS(t)
	if s.Version != "2.9.10" {
		t.Skipf("the server is %s, not the 2.9.10 this is about", s.Version)
	}
	b := newBench(t, s.URL, s.ManagementURL)
	st := b.stream(t, jetstream.LimitsPolicy, nil)
	_, err := st.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "app", AckPolicy: jetstream.AckExplicitPolicy})
	must(t, err)
	name := st.CachedInfo().Config.Name
	a := connected(t, identity(), config(b.url))
	start := time.Now()
	_, one := a.Pause(t.Context(), name, "", time.Now().Add(time.Minute))
	_, two := a.Resume(t.Context(), name, "app")
	_, three := a.PlanCommand(t.Context(), controlbus.CommandPause, name)
	for _, err := range []error{one, two, three} {
		if !errors.Is(err, controlbus.ErrUnsupported) || !strings.Contains(err.Error(), "2.11") {
			t.Errorf("got %v, want ErrUnsupported that names 2.11", err)
		}
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("that took %s", d)
	}
	if can := ability(a, controlbus.CommandPause); !strings.Contains(can.Reason, "2.9.10") {
		t.Errorf("ability to pause: %+v", can)
	}
	if can := ability(a, controlbus.CommandPurge); can.Reason != "" {
		t.Errorf("ability to purge: %+v", can)
	}
}

func ability(a *nats.Adapter, kind controlbus.CommandKind) controlbus.Ability {
	all := a.Abilities()
	i := slices.IndexFunc(all, func(can controlbus.Ability) bool { return can.Kind == kind })
	if i < 0 {
		return controlbus.Ability{Reason: "not listed"}
	}
	return all[i]
}

// TestWithoutJetStream: nothing hangs, and what cannot be done says why.
func TestWithoutJetStream(t *testing.T) {
	t.Parallel()
	cfg := config(broker.NATSEmbedded(t, func(o *natsserver.Options) { o.JetStream = false }).URL)
	cfg.Subjects = []string{"core.>"}
	if can := ability(nats.New("n", identity(), cfg, slog.New(slog.DiscardHandler)), controlbus.CommandReplay); can.Reason == "" {
		t.Error("an adapter that never connected says it can replay")
	}
	a := connected(t, identity(), cfg)
	start := time.Now()
	for kind, want := range map[controlbus.CommandKind]bool{
		controlbus.CommandPurge: false, controlbus.CommandPeek: false, controlbus.CommandRedrive: false, controlbus.CommandDiscard: false,
		controlbus.CommandDetour: false, controlbus.CommandPause: false, controlbus.CommandReplay: true, controlbus.CommandTest: true,
	} {
		can := ability(a, kind)
		plan, err := a.PlanCommand(t.Context(), kind, "core.x")
		if (can.Reason == "") != want || (err == nil) != want || err != nil && !errors.Is(err, controlbus.ErrUnsupported) || want && plan.Technique == "" {
			t.Errorf("%s of a subject: ability %+v, plan %+v, %v", kind, can, plan, err)
		}
	}
	for _, follow := range []bool{false, true} {
		if _, err := a.Intake(t.Context(), "core.x", agents.IntakeOptions{Follow: follow, Name: "x"}); !errors.Is(err, controlbus.ErrUnsupported) {
			t.Errorf("intake of a subject, follow %v: %v", follow, err)
		}
	}
	view, err := a.Inspect(t.Context(), "core.x")
	if err != nil || view.Kind != "subject" || view.Ready != 0 || view.UpTo != "" {
		t.Errorf("view of a subject: %+v, %v", view, err)
	}
	sendAll(t, outlet(t, a, "core.x"), &agents.Message{Body: []byte("into nothing")})
	if _, err := a.Park(t.Context(), "x"); err == nil {
		t.Error("parked without JetStream")
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("that took %s", d)
	}
}

// TestRights: what the user has no right to is ErrDenied with the subject, soon,
// and for messages it is told of each.
func TestRights(t *testing.T) {
	t.Parallel()
	s := broker.NATSWith(t, `authorization { users: [
		{user: admin, password: secret}
		{user: agent, password: secret, permissions: {
			publish: ["$JS.API.INFO", "$JS.API.STREAM.INFO.*", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.CONSUMER.LIST.*", "ORDERS.allowed", "core.allowed"]
			subscribe: ["_INBOX.>"]}}
	]}`)
	admin := strings.Replace(s.URL, "nats://", "nats://admin:secret@", 1)
	b := newBench(t, admin, "")
	_, err := b.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"ORDERS.*"}})
	must(t, err)
	b.publish(t, "ORDERS.allowed", "1")
	cfg := config(s.URL)
	cfg.User, cfg.Password, cfg.Subjects = "agent", "secret", []string{"core.*"}
	a := connected(t, identity(), cfg)
	start := time.Now()
	denied := func(what string, err error, subject string) {
		t.Helper()
		if !errors.Is(err, controlbus.ErrDenied) || !strings.Contains(err.Error(), subject) {
			t.Errorf("%s: got %v, want ErrDenied that names %s", what, err, subject)
		}
	}
	_, err = a.Purge(t.Context(), "ORDERS", "")
	denied("purge", err, "$JS.API.STREAM.PURGE.ORDERS")
	_, _, err = a.Peek(t.Context(), "ORDERS", 1, true)
	denied("peek", err, "$JS.API.STREAM.MSG.GET.ORDERS")
	errs := outlet(t, a, "ORDERS").Send(t.Context(), []*agents.Message{{Key: "ORDERS.allowed"}, {Key: "ORDERS.secret"}, {Key: "ORDERS.allowed"}})
	must(t, errors.Join(errs[0], errs[2]))
	denied("send to a stream", errs[1], "ORDERS.secret")
	errs = outlet(t, a, "core.*").Send(t.Context(), []*agents.Message{{Key: "core.allowed"}, {Key: "core.secret"}, {Key: "core.other"}})
	must(t, errs[0])
	denied("send to a subject", errs[1], "core.secret")
	denied("send to a subject", errs[2], "core.other")
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("finding out took %s", d)
	}
	plan, err := a.PlanCommand(t.Context(), controlbus.CommandPurge, "ORDERS")
	if err != nil || !slices.Contains(plan.Needs, "publish $JS.API.STREAM.PURGE.ORDERS") {
		t.Errorf("the plan does not name the right: %+v, %v", plan, err)
	}
}

// TestParkedSurvives: what was put aside is there after the broker was killed, and
// an Unpark that was cut off is taken back by the next Park.
func TestParkedSurvives(t *testing.T) {
	t.Parallel()
	s := broker.NATSWith(t, "")
	a := connected(t, identity(), config(s.URL))
	ch, err := a.Park(t.Context(), "detour-1")
	must(t, err)
	sendAll(t, outlet(t, a, ch), &agents.Message{Key: "orders.new", Body: []byte("precious")})
	s.Restart(t)
	if _, err := a.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := newBench(t, s.URL, "")
	st, err := b.js.Stream(t.Context(), ch)
	must(t, err)
	c := st.CachedInfo().Config
	c.Subjects = []string{"sb.park.closed.detour-1"}
	_, err = b.js.UpdateStream(t.Context(), c)
	must(t, err)
	again, err := a.Park(t.Context(), "detour-1")
	if err != nil || again != ch {
		t.Fatalf("parked again: %q, %v", again, err)
	}
	if err := a.Unpark(t.Context(), "detour-1"); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("unpark with a message: %v", err)
	}
	sendAll(t, outlet(t, a, ch), &agents.Message{Body: []byte("more")})
	msgs := takeAll(t, intake(t, a, ch, agents.IntakeOptions{}))
	if texts(msgs) != "precious more" {
		t.Errorf("parked: %s", texts(msgs))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = a.Purge(ctx, ch, "")
	must(t, err)
	must(t, a.Unpark(ctx, "detour-1"))
	if _, err := a.Outlet(ctx, ch); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("after unpark: %v", err)
	}
	for _, bad := range []string{"", "a.b", "a b", ">", strings.Repeat("x", 100)} {
		if _, err := a.Park(ctx, bad); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("park %q: %v", bad, err)
		}
	}
	// A stream of somebody else's by that name.
	_, err = b.js.CreateStream(ctx, jetstream.StreamConfig{Name: "sb_park_taken", Subjects: []string{"their.own"}})
	must(t, err)
	if _, err := a.Park(ctx, "taken"); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("park over another's stream: %v", err)
	}
	if err := a.Unpark(ctx, "taken"); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("unpark of another's stream: %v", err)
	}
}
