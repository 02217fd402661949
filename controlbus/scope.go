package controlbus

import (
	"context"
	"slices"
)

// ScopeRule allows the channels of the environments that match both patterns;
// * stands for any run of characters.
type ScopeRule struct {
	Env     string `json:"env"`
	Channel string `json:"channel"`
}

func (r ScopeRule) everything() bool { return r.Env == "*" && r.Channel == "*" }

// Scope is what a reader may see: which channels of which environments. It is a
// conjunction of sets of rules; within each set one rule must allow. The zero
// Scope allows nothing, so a forgotten one shows nothing.
type Scope struct {
	all  bool
	sets [][]ScopeRule
}

// Everything is the scope without limits.
func Everything() Scope { return Scope{all: true} }

// NewScope builds a scope from sets of rules, each of which has to allow. A set
// without rules allows nothing, and so does no set at all.
func NewScope(sets ...[]ScopeRule) Scope {
	if len(sets) == 0 {
		return Scope{}
	}
	var kept [][]ScopeRule
	for _, set := range sets {
		if len(set) == 0 {
			return Scope{}
		}
		if !slices.ContainsFunc(set, ScopeRule.everything) {
			kept = append(kept, slices.Clone(set))
		}
	}
	return Scope{all: len(kept) == 0, sets: kept}
}

// All says that nothing is limited.
func (s Scope) All() bool { return s.all }

// None says that nothing at all is allowed.
func (s Scope) None() bool { return !s.all && len(s.sets) == 0 }

// Sets are the rules for those who translate them, such as into SQL: all sets
// must hold, one rule of each. It is empty for All and for None; ask these
// first.
func (s Scope) Sets() [][]ScopeRule { return s.sets }

// Allows says whether a channel of an environment may be seen.
func (s Scope) Allows(env, channel string) bool {
	return s.hold(func(r ScopeRule) bool { return MatchPattern(r.Env, env) && MatchPattern(r.Channel, channel) })
}

// AllowsEnv says whether anything of an environment may be seen.
func (s Scope) AllowsEnv(env string) bool {
	return s.hold(func(r ScopeRule) bool { return MatchPattern(r.Env, env) })
}

// AllowsWholeEnv says whether every channel of an environment may be seen, and
// with it what belongs to no channel: logs, spans, samples and sums.
func (s Scope) AllowsWholeEnv(env string) bool {
	return s.hold(func(r ScopeRule) bool { return r.Channel == "*" && MatchPattern(r.Env, env) })
}

func (s Scope) hold(rule func(ScopeRule) bool) bool {
	if s.all {
		return true
	}
	for _, set := range s.sets {
		if !slices.ContainsFunc(set, rule) {
			return false
		}
	}
	return len(s.sets) > 0
}

type scopeKey struct{}

// WithScope returns a context whose reads are limited. Stores look for it and
// refuse a query that they cannot limit.
func WithScope(ctx context.Context, s Scope) context.Context {
	return context.WithValue(ctx, scopeKey{}, s)
}

// ScopeFrom returns what the reads of a context are limited to. Where nobody
// said, ok is false and the console reads for itself.
func ScopeFrom(ctx context.Context) (s Scope, ok bool) {
	s, ok = ctx.Value(scopeKey{}).(Scope)
	return s, ok
}

// Equal says whether both were built from the same rules.
func (s Scope) Equal(other Scope) bool {
	return s.all == other.all && slices.EqualFunc(s.sets, other.sets, slices.Equal)
}

// And is what both scopes allow.
func (s Scope) And(other Scope) Scope {
	switch {
	case s.None() || other.None():
		return Scope{}
	case s.all:
		return other
	case other.all:
		return s
	}
	return Scope{sets: slices.Concat(s.sets, other.sets)}
}
