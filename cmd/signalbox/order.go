package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

// Exit codes of the verbs that act, beside those in client.go.
const (
	exitPartial  = 6  // done for some messages; the counts say for how many
	exitNotDone  = 7  // nothing was done: failed, rejected, refused, expired, cancelled
	exitUnclear  = 8  // indeterminate: may have been done
	exitApproval = 9  // waits for the consent of a second person
	exitNoYes    = 10 // not confirmed
	exitGoesOn   = 11 // nobody waits for it any more; it goes on
)

const actingCodes = ", 6 done in part, 7 nothing was done (failed, rejected, refused, expired, cancelled), 8 indeterminate, " +
	"9 waits for approval, 10 not confirmed, 11 it goes on and is not waited for"

// acting makes the flags of a verb that acts on a broker.
func (t *terminal) acting(name, usage, text string) *verb {
	v := t.verb(name, usage, text+`

The agent beside the broker is asked first what would happen. That is shown; then you are asked, with the channel's name to type where the environment
wants that. --dry-run shows it and ends. In a script, --yes says yes (with --type-name where a name is wanted); without it and without a terminal
nothing is done, and the code is 10. The command is followed until it ends; interrupting that does not stop it.`)
	v.codes = actingCodes
	return v
}

// orderFlags are those of all verbs that order a command.
type orderFlags struct {
	v        *verb
	url, env *string
	agent    *string
	yes, dry *bool
	typed    *string
	reason   *string
	wait     *bool
	timeout  *time.Duration
	accept   *time.Duration
	within   *time.Duration
	out      *outputFlag
}

func addOrder(t *terminal, v *verb) *orderFlags {
	return &orderFlags{
		v: v, url: consoleFlag(v),
		env:     v.String("env", "", "`environment`, where names stand for channels in more than one"),
		agent:   v.String("agent", "", "`id` of the agent, where more than one has the broker"),
		yes:     v.Bool("yes", false, "do it without asking"),
		dry:     v.Bool("dry-run", false, "show what would happen and end"),
		typed:   v.String("type-name", "", "the channel's `name`, where the environment wants it typed"),
		reason:  v.String("reason", "", "`why`, for those who look later"),
		wait:    v.Bool("wait", true, "follow the command until it ends; given as --wait, also while it waits for approval"),
		timeout: v.Duration("timeout", 0, "follow it so long at most; it goes on after that"),
		accept:  v.Duration("accept-within", 0, "how long the agent has to take it up (default 2m)"),
		within:  v.Duration("run-within", 0, "how long it may run (default 1h)"),
		out:     t.output(v, "text", "json"),
	}
}

// request is the common part of a preview.
func (f *orderFlags) request(kind controlbus.CommandKind, target *api.ChannelRef, args any) (api.PreviewRequest, error) {
	q := api.PreviewRequest{
		Kind: string(kind), Env: target.Env, Broker: target.Broker, Channel: target.Channel, Agent: *f.agent,
		AcceptWithin: api.Duration(*f.accept), RunWithin: api.Duration(*f.within),
	}
	if args != nil {
		raw, err := json.Marshal(args)
		if err != nil {
			return q, err
		}
		q.Args = raw
	}
	return q, nil
}

// preview asks what would happen and goes on with what order does.
func (t *terminal) preview(ctx context.Context, c *client, f *orderFlags, q api.PreviewRequest) error {
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	return t.propose(ctx, c, f, "/previews", body)
}

// propose takes a preview from the console, shows it, asks, orders and follows.
func (t *terminal) propose(ctx context.Context, c *client, f *orderFlags, path string, body []byte) error {
	var d api.Draft
	raw, err := c.ask(ctx, http.MethodPost, path, nil, body, &d)
	if err != nil {
		return err
	}
	asks := !*f.dry && !*f.yes && t.asks
	if f.out.value == "json" {
		switch {
		case asks: // the answer on standard output is the command's
			on := *t
			on.out, on.colour = t.err, false
			on.showDraft(&d)
		case *f.dry || !*f.yes:
			t.json(raw)
		}
	} else {
		t.showDraft(&d)
	}
	if *f.dry {
		return nil
	}
	order := map[string]string{"preview": d.ID}
	if err := t.confirm(ctx, f, &d, order); err != nil {
		return err
	}
	if body, err = json.Marshal(order); err != nil {
		return err
	}
	var cmd api.Command
	if raw, err = c.order(ctx, body, &cmd); err != nil {
		return err
	}
	if f.out.value != "json" {
		t.note("Ordered: command %s.", component.Visible(cmd.ID))
	}
	if *f.wait {
		return t.follow(ctx, c, followed{cmd: cmd, raw: raw, through: f.v.given("wait"), timeout: *f.timeout, json: f.out.value == "json"})
	}
	if f.out.value == "json" {
		t.json(raw)
	} else {
		t.showCommand(&cmd)
	}
	if cmd.State == string(controlbus.CommandAwaitingApproval) {
		return awaiting(&cmd)
	}
	return nil
}

// order asks again where the answer is lost: a preview becomes one command,
// however often it is ordered. It is not interrupted, so that it is known what
// was ordered.
func (c *client) order(ctx context.Context, body []byte, cmd *api.Command) (raw []byte, err error) {
	ctx = context.WithoutCancel(ctx)
	retry := backoff.Backoff{Base: 200 * time.Millisecond, Cap: time.Second, Floor: 100 * time.Millisecond}
	var e exit
	for try := 0; ; try++ {
		raw, err = c.ask(ctx, http.MethodPost, "/commands", nil, body, cmd)
		lost := errors.As(err, &e) && e.code == exitNoAnswer
		switch {
		case err == nil, !lost && try == 0:
			return raw, err
		case !lost || try == orderTries: // a console that was started again has forgotten the preview
			return nil, exit{exitNoAnswer, fmt.Errorf("%w\nWhether it was ordered is not known: `signalbox commands list --by me` shows", err)}
		}
		backoff.Sleep(ctx, retry.Next())
	}
}

// orderTries is how often an order is repeated whose answer was lost.
const orderTries = 3

// confirm completes the order, or says that nobody said yes.
func (t *terminal) confirm(ctx context.Context, f *orderFlags, d *api.Draft, order map[string]string) error {
	name, reason := *f.typed, *f.reason
	typed := d.Policy == string(controlbus.ApproveByName)
	asks := !*f.yes && t.asks
	switch {
	case name != "" && name != d.Channel:
		return exit{exitNoYes, fmt.Errorf("--type-name %q is not the channel's name: nothing was done", component.Visible(name))}
	case *f.yes && typed && name == "":
		return exit{exitNoYes, fmt.Errorf("in %s this wants the channel's name: give it with --type-name; nothing was done", component.Visible(d.Env))}
	case !*f.yes && !asks:
		return exit{exitNoYes, errors.New("not confirmed, and there is no terminal to ask on: --yes says yes; nothing was done")}
	case d.ReasonRequired && strings.TrimSpace(reason) == "" && !asks:
		return fmt.Errorf("%w: this wants a --reason; nothing was done", errUsage)
	}
	if asks {
		var err error
		if d.ReasonRequired && strings.TrimSpace(reason) == "" {
			if reason, err = t.line(ctx, "Why? "); err != nil {
				return err
			}
		}
		if typed && name == "" {
			if name, err = t.line(ctx, fmt.Sprintf("To %s it, type the channel's name (%s): ", d.Kind, component.Visible(d.Channel))); err != nil {
				return err
			}
			if name != d.Channel {
				return exit{exitNoYes, errors.New("that is not the channel's name: nothing was done")}
			}
		} else if err := t.yes(ctx, "Do it? [y/N] "); err != nil {
			return err
		}
	}
	order["reason"] = reason
	if typed {
		order["typed"] = name
	}
	return nil
}

// yes asks, and is an error unless somebody says so.
func (t *terminal) yes(ctx context.Context, question string) error {
	said, err := t.line(ctx, question)
	if err != nil {
		return err
	}
	if said = strings.ToLower(said); said != "y" && said != "yes" {
		return exit{exitNoYes, errors.New("not confirmed: nothing was done")}
	}
	return nil
}

// line asks for a line of text. An interrupt is no answer.
func (t *terminal) line(ctx context.Context, question string) (string, error) {
	fmt.Fprint(t.err, question)
	type answer struct {
		text string
		err  error
	}
	if t.lines == nil {
		t.lines = bufio.NewReader(t.in)
	}
	said := make(chan answer, 1)
	go func() { // ends with the program at the latest: a terminal cannot be read with a deadline
		text, err := t.lines.ReadString('\n')
		said <- answer{text, err}
	}()
	select {
	case a := <-said:
		if a.err != nil && (!errors.Is(a.err, io.EOF) || a.text == "") {
			fmt.Fprintln(t.err)
			return "", exit{exitNoYes, fmt.Errorf("not confirmed (%w): nothing was done", a.err)}
		}
		return strings.TrimRight(a.text, "\r\n"), nil
	case <-ctx.Done():
		fmt.Fprintln(t.err)
		return "", exit{exitNoYes, errors.New("not confirmed: nothing was done")}
	}
}

// readable refuses a filter before anybody is asked.
func readable(text string) error {
	if _, err := filter.Parse(text, time.Now()); err != nil {
		return fmt.Errorf("%w: %w%s", errUsage, err, underline(text, err))
	}
	return nil
}

// place finds the one channel that a name stands for: BROKER/CHANNEL, or the
// name of a channel that was seen on one broker only.
func (c *client) place(ctx context.Context, name, env, broker string) (*api.ChannelRef, error) {
	if name == "" {
		return nil, fmt.Errorf("%w: want a channel, such as BROKER/CHANNEL", errUsage)
	}
	q := url.Values{}
	set(q, "env", env)
	var fleet api.Agents
	if _, err := c.get(ctx, "/agents", q, &fleet); err != nil {
		return nil, err
	}
	var found []api.ChannelRef
	add := func(r api.ChannelRef) {
		for _, f := range found {
			if f.Env == r.Env && f.Broker == r.Broker && f.Channel == r.Channel {
				return
			}
		}
		found = append(found, r)
	}
	longest := 0
	for _, a := range fleet.Agents {
		for _, b := range a.Brokers {
			if rest, ok := strings.CutPrefix(name, b.Name+"/"); broker == "" && ok && rest != "" && len(b.Name) >= longest {
				if len(b.Name) > longest {
					longest, found = len(b.Name), nil
				}
				add(api.ChannelRef{Env: a.Env, System: b.System, Broker: b.Name, Channel: rest})
			} else if b.Name == broker && broker != "" {
				add(api.ChannelRef{Env: a.Env, System: b.System, Broker: b.Name, Channel: name})
			}
		}
	}
	if len(found) == 0 && broker == "" {
		set(q, "name", name, "range", "24h", "limit", "5000")
		var seen api.Channels
		if _, err := c.get(ctx, "/channels", q, &seen); err != nil {
			return nil, err
		}
		for _, ch := range seen.Channels {
			if ch.Name == name {
				add(api.ChannelRef{Env: ch.Env, System: ch.System, Broker: ch.Broker, Channel: ch.Name})
			}
		}
	}
	switch len(found) {
	case 1:
		return &found[0], nil
	case 0:
		return nil, exit{exitNothing, fmt.Errorf("no agent has a broker for %q, and no such channel was seen for a day: name it as BROKER/CHANNEL (`signalbox agents` lists brokers)", component.Visible(cmp.Or(broker, name)))}
	}
	var names []string
	for _, f := range found {
		names = append(names, component.Visible(f.Broker+"/"+f.Channel)+" in "+component.Visible(f.Env))
	}
	return nil, fmt.Errorf("%w: %q may be %s: name one by BROKER/CHANNEL and --env", errUsage, component.Visible(name), strings.Join(names, ", or "))
}
