package link_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/ui/guard"
)

// bearer shows a credential.
type bearer controlbus.Secret

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+controlbus.Secret(b).Reveal())
	return http.DefaultTransport.RoundTrip(r)
}

func TestACredentialIsOneAgents(t *testing.T) {
	store, err := state.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	svc, err := access.New(access.DefaultConfig(), access.DefaultPrivacy(), store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	roster, err := link.NewRoster(t.Context(), store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(guard.Config{Access: svc})
	if err != nil {
		t.Fatal(err)
	}
	mux := g.Mux()
	mux.Handle(link.Path, access.AgentLink, roster.Handler(), nil)
	mux.Handle(link.EnrolPath, access.Enrol, link.EnrolHandler(svc), nil)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)

	root := access.Identity{Kind: access.KindUser, Name: "root", Grants: access.Everywhere(access.Admin)}
	_, token, err := svc.CreateEnrolment(t.Context(), root, access.NewEnrolment{Name: "site", Env: "prod*"})
	if err != nil {
		t.Fatal(err)
	}
	report := func(secret controlbus.Secret, id, env string) error {
		c, err := link.NewClient(link.ClientConfig{URL: srv.URL, HTTP: &http.Client{Transport: bearer(secret), Timeout: 5 * time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Report(t.Context(), controlbus.Agent{ID: id, Env: env, Incarnation: "1"})
		return err
	}
	if err := report("", "a1", "prod"); err == nil {
		t.Error("who shows nothing reports")
	}
	if err := report(token, "a1", "prod"); err == nil {
		t.Error("an enrolment token reports")
	}
	credential, err := link.EnrolAgent(t.Context(), srv.Client(), srv.URL, token, "a1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id, env string
		ok      bool
	}{{"a1", "prod-eu", true}, {"a2", "prod-eu", false}, {"a1", "test", false}} {
		if err := report(credential, c.id, c.env); (err == nil) != c.ok {
			t.Errorf("report as %s from %s: got %v, want it taken %v", c.id, c.env, err, c.ok)
		}
	}
	if got := len(roster.Agents()); got != 1 {
		t.Errorf("agents known: got %d, want 1", got)
	}
	if _, err := link.EnrolAgent(t.Context(), srv.Client(), srv.URL, token, "a2"); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("a used token: got %v, want ErrDenied", err)
	}
	creds, err := svc.Credentials(t.Context(), root)
	if err != nil || len(creds) != 1 {
		t.Fatalf("credentials: got %v, %v", creds, err)
	}
	if err := svc.RevokeToken(t.Context(), root, access.TokenAgent, creds[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := report(credential, "a1", "prod"); err == nil {
		t.Error("a revoked agent reports")
	}
}
