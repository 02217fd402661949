package link

import (
	"slices"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Allowed says whether the rules let a kind of command act on a channel and, for
// those that send, on a destination.
func Allowed(rules []AllowRule, kind controlbus.CommandKind, target controlbus.ChannelName, destination *controlbus.ChannelName) bool {
	d := Dispatch{Kind: kind, Target: controlbus.Target{Channel: target}, Destination: destination}
	return slices.ContainsFunc(rules, func(r AllowRule) bool { return r.allows(&d) })
}

// AllowedOn says whether there is a channel of a broker on which the rules let a
// kind of command act.
func AllowedOn(rules []AllowRule, kind controlbus.CommandKind, broker string) bool {
	return slices.ContainsFunc(rules, func(r AllowRule) bool {
		return (len(r.Kinds) == 0 || slices.Contains(r.Kinds, kind)) && controlbus.MatchPattern(r.Broker, broker)
	})
}
