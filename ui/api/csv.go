package api

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/signalbox-dev/signalbox/storage"
)

// csvFile writes rows for spreadsheets. What messages hold is their producers':
// a cell that a spreadsheet would take for a formula is made text.
type csvFile struct {
	w       *csv.Writer
	bodies  bool
	started bool
}

func newCSV(w io.Writer, bodies bool) *csvFile { return &csvFile{w: csv.NewWriter(w), bodies: bodies} }

// columns are the columns of a message; the body's two follow where asked for.
var columns = []struct {
	name  string
	value func(m *Message) string
}{
	{"time", func(m *Message) string { return m.Time.UTC().Format(timeLayout) }},
	{"env", func(m *Message) string { return m.Env }},
	{"system", func(m *Message) string { return m.System }},
	{"broker", func(m *Message) string { return m.Broker }},
	{"channel", func(m *Message) string { return m.Channel }},
	{"operation", func(m *Message) string { return m.Operation }},
	{"outcome", func(m *Message) string { return m.Outcome }},
	{"service", func(m *Message) string { return m.Service }},
	{"consumer_group", func(m *Message) string { return m.ConsumerGroup }},
	{"partition", func(m *Message) string { return m.Partition }},
	{"routing_key", func(m *Message) string { return m.RoutingKey }},
	{"position", func(m *Message) string { return deref(m.Position) }},
	{"delivery", func(m *Message) string { return count(int64(m.Delivery)) }},
	{"message_id", func(m *Message) string { return m.MessageID }},
	{"correlation_id", func(m *Message) string { return m.CorrelationID }},
	{"causation_id", func(m *Message) string { return m.CausationID }},
	{"reply_to", func(m *Message) string { return m.ReplyTo }},
	{"trace_id", func(m *Message) string { return m.TraceID }},
	{"span_id", func(m *Message) string { return m.SpanID }},
	{"latency_ns", func(m *Message) string { return deref(m.LatencyNs) }},
	{"error_type", func(m *Message) string { return m.ErrorType }},
	{"dead_letter_source", func(m *Message) string { return m.deadLetter().Source }},
	{"dead_letter_reason", func(m *Message) string { return m.deadLetter().Reason }},
	{"content_type", func(m *Message) string { return m.ContentType }},
	{"content_encoding", func(m *Message) string { return m.ContentEncoding }},
	{"body_size", func(m *Message) string { return strconv.FormatInt(m.BodySize, 10) }},
	{"body_policy", func(m *Message) string { return m.BodyPolicy }},
	{"body_sha256", func(m *Message) string { return m.BodySHA256 }},
	{"truncated", func(m *Message) string { return strconv.FormatBool(m.Truncated) }},
	{"redacted", func(m *Message) string { return strings.Join(m.Redacted, ", ") }},
	{"headers", func(m *Message) string {
		b, err := json.Marshal(m.Headers)
		if err != nil { // pairs of text always encode
			return ""
		}
		return string(b)
	}},
	{"tap", func(m *Message) string { return m.Tap }},
	{"gap_before", func(m *Message) string { return count(m.GapBefore) }},
	{"uid", func(m *Message) string { return m.UID }},
}

// Columns are the heads of a message's cells.
func Columns() []string {
	out := make([]string, 0, len(columns))
	for _, c := range columns {
		out = append(out, c.name)
	}
	return out
}

// Cells is a message as a row of CSV. None of them is a formula.
func (m *Message) Cells() []string {
	out := make([]string, 0, len(columns)+3)
	for _, c := range columns {
		out = append(out, cell(c.value(m)))
	}
	return out
}

func (m *Message) deadLetter() dead {
	if m.DeadLetter == nil {
		return dead{}
	}
	return *m.DeadLetter
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func count(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// cell is text that stays text in a spreadsheet, and is UTF-8.
func cell(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if s != "" && strings.IndexByte("=+-@\t\r\n", s[0]) >= 0 {
		return "'" + s
	}
	return s
}

func (e *csvFile) start() error {
	if e.started {
		return nil
	}
	e.started = true
	head := append([]string{"record"}, Columns()...)
	if e.bodies {
		head = append(head, "body_encoding", "body")
	}
	return e.w.Write(head)
}

func (e *csvFile) write(rows []*storage.MessageDetail) error {
	if err := e.start(); err != nil {
		return err
	}
	for _, d := range rows {
		m := message(&d.Message, false)
		line := append([]string{"message"}, m.Cells()...)
		if e.bodies {
			b := body(d, false)
			line = append(line, b.Encoding, cell(b.Content))
		}
		if err := e.w.Write(line); err != nil {
			return err
		}
	}
	e.w.Flush()
	return e.w.Error()
}

// close writes a row of the same width, so that every reader of CSV takes it.
func (e *csvFile) close(end End) error {
	if err := e.start(); err != nil {
		return err
	}
	text := fmt.Sprintf("end: complete, %d messages", end.Messages)
	if !end.Complete {
		text = fmt.Sprintf("end: INCOMPLETE, %d messages, stopped by %s", end.Messages, end.Stopped)
		if end.Reason != "" {
			text += " (" + end.Reason + ")"
		}
		if end.Next != "" {
			text += ", next=" + end.Next
		}
	}
	line := make([]string, 1+len(columns))
	if e.bodies {
		line = append(line, "", "")
	}
	line[0] = cell(text)
	if err := e.w.Write(line); err != nil {
		return err
	}
	e.w.Flush()
	return e.w.Error()
}
