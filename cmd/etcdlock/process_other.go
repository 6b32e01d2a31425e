//go:build !unix

package main

import (
	"os"
	"syscall"
)

// Where there are neither signals nor groups of processes, a command cannot be ended in time together with its children.
// So there is no run, and no elect with a command; everything else is there.

var passedOn = []os.Signal{os.Interrupt, syscall.SIGTERM}

func endsWait(syscall.Signal) bool { return true }

type process struct{ ended chan struct{} }

func newProcess(string, []string, []string, bool) *process {
	return &process{ended: make(chan struct{})}
}

func (p *process) start() error          { return errNoCommands }
func (p *process) pass(syscall.Signal)   {}
func (p *process) signal(syscall.Signal) {}
func (p *process) stop(syscall.Signal)   {}
func (p *process) kill()                 {}
func (p *process) reap() int             { return exitFailed }

var errNoCommands = failed("running a command is not supported on this system, which cannot end it in time; " +
	"etcdlock hold NAME takes the lock without one")

func cannotRun(string, error) error { return errNoCommands }

func signalOf(string) (syscall.Signal, error) { return 0, errNoCommands }

func nameOf(syscall.Signal) string { return "" }
