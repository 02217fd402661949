package clickhouse

import (
	"errors"
	"strings"
	"testing"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestAQueryThatCannotBeLimitedIsRefused(t *testing.T) {
	t.Parallel()
	q := newSelection("SELECT 1 FROM x WHERE")
	q.equal("env", "env", "prod")
	part := controlbus.WithScope(t.Context(), controlbus.NewScope([]controlbus.ScopeRule{{Env: "prod", Channel: "*"}}))
	if _, _, err := q.limitedTo(part); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("for a limited reader: got %v, want ErrDenied", err)
	}
	if _, _, err := q.limitedTo(controlbus.WithScope(t.Context(), controlbus.Everything())); err != nil {
		t.Errorf("for who may see everything: %v", err)
	}
	if _, _, err := q.limitedTo(t.Context()); err != nil {
		t.Errorf("for the console itself: %v", err)
	}
}

func TestTheTextOfAScopeHoldsNoValue(t *testing.T) {
	t.Parallel()
	const hostile = "'} OR 1=1 --"
	text := func(env, channel string) string {
		q := newSelection("SELECT 1 FROM x WHERE")
		q.where("ts > 1")
		q.visible("env", "destination")
		q.add("LIMIT 1")
		out, args, err := q.limitedTo(controlbus.WithScope(t.Context(), controlbus.NewScope([]controlbus.ScopeRule{{Env: env, Channel: channel}, {Env: "*", Channel: channel}}, []controlbus.ScopeRule{{Env: env, Channel: "*"}})))
		if err != nil || len(args) != 4 {
			t.Fatalf("got %d arguments, %v", len(args), err)
		}
		return out
	}
	plain := text("prod", "orders.*")
	if got := text(hostile, hostile+"*"); got != plain || strings.Contains(got, hostile) {
		t.Errorf("got\n%s\nwant\n%s", got, plain)
	}
	const want = "SELECT 1 FROM x WHERE\n    ts > 1\n" +
		"    AND ((env = {scope_0_0_env:String} AND match(destination, {scope_0_0_channel:String})) OR (match(destination, {scope_0_1_channel:String})))\n" +
		"    AND ((env = {scope_1_0_env:String}))\nLIMIT 1"
	if plain != want {
		t.Errorf("got\n%s\nwant\n%s", plain, want)
	}
}
