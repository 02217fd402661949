package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var commandsCommand = command{name: "commands", summary: "list, follow, approve, stop and undo commands", run: func(ctx context.Context, args []string) error { return newTerminal().commands(ctx, args) }}

const commandsText = `
Without a word it lists commands. The others take the id of one:

  list      commands, newest first, by --env, --broker, --channel, --kind, --state, --open, --by, --since
  show      one command with its preview and what happened to it; with --outcomes, what it did with each message
  watch     follow it until it ends; the exit code says how
  approve   consent to it as a second person, having seen its preview
  refuse    decline it                       cancel    end it, or ask its agent to stop
  abandon   give up waiting for its agent    undo      take back what it did, as a command of its own
  pause     hold the running job             continue  let it go on
  rate      ID N: so many messages per second; 0 is as fast as the broker confirms`

func (t *terminal) commands(ctx context.Context, args []string) error {
	word := "list"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		word, args = args[0], args[1:]
	}
	switch word {
	case "list":
		return t.listCommands(ctx, args)
	case "show":
		return t.showOne(ctx, args)
	case "watch":
		return t.watch(ctx, args)
	case "approve":
		return t.approve(ctx, args)
	case "undo":
		return t.undo(ctx, args)
	case "refuse", "cancel", "abandon", "pause", "continue", "rate":
		return t.decide(ctx, word, args)
	}
	return fmt.Errorf("%w: commands has no %q: want list, show, watch, approve, refuse, cancel, abandon, undo, pause, continue or rate", errUsage, word)
}

func (t *terminal) listCommands(ctx context.Context, args []string) error {
	v := t.verb("commands", "[list | show | watch | approve | refuse | cancel | abandon | undo | pause | continue | rate] [ID] [flags]", commandsText)
	v.codes = actingCodes
	at := consoleFlag(v)
	env := v.String("env", "", "`environment`; all of them without it")
	broker := v.String("broker", "", "only of that `broker`")
	channel := v.String("channel", "", "`name` of a channel, or a pattern with *")
	agent := v.String("agent", "", "only by that `agent`")
	kind := v.String("kind", "", "only of that `kind`: purge, redrive, ...")
	state := v.String("state", "", "only in one of these `states`, with commas between them")
	open := v.Bool("open", false, "only what has not ended")
	by := v.String("by", "", "only what this one asked for: `me`, or an id")
	since := v.String("since", "", "look back `so long`: 15m, 1h, 7d; without it all of them")
	limit := v.Int("limit", 50, "commands at most")
	failEmpty := v.Bool("fail-empty", false, "end with 3 when there is none")
	out := t.output(v, "table", "json")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: commands list takes no argument %q", errUsage, rest[0])
	}
	if *limit < 1 || *limit > 10000 {
		return fmt.Errorf("%w: --limit %d: want 1 to 10000", errUsage, *limit)
	}
	q := url.Values{}
	set(q, "env", *env, "broker", *broker, "channel", *channel, "agent", *agent, "kind", *kind, "state", *state, "requester", *by)
	if *open {
		q.Set("open", "true")
	}
	if *since != "" {
		from, _, err := selected(*since, "", "", time.Now())
		if err != nil {
			return err
		}
		q.Set("from", from.UTC().Format(time.RFC3339Nano))
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	all := api.CommandList{Commands: []api.Command{}}
	for left := *limit; left > 0; {
		q.Set("limit", strconv.Itoa(min(left, 500)))
		var page api.CommandList
		if _, err := c.get(ctx, "/commands", q, &page); err != nil {
			return err
		}
		all.Commands = append(all.Commands, page.Commands...)
		all.Next = page.Next
		if left -= len(page.Commands); page.Next == "" || len(page.Commands) == 0 {
			break
		}
		q.Set("cursor", page.Next)
	}
	if out.value == "json" {
		raw, err := marshal(all)
		if err != nil {
			return err
		}
		t.json(raw)
	} else {
		tb := t.table("ID", "TIME", "KIND", "ENV", "CHANNEL", "STATE", "#DONE", "#OF", "BY", "REASON")
		for i := range all.Commands {
			cmd := &all.Commands[i]
			done, of := "", ""
			switch {
			case cmd.Result != nil:
				done, of = component.Count(cmd.Result.Done), component.Count(cmd.Result.Matched)
			case cmd.Progress != nil:
				done, of = component.Count(cmd.Progress.Done), known(cmd.Progress.Total)
			}
			tb.add(cmd.ID, local(cmd.RequestedAt.Time), cmd.Kind, cmd.Env, cmd.Broker+"/"+cmd.Channel, stateOf(cmd), done, of, cmd.RequestedBy.Name, cutText(component.Visible(cmd.Reason), 60))
		}
		tb.flush()
		if all.Next != "" {
			t.note("There may be more: narrow it, or raise --limit.")
		}
	}
	if len(all.Commands) == 0 {
		if *failEmpty {
			return exit{exitNothing, errors.New("no command matches")}
		}
		t.note("No command matches.")
	}
	return nil
}

// about makes the flags of a word about one command.
func (t *terminal) about(word, usage, text string) (v *verb, at *string) {
	v = t.verb("commands "+word, usage, text)
	v.codes = actingCodes
	return v, consoleFlag(v)
}

// commandID reads the one argument that names a command.
func commandID(rest []string) (string, error) {
	id, err := one(rest, "id of a command")
	if err == nil && !controlbus.CommandID(id).Valid() {
		err = fmt.Errorf("%w: %q is no id of a command: want 32 hexadecimal digits; `signalbox commands` lists them", errUsage, component.Visible(id))
	}
	return id, err
}

func (c *client) command(ctx context.Context, id string) (cmd api.Command, raw []byte, err error) {
	raw, err = c.get(ctx, "/commands/"+url.PathEscape(id), nil, &cmd)
	return cmd, raw, err
}

func (t *terminal) showOne(ctx context.Context, args []string) error {
	v, at := t.about("show", "ID [flags]", "Shows a command with its preview and what happened to it.")
	outcomes := v.Bool("outcomes", false, "what it did with each message, instead")
	limit := v.Int("limit", 1000, "outcomes at most")
	out := t.output(v, "text", "json")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	id, err := commandID(rest)
	if err != nil {
		return err
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	if *outcomes {
		return t.showOutcomes(ctx, c, id, *limit, out.value == "json")
	}
	cmd, raw, err := c.command(ctx, id)
	if err != nil {
		return err
	}
	if out.value == "json" {
		t.json(raw)
		return nil
	}
	var events api.CommandEvents
	if _, err := c.get(ctx, "/commands/"+url.PathEscape(id)+"/events", nil, &events); err != nil {
		return err
	}
	t.showCommand(&cmd)
	if cmd.Preview != nil {
		fmt.Fprintln(t.out, "\nPreview")
		t.showPreview(cmd.Preview)
	}
	fmt.Fprintln(t.out)
	tb := t.table("TIME", "WHAT", "BY", "SAYS")
	for _, e := range events.Events {
		says := e.Detail
		switch {
		case e.Result != nil:
			says = e.Result.Outcome + ": " + countsText(e.Result.Counts) + ". " + e.Result.Detail
		case e.Progress != nil:
			says = countsText(e.Progress.Counts) + " " + e.Progress.Note
		case e.Undo != "":
			says = "by command " + e.Undo
		}
		tb.add(local(e.At.Time), strings.ReplaceAll(e.Type, "_", " "), e.Actor.Name, says)
	}
	tb.flush()
	return nil
}

func (t *terminal) showOutcomes(ctx context.Context, c *client, id string, limit int, asJSON bool) error {
	all := api.CommandOutcomes{Outcomes: []api.CommandOutcome{}}
	q := url.Values{}
	for left := limit; left > 0; {
		q.Set("limit", strconv.Itoa(min(left, 1000)))
		var page api.CommandOutcomes
		if _, err := c.get(ctx, "/commands/"+url.PathEscape(id)+"/outcomes", q, &page); err != nil {
			return err
		}
		all.Outcomes = append(all.Outcomes, page.Outcomes...)
		all.Next = page.Next
		if left -= len(page.Outcomes); page.Next == "" || len(page.Outcomes) == 0 {
			break
		}
		q.Set("cursor", page.Next)
	}
	if asJSON {
		raw, err := marshal(all)
		if err != nil {
			return err
		}
		t.json(raw)
		return nil
	}
	tb := t.table("#NO", "OUTCOME", "MESSAGE ID", "UID", "FROM", "TO", "SAYS")
	for _, o := range all.Outcomes {
		st := painted{o.Outcome, unset}
		if o.Outcome == "failed" {
			st.in = red
		}
		tb.add(o.Number, st, o.MessageID, o.UID, o.Source, o.Channel, o.Detail)
	}
	tb.flush()
	if all.Next != "" {
		t.note("There are more: raise --limit.")
	}
	if len(all.Outcomes) == 0 {
		t.note("Nothing is known yet of single messages.")
	}
	return nil
}

func (t *terminal) watch(ctx context.Context, args []string) error {
	v, at := t.about("watch", "ID [flags]", "Follows a command until it ends, also while it waits for approval. Interrupting it does not stop the command.")
	timeout := v.Duration("timeout", 0, "follow it so long at most")
	out := t.output(v, "text", "json")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	id, err := commandID(rest)
	if err != nil {
		return err
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	cmd, raw, err := c.command(ctx, id)
	if err != nil {
		return err
	}
	return t.follow(ctx, c, followed{cmd: cmd, raw: raw, through: true, timeout: *timeout, json: out.value == "json"})
}

func (t *terminal) approve(ctx context.Context, args []string) error {
	v, at := t.about("approve", "ID [flags]", `
Consents to a command that waits for a second person: shows what its requester saw, asks, and approves exactly that. Whoever requested it cannot.
In a script, --yes says yes; --fingerprint makes sure that it is to the preview you know.`)
	yes := v.Bool("yes", false, "do it without asking")
	print := v.String("fingerprint", "", "approve only the preview with this `fingerprint`")
	wait := v.Bool("wait", false, "follow the command until it ends")
	timeout := v.Duration("timeout", 0, "with --wait: so long at most")
	out := t.output(v, "text", "json")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	id, err := commandID(rest)
	if err != nil {
		return err
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	cmd, _, err := c.command(ctx, id)
	if err != nil {
		return err
	}
	if cmd.State != string(controlbus.CommandAwaitingApproval) || cmd.Preview == nil {
		return exit{exitNotDone, fmt.Errorf("command %s waits for nobody's consent: it is %s", id, component.Visible(controlbus.CommandState(cmd.State).Title()))}
	}
	if *print != "" && *print != cmd.Preview.Fingerprint {
		return exit{exitNotDone, fmt.Errorf("command %s has a preview with the fingerprint %s: nothing was approved", id, component.Visible(cmd.Preview.Fingerprint))}
	}
	if out.value != "json" || t.asks && !*yes {
		on := *t
		if out.value == "json" {
			on.out, on.colour = t.err, false
		}
		on.showCommand(&cmd)
		on.showPreview(cmd.Preview)
		on.facts("fingerprint", cmd.Preview.Fingerprint)
	}
	if !*yes {
		if !t.asks {
			return exit{exitNoYes, errors.New("not confirmed, and there is no terminal to ask on: --yes says yes; nothing was approved")}
		}
		if err := t.yes(ctx, "Approve it? [y/N] "); err != nil {
			return err
		}
	}
	raw, err := c.tell(ctx, id, "approve", map[string]any{"fingerprint": cmd.Preview.Fingerprint}, &cmd)
	if err != nil {
		return err
	}
	if *wait {
		return t.follow(ctx, c, followed{cmd: cmd, raw: raw, timeout: *timeout, json: out.value == "json"})
	}
	if out.value == "json" {
		t.json(raw)
	} else {
		t.note("Approved: command %s is %s.", id, component.Visible(controlbus.CommandState(cmd.State).Title()))
	}
	return nil
}

// tell says something about a command.
func (c *client) tell(ctx context.Context, id, word string, body map[string]any, cmd *api.Command) ([]byte, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	*cmd = api.Command{}
	return c.ask(context.WithoutCancel(ctx), http.MethodPost, "/commands/"+url.PathEscape(id)+"/"+word, nil, text, cmd)
}

// words of decide: what each does, and how that is told.
var decideWords = map[string]struct{ text, told string }{
	"refuse":   {"Declines a command that waits for the consent of a second person.", "Refused"},
	"cancel":   {"Ends a command that has not been sent, or asks its agent to stop: the result then says how far it came.", "Asked to stop"},
	"abandon":  {"Gives up waiting for the agent of an unconfirmed command: it is indeterminate then, and its channel is free again.", "Given up"},
	"pause":    {"Holds a running job: what was begun is finished, nothing more is sent.", "Asked to pause"},
	"continue": {"Lets a paused job go on.", "Asked to go on"},
	"rate":     {"Changes how many messages per second a running job sends; 0 is as fast as the broker confirms.", "Asked for that rate"},
}

func (t *terminal) decide(ctx context.Context, word string, args []string) error {
	usage := "ID [flags]"
	if word == "rate" {
		usage = "ID N [flags]"
	}
	v, at := t.about(word, usage, decideWords[word].text)
	var reason *string
	if word == "refuse" || word == "cancel" || word == "abandon" {
		reason = v.String("reason", "", "`why`, for those who look later")
	}
	out := t.output(v, "text", "json")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	body, path := map[string]any{}, word
	switch word {
	case "pause", "continue":
		body["paused"], path = word == "pause", "control"
	case "rate":
		if len(rest) != 2 {
			return fmt.Errorf("%w: want the id of a command and a number of messages per second", errUsage)
		}
		n, err := strconv.ParseFloat(rest[1], 64)
		if err != nil || (controlbus.JobOptions{Rate: n}).Check() != nil {
			return fmt.Errorf("%w: rate %q: want 0 to 1000000 messages per second", errUsage, rest[1])
		}
		body["rate"], path, rest = n, "control", rest[:1]
	default:
		body["reason"] = *reason
	}
	id, err := commandID(rest)
	if err != nil {
		return err
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	var cmd api.Command
	raw, err := c.tell(ctx, id, path, body, &cmd)
	if err != nil {
		return err
	}
	if out.value == "json" {
		t.json(raw)
		return nil
	}
	t.note("%s: command %s is %s.", decideWords[word].told, id, component.Visible(cmp.Or(controlbus.CommandState(cmd.State).Title(), "unknown")))
	return nil
}

func (t *terminal) undo(ctx context.Context, args []string) error {
	v := t.acting("commands undo", "ID [flags]", "Takes back what a command did, as far as that can be done, by a command of its own: the messages of a purge or discard are sent again from the agent's copy.")
	f := addOrder(t, v)
	job := addJob(v)
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	id, err := commandID(rest)
	if err != nil {
		return err
	}
	o, err := job.options()
	if err != nil {
		return err
	}
	if o == nil {
		o = &api.JobOptions{}
	}
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	c, err := t.connect(*f.url)
	if err != nil {
		return err
	}
	return t.propose(ctx, c, f, "/commands/"+url.PathEscape(id)+"/undo", body)
}
