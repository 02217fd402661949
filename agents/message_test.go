package agents

import (
	"strings"
	"testing"
)

// A producer nests lists as deep as a frame has room for: each level's name has
// those above it, so that all of them would be a gigabyte.
func TestDeepHeaders(t *testing.T) {
	t.Parallel()
	var v any = "x"
	for range 25_000 {
		v = []any{v}
	}
	got := AppendText(nil, "h", v)
	if len(got) != 1 || got[0].Value != "…" || got[0].Key != "h"+strings.Repeat("[0]", maxNested) {
		t.Errorf("got %d headers, the first %.200q", len(got), got)
	}
	if got = AppendText(nil, "h", []any{map[string]any{"a": int32(1)}}); len(got) != 1 || got[0].Key != "h[0].a" || got[0].Value != "1" {
		t.Errorf("got %+v", got)
	}
}
