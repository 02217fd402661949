package action

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// PeekArgs of controlbus.CommandPeek.
type PeekArgs struct {
	Count int `json:"count,omitempty"` // 0: 20; at most 50
	// Look allows traces on the broker, such as the redelivered flag.
	Look bool `json:"look,omitempty"`
}

// PeekEvidence is controlbus.CommandResult.Evidence of a peek.
type PeekEvidence struct {
	Ready     int64                      `json:"ready"`
	Unsettled int64                      `json:"unsettled"`
	Consumers int64                      `json:"consumers"`
	Kind      string                     `json:"kind,omitempty"`
	Notes     []string                   `json:"notes,omitempty"`
	Traces    string                     `json:"traces,omitempty"` // what the look left on the broker
	Samples   []controlbus.PreviewSample `json:"samples,omitempty"`
}

const maxPeek = 50

// peek looks at the first waiting messages.
func (a *Actions) peek(ctx context.Context, run *link.Run) controlbus.CommandResult {
	args, err := controlbus.DecodeArgs[PeekArgs](run.Dispatch.Args)
	if err != nil {
		return reject(err)
	}
	w, err := a.begin(run)
	if err != nil {
		return reject(err)
	}
	p, err := verb[agents.Peeker](w.adapter, "look at waiting messages")
	if err != nil {
		return reject(err)
	}
	view, err := w.look(ctx)
	if err != nil {
		return reject(err)
	}
	ev := PeekEvidence{Ready: view.Ready, Unsettled: view.Unsettled, Consumers: view.Consumers, Kind: view.Kind, Notes: view.Notes}
	looking, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	msgs, traces, err := p.Peek(looking, w.target.Name, min(cmp.Or(max(args.Count, 0), 20), maxPeek), args.Look)
	if err != nil {
		return reject(err)
	}
	ev.Traces = traces
	for _, m := range msgs {
		ev.Samples = append(ev.Samples, a.sample(w.adapter, w.target, m))
	}
	n := int64(len(msgs))
	r := controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: controlbus.Counts{Matched: n, Done: n}, Detail: fmt.Sprintf("%d of %d waiting messages", n, view.Ready)}
	if r.Evidence, err = json.Marshal(ev); err != nil {
		return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Detail: err.Error()}
	}
	return r
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
