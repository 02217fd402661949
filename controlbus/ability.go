package controlbus

import "encoding/json"

// Ability is whether a broker, as its agent reaches it, can carry out a kind of
// command. The console greys out what cannot be done, with the reason.
type Ability struct {
	Kind CommandKind `json:"kind"`
	// Reason why not; empty: it can.
	Reason string `json:"reason,omitempty"`
	// Note is a condition to know before one asks, such as "queues that are bound
	// to a named exchange".
	Note string `json:"note,omitempty"`
}

// Ask is a question to an agent about a command nobody has ordered yet: what
// would it do? It changes nothing and is not kept.
type Ask struct {
	Kind        CommandKind     `json:"kind"`
	Target      Target          `json:"target"`
	Destination *ChannelName    `json:"destination,omitempty"`
	Args        json.RawMessage `json:"args,omitempty"` // of the kind
	UndoOf      CommandID       `json:"undo_of,omitempty"`
	// Look allows to look at the waiting messages themselves where that leaves
	// traces on the broker, such as the redelivered flag.
	Look bool `json:"look,omitempty"`
}

// Plan answers an Ask: the dry run.
type Plan struct {
	// Refused says why it cannot be done at all; then nothing else is set.
	Refused string `json:"refused,omitempty"`

	Technique string   `json:"technique,omitempty"`
	Impact    []string `json:"impact,omitempty"`
	Needs     []string `json:"needs,omitempty"` // rights on the broker
	// Count is how many messages fall under it, -1 where the broker cannot tell.
	Count   int64           `json:"count"`
	AtLeast bool            `json:"at_least,omitempty"`
	Oldest  int64           `json:"oldest,omitempty"` // Unix ns, 0 unknown
	Newest  int64           `json:"newest,omitempty"`
	Samples []PreviewSample `json:"samples,omitempty"`

	Reversible Reversibility `json:"reversible,omitempty"`
	Undo       string        `json:"undo,omitempty"`
	Expect     Expect        `json:"expect"`
}
