package detour

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// onNATS is a manager beside a NATS of the test's own.
func onNATS(t *testing.T) (*life, jetstream.JetStream) {
	t.Helper()
	url := broker.NATSEmbedded(t, nil).URL
	js, err := jetstream.New(broker.DialNATS(t, url))
	must(t, err)
	a, lost, err := connected("nats", url, "")
	must(t, err)
	t.Cleanup(func() { _ = a.Close(context.Background()) })
	l := beginWith(t, Config{Dir: t.TempDir(), Agent: "agent-1", Lost: lost, Broker: func(string) (agents.Adapter, bool) { return a, true }})
	t.Cleanup(l.end)
	return l, js
}

func stream(t *testing.T, js jetstream.JetStream, name string, retention jetstream.RetentionPolicy) jetstream.Stream {
	t.Helper()
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name}, Retention: retention})
	must(t, err)
	return s
}

func consumers(t *testing.T, s jetstream.Stream) []string {
	t.Helper()
	var all []string
	names := s.ConsumerNames(t.Context())
	for n := range names.Name() {
		all = append(all, n)
	}
	must(t, names.Err())
	slices.Sort(all)
	return all
}

// TestJunctionOnNATS begins after what a stream keeps, goes through a channel of
// the user's own, parks, ends under load, and leaves no consumer.
func TestJunctionOnNATS(t *testing.T) {
	for name, retention := range map[string]jetstream.RetentionPolicy{"limits": jetstream.LimitsPolicy, "interest": jetstream.InterestPolicy, "work queue": jetstream.WorkQueuePolicy} {
		t.Run(name, func(t *testing.T) {
			l, js := onNATS(t)
			in, out, back := stream(t, js, "IN", retention), stream(t, js, "OUT", jetstream.LimitsPolicy), stream(t, js, "BACK", jetstream.LimitsPolicy)
			stream(t, js, "WORK", jetstream.LimitsPolicy)
			publish := func(subject string, from, to int) {
				for n := from; n < to; n++ {
					_, err := js.Publish(t.Context(), subject, fmt.Appendf(nil, `{"n":%d}`, n))
					must(t, err)
				}
			}
			publish("IN", 0, 20)      // read long ago, where it is kept; waits in the work queue
			publish("BACK", 900, 910) // of an earlier time
			nc := js.Conn()
			sub, err := nc.Subscribe("WORK", func(m *nats.Msg) {
				if m.Reply != "" { // what the stream has stored, too
					_ = nc.PublishMsg(&nats.Msg{Subject: "BACK", Header: nats.Header{controlbus.HeaderDetour: m.Header[controlbus.HeaderDetour]}, Data: m.Data})
				}
			})
			must(t, err)
			defer func() { _ = sub.Unsubscribe() }()
			d := simple("j", controlbus.DetourStep{Channel: &controlbus.ChannelStep{Send: "WORK", Receive: "BACK"}},
				controlbus.DetourStep{Validate: &controlbus.ValidateStep{Schema: []byte(`{"properties":{"n":{"not":{"const":57}}}}`)}})
			d.To = "OUT"
			l.succeed(orderOf(controlbus.CommandDetour, "IN", d))
			publish("IN", 20, 120)
			want := 99
			if retention == jetstream.WorkQueuePolicy {
				want = 119
			}
			await(t, 20*time.Second, func() bool { s := l.status("j"); return s.Passed == int64(want) && s.Refused == 1 })
			stop, done := make(chan struct{}), make(chan struct{})
			go func() { // it is written to for ever
				defer close(done)
				for n := 1000; ; n++ {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
						_, _ = js.Publish(context.Background(), "IN", fmt.Appendf(nil, `{"n":%d}`, n))
					}
				}
			}()
			time.Sleep(300 * time.Millisecond)
			r := l.doWithin(orderOf(controlbus.CommandUndetour, "IN", controlbus.UndetourArgs{ID: "j"}), 40*time.Second)
			close(stop)
			<-done
			if r.Outcome != controlbus.CommandSucceeded || len(l.m.Statuses()) != 0 {
				t.Fatalf("undetour: %s: %s", r.Outcome, r.Detail)
			}
			for _, s := range []jetstream.Stream{in, back} {
				if names := consumers(t, s); len(names) != 0 {
					t.Errorf("consumers are left: %v", names)
				}
			}
			info, err := out.Info(t.Context())
			must(t, err)
			seen := map[string]bool{}
			for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
				m, err := out.GetMsg(t.Context(), seq)
				must(t, err)
				seen[string(m.Data)] = true
				if !strings.HasPrefix(m.Header.Get(controlbus.HeaderDetour), "j:") {
					t.Errorf("%s without its mark: %v", m.Data, m.Header)
				}
			}
			for n := 0; n < 120; n++ {
				expected := n != 57 && (n >= 20 || retention == jetstream.WorkQueuePolicy)
				if seen[fmt.Sprintf(`{"n":%d}`, n)] != expected {
					t.Errorf("message %d: there %v, want %v", n, !expected, expected)
				}
			}
			if seen[`{"n":900}`] {
				t.Error("what BACK had before was sent on")
			}
			park, err := js.Stream(t.Context(), "sb_park_j")
			must(t, err)
			if m, err := park.GetLastMsgForSubject(t.Context(), ">"); err != nil || string(m.Data) != `{"n":57}` || m.Header.Get(controlbus.HeaderParkStep) != "validate" {
				t.Errorf("parked: %v, %v", m, err)
			}
		})
	}
}

// TestPauseOnNATS is the server's own pause.
func TestPauseOnNATS(t *testing.T) {
	l, js := onNATS(t)
	s := stream(t, js, "IN", jetstream.LimitsPolicy)
	c, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "app", AckPolicy: jetstream.AckExplicitPolicy})
	must(t, err)
	paused := func() bool {
		info, err := c.Info(t.Context())
		must(t, err)
		return info.Paused
	}
	l.succeed(orderOf(controlbus.CommandPause, "IN", controlbus.PauseArgs{For: time.Minute}))
	if !paused() || !strings.Contains(strings.Join(l.m.Statuses()[0].Notes, " "), "app") {
		t.Errorf("paused: %v, %+v", paused(), l.m.Statuses())
	}
	l.succeed(orderOf(controlbus.CommandResume, "IN", nil))
	if paused() || len(l.m.Statuses()) != 0 {
		t.Errorf("resumed: paused %v, %+v", paused(), l.m.Statuses())
	}
	l.succeed(orderOf(controlbus.CommandPause, "IN", controlbus.PauseArgs{For: 2 * time.Second, Consumer: "app"}))
	await(t, 10*time.Second, func() bool { return !paused() && len(l.m.Statuses()) == 0 })
}
