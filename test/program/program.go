// Package program builds the real programs once per test binary and runs them
// as processes, for the tests that look at Signalbox from outside.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Names of the programs.
const (
	Console = "signalbox"
	Agent   = "signalbox-agent"
)

var (
	buildDir  string
	buildOnce = sync.OnceValues(build)
)

// Root is the repository's directory.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

func build() (string, error) {
	_ = os.Getenv("SIGNALBOX_TEST_RUN") // keeps the results out of the test cache (test/run.sh)
	dir, err := os.MkdirTemp("", "signalbox-test-bin-")
	if err != nil {
		return "", err
	}
	buildDir = dir
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version=test", "-o", dir+"/", "./cmd/...")
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
}

// Dir returns the directory of the built programs.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Main runs the tests and removes what was built.
func Main(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir) // in a temporary directory anyway
	}
	os.Exit(code)
}

// Process is a running program with all the processes it starts.
type Process struct {
	cmd    *exec.Cmd
	done   chan struct{}
	output *tail
	err    error // valid after done
}

// Start runs a built program in a process group of its own, which is killed
// at the end of the test whatever happens.
func Start(t testing.TB, name string, env []string, args ...string) *Process {
	t.Helper()
	cmd := exec.Command(filepath.Join(Dir(t), name), args...)
	cmd.Env = append(os.Environ(), env...)
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A process that keeps the pipe open must not keep Wait from returning.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{}), output: out}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("last output of %s:\n%s", name, out)
		}
	})
	return p
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is the end of what the program has written so far.
func (p *Process) Output() string { return p.output.String() }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends the process and everything in its group with SIGKILL, and waits.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // gone already is what we want
	<-p.done
}

// KillAlone ends only the process itself with SIGKILL, as the kernel would
// when memory is short, and waits. Its children have to notice by themselves.
func (p *Process) KillAlone() {
	_ = syscall.Kill(p.PID(), syscall.SIGKILL)
	<-p.done
}

// Stop asks the process to end and returns its exit code.
func (p *Process) Stop(ctx context.Context) (int, error) {
	if err := syscall.Kill(p.PID(), syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("terminate: %w", err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return 0, fmt.Errorf("still running: %w", ctx.Err())
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		return 0, p.err
	}
	return p.cmd.ProcessState.ExitCode(), nil
}

// Left says whether any process of the group is still there.
func (p *Process) Left() bool { return syscall.Kill(-p.PID(), 0) == nil }

// tail keeps the last part of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 64 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailSize; over > tailSize {
		t.buf = bytes.Clone(t.buf[over:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
