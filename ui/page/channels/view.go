package channels

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
	"github.com/signalbox-dev/signalbox/ui/page/commands"
	"github.com/signalbox-dev/signalbox/ui/page/messages"
)

// Row is one channel in a table.
type Row struct {
	URL, Name, Broker, System, Kind string
	State                           component.State
	Waiting, In, Out, Cons          string
	Cells                           component.Cells
	Spark                           []float64
	Tapped, Failed                  string
	Tap                             component.State
	Last                            time.Time
	Bad                             bool

	backlog, in, failed float64
}

type listView struct {
	Rows  []Row
	Sub   string
	Heads []Head
	Empty *component.Empty
	Order string
}

// Head is a column that sorts.
type Head struct {
	Label, URL, Class, Sort string
}

// Backlog is what waits in a channel: messages, or a log's lag.
func Backlog(s *storage.ChannelState) float64 {
	if !math.IsNaN(s.Lag) && s.Lag > 0 && !(s.Ready > s.Lag) {
		return s.Lag
	}
	return s.Ready
}

// staleAfter is when a broker's description no longer counts as now.
const staleAfter = 2 * time.Minute

// DeadLetters says whether a channel's name is one that dead letter channels
// usually have. Nobody consumes from them, and that is as it should be; that
// something waits there is what a person should see.
func DeadLetters(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"dlq", "dlx", "dead-letter", "dead_letter", "deadletter", "dead.letter"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return strings.HasSuffix(name, ".dead") || strings.HasSuffix(name, "-dead") || strings.HasSuffix(name, "_error")
}

// standstill is how many must wait before a channel from which next to nothing
// leaves counts as stopped, and it must be ten seconds of what arrives: a few
// may be on their way.
const standstill = 20

// leaving is how fast messages are done with: acknowledged where the broker
// counts that, for what is delivered again and again does not leave.
func leaving(s *storage.ChannelState) float64 {
	if !math.IsNaN(s.AckedS) {
		return s.AckedS
	}
	return s.DeliveredS
}

// Judge says how a channel stands.
func Judge(s *storage.ChannelState, now time.Time) component.State {
	backlog := Backlog(s)
	switch {
	case s.SeenAt.IsZero() && s.Tapped == 0:
		return component.State{Kind: component.Stale, Word: "no data"}
	case !s.SeenAt.IsZero() && now.Sub(s.SeenAt) > staleAfter:
		return component.State{Kind: component.Stale, Word: "not reported for " + component.Span(now.Sub(s.SeenAt).Round(time.Second))}
	case backlog > 0 && DeadLetters(s.Name):
		return component.State{Kind: component.Caution, Word: "dead letters"}
	case backlog > 0 && s.Consumers == 0:
		return component.State{Kind: component.Stop, Word: "no consumer"}
	case DeadLetters(s.Name): // what arrives here failed elsewhere
		return component.State{Kind: component.Off, Word: "empty"}
	case backlog >= standstill && s.PublishedS > 0 && leaving(s) < s.PublishedS/10 && backlog >= 10*s.PublishedS:
		return component.State{Kind: component.Stop, Word: "stopped"}
	case s.Failed > 0 && s.Tapped > 0 && s.Failed*2 >= s.Tapped:
		return component.State{Kind: component.Stop, Word: "failing"}
	case s.Failed > 0:
		return component.State{Kind: component.Caution, Word: "some failed"}
	case backlog >= 100 && s.PublishedS > 1.2*s.DeliveredS && backlog >= 20*(s.PublishedS-s.DeliveredS):
		// Some channels pass messages that none of their consumers takes. What
		// waits must be what 20 s of the difference would leave.
		return component.State{Kind: component.Caution, Word: "filling up"}
	case s.Tapped == 0 && !(s.PublishedS > 0) && !(s.DeliveredS > 0):
		return component.State{Kind: component.Off, Word: "quiet"}
	}
	return component.State{Kind: component.Clear, Word: "flowing"}
}

// MakeRows builds rows, worst or largest first.
func MakeRows(v *page.View, states []storage.ChannelState, agents []controlbus.AgentView, sort string) []Row {
	peak := 0.0
	for i := range states {
		if b := Backlog(&states[i]); b > peak {
			peak = b
		}
	}
	taps := tapIndex(agents)
	rows := make([]Row, 0, len(states))
	for i := range states {
		s := &states[i]
		b := Backlog(s)
		r := Row{
			URL: v.Channel(s.ChannelName), Name: component.Visible(s.Name), Broker: component.Visible(s.Broker), System: page.System(s.System),
			Kind: component.Visible(s.Kind), State: Judge(s, v.Now), Spark: s.Spark, Last: s.LastMessage,
			Waiting: component.Number(b), In: component.Rate(s.PublishedS), Out: component.Rate(s.DeliveredS),
			Cons: component.Number(s.Consumers), Tapped: component.Count(s.Tapped), Failed: component.Count(s.Failed),
			Cells: component.LitCells(b, peak), backlog: b, in: s.PublishedS, failed: float64(s.Failed),
		}
		r.Bad = r.State.Kind == component.Stop
		if r.State.Kind == component.Clear || r.State.Kind == component.Off {
			r.Cells.Tone = "" // the largest of backlogs that flow is no trouble
		}
		r.Tap = tapState(taps[key(s.Env, s.Broker, s.Name)], s.Tapped)
		rows = append(rows, r)
	}
	desc := func(f func(Row) float64) func(a, b Row) int {
		return func(a, b Row) int {
			x, y := f(a), f(b)
			if math.IsNaN(x) {
				x = -1
			}
			if math.IsNaN(y) {
				y = -1
			}
			return cmp.Or(cmp.Compare(y, x), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Broker, b.Broker))
		}
	}
	switch sort {
	case "name":
		slices.SortFunc(rows, func(a, b Row) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Broker, b.Broker)) })
	case "in":
		slices.SortFunc(rows, desc(func(r Row) float64 { return r.in }))
	case "failed":
		slices.SortFunc(rows, desc(func(r Row) float64 { return r.failed }))
	default:
		slices.SortFunc(rows, desc(func(r Row) float64 { return r.backlog }))
	}
	return rows
}

func key(env, broker, name string) string { return env + "\x00" + broker + "\x00" + name }

func tapIndex(agents []controlbus.AgentView) map[string]*controlbus.TapStatus {
	out := map[string]*controlbus.TapStatus{}
	for i := range agents {
		for j := range agents[i].Taps {
			t := &agents[i].Taps[j]
			k := key(agents[i].Env, t.Spec.Broker, t.Channel)
			if old := out[k]; old == nil || old.State != controlbus.TapRunning {
				out[k] = t
			}
		}
	}
	return out
}

// TapWord is a tap's state with its mark.
func TapWord(s controlbus.TapState) component.State {
	switch s {
	case controlbus.TapRunning:
		return component.State{Kind: component.Running, Word: "running"}
	case controlbus.TapStarting:
		return component.State{Kind: component.Held, Word: "starting"}
	case controlbus.TapRefused:
		return component.State{Kind: component.Stop, Word: "refused"}
	case controlbus.TapBroken:
		return component.State{Kind: component.Failed, Word: "broken"}
	}
	return component.State{Kind: component.Off, Word: "ended"}
}

func tapState(t *controlbus.TapStatus, seen uint64) component.State {
	switch {
	case t == nil && seen > 0:
		return component.State{Kind: component.Off, Word: "was tapped"}
	case t == nil:
		return component.State{Kind: component.Off, Word: "no"}
	case t.State == controlbus.TapRunning:
		return component.State{Kind: component.Running, Word: "tapped"}
	}
	return TapWord(t.State)
}

func buildList(v *page.View, states []storage.ChannelState, agents []controlbus.AgentView, err error) listView {
	sort := v.Form.Get("sort")
	m := listView{Rows: MakeRows(v, states, agents, sort), Order: "largest backlog first"}
	for _, h := range [][3]string{{"", "Waiting", "num"}, {"name", "Channel", ""}, {"in", "In /s", "num"}, {"failed", "Failed", "num"}} {
		head := Head{Label: h[1], URL: v.With("sort", h[0]), Class: h[2]}
		if h[0] == sort {
			head.Sort = "descending"
			if sort == "name" {
				head.Sort, m.Order = "ascending", "by name"
			} else if sort != "" {
				m.Order = "most " + strings.ToLower(strings.TrimSuffix(h[1], " /s")) + " first"
			}
		}
		m.Heads = append(m.Heads, head)
	}
	brokers := map[string]bool{}
	for _, r := range m.Rows {
		brokers[r.Broker] = true
	}
	m.Sub = component.Plural(len(m.Rows), "channel") + " on " + component.Plural(len(brokers), "broker")
	switch {
	case err != nil:
		m.Sub = "The store does not answer."
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Stop, Word: "Down"}, Title: "Channels cannot be read", Text: component.Visible(err.Error()), Links: []component.Option{{Label: "Try again", URL: v.With()}}}
	case len(m.Rows) == 0 && v.Query != "":
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Off, Word: "Nothing matched"}, Title: "No channel has " + component.Visible(v.Query) + " in its name", Text: "Names are matched as the broker writes them; * stands for anything.", Links: []component.Option{{Label: "All channels", URL: v.With("q", "")}}}
	case len(m.Rows) == 0 && len(agents) == 0:
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Off, Word: "Not configured"}, Title: "No agent has reported yet", Text: "An agent beside each broker describes its channels and taps them. Start one with the address of this console and a broker in its configuration:", Command: "signalbox-agent --config agent.yaml"}
	case len(m.Rows) == 0:
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Stale, Word: "No data"}, Title: "No channel was seen in this range", Text: "Agents are known, but none described a channel in this environment and time.", Links: []component.Option{{Label: "Agents", URL: v.URL("/agents")}, {Label: "Last 24 hours", URL: v.With("range", "24h", "from", "", "to", "")}}}
	}
	return m
}

// --- one channel ---

type channelView struct {
	Name, Broker, System, Kind string
	State                      component.State
	ListURL, LiveURL, FindURL  string
	Live                       bool
	Figures                    []component.Figure
	Charts                     []component.Chart
	Taps                       []TapRow
	CanTap                     bool
	NoTap                      string // why not
	TapAction, UntapAction     string
	Hidden                     []component.Pair
	Latest                     []messages.Row
	LatestDown                 string
	Told                       string
	Sub                        string

	First, More []commands.Act    // buttons of the control bus
	Detours     []templ.Component // what stands in its way
	Recent      templ.Component   // commands on it; nil: none
}

// TapRow is a tap on this channel.
type TapRow struct {
	ID, Agent, AgentName, Technique string
	State                           component.State
	Error                           string
	Received                        string
	ByAgent, ByBroker, Blind        string
	Notes                           string
	Until, Since                    time.Time
	Owner, Reason                   string
	Console                         bool
}

func (m *channelView) fill(v *page.View, ch controlbus.ChannelName) {
	m.ListURL = v.URL("/channels")
	q := messages.Term("channel", ch.Name) + " " + messages.Term("broker", ch.Broker)
	m.LiveURL, m.FindURL = v.URL("/live", "q", q, "env", ch.Env), v.URL("/messages", "q", q, "env", ch.Env)
	m.TapAction, m.UntapAction = v.URL("/channel/tap"), v.URL("/channel/untap")
	m.Hidden = []component.Pair{{Name: "env", Value: ch.Env}, {Name: "system", Value: ch.System}, {Name: "broker", Value: ch.Broker}, {Name: "name", Value: ch.Name}}
}

func values(points []storage.Point) []float64 {
	out := make([]float64, len(points))
	for i, p := range points {
		out[i] = p.Value
	}
	return out
}

func (m *channelView) now(v *page.View, s *storage.ChannelState, series storage.ChannelSeries) {
	period := strings.ToLower(v.RangeLabel()[:1]) + v.RangeLabel()[1:]
	if s == nil {
		m.State = component.State{Kind: component.Stale, Word: "No data"}
		m.Sub = "Neither its broker nor a tap told of this channel in the " + period + "."
		return
	}
	m.State, m.Kind = Judge(s, v.Now), component.Visible(s.Kind)
	m.State.Word = strings.ToUpper(m.State.Word[:1]) + m.State.Word[1:]
	b := Backlog(s)
	waiting := component.Figure{ID: "waiting", Name: "Waiting", Value: component.Number(b), Spark: values(series.Ready), Note: "by the broker"}
	if !math.IsNaN(s.Bytes) && s.Bytes > 0 {
		waiting.Note = component.Size(int64(s.Bytes)) + " by the broker"
	}
	consumers := component.Figure{ID: "consumers", Name: "Consumers", Value: component.Number(s.Consumers)}
	if b > 0 && s.Consumers == 0 && !DeadLetters(s.Name) {
		waiting.Tone, consumers.Tone, consumers.Note = "bad", "bad", "nobody takes them"
	}
	failed := component.Figure{ID: "failed", Name: "Failed", Value: component.Count(s.Failed), Unit: "of " + component.Count(s.Tapped), Spark: values(series.Failed), Note: period}
	if s.Failed > 0 {
		failed.Tone = "bad"
	}
	m.Figures = []component.Figure{
		waiting,
		{ID: "unsettled", Name: "Unsettled", Value: component.Number(s.Unacked), Note: "delivered, not acknowledged"},
		{ID: "in", Name: "In", Value: component.Rate(s.PublishedS), Unit: "/s", Spark: values(series.Rate), Note: "by the broker's counters"},
		{ID: "out", Name: "Out", Value: component.Rate(s.DeliveredS), Unit: "/s", Note: acked(s.AckedS)},
		consumers, failed,
	}
	if s.SeenAt.IsZero() {
		m.Sub = "Known from its traffic only: no agent describes this broker."
	} else {
		m.Sub = "The broker described it " + component.Span(v.Now.Sub(s.SeenAt).Round(time.Second)) + " ago."
	}
}

func acked(rate float64) string {
	if math.IsNaN(rate) {
		return "delivered, by the broker's counters"
	}
	return "acknowledged " + component.Rate(rate) + "/s"
}

func (m *channelView) charts(s storage.ChannelSeries) {
	traffic := MakeChart("rate", "Messages per second", "rate", []string{"seen", "failed"}, []string{"s1", "sbad"}, s.Rate, s.Failed)
	backlog := MakeChart("backlog", "Backlog", "number", []string{"waiting", "unsettled"}, []string{"s1", "s2"}, s.Ready, s.Unacked)
	backlog.Fill = true
	latency := MakeChart("latency", "Latency", "seconds", []string{"median", "99 %"}, []string{"s2", "s1"}, s.P50, s.P99)
	size := MakeChart("bytes", "Bytes per second", "bytes", []string{"bytes"}, []string{"s3"}, s.Bytes)
	m.Charts = []component.Chart{traffic, backlog, latency, size}
}

// MakeChart builds a chart over the times of the longest series.
func MakeChart(id, title, format string, names, classes []string, series ...[]storage.Point) component.Chart {
	c := component.Chart{ID: id, Title: title, Format: format}
	var longest []storage.Point
	for _, s := range series {
		if len(s) > len(longest) {
			longest = s
		}
	}
	for _, p := range longest {
		c.Times = append(c.Times, p.Time)
	}
	c.Times = sinceFirst(c.Times, series)
	any := false
	var told []string
	for i, s := range series {
		at := map[int64]float64{}
		for _, p := range s {
			at[p.Time.Unix()] = p.Value
		}
		l := component.ChartLine{Name: names[i], Class: classes[i], Values: make([]float64, len(c.Times))}
		top, last := math.NaN(), math.NaN()
		for j, t := range c.Times {
			val, ok := at[t.Unix()]
			if !ok {
				val = math.NaN()
			}
			l.Values[j] = val
			if !math.IsNaN(val) {
				last = val
				if !(top >= val) {
					top = val
				}
			}
		}
		if !math.IsNaN(last) {
			any = true
			told = append(told, names[i]+" now "+Value(format, last)+", at most "+Value(format, top))
		}
		c.Lines = append(c.Lines, l)
	}
	if !any {
		c.Empty = "Nothing was measured in this range"
		return c
	}
	c.Summary = strings.Join(told, "; ") + "."
	c.Summary = strings.ToUpper(c.Summary[:1]) + c.Summary[1:]
	return c
}

// sinceFirst leaves out the time before the first value where that is most of
// the range: a system that has just begun has a shape too.
func sinceFirst(times []time.Time, series [][]storage.Point) []time.Time {
	begin := int64(math.MaxInt64)
	for _, s := range series {
		for _, p := range s {
			if !math.IsNaN(p.Value) {
				begin = min(begin, p.Time.Unix())
				break
			}
		}
	}
	for i, t := range times {
		if t.Unix() >= begin {
			if i*4 > len(times)*3 && len(times)-i > 1 {
				return times[i:]
			}
			break
		}
	}
	return times
}

// Value writes one value of a chart.
func Value(format string, f float64) string {
	switch format {
	case "seconds":
		return component.Span(time.Duration(f * 1e9))
	case "bytes":
		return component.Size(int64(f)) + "/s"
	case "rate":
		return component.Rate(f) + "/s"
	}
	return component.Number(f)
}

func (m *channelView) taps(v *page.View, ch controlbus.ChannelName, agents []controlbus.AgentView, can bool) {
	running := false
	for i := range agents {
		a := &agents[i]
		if ch.Env != "" && a.Env != ch.Env {
			continue
		}
		for j := range a.Taps {
			t := &a.Taps[j]
			if t.Spec.Broker != ch.Broker || t.Channel != ch.Name {
				continue
			}
			row := LossRow(t)
			row.Agent, row.AgentName = a.ID, component.Visible(a.ID)
			if a.Presence == controlbus.Silent {
				row.State = component.State{Kind: component.Stale, Word: "agent silent"}
			}
			running = running || t.State == controlbus.TapRunning || t.State == controlbus.TapStarting
			m.Taps = append(m.Taps, row)
		}
	}
	switch {
	case !can:
		m.NoTap = "This console cannot start taps."
	case running:
		m.NoTap = "It is tapped already."
	case agentFor(agents, ch) == nil:
		m.NoTap = "No agent that can tap is connected to broker " + component.Visible(ch.Broker) + "."
	default:
		m.CanTap = true
	}
}

// notes makes sentences of what an adapter says of its tap.
func notes(list []string) string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = n
		if n != "" && !strings.HasSuffix(n, ".") {
			out[i] += "."
		}
	}
	return strings.Join(out, " ")
}

// LossRow says how a tap stands and what it missed. The three kinds of loss
// mean different things and are never added up.
func LossRow(t *controlbus.TapStatus) TapRow {
	row := TapRow{
		ID: t.Spec.ID, State: TapWord(t.State), Technique: component.Visible(t.Technique), Error: component.Visible(t.Error),
		Received: component.Count(t.Loss.Received), ByAgent: component.Count(t.Loss.DroppedByAgent), ByBroker: component.Count(t.Loss.DroppedByBroker),
		Blind: "0", Until: t.Spec.Until, Since: t.Since, Owner: component.Visible(t.Spec.Owner), Reason: component.Visible(t.Spec.Reason),
		Console: t.Spec.Origin == "console", Notes: component.Visible(notes(t.Notes)),
	}
	if t.Loss.DroppedByBroker < 0 {
		row.ByBroker = "not told"
	}
	if t.Loss.Blind > 0 {
		row.Blind = component.Span(t.Loss.Blind.Round(time.Millisecond)) + " in " + component.Plural(t.Loss.Gaps, "gap")
	}
	return row
}

func (m *channelView) latest(v *page.View, found storage.MessagePage, err error) {
	if err != nil {
		m.LatestDown = component.Visible(err.Error())
		return
	}
	for i := range found.Messages {
		m.Latest = append(m.Latest, messages.MakeRow(v, &found.Messages[i], ""))
	}
}
