package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"pgregory.net/rapid"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// collect keeps copies of what it is handed.
type collect struct {
	Messages  []controlbus.MessageEvent
	Logs      []storage.Log
	Spans     []storage.Span
	Samples   []storage.Sample
	Deltas    int
	Resources []storage.Resource
	Invalids  []string
}

func cloneAttrs(in []storage.Attr) (out []storage.Attr) {
	for _, a := range in {
		out = append(out, storage.Attr{Key: strings.Clone(a.Key), Value: strings.Clone(a.Value)})
	}
	return out
}

func (c *collect) Message(ev *controlbus.MessageEvent) { c.Messages = append(c.Messages, clone(ev)) }
func (c *collect) Log(l *storage.Log) {
	k := *l
	k.Attrs = cloneAttrs(l.Attrs)
	for _, s := range []*string{&k.Env, &k.Service, &k.EventName, &k.Body, &k.CorrelationID, &k.Destination} {
		*s = strings.Clone(*s)
	}
	c.Logs = append(c.Logs, k)
}
func (c *collect) Span(s *storage.Span) { c.Spans = append(c.Spans, *s) }
func (c *collect) Sample(s *storage.Sample, delta bool) {
	c.Samples = append(c.Samples, *s)
	if delta {
		c.Deltas++
	}
}
func (c *collect) Resource(r *storage.Resource)         { c.Resources = append(c.Resources, *r) }
func (c *collect) Invalid(reason string, record []byte) { c.Invalids = append(c.Invalids, reason) }

func clone(ev *controlbus.MessageEvent) controlbus.MessageEvent {
	k := *ev
	for _, s := range []*string{&k.Env, &k.System, &k.Broker, &k.Destination, &k.Service, &k.ConsumerGroup, &k.Partition,
		&k.RoutingKey, &k.MessageID, &k.CorrelationID, &k.CausationID, &k.ReplyTo, &k.ErrorType, &k.DeadLetterSource,
		&k.DeadLetterReason, &k.ContentType, &k.ContentEncoding, &k.BodySHA256, &k.Tap} {
		*s = strings.Clone(*s)
	}
	k.Body = bytes.Clone(ev.Body)
	k.Headers, k.Redacted = nil, nil
	for _, h := range ev.Headers {
		k.Headers = append(k.Headers, controlbus.Header{Key: strings.Clone(h.Key), Value: strings.Clone(h.Value)})
	}
	for _, r := range ev.Redacted {
		k.Redacted = append(k.Redacted, strings.Clone(r))
	}
	return k
}

func sample(i int) controlbus.MessageEvent {
	return controlbus.MessageEvent{
		UID:  controlbus.HashID("test", fmt.Sprint(i)),
		Time: 1_700_000_000_000_000_000 + int64(i), AgentTime: 1_700_000_000_100_000_000, TimeSource: controlbus.TimeBroker,
		Env: "prod", System: "rabbitmq", Broker: "rabbit-eu1", Destination: "orders.created", Op: controlbus.OpTap,
		Outcome: controlbus.OutcomeDeadLettered, Service: "shop", ConsumerGroup: "billing", Partition: "3", RoutingKey: "orders.created.eu",
		Position: int64(i), Delivery: 2, MessageID: fmt.Sprint("m-", i), CorrelationID: fmt.Sprint("c-", i/5), CausationID: "m-0", ReplyTo: "replies",
		TraceID: [16]byte{1, byte(i)}, SpanID: [8]byte{2, byte(i)}, LatencyNs: 1500, ErrorType: "timeout",
		DeadLetterSource: "orders", DeadLetterReason: "rejected", ContentType: "application/json", ContentEncoding: "gzip",
		Headers: []controlbus.Header{{Key: "x-tenant", Value: "acme"}, {Key: "x-tenant", Value: ""}, {Key: "traceparent", Value: "00-01-02-03"}},
		Body:    bytes.Repeat([]byte(`{"order":17}`), 20), BodySize: 1000, BodyPolicy: controlbus.BodyFull, Truncated: true,
		BodySHA256: "ab", Tap: "tap-1", GapBefore: 7, Redacted: []string{"pan", "cookie"},
	}
}

func encode(events ...controlbus.MessageEvent) []byte {
	e := NewEncoder(Origin{AgentID: "agent-1", Version: "1.0", Host: "h1", Env: "dev"})
	for i := range events {
		e.Append(&events[i])
	}
	return e.Request(nil)
}

func decode(t testing.TB, signal Signal, request []byte) *collect {
	t.Helper()
	var c collect
	if err := NewDecoder(DefaultLimits()).Decode(signal, request, 42, &c); err != nil {
		t.Fatal(err)
	}
	return &c
}

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	other := sample(2)
	other.Broker, other.Env = "other", "stage"
	bare := controlbus.MessageEvent{UID: controlbus.ID{1}, Time: 5, AgentTime: 6, Env: "dev", System: "nats", Destination: "x", Position: -1}
	want := []controlbus.MessageEvent{sample(0), sample(1), other, bare}
	got := decode(t, Logs, encode(want...)).Messages
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	rapid.Check(t, func(t *rapid.T) {
		want := sample(rapid.IntRange(0, 1<<40).Draw(t, "i"))
		want.Position = rapid.Int64Min(-1).Draw(t, "position")
		want.Body = rapid.SliceOfN(rapid.Byte(), 1, 500).Draw(t, "body")
		want.Headers = nil
		for range rapid.IntRange(0, 5).Draw(t, "headers") {
			want.Headers = append(want.Headers, controlbus.Header{Key: rapid.String().Draw(t, "key"), Value: rapid.String().Draw(t, "value")})
		}
		var c collect
		if err := NewDecoder(DefaultLimits()).Decode(Logs, encode(want), 0, &c); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]controlbus.MessageEvent{want}, c.Messages); d != "" {
			t.Fatal(d)
		}
	})
}

// Any OpenTelemetry backend can read what an agent sends.
func TestEncoderSpeaksOTLP(t *testing.T) {
	t.Parallel()
	ld, err := (&plog.ProtoUnmarshaler{}).UnmarshalLogs(encode(sample(1)))
	if err != nil {
		t.Fatal(err)
	}
	r := ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0)
	headers, _ := r.Attributes().Get(controlbus.AttrHeaders)
	if r.EventName() != controlbus.EventMessage || string(r.Body().Bytes().AsRaw()[:5]) != `{"ord` || headers.Map().Len() != 3 {
		t.Errorf("got %v", r.Attributes().AsRaw())
	}
}

func TestOldNames(t *testing.T) {
	t.Parallel()
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	rl.Resource().Attributes().PutStr("deployment.environment", "old-env")
	rl.Resource().Attributes().PutStr("service.name", "billing")
	add := func(attrs ...any) {
		r := rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
		r.SetEventName(controlbus.EventMessage)
		r.SetTimestamp(9)
		for i := 0; i < len(attrs); i += 2 {
			v := r.Attributes().PutEmpty(attrs[i].(string))
			if err := v.FromRaw(attrs[i+1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("messaging.system", "kafka", "messaging.destination", "orders", "messaging.operation", "publish", "messaging.message_id", "m",
		"messaging.conversation_id", "c", "messaging.kafka.message.offset", 12, "messaging.kafka.partition", 4,
		"messaging.kafka.consumer_group", "g", "messaging.message_payload_size_bytes", 99, "order.id", 5)
	add("messaging.destination.name", "new", "messaging.destination", "old", "messaging.system", "x",
		"messaging.operation.type", "process", "messaging.operation", "publish", "messaging.operation.name", "ack", "messaging.kafka.offset", "77")
	add("messaging.system", "x") // no destination
	b, _ := (&plog.ProtoMarshaler{}).MarshalLogs(ld)
	c := decode(t, Logs, b)
	if len(c.Messages) != 2 || len(c.Invalids) != 1 {
		t.Fatalf("got %+v", c)
	}
	a, n := c.Messages[0], c.Messages[1]
	if a.Env != "old-env" || a.Service != "billing" || a.Destination != "orders" || a.Op != controlbus.OpSend || a.MessageID != "m" ||
		a.CorrelationID != "c" || a.Position != 12 || a.Partition != "4" || a.ConsumerGroup != "g" || a.BodySize != 99 ||
		a.UID != UID(&a) || a.AgentTime != 42 || len(a.Headers) != 1 || a.Headers[0].Value != "5" {
		t.Errorf("old names: %+v", a)
	}
	if n.Destination != "new" || n.Op != controlbus.OpProcess || n.Position != 77 {
		t.Errorf("new beats old: %+v", n)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	ev := sample(1)
	ev.Body = make([]byte, 3<<20)
	ev.Truncated = false
	ev.Headers = nil
	for i := range 10_000 {
		ev.Headers = append(ev.Headers, controlbus.Header{Key: fmt.Sprint("h", i), Value: "v"})
	}
	ev.Headers[0].Value = strings.Repeat("ü", 1<<20)
	ev.RoutingKey = "bad \xff\xfe utf8"
	got := decode(t, Logs, encode(ev)).Messages[0]
	if len(got.Body) != 1<<20 || !got.Truncated || got.BodySize != 3<<20 {
		t.Errorf("body: %d of %d, truncated %v", len(got.Body), got.BodySize, got.Truncated)
	}
	if len(got.Headers) != 1001 || got.Headers[1000] != (controlbus.Header{Key: HeadersCut, Value: "9000"}) || len(got.Headers[0].Value) != 64<<10 {
		t.Errorf("headers: %d, last %v", len(got.Headers), got.Headers[len(got.Headers)-1])
	}
	if got.RoutingKey != "bad \ufffd\ufffd utf8" {
		t.Errorf("routing key: %q", got.RoutingKey)
	}
}

// nested is an attribute value nested to the depth.
func nested(depth int) []byte {
	v := appendBytes(nil, 1, "x")
	for range depth {
		v = appendBytes(nil, 5, appendBytes(nil, 1, v))
	}
	return v
}

func TestDeepNesting(t *testing.T) {
	t.Parallel()
	kv := func(depth int) []byte { return appendBytes(appendBytes(nil, 1, "k"), 2, nested(depth)) }
	request := func(depth int) []byte {
		bad := appendBytes(nil, 2, appendBytes(nil, 6, kv(depth)))
		good := appendBytes(nil, 2, appendBytes(nil, 6, kv(3)))
		return appendBytes(nil, 1, appendBytes(nil, 2, append(bad, good...)))
	}
	if c := decode(t, Logs, request(3_000)); len(c.Invalids) != 1 || len(c.Logs) != 1 {
		t.Errorf("deep: %v, %d logs", c.Invalids, len(c.Logs))
	}
	if c := decode(t, Logs, request(60)); len(c.Logs) != 2 || strings.Count(c.Logs[0].Attrs[0].Value, "[") != 60 {
		t.Errorf("within limit: %+v", c)
	}
	span := appendBytes(nil, 1, appendBytes(nil, 2, appendBytes(nil, 2, appendBytes(nil, 9, kv(3_000)))))
	if err := NewDecoder(DefaultLimits()).Decode(Traces, span, 0, &collect{}); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("deep span: %v", err)
	}
	resource := appendBytes(nil, 1, appendBytes(nil, 1, appendBytes(nil, 1, kv(3_000))))
	if err := NewDecoder(DefaultLimits()).Decode(Metrics, resource, 0, &collect{}); !errors.Is(err, controlbus.ErrInvalid) {
		t.Errorf("deep metric: %v", err)
	}
}

// What is nested is looked through once, not once per level: a sender must not
// buy seconds of work with a small request.
func TestNestingCostsItsSizeOnce(t *testing.T) {
	t.Parallel()
	wide := []byte{}
	for range 200_000 {
		wide = appendBytes(wide, 1, []byte{2 << 3, 1})
	}
	v := appendBytes(nil, 5, wide)
	for range 60 {
		v = appendBytes(nil, 5, appendBytes(nil, 1, v))
	}
	attr := appendBytes(nil, 6, appendBytes(appendBytes(nil, 1, "k"), 2, v))
	request := appendBytes(nil, 1, appendBytes(nil, 2, appendBytes(nil, 2, attr)))
	flat := appendBytes(nil, 1, appendBytes(nil, 2, appendBytes(nil, 2, appendBytes(nil, 6, appendBytes(appendBytes(nil, 1, "k"), 2, appendBytes(nil, 5, wide))))))
	d := NewDecoder(DefaultLimits())
	took := func(request []byte) time.Duration {
		best := time.Hour
		for range 5 {
			start := time.Now()
			if err := d.Decode(Logs, request, 0, &collect{}); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	if deep, once := took(request), took(flat); deep > 10*once {
		t.Errorf("60 levels cost %v, one %v", deep, once)
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	td := ptrace.NewTraces()
	rs := td.ResourceSpans().AppendEmpty()
	rs.Resource().Attributes().PutStr("service.name", "shop")
	spans := rs.ScopeSpans().AppendEmpty().Spans()
	s := spans.AppendEmpty()
	s.SetTraceID([16]byte{1})
	s.SetSpanID([8]byte{2})
	s.SetName("send orders")
	s.SetStartTimestamp(100)
	s.SetEndTimestamp(350)
	s.SetKind(ptrace.SpanKindProducer)
	s.Attributes().PutStr("messaging.system", "kafka")
	s.Attributes().PutStr("messaging.destination", "orders")
	s.Attributes().PutStr("messaging.operation", "publish")
	s.Attributes().PutStr("messaging.message.id", "m1")
	s.Links().AppendEmpty().SetTraceID([16]byte{9})
	s.Events().AppendEmpty().SetName("retry")
	spans.AppendEmpty().SetName("no ids")
	b, _ := (&ptrace.ProtoMarshaler{}).MarshalTraces(td)
	c := decode(t, Traces, b)
	if len(c.Spans) != 1 || len(c.Invalids) != 1 || len(c.Resources) != 1 {
		t.Fatalf("got %+v", c)
	}
	got := c.Spans[0]
	if got.Service != "shop" || got.DurationNs != 250 || got.Kind != 4 || got.System != "kafka" || got.Destination != "orders" ||
		got.Op != controlbus.OpSend || got.MessageID != "m1" || len(got.Attrs) != 4 || len(got.Links) != 1 || len(got.Events) != 1 ||
		got.ResourceID != c.Resources[0].ID {
		t.Errorf("got %+v", got)
	}
}

func TestSamples(t *testing.T) {
	t.Parallel()
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr(controlbus.AttrEnvironment, "prod")
	ms := rm.ScopeMetrics().AppendEmpty().Metrics()
	gauge := ms.AppendEmpty()
	gauge.SetName("depth")
	p := gauge.SetEmptyGauge().DataPoints().AppendEmpty()
	p.SetIntValue(5)
	p.SetTimestamp(7)
	p.Attributes().PutStr("queue", "q")
	sum := ms.AppendEmpty()
	sum.SetName("sent")
	sum.SetEmptySum().SetIsMonotonic(true)
	sum.Sum().SetAggregationTemporality(pmetric.AggregationTemporalityDelta)
	sum.Sum().DataPoints().AppendEmpty().SetDoubleValue(1.5)
	h := ms.AppendEmpty()
	h.SetName("latency")
	hp := h.SetEmptyHistogram().DataPoints().AppendEmpty()
	hp.ExplicitBounds().FromRaw([]float64{1, 2})
	hp.BucketCounts().FromRaw([]uint64{3, 4, 5})
	hp.SetCount(12)
	hp.SetSum(20)
	e := ms.AppendEmpty()
	e.SetName("exp")
	ep := e.SetEmptyExponentialHistogram().DataPoints().AppendEmpty()
	ep.SetScale(0)
	ep.Positive().BucketCounts().FromRaw([]uint64{1, 2})
	ep.SetCount(3)
	b, _ := (&pmetric.ProtoMarshaler{}).MarshalMetrics(md)
	c := decode(t, Metrics, b)
	var got []string
	for _, s := range c.Samples {
		line := fmt.Sprint(s.Metric, " ", s.Kind, " ", s.Value)
		for _, l := range s.Labels {
			line += " " + l.Key + "=" + l.Value
		}
		got = append(got, line)
	}
	env := " deployment.environment.name=prod"
	want := []string{
		"depth gauge 5" + env + " queue=q", "sent counter 1.5" + env,
		"latency_bucket histogram 3" + env + " le=1", "latency_bucket histogram 7" + env + " le=2", "latency_bucket histogram 12" + env + " le=+Inf",
		"latency_sum histogram 20" + env, "latency_count histogram 12" + env,
		"exp_bucket histogram 1" + env + " le=2", "exp_bucket histogram 3" + env + " le=4", "exp_bucket histogram 3" + env + " le=+Inf", "exp_count histogram 3" + env,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if c.Deltas != 1 {
		t.Errorf("%d deltas", c.Deltas)
	}
	if c.Samples[0].Series == c.Samples[1].Series || c.Samples[0].Time != 7 || c.Samples[1].Time != 42 {
		t.Errorf("series or times: %+v", c.Samples[:2])
	}
}

// reference decodes logs through pdata.
func reference(b []byte) (*collect, error) {
	request := plogotlp.NewExportRequest()
	if err := request.UnmarshalProto(b); err != nil {
		return nil, err
	}
	ld := request.Logs()
	var c collect
	d := NewDecoder(DefaultLimits())
	d.v, d.received = &c, 42
	told := map[uint64]*resource{}
	for _, rl := range ld.ResourceLogs().All() {
		res := d.pdataResource(rl.Resource().Attributes())
		if told[res.ID] == nil {
			told[res.ID] = res
		}
		res = told[res.ID]
		for _, sl := range rl.ScopeLogs().All() {
			for _, lr := range sl.LogRecords().All() {
				d.record(referenceRecord(d, lr), res, true)
			}
		}
	}
	return &c, nil
}

// referenceRecord writes what pdata understood in the one plain way.
func referenceRecord(d *Decoder, lr plog.LogRecord) []byte {
	var b []byte
	b = appendFixed64(b, fieldTime, uint64(lr.Timestamp()))
	b = appendFixed64(b, fieldObserved, uint64(lr.ObservedTimestamp()))
	b = appendVarint(b, fieldSeverity, uint64(lr.SeverityNumber()))
	b = appendBytes(b, fieldEventName, lr.EventName())
	b = appendBytes(b, fieldBody, encodeValue(fromPdata(lr.Body())))
	for k, v := range lr.Attributes().All() {
		b = appendBytes(b, fieldAttribute, appendBytes(appendBytes(nil, 1, k), 2, encodeValue(fromPdata(v))))
	}
	trace, span := lr.TraceID(), lr.SpanID()
	b = appendBytes(b, fieldTraceID, trace[:])
	return appendBytes(b, fieldSpanID, span[:])
}

func agree(t interface {
	Helper()
	Fatalf(string, ...any)
}, b []byte) {
	t.Helper()
	g := weighing{left: 1 << 40}
	if g.walk(b, shape{1: {1: resourceShape, 2: {1: scopeShape, 2: {5: anyShape, 6: kvShape}}}}, 40); g.tooDeep {
		return // there the two are meant to differ
	}
	want, wantErr := reference(b)
	var got collect
	err := NewDecoder(DefaultLimits()).Decode(Logs, b, 42, &got)
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("wire: %v, pdata: %v", err, wantErr)
	}
	if err != nil {
		return
	}
	opts := cmp.Options{cmpopts.IgnoreFields(storage.Log{}, "UID"), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(collect{}, "Resources")}
	if d := cmp.Diff(want, &got, opts); d != "" {
		t.Fatalf("pdata and wire differ: %s", d)
	}
}

func drawValue(t *rapid.T, v pcommon.Value, depth int) {
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
		v.SetStr(rapid.SampledFrom([]string{"", "send", "publish", "12", "\xff", "a\"b\n"}).Draw(t, "str"))
	case 1:
		v.SetInt(rapid.Int64().Draw(t, "int"))
	case 2:
		v.SetDouble(rapid.SampledFrom([]float64{0, 1.5, math.Inf(1), 1e300}).Draw(t, "double"))
	case 3:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case 4:
		v.SetEmptyBytes().FromRaw(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case 5:
		s := v.SetEmptySlice()
		for range rapid.IntRange(0, 3-depth).Draw(t, "n") {
			drawValue(t, s.AppendEmpty(), depth+1)
		}
	case 6:
		m := v.SetEmptyMap()
		for range rapid.IntRange(0, 3-depth).Draw(t, "n") {
			drawValue(t, m.PutEmpty(rapid.String().Draw(t, "key")), depth+1)
		}
	}
}

func TestWireAgreesWithPdata(t *testing.T) {
	t.Parallel()
	keys := []string{"messaging.system", "messaging.destination.name", "messaging.destination", "messaging.operation.type", "messaging.operation",
		"messaging.kafka.offset", "signalbox.position", "signalbox.headers", "signalbox.redacted", "signalbox.uid", "x", "event.name", "messaging.message.body.size"}
	rapid.Check(t, func(t *rapid.T) {
		ld := plog.NewLogs()
		for range rapid.IntRange(0, 2).Draw(t, "resources") {
			rl := ld.ResourceLogs().AppendEmpty()
			for range rapid.IntRange(0, 3).Draw(t, "attrs") {
				drawValue(t, rl.Resource().Attributes().PutEmpty(rapid.SampledFrom([]string{"service.name", "deployment.environment", "messaging.system", "y"}).Draw(t, "key")), 0)
			}
			for range rapid.IntRange(0, 3).Draw(t, "records") {
				r := rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
				r.SetEventName(rapid.SampledFrom([]string{"", "other", controlbus.EventMessage}).Draw(t, "event"))
				r.SetTimestamp(pcommon.Timestamp(rapid.Uint64Max(1<<62).Draw(t, "time")))
				drawValue(t, r.Body(), 0)
				for range rapid.IntRange(0, 6).Draw(t, "attrs") {
					drawValue(t, r.Attributes().PutEmpty(rapid.SampledFrom(keys).Draw(t, "key")), 0)
				}
			}
		}
		b, err := (&plog.ProtoMarshaler{}).MarshalLogs(ld)
		if err != nil {
			t.Fatal(err)
		}
		agree(t, b)
		// And on the same bytes, damaged.
		if len(b) > 0 {
			b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
			agree(t, b)
		}
	})
}

func FuzzDecodeLogs(f *testing.F) {
	f.Add(encode(sample(1), sample(2)))
	f.Add(appendBytes(nil, 1, appendBytes(nil, 1000, appendBytes(nil, 2, appendBytes(nil, 12, controlbus.EventMessage)))))
	f.Fuzz(func(t *testing.T, b []byte) { agree(t, b) })
}

func FuzzDecodePdata(f *testing.F) {
	f.Add(uint8(2), []byte{10, 2, 18, 0})
	f.Fuzz(func(t *testing.T, signal uint8, b []byte) {
		if err := NewDecoder(DefaultLimits()).Decode(Signal(signal%3+1), b, 1, &collect{}); err != nil && !errors.Is(err, controlbus.ErrInvalid) {
			t.Fatal(err)
		}
	})
}

type count struct{ collect }

func (c *count) Message(*controlbus.MessageEvent) { c.Deltas++ }

func BenchmarkDecodeMessages(b *testing.B) {
	var events []controlbus.MessageEvent
	for i := range 512 {
		ev := sample(i)
		ev.Redacted = nil
		events = append(events, ev)
	}
	request := encode(events...)
	d := NewDecoder(DefaultLimits())
	var c count
	b.SetBytes(int64(len(request)))
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(Logs, request, 1, &c); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(c.Deltas)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkEncodeMessages(b *testing.B) {
	ev := sample(1)
	e := NewEncoder(Origin{AgentID: "a"})
	var dst []byte
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		for range 512 {
			e.Append(&ev)
		}
		n += e.Count()
		dst = e.Request(dst[:0])
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

// Two bytes on the wire become hundreds in memory: what a request may unfold
// to is bounded, whatever its own size.
func TestRequestsThatUnfoldAreRefused(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	empties := func(path ...int) []byte {
		b := bytes.Repeat([]byte{byte(path[len(path)-1]<<3 | typeLen), 0}, size/2)
		for i := len(path) - 2; i >= 0; i-- {
			b = appendBytes(nil, path[i], b)
		}
		return b
	}
	for _, c := range []struct {
		name   string
		signal Signal
		body   []byte
	}{
		{"log records", Logs, empties(1, 2, 2)},
		{"resources of spans", Traces, empties(1)},
		{"scopes of spans", Traces, empties(1, 2)},
		{"spans", Traces, empties(1, 2, 2)},
		{"events of a span", Traces, empties(1, 2, 2, 11)},
		{"links of a span", Traces, empties(1, 2, 2, 13)},
		{"attributes of a span", Traces, empties(1, 2, 2, 9)},
		{"values of a list", Traces, empties(1, 2, 2, 9, 2, 5, 1)},
		{"metrics", Metrics, empties(1, 2, 2)},
		{"points", Metrics, empties(1, 2, 2, 5, 1)},
		{"quantiles", Metrics, empties(1, 2, 2, 11, 1, 6)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var got collect
			err := NewDecoder(DefaultLimits()).Decode(c.signal, c.body, 1, &got)
			if !errors.Is(err, controlbus.ErrTooLarge) || errors.Is(err, controlbus.ErrInvalid) {
				t.Errorf("got %v, want ErrTooLarge", err)
			}
		})
	}
}
