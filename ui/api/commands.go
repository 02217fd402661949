package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
)

// Commands is what people do to brokers. Every method acts for the identity in
// ctx and says no where it may not; may be called concurrently; blocks until ctx
// ends at most; and returns ErrNotFound, ErrInvalid, ErrConflict, ErrDenied,
// ErrUnsupported and ErrUnavailable.
type Commands interface {
	Orders
	Decisions
	Preview(ctx context.Context, q command.Request) (command.Draft, error)
	PreviewUndo(ctx context.Context, id controlbus.CommandID, o controlbus.JobOptions) (command.Draft, error)
	Draft(ctx context.Context, id string) (command.Draft, error)
	Order(ctx context.Context, draft, reason, typed string) (controlbus.Command, error)
	Outcomes(ctx context.Context, id controlbus.CommandID, after int64, limit int) ([]command.Outcome, int64, error)
	// Abilities and Detours answer from what is known here.
	Abilities(ctx context.Context, env, broker string) []controlbus.Ability
	Detours(ctx context.Context) []command.DetourView
}

// Orders is the ledger as a reader sees it.
type Orders interface {
	Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error)
	Events(ctx context.Context, id controlbus.CommandID) ([]ledger.Event, error)
	Commands(ctx context.Context, q ledger.Query) ([]controlbus.Command, error)
	// Changed is closed at the next change of any command.
	Changed() <-chan struct{}
}

// Decisions are what can be said about a command that stands.
type Decisions interface {
	Approve(ctx context.Context, id controlbus.CommandID, fingerprint string) (controlbus.Command, error)
	Refuse(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error)
	Cancel(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error)
	Abandon(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error)
	Control(ctx context.Context, id controlbus.CommandID, rate *float64, paused *bool) (controlbus.Command, error)
}

const (
	defaultCommands = 100
	maxCommands     = 500
	maxOutcomes     = 1000
)

// bus is the commands, or why there are none.
func (a *API) bus() (Commands, error) {
	if a.deps.Commands == nil {
		return nil, fmt.Errorf("this console takes no commands: %w", controlbus.ErrNotFound)
	}
	return a.deps.Commands, nil
}

// commandID is the command that the path names.
func commandID(r *http.Request) (controlbus.CommandID, error) {
	id := controlbus.CommandID(r.PathValue("id"))
	if !id.Valid() {
		return "", fmt.Errorf("%w: command %.80q: want 32 hexadecimal digits", controlbus.ErrInvalid, string(id))
	}
	return id, nil
}

// PreviewRequest asks what a command would do.
type PreviewRequest struct {
	Kind         string          `json:"kind"`
	Env          string          `json:"env,omitempty"`
	Broker       string          `json:"broker"`
	Channel      string          `json:"channel"`
	Agent        string          `json:"agent,omitempty"`
	Destination  *ChannelRef     `json:"destination,omitempty"`
	Args         json.RawMessage `json:"args,omitempty"`
	AcceptWithin Duration        `json:"accept_within,omitzero"`
	RunWithin    Duration        `json:"run_within,omitzero"`
	Look         bool            `json:"look,omitempty"`
}

func (a *API) preview(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	var q PreviewRequest
	if err := readBody(w, r, &q); err != nil {
		return err
	}
	kind := controlbus.CommandKind(q.Kind)
	if _, ok := kind.Info(); !ok {
		return fmt.Errorf("%w: kind %.40q: want one of %s", controlbus.ErrInvalid, q.Kind, kindNames())
	}
	if q.Broker == "" || q.Channel == "" {
		return fmt.Errorf("%w: a channel is named by broker and channel", controlbus.ErrInvalid)
	}
	who, _ := access.From(r.Context())
	args, err := argsIn(kind, q.Args, who, a.deps.Now())
	if err != nil {
		return err
	}
	ask := command.Request{
		Kind: kind, Env: q.Env, Broker: q.Broker, Channel: q.Channel, Agent: q.Agent, Args: args,
		AcceptWithin: time.Duration(q.AcceptWithin), RunWithin: time.Duration(q.RunWithin), Look: q.Look,
	}
	if d := q.Destination; d != nil {
		if d.Broker == "" || d.Channel == "" {
			return fmt.Errorf("%w: a destination is named by broker and channel", controlbus.ErrInvalid)
		}
		ask.Destination = &controlbus.ChannelName{Env: d.Env, System: d.System, Broker: d.Broker, Name: d.Channel}
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	d, err := bus.Preview(ctx, ask)
	if err != nil {
		return fmt.Errorf("preview %s: %w", kind, err)
	}
	return write(w, http.StatusCreated, draft(&d))
}

func kindNames() string {
	var names []string
	for _, k := range controlbus.CommandKinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func (a *API) draft(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	d, err := bus.Draft(ctx, r.PathValue("id"))
	if err != nil {
		return fmt.Errorf("preview %.80s: %w", r.PathValue("id"), err)
	}
	return write(w, http.StatusOK, draft(&d))
}

// OrderRequest orders what a preview showed.
type OrderRequest struct {
	Preview string `json:"preview"`
	Reason  string `json:"reason,omitempty"`
	Typed   string `json:"typed,omitempty"`
}

func (a *API) order(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	var q OrderRequest
	if err := readBody(w, r, &q); err != nil {
		return err
	}
	if q.Preview == "" {
		return fmt.Errorf("%w: preview: want the id of a preview; POST %s/previews makes one", controlbus.ErrInvalid, base)
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	c, err := bus.Order(ctx, q.Preview, q.Reason, q.Typed)
	if err != nil {
		return fmt.Errorf("order: %w", err)
	}
	w.Header().Set("Location", base+"/commands/"+string(c.ID))
	return write(w, http.StatusCreated, commandOf(&c, true))
}

// CommandList is a page of commands, newest first.
type CommandList struct {
	Commands []Command `json:"commands"`
	Next     string    `json:"next,omitempty"`
}

func (a *API) listCommands(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	p := a.params(r)
	limit := p.number("limit", defaultCommands, 1, maxCommands)
	q := ledger.Query{
		Env: p.text("env"), Broker: p.text("broker"), Channel: p.text("channel"), Agent: p.text("agent"), Requester: p.text("requester"),
		Open: p.flag("open"), From: p.at("from", time.Time{}), To: p.at("to", time.Time{}), Limit: limit,
		Kind: controlbus.CommandKind(p.text("kind")), Before: controlbus.CommandID(p.text("cursor")),
	}
	if _, ok := q.Kind.Info(); q.Kind != "" && !ok {
		p.wrong("kind", "one of "+kindNames())
	}
	if q.Before != "" && !q.Before.Valid() {
		p.wrong("cursor", "the next of the page before")
	}
	if s := p.text("state"); s != "" {
		for name := range strings.SplitSeq(s, ",") {
			state := controlbus.CommandState(strings.TrimSpace(name))
			if !state.Valid() {
				p.wrong("state", "states such as running,partial")
			}
			q.States = append(q.States, state)
		}
	}
	if q.Requester == "me" {
		who, _ := access.From(r.Context())
		q.Requester = who.Person()
	}
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	found, err := bus.Commands(ctx, q)
	if err != nil {
		return fmt.Errorf("list commands: %w", err)
	}
	out := CommandList{Commands: make([]Command, 0, len(found))}
	for i := range found {
		out.Commands = append(out.Commands, commandOf(&found[i], false))
	}
	if len(found) >= limit { // there may be more
		out.Next = string(found[len(found)-1].ID)
		form := r.URL.Query()
		form.Set("cursor", out.Next)
		w.Header().Set("Link", "<"+r.URL.Path+"?"+form.Encode()+`>; rel="next"`)
	}
	return write(w, http.StatusOK, out)
}

// CommandEvents are what happened to a command.
type CommandEvents struct {
	Events []CommandEvent `json:"events"`
}

func (a *API) commandEvents(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	id, err := commandID(r)
	if err != nil {
		return err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	found, err := bus.Events(ctx, id)
	if err != nil {
		return fmt.Errorf("events of command %s: %w", id, err)
	}
	out := CommandEvents{Events: make([]CommandEvent, 0, len(found))}
	for i := range found {
		out.Events = append(out.Events, commandEvent(&found[i]))
	}
	return write(w, http.StatusOK, out)
}

// CommandOutcomes are what a command did with single messages.
type CommandOutcomes struct {
	Outcomes []CommandOutcome `json:"outcomes"`
	Next     string           `json:"next,omitempty"`
}

func (a *API) commandOutcomes(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	id, err := commandID(r)
	if err != nil {
		return err
	}
	p := a.params(r)
	limit := p.number("limit", defaultMessages, 1, maxOutcomes)
	after := p.count("cursor")
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	found, next, err := bus.Outcomes(ctx, id, after, limit)
	if err != nil {
		return fmt.Errorf("outcomes of command %s: %w", id, err)
	}
	out := CommandOutcomes{Outcomes: make([]CommandOutcome, 0, len(found))}
	for i := range found {
		out.Outcomes = append(out.Outcomes, commandOutcome(&found[i]))
	}
	if next > after {
		out.Next = fmt.Sprint(next)
	}
	return write(w, http.StatusOK, out)
}
