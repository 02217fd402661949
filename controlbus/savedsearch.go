package controlbus

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// SavedSearch is a search of the message store under a name.
type SavedSearch struct {
	ID    string
	Owner string // who saved it; empty before people sign in
	// Shared shows it to everybody; only its owner changes it. One without an
	// owner is everybody's.
	Shared bool
	Name   string

	Query   string // filter, as it was typed
	Env     string
	AnyEnv  bool   // wherever the reader is; Env does not matter
	Range   string // relative, as the page's address has it; empty for the page's own
	Columns string // as the page's address has them; empty for the reader's own
	Oldest  bool   // oldest first
}

// Bounds of a saved search.
const (
	MaxSearchName  = 60   // characters
	MaxSearchQuery = 4096 // bytes
)

// Validate says what is wrong with a search, as ErrInvalid or ErrTooLarge.
func (s *SavedSearch) Validate() error {
	name := strings.TrimSpace(s.Name)
	switch {
	case name == "" || name != s.Name || !utf8.ValidString(name):
		return fmt.Errorf("%w: name %q: want some text without blanks around it", ErrInvalid, s.Name)
	case utf8.RuneCountInString(name) > MaxSearchName:
		return fmt.Errorf("%w: name of %d characters: want at most %d", ErrTooLarge, utf8.RuneCountInString(name), MaxSearchName)
	case len(s.Query) > MaxSearchQuery || len(s.Env) > 200 || len(s.Range) > 20 || len(s.Columns) > 4000:
		return fmt.Errorf("%w: search %q: filter, columns or environment are longer than a page can hold", ErrTooLarge, s.Name)
	}
	return nil
}
