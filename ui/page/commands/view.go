package commands

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// channelLink is a channel with its page.
type channelLink struct{ Env, Level, Broker, Name, URL string }

func linkTo(v *page.View, c controlbus.ChannelName) channelLink {
	return channelLink{
		Env: component.Visible(c.Env), Level: page.Level(c.Env), Broker: component.Visible(c.Broker), Name: component.Visible(c.Name), URL: v.Channel(c),
	}
}

// URL is the address of a command's page.
func URL(id controlbus.CommandID) string { return "/control/" + string(id) }

// sampleView is one of the messages a preview shows.
type sampleView struct {
	At                        time.Time
	Name, Full, URL, Position string
	Size, Error, Excerpt      string
}

// previewView is what was, or is, shown before anybody agrees.
type previewView struct {
	Effect      string
	Count       string
	From        channelLink
	FromText    string
	To          *channelLink
	Oldest      time.Time
	Newest      time.Time
	Age         string
	Taken       time.Time
	Technique   string
	Impact      []string
	Needs       []string
	Reversible  component.State
	Undo        string
	Guard       string
	Samples     []sampleView
	SamplesNote string
	Options     []component.Pair // what was chosen, in words
	Fingerprint string
	Agent       string
	About       bool // it is about messages that wait or are stored
}

func makePreview(v *page.View, s *controlbus.CommandSpec) *previewView {
	p := s.Preview
	if p == nil {
		return nil
	}
	m := &previewView{
		Effect: sentence(p.Effect), From: linkTo(v, s.Target.Channel), Oldest: p.Oldest, Newest: p.Newest, Taken: p.TakenAt, Technique: sentence(p.Technique),
		Fingerprint: p.Fingerprint, Options: optionWords(s), Agent: component.Visible(s.Target.Agent),
	}
	if text := takes(s); text != "" {
		m.Options = append(m.Options, component.Pair{Name: "Takes", Value: text})
	}
	switch s.Kind {
	case controlbus.CommandPurge, controlbus.CommandRedrive, controlbus.CommandDiscard, controlbus.CommandReplay:
		m.About = true
	}
	switch {
	case p.Count < 0:
		m.Count = "not known: the broker does not tell before"
	case p.AtLeast:
		m.Count = component.Count(p.Count) + " or more; counting stopped there"
	default:
		m.Count = component.Count(p.Count)
	}
	if s.Kind == controlbus.CommandReplay {
		m.From, m.FromText = channelLink{}, "the message store"
		if s.UndoOf != "" {
			m.FromText = "the agent's own copy"
		}
		to := linkTo(v, s.Target.Channel)
		m.To = &to
	} else if p.Destination != nil {
		to := linkTo(v, *p.Destination)
		m.To = &to
	}
	if !p.Oldest.IsZero() {
		m.Age = component.Span(max(0, p.TakenAt.Sub(p.Oldest)).Round(time.Second))
	}
	for _, t := range p.Impact {
		m.Impact = append(m.Impact, sentence(t))
	}
	for _, t := range p.Needs {
		m.Needs = append(m.Needs, component.Visible(t))
	}
	m.Reversible, m.Undo = reversible(p)
	var guard []string
	if p.Expect.MaxCount >= 0 && p.Count >= 0 {
		guard = append(guard, "refused if more than "+component.Count(p.Expect.MaxCount)+" are there when it begins")
	}
	if p.Expect.UpTo != "" {
		guard = append(guard, "leaves alone what comes after position "+component.Visible(p.Expect.UpTo))
	}
	if p.Expect.Topology != "" {
		guard = append(guard, "refused if the broker routes differently by then")
	}
	m.Guard = sentence(strings.Join(guard, "; "))
	for _, one := range p.Samples {
		row := sampleView{At: one.At, Position: component.Visible(one.Position), Size: component.Size(one.Size), Error: component.Visible(one.ErrorType), Excerpt: component.Visible(one.Excerpt)}
		row.Full = component.Visible(one.MessageID)
		row.Name = component.Middle(row.Full)
		if row.Name == "" {
			row.Name = "no message id"
			if row.Position != "" {
				row.Name = "position " + row.Position
			}
		}
		row.URL = messageURL(v, one.UID, one.At)
		m.Samples = append(m.Samples, row)
	}
	switch n := int64(len(p.Samples)); {
	case n > 0 && n < p.Count:
		m.SamplesNote = component.Count(n) + " of " + component.Count(p.Count)
		if spread(p) {
			m.SamplesNote += "; spread over the age range"
		}
	case n > 0:
		m.SamplesNote = "all of them"
	}
	return m
}

// spread says whether a preview's samples come from most of its age range.
func spread(p *controlbus.Preview) bool {
	byAge := func(a, b controlbus.PreviewSample) int { return a.At.Compare(b.At) }
	first, last := slices.MinFunc(p.Samples, byAge).At, slices.MaxFunc(p.Samples, byAge).At
	return !first.IsZero() && p.Newest.After(p.Oldest) && last.Sub(first) >= p.Newest.Sub(p.Oldest)/2
}

// messageURL is the page of a message in the store, empty where it is not there.
func messageURL(v *page.View, uid string, at time.Time) string {
	if uid == "" || strings.Trim(uid, "0123456789abcdef") != "" {
		return ""
	}
	if at.IsZero() {
		return v.URL("/messages/" + uid)
	}
	return v.URL("/messages/"+uid, "at", at.UTC().Format(time.RFC3339Nano))
}

// optionWords are a command's arguments in words.
func optionWords(s *controlbus.CommandSpec) []component.Pair {
	var out []component.Pair
	add := func(name, value string) {
		if value != "" {
			out = append(out, component.Pair{Name: name, Value: component.Visible(value)})
		}
	}
	job := func(o controlbus.JobOptions) {
		if o.Rate > 0 {
			add("At most", component.Rate(o.Rate)+" per second")
		} else {
			add("At most", "as fast as the broker confirms")
		}
		if len(o.Ramp) > 0 {
			settle := o.Settle
			if settle == 0 {
				settle = controlbus.DefaultSettle
			}
			add("Ramp", rampText(o.Ramp)+", then the rest; "+component.Span(settle)+" look after each")
		}
		if o.StopRatio > 0 {
			fail := "cannot be sent"
			if s.Kind == controlbus.CommandRedrive {
				fail += " or come back dead (whatever arrives dead meanwhile counts)"
			}
			add("Stops by itself", "when more than "+percent(o.StopRatio)+" "+fail+", from "+component.Plural(max(o.StopMin, 1), "message")+" on")
		}
		if o.Max > 0 {
			add("At most", component.Plural(o.Max, "message"))
		}
	}
	switch s.Kind {
	case controlbus.CommandPurge:
		a := rawArgs[controlbus.PurgeArgs](s.Args)
		add("Filter", a.Filter)
		if a.NoBackup {
			add("Copy", "none is kept")
		} else {
			add("Copy", "kept by the agent")
		}
	case controlbus.CommandRedrive:
		a := rawArgs[controlbus.RedriveArgs](s.Args)
		add("Filter", a.Filter)
		job(a.Job)
		if a.Force {
			add("Redriven before", fmt.Sprintf("moved too, even after %d times", controlbus.MaxRedrives))
		}
	case controlbus.CommandDiscard:
		a := rawArgs[controlbus.DiscardArgs](s.Args)
		add("Filter", a.Filter)
		job(a.Job)
	case controlbus.CommandReplay:
		a := rawArgs[controlbus.ReplayArgs](s.Args)
		if sel := a.Selection; sel != nil {
			switch {
			case len(sel.UIDs) == 1:
				add("Message", sel.UIDs[0])
			case len(sel.UIDs) > 1:
				add("Messages", component.Count(len(sel.UIDs))+" chosen one by one")
			default:
				add("Filter", sel.Filter)
				add("Stored from", sel.From.UTC().Format(time.RFC3339))
				add("To", sel.To.UTC().Format(time.RFC3339))
			}
			add("Stored in", sel.Env)
		}
		job(a.Job)
	case controlbus.CommandTest:
		a := rawArgs[controlbus.TestArgs](s.Args)
		add("Run", a.Run)
		add("Content type", a.ContentType)
		add("Key", a.Key)
		add("Body", component.Plural(len(a.Body), "byte"))
		if a.Separate {
			add("Consumers", "kept away from business consumers where the broker can")
		}
	case controlbus.CommandPause:
		a := rawArgs[controlbus.PauseArgs](s.Args)
		add("Ends by itself after", component.Span(a.For))
		add("Consumer", a.Consumer)
	case controlbus.CommandTap:
		a := rawArgs[controlbus.TapArgs](s.Args)
		if a.For > 0 {
			add("Ends by itself after", component.Span(a.For))
		}
		if a.MaxBytes > 0 {
			add("Of each body", component.Size(a.MaxBytes))
		}
	case controlbus.CommandDetour:
		a := rawArgs[controlbus.Detour](s.Args)
		out = append(out, DetourWords(&a)...)
	case controlbus.CommandUndetour:
		add("Detour", rawArgs[controlbus.UndetourArgs](s.Args).ID)
	}
	return out
}

// DetourWords are a detour's terms in words.
func DetourWords(a *controlbus.Detour) []component.Pair {
	var out []component.Pair
	add := func(name, value string) {
		if value != "" {
			out = append(out, component.Pair{Name: name, Value: component.Visible(value)})
		}
	}
	add("Name", a.ID)
	add("Ends by itself after", component.Span(a.For))
	add("Only", a.Filter)
	for i, s := range a.Steps {
		add("Step "+strconv.Itoa(i+1), StepWords(s))
	}
	add("Goes on to", a.To)
	if len(a.Steps) > 0 {
		if a.OnFailure == controlbus.DetourBypass {
			add("What fails a step", "goes on without it")
		} else if a.Park != "" {
			add("What fails a step", "is parked in "+a.Park)
		} else {
			add("What fails a step", "is parked beside the detour")
		}
	}
	return out
}

// StepWords are a step in words.
func StepWords(s controlbus.DetourStep) string {
	switch {
	case s.Hold != nil:
		return "hold until the detour ends"
	case s.Validate != nil:
		return "check bodies against a JSON Schema of " + component.Plural(len(s.Validate.Schema), "byte")
	case s.Headers != nil:
		var parts []string
		for _, k := range sortedKeys(s.Headers.Set) {
			parts = append(parts, "set "+k+" to “"+s.Headers.Set[k]+"”")
		}
		for _, k := range s.Headers.Remove {
			parts = append(parts, "remove "+k)
		}
		return "headers: " + strings.Join(parts, ", ")
	case s.Rate != nil:
		return "let " + component.Rate(s.Rate.PerSecond) + " per second pass"
	case s.Copy != nil:
		return "send a copy to " + s.Copy.Channel
	case s.HTTP != nil:
		text := "post the body to " + s.HTTP.URL
		if s.HTTP.Replace {
			text += " and take its answer instead"
		}
		return text
	case s.Channel != nil:
		return "send through " + s.Channel.Send + ", back from " + s.Channel.Receive
	}
	return "a step this console does not know"
}

func rampText(steps []int64) string {
	var parts []string
	for _, n := range steps {
		parts = append(parts, component.Count(n))
	}
	return strings.Join(parts, ", ")
}

func percent(f float64) string { return strconv.FormatFloat(f*100, 'g', 3, 64) + " %" }

// rights are what who asks may do about one command.
type rights struct{ mine, request, approve, operate bool }

func rightsOn(id access.Identity, c *controlbus.Command, need access.Action) rights {
	ch := c.Target.Channel
	return rights{
		mine: id.Person() != "" && id.Person() == c.RequestedBy.ID, request: id.Can(need, ch.Env, ch.Name),
		approve: id.Can(access.Approve, ch.Env, ch.Name), operate: id.Can(access.Operate, ch.Env, ch.Name),
	}
}

// Act is a button: what it leads to, or why not.
type Act struct {
	Label, Icon, URL string
	Why              string // it cannot be used, and this is why
	Note             string // a condition to know before
	Danger           bool
}

// URLOf is the address of a command's page by the text of its id.
func URLOf(id string) string { return URL(controlbus.CommandID(id)) }

// takes is how long a bulk command lasts at the rate that was chosen; empty
// where that cannot be told.
func takes(s *controlbus.CommandSpec) string {
	o, n := jobOptions(s), s.Preview.Count
	if o.Max > 0 {
		n = min(n, o.Max)
	}
	if n <= 0 || o.Rate <= 0 {
		return ""
	}
	settle := o.Settle
	if settle == 0 {
		settle = controlbus.DefaultSettle
	}
	looks, before := 0, int64(0)
	for _, step := range o.Ramp {
		if before += step; before > n {
			break
		}
		looks++
	}
	took := time.Duration(float64(n)/o.Rate*float64(time.Second)) + time.Duration(looks)*settle
	text := component.Plural(n, "message") + " at " + component.Rate(o.Rate) + "/s: about " + component.Span(max(took.Round(time.Second), time.Second))
	if looks > 0 {
		text += ", " + component.Plural(looks, "look") + " of " + component.Span(settle) + " included"
	}
	return text
}
