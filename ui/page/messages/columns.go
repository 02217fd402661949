package messages

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Column is one column of a list of messages.
type Column struct {
	ID, Title string
	Num, Mono bool
	field     string // of the filter language that has the same values
	// text is nil for the columns that the template draws itself.
	text func(*storage.Message) string
}

// Cell is one value of a column that is only text. Term is the condition that
// finds messages with the same value.
type Cell struct{ Text, Full, Term string }

// The columns, in the order in which they stand whatever order they were asked
// for in: a list looks the same tomorrow. Headers stand before the body.
var columns = []Column{
	{ID: "time", Title: "Time"},
	{ID: "outcome", Title: "Outcome"},
	{ID: "env", Title: "Environment", field: "env", text: func(m *storage.Message) string { return m.Env }},
	{ID: "system", Title: "System", text: func(m *storage.Message) string { return page.System(m.System) }},
	{ID: "broker", Title: "Broker", field: "broker", text: func(m *storage.Message) string { return m.Broker }},
	{ID: "channel", Title: "Channel"},
	{ID: "key", Title: "Routing key", field: "key", text: func(m *storage.Message) string { return m.RoutingKey }},
	{ID: "op", Title: "Operation", field: "op", text: func(m *storage.Message) string { return m.Op.String() }},
	{ID: "service", Title: "Service", field: "service", text: func(m *storage.Message) string { return m.Service }},
	{ID: "group", Title: "Consumer group", field: "group", text: func(m *storage.Message) string { return m.ConsumerGroup }},
	{ID: "partition", Title: "Partition", Num: true, field: "partition", text: func(m *storage.Message) string { return m.Partition }},
	{ID: "position", Title: "Position", Num: true, field: "position", text: func(m *storage.Message) string {
		if m.Position < 0 {
			return ""
		}
		return strconv.FormatInt(m.Position, 10)
	}},
	{ID: "id", Title: "Correlation or id", Mono: true},
	{ID: "message", Title: "Message id", Mono: true, field: "id", text: func(m *storage.Message) string { return m.MessageID }},
	{ID: "correlation", Title: "Correlation", Mono: true, field: "correlation", text: func(m *storage.Message) string { return m.CorrelationID }},
	{ID: "cause", Title: "Caused by", Mono: true, field: "causation", text: func(m *storage.Message) string { return m.CausationID }},
	{ID: "trace", Title: "Trace", Mono: true, field: "trace", text: func(m *storage.Message) string {
		if m.TraceID == [16]byte{} {
			return ""
		}
		return hex.EncodeToString(m.TraceID[:])
	}},
	{ID: "delivery", Title: "Delivery", Num: true},
	{ID: "latency", Title: "Took", Num: true, text: func(m *storage.Message) string {
		if m.LatencyNs <= 0 {
			return ""
		}
		return component.Span(time.Duration(m.LatencyNs))
	}},
	{ID: "error", Title: "Error", field: "error", text: func(m *storage.Message) string { return m.ErrorType }},
	{ID: "reason", Title: "Dead-letter reason", field: "dead_letter.reason", text: func(m *storage.Message) string { return m.DeadLetterReason }},
	{ID: "type", Title: "Content type", field: "content_type", text: func(m *storage.Message) string { return m.ContentType }},
	{ID: "tap", Title: "Tap", field: "tap", text: func(m *storage.Message) string { return m.Tap }},
	{ID: "size", Title: "Size", Num: true},
	{ID: "body", Title: "Body", Mono: true},
}

const (
	headerColumn = "header."
	maxColumns   = 24
	maxColumn    = 200 // bytes of one name

	// CookieColumns keeps the columns a reader chose last.
	CookieColumns = "signalbox-cols"
)

// defaultColumns are shown where nobody chose: deliveries only where one says
// something, routing keys beside the channel or, in a list of one channel's
// messages, in their own column.
func defaultColumns(rows []Row, channel bool) []Column {
	ids := []string{"time", "outcome"}
	if channel {
		ids = append(ids, "channel")
	} else if keyed(rows) {
		ids = append(ids, "key-cell")
	}
	ids = append(ids, "id")
	if counted(rows) {
		ids = append(ids, "delivery")
	}
	ids = append(ids, "size", "body")
	var out []Column
	for _, id := range ids {
		if id == "key-cell" {
			out = append(out, Column{ID: id, Title: "Routing key"})
			continue
		}
		out = append(out, *columnOf(id))
	}
	return out
}

// usual are the default columns as a choice of their own.
var usual = []string{"time", "outcome", "channel", "id", "delivery", "size", "body"}

func columnOf(id string) *Column {
	i := slices.IndexFunc(columns, func(c Column) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return &columns[i]
}

var columnEscaper, columnUnescaper = strings.NewReplacer("%", "%25", ",", "%2C"), strings.NewReplacer("%2C", ",", "%25", "%")

// parseColumns reads names with commas between them: those of the list, and
// header.name for a header, in which % and the comma are written %25 and %2C.
// No names are no choice.
func parseColumns(text string) ([]Column, error) {
	if text == "" {
		return nil, nil
	}
	chosen := map[string]bool{"time": true} // holds the link to the message
	var headers []string
	for i, id := range strings.Split(text, ",") {
		if i >= maxColumns || len(id) > maxColumn {
			return nil, fmt.Errorf("%w: cols: want at most %d columns of at most %d bytes", controlbus.ErrTooLarge, maxColumns, maxColumn)
		}
		name, isHeader := strings.CutPrefix(columnUnescaper.Replace(id), headerColumn)
		switch {
		case isHeader && name != "":
			headers = append(headers, name)
		case columnOf(id) != nil:
			chosen[id] = true
		default:
			return nil, fmt.Errorf("%w: cols: no column %q: want some of %s, header.name", controlbus.ErrInvalid, component.Visible(id), columnIDs())
		}
	}
	slices.Sort(headers)
	headers = slices.Compact(headers)
	var out []Column
	for _, c := range columns {
		if c.ID == "body" {
			for _, h := range headers {
				out = append(out, headerOf(h))
			}
		}
		if chosen[c.ID] {
			out = append(out, c)
		}
	}
	return out, nil
}

func headerOf(name string) Column {
	field := strings.TrimSuffix(headerTerm(name), ":")
	return Column{ID: headerColumn + name, Title: component.Visible(name), Mono: true, field: field, text: func(m *storage.Message) string {
		var values []string
		for _, h := range m.Headers {
			if h.Key == name {
				values = append(values, h.Value)
			}
		}
		return strings.Join(values, ", ")
	}}
}

func columnIDs() string {
	var out []string
	for _, c := range columns {
		out = append(out, c.ID)
	}
	return strings.Join(out, ", ")
}

// columnNames writes columns so that parseColumns reads them.
func columnNames(cols []Column) string {
	var out []string
	for _, c := range cols {
		if name, ok := strings.CutPrefix(c.ID, headerColumn); ok {
			out = append(out, headerColumn+columnEscaper.Replace(name))
			continue
		}
		out = append(out, c.ID)
	}
	return strings.Join(out, ",")
}

// chosenColumns are those of the address, else those chosen last.
func chosenColumns(r *http.Request, v *page.View) ([]Column, error) {
	if v.Form.Has("cols") {
		return parseColumns(v.Form.Get("cols"))
	}
	c, err := r.Cookie(CookieColumns)
	if err != nil {
		return nil, nil //nolint:nilerr // nothing was chosen
	}
	text, err := url.QueryUnescape(c.Value)
	if err != nil {
		return nil, nil //nolint:nilerr // nor here
	}
	cols, err := parseColumns(text)
	if err != nil {
		return nil, nil //nolint:nilerr // an old choice is no reason to show nothing
	}
	return cols, nil
}

func makeCells(cols []Column, m *storage.Message) []Cell {
	if cols == nil {
		return nil
	}
	out := make([]Cell, len(cols))
	for i, c := range cols {
		if c.text == nil {
			continue
		}
		text := c.text(m)
		if name, ok := strings.CutPrefix(c.ID, headerColumn); ok && slices.IndexFunc(m.Headers, func(h controlbus.Header) bool { return h.Key == name && h.Value == text }) < 0 {
			c.field = "" // several values are shown as one
		}
		if c.field != "" {
			out[i].Term = term(c.field, text)
		}
		out[i].Text = component.Visible(cut(text, 80))
		switch {
		case c.ID == "message" || c.ID == "correlation" || c.ID == "cause" || c.ID == "trace":
			out[i].Full = component.Visible(cut(text, 500))
			out[i].Text = component.Middle(out[i].Full)
		case len(text) > 20:
			out[i].Full = component.Visible(cut(text, 500))
		}
	}
	return out
}

// columnsView is the form on which columns are chosen.
type columnsView struct {
	Choices []columnChoice
	Headers []columnChoice // of this page's messages, and those chosen
	Back    string         // query of this page
	Chosen  bool
}

type columnChoice struct {
	ID, Title string
	On        bool
}

const maxHeaderChoices = 40

func makeColumnsView(v *page.View, cols []Column, found []storage.Message) columnsView {
	out := columnsView{Chosen: cols != nil, Back: strings.TrimPrefix(v.With(), "/messages")}
	on := map[string]bool{}
	for _, c := range cols {
		on[c.ID] = true
	}
	if cols == nil {
		for _, id := range usual {
			on[id] = true
		}
	}
	for _, c := range columns[1:] { // time is always there
		out.Choices = append(out.Choices, columnChoice{c.ID, c.Title, on[c.ID]})
	}
	seen := map[string]int{}
	for i := range found {
		for _, h := range found[i].Headers {
			if h.Key != "" && len(h.Key) < maxColumn/3 {
				seen[h.Key]++
			}
		}
	}
	for _, c := range cols {
		if name, ok := strings.CutPrefix(c.ID, headerColumn); ok {
			out.Headers = append(out.Headers, columnChoice{columnNames([]Column{c}), component.Visible(name), true})
			delete(seen, name)
		}
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if n := seen[b] - seen[a]; n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	names = names[:min(len(names), max(0, maxHeaderChoices-len(out.Headers)))]
	slices.Sort(names)
	for _, name := range names {
		out.Headers = append(out.Headers, columnChoice{headerColumn + columnEscaper.Replace(name), component.Visible(name), false})
	}
	return out
}

// chooseColumns keeps a choice of columns and goes back to the list.
func (p *Pages) chooseColumns(w http.ResponseWriter, r *http.Request) error {
	f, err := postForm(w, r)
	if err != nil {
		return err
	}
	ids := append([]string{"time"}, f["col"]...)
	for _, name := range strings.Fields(f.Get("headers")) {
		ids = append(ids, headerColumn+columnEscaper.Replace(strings.TrimPrefix(name, headerColumn)))
	}
	text := ""
	if f.Get("reset") == "" {
		cols, err := parseColumns(strings.Join(ids, ","))
		if err != nil {
			return err
		}
		text = columnNames(cols)
	}
	if text == strings.Join(usual, ",") {
		text = ""
	}
	c := &http.Cookie{
		Name: CookieColumns, Value: url.QueryEscape(text), Path: "/messages", MaxAge: 365 * 24 * 3600,
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: r.TLS != nil,
	}
	if text == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
	to := backTo(f, func(q url.Values) {
		q.Del("cols")
		if text != "" {
			q.Set("cols", text)
		}
	})
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// counted says whether a list has deliveries to show.
func counted(rows []Row) bool {
	return slices.ContainsFunc(rows, func(r Row) bool { return r.Delivery != "" })
}

// keyed says whether a list of one channel's messages has routing keys to show.
func keyed(rows []Row) bool {
	return slices.ContainsFunc(rows, func(r Row) bool { return r.Key != "" })
}
