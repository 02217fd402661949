package filter

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
)

var testNow = time.Date(2026, 7, 23, 12, 0, 0, 0, time.UTC)

func sample() *controlbus.MessageEvent {
	return &controlbus.MessageEvent{
		UID: controlbus.ID{1, 2, 3}, Time: testNow.Add(-10 * time.Minute).UnixNano(), AgentTime: testNow.Add(-10*time.Minute).UnixNano() + 123456, TimeSource: controlbus.TimeBroker,
		Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Destination: "orders.new", Op: controlbus.OpProcess, Outcome: controlbus.OutcomeDeadLettered,
		Service: "payment-service", ConsumerGroup: "billing", Partition: "7", RoutingKey: "customer-42", Position: 4711, Delivery: 4,
		MessageID: "018f6a3e-51c7", CorrelationID: "ORD-7731904", TraceID: [16]byte{0x5b, 0x8a, 1}, SpanID: [8]byte{5}, LatencyNs: 250e6, ErrorType: "com.acme.TimeoutException",
		DeadLetterReason: "rejected", ContentType: "application/json",
		Headers:  []controlbus.Header{{Key: "x-tenant", Value: "acme"}, {Key: "retries", Value: "10"}, {Key: "retries", Value: "x"}, {Key: "empty", Value: ""}, {Key: "big", Value: "9223372036854775808"}, {Key: "odd name", Value: "1.50"}},
		Body:     []byte(`{"total": 250.50, "items":[{"sku":"A-1","n":2},{"sku":"B\u002d2"}], "n": null, "ok": true, "text":"Card_Declined: timeout after 5s", "big": 9007199254740993, "odd key": "1", "total": 1, "no":{"x":[]}}`),
		BodySize: 120_000, Redacted: []string{"card-number", "iban"},
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		``: true,
		// Words and phrases.
		`timeout`: true, `TIMEOUT`: true, `time`: false, `time*`: true, `*out`: true, `*meou*`: true, `body:*meou*`: true, `declined`: true, `card_declined`: true,
		`"card_declined: TIMEOUT"`: true, `"declined timeout"`: false, `timeout after`: true, `timeout nothing`: false, `"5s"`: true, `5`: false, `body:"after 5s"`: true,
		`a-1`: true, `"A-1"`: true, `don't`: false,
		// Text.
		`channel:orders.*`: true, `queue:orders.new`: true, `channel:*new`: true, `channel:o*s.n*w`: true, `channel:orders`: false, `channel = orders.new`: true, `channel = 'orders.*'`: false,
		`channel:"orders.*"`: false, `channel:"orders."*`: true, `channel != 'x'`: true, `channel <> 'orders.new'`: false, `channel IN ('a', orders.new)`: true, `channel NOT IN (a,b)`: true,
		`channel LIKE 'orders._ew'`: true, `channel LIKE 'orders.n%' ESCAPE '\'`: true, `channel LIKE '%\%' ESCAPE '\'`: false, `channel LIKE 'orders!_new' ESCAPE '!'`: false,
		`channel ~ '^orders\.(new|old)$'`: true, `channel ~ 'ORDERS'`: false, `channel ~ '(?i)ORDERS'`: true, `channel < 'p'`: true, `channel BETWEEN 'a' AND 'b'`: false,
		`Channel:orders.new`: true, `env:production`: true, `error:*Timeout*`: true, `JMSMessageID = '018f6a3e-51c7'`: true,
		// Missing fields.
		`reply_to:*`: false, `reply_to != 'x'`: false, `NOT reply_to = 'x'`: true, `reply_to NOT LIKE 'x%'`: true, `reply_to IS NULL`: true, `reply_to IS NOT NULL`: false,
		`-reply_to:*`: true, `- reply_to:*`: false, `tap:*`: false, `header.none != 'x'`: false, `NOT header.none = 'x'`: true, `header.none:*`: false, `body.none != 1`: false, `NOT body.none = 1`: true,
		// Numbers and units.
		`attempts > 3`: true, `attempts>=5`: false, `attempts:4`: true, `attempts:>3`: true, `attempts BETWEEN 1 AND 4`: true, `attempts > 3.5`: true, `attempts = 4.0`: true, `attempts IN (1, 4)`: true,
		`size >= 100kb`: true, `size >= 120kib`: false, `size:>0.1mb`: true, `size = 120000`: true, `latency > 249ms`: true, `latency < 0.3s`: true, `latency = 250ms`: true, `latency:>1m30s`: false,
		`position:4711`: true, `gap = 0`: true, `gap > 0`: false,
		// Enumerations, booleans, lists.
		`failed:true`: true, `failed = false`: false, `failed != true`: false, `outcome:dead-lettered`: true, `outcome:dead*`: true, `outcome IN (ok, failed)`: false, `op:process`: true, `op:deliver`: true, `op != send`: true,
		`truncated:no`: true, `redacted:*`: true, `redacted:iban`: true, `redacted != iban`: true, `NOT redacted:iban`: false, `time_source:broker`: true, `body_policy:full`: true,
		// Ids.
		`trace:5b8a0100000000000000000000000000`: true, `trace:5B8A01*`: true, `trace:6*`: false, `span:0500000000000000`: true, `uid LIKE '0102%'`: true, `correlation:ORD-7731904`: true,
		`trace != 5b8a0100000000000000000000000001`: true, `trace IN (5b8a0100000000000000000000000000)`: true, `trace ~ '^5b'`: true,
		// Times.
		`time > now-15m`: true, `time > now-5m`: false, `time >= 2026-07-23T11:50:00Z`: true, `time > 2026-07-23T11:50Z`: false, `time BETWEEN 2026-07-23 AND 2026-07-24`: true, `time < '2026-07-23 11:51'`: true, `agent_time = 2026-07-23T11:50:00Z`: true,
		// Headers.
		`header.x-tenant = 'acme'`: true, `header.x-tenant:acme`: true, `header.x-tenant:ac*`: true, `x-tenant = 'acme'`: true, `NOT header.x-tenant = 'acme'`: false, `header.X-Tenant:acme`: false,
		`header.retries > 3`: true, `header.retries > '3'`: true, `header.retries = 10`: true, `header.retries = 10.0`: true, `header.retries = 1e1`: true, `header.retries = '10.0'`: false, `header.retries:x`: true, `header.retries > 10`: false,
		`header.empty:*`: true, `header.empty = ''`: true, `header.empty = 0`: false, `header.big = 9223372036854775808`: true, `header.big = 9223372036854775807`: false, `header.big > 9223372036854775807`: true,
		`header."odd name" = 1.5`: true, `header.'odd name':1.5`: false, `header."odd name":1.50`: true, `header.retries IN (7, 'x')`: true, `retries BETWEEN 9 AND 11`: true,
		// Paths.
		`body.total = 250.5`: true, `body.total:250.50`: true, `body.total = '250.5'`: false, `body.total BETWEEN 100 AND 5000`: true, `body.total = 1`: false, `body.items[0].sku:A-*`: true, `body.items[1].sku = 'B-2'`: true,
		`body.items[2].sku:*`: false, `body.n:*`: false, `body.ok:true`: true, `body.ok = true`: true, `body.items:*`: true, `body.items = ''`: false, `body.big = 9007199254740993`: true, `body.big = 9007199254740992`: false,
		`body."odd key" = 1`: true, `body."odd key" = '1'`: true, `body.no.x:*`: true, `body.no.x[0]:*`: false, `body[0]:*`: false, `body.text ~ 'after \d+s$'`: true, `body ~ '"total"'`: true, `body:*`: true, `body = 'x'`: false,
		// Logic.
		`timeout AND nothing`: false, `timeout OR nothing`: true, `nothing OR timeout channel:orders.*`: true, `(nothing OR timeout) channel:x`: false, `NOT (nothing OR timeout)`: false, `NOT NOT timeout`: true, `-nothing -(q OR z)`: true,
		`timeout channel:orders.* (attempts > 3 OR size >= 100kb) NOT header.x-tenant = 'acme' body.total BETWEEN 100 AND 5000 time > now-15m`:   false,
		`timeout channel:orders.* (attempts > 30 OR size >= 100kb) NOT header.x-tenant = 'other' body.total BETWEEN 100 AND 5000 time > now-15m`: true,
		`order_type IN ('premium','express') OR region LIKE 'EU-%' OR body.total BETWEEN 100 AND 5000`:                                           true,
	} {
		f, err := Parse(text, testNow)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := f.Match(sample()); got != want {
			t.Errorf("%s: got %v, want %v; reads: %s", text, got, want, f.Explain())
		}
		again, err := Parse(f.String(), testNow)
		if err != nil {
			t.Errorf("%s: printed %s: %v", text, f, err)
			continue
		}
		if diff := treeDiff(f, again); diff != "" {
			t.Errorf("%s: printed %s: %s", text, f, diff)
		}
		if f.Explain() == "" {
			t.Errorf("%s: no explanation", text)
		}
	}
	var none *Filter
	if !none.Match(sample()) || !none.Empty() || none.String() != "" || none.NeedsBody() || none.Explain() != "everything" {
		t.Error("no filter does not match everything")
	}
}

func treeDiff(a, b *Filter) string {
	return cmp.Diff(a.root, b.root, cmp.AllowUnexported(node{}, value{}, step{}, int128{}),
		cmp.Comparer(func(a, b *Field) bool { return a == b }),
		cmp.Comparer(func(a, b *pattern) bool {
			return a == b || a != nil && b != nil && a.source == b.source && a.re.String() == b.re.String() && cmp.Equal(a.parts, b.parts)
		}))
}

func TestErrorsSayWhereAndWhat(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text       string
		pos, len   int
		msg        string
		suggestion string
	}{
		{`chanel:x`, 0, 6, "no field", "channel"},
		{`a chanel = x`, 2, 6, "no field", "channel"},
		{`http://host/x`, 0, 4, "goes into quotes", `"http://host/x"`},
		{`(a`, 0, 1, "not closed", ""},
		{`a)`, 1, 1, "closes nothing", ""},
		{`"a`, 0, 2, "not closed", ""},
		{`channel:"a`, 8, 2, "not closed", ""},
		{`channel:`, 0, 8, "no value", ""},
		{`channel: x`, 0, 8, "no value", ""},
		{`a OR`, 4, 0, "missing", ""},
		{`OR a`, 0, 2, "between two", `"OR"`},
		{`NOT`, 3, 0, "missing", ""},
		{`()`, 1, 1, "missing", ""},
		{`attempts > x`, 11, 1, "is a number", ""},
		{`attempts > 99999999999999999999`, 11, 20, "out of range", ""},
		{`attempts ~ x`, 0, 10, "has no ~", ""},
		{`size > 5x`, 7, 2, "wants bytes", ""},
		{`latency > 5`, 10, 1, "with a unit", "5ms"},
		{`time > yesterday`, 7, 9, "want a time", ""},
		{`op:pocess`, 3, 6, "no op", "process"},
		{`failed:maybe`, 7, 5, "true or false", "true"},
		{`trace:abc`, 6, 3, "32 hexadecimal", "trace:abc*"},
		{`trace:00000000000000000000000000000000`, 6, 32, "NOT trace:*", ""},
		{`channel = ''`, 10, 2, "NOT channel:*", ""},
		{`channel ~ '('`, 10, 3, "missing closing )", ""},
		{`channel ~ '(a{1,1000}){3}'`, 10, 16, "", ""},
		{`channel ~ '\pL{200}'`, 10, 10, "too big", ""},
		{strings.TrimSuffix(strings.Repeat(`id ~ '\pL' OR `, 40), " OR "), 0, 0, "too big together", ""},
		{`channel IN x`, 11, 1, "list in brackets", ""},
		{`channel IN (a b)`, 14, 1, "comma", ","},
		{`channel IN (a`, 11, 1, "not closed", ""},
		{`channel:(a OR b)`, 8, 1, "IN (a, b)", "channel IN ("},
		{`attempts BETWEEN 1`, 18, 0, "two values", "AND"},
		{`header.x BETWEEN 1 AND 'a'`, 17, 9, "one value is a number", ""},
		{`header.:x`, 0, 7, "header's name", ""},
		{`body.a[x]:1`, 0, 7, "a path is written", ""},
		{`channel LIKE 'a\b' ESCAPE '\'`, 13, 5, `behind \ stands`, ""},
		{`ti*me`, 0, 5, "beginning or the end", ""},
		{`*`, 0, 1, "beginning or the end", ""},
		{`""`, 0, 2, "empty text", ""},
		{`= 5`, 0, 1, "field is missing", ""},
		{`:x`, 0, 1, "field is missing", ""},
		{"a\xffb", 1, 1, "UTF-8", ""},
		{strings.Repeat("(", 40) + "a" + strings.Repeat(")", 40), 32, 1, "deep", ""},
		{strings.Repeat("-", 40) + "a", 32, 1, "deep", ""},
		{strings.Repeat("a ", 300), 0, 0, "more than 256", ""},
		{strings.Repeat("a", 5000), 4096, 904, "5000 bytes", ""},
	} {
		f, err := Parse(tc.text, testNow)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("%.60s: no *Error: %v, %v", tc.text, f, err)
			continue
		}
		if (tc.len != 0 || tc.pos != 0) && (e.Pos != tc.pos || e.Len != tc.len) || !strings.Contains(e.Msg, tc.msg) || e.Suggestion != tc.suggestion {
			t.Errorf("%.60s: got %d+%d %q suggesting %q, want %d+%d %q suggesting %q", tc.text, e.Pos, e.Len, e.Msg, e.Suggestion, tc.pos, tc.len, tc.msg, tc.suggestion)
		}
		if e.Pos < 0 || e.Len < 0 || e.Pos+e.Len > len(tc.text) {
			t.Errorf("%.60s: %d+%d is outside of the text", tc.text, e.Pos, e.Len)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	for name, text := range map[string]string{
		"five":   `channel:orders.* attempts > 3 size >= 100kb header.x-tenant = 'acme' latency < 1s`,
		"eq":     `channel = 'orders.new' AND env = 'production' AND service = 'payment-service' AND attempts >= 4 AND failed = true`,
		"word":   `nothing`,
		"path":   `body.big = 9007199254740993`,
		"regexp": `channel ~ '^orders\.(new|old)$'`,
	} {
		b.Run(name, func(b *testing.B) {
			f, err := Parse(text, testNow)
			if err != nil {
				b.Fatal(err)
			}
			e := sample()
			want := name != "word"
			b.ReportAllocs()
			for b.Loop() {
				if f.Match(e) != want {
					b.Fatal("wrong answer")
				}
			}
		})
	}
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Parse(`timeout channel:orders.* (attempts > 3 OR size >= 100kb) NOT header.x-tenant = 'acme' body.total BETWEEN 100 AND 5000 time > now-15m`, testNow); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("body1KiB", func(b *testing.B) {
		f, _ := Parse("timeout", testNow)
		e := sample()
		e.Body = []byte(strings.Repeat(`{"customer":"tom","total":12,"note":"nothing to tell"},`, 20))[:1024]
		b.ReportAllocs()
		for b.Loop() {
			if f.Match(e) {
				b.Fatal("wrong answer")
			}
		}
	})
}

func TestOrdinaryComparisonsDoNotAllocate(t *testing.T) {
	for _, text := range []string{
		`channel:orders.* attempts > 3 size >= 100kb header.x-tenant = 'acme' latency < 1s`, `trace:5b8a* uid:01*`, `body.items[0].sku:A-*`, `header.retries > 3 header.big > 5.5`, `timeout "declined: timeout"`,
		`channel ~ '^orders' channel LIKE 'o%w'`,
	} {
		f, err := Parse(text, testNow)
		if err != nil {
			t.Fatal(err)
		}
		e := sample()
		if n := testing.AllocsPerRun(100, func() {
			if !f.Match(e) {
				t.Error(text)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}
