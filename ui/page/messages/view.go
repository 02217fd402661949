package messages

import (
	"encoding/hex"
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

// --- one message ---

type detailView struct {
	Channel, ChannelURL, Broker, System string
	Key                                 string
	State                               component.State
	At                                  time.Time
	Facts                               []Fact
	Notices                             []Notice
	Tabs                                []component.Option
	Payload                             Payload
	BodyURL                             string
	BodyNote, BodySub                   string
	Headers                             []component.Pair
	Stations                            []Station
	HistorySub                          string
	HistoryFoot                         []string
	HistoryDown                         string
	Searches                            []component.Option
}

// Fact is one value under the title.
type Fact struct {
	Name, Value, Full, URL string
	At                     time.Time
	Code                   bool
}

// Notice is a sentence with a state.
type Notice struct {
	State       component.State
	Title, Text string
}

// Station is one event of a history, or a gap between two.
type Station struct {
	Kind       component.Kind
	At         time.Time
	Delta      string
	Title, Obj string
	ObjURL     string
	Key        string
	Tag        string
	Sub        string
	Class      string // here, wrong, gap
	URL        string
}

func messageView(v *page.View, d storage.MessageDetail, conv storage.Conversation, convErr error, mode string) detailView {
	e := &d.MessageEvent
	m := detailView{
		Channel: component.Visible(e.Destination), Broker: component.Visible(e.Broker), System: page.System(e.System),
		ChannelURL: v.Channel(controlbus.ChannelName{Env: e.Env, System: e.System, Broker: e.Broker, Name: e.Destination}),
		State:      page.Outcome(e), At: time.Unix(0, e.Time),
	}
	if m.Channel == "" {
		m.Channel = "unnamed channel"
	}
	m.Key = page.RoutingKey(e)
	if e.Delivery > 1 {
		m.State.Word += ", delivery " + component.Count(e.Delivery)
	}
	m.facts(v, d)
	m.body(v, d, mode)
	for _, h := range e.Headers {
		m.Headers = append(m.Headers, component.Pair{Name: component.Visible(h.Key), Value: component.Visible(h.Value)})
	}
	m.history(v, d, conv)
	if convErr != nil {
		m.HistoryDown = reason(convErr)
	}
	return m
}

func (m *detailView) facts(v *page.View, d storage.MessageDetail) {
	e := &d.MessageEvent
	add := func(name, value string, f Fact) {
		if value == "" && f.At.IsZero() {
			return
		}
		f.Name, f.Full = name, component.Visible(value)
		f.Value = f.Full
		if f.Code {
			f.Value = component.Middle(f.Full)
		}
		m.Facts = append(m.Facts, f)
	}
	wide := []string{"range", "7d", "from", "", "to", ""}
	search := func(name, value string) string {
		return v.URL("/messages", append([]string{"q", Term(name, value)}, wide...)...)
	}
	add("Seen", "", Fact{At: time.Unix(0, e.Time)})
	add("Message id", e.MessageID, Fact{Code: true, URL: search("id", e.MessageID)})
	add("Correlation", e.CorrelationID, Fact{Code: true, URL: search("correlation", e.CorrelationID)})
	if e.TraceID != [16]byte{} {
		t := hex.EncodeToString(e.TraceID[:])
		add("Trace", t, Fact{Code: true, URL: search("trace", t)})
	}
	add("Caused by", e.CausationID, Fact{Code: true, URL: search("id", e.CausationID)})
	add("Size", component.Size(e.BodySize), Fact{})
	add("Service", e.Service, Fact{})
	add("Group", e.ConsumerGroup, Fact{})
	if e.RoutingKey != e.Destination {
		add("Routing key", e.RoutingKey, Fact{})
	}
	add("Partition", e.Partition, Fact{})
	if e.Position >= 0 {
		add("Position", component.Count(e.Position), Fact{})
	}
	add("Reply to", e.ReplyTo, Fact{})
	if e.LatencyNs > 0 {
		add("Took", component.Span(time.Duration(e.LatencyNs)), Fact{})
	}
	add("Tap", e.Tap, Fact{})
	if e.ErrorType != "" || e.DeadLetterReason != "" || e.DeadLetterSource != "" {
		text := "Reason: " + first(component.Visible(e.DeadLetterReason), component.Visible(e.ErrorType), "not told") + "."
		if e.DeadLetterSource != "" {
			text += " It came from " + component.Visible(e.DeadLetterSource) + "."
		}
		m.Notices = append(m.Notices, Notice{component.State{Kind: m.State.Kind}, "This message did not end well", text})
	}
	if e.GapBefore > 0 {
		m.Notices = append(m.Notices, Notice{component.State{Kind: component.Caution}, component.Plural(e.GapBefore, "message") + " lost before this one",
			"The tap knows from the broker's numbering that they passed and were not copied."})
	}
}

func (m *detailView) body(v *page.View, d storage.MessageDetail, mode string) {
	e := &d.MessageEvent
	m.BodyURL = v.With("body", "")
	if d.BodyStored && len(e.Body) > 0 {
		u := v.Message(e)
		m.BodyURL = strings.Replace(u, e.UID.String(), e.UID.String()+"/body", 1)
	} else {
		m.BodyURL = ""
	}
	m.Payload = Format(e.Body, e.Truncated, len(e.Redacted) > 0, mode)
	for _, t := range [][2]string{{"", "Formatted"}, {"raw", "Raw"}, {"hex", "Hex"}} {
		m.Tabs = append(m.Tabs, component.Option{Label: t[1], URL: v.With("body", t[0]), Current: mode == t[0]})
	}
	m.BodySub = m.Payload.Kind
	if e.ContentType != "" {
		m.BodySub = component.Visible(e.ContentType)
	}
	var notes []string
	switch {
	case e.BodyPolicy == controlbus.BodyMetadata:
		notes = append(notes, "The agent's policy keeps the size only: "+component.Size(e.BodySize)+".")
	case e.BodyPolicy == controlbus.BodyHash:
		notes = append(notes, "The agent's policy keeps size and hash only: "+component.Size(e.BodySize)+".")
	case !d.BodyStored && e.BodySize > 0:
		notes = append(notes, "The body is no longer kept: bodies have a shorter retention than events.")
	default:
		notes = append(notes, component.Plural(e.BodySize, "byte"))
	}
	if e.Truncated {
		notes = append(notes, "cut: the first "+component.Plural(len(e.Body), "byte")+" of "+component.Count(e.BodySize)+" are kept")
	}
	if e.BodySHA256 != "" {
		notes = append(notes, "sha256 "+component.Middle(component.Visible(e.BodySHA256)))
	}
	if len(e.Redacted) > 0 {
		notes = append(notes, "changed by redaction at the agent: "+component.Visible(strings.Join(e.Redacted, ", ")))
	}
	if m.Payload.Note != "" {
		notes = append(notes, m.Payload.Note)
	}
	m.BodyNote = strings.Join(notes, " · ")
}

func (m *detailView) history(v *page.View, d storage.MessageDetail, conv storage.Conversation) {
	events := conv.Events
	if len(events) == 0 {
		events = []storage.ConversationEvent{{Message: &d.Message, At: time.Unix(0, d.Time), Why: "itself"}}
	}
	seen := map[string]bool{}
	for _, e := range events {
		if e.Message != nil && e.Message.MessageID != "" {
			seen[e.Message.MessageID] = true
		}
	}
	tries := attempts(events)
	gaps, services := 0, map[string]bool{}
	var prev, start time.Time
	for i, e := range events {
		if i == 0 {
			start, prev = e.At, e.At
		}
		s := Station{At: e.At, Delta: delta(e.At.Sub(start))}
		if e.Message != nil {
			g, n := gapBefore(e.Message, seen)
			if n {
				gaps++
				m.Stations = append(m.Stations, g)
			}
			s.message(v, e.Message)
			services[e.Message.Service] = true
			if e.Message.UID == d.UID {
				s.Class = strings.TrimSpace("here " + s.Class)
				s.Sub = joinNonEmpty("; ", s.Sub, "this is the message you are looking at")
				s.URL = ""
			}
		} else if e.Span != nil {
			s.span(e.Span, tries[e.Span.SpanID])
			services[e.Span.Service] = true
		} else if e.Log != nil {
			s.log(e.Log)
			services[e.Log.Service] = true
		} else {
			continue
		}
		if e.Offset != 0 {
			s.Sub = joinNonEmpty(", ", s.Sub, "clock corrected by "+component.Span(e.Offset))
		}
		prev = e.At
		m.Stations = append(m.Stations, s)
	}
	m.HistorySub = component.Plural(len(events), "event")
	if prev.After(start) {
		m.HistorySub += ", " + component.Span(prev.Sub(start))
	}
	if gaps > 0 {
		m.HistoryFoot = append(m.HistoryFoot, component.Plural(gaps, "gap"))
	}
	m.HistoryFoot = append(m.HistoryFoot, "ordered by cause, then time")
	if conv.Truncated {
		m.HistoryFoot = append(m.HistoryFoot, "only the first "+component.Count(len(events))+" events are shown")
	}
	if conv.Scan.Stopped == storage.StopDeadline {
		m.HistoryFoot = append(m.HistoryFoot, "the search for related events ran out of time; some may be missing")
	}
}

// gapBefore tells of what must have happened and was not observed.
func gapBefore(m *storage.Message, seen map[string]bool) (Station, bool) {
	if m.GapBefore > 0 {
		return Station{Kind: component.Doubt, Class: "gap", Title: component.Plural(m.GapBefore, "message") + " on this channel lost here", Sub: "passed and not copied; they may belong to this conversation"}, true
	}
	if m.CausationID != "" && !seen[m.CausationID] {
		seen[m.CausationID] = true // told once
		return Station{Kind: component.Doubt, Class: "gap", Title: "Not observed", Sub: "message " + component.Middle(component.Visible(m.CausationID)) + ", which caused the next one, passed no tap"}, true
	}
	return Station{}, false
}

func (s *Station) message(v *page.View, m *storage.Message) {
	st := page.Outcome(&m.MessageEvent)
	s.Kind, s.Tag, s.URL = st.Kind, page.System(m.System), v.Message(&m.MessageEvent)
	s.Obj, s.Key = component.Visible(m.Destination), page.RoutingKey(&m.MessageEvent)
	s.ObjURL = v.Channel(controlbus.ChannelName{Env: m.Env, System: m.System, Broker: m.Broker, Name: m.Destination})
	words := map[controlbus.Op]string{
		controlbus.OpCreate: "Created for", controlbus.OpSend: "Sent to", controlbus.OpReceive: "Received from",
		controlbus.OpProcess: "Processed from", controlbus.OpSettle: "Settled on", controlbus.OpTap: "Seen on",
	}
	s.Title = words[m.Op]
	if s.Title == "" {
		s.Title = "Observed on"
	}
	switch m.Outcome {
	case controlbus.OutcomeFailed, controlbus.OutcomeRetried:
		s.Title, s.Class = "Failed on", "wrong"
		if m.Delivery > 0 {
			s.Title = "Attempt " + component.Count(m.Delivery) + " failed on"
		}
	case controlbus.OutcomeDeadLettered:
		s.Title, s.Class = "Dead-lettered to", "wrong"
	case controlbus.OutcomeExpired:
		s.Title = "Expired on"
	}
	var took string
	if m.LatencyNs > 0 {
		took = "took " + component.Span(time.Duration(m.LatencyNs))
	}
	var pos string
	if m.Position >= 0 && m.Partition != "" {
		pos = "partition " + component.Visible(m.Partition) + ", offset " + component.Count(m.Position)
	}
	s.Sub = joinNonEmpty(", ", component.Visible(m.Service), component.Visible(m.ConsumerGroup), took, pos,
		component.Visible(first(m.ErrorType, m.DeadLetterReason)))
}

// attempts numbers the spans that processed the same message more than once:
// what a reader wants to know of a retry is which one it was. Others have no
// number.
func attempts(events []storage.ConversationEvent) map[[8]byte]int {
	type work struct{ service, channel, message, name string }
	times, of := map[work]int{}, map[[8]byte]int{}
	key := func(sp *storage.Span) work {
		return work{sp.Service, sp.Destination, sp.MessageID, sp.Name}
	}
	for _, e := range events {
		if sp := e.Span; sp != nil && sp.Op == controlbus.OpProcess {
			times[key(sp)]++
			of[sp.SpanID] = times[key(sp)]
		}
	}
	for _, e := range events {
		if sp := e.Span; sp != nil && times[key(sp)] < 2 {
			delete(of, sp.SpanID)
		}
	}
	return of
}

func (s *Station) span(sp *storage.Span, attempt int) {
	s.Kind, s.Title, s.Tag = component.Clear, component.Visible(sp.Name), "span"
	failed := sp.Status == 2
	took := component.Span(time.Duration(sp.DurationNs))
	if failed {
		s.Kind, s.Class = component.Failed, "wrong"
		took = "failed after " + took
	}
	if attempt > 0 {
		nth := "Attempt " + component.Count(attempt)
		switch {
		case failed:
			nth += " failed"
			if attempt > 1 {
				s.Kind = component.FailAgain
			}
		case attempt > 1:
			s.Kind = component.DoneAgain
		}
		s.Title = nth + ": " + s.Title
	}
	s.Sub = joinNonEmpty(", ", component.Visible(sp.Service), took, component.Visible(sp.StatusText))
}

func (s *Station) log(l *storage.Log) {
	s.Kind, s.Title, s.Tag = component.Off, component.Visible(cut(l.Body, 300)), "log"
	if l.Severity >= 17 {
		s.Kind, s.Class = component.Failed, "wrong"
	} else if l.Severity >= 13 {
		s.Kind = component.Caution
	}
	s.Sub = component.Visible(l.Service)
}

func delta(d time.Duration) string {
	if d < 0 {
		return component.Span(d)
	}
	return "+" + component.Span(d)
}

func joinNonEmpty(sep string, ss ...string) string {
	var out []string
	for _, s := range ss {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, sep)
}
