package access

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

type loginView struct {
	Next, Name, Wrong, Told string
	NeedsSetup              bool
	Provider, Elsewhere     string
}

type linkView struct {
	Action, Token, Name, Wrong string
	First                      bool // makes the first user
	Gone                       string
}

func (p *Pages) login(w http.ResponseWriter, r *http.Request) error {
	next := page.LocalPath(r.URL.Query().Get("next"))
	if id := me(r); id.Kind == access.KindUser || p.svc.Open() {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return nil
	}
	m := loginView{Next: next}
	if r.URL.Query().Get("told") == "out" {
		m.Told = "You are signed out."
	}
	return p.showLogin(w, r, m, nil)
}

func (p *Pages) showLogin(w http.ResponseWriter, r *http.Request, m loginView, wrong error) error {
	var err error
	if m.NeedsSetup, err = p.svc.NeedsSetup(r.Context()); err != nil {
		return fmt.Errorf("users: %w: %w", controlbus.ErrUnavailable, err)
	}
	if p.provider != nil {
		m.Provider, m.Elsewhere = p.provider.Name(), "/login/oidc?"+url.Values{"next": {m.Next}}.Encode()
	}
	if wrong != nil {
		m.Wrong, _ = reason(wrong)
	}
	return p.plain(w, r, "Sign in", status(w, wrong), Login(m))
}

func (p *Pages) signIn(w http.ResponseWriter, r *http.Request) error {
	f, err := form(w, r)
	if err != nil {
		return err
	}
	next := page.LocalPath(f.Get("next"))
	secret, err := p.svc.Login(r.Context(), f.Get("name"), f.Get("password"), p.guard.Session(r))
	if err != nil {
		if _, mine := reason(err); mine {
			return p.showLogin(w, r, loginView{Next: next, Name: component.Visible(f.Get("name"))}, err)
		}
		return err
	}
	p.guard.Begin(w, r, secret)
	http.Redirect(w, r, next, http.StatusSeeOther)
	return nil
}

func (p *Pages) signOut(w http.ResponseWriter, r *http.Request) error {
	if err := p.svc.Logout(r.Context(), me(r)); err != nil {
		return err
	}
	p.guard.End(w, r)
	http.Redirect(w, r, "/login?told=out", http.StatusSeeOther)
	return nil
}

// link shows the form behind a one-time link.
func (p *Pages) link(w http.ResponseWriter, r *http.Request) error {
	m := linkView{Action: r.URL.Path, Token: r.URL.Query().Get("token")}
	return p.showLink(w, r, m, nil)
}

func (p *Pages) showLink(w http.ResponseWriter, r *http.Request, m linkView, wrong error) error {
	m.First = m.Action == "/setup"
	title := "Set a password"
	if m.First {
		title = "First start"
	}
	u, err := p.svc.CheckLink(r.Context(), m.Token)
	if err == nil && (u.ID == "") != m.First {
		err = controlbus.ErrNotFound
	}
	switch {
	case errors.Is(err, controlbus.ErrNotFound) && m.First:
		m.Gone = "This link was used already, or it is of an earlier start. While there is no user, the console prints a new one each time it starts."
	case errors.Is(err, controlbus.ErrNotFound):
		m.Gone = "This link was used already, or it is older than a day. An administrator can make a new one, in Settings, Users."
	case err != nil:
		return err
	}
	code := status(w, wrong)
	if m.Gone != "" {
		code = http.StatusNotFound
	}
	if u.ID != "" {
		m.Name = component.Visible(u.Name)
	}
	if wrong != nil {
		m.Wrong, _ = reason(wrong)
	}
	return p.plain(w, r, title, code, Link(m))
}

var errDiffer = fmt.Errorf("%w: the two passwords differ", controlbus.ErrInvalid)

func (p *Pages) setup(w http.ResponseWriter, r *http.Request) error {
	return p.useLink(w, r, func(f func(string) string) (controlbus.Secret, error) {
		return p.svc.CompleteSetup(r.Context(), f("token"), f("name"), f("password"))
	})
}

func (p *Pages) setPassword(w http.ResponseWriter, r *http.Request) error {
	return p.useLink(w, r, func(f func(string) string) (controlbus.Secret, error) {
		return p.svc.UsePasswordLink(r.Context(), f("token"), f("password"))
	})
}

func (p *Pages) useLink(w http.ResponseWriter, r *http.Request, use func(func(string) string) (controlbus.Secret, error)) error {
	f, err := form(w, r)
	if err != nil {
		return err
	}
	var secret controlbus.Secret
	if f.Get("password") != f.Get("again") {
		err = errDiffer
	} else {
		secret, err = use(f.Get)
	}
	if err != nil {
		if _, mine := reason(err); mine {
			return p.showLink(w, r, linkView{Action: r.URL.Path, Token: f.Get("token"), Name: component.Visible(f.Get("name"))}, err)
		}
		return err
	}
	p.guard.Begin(w, r, secret)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// stateCookie holds, for the time at the provider, what ties its answer to this
// browser.
func (p *Pages) stateCookie(r *http.Request) string {
	if p.guard.Secure(r) {
		return "__Host-signalbox-oidc"
	}
	return "signalbox-oidc"
}

// beginElsewhere leads to the provider. It is a link and no form: the policy of
// the pages lets forms lead nowhere else, not even by a redirect.
func (p *Pages) beginElsewhere(w http.ResponseWriter, r *http.Request) error {
	to, state, err := p.provider.Begin(r.Context(), page.LocalPath(r.URL.Query().Get("next")))
	if err != nil {
		return fmt.Errorf("%s: %w", p.provider.Name(), err)
	}
	http.SetCookie(w, &http.Cookie{
		Name: p.stateCookie(r), Value: state.Reveal(), Path: "/", MaxAge: 600,
		HttpOnly: true, Secure: p.guard.Secure(r), SameSite: http.SameSiteLaxMode, // Lax: the provider leads back here
	})
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

func (p *Pages) finishElsewhere(w http.ResponseWriter, r *http.Request) error {
	name := p.stateCookie(r)
	c, err := r.Cookie(name)
	http.SetCookie(w, &http.Cookie{Name: name, Path: "/", MaxAge: -1, HttpOnly: true, Secure: p.guard.Secure(r), SameSite: http.SameSiteLaxMode})
	if err != nil {
		return fmt.Errorf("this sign-in was not begun in this browser, or took longer than ten minutes; begin again: %w", controlbus.ErrDenied)
	}
	who, next, err := p.provider.Finish(r.Context(), c.Value, r.URL.Query())
	if err != nil {
		return fmt.Errorf("%s: %w", p.provider.Name(), err)
	}
	secret, err := p.svc.LoginExternal(r.Context(), who, p.guard.Session(r))
	if err != nil {
		return err
	}
	p.guard.Begin(w, r, secret)
	http.Redirect(w, r, page.LocalPath(next), http.StatusSeeOther)
	return nil
}
