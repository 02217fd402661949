package messages

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
)

// Spans that processed one message several times are attempts; what was done
// once has no number.
func TestSpanAttempts(t *testing.T) {
	t.Parallel()
	span := func(id byte, op controlbus.Op, name string, status uint8) storage.ConversationEvent {
		return storage.ConversationEvent{Span: &storage.Span{
			SpanID: [8]byte{id}, Op: op, Name: name, Service: "payment-service", Destination: "payments.capture", MessageID: "m1", Status: status, DurationNs: 1_500_000_000}}
	}
	events := []storage.ConversationEvent{
		span(1, controlbus.OpSend, "send payments.capture", 1),
		span(2, controlbus.OpProcess, "process payments.capture", 2),
		span(3, controlbus.OpProcess, "process payments.capture", 2),
		span(4, controlbus.OpProcess, "process payments.capture", 1),
		span(5, controlbus.OpProcess, "process receipts", 1),
	}
	tries := attempts(events)
	type line struct {
		Title, Sub, Class string
		Kind              component.Kind
	}
	var got []line
	for _, e := range events {
		var s Station
		s.span(e.Span, tries[e.Span.SpanID])
		got = append(got, line{s.Title, s.Sub, s.Class, s.Kind})
	}
	want := []line{
		{"send payments.capture", "payment-service, 1.5 s", "", component.Clear},
		{"Attempt 1 failed: process payments.capture", "payment-service, failed after 1.5 s", "wrong", component.Failed},
		{"Attempt 2 failed: process payments.capture", "payment-service, failed after 1.5 s", "wrong", component.FailAgain},
		{"Attempt 3: process payments.capture", "payment-service, 1.5 s", "", component.DoneAgain},
		{"process receipts", "payment-service, 1.5 s", "", component.Clear},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("history (-want +got):\n%s", d)
	}
}
