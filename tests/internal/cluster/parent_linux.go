package cluster

import "syscall"

// dieWithParent keeps a suite that was killed from leaving servers behind.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
