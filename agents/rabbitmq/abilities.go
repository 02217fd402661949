package rabbitmq

import (
	"context"
	"fmt"
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
		{Kind: controlbus.CommandTap, Reason: without},
		{Kind: controlbus.CommandUntap, Reason: without},
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
			return refuse("nothing can be taken out of a stream: its retention (x-max-age, x-max-length-bytes) removes messages, or deleting it does")
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
	default:
		return refuse("the adapter knows no such command")
	}
	return p, nil
}

// taking is what happens to messages that are taken and given back.
func taking(q queueDetail, version string) []string {
	var out []string
	if q.Type == "quorum" {
		if limit := deliveryLimit(q, version); limit >= 0 {
			out = append(out, fmt.Sprintf("What does not match the filter is given back, which counts as a failed delivery; after %d the queue dead-letters or drops it.", limit))
		}
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
	p.Technique = "get the first messages and give them back"
	p.Impact = []string{lookTraces(q, a.version())}
	if err := peekable(q, a.version()); err != nil {
		return agents.CommandPlan{}, wrap(err)
	}
	return p, nil
}

// lookTraces says what looking at waiting messages leaves behind.
func lookTraces(q queueDetail, version string) string {
	text := "The messages looked at are marked as redelivered, and a consumer that asks meanwhile gets the ones behind them first."
	if limit := deliveryLimit(q, version); q.Type == "quorum" && limit >= 0 {
		text += fmt.Sprintf(" The look counts as a failed delivery of each; after %d the queue dead-letters or drops it.", limit)
	}
	return text
}

// peekable refuses queues whose messages a look could cost.
func peekable(q queueDetail, version string) error {
	if q.Type == "stream" {
		return fmt.Errorf("%w: looking into streams is not built yet; tap it", controlbus.ErrUnsupported)
	}
	if limit := deliveryLimit(q, version); q.Type == "quorum" && limit >= 0 && limit < minLookLimit {
		return fmt.Errorf("%w: the queue removes a message that was given back %d times, and each look is one", controlbus.ErrUnsupported, limit)
	}
	return nil
}

// minLookLimit is the least delivery limit with which a queue is looked into.
const minLookLimit = 4

func (a *Adapter) version() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.product.Version
}

// quoteRight writes a queue's name as the regular expression of a permission.
func quoteRight(name string) string {
	var b strings.Builder
	b.WriteByte('^')
	for _, r := range name {
		if strings.ContainsRune(`\.+*?()|[]{}^$`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	b.WriteByte('$')
	return b.String()
}
