package controlbus

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// CommandID names a command for ever, on the console, on the wire and in the
// agent's journal: 32 hexadecimal digits that sort by the time of the request.
type CommandID string

// NewCommandID makes an ID: 48 bits of milliseconds, 80 random bits.
func NewCommandID(now time.Time) CommandID {
	var b [16]byte
	ms := now.UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	_, _ = rand.Read(b[6:]) // never fails
	return CommandID(hex.EncodeToString(b[:]))
}

// Valid says whether the text has the form of a command's ID.
func (id CommandID) Valid() bool {
	if len(id) != 32 {
		return false
	}
	return !strings.ContainsFunc(string(id), func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// CommandKind is what a command does. The texts are stored and travel.
type CommandKind string

// Kinds.
const (
	CommandPeek     CommandKind = "peek"     // look at waiting messages, count, list
	CommandTap      CommandKind = "tap"      // EIP Wire Tap on
	CommandUntap    CommandKind = "untap"    // and off
	CommandDetour   CommandKind = "detour"   // EIP Detour on
	CommandUndetour CommandKind = "undetour" // and off
	CommandPause    CommandKind = "pause"    // stop a channel's consumers, until an end time
	CommandResume   CommandKind = "resume"
	CommandTest     CommandKind = "test"    // EIP Test Message
	CommandReplay   CommandKind = "replay"  // send stored messages again
	CommandRedrive  CommandKind = "redrive" // move dead letters back to where they failed
	CommandDiscard  CommandKind = "discard" // remove dead letters
	CommandPurge    CommandKind = "purge"   // EIP Channel Purger
)

// EffectClass decides what is promised about a command when something breaks in
// the middle of it.
type EffectClass string

// Classes.
const (
	// EffectObserve changes nothing; it is repeated freely.
	EffectObserve EffectClass = "observe"
	// EffectDesired sets a state; repeating it changes nothing more.
	EffectDesired EffectClass = "desired"
	// EffectAdditive adds messages: at least once, each under an operation id by
	// which a copy is known.
	EffectAdditive EffectClass = "additive"
	// EffectDestructive removes something: at most once. A crash in the middle
	// ends as indeterminate and is never retried by itself.
	EffectDestructive EffectClass = "destructive"
)

// KindInfo is what follows from a command's kind alone.
type KindInfo struct {
	Class EffectClass
	// Resumable kinds go on from their checkpoint after a crash of the agent.
	Resumable bool
	// Preview says that the command is bound to a preview that was shown.
	Preview bool
	// Undo is the kind that takes its effect back; empty: none does.
	Undo CommandKind
}

var kinds = map[CommandKind]KindInfo{
	CommandPeek:     {Class: EffectObserve, Resumable: true},
	CommandTap:      {Class: EffectDesired, Resumable: true, Undo: CommandUntap},
	CommandUntap:    {Class: EffectDesired, Resumable: true, Undo: CommandTap},
	CommandDetour:   {Class: EffectDesired, Resumable: true, Preview: true, Undo: CommandUndetour},
	CommandUndetour: {Class: EffectDesired, Resumable: true, Undo: CommandDetour},
	CommandPause:    {Class: EffectDesired, Resumable: true, Preview: true, Undo: CommandResume},
	CommandResume:   {Class: EffectDesired, Resumable: true, Undo: CommandPause},
	CommandTest:     {Class: EffectAdditive, Preview: true},
	CommandReplay:   {Class: EffectAdditive, Resumable: true, Preview: true},
	CommandRedrive:  {Class: EffectAdditive, Resumable: true, Preview: true},
	CommandDiscard:  {Class: EffectDestructive, Preview: true, Undo: CommandReplay},
	CommandPurge:    {Class: EffectDestructive, Preview: true, Undo: CommandReplay},
}

// CommandKinds lists all kinds, by name.
func CommandKinds() []CommandKind {
	all := make([]CommandKind, 0, len(kinds))
	for k := range kinds {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// Info returns what follows from the kind, and whether it is known at all.
func (k CommandKind) Info() (KindInfo, bool) {
	i, ok := kinds[k]
	return i, ok
}

// ByConsole says that the console carries the kind out itself, as state that is
// wanted of an agent; no order goes out.
func (k CommandKind) ByConsole() bool { return k == CommandTap || k == CommandUntap }

// Class of the kind. An unknown kind counts as destructive: of what it does
// nothing can be promised.
func (k CommandKind) Class() EffectClass {
	if i, ok := kinds[k]; ok {
		return i.Class
	}
	return EffectDestructive
}

// Target is what a command acts on, and through which agent.
type Target struct {
	Agent   string      `json:"agent"`
	Channel ChannelName `json:"channel"`
}

// Resource is the key under which destructive commands exclude each other: one
// channel of one broker, whichever agent reaches it.
func (t Target) Resource() string {
	return fmt.Sprintf("%q %q %q", t.Channel.Env, t.Channel.Broker, t.Channel.Name)
}

func (t Target) String() string { return t.Channel.String() + " by " + t.Agent }

// Actor is who asked for something, as it was called then. ID is what counts
// when two actors are compared.
type Actor struct {
	Kind string `json:"kind"` // user, token, anonymous, system, agent
	ID   string `json:"id"`
	Name string `json:"name"`
}

// ApprovalPolicy is what an environment asks for before a command goes out.
type ApprovalPolicy string

// Policies, weakest first.
const (
	ApproveNone   ApprovalPolicy = "none"
	ApproveByName ApprovalPolicy = "type_name"     // the requester types the channel's name
	ApproveSecond ApprovalPolicy = "second_person" // somebody else consents, having seen the preview
)

// Valid says whether the text is a policy.
func (p ApprovalPolicy) Valid() bool {
	return p == ApproveNone || p == ApproveByName || p == ApproveSecond
}

// CommandSpec is what is asked for. It never changes once requested.
type CommandSpec struct {
	Kind   CommandKind `json:"kind"`
	Target Target      `json:"target"`
	// Destination is where messages go, for the kinds that send some.
	Destination *ChannelName    `json:"destination,omitempty"`
	Args        json.RawMessage `json:"args,omitempty"` // the kind's own
	Reason      string          `json:"reason"`
	// AcceptWithin bounds the time until an agent takes the command up,
	// RunWithin the time it then may run. Both are durations: clocks of
	// different machines are never compared.
	AcceptWithin time.Duration `json:"accept_within_ns"`
	RunWithin    time.Duration `json:"run_within_ns"`
	// Preview is what the requester saw; frozen.
	Preview *Preview `json:"preview,omitempty"`
	// UndoOf is the command whose effect this one takes back.
	UndoOf CommandID `json:"undo_of,omitempty"`
}

// Limits of a command.
const (
	MaxCommandArgs      = 64 << 10
	MaxCommandReason    = 1000
	DefaultAcceptWithin = 2 * time.Minute
	DefaultRunWithin    = time.Hour
	MaxAcceptWithin     = 24 * time.Hour
	MaxRunWithin        = 7 * 24 * time.Hour
)

// Check completes the durations and says what is wrong with a request. Errors
// are ErrInvalid.
func (s *CommandSpec) Check() error {
	info, ok := s.Kind.Info()
	if s.AcceptWithin == 0 {
		s.AcceptWithin = DefaultAcceptWithin
	}
	if s.RunWithin == 0 {
		s.RunWithin = DefaultRunWithin
	}
	wrong := func(text string) error { return fmt.Errorf("%w: command %s: %s", ErrInvalid, s.Kind, text) }
	switch {
	case !ok:
		return fmt.Errorf("%w: command kind %.40q", ErrInvalid, string(s.Kind))
	case s.Target.Agent == "" || s.Target.Channel.Broker == "" || s.Target.Channel.Name == "":
		return wrong("want an agent, a broker and a channel")
	case len(s.Args) > MaxCommandArgs:
		return wrong(fmt.Sprintf("arguments of %d bytes: at most %d", len(s.Args), MaxCommandArgs))
	case len(s.Args) > 0 && !json.Valid(s.Args):
		return wrong("arguments are not JSON")
	case strings.TrimSpace(s.Reason) == "" && info.Class == EffectDestructive:
		return wrong("want a reason")
	case len(s.Reason) > MaxCommandReason:
		return wrong(fmt.Sprintf("reason of %d bytes: at most %d", len(s.Reason), MaxCommandReason))
	case s.AcceptWithin < time.Second || s.AcceptWithin > MaxAcceptWithin:
		return wrong(fmt.Sprintf("accept within %v: want 1s to %v", s.AcceptWithin, MaxAcceptWithin))
	case s.RunWithin < time.Second || s.RunWithin > MaxRunWithin:
		return wrong(fmt.Sprintf("run within %v: want 1s to %v", s.RunWithin, MaxRunWithin))
	case s.Preview == nil && info.Preview:
		return wrong("want the preview that was shown")
	case s.UndoOf != "" && !s.UndoOf.Valid():
		return wrong("undoes what is no command")
	}
	if s.Preview != nil {
		return s.Preview.Check(*s)
	}
	return nil
}

// Counts are what became of the messages a command was about.
type Counts struct {
	Matched int64 `json:"matched"` // fell under the command
	Done    int64 `json:"done"`
	Failed  int64 `json:"failed"`
	Skipped int64 `json:"skipped"` // left alone on purpose; Detail says why
}

// CommandProgress is how far a running command has come.
type CommandProgress struct {
	Counts
	Total int64     `json:"total"` // expected at the end; -1 unknown
	Note  string    `json:"note,omitempty"`
	Job   *JobState `json:"job,omitempty"` // of bulk commands
}

// CommandResult is how a command ended, as the agent's journal has it.
type CommandResult struct {
	Outcome CommandState `json:"outcome"` // one of the terminal states
	Counts  Counts       `json:"counts"`
	// Detail is one sentence for people: why it was rejected, where it stopped.
	Detail string `json:"detail,omitempty"`
	// Evidence is the kind's own: positions, depth before and after.
	Evidence json.RawMessage `json:"evidence,omitempty"`
}

// Command is a command as its events tell it.
type Command struct {
	CommandSpec
	ID          CommandID      `json:"id"`
	Class       EffectClass    `json:"class"`
	Policy      ApprovalPolicy `json:"policy"`
	RequestedBy Actor          `json:"requested_by"`
	RequestedAt time.Time      `json:"requested_at"`

	State CommandState `json:"state"`
	// StateAt is when it came to this state, Detail why.
	StateAt time.Time `json:"state_at"`
	Detail  string    `json:"detail,omitempty"`

	ApprovedBy *Actor    `json:"approved_by,omitempty"`
	ApprovedAt time.Time `json:"approved_at,omitzero"`

	// Attempt counts how often it was sent; Journal and JournalHead are the
	// agent's journal and how far it was when the command was first sent.
	Attempt       int             `json:"attempt"`
	Journal       string          `json:"journal,omitempty"`
	JournalHead   uint64          `json:"journal_head,omitempty"`
	DispatchedAt  time.Time       `json:"dispatched_at,omitzero"`
	AcceptedAt    time.Time       `json:"accepted_at,omitzero"`
	CancelAsked   *Actor          `json:"cancel_asked,omitempty"`
	CancelAskedAt time.Time       `json:"cancel_asked_at,omitzero"`
	CancelReason  string          `json:"cancel_reason,omitempty"`
	Progress      CommandProgress `json:"progress"`
	ProgressAt    time.Time       `json:"progress_at,omitzero"`
	// ProgressSeq is the number the agent gave the newest progress.
	ProgressSeq int64          `json:"progress_seq,omitempty"`
	Result      *CommandResult `json:"result,omitempty"`
	// Control is what people want of the running job.
	Control JobControl `json:"control,omitzero"`
	// LateResult is a result that came after the command had ended another way.
	LateResult *CommandResult `json:"late_result,omitempty"`
	// UndoneBy is the newest command that takes this one's effect back.
	UndoneBy CommandID `json:"undone_by,omitempty"`
	// Seq is the number of the newest event folded in.
	Seq int64 `json:"seq"`
}

// AdvanceProgress takes a report unless a later one is known: frames may
// overtake each other.
func (c *Command) AdvanceProgress(agentSeq int64, p CommandProgress, at time.Time) {
	if agentSeq < c.ProgressSeq {
		return
	}
	c.ProgressSeq, c.Progress, c.ProgressAt = agentSeq, p, at
}

// Deadline is the time by which the console, by its own clock, gives up waiting
// for the agent to take the command up.
func (c *Command) Deadline() time.Time {
	from := c.RequestedAt
	if !c.ApprovedAt.IsZero() {
		from = c.ApprovedAt
	}
	return from.Add(c.AcceptWithin)
}

// Undoable says whether a command's effect can be taken back, and if not, why.
func (c *Command) Undoable() (CommandKind, error) {
	info, _ := c.Kind.Info()
	switch {
	case info.Undo == "":
		return "", fmt.Errorf("%w: %s cannot be undone", ErrUnsupported, c.Kind)
	case !c.State.Terminal():
		return "", fmt.Errorf("%w: the command is still %s", ErrConflict, c.State)
	case c.State == CommandRefused || c.State == CommandExpired || c.State == CommandRejected || c.State == CommandCancelled:
		return "", fmt.Errorf("%w: nothing was done, the command was %s", ErrConflict, c.State)
	}
	return info.Undo, nil
}
