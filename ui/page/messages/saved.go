package messages

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Searches keeps saved searches. Its methods may be called concurrently; they
// return ErrInvalid, ErrTooLarge, ErrConflict for a name that is taken, and
// ErrNotFound for what is not there or is another's.
type Searches interface {
	Searches(ctx context.Context, owner string) ([]controlbus.SavedSearch, error)
	AddSearch(ctx context.Context, s controlbus.SavedSearch) (id string, err error)
	RenameSearch(ctx context.Context, owner, id, name string, shared bool) error
	DeleteSearch(ctx context.Context, owner, id string) error
}

// savedView are the saved searches of a page.
type savedView struct {
	On    bool // there is somewhere to keep them
	List  []savedSearch
	Down  string
	Back  string // query of this page
	Form  []component.Pair
	Env   string // named in the form; empty: all environments
	Range string
	Fixed bool // the range is, and is not saved
	Cols  bool // columns were chosen and are saved
	Empty bool // there is no filter to save
}

type savedSearch struct {
	ID, Name, URL, Query, About string
	Current, Shared, Mine       bool
}

func (p *Pages) saved(ctx context.Context, v *page.View, cols []Column) savedView {
	m := savedView{On: p.deps.Searches != nil && v.May(access.SaveSearch)}
	owner := ownerOf(ctx)
	if !m.On {
		return m
	}
	m.Back = strings.TrimPrefix(v.With(), "/messages")
	m.Env, m.Range, m.Fixed, m.Cols, m.Empty = envName(v.Env), strings.ToLower(v.RangeLabel()), !v.Relative(), cols != nil, v.Query == ""
	m.Form = []component.Pair{{Name: "q", Value: v.Query}, {Name: "env", Value: v.Env}, {Name: "range", Value: v.Form.Get("range")}, {Name: "cols", Value: columnNames(cols)}, {Name: "order", Value: v.Form.Get("order")}}
	if m.Fixed {
		m.Form[2].Value = ""
	}
	list, err := p.deps.Searches.Searches(ctx, owner)
	if err != nil {
		m.Down = reason(err)
		return m
	}
	for _, s := range list {
		address := savedURL(v, s)
		one := savedSearch{
			ID: s.ID, Name: component.Visible(s.Name), URL: address, Query: component.Visible(s.Query), Shared: s.Shared, Mine: s.Owner == owner || s.Owner == "",
			Current: s.Query == v.Query && v.Query != "" && (s.AnyEnv || s.Env == v.Env),
		}
		about := []string{one.Query}
		if s.Query == "" {
			about[0] = "no filter"
		}
		if !s.AnyEnv {
			about = append(about, "in "+envName(s.Env))
		}
		if s.Range != "" {
			about = append(about, "last "+component.Visible(s.Range))
		}
		if !one.Mine {
			about = append(about, "shared")
		}
		one.About = strings.Join(about, " · ")
		m.List = append(m.List, one)
	}
	return m
}

func savedURL(v *page.View, s controlbus.SavedSearch) string {
	form := url.Values{}
	set := func(name, value string) {
		if value != "" {
			form.Set(name, value)
		}
	}
	set("q", s.Query)
	set("range", s.Range)
	set("cols", s.Columns)
	if s.Oldest {
		form.Set("order", "oldest")
	}
	switch {
	case !s.AnyEnv:
		form.Set("env", s.Env)
	case v.Form.Has("env"):
		form.Set("env", v.Env)
	}
	return "/messages?" + form.Encode()
}

// ownerOf is who asks; nobody in particular where nobody signs in.
func ownerOf(ctx context.Context) string {
	id, _ := access.From(ctx)
	if id.Kind == access.KindAnonymous {
		return ""
	}
	return id.ID
}

func postForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		return nil, fmt.Errorf("%w: form: %w", controlbus.ErrInvalid, err)
	}
	return r.PostForm, nil
}

// backTo is the list with the parameters a form was sent from; whatever the
// form says, it stays on this page.
func backTo(form url.Values, change func(url.Values)) string {
	q, err := url.ParseQuery(strings.TrimPrefix(form.Get("back"), "?"))
	if err != nil {
		q = url.Values{}
	}
	q.Del("cursor")
	if change != nil {
		change(q)
	}
	if len(q) == 0 {
		return "/messages"
	}
	return "/messages?" + q.Encode()
}

func (p *Pages) addSearch(w http.ResponseWriter, r *http.Request) error {
	f, err := postForm(w, r)
	if err != nil {
		return err
	}
	cols, err := parseColumns(f.Get("cols"))
	if err != nil {
		return err
	}
	s := controlbus.SavedSearch{
		Owner: ownerOf(r.Context()), Name: strings.TrimSpace(f.Get("name")), Shared: f.Get("shared") == "1",
		Query: strings.TrimSpace(f.Get("q")), Env: f.Get("env"), AnyEnv: f.Get("anyenv") == "1", Range: f.Get("range"), Columns: columnNames(cols), Oldest: f.Get("order") == "oldest",
	}
	if s.AnyEnv {
		s.Env = ""
	}
	if _, err := p.deps.Searches.AddSearch(r.Context(), s); err != nil {
		return err
	}
	http.Redirect(w, r, backTo(f, nil), http.StatusSeeOther)
	return nil
}

func (p *Pages) renameSearch(w http.ResponseWriter, r *http.Request) error {
	f, err := postForm(w, r)
	if err != nil {
		return err
	}
	if err := p.deps.Searches.RenameSearch(r.Context(), ownerOf(r.Context()), r.PathValue("id"), strings.TrimSpace(f.Get("name")), f.Get("shared") == "1"); err != nil {
		return err
	}
	http.Redirect(w, r, backTo(f, nil), http.StatusSeeOther)
	return nil
}

func (p *Pages) deleteSearch(w http.ResponseWriter, r *http.Request) error {
	f, err := postForm(w, r)
	if err != nil {
		return err
	}
	if err := p.deps.Searches.DeleteSearch(r.Context(), ownerOf(r.Context()), r.PathValue("id")); err != nil {
		return err
	}
	http.Redirect(w, r, backTo(f, nil), http.StatusSeeOther)
	return nil
}
