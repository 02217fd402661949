package rabbitmq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// stuckSink does not return from Put until it is let go: a tap whose agent
// stands still.
type stuckSink struct {
	*agenttest.Sink
	free chan struct{}
}

func newStuckSink() *stuckSink { return &stuckSink{agenttest.NewSink(), make(chan struct{})} }

func (s *stuckSink) Put(ctx context.Context, ev *controlbus.MessageEvent, pos agents.Position) error {
	select {
	case <-s.free:
	case <-ctx.Done():
	}
	return s.Sink.Put(ctx, ev, pos)
}

func messages(n int) []amqp.Publishing {
	out := make([]amqp.Publishing, n)
	for i := range out {
		out[i] = amqp.Publishing{MessageId: fmt.Sprint(i), Body: fmt.Appendf(nil, "%d", i)}
	}
	return out
}

func (b *bench) depth(t *testing.T, queue string) int {
	t.Helper()
	q, err := b.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	must(t, err)
	return q.Messages
}

// TestTapLimitHolds: a tap limited to 100 holds 100 of 1,000 while the tapped
// queue and the publisher notice nothing, and says exactly what it lost.
func TestTapLimitHolds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "direct", "k")
	cfg := config(b.Server, b.url)
	cfg.Tap.MaxLength, cfg.Tap.Prefetch = 100, 1
	sink := newStuckSink()
	tap := startTap(t, connected(t, identity(), cfg), "orders", sink)
	b.publish(t, "x", "k", messages(1000)...) // fails on any nack: never reject-publish
	if n := b.depth(t, "orders"); n != 1000 {
		t.Errorf("the tapped queue has %d of 1000 messages", n)
	}
	ours := b.ours(t)
	if len(ours) != 1 {
		t.Fatalf("the agent's queues: %q, want one", ours)
	}
	var q struct {
		Ready   *int           `json:"messages_ready"`
		Unacked *int           `json:"messages_unacknowledged"`
		Args    map[string]any `json:"arguments"`
	}
	eventually(t, "the tap queue's statistics", 20*time.Second, func() bool {
		b.API(t, http.MethodGet, "/api/queues/"+b.vhost+"/"+url.PathEscape(ours[0]), nil, &q)
		return q.Ready != nil && *q.Ready == 100
	})
	if q.Args["x-overflow"] != "drop-head" || q.Args["x-dead-letter-exchange"] != nil {
		t.Errorf("arguments of the tap queue: %v", q.Args)
	}
	close(sink.free)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	sink.Wait(ctx, 101) // one in flight, a hundred on the broker
	eventually(t, "the loss to be counted", 30*time.Second, func() bool { return sink.Lost() == int64(1000-len(sink.Events())) })
	t.Logf("tap got %d, lost %d of 1000", len(sink.Events()), sink.Lost())
	if n := len(sink.Events()); n < 100 || n > 102 {
		t.Errorf("a tap of 100 with prefetch 1 got %d of 1000", n)
	}
	tap.stop()
	must(t, tap.wait(t))
}

// TestUnroutableIsStillReturned: the tap binds no wider than the tapped queue.
func TestUnroutableIsStillReturned(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "topic", "orders.#")
	tap := startTap(t, connected(t, identity(), config(b.Server, b.url)), "orders", nil)
	returned := b.ch.NotifyReturn(make(chan amqp.Return, 1))
	c, err := b.ch.PublishWithDeferredConfirm("x", "invoices.new", true, false, amqp.Publishing{Body: []byte("nobody")})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if ok, err := c.WaitContext(ctx); err != nil || !ok {
		t.Fatalf("not confirmed: %v", err)
	}
	select {
	case r := <-returned:
		if r.ReplyCode != amqp.NoRoute {
			t.Errorf("returned with %d, want %d", r.ReplyCode, amqp.NoRoute)
		}
	default:
		t.Error("the unroutable message was not returned")
	}
	tap.stop()
	must(t, tap.wait(t))
	if n := len(tap.Events()); n != 0 {
		t.Errorf("the tap saw %d messages of another key", n)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "shard", "hash", "x-consistent-hash", "1")
	_, err := b.ch.QueueDeclare("plain", true, false, false, false, nil)
	must(t, err)
	a := connected(t, identity(), config(b.Server, b.url))
	for _, c := range []struct {
		channel, reason string
		is              error
	}{
		{"shard", "x-consistent-hash", controlbus.ErrUnsupported},
		{"plain", "default exchange", controlbus.ErrUnsupported},
		{"no-such-queue", "", controlbus.ErrNotFound},
	} {
		_, err := a.PlanTap(t.Context(), c.channel)
		if !errors.Is(err, c.is) || !strings.Contains(fmt.Sprint(err), c.reason) {
			t.Errorf("plan for %s: got %v, want %v naming %q", c.channel, err, c.is, c.reason)
		}
	}
	noAPI := config(b.Server, b.url)
	noAPI.ManagementURL, noAPI.Queues = "", []string{"plain"}
	a = connected(t, identity(), noAPI)
	if _, err := a.PlanTap(t.Context(), "plain"); !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("plan without the management API: got %v", err)
	}
	md := pmetric.NewMetrics()
	must(t, a.Observe(t.Context(), md))
	if problem := agenttest.CheckMetrics(md, "rabbitmq"); problem != "" || md.DataPointCount() != 3 {
		t.Errorf("passive observation: %d points, %s", md.DataPointCount(), problem)
	}
}

// TestBindingsAreFollowed: new bindings are mirrored, headers arguments and
// exchange-to-exchange chains included, and lost ones are dropped.
func TestBindingsAreFollowed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "direct", "a")
	must(t, b.ch.ExchangeDeclare("upstream", "fanout", true, false, false, false, nil))
	must(t, b.ch.ExchangeBind("x", "", "upstream", false, nil))
	must(t, b.ch.ExchangeDeclare("h", "headers", true, false, false, false, nil))
	tap := startTap(t, connected(t, identity(), config(b.Server, b.url)), "orders", nil)
	b.publish(t, "upstream", "a", amqp.Publishing{Body: []byte("chain")})
	tap.saw(t, 1)

	must(t, b.ch.QueueBind("orders", "", "h", false, amqp.Table{"x-match": "all", "level": int32(3), "kind": "gold"}))
	bound := func(source string) bool {
		var bs []struct{ Destination string }
		b.API(t, http.MethodGet, "/api/exchanges/"+b.vhost+"/"+source+"/bindings/source", nil, &bs)
		for _, x := range bs {
			if strings.HasPrefix(x.Destination, "sb.tap.") {
				return true
			}
		}
		return false
	}
	eventually(t, "the new binding to be mirrored", 10*time.Second, func() bool { return bound("h") })
	b.publish(t, "h", "", amqp.Publishing{Headers: amqp.Table{"level": int32(3), "kind": "gold"}, Body: []byte("headers")})
	b.publish(t, "h", "", amqp.Publishing{Headers: amqp.Table{"level": int32(4), "kind": "gold"}, Body: []byte("no match")})
	must(t, b.ch.QueueUnbind("orders", "a", "x", nil))
	eventually(t, "the lost binding to be dropped", 10*time.Second, func() bool { return !bound("x") })
	b.publish(t, "x", "a", amqp.Publishing{Body: []byte("unbound")})
	b.publish(t, "h", "", amqp.Publishing{Headers: amqp.Table{"level": int32(3), "kind": "gold"}, Body: []byte("last")})
	var got []string
	for _, ev := range tap.saw(t, 3) {
		got = append(got, string(ev.Body))
	}
	if want := "[chain headers last]"; fmt.Sprint(got) != want {
		t.Errorf("the tap saw %q, want %s", got, want)
	}
	_, err := b.ch.QueueDelete("orders", false, false, false)
	must(t, err)
	if err := tap.wait(t); !errors.Is(err, controlbus.ErrNotFound) {
		t.Errorf("tap of a deleted queue ended with %v, want ErrNotFound", err)
	}
}

// TestLockedNameIsPassedBy: the queue of a connection that the broker still
// believes alive keeps its name; the next tap takes another.
func TestLockedNameIsPassedBy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "fanout", "")
	id := identity()
	other := channel(t, broker.DialAMQP(t, b.url))
	name := fmt.Sprintf("sb.tap.%s.%s.1", id.Agent, id.Incarnation)
	_, err := other.QueueDeclare(name, false, true, true, false, nil)
	must(t, err)
	tap := startTap(t, connected(t, id, config(b.Server, b.url)), "orders", nil)
	b.publish(t, "x", "", amqp.Publishing{Body: []byte("1")})
	tap.saw(t, 1)
	if ours := b.ours(t); len(ours) != 2 {
		t.Errorf("queues %q, want the locked one and another", ours)
	}
}

// TestSmallestRights: the rights of BROKERS.md 0.2 tap and cannot read the queue.
func TestSmallestRights(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders", "x", "topic", "#")
	user := "tap-" + b.vhost
	b.User(t, user, "secret", "monitoring")
	b.Grant(t, b.vhost, user, `^sb\.`, `^sb\.`, `^(sb\..*|x)$`)
	cfg := config(b.Server, b.URLFor(t, b.vhost, user, "secret"))
	u, err := url.Parse(cfg.ManagementURL)
	must(t, err)
	u.User = nil
	cfg.ManagementURL = u.String()
	tap := startTap(t, connected(t, identity(), cfg), "orders", nil)
	b.publish(t, "x", "any", amqp.Publishing{Body: []byte("1")})
	tap.saw(t, 1)
	_, err = channel(t, broker.DialAMQP(t, cfg.URL)).Consume("orders", "", true, false, false, false, nil)
	var refused *amqp.Error
	if !errors.As(err, &refused) || refused.Code != amqp.AccessRefused {
		t.Errorf("reading the live queue with the tap's rights: got %v, want 403", err)
	}
	// Without the right to read the exchange the answer names it.
	b.Grant(t, b.vhost, user, `^sb\.`, `^sb\.`, `^sb\.`)
	cfg.URL = b.URLFor(t, b.vhost, user, "secret")
	a := connected(t, identity(), cfg)
	plan, err := a.PlanTap(t.Context(), "orders")
	must(t, err)
	err = a.Tap(t.Context(), plan, agents.Position{}, agenttest.NewSink(), func() {})
	if !errors.Is(err, controlbus.ErrDenied) || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("tap without rights: got %v, want ErrDenied naming the exchange", err)
	}
}

// TestFirehose taps a queue of the default exchange, and a crash in the middle
// is cleaned up by the next incarnation.
func TestFirehose(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.ch.QueueDeclare("celery", true, false, false, false, nil)
	must(t, err)
	cfg := config(b.Server, b.url)
	cfg.Firehose.Allowed = true
	tracing := func() bool {
		var v struct{ Tracing bool }
		b.API(t, http.MethodGet, "/api/vhosts/"+b.vhost, nil, &v)
		return v.Tracing
	}
	deliveries, err := b.ch.Consume("celery", "", true, false, false, false, nil)
	must(t, err)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for range deliveries {
		}
	}()
	t.Cleanup(func() { b.ch.Close(); <-drained })

	tap := startTap(t, connected(t, identity(), cfg), "celery", nil)
	if !tracing() {
		t.Error("tracing is off while a firehose tap runs")
	}
	b.publish(t, "", "celery", amqp.Publishing{
		MessageId: "m1", CorrelationId: "c1", ContentType: "text/plain", Timestamp: time.Now(),
		Headers: amqp.Table{"task": "add"}, Body: []byte("body"),
	})
	ev := tap.saw(t, 1)[0]
	if string(ev.Body) != "body" || ev.MessageID != "m1" || ev.CorrelationID != "c1" || ev.RoutingKey != "celery" || ev.Destination != "celery" {
		t.Errorf("event of the firehose: %+v", ev)
	}
	tap.stop()
	must(t, tap.wait(t))
	if tracing() {
		t.Error("tracing is on after the last firehose tap")
	}

	// What a killed agent leaves: the flag and its mark.
	must(t, b.ch.ExchangeDeclare("sb.firehose.test.dead", "fanout", true, false, true, false, nil))
	b.API(t, http.MethodPut, "/api/vhosts/"+b.vhost, map[string]bool{"tracing": true}, nil)
	observer := connected(t, identity(), config(b.Server, b.url))
	if left, err := observer.Leftovers(t.Context()); err != nil || len(left) != 1 || !strings.Contains(left[0], "sb.firehose.test.dead") {
		t.Errorf("leftovers: got %q, %v, want the dead agent's mark", left, err)
	}
	connected(t, identity(), cfg)
	if tracing() {
		t.Error("the next incarnation did not switch the firehose off")
	}
	if left, err := observer.Leftovers(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("leftovers after the sweep: %q, %v", left, err)
	}

	cfg.Firehose.Lease = 300 * time.Millisecond
	tap = startTap(t, connected(t, identity(), cfg), "celery", nil)
	if err := tap.wait(t); !errors.Is(err, controlbus.ErrUnsupported) {
		t.Errorf("a firehose tap whose lease is over ended with %v", err)
	}
	if tracing() {
		t.Error("tracing is on after the lease")
	}
}

// TestEventOfDeadLetter: a real dead letter, as the broker marks it.
func TestEventOfDeadLetter(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "dead", "dlx", "fanout", "")
	_, err := b.ch.QueueDeclare("work", true, false, false, false, amqp.Table{"x-dead-letter-exchange": "dlx", "x-message-ttl": int32(1)})
	must(t, err)
	tap := startTap(t, connected(t, identity(), config(b.Server, b.url)), "dead", nil)
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	b.publish(t, "", "work", amqp.Publishing{
		AppId: "shop", MessageId: "m", Priority: 3, Body: []byte("late"),
		Headers: amqp.Table{"traceparent": trace, "x-causation-id": "cause", "n": int64(1) << 60, "nested": amqp.Table{"b": true}},
	})
	ev := tap.saw(t, 1)[0]
	if ev.Outcome != controlbus.OutcomeDeadLettered || ev.DeadLetterSource != "work" || ev.DeadLetterReason != "expired" || ev.Delivery != 2 {
		t.Errorf("dead letter: outcome %v, source %q, reason %q, delivery %d", ev.Outcome, ev.DeadLetterSource, ev.DeadLetterReason, ev.Delivery)
	}
	if ev.Service != "shop" || ev.CausationID != "cause" || fmt.Sprintf("%x", ev.TraceID) != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("lifted: service %q, causation %q, trace %x", ev.Service, ev.CausationID, ev.TraceID)
	}
	have := map[string]string{}
	for _, h := range ev.Headers {
		have[h.Key] = h.Value
	}
	for k, want := range map[string]string{
		"n": "1152921504606846976", "nested.b": "true", "x-death[0].reason": "expired",
		"x-death[0].count": "1", "priority": "3", "message_id": "m", "routing_key": "work",
	} {
		if have[k] != want {
			t.Errorf("header %s: got %q, want %q", k, have[k], want)
		}
	}
}

// TestBrokerRestart: a tap ends with ErrNotConnected and works again afterwards.
func TestBrokerRestart(t *testing.T) {
	s := broker.RabbitMQ(t) // serial: the others wait until it is back
	b := &bench{Server: s}
	b.vhost, b.url = s.VHost(t)
	b.ch = channel(t, broker.DialAMQP(t, b.url))
	must(t, b.ch.Confirm(false))
	b.queue(t, "orders", "x", "fanout", "")
	cfg := config(s, b.url)
	cfg.Timeout = 3 * time.Second
	a := connected(t, identity(), cfg)
	tap := startTap(t, a, "orders", nil)
	s.Restart(t)
	if err := tap.wait(t); !errors.Is(err, agents.ErrNotConnected) {
		t.Errorf("tap over a restart: got %v, want ErrNotConnected", err)
	}
	if err := a.Observe(t.Context(), pmetric.NewMetrics()); !errors.Is(err, agents.ErrNotConnected) {
		t.Errorf("observe over a restart: got %v, want ErrNotConnected", err)
	}
	if _, err := a.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.ch = channel(t, broker.DialAMQP(t, b.url))
	must(t, b.ch.Confirm(false))
	tap = startTap(t, a, "orders", nil)
	b.publish(t, "x", "", amqp.Publishing{Body: bytes.Repeat([]byte{0, 255}, 10)})
	tap.saw(t, 1)
	// A frozen broker: every call ends.
	s.Freeze(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = a.PlanTap(ctx, "orders") })
	wg.Go(func() { tap.stop(); _ = tap.wait(t) })
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(45 * time.Second):
		t.Error("calls to a frozen broker do not end")
	}
	s.Thaw(t)
	<-done
}
