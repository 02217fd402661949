package messages

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// histView is the histogram above a result.
type histView struct {
	Load   string // the fragment's address, where the histogram is to be fetched
	Inline string // this page with the histogram in it, for readers without script
	Moving bool   // the range moves on: a fetched histogram is fetched again

	Title, Sub string
	Summary    string // one sentence, the text alternative
	Levels     []string
	Bars       []histBar
	Ticks      []histTick
	Unseen     []histSpan // not counted
	Zoom       string     // address without a range; script adds from and to
	Wider      string
	Clock      string
	Step       string
	Down       string
	Partial    bool
	From, To   time.Time // what was not counted
	None       bool      // nothing to draw
}

type histBar struct {
	URL, Title                  string
	From, To                    time.Time
	N, Failed                   uint64
	X, W, Y, H, BadY, BadH, Hit string
	HitX                        string
	Unsure                      bool
}

type histTick struct {
	X, Text string
	At      time.Time
}

type histSpan struct{ X, W string }

var histSteps = []time.Duration{
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
	30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
}

const maxBars = 96

// histStep is the finest step of which no more than maxBars fill a range.
func histStep(d time.Duration) time.Duration {
	for _, s := range histSteps {
		if d <= s*maxBars {
			return s
		}
	}
	return histSteps[len(histSteps)-1]
}

var histTicks = []time.Duration{
	time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
	10 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 4 * time.Hour, 6 * time.Hour,
	24 * time.Hour, 2 * 24 * time.Hour, 5 * 24 * time.Hour, 7 * 24 * time.Hour, 14 * 24 * time.Hour, 28 * 24 * time.Hour, 84 * 24 * time.Hour,
}

// histClock is how a range's times are written: as briefly as they stay apart.
func histClock(d time.Duration) string {
	switch {
	case d <= 20*time.Second:
		return component.Milli
	case d <= 10*time.Minute:
		return component.Second
	case d <= 36*time.Hour:
		return component.Minute
	}
	return component.Date
}

// laterHist stands where the histogram will be fetched to.
func laterHist(v *page.View) *histView {
	return &histView{
		Load: strings.Replace(v.With("cursor", "", "count", ""), "/messages", "/messages/histogram", 1), Inline: v.With("count", "1"),
		Moving: v.Relative(), Title: "Over time", Sub: "counting matches over the whole range",
	}
}

func makeHist(v *page.View, q storage.MessageQuery, h storage.Histogram, err error) *histView {
	m := &histView{Title: "Over time", Moving: v.Relative(), Clock: histClock(v.Range.Duration())}
	if !q.Summed() {
		m.Load = laterHist(v).Load
	}
	if err != nil {
		m.Down = reason(err)
		return m
	}
	m.Partial = h.Scan.Stopped == storage.StopDeadline
	m.Step = stepWord(h.Step)
	m.None = h.Messages == 0 && !m.Partial
	m.Title = component.Plural(h.Messages, "message")
	m.Sub = "per " + m.Step
	if h.Failed > 0 {
		m.Sub = component.Count(h.Failed) + " did not end well, " + m.Sub
	}
	m.Summary = fmt.Sprintf("%s in steps of %s, %s of them did not end well.", m.Title, m.Step, component.Count(h.Failed))
	switch {
	case m.Partial && h.AtMost:
		m.Title = "About " + m.Title
	case m.Partial:
		m.Title = "At least " + m.Title
	case h.AtMost:
		m.Title = "At most " + m.Title
		m.Summary += " Some may not match: their bodies were not looked into one by one."
	}
	if m.Partial {
		m.From, m.To = v.Range.From, h.Counted.From
		if q.Order == storage.OldestFirst {
			m.From, m.To = h.Counted.To, v.Range.To
		}
		m.Summary += " Not everything was counted."
	}
	m.Zoom = v.With("from", "", "to", "", "range", "", "count", "")
	if d := v.Range.Duration(); d < 200*24*time.Hour {
		from, to := v.Range.From.Add(-d/2), v.Range.To.Add(d/2)
		if to.After(v.Now) {
			from, to = from.Add(v.Now.Sub(to)), v.Now
		}
		m.Wider = zoomURL(v, from, to)
	}
	m.draw(v, h)
	return m
}

func zoomURL(v *page.View, from, to time.Time) string {
	return v.With("range", "", "count", "", "from", from.UTC().Format(time.RFC3339Nano), "to", to.UTC().Format(time.RFC3339Nano))
}

func (m *histView) draw(v *page.View, h storage.Histogram) {
	most := uint64(0)
	for _, b := range h.Bars {
		most = max(most, b.Messages)
	}
	top := niceTop(most)
	m.Levels = []string{axis(top), axis(top / 2), "0"}
	from, d := v.Range.From, v.Range.Duration()
	share := func(t time.Time) float64 { return 100 * min(max(float64(t.Sub(from))/float64(d), 0), 1) }
	clock := func(t time.Time) string {
		t = t.In(v.Zone)
		switch m.Clock {
		case component.Milli:
			return t.Format("15:04:05.000")
		case component.Date:
			return t.Format("2 Jan 15:04")
		}
		return t.Format("15:04:05")
	}
	for _, b := range h.Bars {
		start, end := b.Time, b.Time.Add(h.Step)
		if start.Before(v.Range.From) {
			start = v.Range.From
		}
		if end.After(v.Range.To) {
			end = v.Range.To
		}
		x, w := share(start), share(end)-share(start)
		height := func(n uint64) float64 {
			if n == 0 {
				return 0
			}
			return max(1.5, 100*float64(n)/top) // one message is seen beside a million
		}
		bad, all := height(b.Failed), height(b.Messages)
		if b.Messages > b.Failed {
			all = max(all, bad+1.5)
		}
		out := histBar{
			URL: zoomURL(v, start, end), From: start, To: end, N: b.Messages, Failed: b.Failed, Unsure: !b.Counted,
			Title: fmt.Sprintf("%s to %s %s: %s, %s did not end well", clock(start), clock(end), end.In(v.Zone).Format("MST"), component.Plural(b.Messages, "message"), component.Count(b.Failed)),
			HitX:  pct(x), Hit: pct(w), X: pct(x + w*.08), W: pct(w * .84), Y: pct(100 - all), H: pct(all - bad), BadY: pct(100 - bad), BadH: pct(bad),
		}
		if !b.Counted {
			out.Title += ", not wholly counted"
			if n := len(m.Unseen); n > 0 && m.Bars[len(m.Bars)-1].Unsure {
				last := &m.Unseen[n-1]
				at, _ := strconv.ParseFloat(strings.TrimSuffix(last.X, "%"), 64)
				last.W = pct(x + w - at)
			} else {
				m.Unseen = append(m.Unseen, histSpan{pct(x), pct(w)})
			}
		}
		m.Bars = append(m.Bars, out)
	}
	every := histTicks[len(histTicks)-1]
	for _, t := range histTicks {
		if d <= 7*t && (m.Clock != component.Date || t >= 24*time.Hour) {
			every = t
			break
		}
	}
	for t := from.Truncate(every); t.Before(v.Range.To); t = t.Add(every) {
		if x := share(t); x > 2 && x < 97.5 { // not over the corners
			m.Ticks = append(m.Ticks, histTick{pct(x), component.ClockIn(t, m.Clock, v.Zone), t})
		}
	}
}

func pct(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) + "%" }

// niceTop is the top of an axis that holds n: 2, 4 or 10 times a power of ten.
func niceTop(n uint64) float64 {
	if n <= 2 {
		return 2
	}
	p := math.Pow(10, math.Floor(math.Log10(float64(n))))
	for _, f := range []float64{1, 2, 4, 6, 8, 10} {
		if float64(n) <= f*p {
			return f * p
		}
	}
	return 10 * p
}

func axis(f float64) string {
	for _, u := range []struct {
		at   float64
		name string
	}{{1e9, " G"}, {1e6, " M"}, {1e3, " k"}} {
		if f >= u.at {
			return strconv.FormatFloat(f/u.at, 'g', 3, 64) + u.name
		}
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}

func stepWord(d time.Duration) string {
	words := map[time.Duration]string{time.Second: "second", time.Minute: "minute", time.Hour: "hour", 24 * time.Hour: "day", 7 * 24 * time.Hour: "week"}
	if w, ok := words[d]; ok {
		return w
	}
	return component.Span(d)
}

// histogram is the fragment that the page fetches.
func (p *Pages) histogram(w http.ResponseWriter, r *http.Request) error {
	r = r.Clone(r.Context())
	r.URL.Path = "/messages" // links lead to the page that this is a part of
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	q, err := p.query(v)
	if err != nil {
		return err
	}
	ctx, cancel := v.Within(countBudget)
	defer cancel()
	h, err := p.store.Histogram(ctx, q, histStep(v.Range.Duration()))
	return v.Part(w, histogram(makeHist(v, q, h, err)))
}
