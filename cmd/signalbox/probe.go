package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var probeCommand = command{name: "probe", summary: "test messages on a schedule", run: func(ctx context.Context, args []string) error { return newTerminal().probe(ctx, args) }}

const probeHelp = `Sends marked messages into a channel and keeps whether and how soon they arrive.

  probe [list]               probes with their recent runs
  probe show NAME            one probe and its newest runs
  probe add NAME --in BROKER/CHANNEL [--out BROKER/CHANNEL] [--every 1m] [--deadline 10s]
                             [--body TEXT | --body-file FILE] [--header NAME=VALUE]... [--expect FILTER]
  probe run NAME             send one now and wait for what becomes of it; ends with 1 unless it passed
  probe pause|continue NAME  stop the schedule, or let it go on
  probe delete NAME          forget it and its history

A probe is named by its name or its id.`

type probeFlags struct {
	env, in, out, body, bodyFile, contentType, key, expect, typed string
	every, deadline                                               time.Duration
	separate                                                      bool
	headers                                                       pairFlag
}

func (t *terminal) probe(ctx context.Context, args []string) error {
	flags := t.verb("probe", "[list|show|add|run|pause|continue|delete] [NAME] [flags]", probeHelp)
	at := consoleFlag(flags)
	out := t.output(flags, "table", "json")
	f := probeFlags{headers: pairFlag{}}
	flags.StringVar(&f.env, "env", "", "`environment`: of list, and of --in")
	flags.StringVar(&f.in, "in", "", "`BROKER/CHANNEL` to send into")
	flags.StringVar(&f.out, "out", "", "`BROKER/CHANNEL` at which it is to arrive; without it the broker's confirmation is enough")
	flags.DurationVar(&f.every, "every", 0, "`time` between two runs; without it by hand alone")
	flags.DurationVar(&f.deadline, "deadline", 10*time.Second, "how long it may take to arrive")
	flags.StringVar(&f.body, "body", "", "`text` of the message")
	flags.StringVar(&f.bodyFile, "body-file", "", "`file` with the message")
	flags.StringVar(&f.contentType, "content-type", "application/json", "content `type`")
	flags.StringVar(&f.key, "key", "", "routing `key` or subject, where the channel has more than one")
	flags.Var(f.headers, "header", "`NAME=VALUE`; may be repeated")
	flags.StringVar(&f.expect, "expect", "", "`filter` that what arrives must match")
	flags.BoolVar(&f.separate, "separate", false, "keep it from business consumers, where the broker can")
	flags.StringVar(&f.typed, "type-name", "", "the input channel's `name`, where its environment asks for that")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	do, name := "list", ""
	switch len(rest) {
	case 0:
	case 1:
		do = rest[0]
	case 2:
		do, name = rest[0], rest[1]
	default:
		return fmt.Errorf("%w: want one name, have %q", errUsage, rest[1:])
	}
	if (name == "") != (do == "list") {
		return fmt.Errorf("%w: probe %s: want %s; see signalbox probe -h", errUsage, do, map[bool]string{true: "no name", false: "the name of a probe"}[do == "list"])
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	q := url.Values{}
	set(q, "env", f.env)
	if do == "add" {
		return t.addProbe(ctx, c, name, f, out.value)
	}
	var all api.Probes
	raw, err := c.get(ctx, "/probes", q, &all)
	if err != nil {
		return err
	}
	if do == "list" {
		if out.value == "json" {
			t.json(raw)
			return nil
		}
		t.probes(all.Probes)
		return nil
	}
	var found *api.Probe
	for i := range all.Probes {
		if p := &all.Probes[i]; p.Name == name || p.ID == name {
			found = p
		}
	}
	if found == nil {
		return exit{exitNothing, fmt.Errorf("no probe %q", name)}
	}
	path := "/probes/" + url.PathEscape(found.ID)
	switch do {
	case "show":
		return t.showProbe(ctx, c, found, out.value)
	case "run":
		return t.runProbe(ctx, c, found, out.value)
	case "pause", "continue":
		_, err = c.ask(ctx, http.MethodPost, path+"/"+do, nil, nil, nil)
	case "delete":
		_, err = c.ask(ctx, http.MethodDelete, path, nil, nil, nil)
	default:
		return fmt.Errorf("%w: probes cannot %q; see signalbox probe -h", errUsage, do)
	}
	if err == nil {
		t.note("%s: %s", component.Visible(found.Name), map[string]string{"pause": "paused", "continue": "goes on", "delete": "forgotten"}[do])
	}
	return err
}

func (t *terminal) addProbe(ctx context.Context, c *client, name string, f probeFlags, form string) error {
	req := api.ProbeRequest{Typed: f.typed, ProbeSpec: api.ProbeSpec{
		Name: name, Every: api.Duration(f.every), Deadline: api.Duration(f.deadline), ContentType: f.contentType, Body: f.body, Key: f.key, Headers: f.headers, Separate: f.separate, Expect: f.expect,
	}}
	in, err := c.place(ctx, f.in, f.env, "")
	if err != nil {
		return fmt.Errorf("--in: %w", err)
	}
	req.In = *in
	if f.out != "" {
		if req.Out, err = c.place(ctx, f.out, f.env, ""); err != nil {
			return fmt.Errorf("--out: %w", err)
		}
	}
	if f.bodyFile != "" {
		b, err := readFile(f.bodyFile)
		if err != nil {
			return err
		}
		req.Body = string(b)
	}
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	var p api.Probe
	raw, err := c.ask(ctx, http.MethodPost, "/probes", nil, b, &p)
	if err != nil {
		return err
	}
	if form == "json" {
		t.json(raw)
		return nil
	}
	t.probes([]api.Probe{p})
	return nil
}

func (t *terminal) probes(all []api.Probe) {
	tb := t.table("NAME", "ID", "ENV", "IN", "OUT", "EVERY", "LAST", "#PASSED", "#P50", "#P95")
	for i := range all {
		p := &all[i]
		out, every, last := "", "by hand", painted{"never ran", dim}
		if p.Out != nil {
			out = p.Out.Broker + "/" + p.Out.Channel
		}
		if p.Every > 0 {
			every = time.Duration(p.Every).String()
		}
		if p.Last != nil {
			last = outcomePaint(p.Last.Outcome)
		}
		if p.Paused {
			every += " (paused)"
		}
		tb.add(p.Name, p.ID, p.In.Env, p.In.Broker+"/"+p.In.Channel, out, every, last, fmt.Sprintf("%d/%d", p.Passed, p.Runs), nanos(p.P50Ns), nanos(p.P95Ns))
	}
	tb.flush()
	if len(all) == 0 {
		t.note("There is no probe. signalbox probe -h says how to add one.")
	}
}

func outcomePaint(outcome string) painted {
	p := painted{outcome, red}
	if outcome == "passed" {
		p.in = green
	}
	return p
}

func nanos(ns *string) string {
	if ns == nil {
		return ""
	}
	n, err := strconv.ParseInt(*ns, 10, 64)
	if err != nil {
		return ""
	}
	return component.Span(time.Duration(n))
}

func (t *terminal) showProbe(ctx context.Context, c *client, p *api.Probe, form string) error {
	path := "/probes/" + url.PathEscape(p.ID)
	if form == "json" {
		raw, err := c.get(ctx, path, nil, nil)
		if err == nil {
			t.json(raw)
		}
		return err
	}
	var runs api.ProbeRuns
	if _, err := c.get(ctx, path+"/runs", url.Values{"limit": {"20"}}, &runs); err != nil {
		return err
	}
	t.probes([]api.Probe{*p})
	fmt.Fprintln(t.out)
	t.probeRuns(runs.Runs)
	return nil
}

func (t *terminal) probeRuns(runs []api.ProbeRun) {
	tb := t.table("TIME", "OUTCOME", "#LATENCY", "COMMAND", "SAYS")
	for _, r := range runs {
		tb.add(local(r.At.Time), outcomePaint(r.Outcome), nanos(r.LatencyNs), r.Command, r.Detail)
	}
	tb.flush()
}

// runProbe sends one and waits for its run, which is the first that is newer
// than those there were.
func (t *terminal) runProbe(ctx context.Context, c *client, p *api.Probe, form string) error {
	path := "/probes/" + url.PathEscape(p.ID)
	newest := func() (*api.ProbeRun, error) {
		var runs api.ProbeRuns
		if _, err := c.get(ctx, path+"/runs", url.Values{"limit": {"1"}}, &runs); err != nil || len(runs.Runs) == 0 {
			return nil, err
		}
		return &runs.Runs[0], nil
	}
	before, err := newest()
	if err != nil {
		return err
	}
	if _, err := c.ask(ctx, http.MethodPost, path+"/run", nil, nil, nil); err != nil {
		return err
	}
	// Its deadline, as long again for what comes late, and the sending itself.
	patience := time.After(2*time.Duration(p.Deadline) + 90*time.Second)
	for {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-patience:
			return exit{exitError, fmt.Errorf("the run has not come to an end; see signalbox probe show %s", p.ID)}
		case <-ctx.Done():
			return ctx.Err()
		}
		r, err := newest()
		if err != nil {
			return err
		}
		if r == nil || before != nil && r.ID <= before.ID {
			continue
		}
		if form == "json" {
			raw, err := marshal(r)
			if err != nil {
				return err
			}
			t.json(raw)
		} else {
			t.probeRuns([]api.ProbeRun{*r})
		}
		if r.Outcome != "passed" {
			return exit{exitError, fmt.Errorf("the test message of %s: %s", component.Visible(p.Name), r.Outcome)}
		}
		return nil
	}
}
