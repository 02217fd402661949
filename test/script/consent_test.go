package script

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage/state"
)

// TestTwoPeople runs the stories of testdata/consent: people with tokens, and an
// environment in which one asks and another consents.
func TestTwoPeople(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real console and a real agent")
	}
	vars := map[string]string{}
	s := startSiteWith(t, map[string]any{
		"access":   map[string]any{"agents": "open"},
		"commands": map[string]any{"policies": []any{map[string]any{"env": "prod*", "destructive": "second_person"}}},
	}, func(s *site, data string) {
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
		store, err := state.Open(t.Context(), filepath.Join(data, "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		svc, err := access.New(access.DefaultConfig(), access.DefaultPrivacy(), store, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		const password = "correct horse battery"
		from := func(address string) context.Context {
			return access.WithClient(t.Context(), access.Client{Address: address})
		}
		link, err := svc.Setup(from("192.0.2.1"))
		must(err)
		session, err := svc.CompleteSetup(from("192.0.2.1"), link.Reveal(), "root", password)
		must(err)
		root, err := svc.FromSession(from("192.0.2.1"), session.Reveal(), true)
		must(err)
		for i, who := range []struct {
			name string
			role access.Role
		}{{"ASKS", access.Approver}, {"CONSENTS", access.Approver}, {"OPERATES", access.Operator}, {"LOOKS", access.Viewer}} {
			ctx := from("192.0.2.1" + string(rune('0'+i)))
			_, invited, err := svc.AddUser(ctx, root, who.name, access.Everywhere(who.role))
			must(err)
			session, err := svc.UsePasswordLink(ctx, invited.Reveal(), password)
			must(err)
			id, err := svc.FromSession(ctx, session.Reveal(), true)
			must(err)
			// Two tokens of one person are one person.
			for _, name := range []string{who.name, who.name + "_AGAIN"} {
				_, token, err := svc.CreateToken(ctx, id, access.NewToken{Name: name, Grants: access.Everywhere(who.role)})
				must(err)
				vars[name] = token.Reveal()
			}
		}
		s.token = vars["ASKS"]
	})
	act(t, s, "testdata/consent", vars)
}
