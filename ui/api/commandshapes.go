package api

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
)

// Duration is a length of time as text: 90s, 10m, 1h30m.
type Duration time.Duration

// MarshalText writes it as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration takes.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%.40q is no length such as 90s or 1h30m", text)
	}
	*d = Duration(v)
	return nil
}

// ChannelRef names a channel of a broker.
type ChannelRef struct {
	Env     string `json:"env,omitempty"`
	System  string `json:"system,omitempty"`
	Broker  string `json:"broker"`
	Channel string `json:"channel"`
}

func channelRef(c *controlbus.ChannelName) *ChannelRef {
	if c == nil {
		return nil
	}
	return &ChannelRef{c.Env, c.System, c.Broker, c.Name}
}

// Draft is a preview that can be ordered.
type Draft struct {
	ID           string      `json:"id"`
	Expires      Timestamp   `json:"expires"`
	Kind         string      `json:"kind"`
	Class        string      `json:"class"`
	Agent        string      `json:"agent"`
	Env          string      `json:"env"`
	System       string      `json:"system,omitempty"`
	Broker       string      `json:"broker"`
	Channel      string      `json:"channel"`
	Destination  *ChannelRef `json:"destination,omitempty"`
	Args         any         `json:"args,omitempty"`
	AcceptWithin Duration    `json:"accept_within"`
	RunWithin    Duration    `json:"run_within"`
	UndoOf       string      `json:"undo_of,omitempty"`
	Policy       string      `json:"policy"`
	// ReasonRequired says that nobody may order it without saying why.
	ReasonRequired bool    `json:"reason_required"`
	Preview        Preview `json:"preview"`
}

func draft(d *command.Draft) Draft {
	s := &d.Spec
	ch := s.Target.Channel
	out := Draft{
		ID: d.ID, Expires: at(d.Expires), Kind: string(s.Kind), Class: string(s.Kind.Class()), Agent: s.Target.Agent, Env: ch.Env, System: ch.System, Broker: ch.Broker, Channel: ch.Name,
		Destination: channelRef(s.Destination), Args: argsOut(s.Kind, s.Args), AcceptWithin: Duration(s.AcceptWithin), RunWithin: Duration(s.RunWithin),
		UndoOf: string(s.UndoOf), Policy: string(d.Policy), ReasonRequired: s.Kind.Class() == controlbus.EffectDestructive,
	}
	if s.Preview != nil {
		out.Preview = preview(s.Preview)
	}
	return out
}

// Preview is what a command would do, frozen.
type Preview struct {
	TakenAt     Timestamp   `json:"taken_at"`
	Env         string      `json:"env"`
	Effect      string      `json:"effect"`
	Count       *int64      `json:"count,omitempty"`
	AtLeast     bool        `json:"at_least"`
	Oldest      Timestamp   `json:"oldest,omitzero"`
	Newest      Timestamp   `json:"newest,omitzero"`
	Samples     []Sample    `json:"samples"`
	Destination *ChannelRef `json:"destination,omitempty"`
	Reversible  string      `json:"reversible"`
	Undo        string      `json:"undo,omitempty"`
	Technique   string      `json:"technique,omitempty"`
	Impact      []string    `json:"impact,omitempty"`
	Needs       []string    `json:"needs,omitempty"`
	Expect      Expect      `json:"expect"`
	Fingerprint string      `json:"fingerprint"`
}

// Sample is one message that falls under a command.
type Sample struct {
	UID         string    `json:"uid,omitempty"`
	MessageID   string    `json:"message_id,omitempty"`
	At          Timestamp `json:"at,omitzero"`
	Position    string    `json:"position,omitempty"`
	ContentType string    `json:"content_type,omitempty"`
	Size        int64     `json:"size"`
	ErrorType   string    `json:"error_type,omitempty"`
	Excerpt     string    `json:"excerpt,omitempty"`
}

// Expect is what must still hold when the agent begins.
type Expect struct {
	MaxCount *int64 `json:"max_count,omitempty"`
	UpTo     string `json:"up_to,omitempty"`
	Topology string `json:"topology,omitempty"`
}

// atLeastZero leaves out what is not known.
func atLeastZero(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

func preview(p *controlbus.Preview) Preview {
	out := Preview{
		TakenAt: at(p.TakenAt), Env: p.Env, Effect: p.Effect, Count: atLeastZero(p.Count), AtLeast: p.AtLeast, Oldest: at(p.Oldest), Newest: at(p.Newest),
		Samples: make([]Sample, 0, len(p.Samples)), Destination: channelRef(p.Destination), Reversible: string(p.Reversible), Undo: p.Undo,
		Technique: p.Technique, Impact: p.Impact, Needs: p.Needs, Expect: Expect{atLeastZero(p.Expect.MaxCount), p.Expect.UpTo, p.Expect.Topology}, Fingerprint: p.Fingerprint,
	}
	for _, s := range p.Samples {
		out.Samples = append(out.Samples, Sample{s.UID, s.MessageID, at(s.At), s.Position, s.ContentType, s.Size, s.ErrorType, s.Excerpt})
	}
	return out
}

// Command is a command as its events tell it.
type Command struct {
	ID            string       `json:"id"`
	Kind          string       `json:"kind"`
	Class         string       `json:"class"`
	State         string       `json:"state"`
	StateAt       Timestamp    `json:"state_at"`
	Ended         bool         `json:"ended"`
	Detail        string       `json:"detail,omitempty"`
	Agent         string       `json:"agent"`
	Env           string       `json:"env"`
	System        string       `json:"system,omitempty"`
	Broker        string       `json:"broker"`
	Channel       string       `json:"channel"`
	Destination   *ChannelRef  `json:"destination,omitempty"`
	Args          any          `json:"args,omitempty"`
	Reason        string       `json:"reason,omitempty"`
	Policy        string       `json:"policy"`
	AcceptWithin  Duration     `json:"accept_within"`
	RunWithin     Duration     `json:"run_within"`
	RequestedBy   Actor        `json:"requested_by"`
	RequestedAt   Timestamp    `json:"requested_at"`
	ApprovedBy    *Actor       `json:"approved_by,omitempty"`
	ApprovedAt    Timestamp    `json:"approved_at,omitzero"`
	Attempt       int          `json:"attempt"`
	DispatchedAt  Timestamp    `json:"dispatched_at,omitzero"`
	AcceptedAt    Timestamp    `json:"accepted_at,omitzero"`
	CancelAskedBy *Actor       `json:"cancel_asked_by,omitempty"`
	CancelAskedAt Timestamp    `json:"cancel_asked_at,omitzero"`
	CancelReason  string       `json:"cancel_reason,omitempty"`
	Progress      *JobProgress `json:"progress,omitempty"`
	Control       *JobControl  `json:"control,omitempty"`
	Result        *Result      `json:"result,omitempty"`
	LateResult    *Result      `json:"late_result,omitempty"`
	// UndoneWith is the kind that would take the effect back now.
	UndoneWith string   `json:"undone_with,omitempty"`
	UndoOf     string   `json:"undo_of,omitempty"`
	UndoneBy   string   `json:"undone_by,omitempty"`
	Version    string   `json:"version"`
	Preview    *Preview `json:"preview,omitempty"`
}

// Counts are what became of the messages a command was about.
type Counts struct {
	Matched int64 `json:"matched"`
	Done    int64 `json:"done"`
	Failed  int64 `json:"failed"`
	Skipped int64 `json:"skipped"`
}

// JobProgress is how far a running command has come.
type JobProgress struct {
	Counts
	Total *int64    `json:"total,omitempty"`
	Note  string    `json:"note,omitempty"`
	At    Timestamp `json:"at,omitzero"`
	// RemainingSeconds is how long the rest takes at the present rate.
	RemainingSeconds *float64  `json:"remaining_seconds,omitempty"`
	Job              *JobState `json:"job,omitempty"`
}

// JobState is what a bulk command tells beside its counts.
type JobState struct {
	Sent     int64   `json:"sent"`
	Refailed int64   `json:"refailed"`
	Step     int     `json:"step"`
	Rate     float64 `json:"rate"`
	Paused   bool    `json:"paused"`
	Settling bool    `json:"settling"`
	Control  int64   `json:"control"`
}

// JobControl is what people want of a running job.
type JobControl struct {
	Seq    int64   `json:"seq"`
	Rate   float64 `json:"rate"`
	Paused bool    `json:"paused"`
}

// Result is how a command ended.
type Result struct {
	Outcome string `json:"outcome"`
	Counts
	Detail   string          `json:"detail,omitempty"`
	Evidence json.RawMessage `json:"evidence,omitempty"`
}

func actorShape(a controlbus.Actor) Actor { return Actor{a.Kind, a.ID, a.Name} }

func actorPointer(a *controlbus.Actor) *Actor {
	if a == nil {
		return nil
	}
	out := actorShape(*a)
	return &out
}

func counts(c controlbus.Counts) Counts { return Counts{c.Matched, c.Done, c.Failed, c.Skipped} }

func result(r *controlbus.CommandResult) *Result {
	if r == nil {
		return nil
	}
	return &Result{string(r.Outcome), counts(r.Counts), r.Detail, r.Evidence}
}

func progress(p *controlbus.CommandProgress, when time.Time) *JobProgress {
	out := &JobProgress{Counts: counts(p.Counts), Total: atLeastZero(p.Total), Note: p.Note, At: at(when)}
	if j := p.Job; j != nil {
		out.Job = &JobState{j.Sent, j.Refailed, j.Step, j.Rate, j.Paused, j.Settling, j.Control}
		if left := p.Total - p.Done - p.Failed - p.Skipped; p.Total >= 0 && left >= 0 && j.Rate > 0 && !j.Paused {
			s := float64(left) / j.Rate
			out.RemainingSeconds = gauge(s)
		}
	}
	return out
}

// version is another at every change that is worth showing.
func version(c *controlbus.Command) string {
	return fmt.Sprintf("%d.%d.%d", c.Seq, c.ProgressSeq, c.Control.Seq)
}

// commandOf leaves the preview out of lists: it has samples.
func commandOf(c *controlbus.Command, whole bool) Command {
	ch := c.Target.Channel
	out := Command{
		ID: string(c.ID), Kind: string(c.Kind), Class: string(c.Class), State: string(c.State), StateAt: at(c.StateAt), Ended: c.State.Terminal(), Detail: c.Detail,
		Agent: c.Target.Agent, Env: ch.Env, System: ch.System, Broker: ch.Broker, Channel: ch.Name, Destination: channelRef(c.Destination), Args: argsOut(c.Kind, c.Args),
		Reason: c.Reason, Policy: string(c.Policy), AcceptWithin: Duration(c.AcceptWithin), RunWithin: Duration(c.RunWithin), RequestedBy: actorShape(c.RequestedBy), RequestedAt: at(c.RequestedAt),
		ApprovedBy: actorPointer(c.ApprovedBy), ApprovedAt: at(c.ApprovedAt), Attempt: c.Attempt, DispatchedAt: at(c.DispatchedAt), AcceptedAt: at(c.AcceptedAt),
		CancelAskedBy: actorPointer(c.CancelAsked), CancelAskedAt: at(c.CancelAskedAt), CancelReason: c.CancelReason,
		Result: result(c.Result), LateResult: result(c.LateResult), UndoOf: string(c.UndoOf), UndoneBy: string(c.UndoneBy), Version: version(c),
	}
	if !c.ProgressAt.IsZero() {
		out.Progress = progress(&c.Progress, c.ProgressAt)
	}
	if c.Control.Seq > 0 {
		out.Control = &JobControl{c.Control.Seq, c.Control.Rate, c.Control.Paused}
	}
	if kind, err := c.Undoable(); err == nil && c.UndoneBy == "" {
		out.UndoneWith = string(kind)
	}
	if whole && c.Preview != nil {
		p := preview(c.Preview)
		out.Preview = &p
	}
	return out
}

// CommandEvent is one thing that happened to a command.
type CommandEvent struct {
	N        int64        `json:"n"`
	At       Timestamp    `json:"at"`
	Type     string       `json:"type"`
	Actor    Actor        `json:"actor"`
	Detail   string       `json:"detail,omitempty"`
	Progress *JobProgress `json:"progress,omitempty"`
	Control  *JobControl  `json:"control,omitempty"`
	Result   *Result      `json:"result,omitempty"`
	Undo     string       `json:"undo,omitempty"`
}

func commandEvent(e *ledger.Event) CommandEvent {
	out := CommandEvent{N: e.N, At: at(e.At), Type: string(e.Type), Actor: actorShape(e.Actor), Detail: e.Detail, Result: result(e.Result), Undo: string(e.Undo)}
	if e.Progress != nil {
		out.Progress = progress(e.Progress, e.At)
	}
	if e.Control != nil {
		out.Control = &JobControl{e.Control.Seq, e.Control.Rate, e.Control.Paused}
	}
	return out
}

// CommandOutcome is what a command did with one message.
type CommandOutcome struct {
	Number        int64     `json:"number"`
	At            Timestamp `json:"at"`
	Outcome       string    `json:"outcome"`
	UID           string    `json:"uid,omitempty"`
	MessageID     string    `json:"message_id,omitempty"`
	CorrelationID string    `json:"correlation_id,omitempty"`
	Source        string    `json:"source,omitempty"`
	Broker        string    `json:"broker,omitempty"`
	Channel       string    `json:"channel,omitempty"`
	Detail        string    `json:"detail,omitempty"`
}

func commandOutcome(o *command.Outcome) CommandOutcome {
	return CommandOutcome{o.Number, at(o.At), o.Outcome, o.UID, o.MessageID, o.Correlation, o.Source, o.Broker, o.Destination, o.Detail}
}

// Detour is a detour as its agent holds it.
type Detour struct {
	ID        string       `json:"id"`
	Agent     string       `json:"agent"`
	Env       string       `json:"env"`
	Broker    string       `json:"broker"`
	Channel   string       `json:"channel"`
	Command   string       `json:"command,omitempty"`
	State     string       `json:"state"`
	Pause     bool         `json:"pause"`
	Technique string       `json:"technique,omitempty"`
	Since     Timestamp    `json:"since,omitzero"`
	Until     Timestamp    `json:"until,omitzero"`
	Heard     Timestamp    `json:"heard,omitzero"`
	Owner     Actor        `json:"owner"`
	Reason    string       `json:"reason,omitempty"`
	To        string       `json:"to,omitempty"`
	Filter    string       `json:"filter,omitempty"`
	Steps     []DetourStep `json:"steps"`
	OnFailure string       `json:"on_failure,omitempty"`
	Backlog   *int64       `json:"backlog,omitempty"`
	Parked    *int64       `json:"parked,omitempty"`
	In        int64        `json:"in"`
	Passed    int64        `json:"passed"`
	Refused   int64        `json:"refused"`
	Copied    int64        `json:"copied"`
	Failed    int64        `json:"failed"`
	Rate      float64      `json:"rate"`
	Notes     []string     `json:"notes,omitempty"`
	Error     string       `json:"error,omitempty"`
}

func detour(v *command.DetourView) Detour {
	d := &v.Detour
	return Detour{
		ID: d.ID, Agent: v.Agent, Env: v.Env, Broker: v.Broker, Channel: v.Channel, Command: string(v.Command), State: string(v.State), Pause: d.Pause, Technique: v.Technique,
		Since: at(v.Since), Until: at(v.Until), Heard: at(v.Heard), Owner: actorShape(d.Owner), Reason: d.Reason, To: d.To, Filter: d.Filter, Steps: stepsOut(d.Steps), OnFailure: string(d.OnFailure),
		Backlog: atLeastZero(v.Backlog), Parked: atLeastZero(v.Parked), In: v.In, Passed: v.Passed, Refused: v.Refused, Copied: v.Copied, Failed: v.Failed, Rate: v.Rate, Notes: v.Notes, Error: v.Error,
	}
}
