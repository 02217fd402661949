package clickhouse

import (
	"testing"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/collector/detect"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
	"github.com/signalbox-dev/signalbox/storage"
)

// intoBatch does with a request's records what ingest does.
type intoBatch struct {
	batch *Batch
	panes *detect.Panes
}

func (v intoBatch) Message(ev *controlbus.MessageEvent) {
	v.batch.AppendMessage(ev)
	v.panes.Add(ev)
}
func (v intoBatch) Log(l *storage.Log)               { v.batch.AppendLog(l) }
func (v intoBatch) Span(s *storage.Span)             { v.batch.AppendSpan(s) }
func (v intoBatch) Sample(s *storage.Sample, _ bool) { v.batch.AppendSample(s) }
func (v intoBatch) Resource(r *storage.Resource)     { v.batch.AppendResource(r, r2026) }
func (v intoBatch) Invalid(string, []byte)           { panic("the benchmark's records are valid") }

const r2026 = 1_795_000_000_000_000_000

// BenchmarkOTLPToNative is the whole way of a tapped message through ingest:
// OTLP bytes as they lie in the queue, to encoded blocks of all tables, panes
// included, without sending them. Run it with GOMAXPROCS=1.
func BenchmarkOTLPToNative(b *testing.B) {
	const rows, perRequest = 20_000, 500
	events := benchEvents(rows)
	var requests [][]byte
	wireBytes := 0
	enc := telemetry.NewEncoder(telemetry.Origin{AgentID: "agent-1", Version: "1", Host: "h", Env: "production"})
	for i := range events {
		enc.Append(&events[i])
		if enc.Count() == perRequest {
			requests = append(requests, enc.Request(nil))
			wireBytes += len(requests[len(requests)-1])
		}
	}
	s := &Store{}
	v := intoBatch{batch: s.newBatch(), panes: detect.NewPanes()}
	dec := telemetry.NewDecoder(telemetry.DefaultLimits())
	var buf proto.Buffer
	b.SetBytes(int64(wireBytes))
	b.ReportAllocs()
	for b.Loop() {
		v.batch.Reset()
		for _, r := range requests {
			if err := dec.Decode(telemetry.Logs, r, r2026, v); err != nil {
				b.Fatal(err)
			}
		}
		for _, p := range v.panes.All() {
			v.batch.AppendPane(p)
		}
		if v.batch.Rows() < rows {
			b.Fatalf("%d rows", v.batch.Rows())
		}
		v.batch.each(func(_ string, _ uint16, blk block) {
			buf.Reset()
			c := blk.columns()
			head := proto.Block{Columns: len(c), Rows: blk.rows()}
			if err := head.EncodeRawBlock(&buf, 0, c); err != nil {
				b.Fatal(err)
			}
		})
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
