// Package livetap is the page on which messages run past as taps see them.
// Without script it shows the newest of the store and a link to look again.
package livetap

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/live"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/messages"
)

// Reader gives the newest messages to readers without script.
type Reader interface {
	Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error)
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

type view struct {
	Reads, Wrong string
	Socket       string
	SearchURL    string
	AgainURL     string
	Rows         []messages.Row
	Down         string
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	m := view{SearchURL: v.URL("/messages", "q", v.Query), AgainURL: v.With()}
	q := storage.MessageQuery{Range: v.Range, Env: v.Env, Limit: 50, Snippets: true}
	m.Reads, err = messages.Parse(v.Query, &q)
	if err != nil {
		m.Wrong = component.Visible(err.Error())
	} else if extra := unsupported(q); extra != "" {
		m.Wrong = "A live tap looks at channel, broker, words and failed. It cannot look at " + extra + "; the search can."
	} else {
		s := url.Values{}
		set := func(k, val string) {
			if val != "" {
				s.Set(k, val)
			}
		}
		set("env", v.Env)
		set("channel", q.Channel)
		set("broker", q.Broker)
		set("word", q.BodyWord)
		if q.FailedOnly {
			s.Set("failed", "1")
		}
		m.Socket = live.Path + "?" + s.Encode()
		found, err := v.Answered(p.store.Messages(ctx, q))
		if err != nil {
			m.Down = component.Visible(err.Error())
		}
		for i := range found.Messages {
			m.Rows = append(m.Rows, messages.MakeRow(v, &found.Messages[i], q.BodyWord))
		}
	}
	return v.Render(w, page.Options{Title: "Live tap", Area: "live", Filter: &component.FilterView{
		Action: "/live", Label: "Filter what is shown", Value: v.Query, Kept: v.Kept(), Coded: true, Wrong: m.Wrong != "",
		Hint: "channel:orders.* broker:rabbit-eu1 failed timeout", Suggestions: messages.Suggestions(),
	}}, Live(m))
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
