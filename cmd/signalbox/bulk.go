package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var (
	purgeCommand   = command{name: "purge", summary: "empty a channel, keeping a copy", run: func(ctx context.Context, args []string) error { return newTerminal().purge(ctx, args) }}
	redriveCommand = command{name: "redrive", summary: "send dead letters back to where they failed", run: func(ctx context.Context, args []string) error { return newTerminal().redrive(ctx, args) }}
	discardCommand = command{name: "discard", summary: "remove dead letters, keeping a copy", run: func(ctx context.Context, args []string) error { return newTerminal().discard(ctx, args) }}
	replayCommand  = command{name: "replay", summary: "send stored messages again", run: func(ctx context.Context, args []string) error { return newTerminal().replay(ctx, args) }}
)

// jobFlags are how a bulk command sends.
type jobFlags struct {
	rate, stop   *float64
	ramp         *string
	settle       *time.Duration
	stopMin, max *int64
}

func addJob(v *verb) jobFlags {
	return jobFlags{
		rate:    v.Float64("rate", 0, "`messages` per second; 0 is as fast as the broker confirms. `signalbox commands rate` changes it"),
		ramp:    v.String("ramp", "", "send so many, look what becomes of them, then the next step: `1,10,100`"),
		settle:  v.Duration("settle", 0, "how long to wait after each step of the ramp (default 2s)"),
		stop:    v.Float64("stop-ratio", 0, "stop when more than this `share` (0 to 1) could not be sent; of a redrive, what arrives dead meanwhile counts, too"),
		stopMin: v.Int64("stop-min", 0, "look at --stop-ratio from so many `messages` on"),
		max:     v.Int64("max", 0, "`messages` at most; 0 is as many as the preview counts"),
	}
}

// options reads them; nil where none was given.
func (f jobFlags) options() (*api.JobOptions, error) {
	o := api.JobOptions{Rate: *f.rate, Settle: api.Duration(*f.settle), StopRatio: *f.stop, StopMin: *f.stopMin, Max: *f.max}
	if *f.ramp != "" {
		for s := range strings.SplitSeq(*f.ramp, ",") {
			n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("%w: --ramp %q: want numbers with commas between them, such as 1,10,100", errUsage, *f.ramp)
			}
			o.Ramp = append(o.Ramp, n)
		}
	}
	check := controlbus.JobOptions{Rate: o.Rate, Ramp: o.Ramp, Settle: *f.settle, StopRatio: o.StopRatio, StopMin: o.StopMin, Max: o.Max}
	if err := check.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	if o.Rate == 0 && len(o.Ramp) == 0 && o.Settle == 0 && o.StopRatio == 0 && o.StopMin == 0 && o.Max == 0 {
		return nil, nil
	}
	return &o, nil
}

// one wants exactly one argument.
func one(rest []string, what string) (string, error) {
	if len(rest) != 1 || rest[0] == "" {
		return "", fmt.Errorf("%w: want one %s, have %q; quote it for the shell", errUsage, what, rest)
	}
	return rest[0], nil
}

func (t *terminal) purge(ctx context.Context, args []string) error {
	v := t.acting("purge", "BROKER/CHANNEL [flags]", `
Removes what waits in a channel. The agent keeps a copy first, from which "signalbox commands undo" sends it again.

  signalbox purge rabbit-eu1/orders.dead --dry-run
  signalbox purge rabbit-eu1/orders.dead --filter 'error.type:Timeout' --reason 'poison of the 21st'`)
	f := addOrder(t, v)
	text := v.String("filter", "", "only what matches this `filter`, where the broker can")
	none := v.Bool("no-backup", false, "keep no copy: there is no way back")
	broker := v.String("broker", "", "the channel is of this `broker`")
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
	return t.act(ctx, f, controlbus.CommandPurge, name, *broker, "", controlbus.PurgeArgs{Filter: *text, NoBackup: *none})
}

func (t *terminal) redrive(ctx context.Context, args []string) error {
	v := t.acting("redrive", "CHANNEL [flags]", `
Sends the messages of a dead-letter channel back, each to the channel it died in, or all of them to --to. A message leaves its place only when the
destination has confirmed it. One that was redriven three times is left alone, unless --force.

  signalbox redrive orders.dead --rate 50 --ramp 1,10,100 --stop-ratio 0.1`)
	f := addOrder(t, v)
	text := v.String("filter", "", "only what matches this `filter`")
	to := v.String("to", "", "`BROKER/CHANNEL` to send to, instead of where each died")
	force := v.Bool("force", false, "also what was redriven three times before")
	broker := v.String("broker", "", "the channel is of this `broker`")
	job := addJob(v)
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
	o, err := job.options()
	if err != nil {
		return err
	}
	return t.act(ctx, f, controlbus.CommandRedrive, name, *broker, *to, api.BulkArgs{Filter: *text, Job: o, Force: *force})
}

func (t *terminal) discard(ctx context.Context, args []string) error {
	v := t.acting("discard", "CHANNEL [flags]", `
Removes messages of a dead-letter channel. The agent keeps a copy of each, from which "signalbox commands undo" sends it again.`)
	f := addOrder(t, v)
	text := v.String("filter", "", "only what matches this `filter`")
	broker := v.String("broker", "", "the channel is of this `broker`")
	job := addJob(v)
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
	o, err := job.options()
	if err != nil {
		return err
	}
	return t.act(ctx, f, controlbus.CommandDiscard, name, *broker, "", api.BulkArgs{Filter: *text, Job: o})
}

// act finds the channel, and the one that messages go to, and proposes the
// command.
func (t *terminal) act(ctx context.Context, f *orderFlags, kind controlbus.CommandKind, name, broker, to string, args any) error {
	c, err := t.connect(*f.url)
	if err != nil {
		return err
	}
	target, err := c.place(ctx, name, *f.env, broker)
	if err != nil {
		return err
	}
	q, err := f.request(kind, target, args)
	if err != nil {
		return err
	}
	if to != "" {
		if q.Destination, err = c.place(ctx, to, target.Env, ""); err != nil {
			return err
		}
	}
	return t.preview(ctx, c, f, q)
}

// uidList is a flag that may be given again.
type uidList []string

func (l *uidList) String() string { return strings.Join(*l, ",") }

func (l *uidList) Set(s string) error {
	for id := range strings.SplitSeq(s, ",") {
		if id = strings.TrimSpace(id); id == "" {
			return errors.New("want the uid of a message")
		}
		*l = append(*l, id)
	}
	return nil
}

const maxUIDs = 500

func (t *terminal) replay(ctx context.Context, args []string) error {
	v := t.acting("replay", "--filter 'FILTER' --to BROKER/CHANNEL | --uid UID [flags]", `
Sends messages of the store again, oldest first: all that a filter finds in a range of time, or single ones by uid. Each carries a mark that names
the command and its number. Messages whose body was cut, masked or not kept are left out and counted.

  signalbox replay --filter 'channel:orders.placed failed:true' --since 2h --to rabbit-eu1/orders.placed --rate 100
  signalbox replay --uid 4db7fe4980ccbb99b02533de688c0c64

Without --to, single messages go to the channel they were seen on.`)
	f := addOrder(t, v)
	text := v.String("filter", "", "which messages, as a `filter`")
	var uids uidList
	v.Var(&uids, "uid", "single messages by `uid`; may be given again, or with commas")
	to := v.String("to", "", "`BROKER/CHANNEL` that gets them")
	toEnv := v.String("to-env", "", "`environment` of --to (default: that of the messages)")
	since := v.String("since", "", "look back `so long`: 15m, 1h, 7d (default 1h)")
	from := v.String("from", "", "start of the range: a `time` such as 2026-11-21T14:00:00Z or, in your zone, 2026-11-21T14:00")
	until := v.String("until", "", "end of the range: a `time`; now without it")
	job := addJob(v)
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%w: replay takes no argument %q; the filter is --filter", errUsage, rest[0])
	case len(uids) == 0 && !v.given("filter"), len(uids) > 0 && v.given("filter"):
		return fmt.Errorf("%w: want --filter or --uid", errUsage)
	case len(uids) > maxUIDs:
		return fmt.Errorf("%w: %d messages by uid: at most %d; use --filter", errUsage, len(uids), maxUIDs)
	case len(uids) == 0 && *to == "":
		return fmt.Errorf("%w: want --to BROKER/CHANNEL: what a filter finds may be of many channels", errUsage)
	}
	if err := readable(*text); err != nil {
		return err
	}
	o, err := job.options()
	if err != nil {
		return err
	}
	s := api.Selection{Env: *f.env, Filter: *text, UIDs: uids}
	if len(uids) == 0 {
		if s.From, s.To, err = selected(*since, *from, *until, time.Now()); err != nil {
			return err
		}
	} else if *since != "" || *from != "" || *until != "" {
		return fmt.Errorf("%w: --uid and a range of time exclude each other", errUsage)
	}
	c, err := t.connect(*f.url)
	if err != nil {
		return err
	}
	var target *api.ChannelRef
	if *to == "" {
		if target, err = c.origin(ctx, uids); err != nil {
			return err
		}
	} else if target, err = c.place(ctx, *to, firstOf(*toEnv, *f.env), ""); err != nil {
		return err
	}
	if s.Env == "" {
		s.Env = target.Env
	}
	q, err := f.request(controlbus.CommandReplay, target, api.ReplayArgs{Selection: &s, Job: o})
	if err != nil {
		return err
	}
	return t.preview(ctx, c, f, q)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// origin is the one channel that messages were seen on.
func (c *client) origin(ctx context.Context, uids []string) (*api.ChannelRef, error) {
	var at *api.ChannelRef
	for _, uid := range uids {
		var m api.MessageDetail
		if _, err := c.get(ctx, "/messages/"+url.PathEscape(uid), url.Values{"body": {"none"}}, &m); err != nil {
			return nil, err
		}
		r := api.ChannelRef{Env: m.Env, System: m.System, Broker: m.Broker, Channel: m.Channel}
		if at != nil && *at != r {
			return nil, fmt.Errorf("%w: these messages are of more than one channel (%s, %s): want --to BROKER/CHANNEL", errUsage,
				component.Visible(at.Broker+"/"+at.Channel), component.Visible(r.Broker+"/"+r.Channel))
		}
		at = &r
	}
	return at, nil
}
