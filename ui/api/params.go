package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// params reads the parameters of a request; the first mistake stays in err.
type params struct {
	form url.Values
	now  time.Time
	err  error
}

func (a *API) params(r *http.Request) *params {
	return &params{form: r.URL.Query(), now: a.deps.Now()}
}

func (p *params) wrong(name, want string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s %.200q: want %s", controlbus.ErrInvalid, name, p.form.Get(name), want)
	}
}

// maxText bounds names and ids; a filter has a bound of its own.
const maxText = 2000

func (p *params) text(name string) string {
	s := p.form.Get(name)
	if len(s) > maxText && p.err == nil {
		p.err = fmt.Errorf("%w: %s of %d characters: want at most %d", controlbus.ErrTooLarge, name, len(s), maxText)
	}
	return s
}

func (p *params) required(name string) string {
	s := p.text(name)
	if s == "" {
		p.wrong(name, "a value")
	}
	return s
}

func (p *params) number(name string, byDefault, least, most int) int {
	s := p.form.Get(name)
	if s == "" {
		return byDefault
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		p.wrong(name, fmt.Sprintf("a number from %d to %d", least, most))
	}
	return n
}

// count is a number of 0 or more, without a bound.
func (p *params) count(name string) int64 {
	s := p.form.Get(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		p.wrong(name, "the next of the page before")
	}
	return n
}

func (p *params) choice(name string, of ...string) string {
	s := p.form.Get(name)
	if s == "" {
		return of[0]
	}
	if !slices.Contains(of, s) {
		p.wrong(name, strings.Join(of, " or "))
	}
	return s
}

func (p *params) flag(name string) bool { return p.choice(name, "false", "true") == "true" }

// at is a time, byDefault where none is given.
func (p *params) at(name string, byDefault time.Time) time.Time {
	s := p.form.Get(name)
	if s == "" {
		return byDefault
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		p.wrong(name, "a time such as 2026-11-21T14:00:00.5Z")
	}
	return t
}

// within is the time range; the last byDefault ("1h") where none is given.
func (p *params) within(byDefault string) storage.TimeRange {
	form := p.form
	if form.Get("range") == "" {
		form = url.Values{"from": form["from"], "to": form["to"], "range": {byDefault}}
	}
	r, _, err := page.ReadRange(form, p.now)
	if err != nil && p.err == nil {
		p.err = err
	}
	return r
}
