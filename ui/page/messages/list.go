package messages

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
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
	Cells                            []Cell // of the columns that were asked for

	ChannelTerm, IDTerm, OutcomeTerm string // conditions that find others like it
}

type listView struct {
	Table        tableView
	Reads        string
	Wrong        *filterFault
	Meant        *component.Option // what the filter was perhaps to say
	Saved        savedView
	Live         bool
	LiveURL      string
	Oldest, More bool
	FirstURL     string
	NextURL      string
	Scan         *ScanView
	Hist         *histView
	Empty        *component.Empty
	Down         string
	Columns      columnsView
	Share        shareView
	Export       []component.Option
}

// tableView is a list of messages as it is drawn.
type tableView struct {
	Rows    []Row
	Columns []Column
	Flip    string // link to the other order, empty for none
	Oldest  bool
	Chosen  bool // columns were asked for: phones show them too
}

// ScanView is what a search looked at, in words. Times are written by the
// browser in the reader's zone.
type ScanView struct {
	State              component.State
	Caution            bool
	Looked             string
	SeenFrom, SeenTo   time.Time
	Took, Why          string
	RestFrom, RestTo   time.Time // zero: nothing is left
	Rest               string
	Clock              string // how times are written
	Zone               string // and in which zone
	Continue           string // URL
	ExtentFrom, Extent string // of 100, for the bar
}

// shareView are the two links that bring somebody else here.
type shareView struct{ Moving, Fixed string }

func (m *listView) build(v *page.View, q storage.MessageQuery, cols []Column, found storage.MessagePage, err error) {
	m.LiveURL = v.URL("/live", "q", v.Query)
	m.FirstURL = v.With()
	m.Table = tableView{Flip: v.With("order", map[bool]string{true: "", false: "oldest"}[m.Oldest]), Oldest: m.Oldest, Columns: cols, Chosen: cols != nil}
	m.share(v, cols)
	if m.Wrong != nil {
		return
	}
	if errors.Is(err, controlbus.ErrDenied) {
		m.Down = reason(err)
		m.Empty = &component.Empty{
			Mark: component.State{Kind: component.Held, Word: "Not allowed"}, Title: "This search looks into payloads",
			Text:  reason(err) + ". Words without a field, and body:, are looked for in payloads; everything else can be searched.",
			Links: []component.Option{{Label: "Without a filter", URL: v.With("q", "")}},
		}
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
	word := q.Filter.Word()
	for i := range found.Messages {
		row := MakeRow(v, &found.Messages[i], word)
		row.Cells = makeCells(cols, &found.Messages[i])
		m.Table.Rows = append(m.Table.Rows, row)
	}
	if cols == nil {
		m.Table.Columns = defaultColumns(m.Table.Rows, true)
	}
	if found.Next != "" {
		m.NextURL = v.With("cursor", found.Next)
	}
	if m.Scan = scanLine(found.Scan, q.Order, m.NextURL, len(found.Messages)); m.Scan != nil {
		m.Scan.Zone = v.Now.In(v.Zone).Format("MST")
	}
	if len(m.Table.Rows) == 0 {
		m.Empty = emptyList(v, q, found, m.NextURL)
	}
}

// share makes links that hold everything: environment and columns too, which a
// bare address leaves to the reader's own choice.
func (m *listView) share(v *page.View, cols []Column) {
	with := func(pairs ...string) string {
		link := v.With(append([]string{"cols", columnNames(cols), "count", ""}, pairs...)...)
		if v.Env == "" && !strings.Contains(link, "env=") {
			return link
		}
		u, err := url.Parse(link)
		if err != nil {
			return link
		}
		form := u.Query()
		form.Set("env", v.Env)
		u.RawQuery = form.Encode()
		return u.String()
	}
	if v.Relative() {
		m.Share.Moving = with()
	}
	m.Share.Fixed = with("range", "", "from", v.Range.From.Format(time.RFC3339Nano), "to", v.Range.To.Format(time.RFC3339Nano))
}

func emptyList(v *page.View, q storage.MessageQuery, found storage.MessagePage, next string) *component.Empty {
	e := &component.Empty{Mark: component.State{Kind: component.Off, Word: "Nothing matched"}}
	period := strings.ToLower(v.RangeLabel()[:1]) + v.RangeLabel()[1:]
	switch {
	case next != "" || found.Scan.Stopped == storage.StopDeadline:
		e.Mark = component.State{Kind: component.Caution, Word: "Partly scanned"}
		e.Title = "Nothing matched so far"
		e.Text = "The rest of the range was not looked at. Continue goes on from where the search stopped."
	case v.Query == "":
		e.Mark = component.State{Kind: component.Stale, Word: "No data"}
		e.Title = "No messages in the " + period
		e.Text = "No tap saw a message and no service reported one. Look further back, or see whether agents are connected and taps are running."
		e.Links = append(e.Links, component.Option{Label: "Agents", URL: v.URL("/agents")})
	default:
		e.Title = "Nothing matched in " + component.Plural(found.Scan.Rows, "message")
		e.Text = "Searched the " + period + " in " + envName(v.Env) + "."
		if word := q.Filter.Word(); wordLike(word) && strings.Count(v.Query, word) == 1 {
			e.Text += " Words are whole words: *" + component.Visible(word) + "* is found within others, too."
			e.Links = append(e.Links, component.Option{Label: "Within words", URL: v.With("q", strings.Replace(v.Query, word, "*"+word+"*", 1))})
		}
	}
	if v.Range.Duration() < 24*time.Hour {
		e.Links = append(e.Links, component.Option{Label: "Last 24 hours", URL: v.With("range", "24h", "from", "", "to", "")})
	}
	if next != "" {
		e.Links = append([]component.Option{{Label: "Continue", URL: next}}, e.Links...)
	}
	return e
}

// wordLike says that a word stands in a filter as it is, without quotes.
func wordLike(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
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
	row.ChannelTerm, row.OutcomeTerm = term("channel", m.Destination), term("outcome", m.Outcome.String())
	if row.IDTerm = term("correlation", m.CorrelationID); m.CorrelationID == "" {
		row.IDTerm = term("id", m.MessageID)
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

// term is a condition on a field's exact value; empty where there is none or
// the language cannot write it.
func term(field, value string) string {
	if value == "" || !utf8.ValidString(value) || len(value) > 200 {
		return ""
	}
	return field + ":" + filter.Quote(value)
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
		before = "…" + strings.ToValidUTF8(strings.TrimPrefix(before, "…"), "")
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
	out := &ScanView{Continue: next, Clock: component.Second, Took: component.Span(s.Elapsed.Round(time.Millisecond))}
	if s.Range.Duration() > 24*time.Hour {
		out.Clock = component.Day
	}
	out.Looked = "Looked at " + component.Plural(s.Rows, "message")
	if s.Bytes > 0 {
		out.Looked += " (" + component.Size(int64(s.Bytes)) + ")"
	}
	from, to := s.Range.From, s.Range.To
	whole := s.Stopped == storage.StopEnd || s.Stopped == ""
	reached := s.Reached
	if reached.IsZero() || whole {
		reached = map[storage.Order]time.Time{storage.NewestFirst: from, storage.OldestFirst: to}[order]
	}
	out.SeenFrom, out.SeenTo, out.RestFrom, out.RestTo = reached, to, from, reached
	if order == storage.OldestFirst {
		out.SeenFrom, out.SeenTo, out.RestFrom, out.RestTo = from, reached, reached, to
	}
	if whole {
		out.RestFrom, out.RestTo = time.Time{}, time.Time{}
	}
	switch s.Stopped {
	case storage.StopDeadline:
		out.State = component.State{Kind: component.Caution, Word: "Partly scanned"}
		out.Caution = true
		out.Why, out.Rest = "Stopped at the time budget", "not looked at."
	case storage.StopLimit:
		out.State = component.State{Kind: component.Done, Word: "Page full"}
		out.Why, out.Rest = "Stopped after "+strings.Replace(component.Plural(rows, "match"), "matchs", "matches", 1), "not looked at yet."
	default:
		out.State = component.State{Kind: component.Done, Word: "Whole range"}
		out.Why = "Nothing was left out."
	}
	if d := s.Range.Duration().Seconds(); d > 0 {
		out.ExtentFrom = fmt.Sprintf("%.1f", 100*out.SeenFrom.Sub(from).Seconds()/d)
		out.Extent = fmt.Sprintf("%.1f", 100*out.SeenTo.Sub(out.SeenFrom).Seconds()/d)
	}
	return out
}
