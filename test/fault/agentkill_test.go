package fault

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// back kills the agent now and starts it again a moment later.
func (b *bus) back(rng *rand.Rand) {
	b.t.Helper()
	b.agent.kill()
	if err := sleep(b.t.Context(), time.Duration(rng.Int64N(int64(500*time.Millisecond)))); err != nil {
		b.t.Fatal(err)
	}
	b.agent.start()
}

// TestFaultAgentKilledInRedrive kills the agent in the middle of a redrive: it
// goes on, nothing is lost, and what was sent twice has the same operation id.
func TestFaultAgentKilledInRedrive(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs and kills them")
	}
	n, kills := 5_000, 2
	if soak() {
		n, kills = 40_000, 15
	}
	b := newBus(t, broker.RabbitMQ(t), everything, func(q *queues) { deathbed(q, "orders") })
	rng := rand.New(rand.NewPCG(seed, 3))
	b.rabbit.die("orders", "dead", n)
	id := b.do(about("redrive", "orders.dead", order{"args": order{"job": order{"rate": 2_000}}}))
	for kill := range kills {
		b.rabbit.below("orders.dead", n-(kill*n+rng.IntN(n))/(kills+1)-1)
		b.back(rng)
	}
	c := b.ended(id, 2*time.Minute)
	if c.State != "succeeded" || c.Result.Done != int64(n) || c.Result.Failed != 0 {
		t.Errorf("want it succeeded with %d done: %s", n, c.raw)
	}
	if left := b.rabbit.ready("orders.dead"); left != 0 {
		t.Errorf("%d dead letters are left", left)
	}
	moved := count(b.rabbit.drain("orders"), controlbus.HeaderRedriveID)
	moved.whole(t, "dead", n)
	moved.shared(t, "redrive")
	_, twice := moved.distinct()
	t.Logf("%d redriven, the agent killed %d times, %d sent twice; %s", n, kills, twice, c.Detail)
	b.verified()
}

// TestFaultAgentKilledInPurge kills the agent in the middle of a purge of 10,000
// messages. Nobody knows how far it came, and it says so; it is not begun again;
// and its undo brings back what was removed.
func TestFaultAgentKilledInPurge(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs and kills them")
	}
	const n = 10_000
	rounds := 1
	if soak() {
		rounds = 20
	}
	b := newBus(t, broker.RabbitMQ(t), everything, func(q *queues) { q.declare("backlog") })
	rng := rand.New(rand.NewPCG(seed, 4))
	for round := range rounds {
		b.rabbit.publish("backlog", "old", n)
		b.rabbit.depth("backlog", n)
		id := b.do(about("purge", "backlog"))
		b.rabbit.below("backlog", n-rng.IntN(n*6/10))
		b.back(rng)
		c := b.ended(id, time.Minute)
		if c.State == "succeeded" {
			t.Logf("round %d: the purge was faster than the kill", round)
			b.rabbit.drain("backlog")
			continue
		}
		if c.State != "indeterminate" || c.Result == nil {
			t.Fatalf("want it indeterminate: %s", c.raw)
		}
		b.connected()
		// What the dead agent held is the queue's again, and stays there.
		left := b.settled("backlog")
		if err := sleep(t.Context(), 2*time.Second); err != nil {
			t.Fatal(err)
		}
		if again := b.rabbit.ready("backlog"); again != left {
			t.Errorf("%d of %d messages left at first, %d two seconds later", left, n, again)
		}
		undo := b.ended(b.undo(id), time.Minute)
		if undo.State != "succeeded" {
			t.Fatalf("undo: %s", undo.raw)
		}
		doubtful := undo.Result.Evidence.Doubtful
		all := b.rabbit.drain("backlog")
		came := 0
		for i, d := range all {
			if _, again := d.Headers[controlbus.HeaderReplay]; again {
				came++
			} else if i >= left {
				t.Fatalf("message %d of %d has no mark of the undo, and only %d were left", i, len(all), left)
			}
		}
		got := count(all, controlbus.HeaderReplay)
		got.whole(t, "old", n)
		distinct, extra := got.distinct()
		if distinct != n || int64(extra) > doubtful || int64(came) != undo.Result.Done || came != n-left+extra {
			t.Errorf("%d removed; the undo sent %d, %d arrived; %d distinct, %d twice, %d in doubt", n-left, undo.Result.Done, came, distinct, extra, doubtful)
		}
		t.Logf("round %d: killed with %d of %d left; %s: %s; the undo sent %d, %d of them in doubt, %d twice afterwards", round, left, n, c.State, c.Detail, undo.Result.Done, doubtful, extra)
		if t.Failed() {
			break
		}
	}
	b.verified()
}

// settled waits until a queue's depth does not change any more.
func (b *bus) settled(queue string) int {
	b.t.Helper()
	last := -1
	for end := time.Now().Add(30 * time.Second); ; {
		n := b.rabbit.ready(queue)
		if n == last {
			return n
		}
		last = n
		if time.Now().After(end) {
			b.t.Fatalf("queue %s does not settle", queue)
		}
		if err := sleep(b.t.Context(), 500*time.Millisecond); err != nil {
			b.t.Fatal(err)
		}
	}
}
