package ui

import (
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

// A filter that looks into payloads tells what is in them, wherever in it that
// stands.
func TestAFilterOnPayloadsReadsPayloads(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"": false, "channel:orders.* failed:true": false, "header.x:y size > 1kb": false,
		"timeout": true, "NOT body:*": true, "channel:x OR (env:y -body.total > 5)": true, "body ~ 'x'": true,
	} {
		f, err := filter.Parse(text, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if got := readsBodies(storage.MessageQuery{Filter: f}); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}
