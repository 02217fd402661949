package fault

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/test/broker"
)

// percentile of sorted durations.
func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[max(int(math.Ceil(float64(len(sorted))*p))-1, 0)]
}

// origin selects what keep has put into the message store.
func origin() order {
	return order{"args": order{"selection": order{"env": agentEnv, "filter": "channel:origin", "from": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}}}
}

// answer is what came of a click.
type answer struct {
	ID  string
	err error
}

// click orders what was previewed. It may run beside the test.
func (b *bus) click(p preview) (a answer) {
	code, text, err := b.ask(b.t.Context(), b.admin, http.MethodPost, "/commands", map[string]any{"preview": p.ID, "reason": "the test asks for it", "typed": p.Channel})
	if err == nil && code != http.StatusCreated {
		err = fmt.Errorf("order: %d %s", code, text)
	}
	if err == nil {
		err = json.Unmarshal(text, &a)
	}
	a.err = err
	return a
}

// TestCommandsFirstEffect measures from the order, as a person's click sends it,
// until the first message has gone or arrived on the broker.
func TestCommandsFirstEffect(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs and a broker")
	}
	limit := time.Second // of a busy machine
	if soak() {
		limit = 300 * time.Millisecond
	}
	b := newBus(t, broker.RabbitMQ(t), everything, func(q *queues) { q.declare("purged", "replayed", "tested"); deathbed(q, "orders") })
	b.keep("origin", "stored", 50)
	q := b.rabbit
	gone := func(queue string) func() bool { return func() bool { return q.ready(queue) < 50 } }
	arrived := func(queue string) func() bool { return func() bool { return q.ready(queue) > 0 } }
	kinds := []struct {
		name    string
		prepare func(i int)
		order   order
		effect  func() bool
		clear   string
	}{
		{"purge", func(i int) { q.publish("purged", fmt.Sprint("p", i), 50); q.depth("purged", 50) }, about("purge", "purged"), gone("purged"), "purged"},
		{"redrive", func(i int) { q.die("orders", fmt.Sprint("d", i), 50) }, about("redrive", "orders.dead"), arrived("orders"), "orders"},
		{"replay", func(int) {}, about("replay", "replayed", origin()), arrived("replayed"), "replayed"},
		{"test", func(int) {}, about("test", "tested", order{"args": order{"body": "{}"}}), arrived("tested"), "tested"},
	}
	var all []time.Duration
	for _, k := range kinds {
		var took []time.Duration
		for i := range 5 {
			k.prepare(i)
			p := b.preview(k.order)
			clicked := time.Now()
			ordered := make(chan answer, 1)
			go func() { ordered <- b.click(p) }()
			for !k.effect() {
				if time.Since(clicked) > 30*time.Second {
					t.Fatalf("%s: no effect after 30s\nagent:\n%s", k.name, b.agent.proc.Output())
				}
				time.Sleep(time.Millisecond)
			}
			took = append(took, time.Since(clicked))
			a := <-ordered
			if a.err != nil {
				t.Fatal(a.err)
			}
			if c := b.ended(a.ID, 30*time.Second); c.State != "succeeded" {
				t.Fatalf("%s: %s", k.name, c.raw)
			}
			q.drain(k.clear)
		}
		slices.Sort(took)
		t.Logf("%-8s first effect after %v", k.name, took)
		all = append(all, took...)
	}
	slices.Sort(all)
	t.Logf("%d commands: first effect after %v at the median, p95 %v, at most %v", len(all), percentile(all, .5), percentile(all, .95), all[len(all)-1])
	if p95 := percentile(all, .95); p95 > limit {
		t.Errorf("first effect: p95 %v, want at most %v", p95, limit)
	}
}

// TestCommandsThroughput redrives and replays 20,000 messages through the whole
// system, with confirmations.
func TestCommandsThroughput(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs and a broker")
	}
	const n = 20_000
	floor := 1_000.0 // of a busy machine
	if soak() {
		floor = 5_000
	}
	b := newBus(t, broker.RabbitMQ(t), everything, func(q *queues) { q.declare("replayed"); deathbed(q, "orders") })
	b.rabbit.die("orders", "dead", n)
	b.keep("origin", "stored", n)
	for _, c := range []struct {
		name  string
		order order
		to    string
	}{
		{"redrive", about("redrive", "orders.dead"), "orders"},
		{"replay", about("replay", "replayed", origin()), "replayed"},
	} {
		p := b.preview(c.order)
		clicked := time.Now()
		id := b.place(p)
		for b.rabbit.ready(c.to) < n {
			if time.Since(clicked) > 2*time.Minute {
				t.Fatalf("%s: %d of %d arrived in two minutes: %s", c.name, b.rabbit.ready(c.to), n, b.command(id).raw)
			}
			time.Sleep(5 * time.Millisecond)
		}
		took := time.Since(clicked)
		b.succeeded(id, n)
		b.rabbit.depth(c.to, n)
		perSecond := n / took.Seconds()
		t.Logf("%s: %d messages in %v from the order to the last one: %.0f messages/s", c.name, n, took.Round(time.Millisecond), perSecond)
		if perSecond < floor {
			t.Errorf("%s: %.0f messages/s, want at least %.0f", c.name, perSecond, floor)
		}
	}
}
