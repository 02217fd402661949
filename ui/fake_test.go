package ui_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/ui"
	"github.com/signalbox-dev/signalbox/ui/guard"
	"github.com/signalbox-dev/signalbox/ui/live"
	"github.com/signalbox-dev/signalbox/ui/page/health"
	"github.com/signalbox-dev/signalbox/ui/page/messages"
	"github.com/signalbox-dev/signalbox/ui/page/overview"
	"github.com/signalbox-dev/signalbox/ui/page/settings"
)

// now is every test's present.
var now = time.Date(2026, 11, 21, 14, 20, 59, 870e6, time.UTC)

// fakeStore holds messages in memory and answers as a store does.
type fakeStore struct {
	envs     []string
	messages []storage.Message // newest first
	channels []storage.ChannelState
	before   []storage.ChannelState // an hour or a day before
	spans    []storage.Span
	logs     []storage.Log
	invalid  uint64
	born     time.Time // of the newest invalid record, nearly
	err      error
	stopped  storage.StopReason
	now      func() time.Time
	counts   atomic.Int64  // histograms asked for
	asked    atomic.Int64  // lists of values asked for
	slow     chan struct{} // values wait for it
}

func (f *fakeStore) Environments(context.Context, storage.TimeRange) ([]string, error) {
	return f.envs, f.err
}

func (f *fakeStore) Messages(_ context.Context, q storage.MessageQuery) (storage.MessagePage, error) {
	if f.err != nil {
		return storage.MessagePage{}, f.err
	}
	var out storage.MessagePage
	limit := q.Limit
	if limit == 0 {
		limit = 100
	}
	out.Scan = storage.Scan{Rows: uint64(len(f.messages)), Bytes: 4200000, Elapsed: 42 * time.Millisecond, Range: q.Range, Reached: q.Range.From, Stopped: storage.StopEnd}
	skip := 0
	if q.Cursor != "" {
		if _, err := fmt.Sscanf(q.Cursor, "after-%d", &skip); err != nil {
			return out, fmt.Errorf("cursor: %w", controlbus.ErrInvalid)
		}
	}
	all := slices.Clone(f.messages)
	if q.Order == storage.OldestFirst {
		slices.Reverse(all)
	}
	for i, m := range all {
		at := time.Unix(0, m.Time)
		if i < skip || at.Before(q.Range.From) || !at.Before(q.Range.To) ||
			q.Env != "" && m.Env != q.Env || q.Broker != "" && m.Broker != q.Broker ||
			q.Channel != "" && !controlbus.MatchPattern(q.Channel, m.Destination) ||
			q.MessageID != "" && m.MessageID != q.MessageID || q.CorrelationID != "" && m.CorrelationID != q.CorrelationID ||
			q.TraceID != "" && hex.EncodeToString(m.TraceID[:]) != q.TraceID ||
			q.FailedOnly && m.Outcome == controlbus.OutcomeOK ||
			q.BodyWord != "" && !strings.Contains(strings.ToLower(string(m.Body)), strings.ToLower(q.BodyWord)) ||
			!q.Filter.Match(&m.MessageEvent) ||
			q.HeaderName != "" && !slices.Contains(m.Headers, controlbus.Header{Key: q.HeaderName, Value: q.HeaderValue}) {
			continue
		}
		if len(out.Messages) == limit {
			out.Next = fmt.Sprintf("after-%d", i)
			out.Scan.Stopped, out.Scan.Reached = storage.StopLimit, at
			break
		}
		m.Snippet = string(m.Body)
		m.Body = nil // a search does not bring bodies
		out.Messages = append(out.Messages, m)
	}
	if f.stopped == storage.StopDeadline {
		out.Scan.Stopped, out.Scan.Reached, out.Next = f.stopped, q.Range.From.Add(q.Range.Duration()/3), "after-3"
	}
	return out, nil
}

// Histogram counts what Messages finds.
func (f *fakeStore) Histogram(ctx context.Context, q storage.MessageQuery, step time.Duration) (storage.Histogram, error) {
	q.Limit, q.Cursor = 1000000, ""
	f.counts.Add(1)
	found, err := f.Messages(ctx, q)
	h := storage.Histogram{Step: step, Counted: q.Range, Scan: storage.Scan{Range: q.Range, Stopped: storage.StopEnd, Reached: q.Range.From}}
	if f.stopped == storage.StopDeadline {
		h.Scan.Stopped, h.Counted.From = f.stopped, q.Range.To.Add(-q.Range.Duration()/3)
	}
	for t := q.Range.From.Truncate(step); t.Before(q.Range.To); t = t.Add(step) {
		b := storage.Bar{Time: t, Counted: !t.Before(h.Counted.From.Add(-step))}
		for i := range found.Messages {
			if m := &found.Messages[i]; b.Counted && time.Unix(0, m.Time).UTC().Truncate(step).Equal(t.UTC()) {
				b.Messages++
				if m.Outcome != controlbus.OutcomeOK {
					b.Failed++
				}
			}
		}
		h.Messages += b.Messages
		h.Failed += b.Failed
		h.Bars = append(h.Bars, b)
	}
	return h, err
}

// FieldValues knows what the messages hold.
func (f *fakeStore) FieldValues(ctx context.Context, q storage.ValuesQuery) ([]storage.FieldValue, error) {
	f.asked.Add(1)
	if f.slow != nil {
		select {
		case <-f.slow:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	n := map[string]uint64{}
	for i := range f.messages {
		m := &f.messages[i]
		switch q.Field {
		case "channel":
			n[m.Destination]++
		case "service":
			n[m.Service]++
		case "header.":
			for _, h := range m.Headers {
				n[h.Key]++
			}
		}
	}
	var out []storage.FieldValue
	for v, c := range n {
		if v != "" && strings.Contains(strings.ToLower(v), strings.ToLower(q.Part)) {
			out = append(out, storage.FieldValue{Value: v, Messages: c})
		}
	}
	slices.SortFunc(out, func(a, b storage.FieldValue) int {
		if a.Messages != b.Messages {
			return int(b.Messages) - int(a.Messages)
		}
		return strings.Compare(a.Value, b.Value)
	})
	return out, f.err
}

func (f *fakeStore) Message(_ context.Context, uid controlbus.ID, _ time.Time) (storage.MessageDetail, error) {
	if f.err != nil {
		return storage.MessageDetail{}, f.err
	}
	for _, m := range f.messages {
		if m.UID == uid {
			return storage.MessageDetail{Message: m, BodyStored: len(m.Body) > 0}, nil
		}
	}
	return storage.MessageDetail{}, controlbus.ErrNotFound
}

func (f *fakeStore) Bodies(_ context.Context, of []storage.Message) (map[controlbus.ID][]byte, error) {
	out := map[controlbus.ID][]byte{}
	for i := range of {
		for _, m := range f.messages {
			if m.UID == of[i].UID && len(m.Body) > 0 {
				out[m.UID] = m.Body
			}
		}
	}
	return out, f.err
}

func (f *fakeStore) Conversation(_ context.Context, q storage.ConversationQuery) (storage.Conversation, error) {
	c := storage.Conversation{Scan: storage.Scan{Range: q.Range, Reached: q.Range.To, Stopped: storage.StopEnd}}
	for i := range f.messages {
		m := &f.messages[i]
		if !q.Correlation.IsZero() && m.Correlation == q.Correlation {
			c.Events = append(c.Events, storage.ConversationEvent{Message: m, At: time.Unix(0, m.Time), Why: "correlation"})
		}
	}
	for i := range f.spans {
		if f.spans[i].TraceID == q.TraceID {
			c.Events = append(c.Events, storage.ConversationEvent{Span: &f.spans[i], At: time.Unix(0, f.spans[i].Time), Offset: -38 * time.Millisecond, Why: "trace"})
		}
	}
	for i := range f.logs {
		if f.logs[i].TraceID == q.TraceID {
			c.Events = append(c.Events, storage.ConversationEvent{Log: &f.logs[i], At: time.Unix(0, f.logs[i].Time), Why: "trace"})
		}
	}
	slices.SortStableFunc(c.Events, func(a, b storage.ConversationEvent) int { return a.At.Compare(b.At) })
	return c, f.err
}

func (f *fakeStore) Channels(_ context.Context, q storage.ChannelQuery) ([]storage.ChannelState, error) {
	var out []storage.ChannelState
	list := f.channels
	if at := f.clock(); q.TrafficOnly && at.Sub(q.Range.To) > 23*time.Hour {
		list = f.before
	}
	for _, c := range list {
		if (q.Env == "" || c.Env == q.Env) && (q.Broker == "" || c.Broker == q.Broker) && (q.Pattern == "" || controlbus.MatchPattern(q.Pattern, c.Name)) {
			if f.now != nil {
				c.SeenAt = f.now().Add(-4 * time.Second)
			}
			out = append(out, c)
		}
	}
	return out, f.err
}

func (f *fakeStore) clock() time.Time {
	if f.now != nil {
		return f.now()
	}
	return now
}

// wave is a believable rate over a range, with a gap of missing data.
func wave(r storage.TimeRange, base, swing float64, gap bool) []storage.Point {
	var out []storage.Point
	n := 72
	for i := range n {
		v := base + swing*math.Sin(float64(i)/5) + swing/3*math.Sin(float64(i)*1.7)
		if gap && i > 20 && i < 26 {
			v = math.NaN()
		}
		out = append(out, storage.Point{Time: r.From.Add(time.Duration(i) * r.Duration() / time.Duration(n)).Truncate(time.Second), Value: max(0, v)})
	}
	return out
}

func ramp(r storage.TimeRange, top float64) []storage.Point {
	points := wave(r, 40, 12, false)
	for i := range points {
		if i > 50 {
			points[i].Value = top * float64(i-50) / 21
		}
	}
	return points
}

func (f *fakeStore) ChannelSeries(_ context.Context, q storage.SeriesQuery) (storage.ChannelSeries, error) {
	return storage.ChannelSeries{
		Rate: wave(q.Range, 22, 3, true), Failed: ramp(q.Range, 9), Bytes: wave(q.Range, 24000, 3000, false),
		P50: wave(q.Range, .004, .001, false), P99: wave(q.Range, .09, .03, false),
		Ready: ramp(q.Range, 18402), Unacked: wave(q.Range, 30, 8, false),
	}, f.err
}

func (f *fakeStore) Totals(_ context.Context, _ string, within storage.TimeRange) (storage.Totals, error) {
	t := storage.Totals{
		Messages: 4132981, Failed: 1571, Bytes: 4_700_000_000, Channels: uint64(len(f.channels)), Spans: 812345, Logs: 93412, Invalid: f.invalid,
		Rate: wave(within, 1148, 80, false), FailedRate: ramp(within, 71),
	}
	if len(f.channels) == 0 {
		t = storage.Totals{}
	}
	return t, f.err
}

func (f *fakeStore) Passed(_ context.Context, _ string, within storage.TimeRange) (storage.Passed, error) {
	if len(f.before) == 0 {
		return storage.Passed{}, f.err
	}
	return storage.Passed{Messages: 3_960_000, Rate: wave(within, 1090, 60, false)}, f.err
}

func (f *fakeStore) Tables(context.Context) ([]storage.TableSize, error) {
	return []storage.TableSize{
		{Name: "messages", Rows: 41_329_810, Bytes: 3_900_000_000, Parts: 41, Oldest: now.Add(-14 * 24 * time.Hour), Partitions: 14},
		{Name: "bodies", Rows: 41_200_110, Bytes: 9_100_000_000, Parts: 44, Oldest: now.Add(-7 * 24 * time.Hour), Partitions: 7},
		{Name: "spans", Rows: 8_123_450, Bytes: 400_000_000, Parts: 12, Oldest: now.Add(-14 * 24 * time.Hour), Partitions: 14},
	}, f.err
}

// fakeRoster is a fleet.
type fakeRoster struct {
	mu       sync.Mutex
	agents   []controlbus.AgentView
	asked    []controlbus.TapSpec
	released []string
	err      error
}

func (f *fakeRoster) Agents() []controlbus.AgentView {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.agents)
}

func (f *fakeRoster) RequestTap(_ context.Context, agent string, spec controlbus.TapSpec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.asked = append(f.asked, spec)
	for i := range f.agents {
		if a := &f.agents[i]; a.ID == agent {
			spec.ID = "console:" + spec.Broker + "/" + spec.Channel // as link.Roster does
			a.Desired.Taps = append(slices.Clone(a.Desired.Taps), spec)
		}
	}
	return nil
}

func (f *fakeRoster) ReleaseTap(_ context.Context, agent, tap string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.released = append(f.released, agent+"/"+tap)
	return f.err
}

// liveFrame is a frame before it is written as JSON.
type liveFrame struct {
	Events                    []*controlbus.MessageEvent
	Matched, Sampled, Dropped int64
}

func (f liveFrame) encode() []byte {
	b := []byte(`{"rows":[`)
	for i, ev := range f.Events {
		if i > 0 {
			b = append(b, ',')
		}
		b = live.AppendRow(b, ev, controlbus.LiveRow)
	}
	return fmt.Appendf(b, `],"matched":%d,"sampled":%d,"dropped":%d}`, f.Matched, f.Sampled, f.Dropped)
}

// fakeTap hands out what a test sends.
type fakeTap struct {
	frames chan liveFrame
	closed chan struct{}
	once   sync.Once
}

func newFakeTap() *fakeTap {
	return &fakeTap{frames: make(chan liveFrame, 16), closed: make(chan struct{})}
}

func (f *fakeTap) Next(ctx context.Context, patience time.Duration) ([]byte, error) {
	idle := time.NewTimer(patience)
	defer idle.Stop()
	select {
	case fr := <-f.frames:
		return fr.encode(), nil
	case <-f.closed:
		return nil, errors.New("closed")
	case <-idle.C:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fakeTap) Close(bool) { f.once.Do(func() { close(f.closed) }) }

const order = `{"orderId":"ORD-%d","paymentId":9007199254740993127,"attempt":3,"amount":{"value":"129.90","currency":"EUR"},"card":{"token":"tok_5Jd","pan":"***"},"capture":{"mode":"immediate","deadlineMs":3000,"threeDS":true},"items":[{"sku":"TEA-0412","qty":2,"price":"24.95"},{"sku":"POT-0077","qty":1,"price":"80.00"}],"lastError":"GatewayTimeout: psp-gateway did not answer in 3000 ms"}`

func event(at time.Time, system, broker, channel string, op controlbus.Op, out controlbus.Outcome, n int) storage.Message {
	corr := fmt.Sprintf("c1f06f0e-2a51-4dd8-9b77-8a3e0f%06d", n)
	m := storage.Message{MessageEvent: controlbus.MessageEvent{
		UID: controlbus.HashID(channel, op.String(), out.String(), at.String()), Time: at.UnixNano(), Env: "production", System: system, Broker: broker, Destination: channel,
		Op: op, Outcome: out, MessageID: fmt.Sprintf("018f6a3e-51c7-7b02-9e0d-2c1f55%06d", n), CorrelationID: corr, Position: -1,
		Body: fmt.Appendf(nil, order, 7731000+n), ContentType: "application/json", TraceID: [16]byte{0x5b, 0x8a, byte(n), byte(n >> 8)},
		Headers: []controlbus.Header{{Key: "message_id", Value: fmt.Sprintf("018f6a3e-51c7-7b02-9e0d-2c1f55%06d", n)}, {Key: "correlation_id", Value: corr}, {Key: "traceparent", Value: "00-5b8aa5a2d2c872e8321cf37308d69df2-051581bf3cb55c13-01"}, {Key: "x-tenant", Value: "acme"}},
	}, Correlation: controlbus.CorrelationKey(corr)}
	m.BodySize = int64(len(m.Body))
	return m
}

func filled(at time.Time) (*fakeStore, *fakeRoster) {
	s := &fakeStore{envs: []string{"staging", "production"}, invalid: 3, born: at}
	for i := range 130 {
		t := at.Add(-time.Duration(i)*530*time.Millisecond - 100*time.Millisecond)
		switch i % 4 {
		case 0:
			m := event(t, "rabbitmq", "rabbit-eu1", "payments.capture.dlq", controlbus.OpTap, controlbus.OutcomeDeadLettered, i)
			m.Delivery, m.DeadLetterSource, m.DeadLetterReason, m.Redacted, m.Tap = 3, "payments.capture", "delivery_limit", []string{"card.pan"}, "tap-payments"
			m.Headers = append(m.Headers, controlbus.Header{Key: "x-death[0].reason", Value: "delivery_limit"}, controlbus.Header{Key: "x-death[0].queue", Value: "payments.capture"})
			s.messages = append(s.messages, m)
			sent := event(t.Add(-17*time.Second), "rabbitmq", "rabbit-eu1", "orders.placed", controlbus.OpSend, controlbus.OutcomeOK, i)
			sent.Service, sent.LatencyNs = "storefront", 2e6
			done := event(t.Add(-16980*time.Millisecond), "kafka", "kafka-eu1", "orders.events", controlbus.OpProcess, controlbus.OutcomeOK, i)
			done.Service, done.LatencyNs, done.Partition, done.Position = "order-service", 6e6, "3", 88120417
			failed := event(t.Add(-13*time.Second), "rabbitmq", "rabbit-eu1", "payments.capture", controlbus.OpProcess, controlbus.OutcomeFailed, i)
			failed.Service, failed.LatencyNs, failed.Delivery, failed.ErrorType, failed.CausationID = "payment-service", 3e9, 1, "GatewayTimeout", "018f6a3e-fraud-check-unseen"
			if i == 0 {
				s.messages = append(s.messages, sent, done, failed)
				s.spans = append(s.spans, storage.Span{Time: t.Add(-17050 * time.Millisecond).UnixNano(), DurationNs: 21e6, TraceID: m.TraceID, Service: "storefront", Name: "POST /checkout"})
				s.logs = append(s.logs, storage.Log{Time: t.Add(-9 * time.Second).UnixNano(), TraceID: m.TraceID, Severity: 17, Service: "payment-service", Body: "capture ORD-7731000: psp-gateway did not answer in 3000 ms"})
			}
		case 1:
			m := event(t, "kafka", "kafka-eu1", "orders.events", controlbus.OpProcess, controlbus.OutcomeOK, i)
			m.Service = "order-service"
			s.messages = append(s.messages, m)
		case 2:
			s.messages = append(s.messages, event(t, "rabbitmq", "rabbit-eu1", "payments.capture", controlbus.OpTap, controlbus.OutcomeOK, i))
		case 3:
			m := event(t, "nats", "nats-eu1", "shipping.labels", controlbus.OpSend, controlbus.OutcomeRetried, i)
			m.Delivery = 2
			s.messages = append(s.messages, m)
		}
	}
	slices.SortStableFunc(s.messages, func(a, b storage.Message) int { return int(b.Time/1e6 - a.Time/1e6) })
	nan := math.NaN()
	ch := func(system, broker, name, kind string, ready, unacked, cons, in, out float64, tapped, failed uint64) {
		c := storage.ChannelState{
			ChannelName: controlbus.ChannelName{Env: "production", System: system, Broker: broker, Name: name}, Kind: kind, SeenAt: at.Add(-4 * time.Second),
			Ready: ready, Unacked: unacked, Bytes: ready * 1100, Consumers: cons, Lag: nan, PublishedS: in, DeliveredS: out, AckedS: out, Tapped: tapped, Failed: failed, LastMessage: at.Add(-900 * time.Millisecond),
		}
		for i := range 40 {
			c.Spark = append(c.Spark, max(0, in+in/6*math.Sin(float64(i)/3)))
		}
		s.channels = append(s.channels, c)
	}
	ch("rabbitmq", "rabbit-eu1", "payments.capture", "quorum queue", 18402, 800, 0, 22.1, 4.2, 79210, 0)
	ch("rabbitmq", "rabbit-eu1", "payments.capture.dlq", "quorum queue", 1204, 0, 0, 1.2, 0, 1204, 1204)
	ch("rabbitmq", "rabbit-eu1", "orders.placed", "quorum queue", 38, 12, 8, 22.4, 22.3, 80123, 312)
	ch("rabbitmq", "rabbit-eu1", "notifications.email", "classic queue", 6, 2, 4, 12, 12, 43100, 0)
	ch("kafka", "kafka-eu1", "orders.events", "topic", 120, nan, 3, 22, 22, 80009, 0)
	ch("nats", "nats-eu1", "shipping.labels", "stream", 22, 4, 2, 19, 19, 68000, 0)
	ch("nats", "nats-eu1", "warehouse.berlin.pack", "subject", nan, nan, 1, 19, 19, 68010, 0)
	ch("rabbitmq", "rabbit-eu1", "carts.abandoned", "classic queue", 0, 0, 1, 0, 0, 0, 0)
	for _, c := range s.channels {
		switch c.Name {
		case "payments.capture.dlq":
			c.Tapped, c.Failed = 12, 12
		case "orders.placed":
			c.Tapped, c.Failed = 81044, 290
		case "notifications.email":
			c.Tapped = 9100
		case "warehouse.berlin.pack":
			continue
		case "carts.abandoned":
			c.Tapped = 2210
		case "shipping.labels":
			c.Failed = 812
		}
		s.before = append(s.before, c)
	}
	tap := func(name string, st controlbus.TapState, errText string, loss controlbus.Loss) controlbus.TapStatus {
		return controlbus.TapStatus{Spec: controlbus.TapSpec{ID: "tap-" + name, Broker: "rabbit-eu1", Channel: name, Origin: "config"}, Channel: name, State: st, Technique: "mirrored-binding", Since: at.Add(-2 * time.Hour), Error: errText, Loss: loss}
	}
	roster := &fakeRoster{agents: []controlbus.AgentView{
		{Agent: controlbus.Agent{
			ID: "rabbit-eu1-a", Version: "0.1.0", Host: "mq-1.eu1", Env: "production", StartedAt: at.Add(-26 * time.Hour), Revision: 4,
			Brokers: []controlbus.BrokerStatus{{Name: "rabbit-eu1", System: "rabbitmq", Product: "RabbitMQ 3.13.7", Connected: true, Since: at.Add(-26 * time.Hour), Capabilities: []string{"observe", "tap"}}},
			Taps: []controlbus.TapStatus{
				tap("payments.capture", controlbus.TapRunning, "", controlbus.Loss{Received: 79210, DroppedByAgent: 0, DroppedByBroker: -1, Blind: 4200 * time.Millisecond, Gaps: 1}),
				tap("orders.placed", controlbus.TapRunning, "", controlbus.Loss{Received: 80123, DroppedByAgent: 14}),
				tap("carts.abandoned", controlbus.TapBroken, "exchange carts is gone", controlbus.Loss{}),
			},
			Spool: controlbus.SpoolStatus{Bytes: 1_200_000, MaxBytes: 512_000_000, Records: 41, SentLast: at.Add(-300 * time.Millisecond)},
		}, Presence: controlbus.Online, LastSeen: at.Add(-2 * time.Second), ClockOffset: -38 * time.Millisecond, Desired: controlbus.Desired{Revision: 4}},
		{Agent: controlbus.Agent{
			ID: "nats-eu1-a", Version: "0.1.0", Host: "nats-1.eu1", Env: "production", StartedAt: at.Add(-9 * time.Hour),
			Brokers: []controlbus.BrokerStatus{{Name: "nats-eu1", System: "nats", Product: "NATS 2.9.10", Connected: true, Since: at.Add(-9 * time.Hour), Capabilities: []string{"observe", "tap"}}},
			Spool:   controlbus.SpoolStatus{MaxBytes: 512_000_000},
		}, Presence: controlbus.Silent, LastSeen: at.Add(-9 * time.Minute)},
	}}
	return s, roster
}

func newUI(t testing.TB, s *fakeStore, r *fakeRoster, src live.Source) *ui.UI {
	t.Helper()
	cfg := ui.Config{Commands: newCommands(now), Verifier: &fakeVerifier{}, Probes: newFakeProber(), Self: fakeSelf{}, Effective: fakeEffective, Searches: searches(t), Version: "test", Store: s, Live: src, Now: func() time.Time { return now }, Guard: openGuard(t)}
	if r != nil {
		cfg.Roster = r
	}
	u, err := ui.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// searches is a real place for saved searches.
func searches(t testing.TB) messages.Searches {
	t.Helper()
	s, err := state.Open(t.Context(), filepath.Join(t.TempDir(), "searches.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// openGuard lets everybody in as the administrator.
func openGuard(t testing.TB) *guard.Guard {
	t.Helper()
	return newGuard(t, func(c *access.Config) { c.Mode = access.ModeOpen }, access.DefaultPrivacy())
}

func newGuard(t testing.TB, edit func(*access.Config), privacy access.Privacy) *guard.Guard {
	t.Helper()
	store, err := state.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := access.DefaultConfig()
	edit(&cfg)
	svc, err := access.New(cfg, privacy, store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(guard.Config{Access: svc, Hosts: []string{"example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (f *fakeStore) Invalid(_ context.Context, within storage.TimeRange, limit int) ([]storage.Invalid, error) {
	var out []storage.Invalid
	for i := range f.invalid {
		rec := storage.Invalid{
			Time: f.born.Add(-time.Duration(i+1) * time.Minute).Truncate(time.Second).UnixNano(), Sender: "rabbit-eu1-a/7", Signal: "logs", Reason: "record 14: a body of 70 levels, at most 64",
			Data: []byte("\x0a\x1c{\"order\": <script>}\x00\xff"), Size: 120_000,
		}
		if i == 1 {
			rec.Sender, rec.Signal, rec.Reason, rec.Size = "", "traces", "wrong wire type for field 2", int64(len(rec.Data))
		}
		if at := time.Unix(0, rec.Time); !at.Before(within.From) && at.Before(within.To) && len(out) < limit {
			out = append(out, rec)
		}
	}
	return out, f.err
}

// fakeSelf is a console that is not quite well.
type fakeSelf struct{ sick bool }

func (f fakeSelf) Troubles() []overview.Trouble { return nil }

func (f fakeSelf) Lag() time.Duration { return f.Snapshot(context.Background()).Lag }

func (f fakeSelf) Snapshot(context.Context) health.Snapshot {
	s := health.Snapshot{
		Started: now.Add(-26 * time.Hour), Lag: 300 * time.Millisecond, Pending: 120_000, Queue: 64 << 20, QueueMax: 8 << 30, QueueDir: ".data/console/queue",
		LastWrite: now, Rows: 98_123_411, Blocks: 81_002, QuarantineDir: ".data/console/quarantine", Accepted: 812_345, Senders: 2, Invalid: 3, Server: "26.7.1.1", State: "PostgreSQL 17.2", StateShared: true, Taps: 4, MaxTaps: 10_000,
		Engine:  &health.Engine{State: "running", Running: true, Since: now.Add(-26 * time.Hour)},
		Queries: []storage.QueryTime{{Kind: "search", Count: 912, Latest: 512, P50: 38 * time.Millisecond, P95: 240 * time.Millisecond, Max: 2 * time.Second}, {Kind: "totals", Count: 4011, Latest: 512, P50: 9 * time.Millisecond, P95: 21 * time.Millisecond, Max: 80 * time.Millisecond}},
		Disk:    &storage.Disk{Free: 412e9, Total: 1e12, Reserve: 50e9}, Shed: []health.Shed{{What: "requests refused", Reason: "malformed", N: 2}, {What: "live messages dropped", Reason: "slow_reader", N: 0}},
	}
	if f.sick {
		s.Lag, s.Queue, s.WriteError, s.ErrorSince = 4*time.Minute, 7_900<<20, "write block 81003: connection refused", now.Add(-4*time.Minute)
		s.Shed = append(s.Shed, health.Shed{What: "requests refused", Reason: "queue_full", N: 1204})
		s.Engine.Running, s.Engine.State, s.Engine.Restarts, s.Engine.LastError, s.Engine.Since = false, "starting", 3, "signal: killed", now.Add(-2*time.Minute)
		s.Disk.Free, s.Quarantined = 3e9, 1
		s.StateError = "unavailable: connection refused"
	}
	return s
}

func fakeEffective() settings.Effective {
	return settings.Effective{File: "console.yaml", Started: now.Add(-26 * time.Hour), Store: "ClickHouse 26.7.1.1, embedded; state in SQLite 3.51.0", Settings: []settings.Setting{
		{Key: "data_dir", Value: ".data/console", Default: ".data/console"},
		{Key: "storage.dsn", Value: "***", Changed: true},
		{Key: "storage.retention.messages_days", Value: "30", Default: "14", Changed: true},
		{Key: "live.max_taps", Value: "10000", Default: "10000"},
	}}
}
