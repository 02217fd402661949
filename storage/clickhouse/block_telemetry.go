package clickhouse

import (
	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// logBlock is rows of the table logs.
type logBlock struct {
	base
	ts, agentTS                          int64Col
	uid, trace, correlation              proto.ColFixedStr16
	span                                 proto.ColFixedStr8
	env, service, eventName, destination lowCard
	severity                             proto.ColUInt8
	body, correlationID                  proto.ColStr
	attrs                                textMap
	resource                             proto.ColUInt64
}

func newLogBlock() *logBlock {
	b := new(logBlock)
	b.ts.typ, b.agentTS.typ = typeTime9, typeTime3
	b.add("ts", &b.ts)
	b.add("agent_ts", &b.agentTS)
	b.add("uid", &b.uid)
	b.add("env", &b.env)
	b.add("service", &b.service)
	b.add("severity", &b.severity)
	b.add("event_name", &b.eventName)
	b.add("body", &b.body)
	b.add("trace_id", &b.trace)
	b.add("span_id", &b.span)
	b.add("correlation", &b.correlation)
	b.add("correlation_id", &b.correlationID)
	b.add("destination", &b.destination)
	b.add("attrs", &b.attrs)
	b.add("resource_id", &b.resource)
	return b
}

func (b *logBlock) append(ts int64, l *storage.Log, correlation controlbus.ID) {
	b.n++
	b.ts.Append(ts)
	b.agentTS.Append(millis(l.AgentTime))
	b.uid.Append(l.UID)
	b.env.Append(l.Env)
	b.service.Append(l.Service)
	b.severity.Append(l.Severity)
	b.eventName.Append(l.EventName)
	b.body.Append(l.Body)
	b.trace.Append(l.TraceID)
	b.span.Append(l.SpanID)
	b.correlation.Append(correlation)
	b.correlationID.Append(l.CorrelationID)
	b.destination.Append(l.Destination)
	b.attrs.Append(l.Attrs)
	b.resource.Append(l.ResourceID)
}

// spanBlock is rows of the table spans.
type spanBlock struct {
	base
	ts                                      int64Col
	duration, resource                      proto.ColUInt64
	trace, correlation                      proto.ColFixedStr16
	span, parent                            proto.ColFixedStr8
	env, service, name, system, destination lowCard
	kind, status, op                        int8Col
	statusText, messageID, correlationID    proto.ColStr
	attrs                                   textMap
	eventTS                                 array[*int64Col]
	eventName                               array[*lowCard]
	eventAttrs                              array[*textMap]
	linkTrace                               array[*proto.ColFixedStr16]
	linkSpan                                array[*proto.ColFixedStr8]
	linkAttrs                               array[*textMap]
}

func newSpanBlock() *spanBlock {
	b := &spanBlock{}
	b.ts.typ = typeTime9
	b.kind.typ, b.status.typ, b.op.typ = typeKind, typeStatus, typeOp
	b.eventTS.inner = &int64Col{typ: typeTime9}
	b.eventName.inner, b.eventAttrs.inner = new(lowCard), new(textMap)
	b.linkTrace.inner, b.linkSpan.inner, b.linkAttrs.inner = new(proto.ColFixedStr16), new(proto.ColFixedStr8), new(textMap)
	b.add("ts", &b.ts)
	b.add("duration_ns", &b.duration)
	b.add("trace_id", &b.trace)
	b.add("span_id", &b.span)
	b.add("parent_id", &b.parent)
	b.add("env", &b.env)
	b.add("service", &b.service)
	b.add("name", &b.name)
	b.add("kind", &b.kind)
	b.add("status", &b.status)
	b.add("status_text", &b.statusText)
	b.add("system", &b.system)
	b.add("destination", &b.destination)
	b.add("op", &b.op)
	b.add("message_id", &b.messageID)
	b.add("correlation", &b.correlation)
	b.add("correlation_id", &b.correlationID)
	b.add("attrs", &b.attrs)
	b.add("resource_id", &b.resource)
	b.add("events.ts", &b.eventTS)
	b.add("events.name", &b.eventName)
	b.add("events.attrs", &b.eventAttrs)
	b.add("links.trace_id", &b.linkTrace)
	b.add("links.span_id", &b.linkSpan)
	b.add("links.attrs", &b.linkAttrs)
	return b
}

func (b *spanBlock) append(ts int64, s *storage.Span, correlation controlbus.ID) {
	b.n++
	b.ts.Append(ts)
	b.duration.Append(s.DurationNs)
	b.trace.Append(s.TraceID)
	b.span.Append(s.SpanID)
	b.parent.Append(s.ParentID)
	b.env.Append(s.Env)
	b.service.Append(s.Service)
	b.name.Append(s.Name)
	b.kind.Append(known(s.Kind, 5))
	b.status.Append(known(s.Status, 2))
	b.statusText.Append(s.StatusText)
	b.system.Append(s.System)
	b.destination.Append(s.Destination)
	b.op.Append(int8(s.Op))
	b.messageID.Append(s.MessageID)
	b.correlation.Append(correlation)
	b.correlationID.Append(s.CorrelationID)
	b.attrs.Append(s.Attrs)
	b.resource.Append(s.ResourceID)
	for i := range s.Events {
		e := &s.Events[i]
		b.eventTS.inner.Append(clampTime(e.Time))
		b.eventName.inner.Append(e.Name)
		b.eventAttrs.inner.Append(e.Attrs)
	}
	b.eventTS.end()
	b.eventName.end()
	b.eventAttrs.end()
	for i := range s.Links {
		l := &s.Links[i]
		b.linkTrace.inner.Append(l.TraceID)
		b.linkSpan.inner.Append(l.SpanID)
		b.linkAttrs.inner.Append(l.Attrs)
	}
	b.linkTrace.end()
	b.linkSpan.end()
	b.linkAttrs.end()
}

// known keeps an enum's number if the schema has it: a sender may send any.
func known(v uint8, highest uint8) int8 {
	if v > highest {
		return 0
	}
	return int8(v)
}

// linkBlock is rows of the table link_back.
type linkBlock struct {
	base
	targetTrace, trace   proto.ColFixedStr16
	targetSpan, span     proto.ColFixedStr8
	ts                   int64Col
	service, destination lowCard
}

func newLinkBlock() *linkBlock {
	b := new(linkBlock)
	b.ts.typ = typeTime3
	b.add("target_trace", &b.targetTrace)
	b.add("target_span", &b.targetSpan)
	b.add("ts", &b.ts)
	b.add("trace_id", &b.trace)
	b.add("span_id", &b.span)
	b.add("service", &b.service)
	b.add("destination", &b.destination)
	return b
}

func (b *linkBlock) append(ts int64, s *storage.Span, l *storage.SpanLink) {
	b.n++
	b.targetTrace.Append(l.TraceID)
	b.targetSpan.Append(l.SpanID)
	b.ts.Append(millis(ts))
	b.trace.Append(s.TraceID)
	b.span.Append(s.SpanID)
	b.service.Append(s.Service)
	b.destination.Append(s.Destination)
}

// resourceBlock is rows of the table resources.
type resourceBlock struct {
	base
	id            proto.ColUInt64
	day           uint16Col
	service, host lowCard
	attrs         textMap
	last          uint32Col
}

func newResourceBlock() *resourceBlock {
	b := new(resourceBlock)
	b.day.typ, b.last.typ = "Date", "DateTime('UTC')"
	b.add("resource_id", &b.id)
	b.add("day", &b.day)
	b.add("service", &b.service)
	b.add("host", &b.host)
	b.add("attrs", &b.attrs)
	b.add("last", &b.last)
	return b
}

func (b *resourceBlock) append(ts int64, r *storage.Resource) {
	b.n++
	b.id.Append(r.ID)
	b.day.Append(day(ts))
	b.service.Append(r.Service)
	b.host.Append(r.Host)
	b.attrs.Append(r.Attrs)
	b.last.Append(uint32(ts / 1e9))
}

// seriesBlock is rows of the table series.
type seriesBlock struct {
	base
	metric, kind, unit lowCard
	series             proto.ColUInt64
	day                uint16Col
	labels             textMap
}

func newSeriesBlock() *seriesBlock {
	b := new(seriesBlock)
	b.day.typ = "Date"
	b.add("metric", &b.metric)
	b.add("series", &b.series)
	b.add("day", &b.day)
	b.add("kind", &b.kind)
	b.add("unit", &b.unit)
	b.add("labels", &b.labels)
	return b
}

func (b *seriesBlock) append(d uint16, s *storage.Sample) {
	b.n++
	b.metric.Append(s.Metric)
	b.series.Append(s.Series)
	b.day.Append(d)
	b.kind.Append(s.Kind)
	b.unit.Append(s.Unit)
	b.labels.Append(s.Labels)
}

// sampleBlock is rows of the table samples.
type sampleBlock struct {
	base
	metric lowCard
	series proto.ColUInt64
	ts     int64Col
	value  proto.ColFloat64
}

func newSampleBlock() *sampleBlock {
	b := new(sampleBlock)
	b.ts.typ = typeTime3
	b.add("metric", &b.metric)
	b.add("series", &b.series)
	b.add("ts", &b.ts)
	b.add("value", &b.value)
	return b
}

func (b *sampleBlock) append(ts int64, s *storage.Sample) {
	b.n++
	b.metric.Append(s.Metric)
	b.series.Append(s.Series)
	b.ts.Append(millis(ts))
	b.value.Append(s.Value)
}

// rollupBlock is rows of the table rollup. It is the one block that touches
// three partitions, those of its steps; the store deduplicates each apart.
type rollupBlock struct {
	base
	step                                      proto.ColUInt16
	t                                         uint32Col
	env, system, broker, destination, service lowCard
	op                                        int8Col
	count, failed, bytes                      proto.ColUInt64
	latN, latSum, latMax                      proto.ColUInt64
	lat                                       bucketMap
}

func newRollupBlock() *rollupBlock {
	b := new(rollupBlock)
	b.t.typ, b.op.typ = "DateTime('UTC')", typeOp
	b.add("step", &b.step)
	b.add("t", &b.t)
	b.add("env", &b.env)
	b.add("system", &b.system)
	b.add("broker", &b.broker)
	b.add("destination", &b.destination)
	b.add("service", &b.service)
	b.add("op", &b.op)
	b.add("n", &b.count)
	b.add("failed", &b.failed)
	b.add("bytes", &b.bytes)
	b.add("lat_n", &b.latN)
	b.add("lat_sum", &b.latSum)
	b.add("lat_max", &b.latMax)
	b.add("lat", &b.lat)
	return b
}

// rollupSteps are the resolutions kept, in seconds. Every pane is written in
// all of them at once: rows of one key add up, so that a pane which arrives
// days late is as right in the coarse steps as in the fine one.
var rollupSteps = [...]uint16{10, 60, 3600}

func (b *rollupBlock) append(ts int64, p *storage.Pane) {
	for _, step := range rollupSteps {
		b.n++
		b.step.Append(step)
		b.t.Append(uint32(ts / 1e9 / int64(step) * int64(step)))
		b.env.Append(p.Env)
		b.system.Append(p.System)
		b.broker.Append(p.Broker)
		b.destination.Append(p.Destination)
		b.service.Append(p.Service)
		b.op.Append(int8(p.Op))
		b.count.Append(p.Count)
		b.failed.Append(p.Failed)
		b.bytes.Append(p.Bytes)
		b.latN.Append(p.LatencyN)
		b.latSum.Append(p.LatencySumNs)
		b.latMax.Append(p.LatencyMaxNs)
		b.lat.Append(p.Latency)
	}
}

// invalidBlock is rows of the table invalid.
type invalidBlock struct {
	base
	ts             int64Col
	sender, signal lowCard
	reason, data   proto.ColStr
	size           proto.ColUInt64
}

func newInvalidBlock() *invalidBlock {
	b := new(invalidBlock)
	b.ts.typ = typeTime9
	b.add("ts", &b.ts)
	b.add("sender", &b.sender)
	b.add("signal", &b.signal)
	b.add("reason", &b.reason)
	b.add("data", &b.data)
	b.add("size", &b.size)
	return b
}

func (b *invalidBlock) append(ts int64, i *storage.Invalid) {
	b.n++
	b.ts.Append(ts)
	b.sender.Append(i.Sender)
	b.signal.Append(i.Signal)
	b.reason.Append(i.Reason)
	b.data.AppendBytes(i.Data)
	b.size.Append(uint64(max(i.Size, 0)))
}
