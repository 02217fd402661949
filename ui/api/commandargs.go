package api

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// The arguments of each kind as the API has them: those of package controlbus,
// with lengths of time as text. A field that is not known is refused: a misspelt
// no_backup or filter would make another command of it.

// JobOptions are how a bulk command sends.
type JobOptions struct {
	Rate      float64  `json:"rate,omitempty"`
	Ramp      []int64  `json:"ramp,omitempty"`
	Settle    Duration `json:"settle,omitzero"`
	StopRatio float64  `json:"stop_ratio,omitempty"`
	StopMin   int64    `json:"stop_min,omitempty"`
	Max       int64    `json:"max,omitempty"`
}

func (o JobOptions) in() controlbus.JobOptions {
	return controlbus.JobOptions{Rate: o.Rate, Ramp: o.Ramp, Settle: time.Duration(o.Settle), StopRatio: o.StopRatio, StopMin: o.StopMin, Max: o.Max}
}

func jobOptions(o controlbus.JobOptions) *JobOptions {
	out := JobOptions{o.Rate, o.Ramp, Duration(o.Settle), o.StopRatio, o.StopMin, o.Max}
	if out.Rate == 0 && len(out.Ramp) == 0 && out.Settle == 0 && out.StopRatio == 0 && out.StopMin == 0 && out.Max == 0 {
		return nil
	}
	return &out
}

func (o *JobOptions) or() controlbus.JobOptions {
	if o == nil {
		return controlbus.JobOptions{}
	}
	return o.in()
}

// BulkArgs are those of redrive and discard.
type BulkArgs struct {
	Filter string      `json:"filter,omitempty"`
	Job    *JobOptions `json:"job,omitempty"`
	Force  bool        `json:"force,omitempty"` // redrive
}

// ReplayArgs are those of replay.
type ReplayArgs struct {
	Selection *Selection  `json:"selection,omitempty"`
	Job       *JobOptions `json:"job,omitempty"`
}

// Selection is a choice of stored messages.
type Selection struct {
	Env          string    `json:"env,omitempty"`
	Filter       string    `json:"filter,omitempty"`
	From         Timestamp `json:"from,omitzero"`
	To           Timestamp `json:"to,omitzero"`
	UIDs         []string  `json:"uids,omitempty"`
	StoredBefore Timestamp `json:"stored_before,omitzero"` // the console's
}

// PauseArgs are those of pause and resume.
type PauseArgs struct {
	For      Duration `json:"for,omitzero"`
	Consumer string   `json:"consumer,omitempty"`
}

// TapArgs are those of tap.
type TapArgs struct {
	For      Duration `json:"for,omitzero"`
	MaxBytes int64    `json:"max_bytes,omitempty"`
}

// DetourArgs are those of detour.
type DetourArgs struct {
	ID        string       `json:"id"`
	To        string       `json:"to,omitempty"`
	Reason    string       `json:"reason,omitempty"`
	For       Duration     `json:"for,omitzero"`
	Filter    string       `json:"filter,omitempty"`
	Steps     []DetourStep `json:"steps,omitempty"`
	OnFailure string       `json:"on_failure,omitempty"`
	Park      string       `json:"park,omitempty"`
}

// DetourStep is one step; exactly one field is set.
type DetourStep struct {
	Hold     *controlbus.HoldStep     `json:"hold,omitempty"`
	Validate *controlbus.ValidateStep `json:"validate,omitempty"`
	Headers  *controlbus.HeadersStep  `json:"headers,omitempty"`
	Rate     *controlbus.RateStep     `json:"rate,omitempty"`
	Copy     *controlbus.CopyStep     `json:"copy,omitempty"`
	HTTP     *HTTPStep                `json:"http,omitempty"`
	Channel  *controlbus.ChannelStep  `json:"channel,omitempty"`
}

// HTTPStep posts the body to an endpoint.
type HTTPStep struct {
	URL     string   `json:"url"`
	Timeout Duration `json:"timeout,omitzero"`
	Retries int      `json:"retries,omitempty"`
	Replace bool     `json:"replace,omitempty"`
}

// Steps are what the agent does, in the form that controlbus.Detour has.
func Steps(list []DetourStep) []controlbus.DetourStep {
	var out []controlbus.DetourStep
	for _, s := range list {
		step := controlbus.DetourStep{Hold: s.Hold, Validate: s.Validate, Headers: s.Headers, Rate: s.Rate, Copy: s.Copy, Channel: s.Channel}
		if h := s.HTTP; h != nil {
			step.HTTP = &controlbus.HTTPStep{URL: h.URL, Timeout: time.Duration(h.Timeout), Retries: h.Retries, Replace: h.Replace}
		}
		out = append(out, step)
	}
	return out
}

func stepsOut(list []controlbus.DetourStep) []DetourStep {
	out := make([]DetourStep, 0, len(list))
	for _, s := range list {
		step := DetourStep{Hold: s.Hold, Validate: s.Validate, Headers: s.Headers, Rate: s.Rate, Copy: s.Copy, Channel: s.Channel}
		if h := s.HTTP; h != nil {
			step.HTTP = &HTTPStep{h.URL, Duration(h.Timeout), h.Retries, h.Replace}
		}
		out = append(out, step)
	}
	return out
}

// strict reads arguments; none are the zero value.
func strict[T any](kind controlbus.CommandKind, raw json.RawMessage) (v T, err error) {
	if len(raw) == 0 {
		return v, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, fmt.Errorf("%w: args of %s: %w", controlbus.ErrInvalid, kind, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, fmt.Errorf("%w: args of %s: want one object", controlbus.ErrInvalid, kind)
	}
	return v, nil
}

// argsIn turns the arguments of a request into those that an agent gets.
func argsIn(kind controlbus.CommandKind, raw json.RawMessage, who access.Identity, now time.Time) (json.RawMessage, error) {
	args, err := readArgs(kind, raw, who, now)
	if err != nil || args == nil {
		return nil, err
	}
	b, err := json.Marshal(args)
	if err != nil {
		return nil, fmt.Errorf("%w: args of %s: %w", controlbus.ErrInvalid, kind, err)
	}
	return b, nil
}

func readArgs(kind controlbus.CommandKind, raw json.RawMessage, who access.Identity, now time.Time) (any, error) {
	readable := func(text string) error {
		_, err := filter.Parse(text, now)
		return err
	}
	switch kind {
	case controlbus.CommandPurge:
		v, err := strict[controlbus.PurgeArgs](kind, raw)
		return v, cmp.Or(err, readable(v.Filter))
	case controlbus.CommandRedrive:
		v, err := strict[BulkArgs](kind, raw)
		return controlbus.RedriveArgs{Filter: v.Filter, Job: v.Job.or(), Force: v.Force}, cmp.Or(err, readable(v.Filter), v.Job.or().Check())
	case controlbus.CommandDiscard:
		v, err := strict[BulkArgs](kind, raw)
		if v.Force {
			err = fmt.Errorf("%w: args of discard: force is for redrive", controlbus.ErrInvalid)
		}
		return controlbus.DiscardArgs{Filter: v.Filter, Job: v.Job.or()}, cmp.Or(err, readable(v.Filter), v.Job.or().Check())
	case controlbus.CommandReplay:
		v, err := strict[ReplayArgs](kind, raw)
		if err != nil {
			return nil, err
		}
		s := v.Selection
		if s == nil || len(s.UIDs) == 0 && s.From.IsZero() {
			return nil, fmt.Errorf("%w: args of replay: want a selection with uids, or from", controlbus.ErrInvalid)
		}
		return controlbus.ReplayArgs{
			Selection: &controlbus.Selection{Env: s.Env, Filter: s.Filter, From: s.From.Time, To: s.To.Time, UIDs: s.UIDs}, Job: v.Job.or(),
		}, cmp.Or(readable(s.Filter), v.Job.or().Check())
	case controlbus.CommandTest:
		v, err := strict[controlbus.TestArgs](kind, raw)
		if v.Run == "" {
			v.Run = rand.Text()[:16]
		}
		return v, err
	case controlbus.CommandPause:
		v, err := strict[PauseArgs](kind, raw)
		if d := time.Duration(v.For); err == nil && (d < time.Second || d > controlbus.MaxPause) {
			err = fmt.Errorf("%w: args of pause: for %v: want 1s to %v", controlbus.ErrInvalid, d, controlbus.MaxPause)
		}
		return controlbus.PauseArgs{For: time.Duration(v.For), Consumer: v.Consumer}, err
	case controlbus.CommandResume:
		v, err := strict[PauseArgs](kind, raw)
		if v.For != 0 {
			err = fmt.Errorf("%w: args of resume: for is for pause", controlbus.ErrInvalid)
		}
		return controlbus.PauseArgs{Consumer: v.Consumer}, err
	case controlbus.CommandTap:
		v, err := strict[TapArgs](kind, raw)
		return controlbus.TapArgs{For: time.Duration(v.For), MaxBytes: v.MaxBytes}, err
	case controlbus.CommandDetour:
		v, err := strict[DetourArgs](kind, raw)
		d := controlbus.Detour{
			ID: v.ID, To: v.To, Reason: v.Reason, For: time.Duration(v.For), Filter: v.Filter, Steps: Steps(v.Steps), OnFailure: controlbus.DetourFailure(v.OnFailure), Park: v.Park,
			Owner: controlbus.Actor{Kind: string(who.Kind), ID: who.Person(), Name: who.Name},
		}
		if err == nil {
			err = cmp.Or(d.Check(), readable(d.Filter))
		}
		return d, err
	case controlbus.CommandUndetour:
		v, err := strict[controlbus.UndetourArgs](kind, raw)
		if err == nil && v.ID == "" {
			err = fmt.Errorf("%w: args of undetour: want the id of the detour", controlbus.ErrInvalid)
		}
		return v, err
	}
	// Of the others nothing is known here but that they take an object.
	v, err := strict[map[string]any](kind, raw)
	if v == nil {
		return nil, err
	}
	return v, err
}

// argsOut turns arguments of a command into those of the API. What it cannot
// read it gives as it is: an older console's, or a newer one's.
func argsOut(kind controlbus.CommandKind, raw json.RawMessage) any {
	if len(raw) == 0 {
		return nil
	}
	var out any
	var err error
	switch kind {
	case controlbus.CommandRedrive:
		var v controlbus.RedriveArgs
		err = json.Unmarshal(raw, &v)
		out = BulkArgs{v.Filter, jobOptions(v.Job), v.Force}
	case controlbus.CommandDiscard:
		var v controlbus.DiscardArgs
		err = json.Unmarshal(raw, &v)
		out = BulkArgs{Filter: v.Filter, Job: jobOptions(v.Job)}
	case controlbus.CommandReplay:
		var v controlbus.ReplayArgs
		err = json.Unmarshal(raw, &v)
		args := ReplayArgs{Job: jobOptions(v.Job)}
		if s := v.Selection; s != nil {
			args.Selection = &Selection{s.Env, s.Filter, at(s.From), at(s.To), s.UIDs, at(s.StoredBefore)}
		}
		out = args
	case controlbus.CommandPause, controlbus.CommandResume:
		var v controlbus.PauseArgs
		err = json.Unmarshal(raw, &v)
		out = PauseArgs{Duration(v.For), v.Consumer}
	case controlbus.CommandTap:
		var v controlbus.TapArgs
		err = json.Unmarshal(raw, &v)
		out = TapArgs{Duration(v.For), v.MaxBytes}
	case controlbus.CommandDetour:
		var v controlbus.Detour
		err = json.Unmarshal(raw, &v)
		out = DetourArgs{v.ID, v.To, v.Reason, Duration(v.For), v.Filter, stepsOut(v.Steps), string(v.OnFailure), v.Park}
	default:
		out = raw
	}
	if err != nil {
		return raw
	}
	return out
}
