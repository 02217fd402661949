package filter

import (
	"testing"
	"time"
)

func TestFixed(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 23, 10, 15, 30, 0, time.UTC)
	for text, want := range map[string]string{
		"":                      "",
		"time >= now-15m":       "time >= 2026-07-23T10:00:30Z",
		"x (time < now OR y)":   "x AND (time < 2026-07-23T10:15:30Z OR y)",
		"time = 2026-07-23 foo": "time = 2026-07-23T00:00:00Z AND foo",
	} {
		f, err := Parse(text, now)
		if err != nil {
			t.Fatal(err)
		}
		before := f.String()
		got := f.Fixed().String()
		if got != want || f.String() != before {
			t.Errorf("%q: got %q, want %q; the filter itself is %q now", text, got, want, f.String())
		}
		later, err := Parse(got, now.Add(time.Hour))
		if err != nil || later.String() != want {
			t.Errorf("%q read an hour later: %v, %v", got, later, err)
		}
	}
}
