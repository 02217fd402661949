package filter

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// genNode makes a tree that Parse could have made.
func genNode(t *rapid.T, depth int) string {
	if depth > 0 {
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0:
			return "NOT (" + genNode(t, depth-1) + ")"
		case 1:
			return "(" + genNode(t, depth-1) + " OR " + genNode(t, depth-1) + ")"
		case 2:
			return "(" + genNode(t, depth-1) + " " + genNode(t, depth-1) + ")"
		}
	}
	text := func() string {
		return "'" + strings.ReplaceAll(rapid.StringN(1, 20, 60).Draw(t, "text"), "'", "''") + "'"
	}
	name := rapid.SampledFrom([]string{"channel", "service", "id", "header.x-tenant", `header."odd ""name"""`, "body.total", `body."a b"[3].c`, "redacted"}).Draw(t, "name")
	switch rapid.IntRange(0, 10).Draw(t, "leaf") {
	case 0:
		return `"` + strings.ReplaceAll(rapid.StringN(1, 20, 60).Draw(t, "word"), `"`, `""`) + `"`
	case 1:
		return name + rapid.SampledFrom([]string{" = ", " != ", " < ", " >= "}).Draw(t, "op") + text()
	case 2:
		return name + " IN (" + text() + ", " + text() + ")"
	case 3:
		return name + ":" + `"` + strings.ReplaceAll(rapid.String().Draw(t, "a"), `"`, `""`) + `"*"` + strings.ReplaceAll(rapid.StringN(1, 9, 30).Draw(t, "b"), `"`, `""`) + `"`
	case 4:
		return name + " LIKE " + text()
	case 5:
		n := rapid.Int64().Draw(t, "n")
		return rapid.SampledFrom([]string{"attempts", "size", "position", "header.n", "body.n"}).Draw(t, "numeric") + fmt.Sprintf(" BETWEEN %d AND %g", n, rapid.Float64Range(-1e300, 1e300).Draw(t, "f"))
	case 6:
		return "latency > " + time.Duration(rapid.Int64Range(0, 1<<62).Draw(t, "d")).Round(time.Millisecond).String()
	case 7:
		return "time > " + time.Unix(0, rapid.Int64Range(0, 4e18).Draw(t, "t")).UTC().Format(time.RFC3339Nano)
	case 8:
		return rapid.SampledFrom([]string{"failed:true", "truncated = false", "outcome:dead*", "op != send", "trace:5b*", "channel:*", "NOT body:*", "time < now-1h30m", "size:>10kb", "*out", "body:*x*"}).Draw(t, "fixed")
	case 9:
		return "uid = " + controlbus.HashID(rapid.String().Draw(t, "id")).String()
	}
	return name + " ~ '" + rapid.SampledFrom([]string{"a+b", "(?i)x|y", `^\d{3}$`, `\pL`, "(?s)a.b", "''"}).Draw(t, "re") + "'"
}

func TestPrintedFilterIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := genNode(t, 3)
		f, err := Parse(text, testNow)
		if err != nil {
			t.Skip(err)
		}
		printed := f.String()
		again, err := Parse(printed, testNow)
		var e *Error
		if errors.As(err, &e) && len(printed) > MaxLength {
			return
		}
		if err != nil {
			t.Fatalf("%q printed %q: %v", text, printed, err)
		}
		if diff := treeDiff(f, again); diff != "" {
			t.Fatalf("%q printed %q: %s", text, printed, diff)
		}
		if again.String() != printed {
			t.Fatalf("%q printed %q and then %q", text, printed, again.String())
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`timeout channel:orders.* (attempts > 3 OR size >= 100kb) NOT header.x-tenant = 'acme' body.total BETWEEN 100 AND 5000 time > now-15m`,
		`order_type IN ('premium','express') AND region LIKE 'EU-%' ESCAPE '!' OR -x`, `a ~ '(?i)b' trace:5b* "a ""b""" body."k"[0]:*"x"*`,
		`failed:true outcome:dead* latency BETWEEN 1s AND 1h30m body:*x* x IS NOT NULL`, "body = '\x00' header.'a''b' <> 1e5",
	} {
		f.Add(s)
	}
	e := sample()
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text, testNow)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, controlbus.ErrInvalid) || e.Pos < 0 || e.Len < 0 || e.Pos+e.Len > len(text) || e.Msg == "" {
				t.Fatalf("%q: %#v", text, err)
			}
			return
		}
		p.Match(e)
		p.Match(&controlbus.MessageEvent{})
		_ = p.Explain()
		_, _, _ = p.Selector()
		printed := p.String()
		again, err := Parse(printed, testNow)
		if err != nil {
			if len(printed) > MaxLength/2 {
				return // longer than it was written
			}
			t.Fatalf("%q printed %q: %v", text, printed, err)
		}
		if diff := treeDiff(p, again); diff != "" {
			t.Fatalf("%q printed %q: %s", text, printed, diff)
		}
		checkShape(t, p)
	})
}

// shaped is the filter with other values of the same kinds.
func shaped(n *node) *node {
	c := *n
	c.kids = nil
	for _, k := range n.kids {
		c.kids = append(c.kids, shaped(k))
	}
	c.name = "other"
	c.path = nil
	for _, s := range n.path {
		if s.index >= 0 {
			s.index = 7
		}
		s.key = "other"
		c.path = append(c.path, s)
	}
	c.vals = nil
	for _, v := range n.vals {
		switch v.kind {
		case kindText:
			v.text = "other"
		case kindInt, kindTime:
			v.num, v.f = smallInt(7), 7
		case kindFloat:
			v.f = 7.5
		case kindID:
			v.text = strings.Repeat("x", len(v.text))
		case kindWild:
			v.parts = []string{"no", "ne"}
		case kindWord:
			if newWord(&v).single() { // a word and a phrase are two shapes
				v.text = "other"
			} else {
				v.text = "no ne"
			}
		case kindLike, kindRegexp:
			v.re = &pattern{source: "other", re: regexp.MustCompile("other")}
		}
		c.vals = append(c.vals, v)
	}
	return &c
}

func checkShape(t interface{ Fatalf(string, ...any) }, p *Filter) {
	if p.Empty() {
		return
	}
	for _, o := range []SQLOptions{{}, {HeaderItems: true, Prefix: "f"}} {
		got := p.SQL(o)
		want := (&Filter{root: shaped(p.root)}).SQL(o)
		if g, w := strings.Join(got.Conditions, "\n"), strings.Join(want.Conditions, "\n"); g != w || got.Exact != want.Exact || len(got.Params) != len(want.Params) {
			t.Fatalf("%q: the text depends on the values\n%s\n%s", p, g, w)
		}
		names := map[string]bool{}
		text := strings.Join(got.Conditions, "\n")
		for _, param := range got.Params {
			if names[param.Name] || !strings.Contains(text, "{"+param.Name+":"+param.Type+"}") {
				t.Fatalf("%q: parameter %s is given twice or not used in\n%s", p, param.Name, text)
			}
			names[param.Name] = true
		}
		for _, m := range regexp.MustCompile(`\{(\w+):\w+\}`).FindAllStringSubmatch(text, -1) {
			if !names[m[1]] {
				t.Fatalf("%q: parameter %s has no value", p, m[1])
			}
		}
	}
}

func TestSQLDependsOnShapeOnly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f, err := Parse(genNode(t, 3), testNow)
		if err != nil {
			t.Skip(err)
		}
		checkShape(t, f)
	})
}

func TestSelector(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                       ``,
		`id:x`:                   `JMSMessageID = 'x'`,
		`correlation != 'it''s'`: `JMSCorrelationID <> 'it''s'`,
		`order_type IN ('premium','express') AND header.total BETWEEN 100 AND 5000 AND region LIKE 'EU-%'`: `(order_type IN ('premium', 'express') AND (total >= 100 AND total <= 5000) AND region LIKE 'EU-%')`,
		`NOT (region = 'EU' OR region IS NULL)`:                           `NOT ((region IS NOT NULL AND region = 'EU') OR NOT region IS NOT NULL)`,
		`region:E_*%x`:                                                    `region LIKE 'E!_%!%x' ESCAPE '!'`,
		`header.n IN (1, 'a') -header.n > 5`:                              `((n = 1 OR n = 'a') AND NOT (n IS NOT NULL AND n > 5))`,
		`time > 2026-07-23T12:00:00Z time < 2026-07-23T12:00:00.0000001Z`: `(JMSTimestamp > 1784808000000 AND JMSTimestamp < 1784808000001)`,
	} {
		f, err := Parse(text, testNow)
		if strings.HasPrefix(text, "region:") {
			f, err = Parse("header."+text, testNow)
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, _, err := f.Selector()
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", text, got, err, want)
		}
	}
	for text, why := range map[string]string{
		`timeout`: "bodies", `body.a = 1`: "bodies", `channel:x`: "no such field", `header.x-tenant = 'a'`: "identifier", `header.NOT = 'a'`: "identifier", `header.a ~ 'x'`: "regular", `header.a > 'x'`: "numbers only",
		`time = 2026-07-23T12:00:00.0000001Z`: "milliseconds", `id:x OR env:y OR timeout`: "env = 'y'",
	} {
		f, err := Parse(text, testNow)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, _, err := f.Selector(); !errors.Is(err, controlbus.ErrUnsupported) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: got %s, %v; want an error about %s", text, got, err, why)
		}
	}
	f, err := Parse("header.n > 5 time > now", testNow)
	if err != nil {
		t.Fatal(err)
	}
	if _, notes, _ := f.Selector(); len(notes) != 2 {
		t.Errorf("notes: %q", notes)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``: `everything`,
		`timeout channel:orders.* (attempts > 3 OR size >= 100kb) NOT header.x-tenant = 'acme' time > now-15m`: `the body has the word “timeout”, and channel matches orders.*, and (attempts is over 3 or size is at least 100kb), and header x-tenant is not acme, and time is after now-15m (2026-07-23 11:45:00 UTC)`,
		`"card declined" -*out card*`: `the body has “card declined”, and the body does not have a word ending in “out”, and the body has a word beginning with “card”`,
		`NOT (a OR b)`:                `not (the body has the word “a” or the body has the word “b”)`,
		`reply_to IS NULL`:            `there is no reply_to`,
		`error:*`:                     `there is an error`,
		`body:*`:                      `there is the body`,
		`failed:true`:                 `it did not end well`,
		`NOT failed:true`:             `it ended well`,
		`failed != false`:             `it did not end well`,
		`channel IN (a, b, c)`:        `channel is a, b or c`,
		`channel != 'x y'`:            `channel is there and is not “x y”`,
		"id = 'a\x1b\u202eb'":         `id is “a\x1b\u202eb”`,
		`latency BETWEEN 1s AND 90s`:  `latency is from 1s to 90s`,
		`NOT attempts > 3`:            `not: attempts is over 3`,
		`body.items[0].sku ~ '^A'`:    `body.items[0].sku matches the expression “^A”`,
		`time BETWEEN 2026-07-23 AND 2026-07-24T01:02:03.5Z`: `time is from 2026-07-23 00:00:00 UTC to 2026-07-24 01:02:03.5 UTC`,
	} {
		f, err := Parse(text, testNow)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := f.Explain(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestTakeAndBounds(t *testing.T) {
	t.Parallel()
	f, err := Parse(`id:x channel:a* timeout time >= now-1h time < now failed:true trace:5b8aa5a2d2c872e8321cf37308d69df2 channel:*b NOT env:y (service:a OR service:b)`, testNow)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	rest := f.Take(func(field, value string) bool {
		if got[field] != "" {
			return false
		}
		got[field] = value
		return true
	})
	if got["id"] != "x" || got["channel"] != "a*" || got["failed"] != "true" || got["trace"] != "5b8aa5a2d2c872e8321cf37308d69df2" || len(got) != 4 {
		t.Errorf("offered %v", got)
	}
	if want := `timeout AND time >= now-1h AND time < now AND channel:*b AND NOT env = 'y' AND (service = 'a' OR service = 'b')`; rest.String() != want {
		t.Errorf("rest: got %s, want %s", rest, want)
	}
	if from, to := rest.Bounds(); from != testNow.Add(-time.Hour).UnixNano() || to != testNow.UnixNano() {
		t.Errorf("bounds %d to %d", from, to)
	}
	for _, text := range []string{`channel = 'a*b'`, `channel:"*"x*`, `id:x OR id:y`, `NOT id:x`, `failed:false`, `id:x*`} {
		f, err := Parse(text, testNow)
		if err != nil {
			t.Fatal(err)
		}
		f.Take(func(field, value string) bool { t.Errorf("%s: offers %s %s", text, field, value); return true })
	}
	var none *Filter
	if none.Take(nil) != nil {
		t.Error("nothing has a rest")
	}
}

// The search for words against the rule that it implements.
func TestWordsAgainstTheRule(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.SampledFrom([]byte("aAbBtTkKqz 5_.\xc3\x00"))
		text := string(rapid.SliceOfN(letters, 1, 9).Draw(t, "word"))
		body := string(rapid.SliceOfN(letters, 0, 60).Draw(t, "body"))
		if rapid.Bool().Draw(t, "in") {
			at := rapid.IntRange(0, len(body)).Draw(t, "at")
			body = body[:at] + strings.ToUpper(text) + body[at:]
		}
		v := &value{kind: kindWord, text: text, open: [2]bool{rapid.Bool().Draw(t, "left"), rapid.Bool().Draw(t, "right")}}
		want := false
		for i := 0; i+len(text) <= len(body); i++ {
			j := i + len(text)
			if lowerASCII(body[i:j]) == lowerASCII(text) &&
				(v.open[0] || i == 0 || !tokenByte(text[0]) || !tokenByte(body[i-1])) &&
				(v.open[1] || j == len(body) || !tokenByte(text[len(text)-1]) || !tokenByte(body[j])) {
				want = true
			}
		}
		if got := newWord(v).in(body); got != want {
			t.Fatalf("%q, open %v, in %q: got %v, want %v", text, v.open, body, got, want)
		}
	})
}

func TestLongWords(t *testing.T) {
	t.Parallel()
	for _, n := range []int{254, 255, 256, 257, 511, 512} {
		text := strings.Repeat("ea", n/2) + strings.Repeat("o", n%2)
		f, err := Parse(text, testNow)
		if err != nil {
			t.Fatal(err)
		}
		e := &controlbus.MessageEvent{Body: []byte(strings.Repeat("ae", 400) + " " + strings.ToUpper(text) + ".")}
		if !f.Match(e) {
			t.Errorf("a word of %d bytes is not found", n)
		}
		e.Body = e.Body[:len(e.Body)-2]
		if f.Match(e) {
			t.Errorf("a word of %d bytes is found where one byte is missing", n)
		}
	}
}
