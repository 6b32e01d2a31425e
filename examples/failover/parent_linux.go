package main

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the child when its parent dies, even by
// SIGKILL, and even while the child is stopped and could not notice.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
