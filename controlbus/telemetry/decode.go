package telemetry

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Signal is a kind of OTLP request. The numbers are stored in the WAL.
type Signal uint8

// Signals.
const (
	Logs Signal = iota + 1
	Traces
	Metrics
)

func (s Signal) String() string {
	switch s {
	case Logs:
		return "logs"
	case Traces:
		return "traces"
	case Metrics:
		return "metrics"
	}
	return "unknown"
}

// Limits of what is kept of a record. What is over them is cut, with its true
// size kept where there is a field for it.
type Limits struct {
	Body    int // bytes of a message's body
	Text    int // of a header's value, an attribute or an id
	Name    int // of names: channel, service, header key, ...
	Headers int // headers of a message, attributes of a log or span
	Depth   int // of nested attribute values; deeper records are invalid

	// A request over these is refused as a whole with ErrTooLarge. Two bytes
	// can be a record, so its size alone says little of what it costs.
	Records  int // logs, spans, samples of one request
	Unfolded int // bytes of spans or metrics in memory, about
}

// DefaultLimits are meant for a store that keeps every message.
func DefaultLimits() Limits {
	return Limits{Body: 1 << 20, Text: 64 << 10, Name: 1 << 10, Headers: 1000, Depth: 64, Records: 200_000, Unfolded: 96 << 20}
}

// Visitor receives what a request holds, in its order. Everything handed over
// is reused after the call, and strings are views into the request.
type Visitor interface {
	Message(*controlbus.MessageEvent)
	Log(*storage.Log)
	Span(*storage.Span)
	// Sample with delta set has to be added up before it is stored.
	Sample(s *storage.Sample, delta bool)
	// Resource comes before the first log, span or sample that refers to it.
	Resource(*storage.Resource)
	// Invalid is a record that can never be understood. The rest of its
	// request can.
	Invalid(reason string, record []byte)
}

// Decoder reads OTLP requests. It is used by one goroutine at a time.
type Decoder struct {
	limits Limits
	// Keep makes every message event one of its own, so that a whole request's
	// events can be held at once. Their strings are views all the same.
	Keep bool

	v        Visitor
	received int64

	resources map[string]*resource
	kvs       []keyValue
	ev        controlbus.MessageEvent
	log       storage.Log
	scratch   []byte

	tooDeep    bool
	headersCut int
	records    int // of this request so far
}

// resource is a decoded Resource, remembered by its bytes.
type resource struct {
	storage.Resource
	env, system, broker string
	told                bool // to the present visitor, in this request
}

// NewDecoder returns a decoder with the given limits.
func NewDecoder(l Limits) *Decoder {
	return &Decoder{limits: l, resources: make(map[string]*resource)}
}

// Decode reads one request and hands its records to v. Errors wrap
// controlbus.ErrInvalid, or ErrTooLarge for more than the limits allow; v may have seen records of a request that turns out
// malformed further on. received, in Unix nanoseconds, stands in for times
// that a record does not tell.
func (d *Decoder) Decode(signal Signal, request []byte, received int64, v Visitor) error {
	d.v, d.received, d.scratch, d.records = v, received, d.scratch[:0], 0
	if d.Keep {
		d.scratch = nil // the last request's events may still be held
	}
	for _, r := range d.resources {
		r.told = false
	}
	defer func() { d.v = nil }()
	switch signal {
	case Logs:
		if !d.logs(request) {
			if d.records > d.limits.Records {
				return d.tooMany()
			}
			return fmt.Errorf("%w: malformed OTLP logs request", controlbus.ErrInvalid)
		}
		return nil
	case Traces:
		return d.traces(request)
	case Metrics:
		return d.metrics(request)
	}
	return fmt.Errorf("%w: unknown signal %d", controlbus.ErrInvalid, signal)
}

func (d *Decoder) tooMany() error {
	return fmt.Errorf("%w: more than %d records in one request; send smaller batches", controlbus.ErrTooLarge, d.limits.Records)
}

func (d *Decoder) logs(b []byte) (ok bool) {
	w := wire{b: b}
	for {
		field, typ, more := w.next()
		if !more {
			return !w.bad
		}
		if field != 1 {
			w.skip(typ)
			continue
		}
		b := w.lengthDelimited(typ)
		if w.bad || !d.resourceLogs(b) {
			return false
		}
	}
}

// resourceLogs reads twice: the resource may come behind its records.
func (d *Decoder) resourceLogs(b []byte) (ok bool) {
	var raw []byte
	seen, scopes := 0, 0
	w := wire{b: b}
	for {
		field, typ, more := w.next()
		if !more {
			break
		}
		switch field {
		case 1:
			part := w.lengthDelimited(typ)
			if seen++; seen == 1 {
				raw = part
			} else {
				raw = append(raw[:len(raw):len(raw)], part...) // protobuf merges repeated ones
			}
		case 2:
			w.lengthDelimited(typ)
			scopes++
		case 3, 1000:
			w.lengthDelimited(typ)
		default:
			w.skip(typ)
		}
	}
	if w.bad {
		return false
	}
	res, ok := d.resource(raw)
	if !ok {
		return false
	}
	w = wire{b: b}
	for {
		field, typ, more := w.next()
		if !more {
			return true
		}
		switch field {
		case 2, 1000: // 1000 is what instrumentation libraries were once
			if !d.scopeLogs(w.bytes(), res, field == 2 || scopes == 0) {
				return false
			}
		default:
			w.skip(typ)
		}
	}
}

func (d *Decoder) scopeLogs(b []byte, res *resource, emit bool) (ok bool) {
	w := wire{b: b}
	for {
		field, typ, more := w.next()
		if !more {
			return !w.bad
		}
		switch field {
		case 1:
			b := w.lengthDelimited(typ)
			if w.bad || !d.scope(b) {
				return false
			}
		case 2:
			b := w.lengthDelimited(typ)
			if w.bad || !d.record(b, res, emit) {
				return false
			}
		case 3:
			w.lengthDelimited(typ)
		default:
			w.skip(typ)
		}
	}
}

// scope only checks: whose library wrote a record is not kept.
func (d *Decoder) scope(b []byte) (ok bool) {
	w := wire{b: b}
	for {
		field, typ, more := w.next()
		if !more {
			return !w.bad
		}
		switch field {
		case 1, 2:
			w.lengthDelimited(typ)
		case 3:
			var kv keyValue
			b := w.lengthDelimited(typ)
			if w.bad || !d.readKeyValue(b, &kv, 0) {
				return false
			}
		case 4:
			if w.expect(typ, typeVarint) {
				w.varint()
			}
		default:
			w.skip(typ)
		}
	}
}

const maxResources = 1024 // remembered by a decoder

func (d *Decoder) resource(raw []byte) (*resource, bool) {
	if r := d.resources[string(raw)]; r != nil {
		return r, true
	}
	d.kvs, d.scratch = d.kvs[:0], nil // what the resource keeps must not be overwritten
	w := wire{b: slices.Clone(raw)}
	for {
		field, typ, more := w.next()
		if !more {
			break
		}
		switch field {
		case 1:
			b := w.lengthDelimited(typ)
			var kv keyValue
			if w.bad || !d.readKeyValue(b, &kv, 0) {
				return nil, false
			}
			d.kvs = append(d.kvs, kv)
		case 2:
			if w.expect(typ, typeVarint) {
				w.varint()
			}
		case 3:
			b := w.lengthDelimited(typ)
			if w.bad || !entityRef(b) {
				return nil, false
			}
		default:
			w.skip(typ)
		}
	}
	if w.bad {
		return nil, false
	}
	r := d.newResource(d.kvs)
	d.scratch = nil
	if len(d.resources) >= maxResources {
		clear(d.resources)
	}
	d.resources[string(raw)] = r
	return r, true
}

func entityRef(b []byte) (ok bool) {
	w := wire{b: b}
	for {
		field, typ, more := w.next()
		switch {
		case !more:
			return !w.bad
		case field <= 4:
			w.lengthDelimited(typ)
		default:
			w.skip(typ)
		}
	}
}

func (d *Decoder) newResource(kvs []keyValue) *resource {
	r := &resource{}
	var ev controlbus.MessageEvent
	var a attributes
	for i := range kvs {
		kv := &kvs[i]
		d.lift(&ev, &a, kv.key, &kv.value)
		text := d.text(&kv.value, d.limits.Text)
		switch kv.key {
		case controlbus.AttrServiceName:
			r.Service = string(cut([]byte(text), d.limits.Name))
		case controlbus.AttrHostName:
			r.Host = string(cut([]byte(text), d.limits.Name))
		}
		if len(r.Attrs) < d.limits.Headers {
			r.Attrs = append(r.Attrs, storage.Attr{Key: d.clean(raw(kv.key), d.limits.Name), Value: text})
		}
	}
	r.env, r.system, r.broker = ev.Env, ev.System, ev.Broker
	slices.SortStableFunc(r.Attrs, func(a, b storage.Attr) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value))
	})
	r.ID = hashAttrs("resource", r.Attrs)
	return r
}

// hashAttrs names a sorted set of attributes. The sets come from senders, so
// the hash must be one in which collisions cannot be made at will.
func hashAttrs(name string, attrs []storage.Attr) uint64 {
	h := sha256.New()
	var n [4]byte
	put := func(s string) {
		binary.LittleEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	put(name)
	for _, a := range attrs {
		put(a.Key)
		put(a.Value)
	}
	return binary.LittleEndian.Uint64(h.Sum(nil))
}

// logRecord is the fixed part of a LogRecord.
type logRecord struct {
	time, observed uint64
	severity       uint64
	body           value
	trace          [16]byte
	span           [8]byte
	event          string
}

func (d *Decoder) record(b []byte, res *resource, emit bool) (ok bool) {
	var r logRecord
	if d.records++; d.records > d.limits.Records {
		return false
	}
	d.kvs, d.tooDeep, d.headersCut = d.kvs[:0], false, 0
	if !d.Keep {
		d.scratch = d.scratch[:0]
	}
	w := wire{b: b}
	for {
		field, typ, more := w.next()
		if !more {
			break
		}
		switch field {
		case fieldTime:
			if w.expect(typ, typeI64) {
				r.time = w.fixed64()
			}
		case fieldObserved:
			if w.expect(typ, typeI64) {
				r.observed = w.fixed64()
			}
		case fieldSeverity:
			if w.expect(typ, typeVarint) {
				r.severity = w.varint()
			}
		case fieldBody:
			b := w.lengthDelimited(typ)
			if w.bad || !d.readValue(b, &r.body, 0) {
				return false
			}
		case fieldAttribute:
			b := w.lengthDelimited(typ)
			if w.bad {
				return false
			}
			d.kvs = append(d.kvs, keyValue{})
			if !d.readKeyValue(b, &d.kvs[len(d.kvs)-1], 0) {
				return false
			}
		case fieldTraceID:
			if !readID(r.trace[:], w.lengthDelimited(typ)) {
				return false
			}
		case fieldSpanID:
			if !readID(r.span[:], w.lengthDelimited(typ)) {
				return false
			}
		case fieldEventName:
			r.event = view(w.lengthDelimited(typ))
		case fieldSevText:
			w.lengthDelimited(typ)
		case fieldDropped:
			if w.expect(typ, typeVarint) {
				w.varint()
			}
		case fieldFlags:
			if w.expect(typ, typeI32) {
				w.skip(typeI32)
			}
		default:
			w.skip(typ)
		}
	}
	if w.bad {
		return false
	}
	if !emit {
		return true
	}
	if r.event == "" { // before 2025 the name was an attribute
		for i := range d.kvs {
			if kv := &d.kvs[i]; kv.key == "event.name" && kv.kind == kindText {
				r.event = view(kv.b)
			}
		}
	}
	switch {
	case d.tooDeep:
		d.v.Invalid("attributes nested deeper than "+strconv.Itoa(d.limits.Depth), b)
	case r.event == controlbus.EventMessage:
		d.message(&r, res, b)
	default:
		d.logRecord(&r, res, b)
	}
	return true
}

func readID(dst, b []byte) bool {
	switch len(b) {
	case 0:
		clear(dst)
	case len(dst):
		copy(dst, b)
	default:
		return false
	}
	return true
}

func (d *Decoder) message(r *logRecord, res *resource, whole []byte) {
	ev := &d.ev
	if d.Keep {
		ev = new(controlbus.MessageEvent)
	}
	*ev = controlbus.MessageEvent{
		Time: int64(r.time), AgentTime: int64(r.observed),
		Env: res.env, System: res.system, Broker: res.broker,
		Position: -1, TraceID: r.trace, SpanID: r.span,
		Headers: ev.Headers[:0], Redacted: ev.Redacted[:0],
	}
	var a attributes
	for i := range d.kvs {
		kv := &d.kvs[i]
		if !d.lift(ev, &a, kv.key, &kv.value) {
			// What nobody has a field for is shown among the headers.
			d.header(ev, kv.key, &kv.value)
		}
	}
	if d.headersCut > 0 {
		ev.Headers = append(ev.Headers, controlbus.Header{Key: HeadersCut, Value: strconv.Itoa(d.headersCut)})
	}
	if ev.Destination == "" || ev.System == "" {
		d.v.Invalid("message event without "+controlbus.AttrSystem+" or "+controlbus.AttrDestination, whole)
		return
	}
	if !a.publisher && res.Service != AgentService {
		ev.Service = res.Service
	}
	if ev.AgentTime <= 0 {
		ev.AgentTime = d.received
	}
	if ev.Time <= 0 {
		ev.Time, ev.TimeSource = ev.AgentTime, controlbus.TimeAgent
	}
	switch r.body.kind {
	case kindNone:
	case kindText, kindBytes:
		ev.Body = r.body.b
	default:
		ev.Body = []byte(d.text(&r.body, d.limits.Body))
	}
	ev.BodySize = max(ev.BodySize, int64(len(ev.Body)))
	if len(ev.Body) > d.limits.Body {
		ev.Body, ev.Truncated = ev.Body[:d.limits.Body], true
	}
	if ev.UID.IsZero() {
		ev.UID = UID(ev)
	}
	d.v.Message(ev)
}

func (d *Decoder) logRecord(r *logRecord, res *resource, whole []byte) {
	l := &d.log
	*l = storage.Log{
		Time: int64(r.time), AgentTime: int64(r.observed), Env: res.env, Service: res.Service,
		Severity: uint8(min(r.severity, 24)), EventName: d.clean(raw(r.event), d.limits.Name),
		Body: d.text(&r.body, d.limits.Body), TraceID: r.trace, SpanID: r.span,
		ResourceID: res.ID, Attrs: l.Attrs[:0],
	}
	if l.AgentTime <= 0 {
		l.AgentTime = d.received
	}
	if l.Time <= 0 {
		l.Time = l.AgentTime
	}
	var id [8]byte
	binary.LittleEndian.PutUint64(id[:], res.ID)
	l.UID = controlbus.HashID("log", string(id[:]), view(whole))
	for i := range d.kvs {
		kv := &d.kvs[i]
		text := d.text(&kv.value, d.limits.Text)
		switch kv.key {
		case controlbus.AttrConversationID:
			l.CorrelationID = text
		case "messaging.conversation_id", "correlation_id", "correlation.id":
			older(&l.CorrelationID, text)
		case controlbus.AttrDestination:
			l.Destination = string(cut([]byte(text), d.limits.Name))
		case "messaging.destination":
			older(&l.Destination, string(cut([]byte(text), d.limits.Name)))
		}
		if len(l.Attrs) < d.limits.Headers {
			l.Attrs = append(l.Attrs, storage.Attr{Key: d.clean(raw(kv.key), d.limits.Name), Value: text})
		}
	}
	if n := len(d.kvs) - len(l.Attrs); n > 0 {
		l.Attrs = append(l.Attrs, storage.Attr{Key: HeadersCut, Value: strconv.Itoa(n)})
	}
	d.tell(res)
	d.v.Log(l)
}

func (d *Decoder) tell(res *resource) {
	if !res.told {
		res.told = true
		d.v.Resource(&res.Resource)
	}
}
