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
	"github.com/signalbox-dev/signalbox/controlbus/filter"
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
	m := view{AgainURL: v.With(), Kept: v.Kept("q"), SearchURL: v.URL("/messages", "q", together(patterns, v.Query))}
	for i, text := range patterns {
		form := url.Values{}
		for k, vals := range v.Form {
			form[k] = vals
		}
		form["channel"] = slices.Delete(slices.Clone(patterns), i, i+1)
		m.Patterns = append(m.Patterns, pattern{component.Visible(text), "/live?" + form.Encode()})
		m.Kept = append(m.Kept, component.Pair{Name: "channel", Value: text})
	}
	f, err := filter.Parse(v.Query, v.Now)
	if err != nil {
		if m.Wrong = messages.Mistake(v, err); m.Wrong == nil {
			return err
		}
	} else {
		if !f.Empty() {
			m.Reads = component.Visible(f.Explain())
		}
		if id, _ := access.From(ctx); f.NeedsBody() && !id.Somewhere(access.ReadBody) {
			m.Hidden = id.Why(access.ReadBody)
		}
		s := url.Values{"channel": patterns, "filter": {v.Query}}
		if v.Env != "" {
			s.Set("env", v.Env)
		}
		m.Socket = live.Path + "?" + s.Encode()
		m.Rows, m.Down = p.stored(ctx, v, together(patterns, v.Query))
	}
	m.Offers = p.offers(ctx, v)
	kept := v.Kept()
	for _, text := range patterns {
		kept = append(kept, component.Pair{Name: "channel", Value: text})
	}
	return v.Render(w, page.Options{Title: "Live tap", Area: "live", Filter: messages.Box(v, "/live", "Filter what is shown", kept, err)}, Live(m))
}

// stored are the newest messages of the store that fit, for readers without script.
func (p *Pages) stored(ctx context.Context, v *page.View, text string) (rows []messages.Row, down string) {
	f, err := filter.Parse(text, v.Now)
	if err != nil { // too long together, or more patterns than a filter has conditions
		return nil, component.Visible(err.Error())
	}
	found, err := v.Answered(p.store.Messages(ctx, storage.MessageQuery{Range: v.Range, Env: v.Env, Limit: newest, Snippets: true, Filter: f}))
	if err != nil {
		return nil, component.Visible(err.Error())
	}
	for i := range found.Messages {
		rows = append(rows, messages.MakeRow(v, &found.Messages[i], ""))
	}
	return rows, ""
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
