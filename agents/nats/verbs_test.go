package nats_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/nats"
	"github.com/signalbox-dev/signalbox/controlbus"
)

var (
	_ agents.Inspector = (*nats.Adapter)(nil)
	_ agents.Planner   = (*nats.Adapter)(nil)
	_ agents.Sender    = (*nats.Adapter)(nil)
	_ agents.Taker     = (*nats.Adapter)(nil)
	_ agents.Releaser  = (*nats.Adapter)(nil)
	_ agents.Purger    = (*nats.Adapter)(nil)
	_ agents.Peeker    = (*nats.Adapter)(nil)
	_ agents.Parker    = (*nats.Adapter)(nil)
	_ agents.Pauser    = (*nats.Adapter)(nil)
)

func outlet(t *testing.T, a *nats.Adapter, channel string) agents.Outlet {
	t.Helper()
	o, err := a.Outlet(t.Context(), channel)
	must(t, err)
	t.Cleanup(func() { _ = o.Close(context.Background()) })
	return o
}

func sendAll(t *testing.T, o agents.Outlet, msgs ...*agents.Message) {
	t.Helper()
	must(t, errors.Join(o.Send(t.Context(), msgs)...))
}

func intake(t *testing.T, a *nats.Adapter, channel string, opts agents.IntakeOptions) agents.Intake {
	t.Helper()
	in, err := a.Intake(t.Context(), channel, opts)
	must(t, err)
	t.Cleanup(func() { _ = in.Close(context.Background()) })
	return in
}

// takeAll reads to the end of the channel.
func takeAll(t *testing.T, in agents.Intake) []*agents.Message {
	t.Helper()
	var out []*agents.Message
	for {
		got, err := in.Next(t.Context(), 100)
		if errors.Is(err, io.EOF) {
			return out
		}
		must(t, err)
		if len(got) == 0 || len(got) > 100 {
			t.Fatalf("Next gave %d messages, want 1 to 100", len(got))
		}
		out = append(out, got...)
	}
}

func texts(msgs []*agents.Message) string {
	var out []string
	for _, m := range msgs {
		out = append(out, string(m.Body))
	}
	return strings.Join(out, " ")
}

func stored(t *testing.T, s jetstream.Stream) uint64 {
	t.Helper()
	info, err := s.Info(t.Context())
	must(t, err)
	return info.State.Msgs
}

// fill publishes n numbered messages.
func (b *bench) fill(t *testing.T, subject string, n int) {
	t.Helper()
	for i := range n {
		_, err := b.js.PublishAsync(subject, []byte(fmt.Sprint(i)), jetstream.WithStallWait(20*time.Second))
		must(t, err)
	}
	select {
	case <-b.js.PublishAsyncComplete():
	case <-time.After(20 * time.Second):
		t.Fatal("publishing takes more than 20s")
	}
}

// TestMoveIsFastAndBounded moves a backlog the way a redrive does and measures
// it; what comes after the bound stays.
func TestMoveIsFastAndBounded(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		const n = 4000
		for _, retention := range []jetstream.RetentionPolicy{jetstream.LimitsPolicy, jetstream.WorkQueuePolicy} {
			file := func(c *jetstream.StreamConfig) { c.Storage = jetstream.FileStorage }
			from, to := b.stream(t, retention, file), b.stream(t, retention, func(c *jetstream.StreamConfig) {
				file(c)
				c.Subjects = []string{"in." + c.Name, c.Name + ".>"}
			})
			source, dest := from.CachedInfo().Config.Name, to.CachedInfo().Config.Name
			b.fill(t, source+".a", n)
			a := connected(t, identity(), config(b.url))
			view, err := a.Inspect(t.Context(), source)
			must(t, err)
			if view.Ready != n || view.UpTo != fmt.Sprint(n) || view.Oldest.IsZero() || view.Newest.Before(view.Oldest) || view.Topology == "" {
				t.Fatalf("view of the source: %+v", view)
			}
			b.publish(t, source+".a", "later")
			in, out := intake(t, a, source, agents.IntakeOptions{UpTo: view.UpTo}), outlet(t, a, dest)
			var reading, sending, removing time.Duration
			moved := 0
			for {
				start := time.Now()
				msgs, err := in.Next(t.Context(), 250)
				reading += time.Since(start)
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
				for _, m := range msgs {
					if string(m.Body) != fmt.Sprint(moved) || m.Position != fmt.Sprint(moved+1) || m.Key != source+".a" || m.Time.IsZero() {
						t.Fatalf("message %d: %+v", moved, m)
					}
					moved++
					m.SetHeader(controlbus.HeaderRedriveID, "c:"+m.Position)
				}
				start = time.Now()
				sendAll(t, out, msgs...)
				sending += time.Since(start)
				start = time.Now()
				must(t, in.Accept(t.Context(), msgs))
				must(t, in.Accept(t.Context(), msgs[:1])) // again: it is gone, and that is what was wanted
				removing += time.Since(start)
			}
			rate := func(d time.Duration) int { return int(float64(moved) / d.Seconds()) }
			t.Logf("%v: %d moved: read %d/s, sent %d/s, deleted %d/s", retention, moved, rate(reading), rate(sending), rate(removing))
			if moved != n || stored(t, from) != 1 || stored(t, to) != n {
				t.Errorf("%v: moved %d, %d left, %d arrived; want %d, 1, %d", retention, moved, stored(t, from), stored(t, to), n, n)
			}
			for what, d := range map[string]time.Duration{"read": reading, "sent": sending, "deleted": removing} {
				if rate(d) < 100 { // what one at a time does on a machine that is all but stopped
					t.Errorf("%v: %s %d messages per second", retention, what, rate(d))
				}
			}
			// A crash before the source was told: the same messages again.
			twice := &agents.Message{Key: source + ".a", Body: []byte("0"), Headers: []agents.Field{{Key: controlbus.HeaderRedriveID, Value: "c:1"}}}
			sendAll(t, out, twice)
			if got := stored(t, to); got != n {
				t.Errorf("%v: a copy sent twice is stored %d times", retention, got-n+1)
			}
		}
	})
}

// TestBrowseGapsAndPositions: missing sequences are passed over, single ones and
// a million of them, and After and UpTo bound what is given out.
func TestBrowseGapsAndPositions(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		s := b.stream(t, jetstream.LimitsPolicy, func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 })
		name := s.CachedInfo().Config.Name
		a := connected(t, identity(), config(b.url))
		view, err := a.Inspect(t.Context(), name)
		must(t, err)
		if got := takeAll(t, intake(t, a, name, agents.IntakeOptions{UpTo: view.UpTo})); len(got) != 0 || view.UpTo != "0" {
			t.Errorf("an empty stream up to %q gives %d messages", view.UpTo, len(got))
		}
		b.publish(t, name+".first", "1", "2") // the second replaces the first
		b.fill(t, name+".churn", 3000)
		b.publish(t, name+".last", "end", "END")
		all := takeAll(t, intake(t, a, name, agents.IntakeOptions{Copy: true}))
		if got := texts(all); got != "2 2999 END" {
			t.Errorf("over gaps: got %q, want 2 2999 END", got)
		}
		if got := texts(takeAll(t, intake(t, a, name, agents.IntakeOptions{After: all[0].Position, UpTo: all[1].Position}))); got != "2999" {
			t.Errorf("after the first up to the second: got %q", got)
		}
		if got := texts(takeAll(t, intake(t, a, name, agents.IntakeOptions{UpTo: "1000"}))); got != "2" {
			t.Errorf("up to a sequence in the gap: got %q", got)
		}
		in := intake(t, a, name, agents.IntakeOptions{Copy: true, Window: 1})
		first, err := in.Next(t.Context(), 50)
		must(t, err)
		must(t, in.Accept(t.Context(), first))
		must(t, in.Return(t.Context(), first))
		if len(first) != 1 || stored(t, s) != 3 {
			t.Errorf("a copy with window 1 gave %d messages and left %d of 3", len(first), stored(t, s))
		}
	})
}

// TestInspectTellsReadFromWaiting: a command takes what is stored; what waits is
// told beside.
func TestInspectTellsReadFromWaiting(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		for _, retention := range []jetstream.RetentionPolicy{jetstream.LimitsPolicy, jetstream.WorkQueuePolicy} {
			s := b.stream(t, retention, nil)
			name := s.CachedInfo().Config.Name
			app, err := s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "app", AckPolicy: jetstream.AckExplicitPolicy})
			must(t, err)
			b.publish(t, name+".a", "1", "2", "3", "4", "5")
			batch, err := app.Fetch(3, jetstream.FetchMaxWait(10*time.Second))
			must(t, err)
			n := 0
			for m := range batch.Messages() {
				if n++; n < 3 {
					must(t, m.DoubleAck(t.Context()))
				}
			}
			a := connected(t, identity(), config(b.url))
			v, err := a.Inspect(t.Context(), name)
			must(t, err)
			keeps := retention == jetstream.LimitsPolicy
			ready, read := int64(3), int64(1)
			if keeps {
				ready, read = 5, 3
			}
			if v.Keeps != keeps || v.Ready != ready || v.Read != read || v.Unsettled != 1 || v.Consumers != 1 || v.Waiting() != 3 {
				t.Errorf("%v: %+v, want %d ready of which %d are read, 1 unsettled", retention, v, ready, read)
			}
			if keeps && !strings.Contains(strings.Join(v.Notes, " "), "keeps what has been read; 2 of them") {
				t.Errorf("notes: %q", v.Notes)
			}
			before := v.Topology
			c := s.CachedInfo().Config
			c.Subjects = append(c.Subjects, name+"-more")
			_, err = b.js.UpdateStream(t.Context(), c)
			must(t, err)
			b.publish(t, name+"-more", "6")
			if v, err = a.Inspect(t.Context(), name); err != nil || v.Topology == before {
				t.Errorf("%v: another subject, and the topology is still %s, %v", retention, v.Topology, err)
			}
		}
	})
}

// TestStrippedHeaders: what tells the server to do something does not get through,
// and what a producer writes does not break the protocol.
func TestStrippedHeaders(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		s := b.stream(t, jetstream.LimitsPolicy, func(c *jetstream.StreamConfig) { c.AllowRollup = true })
		name := s.CachedInfo().Config.Name
		b.publish(t, name+".a", "1", "2", "3")
		a := connected(t, identity(), config(b.url))
		m := &agents.Message{
			Key: name + ".a", Body: []byte("4"), MessageID: "m-1", CorrelationID: "c-1", ContentType: "text/plain", ReplyTo: "back\r\nNats-Rollup: all",
			Headers: []agents.Field{
				{Key: "Nats-Rollup", Value: "all"}, {Key: "nats-rollup", Value: "sub"}, {Key: " Nats-Rollup", Value: "all"}, {Key: "Nats-Expected-Last-Sequence", Value: "77"}, {Key: "Nats-TTL", Value: "1s"},
				{Key: "Nats-Msg-Id", Value: "m-0"}, {Key: "Nats-Schedule", Value: "@at 2030"}, {Key: "Nats-Trace-Dest", Value: "trace.here"}, {Key: "Nats-Trace-Only", Value: "true"}, {Key: "Nats-Stream", Value: "X"}, {Key: "Nats-Batch-Id", Value: "b"},
				{Key: "many", Value: "1"}, {Key: "many", Value: "2"}, {Key: "int", Value: int64(-5)}, {Key: "float", Value: 2.5}, {Key: "yes", Value: true}, {Key: "none", Value: nil}, {Key: "raw", Value: []byte{0xff, 0xfe}},
				{Key: "time", Value: time.Unix(0, 0)}, {Key: "list", Value: []any{"a", int64(1)}}, {Key: "evil", Value: "x\r\nNats-Rollup: all\r\n\r\nPUB"}, {Key: "nul", Value: "a\x00b"}, {Key: "bad key:\r\n", Value: "v"}, {Key: "", Value: "nameless"},
			},
		}
		sendAll(t, outlet(t, a, name), m)
		if got := stored(t, s); got != 4 {
			t.Fatalf("the stream holds %d messages, want 4", got)
		}
		got, err := s.GetMsg(t.Context(), 4)
		must(t, err)
		want := map[string]string{
			"many": "[1 2]", "int": "[-5]", "float": "[2.5]", "yes": "[true]", "none": "[]", "raw": "[\xff\xfe]", "time": "[1970-01-01T00:00:00Z]", "list": `[["a",1]]`,
			"evil": "[x%0D%0ANats-Rollup: all%0D%0A%0D%0APUB]", "nul": "[a%00b]", "bad_key___": "[v]", "_": "[nameless]",
			"Message-Id": "[m-1]", "Correlation-Id": "[c-1]", "Content-Type": "[text/plain]", "Reply-To": "[back%0D%0ANats-Rollup: all]",
			"Nats-Expected-Stream": "[" + name + "]",
		}
		for k, v := range want {
			if fmt.Sprint(got.Header[k]) != v {
				t.Errorf("header %q: got %q, want %s", k, got.Header[k], v)
			}
		}
		for k := range got.Header {
			if _, ok := want[k]; !ok {
				t.Errorf("header %q got through with %q", k, got.Header[k])
			}
		}
	})
}

// TestConversationStaysJoined: a copy of a message has its ids, though the server
// knows it by another.
func TestConversationStaysJoined(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		from, to := b.stream(t, jetstream.LimitsPolicy, nil), b.stream(t, jetstream.LimitsPolicy, func(c *jetstream.StreamConfig) { c.Subjects = []string{c.Name + ".only"} })
		source, dest := from.CachedInfo().Config.Name, to.CachedInfo().Config.Name
		_, err := b.js.PublishMsg(t.Context(), &natsgo.Msg{Subject: source + ".a", Data: []byte("x"), Header: natsgo.Header{natsgo.MsgIdHdr: {"order-1"}, "x-correlation-id": {"conv"}, "content-type": {"a/b"}}})
		must(t, err)
		a := connected(t, identity(), config(b.url))
		tap := startTap(t, a, dest, agents.Position{}, nil)
		msgs := takeAll(t, intake(t, a, source, agents.IntakeOptions{}))
		m := msgs[0]
		if m.MessageID != "order-1" || m.CorrelationID != "conv" || m.ContentType != "a/b" {
			t.Errorf("taken: %+v", m)
		}
		m.SetHeader(controlbus.HeaderRedriveID, "cmd:1")
		out := outlet(t, a, dest)
		sendAll(t, out, m, m)
		ev := tap.saw(t, 1)[0]
		if ev.MessageID != "order-1" || ev.CorrelationID != "conv" || ev.ContentType != "a/b" || ev.RoutingKey != dest+".only" {
			t.Errorf("the tap sees %+v", ev)
		}
		if got := stored(t, to); got != 1 {
			t.Errorf("sent twice under one id, %d are stored", got)
		}
		// A later operation must not be taken for the earlier one.
		m.SetHeader(controlbus.HeaderReplay, "cmd2:1")
		sendAll(t, out, m)
		if got := stored(t, to); got != 2 {
			t.Errorf("a replay of what was redriven: %d stored, want 2", got)
		}
	})
}

// TestDeadLetterFindsItsSubject: what a program buried goes back under the subject
// it noted, as far as the stream takes that.
func TestDeadLetterFindsItsSubject(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		live, dead := b.stream(t, jetstream.LimitsPolicy, nil), b.stream(t, jetstream.LimitsPolicy, nil)
		to, from := live.CachedInfo().Config.Name, dead.CachedInfo().Config.Name
		for _, subject := range []string{to + ".created", "$JS.API.STREAM.DELETE." + to, to + ".*"} {
			_, err := b.js.PublishMsg(t.Context(), &natsgo.Msg{Subject: from + ".orders", Data: []byte("x"), Header: natsgo.Header{"X-Original-Subject": {subject}}})
			must(t, err)
		}
		a := connected(t, identity(), config(b.url))
		errs := outlet(t, a, to).Send(t.Context(), takeAll(t, intake(t, a, from, agents.IntakeOptions{})))
		must(t, errs[0])
		if !errors.Is(errs[1], controlbus.ErrInvalid) || !errors.Is(errs[2], controlbus.ErrInvalid) {
			t.Errorf("subjects that the stream does not take: %v", errs[1:])
		}
		if m, err := live.GetMsg(t.Context(), 1); err != nil || m.Subject != to+".created" {
			t.Errorf("the dead letter went to %+v, %v", m, err)
		}
		notes := b.stream(t, jetstream.LimitsPolicy, func(c *jetstream.StreamConfig) {
			c.Subjects = []string{"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES." + from + ".>"}
		}).CachedInfo().Config.Name
		if _, err := a.PlanCommand(t.Context(), controlbus.CommandRedrive, notes); !errors.Is(err, controlbus.ErrUnsupported) || !strings.Contains(err.Error(), "notes about messages") {
			t.Errorf("redrive of advisories: %v", err)
		}
	})
}

// A preview asks where a message would go before anything is sent.
func TestAddress(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		a := connected(t, identity(), config(b.url))
		var name string
		s := b.stream(t, jetstream.LimitsPolicy, func(c *jetstream.StreamConfig) { name = c.Name; c.Subjects = []string{c.Name + ".>"} })
		to, ok := outlet(t, a, name).(agents.Addresser)
		if !ok {
			t.Fatal("an outlet into a stream does not tell of addresses")
		}
		if err := to.Address(&agents.Message{}); !errors.Is(err, controlbus.ErrInvalid) || !strings.Contains(err.Error(), name+".>") {
			t.Errorf("no subject: got %v, want ErrInvalid and the subjects", err)
		}
		if err := to.Address(&agents.Message{Key: name + ".created"}); err != nil {
			t.Errorf("a subject of the stream: got %v", err)
		}
		if info, err := s.Info(t.Context()); err != nil || info.State.Msgs != 0 {
			t.Errorf("asking sent something: %+v, %v", info.State, err)
		}
	})
}

func TestOutletRefusals(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		s := b.stream(t, jetstream.LimitsPolicy, func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1000 })
		name := s.CachedInfo().Config.Name
		cfg := config(b.url)
		cfg.Subjects = []string{name + "-core.>"}
		a := connected(t, identity(), cfg)
		for _, unknown := range []string{"NOSUCH", "no.such.subject", "", "a b", "$JS.API.STREAM.PURGE.X", ">"} {
			if _, err := a.Outlet(t.Context(), unknown); !errors.Is(err, controlbus.ErrNotFound) {
				t.Errorf("outlet to %q: got %v, want ErrNotFound", unknown, err)
			}
			if _, err := a.Intake(t.Context(), unknown, agents.IntakeOptions{}); !errors.Is(err, controlbus.ErrNotFound) {
				t.Errorf("intake of %q: got %v, want ErrNotFound", unknown, err)
			}
		}
		errs := outlet(t, a, name).Send(t.Context(), []*agents.Message{
			{Key: name + ".a", Body: []byte("good")},
			{Key: "elsewhere"},
			{Key: name + ".a", Body: make([]byte, 2000)},
			{Key: name + ".a", Body: make([]byte, 2<<20)},
			{Key: name + ".*"},
			{Key: name + ".b", Body: []byte("good, too")},
		})
		for i, err := range errs {
			if final := errors.Is(err, controlbus.ErrInvalid); final != (i > 0 && i < 5) || (err == nil) == final {
				t.Errorf("message %d: %v", i, err)
			}
		}
		if !strings.Contains(fmt.Sprint(errs[1]), name+".>") {
			t.Errorf("the error does not name the stream's subjects: %v", errs[1])
		}
		if got := stored(t, s); got != 2 {
			t.Errorf("%d stored, want 2", got)
		}
		for reason, edit := range map[string]func(*jetstream.StreamConfig){
			"mirrors":  func(c *jetstream.StreamConfig) { c.Subjects, c.Mirror = nil, &jetstream.StreamSource{Name: name} },
			"no_ack":   func(c *jetstream.StreamConfig) { c.NoAck = true },
			"subjects": func(c *jetstream.StreamConfig) { c.Subjects, c.Sources = nil, []*jetstream.StreamSource{{Name: name}} },
		} {
			ch := b.stream(t, jetstream.LimitsPolicy, edit).CachedInfo().Config.Name
			if _, err := a.Outlet(t.Context(), ch); !errors.Is(err, controlbus.ErrUnsupported) || !strings.Contains(err.Error(), reason) {
				t.Errorf("outlet: got %v, want ErrUnsupported with %q", err, reason)
			}
			if _, err := a.PlanCommand(t.Context(), controlbus.CommandReplay, ch); !errors.Is(err, controlbus.ErrUnsupported) {
				t.Errorf("plan: got %v, want ErrUnsupported with %q", err, reason)
			}
		}
		// To subjects, of which one is stored.
		sub, err := b.nc.SubscribeSync(name + "-core.>")
		must(t, err)
		must(t, b.nc.Flush())
		sendAll(t, outlet(t, a, name+"-core.x"), &agents.Message{Key: "ignored", Body: []byte("core"), ReplyTo: "answers"})
		if m, err := sub.NextMsg(10 * time.Second); err != nil || string(m.Data) != "core" || m.Reply != "answers" {
			t.Errorf("core subject: %+v, %v", m, err)
		}
		sendAll(t, outlet(t, a, name+"-core.>"), &agents.Message{Key: name + "-core.y", Body: []byte("wild")})
		if m, err := sub.NextMsg(10 * time.Second); err != nil || m.Subject != name+"-core.y" {
			t.Errorf("core subject with wildcards: %+v, %v", m, err)
		}
		sendAll(t, outlet(t, a, name+".c"), &agents.Message{Body: []byte("captured")})
		if got := stored(t, s); got != 3 {
			t.Errorf("%d stored, want 3 with the one sent to its subject", got)
		}
	})
}

// TestFollow: a junction's consumer keeps its place, loses nothing when its link
// is cut between receiving and acknowledging, and is refused where it would take
// another's messages.
func TestFollow(t *testing.T) {
	servers(t, func(t *testing.T, b *bench) {
		for _, retention := range []jetstream.RetentionPolicy{jetstream.LimitsPolicy, jetstream.InterestPolicy, jetstream.WorkQueuePolicy} {
			t.Run(retention.String(), func(t *testing.T) {
				s := b.stream(t, retention, nil)
				name := s.CachedInfo().Config.Name
				opts := agents.IntakeOptions{Follow: true, Name: "sb_detour_" + name, Window: 10}
				first := connected(t, identity(), config(b.url))
				in := intake(t, first, name, opts)
				b.fill(t, name+".a", 20)
				var got []*agents.Message
				for len(got) < 10 {
					msgs, err := in.Next(t.Context(), 4)
					must(t, err)
					got = append(got, msgs...)
				}
				if texts(got) != "0 1 2 3 4 5 6 7 8 9" {
					t.Errorf("%v: got %s", retention, texts(got))
				}
				if _, err := in.Next(t.Context(), 1); !errors.Is(err, controlbus.ErrConflict) {
					t.Errorf("%v: beyond the window: %v", retention, err)
				}
				must(t, in.Accept(t.Context(), got[:5]))
				must(t, in.Return(t.Context(), got[9:]))
				again, err := in.Next(t.Context(), 1)
				must(t, err)
				if texts(again) != "9" || again[0].Deliveries != 1 {
					t.Errorf("%v: returned 9, then got %s, delivered %d times before", retention, texts(again), again[0].Deliveries)
				}
				// The agent goes, or dies, with 5 to 9 in its hands. When it dies the server
				// waits before it delivers them again, so once is enough.
				if retention != jetstream.WorkQueuePolicy {
					must(t, in.Close(t.Context()))
				}
				must(t, first.Close(t.Context()))
				if _, err := in.Next(t.Context(), 1); !errors.Is(err, agents.ErrNotConnected) {
					t.Errorf("%v: after the end: %v", retention, err)
				}
				a := connected(t, identity(), config(b.url))
				in = intake(t, a, name, opts)
				seen := map[string]bool{}
				if retention != jetstream.WorkQueuePolicy {
					// What was given back comes first and in its order.
					msgs, err := in.Next(t.Context(), 3)
					must(t, err)
					for len(msgs) < 3 {
						more, err := in.Next(t.Context(), 3-len(msgs))
						must(t, err)
						msgs = append(msgs, more...)
					}
					if texts(msgs) != "5 6 7" {
						t.Errorf("%v: after 5 to 9 were given back: %s", retention, texts(msgs))
					}
					must(t, in.Accept(t.Context(), msgs))
					seen["5"], seen["6"], seen["7"] = true, true, true
				}
				for len(seen) < 15 {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					msgs, err := in.Next(ctx, 10)
					cancel()
					must(t, err)
					for _, m := range msgs {
						seen[string(m.Body)] = true
					}
					must(t, in.Accept(t.Context(), msgs))
				}
				for i := range 20 {
					if seen[fmt.Sprint(i)] != (i >= 5) {
						t.Errorf("%v: message %d seen again: %v", retention, i, seen[fmt.Sprint(i)])
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				if _, err := in.Next(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v: nothing more, Next: %v", retention, err)
				}
				cancel()
				b.publish(t, name+".a", "late")
				late, err := in.Next(t.Context(), 1)
				must(t, err)
				must(t, in.Accept(t.Context(), late))
				if texts(late) != "late" {
					t.Errorf("%v: got %s, want late", retention, texts(late))
				}
				if retention != jetstream.LimitsPolicy && stored(t, s) != 0 {
					t.Errorf("%v: %d left of what was accepted", retention, stored(t, s))
				}
				must(t, in.Close(t.Context()))
				if !slices.Contains(b.consumers(t), name+"/"+opts.Name) {
					t.Errorf("%v: the durable consumer is gone", retention)
				}
				must(t, a.Release(t.Context(), name, opts.Name))
				must(t, a.Release(t.Context(), name, opts.Name))
				if slices.Contains(b.consumers(t), name+"/"+opts.Name) {
					t.Errorf("%v: the durable consumer is there after Release", retention)
				}
				_, err = s.CreateConsumer(t.Context(), jetstream.ConsumerConfig{Durable: "app", AckPolicy: jetstream.AckExplicitPolicy})
				must(t, err)
				_, err = a.Intake(t.Context(), name, opts)
				_, planned := a.PlanCommand(t.Context(), controlbus.CommandDetour, name)
				if _, err := a.PlanCommand(t.Context(), controlbus.CommandUndetour, name); err != nil {
					t.Errorf("%v: a detour cannot be taken back: %v", retention, err)
				}
				for _, err := range []error{err, planned} {
					if retention != jetstream.WorkQueuePolicy {
						must(t, err)
					} else if !errors.Is(err, controlbus.ErrUnsupported) || !strings.Contains(err.Error(), "app") {
						t.Errorf("a second consumer of a work queue: got %v, want ErrUnsupported that names app", err)
					}
				}
			})
		}
	})
}
