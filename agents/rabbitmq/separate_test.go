package rabbitmq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestSeparate(t *testing.T) {
	b := newBench(t)
	publishers := b.gated(t, "orders")
	before := b.bindings(t, "orders")
	a := connected(t, identity(), config(b.Server, b.url))
	ctx := t.Context()
	tr := startTraffic(t, b, publishers, 5*time.Millisecond)
	tr.receive(t, b, "orders")
	for round := range 3 {
		sink, undo, err := a.Separate(ctx, "orders")
		must(t, err)
		if _, _, err := a.Separate(ctx, "orders"); !errors.Is(err, controlbus.ErrConflict) {
			t.Errorf("a second test: got %v, want ErrConflict", err)
		}
		if _, err := a.InstallGate(ctx, "g", "orders"); !errors.Is(err, controlbus.ErrConflict) {
			t.Errorf("a gate beside a test: got %v, want ErrConflict", err)
		}
		// One by the exchange, one straight into the queue by the agent, one plain.
		b.publish(t, "x.topic", "order.test", amqp.Publishing{Body: []byte("test-1"), Headers: amqp.Table{controlbus.HeaderTest: "run"}})
		o, err := a.Outlet(ctx, "orders")
		must(t, err)
		for _, err := range o.Send(ctx, []*agents.Message{{Body: []byte("test-2"), Headers: []agents.Field{{Key: controlbus.HeaderTest, Value: "run"}}}}) {
			must(t, err)
		}
		must(t, o.Close(ctx))
		in, err := a.Intake(ctx, sink, agents.IntakeOptions{Follow: true})
		must(t, err)
		var got []string
		for len(got) < 2 {
			limit, cancel := context.WithTimeout(ctx, 10*time.Second)
			msgs, err := in.Next(limit, 10)
			cancel()
			must(t, err)
			for _, m := range msgs {
				got = append(got, string(m.Body))
			}
			must(t, in.Accept(ctx, msgs))
		}
		must(t, in.Close(ctx))
		if want := []string{"test-1", "test-2"}; !cmp.Equal(got, want) {
			t.Errorf("round %d: the sink got %q, want %q", round, got, want)
		}
		channels, err := a.Channels(ctx, "sb.*")
		must(t, err)
		if len(channels) > 0 {
			t.Errorf("the sink is listed as a channel: %q", channels)
		}
		must(t, undo(ctx))
		if diff := cmp.Diff(before, b.bindings(t, "orders")); diff != "" {
			t.Fatalf("bindings after the test (-before +after):\n%s", diff)
		}
		if parts := b.gateParts(t); len(parts) > 0 {
			t.Fatalf("the test left %q", parts)
		}
	}
	tr.check(t, "three tests")
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, body := range []string{"test-1", "test-2"} {
		if tr.got[body] > 0 {
			t.Errorf("the queue's consumer got %s", body)
		}
	}
}

// What an agent that dies in the middle of a test leaves loses nothing, and the
// next one takes it away.
func TestSeparationIsSweptAfterDeath(t *testing.T) {
	b := newBench(t)
	publishers := b.gated(t, "orders")
	before := b.bindings(t, "orders")
	cfg := config(b.Server, b.url)
	tr := startTraffic(t, b, publishers, 5*time.Millisecond)
	tr.receive(t, b, "orders")
	ctx := t.Context()
	steps := 0
	for n := 1; ; n++ {
		a := connected(t, identity(), cfg)
		count, died := 0, false
		a.AfterStep(func(string) {
			if count++; count == n {
				died = true
				a.CutControl()
			}
		})
		_, undo, err := a.Separate(ctx, "orders")
		if err == nil {
			err = undo(ctx) // steps of the way back are killed, too
		}
		closeNow(t, a)
		if !died {
			must(t, err)
			break
		}
		steps++
		a = connected(t, identity(), cfg)
		if left, err := a.Leftovers(ctx); err != nil || len(left) > 0 {
			t.Fatalf("after step %d and a new connect: leftovers %q, %v", n, left, err)
		}
		// What is left before the first exchange has its name, if anything, is built upon.
		_, undo, err = a.Separate(ctx, "orders")
		must(t, err)
		must(t, undo(ctx))
		if diff := cmp.Diff(before, b.bindings(t, "orders")); diff != "" {
			t.Fatalf("bindings after death at step %d (-before +after):\n%s", n, diff)
		}
		if parts := b.gateParts(t); len(parts) > 0 {
			t.Fatalf("death at step %d left %q", n, parts)
		}
		closeNow(t, a)
	}
	t.Logf("killed after each of %d steps", steps)
	if steps < 15 {
		t.Errorf("only %d steps", steps)
	}
	tr.check(t, "tests killed at every step")
}
