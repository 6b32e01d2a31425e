//go:build unix && !linux

package main

import "syscall"

// dieWithParent: only Linux can do that. A command whose etcdlock is killed runs on.
func dieWithParent(*syscall.SysProcAttr) {}

// await waits for the end of the command, and reaps it.
func (p *process) await() {
	defer close(p.ended)
	_ = p.cmd.Wait()
}

// wait: it was waited for.
func (p *process) wait() error { <-p.ended; return nil }
