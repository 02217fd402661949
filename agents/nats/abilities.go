package nats

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// pauseVersion is the server that can first pause a consumer.
var pauseVersion = []int{2, 11}

// noPause says why consumers cannot be paused; empty when they can be. Asking an
// older server is no way to find out: it does not answer.
func noPause(version string) string {
	if atLeast(version, pauseVersion...) {
		return ""
	}
	return "pausing a consumer begins with nats-server 2.11, this one is " + version
}

// Abilities are what the server can do, as Connect found it.
func (a *Adapter) Abilities() []controlbus.Ability {
	a.mu.Lock()
	p := a.product
	a.mu.Unlock()
	const streams = "streams; nothing waits on a subject of core NATS"
	noStreams := ""
	switch {
	case p.Version == "":
		noStreams = "the agent has not reached the server yet"
	case !slices.Contains(p.Features, "jetstream"):
		noStreams = "the server or the account has no JetStream, and nothing waits on a subject of core NATS"
	}
	send := ""
	if p.Version == "" {
		send = noStreams
	}
	pause := noStreams
	if pause == "" {
		pause = noPause(p.Version)
	}
	return []controlbus.Ability{
		{Kind: controlbus.CommandPeek, Reason: noStreams, Note: streams},
		{Kind: controlbus.CommandPurge, Reason: noStreams, Note: streams},
		{Kind: controlbus.CommandRedrive, Reason: noStreams, Note: "from " + streams},
		{Kind: controlbus.CommandDiscard, Reason: noStreams, Note: streams},
		{Kind: controlbus.CommandReplay, Reason: send, Note: "streams, and subjects that the agent's configuration names"},
		{Kind: controlbus.CommandTest, Reason: send, Note: "streams, and subjects that the agent's configuration names; consumers must know the mark, nothing keeps the message from them"},
		{Kind: controlbus.CommandDetour, Reason: noStreams, Note: "a junction from a stream to another channel, which the consumers must read instead"},
		{Kind: controlbus.CommandUndetour, Reason: noStreams},
		{Kind: controlbus.CommandPause, Reason: pause, Note: "all consumers of a stream, or one"},
		{Kind: controlbus.CommandResume, Reason: pause},
	}
}

// PlanCommand says how a kind of command would be carried out on a channel.
func (a *Adapter) PlanCommand(ctx context.Context, kind controlbus.CommandKind, channel string) (agents.CommandPlan, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	p, err := a.place(ctx, channel)
	var plan agents.CommandPlan
	if err == nil {
		plan, err = a.plan(ctx, kind, p)
	}
	if err != nil {
		return agents.CommandPlan{}, fmt.Errorf("nats: %s %q: %w", kind, channel, err)
	}
	return plan, nil
}

func (a *Adapter) plan(ctx context.Context, kind controlbus.CommandKind, p *place) (agents.CommandPlan, error) {
	switch kind {
	case controlbus.CommandReplay, controlbus.CommandTest:
		return a.planSend(ctx, kind, p)
	case controlbus.CommandPeek, controlbus.CommandPurge, controlbus.CommandRedrive, controlbus.CommandDiscard,
		controlbus.CommandDetour, controlbus.CommandUndetour, controlbus.CommandPause, controlbus.CommandResume:
	default:
		return agents.CommandPlan{}, fmt.Errorf("%w: NATS has no way to do that", controlbus.ErrUnsupported)
	}
	why := nothingWaits
	switch kind {
	case controlbus.CommandDetour, controlbus.CommandUndetour:
		why = "who listens to a subject of core NATS cannot give a message back, so a crash would lose what is on its way"
	case controlbus.CommandPause, controlbus.CommandResume:
		why = "a subject of core NATS has no consumers that the server could pause"
	}
	if err := p.onStream(why); err != nil {
		return agents.CommandPlan{}, err
	}
	switch kind {
	case controlbus.CommandPeek:
		return agents.CommandPlan{
			Technique: "get by sequence",
			Impact:    []string{"The stream's leader reads the messages. No consumer notices, and nothing is left behind."},
			Needs:     a.rights(p, "STREAM.INFO", "STREAM.MSG.GET"),
		}, nil
	case controlbus.CommandPurge:
		return a.planPurge(ctx, p)
	case controlbus.CommandRedrive, controlbus.CommandDiscard:
		return a.planTake(ctx, kind, p)
	case controlbus.CommandDetour:
		return a.planJunction(ctx, p)
	case controlbus.CommandUndetour:
		plan := agents.CommandPlan{
			Technique: "junction",
			Impact:    []string{"What the junction holds is worked off, then its durable consumer is removed. Consumers of the destination get nothing more through it."},
			Needs:     a.rights(p, "STREAM.INFO", "CONSUMER.DELETE"),
		}
		plan.Needs[1] += ".>"
		return plan, nil
	default:
		return a.planPause(ctx, kind, p)
	}
}

// rights names the subjects of the API that a command publishes to.
func (a *Adapter) rights(p *place, verbs ...string) []string {
	out := make([]string, 0, len(verbs)+1)
	for _, v := range verbs {
		out = append(out, "publish "+a.api()+"."+v+"."+p.config().Name)
	}
	return append(out, "subscribe _INBOX.>")
}

func (a *Adapter) planSend(ctx context.Context, kind controlbus.CommandKind, p *place) (agents.CommandPlan, error) {
	plan := agents.CommandPlan{Technique: "publish with acknowledgement"}
	stripped := "Headers that tell the server to do something (Nats-Rollup, Nats-Expected-*, Nats-TTL, Nats-Schedule and others) are left out."
	if p.info == nil {
		plan.Needs = []string{"publish " + p.name, "subscribe _INBOX.>"}
		if p.captured != "" {
			plan.Impact = append(plan.Impact, "The stream "+p.captured+" stores what is sent and acknowledges it.")
			plan.Needs = append(plan.Needs, "publish "+a.api()+".STREAM.NAMES")
		} else {
			plan.Technique = "publish and round trip"
			plan.Impact = append(plan.Impact, "The server confirms that it has read the messages. Nobody confirms that anyone listens: what nobody listens to is gone.")
			if a.cfg.MonitorURL != "" {
				if n, err := a.listeners(ctx, p.name); err == nil && n == 0 {
					plan.Impact = append(plan.Impact, "Nobody listens to it now, as far as this server knows.")
				}
			}
		}
	} else {
		c := p.config()
		if why := unwritable(c); why != "" {
			return plan, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, why)
		}
		plan.Impact = append(plan.Impact, "Each message is sent to its own subject where the stream takes it, else to the one its header x-original-subject names, else to the only subject the stream has without wildcards. It takes "+strings.Join(c.Subjects, ", ")+".")
		if c.SubjectTransform != nil {
			plan.Impact = append(plan.Impact, "The stream changes the subjects of what it stores; a message that went through this before is changed again.")
		}
		if c.Discard == jetstream.DiscardOld && (c.MaxMsgs > 0 || c.MaxBytes > 0 || c.MaxMsgsPerSubject > 0) {
			plan.Impact = append(plan.Impact, "The stream is limited in size: when it is full, what is sent pushes out its oldest messages.")
		}
		if kind == controlbus.CommandReplay {
			plan.Impact = append(plan.Impact, "A message sent twice is stored once if that happens within "+c.Duplicates.String()+", the stream's duplicate window.")
		}
		for _, s := range c.Subjects {
			plan.Needs = append(plan.Needs, "publish "+s)
		}
		plan.Needs = append(plan.Needs, "subscribe _INBOX.>")
	}
	if kind == controlbus.CommandTest {
		plan.Impact = append(plan.Impact, "Nothing keeps the test message from business consumers: they must know its mark and ignore it.")
	} else {
		plan.Impact = append(plan.Impact, stripped)
	}
	return plan, nil
}

func (a *Adapter) planPurge(ctx context.Context, p *place) (agents.CommandPlan, error) {
	c := p.config()
	if why := unpurgeable(c); why != "" {
		return agents.CommandPlan{}, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, why)
	}
	plan := agents.CommandPlan{
		Technique: "purge by sequence",
		Impact:    []string{"What comes later than the last message seen here is not touched, however fast it comes."},
		Needs:     a.rights(p, "STREAM.INFO", "STREAM.MSG.GET", "STREAM.MSG.DELETE", "STREAM.PURGE"),
	}
	return plan, a.affected(ctx, p, &plan)
}

// affected tells whom a removal concerns.
func (a *Adapter) affected(ctx context.Context, p *place, plan *agents.CommandPlan) error {
	readers, err := p.readers(ctx)
	if err != nil {
		return err
	}
	c := p.config()
	flying := 0
	for _, r := range readers {
		flying += r.NumAckPending
	}
	if c.Retention == jetstream.LimitsPolicy {
		plan.Impact = append(plan.Impact, "The stream keeps what has been read until its limits remove it; that is taken, too.")
	}
	if len(readers) > 1 {
		plan.Impact = append(plan.Impact, strconv.Itoa(len(readers))+" consumers read this stream; a message is taken from all of them at once.")
	}
	if flying > 0 {
		plan.Impact = append(plan.Impact, fmt.Sprintf("%d messages are with consumers now and not acknowledged: they are taken from the stream while somebody works on them.", flying))
	}
	return nil
}

func (a *Adapter) planTake(ctx context.Context, kind controlbus.CommandKind, p *place) (agents.CommandPlan, error) {
	if why := undeletable(p.config()); why != "" {
		return agents.CommandPlan{}, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, why)
	}
	if kind == controlbus.CommandRedrive && slices.ContainsFunc(p.config().Subjects, func(s string) bool { return strings.HasPrefix(s, "$JS.EVENT.") }) {
		return agents.CommandPlan{}, fmt.Errorf("%w: the stream holds the server's notes about messages; the messages themselves lie where they were, in the stream that each note names", controlbus.ErrUnsupported)
	}
	plan := agents.CommandPlan{
		Technique: "get by sequence, delete",
		Needs:     a.rights(p, "STREAM.INFO", "STREAM.MSG.GET", "STREAM.MSG.DELETE"),
	}
	if kind == controlbus.CommandRedrive {
		plan.Technique = "get by sequence, publish with acknowledgement, delete"
		plan.Impact = append(plan.Impact,
			"A message is deleted here only when its copy is acknowledged; a crash between the two may send it twice, under one Nats-Msg-Id, which a stream stores once within its duplicate window.",
			"Headers that tell the server to do something (Nats-Rollup, Nats-Expected-*, Nats-TTL, Nats-Msg-Id and others) are left out.")
		plan.Needs = append(plan.Needs, "publish on the subjects of the destination")
	}
	return plan, a.affected(ctx, p, &plan)
}

func (a *Adapter) planJunction(ctx context.Context, p *place) (agents.CommandPlan, error) {
	c := p.config()
	plan := agents.CommandPlan{
		Technique: "junction",
		Impact: []string{
			"NATS has no way to lead a stream's messages aside unseen: a durable consumer takes them, and they go on in another channel. Name the destination; the consumers must read that one instead of this stream.",
			"Consumers that go on reading this stream get the messages, too, without the detour.",
			"It begins with what the stream holds, unless it is told after which message.",
		},
		Needs: append(a.rights(p, "STREAM.INFO", "CONSUMER.INFO", "CONSUMER.CREATE", "CONSUMER.MSG.NEXT", "CONSUMER.DELETE"),
			"publish $JS.ACK."+c.Name+".>", "publish on the subjects of the destination"),
	}
	for i, n := range plan.Needs {
		if strings.Contains(n, ".CONSUMER.") {
			plan.Needs[i] += ".>"
		}
	}
	readers, err := p.readers(ctx)
	if err != nil {
		return plan, err
	}
	if c.Retention == jetstream.WorkQueuePolicy {
		for _, r := range readers {
			if !strings.HasPrefix(r.Name, junctionPrefix) {
				return plan, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, a.workQueueTaken(ctx, p))
			}
		}
	}
	if c.Retention == jetstream.InterestPolicy {
		plan.Impact = append(plan.Impact, "The stream keeps each message until the junction has acknowledged it, too.")
	}
	return plan, nil
}

// junctionPrefix begins the names of consumers that are Signalbox's own.
const junctionPrefix = "sb"

func (a *Adapter) planPause(ctx context.Context, kind controlbus.CommandKind, p *place) (agents.CommandPlan, error) {
	if why := noPause(p.nc.ConnectedServerVersion()); why != "" {
		return agents.CommandPlan{}, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, why)
	}
	readers, err := p.readers(ctx)
	if err != nil {
		return agents.CommandPlan{}, err
	}
	if len(readers) == 0 {
		return agents.CommandPlan{}, fmt.Errorf("%w: the stream has no consumers", controlbus.ErrUnsupported)
	}
	plan := agents.CommandPlan{Technique: "consumer pause", Needs: a.rights(p, "STREAM.INFO", "CONSUMER.LIST", "CONSUMER.PAUSE")}
	plan.Needs[2] += ".>"
	if kind == controlbus.CommandResume {
		plan.Impact = []string{"The consumers get messages again at once."}
		return plan, nil
	}
	names := make([]string, 0, len(readers))
	for _, r := range readers {
		names = append(names, r.Name)
	}
	const most = 10
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	plan.Impact = []string{
		"The server gives these consumers nothing until the time is over, then goes on by itself, whatever becomes of the agent: " + strings.Join(names, ", ") + ".",
		"Messages wait in the stream meanwhile. What is with consumers already is worked off.",
	}
	c := p.config()
	if c.MaxAge > 0 || c.Discard == jetstream.DiscardOld && (c.MaxMsgs > 0 || c.MaxBytes > 0) {
		plan.Impact = append(plan.Impact, "The stream's limits go on removing old messages, also those that wait for a paused consumer.")
	}
	return plan, nil
}
