package access

import (
	"context"
	"slices"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Kind of identity.
type Kind string

// Kinds.
const (
	KindUser      Kind = "user"
	KindToken     Kind = "token"
	KindAgent     Kind = "agent"
	KindAnonymous Kind = "anonymous"
	KindSystem    Kind = "system" // the console itself, in the audit trail
)

// Scope limits what is read.
type Scope = controlbus.Scope

// Identity is who does something. Its zero value may nothing but what is Public.
type Identity struct {
	ID     string
	Name   string
	Kind   Kind
	Grants []Grant
	// Session names the session, for the page of one's own sessions; empty for
	// tokens.
	Session string

	// owner is the user a token belongs to.
	owner string
	// within limits the grants: a token is never worth more than its owner is now.
	within  []Grant
	limited bool
	// withheld is what the console's configuration allows nobody.
	withheld []Action
	// key finds the credential again, to ask whether it still holds.
	key credential
}

// credential is what an identity was made from.
type credential struct {
	kind byte // 's'ession, 't'oken, 0 none
	hash hash
}

// Anonymous is everybody, where the console runs without signing in.
func (s *Service) Anonymous() Identity {
	return Identity{ID: "anonymous", Name: "anonymous", Kind: KindAnonymous, Grants: Everywhere(Admin), withheld: s.withheld}
}

// Can says whether the identity may do a on a channel of an environment. For
// what concerns neither, such as managing users, both are empty; then only a
// grant for all environments and channels counts.
func (id Identity) Can(a Action, env, channel string) bool {
	switch a {
	case Public:
		return true
	case Self:
		return id.Kind != ""
	}
	if slices.Contains(id.withheld, a) {
		return false
	}
	if a.Global() {
		env, channel = "", ""
	}
	may := func(g Grant) bool { return g.may(a, env, channel) }
	return slices.ContainsFunc(id.Grants, may) && (!id.limited || slices.ContainsFunc(id.within, may))
}

// Person is who is answerable: a token's owner, else the identity itself. Two
// identities of one person cannot consent to each other.
func (id Identity) Person() string {
	if id.owner != "" {
		return id.owner
	}
	return id.ID
}

// Nobody says that no person is known behind the identity: everybody where
// nobody signs in, and tokens that were made there.
func (id Identity) Nobody() bool {
	return id.Kind == KindAnonymous || id.Kind == KindToken && id.owner == ""
}

// Somewhere says whether the identity may do a on any channel at all: whether
// its page is worth showing. What it shows is limited by Scope.
func (id Identity) Somewhere(a Action) bool {
	if a == Public || a == Self || a.Global() {
		return id.Can(a, "", "")
	}
	return !id.Scope(a).None()
}

// Scope is what reading for a must be limited to.
func (id Identity) Scope(a Action) Scope {
	if slices.Contains(id.withheld, a) {
		return Scope{}
	}
	sets := [][]controlbus.ScopeRule{rules(id.Grants, a)}
	if id.limited {
		sets = append(sets, rules(id.within, a))
	}
	return controlbus.NewScope(sets...)
}

func rules(grants []Grant, a Action) []controlbus.ScopeRule {
	var out []controlbus.ScopeRule
	for _, g := range grants {
		if r := (controlbus.ScopeRule{Env: g.Env, Channel: g.Channel}); g.Role.May(a) && !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// Why says, for people, why the identity may not do a.
func (id Identity) Why(a Action) string {
	if slices.Contains(id.withheld, a) {
		return "The configuration of this console allows it to nobody (privacy)."
	}
	for _, r := range Roles() {
		if r.May(a) {
			return "It needs the role " + string(r) + "; an administrator gives roles."
		}
	}
	return "It is not for people."
}

// Covers says whether the identity may all that a grant allows, and so may give
// it on.
func (id Identity) Covers(g Grant) bool {
	covers := func(mine Grant) bool { return mine.covers(g) }
	return slices.ContainsFunc(id.Grants, covers) && (!id.limited || slices.ContainsFunc(id.within, covers))
}

type contextKey struct{}

// With returns a context that carries who acts.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// From returns who acts. Without an identity ok is false and the identity may
// nothing.
func From(ctx context.Context) (id Identity, ok bool) {
	id, ok = ctx.Value(contextKey{}).(Identity)
	return id, ok
}
