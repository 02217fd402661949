package messages

import (
	"context"
	"strings"
	"testing"

	"github.com/signalbox-dev/signalbox/controlbus/decode"
	"github.com/signalbox-dev/signalbox/storage"
)

func TestLineMakesTextVisibleAndMarksWhatIsNotTheBodys(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	l := decode.Line{Parts: []decode.Part{{Kind: decode.Plain, Text: "  "}, {Kind: decode.Key, Text: `"<a>"`}, {Kind: decode.Plain, Text: ": "}, {Kind: decode.Masked, Text: `"***"`}, {Kind: decode.String, Text: "a\u202eb\x00"}, {Kind: decode.Remark, Text: " cut here"}}}
	if err := line(l).Render(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	want := `  <span class="k">&#34;&lt;a&gt;&#34;</span>: <span class="masked">masked at the agent</span><span class="str">a⟨U+202E⟩b␀</span><span class="remark"> cut here</span>`
	if b.String() != want {
		t.Errorf("got  %s\nwant %s", b.String(), want)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	var q storage.MessageQuery
	reads, err := Parse(`channel:orders.* header.x-tenant:acme failed correlation:"a b" card declined`, &q)
	if err != nil {
		t.Fatal(err)
	}
	if q.Channel != "orders.*" || q.HeaderName != "x-tenant" || q.HeaderValue != "acme" || !q.FailedOnly || q.CorrelationID != "a b" || q.BodyWord != "card declined" {
		t.Errorf("got %+v", q)
	}
	if want := "channel matches orders.*, and header x-tenant is acme, and it did not end well, and correlation is a b, and body has “card declined”"; reads != want {
		t.Errorf("got %q, want %q", reads, want)
	}
	for _, bad := range []string{`chanel:x`, `channel:`, `"open`, `channel:a channel:b`, `trace:123`, `header.:x`, `body:a b`} {
		if _, err := Parse(bad, &storage.MessageQuery{}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`channel:orders.* "a b" x=1 header.a=b`)
	f.Add(Term("correlation", "a\"b c:d"))
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = Parse(s, &storage.MessageQuery{})
		if strings.ContainsAny(s, "\"\n\r\v\f") || strings.TrimSpace(s) == "" {
			return
		}
		var q storage.MessageQuery
		if _, err := Parse(Term("channel", s), &q); err != nil || q.Channel != s {
			t.Fatalf("a link with channel %q reads back as %q: %v", s, q.Channel, err)
		}
	})
}
