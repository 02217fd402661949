package oidc_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/access/oidc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key, otherKey = newKey(), newKey()

func newKey() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
}

// idp is a provider that can lie in every way a test asks for.
type idp struct {
	*httptest.Server
	claims map[string]any // over the right ones
	sign   *rsa.PrivateKey
	alg    string // none: no signature
	// of the last authorisation request
	challenge, nonce string
	code             string
	down             bool
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	i := &idp{sign: key}
	mux := http.NewServeMux()
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		if i.down {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		answer(w, map[string]any{"issuer": i.URL, "authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		id, secret, _ := r.BasicAuth()
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if id != "signalbox" || secret != "s3cret" || r.PostForm.Get("code") != i.code || base64.RawURLEncoding.EncodeToString(sum[:]) != i.challenge {
			w.WriteHeader(http.StatusBadRequest)
			answer(w, map[string]any{"error": "invalid_grant"})
			return
		}
		answer(w, map[string]any{"access_token": "at", "token_type": "Bearer", "id_token": i.token(t)})
	})
	return i
}

func (i *idp) token(t *testing.T) string {
	claims := map[string]any{
		"iss": i.URL, "aud": "signalbox", "sub": "u-1", "exp": time.Now().Add(time.Minute).Unix(), "iat": time.Now().Unix(), "nonce": i.nonce,
		"preferred_username": "mara", "groups": []string{"ops-eu", "everyone"}, "realm_access": map[string]any{"roles": []string{"auditor"}},
	}
	for k, v := range i.claims {
		claims[k] = v
		if v == nil {
			delete(claims, k)
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	if i.alg == "none" {
		enc := base64.RawURLEncoding
		return enc.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + enc.EncodeToString(payload) + "."
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: i.sign, KeyID: "k1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *idp) config() oidc.Config {
	cfg := oidc.DefaultConfig()
	cfg.Issuer, cfg.ClientID, cfg.ClientSecret = i.URL, "signalbox", "s3cret"
	cfg.Grants = []oidc.Mapping{
		{Claim: "groups", Value: "ops-*", Role: access.Operator, Env: "prod", Channel: "*"},
		{Claim: "realm_access.roles", Value: "auditor", Role: access.Viewer, Env: "*", Channel: "*"},
		{Claim: "groups", Value: "admins", Role: access.Admin, Env: "*", Channel: "*"},
	}
	return cfg
}

func open(t *testing.T, cfg oidc.Config) *oidc.Provider {
	t.Helper()
	p, err := oidc.New(cfg, "https://console.example/login/oidc/callback")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// visit goes to the provider as a browser does, and returns what it is sent back
// with.
func (i *idp) visit(t *testing.T, to string) url.Values {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("redirect_uri") != "https://console.example/login/oidc/callback" || q.Get("response_type") != "code" || q.Get("nonce") == "" || !strings.Contains(q.Get("scope"), "openid") {
		t.Fatalf("authorisation request: %v", q)
	}
	i.challenge, i.nonce, i.code = q.Get("code_challenge"), q.Get("nonce"), "code-1"
	return url.Values{"code": {"code-1"}, "state": {q.Get("state")}}
}

func TestSignIn(t *testing.T) {
	i := newIDP(t)
	p := open(t, i.config())
	to, secret, err := p.Begin(t.Context(), "/messages?q=x")
	if err != nil {
		t.Fatal(err)
	}
	answer := i.visit(t, to)
	answer.Set("iss", i.URL)
	who, next, err := p.Finish(t.Context(), secret.Reveal(), answer)
	if err != nil {
		t.Fatal(err)
	}
	want := access.External{Issuer: i.URL, Subject: "u-1", Name: "mara", Grants: []access.Grant{
		{Role: access.Operator, Env: "prod", Channel: "*"}, {Role: access.Viewer, Env: "*", Channel: "*"},
	}}
	if diff := cmp.Diff(want, who); diff != "" || next != "/messages?q=x" {
		t.Errorf("who (-want +got), next %q:\n%s", next, diff)
	}
	if _, _, err := p.Finish(t.Context(), secret.Reveal(), answer); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("the same answer again: got %v, want ErrDenied", err)
	}
}

func TestLiesAreRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		lie  func(i *idp, answer url.Values)
	}{
		{"another state", func(_ *idp, a url.Values) { a.Set("state", "x") }},
		{"no state", func(_ *idp, a url.Values) { a.Del("state") }},
		{"another provider", func(_ *idp, a url.Values) { a.Set("iss", "https://evil.example") }},
		{"an error", func(_ *idp, a url.Values) { a.Set("error", "access_denied") }},
		{"no code", func(_ *idp, a url.Values) { a.Del("code") }},
		{"a code of somebody else", func(_ *idp, a url.Values) { a.Set("code", "code-2") }},
		{"a code that was begun with another verifier", func(i *idp, _ url.Values) { i.challenge = "x" }},
		{"another nonce", func(i *idp, _ url.Values) { i.claims = map[string]any{"nonce": "x"} }},
		{"no nonce", func(i *idp, _ url.Values) { i.claims = map[string]any{"nonce": nil} }},
		{"another audience", func(i *idp, _ url.Values) { i.claims = map[string]any{"aud": "other"} }},
		{"two audiences, made for the other", func(i *idp, _ url.Values) {
			i.claims = map[string]any{"aud": []string{"signalbox", "other"}, "azp": "other"}
		}},
		{"another issuer", func(i *idp, _ url.Values) { i.claims = map[string]any{"iss": "https://evil.example"} }},
		{"expired", func(i *idp, _ url.Values) { i.claims = map[string]any{"exp": time.Now().Add(-time.Hour).Unix()} }},
		{"another access token", func(i *idp, _ url.Values) { i.claims = map[string]any{"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"} }},
		{"a key of its own", func(i *idp, _ url.Values) { i.sign = otherKey }},
		{"no signature", func(i *idp, _ url.Values) { i.alg = "none" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newIDP(t)
			p := open(t, i.config())
			to, secret, err := p.Begin(t.Context(), "/")
			if err != nil {
				t.Fatal(err)
			}
			answer := i.visit(t, to)
			c.lie(i, answer)
			who, _, err := p.Finish(t.Context(), secret.Reveal(), answer)
			if !errors.Is(err, controlbus.ErrDenied) || who.Subject != "" {
				t.Errorf("got %+v, %v; want ErrDenied", who, err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

func TestASignInIsBoundToItsBrowser(t *testing.T) {
	i := newIDP(t)
	p := open(t, i.config())
	mine, _, err := p.Begin(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	_, theirs, err := p.Begin(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	// Somebody gets another to open the answer to their own sign-in.
	if _, _, err := p.Finish(t.Context(), theirs.Reveal(), i.visit(t, mine)); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("got %v, want ErrDenied", err)
	}
	if _, _, err := p.Finish(t.Context(), "", url.Values{"code": {"x"}, "state": {""}}); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("without a cookie: got %v, want ErrDenied", err)
	}
}

func TestAProviderThatIsAwayIsAskedAgain(t *testing.T) {
	i := newIDP(t)
	i.down = true
	p := open(t, i.config())
	if _, _, err := p.Begin(t.Context(), "/"); !errors.Is(err, controlbus.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	i.down = false
	if _, _, err := p.Begin(t.Context(), "/"); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestMistakesInTheConfigurationAreNamed(t *testing.T) {
	cfg := oidc.DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Errorf("without an issuer: %v", err)
	}
	cfg.Issuer = "http://idp.example"
	cfg.Grants = []oidc.Mapping{{Role: "boss"}}
	err := cfg.Validate()
	for _, want := range []string{"issuer: want https", "client_id", "grants[0]: want a claim", "grants[0].role"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}
