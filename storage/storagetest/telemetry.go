package storagetest

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

func isInvalid(err error) bool  { return errors.Is(err, controlbus.ErrInvalid) }
func isNotFound(err error) bool { return errors.Is(err, controlbus.ErrNotFound) }

func conversation(t *testing.T, s Store) {
	at := base()
	trace, child := [16]byte{9, 1}, [16]byte{9, 2}
	mk := func(name string, after time.Duration, op controlbus.Op, change func(*controlbus.MessageEvent)) *controlbus.MessageEvent {
		e := &controlbus.MessageEvent{UID: uid(name), Time: at.Add(after).UnixNano(), Destination: "orders", MessageID: "m1", CorrelationID: "order-1", Op: op, Service: name}
		if change != nil {
			change(e)
		}
		return e
	}
	b := s.NewBatch()
	// Clocks disagree: by time alone the process would come first.
	b.AppendMessage(mk("process", 0, controlbus.OpProcess, nil))
	b.AppendMessage(mk("receive", 10*time.Millisecond, controlbus.OpReceive, nil))
	b.AppendMessage(mk("send", 20*time.Millisecond, controlbus.OpSend, func(e *controlbus.MessageEvent) { e.TraceID = trace }))
	b.AppendMessage(mk("settle", 5*time.Millisecond, controlbus.OpSettle, nil))
	b.AppendMessage(mk("effect", time.Second, controlbus.OpSend, func(e *controlbus.MessageEvent) {
		e.MessageID, e.CorrelationID, e.CausationID, e.Destination = "m2", "", "m1", "payments"
	}))
	b.AppendMessage(mk("stranger", time.Second, controlbus.OpSend, func(e *controlbus.MessageEvent) { e.MessageID, e.CorrelationID = "m9", "order-9" }))
	// A child span whose clock runs early.
	b.AppendSpan(&storage.Span{Time: at.Add(-time.Second).UnixNano(), TraceID: trace, SpanID: [8]byte{2}, ParentID: [8]byte{1}, Name: "child", Service: "x"})
	b.AppendSpan(&storage.Span{Time: at.UnixNano(), DurationNs: 5, TraceID: trace, SpanID: [8]byte{1}, Name: "parent", Service: "x", Kind: 4, Status: 2, StatusText: "boom",
		System: "nats", Destination: "orders", MessageID: "m1", CorrelationID: "order-1", Op: controlbus.OpSend, ResourceID: 77,
		Attrs:  []storage.Attr{{Key: "k", Value: "v"}},
		Events: []storage.SpanEvent{{Time: at.UnixNano() + 1, Name: "exception", Attrs: []storage.Attr{{Key: "type", Value: "E"}}}, {Time: at.UnixNano() + 2, Name: "bare"}},
		Links:  []storage.SpanLink{{TraceID: child, SpanID: [8]byte{3}, Attrs: []storage.Attr{{Key: "l", Value: "1"}}}}})
	log := storage.Log{Time: at.Add(2 * time.Second).UnixNano(), AgentTime: at.UnixNano(), UID: uid("log"), Env: "prod", Service: "x", Severity: 17, EventName: "ev",
		Body: "it\x00failed", TraceID: trace, SpanID: [8]byte{1}, CorrelationID: "order-1", Destination: "orders", Attrs: []storage.Attr{{Key: "b", Value: "2"}, {Key: "a", Value: "1"}}, ResourceID: 77}
	b.AppendLog(&log)
	if err := s.Write(t.Context(), "conversation", b); err != nil {
		t.Fatal(err)
	}
	c, err := s.Conversation(t.Context(), storage.ConversationQuery{Range: around(at), Correlation: controlbus.CorrelationKey("order-1")})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	at2 := map[string]int{}
	for i, e := range c.Events {
		name := "log"
		switch {
		case e.Message != nil:
			name = e.Message.Service
		case e.Span != nil:
			name = e.Span.Name
		}
		if e.Why == "" {
			t.Errorf("%s: no reason given", name)
		}
		names = append(names, name)
		at2[name] = i
	}
	if len(names) != 8 || c.Truncated {
		t.Fatalf("events %v, truncated %v; want send, receive, process, settle, effect, parent, child, log", names, c.Truncated)
	}
	for _, pair := range [][2]string{{"send", "receive"}, {"receive", "process"}, {"process", "settle"}, {"parent", "child"}, {"settle", "effect"}} {
		if at2[pair[0]] > at2[pair[1]] {
			t.Errorf("%s comes after %s: %v", pair[0], pair[1], names)
		}
	}
	if diff := cmp.Diff(log, *c.Events[at2["log"]].Log); diff != "" {
		t.Errorf("log: -want +got\n%s", diff)
	}
	parent := *c.Events[at2["parent"]].Span
	want := storage.Span{Time: at.UnixNano(), DurationNs: 5, TraceID: trace, SpanID: [8]byte{1}, Name: "parent", Service: "x", Kind: 4, Status: 2, StatusText: "boom",
		System: "nats", Destination: "orders", MessageID: "m1", CorrelationID: "order-1", Op: controlbus.OpSend, ResourceID: 77,
		Attrs:  []storage.Attr{{Key: "k", Value: "v"}},
		Events: []storage.SpanEvent{{Time: at.UnixNano() + 1, Name: "exception", Attrs: []storage.Attr{{Key: "type", Value: "E"}}}, {Time: at.UnixNano() + 2, Name: "bare"}},
		Links:  []storage.SpanLink{{TraceID: child, SpanID: [8]byte{3}, Attrs: []storage.Attr{{Key: "l", Value: "1"}}}}}
	if diff := cmp.Diff(want, parent); diff != "" {
		t.Errorf("span: -want +got\n%s", diff)
	}
	// The same conversation by its other names.
	for _, q := range []storage.ConversationQuery{{MessageID: "m1"}, {TraceID: trace}} {
		q.Range = around(at)
		other, err := s.Conversation(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if len(other.Events) != len(c.Events) {
			t.Errorf("%+v: %d events, want %d", q, len(other.Events), len(c.Events))
		}
	}
	short, err := s.Conversation(t.Context(), storage.ConversationQuery{Range: around(at), MessageID: "m1", Limit: 3})
	if err != nil || len(short.Events) != 3 || !short.Truncated {
		t.Errorf("with limit 3: %d events, truncated %v, %v", len(short.Events), short.Truncated, err)
	}
}

func links(t *testing.T, s Store) {
	at := base()
	producer, consumer := [16]byte{5, 1}, [16]byte{5, 2}
	b := s.NewBatch()
	b.AppendSpan(&storage.Span{Time: at.UnixNano(), TraceID: producer, SpanID: [8]byte{1}, Name: "publish"})
	b.AppendSpan(&storage.Span{Time: at.Add(time.Second).UnixNano(), TraceID: consumer, SpanID: [8]byte{2}, Name: "consume", Links: []storage.SpanLink{{TraceID: producer, SpanID: [8]byte{1}}}})
	if err := s.Write(t.Context(), "links", b); err != nil {
		t.Fatal(err)
	}
	for _, trace := range [][16]byte{producer, consumer} {
		c, err := s.Conversation(t.Context(), storage.ConversationQuery{Range: around(at), TraceID: trace})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Events) != 2 {
			t.Errorf("from trace %x: %d events, want both sides of the link", trace, len(c.Events))
		}
	}
}

func channelLabels(name string, more ...storage.Attr) []storage.Attr {
	return append([]storage.Attr{
		{Key: controlbus.AttrEnvironment, Value: "prod"}, {Key: controlbus.AttrBroker, Value: "n1"}, {Key: controlbus.AttrDestination, Value: name},
		{Key: controlbus.AttrSystem, Value: "nats"}, {Key: controlbus.AttrChannelKind, Value: "stream"},
	}, more...)
}

func channels(t *testing.T, s Store) {
	now := time.Now().UTC().Truncate(time.Minute)
	b := s.NewBatch()
	state := func(v string) storage.Attr { return storage.Attr{Key: controlbus.AttrMessageState, Value: v} }
	for i := range 5 {
		at := now.Add(-time.Duration(4-i) * time.Minute).UnixNano()
		sample := func(series uint64, metric, kind string, v float64, more ...storage.Attr) {
			b.AppendSample(&storage.Sample{Metric: metric, Series: series, Kind: kind, Time: at, Value: v, Labels: channelLabels("orders.new", more...)})
		}
		sample(1, controlbus.MetricChannelMessages, "gauge", float64(10+i), state("ready"))
		sample(2, controlbus.MetricChannelMessages, "gauge", float64(i), state("unacked"))
		sample(3, controlbus.MetricChannelConsumers, "gauge", 3)
		// 60 a minute, with a restart from zero before the fourth sample.
		sample(4, controlbus.MetricChannelPublished, "counter", []float64{1000, 1060, 1120, 60, 120}[i])
		sample(5, controlbus.MetricChannelLag, "gauge", 5, storage.Attr{Key: controlbus.AttrConsumerGroup, Value: "a"})
		sample(6, controlbus.MetricChannelLag, "gauge", 9, storage.Attr{Key: controlbus.AttrConsumerGroup, Value: "b"})
	}
	for _, name := range []string{"orders.new", "tapped_only"} {
		b.AppendPane(&storage.Pane{Time: now.Add(-2 * time.Minute).UnixNano(), Env: "prod", System: "nats", Broker: "n1", Destination: name, Op: controlbus.OpTap, Count: 30, Failed: 2, Bytes: 900})
		b.AppendPane(&storage.Pane{Time: now.Add(-2 * time.Minute).UnixNano(), Env: "prod", System: "nats", Broker: "n1", Destination: name, Op: controlbus.OpProcess, Count: 30, Failed: 1, Bytes: 900})
	}
	if err := s.Write(t.Context(), "channels", b); err != nil {
		t.Fatal(err)
	}
	q := storage.ChannelQuery{Range: storage.Last(time.Hour, now.Add(time.Second)), Env: "prod"}
	list, err := s.Channels(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].Name != "orders.new" || list[1].Name != "tapped_only" {
		t.Fatalf("channels: %+v", list)
	}
	got := list[0]
	if got.ChannelName != (controlbus.ChannelName{Env: "prod", System: "nats", Broker: "n1", Name: "orders.new"}) || got.Kind != "stream" || !got.SeenAt.Equal(now) {
		t.Errorf("channel %+v, kind %q, seen at %v", got.ChannelName, got.Kind, got.SeenAt)
	}
	if got.Ready != 14 || got.Unacked != 4 || got.Consumers != 3 || got.Lag != 9 || math.Abs(got.PublishedS-1) > 1e-9 || !math.IsNaN(got.DeliveredS) || !math.IsNaN(got.Bytes) {
		t.Errorf("ready %v unacked %v consumers %v lag %v published %v/s delivered %v/s bytes %v", got.Ready, got.Unacked, got.Consumers, got.Lag, got.PublishedS, got.DeliveredS, got.Bytes)
	}
	if got.Tapped != 30 || got.TappedBytes != 900 || got.Failed != 3 || got.LastMessage.After(now) || got.LastMessage.Before(now.Add(-3*time.Minute)) || len(got.Spark) == 0 {
		t.Errorf("tapped %v, %v bytes, failed %v, last %v, spark %v", got.Tapped, got.TappedBytes, got.Failed, got.LastMessage, got.Spark)
	}
	if !math.IsNaN(list[1].Ready) || !list[1].SeenAt.IsZero() {
		t.Errorf("a channel its broker never described: ready %v, seen at %v", list[1].Ready, list[1].SeenAt)
	}
	q.TrafficOnly = true
	if list, err = s.Channels(t.Context(), q); err != nil || len(list) != 2 || list[0].Tapped != 30 || !math.IsNaN(list[0].Ready) {
		t.Errorf("traffic only: %+v, %v", list, err)
	}
	q.TrafficOnly = false
	for pattern, want := range map[string]int{"orders.*": 1, "*": 2, "tapped_only": 1, "tapped.only": 0, "%": 0} {
		q.Pattern = pattern
		if list, err = s.Channels(t.Context(), q); err != nil || len(list) != want {
			t.Errorf("pattern %q: %d channels, %v; want %d", pattern, len(list), err, want)
		}
	}
}

func series(t *testing.T, s Store) {
	at := base()
	name := controlbus.ChannelName{Env: "prod", System: "nats", Broker: "n1", Name: "orders"}
	b := s.NewBatch()
	for i := range 6 * 60 { // an hour of panes
		b.AppendPane(&storage.Pane{
			Time: at.Add(time.Duration(i) * 10 * time.Second).UnixNano(), Env: "prod", System: "nats", Broker: "n1", Destination: "orders", Op: controlbus.OpTap,
			Count: 20, Failed: 1, Bytes: 100, LatencyN: 100, LatencySumNs: 1, Latency: map[uint8]uint64{80: 98, 159: 2},
		})
	}
	for i := range 60 {
		b.AppendSample(&storage.Sample{Metric: controlbus.MetricChannelMessages, Series: 1, Kind: "gauge", Time: at.Add(time.Duration(i) * time.Minute).UnixNano(), Value: float64(i),
			Labels: channelLabels("orders", storage.Attr{Key: controlbus.AttrMessageState, Value: "ready"})})
	}
	for i := range 10 {
		b.AppendMessage(&controlbus.MessageEvent{UID: uid("raw", i), Time: at.Add(time.Duration(i) * time.Second).UnixNano(), Env: "prod", System: "nats", Broker: "n1", Destination: "orders",
			Op: controlbus.OpTap, LatencyNs: 1 << 20, BodySize: 10})
	}
	if err := s.Write(t.Context(), "series", b); err != nil {
		t.Fatal(err)
	}
	// The same traffic, whichever roll-up serves it.
	for _, step := range []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, time.Hour} {
		cs, err := s.ChannelSeries(t.Context(), storage.SeriesQuery{Channel: name, Range: storage.TimeRange{From: at, To: at.Add(time.Hour)}, Step: step})
		if err != nil {
			t.Fatal(err)
		}
		if want := int(time.Hour / step); len(cs.Rate) != want {
			t.Errorf("step %v: %d points, want %d", step, len(cs.Rate), want)
		}
		for i, p := range cs.Rate {
			if p.Value != 2 || cs.Failed[i].Value != 0.1 || cs.Bytes[i].Value != 10 {
				t.Fatalf("step %v, %v: rate %v failed %v bytes %v, want 2, 0.1 and 10", step, p.Time, p.Value, cs.Failed[i].Value, cs.Bytes[i].Value)
			}
			// Buckets 80 and 159 are about 1.05 ms and 1 s.
			if math.Abs(cs.P50[i].Value-0.00105) > 0.0001 || math.Abs(cs.P99[i].Value-0.98) > 0.1 {
				t.Fatalf("step %v: p50 %v p99 %v", step, cs.P50[i].Value, cs.P99[i].Value)
			}
		}
		if last := cs.Ready[len(cs.Ready)-1].Value; step >= time.Minute && last != 59 {
			t.Errorf("step %v: ready ends at %v, want 59", step, last)
		}
		if !math.IsNaN(cs.Unacked[0].Value) {
			t.Errorf("unacked is %v where nothing is known", cs.Unacked[0].Value)
		}
	}
	// Finer than any roll-up: from the messages.
	cs, err := s.ChannelSeries(t.Context(), storage.SeriesQuery{Channel: name, Range: storage.TimeRange{From: at, To: at.Add(10 * time.Second)}, Step: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range cs.Rate {
		if p.Value != 1 {
			t.Errorf("%v: %v messages/s from the messages themselves, want 1", p.Time, p.Value)
		}
	}
	if len(cs.P99) != 10 || math.Abs(cs.P99[0].Value-0.00105) > 0.0001 {
		t.Errorf("p99 from the messages themselves: %v", cs.P99)
	}
}

func totals(t *testing.T, s Store) {
	at := base()
	b := s.NewBatch()
	for i, env := range []string{"prod", "prod", "test"} {
		b.AppendPane(&storage.Pane{Time: at.UnixNano(), Env: env, Destination: "d", Service: string(rune('a' + i)), Op: controlbus.OpTap, Count: 10, Failed: 2, Bytes: 30})
		b.AppendSpan(&storage.Span{Time: at.UnixNano(), Env: env, SpanID: [8]byte{byte(i)}})
		b.AppendLog(&storage.Log{Time: at.UnixNano(), Env: env, UID: uid(i)})
	}
	b.AppendMessage(&controlbus.MessageEvent{UID: uid("t"), Time: at.Add(-time.Hour).UnixNano()})
	b.AppendResource(&storage.Resource{ID: 5, Service: "x", Attrs: []storage.Attr{{Key: "k", Value: "v"}}}, at.UnixNano())
	if err := s.Write(t.Context(), "totals", b); err != nil {
		t.Fatal(err)
	}
	r := storage.TimeRange{From: at.Add(-2 * time.Hour), To: at.Add(time.Hour)}
	got, err := s.Totals(t.Context(), "prod", r)
	if err != nil {
		t.Fatal(err)
	}
	if got.Messages != 20 || got.Failed != 4 || got.Bytes != 60 || got.Channels != 1 || got.Spans != 2 || got.Logs != 2 || got.Invalid != 0 {
		t.Errorf("totals of prod: %+v", got)
	}
	if !got.OldestMessage.Equal(at.Add(-time.Hour)) || !got.NewestLog.Equal(at) || len(got.Rate) == 0 || len(got.Rate) != len(got.FailedRate) {
		t.Errorf("oldest message %v, newest log %v, %d points", got.OldestMessage, got.NewestLog, len(got.Rate))
	}
	if got, err = s.Totals(t.Context(), "", r); err != nil || got.Messages != 30 || got.Channels != 2 {
		t.Errorf("totals of all: %d messages on %d channels, %v", got.Messages, got.Channels, err)
	}
	envs, err := s.Environments(t.Context(), r)
	if err != nil || !cmp.Equal(envs, []string{"prod", "test"}) {
		t.Errorf("environments %v, %v", envs, err)
	}
	if envs, err = s.Environments(t.Context(), storage.TimeRange{From: at.AddDate(0, 0, -5), To: at.AddDate(0, 0, -4)}); err != nil || len(envs) != 0 {
		t.Errorf("environments of an empty range: %v, %v", envs, err)
	}
	tables, err := s.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		want := map[string]uint64{"messages": 1, "spans": 3, "logs": 3, "resources": 1}
		if n, ok := want[table.Name]; ok && (table.Rows != n || table.Bytes == 0 || table.Parts == 0) {
			t.Errorf("table %+v, want %d rows", table, n)
		}
	}
}

// gaps: a step without traffic is zero where an agent watched and unknown where
// none did, and the step that is not over yet is not drawn as a fall.
func gaps(t *testing.T, s Store) {
	at := base()
	now := time.Now().UTC()
	name := controlbus.ChannelName{Env: "prod", System: "nats", Broker: "n1", Name: "orders"}
	b := s.NewBatch()
	pane := func(at time.Time, env string, op controlbus.Op, n uint64) {
		b.AppendPane(&storage.Pane{Time: at.Truncate(10 * time.Second).UnixNano(), Env: env, System: "nats", Broker: "n1", Destination: "orders", Op: op, Count: n, Bytes: n})
	}
	up := func(at time.Time, value float64) {
		b.AppendSample(&storage.Sample{Metric: controlbus.MetricBrokerUp, Series: 1, Kind: "gauge", Time: at.UnixNano(), Value: value, Labels: []storage.Attr{
			{Key: controlbus.AttrEnvironment, Value: "prod"}, {Key: controlbus.AttrBroker, Value: "n1"}, {Key: controlbus.AttrSystem, Value: "nats"}}})
	}
	// Minutes 0 to 9: traffic. 10 to 14: an agent watches and nothing passes. 15
	// to 19: nobody watches, 17 to 19 because the broker is down. 20: traffic.
	for m := range 21 {
		for i := range 6 {
			t := at.Add(time.Duration(m)*time.Minute + time.Duration(i)*10*time.Second)
			if m < 15 || m == 20 {
				up(t, 1)
			} else if m >= 17 {
				up(t, 0)
			}
			if m < 10 || m == 20 {
				pane(t, "prod", controlbus.OpTap, 10)
				pane(t, "prod", controlbus.OpSend, 10) // the same messages
				pane(t, "prod", controlbus.OpProcess, 9)
				pane(t, "services", controlbus.OpSend, 10) // nobody says that he watches
			}
		}
	}
	up(now, 1)
	pane(now.Add(-10*time.Minute), "prod", controlbus.OpTap, 10)
	pane(now, "prod", controlbus.OpTap, 10)
	if err := s.Write(t.Context(), "gaps", b); err != nil {
		t.Fatal(err)
	}
	check := func(what string, points []storage.Point, gap bool) {
		t.Helper()
		for _, p := range points {
			switch m := int(p.Time.Sub(at) / time.Minute); {
			case m == 15: // the last report speaks for its beginning
			case m < 10 || m == 20:
				if p.Value != 1 {
					t.Errorf("%s, minute %d: %v messages/s, want 1: each is counted once", what, m, p.Value)
				}
			case gap && m > 15:
				if !math.IsNaN(p.Value) {
					t.Errorf("%s, minute %d: %v where nobody watched, want a gap", what, m, p.Value)
				}
			case p.Value != 0:
				t.Errorf("%s, minute %d: %v, want 0", what, m, p.Value)
			}
		}
	}
	r := storage.TimeRange{From: at, To: at.Add(21 * time.Minute)}
	cs, err := s.ChannelSeries(t.Context(), storage.SeriesQuery{Channel: name, Range: r, Step: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	check("channel", cs.Rate, true)
	r.To = at.Add(96 * time.Minute) // Totals make 96 steps
	for env, gap := range map[string]bool{"prod": true, "services": false} {
		got, err := s.Totals(t.Context(), env, r)
		if err != nil {
			t.Fatal(err)
		}
		if got.Messages != 660 || got.Bytes != 660 {
			t.Errorf("totals of %s: %d messages of %d bytes, want 660 each", env, got.Messages, got.Bytes)
		}
		check(env, got.Rate[:21], gap)
		traffic, err := s.Passed(t.Context(), env, r)
		if err != nil || traffic.Messages != got.Messages || !cmp.Equal(traffic.Rate, got.Rate, cmpopts.EquateNaNs()) {
			t.Errorf("traffic of %s is %d messages, %v; want what the totals have", env, traffic.Messages, err)
		}
		if v := got.Rate[40].Value; !math.IsNaN(v) {
			t.Errorf("%s after everything: %v, want a gap", env, v)
		}
	}
	list, err := s.Channels(t.Context(), storage.ChannelQuery{Range: storage.TimeRange{From: at, To: at.Add(48 * time.Minute)}, Env: "prod"})
	if err != nil || len(list) != 1 {
		t.Fatalf("channels: %+v, %v", list, err)
	}
	if sp := list[0].Spark; !math.IsNaN(sp[17]) || sp[12] != 0 || sp[3] != 60 {
		t.Errorf("spark: %v", sp)
	}
	got, err := s.Totals(t.Context(), "prod", storage.Last(96*time.Minute, now))
	if err != nil {
		t.Fatal(err)
	}
	if last := got.Rate[len(got.Rate)-1]; !math.IsNaN(last.Value) || got.Messages != 20 {
		t.Errorf("the step that is not over is %v of %d messages, want it left out and 20", last, got.Messages)
	}
}

func invalid(t *testing.T, s Store) {
	at := base()
	want := []storage.Invalid{
		{Time: at.Add(time.Second).UnixNano(), Sender: "agent-2", Signal: "traces", Reason: "too deep", Data: []byte{0, 255, '\''}, Size: 1 << 33},
		{Time: at.UnixNano(), Sender: "agent-1", Signal: "logs", Reason: "not OTLP", Data: []byte("x"), Size: 1},
	}
	b := s.NewBatch()
	for i := range want {
		b.AppendInvalid(&want[i])
	}
	if err := s.Write(t.Context(), "invalid", b); err != nil {
		t.Fatal(err)
	}
	got, err := s.Invalid(t.Context(), around(at), 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if got, err = s.Invalid(t.Context(), around(at), 1); err != nil || len(got) != 1 {
		t.Errorf("with limit 1: %d, %v", len(got), err)
	}
}

func implausible(t *testing.T, s Store) {
	at := base()
	agent := at.UnixNano()
	for i, tc := range []struct{ event, want int64 }{
		{0, agent}, {-5, agent}, {math.MinInt64, agent}, {math.MaxInt64, agent}, {agent + 48*int64(time.Hour), agent}, {1, agent},
		{agent - 24*int64(time.Hour), agent - 24*int64(time.Hour)}, {agent + int64(time.Hour), agent + int64(time.Hour)},
	} {
		e := &controlbus.MessageEvent{UID: uid("implausible", i), Time: tc.event, AgentTime: agent, Destination: "d"}
		write(t, s, "implausible"+string(rune('a'+i)), e)
		got, err := s.Message(t.Context(), e.UID, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if got.Time != tc.want {
			t.Errorf("event time %d with an agent's clock at %d is filed under %d, want %d", tc.event, agent, got.Time, tc.want)
		}
	}
}
