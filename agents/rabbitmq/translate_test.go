package rabbitmq

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestHeaderValuesKeepEverything(t *testing.T) {
	t.Parallel()
	d := &amqp.Delivery{
		ContentType: "application/json", DeliveryMode: 2, MessageId: "m", Exchange: "x", RoutingKey: "k",
		Timestamp: time.Unix(1_700_000_000, 0),
		Headers: amqp.Table{
			"a": int64(-1 << 63), "b": true, "c": []byte{0xff, 0}, "d": 0.1, "e": float32(0.1), "f": nil,
			"g": amqp.Decimal{Scale: 2, Value: -5}, "h": []any{"x", amqp.Table{"y": int8(1)}, []any{}}, "i": amqp.Table{},
			"j": time.Unix(0, 0), "k": "",
		},
	}
	want := []controlbus.Header{
		{Key: "content_type", Value: "application/json"}, {Key: "delivery_mode", Value: "2"}, {Key: "message_id", Value: "m"},
		{Key: "timestamp", Value: "2023-11-14T22:13:20Z"}, {Key: "exchange", Value: "x"}, {Key: "routing_key", Value: "k"},
		{Key: "a", Value: "-9223372036854775808"}, {Key: "b", Value: "true"}, {Key: "c", Value: "\xff\x00"},
		{Key: "d", Value: "0.1"}, {Key: "e", Value: "0.1"}, {Key: "f", Value: "null"}, {Key: "g", Value: "-0.05"},
		{Key: "h[0]", Value: "x"}, {Key: "h[1].y", Value: "1"}, {Key: "h[2]", Value: "[]"}, {Key: "i", Value: "{}"},
		{Key: "j", Value: "1970-01-01T00:00:00Z"}, {Key: "k", Value: ""},
	}
	if diff := cmp.Diff(want, headers(d)); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestEventTime(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 5)
	for _, c := range []struct {
		name string
		ts   time.Time
		want controlbus.TimeSource
	}{
		{"a minute ago", now.Add(-time.Minute), controlbus.TimeProducer},
		{"the last second, cut to the second", now.Truncate(time.Second), controlbus.TimeAgent},
		{"none", time.Time{}, controlbus.TimeAgent},
		{"milliseconds taken for seconds", time.Unix(1_800_000_000_000, 0), controlbus.TimeAgent},
		{"the epoch", time.Unix(0, 0), controlbus.TimeAgent},
	} {
		ev := event(&amqp.Delivery{Timestamp: c.ts}, origin{}, now)
		want := now
		if c.want == controlbus.TimeProducer {
			want = c.ts
		}
		if ev.TimeSource != c.want || ev.Time != want.UnixNano() {
			t.Errorf("%s: got time %d from %v, want %d from %v", c.name, ev.Time, ev.TimeSource, want.UnixNano(), c.want)
		}
	}
}

// A dead letter came when it died, whenever it was published.
func TestDeadLetterTime(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 5)
	for died, want := range map[time.Time]controlbus.TimeSource{
		now.Add(-time.Minute).Truncate(time.Second): controlbus.TimeBroker, now.Truncate(time.Second): controlbus.TimeAgent,
	} {
		d := &amqp.Delivery{Timestamp: now.Add(-time.Hour), Headers: amqp.Table{"x-death": []any{amqp.Table{"queue": "q", "reason": "expired", "time": died}}}}
		ev := event(d, origin{queue: "dead"}, now)
		at := now
		if want == controlbus.TimeBroker {
			at = died
		}
		if ev.TimeSource != want || ev.Time != at.UnixNano() {
			t.Errorf("died at %v: time %d from %v, want %d from %v", died, ev.Time, ev.TimeSource, at.UnixNano(), want)
		}
	}
}

// A message that comes back to the queue it died in goes round a retry loop.
func TestRetryLoopIsNoDeadLetter(t *testing.T) {
	t.Parallel()
	d := &amqp.Delivery{Headers: amqp.Table{"x-death": []any{
		amqp.Table{"queue": "wait", "reason": "expired", "count": int64(2)},
		amqp.Table{"queue": "work", "reason": "rejected", "count": int64(2)},
	}}}
	for queue, want := range map[string]controlbus.Outcome{"work": controlbus.OutcomeRetried, "dead": controlbus.OutcomeDeadLettered} {
		ev := event(d, origin{queue: queue}, time.Now())
		if ev.Outcome != want || ev.Delivery != 5 || ev.DeadLetterReason != "expired" {
			t.Errorf("in %s: outcome %v, delivery %d, reason %q", queue, ev.Outcome, ev.Delivery, ev.DeadLetterReason)
		}
	}
}

// A consumer that republished the message to an error queue knows why; x-death
// of an earlier turn through a waiting queue does not.
func TestConsumersReasonStays(t *testing.T) {
	t.Parallel()
	d := &amqp.Delivery{RoutingKey: "orders.error", Headers: amqp.Table{
		"x-death":             []any{amqp.Table{"queue": "wait", "reason": "expired", "count": int64(1)}},
		"x-exception-message": "stock is negative", "x-original-routingKey": "orders", "x-attempts": int32(9),
	}}
	ev := event(d, origin{channel: "errors", queue: "errors"}, time.Now())
	if ev.Outcome != controlbus.OutcomeDeadLettered || ev.DeadLetterReason != "stock is negative" || ev.DeadLetterSource != "orders" || ev.Delivery != 2 {
		t.Errorf("in the error queue: outcome %v, reason %q, source %q, delivery %d", ev.Outcome, ev.DeadLetterReason, ev.DeadLetterSource, ev.Delivery)
	}
	ev = event(d, origin{channel: "wait", queue: "wait"}, time.Now())
	if ev.Outcome != controlbus.OutcomeRetried {
		t.Errorf("back in the waiting queue: outcome %v, want retried", ev.Outcome)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	ok := DefaultConfig()
	ok.URL = "amqp://localhost/"
	if err := ok.Validate(); err != nil {
		t.Errorf("default configuration with an address: %v", err)
	}
	for name, edit := range map[string]func(*Config){
		"url":              func(c *Config) { c.URL = "http://x" },
		"management_url":   func(c *Config) { c.ManagementURL = "x" },
		"user":             func(c *Config) { c.User = "u" },
		"page_size":        func(c *Config) { c.PageSize = 501 },
		"heartbeat":        func(c *Config) { c.Heartbeat = 0 },
		"tap.max_length":   func(c *Config) { c.Tap.MaxLength = 0 },
		"stream channel":   func(c *Config) { c.StreamTap.Channels = []string{""} },
		"stream bytes":     func(c *Config) { c.StreamTap.MaxBytes = 1 << 20 },
		"stream age":       func(c *Config) { c.StreamTap.MaxAge = time.Second },
		"firehose.allowed": func(c *Config) { c.Firehose.Allowed = true },
	} {
		c := ok
		edit(&c)
		if err := c.Validate(); err == nil {
			t.Errorf("%s: a bad value is accepted", name)
		}
	}
}
