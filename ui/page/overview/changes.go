package overview

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/channels"
)

// comparison is an hour of every channel beside another hour.
type comparison struct {
	Now, Before []storage.ChannelState
	Against     string // "the hour before"; empty: there is nothing to compare with
	Since       time.Time
}

// changesView is what changed in the last hour.
type changesView struct {
	Sub   string
	Rows  []Change
	More  string
	Empty *component.Empty
	First time.Time // of the store, where there is nothing to compare with
}

// Change is one thing that is not as it was.
type Change struct {
	State       component.State
	Name, URL   string
	Text        string
	At          time.Time // of it, where it is a moment
	Now, Before string
	weight      float64
}

const (
	maxChanges = 8
	// What is less than these is chance.
	fewMessages = 50
	fewFailures = 5
)

func makeChanges(v *page.View, f facts) changesView {
	m := changesView{Sub: "agents and brokers only"}
	list := fleetChanges(v, f)
	if f.Change.Against != "" {
		m.Sub = "against " + f.Change.Against
		list = append(list, channelChanges(v, f.Change)...)
	} else {
		m.First = f.Totals.OldestMessage
	}
	slices.SortStableFunc(list, func(a, b Change) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.Name, b.Name))
	})
	if n := len(list); n > maxChanges {
		m.More = "and " + component.Plural(n-maxChanges, "smaller change")
		list = list[:maxChanges]
	}
	m.Rows = list
	switch {
	case len(list) > 0:
	case f.TotalsErr != nil || f.ChannelsErr != nil:
		m.Empty = &component.Empty{Mark: stop("Down"), Title: "What changed is not known", Text: "The message store does not answer."}
	case f.Change.Against == "":
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Off, Word: "No data"}, Title: "There is nothing to compare with yet", Text: "Once the store holds an hour more, what changed stands here."}
	default:
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Clear, Word: "As usual"}, Title: "Nothing changed much", Text: "Every channel carried about what it carried in " + f.Change.Against + "."}
	}
	return m
}

// channelChanges tells of each channel the one thing that matters most.
func channelChanges(v *page.View, c comparison) []Change {
	type pair struct{ now, before storage.ChannelState }
	pairs := map[controlbus.ChannelName]*pair{}
	at := func(n controlbus.ChannelName) *pair {
		if pairs[n] == nil {
			pairs[n] = &pair{}
		}
		return pairs[n]
	}
	for _, s := range c.Now {
		at(s.ChannelName).now = s
	}
	for _, s := range c.Before {
		at(s.ChannelName).before = s
	}
	var out []Change
	for name, p := range pairs {
		a, b := p.now.Tapped, p.before.Tapped
		fa, fb := p.now.Failed, p.before.Failed
		row := Change{Name: component.Visible(name.Name), URL: v.Channel(name), Now: component.Count(a), Before: component.Count(b)}
		x, y := float64(a), float64(b)
		switch {
		case fa >= fewFailures && fa >= 2*fb && float64(fa)*max(y, 1) > 1.5*float64(fb)*max(x, 1):
			row.State, row.weight = component.State{Kind: component.Failed, Word: "Fails more"}, 1000+float64(fa)/float64(fb+1)
			row.Text = times(float64(fa), float64(fb), "failures")
			row.Now, row.Before = component.Count(fa), component.Count(fb)
		case channels.DeadLetters(name.Name) && a >= fewFailures && a >= 2*b:
			row.State, row.weight = component.State{Kind: component.Failed, Word: "More dead"}, 990+min(x/max(y, 1), 9)
			row.Text = times(x, y, "dead letters")
		case a == 0 && b >= 10:
			row.State, row.weight = component.State{Kind: component.Stale, Word: "Silent"}, 900+y/(y+1e4)
			row.Text = "nothing passed"
		case b == 0 && a > 0:
			row.State, row.weight = component.State{Kind: component.Running, Word: "New"}, 700+x/(x+1e4)
			row.Text = "appeared"
			if p.before.SeenAt.IsZero() && p.before.Name != "" {
				row.Text = "carries messages again"
			}
		case a >= 2*b && a-b >= fewMessages:
			row.State, row.weight = component.State{Kind: component.Caution, Word: "Grew"}, 600+min(x/y, 99)
			row.Text = times(x, y, "messages")
		case fb >= fewFailures && fa == 0 && a > 0:
			row.State, row.weight = component.State{Kind: component.Done, Word: "Recovered"}, 500+float64(fb)/(float64(fb)+1e4)
			row.Text = "no failures any more"
			row.Now, row.Before = component.Count(fa), component.Count(fb)
		case 2*a <= b && b-a >= fewMessages:
			row.State, row.weight = component.State{Kind: component.Off, Word: "Fell"}, 400+min(y/max(x, 1), 99)
			row.Text = times(x, y, "messages")
		default:
			continue
		}
		out = append(out, row)
	}
	return out
}

// times says how much more or less something is, in words that are easy to say.
func times(now, before float64, what string) string {
	digits := func(f float64) string {
		if f >= 10 {
			return strconv.FormatFloat(f, 'f', 0, 64)
		}
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	switch {
	case before == 0:
		return what + ", none before"
	case now >= before:
		return digits(now/before) + " times the " + what
	case now == 0:
		return "no " + what
	}
	return "1/" + digits(before/now) + " of the " + what
}

// fleetChanges tells of agents that came and went, and of their brokers.
func fleetChanges(v *page.View, f facts) []Change {
	var out []Change
	url, since := v.URL("/agents"), f.Change.Since
	recent := func(t time.Time) bool { return t.After(since) && !t.After(f.Now) }
	for _, a := range f.Agents {
		name := component.Visible(a.ID)
		switch {
		case a.Presence == controlbus.Silent && recent(a.LastSeen):
			out = append(out, Change{State: component.State{Kind: component.Stale, Word: "Went"}, Name: name, URL: url, Text: "agent, last heard from", At: a.LastSeen, weight: 950})
			continue
		case a.Presence == controlbus.Online && recent(a.StartedAt):
			out = append(out, Change{State: component.State{Kind: component.Running, Word: "Came"}, Name: name, URL: url, Text: "agent " + component.Visible(a.Version) + ", started", At: a.StartedAt, weight: 800})
			continue
		}
		for _, b := range a.Brokers {
			switch {
			case !recent(b.Since):
			case b.Connected:
				out = append(out, Change{State: component.State{Kind: component.Done, Word: "Back"}, Name: component.Visible(b.Name), URL: url, Text: "broker, connected again", At: b.Since, weight: 750})
			default:
				out = append(out, Change{State: stop("Lost"), Name: component.Visible(b.Name), URL: url, Text: "broker, cannot be reached", At: b.Since, weight: 960})
			}
		}
	}
	return out
}

// maxMarks keeps a chart readable.
const maxMarks = 6

// chartMarks are agents and brokers that came and went, for the chart of rates:
// they explain its gaps.
func chartMarks(v *page.View, f facts) []component.ChartMark {
	var out []component.ChartMark
	f.Change.Since = v.Range.From
	words := map[string]string{"Came": "agent %s started", "Went": "agent %s silent", "Back": "broker %s back", "Lost": "broker %s lost"}
	for _, c := range fleetChanges(v, f) {
		out = append(out, component.ChartMark{At: c.At, Label: fmt.Sprintf(words[c.State.Word], c.Name)})
	}
	slices.SortFunc(out, func(a, b component.ChartMark) int { return b.At.Compare(a.At) })
	out = out[:min(len(out), maxMarks)]
	slices.Reverse(out)
	return out
}
