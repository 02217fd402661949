package nats_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

func bodies(events []*controlbus.MessageEvent) string {
	var out []string
	for _, ev := range events {
		out = append(out, string(ev.Body))
	}
	return strings.Join(out, " ")
}

// TestSequenceGapIsCounted: what the stream deleted before the tap read it is
// counted, and the same message has the same uid whenever it is read.
func TestSequenceGapIsCounted(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, b *bench) {
		s := b.stream(t, jetstream.LimitsPolicy, nil)
		name := s.CachedInfo().Config.Name
		a := connected(t, identity(), config(b.url))
		tap := startTap(t, a, name, agents.Position{}, nil)
		b.publish(t, name+".a", "1", "2")
		first := tap.saw(t, 2)
		pos := tap.Positions()[1]
		tap.stop()
		must(t, tap.wait(t))
		b.publish(t, name+".a", "3", "4", "5")
		must(t, s.DeleteMsg(t.Context(), 3))
		must(t, s.DeleteMsg(t.Context(), 4))
		again := startTap(t, connected(t, identity(), config(b.url)), name, pos, nil)
		if got := bodies(again.saw(t, 1)); got != "5" || again.Lost() != 2 {
			t.Errorf("resumed after 2 with %q and %d lost, want 5 and 2", got, again.Lost())
		}
		third := startTap(t, a, name, tap.Positions()[0], nil)
		if got := third.saw(t, 1)[0].UID; got != first[1].UID {
			t.Errorf("message 2 has uid %s and later %s", first[1].UID, got)
		}
	})
}

// TestRecreatedStreamIsNoticed: a position in a stream that was deleted and
// made anew must not be taken for one in the new stream.
func TestRecreatedStreamIsNoticed(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, b *bench) {
		s := b.stream(t, jetstream.LimitsPolicy, nil)
		c := s.CachedInfo().Config
		a := connected(t, identity(), config(b.url))
		tap := startTap(t, a, c.Name, agents.Position{}, nil)
		b.publish(t, c.Name+".a", "1", "2", "3")
		tap.saw(t, 3)
		pos := tap.Positions()[2]
		must(t, b.js.DeleteStream(t.Context(), c.Name))
		if err := tap.wait(t); !errors.Is(err, controlbus.ErrNotFound) {
			t.Errorf("tap of a deleted stream ended with %v, want ErrNotFound", err)
		}
		_, err := b.js.CreateStream(t.Context(), c)
		must(t, err)
		b.publish(t, c.Name+".a", "new")
		again := startTap(t, a, c.Name, pos, nil)
		ev := again.saw(t, 1)[0]
		if string(ev.Body) != "new" || again.Lost() != -1 || again.Positions()[0].Stream == pos.Stream {
			t.Errorf("tap of the new stream: %q, lost %d, position %+v after %+v", ev.Body, again.Lost(), again.Positions()[0], pos)
		}
	})
}

// TestInterestAndWorkQueueHoldNothing: the tap must not keep messages that the
// application has acknowledged.
func TestInterestAndWorkQueueHoldNothing(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, b *bench) {
		for _, retention := range []jetstream.RetentionPolicy{jetstream.InterestPolicy, jetstream.WorkQueuePolicy} {
			s := b.stream(t, retention, nil)
			name := s.CachedInfo().Config.Name
			app, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "app", AckPolicy: jetstream.AckExplicitPolicy})
			must(t, err)
			tap := startTap(t, connected(t, identity(), config(b.url)), name, agents.Position{}, nil)
			if got := b.consumers(t); strings.Contains(strings.Join(got, " "), name+"/sb-tap") {
				t.Errorf("%v: consumers %q, want none of the tap", retention, got)
			}
			for i := range 10 {
				b.publish(t, name+".a", fmt.Sprint(i))
			}
			batch, err := app.Fetch(10, jetstream.FetchMaxWait(10*time.Second))
			must(t, err)
			for m := range batch.Messages() {
				must(t, m.DoubleAck(t.Context()))
			}
			if got := bodies(tap.saw(t, 10)); got != "0 1 2 3 4 5 6 7 8 9" {
				t.Errorf("%v: the tap saw %s", retention, got)
			}
			eventually(t, "the acknowledged messages to go", 10*time.Second, func() bool {
				info, err := s.Info(t.Context())
				return err == nil && info.State.Msgs == 0
			})
		}
	})
}

func TestRepublish(t *testing.T) {
	t.Parallel()
	b := newBench(t, broker.NATSEmbedded(t, nil).URL, "")
	s := b.stream(t, jetstream.WorkQueuePolicy, func(c *jetstream.StreamConfig) {
		c.RePublish = &jetstream.RePublish{Source: ">", Destination: "copy." + c.Name + ".>"}
	})
	name := s.CachedInfo().Config.Name
	a := connected(t, identity(), config(b.url))
	plan, err := a.PlanTap(t.Context(), name)
	must(t, err)
	if plan.Technique != "republish" {
		t.Errorf("technique %s, want republish", plan.Technique)
	}
	one, two := startTap(t, a, name, agents.Position{}, nil), startTap(t, a, name, agents.Position{}, nil)
	b.publish(t, name+".a", "1")
	ev, twin := one.saw(t, 1)[0], two.saw(t, 1)[0]
	if ev.RoutingKey != name+".a" || ev.Position != 1 || ev.TimeSource != controlbus.TimeBroker || ev.UID != twin.UID {
		t.Errorf("republished event: subject %q, position %d, time from %v, uids %s and %s", ev.RoutingKey, ev.Position, ev.TimeSource, ev.UID, twin.UID)
	}
}

func TestCoreSubject(t *testing.T) {
	t.Parallel()
	s := broker.NATS(t)
	b := newBench(t, s.URL, s.ManagementURL)
	cfg := config(b.url)
	cfg.MonitorURL, cfg.Subjects, cfg.ServiceSubjects = b.monitor, []string{"core.events.>"}, []string{"core.service.*"}
	a := connected(t, identity(), cfg)
	if got, err := a.Channels(t.Context(), "core.*"); err != nil || len(got) != 1 || got[0] != "core.events.>" {
		t.Errorf("channels: %q, %v", got, err)
	}
	for _, refused := range []string{">", "*.x", "$JS.>", "$SYS.>", "core.service.pay", "a..b", ""} {
		if _, err := a.PlanTap(t.Context(), refused); !errors.Is(err, controlbus.ErrUnsupported) {
			t.Errorf("plan for %q: got %v, want ErrUnsupported", refused, err)
		}
	}
	// With a listener the service may be tapped.
	_, err := b.nc.Subscribe("core.service.pay", func(m *natsgo.Msg) { _ = m.Respond(nil) })
	must(t, err)
	must(t, b.nc.Flush())
	if _, err := a.PlanTap(t.Context(), "core.service.pay"); err != nil {
		t.Errorf("plan for a service with a listener: %v", err)
	}
	tap := startTap(t, a, "core.events.>", agents.Position{}, nil)
	md := pmetric.NewMetrics()
	must(t, a.Observe(t.Context(), md))
	must(t, b.nc.PublishMsg(&natsgo.Msg{
		Subject: "core.events.a", Reply: "answers.here", Data: []byte("1"),
		Header: natsgo.Header{"X-Correlation-Id": {"c"}, "ce-id": {"cloud"}, "traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "many": {"1", "2"}},
	}))
	ev := tap.saw(t, 1)[0]
	if ev.RoutingKey != "core.events.a" || ev.Destination != "core.events.>" || ev.ReplyTo != "answers.here" ||
		ev.CorrelationID != "c" || ev.MessageID != "cloud" || ev.TraceID == [16]byte{} || ev.TimeSource != controlbus.TimeAgent {
		t.Errorf("event of a core subject: %+v", ev)
	}
	var many []string
	for _, h := range ev.Headers {
		if h.Key == "many" {
			many = append(many, h.Value)
		}
	}
	if fmt.Sprint(many) != "[1 2]" {
		t.Errorf("repeated header: got %q", many)
	}
}

// blockedSink never returns from Put before it is let go.
type blockedSink struct {
	*agenttest.Sink
	free chan struct{}
}

func (s blockedSink) Put(ctx context.Context, _ *controlbus.MessageEvent, _ agents.Position) error {
	select {
	case <-s.free:
	case <-ctx.Done():
	}
	return nil
}

// TestStuckCoreTapIsCut: a tap that nothing is taken from closes its own
// connection within a second, and publishers are not slowed meanwhile.
func TestStuckCoreTapIsCut(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		const n = 100_000
		body := make([]byte, 1024)
		round := func(subject string) time.Duration {
			start := time.Now()
			for range n {
				must(t, b.nc.Publish(subject, body))
			}
			must(t, b.nc.FlushTimeout(30*time.Second))
			return time.Since(start)
		}
		round("stuck.warm")
		without := round("stuck.free")
		cfg := config(b.url)
		cfg.Subjects = []string{"stuck.tapped"}
		cfg.Tap.PendingMessages = 1000
		stuck := func() (with, cut time.Duration) {
			sink := blockedSink{agenttest.NewSink(), make(chan struct{})}
			tap := startTap(t, connected(t, identity(), cfg), "stuck.tapped", agents.Position{}, sink)
			start := time.Now()
			with = round("stuck.tapped")
			// The callback still waits: what counts is the connection.
			eventually(t, "the stuck tap's connection to close", 5*time.Second, func() bool { return sink.Lost() == -1 })
			cut = time.Since(start)
			close(sink.free)
			if err := tap.wait(t); !errors.Is(err, controlbus.ErrUnavailable) {
				t.Errorf("stuck tap ended with %v, want ErrUnavailable", err)
			}
			t.Logf("%d x 1 KiB: %s without, %s with a stuck tap; cut after %s", n, without.Round(time.Millisecond), with.Round(time.Millisecond), cut.Round(time.Millisecond))
			if with > without*10+time.Second {
				t.Errorf("a stuck tap slows publishers from %s to %s", without, with)
			}
			return with, cut
		}
		// A machine that runs other tests may be late once; a watch-dog that is
		// too slow is late each time.
		for attempt := 1; ; attempt++ {
			with, cut := stuck()
			if cut <= with+1500*time.Millisecond {
				break
			}
			if attempt == 3 {
				t.Errorf("cut after %s, in %d attempts never within 1.5s of the publishing", cut, attempt)
				break
			}
		}
	})
}

// TestOldServerDegrades: nothing hangs where JetStream is off.
func TestOldServerDegrades(t *testing.T) {
	t.Parallel()
	s := broker.NATS(t)
	if s.Version != "2.9.10" {
		t.Logf("the server is %s, not the 2.9.10 this is about", s.Version)
	}
	srv := broker.NATSEmbedded(t, func(o *natsserver.Options) { o.JetStream = false })
	for _, url := range []string{s.URL, srv.URL} {
		start := time.Now()
		a := connected(t, identity(), config(url))
		md := pmetric.NewMetrics()
		if err := a.Observe(t.Context(), md); err != nil {
			t.Errorf("%s: observe: %v", url, err)
		}
		if _, err := a.Channels(t.Context(), "*"); err != nil {
			t.Errorf("%s: channels: %v", url, err)
		}
		if _, err := a.Leftovers(t.Context()); err != nil {
			t.Errorf("%s: leftovers: %v", url, err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: took %s", url, d)
		}
	}
}

func TestServerRestart(t *testing.T) {
	t.Parallel()
	s := broker.NATSWith(t, "")
	b := newBench(t, s.URL, "")
	st := b.stream(t, jetstream.LimitsPolicy, func(c *jetstream.StreamConfig) { c.Storage = jetstream.FileStorage })
	name := st.CachedInfo().Config.Name
	a := connected(t, identity(), config(b.url))
	tap := startTap(t, a, name, agents.Position{}, nil)
	b.publish(t, name+".a", "1", "2")
	tap.saw(t, 2)
	s.Restart(t)
	if err := tap.wait(t); !errors.Is(err, agents.ErrNotConnected) {
		t.Errorf("tap over a restart ended with %v, want ErrNotConnected", err)
	}
	b = newBench(t, s.URL, "")
	b.publish(t, name+".a", "3")
	if _, err := a.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := startTap(t, a, name, tap.Positions()[1], nil)
	if got := bodies(again.saw(t, 1)); got != "3" || again.Lost() != 0 {
		t.Errorf("resumed over a restart with %q, lost %d", got, again.Lost())
	}
}
