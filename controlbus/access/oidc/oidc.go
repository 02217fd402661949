// Package oidc signs people in at an OpenID Connect provider: authorisation code
// flow with PKCE, state and nonce. What a provider says of somebody is mapped to
// grants by the configuration; access.Service keeps the user and the session.
//
// The provider is asked when the first person signs in, not at the start: a
// console starts without it. What belongs to one sign-in is kept here for ten
// minutes, bound to a cookie, and used once.
package oidc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

const (
	life       = 10 * time.Minute // of one sign-in
	maxPending = 1000             // beyond, the oldest has to begin again
	patience   = 10 * time.Second // for one answer of the provider
	maxAnswer  = 1 << 20
	maxClaims  = 500 // values of one claim that are looked at
)

// Provider is one identity provider. It is safe for concurrent use.
type Provider struct {
	cfg      Config
	redirect string
	client   *http.Client

	mu      sync.Mutex
	found   *oidc.Provider // nil until it was asked
	pending map[[sha256.Size]byte]attempt
}

// attempt is one sign-in under way.
type attempt struct {
	state, nonce, verifier, next string
	until                        time.Time
}

// New returns a provider that sends people back to redirect, an address of this
// console. It starts nothing and asks nobody.
func New(cfg Config, redirect string) (*Provider, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("oidc: %w", err)
	}
	return &Provider{cfg: cfg, redirect: redirect, client: guarded(), pending: map[[sha256.Size]byte]attempt{}}, nil
}

// guarded is a client for addresses that the provider names: it follows no
// redirect, reads no more than an answer may be, and does not reach the
// addresses at which clouds hand out credentials.
func guarded() *http.Client {
	dialer := &net.Dialer{Timeout: patience, Control: func(_, address string, _ syscall.RawConn) error {
		host, _, err := net.SplitHostPort(address)
		if ip := net.ParseIP(host); err != nil || ip == nil || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
			return fmt.Errorf("address %s: %w", address, controlbus.ErrDenied)
		}
		return nil
	}}
	return &http.Client{
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     limited{&http.Transport{DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: patience, MaxIdleConns: 4, IdleConnTimeout: time.Minute}},
	}
}

// limited bounds what is read of an answer.
type limited struct{ next http.RoundTripper }

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := checkURL(r.URL.String()); err != nil {
		return nil, err
	}
	resp, err := l.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

func (l limited) CloseIdleConnections() {
	if c, ok := l.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Close gives idle connections back.
func (p *Provider) Close() { p.client.CloseIdleConnections() }

// Name is what the button says.
func (p *Provider) Name() string { return p.cfg.Name }

// discover asks the provider what it offers, once.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, oauth2.Config, error) {
	p.mu.Lock()
	found := p.found
	p.mu.Unlock()
	if found == nil {
		// Its keys are fetched later by what is made here, so the client must not
		// end with this request.
		ctx, cancel := context.WithTimeout(oidc.ClientContext(context.WithoutCancel(ctx), p.client), patience)
		defer cancel()
		var err error
		if found, err = oidc.NewProvider(ctx, p.cfg.Issuer); err != nil {
			return nil, oauth2.Config{}, fmt.Errorf("oidc: %s: %w: %w", p.cfg.Issuer, controlbus.ErrUnavailable, err)
		}
		p.mu.Lock()
		p.found = found
		p.mu.Unlock()
	}
	return found, oauth2.Config{
		ClientID: p.cfg.ClientID, ClientSecret: p.cfg.ClientSecret.Reveal(), Endpoint: found.Endpoint(), RedirectURL: p.redirect, Scopes: p.cfg.Scopes,
	}, nil
}

// Begin returns where to send the browser, and the secret that it has to bring
// back in a cookie.
func (p *Provider) Begin(ctx context.Context, next string) (string, controlbus.Secret, error) {
	_, cfg, err := p.discover(ctx)
	if err != nil {
		return "", "", err
	}
	if err := checkURL(cfg.Endpoint.AuthURL); err != nil {
		return "", "", fmt.Errorf("oidc: %s: %w: authorization_endpoint: %w", p.cfg.Issuer, controlbus.ErrInvalid, err)
	}
	secret := controlbus.Secret(rand.Text() + rand.Text())
	a := attempt{state: rand.Text(), nonce: rand.Text(), verifier: oauth2.GenerateVerifier(), next: next, until: time.Now().Add(life)}
	p.keep(sha256.Sum256([]byte(secret.Reveal())), a)
	return cfg.AuthCodeURL(a.state, oidc.Nonce(a.nonce), oauth2.S256ChallengeOption(a.verifier)), secret, nil
}

func (p *Provider) keep(key [sha256.Size]byte, a attempt) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.pending) >= maxPending {
		var oldest [sha256.Size]byte
		until := time.Time{}
		for k, x := range p.pending {
			if !now.Before(x.until) {
				delete(p.pending, k)
			} else if until.IsZero() || x.until.Before(until) {
				oldest, until = k, x.until
			}
		}
		if len(p.pending) >= maxPending {
			delete(p.pending, oldest)
		}
	}
	p.pending[key] = a
}

// take returns a sign-in, once.
func (p *Provider) take(secret string) (attempt, bool) {
	key := sha256.Sum256([]byte(secret))
	p.mu.Lock()
	defer p.mu.Unlock()
	a, ok := p.pending[key]
	delete(p.pending, key)
	return a, ok && time.Now().Before(a.until)
}

// refused says that the answer of the provider cannot be taken.
func refused(why string) error { return fmt.Errorf("oidc: %s: %w", why, controlbus.ErrDenied) }

// Finish reads what the provider sent the browser back with. Errors are
// controlbus.ErrDenied where that is no proof of anything, and
// controlbus.ErrUnavailable where the provider does not answer.
func (p *Provider) Finish(ctx context.Context, secret string, answer url.Values) (access.External, string, error) {
	var none access.External
	a, ok := p.take(secret)
	switch {
	case !ok:
		return none, "", refused("this sign-in was not begun here, was used already, or took longer than ten minutes; begin again")
	case subtle.ConstantTimeCompare([]byte(a.state), []byte(answer.Get("state"))) != 1:
		return none, "", refused("the answer belongs to another sign-in; begin again")
	case answer.Has("iss") && answer.Get("iss") != p.cfg.Issuer: // RFC 9207
		return none, "", refused("the answer comes from another provider")
	case answer.Get("error") != "":
		return none, "", refused(fmt.Sprintf("the provider says %.60q %.200q", answer.Get("error"), answer.Get("error_description")))
	case answer.Get("code") == "":
		return none, "", refused("the answer has no code")
	}
	found, cfg, err := p.discover(ctx)
	if err != nil {
		return none, "", err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.client), patience)
	defer cancel()
	token, err := cfg.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(a.verifier))
	if err != nil {
		if rejected := (*oauth2.RetrieveError)(nil); errors.As(err, &rejected) && rejected.Response != nil && rejected.Response.StatusCode < 500 {
			// Its text may hold what was sent.
			return none, "", refused(fmt.Sprintf("the provider does not take the code: %.60q", rejected.ErrorCode))
		}
		return none, "", fmt.Errorf("oidc: exchange of the code: %w: %w", controlbus.ErrUnavailable, err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return none, "", refused("the provider sent no ID token")
	}
	id, err := found.VerifierContext(oidc.ClientContext(context.WithoutCancel(ctx), p.client), &oidc.Config{ClientID: p.cfg.ClientID}).Verify(ctx, raw)
	if err != nil {
		return none, "", fmt.Errorf("%w: %w", refused("the ID token does not hold"), err)
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return none, "", fmt.Errorf("%w: %w", refused("the claims cannot be read"), err)
	}
	azp, _ := claims["azp"].(string)
	switch {
	case subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(a.nonce)) != 1:
		return none, "", refused("the ID token belongs to another sign-in")
	case len(id.Audience) > 1 && azp != p.cfg.ClientID, azp != "" && azp != p.cfg.ClientID:
		return none, "", refused("the ID token was made for another program")
	case id.AccessTokenHash != "" && id.VerifyAccessToken(token.AccessToken) != nil:
		return none, "", refused("the ID token and the access token do not belong together")
	}
	return access.External{Issuer: id.Issuer, Subject: id.Subject, Name: p.name(claims, id.Subject), Grants: p.grants(claims)}, a.next, nil
}

// name is what the user is called: the configured claim, else what there is.
func (p *Provider) name(claims map[string]any, subject string) string {
	for _, c := range []string{p.cfg.NameClaim, "email", "name"} {
		for _, v := range values(claims, c) {
			if v = strings.TrimSpace(v); v != "" {
				return v
			}
		}
	}
	return subject
}

// grants are what the claims give.
func (p *Provider) grants(claims map[string]any) []access.Grant {
	var out []access.Grant
	for _, m := range p.cfg.Grants {
		fits := func(v string) bool { return controlbus.MatchPattern(m.Value, v) }
		if slices.ContainsFunc(values(claims, m.Claim), fits) {
			out = append(out, access.Grant{Role: m.Role, Env: m.Env, Channel: m.Channel})
		}
	}
	return out
}

// values are the texts of a claim: itself, or those of its list. A name with
// dots leads into objects where no claim has that name.
func values(claims map[string]any, name string) []string {
	v, ok := claims[name]
	for rest := name; !ok; {
		head, tail, more := strings.Cut(rest, ".")
		if !more {
			return nil
		}
		inner, isObject := claims[head].(map[string]any)
		if !isObject {
			return nil
		}
		claims, rest = inner, tail
		v, ok = claims[rest]
	}
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, x := range v[:min(len(v), maxClaims)] {
			if s, ok := x.(string); ok {
				out = append(out, s)
			}
		}
		return out
	}
	return nil
}
