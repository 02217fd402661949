package filter_test

import (
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

func TestOnlyNamesTheFieldsThatDecide(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": true, "channel:orders.*": true, "queue:a OR NOT (env:x AND channel ~ 'b')": true,
		"channel:a timeout": false, "channel:a OR header.x:1": false, "NOT service:a": false,
	} {
		f, err := filter.Parse(text, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Only("channel", "env"); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
	if !(*filter.Filter)(nil).Only() {
		t.Error("a nil filter names a field")
	}
}

func TestWordIsWhatEveryMatchHolds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": "", "Timeout channel:a": "Timeout", `channel:a "card  Declined"`: "card  Declined", "NOT a": "", "a OR b": "", "body:x": "x",
	} {
		f, err := filter.Parse(text, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Word(); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}
