// Package broker starts real brokers for tests: RabbitMQ, the packaged
// nats-server, and nats-server in process; and PostgreSQL, which is none, but
// started and stopped like one. A broker is started once per test
// binary, on free loopback ports with its data in a temporary directory, is
// ready once it has answered in its own protocol, and shows its log when the
// test that uses it fails.
//
// A package that uses it ends with
//
//	func TestMain(m *testing.M) { broker.Main(m) }
//
// which stops every broker and then looks for leaked goroutines. Should the
// test binary be killed instead, a small shell that waits for the end of a pipe
// kills what was started.
//
// An address in SIGNALBOX_TEST_RABBITMQ_URL (with
// SIGNALBOX_TEST_RABBITMQ_MANAGEMENT_URL), SIGNALBOX_TEST_NATS_URL or
// SIGNALBOX_TEST_POSTGRES is used instead of starting anything. A broker that cannot be had skips the test by
// name, and fails it under SIGNALBOX_TEST_STRICT=1.
package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// startTimeout is generous: RabbitMQ needs 7 s on a quiet machine, and CI
// machines are not quiet.
const startTimeout = 90 * time.Second

// Server is a running broker.
type Server struct {
	// URL is where clients connect, credentials included.
	URL string
	// ManagementURL is RabbitMQ's HTTP API or NATS' monitoring port, credentials
	// included; empty where there is none.
	ManagementURL string
	// Version is what the broker said when it was ready.
	Version string

	name    string
	foreign bool // given by address: not ours to stop
	dir     string
	env     []string // of the broker, for its tools
	launch  func(s *Server) *exec.Cmd
	probe   func(ctx context.Context, s *Server) error
	helpers []func() error // stop what runs beside the broker
	// quit is how the program is asked to end; SIGTERM when 0.
	quit syscall.Signal

	mu   sync.Mutex
	proc *process
}

// process is one run of a broker's program, in a process group of its own.
type process struct {
	cmd  *exec.Cmd
	quit syscall.Signal
	done chan struct{}
	err  error // valid after done
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	// A grandchild that keeps the log open must not keep Wait from returning.
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, quit: syscall.SIGTERM, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks and insists after grace; with no grace it does not ask.
func (p *process) stop(grace time.Duration) {
	pid := p.cmd.Process.Pid
	if p.running() {
		_ = syscall.Kill(pid, syscall.SIGCONT)
		if grace > 0 {
			_ = syscall.Kill(pid, p.quit)
			select {
			case <-p.done:
			case <-time.After(grace):
			}
		}
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	<-p.done
}

// started lists what Main has to stop.
var started struct {
	sync.Mutex
	servers []*Server
	once    map[string]*shared
}

type shared struct {
	sync.Once
	server *Server
	err    error
}

// sharedServer starts the named broker once per test binary.
func sharedServer(t testing.TB, name string, start func() (*Server, error)) *Server {
	t.Helper()
	if testing.Short() {
		t.Skipf("%s: real brokers are left out with -short", name)
	}
	started.Lock()
	if started.once == nil {
		started.once = map[string]*shared{}
	}
	sh := started.once[name]
	if sh == nil {
		sh = &shared{}
		started.once[name] = sh
	}
	started.Unlock()
	sh.Do(func() { sh.server, sh.err = start() })
	return use(t, name, sh.server, sh.err)
}

// use skips or fails when there is no server, and arranges for its log to be
// shown should t fail.
func use(t testing.TB, name string, s *Server, err error) *Server {
	t.Helper()
	var missing *missingError
	switch {
	case errors.As(err, &missing):
		Missing(t, name, missing.Error())
	case err != nil:
		t.Fatalf("%s: %v", name, err)
	}
	from := s.logSize()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s (%s):\n%s", name, s.URL, s.tail(from))
		}
	})
	return s
}

// Missing skips the test because what it needs is not there, and fails it under
// SIGNALBOX_TEST_STRICT=1.
func Missing(t testing.TB, what, why string) {
	t.Helper()
	if os.Getenv("SIGNALBOX_TEST_STRICT") == "1" {
		t.Fatalf("%s is missing: %s", what, why)
	}
	t.Skipf("%s is missing: %s", what, why)
}

type missingError struct{ why string }

func (e *missingError) Error() string { return e.why }

// program finds a program on PATH or in the given directories.
func program(name string, dirs ...string) (string, error) {
	for _, d := range dirs {
		p := filepath.Join(d, name)
		if fi, err := os.Stat(p); err == nil && fi.Mode()&0o111 != 0 && !fi.IsDir() {
			return p, nil
		}
	}
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	return "", &missingError{fmt.Sprintf("program %s is neither on PATH nor in %s; test/provision.sh installs it",
		name, strings.Join(dirs, ", "))}
}

// register makes Main stop s.
func register(s *Server) {
	started.Lock()
	defer started.Unlock()
	started.servers = append(started.servers, s)
}

// Main runs the package's tests, stops every broker and looks for leaked
// goroutines. It does not return.
func Main(m *testing.M, opts ...goleak.Option) {
	goleak.VerifyTestMain(runner{m}, opts...)
}

type runner struct{ m *testing.M }

func (r runner) Run() int {
	code := r.m.Run()
	started.Lock()
	servers := started.servers
	started.servers = nil
	started.Unlock()
	for _, s := range servers {
		s.shutdown()
	}
	return code
}

// start launches the program and waits until it answers.
func (s *Server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && s.proc.running() {
		return nil
	}
	cmd := s.launch(s)
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	p, err := startProcess(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	if s.quit != 0 {
		p.quit = s.quit
	}
	s.proc = p
	if err := writePID(s.dir, "broker", cmd.Process.Pid); err != nil {
		p.stop(0)
		return err
	}
	if err := s.awaitLocked(p); err != nil {
		p.stop(0)
		return fmt.Errorf("%w; its log:\n%s", err, s.tail(0))
	}
	return nil
}

// awaitLocked probes until the broker answers in its own protocol.
func (s *Server) awaitLocked(p *process) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		try, done := context.WithTimeout(ctx, 5*time.Second)
		last = s.probe(try, s)
		done()
		if last == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("ended before it was ready: %v", p.err) //nolint:errorlint // nil after status 0
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s: %w", startTimeout, last)
		}
	}
}

// shutdown ends the broker and what belongs to it, and removes its data.
func (s *Server) shutdown() {
	s.mu.Lock()
	if s.proc != nil {
		s.proc.stop(15 * time.Second)
	}
	s.mu.Unlock()
	for _, stop := range s.helpers {
		_ = stop()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// Own says whether the broker was started here, so that a test may stop it; it
// skips the test when the broker was given by address.
func (s *Server) Own(t testing.TB) {
	t.Helper()
	if s.foreign {
		t.Skipf("%s was given by address: a test that stops it would stop somebody's broker", s.name)
	}
}

// Stop ends the broker in order and waits for it. Start runs it again with the
// same ports and data.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.Own(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc.stop(30 * time.Second)
}

// Kill ends the broker with SIGKILL.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.Own(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc.stop(0)
}

// Start runs a stopped broker again and waits until it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.Own(t)
	if err := s.start(); err != nil {
		t.Fatalf("%s: start again: %v", s.name, err)
	}
}

// Restart is Stop and Start.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	s.Start(t)
}

// Freeze stops the broker's process with SIGSTOP until Thaw or the end of t.
func (s *Server) Freeze(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { s.signal(t, syscall.SIGCONT) })
}

// Thaw ends Freeze.
func (s *Server) Thaw(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGCONT)
}

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	s.Own(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	// The whole group: a shell in front of the program would take the signal alone.
	if err := syscall.Kill(-s.proc.cmd.Process.Pid, sig); err != nil && s.proc.running() {
		t.Errorf("%s: %v: %v", s.name, sig, err)
	}
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "broker.log") }

func (s *Server) logSize() int64 {
	if s.dir == "" {
		return 0
	}
	fi, err := os.Stat(s.logPath())
	if err != nil {
		return 0
	}
	return fi.Size()
}

// tail is what the broker logged from an offset on, at most the last 16 KiB.
func (s *Server) tail(from int64) string {
	if s.dir == "" {
		return "(not started here)"
	}
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		return err.Error()
	}
	if from <= int64(len(b)) {
		b = b[from:]
	}
	const most = 16 << 10
	if len(b) > most {
		b = append([]byte("...\n"), b[len(b)-most:]...)
	}
	return string(bytes.TrimSpace(b))
}

// reaper starts a shell that kills the process groups recorded in dir, and
// removes dir, once this test binary is gone: cleanup code does not run in a killed process,
// but the kernel closes its end of the pipe.
func reaper(dir string) (stop func() error, err error) {
	cmd := exec.Command("/bin/sh", "-c",
		`read -r x; [ "$x" = bye ] && exit 0
for f in "$1"/*.pgid; do kill -s KILL -- "-$(cat "$f")"; done 2>/dev/null; rm -rf "$1"`,
		"reaper", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		_, _ = in.Write([]byte("bye\n"))
		return cmd.Wait()
	}, nil
}

// writePID records a process group for the reaper.
func writePID(dir, name string, pid int) error {
	return os.WriteFile(filepath.Join(dir, name+".pgid"), []byte(strconv.Itoa(pid)+"\n"), 0o600)
}

// freePorts are loopback TCP ports that nothing listens on right now, all
// different because they are held until the last is found.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
