package detour

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// TestHeldOnBrokers holds what a filter chooses, in a channel the agent makes on
// the real servers, lets it go by other steps, and leaves nothing.
func TestHeldOnBrokers(t *testing.T) {
	t.Run("rabbitmq", func(t *testing.T) {
		r, got := newRabbit(t), newSeen()
		r.read(t, "in", got)
		a, lost, err := connected("rabbitmq", r.url, r.management)
		must(t, err)
		defer a.Close(context.Background())
		l := beginWith(t, Config{Dir: t.TempDir(), Agent: "agent-1", Lost: lost, Broker: func(string) (agents.Adapter, bool) { return a, true }})
		defer l.end()
		d := simple("h", hold)
		d.Filter = "message_id = 'm3' OR message_id = 'm5'"
		l.succeed(orderOf(controlbus.CommandDetour, "in", d))
		stop := make(chan struct{})
		time.AfterFunc(5*time.Millisecond, func() { close(stop) })
		n := r.publish(t, numbered)(stop)
		await(t, 10*time.Second, func() bool { return got.distinct() == n-2 })
		l.succeed(orderOf(controlbus.CommandDetour, "in", simple("h")))
		await(t, 10*time.Second, func() bool { return got.distinct() == n })
		l.succeed(orderOf(controlbus.CommandUndetour, "in", nil))
		if len(l.m.Statuses()) != 0 {
			t.Errorf("left: %+v", l.m.Statuses())
		}
	})
	t.Run("nats", func(t *testing.T) {
		l, js := onNATS(t)
		in, out := stream(t, js, "IN", jetstream.WorkQueuePolicy), stream(t, js, "OUT", jetstream.LimitsPolicy)
		d := simple("h", hold)
		d.To, d.Filter = "OUT", "body.n = 3 OR body.n = 5"
		l.succeed(orderOf(controlbus.CommandDetour, "IN", d))
		for n := range 10 {
			_, err := js.Publish(t.Context(), "IN", numbered(n))
			must(t, err)
		}
		count := func(n uint64) func() bool {
			return func() bool {
				info, err := out.Info(t.Context())
				must(t, err)
				return info.State.Msgs == n
			}
		}
		await(t, 10*time.Second, count(8))
		if r := l.doWithin(orderOf(controlbus.CommandUndetour, "IN", nil), 15*time.Second); r.Outcome != controlbus.CommandSucceeded {
			t.Fatalf("undetour: %s: %s: %+v", r.Outcome, r.Detail, l.m.Statuses())
		}
		await(t, 10*time.Second, count(10))
		if names := consumers(t, in); len(names) != 0 {
			t.Errorf("consumers are left: %v", names)
		}
		if _, err := js.Stream(t.Context(), "sb_park_h-hold"); err == nil {
			t.Error("the channel of held messages is left")
		}
	})
}
