package controlbus

import (
	"encoding/json"
	"fmt"
	"time"
)

// The arguments of each kind, as CommandSpec.Args has them. Filters are texts of
// the filter language; empty selects everything.

// PurgeArgs of CommandPurge: all that waits in the channel, or what matches.
type PurgeArgs struct {
	Filter string `json:"filter,omitempty"`
	// NoBackup removes without keeping a copy: nothing to undo.
	NoBackup bool `json:"no_backup,omitempty"`
}

// RedriveArgs of CommandRedrive. Target is the dead-letter channel. Without a
// destination each message goes to the channel it died in.
type RedriveArgs struct {
	Filter string     `json:"filter,omitempty"`
	Job    JobOptions `json:"job,omitzero"`
	// Force moves messages that were redriven MaxRedrives times before, too.
	Force bool `json:"force,omitempty"`
}

// MaxRedrives is how often a message is redriven before it is left alone.
const MaxRedrives = 3

// DiscardArgs of CommandDiscard: dead letters are removed, a copy is kept.
type DiscardArgs struct {
	Filter string     `json:"filter,omitempty"`
	Job    JobOptions `json:"job,omitzero"`
}

// ReplayArgs of CommandReplay. Target is the channel that gets the messages. The
// messages are Selection's, from the message store; or, with CommandSpec.UndoOf,
// those that the command of that ID removed, from the agent's own copy.
type ReplayArgs struct {
	Selection *Selection `json:"selection,omitempty"`
	Job       JobOptions `json:"job,omitzero"`
}

// Selection is a frozen choice of stored messages, oldest first. The console
// fills StoredBefore, Scope and, where it is empty, To when it takes the
// preview, so that the same messages are found whenever it is asked again.
type Selection struct {
	Env    string    `json:"env"`
	Filter string    `json:"filter,omitempty"`
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	// UIDs are single messages instead; at most 500.
	UIDs         []string      `json:"uids,omitempty"`
	StoredBefore time.Time     `json:"stored_before,omitzero"`
	Scope        [][]ScopeRule `json:"scope,omitempty"` // of who asked; empty: everything
	All          bool          `json:"all,omitempty"`   // that scope is everything
}

// TestArgs of CommandTest: one EIP Test Message, marked with HeaderTest.
type TestArgs struct {
	// Run is the value of the mark by which its way is followed.
	Run         string            `json:"run"`
	ContentType string            `json:"content_type,omitempty"`
	Body        string            `json:"body"`
	Headers     map[string]string `json:"headers,omitempty"`
	// Key is the routing key or subject, where the channel has more than one.
	Key string `json:"key,omitempty"`
	// Separate keeps it from business consumers where the broker can.
	Separate bool `json:"separate,omitempty"`
}

// PauseArgs of CommandPause: consumers get nothing until the time is over, or
// CommandResume.
type PauseArgs struct {
	For time.Duration `json:"for_ns"`
	// Consumer is one consumer or group, where the broker pauses these; empty: all.
	Consumer string `json:"consumer,omitempty"`
}

// MaxPause is the longest pause.
const MaxPause = 24 * time.Hour

// TapArgs of CommandTap.
type TapArgs struct {
	For      time.Duration `json:"for_ns,omitempty"` // 0: link.DefaultLease
	MaxBytes int64         `json:"max_bytes,omitempty"`
}

// UndetourArgs of CommandUndetour. The backlog is worked off first.
type UndetourArgs struct {
	ID string `json:"id"`
}

// Headers that Signalbox writes into messages it sends.
const (
	HeaderTest      = "sb-test"       // run of a test message
	HeaderReplay    = "sb-replay"     // command:number
	HeaderRedrive   = "sb-redrive"    // how often it was redriven
	HeaderRedriveID = "sb-redrive-id" // command:source position
	HeaderDetour    = "sb-detour"     // detour:source position
	HeaderDeaths    = "sb-deaths"     // JSON of what was stripped
	HeaderHops      = "sb-hops"       // agent@channel;unix_ms, at most 16, with commas between; query-escaped
	// On messages that a detour has put aside: why, and at which step.
	HeaderParkReason = "sb-park-reason"
	HeaderParkStep   = "sb-park-step"
)

// DecodeArgs reads a kind's arguments. No arguments are the zero value. Errors
// are ErrInvalid.
func DecodeArgs[T any](raw json.RawMessage) (T, error) {
	var v T
	if len(raw) == 0 {
		return v, nil
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, fmt.Errorf("%w: arguments: %w", ErrInvalid, err)
	}
	return v, nil
}
