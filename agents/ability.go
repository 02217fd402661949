package agents

import (
	"context"
	"errors"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// What follows are the verbs out of which package agents/action builds the
// commands. Each is a small interface of its own; an adapter that cannot do
// something lacks it, or answers controlbus.ErrUnsupported with the reason. All
// methods may be called concurrently, take a channel by the name that Channels
// gives, and return ErrNotConnected, controlbus.ErrNotFound or
// controlbus.ErrDenied where that is what happened.

// Message is a message on its way from one channel to another, as true to its
// bytes and kinds as its broker lets it be.
type Message struct {
	// Position names it within the channel it was taken from: a stream's sequence,
	// a delivery's number within one Intake.
	Position string
	Time     time.Time // when its broker or producer says it was sent; zero unknown

	MessageID       string
	CorrelationID   string
	ReplyTo         string
	Type            string // AMQP type
	AppID           string
	ContentType     string
	ContentEncoding string
	Key             string // routing key, subject
	// Headers in their order; a value is nil, bool, int8 to int64, uint8 to uint64,
	// float32, float64, string, []byte, time.Time, []any or map[string]any of these.
	// A broker's own kinds (an AMQP decimal) are the adapter's to turn into one.
	Headers    []Field
	Body       []byte
	TTL        time.Duration // 0: none
	Priority   int
	Persistent bool
	Deliveries int // how often its broker says it was delivered before; -1 unknown

	// Raw is the adapter's own, such as a delivery tag.
	Raw any
}

// Field is one header of a Message.
type Field struct {
	Key   string
	Value any
}

// Header returns a header's value as text, "" where there is none.
func (m *Message) Header(key string) string {
	for _, h := range m.Headers {
		if h.Key == key {
			if s, ok := h.Value.(string); ok {
				return s
			}
			if b, ok := h.Value.([]byte); ok {
				return string(b)
			}
		}
	}
	return ""
}

// SetHeader replaces or appends a header.
func (m *Message) SetHeader(key string, value any) {
	for i := range m.Headers {
		if m.Headers[i].Key == key {
			m.Headers[i].Value = value
			return
		}
	}
	m.Headers = append(m.Headers, Field{key, value})
}

// Inspector reads what is in a channel without touching it.
type Inspector interface {
	Inspect(ctx context.Context, channel string) (ChannelView, error)
}

// ChannelView is a channel now.
type ChannelView struct {
	Kind string // the broker's word, such as "classic queue", "stream"
	// Ready is how many messages a command on the channel would find.
	Ready int64
	// Keeps says that reading removes nothing, as in a stream with limits: who
	// follows the channel from its beginning gets what others have long dealt with.
	Keeps bool
	// Read is how many of Ready wait for nobody any more: every consumer has been
	// given them. 0 where reading removes.
	Read      int64
	Unsettled int64 // delivered and not acknowledged; -1 unknown
	Consumers int64
	// UpTo is the position of the last message there; empty where positions do not
	// last. A command bound to it leaves alone what came later.
	UpTo           string
	Oldest, Newest time.Time // zero unknown
	// Topology is a fingerprint of what routes messages to the channel; empty
	// where that cannot be read.
	Topology string
	Notes    []string // what people should know before they act on it
}

// Waiting is how many messages consumers have not dealt with yet.
func (v ChannelView) Waiting() int64 { return v.Ready - v.Read + max(0, v.Unsettled) }

// Planner says whether and how a kind of command would be carried out on a
// channel. It only reads; ErrUnsupported, with the reason, when it cannot be.
type Planner interface {
	PlanCommand(ctx context.Context, kind controlbus.CommandKind, channel string) (CommandPlan, error)
	// Abilities are what the broker, version and rights allow at all, as known
	// since Connect; kinds that are not listed cannot be carried out.
	Abilities() []controlbus.Ability
}

// CommandPlan is the broker's part of a dry run.
type CommandPlan struct {
	Technique string
	Impact    []string
	Needs     []string
}

// Sender is implemented by adapters that can publish.
type Sender interface {
	// Outlet opens a way into a channel. It fails with ErrNotFound where the
	// channel does not exist: nothing is created.
	Outlet(ctx context.Context, channel string) (Outlet, error)
}

// Outlet sends into one channel. It is used by one goroutine.
type Outlet interface {
	// Send publishes the messages in their order and waits until the broker has
	// answered for each. errs[i] is nil once the broker has taken responsibility
	// for message i; ErrUnroutable and controlbus.ErrInvalid are final answers for
	// that message alone; ErrNotConnected means that nobody knows.
	Send(ctx context.Context, msgs []*Message) (errs []error)
	Close(ctx context.Context) error
}

// Addresser is implemented by outlets into channels that have more than one
// address, such as a stream's subjects.
type Addresser interface {
	// Address says, sending nothing, whether the channel has a place for the
	// message: nil, or what Send would answer.
	Address(m *Message) error
}

// ErrUnroutable says that the broker had nowhere to put a message.
var ErrUnroutable = errors.New("unroutable")

// Taker is implemented by adapters that can take messages out of a channel in
// two steps, so that they are lost in neither.
type Taker interface {
	Intake(ctx context.Context, channel string, o IntakeOptions) (Intake, error)
}

// IntakeOptions of an intake.
type IntakeOptions struct {
	// Window is the most messages held unsettled; 0 lets the adapter choose.
	Window int
	// UpTo is ChannelView.UpTo: nothing after it is given out. After is the last
	// position that was settled before, for channels whose positions last.
	UpTo, After string
	// Follow waits for more instead of ending when the channel is empty.
	Follow bool
	// Name is of what must survive a restart of the agent, such as a durable
	// consumer, with Follow.
	Name string
	// Copy leaves the messages where they are: Accept only says that they were
	// dealt with. ErrUnsupported where the broker cannot read without taking.
	Copy bool
}

// Intake gives out messages of one channel, in order. It is used by one
// goroutine. Closing it gives back what is not settled.
type Intake interface {
	// Next returns 1 to most messages, waiting for the first; io.EOF when the
	// channel has no more up to the bound.
	Next(ctx context.Context, most int) ([]*Message, error)
	// Accept removes messages from the channel. When it returns nil the broker has
	// been told; a crash may bring some of them back, never lose others.
	Accept(ctx context.Context, msgs []*Message) error
	// Return gives messages back, to their place where the broker can.
	Return(ctx context.Context, msgs []*Message) error
	Close(ctx context.Context) error
}

// Releaser is implemented by adapters whose Intakes with Follow leave something
// on the broker that survives them.
type Releaser interface {
	// Release removes what an Intake with this Name left on the channel, such as
	// its durable consumer. It is called when nobody will follow under the name any
	// more; nothing there is as good.
	Release(ctx context.Context, channel, name string) error
}

// Peeker is implemented by adapters that can look at waiting messages.
type Peeker interface {
	// Peek returns the first messages of a channel, at most n <= 50. traces says
	// what the look leaves behind on the broker, empty for nothing; with look
	// false it fails with controlbus.ErrConflict instead of leaving any.
	Peek(ctx context.Context, channel string, n int, look bool) (msgs []*Message, traces string, err error)
}

// Purger is implemented by adapters whose broker can empty a channel itself.
type Purger interface {
	// Purge removes what waits in the channel, up to and including upTo where
	// positions last, and says how many that were.
	Purge(ctx context.Context, channel, upTo string) (removed int64, err error)
}

// Gater is implemented by adapters whose broker can lead a channel's messages
// aside by itself, losing and doubling none.
type Gater interface {
	// InstallGate builds the gate around the channel, off, under a name made of
	// id, and returns the backlog channel into which messages go while it is on.
	// Repeating it completes what a crash left half built.
	InstallGate(ctx context.Context, id, channel string) (backlog string, err error)
	// SetGate switches it, in one operation of the broker.
	SetGate(ctx context.Context, id, channel string, on bool) error
	// Gate reads its state from the broker.
	Gate(ctx context.Context, id, channel string) (GateView, error)
	// RemoveGate restores the direct way. controlbus.ErrConflict while it is on or
	// its backlog is not empty.
	RemoveGate(ctx context.Context, id, channel string) error
}

// GateView is a gate as the broker has it.
type GateView struct {
	Installed bool // wholly
	On        bool
	Backlog   string
	Waiting   int64 // in the backlog
	// Bypasses are ways into the channel that go around the gate, such as a binding
	// an application made again: messages on them are doubled or not led aside.
	Bypasses []string
	// Leaks are what is bound to a gate that is on and takes messages away from the
	// backlog: they are lost to the channel.
	Leaks []string
}

// Parker is implemented by adapters that can make a channel of their own to put
// messages aside, which survives the agent and holds customers' messages.
type Parker interface {
	// Park makes the channel if it is not there, and names it.
	Park(ctx context.Context, id string) (channel string, err error)
	// Unpark removes it; controlbus.ErrConflict while messages are in it.
	Unpark(ctx context.Context, id string) error
}

// Pauser is implemented by adapters whose broker can stop a channel's consumers.
type Pauser interface {
	// Pause stops a consumer, or all of the channel's; the broker itself ends it at
	// until. It returns the names of those paused.
	Pause(ctx context.Context, channel, consumer string, until time.Time) ([]string, error)
	Resume(ctx context.Context, channel, consumer string) ([]string, error)
}

// Separator is implemented by adapters that can keep test messages away from a
// channel's business consumers.
type Separator interface {
	// Separate leads messages with the header controlbus.HeaderTest aside into a
	// sink of the agent's until undo is called. ErrUnsupported where it cannot.
	Separate(ctx context.Context, channel string) (sink string, undo func(context.Context) error, err error)
}

// Reviver is implemented by adapters whose broker writes onto a dead letter where
// it died.
type Reviver interface {
	// DiedIn is the channel in which a message that lies in another one died last,
	// as Channels names it; empty where the message does not say.
	DiedIn(channel string, m *Message) string
}
