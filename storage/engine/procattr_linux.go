package engine

import (
	"os/exec"
	"syscall"
)

// childProcAttr asks the kernel to end the child with its parent, and keeps an
// interrupt typed at the terminal from reaching the child before the console
// has shut down what uses it.
func childProcAttr(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
