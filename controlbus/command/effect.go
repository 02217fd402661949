package command

import (
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// effect is one sentence: what will happen. Names are data: whoever shows the
// sentence escapes it.
func effect(a *asked, to reach, p *controlbus.Preview) string {
	where := fmt.Sprintf("%s on %s in %s", a.Channel, a.Broker, a.Env)
	n := count(p)
	matching := ""
	if !a.filter.Empty() {
		matching = ", those that match " + a.filter.String()
	}
	switch a.Kind {
	case controlbus.CommandPurge:
		if args := a.args.(controlbus.PurgeArgs); args.NoBackup {
			return fmt.Sprintf("Removes %s from %s%s, without keeping a copy.", n, where, matching)
		}
		return fmt.Sprintf("Removes %s from %s%s; agent %s keeps a copy.", n, where, matching, to.agent.ID)
	case controlbus.CommandDiscard:
		return fmt.Sprintf("Removes %s from the dead-letter channel %s%s; agent %s keeps a copy.", n, where, matching, to.agent.ID)
	case controlbus.CommandRedrive:
		dest := "the channels they died in"
		if d := a.Destination; d != nil {
			dest = fmt.Sprintf("%s on %s", d.Name, d.Broker)
		}
		return fmt.Sprintf("Moves %s from %s%s to %s%s.", n, where, matching, dest, pace(a.args.(controlbus.RedriveArgs).Job))
	case controlbus.CommandReplay:
		job := pace(a.args.(controlbus.ReplayArgs).Job)
		if a.UndoOf != "" {
			return fmt.Sprintf("Sends %s that command %s removed back to %s%s, from the copy that agent %s kept.", n, short(a.UndoOf), where, job, to.agent.ID)
		}
		return fmt.Sprintf("Sends copies of %s from the message store to %s%s.", n, where, job)
	case controlbus.CommandTest:
		return fmt.Sprintf("Sends 1 test message to %s.", where)
	case controlbus.CommandPeek:
		return fmt.Sprintf("Shows messages that wait in %s, leaving them there.", where)
	case controlbus.CommandDetour:
		d := a.args.(controlbus.Detour)
		var steps []string
		for _, st := range d.Steps {
			steps = append(steps, st.Name())
		}
		return fmt.Sprintf("Leads the messages of %s%s through %s, for %s.", where, matching, strings.Join(steps, ", "), span(d.For))
	case controlbus.CommandUndetour:
		return fmt.Sprintf("Ends detour %s of %s, after what is in its backlog has been worked off%s.", a.args.(controlbus.UndetourArgs).ID, where, backlog(p))
	case controlbus.CommandPause:
		args := a.args.(controlbus.PauseArgs)
		who := "all consumers"
		if args.Consumer != "" {
			who = "consumer " + args.Consumer
		}
		return fmt.Sprintf("Stops %s of %s for %s; messages wait meanwhile.", who, where, span(args.For))
	case controlbus.CommandResume:
		return fmt.Sprintf("Lets the consumers of %s go on.", where)
	case controlbus.CommandTap:
		return fmt.Sprintf("Copies the messages that pass %s to the message store, for %s.", where, span(lease(a.args.(controlbus.TapArgs))))
	case controlbus.CommandUntap:
		return fmt.Sprintf("Ends the tap on %s; what was copied stays stored.", where)
	}
	return fmt.Sprintf("Carries out %s on %s.", a.Kind, where)
}

func backlog(p *controlbus.Preview) string {
	if p.Count <= 0 {
		return ""
	}
	return " (" + count(p) + ")"
}

// pace is how fast and in which steps a job sends.
func pace(o controlbus.JobOptions) string {
	out := ""
	if o.Max > 0 {
		out += fmt.Sprintf(", at most %s", number(o.Max))
	}
	if o.Rate > 0 {
		out += fmt.Sprintf(", at %g messages/s", o.Rate)
	}
	if len(o.Ramp) > 0 {
		var steps []string
		for _, n := range o.Ramp {
			steps = append(steps, number(n))
		}
		out += ", first " + strings.Join(steps, ", then ")
	}
	return out
}

// span writes a time as people say it: 15m, 1h30m, 2 days.
func span(d time.Duration) string {
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	text := d.Round(time.Second).String()
	text = strings.TrimSuffix(text, "0s")
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	if text == "" {
		return d.String()
	}
	return text
}

// short is a command's ID as people can tell it from others.
func short(id controlbus.CommandID) string {
	if len(id) > 12 {
		return string(id[:12])
	}
	return string(id)
}
