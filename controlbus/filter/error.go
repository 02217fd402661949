package filter

import (
	"fmt"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Error says what is wrong with a filter's text, and where.
type Error struct {
	Pos, Len   int    // bytes; Len may be 0 at the end of the text
	Msg        string // what is wrong
	Suggestion string // text for that place, or empty
}

func (e *Error) Error() string {
	s := fmt.Sprintf("filter: position %d: %s", e.Pos+1, e.Msg)
	if e.Suggestion != "" {
		s += "; did you mean " + e.Suggestion + "?"
	}
	return s
}

// Unwrap makes every Error a controlbus.ErrInvalid.
func (e *Error) Unwrap() error { return controlbus.ErrInvalid }

// closest returns the candidate that is at most two typing mistakes away from
// word, or empty.
func closest(word string, candidates func(yield func(string) bool)) string {
	best, at := "", 3
	if len(word) < 5 {
		at = 2
	}
	for c := range candidates {
		if d := distance(word, c, at); d < at {
			best, at = c, d
		}
	}
	return best
}

// distance counts insertions, deletions, replacements and swaps of neighbours,
// without going far beyond most.
func distance(a, b string, most int) int {
	if len(a)-len(b) > most || len(b)-len(a) > most || len(a) > 64 || len(b) > 64 {
		return most + 1
	}
	var rows [3][65]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		two, prev, row := &rows[(i+1)%3], &rows[(i-1)%3], &rows[i%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
