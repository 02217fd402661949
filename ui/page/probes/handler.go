// Package probes is the page of probes: test messages on a schedule, whether
// they arrive, and how long that takes.
package probes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/probe"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Service keeps and runs probes; probe.Service is one. It acts as the identity in
// ctx and returns the sentinels of controlbus.
type Service interface {
	List(ctx context.Context) ([]probe.View, error)
	Get(ctx context.Context, id string) (probe.View, error)
	Save(ctx context.Context, p probe.Probe, typed string) (probe.Probe, error)
	Start(ctx context.Context, id string) error
	Pause(ctx context.Context, id string, paused bool) error
	Delete(ctx context.Context, id string) error
}

// Pages are the list, the page of one probe, and the form.
type Pages struct {
	site *page.Site
	svc  Service
}

// New returns the pages.
func New(site *page.Site, svc Service) *Pages { return &Pages{site: site, svc: svc} }

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{
		{Pattern: "GET /probes", Handler: p.list, Action: access.ViewMetadata},
		{Pattern: "POST /probes", Handler: p.save, Action: access.Operate},
		{Pattern: "GET /probes/new", Handler: p.edit, Action: access.Operate},
		{Pattern: "GET /probes/{probe}", Handler: p.one, Action: access.ViewMetadata},
		{Pattern: "GET /probes/{probe}/edit", Handler: p.edit, Action: access.Operate},
		{Pattern: "POST /probes/{probe}/{do}", Handler: p.do, Action: access.Operate},
	}
}

func (p *Pages) list(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	all, err := p.svc.List(ctx)
	if err != nil {
		return fmt.Errorf("read the probes: %w", err)
	}
	m := listView{NewURL: v.URL("/probes/new"), May: v.May(access.Operate)}
	for i := range all {
		if v.Env == "" || all[i].In.Env == v.Env {
			m.Rows = append(m.Rows, newRow(v, &all[i]))
		} else {
			m.Elsewhere++
		}
	}
	m.AllURL = v.With("env", "") // all environments
	if u, err := url.Parse(m.AllURL); err == nil {
		q := u.Query()
		q.Set("env", "")
		u.RawQuery = q.Encode()
		m.AllURL = u.String()
	}
	return v.Render(w, page.Options{Title: "Probes", Area: "probes", Refresh: 5 * time.Second}, List(m))
}

func (p *Pages) one(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	one, err := p.svc.Get(ctx, r.PathValue("probe"))
	if err != nil {
		return fmt.Errorf("the probe: %w", err)
	}
	m := newOne(v, &one)
	return v.Render(w, page.Options{Title: component.Visible(one.Name), Area: "probes", Refresh: 2 * time.Second}, One(m))
}

func (p *Pages) edit(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	pr := probe.Probe{Every: time.Minute, Deadline: probe.DefaultDeadline, ContentType: "application/json", Body: "{}"}
	f := v.Form
	pr.In = controlbus.ChannelName{Env: cmp.Or(f.Get("in_env"), v.Env), System: f.Get("system"), Broker: f.Get("broker"), Name: f.Get("channel")}
	if id := r.PathValue("probe"); id != "" {
		ctx, cancel := v.Context()
		defer cancel()
		one, err := p.svc.Get(ctx, id)
		if err != nil {
			return fmt.Errorf("the probe: %w", err)
		}
		if id, _ := access.From(r.Context()); !id.Can(access.ReadBody, one.In.Env, one.In.Name) {
			return fmt.Errorf("the probe: %w: changing it needs the right to read payloads of its channel", controlbus.ErrDenied)
		}
		pr = one.Probe
	}
	return v.Render(w, page.Options{Title: "Probe", Area: "probes"}, Form(newForm(v, pr, nil)))
}

// maxForm is what a form may send.
const maxForm = 256 << 10

func (p *Pages) save(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return fmt.Errorf("%w: form: %w", controlbus.ErrInvalid, err)
	}
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	pr, err := read(r.PostForm)
	if err == nil {
		pr, err = p.svc.Save(ctx, pr, r.PostForm.Get("typed"))
	}
	if errors.Is(err, controlbus.ErrInvalid) || errors.Is(err, controlbus.ErrConflict) || errors.Is(err, controlbus.ErrTooLarge) {
		return v.Render(w, page.Options{Title: "Probe", Area: "probes", Status: http.StatusUnprocessableEntity}, Form(newForm(v, pr, err)))
	}
	if err != nil {
		return err
	}
	http.Redirect(w, r, "/probes/"+url.PathEscape(pr.ID)+"?env="+url.QueryEscape(pr.In.Env), http.StatusSeeOther)
	return nil
}

func (p *Pages) do(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("probe")
	ctx, cancel := page.Bound(r, 15*time.Second)
	defer cancel()
	to := "/probes/" + url.PathEscape(id)
	var err error
	switch r.PathValue("do") {
	case "run":
		err = p.svc.Start(ctx, id)
	case "pause":
		err = p.svc.Pause(ctx, id, true)
	case "continue":
		err = p.svc.Pause(ctx, id, false)
	case "delete":
		err, to = p.svc.Delete(ctx, id), "/probes"
	default:
		err = fmt.Errorf("%w: probes cannot do that", controlbus.ErrNotFound)
	}
	if err != nil {
		return err
	}
	if q := r.URL.RawQuery; q != "" {
		to += "?" + q
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// read makes a probe of a form. What cannot be read stays in the probe as far as
// it can, so that the form is shown again with it.
func read(f url.Values) (probe.Probe, error) {
	var errs []error
	span := func(name string) time.Duration {
		text := strings.TrimSpace(f.Get(name))
		if text == "" {
			return 0
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: %s: %q: want a time such as 30s or 5m", controlbus.ErrInvalid, name, text))
		}
		return d
	}
	p := probe.Probe{
		ID: f.Get("id"), Name: f.Get("name"),
		In:    controlbus.ChannelName{Env: f.Get("in_env"), Broker: strings.TrimSpace(f.Get("in_broker")), Name: strings.TrimSpace(f.Get("in_channel"))},
		Every: span("every"), Deadline: span("deadline"), ContentType: strings.TrimSpace(f.Get("content_type")),
		// A browser sends the lines of a text area with CR LF.
		Body: strings.ReplaceAll(f.Get("body"), "\r\n", "\n"), Key: strings.TrimSpace(f.Get("key")), Separate: f.Get("separate") != "", Expect: strings.TrimSpace(f.Get("expect")),
		Paused: f.Get("paused") != "",
	}
	if name := strings.TrimSpace(f.Get("out_channel")); name != "" || f.Get("out_broker") != "" {
		p.Out = controlbus.ChannelName{Env: cmp.Or(f.Get("out_env"), p.In.Env), Broker: strings.TrimSpace(f.Get("out_broker")), Name: name}
	}
	for line := range strings.Lines(f.Get("headers")) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			errs = append(errs, fmt.Errorf("%w: header %.60q: want name: value", controlbus.ErrInvalid, line))
			continue
		}
		if p.Headers == nil {
			p.Headers = map[string]string{}
		}
		p.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return p, errors.Join(errs...)
}
