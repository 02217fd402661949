package clickhouse

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

var filterNow = time.Date(2026, 7, 23, 12, 0, 0, 0, time.UTC)

// world makes messages and filters about them.
type world struct{ *rand.Rand }

func pick[T any](w world, list []T) T { return list[w.IntN(len(list))] }

func (w world) one(in int) bool { return w.IntN(in) == 0 }

var (
	nastyTexts = []string{
		"orders.new", "orders.paid", "ORDERS.NEW", "orders_new", "orders%new", "orders", "o", "a'b", `a"b`, `back\slash`, `\`, "tab\there", "nul\x00byte", "new\nline", "cr\rx",
		"müller", "MÜLLER", "\xff\xfeinvalid", "a\xffb", "a\xc3", "\xe2\x82", "K", "ſ", "日本", "*star*", "orders.*", "' OR 1=1 --", "{p1:String}", "@db.messages", " ", "\u00a0", "a b", "(x)", "x,y", "5", "true",
		"\xf0\x9f\x98\x80", "\xed\xa0\x80", "\xef\xbf\xbd", "Timeout", "com.acme.TimeoutException", "%", "_", "a\\%b", "\x7f", "\u202e",
	}
	nastyNumbers = []string{
		"0", "-0", "1", "5", "5.0", "05", "-5", "1e3", "1E3", "1000", "1e400", "-1e400", "1e-400", "NaN", "nan", "inf", "-inf", "Infinity", "9007199254740992", "9007199254740993", "9223372036854775807", "9223372036854775808",
		"-9223372036854775808", "-9223372036854775809", "18446744073709551615", "18446744073709551616", "99999999999999999999999999999999999999", "99999999999999999999999999999999999998", "999999999999999999999999999999999999999", "0.1", "0.30000000000000004", "0.3", "1.7091", "", "+5", "5 ", " 5",
		"0x10", "1_000", ".5", "5.", "--5", "1.0e+2", "100", "99.99", "1e18", "1000000000000000000", "1000000000000000001", "5e-324", "2.5", "0000000000000000000000000000000000000000000007", "1e1000000000000000000000",
		strings.Repeat("9", 400), "0." + strings.Repeat("1", 400), "1\n", "5\x00",
	}
	headerNames = []string{"x-tenant", "retries", "a=b", "odd name", "ü", "", "x'y", `x"y`, "k", "order_type", "\xffbad"}
	words       = []string{"timeout", "Timeout", "TIMEOUT", "card", "declined", "card_declined", "müller", "MÜLLER", "after", "5s", "a-1", "timeouts", "xtimeout", "日本", "\xfftimeout", "timeout\xff", "time\x00out", "ſtar", "K"}
	jsonKeys    = []string{"a", "b", "total", "k.y", "ü", `x\"y`, `\u0061`, "A", "items", `t\u006ftal`, `esc\\aped`, "", "a b"}
	pathKeys    = []string{"a", "b", "total", "k.y", "ü", `x"y`, "A", "items", `esc\aped`, "", "a b"}
	jsonStrings = []string{"x", "5", "5.0", "1e3", "timeout", "", `q\"uote`, `\u0041`, `\ud83d\ude00`, `\ud83d`, `\u0000`, `back\\slash`, "müller", "true", "null", `tab\t`, `new\n`, `sl\/ash`, `A-1`, `A-2`, "9007199254740993", "a\xffb", "raw\ttab"}
)

func (w world) text() string {
	if w.one(4) {
		return ""
	}
	return pick(w, nastyTexts)
}

func (w world) json(depth int) string {
	space := func() string { return pick(w, []string{"", "", "", " ", "\n", "\t ", "\r\n"}) }
	switch n := w.IntN(10); {
	case n < 3 && depth > 0:
		var b strings.Builder
		b.WriteString("{" + space())
		for i := range w.IntN(5) {
			if i > 0 {
				b.WriteString("," + space())
			}
			b.WriteString(`"` + pick(w, jsonKeys) + `"` + space() + ":" + space() + w.json(depth-1) + space())
		}
		return b.String() + "}"
	case n < 5 && depth > 0:
		var list []string
		for range w.IntN(4) {
			list = append(list, space()+w.json(depth-1)+space())
		}
		return "[" + strings.Join(list, ",") + "]"
	case n < 7:
		s := pick(w, nastyNumbers)
		// Most are numbers of JSON; the others make the whole body something else.
		if w.one(20) {
			return s
		}
		for ; ; s = pick(w, nastyNumbers) {
			if _, err := strconv.ParseFloat(s, 64); err == nil && !strings.ContainsAny(s, "xXnNiI_+ ") && s[0] != '.' && s[len(s)-1] != '.' && !strings.HasPrefix(s, "0000") && s != "05" {
				return s
			}
		}
	case n < 8:
		return pick(w, []string{"true", "false", "null", "null"})
	}
	return `"` + pick(w, jsonStrings) + `"`
}

func (w world) body() []byte {
	var s string
	switch n := w.IntN(20); {
	case n < 2:
		return nil
	case n < 6:
		var list []string
		for range 1 + w.IntN(8) {
			list = append(list, pick(w, words))
		}
		s = strings.Join(list, pick(w, []string{" ", "_", "-", ".", "\x00", "\n", "", "é"}))
	case n < 7:
		s = pick(w, nastyTexts)
	default:
		s = w.json(4)
		for w.IntN(5) > 0 && !strings.HasPrefix(s, "{") {
			s = w.json(4)
		}
	}
	switch w.IntN(40) {
	case 0:
		s = s[:w.IntN(len(s)+1)] // cut
	case 1:
		s += pick(w, []string{" x", "\x00", "{}", " ", ",", "\xff"})
	case 2:
		s = "\xef\xbb\xbf" + s
	case 3:
		i := w.IntN(len(s) + 1)
		s = s[:i] + pick(w, []string{"\xff", "\x00", "\\", "\"", "}", "timeout"}) + s[i:]
	}
	switch w.IntN(2000) {
	case 0:
		s = `{"pad":"` + strings.Repeat("x", 300<<10) + `","a":5,"total":"x"}`
	case 1:
		s = strings.Repeat("y", 70<<10) + " timeout"
	case 2:
		s = `{"a":` + strings.Repeat("[", 1200) + strings.Repeat("]", 1200) + `,"total":5}`
	case 3:
		s = `{"a":` + strings.Repeat("7", 300<<10)
	}
	return []byte(s)
}

func (w world) message(i int) *controlbus.MessageEvent {
	e := &controlbus.MessageEvent{
		Time: filterNow.Add(-time.Duration(w.Int64N(int64(40 * time.Hour)))).UnixNano(), TimeSource: controlbus.TimeSource(w.IntN(4)),
		Env: pick(w, []string{"prod", "test", "", "a'b"}), System: pick(w, []string{"nats", "rabbitmq"}), Broker: w.text(), Destination: w.text(),
		Op: controlbus.Op(w.IntN(7)), Outcome: controlbus.Outcome(w.IntN(6)), Service: w.text(), ConsumerGroup: w.text(), Partition: w.text(), RoutingKey: w.text(),
		Position: pick(w, []int64{-1, 0, 1, 5, 1 << 62, w.Int64N(100)}), Delivery: pick(w, []int{0, 1, 2, 3, 5, 65535, 70000, -1}),
		MessageID: w.text(), CorrelationID: w.text(), CausationID: w.text(), ReplyTo: w.text(), LatencyNs: pick(w, []int64{0, -1, 1, 5e6, 250e6, 1e9, 1<<63 - 1, w.Int64N(1e9)}),
		ErrorType: w.text(), DeadLetterSource: w.text(), DeadLetterReason: w.text(), ContentType: w.text(), ContentEncoding: w.text(),
		Body: w.body(), BodySize: pick(w, []int64{-1, 0, 1, 5, 1000, 100_000, 1 << 20, 1<<63 - 1}), BodyPolicy: controlbus.BodyPolicy(w.IntN(3)), Truncated: w.one(2),
		BodySHA256: w.text(), Tap: w.text(), GapBefore: pick(w, []int64{0, 0, 1, 5, -5, 1 << 40}),
	}
	binary.BigEndian.PutUint32(e.UID[:], w.Uint32())
	binary.BigEndian.PutUint32(e.UID[12:], uint32(i))
	e.AgentTime = e.Time + w.Int64N(2e9)
	switch w.IntN(30) {
	case 0:
		e.Time = 0
	case 1:
		e.AgentTime = 0
	case 2:
		e.Time += int64(1000 * 24 * time.Hour) // forged
	}
	if w.one(2) {
		e.TraceID = pick(w, [][16]byte{{1}, {0x5b, 0x8a}, {15: 1}})
		e.SpanID = pick(w, [][8]byte{{1}, {7: 9}, {}})
	}
	for range w.IntN(5) {
		v := pick(w, nastyTexts)
		if w.one(2) {
			v = pick(w, nastyNumbers)
		}
		e.Headers = append(e.Headers, controlbus.Header{Key: pick(w, headerNames), Value: v})
	}
	if w.one(500) {
		e.Headers = append(e.Headers, controlbus.Header{Key: "k", Value: strings.Repeat("é", 40<<10) + "Timeout"})
	}
	for range max(0, w.IntN(6)-3) {
		e.Redacted = append(e.Redacted, pick(w, nastyTexts))
	}
	return e
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func single(s string) string { return "'" + strings.ReplaceAll(valid(s), "'", "''") + "'" }
func double(s string) string { return `"` + strings.ReplaceAll(valid(s), `"`, `""`) + `"` }

// condition writes one comparison with a field.
func (w world) condition() string {
	fields := filter.Fields()
	f := pick(w, fields)
	if w.one(3) { // the difficult ones
		f = fields[len(fields)-1-w.IntN(3)]
	}
	name := f.Name
	not := pick(w, []string{" ", " NOT "})
	number := func() string {
		for {
			if s := pick(w, nastyNumbers); s != "" && s[0] != '.' && s[len(s)-1] != '.' && !strings.ContainsAny(s, "xXnNiI_+ \x00\n") && !strings.HasPrefix(s, "--") {
				if _, err := strconv.ParseFloat(s, 64); err == nil {
					return s
				}
			}
		}
	}
	text := func() string {
		for {
			if s := pick(w, nastyTexts); s != "" {
				return s
			}
		}
	}
	switch f.Type {
	case filter.Enum:
		return name + pick(w, []string{":", " = ", " != "}) + pick(w, f.Values)
	case filter.Bool:
		return name + pick(w, []string{":", " = ", " != "}) + pick(w, []string{"true", "false"})
	case filter.Hex:
		id := pick(w, []string{"01000000000000000000000000000000", "5b8a0000000000000000000000000000", "00000000000000000000000000000001"})
		if name == "span" {
			id = pick(w, []string{"0100000000000000", "0000000000000009"})
		}
		return pick(w, []string{name + ":" + id, name + " != " + id, name + " IN (" + id + ", " + id + ")", name + ":5b*", name + ":*1", name + " LIKE '_b%'", name + " ~ '^0+1$'", name + ":*"})
	case filter.Time:
		v := func() string {
			return pick(w, []string{"now", "now-1h", "now-20h", "2026-07-22", "2026-07-22T12:34:56.789Z", "now+1000d", "1970-01-02"})
		}
		return pick(w, []string{name + pick(w, []string{" > ", " < ", " >= ", " <= ", " != ", " = "}) + v(), name + not + "BETWEEN " + v() + " AND " + v(), name + ":*", name + " IN (" + v() + ", " + v() + ")"})
	case filter.Number, filter.Size, filter.Duration:
		v := func() string {
			return pick(w, []string{"0", "1", "3", "5", "2.5", "70000", "65535", "9223372036854775807", "-1", "-5", "1e3", "4611686018427387904", "4.611686018427387904e18"})
		}
		if f.Type == filter.Duration {
			v = func() string { return pick(w, []string{"0ns", "1ns", "5ms", "250ms", "1s", "0.5s", "100w"}) }
		} else if f.Type == filter.Size && w.one(2) {
			v = func() string { return pick(w, []string{"1kb", "100kb", "1mib", "1b"}) }
		}
		return pick(w, []string{name + pick(w, []string{" > ", " < ", " >= ", " <= ", " != ", " = ", ":"}) + v(), name + not + "BETWEEN " + v() + " AND " + v(), name + ":*", name + not + "IN (" + v() + ", " + v() + ")"})
	case filter.Body:
		word := valid(pick(w, words))
		switch w.IntN(8) {
		case 0:
			return "body:*"
		case 1:
			return name + pick(w, []string{" = ", " != "}) + single(string(w.body())+"x")
		case 2:
			return name + not + "LIKE " + w.like()
		case 3:
			return name + " ~ " + w.regexp()
		case 4:
			return name + not + "IN (" + single(text()) + ", " + single(text()) + ")"
		case 5:
			return "body:" + pick(w, []string{"*", ""}) + double(pick(w, []string{word, word + " " + valid(pick(w, words)), text(), word[:len(word)-1] + "x"})) + pick(w, []string{"*", ""})
		case 6:
			return double(word)
		}
		return double(word + pick(w, []string{" ", "_", "\x00", ".", "é"}) + valid(pick(w, words)))
	}
	values := text
	if f.Type == filter.Dynamic {
		if f.Name == "header." {
			name += double(pick(w, headerNames[:len(headerNames)-1]))
			if name == `header.""` {
				name = "header.k"
			}
		} else {
			name = "body"
			for range 1 + w.IntN(3) {
				if w.one(4) {
					name += "[" + strconv.Itoa(w.IntN(3)) + "]"
				} else {
					name += "." + double(pick(w, pathKeys))
				}
			}
			values = func() string {
				return pick(w, []string{"x", "5", "5.0", "timeout", "A-1", "true", "null", "1e3", "", "A", "\U0001F600", `back\slash`, "müller", "tab\t", "0", "-0"})
			}
		}
		if w.one(2) {
			return pick(w, []string{name + pick(w, []string{" > ", " < ", " >= ", " <= ", " != ", " = "}) + number(), name + not + "BETWEEN " + number() + " AND " + number(), name + not + "IN (" + number() + ", " + number() + ", " + single(values()) + ")"})
		}
	}
	switch w.IntN(7) {
	case 0:
		return name + ":*"
	case 1:
		v := values()
		i := w.IntN(len(v) + 1)
		return name + ":" + pick(w, []string{"*", ""}) + double(v[:i]) + "*" + pick(w, []string{"", double(v[i:]), double(v[i:]) + "*"})
	case 2:
		return name + not + "LIKE " + w.like()
	case 3:
		return name + " ~ " + w.regexp()
	case 4:
		return name + not + "IN (" + single(values()) + ", " + single(values()) + ")"
	case 5:
		return name + not + "BETWEEN " + single(values()) + " AND " + single(values())
	}
	return name + pick(w, []string{" = ", " != ", " < ", " <= ", " > ", " >= "}) + single(values())
}

func (w world) like() string {
	s := valid(pick(w, append(nastyTexts, words...)))
	r := []rune(s)
	for range 1 + w.IntN(2) {
		i := w.IntN(len(r) + 1)
		r = append(r[:i:i], append([]rune(pick(w, []string{"%", "_", "%%"})), r[min(len(r), i+w.IntN(2)):]...)...)
	}
	if s := string(r); !strings.Contains(s, "!") {
		return single(s) + pick(w, []string{"", " ESCAPE '!'"})
	}
	return single(string(r))
}

func (w world) regexp() string {
	return single(pick(w, []string{
		`timeout`, `(?i)TIMEOUT`, `^orders`, `new$`, `^orders\.(new|paid)$`, `\d+`, `^\d+$`, `[[:space:]]`, `\pL+\PL`, `(?i)müller`, `(?i)k`, `(?i)ſ`, `.`, `^.$`, `^..$`, `a.b`, `(?s)a.b`, `\x00`, `\bcard\b`, `^$`, `x*`, `[^a-z]`, `\p{Han}`,
		`(?m)^line$`, `(?m)^new$`, `\\`, `a|b`, `(a|b)+c?`, `^[A-Z]-\d$`, `�`, `[\x{fffd}]`, `\Qa'b\E`, `'`, `(?i)com\.ACME`, `^\s`, `\s$`, `\S{5,}`, `\w+\W\w+`, `(?U)a.*b`, `[é日]`, `\z`, `\A5`, `5\z`, `(?:timeout){1,3}`, `[0-9]{3,5}`, `\t`, `^(?:a|\d)*$`,
	}))
}

func (w world) filter(depth int) string {
	if depth == 0 || w.one(3) {
		if w.one(8) {
			return pick(w, []string{"timeout", "card*", "*out", "declined", "5", "-timeout"})
		}
		return w.condition()
	}
	switch w.IntN(5) {
	case 0:
		return "NOT (" + w.filter(depth-1) + ")"
	case 1, 2:
		return "(" + w.filter(depth-1) + " OR " + w.filter(depth-1) + ")"
	}
	return w.filter(depth-1) + pick(w, []string{" ", " AND "}) + w.filter(depth-1)
}

func shown(e *controlbus.MessageEvent) string {
	c := *e
	c.Body = nil
	return brief(fmt.Sprintf("body %.500q %+v", e.Body, c))
}

// The store and Match must agree on every pair of a filter and a message.
func TestFilterAsMatch(t *testing.T) {
	t.Parallel()
	messages, filters, seed := 20_000, 200, uint64(20260723)
	if os.Getenv("SIGNALBOX_SOAK") == "1" {
		filters, seed = 5000, rand.Uint64()
	}
	if testing.Short() {
		messages, filters = 2000, 60
	}
	t.Logf("seed %d", seed)
	w := world{rand.New(rand.NewPCG(seed, 1))}
	s := openInternal(t, nil)
	events := make([]*controlbus.MessageEvent, messages)
	b := s.NewBatch()
	for i := range events {
		events[i] = w.message(i)
		b.AppendMessage(events[i])
		if b.Bytes() > 16<<20 || i == len(events)-1 {
			if err := s.Write(t.Context(), fmt.Sprint("filter-", i), b); err != nil {
				t.Fatal(err)
			}
			b.Reset()
		}
	}
	var pairs, refused, exact, candidates, matches, failures int
	for n := range filters {
		text := w.filter(n % 4)
		f, err := filter.Parse(text, filterNow)
		if err != nil {
			if refused++; refused > filters/4 {
				t.Fatalf("filter %q: %v", text, err)
			}
			continue
		}
		sql := f.SQL(filter.SQLOptions{Prefix: "f", HeaderItems: n%2 == 0, Bodies: func(cond string, shared []string) string {
			return s.sql("uid IN (SELECT uid FROM @db.bodies WHERE " + strings.Join(append(slices.Clone(shared), cond), "\n AND ") + ")")
		}})
		q := newSelection(s.sql("SELECT uid\nFROM @db.messages\nWHERE"))
		for _, c := range sql.Conditions {
			q.where(c)
		}
		for _, p := range sql.Params {
			q.bind(p.Name, p.Value)
		}
		q.set("precise_float_parsing", 1)
		rows, err := collect[struct {
			UID string `ch:"uid"`
		}](t.Context(), s, nil, q)
		if err != nil {
			t.Errorf("filter %s\n%v\n%s\n%v", text, err, q, sql.Params)
			if failures++; failures > 10 {
				t.FailNow()
			}
			continue
		}
		got := make([]bool, len(events))
		for _, r := range rows {
			got[binary.BigEndian.Uint32([]byte(r.UID[12:]))] = true
		}
		for i, e := range events {
			want := f.Match(e)
			pairs++
			if want && !sql.Exact {
				matches++
			}
			if got[i] == want || got[i] && !sql.Exact {
				continue
			}
			t.Errorf("filter %s\nmessage %s\nstore says %v, Match %v; exact %v\n%s\n%v", text, shown(e), got[i], want, sql.Exact, strings.Join(sql.Conditions, "\nAND "), sql.Params)
			if failures++; failures > 10 {
				t.FailNow()
			}
			break
		}
		if sql.Exact {
			exact++
		} else {
			candidates += len(rows)
		}
	}
	t.Logf("%d pairs, %d filters refused, %d of %d exact in the store, %d matches among %d candidates of the others", pairs, refused, exact, filters-refused, matches, candidates)
	if exact < filters/4 {
		t.Errorf("only %d of %d filters are exact in the store", exact, filters)
	}
	if candidates > 2*matches+messages {
		t.Errorf("%d candidates for %d matches: the store leaves too much to Match", candidates, matches)
	}
}

// A search with a filter finds just what Match matches, page by page.
func TestSearchWithFilter(t *testing.T) {
	t.Parallel()
	w := world{rand.New(rand.NewPCG(7, 7))}
	s := openInternal(t, nil)
	events := make([]*controlbus.MessageEvent, 1500)
	b := s.NewBatch()
	for i := range events {
		events[i] = w.message(i)
		b.AppendMessage(events[i])
	}
	if err := s.Write(t.Context(), "filter", b); err != nil {
		t.Fatal(err)
	}
	texts := []string{
		`channel:orders.*`, `channel:*\*`, `channel:"*star*"`, `id:orders.new`, `correlation:"a'b" timeout`, `trace:5b8a0000000000000000000000000000 -timeout`, `failed:true timeout OR card*`, `NOT timeout`,
		`body.total > 3`, `NOT body.a:*`, `body.a:* header.k:*`, `time > now-2h`, `time BETWEEN now-20h AND now-3h body.a > 0`, `body:* NOT body.a = 5`, `uid:` + events[17].UID.String() + ` body:*`,
		`time > now+5d`, `env:prod env:test`, `service:o* service:*s`, `id:orders.new id:o`,
	}
	for range 6 {
		texts = append(texts, w.filter(3))
	}
	for n, text := range texts {
		f, err := filter.Parse(text, filterNow)
		if err != nil {
			if n < 19 {
				t.Errorf("%s: %v", text, err)
			}
			continue
		}
		want := map[controlbus.ID]bool{}
		for _, e := range events {
			if f.Match(e) {
				want[e.UID] = true
			}
		}
		whole := storage.TimeRange{From: filterNow.Add(-49 * time.Hour), To: filterNow.Add(48 * time.Hour)}
		q := storage.MessageQuery{Range: whole, Filter: f, Limit: []int{1000, 7, 300}[n%3], Order: storage.Order(n % 2), Snippets: n%5 == 0}
		if n%4 == 3 && n > 15 {
			q.BodyWord = "a"
			for _, e := range events {
				if !strings.Contains(strings.ToLower(string(e.Body)), "a") {
					delete(want, e.UID)
				}
			}
		}
		got := map[controlbus.ID]bool{}
		last := int64(0)
		for pages := 0; ; pages++ {
			if q.Limit == 7 && pages == 5 {
				q.Limit = 1000
			}
			p, err := s.Messages(t.Context(), q)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			for _, m := range p.Messages {
				if got[m.UID] {
					t.Errorf("%s: message %v is on two pages", text, m.UID)
				}
				got[m.UID] = true
				if m.Body != nil {
					t.Errorf("%s: a list carries bodies", text)
				}
				if last != 0 && m.Time != last && (m.Time < last) != (q.Order == storage.NewestFirst) {
					t.Errorf("%s: not in order", text)
				}
				last = m.Time
			}
			if p.Next == "" {
				break
			}
			q.Cursor = p.Next
		}
		missing, extra := 0, 0
		for id := range want {
			if !got[id] {
				missing++
			}
		}
		for id := range got {
			if !want[id] {
				extra++
			}
		}
		if missing+extra > 0 {
			t.Errorf("%s: of %d messages %d are missing, and %d are found that do not match", text, len(want), missing, extra)
		}
		h, err := s.Histogram(t.Context(), storage.MessageQuery{Filter: f, BodyWord: q.BodyWord, Range: whole}, time.Hour)
		if err != nil {
			t.Fatalf("%s: histogram: %v", text, err)
		}
		in := uint64(len(want))
		if !(storage.MessageQuery{Filter: f, BodyWord: q.BodyWord}).Summed() && (h.Messages < in || h.Messages > in && !h.AtMost) {
			t.Errorf("%s: the histogram counts %d of %d messages, at most: %v", text, h.Messages, in, h.AtMost)
		}
	}
}

// What Parse takes the store takes too.
func TestLargestFilters(t *testing.T) {
	t.Parallel()
	s := openInternal(t, nil)
	w := world{rand.New(rand.NewPCG(3, 3))}
	events := make([]*controlbus.MessageEvent, 200)
	b := s.NewBatch()
	for i := range events {
		events[i] = w.message(i)
		b.AppendMessage(events[i])
	}
	if err := s.Write(t.Context(), "largest", b); err != nil {
		t.Fatal(err)
	}
	path := "body" + strings.Repeat(".a", 16) + "=1"
	for name, text := range map[string]string{
		"paths":       strings.TrimSuffix(strings.Repeat(path+" OR ", filter.MaxLength/(len(path)+4)), " OR "),
		"words":       strings.Repeat("a ", 255),
		"phrases":     strings.TrimSuffix(strings.Repeat(`"a b" OR `, 250), " OR "),
		"long phrase": double(strings.Repeat("é", 250)),
		"headers":     strings.TrimSuffix(strings.Repeat("h=1 OR ", 250), " OR "),
		"depth":       strings.Repeat("(a NOT ", 15) + "b" + strings.Repeat(")", 15),
		"list":        "channel IN (" + strings.Repeat("a,", 250) + "b)",
		"expressions": strings.Repeat(`body ~ '(a|b){20}' `, 200),
		"classes":     strings.TrimSuffix(strings.Repeat(`channel ~ '(?i)[\pL\pN]{3}' OR `, 3), " OR "),
		"mixed":       strings.TrimSuffix(strings.Repeat("(a OR h=1 -body.x>1 OR size>1) ", 30), " "),
	} {
		f, err := filter.Parse(text, filterNow)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		begin := time.Now()
		// The store understood it, if it began to look.
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		p, err := s.Messages(ctx, storage.MessageQuery{Filter: f, Limit: 1000, Range: storage.TimeRange{From: filterNow.Add(-49 * time.Hour), To: filterNow.Add(time.Hour)}})
		cancel()
		if err != nil {
			t.Errorf("%s: %.600s", name, err)
			continue
		}
		want := 0
		for _, e := range events {
			if f.Match(e) {
				want++
			}
		}
		t.Logf("%s: %d messages in %v", name, want, time.Since(begin))
		if len(p.Messages) != want && p.Scan.Stopped == storage.StopEnd {
			t.Errorf("%s: %d messages, want %d", name, len(p.Messages), want)
		}
	}
}
