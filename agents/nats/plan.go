package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Techniques.
const (
	techOrdered   = "ordered-consumer"
	techRepublish = "republish"
	techCore      = "core-subscription"
)

// tapTarget is TapPlan.Data.
type tapTarget struct {
	technique string
	stream    string   // of techOrdered and techRepublish
	created   string   // the stream's identity, in Unix nanoseconds
	subjects  []string // to subscribe to
}

// PlanTap says how the stream or subject would be tapped. It only reads.
func (a *Adapter) PlanTap(ctx context.Context, channel string) (agents.TapPlan, error) {
	nc, js, err := a.control(ctx)
	if err != nil {
		return agents.TapPlan{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	if !strings.ContainsAny(channel, ".*> ") && channel != "" {
		s, err := js.Stream(ctx, channel)
		switch {
		case err == nil:
			return a.planStream(channel, s.CachedInfo(), nc.ConnectedServerVersion())
		case errors.Is(err, jetstream.ErrStreamNotFound), noJetStream(err):
		default:
			return agents.TapPlan{}, fmt.Errorf("nats: tap %q: %w", channel, sentinel(err))
		}
	}
	return a.planSubject(ctx, channel)
}

func (a *Adapter) planStream(channel string, info *jetstream.StreamInfo, version string) (agents.TapPlan, error) {
	c := info.Config
	target := tapTarget{stream: c.Name, created: stamp(info.Created)}
	if c.Retention == jetstream.LimitsPolicy {
		target.technique = techOrdered
		return agents.TapPlan{
			Channel: channel, Technique: techOrdered, Resumable: true,
			Artefacts: []string{fmt.Sprintf("consumer %sN (ephemeral, in memory, acknowledges nothing, removed after %s without its reader)",
				a.prefix, a.cfg.Tap.InactiveThreshold)},
			Impact: []string{
				"The server reads each message once more; publishers and other consumers are not held up.",
				"Messages that the stream deletes before they are read show as a gap.",
			},
			Data: target,
		}, nil
	}
	if r := c.RePublish; r != nil && !r.HeadersOnly && (r.Source == "" || r.Source == ">") && !strings.Contains(r.Destination, "{{") && atLeast(version, 2, 10) {
		target.technique, target.subjects = techRepublish, []string{r.Destination}
		return agents.TapPlan{
			Channel: channel, Technique: techRepublish,
			Artefacts: []string{"a subscription to " + r.Destination},
			Impact: []string{
				"The tap reads the copies that the stream republishes; the stream itself is not touched.",
				coreImpact,
			},
			Data: target,
		}, nil
	}
	if c.Mirror != nil || len(c.Sources) > 0 {
		return agents.TapPlan{}, fmt.Errorf("nats: tap %q: %w: the stream copies from others and its retention is %s, where a consumer would hold messages back; tap the origin, or let it republish",
			channel, controlbus.ErrUnsupported, retention(c.Retention))
	}
	for _, s := range c.Subjects {
		if why := checkSubject(s); why != "" {
			return agents.TapPlan{}, fmt.Errorf("nats: tap %q: %w: its subject %q: %s", channel, controlbus.ErrUnsupported, s, why)
		}
	}
	target.technique, target.subjects = techCore, c.Subjects
	p := agents.TapPlan{
		Channel: channel, Technique: techCore,
		Artefacts: []string{"a subscription to " + strings.Join(c.Subjects, ", ")},
		Impact: []string{
			fmt.Sprintf("The stream's retention is %s: one more consumer would hold its messages back or be refused, so the tap listens to its subjects instead.", retention(c.Retention)),
			"It also sees what the stream refuses or recognises as a duplicate, and not what is stored already.",
			coreImpact,
		},
		Data: target,
	}
	return p, nil
}

const coreImpact = "The server slows publishers while a subscriber does not read; the agent always reads, drops what it cannot keep, and closes the tap's connection when it falls behind for a second. no_fast_producer_stall (server 2.11) takes the rest of the risk away."

func retention(r jetstream.RetentionPolicy) string {
	if r == jetstream.WorkQueuePolicy {
		return "work queue"
	}
	return strings.ToLower(r.String())
}

func (a *Adapter) planSubject(ctx context.Context, subject string) (agents.TapPlan, error) {
	refuse := func(why string) (agents.TapPlan, error) {
		return agents.TapPlan{}, fmt.Errorf("nats: tap %q: %w: %s", subject, controlbus.ErrUnsupported, why)
	}
	if why := checkSubject(subject); why != "" {
		return refuse(why)
	}
	plan := agents.TapPlan{
		Channel: subject, Technique: techCore,
		Artefacts: []string{"a subscription to " + subject},
		Impact:    []string{coreImpact},
		Data:      tapTarget{technique: techCore, subjects: []string{subject}},
	}
	service := false
	for _, pattern := range a.cfg.ServiceSubjects {
		service = service || controlbus.MatchPattern(pattern, subject)
	}
	if a.cfg.MonitorURL == "" {
		if service {
			return refuse("requests go there, and without monitor_url nobody knows whether anybody listens: a tap would hide \"no responders\" from the requesters")
		}
		plan.Impact = append(plan.Impact, "If requests go to this subject and nobody listens, the tap hides that: requesters get a timeout instead of \"no responders\".")
		return plan, nil
	}
	n, err := a.listeners(ctx, subject)
	switch {
	case err != nil && service:
		return agents.TapPlan{}, fmt.Errorf("nats: tap %q: is anybody listening: %w", subject, err)
	case n == 0 && service:
		return refuse("requests go there and nobody listens now: a tap would hide \"no responders\" from the requesters")
	case n == 0:
		plan.Impact = append(plan.Impact, "Nobody listens to this subject now: if requests go to it, requesters get a timeout instead of \"no responders\".")
	}
	return plan, nil
}
