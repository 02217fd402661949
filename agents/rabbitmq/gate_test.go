package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/rabbitmq"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// traffic is publishers that want to know of every message where it went, and
// consumers that note what they got.
type traffic struct {
	sent, returned, refused atomic.Int64

	mu   sync.Mutex
	got  map[string]int
	stop chan struct{}
	done sync.WaitGroup
	last atomic.Int64  // when something was received
	pace time.Duration // between 16 messages of a publisher
}

// startTraffic publishes to each exchange and key until the traffic is settled.
func startTraffic(t *testing.T, b *bench, publishers [][2]string, pace time.Duration) *traffic {
	t.Helper()
	tr := &traffic{pace: pace, got: map[string]int{}, stop: make(chan struct{})}
	for p, to := range publishers {
		ch := channel(t, broker.DialAMQP(t, b.url))
		must(t, ch.Confirm(false))
		returns := ch.NotifyReturn(make(chan amqp.Return, 64))
		tr.done.Go(func() {
			for range returns {
				tr.returned.Add(1)
			}
		})
		tr.done.Go(func() {
			defer ch.Close()
			for n := 0; ; {
				var open []*amqp.DeferredConfirmation
				for range 16 {
					n++
					c, err := ch.PublishWithDeferredConfirm(to[0], to[1], true, false, amqp.Publishing{Body: fmt.Appendf(nil, "%d-%d", p, n)})
					if err != nil {
						t.Error(err)
						return
					}
					open = append(open, c)
				}
				for _, c := range open {
					if c.Wait() {
						tr.sent.Add(1)
					} else {
						tr.refused.Add(1)
					}
				}
				select {
				case <-tr.stop:
					return
				case <-time.After(tr.pace):
				}
			}
		})
	}
	return tr
}

// receive notes what comes to a queue until its connection is closed. It waits
// for the queue, which may not be there yet.
func (tr *traffic) receive(t *testing.T, b *bench, queue string) {
	t.Helper()
	ch := channel(t, broker.DialAMQP(t, b.url))
	must(t, ch.Qos(500, 0, false))
	in, err := ch.Consume(queue, "app", false, false, false, false, nil)
	must(t, err)
	go func() {
		for d := range in {
			tr.mu.Lock()
			tr.got[string(d.Body)]++
			tr.mu.Unlock()
			tr.last.Store(time.Now().UnixNano())
			_ = d.Ack(false)
		}
	}()
}

// settle stops the publishers and waits until all is received.
func (tr *traffic) settle(t *testing.T) (sent int64, distinct, doubled int) {
	t.Helper()
	close(tr.stop)
	tr.done.Wait()
	count := func() {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		distinct, doubled = len(tr.got), 0
		for _, n := range tr.got {
			doubled += n - 1
		}
	}
	sent = tr.sent.Load()
	deadline := time.Now().Add(30 * time.Second)
	for count(); int64(distinct) < sent && time.Now().Before(deadline); count() {
		time.Sleep(20 * time.Millisecond)
	}
	// What is doubled comes late, too.
	for time.Since(time.Unix(0, tr.last.Load())) < 300*time.Millisecond {
		time.Sleep(20 * time.Millisecond)
	}
	count()
	return sent, distinct, doubled
}

func (tr *traffic) check(t *testing.T, what string) {
	t.Helper()
	start := time.Now()
	sent, distinct, doubled := tr.settle(t)
	t.Logf("%s: %d sent, %d distinct received, %d doubled, %d returned, %d refused (%s to settle)",
		what, sent, distinct, doubled, tr.returned.Load(), tr.refused.Load(), time.Since(start).Round(time.Millisecond))
	if int64(distinct) != sent || doubled != 0 || tr.returned.Load() != 0 || tr.refused.Load() != 0 || sent == 0 {
		t.Errorf("%s: %d sent, %d distinct received, %d doubled, %d returned, %d refused; want all once",
			what, sent, distinct, doubled, tr.returned.Load(), tr.refused.Load())
	}
}

// gated is a queue with three bindings at two exchanges.
func (b *bench) gated(t *testing.T, queue string) [][2]string {
	t.Helper()
	b.queue(t, queue, "x.topic", "topic", "order.*")
	must(t, b.ch.QueueBind(queue, "#", "x.topic", false, nil)) // both match: one copy
	b.queue(t, queue, "x.fanout", "fanout", "")
	return [][2]string{{"x.topic", "order.new"}, {"x.topic", "other"}, {"x.fanout", ""}}
}

// bindings lists what is bound to a queue, and by what.
func (b *bench) bindings(t *testing.T, queue string) []string {
	t.Helper()
	var list []struct {
		Source, Routing_key string
		Arguments           map[string]any
	}
	b.API(t, http.MethodGet, "/api/queues/"+url.PathEscape(b.vhost)+"/"+url.PathEscape(queue)+"/bindings", nil, &list)
	var out []string
	for _, l := range list {
		out = append(out, fmt.Sprint(l.Source, " ", l.Routing_key, " ", l.Arguments))
	}
	slices.Sort(out)
	return out
}

// gateParts lists exchanges and queues of gates and separations.
func (b *bench) gateParts(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, kind := range []string{"queues", "exchanges"} {
		var list []struct{ Name string }
		b.API(t, http.MethodGet, "/api/"+kind+"/"+url.PathEscape(b.vhost)+"?columns=name", nil, &list)
		for _, l := range list {
			if strings.HasPrefix(l.Name, "sb.d.") || strings.HasPrefix(l.Name, "sb.sep.") {
				out = append(out, kind+" "+l.Name)
			}
		}
	}
	return out
}

// TestGateUnderLoad switches while three publishers send with the mandatory
// flag; 200 times with SIGNALBOX_SOAK=1.
func TestGateUnderLoad(t *testing.T) {
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) { gateUnderLoad(t, kind) })
	}
}

func gateUnderLoad(t *testing.T, kind string) {
	flips := 24
	if os.Getenv("SIGNALBOX_SOAK") == "1" {
		flips = 200
	}
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	_, err := b.ch.QueueDeclare("orders", true, false, false, false, amqp.Table{amqp.QueueTypeArg: kind})
	must(t, err)
	must(t, b.ch.ExchangeDeclare("x.topic", "topic", true, false, false, false, nil))
	must(t, b.ch.ExchangeDeclare("x.fanout", "fanout", true, false, false, false, nil))
	must(t, b.ch.QueueBind("orders", "order.*", "x.topic", false, nil))
	must(t, b.ch.QueueBind("orders", "#", "x.topic", false, nil))
	must(t, b.ch.QueueBind("orders", "", "x.fanout", false, nil))
	before := b.bindings(t, "orders")
	tr := startTraffic(t, b, [][2]string{{"x.topic", "order.new"}, {"x.topic", "other"}, {"x.fanout", ""}}, 0)
	tr.receive(t, b, "orders")
	ctx := t.Context()
	backlog, err := a.InstallGate(ctx, "g1", "orders")
	must(t, err)
	view, err := a.Gate(ctx, "g1", "orders")
	must(t, err)
	if !view.Installed || view.On || view.Backlog != backlog || len(view.Bypasses) > 0 {
		t.Errorf("installed under load: %+v", view)
	}
	aside := startReceiver(t, tr, b, backlog)
	var longest time.Duration
	for n := range flips {
		start := time.Now()
		must(t, a.SetGate(ctx, "g1", "orders", n%2 == 0))
		longest = max(longest, time.Since(start))
		time.Sleep(5 * time.Millisecond) // let some through on this side
	}
	view, err = a.Gate(ctx, "g1", "orders")
	must(t, err)
	if view.On || !view.Installed {
		t.Errorf("after an even number of flips: %+v", view)
	}
	eventually(t, "the backlog to be empty", 20*time.Second, func() bool { return b.waiting(t, backlog) == 0 })
	aside()
	must(t, a.RemoveGate(ctx, "g1", "orders"))
	tr.check(t, fmt.Sprintf("%s, %d flips (longest %s) between install and removal", kind, flips, longest.Round(time.Millisecond)))
	if diff := cmp.Diff(before, b.bindings(t, "orders")); diff != "" {
		t.Errorf("bindings after removal (-before +after):\n%s", diff)
	}
	if parts := b.gateParts(t); len(parts) > 0 {
		t.Errorf("the gate left %q", parts)
	}
}

// startReceiver receives until it is stopped, when nothing of it is left.
func startReceiver(t *testing.T, tr *traffic, b *bench, queue string) (stop func()) {
	t.Helper()
	c := broker.DialAMQP(t, b.url)
	ch := channel(t, c)
	in, err := ch.Consume(queue, "aside", false, false, false, false, nil)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for d := range in {
			tr.mu.Lock()
			tr.got[string(d.Body)]++
			tr.mu.Unlock()
			tr.last.Store(time.Now().UnixNano())
			_ = d.Ack(false)
		}
	}()
	return func() {
		must(t, ch.Cancel("aside", false))
		<-done
		must(t, ch.Close())
	}
}

// TestGateKilledAtEveryStep breaks the agent's connection after each single step
// of installing and removing, and lets another run of the agent complete it,
// under load.
func TestGateKilledAtEveryStep(t *testing.T) {
	b := newBench(t)
	publishers := b.gated(t, "orders")
	before := b.bindings(t, "orders")
	tr := startTraffic(t, b, publishers, 5*time.Millisecond)
	tr.receive(t, b, "orders")
	cfg := config(b.Server, b.url)
	ctx := t.Context()
	// killed runs f with an adapter whose connection breaks after n steps, and says
	// whether f came so far.
	killed := func(n int, f func(*rabbitmq.Adapter) error) (at string) {
		a := connected(t, identity(), cfg)
		count := 0
		a.AfterStep(func(what string) {
			if count++; count == n {
				at = what
				a.CutControl()
			}
		})
		if err := f(a); at == "" && err != nil {
			t.Fatalf("never killed, and yet: %v", err)
		}
		closeNow(t, a)
		return at
	}
	var installs, removals []string
	for n := 1; ; n++ {
		at := killed(n, func(a *rabbitmq.Adapter) error { _, err := a.InstallGate(ctx, "k", "orders"); return err })
		if at == "" {
			break
		}
		installs = append(installs, at)
		a := connected(t, identity(), cfg)
		backlog, err := a.InstallGate(ctx, "k", "orders")
		if err != nil {
			t.Fatalf("completing after %q: %v", at, err)
		}
		view, err := a.Gate(ctx, "k", "orders")
		must(t, err)
		if !view.Installed || view.On || len(view.Bypasses) > 0 {
			t.Fatalf("completed after %q: %+v", at, view)
		}
		if n%4 != 1 {
			must(t, a.RemoveGate(ctx, "k", "orders"))
			closeNow(t, a)
			continue
		}
		aside := startReceiver(t, tr, b, backlog)
		must(t, a.SetGate(ctx, "k", "orders", true))
		// A gate that is on stays on when it is installed again.
		_, err = a.InstallGate(ctx, "k", "orders")
		must(t, err)
		if view, err = a.Gate(ctx, "k", "orders"); err != nil || !view.On || !view.Installed {
			t.Fatalf("installed again while on: %+v, %v", view, err)
		}
		must(t, a.SetGate(ctx, "k", "orders", false))
		eventually(t, "the backlog to be empty", 20*time.Second, func() bool { return b.waiting(t, backlog) == 0 })
		aside()
		must(t, a.RemoveGate(ctx, "k", "orders"))
		closeNow(t, a)
	}
	for n := 1; ; n++ {
		a := connected(t, identity(), cfg)
		_, err := a.InstallGate(ctx, "k", "orders")
		must(t, err)
		closeNow(t, a)
		at := killed(n, func(a *rabbitmq.Adapter) error { return a.RemoveGate(ctx, "k", "orders") })
		if at == "" {
			break
		}
		removals = append(removals, at)
		a = connected(t, identity(), cfg)
		if err := a.RemoveGate(ctx, "k", "orders"); err != nil {
			t.Fatalf("completing the removal after %q: %v", at, err)
		}
		if diff := cmp.Diff(before, b.bindings(t, "orders")); diff != "" {
			t.Fatalf("bindings after removal killed at %q (-before +after):\n%s", at, diff)
		}
		if parts := b.gateParts(t); len(parts) > 0 {
			t.Fatalf("removal killed at %q left %q", at, parts)
		}
		closeNow(t, a)
	}
	tr.check(t, fmt.Sprintf("killed after %d steps of installing and %d of removing", len(installs), len(removals)))
	if len(installs) < 10 || len(removals) < 8 {
		t.Errorf("only %d and %d steps: %q, %q", len(installs), len(removals), installs, removals)
	}
}

func closeNow(t *testing.T, a *rabbitmq.Adapter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	must(t, a.Close(ctx))
}

func TestGateHoldsItsBacklog(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "topic", "#")
	a := connected(t, identity(), config(b.Server, b.url))
	ctx := t.Context()
	backlog, err := a.InstallGate(ctx, "g", "orders")
	must(t, err)
	must(t, a.SetGate(ctx, "g", "orders", true))
	b.publish(t, "x", "a", make([]amqp.Publishing, 3)...)
	view, err := a.Gate(ctx, "g", "orders")
	must(t, err)
	if want := (agents.GateView{Installed: true, On: true, Backlog: backlog, Waiting: 3}); !cmp.Equal(view, want) {
		t.Errorf("got %+v, want %+v", view, want)
	}
	conflict := func(what string) {
		t.Helper()
		if err := a.RemoveGate(ctx, "g", "orders"); !errors.Is(err, controlbus.ErrConflict) {
			t.Errorf("removing %s: got %v, want ErrConflict", what, err)
		}
	}
	conflict("a gate that is on")
	must(t, a.SetGate(ctx, "g", "orders", false))
	conflict("a gate with a backlog")
	// It is a channel like any other: listed, observed, no leftover.
	channels, err := a.Channels(ctx, "*")
	must(t, err)
	if !slices.Contains(channels, backlog) {
		t.Errorf("channels %q are without the backlog %q", channels, backlog)
	}
	if left, err := a.Leftovers(ctx); err != nil || len(left) > 0 {
		t.Errorf("leftovers: %q, %v", left, err)
	}
	in, err := a.Intake(ctx, backlog, agents.IntakeOptions{})
	must(t, err)
	msgs, err := in.Next(ctx, 10)
	must(t, err)
	conflict("a gate whose backlog is worked on")
	must(t, in.Accept(ctx, msgs))
	must(t, in.Close(ctx))
	must(t, a.RemoveGate(ctx, "g", "orders"))
	must(t, a.RemoveGate(ctx, "g", "orders"))
	view, err = a.Gate(ctx, "g", "orders")
	if err != nil || view.Installed || view.On {
		t.Errorf("after removal: %+v, %v", view, err)
	}
}

// An application that declares its binding again at its start.
func TestGateBypass(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "topic", "order.#")
	a := connected(t, identity(), config(b.Server, b.url))
	ctx := t.Context()
	_, err := a.InstallGate(ctx, "g", "orders")
	must(t, err)
	must(t, b.ch.QueueBind("orders", "order.#", "x", false, nil))
	view, err := a.Gate(ctx, "g", "orders")
	must(t, err)
	if view.Installed || !cmp.Equal(view.Bypasses, []string{"exchange x by order.#"}) {
		t.Errorf("with the binding made again: %+v", view)
	}
	if err := a.SetGate(ctx, "g", "orders", true); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("switching on beside a bypass: got %v, want ErrConflict", err)
	}
	_, err = a.InstallGate(ctx, "g", "orders")
	must(t, err)
	must(t, a.SetGate(ctx, "g", "orders", true))
	// And again, with a new binding, while it is on.
	must(t, b.ch.QueueBind("orders", "invoice.#", "x", false, nil))
	if view, err = a.Gate(ctx, "g", "orders"); err != nil || view.Installed || !view.On || len(view.Bypasses) != 1 {
		t.Errorf("with a new binding: %+v, %v", view, err)
	}
	_, err = a.InstallGate(ctx, "g", "orders")
	must(t, err)
	if view, err = a.Gate(ctx, "g", "orders"); err != nil || !view.Installed || !view.On || len(view.Bypasses) != 0 {
		t.Errorf("installed again: %+v, %v", view, err)
	}
	must(t, a.SetGate(ctx, "g", "orders", false))
	must(t, a.RemoveGate(ctx, "g", "orders"))
	if got := b.bindings(t, "orders"); len(got) != 3 {
		t.Errorf("bindings after removal: %q", got)
	}
}

func TestGateIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	ctx := t.Context()
	_, err := b.ch.QueueDeclare("plain", true, false, false, false, nil)
	must(t, err)
	b.queue(t, "shared", "x.hash", "x-consistent-hash", "1")
	_, err = b.ch.QueueDeclare("log", true, false, false, false, amqp.Table{amqp.QueueTypeArg: "stream"})
	must(t, err)
	b.queue(t, "bounded", "x", "fanout", "")
	b.API(t, http.MethodPut, "/api/policies/"+url.PathEscape(b.vhost)+"/p", map[string]any{
		"pattern": ".*", "apply-to": "queues", "definition": map[string]any{"max-length": 10},
	}, nil)
	for _, c := range []struct {
		queue, why string
		want       error
	}{
		{"plain", "default exchange", controlbus.ErrUnsupported},
		{"shared", "x-consistent-hash", controlbus.ErrUnsupported},
		{"log", "stream", controlbus.ErrUnsupported},
		{"bounded", "max-length=10", controlbus.ErrConflict},
		{"missing", "", controlbus.ErrNotFound},
	} {
		_, err := a.InstallGate(ctx, "g-"+c.queue, c.queue)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: got %v, want %v with %q", c.queue, err, c.want, c.why)
		}
		if c.queue == "bounded" {
			must(t, a.RemoveGate(ctx, "g-bounded", "bounded"))
			continue
		}
		if _, err := a.PlanCommand(ctx, controlbus.CommandDetour, c.queue); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.why) {
			t.Errorf("plan for %s: got %v, want %v with %q", c.queue, err, c.want, c.why)
		}
	}
	if _, err := a.Park(ctx, "bounded"); !errors.Is(err, controlbus.ErrConflict) || !strings.Contains(err.Error(), "max-length=10") {
		t.Errorf("a queue to park in that loses messages: got %v, want ErrConflict", err)
	}
	must(t, a.Unpark(ctx, "bounded"))
	if _, err := a.InstallGate(ctx, "a/../b", "plain"); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("an id that is no name: got %v, want ErrInvalid", err)
	}
	if parts := b.gateParts(t); len(parts) > 0 {
		t.Errorf("refused gates left %q", parts)
	}
	plain := config(b.Server, b.url)
	plain.ManagementURL = ""
	without := connected(t, identity(), plain)
	if _, err := without.InstallGate(ctx, "g", "bounded"); !errors.Is(err, controlbus.ErrUnsupported) || !strings.Contains(err.Error(), "management_url") {
		t.Errorf("without a management API: got %v", err)
	}
	for _, can := range without.Abilities() {
		if can.Kind == controlbus.CommandDetour && !strings.Contains(can.Reason, "management_url") {
			t.Errorf("detour without a management API: %+v", can)
		}
	}
}

// A tap sees a message once, whatever the gate does, and takes none away from
// the queue: at a gate that is on, what is bound beside the queue would.
func TestTapAndGateOfOneQueue(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "topic", "a.#")
	must(t, b.ch.QueueBind("orders", "b", "x", false, nil))
	cfg := config(b.Server, b.url)
	cfg.Tap.PollInterval = 100 * time.Millisecond
	a := connected(t, identity(), cfg)
	ctx := t.Context()
	polls := func() { time.Sleep(5 * cfg.Tap.PollInterval) }
	tap := startTap(t, a, "orders", nil)
	seen, queued := 0, 0
	publish := func(what string, tap *running) {
		t.Helper()
		b.publish(t, "x", "a.new", make([]amqp.Publishing, 3)...)
		b.publish(t, "x", "b", make([]amqp.Publishing, 2)...)
		seen, queued = seen+5, queued+5
		if got := len(tap.saw(t, seen)); got != seen {
			t.Errorf("%s: the tap has seen %d messages of %d", what, got, seen)
		}
		waiting := 0
		for _, queue := range []string{"orders", "sb.d.g.backlog"} {
			if q, err := channel(t, broker.DialAMQP(t, b.url)).QueueDeclarePassive(queue, true, false, false, false, nil); err == nil {
				waiting += q.Messages
			}
		}
		if waiting != queued {
			t.Errorf("%s: %d messages wait, want %d", what, waiting, queued)
		}
	}
	publish("without a gate", tap)
	_, err := a.InstallGate(ctx, "g", "orders")
	must(t, err)
	publish("installed", tap)
	polls()
	publish("installed, polled", tap)
	for round := range 2 {
		must(t, a.SetGate(ctx, "g", "orders", true))
		publish("on", tap)
		polls()
		publish("on, polled", tap)
		if round == 0 {
			tap.stop()
			must(t, tap.wait(t))
			tap, seen = startTap(t, a, "orders", nil), 0
			publish("tapped while it is on", tap)
		}
		must(t, a.SetGate(ctx, "g", "orders", false))
		polls()
		publish("off", tap)
	}
	_, err = b.ch.QueuePurge("sb.d.g.backlog", false)
	must(t, err)
	_, err = b.ch.QueuePurge("orders", false)
	must(t, err)
	queued = 0
	must(t, a.RemoveGate(ctx, "g", "orders"))
	publish("removed", tap)
	polls()
	publish("removed, polled", tap)
}

// What somebody binds to a gate takes messages away from the backlog: it is not
// switched on, and says so when it is on.
func TestGateThatLeaks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "topic", "#")
	a := connected(t, identity(), config(b.Server, b.url))
	ctx := t.Context()
	_, err := a.InstallGate(ctx, "g", "orders")
	must(t, err)
	b.queue(t, "mirror", "mirrored", "fanout", "")
	must(t, b.ch.QueueBind("mirror", "#", "sb.d.g", false, nil))
	if err := a.SetGate(ctx, "g", "orders", true); !errors.Is(err, controlbus.ErrConflict) || !strings.Contains(err.Error(), "queue mirror") {
		t.Errorf("switched on: %v", err)
	}
	must(t, b.ch.QueueUnbind("mirror", "#", "sb.d.g", nil))
	must(t, a.SetGate(ctx, "g", "orders", true))
	must(t, b.ch.QueueBind("mirror", "#", "sb.d.g", false, nil))
	v, err := a.Gate(ctx, "g", "orders")
	if err != nil || !slices.Equal(v.Leaks, []string{"queue mirror"}) {
		t.Errorf("%+v, %v", v, err)
	}
	must(t, a.SetGate(ctx, "g", "orders", false))
}
