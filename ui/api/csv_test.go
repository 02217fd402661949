package api

import (
	"encoding/csv"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzCell takes what a producer may write: no cell is a formula, and what was
// written is still in it.
func FuzzCell(f *testing.F) {
	for _, s := range []string{"", "plain", "=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "\xff=1", "'=1", `"=1"`, ",=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := cell(s)
		if c != "" && strings.ContainsRune("=+-@\t\r\n", rune(c[0])) || !utf8.ValidString(c) || !strings.HasSuffix(c, strings.ToValidUTF8(s, "\uFFFD")) {
			t.Fatalf("cell of %q: %q", s, c)
		}
		var b strings.Builder
		w := csv.NewWriter(&b)
		_ = w.Write([]string{"x", c, "y"}) // into memory
		w.Flush()
		rows, err := csv.NewReader(strings.NewReader(b.String())).ReadAll()
		if err != nil || len(rows) != 1 || len(rows[0]) != 3 || rows[0][1] != strings.ReplaceAll(c, "\r\n", "\n") {
			t.Fatalf("%q comes back as %q (%v)", c, rows, err)
		}
	})
}
