package storage

import (
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// CommandEvent is an event of the ledger as its copy in the message store has
// it, to be searched there.
type CommandEvent struct {
	Seq     int64 // over all commands
	At      time.Time
	Command controlbus.CommandID
	N       int64 // within the command
	Type    string
	// Of the command.
	Kind   controlbus.CommandKind
	Target controlbus.Target
	Reason string

	Actor   controlbus.Actor
	Detail  string
	Outcome string // of a result
	Counts  controlbus.Counts
	Body    string // the event as JSON, without excerpts of message bodies
}
