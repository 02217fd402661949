package messages

import (
	"context"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/decode"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
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

func FuzzTerm(f *testing.F) {
	f.Add("a\"b c:d")
	f.Add("x* 'y' AND (")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || len(s) > 1000 {
			return
		}
		got, err := filter.Parse(Term("channel", s), time.Time{})
		if err != nil {
			t.Fatalf("a link with channel %q: %v", s, err)
		}
		if !got.Match(&controlbus.MessageEvent{Destination: s}) && s != "" || got.Match(&controlbus.MessageEvent{Destination: s + "x"}) {
			t.Fatalf("a link with channel %q reads back as %s", s, got)
		}
	})
}

func TestPositionsAreInUTF16(t *testing.T) {
	t.Parallel()
	const s = "aü💥\xff z"
	for n, want := range []int{0, 1, 3, 7, 7, 8, 9, 10, 10} {
		if got := offset(s, n); got != want {
			t.Errorf("offset %d: got %d, want %d", n, got, want)
		}
	}
	if got := units(s); got != 7 {
		t.Errorf("%d units, want 7", got)
	}
}
