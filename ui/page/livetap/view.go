package livetap

import (
	"errors"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page/messages"
)

type view struct {
	Reads     string
	Wrong     *wrong
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

// wrong is where a filter cannot be read, and what would be right.
type wrong struct {
	Message              string
	Before, At, After    string
	Suggestion, FixedURL string
}

// wrongAt shows an error of the filter at its place; fixed makes the address
// of the page with another filter.
func wrongAt(text string, err error, fixed func(string) string) *wrong {
	var e *filter.Error
	if !errors.As(err, &e) {
		return &wrong{Message: component.Visible(err.Error())}
	}
	from := min(max(e.Pos, 0), len(text))
	to := min(from+max(e.Len, 0), len(text))
	w := &wrong{
		Message: component.Visible(e.Msg), Suggestion: component.Visible(e.Suggestion),
		Before: component.Visible(text[:from]), At: component.Visible(text[from:to]), After: component.Visible(text[to:]),
	}
	if e.Suggestion != "" {
		w.FixedURL = fixed(text[:from] + e.Suggestion + text[to:])
	}
	return w
}

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
