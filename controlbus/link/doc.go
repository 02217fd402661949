// Package link joins agents to the console. An agent reports what it is and
// does, and is answered with the whole state the console wants it to be in;
// the exchange repeats every few seconds and at once when something changed, so
// it heals itself after any interruption.
//
// Client is the agent's end, Roster the console's. Commands that are not state
// (purge, replay, ...) will travel on a link of their own; what is desired
// stays as it is here.
package link

import "time"

const (
	// Path is where agents report.
	Path = "/v1/agents/report"
	// ReportInterval is how often an agent reports when nothing changes.
	ReportInterval = 5 * time.Second
	// MissedReports makes an agent silent.
	MissedReports = 3
	// MaxReport bounds a report's size in bytes.
	MaxReport = 4 << 20
	// MaxDesired bounds an answer's size in bytes.
	MaxDesired = 4 << 20
)
