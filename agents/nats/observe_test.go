package nats_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/nats"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// state is what Observe says of one channel, by metric, message state and
// consumer group.
func state(t *testing.T, a *nats.Adapter, channel string) map[string]int64 {
	t.Helper()
	md := pmetric.NewMetrics()
	must(t, a.Observe(t.Context(), md))
	out := map[string]int64{}
	for _, m := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().All() {
		dps := pmetric.NewNumberDataPointSlice()
		switch m.Type() {
		case pmetric.MetricTypeGauge:
			dps = m.Gauge().DataPoints()
		case pmetric.MetricTypeSum:
			dps = m.Sum().DataPoints()
		}
		for _, dp := range dps.All() {
			at := func(key string) string {
				v, _ := dp.Attributes().Get(key)
				return v.Str()
			}
			if at(controlbus.AttrDestination) != channel || m.Name() == controlbus.MetricChannelBytes {
				continue
			}
			key := m.Name()
			for _, extra := range []string{at(controlbus.AttrMessageState), at(controlbus.AttrConsumerGroup)} {
				if extra != "" {
					key += "/" + extra
				}
			}
			if _, twice := out[key]; twice {
				t.Errorf("%s of %s is told twice", key, channel)
			}
			out[key] = dp.IntValue()
		}
	}
	return out
}

func fetch(t *testing.T, c jetstream.Consumer, n int, ack bool) {
	t.Helper()
	batch, err := c.Fetch(n, jetstream.FetchMaxWait(10*time.Second))
	must(t, err)
	got := 0
	for m := range batch.Messages() {
		got++
		if ack {
			must(t, m.DoubleAck(t.Context()))
		}
	}
	if got != n {
		t.Fatalf("fetched %d of %d messages: %v", got, n, batch.Error())
	}
}

// TestWaitingIsWhatConsumersHaveNotGot: a stream that keeps what was read has
// no backlog that never shrinks, one that nobody reads has.
func TestWaitingIsWhatConsumersHaveNotGot(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, b *bench) {
		s := b.stream(t, jetstream.LimitsPolicy, nil)
		name := s.CachedInfo().Config.Name
		a := connected(t, identity(), config(b.url))
		for i := range 10 {
			b.publish(t, name+".a", fmt.Sprint(i))
		}
		want := map[string]int64{
			"signalbox.channel.messages/ready": 10, "signalbox.channel.messages/unacked": 0, "signalbox.channel.stored": 10,
			"signalbox.channel.consumers": 0, "signalbox.channel.published": 10, "signalbox.channel.delivered": 0, "signalbox.channel.acked": 0,
		}
		if diff := cmp.Diff(want, state(t, a, name)); diff != "" {
			t.Errorf("a log that nobody reads (-want +got):\n%s", diff)
		}
		// The tap reads everything and is no consumer.
		tap := startTap(t, a, name, agents.Position{}, nil)
		if diff := cmp.Diff(want, state(t, a, name)); diff != "" {
			t.Errorf("beside a tap (-want +got):\n%s", diff)
		}
		tap.stop()
		must(t, tap.wait(t))

		fast, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "fast", AckPolicy: jetstream.AckExplicitPolicy})
		must(t, err)
		slow, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "slow", AckPolicy: jetstream.AckExplicitPolicy})
		must(t, err)
		fetch(t, fast, 10, true)
		fetch(t, slow, 3, true)
		fetch(t, slow, 4, false)
		want = map[string]int64{
			"signalbox.channel.messages/ready": 3, "signalbox.channel.messages/unacked": 4, "signalbox.channel.stored": 10,
			"signalbox.channel.consumers": 2, "signalbox.channel.published": 10, "signalbox.channel.delivered": 17, "signalbox.channel.acked": 13,
			"signalbox.channel.lag/fast": 0, "signalbox.channel.lag/slow": 3,
			"signalbox.channel.redelivered/fast": 0, "signalbox.channel.redelivered/slow": 0,
		}
		if diff := cmp.Diff(want, state(t, a, name)); diff != "" {
			t.Errorf("a log with a fast and a slow consumer (-want +got):\n%s", diff)
		}

		// A consumer that goes takes its backlog along and none of the counts.
		must(t, s.DeleteConsumer(t.Context(), "slow"))
		want = map[string]int64{
			"signalbox.channel.messages/ready": 0, "signalbox.channel.messages/unacked": 0, "signalbox.channel.stored": 10,
			"signalbox.channel.consumers": 1, "signalbox.channel.published": 10, "signalbox.channel.delivered": 17, "signalbox.channel.acked": 13,
			"signalbox.channel.lag/fast": 0, "signalbox.channel.redelivered/fast": 0,
		}
		if diff := cmp.Diff(want, state(t, a, name)); diff != "" {
			t.Errorf("after the slow consumer went (-want +got):\n%s", diff)
		}
		// One of the same name begins at 0, which is no step back.
		again, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "slow", AckPolicy: jetstream.AckExplicitPolicy})
		must(t, err)
		fetch(t, again, 2, true)
		got := state(t, a, name)
		if got["signalbox.channel.delivered"] != 19 || got["signalbox.channel.acked"] != 15 || got["signalbox.channel.messages/ready"] != 8 {
			t.Errorf("after the slow consumer came back: %v", got)
		}
	})
}

func TestWaitingWhereTheStreamDeletesWhatIsAcknowledged(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, b *bench) {
		for _, retention := range []jetstream.RetentionPolicy{jetstream.WorkQueuePolicy, jetstream.InterestPolicy} {
			s := b.stream(t, retention, nil)
			name := s.CachedInfo().Config.Name
			a := connected(t, identity(), config(b.url))
			c, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{
				Durable: "app", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 1, AckWait: 300 * time.Millisecond,
			})
			must(t, err)
			for i := range 10 {
				b.publish(t, name+".a", fmt.Sprint(i))
			}
			fetch(t, c, 3, true)
			eventually(t, "the acknowledged messages to go", 10*time.Second, func() bool {
				got := state(t, a, name)
				return got["signalbox.channel.stored"] == 7 && got["signalbox.channel.messages/ready"] == 7
			})
			// Given out once and never settled: nobody gets them again, and they
			// are stored still. A server of 2.9 notices with the next request.
			fetch(t, c, 7, false)
			if got := state(t, a, name); got["signalbox.channel.messages/ready"]+got["signalbox.channel.messages/unacked"] != 7 {
				t.Errorf("%v: %v, want 7 waiting or in flight", retention, got)
			}
			eventually(t, "messages past max_deliver to wait", 10*time.Second, func() bool {
				_, err := c.FetchNoWait(1)
				must(t, err)
				got := state(t, a, name)
				return got["signalbox.channel.messages/ready"] == 7 && got["signalbox.channel.messages/unacked"] == 0 && got["signalbox.channel.lag/app"] == 0
			})
		}
	})
}
