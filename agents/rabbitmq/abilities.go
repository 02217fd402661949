package rabbitmq

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

const (
	noManagement = "the queue's kind and bindings can be read through the management API alone; set management_url"
	gateNote     = "queues that get their messages from named exchanges which copy (direct, fanout, topic, headers)"
)

var (
	_ agents.Inspector = (*Adapter)(nil)
	_ agents.Planner   = (*Adapter)(nil)
	_ agents.Sender    = (*Adapter)(nil)
	_ agents.Taker     = (*Adapter)(nil)
	_ agents.Gater     = (*Adapter)(nil)
	_ agents.Parker    = (*Adapter)(nil)
	_ agents.Peeker    = (*Adapter)(nil)
	_ agents.Purger    = (*Adapter)(nil)
	_ agents.Separator = (*Adapter)(nil)
)

// Abilities are what can be done on this broker. Rights differ from queue to
// queue and show when a command is planned or tried.
func (a *Adapter) Abilities() []controlbus.Ability {
	a.mu.Lock()
	api := a.api
	a.mu.Unlock()
	without := ""
	if api == nil {
		without = noManagement
	}
	return []controlbus.Ability{
		{Kind: controlbus.CommandPeek, Reason: without, Note: "what is looked at in a queue is marked as redelivered; streams are read without a trace"},
		{Kind: controlbus.CommandTap, Reason: without},
		{Kind: controlbus.CommandUntap, Reason: without},
		{Kind: controlbus.CommandDetour, Reason: without, Note: gateNote},
		{Kind: controlbus.CommandUndetour, Reason: without},
		{Kind: controlbus.CommandPause, Reason: without, Note: gateNote + "; new messages are held back, what waits already is still delivered"},
		{Kind: controlbus.CommandResume, Reason: without},
		{Kind: controlbus.CommandTest, Note: "keeping test messages from consumers: " + gateNote},
		{Kind: controlbus.CommandReplay},
		{Kind: controlbus.CommandRedrive, Note: "not from streams"},
		{Kind: controlbus.CommandDiscard, Note: "not from streams"},
		{Kind: controlbus.CommandPurge, Note: "not streams: only their retention removes messages"},
	}
}

// PlanCommand says how a command would be carried out on a queue. It only reads.
func (a *Adapter) PlanCommand(ctx context.Context, kind controlbus.CommandKind, channel string) (agents.CommandPlan, error) {
	ctrl, api, err := a.control(ctx)
	if err != nil {
		return agents.CommandPlan{}, err
	}
	vhost, queue := a.resolve(channel)
	wrap := func(err error) error { return fmt.Errorf("rabbitmq: %s %q: %w", kind, channel, err) }
	refuse := func(why string) (agents.CommandPlan, error) {
		return agents.CommandPlan{}, wrap(fmt.Errorf("%w: %s", controlbus.ErrUnsupported, why))
	}
	if own(queue) {
		return refuse("it is a wire tap of an agent, not a channel of yours")
	}
	if _, err := a.inspect(ctx, ctrl[vhost], queue); err != nil {
		return agents.CommandPlan{}, wrap(err)
	}
	var q queueDetail
	if api != nil {
		if q, err = api.detail(ctx, vhost, queue); err != nil {
			return agents.CommandPlan{}, wrap(err)
		}
	}
	p := agents.CommandPlan{}
	name := quoteRight(queue)
	switch kind {
	case controlbus.CommandPurge, controlbus.CommandDiscard:
		if q.Type == "stream" {
			return refuse(streamPurge)
		}
		p.Technique = "consume up to the number of messages that wait at the start, keep a copy, acknowledge (queue.purge where no copy is kept)"
		p.Impact = []string{
			"Only messages that wait are removed; those that consumers hold are not, and come back if they are not acknowledged.",
			"The queue's own consumers go on taking messages meanwhile.",
		}
		p.Impact = append(p.Impact, taking(q, a.version())...)
		p.Needs = []string{"read " + name}
	case controlbus.CommandRedrive:
		if q.Type == "stream" {
			return refuse("nothing can be taken out of a stream; replay its messages instead")
		}
		p.Technique = "consume, publish to the queue each message died in through the default exchange (mandatory, confirmed), then acknowledge"
		p.Impact = []string{
			"A crash in the middle can deliver some messages twice, and loses none.",
			"CC and BCC headers are not followed again; the publisher's user id is not kept.",
		}
		p.Impact = append(p.Impact, taking(q, a.version())...)
		p.Needs = []string{"read " + name, "write amq.default"}
	case controlbus.CommandReplay:
		p.Technique = "publish to the queue through the default exchange (mandatory, confirmed, up to 256 on the way)"
		p.Impact = append([]string{"Messages go to this queue alone, whatever its bindings are; they come after those that wait."}, filling(q)...)
		p.Needs = []string{"write amq.default"}
	case controlbus.CommandTest:
		p.Technique = "publish one marked message to the queue through the default exchange (mandatory, confirmed)"
		p.Impact = append([]string{"The queue's consumers get the message like any other, unless it is kept from them."}, filling(q)...)
		p.Needs = []string{"write amq.default"}
	case controlbus.CommandPeek:
		return a.planPeek(p, q, api != nil, name, wrap)
	case controlbus.CommandDetour, controlbus.CommandUndetour, controlbus.CommandPause, controlbus.CommandResume:
		if p, err = a.planGate(ctx, api, kind, vhost, queue); err != nil {
			return agents.CommandPlan{}, wrap(err)
		}
	default:
		return refuse("the adapter knows no such command")
	}
	return p, nil
}

// planGate is of what the gate does. Where it is installed already, only its
// exchange leads into the queue.
func (a *Adapter) planGate(ctx context.Context, api *management, kind controlbus.CommandKind, vhost, queue string) (agents.CommandPlan, error) {
	p := agents.CommandPlan{Technique: "alternate-exchange gate"}
	if api == nil {
		return p, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, noManagement)
	}
	ours, err := api.between(ctx, vhost, gatePrefix)
	if err != nil {
		return p, err
	}
	inside := ""
	for exchange, of := range ours {
		if of == queue && strings.HasPrefix(exchange, gatePrefix) {
			inside = exchange
		}
	}
	if kind == controlbus.CommandUndetour || kind == controlbus.CommandResume {
		bindings, err := api.feeding(ctx, vhost, queue)
		if err != nil {
			return p, err
		}
		p.Technique += ", switched off by one binding and taken away"
		p.Impact = []string{"The backlog is worked off first; what is published while that happens can overtake what is left of it."}
		p.Needs = gateRights(queue, bindings)
		return p, nil
	}
	_, direct, err := a.reroutable(ctx, api, vhost, queue, inside)
	if err != nil {
		return p, err
	}
	if inside != "" {
		return p, fmt.Errorf("%w: the queue has a gate already (%s)", controlbus.ErrConflict, inside)
	}
	if len(direct) == 0 {
		return p, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, defaultOnly)
	}
	p.Technique = "alternate-exchange gate: two exchanges and a durable backlog queue " + gatePrefix + "ID.*, switched by one binding"
	p.Impact = []string{
		"While it is on, new messages go to the backlog queue instead; those that wait in the queue are still delivered.",
		"Messages published straight to the queue through the default exchange are not led aside.",
		"With the agent gone the backlog grows until the agent is back; no message is lost.",
		"An application that declares its binding again opens a second way past the gate: until that is found and closed, within seconds, messages take both and come twice.",
	}
	p.Needs = gateRights(queue, direct)
	return p, nil
}

func gateRights(queue string, bindings []binding) []string {
	read := []string{`sb\..*`}
	for _, b := range bindings {
		name := regexp.QuoteMeta(b.Source)
		if !strings.HasPrefix(b.Source, "sb.") && !slices.Contains(read, name) {
			read = append(read, name)
		}
	}
	return []string{
		`configure ^sb\.`, `write ^(sb\..*|amq\.default|` + regexp.QuoteMeta(queue) + ")$",
		"read ^(" + strings.Join(read, "|") + ")$", "management tag (monitoring), to read bindings",
	}
}

// taking is what happens to messages that are taken and given back.
func taking(q queueDetail, version string) []string {
	var out []string
	if q.Type == "quorum" {
		if limit := deliveryLimit(q, version); limit >= 0 {
			out = append(out, fmt.Sprintf("What does not match a filter is given back, which counts as a failed delivery; after %d the queue dead-letters or drops it.", limit))
		}
	}
	if q.Type == "quorum" && major(version) < 4 {
		out = append(out, "Some thousands of messages that are given back, because they do not match a filter, can change their order in a quorum queue before RabbitMQ 4.")
	}
	if v, _ := q.setting("single-active-consumer"); v == true {
		out = append(out, "The queue has a single active consumer: the order it sees is not kept while messages are taken beside it.")
	}
	return out
}

// filling is what happens to messages that are put in.
func filling(q queueDetail) []string {
	var out []string
	if _, ok := q.number("max-length"); ok {
		out = append(out, "The queue is bounded in length: sending more than it holds drops its oldest messages or is refused.")
	}
	if _, ok := q.number("max-length-bytes"); ok {
		out = append(out, "The queue is bounded in bytes: sending more than it holds drops its oldest messages or is refused.")
	}
	return out
}

// deliveryLimit is after how many returns a quorum queue removes a message, -1
// for never.
func deliveryLimit(q queueDetail, version string) int64 {
	if n, ok := q.number("delivery-limit"); ok {
		return n
	}
	if major(version) >= 4 {
		return 20
	}
	return -1
}

func (a *Adapter) planPeek(p agents.CommandPlan, q queueDetail, managed bool, name string, wrap func(error) error) (agents.CommandPlan, error) {
	if !managed {
		return agents.CommandPlan{}, wrap(fmt.Errorf("%w: %s", controlbus.ErrUnsupported, noManagement))
	}
	p.Needs = []string{"read " + name}
	if err := peekable(q, a.version()); err != nil {
		return agents.CommandPlan{}, wrap(err)
	}
	if q.Type == "stream" {
		p.Technique = "read the stream from its beginning"
		p.Impact = []string{"Nothing is left behind: a stream is read without taking anything out."}
		return p, nil
	}
	p.Technique = "get the first messages and give them back"
	p.Impact = []string{lookTraces(q, a.version())}
	return p, nil
}

func (a *Adapter) version() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.product.Version
}

// quoteRight writes a queue's name as the regular expression of a permission.
func quoteRight(name string) string { return "^" + regexp.QuoteMeta(name) + "$" }
