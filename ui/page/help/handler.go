// Package help is the page behind the question mark: what each page shows, and
// the keys.
package help

import (
	"net/http"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Pages is the page.
type Pages struct{ site *page.Site }

// New returns the page.
func New(site *page.Site) *Pages { return &Pages{site} }

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{{Pattern: "GET /help", Handler: p.show, Action: access.Self}}
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	o := page.Options{Title: "Help", Area: "help"}
	return v.Render(w, o, Page(page.Helps(), v.Shell(o)))
}
