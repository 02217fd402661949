package main

import (
	"fmt"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

// facts writes names with what is known of them, and leaves out what is not.
func (t *terminal) facts(rows ...string) {
	for i := 0; i+1 < len(rows); i += 2 {
		if text := rows[i+1]; text != "" {
			fmt.Fprintf(t.out, "  %-12s%s\n", rows[i], component.Visible(text))
		}
	}
}

func (t *terminal) title(kind, broker, channel, env, agent string) {
	fmt.Fprintf(t.out, "%s %s in %s, by agent %s\n", component.Visible(kind), component.Visible(broker+"/"+channel), component.Visible(env), component.Visible(agent))
}

func (t *terminal) showDraft(d *api.Draft) {
	t.title(d.Kind, d.Broker, d.Channel, d.Env, d.Agent)
	t.showPreview(&d.Preview)
	switch d.Policy {
	case string(controlbus.ApproveByName):
		t.facts("consent", "the channel's name is to be typed")
	case string(controlbus.ApproveSecond):
		t.facts("consent", "a second person has to approve it")
	}
}

func (t *terminal) showPreview(p *api.Preview) {
	count := "nobody can tell how many"
	if p.Count != nil {
		count = component.Plural(*p.Count, "message")
		if p.AtLeast {
			count = "at least " + count
		}
		if !p.Oldest.IsZero() {
			count += ", from " + local(p.Oldest.Time)
			if !p.Newest.IsZero() {
				count += " to " + local(p.Newest.Time)
			}
		}
	}
	to := ""
	if d := p.Destination; d != nil {
		to = d.Broker + "/" + d.Channel
		if d.Env != "" && d.Env != p.Env {
			to += " in " + d.Env
		}
	}
	undo := p.Reversible
	if p.Undo != "" {
		undo += ": " + p.Undo
	}
	t.facts("effect", p.Effect, "messages", count, "destination", to, "reversible", undo, "technique", p.Technique)
	for _, s := range p.Impact {
		t.facts("mind", s)
	}
	t.facts("needs", strings.Join(p.Needs, ", "))
	if len(p.Samples) == 0 {
		return
	}
	tb := t.table("  TIME", "ID", "#SIZE", "ERROR", "TEXT")
	for _, s := range p.Samples {
		id := s.MessageID
		if id == "" {
			id = s.Position
		}
		tb.add("  "+local(s.At.Time), id, component.Size(s.Size), s.ErrorType, cutText(component.Visible(s.Excerpt), 80))
	}
	tb.flush()
}

// stateOf is a command's state in a colour.
func stateOf(c *api.Command) painted {
	p := painted{controlbus.CommandState(c.State).Title(), unset}
	switch controlbus.CommandState(c.State) {
	case controlbus.CommandSucceeded:
		p.in = green
	case controlbus.CommandFailed, controlbus.CommandRejected, controlbus.CommandIndeterminate, controlbus.CommandRefused:
		p.in = red
	case controlbus.CommandPartial, controlbus.CommandUnconfirmed, controlbus.CommandAwaitingApproval, controlbus.CommandExpired:
		p.in = yellow
	}
	return p
}

func countsText(n api.Counts) string {
	return fmt.Sprintf("%s of %s done, %s failed, %s skipped", component.Count(n.Done), component.Count(n.Matched), component.Count(n.Failed), component.Count(n.Skipped))
}

// showCommand writes what is to be known of a command.
func (t *terminal) showCommand(c *api.Command) {
	t.title(c.Kind, c.Broker, c.Channel, c.Env, c.Agent)
	state := controlbus.CommandState(c.State).Title()
	if c.Detail != "" {
		state += ": " + c.Detail
	}
	to := ""
	if d := c.Destination; d != nil {
		to = d.Broker + "/" + d.Channel
	}
	t.facts("command", c.ID, "state", state+" ("+local(c.StateAt.Time)+")", "destination", to, "reason", c.Reason, "requested", c.RequestedBy.Name+", "+local(c.RequestedAt.Time))
	if c.ApprovedBy != nil {
		t.facts("approved", c.ApprovedBy.Name+", "+local(c.ApprovedAt.Time))
	}
	if c.CancelAskedBy != nil {
		t.facts("cancel", "asked for by "+c.CancelAskedBy.Name+", "+local(c.CancelAskedAt.Time)+" "+c.CancelReason)
	}
	if c.Progress != nil && !c.Ended {
		t.facts("progress", progressText(c))
	}
	if c.Result != nil && c.Result.Counts != (api.Counts{}) {
		t.facts("result", countsText(c.Result.Counts))
	}
	if r := c.LateResult; r != nil {
		t.facts("late result", r.Outcome+": "+countsText(r.Counts)+". "+r.Detail)
	}
	if args, ok := c.Args.(map[string]any); ok && c.Kind == string(controlbus.CommandTest) {
		if run, ok := args["run"].(string); ok {
			t.facts("mark", controlbus.HeaderTest+": "+run, "follow it", "signalbox search 'header."+controlbus.HeaderTest+" = \""+run+"\"' --env "+c.Env)
		}
	}
	t.facts("undoes", c.UndoOf, "undone by", c.UndoneBy)
	if c.UndoneWith != "" {
		t.facts("undo", "signalbox commands undo "+c.ID)
	}
}

// progressText is one line of how far a command has come.
func progressText(c *api.Command) string {
	state := controlbus.CommandState(c.State).Title()
	p := c.Progress
	if p == nil {
		if c.Detail != "" {
			return state + ": " + c.Detail
		}
		return state
	}
	parts := []string{component.Count(p.Done)}
	if p.Total != nil {
		parts[0] += "/" + component.Count(*p.Total)
		if *p.Total > 0 {
			parts[0] += fmt.Sprintf(" (%d %%)", min(100, (p.Done+p.Failed+p.Skipped)*100 / *p.Total))
		}
	}
	if p.Failed > 0 {
		parts = append(parts, component.Count(p.Failed)+" failed")
	}
	if p.Skipped > 0 {
		parts = append(parts, component.Count(p.Skipped)+" skipped")
	}
	if j := p.Job; j != nil {
		switch {
		case j.Paused:
			parts = append(parts, "paused")
		case j.Settling:
			parts = append(parts, "looks what became of them")
		default:
			parts = append(parts, component.Rate(j.Rate)+" messages/s")
		}
		if j.Refailed > 0 {
			parts = append(parts, component.Plural(j.Refailed, "dead letter")+" arrived since")
		}
	}
	if s := p.RemainingSeconds; s != nil && *s < 1e7 {
		parts = append(parts, "about "+component.Span(seconds(*s))+" left")
	}
	if p.Note != "" && (p.RemainingSeconds == nil || !strings.HasSuffix(p.Note, " left")) { // else the agent's own estimate, a little older
		parts = append(parts, p.Note)
	}
	return state + "  " + strings.Join(parts, "  ")
}
