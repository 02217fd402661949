package ui

import (
	"bytes"
	"context"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
)

type bus = Commands

// witnessed is the control bus, which decides itself who may see and do what;
// what it shows of bodies is recorded before it is shown. Whoever took a preview
// was recorded then; this is about everybody who looks at it afterwards.
type witnessed struct {
	bus
	audit *audit
}

func (w *witnessed) Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error) {
	c, err := w.bus.Command(ctx, id)
	if err == nil && showsBodies(&c) {
		err = w.note(ctx, &c)
	}
	if err != nil {
		return controlbus.Command{}, err
	}
	return c, nil
}

func (w *witnessed) Events(ctx context.Context, id controlbus.CommandID) ([]ledger.Event, error) {
	if _, err := w.Command(ctx, id); err != nil { // the same stands in both
		return nil, err
	}
	return w.bus.Events(ctx, id)
}

func (w *witnessed) note(ctx context.Context, c *controlbus.Command) error {
	id, _ := access.From(ctx)
	ch := c.Target.Channel
	return w.audit.once(ctx, id, access.Event{
		Code: access.EventBodyPreview, Target: "command " + string(c.ID), Env: ch.Env, Channel: ch.String(), Detail: "Beginnings of payloads in a command.",
	})
}

// showsBodies says whether beginnings of bodies are among what a command shows.
func showsBodies(c *controlbus.Command) bool {
	if p := c.Preview; p != nil {
		for i := range p.Samples {
			if p.Samples[i].Excerpt != "" {
				return true
			}
		}
	}
	for _, r := range []*controlbus.CommandResult{c.Result, c.LateResult} {
		if r != nil && bytes.Contains(r.Evidence, []byte(`"excerpt"`)) {
			return true
		}
	}
	return false
}
