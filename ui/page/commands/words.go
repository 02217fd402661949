package commands

import (
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/ui/component"
)

// kindWords are what people call the kinds, and a sentence on each for who
// chooses one.
var kindWords = map[controlbus.CommandKind]struct{ name, does, icon string }{
	controlbus.CommandPurge:    {"Purge", "Remove what waits in a channel, all of it or what a filter matches.", "purge"},
	controlbus.CommandRedrive:  {"Redrive", "Move dead letters back to where they failed, or to another channel.", "redrive"},
	controlbus.CommandDiscard:  {"Discard", "Remove dead letters that nobody will need again.", "purge"},
	controlbus.CommandReplay:   {"Replay", "Send stored messages again, to their channel or to another.", "replay"},
	controlbus.CommandTest:     {"Test message", "Put one marked message into a channel and follow its way.", "test"},
	controlbus.CommandPause:    {"Pause", "Keep a channel's consumers waiting, until a time.", "pause"},
	controlbus.CommandResume:   {"Resume", "Let a paused channel's consumers go on.", "play"},
	controlbus.CommandDetour:   {"Detour", "Lead a channel's messages through steps for a while: hold, check, change, copy.", "detours"},
	controlbus.CommandUndetour: {"End a detour", "Give messages their direct way back; what waits is worked off first.", "detours"},
	controlbus.CommandTap:      {"Tap", "Copy what passes; nothing is consumed.", "live"},
	controlbus.CommandUntap:    {"End a tap", "Stop copying what passes.", "live"},
	controlbus.CommandPeek:     {"Look", "Count and list what waits.", "search"},
}

// KindWord is a kind's name.
func KindWord(k controlbus.CommandKind) string {
	if w, ok := kindWords[k]; ok {
		return w.name
	}
	return component.Visible(string(k))
}

func kindIcon(k controlbus.CommandKind) string {
	if w, ok := kindWords[k]; ok {
		return w.icon
	}
	return "control"
}

// amount is how many messages fall under a command, as far as was known when
// it was previewed.
func amount(p *controlbus.Preview) string {
	switch {
	case p == nil || p.Count < 0:
		return "messages"
	case p.AtLeast:
		return component.Count(p.Count) + " or more messages"
	}
	return component.Plural(p.Count, "message")
}

// title says what a command does to what: verb, count, channel.
func title(s *controlbus.CommandSpec) string {
	ch, n := component.Visible(s.Target.Channel.Name), amount(s.Preview)
	to := ""
	if s.Destination != nil {
		to = " to " + component.Visible(s.Destination.Name)
	}
	switch s.Kind {
	case controlbus.CommandPurge:
		return "Purge " + n + " from " + ch
	case controlbus.CommandDiscard:
		return "Discard " + n + " from " + ch
	case controlbus.CommandRedrive:
		return "Redrive " + n + " from " + ch + to
	case controlbus.CommandReplay:
		if s.UndoOf != "" {
			return "Put " + n + " back into " + ch
		}
		return "Replay " + n + " to " + ch
	case controlbus.CommandTest:
		return "Send a test message to " + ch
	case controlbus.CommandPause:
		return "Pause the consumers of " + ch + " for " + component.Span(rawArgs[controlbus.PauseArgs](s.Args).For)
	case controlbus.CommandResume:
		return "Resume the consumers of " + ch
	case controlbus.CommandDetour:
		return "Detour " + ch + " for " + component.Span(rawArgs[controlbus.Detour](s.Args).For)
	case controlbus.CommandUndetour:
		return "End the detour of " + ch
	case controlbus.CommandTap:
		return "Tap " + ch
	case controlbus.CommandUntap:
		return "End the tap of " + ch
	}
	return KindWord(s.Kind) + " " + ch
}

// short is a title where the channel stands beside it.
func short(s *controlbus.CommandSpec) string {
	if s.Kind == controlbus.CommandReplay && s.UndoOf != "" {
		return "Put back"
	}
	return KindWord(s.Kind)
}

// inEnv is the environment as the end of a sentence.
func inEnv(env string) string {
	if env == "" {
		return ""
	}
	return " in " + component.Visible(env)
}

// StateOf is a command's state with its mark.
func StateOf(c *controlbus.Command) component.State {
	word := func(k component.Kind, w string) component.State { return component.State{Kind: k, Word: w} }
	switch c.State {
	case controlbus.CommandAwaitingApproval:
		return word(component.Person, "needs approval")
	case controlbus.CommandRequested, controlbus.CommandApproved, controlbus.CommandQueued:
		return word(component.Held, "waits for the agent")
	case controlbus.CommandDispatched:
		return word(component.Running, "sent")
	case controlbus.CommandAccepted:
		return word(component.Running, "taken up")
	case controlbus.CommandRunning:
		switch j := c.Progress.Job; {
		case c.CancelAsked != nil:
			return word(component.Held, "stopping")
		case j != nil && j.Paused:
			return word(component.Held, "paused")
		case j != nil && j.Settling:
			return word(component.Running, "watching step "+fmt.Sprint(j.Step))
		}
		return word(component.Running, "running")
	case controlbus.CommandUnconfirmed:
		return word(component.Doubt, "unconfirmed, agent offline")
	case controlbus.CommandRefused:
		return word(component.Failed, "refused")
	case controlbus.CommandExpired:
		return word(component.Off, "expired")
	case controlbus.CommandRejected:
		return word(component.Failed, "refused by the agent")
	case controlbus.CommandSucceeded:
		if c.UndoneBy != "" {
			return word(component.Off, "done, undone since")
		}
		return word(component.Done, "done")
	case controlbus.CommandFailed:
		return word(component.Failed, "failed")
	case controlbus.CommandPartial:
		return word(component.Caution, "done in part")
	case controlbus.CommandCancelled:
		return word(component.Off, "cancelled")
	case controlbus.CommandIndeterminate:
		return word(component.Doubt, "unknown how it ended")
	}
	return word(component.Doubt, component.Visible(string(c.State)))
}

// explained is what a state means and what is to be done about it.
func explained(c *controlbus.Command, now time.Time) (means, todo string) {
	agent := component.Visible(c.Target.Agent)
	detail := sentence(c.Detail)
	again := "It is not sent again by itself."
	if c.Class != controlbus.EffectDestructive {
		again = "It goes on by itself once the agent is back."
	}
	switch c.State {
	case controlbus.CommandAwaitingApproval:
		return "Nothing happens until somebody else with the right to approve has looked at the same preview and agreed.", ""
	case controlbus.CommandRequested, controlbus.CommandApproved, controlbus.CommandQueued:
		left := c.Deadline().Sub(now)
		if left < 0 {
			left = 0
		}
		return "It is in the ledger and goes out as soon as agent " + agent + " is there. After " + component.Span(left.Round(time.Second)) + " more it expires, and nothing was done.", ""
	case controlbus.CommandDispatched:
		return "It was sent to agent " + agent + ", which has not answered yet.", ""
	case controlbus.CommandAccepted:
		return "Agent " + agent + " has it in its journal and begins.", ""
	case controlbus.CommandRunning:
		if c.CancelAsked != nil {
			return "Agent " + agent + " was asked to stop and ends at the next safe point. What is done stays done.", ""
		}
		return "Agent " + agent + " works on it. It goes on without this page.", ""
	case controlbus.CommandUnconfirmed:
		return "Agent " + agent + " has not been heard since this was sent to it. It may be done, done in part, or not begun: nobody knows until the agent answers. " + again,
			"Get the agent back: its journal has the answer, and this page then changes by itself. If it never comes back, give up waiting; that frees the channel for other commands and records that the end is unknown."
	case controlbus.CommandIndeterminate:
		return "The agent was lost or stopped in the middle of it. Some, all or nothing was done, and nobody can tell which. It is not repeated by itself. " + detail,
			"Look at what waits in the channel now and at the messages below, then ask for a new command for what is left. Should the agent still tell how it ended, that replaces this."
	case controlbus.CommandRefused:
		return "Somebody said no. Nothing was done. " + detail, ""
	case controlbus.CommandExpired:
		return "Nobody agreed, or no agent came, in time. Nothing was done. " + detail, ""
	case controlbus.CommandRejected:
		return "The agent found something else than was agreed, or may not do it. Nothing was done. " + detail, "Take a new preview: it shows how things are now."
	case controlbus.CommandSucceeded:
		return detail, ""
	case controlbus.CommandFailed:
		return "Nothing was done. " + detail, ""
	case controlbus.CommandPartial:
		return "The counts say how much was done; the rest was left as it was. " + detail, ""
	case controlbus.CommandCancelled:
		return "It was ended before anything was done. " + detail, ""
	}
	return detail, ""
}

// sentence is a detail as a sentence of its own.
func sentence(s string) string {
	s = strings.TrimSpace(component.Visible(s))
	if s == "" {
		return ""
	}
	if c := s[0]; c >= 'a' && c <= 'z' {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "!") && !strings.HasSuffix(s, "?") {
		s += "."
	}
	return s
}

// effect is what became of a command so far, in a table cell.
func effect(c *controlbus.Command) string {
	counts, total := c.Progress.Counts, c.Progress.Total
	if c.Result != nil {
		counts = c.Result.Counts
	} else if c.State == controlbus.CommandRunning || c.State == controlbus.CommandUnconfirmed {
		if total < 0 {
			return component.Count(counts.Done) + " so far" + failedToo(counts)
		}
		if total > 0 {
			return component.Count(counts.Done) + " of " + component.Count(total) + failedToo(counts)
		}
	}
	switch {
	case c.State == controlbus.CommandRejected, c.State == controlbus.CommandFailed, c.State == controlbus.CommandRefused:
		return strings.TrimSuffix(sentence(c.Detail), ".")
	case counts != (controlbus.Counts{}):
		if counts.Matched > counts.Done {
			return component.Count(counts.Done) + " of " + component.Count(counts.Matched) + failedToo(counts)
		}
		return component.Count(counts.Done) + failedToo(counts)
	case c.State == controlbus.CommandIndeterminate, c.State == controlbus.CommandUnconfirmed:
		return "not known"
	}
	if p := c.Preview; p != nil && p.Count > 0 && !c.State.Terminal() {
		return component.Count(p.Count)
	}
	return ""
}

func failedToo(n controlbus.Counts) string {
	out := ""
	if n.Failed > 0 {
		out += ", " + component.Count(n.Failed) + " failed"
	}
	if n.Skipped > 0 {
		out += ", " + component.Count(n.Skipped) + " left alone"
	}
	return out
}

// eventWords say what happened, as the end of "<who> …".
var eventWords = map[ledger.EventType]string{
	ledger.EventRequested: "asked for it", ledger.EventAwaiting: "holds it until a second person agrees", ledger.EventApproved: "agreed",
	ledger.EventRefused: "refused it", ledger.EventQueued: "put it into the agent's queue", ledger.EventDispatched: "sent it to the agent",
	ledger.EventAccepted: "took it up", ledger.EventProgress: "reported progress", ledger.EventResult: "ended it",
	ledger.EventControl: "changed the pace", ledger.EventCancelAsked: "asked to stop it", ledger.EventCancelled: "cancelled it", ledger.EventExpired: "let it expire",
	ledger.EventUnconfirmed: "lost the agent", ledger.EventAbandoned: "gave up waiting", ledger.EventUndone: "saw its effect taken back",
}

func eventMark(e *ledger.Event) component.Kind {
	switch e.Type {
	case ledger.EventAwaiting:
		return component.Person
	case ledger.EventApproved, ledger.EventAccepted:
		return component.Clear
	case ledger.EventRefused:
		return component.Failed
	case ledger.EventCancelAsked, ledger.EventCancelled, ledger.EventExpired:
		return component.Off
	case ledger.EventUnconfirmed, ledger.EventAbandoned:
		return component.Doubt
	case ledger.EventResult:
		if e.Result != nil {
			switch e.Result.Outcome {
			case controlbus.CommandSucceeded:
				return component.Done
			case controlbus.CommandPartial:
				return component.Caution
			case controlbus.CommandCancelled:
				return component.Off
			case controlbus.CommandIndeterminate:
				return component.Doubt
			}
		}
		return component.Failed
	}
	return component.Running
}

// reversible is whether and how a command can be taken back.
func reversible(p *controlbus.Preview) (component.State, string) {
	s := component.State{Kind: component.Stop, Word: "cannot be undone"}
	switch p.Reversible {
	case controlbus.ReversibleYes:
		s = component.State{Kind: component.DoneAgain, Word: "can be undone"}
	case controlbus.ReversiblePartly:
		s = component.State{Kind: component.Caution, Word: "can be undone in part"}
	}
	return s, sentence(p.Undo)
}

// outcomeState is what became of one message.
func outcomeState(word string) component.State {
	switch word {
	case "sent":
		return component.State{Kind: component.Done, Word: "sent"}
	case "removed":
		return component.State{Kind: component.Done, Word: "removed"}
	case "returned":
		return component.State{Kind: component.DoneAgain, Word: "given back"}
	case "skipped":
		return component.State{Kind: component.Off, Word: "left alone"}
	case "failed":
		return component.State{Kind: component.Failed, Word: "failed"}
	}
	return component.State{Kind: component.Doubt, Word: component.Visible(word)}
}
