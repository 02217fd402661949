package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var (
	tapOnCommand  = command{name: "tap-on", summary: "ask an agent to tap a channel for a while", run: func(ctx context.Context, args []string) error { return newTerminal().tapOn(ctx, args) }}
	tapOffCommand = command{name: "tap-off", summary: "end a tap that was asked for", run: func(ctx context.Context, args []string) error { return newTerminal().tapOff(ctx, args) }}
)

// tapPatience is how long an agent is given to report a tap.
const tapPatience = 45 * time.Second

func (t *terminal) tapOn(ctx context.Context, args []string) error {
	v := t.verb("tap-on", "CHANNEL --reason WHY [flags]", `
Asks the agent beside the broker to tap a channel for a while; asking again renews the tap. Its messages go to the store and to live taps
("signalbox tap"). Waits until the agent says how it went.

  signalbox tap-on rabbit-eu1/orders.placed --for 1h --reason 'orders are late'`)
	v.codes = ", 7 the agent refused it, 11 it goes on and is not waited for"
	at := consoleFlag(v)
	env := v.String("env", "", "`environment`, where names stand for channels in more than one")
	broker := v.String("broker", "", "the channel is of this `broker`")
	lasts := v.Duration("for", 15*time.Minute, "how long, 1m to 24h; it ends by itself")
	reason := v.String("reason", "", "`why`, for those who look later")
	wait := v.Bool("wait", true, "wait until the agent says how it went")
	out := t.output(v, "text", "json")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	name, err := one(rest, "channel")
	if err != nil {
		return err
	}
	if *reason == "" {
		return fmt.Errorf("%w: want a --reason", errUsage)
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	ch, err := c.place(ctx, name, *env, *broker)
	if err != nil {
		return err
	}
	body, err := json.Marshal(api.TapRequest{Env: ch.Env, System: ch.System, Broker: ch.Broker, Channel: ch.Channel, Reason: *reason, Lease: lasts.String()})
	if err != nil {
		return err
	}
	var tap api.Tap
	raw, err := c.ask(ctx, http.MethodPost, "/taps", nil, body, &tap)
	if err != nil {
		return err
	}
	if *wait {
		if tap, raw, err = c.awaitTap(ctx, tap, raw); err != nil {
			return err
		}
	}
	if out.value == "json" {
		t.json(raw)
	} else {
		t.showTaps([]api.Tap{tap})
	}
	switch controlbus.TapState(tap.State) {
	case controlbus.TapRefused, controlbus.TapBroken:
		return exit{exitNotDone, fmt.Errorf("the agent says: %s", component.Visible(tap.Error))}
	}
	return nil
}

// awaitTap waits until the agent has reported the tap.
func (c *client) awaitTap(ctx context.Context, tap api.Tap, raw []byte) (api.Tap, []byte, error) {
	for end := time.Now().Add(tapPatience); tap.State == "asked" || tap.State == string(controlbus.TapStarting); {
		if !backoff.Sleep(ctx, 500*time.Millisecond) || time.Now().After(end) {
			return tap, raw, exit{exitGoesOn, fmt.Errorf("the tap is asked for, and agent %s has not said how it went; `signalbox agents %[1]s` shows it", component.Visible(tap.Agent))}
		}
		var all api.Taps
		if _, err := c.get(ctx, "/taps", url.Values{"env": {tap.Env}, "broker": {tap.Broker}}, &all); err != nil {
			return tap, raw, err
		}
		found := false
		for _, now := range all.Taps {
			if now.ID == tap.ID && now.Agent == tap.Agent {
				text, err := marshal(now)
				if err != nil {
					return tap, raw, err
				}
				tap, raw, found = now, text, true
			}
		}
		if !found {
			return tap, raw, exit{exitNotDone, errors.New("the tap is gone: somebody ended it")}
		}
	}
	return tap, raw, nil
}

func (t *terminal) tapOff(ctx context.Context, args []string) error {
	v := t.verb("tap-off", "CHANNEL [flags]", `Ends taps of a channel that people asked for. Those of an agent's own configuration are ended there. Ends with 3 when there is none.`)
	at := consoleFlag(v)
	env := v.String("env", "", "`environment`, where names stand for channels in more than one")
	broker := v.String("broker", "", "the channel is of this `broker`")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	name, err := one(rest, "channel")
	if err != nil {
		return err
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	ch, err := c.place(ctx, name, *env, *broker)
	if err != nil {
		return err
	}
	var all api.Taps
	q := url.Values{}
	set(q, "env", ch.Env, "broker", ch.Broker)
	if _, err := c.get(ctx, "/taps", q, &all); err != nil {
		return err
	}
	ended := 0
	for _, tap := range all.Taps {
		if tap.Origin != "console" || tap.Channel != ch.Channel && tap.Pattern != ch.Channel {
			continue
		}
		if _, err := c.ask(ctx, http.MethodDelete, "/taps", url.Values{"agent": {tap.Agent}, "id": {tap.ID}}, nil, nil); err != nil {
			return err
		}
		ended++
	}
	if ended == 0 {
		return exit{exitNothing, fmt.Errorf("nobody asked for a tap of %s", component.Visible(ch.Broker+"/"+ch.Channel))}
	}
	t.note("Ended: %s of %s.", component.Plural(ended, "tap"), component.Visible(ch.Broker+"/"+ch.Channel))
	return nil
}
