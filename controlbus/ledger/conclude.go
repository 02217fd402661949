package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Conclude enters how a command ended that the console carries out itself. Its
// effect comes first and may be repeated: what dies between the two does it
// again. A command that has ended meanwhile stays as it is. Errors are
// controlbus.ErrNotFound, ErrInvalid for a kind that agents carry out, and
// ErrConflict for a command that nobody has consented to.
func (l *Ledger) Conclude(ctx context.Context, id controlbus.CommandID, r controlbus.CommandResult) (controlbus.Command, error) {
	if !r.Outcome.Result() {
		return controlbus.Command{}, fmt.Errorf("ledger: conclude %s: %w: outcome %.20q", id, controlbus.ErrInvalid, string(r.Outcome))
	}
	return l.change(ctx, id, func(_ Tx, c *controlbus.Command, step func(Event) error) error {
		switch {
		case !c.Kind.ByConsole():
			return fmt.Errorf("ledger: conclude %s: %w: %s is carried out by an agent", id, controlbus.ErrInvalid, c.Kind)
		case c.State.Terminal():
			return nil
		case c.State == controlbus.CommandQueued:
			if err := step(Event{Type: EventDispatched, Actor: system, Detail: "carried out by the console"}); err != nil {
				return err
			}
		case !c.State.Sent():
			return fmt.Errorf("ledger: conclude %s: %w: it is %s", id, controlbus.ErrConflict, c.State.Title())
		}
		return step(Event{Type: EventResult, Actor: system, Result: &r})
	})
}

// OfConsole lists commands that wait for the console to carry them out, oldest
// first.
func (l *Ledger) OfConsole(ctx context.Context) ([]controlbus.Command, error) {
	var all []controlbus.Command
	for _, kind := range controlbus.CommandKinds() {
		if !kind.ByConsole() {
			continue
		}
		list, err := l.store.Commands(ctx, Query{Kind: kind, Open: true, States: []controlbus.CommandState{controlbus.CommandQueued}, Scope: controlbus.Everything(), Limit: 500})
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	sortByID(all)
	return all, nil
}

func sortByID(all []controlbus.Command) {
	slices.SortFunc(all, func(a, b controlbus.Command) int { return cmp.Compare(a.ID, b.ID) })
}
