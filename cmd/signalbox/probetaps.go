package main

import (
	"context"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// probeTaps lets probes watch channels: it asks the agent beside the broker for
// a tap where none runs, and renews the one it asked for.
type probeTaps struct{ roster *link.Roster }

func (p probeTaps) BrokerClockOffset(broker string) time.Duration {
	return p.roster.BrokerClockOffset(broker)
}

// Ensure returns when a tap on the channel runs.
func (p probeTaps) Ensure(ctx context.Context, ch controlbus.ChannelName, until time.Time, reason string) error {
	if most := time.Now().Add(link.MaxLease); until.After(most) {
		until = most
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	asked := ""
	for {
		agent, tap := p.find(ch)
		switch {
		case agent == "":
			return fmt.Errorf("%w: no agent with the broker %q is heard from", controlbus.ErrUnavailable, ch.Broker)
		case tap != nil && tap.State == controlbus.TapRefused && (asked != "" || tap.Spec.Origin != "console"):
			return fmt.Errorf("%w: %s", controlbus.ErrUnsupported, tap.Error)
		case tap != nil && tap.State == controlbus.TapRunning && (tap.Spec.Until.IsZero() || asked != "" || time.Until(tap.Spec.Until) > time.Until(until)/2):
			return nil
		case asked != agent:
			spec := controlbus.TapSpec{Broker: ch.Broker, Channel: ch.Name, Until: until, Reason: reason, Owner: "probe"}
			if err := p.roster.RequestTap(ctx, agent, spec); err != nil {
				return err
			}
			asked = agent
			if tap != nil && tap.State == controlbus.TapRunning {
				return nil // renewed while it runs
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if tap != nil && tap.Error != "" {
				return fmt.Errorf("%w: the tap does not run: %s", controlbus.ErrUnavailable, tap.Error)
			}
			return fmt.Errorf("%w: the agent has not started the tap", controlbus.ErrUnavailable)
		}
	}
}

// find returns the agent to ask, and its best tap on the channel.
func (p probeTaps) find(ch controlbus.ChannelName) (agent string, best *controlbus.TapStatus) {
	for _, a := range p.roster.Agents() {
		if a.Presence != controlbus.Online || ch.Env != "" && a.Env != ch.Env {
			continue
		}
		for _, b := range a.Brokers {
			if b.Name == ch.Broker && agent == "" {
				agent = a.ID
			}
		}
		for i := range a.Taps {
			t := &a.Taps[i]
			if t.Spec.Broker == ch.Broker && t.Channel == ch.Name && (best == nil || t.State == controlbus.TapRunning) {
				agent, best = a.ID, t
			}
		}
	}
	return agent, best
}

// tee shows what passes to several who watch.
type tee []interface {
	Active() bool
	Publish(events []*controlbus.MessageEvent)
}

func (t tee) Active() bool {
	for _, one := range t {
		if one.Active() {
			return true
		}
	}
	return false
}

func (t tee) Publish(events []*controlbus.MessageEvent) {
	for _, one := range t {
		one.Publish(events)
	}
}
