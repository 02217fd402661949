package oidc

import (
	"errors"
	"fmt"
	"net"
	"net/url"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Config is the "oidc" section of the console's configuration. Without an issuer
// nobody signs in elsewhere.
type Config struct {
	Issuer string `yaml:"issuer"` // exactly as its tokens name it
	Name   string `yaml:"name"`   // on the button
	// ClientID is the console's at the provider; ClientSecretFile holds the
	// secret, and is empty for a public client.
	ClientID         string            `yaml:"client_id"`
	ClientSecretFile string            `yaml:"client_secret_file"`
	ClientSecret     controlbus.Secret `yaml:"-"`
	Scopes           []string          `yaml:"scopes"`
	// NameClaim is what the user is called here.
	NameClaim string `yaml:"name_claim"`
	// Grants map claims to roles, anew at each sign-in. Who gets none is refused.
	Grants []Mapping `yaml:"grants"`
}

// Mapping gives a grant to whom a claim has a value.
type Mapping struct {
	Claim string `yaml:"claim"` // such as groups, or realm_access.roles
	Value string `yaml:"value"` // of the claim, or of one of its list; * stands for anything

	Role    access.Role `yaml:"role"`
	Env     string      `yaml:"env"`
	Channel string      `yaml:"channel"`
}

// DefaultConfig has no issuer.
func DefaultConfig() Config {
	return Config{Name: "single sign-on", Scopes: []string{"openid", "profile", "email"}, NameClaim: "preferred_username"}
}

// Validate reports every problem at once, each under its own key.
func (c Config) Validate() error {
	if c.Issuer == "" {
		return nil
	}
	var errs []error
	if err := checkURL(c.Issuer); err != nil {
		errs = append(errs, fmt.Errorf("issuer: %w", err))
	}
	if c.ClientID == "" {
		errs = append(errs, errors.New("client_id: want the console's id at the provider, have none"))
	}
	if c.Name == "" || c.NameClaim == "" {
		errs = append(errs, errors.New("name, name_claim: want both"))
	}
	if len(c.Grants) == 0 {
		errs = append(errs, errors.New("grants: want at least one, or nobody could sign in"))
	}
	for i, m := range c.Grants {
		if m.Claim == "" || m.Value == "" {
			errs = append(errs, fmt.Errorf("grants[%d]: want a claim and a value", i))
		}
		if !m.Role.Human() {
			errs = append(errs, fmt.Errorf("grants[%d].role: %q is not a role of people", i, string(m.Role)))
		}
	}
	return errors.Join(errs...)
}

// checkURL wants TLS, or a provider on this machine.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("want an https address, have %q", s)
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("want https, have %q: what it answers could be changed on the way", s)
	}
	return nil
}
