package probes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/probe"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

type listView struct {
	Rows      []row
	NewURL    string
	AllURL    string
	Elsewhere int // probes of other environments
	May       bool
}

type row struct {
	URL, Name, In, Out, Every, Last string
	State                           component.State
	LastAt                          time.Time
	Passed, P50, P95                string
	Strip                           []tick
	Spark                           []float64
}

// tick is one run in the strip of the recent ones.
type tick struct{ Class, Title string }

// stripLength is how many runs a strip shows.
const stripLength = 40

func state(v *probe.View) component.State {
	switch {
	case v.Running:
		return component.State{Kind: component.Running, Word: "Running"}
	case v.Paused:
		return component.State{Kind: component.Held, Word: "Paused"}
	case v.Last == nil:
		return component.State{Kind: component.Off, Word: "Never ran"}
	}
	return outcome(v.Last.Outcome)
}

func outcome(o probe.Outcome) component.State {
	switch o {
	case probe.Passed:
		return component.State{Kind: component.Clear, Word: "Passed"}
	case probe.Late:
		return component.State{Kind: component.Caution, Word: "Late"}
	case probe.Lost:
		return component.State{Kind: component.Stop, Word: "Lost"}
	case probe.Wrong:
		return component.State{Kind: component.Stop, Word: "Wrong"}
	case probe.Unsent:
		return component.State{Kind: component.Failed, Word: "Not sent"}
	}
	return component.State{Kind: component.Doubt, Word: "Not known"}
}

func newRow(v *page.View, p *probe.View) row {
	r := row{
		URL: v.URL("/probes/" + p.ID), Name: component.Visible(p.Name), In: component.Visible(p.In.String()), Every: every(p), State: state(p),
		Passed: "–", P50: span(p.P50), P95: span(p.P95),
	}
	if p.Out.Name != "" {
		r.Out = component.Visible(p.Out.String())
	}
	if p.Runs > 0 {
		r.Passed = fmt.Sprintf("%d of %d", p.Passed, p.Runs)
	}
	if p.Last != nil {
		r.LastAt, r.Last = p.Last.At, component.Visible(p.Last.Detail)
	}
	for i, run := range p.Recent {
		if i == stripLength {
			break
		}
		s := outcome(run.Outcome)
		r.Strip = append(r.Strip, tick{s.Kind.Class(), s.Word + " " + run.At.UTC().Format(time.DateTime) + " UTC, " + span(run.Latency)})
		r.Spark = append(r.Spark, run.Latency.Seconds())
	}
	slices.Reverse(r.Strip) // oldest on the left
	slices.Reverse(r.Spark)
	return r
}

func every(p *probe.View) string {
	if p.Every == 0 {
		return "by hand"
	}
	return "every " + component.Span(p.Every)
}

func span(d time.Duration) string {
	if d <= 0 {
		return "–"
	}
	return component.Span(d)
}

type oneView struct {
	row
	ListURL, EditURL, Query string
	ID                      string
	Notes                   []note
	Runs                    []runRow
	Owner, Deadline, Expect string
	InURL, OutURL           string
	NextAt                  time.Time
	ContentType, Key, Body  string
	BodyHidden              bool
	Headers                 []component.Pair
	Separate, Paused, May   bool
	Env                     string
}

type note struct {
	Title, Text string
}

type runRow struct {
	At                         time.Time
	State                      component.State
	Latency, Detail            string
	SentURL, ArrivedURL, CmdID string
	CmdURL                     string
}

func newOne(v *page.View, p *probe.View) oneView {
	m := oneView{
		row: newRow(v, p), ID: p.ID, ListURL: v.URL("/probes"), EditURL: v.URL("/probes/" + p.ID + "/edit"), Query: strings.TrimPrefix(v.URL(""), "?"),
		Owner: component.Visible(cmp.Or(p.Owner.Name, "nobody in particular")), Deadline: component.Span(p.Deadline), Expect: component.Visible(p.Expect),
		InURL: v.Channel(p.In), NextAt: p.Next, ContentType: component.Visible(p.ContentType), Key: component.Visible(p.Key), Body: component.VisibleText(p.Body),
		Separate: p.Separate, Paused: p.Paused, May: v.May(access.Operate), Env: component.Visible(p.In.Env),
	}
	m.BodyHidden = p.Body == "" && !v.May(access.ReadBody)
	if p.Out.Name != "" {
		m.OutURL = v.Channel(p.Out)
	}
	for _, k := range slices.Sorted(maps.Keys(p.Headers)) {
		m.Headers = append(m.Headers, component.Pair{Name: component.Visible(k), Value: component.Visible(p.Headers[k])})
	}
	for i, r := range p.Recent {
		if i == 100 {
			break
		}
		one := runRow{At: r.At, State: outcome(r.Outcome), Latency: span(r.Latency), Detail: component.Visible(r.Detail)}
		// The message is found by its identity from the time of the run on.
		if r.Sent != "" {
			one.SentURL = v.URL("/messages/"+r.Sent, "env", p.In.Env)
		}
		if r.Arrived != "" {
			one.ArrivedURL = v.URL("/messages/"+r.Arrived, "env", p.Out.Env)
		}
		if r.Command != "" {
			one.CmdURL = v.URL("/control/" + string(r.Command))
		}
		m.Runs = append(m.Runs, one)
	}
	if last := p.Last; last != nil && last.Outcome != probe.Passed {
		m.Notes = append(m.Notes, advice(last.Outcome, component.Visible(last.Detail)))
	}
	return m
}

// advice says what an outcome means and what to look at.
func advice(o probe.Outcome, detail string) note {
	switch o {
	case probe.Late:
		return note{"The last test message came late", detail + ". Look at the backlog and the consumers between the two channels."}
	case probe.Lost:
		return note{"The last test message did not arrive", detail + ". It was confirmed by the broker of the input: follow its way in the messages, and look at the dead letters."}
	case probe.Wrong:
		return note{"What arrived is not what was expected", detail}
	case probe.Unsent:
		return note{"The last test message was not sent", detail}
	}
	return note{"It is not known what became of the last test message", detail}
}

type formView struct {
	ID, Name, InEnv, InBroker, InChannel, OutEnv, OutBroker, OutChannel string
	Every, Deadline, ContentType, Body, Headers, Key, Expect            string
	Separate, Paused                                                    bool
	Wrong, BackURL, Typed                                               string
}

func newForm(v *page.View, p probe.Probe, err error) formView {
	f := formView{
		ID: p.ID, Name: p.Name, InEnv: p.In.Env, InBroker: p.In.Broker, InChannel: p.In.Name, OutEnv: p.Out.Env, OutBroker: p.Out.Broker, OutChannel: p.Out.Name,
		Every: short(p.Every), Deadline: short(p.Deadline), ContentType: p.ContentType, Body: p.Body, Key: p.Key, Expect: p.Expect, Separate: p.Separate, Paused: p.Paused,
		BackURL: v.URL("/probes"),
	}
	if p.ID != "" {
		f.BackURL = v.URL("/probes/" + p.ID)
	}
	for _, k := range slices.Sorted(maps.Keys(p.Headers)) {
		f.Headers += k + ": " + p.Headers[k] + "\n"
	}
	if err != nil {
		f.Wrong = component.Visible(strings.TrimPrefix(strings.ReplaceAll(err.Error(), controlbus.ErrInvalid.Error()+": ", ""), "probe: "))
	}
	return f
}

// short writes a time as people type it: 1m, not 1m0s.
func short(d time.Duration) string {
	if d == 0 {
		return ""
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
