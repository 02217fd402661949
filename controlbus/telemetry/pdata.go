package telemetry

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/ptrace"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// shape is a protobuf message of OTLP as far as values can nest in it and
// messages can repeat. A nil one is not walked into.
type shape map[int32]shape

// valueMark is a field number that does not exist. It marks the shapes of
// which pdata makes little.
const valueMark = 0

// anyShape and kvShape are the two that refer to each other.
var anyShape, kvShape = func() (shape, shape) {
	value, kv := shape{valueMark: nil}, shape{valueMark: nil}
	kv[2] = value
	value[5], value[6] = shape{valueMark: nil, 1: value}, shape{valueMark: nil, 1: kv}
	return value, kv
}()

var (
	resourceShape = shape{1: kvShape, 3: nil}
	scopeShape    = shape{3: kvShape}
	tracesShape   = shape{1: {1: resourceShape, 2: {1: scopeShape, 2: {9: kvShape, 11: {3: kvShape}, 13: {4: kvShape}}}}}
	// A data point has its attributes in field 1, 7 or 9 by its type, and
	// exemplars, whose attributes are field 7, in 5, 8 or 11. Walking into a
	// field that is something else does no harm: nothing is kept.
	exemplarShape = shape{7: kvShape}
	pointsShape   = shape{1: {6: nil, 1: kvShape, 7: kvShape, 9: kvShape, 5: exemplarShape, 8: exemplarShape, 11: exemplarShape}}
	metricsShape  = shape{1: {1: resourceShape, 2: {1: scopeShape, 2: {5: pointsShape, 7: pointsShape, 9: pointsShape, 10: pointsShape, 11: pointsShape, 12: kvShape}}}}
)

// weighing walks over a request before pdata unfolds it into structs: pdata
// recurses without a limit, and makes hundreds of bytes of two on the wire.
type weighing struct {
	left    int64 // bytes that may still be unfolded
	tooDeep bool
	tooBig  bool
}

// What pdata makes of a message, about: a value or a pair of them, and
// anything else, of which a span is the largest.
const (
	valueWeight   = 64
	messageWeight = 320
)

// walk returns early once the request is refused.
func (g *weighing) walk(b []byte, s shape, depth int) {
	if depth <= 0 {
		g.tooDeep = true
		return
	}
	w := wire{b: b}
	for !g.tooDeep && !g.tooBig {
		field, typ, more := w.next()
		if !more {
			return // malformed bytes are pdata's to refuse
		}
		inner, known := s[field]
		if !known || typ != typeLen {
			w.skip(typ)
			continue
		}
		if _, light := inner[valueMark]; light {
			g.left -= valueWeight
		} else {
			g.left -= messageWeight
		}
		if g.left < 0 {
			g.tooBig = true
			return
		}
		if inner == nil {
			w.skip(typ)
			continue
		}
		g.walk(w.bytes(), inner, depth-1)
	}
}

// messagesPerValue is how many messages one level of nesting takes on the wire.
const (
	messagesPerValue = 3
	messagesAround   = 8
)

// weigh refuses what pdata must not be given.
func (d *Decoder) weigh(b []byte, s shape) error {
	g := weighing{left: int64(d.limits.Unfolded)}
	g.walk(b, s, messagesAround+messagesPerValue*d.limits.Depth)
	switch {
	case g.tooDeep:
		return fmt.Errorf("%w: attributes nested deeper than %d", controlbus.ErrInvalid, d.limits.Depth)
	case g.tooBig:
		return fmt.Errorf("%w: the request holds too many records for one; send smaller batches", controlbus.ErrTooLarge)
	}
	return nil
}

// fromPdata makes a value of one of pdata's. Nested ones become their JSON.
func fromPdata(v pcommon.Value) value {
	switch v.Type() {
	case pcommon.ValueTypeStr:
		return value{kind: kindText, b: []byte(v.Str())}
	case pcommon.ValueTypeBool:
		n := uint64(0)
		if v.Bool() {
			n = 1
		}
		return value{kind: kindBool, n: n}
	case pcommon.ValueTypeInt:
		return value{kind: kindInt, n: uint64(v.Int())}
	case pcommon.ValueTypeDouble:
		return value{kind: kindDouble, n: math.Float64bits(v.Double())}
	case pcommon.ValueTypeBytes:
		return value{kind: kindBytes, b: v.Bytes().AsRaw()}
	case pcommon.ValueTypeSlice:
		var list []byte
		for _, e := range v.Slice().All() {
			list = appendBytes(list, 1, encodeValue(fromPdata(e)))
		}
		return value{kind: kindArray, b: list}
	case pcommon.ValueTypeMap:
		var list []byte
		for k, e := range v.Map().All() {
			list = appendBytes(list, 1, appendBytes(appendBytes(nil, 1, k), 2, encodeValue(fromPdata(e))))
		}
		return value{kind: kindMap, b: list}
	}
	return value{}
}

func encodeValue(v value) []byte {
	switch v.kind {
	case kindText:
		return appendBytes(nil, 1, v.b)
	case kindBool:
		return []byte{2 << 3, byte(v.n)}
	case kindInt:
		return appendVarint(nil, 3, v.n)
	case kindDouble:
		return appendFixed64(nil, 4, v.n)
	case kindArray:
		return appendBytes(nil, 5, v.b)
	case kindMap:
		return appendBytes(nil, 6, v.b)
	case kindBytes:
		return appendBytes(nil, 7, v.b)
	}
	return nil
}

func (d *Decoder) pdataResource(m pcommon.Map) *resource {
	var kvs []keyValue
	for k, v := range m.All() {
		kvs = append(kvs, keyValue{k, fromPdata(v)})
	}
	d.scratch = nil
	r := d.newResource(kvs)
	d.scratch = nil
	return r
}

func (d *Decoder) attrs(dst []storage.Attr, m pcommon.Map, each func(key string, v *value)) []storage.Attr {
	for k, pv := range m.All() {
		v := fromPdata(pv)
		if each != nil {
			each(k, &v)
		}
		if len(dst) < d.limits.Headers {
			dst = append(dst, storage.Attr{Key: d.clean(raw(k), d.limits.Name), Value: d.text(&v, d.limits.Text)})
		}
	}
	if n := m.Len() - d.limits.Headers; n > 0 {
		dst = append(dst, storage.Attr{Key: HeadersCut, Value: strconv.Itoa(n)})
	}
	return dst
}

func (d *Decoder) traces(b []byte) error {
	if err := d.weigh(b, tracesShape); err != nil {
		return err
	}
	td, err := (&ptrace.ProtoUnmarshaler{}).UnmarshalTraces(b)
	if err != nil {
		return fmt.Errorf("%w: malformed OTLP traces request: %w", controlbus.ErrInvalid, err)
	}
	for _, rs := range td.ResourceSpans().All() {
		res := d.pdataResource(rs.Resource().Attributes())
		for _, ss := range rs.ScopeSpans().All() {
			for _, sp := range ss.Spans().All() {
				if d.span(sp, res); d.records > d.limits.Records {
					return d.tooMany()
				}
			}
		}
	}
	return nil
}

func (d *Decoder) span(sp ptrace.Span, res *resource) {
	d.scratch = nil
	d.records++
	s := &storage.Span{
		Time: int64(sp.StartTimestamp()), TraceID: sp.TraceID(), SpanID: sp.SpanID(), ParentID: sp.ParentSpanID(),
		Env: res.env, Service: res.Service, Name: d.clean(raw(sp.Name()), d.limits.Name),
		Kind: uint8(min(max(sp.Kind(), 0), 5)), Status: uint8(min(max(sp.Status().Code(), 0), 2)),
		StatusText: d.clean(raw(sp.Status().Message()), d.limits.Text), ResourceID: res.ID,
	}
	if sp.TraceID().IsEmpty() || sp.SpanID().IsEmpty() {
		d.v.Invalid("span without trace or span id", []byte(s.Name))
		return
	}
	if s.Time <= 0 {
		s.Time = d.received
	}
	if end, start := sp.EndTimestamp(), sp.StartTimestamp(); end > start && start > 0 {
		s.DurationNs = uint64(end - start)
	}
	var ev controlbus.MessageEvent
	var a attributes
	s.Attrs = d.attrs(nil, sp.Attributes(), func(key string, v *value) {
		if key != controlbus.AttrHeaders {
			d.lift(&ev, &a, key, v)
		}
	})
	s.System, s.Destination, s.MessageID, s.CorrelationID, s.Op = ev.System, ev.Destination, ev.MessageID, ev.CorrelationID, ev.Op
	if ev.Env != "" {
		s.Env = ev.Env
	}
	for i, e := range sp.Events().All() {
		if i >= d.limits.Headers {
			break
		}
		s.Events = append(s.Events, storage.SpanEvent{
			Time: int64(e.Timestamp()), Name: d.clean(raw(e.Name()), d.limits.Name), Attrs: d.attrs(nil, e.Attributes(), nil),
		})
	}
	for i, l := range sp.Links().All() {
		if i >= d.limits.Headers {
			break
		}
		s.Links = append(s.Links, storage.SpanLink{TraceID: l.TraceID(), SpanID: l.SpanID(), Attrs: d.attrs(nil, l.Attributes(), nil)})
	}
	d.tell(res)
	d.v.Span(s)
}

// Kinds of a sample.
const (
	KindGauge     = "gauge"
	KindCounter   = "counter"
	KindHistogram = "histogram"
)

func (d *Decoder) metrics(b []byte) error {
	if err := d.weigh(b, metricsShape); err != nil {
		return err
	}
	md, err := (&pmetric.ProtoUnmarshaler{}).UnmarshalMetrics(b)
	if err != nil {
		return fmt.Errorf("%w: malformed OTLP metrics request: %w", controlbus.ErrInvalid, err)
	}
	for _, rm := range md.ResourceMetrics().All() {
		res := d.pdataResource(rm.Resource().Attributes())
		d.tell(res)
		for _, sm := range rm.ScopeMetrics().All() {
			for _, m := range sm.Metrics().All() {
				if d.metric(m, res); d.records > d.limits.Records {
					return d.tooMany()
				}
			}
		}
	}
	return nil
}

// series is a metric while its points are read.
type series struct {
	d          *Decoder
	res        *resource
	name, unit string
	kind       string
	delta      bool
}

func (d *Decoder) metric(m pmetric.Metric, res *resource) {
	d.scratch = nil
	d.records++
	s := series{d: d, res: res, name: d.clean(raw(m.Name()), d.limits.Name), unit: d.clean(raw(m.Unit()), d.limits.Name), kind: KindGauge}
	if s.name == "" {
		d.v.Invalid("metric without a name", nil)
		return
	}
	switch m.Type() {
	case pmetric.MetricTypeGauge:
		s.numbers(m.Gauge().DataPoints())
	case pmetric.MetricTypeSum:
		if m.Sum().IsMonotonic() {
			s.kind = KindCounter
		}
		s.delta = m.Sum().AggregationTemporality() == pmetric.AggregationTemporalityDelta
		s.numbers(m.Sum().DataPoints())
	case pmetric.MetricTypeHistogram:
		s.kind = KindHistogram
		s.delta = m.Histogram().AggregationTemporality() == pmetric.AggregationTemporalityDelta
		for _, p := range m.Histogram().DataPoints().All() {
			if p.Flags().NoRecordedValue() {
				continue
			}
			var total uint64
			bounds := p.ExplicitBounds()
			for i := range min(p.BucketCounts().Len(), d.limits.Headers) {
				total += p.BucketCounts().At(i)
				le := math.Inf(1)
				if i < bounds.Len() {
					le = bounds.At(i)
				}
				s.bucket(p.Attributes(), p.Timestamp(), le, float64(total))
			}
			s.rest(p.Attributes(), p.Timestamp(), p.HasSum(), p.Sum(), p.Count(), p.BucketCounts().Len() == 0)
		}
	case pmetric.MetricTypeExponentialHistogram:
		s.kind = KindHistogram
		s.delta = m.ExponentialHistogram().AggregationTemporality() == pmetric.AggregationTemporalityDelta
		for _, p := range m.ExponentialHistogram().DataPoints().All() {
			if !p.Flags().NoRecordedValue() {
				s.exponential(p)
			}
		}
	case pmetric.MetricTypeSummary:
		for _, p := range m.Summary().DataPoints().All() {
			if p.Flags().NoRecordedValue() {
				continue
			}
			for i, q := range p.QuantileValues().All() {
				if i < d.limits.Headers {
					s.emit(s.name, KindGauge, p.Attributes(), p.Timestamp(), q.Value(), false, storage.Attr{Key: "quantile", Value: float(q.Quantile())})
				}
			}
			s.kind = KindCounter
			s.rest(p.Attributes(), p.Timestamp(), true, p.Sum(), p.Count(), false)
		}
	default:
		d.v.Invalid("metric without data", []byte(s.name))
	}
}

func (s *series) numbers(points pmetric.NumberDataPointSlice) {
	for _, p := range points.All() {
		if p.Flags().NoRecordedValue() {
			continue
		}
		v := p.DoubleValue()
		if p.ValueType() == pmetric.NumberDataPointValueTypeInt {
			v = float64(p.IntValue())
		}
		s.emit(s.name, s.kind, p.Attributes(), p.Timestamp(), v, s.delta)
	}
}

func (s *series) bucket(attrs pcommon.Map, t pcommon.Timestamp, le, count float64) {
	s.emit(s.name+"_bucket", s.kind, attrs, t, count, s.delta, storage.Attr{Key: "le", Value: float(le)})
}

func (s *series) rest(attrs pcommon.Map, t pcommon.Timestamp, hasSum bool, sum float64, count uint64, inf bool) {
	if inf {
		s.bucket(attrs, t, math.Inf(1), float64(count))
	}
	if hasSum {
		s.emit(s.name+"_sum", s.kind, attrs, t, sum, s.delta)
	}
	s.emit(s.name+"_count", s.kind, attrs, t, float64(count), s.delta)
}

// exponential turns the buckets into upper bounds, as Prometheus has them.
func (s *series) exponential(p pmetric.ExponentialHistogramDataPoint) {
	base := math.Exp2(math.Exp2(-float64(p.Scale())))
	total := uint64(0)
	negative := p.Negative()
	for i := min(negative.BucketCounts().Len(), s.d.limits.Headers) - 1; i >= 0; i-- {
		total += negative.BucketCounts().At(i)
		s.bucket(p.Attributes(), p.Timestamp(), -math.Pow(base, float64(negative.Offset())+float64(i)), float64(total))
	}
	if total += p.ZeroCount(); p.ZeroCount() > 0 {
		s.bucket(p.Attributes(), p.Timestamp(), p.ZeroThreshold(), float64(total))
	}
	positive := p.Positive()
	for i := range min(positive.BucketCounts().Len(), s.d.limits.Headers) {
		total += positive.BucketCounts().At(i)
		s.bucket(p.Attributes(), p.Timestamp(), math.Pow(base, float64(positive.Offset())+float64(i)+1), float64(total))
	}
	s.bucket(p.Attributes(), p.Timestamp(), math.Inf(1), float64(p.Count()))
	s.rest(p.Attributes(), p.Timestamp(), p.HasSum(), p.Sum(), p.Count(), false)
}

func (s *series) emit(name, kind string, attrs pcommon.Map, t pcommon.Timestamp, v float64, delta bool, extra ...storage.Attr) {
	if s.d.records++; s.d.records > s.d.limits.Records {
		return // the request is refused as soon as its metric ends
	}
	labels := s.d.attrs(make([]storage.Attr, 0, attrs.Len()+4), attrs, nil)
	labels = append(labels, extra...)
	for _, a := range s.res.Attrs {
		switch a.Key {
		case controlbus.AttrServiceName, controlbus.AttrServiceInstance, controlbus.AttrHostName:
			labels = append(labels, a)
		}
	}
	if s.res.env != "" {
		labels = append(labels, storage.Attr{Key: controlbus.AttrEnvironment, Value: s.res.env})
	}
	slices.SortStableFunc(labels, func(a, b storage.Attr) int {
		if a.Key < b.Key {
			return -1
		}
		if a.Key > b.Key {
			return 1
		}
		return 0
	})
	// A point's own attribute beats the resource's of the same name.
	labels = slices.CompactFunc(labels, func(a, b storage.Attr) bool { return a.Key == b.Key })
	sample := storage.Sample{
		Metric: name, Series: hashAttrs(name, labels), Kind: kind, Unit: s.unit, Labels: labels, Time: int64(t), Value: v,
	}
	if sample.Time <= 0 {
		sample.Time = s.d.received
	}
	s.d.v.Sample(&sample, delta)
}

func float(f float64) string {
	if math.IsInf(f, 1) {
		return "+Inf"
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}
