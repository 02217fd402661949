package ingest

import (
	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/collector/detect"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
	"github.com/signalbox-dev/signalbox/storage"
)

// decoder turns requests into rows of the batch at hand.
type decoder struct {
	telemetry *telemetry.Decoder
	panes     *detect.Panes
	// running adds up series that senders tell as differences.
	running map[uint64]float64
	// resources are those written lately, by id and day.
	resources map[resourceDay]struct{}

	batch collector.Batch
	entry collector.Entry
}

type resourceDay struct {
	id  uint64
	day int64
}

// Bounds of what is remembered between blocks. Reaching one forgets all: a
// series then begins anew, as after a restart, and resources are written again.
const (
	maxRunning   = 200_000
	maxResources = 50_000
)

func newDecoder() *decoder {
	return &decoder{
		telemetry: telemetry.NewDecoder(telemetry.DefaultLimits()), panes: detect.NewPanes(),
		running: make(map[uint64]float64), resources: make(map[resourceDay]struct{}),
	}
}

// request appends all records of one request.
func (d *decoder) request(b collector.Batch, e collector.Entry) {
	d.batch, d.entry = b, e
	err := e.Err
	if err == nil {
		err = d.telemetry.Decode(telemetry.Signal(e.Signal), e.Payload, e.ReceivedAt.UnixNano(), d)
	}
	if err != nil { // it was checked on the way in, so the queue or the program changed since
		d.Invalid(err.Error(), e.Raw)
	}
	if len(d.running) > maxRunning {
		clear(d.running)
	}
	if len(d.resources) > maxResources {
		clear(d.resources)
	}
}

// finish appends what was added up over the block.
func (d *decoder) finish(b collector.Batch) {
	for _, p := range d.panes.All() {
		b.AppendPane(p)
	}
}

func (d *decoder) Message(ev *controlbus.MessageEvent) {
	ev.Time = storage.EventTime(ev.Time, ev.AgentTime)
	d.batch.AppendMessage(ev)
	d.panes.Add(ev)
}

func (d *decoder) Log(l *storage.Log)   { d.batch.AppendLog(l) }
func (d *decoder) Span(s *storage.Span) { d.batch.AppendSpan(s) }

func (d *decoder) Sample(s *storage.Sample, delta bool) {
	if delta {
		d.running[s.Series] += s.Value
		s.Value = d.running[s.Series]
	}
	d.batch.AppendSample(s)
}

const nanosPerDay = 24 * 60 * 60 * 1e9

func (d *decoder) Resource(r *storage.Resource) {
	seen := d.entry.ReceivedAt.UnixNano()
	key := resourceDay{r.ID, seen / nanosPerDay}
	if _, known := d.resources[key]; known {
		return
	}
	d.resources[key] = struct{}{}
	d.batch.AppendResource(r, seen)
}

// maxInvalid is how much of a record is kept in the invalid message channel.
const maxInvalid = 64 << 10

func (d *decoder) Invalid(reason string, record []byte) {
	size := int64(len(record))
	if len(record) > maxInvalid {
		record = record[:maxInvalid]
	}
	d.batch.AppendInvalid(&storage.Invalid{
		Time: d.entry.ReceivedAt.UnixNano(), Sender: d.entry.Sender, Signal: d.entry.Signal.String(),
		Reason: reason, Data: record, Size: size,
	})
}
