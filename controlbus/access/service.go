package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// cacheFor is how long an identity is taken from memory before the store is
// asked again. A change made through this Service is seen at once.
const cacheFor = 5 * time.Second

// touchEvery bounds how often "last seen" is written.
const touchEvery = time.Minute

const maxCached = 10000

// Service is safe for concurrent use. It starts nothing and needs no closing.
type Service struct {
	cfg      Config
	withheld []Action // from everybody
	store    Store
	log      *slog.Logger
	hashers  *hashers
	tries    *throttle

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, at every change
	cache   map[credential]cached
}

type cached struct {
	id      Identity
	token   TokenKind
	until   time.Time
	touched time.Time
}

// New returns a service over a store.
func New(cfg Config, privacy Privacy, store Store, log *slog.Logger) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("access: %w", err)
	}
	return &Service{
		cfg: cfg, withheld: privacy.withheld(), store: store, log: log, hashers: newHashers(2), tries: newThrottle(),
		changed: make(chan struct{}), cache: map[credential]cached{},
	}, nil
}

// Client is where a request comes from.
type Client struct{ Address, UserAgent string }

// Open says that nobody signs in: everybody is the anonymous administrator.
func (s *Service) Open() bool { return s.cfg.Mode == ModeOpen }

// SessionMax is how long a session lasts at most.
func (s *Service) SessionMax() time.Duration { return s.cfg.SessionMax }

// Changed returns a channel that is closed when users, grants, sessions or
// tokens have changed: time to ask Still again.
func (s *Service) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// change forgets what is cached and wakes those who wait for Changed.
func (s *Service) change() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.cache)
	close(s.changed)
	s.changed = make(chan struct{})
}

// errSignedOut is the answer to every credential that does not hold, whyever.
var errSignedOut = fmt.Errorf("access: not signed in, or no longer: %w", ErrUnauthenticated)

// ErrUnauthenticated: nobody is signed in. It is controlbus.ErrDenied, too.
var ErrUnauthenticated = fmt.Errorf("unauthenticated: %w", controlbus.ErrDenied)

// FromSession returns who a session cookie belongs to. use says that a person
// did something: it keeps the session from becoming idle, which a page that
// refreshes itself does not. Errors wrap ErrUnauthenticated, or tell that the
// store does not answer.
func (s *Service) FromSession(ctx context.Context, secret string, use bool) (Identity, error) {
	if len(secret) > 200 || secret == "" {
		return Identity{}, errSignedOut
	}
	id, _, err := s.identify(ctx, credential{'s', hashOf(secret)}, use)
	return id, err
}

// FromToken returns who a bearer token belongs to, and its kind. Errors are as
// with FromSession.
func (s *Service) FromToken(ctx context.Context, secret string) (Identity, TokenKind, error) {
	if _, ok := checkSecret(secret); !ok {
		return Identity{}, "", errSignedOut
	}
	return s.identify(ctx, credential{'t', hashOf(secret)}, true)
}

// Still returns the identity as it is now: its grants may have changed. Errors
// wrap ErrUnauthenticated when its session or token has ended, its user is
// disabled. Whoever holds something open for an identity asks again when
// Changed says so and every 30 seconds.
func (s *Service) Still(ctx context.Context, id Identity) (Identity, error) {
	if id.key.kind == 0 {
		if s.Open() && id.Kind == KindAnonymous {
			return id, nil
		}
		return Identity{}, errSignedOut
	}
	now, _, err := s.identify(ctx, id.key, false)
	return now, err
}

func (s *Service) identify(ctx context.Context, key credential, use bool) (Identity, TokenKind, error) {
	now := time.Now()
	s.mu.Lock()
	c, ok := s.cache[key]
	changed := s.changed
	s.mu.Unlock()
	if !ok || !now.Before(c.until) {
		var err error
		if key.kind == 's' {
			c, err = s.loadSession(ctx, key, now)
		} else {
			c, err = s.loadToken(ctx, key, now)
		}
		if errors.Is(err, controlbus.ErrNotFound) {
			err = errSignedOut
		}
		if err != nil {
			return Identity{}, "", err
		}
		s.keep(key, c, changed)
	}
	if use && now.Sub(c.touched) >= touchEvery {
		var err error
		if key.kind == 's' {
			err = s.store.TouchSession(ctx, key.hash, now)
		} else {
			err = s.store.TouchToken(ctx, c.id.ID, now)
		}
		if err != nil {
			return Identity{}, "", fmt.Errorf("access: note the use: %w", err)
		}
		c.touched = now
		s.keep(key, c, changed)
	}
	return c.id, c.token, nil
}

// keep caches unless something has changed since the store was asked.
func (s *Service) keep(key credential, c cached, seen chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != seen {
		return
	}
	if len(s.cache) >= maxCached {
		clear(s.cache)
	}
	s.cache[key] = c
}

func (s *Service) loadSession(ctx context.Context, key credential, now time.Time) (cached, error) {
	session, user, err := s.store.Session(ctx, key.hash)
	if err != nil {
		return cached{}, err
	}
	end := minTime(session.ExpiresAt, session.SeenAt.Add(s.cfg.SessionIdle))
	if user.Disabled || !now.Before(end) {
		return cached{}, errSignedOut
	}
	return cached{
		id:    Identity{ID: user.ID, Name: user.Name, Kind: KindUser, Grants: user.Grants, Session: session.ID, withheld: s.withheld, key: key},
		until: minTime(end, now.Add(cacheFor)), touched: session.SeenAt,
	}, nil
}

func (s *Service) loadToken(ctx context.Context, key credential, now time.Time) (cached, error) {
	t, err := s.store.Token(ctx, key.hash)
	if err != nil {
		return cached{}, err
	}
	if !t.Active(now) {
		return cached{}, errSignedOut
	}
	id := Identity{ID: t.ID, Name: t.Name, Kind: KindToken, Grants: t.Grants, withheld: s.withheld, key: key}
	if t.Kind == TokenAgent {
		id.Kind, id.Name = KindAgent, t.AgentID
	}
	if t.OwnerID != "" && t.Kind == TokenAPI {
		owner, err := s.store.User(ctx, t.OwnerID)
		if err != nil {
			return cached{}, err
		}
		if owner.Disabled {
			return cached{}, errSignedOut
		}
		id.owner, id.within, id.limited = owner.ID, owner.Grants, true
		id.Name = owner.Name + " by token " + t.Name
	}
	until := now.Add(cacheFor)
	if !t.ExpiresAt.IsZero() {
		until = minTime(until, t.ExpiresAt)
	}
	return cached{id: id, token: t.Kind, until: until, touched: t.LastUsed}, nil
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Record appends to the audit trail what another part has done in the name of
// the identity in ctx. What is recorded first and done after is never done
// unrecorded.
func (s *Service) Record(ctx context.Context, e Event) error {
	if id, ok := From(ctx); ok && e.Actor == (Actor{}) {
		e.Actor = actor(id)
	}
	if e.Address == "" {
		e.Address = ClientFrom(ctx).Address
	}
	return s.store.AddEvent(ctx, s.event(e.Actor, e))
}

// Events reads the audit trail, newest first.
func (s *Service) Events(ctx context.Context, q EventQuery) ([]Event, error) {
	return s.store.Events(ctx, q)
}

func actor(id Identity) Actor { return Actor{Kind: id.Kind, ID: id.ID, Name: id.Name} }

// system is the console itself.
var system = Actor{Kind: KindSystem, Name: "console"}

func (s *Service) event(by Actor, e Event) Event {
	e.At, e.Actor = time.Now(), by
	return e.Trimmed()
}

// Trimmed bounds what strangers can write into the audit trail.
func (e Event) Trimmed() Event {
	e.Target, e.Detail = Clip(e.Target, 500), Clip(e.Detail, 1000)
	e.Actor.Name, e.Env, e.Channel, e.Address = Clip(e.Actor.Name, 300), Clip(e.Env, 200), Clip(e.Channel, 500), Clip(e.Address, 100)
	return e
}

// Clip is valid text of at most so many bytes.
func Clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

type clientKey struct{}

// WithClient returns a context that carries where the request comes from.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientFrom returns where the request comes from; zero where nobody said.
func ClientFrom(ctx context.Context) Client {
	c, _ := ctx.Value(clientKey{}).(Client)
	return c
}

// Bearer returns the token of an Authorization header, empty where there is none.
func Bearer(h http.Header) string {
	kind, token, ok := strings.Cut(h.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(kind, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// CheckName says what is wrong with a local user's name. Errors are
// controlbus.ErrInvalid.
func CheckName(name string) error {
	if n := utf8.RuneCountInString(name); n < 1 || n > 64 {
		return fmt.Errorf("%w: name: want 1 to 64 characters", controlbus.ErrInvalid)
	}
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._@+-", r) {
			return fmt.Errorf("%w: name: want letters, digits and . _ @ + - only", controlbus.ErrInvalid)
		}
	}
	return nil
}

// checkLabel bounds names that people give to tokens.
func checkLabel(name string) error {
	if n := utf8.RuneCountInString(name); n < 1 || n > 100 || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%w: name: want 1 to 100 characters", controlbus.ErrInvalid)
	}
	return nil
}
