// Package component holds the templ components that pages share and the frame
// around every page. It is pure: components take finished view models, do no
// I/O and know neither stores nor requests. Text from outside reaches them
// through Visible.
package component

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"
)

// Shell is the frame around a page.
type Shell struct {
	Title   string // of the browser tab
	Area    string // of the navigation: "channels"
	Theme   string // "light", "dark", or empty: as the system has it
	Narrow  bool   // navigation collapsed
	Density string // of rows: "compact", "comfortable", or empty
	Zone    string // chosen time zone; empty: the browser's
	Help    string // what this page shows
	Version string

	Env   EnvView
	Range RangeView
	Nav   []NavItem
	// Filter is nil on pages that have nothing to filter.
	Filter *FilterView

	User string // who is signed in
	Open bool   // nobody signs in on this console
	// Still is a page that belongs to no environment and no time.
	Still bool

	Here    string // path and query of this page, for the way back
	Refresh bool   // numbers are replaced in place
	Seconds string // between refreshes
	TookAt  time.Time

	CSS, JS, Favicon string // empty: assets are not built
	Config           string // htmx configuration
}

// EnvView is the environment tag and its menu.
type EnvView struct {
	Name    string // empty: all environments
	Level   string // production, staging, test, development; sets colour and pattern
	Options []Option
}

// Label is the name shown.
func (e EnvView) Label() string {
	if e.Name == "" {
		return "all environments"
	}
	return e.Name
}

// RangeView is the time range and its menu.
type RangeView struct {
	Label    string
	Fixed    bool // from Start to End, written in the reader's zone; else Label says it
	Start    time.Time
	End      time.Time
	Options  []Option
	Action   string // of the form for other ranges
	Kept     []Pair // hidden fields of that form
	From, To string // RFC 3339, of the present range
}

// Option is one choice of a menu.
type Option struct {
	Label, URL, Level string
	Current           bool
}

// Pair is a name with a value.
type Pair struct{ Name, Value string }

// NavItem is one page of the navigation.
type NavItem struct {
	Area, Label, Icon, URL string
	Group                  string // heading before it; empty: the group before goes on
	Key                    string // g then this key goes there
	Count                  int    // where a person should act
	Hot                    bool   // broken now
}

// FilterView is the bar's filter, which is the page's filter.
type FilterView struct {
	Action, Label, Hint, Value string
	Kept                       []Pair
	Coded                      bool   // monospace
	Wrong                      bool   // could not be read; the page says why
	Suggestions                []Pair // value, meaning: offered by the browser
	// Complete is asked for completions at the cursor; WrongFrom and WrongTo are
	// where the filter is wrong, in UTF-16 units.
	Complete, WrongFrom, WrongTo string
}

// completes are the attributes of a box that completes.
func completes(f FilterView) templ.Attributes {
	a := templ.Attributes{}
	if f.Complete != "" {
		a["data-complete"] = f.Complete
	}
	if f.WrongFrom != "" {
		a["data-wrong-from"], a["data-wrong-to"] = f.WrongFrom, f.WrongTo
	}
	return a
}

// State is a state's mark, colour and word.
type State struct {
	Kind Kind
	Word string
}

// Kind is one of the fourteen marks.
type Kind string

// Marks. Each has a shape of its own, so that colour is never the only sign.
const (
	Clear     Kind = "clear"
	Caution   Kind = "caution"
	Stop      Kind = "stop"
	Forced    Kind = "forced"
	Stale     Kind = "stale"
	Doubt     Kind = "doubt"
	Off       Kind = "off"
	Running   Kind = "running"
	Held      Kind = "held"
	Person    Kind = "person"
	Done      Kind = "done"
	DoneAgain Kind = "done-again"
	Failed    Kind = "failed"
	FailAgain Kind = "fail-again"
)

// Class is the colour of a mark.
func (k Kind) Class() string {
	switch k {
	case Clear, Done, DoneAgain:
		return "is-clear"
	case Caution, Doubt:
		return "is-caution"
	case Stop, Failed, FailAgain:
		return "is-stop"
	case Running:
		return "is-move"
	case Forced, Held, Person:
		return "is-held"
	}
	return "is-off"
}

// Figure is a key figure.
type Figure struct {
	Name, Value, Unit, Note string
	URL                     string
	Tone                    string // "", "bad", "warn"
	Spark                   []float64
	ID                      string // live figures are found by it
}

// Empty is an empty state of one of four kinds: not configured, no data, down,
// nothing wrong.
type Empty struct {
	Mark    State
	Title   string
	Text    string
	Command string // exact, to copy
	Links   []Option
}

// Chart is a line chart. Its table is the data: the browser's chart reads it.
type Chart struct {
	ID, Title, Unit string
	Sub             string
	Summary         string // one sentence, the text alternative
	Lines           []ChartLine
	Fill            bool
	Bars            bool   // instead of lines
	Empty           string // why there is nothing to draw
	Times           []time.Time
	Marks           []ChartMark
	Format          string // number, rate, seconds, bytes: how the axis is written
}

// ChartMark is something that happened, as a line across a chart.
type ChartMark struct {
	At    time.Time
	Label string
}

// within are the marks that fall into the chart's time.
func (c Chart) within() []ChartMark {
	var out []ChartMark
	for _, m := range c.Marks {
		if n := len(c.Times); n > 1 && !m.At.Before(c.Times[0]) && !m.At.After(c.Times[n-1].Add(c.Times[1].Sub(c.Times[0]))) {
			out = append(out, m)
		}
	}
	return out
}

// at is where a mark stands in the server's shape.
func (c Chart) at(m ChartMark) string {
	first, last := c.Times[0], c.Times[len(c.Times)-1]
	x := min(stillW*m.At.Sub(first).Seconds()/max(last.Sub(first).Seconds(), 1), stillW)
	return "M" + strconv.FormatFloat(x, 'f', 1, 64) + " 0V" + strconv.FormatFloat(stillH, 'f', 0, 64)
}

// ChartLine is one series; Values has one entry per time, NaN for no data.
type ChartLine struct {
	Name, Class string
	Values      []float64
}

// stillSize is the view box of the shapes that the server draws.
const stillW, stillH = 600.0, 100.0

func (c Chart) top() float64 {
	top := 0.0
	for _, l := range c.Lines {
		for _, v := range l.Values {
			if v > top {
				top = v
			}
		}
	}
	if top == 0 {
		return 1
	}
	return top
}

func (c Chart) path(l ChartLine) string {
	if c.Bars {
		return barPath(l.Values, c.top(), stillW, stillH)
	}
	return linePath(l.Values, 0, c.top(), stillW, stillH)
}

// barPath draws values as strokes from the ground up.
func barPath(values []float64, high, w, h float64) string {
	var b strings.Builder
	step := w / float64(max(len(values), 1))
	for i, v := range values {
		if v > 0 && !math.IsInf(v, 0) {
			b.WriteString("M" + strconv.FormatFloat((float64(i)+.5)*step, 'f', 1, 64) + " " + strconv.FormatFloat(h, 'f', 1, 64) + "V" + strconv.FormatFloat(h-v/high*h, 'f', 1, 64))
		}
	}
	return b.String()
}

// sparkPath scales a series to its own range, zero-based unless it never comes
// near zero.
func sparkPath(values []float64) string {
	// Where most of the range is before the first value, it begins there.
	for i, v := range values {
		if !math.IsNaN(v) {
			if i*4 > len(values)*3 && len(values)-i > 1 {
				values = values[i:]
			}
			break
		}
	}
	top := 0.0
	for _, v := range values {
		if v > top {
			top = v
		}
	}
	if top == 0 {
		top = 1
	}
	return linePath(values, 0, top, 60, 20)
}

// linePath draws values from left to right and leaves gaps where there are none.
func linePath(values []float64, low, high, w, h float64) string {
	if len(values) < 2 {
		return ""
	}
	var b strings.Builder
	step := w / float64(len(values)-1)
	pen := false
	for i, v := range values {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			pen = false
			continue
		}
		if pen {
			b.WriteByte('L')
		} else {
			b.WriteByte('M')
		}
		x, y := float64(i)*step, h-(v-low)/(high-low)*h
		b.WriteString(strconv.FormatFloat(x, 'f', 1, 64))
		b.WriteByte(' ')
		b.WriteString(strconv.FormatFloat(y, 'f', 1, 64))
		if next := i + 1; !pen && (next == len(values) || math.IsNaN(values[next])) {
			b.WriteString("h.1") // a lone point is still seen
		}
		pen = true
	}
	return b.String()
}

func (c Chart) cell(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

// Cells are the ten lit cells of a backlog.
type Cells struct {
	Lit  int
	Tone string // "", "warm", "full"
}

// LitCells lights cells by the share of the peak.
func LitCells(now, peak float64) Cells {
	if math.IsNaN(now) || now <= 0 || peak <= 0 {
		return Cells{}
	}
	share := min(now/peak, 1)
	c := Cells{Lit: max(1, int(math.Round(share*10)))}
	switch {
	case share >= .9:
		c.Tone = "full"
	case share >= .5:
		c.Tone = "warm"
	}
	return c
}

// Clock kinds for Time: how the browser writes it in the reader's zone.
const (
	Second = "second" // 14:20:58
	Milli  = "milli"  // 14:20:58.114
	Minute = "minute" // 14:20
	Day    = "day"    // 21 Nov 14:20:58
	Date   = "date"   // 21 Nov
	Ago    = "ago"    // 2 min ago
)

// clock is how the ends of a range are written in its menu.
func (r RangeView) clock() string {
	switch d := r.End.Sub(r.Start); {
	case d > 24*time.Hour, r.Start.Before(time.Now().Add(-18 * time.Hour)):
		return Day
	case d < 10*time.Second:
		return Milli
	}
	return Second
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func choose(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

// current is the value of aria-current; templ leaves out false attributes only
// where they are boolean, and "false" means the same as none.
func current(is bool) string { return choose(is, "page", "false") }

func refreshURL(s Shell) string {
	if s.Refresh {
		return s.Here
	}
	return ""
}

// short is what of the navigation fits a phone's bar; the rest is under More.
func short(nav []NavItem) []NavItem {
	if len(nav) <= 5 {
		return nav
	}
	return nav[:4]
}

func among(nav []NavItem, area string) bool {
	for _, n := range nav {
		if n.Area == area {
			return true
		}
	}
	return false
}
