package controlbus_test

import (
	"testing"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestScope(t *testing.T) {
	t.Parallel()
	type rules = []controlbus.ScopeRule
	for _, c := range []struct {
		name              string
		scope             controlbus.Scope
		env, channel      string
		allows, of, whole bool
	}{
		{"the zero scope allows nothing", controlbus.Scope{}, "prod", "orders", false, false, false},
		{"no sets allow nothing", controlbus.NewScope(), "prod", "orders", false, false, false},
		{"an empty set allows nothing", controlbus.NewScope(rules{{"*", "*"}}, rules{}), "prod", "orders", false, false, false},
		{"everything", controlbus.Everything(), "", "", true, true, true},
		{"two stars are everything", controlbus.NewScope(rules{{"*", "*"}}), "", "x", true, true, true},
		{"an environment", controlbus.NewScope(rules{{"prod", "*"}}), "prod", "orders", true, true, true},
		{"another environment", controlbus.NewScope(rules{{"prod", "*"}}), "test", "orders", false, false, false},
		{"no environment is not any", controlbus.NewScope(rules{{"prod", "*"}}), "", "orders", false, false, false},
		{"a channel", controlbus.NewScope(rules{{"prod", "orders.*"}}), "prod", "orders.new", true, true, false},
		{"another channel", controlbus.NewScope(rules{{"prod", "orders.*"}}), "prod", "payments", false, true, false},
		{"one of two rules", controlbus.NewScope(rules{{"prod", "orders.*"}, {"test", "*"}}), "test", "payments", true, true, true},
		{"patterns do not mix between rules", controlbus.NewScope(rules{{"prod", "orders"}, {"test", "*"}}), "prod", "payments", false, true, false},
		{"both sets", controlbus.NewScope(rules{{"prod", "*"}}, rules{{"*", "orders.*"}}), "prod", "orders.x", true, true, false},
		{"one of two sets is not enough", controlbus.NewScope(rules{{"prod", "*"}}, rules{{"*", "orders.*"}}), "prod", "payments", false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := c.scope.Allows(c.env, c.channel); got != c.allows {
				t.Errorf("Allows: got %v, want %v", got, c.allows)
			}
			if got := c.scope.AllowsEnv(c.env); got != c.of {
				t.Errorf("AllowsEnv: got %v, want %v", got, c.of)
			}
			if got := c.scope.AllowsWholeEnv(c.env); got != c.whole {
				t.Errorf("AllowsWholeEnv: got %v, want %v", got, c.whole)
			}
		})
	}
}
