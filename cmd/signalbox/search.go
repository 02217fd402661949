package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var searchCommand = command{name: "search", summary: "search the message store", run: func(ctx context.Context, args []string) error { return newTerminal().search(ctx, args) }}

// pageSize is what one request asks for at most.
const pageSize = 1000

func (t *terminal) search(ctx context.Context, args []string) error {
	flags := t.verb("search", "['FILTER'] [flags]", `
Searches the message store as the page Messages does; the broker is not touched. The filter is that of the search box, in quotes for the shell:

  signalbox search 'timeout channel:orders.* failed:true' --since 1h
  signalbox search 'correlation:ORD-7731904' -o ndjson | jq .channel

Newest first, 100 messages unless --limit or --all say otherwise. What was looked at, and why the search stopped, goes to standard error.`)
	at := consoleFlag(flags)
	env := flags.String("env", "", "`environment`; all of them without it")
	within := addRange(flags, "1h")
	order := flags.String("order", "newest", "newest or oldest first")
	limit := flags.Int("limit", 100, "messages at most")
	var all bool
	flags.BoolVar(&all, "all", false, "follow the pages to the end of the range, or to --limit where it is given")
	flags.BoolVar(&all, "follow-pages", false, "the same as --all")
	cursor := flags.String("cursor", "", "go on where an earlier search with the same flags stopped")
	failEmpty := flags.Bool("fail-empty", false, "end with 3 when nothing matched")
	out := t.output(flags, "table", "json", "ndjson", "csv")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	if *limit < 1 {
		return fmt.Errorf("%w: --limit %d: want a positive number", errUsage, *limit)
	}
	left := *limit
	if all && !flags.given("limit") {
		left = int(^uint(0) >> 1)
	}
	q := url.Values{}
	// Words that the shell took apart belong together again.
	text := strings.Join(rest, " ")
	if strings.Contains(text, "now") { // means the same on every page
		q.Set("now", time.Now().UTC().Format(time.RFC3339Nano))
	}
	set(q, "q", text, "env", *env, "order", *order, "cursor", *cursor)
	if err := within.fill(q); err != nil {
		return err
	}
	if out.value == "table" {
		q.Set("snippets", "true")
	}
	c, err := t.connect(*at)
	if err != nil {
		return err
	}

	w := t.messageWriter(out.value, *env == "")
	found, scan := 0, api.Scan{}
	next := *cursor
	for {
		q.Set("limit", fmt.Sprint(min(left, pageSize)))
		var page api.Messages
		if _, err := c.get(ctx, "/messages", q, &page); err != nil {
			if found > 0 {
				err = fmt.Errorf("after %d messages: %w", found, err)
			}
			return errors.Join(w.flush(), err)
		}
		// "The last hour" of a later page would be another one.
		q.Del("range")
		q.Set("from", page.Scan.From.UTC().Format(time.RFC3339Nano))
		q.Set("to", page.Scan.To.UTC().Format(time.RFC3339Nano))
		found += len(page.Messages)
		left -= len(page.Messages)
		scan.Rows, scan.Bytes, scan.ElapsedMs = scan.Rows+page.Scan.Rows, scan.Bytes+page.Scan.Bytes, scan.ElapsedMs+page.Scan.ElapsedMs
		scan.From, scan.To, scan.Reached, scan.Stopped = page.Scan.From, page.Scan.To, page.Scan.Reached, page.Scan.Stopped
		if err := w.write(page.Messages); err != nil {
			return err
		}
		stuck := page.Next == next && len(page.Messages) == 0
		next = page.Next
		if next == "" || left <= 0 || !all || stuck {
			break
		}
		q.Set("cursor", next)
	}
	w.end(api.Messages{Next: next, Scan: scan})
	if err := w.flush(); err != nil {
		return err
	}
	t.note("%s", scanLine(found, scan, next))
	if found == 0 && *failEmpty {
		return exit{exitNothing, errors.New("nothing matched")}
	}
	return nil
}

// scanLine says what was looked at and why it stopped.
func scanLine(found int, s api.Scan, next string) string {
	line := fmt.Sprintf("%s. Looked at %s (%s) in %s", component.Plural(found, "message"), component.Plural(s.Rows, "row"), component.Size(int64(s.Bytes)),
		component.Span(time.Duration(s.ElapsedMs*float64(time.Millisecond)).Round(time.Millisecond)))
	switch {
	case next == "":
		return line + ", the whole range."
	case s.Stopped == "deadline":
		line += ", stopped at the time budget"
	default:
		line += ", stopped at the limit"
	}
	return line + " at " + local(s.Reached.Time) + ". More: --all, or --cursor " + component.Visible(next)
}

// messageWriter writes messages page by page.
type messageWriter struct {
	t      *terminal
	format string
	table  *table
	env    bool // show the environment
	text   int  // how wide the text may be
	csv    *csv.Writer
	buf    *strings.Builder
	all    api.Messages
}

func (t *terminal) messageWriter(format string, env bool) *messageWriter {
	w := &messageWriter{t: t, format: format, env: env, text: 200}
	switch format {
	case "table":
		if width, _, err := term.GetSize(int(os.Stdout.Fd())); t.tty && err == nil {
			w.text = max(20, width-110)
		}
		heads := []string{"TIME", "CHANNEL", "STATE", "#SIZE", "UID", "TEXT"}
		if env {
			heads = append([]string{"ENV"}, heads...)
		}
		w.table = t.table(heads...)
	case "csv":
		w.buf = new(strings.Builder)
		w.csv = csv.NewWriter(w.buf)
		_ = w.csv.Write(api.Columns()) // into memory
	}
	return w
}

func (w *messageWriter) write(page []api.Message) error {
	switch w.format {
	case "json":
		w.all.Messages = append(w.all.Messages, page...)
	case "ndjson":
		for i := range page {
			raw, err := marshal(page[i])
			if err != nil {
				return err
			}
			w.t.json(raw)
		}
	case "csv":
		for i := range page {
			_ = w.csv.Write(page[i].Cells())
		}
		w.csv.Flush()
		w.t.text(w.buf.String())
		w.buf.Reset()
	default:
		for i := range page {
			m := &page[i]
			row := []any{local(m.Time.Time), m.Channel, outcome(m), component.Size(m.BodySize), m.UID, cutText(component.Visible(m.Snippet), w.text)}
			if w.env {
				row = append([]any{m.Env}, row...)
			}
			w.table.add(row...)
		}
		w.table.flush()
	}
	return nil
}

// end takes what JSON has beside the messages.
func (w *messageWriter) end(page api.Messages) { w.all.Next, w.all.Scan = page.Next, page.Scan }

func (w *messageWriter) flush() error {
	switch w.format {
	case "json":
		if w.all.Messages == nil {
			w.all.Messages = []api.Message{}
		}
		raw, err := marshal(w.all)
		if err != nil {
			return err
		}
		w.t.json(raw)
	case "csv":
		w.csv.Flush()
		w.t.text(w.buf.String())
		w.buf.Reset()
	}
	return nil
}

func marshal(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return []byte(b.String()), err
}

// outcome is how an observation ended, in a colour.
func outcome(m *api.Message) painted {
	switch m.Outcome {
	case "failed", "dead_lettered":
		return painted{strings.ReplaceAll(m.Outcome, "_", "-"), red}
	case "retried":
		return painted{"failed, retried", yellow}
	case "ok":
		if m.Operation == "process" || m.Operation == "settle" {
			return painted{m.Operation, green}
		}
		return painted{m.Operation, unset}
	}
	return painted{m.Outcome, yellow}
}

func cutText(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}
