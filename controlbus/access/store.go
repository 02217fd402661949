package access

import (
	"context"
	"time"
)

// User is a person who signs in.
type User struct {
	ID       string
	Name     string // as typed to sign in; unique whatever the case
	Password string // argon2id in PHC form; empty: cannot sign in with one
	// Issuer and Subject are the OIDC identity; empty for local users.
	Issuer, Subject string
	Grants          []Grant
	Disabled        bool
	CreatedAt       time.Time
	LastLogin       time.Time // zero: never
}

// Local says that the user signs in with a password kept here.
func (u User) Local() bool { return u.Issuer == "" }

// Session is one browser's signing in. Its secret is known to the browser alone.
type Session struct {
	ID        string // names it on pages
	Hash      [32]byte
	UserID    string
	CreatedAt time.Time
	SeenAt    time.Time
	ExpiresAt time.Time // at the latest
	Address   string
	UserAgent string
}

// Token is a credential of a program. Its secret is shown once.
type Token struct {
	ID        string
	Hash      [32]byte
	Name      string
	Kind      TokenKind
	OwnerID   string // user it belongs to; empty for agents
	AgentID   string // of an agent's credential
	Hint      string // first and last characters
	Grants    []Grant
	CreatedAt time.Time
	ExpiresAt time.Time // zero: not by itself
	LastUsed  time.Time // zero: never
	RevokedAt time.Time // zero: in force
	// Left is how many agents an enrolment token still enrols.
	Left int
}

// TokenKind says what a token is for.
type TokenKind string

// Kinds of tokens.
const (
	TokenAPI   TokenKind = "api"
	TokenEnrol TokenKind = "enrol"
	TokenAgent TokenKind = "agent"
)

// Active says whether a token holds at a time.
func (t Token) Active(now time.Time) bool {
	return t.RevokedAt.IsZero() && (t.ExpiresAt.IsZero() || now.Before(t.ExpiresAt)) && (t.Kind != TokenEnrol || t.Left > 0)
}

// Link is a one-time link: of the first start, or for setting a password.
type Link struct {
	Hash      [32]byte
	UserID    string // empty: the first user is made with it
	ExpiresAt time.Time
}

// Event is one entry of the audit trail. Codes are stable.
type Event struct {
	Seq     int64
	At      time.Time
	Actor   Actor
	Code    string // what was done: "user.disable"
	Target  string // to what, by a name a person knows
	Env     string
	Channel string
	Refused bool
	Detail  string // one sentence
	Address string
}

// Actor is who did it, as it was called then.
type Actor struct {
	Kind Kind
	ID   string
	Name string
}

// Codes of events.
const (
	EventSetup          = "setup.complete"
	EventLogin          = "auth.login"
	EventLoginFailed    = "auth.login.failed"
	EventThrottled      = "auth.throttled"
	EventLogout         = "auth.logout"
	EventSessionEnd     = "auth.session.end"
	EventUserAdd        = "user.add"
	EventUserGrants     = "user.grants"
	EventUserDisable    = "user.disable"
	EventUserEnable     = "user.enable"
	EventUserDelete     = "user.delete"
	EventPasswordLink   = "user.password.link"
	EventPasswordSet    = "user.password.set"
	EventTokenCreate    = "token.create"
	EventTokenRevoke    = "token.revoke"
	EventEnrolCreate    = "agent.enrolment.create"
	EventEnrol          = "agent.enrol"
	EventEnrolFailed    = "agent.enrol.failed"
	EventBodyRead       = "message.body.read"
	EventBodyPreview    = "message.body.preview"
	EventExport         = "message.export"
	EventLiveTap        = "live.tap"
	EventTapRequest     = "tap.request"
	EventTapRelease     = "tap.release"
	EventAgentForget    = "agent.forget"
	EventSettingsChange = "settings.change"
)

// EventQuery selects events, newest first.
type EventQuery struct {
	Before int64  // only those with a smaller number; 0: from the newest
	Code   string // a code, or a pattern with *
	Actor  string // name of who did it, without regard to case
	Env    string // empty: any, and none
	// Channel is a name, or a pattern with *, of a channel or of broker/channel.
	Channel string
	From    time.Time
	To      time.Time
	Limit   int // at most 500; 0 = 100
}

// Store keeps all this. Every change is durable, together with its event, when
// the call returns. Methods may be called concurrently; those that look for one
// thing return controlbus.ErrNotFound.
type Store interface {
	UserStore
	SessionStore
	TokenStore
	EventStore
}

// UserStore keeps users and the one-time links for them.
type UserStore interface {
	Users(ctx context.Context) ([]User, error)
	User(ctx context.Context, id string) (User, error)
	UserByName(ctx context.Context, name string) (User, error)
	UserBySubject(ctx context.Context, issuer, subject string) (User, error)
	// AddUser fails with controlbus.ErrConflict where the name is taken.
	AddUser(ctx context.Context, u User, e Event) error
	// ChangeUser reads, edits and writes in one transaction, and ends the user's
	// sessions. An error of edit is returned as it is and nothing changes. others
	// are all other users.
	ChangeUser(ctx context.Context, id string, e Event, edit func(u *User, others []User) error) error
	// DeleteUser removes a user with sessions, tokens and links. An error of
	// check is returned as it is.
	DeleteUser(ctx context.Context, id string, e Event, check func(u User, others []User) error) error

	// PutLink replaces the links of the same user.
	PutLink(ctx context.Context, l Link, e *Event) error
	Link(ctx context.Context, hash [32]byte) (Link, error)
	// UseSetupLink consumes the link of the first start and adds the first user,
	// and its session, or fails with ErrNotFound where the link does not hold
	// and ErrConflict where there is a user already.
	UseSetupLink(ctx context.Context, hash [32]byte, now time.Time, u User, s Session, e Event) error
	// UsePasswordLink consumes a link, sets the password and ends the user's
	// sessions.
	UsePasswordLink(ctx context.Context, hash [32]byte, now time.Time, password string, e Event) error
}

// SessionStore keeps sessions.
type SessionStore interface {
	// AddSession also notes the user's last login, and removes the sessions that
	// have expired by then. replaces is the hash of the one it takes the place
	// of, or nil.
	AddSession(ctx context.Context, s Session, replaces *[32]byte, e Event) error
	Session(ctx context.Context, hash [32]byte) (Session, User, error)
	TouchSession(ctx context.Context, hash [32]byte, seen time.Time) error
	Sessions(ctx context.Context, userID string) ([]Session, error)
	// EndSession ends the one with this ID.
	EndSession(ctx context.Context, userID, id string, e Event) error
}

// TokenStore keeps the credentials of programs.
type TokenStore interface {
	AddToken(ctx context.Context, t Token, e Event) error
	Token(ctx context.Context, hash [32]byte) (Token, error)
	// Tokens lists those of a kind, of one owner or of all (""), newest first.
	Tokens(ctx context.Context, kind TokenKind, ownerID string) ([]Token, error)
	TouchToken(ctx context.Context, id string, used time.Time) error
	// RevokeToken revokes one that is in force, of one owner or of all ("").
	RevokeToken(ctx context.Context, id, ownerID string, at time.Time, e Event) error
	// UseEnrolment takes one use of an enrolment token and adds the credential.
	// ErrConflict: the agent has one in force. ErrNotFound: the token does not
	// hold.
	UseEnrolment(ctx context.Context, enrolmentID string, now time.Time, credential Token, e Event) error
}

// EventStore keeps the audit trail: it is only ever appended to.
type EventStore interface {
	AddEvent(ctx context.Context, e Event) error
	Events(ctx context.Context, q EventQuery) ([]Event, error)
}
