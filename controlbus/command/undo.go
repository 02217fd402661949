package command

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
)

// PreviewUndo is the preview of the command that takes another one's effect
// back; o is how messages are sent back, where some are. Errors are those of
// Preview, ErrUnsupported for what cannot be undone, and ErrConflict for what
// did nothing or has not ended.
func (s *Service) PreviewUndo(ctx context.Context, id controlbus.CommandID, o controlbus.JobOptions) (Draft, error) {
	c, err := s.Command(ctx, id)
	if err != nil {
		return Draft{}, err
	}
	kind, err := c.Undoable()
	if err != nil {
		return Draft{}, fmt.Errorf("command: undo %s: %w", short(id), err)
	}
	args, err := s.undoArgs(ctx, &c, kind, o)
	if err != nil {
		return Draft{}, fmt.Errorf("command: undo %s: %w", short(id), err)
	}
	ch := c.Target.Channel
	return s.Preview(ctx, Request{
		Kind: kind, Env: ch.Env, Broker: ch.Broker, Channel: ch.Name, Agent: c.Target.Agent, // it has the copy, or holds the state
		Args: args, UndoOf: id,
	})
}

// undoArgs are the arguments of the command that undoes c.
func (s *Service) undoArgs(ctx context.Context, c *controlbus.Command, kind controlbus.CommandKind, o controlbus.JobOptions) (json.RawMessage, error) {
	switch c.Kind {
	case controlbus.CommandPurge:
		args, err := controlbus.DecodeArgs[controlbus.PurgeArgs](c.Args)
		if err != nil {
			return nil, err
		}
		if args.NoBackup {
			return nil, fmt.Errorf("%w: it was ordered without keeping a copy", controlbus.ErrUnsupported)
		}
		return encodeArgs(controlbus.ReplayArgs{Job: o})
	case controlbus.CommandDiscard:
		return encodeArgs(controlbus.ReplayArgs{Job: o})
	case controlbus.CommandDetour:
		d, err := controlbus.DecodeArgs[controlbus.Detour](c.Args)
		if err != nil {
			return nil, err
		}
		return encodeArgs(controlbus.UndetourArgs{ID: d.ID})
	case controlbus.CommandPause:
		p, err := controlbus.DecodeArgs[controlbus.PauseArgs](c.Args)
		if err != nil {
			return nil, err
		}
		return encodeArgs(controlbus.PauseArgs{Consumer: p.Consumer})
	case controlbus.CommandTap:
		return nil, nil
	}
	return s.formerArgs(ctx, c, kind)
}

// formerArgs are those with which a state that has been ended was asked for: a
// detour, a pause, a tap comes back as it was.
func (s *Service) formerArgs(ctx context.Context, c *controlbus.Command, kind controlbus.CommandKind) (json.RawMessage, error) {
	who, _ := access.From(ctx)
	if !who.Can(access.ViewMetadata, c.Target.Channel.Env, c.Target.Channel.Name) {
		return nil, controlbus.ErrNotFound
	}
	ended, err := controlbus.DecodeArgs[controlbus.UndetourArgs](c.Args)
	if err != nil {
		return nil, err
	}
	ch := c.Target.Channel
	former, err := s.Commands(ctx, ledger.Query{Before: c.ID, Kind: kind, Agent: c.Target.Agent, Env: ch.Env, Broker: ch.Broker, Channel: ch.Name, Limit: 50})
	if err != nil {
		return nil, err
	}
	for i := range former {
		f := &former[i]
		if _, err := f.Undoable(); err != nil {
			continue // it did nothing
		}
		d, err := controlbus.DecodeArgs[controlbus.UndetourArgs](f.Args) // a detour's id
		if kind == controlbus.CommandDetour && (err != nil || d.ID != ended.ID) {
			continue
		}
		return f.Args, nil
	}
	if kind == controlbus.CommandTap {
		return encodeArgs(controlbus.TapArgs{})
	}
	return nil, fmt.Errorf("%w: how it was asked for is not in the ledger; order a new %s", controlbus.ErrUnsupported, kind)
}
