package ledger

import (
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// EventType is what happened. The texts are stored.
type EventType string

// Types.
const (
	EventRequested   EventType = "requested"
	EventAwaiting    EventType = "awaiting_approval"
	EventApproved    EventType = "approved"
	EventRefused     EventType = "refused"
	EventQueued      EventType = "queued"
	EventDispatched  EventType = "dispatched" // once per attempt
	EventAccepted    EventType = "accepted"
	EventProgress    EventType = "progress"
	EventResult      EventType = "result"
	EventCancelAsked EventType = "cancel_asked"
	EventCancelled   EventType = "cancelled" // before it was sent
	EventExpired     EventType = "expired"
	EventUnconfirmed EventType = "unconfirmed"
	EventAbandoned   EventType = "abandoned" // nobody waits for the agent any more: indeterminate
	EventUndone      EventType = "undone"    // another command takes the effect back
	EventControl     EventType = "control"   // somebody wants a running job otherwise
)

// Event is one thing that happened to a command. It is never changed.
type Event struct {
	Seq     int64                `json:"-"` // over all commands; the store gives it
	Command controlbus.CommandID `json:"-"`
	N       int64                `json:"-"` // within the command, from 1; Append gives it
	At      time.Time            `json:"-"` // console's clock
	Type    EventType            `json:"-"`
	// AgentSeq is the number that the agent gave its event; 0 for the console's.
	AgentSeq int64 `json:"-"`

	Actor    controlbus.Actor            `json:"actor"`
	Spec     *controlbus.CommandSpec     `json:"spec,omitempty"`   // requested
	Policy   controlbus.ApprovalPolicy   `json:"policy,omitempty"` // requested
	Detail   string                      `json:"detail,omitempty"`
	Epoch    uint64                      `json:"epoch,omitempty"`   // dispatched
	Journal  string                      `json:"journal,omitempty"` // dispatched, accepted
	Head     uint64                      `json:"head,omitempty"`
	Progress *controlbus.CommandProgress `json:"progress,omitempty"`
	Result   *controlbus.CommandResult   `json:"result,omitempty"`
	Undo     controlbus.CommandID        `json:"undo,omitempty"`
	Control  *controlbus.JobControl      `json:"control,omitempty"`
}

// states are those that the console's own events lead to.
var states = map[EventType]controlbus.CommandState{
	EventRequested: controlbus.CommandRequested, EventAwaiting: controlbus.CommandAwaitingApproval,
	EventApproved: controlbus.CommandApproved, EventRefused: controlbus.CommandRefused, EventQueued: controlbus.CommandQueued,
	EventDispatched: controlbus.CommandDispatched, EventAccepted: controlbus.CommandAccepted, EventProgress: controlbus.CommandRunning,
	EventCancelled: controlbus.CommandCancelled, EventExpired: controlbus.CommandExpired,
	EventUnconfirmed: controlbus.CommandUnconfirmed, EventAbandoned: controlbus.CommandIndeterminate,
}

// Fold applies an event to a command: the zero Command and its first event make
// the command as requested. An event that cannot follow is refused with
// controlbus.ErrConflict; what an agent says is never refused, at most late.
func Fold(c *controlbus.Command, e Event) error {
	next := states[e.Type]
	if e.Type == EventResult {
		if e.Result == nil || !e.Result.Outcome.Result() {
			return fmt.Errorf("ledger: command %s: %w: a result without an outcome", e.Command, controlbus.ErrInvalid)
		}
		next = e.Result.Outcome
	}
	changes := next != "" && c.State.CanBecome(next)
	switch e.Type {
	case EventRequested:
		if !changes || e.Spec == nil {
			return fmt.Errorf("ledger: command %s: %w: requested twice", e.Command, controlbus.ErrConflict)
		}
		*c = controlbus.Command{
			CommandSpec: *e.Spec, ID: e.Command, Class: e.Spec.Kind.Class(), Policy: e.Policy, RequestedBy: e.Actor, RequestedAt: e.At,
		}
	case EventAccepted, EventProgress, EventResult:
		// An agent's word. Where it changes nothing, the command went on already.
	case EventDispatched:
		if !changes && !c.State.Sent() {
			return conflict(c, e)
		}
	case EventCancelAsked, EventUndone, EventControl:
		// None is a state.
	default:
		if !changes || c.State.Terminal() { // only a result replaces not knowing
			return conflict(c, e)
		}
	}
	late := e.Type == EventResult && !changes
	switch e.Type {
	case EventApproved:
		c.ApprovedAt = e.At
		if e.Actor.ID != "" {
			by := e.Actor
			c.ApprovedBy = &by
		}
	case EventDispatched:
		c.Attempt++
		if c.Attempt == 1 {
			c.DispatchedAt, c.Journal = e.At, e.Journal
		}
		if e.Journal == c.Journal {
			c.JournalHead = max(c.JournalHead, e.Head)
		} else {
			c.Journal, c.JournalHead, c.ProgressSeq = e.Journal, e.Head, 0
		}
	case EventAccepted:
		if c.AcceptedAt.IsZero() {
			c.AcceptedAt = e.At
		}
		if e.Journal == c.Journal {
			c.JournalHead = max(c.JournalHead, e.Head)
		}
	case EventProgress:
		if e.Progress != nil {
			c.AdvanceProgress(e.AgentSeq, *e.Progress, e.At)
		}
	case EventResult:
		r := *e.Result
		if late {
			c.LateResult = &r
		} else {
			c.Result = &r
		}
	case EventCancelAsked:
		by := e.Actor
		c.CancelAsked, c.CancelAskedAt, c.CancelReason = &by, e.At, e.Detail
	case EventUndone:
		c.UndoneBy = e.Undo
	case EventControl:
		if e.Control != nil && e.Control.Seq > c.Control.Seq {
			c.Control = *e.Control
		}
	}
	if changes {
		c.State, c.StateAt, c.Detail = next, e.At, e.Detail
		if e.Result != nil {
			c.Detail = e.Result.Detail
		}
	}
	c.Seq++
	return nil
}

func conflict(c *controlbus.Command, e Event) error {
	return fmt.Errorf("ledger: command %s: %w: it is %s and cannot be %s", e.Command, controlbus.ErrConflict, c.State.Title(), e.Type)
}
