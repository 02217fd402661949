package command

import (
	"encoding/json"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Request is a command somebody thinks of. Every kind goes from here to a
// preview, and from the preview to an order.
type Request struct {
	Kind         controlbus.CommandKind
	Env          string
	Broker       string
	Channel      string
	Agent        string // empty: the one that has the broker
	Destination  *controlbus.ChannelName
	Args         json.RawMessage // the kind's own
	AcceptWithin time.Duration   // 0: the default
	RunWithin    time.Duration   // 0: the default
	UndoOf       controlbus.CommandID
	// Look allows to look at the waiting messages where that leaves traces on the
	// broker.
	Look bool
}

// Draft is a preview that can be ordered, by who took it and until it expires.
// It stays on the console, so that nobody can order what was not shown to them.
type Draft struct {
	ID      string
	Expires time.Time
	Spec    controlbus.CommandSpec // with the sealed Preview
	Policy  controlbus.ApprovalPolicy
}

// Outcome is what a command did with one message.
type Outcome struct {
	Command     controlbus.CommandID
	Kind        controlbus.CommandKind
	Number      int64 // of the message within the command, from 1
	At          time.Time
	Outcome     string // sent, removed, failed, skipped, returned
	UID         string // of the stored message, where it is known
	MessageID   string
	Correlation string
	Source      string // channel it was taken from
	Broker      string // of Destination
	Destination string // channel it went to
	Detail      string // why it failed or was skipped
}

// DetourView is a detour with the agent that holds it.
type DetourView struct {
	Agent string
	Env   string
	Heard time.Time // when the agent last told of it
	controlbus.DetourStatus
}
