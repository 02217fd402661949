package fault

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// soak says whether the long versions of the tests run.
func soak() bool { return os.Getenv("SIGNALBOX_SOAK") == "1" }

// deathbed makes a queue whose messages die at once if they are told to, and
// the dead-letter queue they go to.
func deathbed(q *queues, name string) {
	q.t.Helper()
	q.declare(name + ".dead")
	q.declareWith(name, map[string]any{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name + ".dead"})
}

// die lets n messages of a queue die.
func (q *queues) die(name, prefix string, n int) {
	q.t.Helper()
	q.publish(name, prefix, n, true)
	q.depth(name+".dead", n)
}

// keep puts n messages of a channel into the message store, as a tap does, and
// waits until they are there.
func (b *bus) keep(channel, prefix string, n int) {
	b.t.Helper()
	for from := 0; from < n; from += 500 {
		b.collect(channel, prefix, from, min(from+500, n))
	}
	b.stores(channel, n)
}

// TestFaultBrokerKilled kills RabbitMQ in the middle of a purge, a redrive and a
// replay that run at the same time: each goes on when it is back, nothing is
// lost, nothing beyond the bound is removed, and what arrives twice says so.
func TestFaultBrokerKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs and kills a broker")
	}
	rounds, n := 1, 4_000
	if soak() {
		rounds, n = 10, 10_000
	}
	server := broker.RabbitMQWith(t, "")
	b := newBus(t, server, everything, func(q *queues) { q.declare("purged", "replayed"); deathbed(q, "orders") })
	b.keep("origin", "stored", n)
	rng := rand.New(rand.NewPCG(seed, 2))
	for round := range rounds {
		name := func(what string) string { return fmt.Sprintf("%s-%d", what, round) }
		q := b.rabbit
		q.publish("purged", name("old"), 2*n)
		q.depth("purged", 2*n)
		// Published, because what a broker moves to a dead-letter queue by itself is
		// not confirmed to anybody, and a broker that is killed may lose it.
		q.publish("orders.dead", name("dead"), n)
		q.depth("orders.dead", n)
		began := time.Now()

		pace := order{"job": order{"rate": n / 4}}
		redrive := b.do(about("redrive", "orders.dead", order{"args": pace, "destination": order{"broker": busBroker, "channel": "orders"}}))
		replay := b.do(about("replay", "replayed", order{"args": order{"job": pace["job"], "selection": order{"env": agentEnv, "filter": "channel:origin", "from": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}}}))
		q.below("orders.dead", n-n/10-rng.IntN(n/4))
		purge := b.do(about("purge", "purged"))
		q.below("purged", 2*n-rng.IntN(n)-n/10)
		q.publish("purged", name("late"), 50)
		server.Kill(t)
		at := time.Since(began)
		if err := sleep(t.Context(), time.Duration(rng.Int64N(int64(time.Second)))); err != nil {
			t.Fatal(err)
		}
		server.Start(t)
		q.publish("purged", name("later"), 50)

		ends := map[string]command{}
		for _, id := range []string{purge, redrive, replay} {
			ends[id] = b.ended(id, 2*time.Minute)
		}

		// I4: everything is there, and what is there twice says of whom it is a copy.
		waiting := q.ready("replayed")
		moved := count(q.drain("orders"), controlbus.HeaderRedriveID)
		moved.whole(t, name("dead"), n)
		moved.shared(t, "redrive")
		_, twiceMoved := moved.distinct()
		arrived := q.drain("replayed")
		if len(arrived) < waiting || waiting < n {
			t.Errorf("replay: %d messages waited at its end, %d were taken, want at least %d", waiting, len(arrived), n)
		}
		sent := count(arrived, controlbus.HeaderReplay)
		sent.whole(t, "stored", n)
		sent.shared(t, "replay")
		_, twiceSent := sent.distinct()
		if left := q.ready("orders.dead"); left != 0 {
			t.Errorf("%d dead letters are left", left)
		}
		for what, id := range map[string]string{"redrive": redrive, "replay": replay} {
			c := ends[id]
			if c.State != "succeeded" || c.Result.Done != int64(n) {
				t.Errorf("%s: want %d done: %s", what, n, c.raw)
			}
			if c.Result != nil && (c.Result.Evidence.Reconnects == 0 || c.Result.Evidence.Position == "") {
				t.Errorf("%s: the result does not tell that it waited for the broker, or its position: %s", what, c.raw)
			}
		}

		// I3: what came after the preview is there; the count is what is gone.
		c := ends[purge]
		left := count(q.drain("purged"), controlbus.HeaderReplay)
		left.whole(t, name("late"), 50)
		left.whole(t, name("later"), 50)
		old := 0
		for text := range left {
			if strings.Contains(text, name("old")) {
				old++
			}
		}
		if c.State != "succeeded" || c.Result.Done != int64(2*n) || c.Result.Evidence.Removed != int64(2*n) || old != 0 {
			t.Errorf("purge: want %d removed and none left, %d are left: %s", 2*n, old, c.raw)
		}
		if c.Result != nil && (c.Result.Evidence.DepthBefore != int64(2*n) || c.Result.Evidence.Position == "") {
			t.Errorf("purge: evidence: %s", c.raw)
		}
		// And it can be undone: every message comes back.
		b.connected()
		undo := b.ended(b.undo(purge), 2*time.Minute)
		if undo.State != "succeeded" {
			t.Errorf("undo: %s", undo.raw)
		}
		back := count(q.drain("purged"), controlbus.HeaderReplay)
		for text := range left {
			if strings.Contains(text, name("old")) {
				back[text] = append(back[text], "left")
			}
		}
		back.whole(t, name("old"), 2*n)
		_, twiceBack := back.distinct()
		t.Logf("round %d: killed %v after the start; redrive: %d of %d twice, %d reconnects; replay: %d twice; purge: %d done, %d left, %d of the copy twice", round, at.Round(time.Millisecond),
			twiceMoved, n, ends[redrive].Result.Evidence.Reconnects, twiceSent, c.Result.Done, old, twiceBack)
		for what, id := range map[string]string{"purge": purge, "redrive": redrive, "replay": replay} {
			t.Logf("  %s: %s", what, ends[id].Detail)
		}
		if t.Failed() {
			break
		}
	}
	b.verified()
}
