package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var agentsCommand = command{name: "agents", summary: "list the fleet", run: func(ctx context.Context, args []string) error { return newTerminal().agents(ctx, args) }}

func (t *terminal) agents(ctx context.Context, args []string) error {
	flags := t.verb("agents", "[ID] [flags]", "Lists agents with their brokers, taps and disk buffers. With an id it lists that agent's taps. Ends with 3 when there is no agent of that id.")
	at := consoleFlag(flags)
	env := flags.String("env", "", "`environment`; all of them without it")
	out := t.output(flags, "table", "json")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return fmt.Errorf("%w: want one id, have %q", errUsage, rest)
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	q := url.Values{}
	set(q, "env", *env)
	var fleet api.Agents
	raw, err := c.get(ctx, "/agents", q, &fleet)
	if err != nil {
		return err
	}
	if len(rest) == 1 {
		i := slices.IndexFunc(fleet.Agents, func(a api.Agent) bool { return a.ID == rest[0] })
		if i < 0 {
			return exit{exitNothing, fmt.Errorf("no agent %q", rest[0])}
		}
		if out.value == "json" {
			raw, err := marshal(fleet.Agents[i])
			if err != nil {
				return err
			}
			t.json(raw)
			return nil
		}
		t.showTaps(fleet.Agents[i].Taps)
		return nil
	}
	if out.value == "json" {
		t.json(raw)
		return nil
	}
	tb := t.table("ID", "ENV", "STATE", "LAST SEEN", "VERSION", "HOST", "BROKERS", "#TAPS", "#SPOOL")
	for _, a := range fleet.Agents {
		st := painted{a.Presence, green}
		if a.Presence != "online" {
			st.in = red
		}
		var brokers []string
		for _, b := range a.Brokers {
			name := b.Name
			if !b.Connected {
				name += " (not reached)"
			}
			brokers = append(brokers, name)
		}
		running := 0
		for _, tap := range a.Taps {
			if tap.State == "running" {
				running++
			}
		}
		tb.add(a.ID, a.Env, st, local(a.LastSeen.Time), a.Version, a.Host, strings.Join(brokers, ", "), fmt.Sprintf("%d/%d", running, len(a.Taps)), component.Size(a.Spool.Bytes))
	}
	tb.flush()
	if len(fleet.Agents) == 0 {
		t.note("No agent has reported.")
	}
	return nil
}

func (t *terminal) showTaps(taps []api.Tap) {
	tb := t.table("BROKER", "CHANNEL", "STATE", "TECHNIQUE", "#RECEIVED", "#DROPPED", "ORIGIN", "UNTIL", "SAYS")
	for _, tap := range taps {
		st := painted{tap.State, unset}
		switch tap.State {
		case "running":
			st.in = green
		case "refused", "broken":
			st.in = red
		}
		received, dropped := "", ""
		if tap.Loss != nil {
			received, dropped = component.Count(tap.Loss.Received), component.Count(tap.Loss.DroppedByAgent)
		}
		tb.add(tap.Broker, tap.Channel, st, tap.Technique, received, dropped, tap.Origin, local(tap.Until.Time), tap.Error+tap.Reason)
	}
	tb.flush()
}
