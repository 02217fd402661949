package filter

import (
	"slices"
	"strings"
	"testing"
)

func TestComplete(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text  string // | is the cursor
		start int
		end   int
		first string // item
		has   []string
		field string // whose values are wanted
		pre   string
	}{
		{text: "|", first: "channel:", has: []string{"header.", "NOT "}},
		{text: "ch|", end: 2, first: "channel:"},
		{text: "qu|", end: 2, first: "channel:"},
		{text: "chan|nel:x", end: 7, first: "channel:"},
		{text: "timeout |", start: 8, end: 8, has: []string{"AND ", "OR ", "NOT "}},
		{text: "timeout A|", start: 8, end: 9, first: "attempts:", has: []string{"AND "}},
		{text: "timeout AND|", start: 8, end: 11, first: "AND "},
		{text: "timeout AND |", start: 12, end: 12, first: "channel:"},
		{text: "(|", start: 1, end: 1, first: "channel:"},
		{text: "-fa|", start: 1, end: 3, first: "failed:"},
		{text: "attempts |", start: 9, end: 9, first: "= ", has: []string{"> ", "IN ", "BETWEEN ", "AND "}},
		{text: "attempts BET|", start: 9, end: 12, first: "BETWEEN "},
		{text: "attempts BETWEEN 1 |", start: 19, end: 19, first: "AND "},
		{text: "outcome:|", start: 8, end: 8, first: "ok", has: []string{"failed", "dead_lettered"}},
		{text: "outcome:de|", start: 8, end: 10, first: "dead_lettered", has: []string{"detoured"}},
		{text: "outcome IN (ok, f|", start: 16, end: 17, first: "failed"},
		{text: "failed:t|", start: 7, end: 8, first: "true"},
		{text: "channel:ord| x", start: 8, end: 11, field: "channel", pre: "ord"},
		{text: "channel:|", start: 8, end: 8, field: "channel"},
		{text: `queue:"my or|`, start: 6, end: 12, field: "channel", pre: "my or"},
		{text: "service IN (a,|", start: 14, end: 14, field: "service"},
		{text: "x channel = o|", start: 12, end: 13, field: "channel", pre: "o"},
		{text: "header.x-t|", end: 10, field: "header.", pre: "x-t"},
		{text: "time > |", start: 7, end: 7, first: "now-15m"},
		{text: "latency:>|", start: 9, end: 9, first: "100ms"},
		{text: `"a phrase |`, end: 10},
		{text: "id:|", start: 3, end: 3},
	} {
		cursor := strings.Index(tc.text, "|")
		got := Complete(strings.Replace(tc.text, "|", "", 1), cursor)
		var items []string
		for _, i := range got.Items {
			items = append(items, i.Text)
		}
		ok := got.Start == tc.start && got.End == tc.end && got.Field == tc.field && got.Prefix == tc.pre && (tc.first == "" || len(items) > 0 && items[0] == tc.first)
		for _, h := range tc.has {
			ok = ok && slices.Contains(items, h)
		}
		if !ok {
			t.Errorf("%s: replaces %d to %d with %q, wants values of %q beginning with %q", tc.text, got.Start, got.End, items, got.Field, got.Prefix)
		}
	}
}

func FuzzComplete(f *testing.F) {
	for _, s := range []string{"a channel:x OR", `header."x y" IN (a, b) AND body.a[0] = 1`, "time BETWEEN now-1h AND now", "NOT -x"} {
		f.Add(s, len(s)/2)
	}
	f.Fuzz(func(t *testing.T, text string, cursor int) {
		c := Complete(text, cursor)
		if c.Start < 0 || c.Start > c.End || c.End > len(text) {
			t.Errorf("%q at %d: replaces %d to %d", text, cursor, c.Start, c.End)
		}
	})
}
