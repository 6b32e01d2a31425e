//go:build !unix

package cluster

import "syscall"

// Signals that the system does not have: sending them is an error.
const (
	sigStop = syscall.Signal(0x13)
	sigCont = syscall.Signal(0x12)
)
