package clickhouse_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/storage/clickhouse"
	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(enginetest.M{M: m}) }

func TestSmoke(t *testing.T) {
	cfg := clickhouse.DefaultConfig()
	cfg.Database = "smoke"
	cfg.DialContext = enginetest.Shared(t).DialContext
	s, err := clickhouse.Open(context.Background(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := s.NewBatch()
	now := time.Now()
	for i := range 100 {
		b.AppendMessage(&controlbus.MessageEvent{UID: controlbus.HashID(fmt.Sprint(i)), Time: now.Add(-time.Duration(i) * time.Minute).UnixNano(), AgentTime: now.UnixNano(),
			Env: "prod", Destination: "orders.new", MessageID: fmt.Sprint("m", i), CorrelationID: fmt.Sprint("c", i/10), TraceID: [16]byte{1, byte(i / 10)}, Body: []byte("Hello % world"),
			Headers: []controlbus.Header{{Key: "a", Value: "x\\y'z"}}})
	}
	if err := s.Write(context.Background(), "t1", b); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(context.Background(), "t1", b); err != nil {
		t.Fatal(err)
	}
	for _, q := range []storage.MessageQuery{
		{}, {Channel: "orders.new"}, {Channel: "orders*"}, {MessageID: "m5"}, {CorrelationID: "c3"}, {TraceID: fmt.Sprintf("%x", [16]byte{1, 2})},
		{HeaderName: "a", HeaderValue: "x\\y'z"}, {HeaderName: "a"}, {BodyWord: "% WOR"}, {FailedOnly: true}, {Order: storage.OldestFirst, Limit: 3}, {UID: controlbus.HashID("7").String()},
	} {
		q.Range = storage.Last(24*time.Hour, now.Add(time.Minute))
		p, err := s.Messages(context.Background(), q)
		if err != nil {
			t.Errorf("%+v: %v", q, err)
			continue
		}
		t.Logf("%+v: %d %+v", q, len(p.Messages), p.Scan)
	}
	d, err := s.Message(context.Background(), controlbus.HashID("7"), time.Time{})
	t.Logf("%+v %v", d, err)
	ctx := context.Background()
	b.Reset()
	for i := range 60 {
		at := now.Add(-time.Duration(i) * 10 * time.Second).UnixNano()
		b.AppendPane(&storage.Pane{Time: at, Env: "prod", Destination: "orders.new", Op: controlbus.OpTap, Count: 5, Failed: 1, Bytes: 50, LatencyN: 2, Latency: map[uint8]uint64{80: 2}})
		for j, m := range []string{controlbus.MetricChannelMessages, controlbus.MetricChannelPublished} {
			b.AppendSample(&storage.Sample{Metric: m, Series: uint64(j), Kind: "gauge", Time: at, Value: 1000 - float64(i), Labels: []storage.Attr{{Key: controlbus.AttrEnvironment, Value: "prod"}, {Key: controlbus.AttrDestination, Value: "orders.new"}}})
		}
	}
	b.AppendSpan(&storage.Span{Time: now.UnixNano(), TraceID: [16]byte{1, 1}, SpanID: [8]byte{1}, Service: "x", Links: []storage.SpanLink{{TraceID: [16]byte{1, 2}}}})
	b.AppendLog(&storage.Log{Time: now.UnixNano(), TraceID: [16]byte{1, 1}, Body: "hello"})
	b.AppendInvalid(&storage.Invalid{Time: now.UnixNano(), Reason: "no", Data: []byte{0}})
	if err := s.Write(ctx, "t2", b); err != nil {
		t.Fatal(err)
	}
	r := storage.Last(time.Hour, now.Add(time.Minute))
	c, err := s.Conversation(ctx, storage.ConversationQuery{Range: r, TraceID: [16]byte{1, 1}})
	if err != nil {
		t.Error(err)
	}
	for _, e := range c.Events {
		t.Logf("%v %v %v %v %v", e.At, e.Why, e.Message != nil, e.Span != nil, e.Log != nil)
	}
	ch, err := s.Channels(ctx, storage.ChannelQuery{Range: r, Pattern: "or*"})
	t.Logf("%+v %v", ch, err)
	for _, step := range []time.Duration{time.Second, time.Minute} {
		cs, err := s.ChannelSeries(ctx, storage.SeriesQuery{Range: r, Channel: controlbus.ChannelName{Env: "prod", Name: "orders.new"}, Step: step})
		t.Logf("%+v %v", cs, err)
	}
	tt, err := s.Totals(ctx, "prod", r)
	t.Logf("%+v %v", tt, err)
	tb, err := s.Tables(ctx)
	t.Logf("%+v %v", tb, err)
	en, err := s.Environments(ctx, r)
	t.Logf("%+v %v", en, err)
	iv, err := s.Invalid(ctx, r, 0)
	t.Logf("%+v %v", iv, err)
}
