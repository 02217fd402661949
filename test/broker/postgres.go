package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PostgreSQL is the PostgreSQL that this test binary's tests share, with fsync
// on. Tests keep apart through Schema.
func PostgreSQL(t testing.TB) *Server {
	t.Helper()
	return sharedServer(t, "postgresql", func() (*Server, error) {
		if dsn := os.Getenv("SIGNALBOX_TEST_POSTGRES"); dsn != "" {
			s := &Server{URL: dsn, name: "postgresql", foreign: true}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := probePostgreSQL(ctx, s); err != nil {
				return nil, fmt.Errorf("SIGNALBOX_TEST_POSTGRES: %w", err)
			}
			return s, nil
		}
		return startPostgreSQL()
	})
}

// PostgreSQLAlone starts a PostgreSQL of t's own, for a test that kills it, and
// stops it when t ends.
func PostgreSQLAlone(t testing.TB) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("postgresql: real servers are left out with -short")
	}
	s, err := startPostgreSQL()
	if err == nil {
		t.Cleanup(s.shutdown) // after its log was shown
	}
	return use(t, "postgresql", s, err)
}

// postgresUser is whom the server's programs run as: they refuse root.
func postgresUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, &missingError{"PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as"}
}

func startPostgreSQL() (_ *Server, err error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // Debian's, several side by side
	slices.SortFunc(dirs, func(a, b string) int { return postgresMajor(b) - postgresMajor(a) })
	prog, err := program("postgres", dirs...)
	if err != nil {
		return nil, err
	}
	initdb, err := program("initdb", filepath.Dir(prog))
	if err != nil {
		return nil, err
	}
	as, err := postgresUser()
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "signalbox-postgresql-")
	if err != nil {
		return nil, err
	}
	password := rand.Text()
	s := &Server{
		URL:  fmt.Sprintf("postgres://signalbox:%s@127.0.0.1:%d/postgres?sslmode=disable", password, ports[0]),
		name: "postgresql", dir: dir, probe: probePostgreSQL,
		quit: syscall.SIGINT, // does not wait for clients
	}
	register(s)
	defer func() {
		if err != nil {
			s.shutdown()
		}
	}()
	stopReaper, err := reaper(dir)
	if err != nil {
		return nil, err
	}
	s.helpers = append(s.helpers, stopReaper)
	pwfile := filepath.Join(dir, "password")
	if err := os.WriteFile(pwfile, []byte(password+"\n"), 0o600); err != nil {
		return nil, err
	}
	if as != nil {
		for _, p := range []string{dir, pwfile} {
			if err := os.Chown(p, int(as.Uid), int(as.Gid)); err != nil {
				return nil, err
			}
		}
	}
	data := filepath.Join(dir, "data")
	env := []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=" + dir, "TMPDIR=" + dir}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	init := exec.CommandContext(ctx, initdb, "-D", data, "-U", "signalbox", "-A", "scram-sha-256", "--pwfile", pwfile, "-E", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions")
	init.Dir, init.Env, init.SysProcAttr = dir, env, &syscall.SysProcAttr{Credential: as}
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	s.launch = func(*Server) *exec.Cmd {
		cmd := exec.Command(prog, "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(ports[0]), "-k", "",
			"-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "max_connections=300", "-c", "shared_buffers=32MB",
			"-c", "max_wal_size=256MB", "-c", "logging_collector=off", "-c", "autovacuum_naptime=1min")
		cmd.Dir, cmd.Env, cmd.SysProcAttr = dir, env, &syscall.SysProcAttr{Credential: as}
		return cmd
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

func postgresMajor(bin string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		return 0
	}
	return n
}

func probePostgreSQL(ctx context.Context, s *Server) error {
	c, err := pgx.Connect(ctx, s.URL)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	return c.QueryRow(ctx, `SHOW server_version`).Scan(&s.Version)
}

// PowerCut ends PostgreSQL's server and every process of it at once with
// SIGKILL, so that none of them tidies up. Start runs it again.
func (s *Server) PowerCut(t testing.TB) {
	t.Helper()
	s.Own(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	pid := s.proc.cmd.Process.Pid
	_ = syscall.Kill(pid, syscall.SIGSTOP) // it starts no more
	children := childrenOf(pid)
	for _, c := range append(children, pid) {
		_ = syscall.Kill(c, syscall.SIGKILL)
	}
	<-s.proc.done
	// The next server refuses to start while one of these has the memory.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		children = slices.DeleteFunc(children, func(c int) bool { return syscall.Kill(c, 0) != nil || zombie(c) })
		if len(children) == 0 {
			return
		}
	}
	t.Errorf("processes of PostgreSQL are still there: %v", children)
}

// childrenOf reads who has pid as its parent; they are in sessions of their own.
func childrenOf(pid int) []int {
	var all []int
	entries, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, e := range entries {
		if f := procStat(e); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			if c, err := strconv.Atoi(filepath.Base(filepath.Dir(e))); err == nil {
				all = append(all, c)
			}
		}
	}
	return all
}

func zombie(pid int) bool {
	f := procStat(fmt.Sprintf("/proc/%d/stat", pid))
	return len(f) == 0 || f[0] == "Z"
}

// procStat is what follows the name: state, parent, ...
func procStat(file string) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
}

var schemas atomic.Int64

// Schema makes a schema for t alone, removed when t ends, and returns the DSN
// that works in it.
func (s *Server) Schema(t testing.TB) (dsn string) {
	t.Helper()
	name := fmt.Sprintf("t%d_%d", os.Getpid(), schemas.Add(1))
	if err := s.run(`CREATE SCHEMA ` + name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var dead *pgconn.ConnectError
		if err := s.run(`DROP SCHEMA ` + name + ` CASCADE`); err != nil && !errors.As(err, &dead) {
			t.Logf("remove schema: %v", err) // a test may leave the server stopped
		}
	})
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal("want SIGNALBOX_TEST_POSTGRES as an address, postgres://user:password@host/database")
	}
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String()
}

func (s *Server) run(statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.URL)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	_, err = c.Exec(ctx, statement)
	return err
}
