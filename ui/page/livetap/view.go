package livetap

// emptyHint is the next step where nothing passes.
func emptyHint(m view) string {
	if m.Reads == "" && len(m.Patterns) == 0 {
		return "Messages appear here as agents tap them. The Agents page says which taps run."
	}
	return "Messages that match appear here as agents tap them. Leave out a condition to see more, or open the same as a search for what passed before."
}
