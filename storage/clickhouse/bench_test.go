package clickhouse

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// benchEvents are messages of about 500 bytes as taps see them.
func benchEvents(n int) []controlbus.MessageEvent {
	start := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC).UnixNano()
	events := make([]controlbus.MessageEvent, n)
	for i := range events {
		e := &events[i]
		e.UID = controlbus.HashID("bench", fmt.Sprint(i))
		e.Time = start + int64(i)*1e6
		e.AgentTime = e.Time + 3e6
		e.TimeSource = controlbus.TimeBroker
		e.Env, e.System, e.Broker = "production", "rabbitmq", "rabbit-eu1"
		e.Destination = [...]string{"orders.new", "orders.paid", "payments", "shipping.eu", "mail"}[i%5]
		e.Op, e.Service, e.RoutingKey = controlbus.OpTap, "shop", "orders.eu"
		e.Position, e.Delivery = int64(i), 1
		e.MessageID = fmt.Sprintf("0192f0c1-7d1e-7c3a-9f6e-%012x", i)
		e.CorrelationID = fmt.Sprintf("order-%08d", i/5)
		binary.BigEndian.PutUint64(e.TraceID[:], uint64(i/5)*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(e.SpanID[:], uint64(i+1)*0xbf58476d1ce4e5b9)
		e.ContentType = "application/json"
		e.Headers = []controlbus.Header{
			{Key: "x-tenant", Value: fmt.Sprintf("tenant-%03d", i%200)},
			{Key: "x-schema", Value: "order/3"},
			{Key: "content_type", Value: "application/json"},
			{Key: "traceparent", Value: fmt.Sprintf("00-%x-%x-01", e.TraceID, e.SpanID)},
			{Key: "x-retry", Value: "0"},
			{Key: "app_id", Value: "shop"},
		}
		e.Body = fmt.Appendf(nil, `{"order":%d,"customer":%d,"currency":"EUR","total":%d.%02d,"lines":[{"sku":"A-%04d","n":2},{"sku":"B-%04d","n":1}],"note":"please ring twice","at":"2026-11-20T10:00:00Z"}`, i/5, i%9973, i%500, i%100, i%10000, i%777)
		e.BodySize = int64(len(e.Body))
		e.Tap = "tap-1"
	}
	return events
}

// BenchmarkMessagesToNative is events to encoded blocks of all tables, as
// Write does it, without sending them.
func BenchmarkMessagesToNative(b *testing.B) {
	const rows = 20_000
	events := benchEvents(rows)
	s := &Store{}
	batch := s.newBatch()
	var buf proto.Buffer
	var size int
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		for i := range events {
			batch.AppendMessage(&events[i])
		}
		size = 0
		batch.each(func(_ string, _ uint16, blk block) {
			buf.Reset()
			c := blk.columns()
			head := proto.Block{Columns: len(c), Rows: blk.rows()}
			if err := head.EncodeRawBlock(&buf, 0, c); err != nil {
				b.Fatal(err)
			}
			size += len(buf.Buf)
		})
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(size)/rows, "B/row")
}
