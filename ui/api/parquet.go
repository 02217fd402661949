package api

import (
	"io"
	"strconv"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/signalbox-dev/signalbox/storage"
)

// parquetRow is a message as columns. Names are those of the JSON.
type parquetRow struct {
	UID              string       `parquet:"uid"`
	Time             int64        `parquet:"time,timestamp(nanosecond)"`
	AgentTime        *int64       `parquet:"agent_time,optional,timestamp(nanosecond)"`
	TimeSource       string       `parquet:"time_source,dict"`
	Env              string       `parquet:"env,dict"`
	System           string       `parquet:"system,dict"`
	Broker           string       `parquet:"broker,dict"`
	Channel          string       `parquet:"channel,dict"`
	Operation        string       `parquet:"operation,dict"`
	Outcome          string       `parquet:"outcome,dict"`
	Service          string       `parquet:"service,dict"`
	ConsumerGroup    string       `parquet:"consumer_group,dict"`
	Partition        string       `parquet:"partition,dict"`
	RoutingKey       string       `parquet:"routing_key"`
	Position         *int64       `parquet:"position,optional"`
	Delivery         int32        `parquet:"delivery"`
	MessageID        string       `parquet:"message_id"`
	CorrelationID    string       `parquet:"correlation_id"`
	CausationID      string       `parquet:"causation_id"`
	ReplyTo          string       `parquet:"reply_to"`
	TraceID          string       `parquet:"trace_id"`
	SpanID           string       `parquet:"span_id"`
	LatencyNs        *int64       `parquet:"latency_ns,optional"`
	ErrorType        string       `parquet:"error_type,dict"`
	DeadLetterSource string       `parquet:"dead_letter_source,dict"`
	DeadLetterReason string       `parquet:"dead_letter_reason,dict"`
	ContentType      string       `parquet:"content_type,dict"`
	ContentEncoding  string       `parquet:"content_encoding,dict"`
	BodySize         int64        `parquet:"body_size"`
	BodyPolicy       string       `parquet:"body_policy,dict"`
	BodySHA256       string       `parquet:"body_sha256"`
	Truncated        bool         `parquet:"truncated"`
	Redacted         []string     `parquet:"redacted,list"`
	Headers          []parquetKey `parquet:"headers,list"`
	Tap              string       `parquet:"tap,dict"`
	GapBefore        int64        `parquet:"gap_before"`
	Body             *[]byte      `parquet:"body,optional"`
}

type parquetKey struct {
	Name  string `parquet:"name"`
	Value string `parquet:"value"`
}

// rowGroup is how many bytes of messages are held before they are written.
const rowGroup = 8 << 20

// parquetFile writes row groups of bounded size. A file whose footer is missing
// cannot be read, so one that was cut off is never taken for all.
type parquetFile struct {
	w      *parquet.GenericWriter[parquetRow]
	bodies bool
	held   int
}

func newParquet(w io.Writer, bodies bool) *parquetFile {
	return &parquetFile{w: parquet.NewGenericWriter[parquetRow](w, parquet.Compression(&parquet.Zstd), parquet.CreatedBy("signalbox", "", "")), bodies: bodies}
}

func (e *parquetFile) write(rows []*storage.MessageDetail) error {
	out := make([]parquetRow, 0, len(rows))
	for _, d := range rows {
		m := message(&d.Message, false)
		r := parquetRow{
			UID: m.UID, Time: d.Time, TimeSource: m.TimeSource, Env: utf(m.Env), System: utf(m.System), Broker: utf(m.Broker), Channel: utf(m.Channel), Operation: m.Operation, Outcome: m.Outcome,
			Service: utf(m.Service), ConsumerGroup: utf(m.ConsumerGroup), Partition: utf(m.Partition), RoutingKey: utf(m.RoutingKey), Delivery: int32(min(m.Delivery, 1<<31-1)),
			MessageID: utf(m.MessageID), CorrelationID: utf(m.CorrelationID), CausationID: utf(m.CausationID), ReplyTo: utf(m.ReplyTo), TraceID: m.TraceID, SpanID: m.SpanID,
			ErrorType: utf(m.ErrorType), DeadLetterSource: utf(d.DeadLetterSource), DeadLetterReason: utf(d.DeadLetterReason), ContentType: utf(m.ContentType), ContentEncoding: utf(m.ContentEncoding),
			BodySize: m.BodySize, BodyPolicy: m.BodyPolicy, BodySHA256: utf(m.BodySHA256), Truncated: m.Truncated, Tap: utf(m.Tap), GapBefore: m.GapBefore,
		}
		if d.AgentTime != 0 {
			r.AgentTime = &d.AgentTime
		}
		if d.Position >= 0 {
			r.Position = &d.Position
		}
		if d.LatencyNs > 0 {
			r.LatencyNs = &d.LatencyNs
		}
		for _, s := range m.Redacted {
			r.Redacted = append(r.Redacted, utf(s))
		}
		for _, h := range m.Headers {
			r.Headers = append(r.Headers, parquetKey{utf(h.Name), utf(h.Value)})
			e.held += len(h.Name) + len(h.Value)
		}
		if e.bodies && d.BodyStored {
			r.Body = &d.Body
			e.held += len(d.Body)
		}
		e.held += 1 << 10 // about what the other columns hold
		out = append(out, r)
	}
	if _, err := e.w.Write(out); err != nil {
		return err
	}
	if e.held < rowGroup {
		return nil
	}
	e.held = 0
	return e.w.Flush()
}

// utf is text that a reader of Parquet takes.
func utf(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func (e *parquetFile) close(end End) error {
	for key, value := range map[string]string{
		"complete": strconv.FormatBool(end.Complete), "messages": strconv.Itoa(end.Messages), "limit": strconv.Itoa(end.Limit),
		"stopped": end.Stopped, "reason": end.Reason, "next": end.Next,
		"from": end.From.UTC().Format(timeLayout), "to": end.To.UTC().Format(timeLayout), "reached": end.Reached.UTC().Format(timeLayout),
	} {
		e.w.SetKeyValueMetadata("signalbox."+key, value)
	}
	return e.w.Close()
}
