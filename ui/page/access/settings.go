package access

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// shown is a secret that is shown once.
type shown struct {
	Title, Text, Value string
	Link               bool     // Value is an address
	Lines              []string // how it is used
}

type sessionView struct {
	ID, Address, Agent string
	Begun, Seen        time.Time
	This               bool
	Action             string
}

type grantView struct {
	Role, Env, Channel string
	Roles              []component.Option
}

type base struct {
	Tabs  []component.Option
	Wrong string
	Told  string
	Shown *shown
}

func (p *Pages) begin(r *http.Request, current string, wrong error) (*page.View, base, error) {
	v, err := p.site.Begin(r)
	if err != nil {
		return nil, base{}, err
	}
	b := base{Tabs: Tabs(v, current), Told: told[r.URL.Query().Get("told")]}
	if wrong != nil {
		b.Wrong, _ = reason(wrong)
	}
	return v, b, nil
}

// told says, after a redirect, what was done.
var told = map[string]string{
	"password": "The password was changed. Other sessions have ended.",
	"session":  "The session has ended.",
	"grants":   "The roles were changed. The user's sessions have ended; they sign in again.",
	"disabled": "The user was disabled. Sessions, live taps and tokens have ended.",
	"enabled":  "The user may sign in again.",
	"deleted":  "The user was deleted. The audit trail keeps the name.",
	"revoked":  "It was revoked and is refused from now on.",
}

func (p *Pages) again(w http.ResponseWriter, r *http.Request, path, what string) error {
	http.Redirect(w, r, path+"?"+url.Values{"told": {what}}.Encode(), http.StatusSeeOther)
	return nil
}

// Account.

type accountView struct {
	base
	Name, Source string
	Person       bool
	Local        bool
	Grants       []string
	Sessions     []sessionView
}

func (p *Pages) account(w http.ResponseWriter, r *http.Request) error {
	return p.showAccount(w, r, nil)
}

func (p *Pages) showAccount(w http.ResponseWriter, r *http.Request, wrong error) error {
	v, b, err := p.begin(r, "/settings/account", wrong)
	if err != nil {
		return err
	}
	id := me(r)
	m := accountView{base: b, Name: component.Visible(id.Name), Person: id.Kind == access.KindUser}
	for _, g := range id.Grants {
		m.Grants = append(m.Grants, component.Visible(g.String()))
	}
	switch id.Kind {
	case access.KindUser:
		u, err := p.svc.User(r.Context(), id.ID)
		if err != nil {
			return err
		}
		m.Local, m.Source = u.Local(), source(u)
		if m.Sessions, err = p.sessions(r, id.ID, "/settings/account/sessions/"); err != nil {
			return err
		}
	case access.KindAnonymous:
		m.Source = "nobody signs in on this console"
	default:
		m.Source = "API token"
	}
	return p.settings(w, v, "Account", status(w, wrong), Account(m))
}

func source(u access.User) string {
	if u.Local() {
		return "local"
	}
	return component.Visible(u.Issuer)
}

func (p *Pages) sessions(r *http.Request, userID, action string) ([]sessionView, error) {
	all, err := p.svc.Sessions(r.Context(), userID)
	if err != nil {
		return nil, err
	}
	var out []sessionView
	for _, s := range all {
		out = append(out, sessionView{
			ID: s.ID, Address: component.Visible(s.Address), Agent: browser(s.UserAgent), Begun: s.CreatedAt, Seen: s.SeenAt,
			This: s.ID == me(r).Session, Action: action + s.ID,
		})
	}
	return out, nil
}

// browser is the part of a user agent by which people know it.
func browser(ua string) string {
	name := ""
	for _, b := range []struct{ sign, name string }{{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}} {
		if strings.Contains(ua, b.sign) {
			name = b.name
			break
		}
	}
	for _, os := range []struct{ sign, name string }{{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Windows", "Windows"}, {"Mac OS", "macOS"}, {"Linux", "Linux"}} {
		if name != "" && strings.Contains(ua, os.sign) {
			return name + " on " + os.name
		}
	}
	if name != "" {
		return name
	}
	if len(ua) > 60 {
		ua = ua[:60]
	}
	return component.Visible(cmp.Or(ua, "unknown program"))
}

func (p *Pages) changePassword(w http.ResponseWriter, r *http.Request) error {
	f, err := form(w, r)
	if err != nil {
		return err
	}
	var secret controlbus.Secret
	if f.Get("password") != f.Get("again") {
		err = errDiffer
	} else {
		secret, err = p.svc.ChangePassword(r.Context(), me(r), f.Get("old"), f.Get("password"), p.guard.Session(r))
	}
	if err != nil {
		if _, mine := reason(err); mine {
			return p.showAccount(w, r, err)
		}
		return err
	}
	p.guard.Begin(w, r, secret)
	return p.again(w, r, "/settings/account", "password")
}

func (p *Pages) endOwnSession(w http.ResponseWriter, r *http.Request) error {
	id := me(r)
	if err := p.svc.EndSession(r.Context(), id, id.ID, r.PathValue("session")); err != nil {
		return err
	}
	return p.again(w, r, "/settings/account", "session")
}

// Users.

type userRow struct {
	URL, Name, Source string
	Access            []string
	State             component.State
	Last              time.Time
}

type usersView struct {
	base
	Sub      string
	Rows     []userRow
	Name     string
	Grants   []grantView
	Provider string
}

func userState(u access.User) component.State {
	switch {
	case u.Disabled:
		return component.State{Kind: component.Off, Word: "disabled"}
	case u.Local() && u.Password == "":
		return component.State{Kind: component.Held, Word: "has not set a password"}
	case len(u.Grants) == 0:
		return component.State{Kind: component.Off, Word: "may nothing"}
	}
	return component.State{Kind: component.Clear, Word: "active"}
}

func grantTexts(grants []access.Grant) (out []string) {
	for _, g := range grants {
		out = append(out, component.Visible(g.String()))
	}
	return out
}

func (p *Pages) users(w http.ResponseWriter, r *http.Request) error {
	return p.showUsers(w, r, "", nil, nil, nil)
}

func (p *Pages) showUsers(w http.ResponseWriter, r *http.Request, name string, grants []access.Grant, wrong error, once *shown) error {
	v, b, err := p.begin(r, "/settings/users", wrong)
	if err != nil {
		return err
	}
	all, err := p.svc.Users(r.Context())
	if err != nil {
		return err
	}
	b.Shown = once
	m := usersView{base: b, Sub: component.Plural(len(all), "user"), Name: component.Visible(name), Grants: grantForm(grants, 2, access.Viewer)}
	if p.provider != nil {
		m.Provider = p.provider.Name()
	}
	for _, u := range all {
		m.Rows = append(m.Rows, userRow{
			URL: "/settings/users/" + u.ID, Name: component.Visible(u.Name), Source: source(u), Access: grantTexts(u.Grants), State: userState(u), Last: u.LastLogin,
		})
	}
	return p.settings(w, v, "Users", status(w, wrong), Users(m))
}

// grantForm is the rows of a form: those there are, and some to fill in.
func grantForm(grants []access.Grant, least int, first access.Role) []grantView {
	var out []grantView
	row := func(role access.Role, env, channel string) {
		g := grantView{Role: string(role), Env: component.Visible(env), Channel: component.Visible(channel)}
		g.Roles = append(g.Roles, component.Option{Label: "none", URL: "", Current: role == ""})
		for _, o := range access.Roles() {
			g.Roles = append(g.Roles, component.Option{Label: string(o), URL: string(o), Current: o == role})
		}
		out = append(out, g)
	}
	for _, g := range grants {
		row(g.Role, g.Env, g.Channel)
	}
	for i := len(out); i < max(least, len(grants)+1); i++ {
		role := access.Role("")
		if i == 0 {
			role = first
		}
		row(role, "*", "*")
	}
	return out
}

// grants reads the rows of a form. A row without a role is left out.
func grants(f url.Values) ([]access.Grant, error) {
	roles, envs, channels := f["role"], f["env"], f["channel"]
	if len(envs) != len(roles) || len(channels) != len(roles) {
		return nil, fmt.Errorf("%w: roles: want a role, an environment and a channel in each row", controlbus.ErrInvalid)
	}
	var out []access.Grant
	for i, role := range roles {
		if role != "" {
			out = append(out, access.Grant{Role: access.Role(role), Env: envs[i], Channel: channels[i]})
		}
	}
	return out, nil
}

func (p *Pages) addUser(w http.ResponseWriter, r *http.Request) error {
	f, err := form(w, r)
	if err != nil {
		return err
	}
	list, err := grants(f)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%w: roles: want at least one", controlbus.ErrInvalid)
	}
	var u access.User
	var secret controlbus.Secret
	if err == nil {
		u, secret, err = p.svc.AddUser(r.Context(), me(r), f.Get("name"), list)
	}
	if err != nil {
		if _, mine := reason(err); mine {
			return p.showUsers(w, r, f.Get("name"), list, err, nil)
		}
		return err
	}
	return p.showUsers(w, r, "", nil, nil, p.passwordLink(r, u.Name, secret))
}

func (p *Pages) passwordLink(r *http.Request, name string, secret controlbus.Secret) *shown {
	return &shown{
		Title: "A link for " + component.Visible(name), Link: true,
		Text:  "Whoever opens it sets the password, once, within 24 hours. It is shown only now: send it to them the way you would send a key.",
		Value: p.guard.URL(r, "/password?"+url.Values{"token": {secret.Reveal()}}.Encode()),
	}
}

type userView struct {
	base
	Path, Name, Source string
	State              component.State
	Local, Disabled    bool
	Created, Last      time.Time
	Grants             []grantView
	Fixed              []string // roles that the provider's claims give
	Sessions           []sessionView
	Confirm            string
}

func (p *Pages) user(w http.ResponseWriter, r *http.Request) error {
	return p.showUser(w, r, nil, nil)
}

func (p *Pages) showUser(w http.ResponseWriter, r *http.Request, wrong error, once *shown) error {
	v, b, err := p.begin(r, "/settings/users", wrong)
	if err != nil {
		return err
	}
	u, err := p.svc.User(r.Context(), r.PathValue("user"))
	if err != nil {
		return err
	}
	b.Shown = once
	m := userView{
		base: b, Path: "/settings/users/" + u.ID, Name: component.Visible(u.Name), Source: source(u), State: userState(u), Local: u.Local(), Disabled: u.Disabled,
		Created: u.CreatedAt, Last: u.LastLogin,
	}
	if u.Local() {
		m.Grants = grantForm(u.Grants, len(u.Grants)+1, "")
	} else {
		m.Fixed = grantTexts(u.Grants)
	}
	if m.Sessions, err = p.sessions(r, u.ID, m.Path+"/session?id="); err != nil {
		return err
	}
	return p.settings(w, v, m.Name, status(w, wrong), User(m))
}

func (p *Pages) changeUser(w http.ResponseWriter, r *http.Request) error {
	f, err := form(w, r)
	if err != nil {
		return err
	}
	id, by, ctx := r.PathValue("user"), me(r), r.Context()
	back, what := "/settings/users/"+url.PathEscape(id), ""
	switch do := r.PathValue("do"); do {
	case "grants":
		var list []access.Grant
		if list, err = grants(f); err == nil {
			err = p.svc.SetGrants(ctx, by, id, list)
		}
		what = "grants"
	case "disable":
		err, what = p.svc.SetDisabled(ctx, by, id, true), "disabled"
	case "enable":
		err, what = p.svc.SetDisabled(ctx, by, id, false), "enabled"
	case "session":
		err, what = p.svc.EndSession(ctx, by, id, r.URL.Query().Get("id")), "session"
	case "link":
		var u access.User
		var secret controlbus.Secret
		if u, err = p.svc.User(ctx, id); err == nil {
			if secret, err = p.svc.PasswordLink(ctx, by, id); err == nil {
				return p.showUser(w, r, nil, p.passwordLink(r, u.Name, secret))
			}
		}
	case "delete":
		var u access.User
		if u, err = p.svc.User(ctx, id); err == nil && f.Get("confirm") != u.Name {
			err = fmt.Errorf("%w: to delete the user, type the name %s", controlbus.ErrInvalid, u.Name)
		}
		if err == nil {
			err, what, back = p.svc.DeleteUser(ctx, by, id), "deleted", "/settings/users"
		}
	default:
		return fmt.Errorf("%.40q: %w", do, controlbus.ErrNotFound)
	}
	if err != nil {
		if _, mine := reason(err); mine {
			return p.showUser(w, r, err, nil)
		}
		return err
	}
	return p.again(w, r, back, what)
}

// API tokens.

type tokenRow struct {
	Name, Hint, Owner, Revoke string
	Access                    []string
	State                     component.State
	Created, Expires, Used    time.Time
	Active                    bool
	Left                      string
}

type tokensView struct {
	base
	All    bool // shows everybody's
	Rows   []tokenRow
	Name   string
	Grants []grantView
	Sender bool
	Lives  []component.Option
}

var lives = []struct {
	value, label string
	d            time.Duration
}{
	{"24h", "1 day", 24 * time.Hour}, {"168h", "7 days", 7 * 24 * time.Hour}, {"720h", "30 days", 30 * 24 * time.Hour},
	{"2160h", "90 days", access.DefaultTokenLife}, {"8760h", "1 year", access.MaxTokenLife},
}

func lifeOptions(chosen string, most time.Duration) (out []component.Option) {
	for _, l := range lives {
		if l.d <= most {
			out = append(out, component.Option{Label: l.label, URL: l.value, Current: l.value == chosen})
		}
	}
	return out
}

func life(f url.Values) (time.Duration, error) {
	for _, l := range lives {
		if l.value == f.Get("life") {
			return l.d, nil
		}
	}
	return 0, fmt.Errorf("%w: expiry: want one of those offered", controlbus.ErrInvalid)
}

func tokenState(t access.Token, now time.Time) component.State {
	switch {
	case !t.RevokedAt.IsZero():
		return component.State{Kind: component.Off, Word: "revoked"}
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt):
		return component.State{Kind: component.Off, Word: "expired"}
	case t.Kind == access.TokenEnrol && t.Left == 0:
		return component.State{Kind: component.Done, Word: "used up"}
	case !t.ExpiresAt.IsZero() && t.ExpiresAt.Sub(now) < 7*24*time.Hour && t.Kind == access.TokenAPI:
		return component.State{Kind: component.Caution, Word: "expires soon"}
	}
	return component.State{Kind: component.Clear, Word: "in force"}
}

func (p *Pages) rows(list []access.Token, owner map[string]string, revoke string) (out []tokenRow) {
	now := p.site.Now()
	for _, t := range list {
		row := tokenRow{
			Name: component.Visible(t.Name), Hint: t.Hint, Owner: component.Visible(owner[t.OwnerID]), Access: grantTexts(t.Grants), State: tokenState(t, now),
			Created: t.CreatedAt, Expires: t.ExpiresAt, Used: t.LastUsed, Active: t.Active(now), Revoke: revoke + t.ID + "/revoke", Left: strconv.Itoa(t.Left),
		}
		if t.Kind == access.TokenAgent {
			row.Name, row.Owner = component.Visible(t.AgentID), component.Visible(t.Name)
		}
		out = append(out, row)
	}
	// What holds comes first.
	slices.SortStableFunc(out, func(a, b tokenRow) int {
		switch {
		case a.Active == b.Active:
			return 0
		case a.Active:
			return -1
		}
		return 1
	})
	return out
}

func (p *Pages) tokens(w http.ResponseWriter, r *http.Request) error {
	return p.showTokens(w, r, nil, nil, nil)
}

func (p *Pages) showTokens(w http.ResponseWriter, r *http.Request, f url.Values, wrong error, once *shown) error {
	v, b, err := p.begin(r, "/settings/tokens", wrong)
	if err != nil {
		return err
	}
	b.Shown = once
	id := me(r)
	m := tokensView{base: b, All: v.May(access.ManageTokens), Name: component.Visible(f.Get("name")), Lives: lifeOptions(cmp.Or(f.Get("life"), "2160h"), access.MaxTokenLife), Sender: v.May(access.ManageTokens)}
	list, err := p.svc.Tokens(r.Context(), id, m.All)
	if err != nil {
		return err
	}
	owner := map[string]string{}
	if m.All {
		users, err := p.svc.Users(r.Context())
		if err != nil {
			return err
		}
		for _, u := range users {
			owner[u.ID] = u.Name
		}
	}
	m.Rows = p.rows(list, owner, "/settings/tokens/")
	asked, _ := grants(f) // as it was typed
	m.Grants = grantForm(asked, 1, access.Viewer)
	for i := range m.Grants {
		m.Grants[i].Roles = slices.DeleteFunc(m.Grants[i].Roles, func(o component.Option) bool {
			return o.URL != "" && !id.Somewhere(strongest(access.Role(o.URL)))
		})
		if m.Sender {
			m.Grants[i].Roles = append(m.Grants[i].Roles, component.Option{Label: "sender (OTLP only)", URL: string(access.Sender), Current: m.Grants[i].Role == string(access.Sender)})
		}
	}
	return p.settings(w, v, "API tokens", status(w, wrong), Tokens(m))
}

// strongest is an action that a role has and the ones below it have not.
func strongest(role access.Role) access.Action {
	switch role {
	case access.Reader:
		return access.ReadBody
	case access.Operator:
		return access.RequestTap
	case access.Approver:
		return access.Approve
	case access.Admin:
		return access.ManageUsers
	}
	return access.ViewMetadata
}

func (p *Pages) createToken(w http.ResponseWriter, r *http.Request) error {
	f, err := form(w, r)
	if err != nil {
		return err
	}
	list, err := grants(f)
	var d time.Duration
	if err == nil {
		d, err = life(f)
	}
	var t access.Token
	var secret controlbus.Secret
	if err == nil {
		t, secret, err = p.svc.CreateToken(r.Context(), me(r), access.NewToken{Name: f.Get("name"), Grants: list, Life: d})
	}
	if err != nil {
		if _, mine := reason(err); mine {
			return p.showTokens(w, r, f, err, nil)
		}
		return err
	}
	return p.showTokens(w, r, nil, nil, &shown{
		Title: "The token " + component.Visible(t.Name), Value: secret.Reveal(),
		Text: "It is shown only now. Who has it may what it may, until " + t.ExpiresAt.UTC().Format("2 Jan 2006 15:04") + " UTC or until it is revoked here.",
		Lines: []string{
			"signalbox login " + p.guard.URL(r, ""),
			"curl -H 'Authorization: Bearer …' " + p.guard.URL(r, "/api/v1/overview"),
		},
	})
}

func (p *Pages) revokeToken(w http.ResponseWriter, r *http.Request) error {
	if err := p.svc.RevokeToken(r.Context(), me(r), access.TokenAPI, r.PathValue("token")); err != nil {
		return err
	}
	return p.again(w, r, "/settings/tokens", "revoked")
}

// Agents.

type agentsView struct {
	base
	Open        bool // agents need no credential
	Credentials []tokenRow
	Enrolments  []tokenRow
	Name, Count string
	Env         string
	Lives       []component.Option
}

func (p *Pages) agents(w http.ResponseWriter, r *http.Request) error {
	return p.showAgents(w, r, nil, nil, nil)
}

func (p *Pages) showAgents(w http.ResponseWriter, r *http.Request, f url.Values, wrong error, once *shown) error {
	v, b, err := p.begin(r, "/settings/agents", wrong)
	if err != nil {
		return err
	}
	b.Shown = once
	m := agentsView{
		base: b, Open: p.guard.AgentsOpen(), Name: component.Visible(f.Get("name")), Count: component.Visible(cmp.Or(f.Get("count"), "1")), Env: component.Visible(cmp.Or(f.Get("env"), "*")),
		Lives: lifeOptions(cmp.Or(f.Get("life"), "24h"), access.MaxEnrolmentLife),
	}
	creds, err := p.svc.Credentials(r.Context(), me(r))
	if err != nil {
		return err
	}
	enrol, err := p.svc.Enrolments(r.Context(), me(r))
	if err != nil {
		return err
	}
	m.Credentials = p.rows(creds, nil, "/settings/agents/agent/")
	m.Enrolments = p.rows(enrol, nil, "/settings/agents/enrol/")
	return p.settings(w, v, "Agents", status(w, wrong), Agents(m))
}

func (p *Pages) createEnrolment(w http.ResponseWriter, r *http.Request) error {
	f, err := form(w, r)
	if err != nil {
		return err
	}
	n := access.NewEnrolment{Name: f.Get("name"), Env: f.Get("env")}
	if n.Agents, err = strconv.Atoi(f.Get("count")); err != nil || n.Agents < 1 {
		err = fmt.Errorf("%w: agents: want a number from 1", controlbus.ErrInvalid)
	}
	if err == nil {
		n.Life, err = life(f)
	}
	var t access.Token
	var secret controlbus.Secret
	if err == nil {
		t, secret, err = p.svc.CreateEnrolment(r.Context(), me(r), n)
	}
	if err != nil {
		if _, mine := reason(err); mine {
			return p.showAgents(w, r, f, err, nil)
		}
		return err
	}
	return p.showAgents(w, r, nil, nil, &shown{
		Title: "The enrolment token " + component.Visible(t.Name), Value: secret.Reveal(),
		Text: "It is shown only now. Put it into a file beside the agent and name that file in its configuration; at its first start the agent exchanges it for a credential of its own.",
		Lines: []string{
			"console:",
			"  url: " + p.guard.URL(r, ""),
			"  enrolment_token_file: /etc/signalbox-agent/enrolment",
		},
	})
}

func (p *Pages) revokeAgent(w http.ResponseWriter, r *http.Request) error {
	kind := access.TokenKind(r.PathValue("kind"))
	if kind != access.TokenAgent && kind != access.TokenEnrol {
		return fmt.Errorf("%.40q: %w", string(kind), controlbus.ErrNotFound)
	}
	if err := p.svc.RevokeToken(r.Context(), me(r), kind, r.PathValue("token")); err != nil {
		return err
	}
	return p.again(w, r, "/settings/agents", "revoked")
}
