package livetap

import (
	"strings"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page/messages"
)

type view struct {
	Reads     string
	Wrong     templ.Component // what is wrong with the filter; nil when nothing is
	Socket    string
	SearchURL string
	AgainURL  string
	Patterns  []pattern
	Kept      []component.Pair // of the form that adds a pattern
	Offers    []string
	Rows      []messages.Row // of the store, for readers without script
	Down      string
	Hidden    string // why the filter cannot look into payloads
}

// pattern is one of the channels looked at, with the page without it.
type pattern struct{ Text, WithoutURL string }

// together is one filter that says what patterns and filter say.
func together(patterns []string, text string) string {
	var all []string
	for _, p := range patterns {
		all = append(all, "channel:"+quote(p))
	}
	channels := strings.Join(all, " OR ")
	switch {
	case channels == "":
		return text
	case text == "" && len(all) == 1:
		return channels
	case text == "":
		return channels
	case len(all) > 1:
		channels = "(" + channels + ")"
	}
	return channels + " (" + text + ")"
}

// quote makes a name a value of the filter in which only * has a meaning.
func quote(name string) string {
	parts := strings.Split(name, "*")
	for i, p := range parts {
		if p != "" {
			parts[i] = filter.Quote(p)
		}
	}
	return strings.Join(parts, "*")
}

// emptyHint is the next step where nothing passes.
func emptyHint(m view) string {
	if m.Reads == "" && len(m.Patterns) == 0 {
		return "Messages appear here as agents tap them. The Agents page says which taps run."
	}
	return "Messages that match appear here as agents tap them. Leave out a condition to see more, or open the same as a search for what passed before."
}
