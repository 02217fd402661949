// Package storagetest is what every message store must pass: what was written
// is read back whole, once, whatever its bytes and however often it was sent.
package storagetest

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

// Store is a message store as the console and the collector use it.
type Store interface {
	collector.Sink
	Messages(context.Context, storage.MessageQuery) (storage.MessagePage, error)
	Histogram(context.Context, storage.MessageQuery, time.Duration) (storage.Histogram, error)
	FieldValues(context.Context, storage.ValuesQuery) ([]storage.FieldValue, error)
	Message(context.Context, controlbus.ID, time.Time) (storage.MessageDetail, error)
	Bodies(context.Context, []storage.Message) (map[controlbus.ID][]byte, error)
	Conversation(context.Context, storage.ConversationQuery) (storage.Conversation, error)
	Channels(context.Context, storage.ChannelQuery) ([]storage.ChannelState, error)
	ChannelSeries(context.Context, storage.SeriesQuery) (storage.ChannelSeries, error)
	Totals(context.Context, string, storage.TimeRange) (storage.Totals, error)
	Passed(context.Context, string, storage.TimeRange) (storage.Passed, error)
	Tables(context.Context) ([]storage.TableSize, error)
	Environments(context.Context, storage.TimeRange) ([]string, error)
	Invalid(context.Context, storage.TimeRange, int) ([]storage.Invalid, error)
}

// Run runs the suite. Open returns an empty store for one test.
func Run(t *testing.T, open func(testing.TB) Store) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, Store)
	}{
		{"EveryFieldComesBack", everyField},
		{"HostileBytes", hostile},
		{"SameTokenStoresOnce", sameToken},
		{"DaysAreSplit", days},
		{"CursorsAreComplete", cursors},
		{"DuplicatesAreShownOnce", duplicates},
		{"Filters", filters},
		{"BodiesOfAPage", bodies},
		{"SnippetsShowTheWord", snippets},
		{"DeadlineStopsASearch", deadline},
		{"BadQueriesAreInvalid", badQueries},
		{"HistogramCountsWhatASearchFinds", histograms},
		{"DeadlineStopsAHistogram", histogramDeadline},
		{"FieldValues", fieldValues},
		{"ConversationInCausalOrder", conversation},
		{"ConversationFollowsLinks", links},
		{"Channels", channels},
		{"Series", series},
		{"Metrics", metrics},
		{"Panes", panes},
		{"TotalsAndTables", totals},
		{"GapsAreNotZero", gaps},
		{"ReadsAreLimitedToAScope", scopes},
		{"InvalidMessages", invalid},
		{"ImplausibleTimes", implausible},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.test(t, open(t))
		})
	}
}

// base is the time of the suite's messages: within every retention, and far
// enough from midnight that a day is a day.
func base() time.Time {
	return time.Now().UTC().Truncate(24 * time.Hour).Add(-12 * time.Hour)
}

func around(at time.Time) storage.TimeRange {
	return storage.TimeRange{From: at.Add(-72 * time.Hour), To: at.Add(72 * time.Hour)}
}

func uid(parts ...any) controlbus.ID { return controlbus.HashID("storagetest", fmt.Sprint(parts...)) }

func write(t *testing.T, s Store, token string, events ...*controlbus.MessageEvent) {
	t.Helper()
	b := s.NewBatch()
	for _, e := range events {
		b.AppendMessage(e)
	}
	if err := s.Write(t.Context(), token, b); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func find(t *testing.T, s Store, q storage.MessageQuery) storage.MessagePage {
	t.Helper()
	if q.Range == (storage.TimeRange{}) {
		q.Range = around(base())
	}
	p, err := s.Messages(t.Context(), q)
	if err != nil {
		t.Fatalf("messages %+v: %v", q, err)
	}
	return p
}

// full is an event with every field set.
func full(at time.Time) *controlbus.MessageEvent {
	return &controlbus.MessageEvent{
		UID: uid("full"), Time: at.UnixNano() + 123456789, AgentTime: at.UnixNano() + 5e6, TimeSource: controlbus.TimeProducer,
		Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Destination: "orders.new",
		Op: controlbus.OpSettle, Outcome: controlbus.OutcomeDetoured, Service: "shop", ConsumerGroup: "workers", Partition: "7",
		RoutingKey: "orders.eu", Position: math.MaxInt64, Delivery: 3, MessageID: "m-1", CorrelationID: "c-1", CausationID: "m-0", ReplyTo: "amq.gen-x",
		TraceID: [16]byte{1, 2, 3, 15: 9}, SpanID: [8]byte{4, 7: 5}, LatencyNs: 12345678901, ErrorType: "TimeoutError",
		DeadLetterSource: "orders", DeadLetterReason: "rejected", ContentType: "application/json", ContentEncoding: "gzip",
		Headers: []controlbus.Header{{Key: "b", Value: "2"}, {Key: "a", Value: "1"}, {Key: "b", Value: "3"}, {Key: "", Value: ""}},
		Body:    []byte(`{"total":9007199254740993}`), BodySize: 1 << 40,
		BodyPolicy: controlbus.BodyHash, Truncated: true, BodySHA256: strings.Repeat("ab", 32), Tap: "tap-1", GapBefore: 42, Redacted: []string{"cards", "mails"},
	}
}

func everyField(t *testing.T, s Store) {
	want := full(base())
	before := time.Now().Add(-time.Second)
	write(t, s, "one", want)
	for _, near := range []time.Time{{}, base(), base().Add(-48 * time.Hour)} {
		got, err := s.Message(t.Context(), want.UID, near)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*want, got.MessageEvent); diff != "" {
			t.Errorf("near %v: -want +got\n%s", near, diff)
		}
		if !got.BodyStored || got.Correlation != controlbus.CorrelationKey("c-1") || got.StoredAt.Before(before) || got.StoredAt.After(time.Now().Add(time.Second)) {
			t.Errorf("near %v: body stored %v, correlation %v, stored at %v", near, got.BodyStored, got.Correlation, got.StoredAt)
		}
	}
	found := find(t, s, storage.MessageQuery{}).Messages
	if len(found) != 1 {
		t.Fatalf("got %d messages, want 1", len(found))
	}
	if diff := cmp.Diff(*want, found[0].MessageEvent, cmpopts.IgnoreFields(controlbus.MessageEvent{}, "Body")); diff != "" {
		t.Errorf("in a list: -want +got\n%s", diff)
	}
	// Every number of every enum is one the schema knows.
	var all []*controlbus.MessageEvent
	for op := controlbus.OpUnknown; op <= controlbus.OpTap; op++ {
		for outcome := controlbus.OutcomeOK; outcome <= controlbus.OutcomeDetoured; outcome++ {
			all = append(all, &controlbus.MessageEvent{UID: uid(op, outcome), Time: base().UnixNano(), Destination: "enums", Op: op, Outcome: outcome, Position: -1})
		}
	}
	write(t, s, "enums", all...)
	got := map[controlbus.ID]string{}
	for _, m := range find(t, s, storage.MessageQuery{Channel: "enums"}).Messages {
		got[m.UID] = fmt.Sprint(m.Op, m.Outcome, m.Position)
	}
	for _, e := range all {
		if want := fmt.Sprint(e.Op, e.Outcome, e.Position); got[e.UID] != want {
			t.Errorf("got %q, want %q", got[e.UID], want)
		}
	}
	if _, err := s.Message(t.Context(), uid("nobody"), time.Time{}); !isNotFound(err) {
		t.Errorf("a message nobody stored: %v, want ErrNotFound", err)
	}
}

// nasty are values that break stores that build SQL or text by hand.
var nasty = []string{
	"'", `"`, "`", `\`, `\\'`, `%`, `_`, `%_%`, "a\x00b", "\xff\xfe", "line\nbreak\ttab\r", "{x:String}", "@db.messages", "?", "$1",
	"'; DROP TABLE messages; --", "/* */", "\u202eabc", "日本語", "", " lead and trail ", "NULL", `\N`, "[]", "*",
}

func hostile(t *testing.T, s Store) {
	at := base()
	var events []*controlbus.MessageEvent
	for i, v := range nasty {
		events = append(events, &controlbus.MessageEvent{
			UID: uid("nasty", i), Time: at.Add(time.Duration(i) * time.Second).UnixNano(), Env: v, System: v, Broker: v, Destination: "ch" + v, Service: v,
			MessageID: "m" + v, CorrelationID: "c" + v, CausationID: v, RoutingKey: v, ReplyTo: v, ErrorType: v, Tap: v,
			Headers: []controlbus.Header{{Key: "k" + v, Value: "v" + v}}, Body: []byte("body" + v + "end"), BodySize: 1,
		})
	}
	write(t, s, "nasty'\\ token", events...)
	write(t, s, "nasty'\\ token", events...)
	only := func(q storage.MessageQuery, want controlbus.ID) {
		t.Helper()
		p := find(t, s, q)
		for _, m := range p.Messages {
			if m.UID == want {
				return
			}
		}
		t.Errorf("%+v: found %d messages, none of them the one wanted", q, len(p.Messages))
	}
	one := func(q storage.MessageQuery, want controlbus.ID) {
		t.Helper()
		only(q, want)
		if n := len(find(t, s, q).Messages); n != 1 {
			t.Errorf("%+v: found %d messages, want 1", q, n)
		}
	}
	for i, v := range nasty {
		id := uid("nasty", i)
		got, err := s.Message(t.Context(), id, at)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*events[i], got.MessageEvent, cmpopts.IgnoreFields(controlbus.MessageEvent{}, "AgentTime")); diff != "" {
			t.Errorf("%q: -want +got\n%s", v, diff)
		}
		one(storage.MessageQuery{MessageID: "m" + v}, id)
		one(storage.MessageQuery{CorrelationID: "c" + v}, id)
		one(storage.MessageQuery{HeaderName: "k" + v, HeaderValue: "v" + v}, id)
		if !strings.Contains(v, "*") {
			one(storage.MessageQuery{Channel: "ch" + v}, id)
			p := find(t, s, storage.MessageQuery{Channel: "c*h" + v})
			if len(p.Messages) != 1 || p.Messages[0].UID != id {
				t.Errorf("pattern %q: found %d messages", "c*h"+v, len(p.Messages))
			}
		}
		if v != "" {
			one(storage.MessageQuery{Service: v}, id)
			one(storage.MessageQuery{Env: v, Broker: v, System: v}, id)
			only(storage.MessageQuery{BodyWord: "BODY" + v}, id)
		}
	}
}

func sameToken(t *testing.T, s Store) {
	at := base()
	b := s.NewBatch()
	for i := range 50 {
		b.AppendMessage(&controlbus.MessageEvent{
			UID: uid("token", i), Time: at.Add(time.Duration(i) * time.Hour).UnixNano(), Destination: "d", Body: []byte("b"),
			CorrelationID: fmt.Sprint(i), TraceID: [16]byte{byte(i + 1)},
		})
		b.AppendSpan(&storage.Span{Time: at.UnixNano(), TraceID: [16]byte{1}, SpanID: [8]byte{byte(i)}, Links: []storage.SpanLink{{TraceID: [16]byte{2}}}})
		b.AppendLog(&storage.Log{Time: at.UnixNano(), UID: uid("log", i), Body: "x"})
		b.AppendSample(&storage.Sample{Metric: "m", Series: 1, Time: at.UnixNano() + int64(i)*1e9, Value: 1})
		b.AppendPane(&storage.Pane{Time: at.UnixNano(), Destination: "d", Op: controlbus.OpTap, Count: 1})
		b.AppendInvalid(&storage.Invalid{Time: at.UnixNano(), Reason: "r"})
	}
	for range 3 {
		if err := s.Write(t.Context(), "t", b); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := s.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"messages": 50, "bodies": 50, "spans": 50, "logs": 50, "samples": 50, "link_back": 50, "invalid": 50}
	for _, table := range tables {
		if n, ok := want[table.Name]; ok && table.Rows != n {
			t.Errorf("%s: %d rows after three writes with one token, want %d", table.Name, table.Rows, n)
		}
	}
	totals, err := s.Totals(t.Context(), "", around(at))
	if err != nil {
		t.Fatal(err)
	}
	if totals.Messages != 50 {
		t.Errorf("panes add up to %d messages, want 50", totals.Messages)
	}
	// The same content under another token is other content.
	if err := s.Write(t.Context(), "u", b); err != nil {
		t.Fatal(err)
	}
	if totals, _ = s.Totals(t.Context(), "", around(at)); totals.Messages != 100 {
		t.Errorf("panes add up to %d messages after a second token, want 100", totals.Messages)
	}
}

func days(t *testing.T, s Store) {
	at := base()
	var events []*controlbus.MessageEvent
	for i := range 30 {
		events = append(events, &controlbus.MessageEvent{
			UID: uid("day", i), Time: at.AddDate(0, 0, -i%10).UnixNano(), AgentTime: at.UnixNano(), Destination: "days", Body: []byte{byte(i)},
		})
	}
	write(t, s, "days", events...)
	write(t, s, "days", events...)
	tables, err := s.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if table.Name != "messages" && table.Name != "bodies" {
			continue
		}
		if table.Rows != 30 || table.Partitions != 10 || !table.Oldest.Equal(at.AddDate(0, 0, -9).Truncate(24*time.Hour)) {
			t.Errorf("%s: %d rows in %d days since %v, want 30 in 10", table.Name, table.Rows, table.Partitions, table.Oldest)
		}
	}
	p := find(t, s, storage.MessageQuery{Range: storage.TimeRange{From: at.AddDate(0, 0, -20), To: at.Add(time.Hour)}})
	if len(p.Messages) != 30 {
		t.Errorf("found %d messages, want 30", len(p.Messages))
	}
}

func cursors(t *testing.T, s Store) {
	at := base()
	const n = 137
	var events []*controlbus.MessageEvent
	for i := range n {
		// Many share an instant, so that only the uid tells them apart.
		events = append(events, &controlbus.MessageEvent{UID: uid("cursor", i), Time: at.Add(time.Duration(i/20) * 7 * time.Hour / 2).UnixNano(), Destination: "pages", Body: []byte("word")})
	}
	write(t, s, "pages", events...)
	for _, order := range []storage.Order{storage.NewestFirst, storage.OldestFirst} {
		for _, word := range []string{"", "word", "only snippets"} {
			seen := map[controlbus.ID]bool{}
			q := storage.MessageQuery{Range: around(at), Channel: "pages", Order: order, Limit: 10, BodyWord: word}
			if word == "only snippets" {
				q.BodyWord, q.Snippets = "", true
			}
			last := int64(0)
			for pages := 0; ; pages++ {
				if pages > n {
					t.Fatal("paging does not end")
				}
				p := find(t, s, q)
				for _, m := range p.Messages {
					if seen[m.UID] {
						t.Errorf("message %v is on two pages", m.UID)
					}
					seen[m.UID] = true
					if last != 0 && (order == storage.NewestFirst) != (m.Time <= last) && m.Time != last {
						t.Errorf("order %v: %d follows %d", order, m.Time, last)
					}
					last = m.Time
					if want := map[bool]string{true: "word"}[word != ""]; m.Snippet != want {
						t.Errorf("search for %q: snippet %q, want %q", word, m.Snippet, want)
					}
				}
				if p.Scan.Rows == 0 && pages == 0 {
					t.Error("a search that found rows says that it read none")
				}
				if p.Next == "" {
					if p.Scan.Stopped != storage.StopEnd {
						t.Errorf("last page stopped because of %q", p.Scan.Stopped)
					}
					break
				}
				if p.Scan.Stopped != storage.StopLimit {
					t.Errorf("page stopped because of %q, want limit", p.Scan.Stopped)
				}
				q.Cursor = p.Next
			}
			if len(seen) != n {
				t.Errorf("order %v: %d messages on all pages, want %d", order, len(seen), n)
			}
		}
	}
}

// bodies asks for the bodies of a page whose messages lie days apart.
func bodies(t *testing.T, s Store) {
	at := base()
	var events []*controlbus.MessageEvent
	for i := range 30 {
		e := &controlbus.MessageEvent{UID: uid("bodies", i), Time: at.Add(time.Duration(i) * 2 * time.Hour).UnixNano(), Destination: "pages"}
		if i%3 > 0 {
			e.Body = append([]byte{0, 255, byte(i)}, bytes.Repeat([]byte("x"), 1000*(i%2))...)
		}
		events = append(events, e)
	}
	write(t, s, "bodies", events...)
	p := find(t, s, storage.MessageQuery{Range: storage.TimeRange{From: at.Add(-time.Hour), To: at.Add(100 * time.Hour)}, Channel: "pages"})
	got, err := s.Bodies(t.Context(), p.Messages)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		b, ok := got[e.UID]
		if ok && !bytes.Equal(b, e.Body) || !ok && len(e.Body) > 0 {
			t.Errorf("body %d: got %d bytes, %v; want %d", i, len(b), ok, len(e.Body))
		}
	}
	if len(p.Messages) != len(events) {
		t.Errorf("found %d messages, want %d", len(p.Messages), len(events))
	}
	if got, err := s.Bodies(t.Context(), nil); err != nil || len(got) > 0 {
		t.Errorf("bodies of nothing: got %d, %v", len(got), err)
	}
}

func duplicates(t *testing.T, s Store) {
	at := base()
	var a, b []*controlbus.MessageEvent
	for i := range 40 {
		e := &controlbus.MessageEvent{UID: uid("dup", i), Time: at.Add(time.Duration(i) * time.Second).UnixNano(), Destination: "dup"}
		a, b = append(a, e), append(b, e)
	}
	write(t, s, "agent-1", a...)
	write(t, s, "agent-2", b...)
	got := 0
	q := storage.MessageQuery{Channel: "dup", Limit: 7}
	for {
		p := find(t, s, q)
		got += len(p.Messages)
		if p.Next == "" {
			break
		}
		q.Cursor = p.Next
	}
	if got != 40 {
		t.Errorf("two agents stored 40 messages each twice; found %d", got)
	}
}

func filtered(t *testing.T, text string) *filter.Filter {
	f, err := filter.Parse(text, base())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func filters(t *testing.T, s Store) {
	at := base()
	mk := func(id string, change func(*controlbus.MessageEvent)) *controlbus.MessageEvent {
		e := &controlbus.MessageEvent{UID: uid(id), Time: at.UnixNano(), Env: "prod", System: "nats", Broker: "n1", Destination: "orders.new", Service: "shop", MessageID: id}
		change(e)
		return e
	}
	write(t, s, "filters",
		mk("plain", func(*controlbus.MessageEvent) {}),
		mk("env", func(e *controlbus.MessageEvent) { e.Env = "test" }),
		mk("failed", func(e *controlbus.MessageEvent) { e.Outcome = controlbus.OutcomeFailed }),
		mk("header", func(e *controlbus.MessageEvent) {
			e.Headers = []controlbus.Header{{Key: "tenant", Value: "x"}, {Key: "tenant", Value: "acme"}, {Key: "a=b", Value: "c"}}
		}),
		mk("body", func(e *controlbus.MessageEvent) { e.Body = []byte("The Quick brown fox") }),
		mk("channel", func(e *controlbus.MessageEvent) { e.Destination = "orders_new.eu" }),
		mk("early", func(e *controlbus.MessageEvent) { e.Time = at.Add(-time.Hour).UnixNano() }),
		mk("trace", func(e *controlbus.MessageEvent) { e.TraceID = [16]byte{7} }),
	)
	all := []string{"plain", "env", "failed", "header", "body", "channel", "early", "trace"}
	without := func(names ...string) []string {
		var out []string
	next:
		for _, n := range all {
			for _, x := range names {
				if n == x {
					continue next
				}
			}
			out = append(out, n)
		}
		return out
	}
	for _, tc := range []struct {
		name string
		q    storage.MessageQuery
		want []string
	}{
		{"everything", storage.MessageQuery{}, all},
		{"environment", storage.MessageQuery{Env: "prod"}, without("env")},
		{"failed", storage.MessageQuery{FailedOnly: true}, []string{"failed"}},
		{"header exact", storage.MessageQuery{HeaderName: "tenant", HeaderValue: "acme"}, []string{"header"}},
		{"header of another name", storage.MessageQuery{HeaderName: "a", HeaderValue: "b=c"}, nil},
		{"header exists", storage.MessageQuery{HeaderName: "a=b"}, []string{"header"}},
		{"body word", storage.MessageQuery{BodyWord: "qUICK b"}, []string{"body"}},
		{"body word absent", storage.MessageQuery{BodyWord: "quick%fox"}, nil},
		{"channel pattern", storage.MessageQuery{Channel: "orders.*"}, without("channel")},
		{"underscore is no wildcard", storage.MessageQuery{Channel: "orders_*"}, []string{"channel"}},
		{"two stars", storage.MessageQuery{Channel: "*new*"}, all},
		{"range is half open", storage.MessageQuery{Range: storage.TimeRange{From: at.Add(-time.Hour), To: at}}, []string{"early"}},
		{"trace", storage.MessageQuery{TraceID: "07000000000000000000000000000000"}, []string{"trace"}},
		{"uid", storage.MessageQuery{UID: uid("body").String()}, []string{"body"}},
		{"all together", storage.MessageQuery{Env: "prod", System: "nats", Broker: "n1", Channel: "orders.new", Service: "shop", MessageID: "plain"}, []string{"plain"}},
		{"a filter", storage.MessageQuery{Filter: filtered(t, "channel:orders.* env:prod (quick OR header.tenant:ac*)")}, []string{"body", "header"}},
		{"a filter beside fields", storage.MessageQuery{Channel: "orders.new", Filter: filtered(t, "channel:*.new NOT body:* NOT trace:* failed:false")}, []string{"plain", "env", "header", "early"}},
		{"a filter's id", storage.MessageQuery{Filter: filtered(t, "id:body fox")}, []string{"body"}},
		{"a filter's id that is not the field's", storage.MessageQuery{MessageID: "plain", Filter: filtered(t, "id:body")}, nil},
		{"a filter's trace", storage.MessageQuery{Filter: filtered(t, "trace:07000000000000000000000000000000")}, []string{"trace"}},
		{"one field that does not match", storage.MessageQuery{MessageID: "plain", Env: "test"}, nil},
	} {
		got := map[string]bool{}
		for _, m := range find(t, s, tc.q).Messages {
			got[m.MessageID] = true
		}
		want := map[string]bool{}
		for _, w := range tc.want {
			want[w] = true
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", tc.name, diff)
		}
	}
}

func snippets(t *testing.T, s Store) {
	at := base()
	long := strings.Repeat("ü", 400) + " Needle, and " + strings.Repeat("x", 400)
	write(t, s, "snippets",
		&controlbus.MessageEvent{UID: uid("snippet", 1), Time: at.UnixNano(), Destination: "d", Body: []byte(long), BodySize: 1},
		&controlbus.MessageEvent{UID: uid("snippet", 2), Time: at.UnixNano() + 1, Destination: "d", Body: []byte("a needle at the start"), BodySize: 1})
	for _, q := range []storage.MessageQuery{{BodyWord: "needle"}, {Filter: parse(t, "channel:d NEEDLE")}} {
		q.Order = storage.OldestFirst
		found := find(t, s, q).Messages
		if len(found) != 2 {
			t.Fatalf("%+v: found %d messages, want 2", q, len(found))
		}
		if got := found[0].Snippet; !strings.HasPrefix(got, "…ü") || !strings.Contains(got, "ü Needle, and x") || len(got) > 300 || !utf8.ValidString(got) {
			t.Errorf("around a word far behind: %q", got)
		}
		if got := found[1].Snippet; got != "a needle at the start" {
			t.Errorf("around a word at the start: %q", got)
		}
	}
	if got := find(t, s, storage.MessageQuery{Snippets: true, Order: storage.OldestFirst}).Messages[0].Snippet; got != strings.Repeat("ü", 128) {
		t.Errorf("without a word: %q", got)
	}
}

func deadline(t *testing.T, s Store) {
	at := base()
	write(t, s, "deadline", &controlbus.MessageEvent{UID: uid("deadline"), Time: at.UnixNano(), Destination: "d"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
	defer cancel()
	q := storage.MessageQuery{Range: around(at), Channel: "d"}
	p, err := s.Messages(ctx, q)
	if err != nil {
		t.Fatalf("a deadline is an answer, not an error: %v", err)
	}
	if p.Scan.Stopped != storage.StopDeadline || p.Next == "" {
		t.Fatalf("stopped because of %q with cursor %q, want deadline and a cursor", p.Scan.Stopped, p.Next)
	}
	q.Cursor = p.Next
	if p = find(t, s, q); len(p.Messages) != 1 || p.Scan.Stopped != storage.StopEnd {
		t.Errorf("going on from the cursor: %d messages, stopped because of %q", len(p.Messages), p.Scan.Stopped)
	}
	gone, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.Messages(gone, q); err == nil {
		t.Error("a search whose caller has gone answers")
	}
}

func badQueries(t *testing.T, s Store) {
	for _, q := range []storage.MessageQuery{
		{TraceID: "xyz"}, {UID: "00"}, {Cursor: "!!!"}, {Cursor: "AAAA"}, {HeaderValue: "v"}, {Order: 9},
	} {
		q.Range = around(base())
		if _, err := s.Messages(t.Context(), q); !isInvalid(err) {
			t.Errorf("%+v: %v, want ErrInvalid", q, err)
		}
	}
	if _, err := s.Conversation(t.Context(), storage.ConversationQuery{}); !isInvalid(err) {
		t.Errorf("a conversation by nothing: %v, want ErrInvalid", err)
	}
	if err := s.Write(t.Context(), "", s.NewBatch()); !isInvalid(err) {
		t.Errorf("an empty token: %v, want ErrInvalid", err)
	}
}
