package controlbus

import "slices"

// CommandState is where a command stands. The texts are stored and travel.
//
//	requested ─▶ awaiting_approval ─▶ approved ─▶ queued ─▶ dispatched ─▶ accepted ─▶ running ⟲ progress
//	    │              │                            │           │  ▲         │  ▲         │  ▲
//	    │              │                            │           ▼  │         ▼  │         ▼  │
//	    │              │                            │         ┌────────────────────────────────┐
//	    │              │                            │         │ unconfirmed (agent not heard)  │
//	    │              │                            │         └────────────────────────────────┘
//	    ▼              ▼                            ▼            │ from each of these four
//	 approved       refused                      expired         ▼
//	 refused        expired                      cancelled    succeeded, failed, partial, cancelled,
//	 expired        cancelled                                 rejected, indeterminate
//	 cancelled
//
// A command that has gone out (dispatched and what follows) never expires: the
// agent may hold it. While its agent is not heard of past the command's time it
// is unconfirmed, and whatever the agent then says still counts. indeterminate
// is final except for the truth: a result that comes after somebody gave up
// waiting replaces it.
type CommandState string

// States.
const (
	CommandRequested        CommandState = "requested"
	CommandAwaitingApproval CommandState = "awaiting_approval"
	CommandApproved         CommandState = "approved"
	CommandQueued           CommandState = "queued"
	CommandDispatched       CommandState = "dispatched"
	CommandAccepted         CommandState = "accepted"
	CommandRunning          CommandState = "running"
	// CommandUnconfirmed: sent, perhaps done, agent offline.
	CommandUnconfirmed CommandState = "unconfirmed"

	CommandRefused       CommandState = "refused"  // by a person or a policy; never sent
	CommandExpired       CommandState = "expired"  // nobody approved it, or no agent came in time; never sent
	CommandRejected      CommandState = "rejected" // by the agent; nothing was done
	CommandSucceeded     CommandState = "succeeded"
	CommandFailed        CommandState = "failed"    // nothing was done
	CommandPartial       CommandState = "partial"   // the counts say how much was done
	CommandCancelled     CommandState = "cancelled" // nothing was done
	CommandIndeterminate CommandState = "indeterminate"
)

var (
	results = []CommandState{CommandSucceeded, CommandFailed, CommandPartial, CommandCancelled, CommandRejected, CommandIndeterminate}

	follow = map[CommandState][]CommandState{
		"":                      {CommandRequested},
		CommandRequested:        {CommandAwaitingApproval, CommandApproved, CommandRefused, CommandExpired, CommandCancelled},
		CommandAwaitingApproval: {CommandApproved, CommandRefused, CommandExpired, CommandCancelled},
		CommandApproved:         {CommandQueued, CommandExpired, CommandCancelled},
		CommandQueued:           {CommandDispatched, CommandExpired, CommandCancelled},
		// An answer may overtake the one before it, or arrive in its stead.
		CommandDispatched:  append([]CommandState{CommandAccepted, CommandRunning, CommandUnconfirmed}, results...),
		CommandAccepted:    append([]CommandState{CommandRunning, CommandUnconfirmed}, results...),
		CommandRunning:     append([]CommandState{CommandUnconfirmed}, results...),
		CommandUnconfirmed: append([]CommandState{CommandDispatched, CommandAccepted, CommandRunning}, results...),
		// The truth, late.
		CommandIndeterminate: {CommandSucceeded, CommandFailed, CommandPartial, CommandCancelled, CommandRejected},
	}
)

// CommandStates lists all states in their order of life.
func CommandStates() []CommandState {
	return append([]CommandState{
		CommandRequested, CommandAwaitingApproval, CommandApproved, CommandQueued, CommandDispatched, CommandAccepted,
		CommandRunning, CommandUnconfirmed, CommandRefused, CommandExpired,
	}, results...)
}

// Valid says whether the text is a state.
func (s CommandState) Valid() bool { return slices.Contains(CommandStates(), s) }

// CanBecome says whether a command may go from s to next.
func (s CommandState) CanBecome(next CommandState) bool { return slices.Contains(follow[s], next) }

// Terminal says that a command has ended.
func (s CommandState) Terminal() bool {
	return s == CommandRefused || s == CommandExpired || s.Result()
}

// Result says that the state is one an agent's journal can end a command with.
func (s CommandState) Result() bool { return slices.Contains(results, s) }

// Sent says that an agent may hold the command.
func (s CommandState) Sent() bool {
	switch s {
	case CommandDispatched, CommandAccepted, CommandRunning, CommandUnconfirmed:
		return true
	}
	return false
}

// Title is the state in words for people.
func (s CommandState) Title() string {
	switch s {
	case CommandAwaitingApproval:
		return "awaiting approval"
	case CommandUnconfirmed:
		return "unconfirmed, agent offline"
	}
	return string(s)
}
