package livetap

import (
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// What the page's patterns and filter select is what its search selects.
func TestTogetherSaysWhatPatternsAndFilterSay(t *testing.T) {
	t.Parallel()
	names := []string{"orders.new", "orders", "a b", `q"uote`, "paren)", "star*", "OR", "x:y", "ä", "-", "", "payments"}
	texts := []string{"", "failed:true", "tea OR failed:true", "NOT tea"}
	sets := [][]string{nil, {"orders.*"}, {"a b"}, {`q"uote`, "paren)"}, {"*"}, {"*)*", "x:y", "ä"}, {"OR", "-"}}
	for _, patterns := range sets {
		for _, text := range texts {
			both, err := filter.Parse(together(patterns, text), time.Now())
			if err != nil {
				t.Errorf("%q and %q: %q: %v", patterns, text, together(patterns, text), err)
				continue
			}
			alone, err := filter.Parse(text, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				for _, body := range []string{"tea", "pot"} {
					ev := &controlbus.MessageEvent{Destination: name, Body: []byte(body), Outcome: controlbus.OutcomeFailed}
					want := alone.Match(ev)
					fits := len(patterns) == 0
					for _, p := range patterns {
						fits = fits || controlbus.MatchPattern(p, name)
					}
					// A channel without a name is null to the filter; there are none.
					if got := both.Match(ev); got != (want && fits) && name != "" {
						t.Errorf("%q: channel %q, body %q: got %v, want %v", together(patterns, text), name, body, got, want && fits)
					}
				}
			}
		}
	}
}
