// Package access is signing in and everything about who may do what: the first
// start, one-time links, one's own account, users, API tokens, agents and the
// audit trail. The rules are those of controlbus/access, which checks each of
// them again.
package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/guard"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Provider signs people in somewhere else. Begin may block for a look at the
// provider; both may be called concurrently.
type Provider interface {
	// Name is what the button says.
	Name() string
	// Begin returns where to send the browser, and what the browser must bring
	// back in a cookie.
	Begin(ctx context.Context, next string) (to string, state controlbus.Secret, err error)
	// Finish reads what came back and says who it is and where they wanted to go.
	Finish(ctx context.Context, state string, answer url.Values) (who access.External, next string, err error)
}

// Pages are the pages.
type Pages struct {
	site     *page.Site
	guard    *guard.Guard
	svc      *access.Service
	provider Provider // nil: nobody signs in elsewhere
}

// New returns the pages.
func New(site *page.Site, g *guard.Guard, provider Provider) *Pages {
	return &Pages{site: site, guard: g, svc: g.Access(), provider: provider}
}

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	routes := []page.Route{
		{Pattern: "GET /login", Handler: p.login, Action: access.Public},
		{Pattern: "POST /login", Handler: p.signIn, Action: access.Public},
		{Pattern: "POST /logout", Handler: p.signOut, Action: access.Self},
		{Pattern: "GET /setup", Handler: p.link, Action: access.Public},
		{Pattern: "POST /setup", Handler: p.setup, Action: access.Public},
		{Pattern: "GET /password", Handler: p.link, Action: access.Public},
		{Pattern: "POST /password", Handler: p.setPassword, Action: access.Public},

		{Pattern: "GET /settings/account", Handler: p.account, Action: access.Self},
		{Pattern: "POST /settings/account/password", Handler: p.changePassword, Action: access.Self},
		{Pattern: "POST /settings/account/sessions/{session}", Handler: p.endOwnSession, Action: access.Self},

		{Pattern: "GET /settings/users", Handler: p.users, Action: access.ManageUsers},
		{Pattern: "POST /settings/users", Handler: p.addUser, Action: access.ManageUsers},
		{Pattern: "GET /settings/users/{user}", Handler: p.user, Action: access.ManageUsers},
		{Pattern: "POST /settings/users/{user}/{do}", Handler: p.changeUser, Action: access.ManageUsers},

		{Pattern: "GET /settings/tokens", Handler: p.tokens, Action: access.OwnTokens},
		{Pattern: "POST /settings/tokens", Handler: p.createToken, Action: access.OwnTokens},
		{Pattern: "POST /settings/tokens/{token}/revoke", Handler: p.revokeToken, Action: access.OwnTokens},

		{Pattern: "GET /settings/agents", Handler: p.agents, Action: access.ManageAgents},
		{Pattern: "POST /settings/agents", Handler: p.createEnrolment, Action: access.ManageAgents},
		{Pattern: "POST /settings/agents/{kind}/{token}/revoke", Handler: p.revokeAgent, Action: access.ManageAgents},
	}
	if p.provider != nil {
		routes = append(routes,
			page.Route{Pattern: "GET /login/oidc", Handler: p.beginElsewhere, Action: access.Public},
			page.Route{Pattern: "GET " + CallbackPath, Handler: p.finishElsewhere, Action: access.Public})
	}
	return routes
}

// CallbackPath is where a provider sends the browser back to.
const CallbackPath = "/login/oidc/callback"

// Tabs are the pages of settings that whoever asks may see, for the row above
// each.
func Tabs(v *page.View, current string) []component.Option {
	var out []component.Option
	for _, t := range []struct {
		label, url string
		needs      access.Action
	}{
		{"General", "/settings", access.Self},
		{"Account", "/settings/account", access.Self},
		{"Users", "/settings/users", access.ManageUsers},
		{"API tokens", "/settings/tokens", access.OwnTokens},
		{"Agents", "/settings/agents", access.ManageAgents},
		{"Audit", "/audit", access.ReadAudit},
	} {
		if v.May(t.needs) {
			out = append(out, component.Option{Label: t.label, URL: t.url, Current: t.url == current})
		}
	}
	return out
}

// maxForm is what a form may send.
const maxForm = 64 << 10

func form(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, fmt.Errorf("%w: form: %w", controlbus.ErrInvalid, err)
	}
	return r.PostForm, nil
}

// reason is an error of the service as a form shows it, where it is the
// reader's to mend.
func reason(err error) (string, bool) {
	for _, is := range []error{controlbus.ErrInvalid, controlbus.ErrConflict, controlbus.ErrOverloaded, controlbus.ErrNotFound, controlbus.ErrUnsupported, access.ErrCredentials} {
		if errors.Is(err, is) {
			text := err.Error()
			for _, cut := range []string{"access: ", "state: ", "invalid: ", "conflict: ", "not supported: "} {
				text = strings.ReplaceAll(text, cut, "")
			}
			for _, cut := range []string{": unauthenticated: denied", ": not found", ": overloaded"} {
				text = strings.TrimSuffix(text, cut)
			}
			return component.Visible(strings.ToUpper(text[:1]) + text[1:] + "."), true
		}
	}
	return "", false
}

// status is the status of a page that shows a form again.
func status(w http.ResponseWriter, err error) int {
	if t := (*access.ThrottledError)(nil); errors.As(err, &t) {
		w.Header().Set("Retry-After", fmt.Sprint(int(t.After/time.Second)+1))
		return http.StatusTooManyRequests
	}
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, access.ErrUnauthenticated):
		return http.StatusUnauthorized
	case errors.Is(err, controlbus.ErrOverloaded):
		return http.StatusServiceUnavailable
	case errors.Is(err, controlbus.ErrConflict):
		return http.StatusConflict
	case errors.Is(err, controlbus.ErrNotFound):
		return http.StatusNotFound
	}
	return http.StatusBadRequest
}

// plain renders a page outside the frame: whoever sees it may not be signed in.
func (p *Pages) plain(w http.ResponseWriter, r *http.Request, title string, code int, content templ.Component) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address may hold a one-time link
	s := component.Shell{Title: title, CSS: p.site.CSS, JS: p.site.JS, Favicon: p.site.Favicon, Theme: page.Theme(r), Config: page.HtmxConfig, TookAt: p.site.Now()}
	buf := templ.GetBuffer()
	defer templ.ReleaseBuffer(buf)
	if err := component.Plain(s).Render(templ.WithChildren(r.Context(), content), buf); err != nil {
		return fmt.Errorf("render %s: %w", title, err)
	}
	w.WriteHeader(code)
	_, _ = w.Write(buf.Bytes()) // a reader that went away is not our error
	return nil
}

// settings renders a page of settings in the frame.
func (p *Pages) settings(w http.ResponseWriter, v *page.View, title string, code int, content templ.Component) error {
	return v.Render(w, page.Options{Title: title, Area: "settings", Status: code, Still: true}, content)
}

func me(r *http.Request) access.Identity {
	id, _ := access.From(r.Context())
	return id
}

// describedBy points a field to what is wrong with it.
func describedBy(wrong string) string {
	if wrong != "" {
		return "wrong"
	}
	return ""
}
