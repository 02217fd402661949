// Package livetap is the page on which messages run past as taps see them.
// Without script it shows the newest of the store and a link to look again.
package livetap

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/live"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/messages"
)

// Reader gives the newest messages to readers without script, and the names of
// channels to choose from.
type Reader interface {
	Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error)
	Channels(ctx context.Context, q storage.ChannelQuery) ([]storage.ChannelState, error)
}

// Pages is the live tap's page.
type Pages struct {
	site  *page.Site
	store Reader
}

// New returns the page.
func New(site *page.Site, store Reader) *Pages { return &Pages{site: site, store: store} }

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{{Pattern: "GET /live", Handler: p.show, Action: access.LiveTap}}
}

const (
	maxOffers = 200 // names of channels to choose from
	newest    = 50  // messages of the store, for readers without script
)

type view struct {
	Reads, Wrong string
	Socket       string
	SearchURL    string
	AgainURL     string
	Patterns     []pattern
	Kept         []component.Pair // of the form that adds a pattern
	Offers       []string
	Rows         []messages.Row
	Down         string
}

// pattern is one of the channels looked at, with the page without it.
type pattern struct{ Text, WithoutURL string }

func (p *Pages) show(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	patterns, err := readPatterns(v.Form["channel"])
	if err != nil {
		return err
	}
	m := view{AgainURL: v.With(), Kept: v.Kept("q")}
	for i, text := range patterns {
		form := url.Values{}
		for k, vals := range v.Form {
			form[k] = vals
		}
		form["channel"] = slices.Delete(slices.Clone(patterns), i, i+1)
		m.Patterns = append(m.Patterns, pattern{component.Visible(text), "/live?" + form.Encode()})
		m.Kept = append(m.Kept, component.Pair{Name: "channel", Value: text})
	}
	search := v.Query
	if len(patterns) == 1 && !strings.Contains(search, "channel:") {
		search = strings.TrimSpace("channel:" + quote(patterns[0]) + " " + search)
	}
	m.SearchURL = v.URL("/messages", "q", search)
	q := storage.MessageQuery{Range: v.Range, Env: v.Env, Limit: newest, Snippets: true}
	m.Reads, err = messages.Parse(v.Query, &q)
	if err != nil {
		m.Wrong = component.Visible(err.Error())
	} else if extra := unsupported(q); extra != "" {
		m.Wrong = "A live tap looks at channel, broker, words and failed. It cannot look at " + extra + "; the search can."
	} else {
		s := url.Values{"channel": patterns}
		set := func(k, val string) {
			if val != "" {
				s.Set(k, val)
			}
		}
		set("env", v.Env)
		set("broker", q.Broker)
		set("word", q.BodyWord)
		if q.Channel != "" {
			s["channel"] = append(slices.Clone(patterns), q.Channel)
		}
		if q.FailedOnly {
			s.Set("failed", "1")
		}
		m.Socket = live.Path + "?" + s.Encode()
		if len(patterns) == 1 && q.Channel == "" {
			q.Channel = patterns[0]
		}
		found, err := v.Answered(p.store.Messages(ctx, q))
		if err != nil {
			m.Down = component.Visible(err.Error())
		}
		for i := range found.Messages {
			m.Rows = append(m.Rows, messages.MakeRow(v, &found.Messages[i], q.BodyWord))
		}
	}
	m.Offers = p.offers(ctx, v)
	kept := v.Kept()
	for _, text := range patterns {
		kept = append(kept, component.Pair{Name: "channel", Value: text})
	}
	return v.Render(w, page.Options{Title: "Live tap", Area: "live", Filter: &component.FilterView{
		Action: "/live", Label: "Filter what is shown", Value: v.Query, Kept: kept, Coded: true, Wrong: m.Wrong != "",
		Hint: "channel:orders.* broker:rabbit-eu1 failed timeout", Suggestions: messages.Suggestions(),
	}}, Live(m))
}

// offers are names of channels. That there are none is no reason to fail.
func (p *Pages) offers(ctx context.Context, v *page.View) []string {
	found, err := p.store.Channels(ctx, storage.ChannelQuery{Range: v.Range, Env: v.Env, Limit: maxOffers})
	if err != nil {
		return nil
	}
	var names []string
	for _, c := range found {
		if component.Visible(c.Name) == c.Name { // what cannot be typed cannot be chosen
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func readPatterns(given []string) ([]string, error) {
	var out []string
	for _, text := range given {
		if text = strings.TrimSpace(text); text != "" && !slices.Contains(out, text) {
			out = append(out, text)
		}
		if len(text) > live.MaxName || len(out) > live.MaxChannels {
			return nil, fmt.Errorf("%w: channel: want at most %d patterns of at most %d characters", controlbus.ErrInvalid, live.MaxChannels, live.MaxName)
		}
	}
	return out, nil
}

// quote makes a name one term of the filter.
func quote(name string) string {
	if strings.ContainsAny(name, " \t") && !strings.Contains(name, `"`) {
		return `"` + name + `"`
	}
	return name
}

func unsupported(q storage.MessageQuery) string {
	var out []string
	note := func(has bool, name string) {
		if has {
			out = append(out, name)
		}
	}
	note(q.MessageID != "" || q.UID != "", "ids")
	note(q.CorrelationID != "", "correlation")
	note(q.TraceID != "", "trace")
	note(q.HeaderName != "", "headers")
	note(q.Service != "", "service")
	note(q.System != "", "system")
	return strings.Join(out, ", ")
}
