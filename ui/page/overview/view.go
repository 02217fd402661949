package overview

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/channels"
	"github.com/signalbox-dev/signalbox/ui/page/messages"
)

// facts is what is known when the page is built.
type facts struct {
	Now                    time.Time
	Totals                 storage.Totals
	Channels               []storage.ChannelState
	TotalsErr, ChannelsErr error
	HasAgents              bool
	Agents                 []controlbus.AgentView
	Troubles               []Trouble
	Lag                    time.Duration
	HasLag                 bool
	Yesterday              storage.Passed // the range a day before
	Change                 comparison
}

type view struct {
	Title, Sub string
	Needs      []Need
	More       []Need
	MoreNeeds  string
	Figures    []component.Figure
	Charts     []component.Chart
	Changes    changesView
	Failing    []failingRow
	FailingSub string
	Down       bool // the store does not answer
	NothingYet bool
	Rows       []channels.Row
	Heads      []channels.Head
	RowsSub    string
	AllURL     string
	Empty      *component.Empty
	Strip      templ.Component // what runs and what waits for whoever looks; nil: nothing
}

// Need is something that wants a person: what, why, and one way on.
type Need struct {
	State      component.State
	Title, Why string
	URL, Go    string
	weight     int
}

// maxNeeds are shown at once; the rest is a click away.
const maxNeeds = 5

func build(v *page.View, f facts) view {
	m := view{AllURL: v.URL("/channels")}
	needs := append(storeNeeds(v, f), agentNeeds(v, f)...)
	needs = append(needs, channelNeeds(v, f)...)
	slices.SortStableFunc(needs, func(a, b Need) int { return b.weight - a.weight })
	m.Title = sentence(f, needs)
	m.Sub = summary(f, len(needs))
	m.Needs = needs
	if len(needs) > maxNeeds+1 {
		m.Needs, m.More = needs[:maxNeeds], needs[maxNeeds:]
		m.MoreNeeds = component.Plural(len(m.More), "more thing") + ", less pressing"
	}
	m.figures(v, f)
	m.Down, m.NothingYet = f.ChannelsErr != nil, f.Totals.Messages == 0
	m.charts(v, f)
	m.Changes = makeChanges(v, f)
	m.failing(v, f)
	rows := channels.MakeRows(v, f.Channels, f.Agents, "")
	m.RowsSub = "largest first"
	if len(rows) > 10 {
		m.RowsSub = "10 of " + component.Count(len(rows)) + ", largest first"
		rows = rows[:10]
	}
	m.Rows = rows
	m.Heads = []channels.Head{
		{Label: "Waiting", URL: v.URL("/channels"), Class: "num", Sort: "descending"}, {Label: "Channel", URL: v.URL("/channels", "sort", "name")},
		{Label: "In /s", URL: v.URL("/channels", "sort", "in"), Class: "num"}, {Label: "Failed", URL: v.URL("/channels", "sort", "failed"), Class: "num"},
	}
	if len(rows) == 0 && f.ChannelsErr == nil {
		if f.HasAgents && len(f.Agents) == 0 {
			m.Empty = &component.Empty{Mark: component.State{Kind: component.Off, Word: "Not configured"}, Title: "No agent reports from here yet", Text: "An agent beside each broker describes its channels and taps them. Services can also send OpenTelemetry straight to this console.", Command: "signalbox-agent --config agent.yaml"}
		} else {
			m.Empty = &component.Empty{Mark: component.State{Kind: component.Stale, Word: "No data"}, Title: "No channel was seen in this range", Links: []component.Option{{Label: "Last 24 hours", URL: v.With("range", "24h", "from", "", "to", "")}}}
		}
	}
	return m
}

func stop(word string) component.State { return component.State{Kind: component.Stop, Word: word} }
func caution(word string) component.State {
	return component.State{Kind: component.Caution, Word: word}
}

func storeNeeds(v *page.View, f facts) []Need {
	var out []Need
	err := f.TotalsErr
	if err == nil {
		err = f.ChannelsErr
	}
	if err != nil {
		out = append(out, Need{State: stop("Down"), Title: "The message store does not answer", Why: component.Visible(err.Error()) + ". Agents keep what they copy on disk until it does.", weight: 100})
	}
	for _, t := range f.Troubles {
		n := Need{State: caution("Degraded"), Title: component.Visible(t.Title), Why: component.Visible(t.Detail), weight: 60}
		if t.Stop {
			n.State, n.weight = stop("Stopped"), 95
		}
		if !t.Since.IsZero() {
			n.Why = strings.TrimSuffix(n.Why, ".") + ". For " + component.Span(f.Now.Sub(t.Since).Round(time.Second)) + "."
		}
		out = append(out, n)
	}
	if f.Totals.Invalid > 0 {
		out = append(out, Need{State: caution("Not understood"), Title: component.Plural(f.Totals.Invalid, "record") + " could not be read", Why: "They are kept in the invalid message channel; their sender speaks something this console does not know.", URL: v.URL("/invalid"), Go: "Invalid messages", weight: 30})
	}
	return out
}

func agentNeeds(v *page.View, f facts) []Need {
	var out []Need
	url := v.URL("/agents")
	for _, a := range f.Agents {
		id := component.Visible(a.ID)
		if a.Presence == controlbus.Silent {
			out = append(out, Need{State: component.State{Kind: component.Stale, Word: "Silent"}, Title: "Agent " + id + " is silent", Why: "Not heard from for " + component.Span(f.Now.Sub(a.LastSeen).Round(time.Second)) + ". What passes on " + brokerList(a) + " is not known meanwhile.", URL: url, Go: "Agent", weight: 80})
			continue
		}
		for _, b := range a.Brokers {
			if !b.Connected {
				out = append(out, Need{State: stop("Down"), Title: "Broker " + component.Visible(b.Name) + " cannot be reached", Why: "Agent " + id + ": " + component.Visible(b.Error) + ". For " + component.Span(f.Now.Sub(b.Since).Round(time.Second)) + ".", URL: url, Go: "Agent", weight: 90})
			}
		}
		if a.Spool.Error != "" {
			out = append(out, Need{State: caution("Held up"), Title: "Agent " + id + " cannot send what it copies", Why: component.Visible(a.Spool.Error) + ". " + component.Plural(a.Spool.Records, "record") + " wait on its disk.", URL: url, Go: "Agent", weight: 65})
		}
		if a.Spool.Dropped > 0 {
			out = append(out, Need{State: caution("Lost copies"), Title: "Agent " + id + " left out " + component.Plural(a.Spool.Dropped, "record"), Why: "Its disk buffer was full. The messages themselves went their way; only the copies are missing.", URL: url, Go: "Agent", weight: 55})
		}
		for i := range a.Taps {
			t := &a.Taps[i]
			link := v.Channel(controlbus.ChannelName{Env: a.Env, Broker: t.Spec.Broker, Name: t.Channel})
			name := component.Visible(t.Channel)
			switch {
			case t.State == controlbus.TapBroken || t.State == controlbus.TapRefused:
				why := component.Visible(t.Error)
				if why == "" {
					why = "the agent gave no reason"
				}
				next := " It is tried again."
				if t.State == controlbus.TapRefused {
					next = " It is not tried again by itself."
				}
				out = append(out, Need{State: component.State{Kind: component.Failed, Word: "Tap " + string(t.State)}, Title: "The tap on " + name + " does not run", Why: strings.ToUpper(why[:1]) + why[1:] + "." + next, URL: link, Go: "Channel", weight: 70})
			case t.Loss.DroppedByAgent > 0 || t.Loss.DroppedByBroker > 0:
				var parts []string
				if n := t.Loss.DroppedByAgent; n > 0 {
					parts = append(parts, component.Plural(n, "copy")+" dropped by the agent")
				}
				if n := t.Loss.DroppedByBroker; n > 0 {
					parts = append(parts, component.Plural(n, "copy")+" dropped by the broker")
				}
				why := strings.ReplaceAll(strings.Join(parts, ", "), "copys", "copies")
				out = append(out, Need{State: caution("Lost copies"), Title: "The tap on " + name + " has losses", Why: why + ", of " + component.Count(t.Loss.Received) + " received. The messages themselves were delivered.", URL: link, Go: "Channel", weight: 40})
			}
		}
	}
	return out
}

func brokerList(a controlbus.AgentView) string {
	var names []string
	for _, b := range a.Brokers {
		names = append(names, component.Visible(b.Name))
	}
	if len(names) == 0 {
		return "its brokers"
	}
	return strings.Join(names, ", ")
}

func channelNeeds(v *page.View, f facts) []Need {
	var out []Need
	for i := range f.Channels {
		s := &f.Channels[i]
		st := channels.Judge(s, f.Now)
		name := component.Visible(s.Name)
		n := Need{URL: v.Channel(s.ChannelName), Go: "Channel"}
		waiting := channels.Backlog(s)
		switch {
		case st.Kind == component.Stop && st.Word == "no consumer":
			n.State, n.weight = stop("Stopped"), 75
			n.Title = "Nobody takes messages from " + name
			n.Why = component.Number(waiting) + " wait and it has no consumer"
			if s.PublishedS > 0 {
				n.Why += "; " + component.Rate(s.PublishedS) + "/s more arrive"
			}
			n.Why += "."
		case st.Kind == component.Stop && st.Word == "stopped":
			n.State, n.weight = stop("Stopped"), 76
			n.Title = name + " is stopped"
			n.Why = component.Number(waiting) + " wait, " + component.Rate(s.PublishedS) + "/s more arrive and " + component.Rate(s.DeliveredS) + "/s are taken; " + component.Number(s.Consumers) + " " + verb(int(s.Consumers), "consumer is", "consumers are") + " there."
		case st.Kind == component.Stop:
			n.State, n.weight = stop("Failing"), 72
			n.Title = "Most messages on " + name + " fail"
			n.Why = component.Count(s.Failed) + " of " + component.Count(s.Tapped) + " in this range."
		case st.Word == "dead letters":
			n.State, n.weight = caution("Dead letters"), 74
			n.Title = component.Number(waiting) + " dead letters wait in " + name
			n.Why = "Nothing takes them on by itself"
			if s.PublishedS > 0 {
				n.Why += "; " + component.Rate(s.PublishedS) + "/s more arrive"
			}
			n.Why += "."
		case st.Word == "some failed":
			n.State, n.weight = caution("Degraded"), 45
			n.Title = "Some messages on " + name + " fail"
			n.Why = component.Count(s.Failed) + " of " + component.Count(s.Tapped) + " in this range."
		case st.Word == "filling up":
			n.State, n.weight = caution("Filling up"), 50
			n.Title = name + " fills up"
			n.Why = component.Number(waiting) + " wait; " + component.Rate(s.PublishedS) + "/s arrive and " + component.Rate(s.DeliveredS) + "/s leave."
		default:
			continue
		}
		out = append(out, n)
	}
	return out
}

// sentence says the situation.
func sentence(f facts, needs []Need) string {
	var stopped []Need
	for _, n := range needs {
		if n.State.Kind == component.Stop || n.State.Kind == component.Failed {
			stopped = append(stopped, n)
		}
	}
	silent := 0
	for _, n := range needs {
		if n.State.Kind == component.Stale {
			silent++
		}
	}
	switch {
	case f.TotalsErr != nil || f.ChannelsErr != nil:
		return "The message store does not answer"
	case len(stopped) == 1:
		return lower(stopped[0].Title, len(needs) == 1)
	case len(stopped) > 1:
		return stopped[0].Title + ", and " + component.Plural(len(stopped)-1, "more thing") + " " + verb(len(stopped)-1, "has", "have") + " stopped"
	case silent > 0 && silent == len(f.Agents):
		return "No agent is heard from"
	case silent > 0:
		return component.Plural(silent, "agent") + " " + verb(silent, "is", "are") + " silent, the rest runs"
	case len(needs) == 1:
		return needs[0].Title + ", everything else runs"
	case len(needs) > 1:
		return "Everything moves, " + component.Count(len(needs)) + " things are not as they should be"
	case len(f.Channels) == 0 && f.Totals.Messages == 0:
		return "Nothing has passed yet"
	}
	return "Everything runs"
}

func lower(title string, alone bool) string {
	if alone {
		return title + ", everything else runs"
	}
	return title
}

func verb(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

func summary(f facts, needs int) string {
	brokers, clear := map[string]bool{}, 0
	for i := range f.Channels {
		brokers[f.Channels[i].Env+"\x00"+f.Channels[i].Broker] = true
		if k := channels.Judge(&f.Channels[i], f.Now).Kind; k == component.Clear || k == component.Off {
			clear++
		}
	}
	var parts []string
	switch needs {
	case 0:
		parts = append(parts, "Nothing needs a person.")
	case 1:
		parts = append(parts, "1 thing needs a person.")
	default:
		parts = append(parts, component.Count(needs)+" things need a person.")
	}
	if len(f.Channels) > 0 {
		parts = append(parts, component.Plural(len(f.Channels), "channel")+" on "+component.Plural(len(brokers), "broker")+", "+component.Count(clear)+" of them clear.")
	}
	return strings.Join(parts, " ")
}

func (m *view) figures(v *page.View, f facts) {
	t := f.Totals
	rate := math.NaN()
	if f.TotalsErr == nil {
		rate = mean(t.Rate)
	}
	waiting, biggest, where := 0.0, 0.0, ""
	known := false
	for i := range f.Channels {
		if b := channels.Backlog(&f.Channels[i]); !math.IsNaN(b) {
			known = true
			waiting += b
			if b > biggest {
				biggest, where = b, component.Visible(f.Channels[i].Name)
			}
		}
	}
	w := component.Figure{ID: "waiting", Name: "Waiting", Value: component.Number(waiting), URL: v.URL("/channels")}
	if !known {
		w.Value, w.Note = component.Unknown, "no broker described a channel"
	} else if where != "" {
		w.Note = "most in " + where
	}
	online := 0
	for _, a := range f.Agents {
		if a.Presence == controlbus.Online {
			online++
		}
	}
	values := func(points []storage.Point) []float64 {
		var out []float64
		for _, p := range points {
			out = append(out, p.Value)
		}
		return out
	}
	failed := component.Figure{ID: "failed", Name: "Failed", Value: component.Count(t.Failed), URL: v.URL("/messages", "q", "failed:true"), Spark: values(t.FailedRate), Note: share(t.Failed, t.Messages)}
	if t.Failed > 0 {
		failed.Tone = "bad"
	}
	agents := component.Figure{ID: "agents", Name: "Agents", Value: component.Count(online), Unit: "of " + component.Count(len(f.Agents)), URL: v.URL("/agents"), Note: "heard from"}
	if online < len(f.Agents) {
		agents.Tone = "bad"
	}
	seen := component.Count(t.Messages) + " in this range"
	if f.Yesterday.Messages > 0 {
		seen = "a day before " + component.Rate(mean(f.Yesterday.Rate)) + "/s"
	}
	m.Figures = []component.Figure{
		{ID: "rate", Name: "Messages seen", Value: component.Rate(rate), Unit: "/s", Spark: values(t.Rate), Note: seen, URL: v.URL("/messages")},
		w, failed,
		{ID: "size", Name: "Volume", Value: component.Size(int64(t.Bytes)), Note: "bodies that passed"},
		{ID: "telemetry", Name: "Spans and logs", Value: component.Count(t.Spans + t.Logs), Note: component.Count(t.Spans) + " spans, " + component.Count(t.Logs) + " logs"},
	}
	if f.HasLag {
		m.Figures = append(m.Figures, lagFigure(v, f.Lag))
	}
	if f.HasAgents {
		m.Figures = append(m.Figures, agents)
	}
	if f.TotalsErr != nil {
		for i := range m.Figures {
			if id := m.Figures[i].ID; id != "waiting" && id != "agents" && id != "lag" {
				m.Figures[i].Value, m.Figures[i].Unit, m.Figures[i].Note, m.Figures[i].Tone = component.Unknown, "", "the store does not answer", ""
			}
		}
	}
}

// mean is over what is known: times when nobody watched do not count as silent.
func mean(points []storage.Point) float64 {
	sum, n := 0.0, 0
	for _, p := range points {
		if !math.IsNaN(p.Value) {
			sum += p.Value
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return sum / float64(n)
}

func lagFigure(v *page.View, lag time.Duration) component.Figure {
	f := component.Figure{ID: "lag", Name: "Ingest lag", Value: component.Span(lag.Round(100 * time.Millisecond)), URL: v.URL("/health"), Note: "received and not stored yet"}
	switch {
	case lag < time.Second:
		f.Value, f.Note = "under 1", "everything received is stored"
		f.Unit = "s"
	case lag > 30*time.Second:
		f.Tone = "bad"
	case lag > 10*time.Second:
		f.Tone = "warn"
	}
	return f
}

// charts are what passed, beside the day before, and what failed of it.
func (m *view) charts(v *page.View, f facts) {
	var before []storage.Point
	for _, p := range f.Yesterday.Rate {
		before = append(before, storage.Point{Time: p.Time.Add(24 * time.Hour), Value: p.Value})
	}
	names, classes, series := []string{"messages"}, []string{"s1"}, [][]storage.Point{f.Totals.Rate}
	if f.Yesterday.Messages > 0 {
		names, classes, series = append(names, "a day before"), append(classes, "s2"), append(series, before)
	}
	rate := channels.MakeChart("rate", "Messages per second", "rate", names, classes, series...)
	var perMinute []storage.Point
	for _, p := range f.Totals.FailedRate {
		perMinute = append(perMinute, storage.Point{Time: p.Time, Value: p.Value * 60})
	}
	failed := channels.MakeChart("failed", "Failed per minute", "number", []string{"failed"}, []string{"sbad"}, perMinute)
	failed.Bars = true
	rate.Marks = chartMarks(v, f)
	m.Charts = []component.Chart{rate, failed}
	for i := range m.Charts {
		if f.TotalsErr != nil {
			m.Charts[i].Empty = "The store does not answer"
		}
	}
}

// failingRow is one of the channels that fail most.
type failingRow struct {
	Name, URL, SearchURL, Broker, Failed, Share string
	Last                                        time.Time
}

const maxFailing = 6

func (m *view) failing(v *page.View, f facts) {
	var list []storage.ChannelState
	for _, c := range f.Channels {
		if c.Failed > 0 {
			list = append(list, c)
		}
	}
	slices.SortStableFunc(list, func(a, b storage.ChannelState) int { return cmp.Compare(b.Failed, a.Failed) })
	m.FailingSub = "most failures first"
	if n := len(list); n > maxFailing {
		m.FailingSub = component.Count(maxFailing) + " of " + component.Count(n) + ", most failures first"
		list = list[:maxFailing]
	}
	for i := range list {
		c := &list[i]
		m.Failing = append(m.Failing, failingRow{
			Name: component.Visible(c.Name), Broker: component.Visible(c.Broker), URL: v.Channel(c.ChannelName),
			SearchURL: v.URL("/messages", "q", messages.Term("channel", c.Name)+" failed:true", "env", c.Env),
			Failed:    component.Count(c.Failed), Share: percent(c.Failed, c.Tapped), Last: c.LastMessage,
		})
	}
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return component.Unknown
	}
	p := 100 * float64(part) / float64(whole)
	switch {
	case p < 0.1:
		return "< 0.1"
	case p > 100: // several attempts of one message
		return "over 100"
	}
	return component.Rate(p)
}

func share(part, whole uint64) string {
	if whole == 0 || part == 0 {
		return "none in this range"
	}
	p := 100 * float64(part) / float64(whole)
	if p < 0.1 {
		return "under 0.1 % of what passed"
	}
	return component.Rate(p) + " % of what passed"
}
