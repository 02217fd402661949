package controlbus

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Preview is what a command would do, as it was shown before anybody agreed to
// it. A command carries the preview its requester saw, frozen by its
// fingerprint; who approves sees the same one, and the agent compares Expect
// with what it finds before it touches anything.
type Preview struct {
	TakenAt time.Time `json:"taken_at"` // console's clock
	Env     string    `json:"env"`
	// Effect is one sentence: what will happen, not what will be clicked.
	Effect string `json:"effect"`
	// Count is how many messages fall under it, -1 where that cannot be known.
	Count int64 `json:"count"`
	// AtLeast says that there may be more: the count stopped at a limit.
	AtLeast bool            `json:"at_least,omitempty"`
	Oldest  time.Time       `json:"oldest,omitzero"`
	Newest  time.Time       `json:"newest,omitzero"`
	Samples []PreviewSample `json:"samples,omitempty"` // at most MaxSamples
	// Destination is where messages would go.
	Destination *ChannelName `json:"destination,omitempty"`

	Reversible Reversibility `json:"reversible"`
	// Undo is one sentence on how, or why not.
	Undo string `json:"undo,omitempty"`
	// Technique is the broker's means, Impact what people should know of it.
	Technique string   `json:"technique,omitempty"`
	Impact    []string `json:"impact,omitempty"`
	Needs     []string `json:"needs,omitempty"` // rights on the broker

	Expect Expect `json:"expect"`
	// Fingerprint is over all of the above, the command's kind and its target.
	Fingerprint string `json:"fingerprint"`
}

// MaxSamples of a preview.
const MaxSamples = 10

// PreviewMaxAge is how old a preview may be when its command is requested.
const PreviewMaxAge = 15 * time.Minute

// PreviewSample is one message that falls under a command.
type PreviewSample struct {
	UID         string    `json:"uid,omitempty"` // in the message store, where it is there
	MessageID   string    `json:"message_id,omitempty"`
	At          time.Time `json:"at,omitzero"`
	Position    string    `json:"position,omitempty"`
	ContentType string    `json:"content_type,omitempty"`
	Size        int64     `json:"size"`
	ErrorType   string    `json:"error_type,omitempty"`
	// Excerpt is the beginning of the body, for those who may read bodies.
	Excerpt string `json:"excerpt,omitempty"`
}

// Reversibility says whether a command can be taken back.
type Reversibility string

// Reversibilities. Partly: content comes back, place and identity do not.
const (
	ReversibleYes    Reversibility = "yes"
	ReversiblePartly Reversibility = "partly"
	ReversibleNo     Reversibility = "no"
)

// Expect is what must still hold when the agent begins. A zero field expects
// nothing.
type Expect struct {
	// MaxCount is the most messages there may be; -1 expects nothing.
	MaxCount int64 `json:"max_count"`
	// UpTo is the last position that falls under the command: what came later is
	// not touched.
	UpTo string `json:"up_to,omitempty"`
	// Topology is the broker's, as the plan was made for.
	Topology string `json:"topology,omitempty"`
}

// Mismatch says what of the expectation does not hold; empty when it does.
func (e Expect) Mismatch(count int64, topology string) string {
	switch {
	case e.MaxCount >= 0 && count > e.MaxCount:
		return fmt.Sprintf("%d messages are there, the preview expected at most %d", count, e.MaxCount)
	case e.Topology != "" && e.Topology != topology:
		return "the broker's topology has changed since the preview"
	}
	return ""
}

// Seal freezes the preview of a command: it sets the fingerprint.
func (p *Preview) Seal(kind CommandKind, target Target, args json.RawMessage) {
	p.Fingerprint = p.fingerprint(kind, target, args)
}

func (p *Preview) fingerprint(kind CommandKind, target Target, args json.RawMessage) string {
	c := *p
	c.Fingerprint = ""
	if len(args) == 0 {
		args = json.RawMessage("null")
	}
	b, err := json.Marshal(struct {
		Kind    CommandKind
		Target  Target
		Args    json.RawMessage
		Preview Preview
	}{kind, target, args, c})
	if err != nil {
		return "" // arguments that are no JSON: equal to no fingerprint
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// Check says whether the preview is whole and the one of this command. Errors
// are ErrInvalid, or ErrConflict where the command is not what was previewed.
func (p *Preview) Check(s CommandSpec) error {
	switch {
	case len(p.Samples) > MaxSamples:
		return fmt.Errorf("%w: preview: %d samples: at most %d", ErrInvalid, len(p.Samples), MaxSamples)
	case p.TakenAt.IsZero() || p.Effect == "":
		return fmt.Errorf("%w: preview: want its time and its effect", ErrInvalid)
	case !slices.Contains([]Reversibility{ReversibleYes, ReversiblePartly, ReversibleNo}, p.Reversible):
		return fmt.Errorf("%w: preview: reversible %.20q: want yes, partly or no", ErrInvalid, p.Reversible)
	case p.Env != s.Target.Channel.Env:
		return fmt.Errorf("%w: preview: it was taken in %.80q", ErrConflict, p.Env)
	case p.Fingerprint == "" || p.Fingerprint != p.fingerprint(s.Kind, s.Target, s.Args):
		return fmt.Errorf("%w: preview: it is not of this command; take it again", ErrConflict)
	case (p.Destination == nil) != (s.Destination == nil) || p.Destination != nil && *p.Destination != *s.Destination:
		return fmt.Errorf("%w: preview: it has another destination; take it again", ErrConflict)
	}
	return nil
}
