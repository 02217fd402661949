package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var (
	detourCommand   = command{name: "detour", summary: "lead a channel's messages through steps for a while", run: func(ctx context.Context, args []string) error { return newTerminal().detour(ctx, args) }}
	undetourCommand = command{name: "undetour", summary: "end a detour, working off what waits", run: func(ctx context.Context, args []string) error { return newTerminal().undetour(ctx, args) }}
	detoursCommand  = command{name: "detours", summary: "list the detours that stand", run: func(ctx context.Context, args []string) error { return newTerminal().detours(ctx, args) }}
	pauseCommand    = command{name: "pause", summary: "stop a channel's consumers for a while", run: func(ctx context.Context, args []string) error { return newTerminal().pause(ctx, args) }}
	resumeCommand   = command{name: "resume", summary: "let a paused channel's consumers go on", run: func(ctx context.Context, args []string) error { return newTerminal().resume(ctx, args) }}
)

// stepFlags are a detour's steps.
type stepFlags struct {
	file, schema, http, copy, via *string
	replace, hold                 *bool
	rate                          *float64
	set                           pairFlag
	remove                        *string
}

func (t *terminal) detour(ctx context.Context, args []string) error {
	v := t.acting("detour", "CHANNEL --id ID --for 1h STEPS [flags]", `
Leads a channel's messages, for a while, through steps before they reach its consumers. Steps are given by flags, which are taken in the order
schema, http, set and remove, via, copy, rate, hold; or in any order by a file of YAML or JSON:

  - validate: {schema: {type: object, required: [orderId]}}
  - headers: {set: {x-checked: "yes"}, remove: [x-old]}
  - http: {url: "http://127.0.0.1:9000/check", timeout: 3s, retries: 2, replace: true}
  - rate: {per_second: 20}

  signalbox detour rabbit-eu1/orders.placed --id check-orders --for 1h --schema order.schema.json
  signalbox detour rabbit-eu1/orders.placed --id hold --for 30m --hold --reason 'database moves'

It ends by itself, or with "signalbox undetour ID"; what waits in it is worked off then. What a step refuses is parked, see "signalbox detours".`)
	f := addOrder(t, v)
	id := v.String("id", "", "its `name`: letters, digits, - and _")
	lasts := v.Duration("for", 0, "how long it stays on")
	text := v.String("filter", "", "only what matches this `filter` goes through the steps")
	to := v.String("to", "", "`channel` where messages go on, where the broker cannot give them back to the channel itself")
	onFailure := v.String("on-failure", "", "what becomes of a message that a step refuses: `park` or bypass")
	park := v.String("park", "", "`channel` for such messages; one of its own without it")
	broker := v.String("broker", "", "the channel is of this `broker`")
	s := stepFlags{set: pairFlag{}}
	s.file = v.String("steps", "", "`file` of steps, YAML or JSON")
	s.schema = v.String("schema", "", "`file` with a JSON Schema that bodies must fit")
	s.http = v.String("http", "", "post each body to this `URL`, which the agent's configuration must allow")
	s.replace = v.Bool("replace", false, "with --http: the body becomes the answer's")
	v.Var(s.set, "set", "set a header `NAME=VALUE`; may be given again")
	s.remove = v.String("remove", "", "remove these `headers`, with commas between them")
	s.via = v.String("via", "", "send through your own channel and go on with what comes back: `SEND:RECEIVE`")
	s.copy = v.String("copy", "", "send a copy to this `channel` of the same broker")
	s.rate = v.Float64("rate", 0, "let so many `messages` per second pass")
	s.hold = v.Bool("hold", false, "keep messages until the detour ends")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	name, err := one(rest, "channel")
	if err != nil {
		return err
	}
	if err := readable(*text); err != nil {
		return err
	}
	steps, err := s.steps()
	if err != nil {
		return err
	}
	a := api.DetourArgs{ID: *id, To: *to, Reason: *f.reason, For: api.Duration(*lasts), Filter: *text, Steps: steps, OnFailure: *onFailure, Park: *park}
	d := controlbus.Detour{ID: a.ID, For: *lasts, Steps: api.Steps(steps), OnFailure: controlbus.DetourFailure(a.OnFailure)}
	switch {
	case *id == "" || *lasts == 0:
		return fmt.Errorf("%w: want --id and --for", errUsage)
	case len(steps) == 0:
		return fmt.Errorf("%w: want a step, such as --schema, --rate or --hold, or --steps", errUsage)
	}
	if err := d.Check(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return t.act(ctx, f, controlbus.CommandDetour, name, *broker, "", a)
}

func (s stepFlags) steps() ([]api.DetourStep, error) {
	var out []api.DetourStep
	if *s.schema != "" {
		raw, err := readFile(*s.schema)
		if err != nil {
			return nil, err
		}
		if !json.Valid(raw) {
			if raw, err = yamlToJSON(raw); err != nil {
				return nil, fmt.Errorf("%w: %s: %w", errUsage, *s.schema, err)
			}
		}
		out = append(out, api.DetourStep{Validate: &controlbus.ValidateStep{Schema: raw}})
	}
	if *s.http != "" {
		out = append(out, api.DetourStep{HTTP: &api.HTTPStep{URL: *s.http, Replace: *s.replace}})
	}
	if len(s.set) > 0 || *s.remove != "" {
		h := &controlbus.HeadersStep{Set: s.set}
		if *s.remove != "" {
			h.Remove = strings.Split(*s.remove, ",")
		}
		out = append(out, api.DetourStep{Headers: h})
	}
	if *s.via != "" {
		send, receive, ok := strings.Cut(*s.via, ":")
		if !ok {
			return nil, fmt.Errorf("%w: --via %q: want SEND:RECEIVE, two channels", errUsage, *s.via)
		}
		out = append(out, api.DetourStep{Channel: &controlbus.ChannelStep{Send: send, Receive: receive}})
	}
	if *s.copy != "" {
		out = append(out, api.DetourStep{Copy: &controlbus.CopyStep{Channel: *s.copy}})
	}
	if *s.rate != 0 {
		out = append(out, api.DetourStep{Rate: &controlbus.RateStep{PerSecond: *s.rate}})
	}
	if *s.hold {
		out = append(out, api.DetourStep{Hold: &controlbus.HoldStep{}})
	}
	switch {
	case *s.replace && *s.http == "":
		return nil, fmt.Errorf("%w: --replace goes with --http", errUsage)
	case *s.file != "" && len(out) > 0:
		return nil, fmt.Errorf("%w: --steps and flags of steps exclude each other", errUsage)
	case *s.file == "":
		return out, nil
	}
	raw, err := readFile(*s.file)
	if err != nil {
		return nil, err
	}
	return readSteps(*s.file, raw)
}

// readSteps reads a list of steps, or an object that has it under steps.
func readSteps(name string, raw []byte) ([]api.DetourStep, error) {
	text, err := yamlToJSON(raw) // JSON is YAML
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errUsage, name, err)
	}
	var file struct {
		Steps []api.DetourStep `json:"steps"`
	}
	var into any = &file
	if bytes.HasPrefix(text, []byte("[")) {
		into = &file.Steps
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errUsage, name, err)
	}
	return file.Steps, nil
}

func yamlToJSON(raw []byte) ([]byte, error) {
	var v any
	if err := yaml.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

// maxFile is what a command's arguments can carry.
const maxFile = controlbus.MaxCommandArgs

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	case len(raw) > maxFile:
		return nil, fmt.Errorf("%w: %s has more than %d bytes", errUsage, name, maxFile)
	}
	return raw, nil
}

func (t *terminal) undetour(ctx context.Context, args []string) error {
	v := t.acting("undetour", "ID [flags]", `Ends a detour. Messages take the direct way again, and what waits in it is worked off; it is gone when that is empty.`)
	f := addOrder(t, v)
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	id, err := one(rest, "id of a detour")
	if err != nil {
		return err
	}
	c, err := t.connect(*f.url)
	if err != nil {
		return err
	}
	q := url.Values{}
	set(q, "env", *f.env)
	var all api.Detours
	if _, err := c.get(ctx, "/detours", q, &all); err != nil {
		return err
	}
	var found *api.Detour
	for i := range all.Detours {
		d := &all.Detours[i]
		if d.ID != id || *f.agent != "" && d.Agent != *f.agent {
			continue
		}
		if found != nil {
			return fmt.Errorf("%w: detour %q is on agents %s and %s: name one with --agent", errUsage, id, component.Visible(found.Agent), component.Visible(d.Agent))
		}
		found = d
	}
	if found == nil {
		return exit{exitNothing, fmt.Errorf("no detour %q; `signalbox detours` lists them", id)}
	}
	*f.agent = found.Agent
	ask, err := f.request(controlbus.CommandUndetour, &api.ChannelRef{Env: found.Env, Broker: found.Broker, Channel: found.Channel}, controlbus.UndetourArgs{ID: id})
	if err != nil {
		return err
	}
	return t.preview(ctx, c, f, ask)
}

func (t *terminal) detours(ctx context.Context, args []string) error {
	v := t.verb("detours", "[flags]", "Lists detours as their agents hold them, with how many messages came in, went on, were refused, and wait.")
	at := consoleFlag(v)
	env := v.String("env", "", "`environment`; all of them without it")
	broker := v.String("broker", "", "only of that `broker`")
	failEmpty := v.Bool("fail-empty", false, "end with 3 when there is none")
	out := t.output(v, "table", "json")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: detours takes no argument %q", errUsage, rest[0])
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	q := url.Values{}
	set(q, "env", *env, "broker", *broker)
	var all api.Detours
	raw, err := c.get(ctx, "/detours", q, &all)
	if err != nil {
		return err
	}
	if out.value == "json" {
		t.json(raw)
	} else {
		tb := t.table("ID", "ENV", "BROKER", "CHANNEL", "STATE", "UNTIL", "#WAITING", "#PARKED", "#IN", "#PASSED", "#REFUSED", "OWNER", "STEPS", "SAYS")
		for _, d := range all.Detours {
			st := painted{d.State, unset}
			switch d.State {
			case string(controlbus.DetourOn):
				st.in = green
			case string(controlbus.DetourBroken):
				st.in = red
			}
			var steps []string
			for _, s := range api.Steps(d.Steps) {
				steps = append(steps, s.Name())
			}
			tb.add(d.ID, d.Env, d.Broker, d.Channel, st, local(d.Until.Time), known(d.Backlog), known(d.Parked), component.Count(d.In), component.Count(d.Passed), component.Count(d.Refused), d.Owner.Name, strings.Join(steps, ", "), d.Error+d.Reason)
		}
		tb.flush()
	}
	if len(all.Detours) == 0 {
		if *failEmpty {
			return exit{exitNothing, errors.New("there is no detour")}
		}
		t.note("There is no detour.")
	}
	return nil
}

func known(n *int64) string {
	if n == nil {
		return component.Unknown
	}
	return component.Count(*n)
}

func (t *terminal) pause(ctx context.Context, args []string) error {
	v := t.acting("pause", "CHANNEL --for 10m [flags]", `
Stops the consumers of a channel until the time is over, or "signalbox resume". Where the broker has no pause of its own, messages are held in a detour.`)
	f := addOrder(t, v)
	lasts := v.Duration("for", 0, "how long, 24h at most")
	consumer := v.String("consumer", "", "only this consumer or `group`, where the broker pauses these")
	broker := v.String("broker", "", "the channel is of this `broker`")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	name, err := one(rest, "channel")
	if err != nil {
		return err
	}
	if *lasts < time.Second || *lasts > controlbus.MaxPause {
		return fmt.Errorf("%w: want --for from 1s to 24h: a pause has an end", errUsage)
	}
	return t.act(ctx, f, controlbus.CommandPause, name, *broker, "", api.PauseArgs{For: api.Duration(*lasts), Consumer: *consumer})
}

func (t *terminal) resume(ctx context.Context, args []string) error {
	v := t.acting("resume", "CHANNEL [flags]", `Lets the consumers of a paused channel go on before the time is over.`)
	f := addOrder(t, v)
	consumer := v.String("consumer", "", "only this consumer or `group`")
	broker := v.String("broker", "", "the channel is of this `broker`")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	name, err := one(rest, "channel")
	if err != nil {
		return err
	}
	return t.act(ctx, f, controlbus.CommandResume, name, *broker, "", api.PauseArgs{Consumer: *consumer})
}
