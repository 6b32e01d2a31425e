//go:build unix

package main

import "syscall"

func canFreeze() error { return nil }

func freeze(p *process) error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

func thaw(p *process) error { return p.cmd.Process.Signal(syscall.SIGCONT) }
