// Package commands is the control bus for people: the ledger of commands with
// running jobs and what waits for consent, the page of one command, and the
// dialogs in which a command is asked for. Every dialog ends in a preview, which
// the service keeps, and an order names that preview: a page cannot ask for
// anything that was not counted and shown before.
//
// What may be done is decided by the service and the ledger behind it; what is
// greyed here is a courtesy with a reason.
package commands

import (
	"context"
	"encoding/json"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage"
)

// Ledger reads commands, limited to what the identity in ctx may see. Errors are
// ErrNotFound and ErrUnavailable.
type Ledger interface {
	Commands(ctx context.Context, q ledger.Query) ([]controlbus.Command, error)
	Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error)
	Events(ctx context.Context, id controlbus.CommandID) ([]ledger.Event, error)
}

// Decider says yes, no and stop for the identity in ctx. Errors are ErrDenied,
// ErrConflict and ErrNotFound.
type Decider interface {
	Approve(ctx context.Context, id controlbus.CommandID, fingerprint string) (controlbus.Command, error)
	Refuse(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error)
	Cancel(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error)
	Abandon(ctx context.Context, id controlbus.CommandID, reason string) (controlbus.Command, error)
	// Control changes a running job; nil leaves a wish as it is.
	Control(ctx context.Context, id controlbus.CommandID, rate *float64, paused *bool) (controlbus.Command, error)
}

// Drafter takes previews and orders what they show. Preview waits for an agent;
// Draft finds it again for whoever took it, ErrNotFound once it is too old.
type Drafter interface {
	Preview(ctx context.Context, q command.Request) (command.Draft, error)
	PreviewUndo(ctx context.Context, id controlbus.CommandID, o controlbus.JobOptions) (command.Draft, error)
	Draft(ctx context.Context, id string) (command.Draft, error)
	Order(ctx context.Context, draft, reason, typed string) (controlbus.Command, error)
}

// Witness tells what became of single messages.
type Witness interface {
	Outcomes(ctx context.Context, id controlbus.CommandID, after int64, limit int) ([]command.Outcome, int64, error)
	OutcomesOf(ctx context.Context, uid, messageID string, within storage.TimeRange) ([]command.Outcome, error)
}

// Surveyor knows what brokers can do and what stands on them. It does not block.
type Surveyor interface {
	Abilities(ctx context.Context, env, broker string) []controlbus.Ability
	Detours(ctx context.Context) []command.DetourView
}

// Service is the control bus. Its methods may be called concurrently.
type Service interface {
	Ledger
	Decider
	Drafter
	Witness
	Surveyor
}

// rawArgs reads a kind's arguments for showing: what cannot be read is zero, the
// raw text stands on the command's page.
func rawArgs[T any](raw json.RawMessage) T {
	v, _ := controlbus.DecodeArgs[T](raw)
	return v
}

// jobOptions are a bulk command's, whatever its kind.
func jobOptions(s *controlbus.CommandSpec) controlbus.JobOptions {
	return rawArgs[struct{ Job controlbus.JobOptions }](s.Args).Job
}

// waiting is how long a page waits for an agent's answer to a preview.
const waiting = 20 * time.Second
