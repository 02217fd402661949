package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

const (
	// followStep is how long the console holds back one answer.
	followStep = "30s"
	// followSilence is how long a console may be away before it is given up.
	followSilence = 2 * time.Minute
	// plainEvery bounds how often progress is told where there is no terminal.
	plainEvery = 10 * time.Second
)

// followed is a command that somebody waits for.
type followed struct {
	cmd     api.Command
	raw     []byte        // as the console sent it
	through bool          // also while it waits for approval
	timeout time.Duration // 0: until it ends
	json    bool
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// follow shows how far a command comes until it ends; the error's code is how it
// ended.
func (t *terminal) follow(ctx context.Context, c *client, f followed) error {
	if f.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	var told time.Time
	state := ""
	tell := func() {
		text := component.Visible(progressText(&f.cmd))
		switch {
		case t.live:
			fmt.Fprintf(t.err, "\r\x1b[K%s", cutText(text, max(20, t.width-1)))
		case f.cmd.State != state || time.Since(told) >= plainEvery:
			t.note("%s", text)
			told, state = time.Now(), f.cmd.State
		}
	}
	clear := func() {
		if t.live {
			fmt.Fprint(t.err, "\r\x1b[K")
		}
	}
	var away time.Time
	retry := backoff.Backoff{Base: 500 * time.Millisecond, Cap: 5 * time.Second, Floor: 250 * time.Millisecond}
	for !f.cmd.Ended {
		if f.cmd.State == string(controlbus.CommandAwaitingApproval) && !f.through {
			clear()
			if f.json {
				t.json(f.raw)
			}
			return awaiting(&f.cmd)
		}
		tell()
		var next api.Command
		raw, err := c.get(ctx, "/commands/"+url.PathEscape(f.cmd.ID), url.Values{"wait": {followStep}, "version": {f.cmd.Version}}, &next)
		var e exit
		switch {
		case err == nil:
			f.cmd, f.raw, away = next, raw, time.Time{}
			retry = backoff.Backoff{Base: 500 * time.Millisecond, Cap: 5 * time.Second, Floor: 250 * time.Millisecond}
			continue
		case ctx.Err() != nil:
			clear()
			return exit{exitGoesOn, fmt.Errorf("command %s goes on: `signalbox commands watch %[1]s` follows it, `signalbox commands cancel %[1]s` stops it", component.Visible(f.cmd.ID))}
		case !errors.As(err, &e) || e.code != exitNoAnswer:
			clear()
			return err
		}
		if away.IsZero() {
			away = time.Now()
			clear()
			t.note("The console does not answer; the command goes on. Trying again.")
		}
		if time.Since(away) > followSilence {
			return exit{exitNoAnswer, fmt.Errorf("%w\nCommand %s goes on: `signalbox commands watch %[2]s` follows it", err, component.Visible(f.cmd.ID))}
		}
		backoff.Sleep(ctx, retry.Next())
	}
	clear()
	if f.json {
		t.json(f.raw)
	} else {
		t.showCommand(&f.cmd)
	}
	return ended(&f.cmd)
}

// awaiting says whose turn it is.
func awaiting(c *api.Command) error {
	return exit{exitApproval, fmt.Errorf("command %s waits for the consent of a second person: `signalbox commands approve %[1]s`, or the page /control/%[1]s; `signalbox commands watch %[1]s` follows it", component.Visible(c.ID))}
}

// ended is nil for a command that did all it was to do.
func ended(c *api.Command) error {
	code := exitNotDone
	switch controlbus.CommandState(c.State) {
	case controlbus.CommandSucceeded:
		return nil
	case controlbus.CommandPartial:
		code = exitPartial
	case controlbus.CommandIndeterminate:
		code = exitUnclear
	}
	text := "command " + c.ID + ": " + controlbus.CommandState(c.State).Title()
	if c.Detail != "" {
		text += ": " + c.Detail
	}
	return exit{code, errors.New(component.Visible(text))}
}
