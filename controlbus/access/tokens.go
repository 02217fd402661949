package access

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Lives of tokens.
const (
	DefaultTokenLife = 90 * 24 * time.Hour
	MaxTokenLife     = 365 * 24 * time.Hour
	MaxEnrolmentLife = 30 * 24 * time.Hour
	MaxEnrolments    = 1000
)

// NewToken describes an API token to be made.
type NewToken struct {
	Name   string
	Grants []Grant
	Life   time.Duration // 0: DefaultTokenLife
}

// CreateToken makes an API token and returns its secret, this once. It may not
// do more than who makes it, now or later: what its owner loses, it loses, too.
// A token for sending telemetry needs ManageTokens and stands alone.
func (s *Service) CreateToken(ctx context.Context, by Identity, n NewToken) (Token, controlbus.Secret, error) {
	n.Name = strings.TrimSpace(n.Name)
	if n.Life == 0 {
		n.Life = DefaultTokenLife
	}
	grants, err := CheckGrants(n.Grants)
	if err := errors.Join(checkLabel(n.Name), err); err != nil {
		return Token{}, "", err
	}
	if n.Life < time.Minute || n.Life > MaxTokenLife {
		return Token{}, "", fmt.Errorf("%w: token: want a life of one minute to 365 days, have %v", controlbus.ErrInvalid, n.Life)
	}
	if len(grants) == 0 {
		return Token{}, "", fmt.Errorf("%w: token: want at least one role", controlbus.ErrInvalid)
	}
	if by.Kind != KindUser && by.Kind != KindAnonymous {
		return Token{}, "", fmt.Errorf("access: a token cannot make tokens: %w", controlbus.ErrDenied)
	}
	humans := 0
	for _, g := range grants {
		switch {
		case g.Role == Sender:
			if err := s.need(by, ManageTokens); err != nil {
				return Token{}, "", err
			}
		case !g.Role.Human():
			return Token{}, "", fmt.Errorf("%w: role %q is not for tokens; enrol the agent instead", controlbus.ErrInvalid, g.Role)
		case !by.Covers(g):
			return Token{}, "", fmt.Errorf("access: token: %s is more than you may: %w", g, controlbus.ErrDenied)
		default:
			humans++
		}
	}
	if humans > 0 && humans < len(grants) {
		return Token{}, "", fmt.Errorf("%w: token: the role %s does not mix with others", controlbus.ErrInvalid, Sender)
	}
	if !by.Somewhere(OwnTokens) {
		return Token{}, "", fmt.Errorf("access: token: %w", controlbus.ErrDenied)
	}
	owner := ownerOf(by)
	if humans == 0 {
		owner = "" // a service goes on sending when who set it up has gone
	}
	now := time.Now()
	secret := newSecret(prefixToken)
	t := Token{
		ID: newID(), Hash: hashOf(secret.Reveal()), Name: n.Name, Kind: TokenAPI, OwnerID: owner, Hint: hint(secret),
		Grants: grants, CreatedAt: now, ExpiresAt: now.Add(n.Life),
	}
	e := s.event(actor(by), Event{Code: EventTokenCreate, Target: t.Name + " " + t.Hint, Address: ClientFrom(ctx).Address,
		Detail: sentence(grantList(grants)) + " Until " + t.ExpiresAt.UTC().Format(time.DateTime) + " UTC."})
	if err := s.store.AddToken(ctx, t, e); err != nil {
		return Token{}, "", err
	}
	return t, secret, nil
}

// ownerOf is the user that a token belongs to; the anonymous administrator of
// an open console is none.
func ownerOf(id Identity) string {
	if id.Kind == KindUser {
		return id.ID
	}
	return ""
}

// Tokens lists API tokens: one's own, or all for who manages tokens.
func (s *Service) Tokens(ctx context.Context, by Identity, all bool) ([]Token, error) {
	if all {
		if err := s.need(by, ManageTokens); err != nil {
			return nil, err
		}
		return s.store.Tokens(ctx, TokenAPI, "")
	}
	if ownerOf(by) == "" {
		return nil, nil
	}
	return s.store.Tokens(ctx, TokenAPI, by.ID)
}

// RevokeToken ends a token, an enrolment or an agent's credential: one's own
// API token, or any for who manages that kind.
func (s *Service) RevokeToken(ctx context.Context, by Identity, kind TokenKind, id string) error {
	owner := ""
	if kind == TokenAPI {
		if !by.Can(ManageTokens, "", "") {
			if owner = ownerOf(by); owner == "" {
				return fmt.Errorf("access: token: %w", controlbus.ErrDenied)
			}
		}
	} else if err := s.need(by, ManageAgents); err != nil {
		return err
	}
	all, err := s.store.Tokens(ctx, kind, owner)
	if err != nil {
		return err
	}
	for _, t := range all {
		if t.ID == id {
			defer s.change()
			return s.store.RevokeToken(ctx, id, owner, time.Now(), s.event(actor(by), Event{
				Code: EventTokenRevoke, Target: strings.TrimSpace(t.Name + " " + t.Hint), Address: ClientFrom(ctx).Address, Detail: kind.describe()}))
		}
	}
	return fmt.Errorf("access: token: %w", controlbus.ErrNotFound)
}

func (k TokenKind) describe() string {
	switch k {
	case TokenEnrol:
		return "Enrolment token."
	case TokenAgent:
		return "Credential of an agent."
	}
	return "API token."
}

// NewEnrolment describes an enrolment token to be made.
type NewEnrolment struct {
	Name   string
	Agents int    // how many may enrol with it; 0: one
	Env    string // pattern of the environments they may report from; empty: all
	Life   time.Duration
}

// CreateEnrolment makes a token with which agents enrol, and returns its
// secret, this once.
func (s *Service) CreateEnrolment(ctx context.Context, by Identity, n NewEnrolment) (Token, controlbus.Secret, error) {
	if err := s.need(by, ManageAgents); err != nil {
		return Token{}, "", err
	}
	n.Name = strings.TrimSpace(n.Name)
	if n.Agents == 0 {
		n.Agents = 1
	}
	if n.Life == 0 {
		n.Life = 24 * time.Hour
	}
	grants, err := CheckGrants([]Grant{{Role: Enroller, Env: n.Env}})
	if err := errors.Join(checkLabel(n.Name), err); err != nil {
		return Token{}, "", err
	}
	if n.Agents < 1 || n.Agents > MaxEnrolments || n.Life < time.Minute || n.Life > MaxEnrolmentLife {
		return Token{}, "", fmt.Errorf("%w: enrolment: want 1 to %d agents within one minute to 30 days", controlbus.ErrInvalid, MaxEnrolments)
	}
	now := time.Now()
	secret := newSecret(prefixEnrol)
	t := Token{
		ID: newID(), Hash: hashOf(secret.Reveal()), Name: n.Name, Kind: TokenEnrol, OwnerID: ownerOf(by), Hint: hint(secret),
		Grants: grants, CreatedAt: now, ExpiresAt: now.Add(n.Life), Left: n.Agents,
	}
	e := s.event(actor(by), Event{Code: EventEnrolCreate, Target: t.Name + " " + t.Hint, Env: grants[0].Env, Address: ClientFrom(ctx).Address,
		Detail: fmt.Sprintf("For %d %s, until %s UTC.", n.Agents, map[bool]string{true: "agent", false: "agents"}[n.Agents == 1], t.ExpiresAt.UTC().Format(time.DateTime))})
	if err := s.store.AddToken(ctx, t, e); err != nil {
		return Token{}, "", err
	}
	return t, secret, nil
}

// Enrolments lists enrolment tokens, Credentials those of agents.
func (s *Service) Enrolments(ctx context.Context, by Identity) ([]Token, error) {
	if err := s.need(by, ManageAgents); err != nil {
		return nil, err
	}
	return s.store.Tokens(ctx, TokenEnrol, "")
}

// Credentials lists the credentials of agents.
func (s *Service) Credentials(ctx context.Context, by Identity) ([]Token, error) {
	if err := s.need(by, ManageAgents); err != nil {
		return nil, err
	}
	return s.store.Tokens(ctx, TokenAgent, "")
}

// Enrol gives an agent a credential of its own, bound to its id. by is the
// identity of the enrolment token. An id with a credential in force is refused
// with controlbus.ErrConflict: it is somebody else's until an administrator
// revokes it.
func (s *Service) Enrol(ctx context.Context, by Identity, agentID string) (controlbus.Secret, error) {
	client := ClientFrom(ctx)
	if !by.Somewhere(Enrol) {
		return "", fmt.Errorf("access: enrol: %w", controlbus.ErrDenied)
	}
	if agentID == "" || len(agentID) > 200 {
		return "", fmt.Errorf("access: enrol: %w: want an agent id of 1 to 200 bytes", controlbus.ErrInvalid)
	}
	now := time.Now()
	secret := newSecret(prefixAgent)
	t := Token{ID: newID(), Hash: hashOf(secret.Reveal()), Name: by.Name, Kind: TokenAgent, AgentID: agentID, Hint: hint(secret), CreatedAt: now}
	for _, g := range by.Grants {
		t.Grants = append(t.Grants, Grant{Role: Agent, Env: g.Env, Channel: g.Channel})
	}
	who := Actor{KindAgent, t.ID, agentID}
	err := s.store.UseEnrolment(ctx, by.ID, now, t, s.event(who, Event{Code: EventEnrol, Target: agentID, Address: client.Address, Detail: "With the enrolment token " + by.Name + "."}))
	if errors.Is(err, controlbus.ErrConflict) {
		err = fmt.Errorf("access: agent %q is enrolled already; revoke its credential in Settings, Agents first: %w", agentID, controlbus.ErrConflict)
		if e := s.store.AddEvent(ctx, s.event(who, Event{Code: EventEnrolFailed, Target: agentID, Address: client.Address, Refused: true, Detail: "The id has a credential in force."})); e != nil {
			return "", errors.Join(err, e)
		}
		return "", err
	}
	if err != nil {
		return "", fmt.Errorf("access: enrol: %w", err)
	}
	s.change()
	return secret, nil
}
