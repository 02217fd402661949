package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// ApproveRequest consents to what a preview showed.
type ApproveRequest struct {
	Fingerprint string `json:"fingerprint"`
}

// ReasonRequest says why.
type ReasonRequest struct {
	Reason string `json:"reason,omitempty"`
}

// ControlRequest changes a running job.
type ControlRequest struct {
	Rate   *float64 `json:"rate,omitempty"`
	Paused *bool    `json:"paused,omitempty"`
}

// decide reads a request of type T about the command in the path and answers
// with the command as it is then.
func decide[T any](a *API, do func(ctx context.Context, bus Commands, id controlbus.CommandID, q T) (controlbus.Command, error)) func(w http.ResponseWriter, r *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		bus, err := a.bus()
		if err != nil {
			return err
		}
		id, err := commandID(r)
		if err != nil {
			return err
		}
		var q T
		if err := readBody(w, r, &q); err != nil {
			return err
		}
		ctx, cancel := a.bound(r)
		defer cancel()
		c, err := do(ctx, bus, id, q)
		if err != nil {
			return fmt.Errorf("command %s: %w", id, err)
		}
		return write(w, http.StatusOK, commandOf(&c, true))
	}
}

func approve(ctx context.Context, bus Commands, id controlbus.CommandID, q ApproveRequest) (controlbus.Command, error) {
	if q.Fingerprint == "" {
		return controlbus.Command{}, fmt.Errorf("%w: fingerprint: want the one of the preview you saw", controlbus.ErrInvalid)
	}
	return bus.Approve(ctx, id, q.Fingerprint)
}

func refuse(ctx context.Context, bus Commands, id controlbus.CommandID, q ReasonRequest) (controlbus.Command, error) {
	return bus.Refuse(ctx, id, q.Reason)
}

func cancel(ctx context.Context, bus Commands, id controlbus.CommandID, q ReasonRequest) (controlbus.Command, error) {
	return bus.Cancel(ctx, id, q.Reason)
}

func abandon(ctx context.Context, bus Commands, id controlbus.CommandID, q ReasonRequest) (controlbus.Command, error) {
	return bus.Abandon(ctx, id, q.Reason)
}

func control(ctx context.Context, bus Commands, id controlbus.CommandID, q ControlRequest) (controlbus.Command, error) {
	if q.Rate == nil && q.Paused == nil {
		return controlbus.Command{}, fmt.Errorf("%w: want rate, paused or both", controlbus.ErrInvalid)
	}
	return bus.Control(ctx, id, q.Rate, q.Paused)
}

// undo takes the preview of a command that takes back what this one did.
func (a *API) undo(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	id, err := commandID(r)
	if err != nil {
		return err
	}
	var q JobOptions
	if err := readBody(w, r, &q); err != nil {
		return err
	}
	o := q.in()
	if err := o.Check(); err != nil {
		return err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	d, err := bus.PreviewUndo(ctx, id, o)
	if err != nil {
		return fmt.Errorf("undo command %s: %w", id, err)
	}
	return write(w, http.StatusCreated, draft(&d))
}

// Abilities are what a broker can do.
type Abilities struct {
	Abilities []Ability `json:"abilities"`
}

// Ability is whether a broker can carry out a kind of command.
type Ability struct {
	Kind   string `json:"kind"`
	Can    bool   `json:"can"`
	Reason string `json:"reason,omitempty"`
	Note   string `json:"note,omitempty"`
}

func (a *API) abilities(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	p := a.params(r)
	env, broker := p.text("env"), p.required("broker")
	if p.err != nil {
		return p.err
	}
	// The service leaves to whoever asks it what may be seen.
	who, _ := access.From(r.Context())
	switch scope := who.Scope(access.ViewMetadata); {
	case env == "" && !scope.All():
		return fmt.Errorf("%w: env: want the environment: you do not see all of them", controlbus.ErrInvalid)
	case !scope.All() && !scope.AllowsEnv(env):
		return fmt.Errorf("broker %.80s: %w", broker, controlbus.ErrNotFound)
	}
	out := Abilities{Abilities: []Ability{}}
	for _, b := range bus.Abilities(r.Context(), env, broker) {
		out.Abilities = append(out.Abilities, Ability{string(b.Kind), b.Reason == "", b.Reason, b.Note})
	}
	return write(w, http.StatusOK, out)
}

// Detours are the detours that stand.
type Detours struct {
	Detours []Detour `json:"detours"`
}

func (a *API) detours(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	p := a.params(r)
	env, broker := p.text("env"), p.text("broker")
	if p.err != nil {
		return p.err
	}
	who, _ := access.From(r.Context())
	out := Detours{Detours: []Detour{}}
	for _, v := range bus.Detours(r.Context()) {
		if (env == "" || v.Env == env) && (broker == "" || v.Broker == broker) && who.Can(access.ViewMetadata, v.Env, v.Channel) {
			out.Detours = append(out.Detours, detour(&v))
		}
	}
	return write(w, http.StatusOK, out)
}
