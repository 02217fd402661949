package api

import (
	"net/http"

	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// FilterFields is what a filter can ask about.
type FilterFields struct {
	Fields []FilterField `json:"fields"`
}

// FilterField is one of them.
type FilterField struct {
	Name     string   `json:"name"`
	Aliases  []string `json:"aliases,omitempty"`
	Type     string   `json:"type"`
	Doc      string   `json:"doc"`
	Examples []string `json:"examples,omitempty"`
	Values   []string `json:"values,omitempty"`
}

func (a *API) filterFields(w http.ResponseWriter, _ *http.Request) error {
	out := FilterFields{Fields: []FilterField{}}
	for _, f := range filter.Fields() {
		out.Fields = append(out.Fields, FilterField{f.Name, f.Aliases, string(f.Type), f.Doc, f.Examples, f.Values})
	}
	return write(w, http.StatusOK, out)
}

// FilterCheck is a filter that was understood.
type FilterCheck struct {
	Text      string `json:"text"`
	Reads     string `json:"reads"`
	NeedsBody bool   `json:"needs_body"`
}

func (a *API) checkFilter(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	now := p.at("now", p.now)
	if p.err != nil {
		return p.err
	}
	f, err := filter.Parse(p.form.Get("q"), now)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, FilterCheck{f.String(), f.Explain(), f.NeedsBody()})
}
