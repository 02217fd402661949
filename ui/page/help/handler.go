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

// verbs of the command line that ask this console.
var verbs = []struct{ name, text, sample string }{
	{"Search", "The store, as on Messages; -o json, ndjson or csv for programs.", "signalbox search 'timeout channel:orders.*' --since 1h"},
	{"History", "What happened to a message and its conversation, by its uid, or by the producer's ids.", "signalbox history --correlation ORD-7731904"},
	{"Tap", "Messages as they pass, as on Live tap.", "signalbox tap 'orders.*' 'failed:true'"},
	{"Export", "What a search finds, as a file of NDJSON, CSV or Parquet that says whether it is complete.", "signalbox export 'channel:payments.*' --file payments.parquet"},
	{"Login", "Keeps a console's address and an API token for it.", "signalbox login https://signalbox.example"},
}

func (p *Pages) show(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	o := page.Options{Title: "Help", Area: "help"}
	return v.Render(w, o, Page(page.Helps(), v.Shell(o)))
}
