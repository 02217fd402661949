package agents

import (
	"testing"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestParseTraceparent(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for s, want := range map[string]bool{
		good: true, "01" + good[2:] + "-extra": true, good + "-extra": false, "ff" + good[2:]: false,
		"": false, good[:54]: false, "00-00000000000000000000000000000000-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false, "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01": false,
	} {
		trace, _, ok := ParseTraceparent(s)
		if ok != want || ok != (trace != [16]byte{}) {
			t.Errorf("%q: got %v with trace %x, want %v", s, ok, trace, want)
		}
	}
}

func FuzzLiftHeaders(f *testing.F) {
	f.Add("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("X-Correlation-Id", "\xff")
	f.Add("x-exception-stacktrace", "Caused by: \xff\n")
	f.Add("MT-Fault-InputAddress", "/?")
	f.Fuzz(func(t *testing.T, k, v string) {
		ev := &controlbus.MessageEvent{MessageID: "kept", Headers: []controlbus.Header{{Key: k, Value: v}, {Key: k, Value: v}}}
		LiftHeaders(ev)
		if ev.MessageID != "kept" {
			t.Errorf("a header replaced the broker's own message id with %q", ev.MessageID)
		}
		if (ev.TraceID == [16]byte{}) != (ev.SpanID == [8]byte{}) {
			t.Errorf("half a trace context from %q", v)
		}
		if len(ev.ErrorType) > maxErrorType || len(ev.DeadLetterReason) > maxReason {
			t.Errorf("error type of %d bytes, reason of %d", len(ev.ErrorType), len(ev.DeadLetterReason))
		}
		if (ev.Outcome == controlbus.OutcomeDeadLettered) != (ev.DeadLetterReason != "") && ev.Outcome != controlbus.OutcomeRetried {
			t.Errorf("outcome %v with reason %q", ev.Outcome, ev.DeadLetterReason)
		}
	})
}
