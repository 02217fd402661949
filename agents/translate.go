package agents

import (
	"encoding/hex"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// ParseTraceparent reads the W3C traceparent header. ok is false, and the ids
// are zero, for anything that is not one: producers write what they like.
func ParseTraceparent(s string) (trace [16]byte, span [8]byte, ok bool) {
	// version "-" trace-id "-" parent-id "-" flags; a later version may append.
	if len(s) < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || (len(s) > 55 && s[55] != '-') {
		return trace, span, false
	}
	var version [1]byte
	if _, err := hex.Decode(version[:], []byte(s[:2])); err != nil || version[0] == 0xff {
		return trace, span, false
	}
	if version[0] == 0 && len(s) != 55 {
		return trace, span, false
	}
	var t [16]byte
	var p [8]byte
	if _, err := hex.Decode(t[:], []byte(s[3:35])); err != nil || t == trace {
		return trace, span, false
	}
	if _, err := hex.Decode(p[:], []byte(s[36:52])); err != nil || p == span {
		return trace, span, false
	}
	return t, p, true
}

// LiftHeaders fills the fields of ev that producers carry in headers, where the
// broker has no property of its own for them: trace context, correlation and
// causation ids, CloudEvents ids and content types, and what libraries write on
// messages that could not be processed. Fields that are set stay. Destination
// and RoutingKey should be set before, for a message that came back to where it
// failed is no dead letter.
func LiftHeaders(ev *controlbus.MessageEvent) {
	var cloudEvent string
	var fail failure
	for _, h := range ev.Headers {
		if h.Value == "" || len(h.Key) < 4 || len(h.Key) > 40 {
			continue
		}
		switch key := strings.ToLower(h.Key); key {
		case "traceparent":
			if ev.TraceID == [16]byte{} {
				ev.TraceID, ev.SpanID, _ = ParseTraceparent(h.Value)
			}
		case "correlation-id", "x-correlation-id", "correlation_id", "correlationid":
			set(&ev.CorrelationID, h.Value)
		case "causation-id", "x-causation-id", "causation_id", "causationid":
			set(&ev.CausationID, h.Value)
		case "message-id", "x-message-id":
			set(&ev.MessageID, h.Value)
		case "reply-to", "x-reply-to":
			set(&ev.ReplyTo, h.Value)
		case "content-type":
			set(&ev.ContentType, h.Value)
		case "content-encoding":
			set(&ev.ContentEncoding, h.Value)
		// CloudEvents bindings of AMQP, NATS and HTTP-like headers.
		case "cloudevents_id", "cloudevents:id", "ce-id", "ce_id":
			cloudEvent = h.Value
		case "cloudevents_datacontenttype", "cloudevents:datacontenttype", "ce-datacontenttype", "ce_datacontenttype":
			set(&ev.ContentType, h.Value)
		default:
			fail.header(key, h.Value)
		}
	}
	set(&ev.MessageID, cloudEvent)
	fail.lift(ev)
}

func set(field *string, v string) {
	if *field == "" {
		*field = v
	}
}

// Observation builds the metrics of one Observe call in the names of
// controlbus/semconv.go, one metric per name.
type Observation struct {
	system, broker string
	now            pcommon.Timestamp
	metrics        pmetric.MetricSlice
	points         map[string]pmetric.NumberDataPointSlice
}

// NewObservation appends a resource and a scope to md.
func NewObservation(md pmetric.Metrics, system, broker string, now time.Time) *Observation {
	sm := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty()
	sm.Scope().SetName("github.com/signalbox-dev/signalbox/agents/" + system)
	return &Observation{
		system: system, broker: broker, now: pcommon.NewTimestampFromTime(now),
		metrics: sm.Metrics(), points: map[string]pmetric.NumberDataPointSlice{},
	}
}

// Gauge adds a present value; attrs are keys and values in turn.
func (o *Observation) Gauge(metric, unit, channel string, v int64, attrs ...string) {
	dps, ok := o.points[metric]
	if !ok {
		dps = o.metric(metric, unit).SetEmptyGauge().DataPoints()
		o.points[metric] = dps
	}
	o.point(dps, channel, v, attrs)
}

// Sum adds a counter that only grows, until the broker starts anew.
func (o *Observation) Sum(metric, unit, channel string, v int64, attrs ...string) {
	dps, ok := o.points[metric]
	if !ok {
		sum := o.metric(metric, unit).SetEmptySum()
		sum.SetIsMonotonic(true)
		sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
		dps = sum.DataPoints()
		o.points[metric] = dps
	}
	o.point(dps, channel, v, attrs)
}

func (o *Observation) metric(name, unit string) pmetric.Metric {
	m := o.metrics.AppendEmpty()
	m.SetName(name)
	m.SetUnit(unit)
	return m
}

func (o *Observation) point(dps pmetric.NumberDataPointSlice, channel string, v int64, attrs []string) {
	dp := dps.AppendEmpty()
	dp.SetTimestamp(o.now)
	dp.SetIntValue(v)
	a := dp.Attributes()
	a.EnsureCapacity(3 + len(attrs)/2)
	a.PutStr(controlbus.AttrSystem, o.system)
	a.PutStr(controlbus.AttrBroker, o.broker)
	if channel != "" {
		a.PutStr(controlbus.AttrDestination, channel)
	}
	for i := 0; i+1 < len(attrs); i += 2 {
		a.PutStr(attrs[i], attrs[i+1])
	}
}
