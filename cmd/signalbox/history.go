package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var historyCommand = command{name: "history", summary: "show what happened to a message and its conversation", run: func(ctx context.Context, args []string) error { return newTerminal().history(ctx, args) }}

func (t *terminal) history(ctx context.Context, args []string) error {
	flags := t.verb("history", "MESSAGE-UID | --id ID | --correlation ID | --trace ID [flags]", `
Shows every message, span and log of a conversation, causes before effects. The uid is the one search shows; the ids are the producer's own.
With a uid a day before and after the message is looked at; with an id the last 24 hours, unless the range says otherwise.`)
	at := consoleFlag(flags)
	id := flags.String("id", "", "message `id`")
	correlation := flags.String("correlation", "", "correlation `id`")
	trace := flags.String("trace", "", "trace `id`, 32 hexadecimal digits")
	within := addRange(flags, "24h")
	limit := flags.Int("limit", 500, "events at most")
	out := t.output(flags, "table", "json", "ndjson")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	byID := *id != "" || *correlation != "" || *trace != ""
	q := url.Values{}
	set(q, "message_id", *id, "correlation_id", *correlation, "trace_id", *trace)
	q.Set("limit", fmt.Sprint(*limit))
	path := "/history"
	switch {
	case len(rest) > 1, len(rest) == 1 && byID, len(rest) == 0 && !byID:
		return fmt.Errorf("%w: want one uid, or one of --id, --correlation and --trace", errUsage)
	case len(rest) == 1:
		if *within.since+*within.from+*within.to != "" {
			return fmt.Errorf("%w: with a uid the range is a day before and after the message", errUsage)
		}
		path = "/messages/" + url.PathEscape(rest[0]) + "/history"
	}
	if err := within.fill(q); err != nil {
		return err
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	var h api.History
	raw, err := c.get(ctx, path, q, &h)
	if err != nil {
		return err
	}
	switch out.value {
	case "json":
		t.json(raw)
	case "ndjson":
		for i := range h.Events {
			line, err := marshal(h.Events[i])
			if err != nil {
				return err
			}
			t.json(line)
		}
	default:
		t.showHistory(h)
	}
	if h.Truncated {
		t.note("There is more than was shown: the search stopped by %s.", component.Visible(h.Scan.Stopped))
	}
	if len(h.Events) == 0 {
		return exit{exitNothing, fmt.Errorf("nothing is known of it from %s to %s", local(h.Scan.From.Time), local(h.Scan.To.Time))}
	}
	return nil
}

func (t *terminal) showHistory(h api.History) {
	tb := t.table("TIME", "#AFTER", "WHAT", "WHERE", "STATE", "SERVICE", "TEXT")
	for i := range h.Events {
		e := &h.Events[i]
		after := e.At.Sub(h.Events[0].At.Time)
		since := painted{component.Span(after.Round(time.Microsecond)), dim}
		switch {
		case e.Message != nil:
			m := e.Message
			text := m.UID
			if m.ErrorType != "" {
				text += "  " + m.ErrorType
			}
			if m.Delivery > 1 {
				text += fmt.Sprintf("  delivery %d", m.Delivery)
			}
			tb.add(local(e.At.Time), since, painted{"message", bold}, m.Broker+"/"+m.Channel, outcome(m), m.Service, text)
		case e.Span != nil:
			s := e.Span
			st := painted{}
			if s.Status == "error" {
				st = painted{s.Status, red}
			}
			tb.add(local(e.At.Time), since, "span", s.Channel, st, s.Service, s.Name)
		case e.Log != nil:
			l := e.Log
			st := painted{severity(l.Severity), unset}
			if l.Severity >= 17 {
				st.in = red
			}
			tb.add(local(e.At.Time), since, "log", l.Channel, st, l.Service, cutText(component.Visible(l.Body), 200))
		}
	}
	tb.flush()
}

// severity is the short name of an OpenTelemetry severity number.
func severity(n uint8) string {
	if n == 0 || n > 24 {
		return ""
	}
	return []string{"trace", "debug", "info", "warn", "error", "fatal"}[(n-1)/4]
}
