package commands

import (
	"context"
	"maps"
	"net/url"
	"slices"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/ui/component"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// NewURL is the address of a dialog's form. Further fields come in pairs.
func NewURL(kind controlbus.CommandKind, c controlbus.ChannelName, pairs ...string) string {
	q := url.Values{"kind": {string(kind)}}
	for name, value := range map[string]string{"env": c.Env, "broker": c.Broker, "system": c.System, "channel": c.Name} {
		if value != "" {
			q.Set(name, value)
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return "/control/new?" + q.Encode()
}

// Able says why a kind of command cannot be asked for on a channel, by whoever
// asks, and what is to be known before; both empty: it can.
func Able(ctx context.Context, abilities []controlbus.Ability, kind controlbus.CommandKind, c controlbus.ChannelName) (why, note string) {
	id, _ := access.From(ctx)
	if need := ledger.Action(kind); !id.Can(need, c.Env, c.Name) {
		return id.Why(need), ""
	}
	for _, a := range abilities {
		if a.Kind == kind {
			return sentence(a.Reason), sentence(a.Note)
		}
	}
	if len(abilities) == 0 {
		return "No agent that takes commands is connected to broker " + component.Visible(c.Broker) + ".", ""
	}
	return "The agent of broker " + component.Visible(c.Broker) + " cannot do this.", ""
}

// acts are the labels of a channel's buttons.
var acts = map[controlbus.CommandKind]string{
	controlbus.CommandPurge: "Purge…", controlbus.CommandRedrive: "Redrive…", controlbus.CommandDiscard: "Discard…", controlbus.CommandReplay: "Replay into…",
	controlbus.CommandTest: "Test message…", controlbus.CommandPause: "Pause…", controlbus.CommandDetour: "Detour…",
}

// ChannelActs are the buttons of a channel's page: those for daily use, and the
// rest for a menu. Dead letters have their own.
func ChannelActs(ctx context.Context, s Surveyor, c controlbus.ChannelName, dead bool) (first, more []Act) {
	abilities := s.Abilities(ctx, c.Env, c.Broker)
	make1 := func(kind controlbus.CommandKind) Act {
		why, note := Able(ctx, abilities, kind, c)
		return Act{Label: acts[kind], Icon: kindIcon(kind), URL: NewURL(kind, c), Why: why, Note: note, Danger: kind.Class() == controlbus.EffectDestructive}
	}
	order := []controlbus.CommandKind{controlbus.CommandTest, controlbus.CommandDetour, controlbus.CommandPurge}
	rest := []controlbus.CommandKind{controlbus.CommandPause, controlbus.CommandReplay, controlbus.CommandRedrive, controlbus.CommandDiscard}
	if dead {
		order = []controlbus.CommandKind{controlbus.CommandRedrive, controlbus.CommandDiscard, controlbus.CommandPurge}
		rest = []controlbus.CommandKind{controlbus.CommandTest, controlbus.CommandDetour, controlbus.CommandPause, controlbus.CommandReplay}
	}
	for _, k := range order {
		first = append(first, make1(k))
	}
	for _, k := range rest {
		a := make1(k)
		if !dead && a.Why == "" && (k == controlbus.CommandRedrive || k == controlbus.CommandDiscard) {
			a.Note = "For dead letters; by its name this channel holds none. " + a.Note
		}
		more = append(more, a)
	}
	return first, more
}

// ReplayAct is the button of a message's page.
func ReplayAct(ctx context.Context, s Surveyor, c controlbus.ChannelName, uid string) Act {
	why, note := Able(ctx, s.Abilities(ctx, c.Env, c.Broker), controlbus.CommandReplay, c)
	return Act{Label: "Replay this message…", Icon: kindIcon(controlbus.CommandReplay), URL: NewURL(controlbus.CommandReplay, c, "uid", uid, "from_env", c.Env), Why: why, Note: note}
}
