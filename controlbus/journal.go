package controlbus

import (
	"encoding/json"
	"time"
)

// JournalState is where a command stands in an agent's journal.
type JournalState string

// States.
const (
	JournalBegun JournalState = "begun"
	JournalDone  JournalState = "done"  // its result is told until acknowledged
	JournalAcked JournalState = "acked" // a tombstone, so that it is not done again
)

// JournalEntry is what an agent's journal knows of one command. Nobody changes
// its contents.
type JournalEntry struct {
	Command CommandID    `json:"command"`
	Kind    CommandKind  `json:"kind,omitempty"`
	State   JournalState `json:"state"`
	// Seq numbers the records of a command, from 1; an event told to the console
	// carries the number of its record.
	Seq int64 `json:"seq"`
	// BegunSeq is the number of the record with which it began, 0 where it never did.
	BegunSeq int64 `json:"begun_seq,omitempty"`
	// Dispatch is the order as it came.
	Dispatch json.RawMessage `json:"dispatch,omitempty"`
	// Checkpoint is the kind's own: from where to go on.
	Checkpoint json.RawMessage  `json:"checkpoint,omitempty"`
	Progress   *CommandProgress `json:"progress,omitempty"`
	Result     *CommandResult   `json:"result,omitempty"`
	At         time.Time        `json:"at"` // of the newest record, agent's clock
}

// ResultSeq is the number of the record that has the result.
func (e JournalEntry) ResultSeq() int64 {
	if e.State == JournalAcked {
		return e.Seq - 1
	}
	return e.Seq
}
