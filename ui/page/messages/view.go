package messages

import (
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Row is one message event in a list.
type Row struct {
	URL, Channel, ChannelURL, System string
	Key                              string // routing key or subject, where it says more than the channel
	At                               time.Time
	State                            component.State
	ID, FullID                       string
	Delivery, Size                   string
	Before, Hit, After               string // of the body
	GapBefore                        string
}

type listView struct {
	Rows         []Row
	Reads, Wrong string
	Live         bool
	LiveURL      string
	Oldest, More bool
	FlipURL      string
	FirstURL     string
	NextURL      string
	Scan         *ScanView
	Empty        *component.Empty
	Down         string
}

// ScanView is what a search looked at, in words.
type ScanView struct {
	State              component.State
	Text               string
	Caution            bool
	Continue           string // URL
	SeenFrom, SeenSpan string // of 100, for the bar
}

func (m *listView) build(v *page.View, q storage.MessageQuery, found storage.MessagePage, err error) {
	m.LiveURL = v.URL("/live", "q", v.Query)
	m.FirstURL = v.With()
	m.FlipURL = v.With("order", map[bool]string{true: "", false: "oldest"}[m.Oldest])
	if m.Wrong != "" {
		return
	}
	if err != nil {
		m.Down = reason(err)
		m.Empty = &component.Empty{
			Mark: component.State{Kind: component.Stop, Word: "Down"}, Title: "The message store does not answer",
			Text:  reason(err) + ". Live taps still work; what arrives meanwhile is kept on disk and stored later.",
			Links: []component.Option{{Label: "Try again", URL: v.With()}},
		}
		return
	}
	for i := range found.Messages {
		m.Rows = append(m.Rows, MakeRow(v, &found.Messages[i], q.BodyWord))
	}
	if found.Next != "" {
		m.NextURL = v.With("cursor", found.Next)
	}
	m.Scan = scanLine(found.Scan, q.Order, m.NextURL, len(found.Messages))
	if len(m.Rows) == 0 {
		m.Empty = emptyList(v, q, found, m.NextURL)
	}
}

func emptyList(v *page.View, q storage.MessageQuery, found storage.MessagePage, next string) *component.Empty {
	e := &component.Empty{Mark: component.State{Kind: component.Off, Word: "Nothing matched"}}
	period := strings.ToLower(v.RangeLabel()[:1]) + v.RangeLabel()[1:]
	switch {
	case next != "" || found.Scan.Stopped == storage.StopDeadline:
		e.Mark = component.State{Kind: component.Caution, Word: "Partly scanned"}
		e.Title = "Nothing matched so far"
		e.Text = "The rest of the range was not looked at."
	case v.Query == "":
		e.Mark = component.State{Kind: component.Stale, Word: "No data"}
		e.Title = "No messages in the " + period
		e.Text = "No tap saw a message and no service reported one. Look further back, or see whether agents are connected and taps are running."
		e.Links = append(e.Links, component.Option{Label: "Agents", URL: v.URL("/agents")})
	default:
		e.Title = "Nothing matched in " + component.Plural(found.Scan.Rows, "message")
		e.Text = "Searched the " + period + " in " + envName(v.Env) + "."
	}
	if v.Range.Duration() < 24*time.Hour {
		e.Links = append(e.Links, component.Option{Label: "Last 24 hours", URL: v.With("range", "24h", "from", "", "to", "")})
	}
	if next != "" {
		e.Links = append([]component.Option{{Label: "Continue", URL: next}}, e.Links...)
	}
	return e
}

func envName(env string) string {
	if env == "" {
		return "all environments"
	}
	return component.Visible(env)
}

// MakeRow builds a row; other pages list messages too.
func MakeRow(v *page.View, m *storage.Message, word string) Row {
	row := Row{
		URL: v.Message(&m.MessageEvent), At: time.Unix(0, m.Time), State: page.Outcome(&m.MessageEvent),
		Channel: component.Visible(m.Destination), System: page.System(m.System),
		ChannelURL: v.Channel(controlbus.ChannelName{Env: m.Env, System: m.System, Broker: m.Broker, Name: m.Destination}),
		Size:       component.Size(m.BodySize),
	}
	if row.Channel == "" {
		row.Channel = "unnamed channel"
	}
	row.Key = page.RoutingKey(&m.MessageEvent)
	row.FullID = component.Visible(first(m.CorrelationID, m.MessageID))
	row.ID = component.Middle(row.FullID)
	if m.Delivery > 0 {
		row.Delivery = component.Count(m.Delivery)
	}
	if m.GapBefore > 0 {
		row.GapBefore = component.Plural(m.GapBefore, "message") + " lost before this one"
	}
	text := m.Snippet
	if text == "" {
		text = string(m.Body[:min(len(m.Body), 400)])
	}
	row.Before, row.Hit, row.After = around(text, word)
	if text == "" && m.BodyPolicy != controlbus.BodyFull {
		row.After = "body not kept: " + m.BodyPolicy.String()
	}
	return row
}

// around cuts a body so that the searched word is in sight.
func around(text, word string) (before, hit, after string) {
	at := -1
	if word != "" {
		at = indexFold(text, word)
	}
	if at < 0 {
		return "", "", component.Visible(cut(text, 220))
	}
	from := max(0, at-18)
	before = text[from:at]
	if from > 0 {
		before = "…" + strings.ToValidUTF8(before, "")
	}
	return component.Visible(before), component.Visible(text[at : at+len(word)]), component.Visible(cut(text[at+len(word):], 180))
}

// indexFold finds a word without regard to ASCII case, as the store does.
func indexFold(text, word string) int {
	lower := func(s string) string {
		return strings.Map(func(r rune) rune {
			if 'A' <= r && r <= 'Z' {
				return r + 32
			}
			return r
		}, strings.ToValidUTF8(s, "?"))
	}
	if len(strings.ToValidUTF8(text, "?")) != len(text) {
		return strings.Index(text, word)
	}
	return strings.Index(lower(text), lower(word))
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

func first(ss ...string) string {
	for _, s := range ss {
		if s != "" {
			return s
		}
	}
	return ""
}

func reason(err error) string { return component.Visible(err.Error()) }

func scanLine(s storage.Scan, order storage.Order, next string, rows int) *ScanView {
	if s.Range.From.IsZero() {
		return nil
	}
	out := &ScanView{Continue: next}
	looked := "Looked at " + component.Plural(s.Rows, "message")
	if s.Bytes > 0 {
		looked += " (" + component.Size(int64(s.Bytes)) + ")"
	}
	took := " in " + component.Span(s.Elapsed.Round(time.Millisecond))
	from, to := s.Range.From, s.Range.To
	clock := func(t time.Time) string { return t.UTC().Format("15:04:05") }
	if s.Range.Duration() > 24*time.Hour {
		clock = func(t time.Time) string { return t.UTC().Format("2 Jan 15:04") }
	}
	reached := s.Reached
	if reached.IsZero() || s.Stopped == storage.StopEnd || s.Stopped == "" {
		reached = map[storage.Order]time.Time{storage.NewestFirst: from, storage.OldestFirst: to}[order]
	}
	seenFrom, seenTo := reached, to
	restFrom, restTo := from, reached
	if order == storage.OldestFirst {
		seenFrom, seenTo, restFrom, restTo = from, reached, reached, to
	}
	text := looked + ", " + clock(seenFrom) + " to " + clock(seenTo) + " UTC," + took + ". "
	switch s.Stopped {
	case storage.StopDeadline:
		out.State = component.State{Kind: component.Caution, Word: "Partly scanned"}
		out.Caution = true
		text += "Stopped at the time budget; " + clock(restFrom) + " to " + clock(restTo) + " not looked at."
	case storage.StopLimit:
		out.State = component.State{Kind: component.Done, Word: "Page full"}
		text += "Stopped after " + component.Plural(rows, "match") + "; " + clock(restFrom) + " to " + clock(restTo) + " not looked at yet."
		text = strings.Replace(text, "matchs", "matches", 1)
	default:
		out.State = component.State{Kind: component.Done, Word: "Whole range"}
		text += "Nothing was left out."
	}
	out.Text = text
	if d := s.Range.Duration().Seconds(); d > 0 {
		out.SeenFrom = fmt.Sprintf("%.1f", 100*seenFrom.Sub(from).Seconds()/d)
		out.SeenSpan = fmt.Sprintf("%.1f", 100*seenTo.Sub(seenFrom).Seconds()/d)
	}
	return out
}
