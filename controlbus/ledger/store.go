package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Store keeps the ledger. Methods may be called concurrently; those that look
// for one command return controlbus.ErrNotFound.
type Store interface {
	// ChangeLedger runs f in one transaction, which is durable when it returns
	// nil. An error of f is returned as it is, and nothing has changed. f must
	// not call the store but through tx, and is run again where it collided with
	// another transaction.
	ChangeLedger(ctx context.Context, f func(tx Tx) error) error

	Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error)
	// CommandEvents are a command's events in their order.
	CommandEvents(ctx context.Context, id controlbus.CommandID) ([]Event, error)
	// EventsAfter are events of all commands with a larger Seq, in order, at most
	// limit: what a copy of the ledger follows.
	EventsAfter(ctx context.Context, seq int64, limit int) ([]Event, error)
	Commands(ctx context.Context, q Query) ([]controlbus.Command, error)
	// Outbox is what is to be sent to an agent, oldest command first; an empty
	// agent means all of them.
	Outbox(ctx context.Context, agent string) ([]Outgoing, error)
}

// Tx is one transaction on the ledger.
type Tx interface {
	// Command reads a command and keeps others from changing it until the end of
	// the transaction.
	Command(id controlbus.CommandID) (controlbus.Command, error)
	// Seen says whether the event with this number of an agent's journal is in
	// the ledger.
	Seen(id controlbus.CommandID, journal string, agentSeq int64) (bool, error)
	// Append folds the event into c and writes both. It numbers the event.
	Append(c *controlbus.Command, e Event) error
	// Lock takes the lock of a resource, or fails with controlbus.ErrConflict and
	// names the command that has it.
	Lock(resource string, id controlbus.CommandID) error
	// Unlock gives back what the command has locked.
	Unlock(id controlbus.CommandID) error
	// Queue puts into the outbox what is to be sent; what is there stays as it is.
	Queue(o Outgoing) error
	// Unqueue takes it out; Outgoing.What empty means everything of the command.
	Unqueue(id controlbus.CommandID, what What) error
	// Audit appends to the one audit trail.
	Audit(e access.Event) error
}

// What is sent to an agent.
type What string

// What is sent.
const (
	SendDispatch What = "dispatch"
	SendCancel   What = "cancel"
	// SendControl lies in the outbox until the job's progress shows that it obeys.
	SendControl What = "control"
)

// Outgoing is one row of the outbox: it stays until the agent has answered.
type Outgoing struct {
	Agent   string
	Command controlbus.CommandID
	What    What
	// Control goes with SendControl; the ledger fills it in, stores do not keep it.
	Control controlbus.JobControl
}

// Query selects commands, newest first.
type Query struct {
	Before controlbus.CommandID      // only older ones; empty: from the newest
	States []controlbus.CommandState // any of these
	Open   bool                      // only what has not ended
	Agent  string
	Env    string
	Broker string
	// Channel is a name, or a pattern with *.
	Channel   string
	Kind      controlbus.CommandKind
	Requester string // actor's ID
	From, To  time.Time
	// People leaves out what the console asked for by itself, such as the test
	// messages of probes.
	People bool
	// Scope limits what may be seen; the zero Scope shows nothing.
	Scope controlbus.Scope
	Limit int // at most 500; 0 = 100
}

// Matches says whether a command falls under the query, Limit aside. Stores
// that cannot express a part of it filter with it.
func (q Query) Matches(c *controlbus.Command) bool {
	ch := c.Target.Channel
	if len(q.States) > 0 {
		found := false
		for _, s := range q.States {
			found = found || s == c.State
		}
		if !found {
			return false
		}
	}
	return (q.Before == "" || c.ID < q.Before) && (!q.Open || !c.State.Terminal()) &&
		(q.Agent == "" || q.Agent == c.Target.Agent) && (q.Env == "" || q.Env == ch.Env) && (q.Broker == "" || q.Broker == ch.Broker) &&
		(q.Channel == "" || controlbus.MatchPattern(q.Channel, ch.Name)) && (q.Kind == "" || q.Kind == c.Kind) &&
		(q.Requester == "" || q.Requester == c.RequestedBy.ID) && (!q.People || c.RequestedBy.Kind != string(access.KindSystem)) &&
		(q.From.IsZero() || !c.RequestedAt.Before(q.From)) && (q.To.IsZero() || c.RequestedAt.Before(q.To)) &&
		q.Scope.Allows(ch.Env, ch.Name)
}

// Locked is the error of Tx.Lock.
func Locked(resource string, by controlbus.CommandID) error {
	return fmt.Errorf("ledger: %w: command %s acts on %s; wait for its end, or cancel it", controlbus.ErrConflict, by, resource)
}
