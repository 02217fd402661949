package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

// State is where a Supervisor's child stands.
//
//	stopped ──Run──▶ starting ──answers──▶ running ──ends──▶ waiting
//	   ▲                │ ▲                                     │
//	   └──── ctx ends ──┘ └────────────── back-off ─────────────┘
type State string

// The states.
const (
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Waiting  State = "waiting" // crashed, to be started again after the back-off
)

// Status is a Supervisor's child at one moment.
type Status struct {
	State     State
	PID       int // 0 unless there is a process
	Restarts  int // starts after the first
	LastError string
	Since     time.Time // when State began
}

// Supervisor runs the engine as a child process and starts it again when it
// ends. All methods may be called concurrently.
type Supervisor struct {
	cfg     Config
	log     *slog.Logger
	command []string
	env     []string
	client  *http.Client

	mu      sync.Mutex
	status  Status
	down    time.Time // when it last left Running, or began to start
	socket  string
	changed chan struct{} // closed and replaced at each change of status
	ended   error         // why Run gave up
}

// Back-off between restarts, doubled each time the child ends before it has
// run for a while.
const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 15 * time.Second
	steady       = time.Minute
	startTimeout = 5 * time.Minute // many parts take long to load
	readyPoll    = 10 * time.Millisecond
)

// New returns a Supervisor that Run starts. cfg has been validated.
func New(cfg Config, log *slog.Logger) *Supervisor {
	s := &Supervisor{cfg: cfg, log: log, changed: make(chan struct{})}
	s.status = Status{State: Stopped, Since: time.Now()}
	s.down = s.status.Since
	s.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return s.DialContext(ctx, addr) },
	}}
	return s
}

// SetCommand replaces the child's command line, which is otherwise this program
// with the argument "engine"; the flags of the configuration follow it. Env is
// added to the child's environment. For tests, before Run.
func (s *Supervisor) SetCommand(command, env []string) { s.command, s.env = command, env }

// dialPatience is how long after it went down an engine is waited for; being
// started again takes half of that. One that does not come back is said to be
// away: a page has to tell within two seconds, however many things it asks one
// after another.
const dialPatience = 800 * time.Millisecond

// DialContext connects to the engine, whatever the address; it is what the
// driver takes as its DialContext. It waits a moment while the engine starts, if
// ctx allows, and returns ErrUnavailable when that ends first.
func (s *Supervisor) DialContext(ctx context.Context, _ string) (net.Conn, error) {
	err := ctx.Err()
	if err == nil && !s.Ready() {
		s.mu.Lock()
		patience := s.down.Add(dialPatience)
		s.mu.Unlock()
		wait, cancel := context.WithDeadline(ctx, patience)
		err = s.WaitReady(wait)
		cancel()
	}
	switch {
	case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		// Not a deadline of the caller's: nothing that took too long was asked.
		st := s.Status()
		if st.LastError != "" {
			return nil, fmt.Errorf("engine: %w: %s: %s", controlbus.ErrUnavailable, st.State, st.LastError)
		}
		return nil, fmt.Errorf("engine: %w: %s", controlbus.ErrUnavailable, st.State)
	case err != nil:
		return nil, err
	}
	s.mu.Lock()
	socket := s.socket
	s.mu.Unlock()
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("engine: %w: %w", controlbus.ErrUnavailable, err)
	}
	return c, nil
}

// HTTPClient speaks to the engine under any host name, such as http://engine/.
func (s *Supervisor) HTTPClient() *http.Client { return s.client }

// Status returns the child's present state.
func (s *Supervisor) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Ready reports whether the engine answers.
func (s *Supervisor) Ready() bool { return s.Status().State == Running }

// WaitReady blocks until the engine answers, Run has given up, or ctx ends.
func (s *Supervisor) WaitReady(ctx context.Context) error {
	for {
		s.mu.Lock()
		st, ended, changed := s.status, s.ended, s.changed
		s.mu.Unlock()
		if st.State == Running {
			return nil
		}
		if ended != nil {
			return fmt.Errorf("engine: %w: %w", controlbus.ErrUnavailable, ended)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if st.LastError != "" {
				return fmt.Errorf("engine: %w: %s: %w", controlbus.ErrUnavailable, st.LastError, ctx.Err())
			}
			return fmt.Errorf("engine: %w: it is %s: %w", controlbus.ErrUnavailable, st.State, ctx.Err())
		}
	}
}

func (s *Supervisor) update(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.status.State
	f(&s.status)
	if s.status.State != before {
		s.status.Since = time.Now()
		if before == Running || before == Stopped {
			s.down = s.status.Since
		}
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// Run starts the child and keeps it running until ctx ends, then stops it and
// waits for it. It returns early when the child cannot be started at all: no
// library, the data directory in use, or an end before it first answered.
func (s *Supervisor) Run(ctx context.Context) (err error) {
	defer func() {
		s.mu.Lock()
		s.ended = errors.Join(errors.New("it was stopped"), err)
		s.mu.Unlock()
		s.update(func(st *Status) { st.State, st.PID = Stopped, 0 })
		s.client.CloseIdleConnections()
	}()
	s.mu.Lock()
	s.ended = nil
	s.mu.Unlock()
	cfg := s.cfg
	if cfg.Library, err = FindLibrary(cfg.Library); err != nil {
		return err
	}
	if cfg.DataDir, err = filepath.Abs(cfg.DataDir); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if cfg.Socket, err = cfg.socketPath(); err != nil {
		return err
	}
	if s.cfg.Socket == "" && filepath.Dir(cfg.Socket) != cfg.DataDir {
		// Made for the socket alone; what stays behind is an empty directory.
		defer func() { _ = os.RemoveAll(filepath.Dir(cfg.Socket)) }()
	}
	s.mu.Lock()
	s.socket = cfg.Socket
	s.mu.Unlock()

	pauses := backoff.Backoff{Base: backoffFirst, Cap: backoffMost, Floor: backoffFirst / 4}
	once := false
	for {
		began := time.Now()
		ready, err := s.runChild(ctx, cfg)
		if ctx.Err() != nil {
			return nil
		}
		once = once || ready
		if !once && !killed(err) {
			return err
		}
		if ready && time.Since(began) >= steady {
			pauses.Reset()
		}
		pause := pauses.Next()
		s.log.ErrorContext(ctx, "engine ended; starting it again", "error", err, "pause", pause)
		s.update(func(st *Status) {
			st.State, st.PID, st.LastError = Waiting, 0, err.Error()
		})
		if !backoff.Sleep(ctx, pause) {
			return nil
		}
		s.update(func(st *Status) { st.Restarts++ })
	}
}

// killed says that somebody else ended the process: the kernel, which was
// short of memory, or a person. That tells nothing about the next start.
func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// runChild runs one process to its end. ready says whether it ever answered.
func (s *Supervisor) runChild(ctx context.Context, cfg Config) (ready bool, err error) {
	command := s.command
	if len(command) == 0 {
		exe, err := os.Executable()
		if err != nil {
			return false, fmt.Errorf("engine: find this program: %w", err)
		}
		command = []string{exe, "engine"}
	}
	args := append(append(append([]string(nil), command[1:]...), "-child"), cfg.Args()...)
	// It is asked to end through stdin, and killed only after a grace.
	cmd := exec.Command(command[0], args...) //nolint:noctx // ctx would kill it at once
	cmd.Env = append(os.Environ(), s.env...)
	childProcAttr(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return false, fmt.Errorf("engine: %w", err)
	}
	defer stdin.Close()
	logs := &childLog{log: s.log}
	cmd.Stdout, cmd.Stderr = logs, logs

	s.update(func(st *Status) { st.State, st.PID = Starting, 0 })
	exited := make(chan error, 1)
	started := make(chan error, 1)
	go func() {
		// The kernel tells the child of its parent's death when the thread
		// that started it ends, so this thread stays as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		exited <- cmd.Wait()
	}()
	if err := <-started; err != nil {
		return false, fmt.Errorf("engine: start: %w", err)
	}
	s.update(func(st *Status) { st.PID = cmd.Process.Pid })

	answers := make(chan struct{})
	pctx, stopPoll := context.WithCancel(ctx)
	polled := make(chan struct{})
	go func() {
		defer close(polled)
		if pollReady(pctx, cfg.Socket, cmd.Process.Pid) {
			close(answers)
		}
	}()
	defer func() { stopPoll(); <-polled }()
	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	for {
		select {
		case <-answers:
			answers = nil
			ready = true
			deadline.Stop()
			s.update(func(st *Status) { st.State = Running })
		case <-deadline.C:
			s.log.ErrorContext(ctx, "engine does not answer; killing it", "waited", startTimeout)
			_ = cmd.Process.Kill() // it may just have ended
		case err := <-exited:
			logs.flush()
			return ready, logs.explain(err)
		case <-ctx.Done():
			s.update(func(st *Status) { st.State = Stopped })
			return ready, s.stop(cmd, stdin, exited, cfg.Grace)
		}
	}
}

// stop closes the child's input, which it takes as the request to finish, and
// kills it when it takes too long.
func (s *Supervisor) stop(cmd *exec.Cmd, stdin io.Closer, exited <-chan error, grace time.Duration) error {
	_ = stdin.Close() // a closed pipe is what is wanted
	timer := time.NewTimer(grace + 2*cutOff)
	defer timer.Stop()
	select {
	case err := <-exited:
		return err
	case <-timer.C:
		s.log.Error("engine did not stop in time; killing it")
		_ = cmd.Process.Kill() // it may just have ended
		return <-exited
	}
}

// pollReady asks the child until it answers or ctx ends. Until the child has
// opened its own, the socket may still be that of a process before it.
func pollReady(ctx context.Context, socket string, pid int) bool {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/ping", nil)
		if err != nil {
			return false
		}
		if res, err := tr.RoundTrip(req); err == nil {
			res.Body.Close()
			if res.Header.Get(pidHeader) == strconv.Itoa(pid) {
				return true
			}
		}
	}
}

// childLog passes the child's output on, line by line, and remembers its last
// complaint.
type childLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	part []byte
	last string
}

const longestLine = 16 << 10

func (c *childLog) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.part = append(c.part, p...)
	for {
		adv, line, _ := bufio.ScanLines(c.part, len(c.part) > longestLine)
		if adv == 0 {
			return len(p), nil
		}
		c.line(string(line))
		c.part = c.part[adv:]
	}
}

func (c *childLog) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line(string(c.part))
	c.part = nil
}

// line logs one line: a slog record of the child's at its own level, anything
// else, which is the library or the runtime speaking, as a warning.
func (c *childLog) line(line string) {
	line = strings.TrimSpace(line)
	if line == "" {
		return
	}
	var rec map[string]any
	if line[0] != '{' || json.Unmarshal([]byte(line), &rec) != nil {
		c.last = line
		c.log.Warn("engine says", "line", line)
		return
	}
	level := slog.LevelInfo
	if text, ok := rec[slog.LevelKey].(string); ok {
		_ = level.UnmarshalText([]byte(text)) // an unknown level is logged as info
	}
	msg, _ := rec[slog.MessageKey].(string)
	var attrs []any
	for _, k := range slices.Sorted(maps.Keys(rec)) {
		v := rec[k]
		if k != slog.LevelKey && k != slog.MessageKey && k != slog.TimeKey {
			attrs = append(attrs, slog.Any(k, v))
		}
	}
	if level >= slog.LevelError {
		c.last = msg
		if e, ok := rec["error"].(string); ok {
			c.last = e
		}
	}
	c.log.Log(context.Background(), level, msg, attrs...)
}

// explain joins how the child ended and what it said last.
func (c *childLog) explain(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		err = errors.New("exit status 0")
	}
	if c.last == "" {
		return fmt.Errorf("engine: the process ended: %w", err)
	}
	return fmt.Errorf("engine: the process ended: %w: %s", err, c.last)
}
