package access_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/test/broker"
)

func TestMain(m *testing.M) { broker.Main(m) }

// onPostgres is set in the process in which these tests run a second time.
const onPostgres = "SIGNALBOX_TEST_ACCESS_ON_POSTGRES"

// Every test of this package again, with PostgreSQL instead of SQLite.
func TestEverythingOnPostgreSQL(t *testing.T) {
	t.Parallel()
	if os.Getenv(onPostgres) != "" {
		t.Skip("this is it")
	}
	server := broker.PostgreSQL(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=.", "-test.v")
	cmd.Env = append(os.Environ(), onPostgres+"=1", "SIGNALBOX_TEST_POSTGRES="+server.URL)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("--- PASS: ")); n < 10 {
		t.Errorf("only %d tests passed:\n%s", n, out)
	} else {
		t.Logf("%d tests passed", n)
	}
}

func (c *console) open() (*state.Store, error) {
	if os.Getenv(onPostgres) != "" {
		c.dsn = broker.PostgreSQL(c.t).Schema(c.t)
		return state.OpenDSN(c.t.Context(), controlbus.Secret(c.dsn), filepath.Join(filepath.Dir(c.path), state.KeyFile))
	}
	return state.Open(c.t.Context(), c.path)
}

// dump is everything that is kept, as who has the file or the database sees it.
func (c *console) dump() (all []byte) {
	c.t.Helper()
	if c.dsn == "" {
		for _, name := range []string{c.path, c.path + "-wal"} {
			b, err := os.ReadFile(name)
			if err != nil {
				c.t.Fatal(err)
			}
			all = append(all, b...)
		}
		return all
	}
	db, err := sql.Open("pgx", c.dsn)
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(c.t.Context(), `SELECT string_agg(query_to_xml('SELECT * FROM ' || quote_ident(table_name), false, false, '')::text, '')
		FROM information_schema.tables WHERE table_schema = current_schema()`).Scan(&all); err != nil {
		c.t.Fatal(err)
	}
	return all
}

const password = "correct horse battery"

type console struct {
	*access.Service
	t     *testing.T
	ctx   context.Context
	store *state.Store
	path  string
	dsn   string // of PostgreSQL; empty: SQLite
	log   *bytes.Buffer
}

func start(t *testing.T, edit func(*access.Config)) *console {
	t.Helper()
	c := &console{t: t, path: filepath.Join(t.TempDir(), "state.db"), log: &bytes.Buffer{}}
	var err error
	if c.store, err = c.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.store.Close(); err != nil {
			t.Error(err)
		}
	})
	cfg := access.DefaultConfig()
	if edit != nil {
		edit(&cfg)
	}
	if c.Service, err = access.New(cfg, access.DefaultPrivacy(), c.store, slog.New(slog.NewTextHandler(c.log, nil))); err != nil {
		t.Fatal(err)
	}
	c.ctx = access.WithClient(t.Context(), access.Client{Address: "192.0.2.1", UserAgent: "test"})
	return c
}

// from is another address, so that tries do not add up.
func (c *console) from(address string) context.Context {
	return access.WithClient(c.t.Context(), access.Client{Address: address, UserAgent: "test"})
}

// admin makes the first user and returns them and their session's secret.
func (c *console) admin() (access.Identity, controlbus.Secret) {
	c.t.Helper()
	link, err := c.Setup(c.ctx)
	if err != nil || link == "" {
		c.t.Fatalf("setup: got %q, %v", link.Reveal(), err)
	}
	secret, err := c.CompleteSetup(c.ctx, link.Reveal(), "root", password)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.signedIn(secret), secret
}

func (c *console) signedIn(secret controlbus.Secret) access.Identity {
	c.t.Helper()
	id, err := c.FromSession(c.ctx, secret.Reveal(), true)
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// user adds one with a password and signs them in.
func (c *console) user(by access.Identity, name string, grants ...access.Grant) (access.Identity, controlbus.Secret) {
	c.t.Helper()
	_, link, err := c.AddUser(c.ctx, by, name, grants)
	if err != nil {
		c.t.Fatal(err)
	}
	secret, err := c.UsePasswordLink(c.from("198.51.100."+name), link.Reveal(), password)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.signedIn(secret), secret
}

func (c *console) codes() []string {
	c.t.Helper()
	all, err := c.Events(c.ctx, access.EventQuery{})
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, e.Code)
	}
	return out
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func TestTheFirstUserIsMadeOnce(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	first, err := c.Setup(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	link, err := c.Setup(c.ctx) // the program started again
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.CheckLink(c.ctx, first.Reveal())
	wantErr(t, "link of the start before", err, controlbus.ErrNotFound)
	_, err = c.CompleteSetup(c.ctx, link.Reveal(), "root", "short")
	wantErr(t, "short password", err, controlbus.ErrInvalid)

	const rivals = 4
	secrets, errs := make([]controlbus.Secret, rivals), make([]error, rivals)
	var wg sync.WaitGroup
	for i := range rivals {
		wg.Go(func() {
			secrets[i], errs[i] = c.CompleteSetup(c.from("192.0.2.9"), link.Reveal(), "root", password)
		})
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		if err == nil {
			won++
			if id := c.signedIn(secrets[i]); !id.Can(access.ManageUsers, "", "") {
				t.Errorf("first user: got grants %v, want an administrator", id.Grants)
			}
		} else if !errors.Is(err, controlbus.ErrNotFound) && !errors.Is(err, controlbus.ErrOverloaded) {
			t.Errorf("rival: got %v", err)
		}
	}
	if won != 1 {
		t.Errorf("setups that succeeded: got %d, want 1", won)
	}
	if again, err := c.Setup(c.ctx); err != nil || again != "" {
		t.Errorf("setup with a user: got a link %v, error %v", again != "", err)
	}
}

func TestSignInSaysNothingAboutWhoExists(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	root, _ := c.admin()
	gone, _ := c.user(root, "gone", access.Everywhere(access.Viewer)...)
	if err := c.SetDisabled(c.ctx, root, gone.ID, true); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for i, try := range []struct{ name, password string }{{"root", "wrong password"}, {"nobody", "wrong password"}, {"gone", password}} {
		_, err := c.Login(c.from("203.0.113."+string(rune('1'+i))), try.name, try.password, "")
		wantErr(t, try.name, err, access.ErrCredentials)
		texts = append(texts, err.Error())
	}
	if texts[0] != texts[1] || texts[1] != texts[2] {
		t.Errorf("answers differ: %q", texts)
	}
	// The name is found whatever its case, and surrounding blanks are nobody's.
	if _, err := c.Login(c.ctx, " ROOT ", password, ""); err != nil {
		t.Error(err)
	}
}

func TestASessionPlantedBeforeSignInIsWorthNothing(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	_, before := c.admin()
	after, err := c.Login(c.ctx, "root", password, before.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if after == before {
		t.Error("the session kept its secret through a sign-in")
	}
	_, err = c.FromSession(c.ctx, before.Reveal(), true)
	wantErr(t, "session of before", err, access.ErrUnauthenticated)
	id := c.signedIn(after)
	renewed, err := c.ChangePassword(c.ctx, id, password, "another good password", after.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.FromSession(c.ctx, after.Reveal(), true)
	wantErr(t, "session after a new password", err, access.ErrUnauthenticated)
	c.signedIn(renewed)
}

func TestRevocationReachesWhatIsOpen(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	root, _ := c.admin()
	prod := access.Grant{Role: access.Operator, Env: "prod", Channel: "*"}
	for _, cut := range []struct {
		name string
		do   func(access.Identity) error
	}{
		{"disabled", func(id access.Identity) error { return c.SetDisabled(c.ctx, root, id.ID, true) }},
		{"grants", func(id access.Identity) error {
			return c.SetGrants(c.ctx, root, id.ID, access.Everywhere(access.Viewer))
		}},
		{"deleted", func(id access.Identity) error { return c.DeleteUser(c.ctx, root, id.ID) }},
		{"logout", func(id access.Identity) error { return c.Logout(c.ctx, id) }},
		{"session", func(id access.Identity) error { return c.EndSession(c.ctx, root, id.ID, id.Session) }},
	} {
		id, secret := c.user(root, cut.name, prod)
		changed := c.Changed()
		if _, err := c.Still(c.ctx, id); err != nil {
			t.Fatal(err)
		}
		if err := cut.do(id); err != nil {
			t.Errorf("%s: %v", cut.name, err)
			continue
		}
		select {
		case <-changed:
		default:
			t.Errorf("%s: nobody was told", cut.name)
		}
		_, err := c.Still(c.ctx, id)
		wantErr(t, cut.name+": still", err, access.ErrUnauthenticated)
		_, err = c.FromSession(c.ctx, secret.Reveal(), true)
		wantErr(t, cut.name+": cookie", err, access.ErrUnauthenticated)
	}
}

func TestTheLastAdministratorStays(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	root, _ := c.admin()
	wantErr(t, "disable", c.SetDisabled(c.ctx, root, root.ID, true), controlbus.ErrConflict)
	wantErr(t, "demote", c.SetGrants(c.ctx, root, root.ID, access.Everywhere(access.Viewer)), controlbus.ErrConflict)
	wantErr(t, "to a part", c.SetGrants(c.ctx, root, root.ID, []access.Grant{{Role: access.Admin, Env: "prod"}}), controlbus.ErrConflict)
	wantErr(t, "delete", c.DeleteUser(c.ctx, root, root.ID), controlbus.ErrConflict)
	c.user(root, "second", access.Everywhere(access.Admin)...)
	if err := c.SetDisabled(c.ctx, root, root.ID, true); err != nil {
		t.Errorf("with a second one: %v", err)
	}
}

func TestOnlyWhoManagesUsersDoes(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	root, _ := c.admin()
	part, _ := c.user(root, "part", access.Grant{Role: access.Admin, Env: "prod", Channel: "*"})
	approver, _ := c.user(root, "approver", access.Everywhere(access.Approver)...)
	for _, by := range []access.Identity{part, approver, {}} {
		_, _, err := c.AddUser(c.ctx, by, "x", nil)
		wantErr(t, by.Name+": add", err, controlbus.ErrDenied)
		wantErr(t, by.Name+": grants", c.SetGrants(c.ctx, by, by.ID, access.Everywhere(access.Admin)), controlbus.ErrDenied)
		_, err = c.PasswordLink(c.ctx, by, root.ID)
		wantErr(t, by.Name+": link", err, controlbus.ErrDenied)
		_, _, err = c.CreateEnrolment(c.ctx, by, access.NewEnrolment{Name: "x"})
		wantErr(t, by.Name+": enrolment", err, controlbus.ErrDenied)
		wantErr(t, by.Name+": delete", c.DeleteUser(c.ctx, by, root.ID), controlbus.ErrDenied)
		wantErr(t, by.Name+": session", c.EndSession(c.ctx, by, root.ID, root.Session), controlbus.ErrDenied)
	}
	_, _, err := c.AddUser(c.ctx, root, "program", []access.Grant{{Role: access.Agent}})
	wantErr(t, "a role of programs", err, controlbus.ErrInvalid)
}

func TestATokenIsNeverWorthMoreThanItsOwner(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	root, _ := c.admin()
	owner, _ := c.user(root, "owner", access.Grant{Role: access.Operator, Env: "prod", Channel: "orders.*"})
	for _, g := range []access.Grant{
		{Role: access.Operator, Env: "*", Channel: "orders.*"}, {Role: access.Operator, Env: "prod", Channel: "*"},
		{Role: access.Approver, Env: "prod", Channel: "orders.*"}, {Role: access.Sender},
	} {
		_, _, err := c.CreateToken(c.ctx, owner, access.NewToken{Name: "more", Grants: []access.Grant{g}})
		wantErr(t, g.String(), err, controlbus.ErrDenied)
	}
	_, secret, err := c.CreateToken(c.ctx, owner, access.NewToken{Name: "ci", Grants: []access.Grant{{Role: access.Reader, Env: "prod", Channel: "orders.*"}}})
	if err != nil {
		t.Fatal(err)
	}
	id, kind, err := c.FromToken(c.ctx, secret.Reveal())
	if err != nil || kind != access.TokenAPI {
		t.Fatalf("token: got kind %q, error %v", kind, err)
	}
	if !id.Can(access.ReadBody, "prod", "orders.new") || id.Can(access.RequestTap, "prod", "orders.new") || id.Can(access.ReadBody, "test", "orders.new") {
		t.Errorf("token: it may something else than reader in prod on orders.*")
	}
	_, _, err = c.CreateToken(c.ctx, id, access.NewToken{Name: "child", Grants: id.Grants})
	wantErr(t, "a token's token", err, controlbus.ErrDenied)
	if err := c.SetGrants(c.ctx, root, owner.ID, []access.Grant{{Role: access.Viewer, Env: "prod", Channel: "orders.old"}}); err != nil {
		t.Fatal(err)
	}
	if id, _, err = c.FromToken(c.ctx, secret.Reveal()); err != nil {
		t.Fatal(err)
	}
	if id.Can(access.ReadBody, "prod", "orders.new") || id.Scope(access.ViewMetadata).Allows("prod", "orders.new") {
		t.Error("the token kept what its owner lost")
	}
	if !id.Scope(access.ViewMetadata).Allows("prod", "orders.old") {
		t.Error("the token lost what its owner has")
	}
	if err := c.SetDisabled(c.ctx, root, owner.ID, true); err != nil {
		t.Fatal(err)
	}
	_, _, err = c.FromToken(c.ctx, secret.Reveal())
	wantErr(t, "token of a disabled owner", err, access.ErrUnauthenticated)
}

func TestTokensEnd(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	root, _ := c.admin()
	token, secret, err := c.CreateToken(c.ctx, root, access.NewToken{Name: "grafana", Grants: access.Everywhere(access.Viewer)})
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Until(token.ExpiresAt); got > access.DefaultTokenLife || got < access.DefaultTokenLife-time.Minute {
		t.Errorf("life: got %v, want %v", got, access.DefaultTokenLife)
	}
	_, _, err = c.CreateToken(c.ctx, root, access.NewToken{Name: "long", Life: 366 * 24 * time.Hour, Grants: access.Everywhere(access.Viewer)})
	wantErr(t, "over a year", err, controlbus.ErrInvalid)
	text := secret.Reveal()
	mistyped := text[:20] + string(text[20]^1) + text[21:]
	_, _, err = c.FromToken(c.ctx, mistyped)
	wantErr(t, "mistyped", err, access.ErrUnauthenticated)
	if all, err := c.Tokens(c.ctx, root, true); err != nil || len(all) != 1 || strings.Contains(text, all[0].Hint) || all[0].Hint == "" {
		t.Errorf("tokens: got %+v, %v", all, err)
	}
	if err := c.RevokeToken(c.ctx, root, access.TokenAPI, token.ID); err != nil {
		t.Fatal(err)
	}
	_, _, err = c.FromToken(c.ctx, text)
	wantErr(t, "revoked", err, access.ErrUnauthenticated)
	wantErr(t, "revoked twice", c.RevokeToken(c.ctx, root, access.TokenAPI, token.ID), controlbus.ErrNotFound)
}

func TestEnrolment(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	root, _ := c.admin()
	_, secret, err := c.CreateEnrolment(c.ctx, root, access.NewEnrolment{Name: "site 1", Agents: 2, Env: "prod*"})
	if err != nil {
		t.Fatal(err)
	}
	enroller, kind, err := c.FromToken(c.ctx, secret.Reveal())
	if err != nil || kind != access.TokenEnrol || enroller.Can(access.IngestTelemetry, "prod", "x") || enroller.Can(access.ViewMetadata, "prod", "x") {
		t.Fatalf("enrolment token: got %+v, %q, %v; want one that only enrols", enroller, kind, err)
	}
	credential, err := c.Enrol(c.ctx, enroller, "agent-1")
	if err != nil {
		t.Fatal(err)
	}
	agent, kind, err := c.FromToken(c.ctx, credential.Reveal())
	if err != nil || kind != access.TokenAgent || agent.Name != "agent-1" || agent.Kind != access.KindAgent {
		t.Fatalf("credential: got %+v, %q, %v", agent, kind, err)
	}
	if !agent.Can(access.IngestTelemetry, "prod-eu", "x") || agent.Can(access.IngestTelemetry, "test", "x") || agent.Somewhere(access.ViewMetadata) {
		t.Errorf("agent: got grants %v, want to send from prod*", agent.Grants)
	}
	_, err = c.Enrol(c.ctx, enroller, "agent-1")
	wantErr(t, "an id that is taken", err, controlbus.ErrConflict)
	if _, err = c.Enrol(c.ctx, enroller, "agent-2"); err != nil {
		t.Errorf("the refused one took a use: %v", err)
	}
	_, err = c.Enrol(c.ctx, enroller, "agent-3")
	wantErr(t, "a third", err, controlbus.ErrNotFound)
	if err := c.RevokeToken(c.ctx, root, access.TokenAgent, agent.ID); err != nil {
		t.Fatal(err)
	}
	_, _, err = c.FromToken(c.ctx, credential.Reveal())
	wantErr(t, "revoked agent", err, access.ErrUnauthenticated)
}

func TestTheAuditTrailTellsAllAndNoSecret(t *testing.T) {
	t.Parallel()
	c := start(t, nil)
	root, session := c.admin()
	id, other := c.user(root, "mara", access.Everywhere(access.Reader)...)
	_, token, err := c.CreateToken(c.ctx, root, access.NewToken{Name: "ci", Grants: access.Everywhere(access.Viewer)})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Login(c.ctx, "mara", "a wrong password", "")
	ctx := access.With(c.ctx, id)
	if err := c.Record(ctx, access.Event{Code: access.EventBodyRead, Target: "message 1", Env: "prod", Channel: "orders"}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDisabled(c.ctx, root, id.ID, true); err != nil {
		t.Fatal(err)
	}
	want := []string{access.EventUserDisable, access.EventBodyRead, access.EventLoginFailed, access.EventTokenCreate, access.EventLogin, access.EventPasswordSet, access.EventPasswordLink, access.EventUserAdd, access.EventSetup}
	if got := c.codes(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("codes:\n got %v\nwant %v", got, want)
	}
	read, err := c.Events(c.ctx, access.EventQuery{Code: "message.*", Actor: "MARA"})
	if err != nil || len(read) != 1 || read[0].Actor.ID != id.ID || read[0].Env != "prod" || read[0].Channel != "orders" || read[0].Address != "192.0.2.1" {
		t.Errorf("who read the body: got %+v, %v", read, err)
	}
	// Nobody who reads the file can sign in with what is in it.
	dump := append(c.dump(), c.log.Bytes()...)
	for what, secret := range map[string]string{"password": password, "session": session.Reveal(), "other session": other.Reveal(), "token": token.Reveal()} {
		// In a column of bytes PostgreSQL's dump has it in base64.
		if bytes.Contains(dump, []byte(secret)) || bytes.Contains(dump, []byte(base64.StdEncoding.EncodeToString([]byte(secret)))) {
			t.Errorf("the %s is in the state file or the log", what)
		}
	}
	if !bytes.Contains(dump, []byte("orders")) {
		t.Error("the dump does not hold what was written; the test looks at the wrong file")
	}
}

func TestOpenModeHasNoSetup(t *testing.T) {
	t.Parallel()
	c := start(t, func(cfg *access.Config) { cfg.Mode = access.ModeOpen })
	if link, err := c.Setup(c.ctx); err != nil || link != "" {
		t.Errorf("setup: got a link %v, %v", link != "", err)
	}
	id := c.Anonymous()
	if _, err := c.Still(c.ctx, id); err != nil {
		t.Error(err)
	}
	signIn := start(t, nil)
	_, err := signIn.Still(signIn.ctx, id)
	wantErr(t, "the anonymous one where people sign in", err, access.ErrUnauthenticated)
}

func (c *console) userID(name string) string {
	c.t.Helper()
	all, err := c.Users(c.ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, u := range all {
		if u.Name == name {
			return u.ID
		}
	}
	c.t.Fatalf("no user %q", name)
	return ""
}
