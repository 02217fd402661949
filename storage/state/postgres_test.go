package state_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/test/broker"
)

func TestDSNErrorsSayWhatToDoAndNoPassword(t *testing.T) {
	t.Parallel()
	const password = "geheim"
	for _, bad := range []string{"postgres://ann:" + password + "@host:port/db", "host=x password='" + password, "mysql://ann:" + password + "@h/db", "postgres://ann:" + password + "%zz@h/db"} {
		err := state.CheckDSN(controlbus.Secret(bad))
		if !errors.Is(err, controlbus.ErrInvalid) || strings.Contains(err.Error(), password) || !strings.Contains(err.Error(), "postgres://user:password@host:5432/signalbox") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
	at := postgresAt(t)
	u, err := url.Parse(at.dsn.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	with := func(edit func(u *url.URL)) place {
		v := *u
		edit(&v)
		return place{path: filepath.Join(t.TempDir(), "state.db"), dsn: controlbus.Secret(v.String())}
	}
	own, _ := u.User.Password()
	for name, c := range map[string]struct {
		at   place
		want error
		says string
	}{
		"nobody listens": {with(func(u *url.URL) { u.Host = "127.0.0.1:1" }), controlbus.ErrUnavailable, "127.0.0.1:1"},
		"wrong password": {with(func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), password) }), controlbus.ErrDenied, "pg_hba.conf"},
		"no database":    {with(func(u *url.URL) { u.Path = "/nothere" }), controlbus.ErrDenied, "database"},
		"no schema": {with(func(u *url.URL) {
			q := u.Query()
			q.Set("search_path", "nothere")
			u.RawQuery = q.Encode()
		}), controlbus.ErrUnsupported, "CREATE SCHEMA"},
	} {
		s, err := c.at.open(t.Context())
		if s != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), password) || own != "" && strings.Contains(err.Error(), own) {
			t.Errorf("%s: got %v, want %v that says %q", name, err, c.want, c.says)
		}
	}
}

// Whatever the role's defaults are, a commit is on disk when it is told, and
// statements see what was committed before them.
func TestConnectionsAreMadeSafe(t *testing.T) {
	t.Parallel()
	at := postgresAt(t)
	for options, want := range map[string]string{
		"-c synchronous_commit=off -c default_transaction_isolation=serializable": "on",
		"-c synchronous_commit=remote_apply":                                      "remote_apply",
	} {
		p := place{path: at.path, dsn: at.dsn + controlbus.Secret("&options="+strings.ReplaceAll(url.QueryEscape(options), "+", "%20"))}
		synchronous, isolation, err := open(t, p).Settings(t.Context())
		if err != nil || synchronous != want || isolation != "read committed" {
			t.Errorf("with %s: synchronous_commit = %s, isolation %s, %v; want %s, read committed", options, synchronous, isolation, err, want)
		}
	}
}

func TestCollisionsAreTriedAgain(t *testing.T) {
	t.Parallel()
	s := open(t, postgresAt(t))
	e := access.Event{At: time.Now(), Code: "test.done"}
	for _, code := range []string{"40001", "40P01"} {
		if ran, err := s.Collide(t.Context(), e, code, 2); err != nil || ran != 3 {
			t.Errorf("%s twice: ran %d times, %v, want 3", code, ran, err)
		}
	}
	if ran, err := s.Collide(t.Context(), e, "40001", 100); err == nil || ran < 2 || ran > 10 {
		t.Errorf("a collision without end: ran %d times, %v", ran, err)
	}
	if ran, err := s.Collide(t.Context(), e, "22012", 100); err == nil || ran != 1 {
		t.Errorf("another error: ran %d times, %v, want 1", ran, err)
	}
	if all, err := s.Events(t.Context(), access.EventQuery{}); err != nil || len(all) != 2 {
		t.Errorf("got %d events, %v, want 2: each transaction once", len(all), err)
	}
}

// Names and addresses come from anybody: an entry with bytes that PostgreSQL has
// no text for is written nevertheless, and the trail stays whole.
func TestOddBytesAreAudited(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, fresh func(testing.TB) place) {
		p := fresh(t)
		s := open(t, p)
		for _, odd := range []string{"nul\x00byte", "no\xffutf8", "half\xe2\x82", "fine ü€"} {
			if err := s.AddEvent(t.Context(), access.Event{At: time.Now(), Code: "auth.login.failed", Target: odd, Actor: access.Actor{Name: odd}, Detail: odd, Address: odd}); err != nil {
				t.Errorf("%q: %v", odd, err)
			}
		}
		key, err := state.AuditKey(p.path)
		if err != nil {
			t.Fatal(err)
		}
		if r, err := p.verify(t.Context(), key, nil); err != nil || r.Entries != 4 || len(r.Findings) > 0 {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

// Consoles that start at the same moment make one schema and one trail.
func TestConsolesStartTogether(t *testing.T) {
	t.Parallel()
	at := postgresAt(t)
	open(t, sqliteInto(t, at.path)) // a key
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := at.open(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			if err := errors.Join(s.AddEvent(t.Context(), access.Event{At: time.Now(), Code: "test.done"}), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	key, err := state.AuditKey(at.path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := at.verify(t.Context(), key, nil); err != nil || r.Entries != 6 || len(r.Findings) > 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// sqliteInto is a SQLite state beside whose file the key is made.
func sqliteInto(t testing.TB, path string) place {
	return place{path: filepath.Join(filepath.Dir(path), "other.db")}
}

// A console with another key than the one that the trail is signed with writes
// nothing into it.
func TestAConsoleWithAnotherKeyIsRefused(t *testing.T) {
	t.Parallel()
	one := postgresAt(t)
	two := place{path: filepath.Join(t.TempDir(), "state.db"), dsn: one.dsn}
	empty := postgresAt(t)
	e := access.Event{At: time.Now(), Code: "test.done"}
	early := open(t, two)
	one.exec(t, `DELETE FROM audit_head`) // somebody lets another key hold
	if err := open(t, one).AddEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	says := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, controlbus.ErrConflict) || !strings.Contains(err.Error(), "copy") || !strings.Contains(err.Error(), state.KeyFile) {
			t.Errorf("%s: got %v, want ErrConflict that says to copy %s", what, err, state.KeyFile)
		}
	}
	says("an entry", early.AddEvent(t.Context(), e))
	// Also before anything is written: the first that starts is the one.
	open(t, place{path: one.path, dsn: empty.dsn})
	_, err := place{path: two.path, dsn: empty.dsn}.open(t.Context())
	says("a start on a database that another has begun", err)
	_, err = two.open(t.Context())
	says("a start with another key", err)
	three := place{path: filepath.Join(t.TempDir(), "state.db"), dsn: one.dsn}
	_, err = three.open(t.Context())
	says("a start without a key", err)
	if _, err := os.Stat(filepath.Join(filepath.Dir(three.path), state.KeyFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key was made where one is to be copied to: %v", err)
	}
	key, err := state.AuditKey(one.path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := one.verify(t.Context(), key, nil); err != nil || r.Entries != 1 || len(r.Findings) > 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// The connection is lost at a commit: before the server has it, or before its
// answer arrives. Either way the caller learns what became of it.
func TestALostCommitIsLookedInto(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after bool // the server gets the commit
		kept  int
	}{"the order is lost": {false, 0}, "the answer is lost": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := postgresAt(t)
			u, err := url.Parse(direct.dsn.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			p := proxy(t, u.Host, c.after)
			u.Host = p.addr
			s := open(t, place{path: direct.path, dsn: controlbus.Secret(u.String())})
			p.cut.Store(true)
			err = s.AddEvent(t.Context(), access.Event{At: time.Now(), Code: "test.done"})
			if p.cut.Load() {
				t.Fatal("no commit passed the proxy")
			}
			if c.kept == 1 && err != nil || c.kept == 0 && !errors.Is(err, controlbus.ErrUnavailable) {
				t.Errorf("got %v", err)
			}
			all, err := s.Events(t.Context(), access.EventQuery{})
			if err != nil || len(all) != c.kept {
				t.Errorf("%d entries are kept, %v, want %d", len(all), err, c.kept)
			}
		})
	}
}

// cutter passes bytes on to a server. Armed, it ends one connection at its next
// commit.
type cutter struct {
	addr string
	cut  atomic.Bool
}

func proxy(t *testing.T, server string, after bool) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &cutter{addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = l.Close(); wg.Wait() })
	pass := func(client net.Conn) {
		defer client.Close()
		up, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		defer up.Close()
		stop := context.AfterFunc(ctx, func() { _ = client.Close(); _ = up.Close() })
		defer stop()
		var deaf atomic.Bool // the client is to hear no more
		wg.Go(func() {
			_, _ = io.Copy(writerFunc(func(b []byte) (int, error) {
				if deaf.Load() {
					return len(b), nil
				}
				return client.Write(b)
			}), up)
			_ = client.Close()
		})
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if err != nil {
				return
			}
			lost := bytes.Contains(bytes.ToLower(buf[:n]), []byte("commit\x00")) && p.cut.CompareAndSwap(true, false)
			if lost {
				deaf.Store(true)
			}
			if !lost || after {
				if _, err := up.Write(buf[:n]); err != nil {
					return
				}
			}
			if lost {
				_ = client.Close()
				if after { // a server that reads the end at once has the order first all the same
					time.Sleep(50 * time.Millisecond)
				}
				return
			}
		}
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { pass(c) })
		}
	})
	return p
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// A server that stops is not there for a while, and the same store goes on once
// it is back.
func TestTheServerComesBack(t *testing.T) {
	t.Parallel()
	server := broker.PostgreSQLAlone(t)
	s := open(t, place{path: filepath.Join(t.TempDir(), "state.db"), dsn: controlbus.Secret(server.URL)})
	e := access.Event{At: time.Now(), Code: "test.done"}
	if err := s.AddEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	server.Stop(t)
	for what, err := range map[string]error{"write": s.AddEvent(t.Context(), e), "read": func() error { _, err := s.Users(t.Context()); return err }(), "check": s.Check(t.Context())} {
		if !errors.Is(err, controlbus.ErrUnavailable) {
			t.Errorf("%s without a server: got %v, want ErrUnavailable", what, err)
		}
	}
	server.Start(t)
	if err := errors.Join(s.Check(t.Context()), s.AddEvent(t.Context(), e)); err != nil {
		t.Errorf("once it is back: %v", err)
	}
	if all, err := s.Events(t.Context(), access.EventQuery{}); err != nil || len(all) != 2 {
		t.Errorf("got %d events, %v, want 2", len(all), err)
	}
}

// One console hears at once of what another changes, also after the server was
// away, and not of its own changes.
func TestConsolesTellOneAnother(t *testing.T) {
	t.Parallel()
	server := broker.PostgreSQLAlone(t)
	at := place{path: filepath.Join(t.TempDir(), "state.db"), dsn: controlbus.Secret(server.URL)}
	one, two := open(t, at), open(t, at)
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan string, 100)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := two.Follow(ctx, slog.New(slog.DiscardHandler), func(agent string) { heard <- agent }); err != nil {
			t.Error(err)
		}
	})
	next := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Fatalf("heard of agent %q, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("heard nothing of agent %q", want)
		}
	}
	request := func(s *state.Store, channel string) {
		t.Helper()
		l, err := newLedger(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Request(everybody(t.Context()), purgeOf(channel)); err != nil {
			t.Fatal(err)
		}
	}
	next("") // it listens
	request(two, "its own")
	request(one, "orders")
	next("a1")
	if err := one.SaveDesired(t.Context(), "a2", controlbus.Desired{Revision: 1}); err != nil {
		t.Fatal(err)
	}
	next("a2")
	server.Restart(t)
	next("") // it may have missed something
	request(one, "payments")
	next("a1")
}
