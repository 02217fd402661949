//go:build !linux

package engine

import (
	"os/exec"
	"syscall"
)

// childProcAttr keeps an interrupt typed at the terminal from reaching the
// child before the console has shut down what uses it. The end of its input
// tells the child of its parent's death.
func childProcAttr(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
