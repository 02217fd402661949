package access_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

func TestASessionEndsWithoutUseAndInAnyCase(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil)
		_, secret := c.admin()
		holds := func(use bool) bool {
			_, err := c.FromSession(c.ctx, secret.Reveal(), use)
			return err == nil
		}
		// Used now and then it goes on, up to the end.
		begin := time.Now()
		for time.Since(begin) < 11*time.Hour+20*time.Minute {
			time.Sleep(29 * time.Minute)
			if !holds(true) {
				t.Fatalf("after %v in use: the session has ended", time.Since(begin))
			}
		}
		time.Sleep(time.Until(begin.Add(12*time.Hour - time.Second)))
		if !holds(true) {
			t.Error("a second before its end: the session has ended")
		}
		time.Sleep(time.Second)
		if holds(true) {
			t.Error("after twelve hours: the session goes on")
		}
		// A page that refreshes itself is no use.
		var err error
		if secret, err = c.Login(c.ctx, "root", password, ""); err != nil {
			t.Fatal(err)
		}
		for range 29 {
			time.Sleep(time.Minute)
			if !holds(false) {
				t.Fatal("within half an hour: the session has ended")
			}
		}
		time.Sleep(time.Minute)
		if holds(false) {
			t.Error("half an hour without use: the session goes on")
		}
		if left, err := c.Sessions(c.ctx, c.userID("root")); err != nil || len(left) != 0 {
			t.Errorf("open sessions: got %d, %v; want none", len(left), err)
		}
	})
}

func TestLinksAndTokensRunOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil)
		first, err := c.Setup(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(access.SetupLife)
		_, err = c.CompleteSetup(c.ctx, first.Reveal(), "root", password)
		wantErr(t, "a setup link after a day", err, controlbus.ErrNotFound)
		root, _ := c.admin()
		_, link, err := c.AddUser(c.ctx, root, "mara", access.Everywhere(access.Viewer))
		if err != nil {
			t.Fatal(err)
		}
		token, secret, err := c.CreateToken(c.ctx, root, access.NewToken{Name: "short", Life: time.Hour, Grants: access.Everywhere(access.Viewer)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(token.ExpiresAt.Add(-time.Second)))
		if _, _, err := c.FromToken(c.ctx, secret.Reveal()); err != nil {
			t.Errorf("a second before its end: %v", err)
		}
		time.Sleep(time.Second)
		_, _, err = c.FromToken(c.ctx, secret.Reveal())
		wantErr(t, "an expired token", err, access.ErrUnauthenticated)
		time.Sleep(access.LinkLife)
		_, err = c.UsePasswordLink(c.ctx, link.Reveal(), password)
		wantErr(t, "a password link after a day", err, controlbus.ErrNotFound)
	})
}

func TestStuffingIsSlowedByNameAndByAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := start(t, nil)
		c.admin()
		try := func(address, name, with string) error {
			_, err := c.Login(c.from(address), name, with, "")
			return err
		}
		for range 5 {
			wantErr(t, "one of five", try("203.0.113.5", "root", "wrong password"), access.ErrCredentials)
		}
		// The name is blocked for everybody, and so is the address for all names;
		// even the right password does not help.
		wantErr(t, "the right one, elsewhere", try("203.0.113.6", "root", password), controlbus.ErrOverloaded)
		wantErr(t, "another name, from there", try("203.0.113.5", "ghost", "wrong password"), controlbus.ErrOverloaded)
		time.Sleep(2*time.Minute + time.Second)
		if err := try("203.0.113.6", "root", password); err != nil {
			t.Errorf("later: %v", err)
		}
		events, err := c.Events(c.ctx, access.EventQuery{Code: access.EventThrottled})
		if err != nil || len(events) != 2 {
			t.Errorf("blocks recorded: got %d, %v; want one for the name and one for the address", len(events), err)
		}
	})
}
