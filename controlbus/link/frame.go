package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// MaxFrame bounds one frame of the command protocol, encoded. Message bodies
// never travel in one.
const MaxFrame = 256 << 10

// maxState bounds what an agent reports of itself and what is wanted of it.
const maxState = MaxOut - 16<<10

// Limits of the command protocol.
const (
	MaxRunning    = 4 // commands of one agent at a time
	MaxUnaccepted = 8 // commands sent to one agent that it has not taken up yet
	// Redeliver is how often what was not answered is sent again.
	Redeliver = 15 * time.Second
	// ProgressEvery bounds how often one command tells its progress.
	ProgressEvery = time.Second
)

// Frame is one message of the command protocol. Epoch names the session; a frame
// of another session is dropped. One of the other fields is set; a frame with
// none that the receiver knows is ignored, so that either side may be newer.
type Frame struct {
	Epoch uint64 `json:"epoch,omitempty"`

	Hello *Hello `json:"hello,omitempty"` // both ways, first

	// Console to agent.
	Dispatch *Dispatch           `json:"dispatch,omitempty"`
	Cancel   *Cancel             `json:"cancel,omitempty"`
	AckEvent *AckEvent           `json:"ack_event,omitempty"`
	Control  *Control            `json:"control,omitempty"`
	Ask      *Ask                `json:"ask,omitempty"`
	Desired  *controlbus.Desired `json:"desired,omitempty"`

	// Agent to console.
	Event  *Event            `json:"event,omitempty"`
	Answer *Answer           `json:"answer,omitempty"`
	Actual *controlbus.Agent `json:"actual,omitempty"`
}

// Hello opens a session, in three steps, so that a frame of an earlier one is
// never taken for one of this: the agent says a nonce; the console returns it in
// the epoch it gives; the agent answers in that epoch with what it is. Each
// repeats its word until the other has answered.
type Hello struct {
	Nonce string `json:"nonce,omitempty"`
	// Of the agent, in the third step.
	BootID  string                   `json:"boot_id,omitempty"` // new at every start
	Journal string                   `json:"journal,omitempty"`
	Head    uint64                   `json:"journal_head,omitempty"`
	Kinds   []controlbus.CommandKind `json:"kinds,omitempty"`
	Open    []controlbus.CommandID   `json:"open_commands,omitempty"`
	Answers bool                     `json:"answers,omitempty"` // it takes Asks
}

// Dispatch orders a command. It is repeated, with a larger Attempt, until
// answered; the agent does it once.
type Dispatch struct {
	Command     controlbus.CommandID    `json:"command_id"`
	Kind        controlbus.CommandKind  `json:"kind"`
	Class       controlbus.EffectClass  `json:"effect_class"`
	Target      controlbus.Target       `json:"target"`
	Destination *controlbus.ChannelName `json:"destination,omitempty"`
	Args        json.RawMessage         `json:"args,omitempty"`
	Attempt     int                     `json:"attempt"`
	// AcceptWithin and RunWithin are counted on the agent's own clock, from when
	// the frame arrives and from when the command begins.
	AcceptWithin time.Duration        `json:"accept_within_ns"`
	RunWithin    time.Duration        `json:"run_within_ns"`
	Expect       *controlbus.Expect   `json:"expect,omitempty"`
	UndoOf       controlbus.CommandID `json:"undo_of,omitempty"`
	// RequestedBy is shown to people who look at the broker.
	RequestedBy controlbus.Actor `json:"requested_by,omitzero"`
	Reason      string           `json:"reason,omitempty"`
	// Control is what people want of the job by now.
	Control controlbus.JobControl `json:"control,omitzero"`
}

// Control says what people want of a running job. It is told again until the
// job's progress shows that it obeys.
type Control struct {
	Command controlbus.CommandID `json:"command_id"`
	controlbus.JobControl
}

// Ask is a question about a command nobody has ordered, Answer its answer. Both
// may be lost: who asked asks again.
type Ask struct {
	ID string `json:"id"`
	controlbus.Ask
}

// Answer of the Ask with that ID.
type Answer struct {
	ID   string           `json:"id"`
	Plan *controlbus.Plan `json:"plan,omitempty"`
	// Error says why there is no plan now; asking again may help.
	Error string `json:"error,omitempty"`
}

// Cancel asks to stop a command.
type Cancel struct {
	Command controlbus.CommandID `json:"command_id"`
	Reason  string               `json:"reason,omitempty"`
}

// AckEvent says that the console has a result for good.
type AckEvent struct {
	Command controlbus.CommandID `json:"command_id"`
	Seq     int64                `json:"seq"`
}

// EventType is what an Event tells.
type EventType string

// Types.
const (
	Accepted EventType = "accepted"
	Progress EventType = "progress"
	Result   EventType = "result" // of a rejected command, too
)

// Event is what an agent tells of a command. Seq is the number of the journal's
// record, so that telling it twice is known as such.
type Event struct {
	Type     EventType                   `json:"type"`
	Command  controlbus.CommandID        `json:"command_id"`
	Seq      int64                       `json:"seq"`
	Journal  string                      `json:"journal"`
	Head     uint64                      `json:"journal_head"`
	Progress *controlbus.CommandProgress `json:"progress,omitempty"`
	Result   *controlbus.CommandResult   `json:"result,omitempty"`
}

// Link carries frames between an agent and the console, in order and whole while
// it lasts. OpAMP over WebSocket, its plain HTTP form and a pipe within one
// process are Links.
type Link interface {
	// Send hands a frame over. It may return before the frame has arrived: what
	// was sent over a link that broke is lost. It may be called concurrently and
	// returns an error once the link is gone.
	Send(ctx context.Context, f Frame) error
	// Recv blocks until a frame comes, ctx ends, or the link is gone (ErrClosed).
	// One goroutine calls it.
	Recv(ctx context.Context) (Frame, error)
	// Close ends the link. It may be called at any time and more than once.
	Close() error
}

// ErrClosed is what a link that is gone returns.
var ErrClosed = errors.New("link closed")

// encode writes a frame as it travels in a CustomMessage.
func encode(f Frame) ([]byte, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("link: frame: %w", err)
	}
	most := MaxFrame
	if f.Actual != nil || f.Desired != nil {
		most = maxState
	}
	if len(b) > most {
		return nil, fmt.Errorf("link: frame: %w: %d bytes, at most %d", controlbus.ErrTooLarge, len(b), most)
	}
	return b, nil
}

// decode reads a frame. Errors are controlbus.ErrInvalid.
func decode(b []byte) (Frame, error) {
	var f Frame
	if err := json.Unmarshal(b, &f); err != nil {
		return Frame{}, fmt.Errorf("link: frame: %w: %w", controlbus.ErrInvalid, err)
	}
	if len(b) > MaxFrame && f.Actual == nil && f.Desired == nil || len(b) > maxState {
		return Frame{}, fmt.Errorf("link: frame: %w: %d bytes, at most %d", controlbus.ErrInvalid, len(b), MaxFrame)
	}
	return f, nil
}

// name is the frame's kind, for CustomMessage.type and for logs.
func (f Frame) name() string {
	switch {
	case f.Hello != nil:
		return "Hello"
	case f.Dispatch != nil:
		return "Dispatch"
	case f.Cancel != nil:
		return "Cancel"
	case f.AckEvent != nil:
		return "AckEvent"
	case f.Desired != nil:
		return "Desired"
	case f.Control != nil:
		return "Control"
	case f.Ask != nil:
		return "Ask"
	case f.Answer != nil:
		return "Answer"
	case f.Event != nil:
		return "Event"
	case f.Actual != nil:
		return "Actual"
	}
	return "Unknown"
}

// Pipe returns the two ends of a link within one process. Each direction holds
// a few frames; Send waits for room.
func Pipe() (Link, Link) {
	a, b, gone := make(chan Frame, 16), make(chan Frame, 16), newGate()
	return &pipe{a, b, gone}, &pipe{b, a, gone}
}

type pipe struct {
	in, out chan Frame
	gone    *gate
}

func (p *pipe) Send(ctx context.Context, f Frame) error {
	select {
	case <-p.gone.c:
		return ErrClosed
	default:
	}
	select {
	case p.out <- f:
		return nil
	case <-p.gone.c:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pipe) Recv(ctx context.Context) (Frame, error) {
	select {
	case f := <-p.in:
		return f, nil
	case <-p.gone.c:
		return Frame{}, ErrClosed
	case <-ctx.Done():
		return Frame{}, ctx.Err()
	}
}

func (p *pipe) Close() error { p.gone.shut(); return nil }
