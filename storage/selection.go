package storage

import (
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// Selection is a choice of stored messages that stays the same while more are
// stored. Of what a filter finds it takes messages as they were put into their
// channel: those that taps saw and services sent.
type Selection struct {
	Env    string
	Range  TimeRange
	Filter *filter.Filter
	// UIDs are single messages instead of all that match.
	UIDs []controlbus.ID
	// StoredBefore leaves out what was stored later, by the store's own clock.
	StoredBefore time.Time
}

// SelectionCount is how many messages a selection has.
type SelectionCount struct {
	Messages uint64
	// AtLeast says that counting stopped at its deadline, AtMost that some
	// conditions are judged only when messages are read.
	AtLeast, AtMost bool
	// Of them: bodies cut at a limit, bodies changed by redaction, messages whose
	// body was never kept, and messages that services told of.
	Truncated, Redacted, Bodyless, Told uint64
	Bytes                               uint64 // of bodies, as they were
	Oldest, Newest                      time.Time
}

// SelectionPage is one page of a selection, oldest first.
type SelectionPage struct {
	Messages []MessageDetail
	Next     string // cursor of the next page, empty at the end
}

// Outcome is what a command did with one message.
type Outcome struct {
	Command controlbus.CommandID
	Kind    controlbus.CommandKind
	At      time.Time // agent's clock
	Number  int64     // of the message within the command, from 1
	Outcome string    // sent, removed, failed, skipped, returned
	Detail  string    // why it failed or was skipped

	Env         string
	Broker      string
	Destination string // where it went
	Source      string // channel it was taken from

	MessageID     string
	CorrelationID string
	UID           controlbus.ID // of the stored message it came from, where known
}

// OutcomeQuery asks for outcomes: those of a command, in the order of their
// numbers, or those of one message. Range bounds when they were told.
type OutcomeQuery struct {
	Range   TimeRange
	Command controlbus.CommandID
	After   int64 // only larger numbers, with Command

	UID       controlbus.ID // or
	MessageID string
	Limit     int // at most 1000; 0 = 100
}
