package rabbitmq

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Techniques.
const (
	techMirror   = "mirrored-binding"
	techStream   = "stream"
	techFirehose = "firehose"
)

// copying are the exchange types at which one more binding gets a copy. At the
// others (x-consistent-hash, x-random, x-modulus-hash, ...) it would take a
// share of the messages away from the tapped queue.
var copying = []string{"direct", "fanout", "topic", "headers", "x-delayed-message"}

// tapTarget is TapPlan.Data.
type tapTarget struct {
	vhost, queue, technique string
}

// PlanTap says how the queue would be tapped. It only reads.
func (a *Adapter) PlanTap(ctx context.Context, channel string) (agents.TapPlan, error) {
	_, api, err := a.control(ctx)
	if err != nil {
		return agents.TapPlan{}, err
	}
	vhost, queue := a.resolve(channel)
	refuse := func(format string, args ...any) (agents.TapPlan, error) {
		return agents.TapPlan{}, fmt.Errorf("rabbitmq: tap %q: %w: %s", channel, controlbus.ErrUnsupported, fmt.Sprintf(format, args...))
	}
	if own(queue) {
		return refuse("it is a tap itself")
	}
	if api == nil {
		return refuse("the bindings to mirror can be read through the management API alone; set management_url")
	}
	if _, err := api.queue(ctx, vhost, queue); err != nil {
		return agents.TapPlan{}, fmt.Errorf("rabbitmq: tap %q: %w", channel, err)
	}
	bindings, err := a.mirrorable(ctx, api, vhost, queue)
	if err != nil {
		return agents.TapPlan{}, fmt.Errorf("rabbitmq: tap %q: %w", channel, err)
	}
	if len(bindings) > 0 && a.streamed(channel) {
		return a.streamPlan(channel, tapTarget{vhost, queue, techStream}), nil
	}
	if len(bindings) > 0 {
		return agents.TapPlan{
			Channel: channel, Technique: techMirror,
			Artefacts: []string{"queue " + a.artefact("tap", "N") + " (exclusive, auto-delete, not durable, at most " +
				fmt.Sprintf("%d messages and %d bytes, oldest dropped first)", a.cfg.Tap.MaxLength, a.cfg.Tap.MaxLengthBytes)},
			Impact: []string{
				"The broker stores one more copy of each message in memory until the agent has it.",
				"Messages published straight to the queue through the default exchange are not seen, nor is what is in the queue already.",
				fmt.Sprintf("A binding that the queue gets later is mirrored within %s; one that it loses is dropped within the same time.", a.cfg.Tap.PollInterval),
			},
			Data: tapTarget{vhost, queue, techMirror},
		}, nil
	}
	if !a.cfg.Firehose.Allowed {
		return refuse("the queue is fed through the default exchange alone, to which nothing else can be bound; " +
			"firehose.allowed would trace the whole virtual host, or let the publisher use a named exchange")
	}
	return agents.TapPlan{
		Channel: channel, Technique: techFirehose,
		Artefacts: []string{
			"queue " + a.artefact("fire", "N") + " (exclusive, auto-delete, not durable, bounded)",
			"exchange " + a.hose.mark() + " (a mark, removed with the last firehose tap)",
			fmt.Sprintf("tracing of virtual host %q", vhost),
		},
		Impact: []string{
			"The broker traces every message of the virtual host, which slows all of its publishers and consumers.",
			"A message is seen when it is delivered, and again at each redelivery, not when it is published.",
			fmt.Sprintf("The tap ends by itself after %s.", a.cfg.Firehose.Lease),
		},
		Data: tapTarget{vhost, queue, techFirehose},
	}, nil
}

// mirrorable are the queue's bindings from named exchanges, of those the ones in
// front of a gate; ErrUnsupported when one of them is at an exchange that shares
// out instead of copying. The exchanges upstream do not matter: the tap binds
// beside the queue, so what reaches the last exchange reaches both.
func (a *Adapter) mirrorable(ctx context.Context, api *management, vhost, queue string) ([]binding, error) {
	bindings, err := api.feeding(ctx, vhost, queue)
	if err != nil {
		return nil, err
	}
	types := map[string]string{}
	for _, b := range bindings {
		kind, seen := types[b.Source]
		if !seen {
			if kind, err = api.exchangeType(ctx, vhost, b.Source); err != nil {
				return nil, fmt.Errorf("exchange %q: %w", b.Source, err)
			}
			types[b.Source] = kind
		}
		if !slices.Contains(copying, kind) {
			return nil, fmt.Errorf("%w: exchange %q is of type %s, where a second binding may take messages away from the queue; mirrored are %s",
				controlbus.ErrUnsupported, b.Source, kind, strings.Join(copying, ", "))
		}
	}
	return bindings, nil
}

func (a *Adapter) artefact(kind, n string) string { return "sb." + kind + "." + a.prefix + n }
