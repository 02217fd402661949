package access

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Lives of one-time links.
const (
	SetupLife = 24 * time.Hour
	LinkLife  = 24 * time.Hour
)

// ErrCredentials is the one answer to a wrong name, a wrong password and a
// disabled user: strangers learn nothing about who exists.
var ErrCredentials = fmt.Errorf("name or password is wrong: %w", ErrUnauthenticated)

// Setup returns the secret of the one-time link with which the first user is
// made, a new one at each start, and nothing once there is a user.
func (s *Service) Setup(ctx context.Context) (controlbus.Secret, error) {
	users, err := s.store.Users(ctx)
	if err != nil || len(users) > 0 || s.Open() {
		return "", err
	}
	secret := controlbus.Secret(rand.Text())
	if err := s.store.PutLink(ctx, Link{Hash: hashOf(secret.Reveal()), ExpiresAt: time.Now().Add(SetupLife)}, nil); err != nil {
		return "", fmt.Errorf("access: setup link: %w", err)
	}
	return secret, nil
}

// NeedsSetup says that there is no user yet.
func (s *Service) NeedsSetup(ctx context.Context) (bool, error) {
	users, err := s.store.Users(ctx)
	return err == nil && len(users) == 0 && !s.Open(), err
}

// CheckLink says whether a one-time link holds, and for which user it sets the
// password; a setup link is for none. Errors are controlbus.ErrNotFound.
func (s *Service) CheckLink(ctx context.Context, secret string) (User, error) {
	l, err := s.store.Link(ctx, hashOf(secret))
	if err != nil {
		return User{}, linkError(err)
	}
	if !time.Now().Before(l.ExpiresAt) {
		return User{}, linkError(controlbus.ErrNotFound)
	}
	if l.UserID == "" {
		return User{}, nil
	}
	return s.store.User(ctx, l.UserID)
}

func linkError(err error) error {
	if errors.Is(err, controlbus.ErrNotFound) {
		return fmt.Errorf("this link was used already or is too old: %w", controlbus.ErrNotFound)
	}
	return err
}

// CompleteSetup makes the first user, an administrator of everything, and signs
// them in. It returns the secret of the session.
func (s *Service) CompleteSetup(ctx context.Context, secret, name, password string) (controlbus.Secret, error) {
	client := ClientFrom(ctx)
	if err := s.throttle(ctx, "setup", called("the first start"), client.Address); err != nil {
		return "", err
	}
	name = strings.TrimSpace(name)
	if err := errors.Join(CheckName(name), CheckPassword(name, password)); err != nil {
		return "", err
	}
	if u, err := s.CheckLink(ctx, secret); err != nil {
		return "", err
	} else if u.ID != "" {
		return "", linkError(controlbus.ErrNotFound)
	}
	phc, err := s.hashers.hash(ctx, password)
	if err != nil {
		return "", err
	}
	now := time.Now()
	u := User{ID: newID(), Name: name, Password: phc, Grants: Everywhere(Admin), CreatedAt: now, LastLogin: now}
	session, sessionSecret := s.newSession(u, client, now)
	e := s.event(Actor{KindUser, u.ID, u.Name}, Event{Code: EventSetup, Target: u.Name, Address: client.Address, Detail: "First user, with the link of the first start."})
	if err := s.store.UseSetupLink(ctx, hashOf(secret), now, u, session, e); err != nil {
		return "", linkError(err)
	}
	s.tries.succeed(accountKey("setup"), addressKey(client.Address))
	s.change()
	return sessionSecret, nil
}

// known is a name that was typed, as the audit trail may keep it: people type
// passwords into the wrong field.
func (s *Service) known(ctx context.Context, name string) string {
	u, err := s.store.UserByName(ctx, name)
	if err != nil {
		return nobody
	}
	return u.Name
}

const nobody = "a name that no user has"

func called(name string) func() string { return func() string { return name } }

// throttle takes a try, or says how long to wait and records when that began,
// with what the account is called there.
func (s *Service) throttle(ctx context.Context, account string, called func() string, address string) error {
	wait, began := s.tries.try(accountKey(account), addressKey(address))
	if wait <= 0 {
		return nil
	}
	if began {
		e := s.event(Actor{Kind: KindAnonymous}, Event{Code: EventThrottled, Target: called(), Address: address, Refused: true, Detail: "Refused for " + wait.Round(time.Second).String() + "."})
		if err := s.store.AddEvent(ctx, e); err != nil {
			return err
		}
	}
	return &ThrottledError{After: wait}
}

func (s *Service) newSession(u User, c Client, now time.Time) (Session, controlbus.Secret) {
	secret := controlbus.Secret(rand.Text() + rand.Text()) // 260 bits
	return Session{
		ID: newID(), Hash: hashOf(secret.Reveal()), UserID: u.ID, CreatedAt: now, SeenAt: now,
		ExpiresAt: now.Add(s.cfg.SessionMax), Address: Clip(c.Address, 100), UserAgent: Clip(c.UserAgent, 300),
	}, secret
}

// Login checks name and password and returns the secret of a new session. A
// session that the browser had before ends. Errors are ErrCredentials, and
// *ThrottledError.
func (s *Service) Login(ctx context.Context, name, password, before string) (controlbus.Secret, error) {
	client := ClientFrom(ctx)
	name = strings.TrimSpace(name)
	if len(name) > 300 {
		name = name[:300]
	}
	if err := s.throttle(ctx, name, func() string { return s.known(ctx, name) }, client.Address); err != nil {
		return "", err
	}
	u, err := s.store.UserByName(ctx, name)
	if err != nil && !errors.Is(err, controlbus.ErrNotFound) {
		return "", fmt.Errorf("access: sign in: %w", err)
	}
	phc := u.Password
	if !u.Local() {
		phc = ""
	}
	fits, err := s.hashers.verify(ctx, phc, password)
	if err != nil {
		return "", err
	}
	if !fits || u.Disabled {
		target := u.Name
		if target == "" {
			target = nobody
		}
		e := s.event(Actor{Kind: KindAnonymous}, Event{Code: EventLoginFailed, Target: target, Address: client.Address, Refused: true})
		if err := s.store.AddEvent(ctx, e); err != nil {
			return "", err
		}
		return "", ErrCredentials
	}
	secret, err := s.begin(ctx, u, before, "With a password.")
	if err != nil {
		return "", err
	}
	s.tries.succeed(accountKey(name), addressKey(client.Address))
	return secret, nil
}

// begin opens a session, always with a new secret: one planted in the browser
// before is worth nothing after.
func (s *Service) begin(ctx context.Context, u User, before, how string) (controlbus.Secret, error) {
	client := ClientFrom(ctx)
	session, secret := s.newSession(u, client, time.Now())
	var replaces *[32]byte
	if before != "" {
		h := [32]byte(hashOf(before))
		replaces = &h
	}
	e := s.event(Actor{KindUser, u.ID, u.Name}, Event{Code: EventLogin, Target: u.Name, Address: client.Address, Detail: how})
	if err := s.store.AddSession(ctx, session, replaces, e); err != nil {
		return "", fmt.Errorf("access: sign in: %w", err)
	}
	s.change()
	return secret, nil
}

// External is a user whom an OIDC provider vouches for.
type External struct {
	Issuer, Subject string
	Name            string
	Grants          []Grant
}

// LoginExternal signs in whom a provider vouches for. The first time the user is
// made; each time the grants are set to those the claims map to. A local user
// with the same name keeps it: controlbus.ErrConflict.
func (s *Service) LoginExternal(ctx context.Context, x External, before string) (controlbus.Secret, error) {
	grants, err := CheckGrants(x.Grants)
	if err := errors.Join(err, people(grants)); err != nil {
		return "", err
	}
	if x.Issuer == "" || x.Subject == "" {
		return "", fmt.Errorf("access: sign in: %w: the provider named no subject", controlbus.ErrInvalid)
	}
	client := ClientFrom(ctx)
	refuse := func(why string) (controlbus.Secret, error) {
		e := s.event(Actor{Kind: KindAnonymous}, Event{Code: EventLoginFailed, Target: x.Name, Address: client.Address, Refused: true, Detail: why})
		if err := s.store.AddEvent(ctx, e); err != nil {
			return "", err
		}
		return "", fmt.Errorf("access: sign in: %s %w", why, controlbus.ErrDenied)
	}
	if len(grants) == 0 {
		return refuse("None of the provider's claims gives a role here.")
	}
	u, err := s.store.UserBySubject(ctx, x.Issuer, x.Subject)
	switch {
	case errors.Is(err, controlbus.ErrNotFound):
		u = User{ID: newID(), Name: Clip(strings.TrimSpace(x.Name), 64), Issuer: x.Issuer, Subject: x.Subject, Grants: grants, CreatedAt: time.Now()}
		if u.Name == "" {
			u.Name = Clip(x.Subject, 64)
		}
		e := s.event(system, Event{Code: EventUserAdd, Target: u.Name, Address: client.Address, Detail: "Vouched for by " + x.Issuer + ": " + grantList(grants) + "."})
		if err := s.store.AddUser(ctx, u, e); err != nil {
			return "", fmt.Errorf("access: sign in as %q: %w", u.Name, err)
		}
	case err != nil:
		return "", fmt.Errorf("access: sign in: %w", err)
	case u.Disabled:
		return refuse("The user is disabled here.")
	case !sameGrants(u.Grants, grants):
		e := s.event(system, Event{Code: EventUserGrants, Target: u.Name, Address: client.Address, Detail: "By the claims of " + x.Issuer + ": " + grantList(grants) + "."})
		if err := s.store.ChangeUser(ctx, u.ID, e, func(u *User, _ []User) error { u.Grants = grants; return nil }); err != nil {
			return "", fmt.Errorf("access: sign in: %w", err)
		}
	}
	return s.begin(ctx, u, before, "Vouched for by "+x.Issuer+".")
}

func sameGrants(a, b []Grant) bool {
	has := func(all []Grant, g Grant) bool { return slices.Contains(all, g) }
	for _, g := range a {
		if !has(b, g) {
			return false
		}
	}
	return len(a) == len(b)
}

func grantList(grants []Grant) string {
	if len(grants) == 0 {
		return "nothing"
	}
	var parts []string
	for _, g := range grants {
		parts = append(parts, g.String())
	}
	return strings.Join(parts, ", ")
}

// Logout ends the session of an identity.
func (s *Service) Logout(ctx context.Context, id Identity) error {
	if id.Session == "" {
		return nil
	}
	err := s.store.EndSession(ctx, id.ID, id.Session, s.event(actor(id), Event{Code: EventLogout, Target: id.Name, Address: ClientFrom(ctx).Address}))
	if errors.Is(err, controlbus.ErrNotFound) {
		err = nil
	}
	s.change()
	return err
}

// Sessions lists the open sessions of a user.
func (s *Service) Sessions(ctx context.Context, userID string) ([]Session, error) {
	all, err := s.store.Sessions(ctx, userID)
	now := time.Now()
	return slices.DeleteFunc(all, func(x Session) bool {
		return !now.Before(minTime(x.ExpiresAt, x.SeenAt.Add(s.cfg.SessionIdle)))
	}), err
}

// EndSession ends one session: one's own, or anybody's for who manages users.
func (s *Service) EndSession(ctx context.Context, by Identity, userID, sessionID string) error {
	if by.ID != userID || by.Kind != KindUser {
		if err := s.need(by, ManageUsers); err != nil {
			return err
		}
	}
	u, err := s.store.User(ctx, userID)
	if err != nil {
		return err
	}
	defer s.change()
	return s.store.EndSession(ctx, userID, sessionID, s.event(actor(by), Event{Code: EventSessionEnd, Target: u.Name, Address: ClientFrom(ctx).Address}))
}

// need refuses who may not. Pages ask before; this is the second lock.
func (s *Service) need(by Identity, a Action) error {
	if !by.Can(a, "", "") {
		return fmt.Errorf("access: %s: %w", a, controlbus.ErrDenied)
	}
	return nil
}

// Users lists all users by name.
func (s *Service) Users(ctx context.Context) ([]User, error) { return s.store.Users(ctx) }

// User returns one user.
func (s *Service) User(ctx context.Context, id string) (User, error) { return s.store.User(ctx, id) }

// AddUser makes a local user without a password, and returns the secret of the
// one-time link with which the user sets one.
func (s *Service) AddUser(ctx context.Context, by Identity, name string, grants []Grant) (User, controlbus.Secret, error) {
	name = strings.TrimSpace(name)
	grants, err := s.checkGrants(by, ManageUsers, grants)
	if err := errors.Join(CheckName(name), err); err != nil {
		return User{}, "", err
	}
	now := time.Now()
	u := User{ID: newID(), Name: name, Grants: grants, CreatedAt: now}
	e := s.event(actor(by), Event{Code: EventUserAdd, Target: name, Address: ClientFrom(ctx).Address, Detail: sentence(grantList(grants))})
	if err := s.store.AddUser(ctx, u, e); err != nil {
		return User{}, "", err
	}
	s.change()
	secret, err := s.PasswordLink(ctx, by, u.ID)
	return u, secret, err
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

func (s *Service) checkGrants(by Identity, a Action, grants []Grant) ([]Grant, error) {
	if err := s.need(by, a); err != nil {
		return nil, err
	}
	grants, err := CheckGrants(grants)
	if err == nil {
		err = people(grants)
	}
	return grants, err
}

// people refuses grants of roles that are for programs.
func people(grants []Grant) error {
	for _, g := range grants {
		if !g.Role.Human() {
			return fmt.Errorf("%w: role %q is not for people", controlbus.ErrInvalid, g.Role)
		}
	}
	return nil
}

// SetGrants replaces what a user may. Their sessions end: who may something
// else signs in again.
func (s *Service) SetGrants(ctx context.Context, by Identity, userID string, grants []Grant) error {
	grants, err := s.checkGrants(by, ManageUsers, grants)
	if err != nil {
		return err
	}
	return s.changeUser(ctx, by, userID, EventUserGrants, sentence(grantList(grants)), func(u *User, others []User) error {
		u.Grants = grants
		return keepAnAdmin(*u, others)
	})
}

// SetDisabled takes a user's access away, or gives it back. Sessions end and
// tokens rest.
func (s *Service) SetDisabled(ctx context.Context, by Identity, userID string, disabled bool) error {
	if err := s.need(by, ManageUsers); err != nil {
		return err
	}
	code := EventUserEnable
	if disabled {
		code = EventUserDisable
	}
	return s.changeUser(ctx, by, userID, code, "", func(u *User, others []User) error {
		u.Disabled = disabled
		return keepAnAdmin(*u, others)
	})
}

func (s *Service) changeUser(ctx context.Context, by Identity, userID, code, detail string, edit func(*User, []User) error) error {
	u, err := s.store.User(ctx, userID)
	if err != nil {
		return err
	}
	e := s.event(actor(by), Event{Code: code, Target: u.Name, Address: ClientFrom(ctx).Address, Detail: detail})
	defer s.change()
	return s.store.ChangeUser(ctx, userID, e, edit)
}

// keepAnAdmin refuses a change after which nobody could undo it.
func keepAnAdmin(u User, others []User) error {
	for _, o := range append(others, u) {
		if !o.Disabled && (Identity{Kind: KindUser, Grants: o.Grants}).Can(ManageUsers, "", "") {
			return nil
		}
	}
	return fmt.Errorf("%w: %s is the last administrator: make somebody else one first", controlbus.ErrConflict, u.Name)
}

// DeleteUser removes a user with sessions and tokens. The audit trail keeps the
// name.
func (s *Service) DeleteUser(ctx context.Context, by Identity, userID string) error {
	if err := s.need(by, ManageUsers); err != nil {
		return err
	}
	u, err := s.store.User(ctx, userID)
	if err != nil {
		return err
	}
	defer s.change()
	return s.store.DeleteUser(ctx, userID, s.event(actor(by), Event{Code: EventUserDelete, Target: u.Name, Address: ClientFrom(ctx).Address}),
		func(u User, others []User) error {
			u.Disabled = true
			return keepAnAdmin(u, others)
		})
}

// PasswordLink returns the secret of a one-time link with which a user sets a
// password. Links given out before end. The old password holds until then.
func (s *Service) PasswordLink(ctx context.Context, by Identity, userID string) (controlbus.Secret, error) {
	if err := s.need(by, ManageUsers); err != nil {
		return "", err
	}
	u, err := s.store.User(ctx, userID)
	if err != nil {
		return "", err
	}
	if !u.Local() {
		return "", fmt.Errorf("%w: %s signs in at %s, which keeps the password", controlbus.ErrUnsupported, u.Name, u.Issuer)
	}
	secret := controlbus.Secret(rand.Text())
	e := s.event(actor(by), Event{Code: EventPasswordLink, Target: u.Name, Address: ClientFrom(ctx).Address})
	if err := s.store.PutLink(ctx, Link{Hash: hashOf(secret.Reveal()), UserID: u.ID, ExpiresAt: time.Now().Add(LinkLife)}, &e); err != nil {
		return "", err
	}
	return secret, nil
}

// UsePasswordLink sets the password of the user whom a link is for, ends their
// sessions, and begins a new one.
func (s *Service) UsePasswordLink(ctx context.Context, secret, password string) (controlbus.Secret, error) {
	client := ClientFrom(ctx)
	if err := s.throttle(ctx, "link "+secret, called("a one-time link"), client.Address); err != nil {
		return "", err
	}
	u, err := s.CheckLink(ctx, secret)
	if err != nil {
		return "", err
	}
	if u.ID == "" || u.Disabled {
		return "", linkError(controlbus.ErrNotFound)
	}
	if err := CheckPassword(u.Name, password); err != nil {
		return "", err
	}
	phc, err := s.hashers.hash(ctx, password)
	if err != nil {
		return "", err
	}
	e := s.event(Actor{KindUser, u.ID, u.Name}, Event{Code: EventPasswordSet, Target: u.Name, Address: client.Address, Detail: "With a one-time link."})
	if err := s.store.UsePasswordLink(ctx, hashOf(secret), time.Now(), phc, e); err != nil {
		return "", linkError(err)
	}
	s.tries.succeed(accountKey("link "+secret), addressKey(client.Address))
	return s.begin(ctx, u, "", "With a one-time link.")
}

// ChangePassword sets one's own password. The other sessions end, and this one
// goes on under a new secret.
func (s *Service) ChangePassword(ctx context.Context, id Identity, old, password, before string) (controlbus.Secret, error) {
	if id.Kind != KindUser {
		return "", fmt.Errorf("access: password: %w", controlbus.ErrDenied)
	}
	client := ClientFrom(ctx)
	if err := s.throttle(ctx, id.Name, called(id.Name), client.Address); err != nil {
		return "", err
	}
	u, err := s.store.User(ctx, id.ID)
	if err != nil {
		return "", err
	}
	fits, err := s.hashers.verify(ctx, u.Password, old)
	if err != nil {
		return "", err
	}
	if !fits {
		return "", fmt.Errorf("%w: the present password is not that", controlbus.ErrInvalid)
	}
	if err := CheckPassword(u.Name, password); err != nil {
		return "", err
	}
	phc, err := s.hashers.hash(ctx, password)
	if err != nil {
		return "", err
	}
	e := s.event(actor(id), Event{Code: EventPasswordSet, Target: u.Name, Address: client.Address})
	if err := s.store.ChangeUser(ctx, u.ID, e, func(u *User, _ []User) error { u.Password = phc; return nil }); err != nil {
		return "", err
	}
	s.tries.succeed(accountKey(id.Name), addressKey(client.Address))
	return s.begin(ctx, u, before, "After a change of the password.")
}
