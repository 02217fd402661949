package messages

import (
	"encoding/hex"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/decode"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/commands"
)

type detailView struct {
	Channel, ChannelURL, Broker, System string
	Key                                 string
	State                               component.State
	At                                  time.Time
	Facts                               []Fact
	Notices                             []Notice
	Body                                payloadView
	Headers                             []headerView
	Stations                            []Station
	HistorySub                          string
	HistoryFoot                         []string
	HistoryDown                         string
	Searches                            []component.Option
	Replay                              *commands.Act   // nil: nothing can be replayed here
	Done                                templ.Component // what commands did with it; nil: nothing
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

func messageView(v *page.View, d storage.MessageDetail, conv storage.Conversation, convErr error, as decode.Format) detailView {
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
	m.Body = makePayload(v, d, as)
	for _, h := range e.Headers {
		m.Headers = append(m.Headers, headerView{Name: component.Visible(h.Key), Value: component.Visible(h.Value), Masked: len(e.Redacted) > 0 && h.Value == mask})
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
	add("Content type", e.ContentType, Fact{})
	add("Content encoding", e.ContentEncoding, Fact{})
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
