package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var channelsCommand = command{name: "channels", summary: "list channels with what waits in them", run: func(ctx context.Context, args []string) error { return newTerminal().channels(ctx, args) }}

func (t *terminal) channels(ctx context.Context, args []string) error {
	flags := t.verb("channels", "['PATTERN'] [flags]", "Lists channels that brokers described or taps saw: what waits, rates, consumers, and how many messages taps saw and how many of them failed.")
	at := consoleFlag(flags)
	env := flags.String("env", "", "`environment`; all of them without it")
	broker := flags.String("broker", "", "only of that `broker`")
	within := addRange(flags, "1h")
	limit := flags.Int("limit", 500, "channels at most")
	failEmpty := flags.Bool("fail-empty", false, "end with 3 when there is none")
	out := t.output(flags, "table", "json")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	if len(rest) > 1 {
		return fmt.Errorf("%w: want one pattern, have %q; quote it for the shell", errUsage, rest)
	}
	q := url.Values{}
	set(q, "env", *env, "broker", *broker, "name", strings.Join(rest, ""), "limit", fmt.Sprint(*limit))
	if err := within.fill(q); err != nil {
		return err
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	var list api.Channels
	raw, err := c.get(ctx, "/channels", q, &list)
	if err != nil {
		return err
	}
	if out.value == "json" {
		t.json(raw)
	} else {
		tb := t.table("ENV", "BROKER", "CHANNEL", "#WAITING", "#IN/S", "#OUT/S", "#CONSUMERS", "#SEEN", "#FAILED", "LAST MESSAGE")
		for _, ch := range list.Channels {
			failed := painted{text: component.Count(ch.Failed)}
			if ch.Failed > 0 {
				failed.in = red
			}
			tb.add(ch.Env, ch.Broker, ch.Name, gauge(ch.Ready), rate(ch.Published), rate(ch.Delivered), gauge(ch.Consumers), component.Count(ch.Tapped), failed, local(ch.LastMessage.Time))
		}
		tb.flush()
		if list.Truncated {
			t.note("The list is full and may have left some out: narrow it, or raise --limit.")
		}
	}
	if len(list.Channels) == 0 {
		if *failEmpty {
			return exit{exitNothing, fmt.Errorf("no channel was seen")}
		}
		t.note("No channel was seen in this range.")
	}
	return nil
}

func gauge(f *float64) string {
	if f == nil {
		return component.Unknown
	}
	return component.Number(*f)
}

func rate(f *float64) string {
	if f == nil {
		return component.Unknown
	}
	return component.Rate(*f)
}
