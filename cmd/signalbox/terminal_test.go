package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/ui/component"
)

// FuzzTerminal writes what a producer may write, in every format: nothing that
// steers a terminal leaves, and JSON stays the JSON it was.
func FuzzTerminal(f *testing.F) {
	for _, s := range []string{"plain", "\x1b]0;x\x07", "\u202egpj.exe", "\u009b31m", "\xff\xfe", "a\nb\tc\r", "\U000e0001é漢\\\"", "\x7f\u2028\ufeff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var out strings.Builder
		term := &terminal{out: &out, tty: true}
		harmless := func(what string) {
			t.Helper()
			for _, r := range out.String() {
				if r != '\n' && r != '\t' && component.Visible(string(r)) != string(r) && r != utf8.RuneError {
					t.Fatalf("%s of %q has %U: %q", what, s, r, out.String())
				}
			}
		}
		raw, err := marshal(map[string]string{"v": s})
		if err != nil {
			t.Fatal(err)
		}
		term.json(raw)
		harmless("JSON")
		var want, got map[string]string
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got["v"] != want["v"] {
			t.Fatalf("JSON of %q: got %q (%v), want %q", s, got["v"], err, want["v"])
		}
		out.Reset()
		term.text(s)
		harmless("text")
		out.Reset()
		tb := term.table("A", "B")
		tb.add(s, painted{s, red})
		tb.flush()
		harmless("table")
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Fatalf("a row of %q takes %d lines", s, n-1)
		}
	})
}
