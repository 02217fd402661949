package commands

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

func draftURL(id string) string { return "/control/drafts/" + url.PathEscape(id) }

// draftView is the dialog: what is about to happen, and the one button for it.
type draftView struct {
	Action    string
	Title     string
	EnvName   string
	Level     string
	Broker    string
	Preview   *previewView
	Taken     time.Time
	Expires   time.Time
	Left      string
	Button    string
	Danger    bool
	Undo      bool
	Keep      string // the way out says what stays
	Back      string
	Again     string // the form with the same values
	Reason    string
	NeedWhy   bool
	WrongWhy  string
	Typed     string // the name to type, exactly
	TypedShow string
	WrongName string
	Consent   string
	Second    bool
	Wrong     string
}

func (p *Pages) draft(w http.ResponseWriter, r *http.Request) error {
	return p.showDraft(w, r, "", nil, nil)
}

func (p *Pages) showDraft(w http.ResponseWriter, r *http.Request, why string, faults map[string]string, wrong error) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	d, err := p.svc.Draft(ctx, r.PathValue("id"))
	if errors.Is(err, controlbus.ErrNotFound) {
		return v.Render(w, page.Options{Title: "The preview is gone", Area: "control", Still: true, Status: http.StatusNotFound}, Gone())
	}
	if err != nil {
		return err
	}
	if d.Spec.Preview == nil {
		return fmt.Errorf("draft %.40q has no preview: %w", d.ID, controlbus.ErrInvalid)
	}
	who, _ := access.From(r.Context())
	v.Env = d.Spec.Target.Channel.Env
	m := makeDraft(v, who, &d)
	m.Reason, m.WrongWhy, m.WrongName = why, faults["reason"], faults["typed"]
	options := page.Options{Title: m.Title, Area: "control", Still: true}
	if len(faults) > 0 {
		options.Status = http.StatusBadRequest
	}
	if wrong != nil {
		m.Wrong, _ = reason(wrong)
		options.Status = statusOf(wrong)
	}
	return v.Render(w, options, Dialog(m))
}

// needsReason says whether an order must say why: wherever it removes something,
// and everywhere but in development.
func needsReason(s *controlbus.CommandSpec) bool {
	return s.Kind.Class() == controlbus.EffectDestructive || page.Level(s.Target.Channel.Env) != "development"
}

func makeDraft(v *page.View, who access.Identity, d *command.Draft) draftView {
	s := &d.Spec
	ch := s.Target.Channel
	m := draftView{
		Action: draftURL(d.ID) + "/order", Title: title(s), EnvName: component.Visible(ch.Env), Level: page.Level(ch.Env), Broker: component.Visible(ch.Broker),
		Preview: makePreview(v, s), Taken: s.Preview.TakenAt, Expires: d.Expires, Danger: s.Kind.Class() == controlbus.EffectDestructive, Undo: s.UndoOf != "",
		Back: v.Channel(ch), NeedWhy: needsReason(s),
	}
	if left := d.Expires.Sub(v.Now); left > 0 {
		m.Left = component.Span(left.Round(time.Second))
	}
	m.Button = m.Title + inEnv(ch.Env)
	switch d.Policy {
	case controlbus.ApproveByName:
		m.Typed, m.TypedShow = ch.Name, component.Visible(ch.Name)
		m.Consent = "No second person is needed" + inEnv(ch.Env) + "; the channel's name has to be typed."
	case controlbus.ApproveSecond:
		m.Second = true
		m.Consent = "Somebody else with the right to approve has to agree before anything happens" + inEnv(ch.Env) + "."
		m.Button = "Ask for consent: " + lower(m.Button)
	default:
		m.Consent = "No second person is needed" + inEnv(ch.Env) + "."
	}
	m.Keep = "Leave it as it is"
	switch s.Kind {
	case controlbus.CommandPurge, controlbus.CommandDiscard, controlbus.CommandRedrive:
		m.Keep = "Keep them there"
	}
	if s.UndoOf == "" {
		if q := values(s).Encode(); len(q) < 6000 {
			m.Again = "/control/new?" + q
		}
	} else {
		m.Back = URL(s.UndoOf)
	}
	if need := ledger.Action(s.Kind); !who.Can(need, ch.Env, ch.Name) {
		m.Wrong = who.Why(need)
	}
	return m
}

// order asks for what the draft shows.
func (p *Pages) order(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(w, r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), waiting)
	defer cancel()
	id := r.PathValue("id")
	d, err := p.svc.Draft(ctx, id)
	if err != nil {
		return p.showDraft(w, r, "", nil, nil) // says that it is gone, or why not
	}
	faults := map[string]string{}
	because, err := why(f)
	switch {
	case err != nil:
		faults["reason"], _ = reason(err)
	case because == "" && needsReason(&d.Spec):
		faults["reason"] = "Type why: it stands in the ledger beside your name."
	}
	typed := strings.TrimSpace(f.Get("typed"))
	if name := d.Spec.Target.Channel.Name; d.Policy == controlbus.ApproveByName && typed != strings.TrimSpace(name) {
		faults["typed"] = "Type " + component.Visible(name) + ", exactly."
	} else if d.Policy == controlbus.ApproveByName {
		typed = name
	}
	if len(faults) > 0 {
		return p.showDraft(w, r, because, faults, nil)
	}
	c, err := p.svc.Order(ctx, id, because, typed)
	if err != nil {
		if _, mine := reason(err); mine {
			return p.showDraft(w, r, because, nil, err)
		}
		return err
	}
	what := "ordered"
	if c.State == controlbus.CommandAwaitingApproval {
		what = "held"
	}
	http.Redirect(w, r, URL(c.ID)+"?"+url.Values{"told": {what}}.Encode(), http.StatusSeeOther)
	return nil
}

// describedBy points a field to what is wrong with it.
func describedBy(id, wrong string) string {
	if wrong == "" {
		return ""
	}
	return id
}
