package commands

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// What other pages show of the control bus. Each is nil where there is nothing
// to show.

// stripView is what runs and waits, in lines.
type stripView struct {
	Wait []waitView
	Jobs []jobView
	More string
}

const stripLines = 4

// Strip is what runs and what waits for whoever asks, for the overview. Waiting
// approvals are of all environments: nobody should miss one for looking at
// another.
func Strip(ctx context.Context, v *page.View, l Ledger) templ.Component {
	open, err := l.Commands(ctx, ledger.Query{Open: true, Limit: 200, People: true})
	if err != nil {
		return nil // the page Control bus says what is wrong
	}
	id, _ := access.From(ctx)
	var m stripView
	left := 0
	for i := range open {
		c := &open[i]
		switch {
		case c.State == controlbus.CommandAwaitingApproval:
			if w := waiter(v, id, c); !w.Mine && w.Why == "" {
				m.Wait = append(m.Wait, w)
			}
		case v.Env != "" && c.Target.Channel.Env != v.Env:
		case len(m.Jobs) < stripLines:
			m.Jobs = append(m.Jobs, Job(v, id, c))
		default:
			left++
		}
	}
	if n := len(m.Wait); n > stripLines {
		left += n - stripLines
		m.Wait = m.Wait[:stripLines]
	}
	if len(m.Wait)+len(m.Jobs) == 0 {
		return nil
	}
	if left > 0 {
		m.More = component.Count(left) + " more"
	}
	return strip(m)
}

// Recent is a panel of the newest commands on a channel.
func Recent(ctx context.Context, v *page.View, l Ledger, ch controlbus.ChannelName) templ.Component {
	all, err := l.Commands(ctx, ledger.Query{Env: ch.Env, Broker: ch.Broker, Channel: ch.Name, Limit: 100, People: true})
	if err != nil {
		return nil
	}
	// A * in a channel's name is that star here, and no pattern.
	all = slices.DeleteFunc(all, func(c controlbus.Command) bool { return c.Target.Channel.Name != ch.Name })
	if len(all) == 0 {
		return nil
	}
	id, _ := access.From(ctx)
	var rows []rowView
	for i := range all[:min(len(all), 5)] {
		rows = append(rows, row(v, id, &all[i]))
	}
	return recent(rows, v.URL("/control", "env", ch.Env, "q", ch.Name, "broker", ch.Broker))
}

// doneView is what one command did with a message.
type doneView struct {
	State           component.State
	At              time.Time
	Title, URL, By  string
	Detail, Outcome string
	CommandState    component.State
}

// Historian is what a message's page asks about commands.
type Historian interface {
	Surveyor
	Witness
	Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error)
}

// maxDone bounds what is told of one message.
const maxDone = 20

// Done is what commands did with a stored message; nil where none did anything.
// A store that does not answer is said so.
func Done(ctx context.Context, h Historian, uid, messageID string, since, now time.Time) templ.Component {
	within := storage.TimeRange{From: since.Add(-time.Hour), To: now.Add(time.Minute)}
	if within.Duration() > 400*24*time.Hour {
		within.From = within.To.Add(-400 * 24 * time.Hour)
	}
	if !within.From.Before(within.To) {
		return nil
	}
	found, err := h.OutcomesOf(ctx, uid, messageID, within)
	if err != nil {
		text, _ := reason(err)
		return done(nil, text, "")
	}
	if len(found) == 0 {
		return nil
	}
	slices.SortStableFunc(found, func(a, b command.Outcome) int { return b.At.Compare(a.At) })
	more := ""
	if len(found) > maxDone {
		more = "the newest " + fmt.Sprint(maxDone) + " of " + component.Count(len(found))
		found = found[:maxDone]
	}
	known := map[controlbus.CommandID]*controlbus.Command{}
	var rows []doneView
	for i := range found {
		o := &found[i]
		c, asked := known[o.Command]
		if !asked {
			if one, err := h.Command(ctx, o.Command); err == nil {
				c = &one
			}
			known[o.Command] = c
		}
		r := doneView{State: outcomeState(o.Outcome), At: o.At, Detail: sentence(o.Detail), Outcome: pastWord(o), By: "a command you may not see"}
		if c != nil {
			r.By, r.Title, r.URL, r.CommandState = component.Visible(c.RequestedBy.Name), title(&c.CommandSpec), URL(c.ID), StateOf(c)
		}
		rows = append(rows, r)
	}
	return done(rows, "", more)
}

// pastWord is what was done with a message.
func pastWord(o *command.Outcome) string {
	verb := map[controlbus.CommandKind]string{
		controlbus.CommandReplay: "Replayed", controlbus.CommandRedrive: "Redriven", controlbus.CommandPurge: "Purged", controlbus.CommandDiscard: "Discarded", controlbus.CommandTest: "Sent as a test",
	}[o.Kind]
	if verb == "" {
		verb = KindWord(o.Kind)
	}
	switch o.Outcome {
	case "failed":
		return verb + ", which failed,"
	case "skipped":
		return "Left alone"
	case "returned":
		return "Given back"
	}
	if o.Destination != "" {
		return verb + " to " + component.Visible(o.Destination)
	}
	return verb
}
