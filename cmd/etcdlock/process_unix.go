//go:build unix

package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that are passed on to the command.
var passedOn = []os.Signal{
	syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
}

// endsWait reports whether a signal ends the wait for a lock.
func endsWait(s syscall.Signal) bool {
	switch s {
	case syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT:
		return true
	}
	return false
}

// process is the command: a group of processes of its own, so that a signal reaches the children of a shell, too. In the
// foreground of a terminal it stays in the terminal's group, or it could not read from it, and signals reach it alone.
type process struct {
	cmd   *exec.Cmd
	alone bool          // not a group of its own
	tty   bool          // in the foreground of a terminal, which sends its signals to the command by itself
	ended chan struct{} // closed when the command has ended

	mu     sync.Mutex // guards what follows; signals are sent under it, so that none goes to a later process of that number
	reaped bool
}

// newProcess returns a command that is not started.
func newProcess(path string, argv, env []string, foreground bool) *process {
	alone := foreground || inForeground(unix.Stdin)
	p := &process{alone: alone, tty: alone && keysReach(), ended: make(chan struct{})}
	p.cmd = &exec.Cmd{Path: path, Args: argv, Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !p.alone}
	dieWithParent(p.cmd.SysProcAttr)
	return p
}

// inForeground reports whether this process is in the foreground of the terminal that fd is.
func inForeground(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// keysReach reports whether the keys of the terminal reach this process's group, also if it reads from elsewhere.
func keysReach() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	return inForeground(fd)
}

// start starts the command. The goroutine that calls it stays on its thread for good: on Linux the command is killed
// when the thread that started it ends.
func (p *process) start() error {
	runtime.LockOSThread()
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go p.await()
	return nil
}

// pass passes on a signal that this process has got. Those that come from the keys of the terminal have reached a command
// in its foreground already.
func (p *process) pass(s syscall.Signal) {
	if p.tty && (s == syscall.SIGINT || s == syscall.SIGQUIT || s == syscall.SIGWINCH) {
		return
	}
	p.signal(s)
}

// signal sends a signal to the command.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.reaped:
	case p.alone:
		_ = p.cmd.Process.Signal(s)
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, s)
	}
}

// stop asks the command to end. One that is stopped is let go on, or it could not obey.
func (p *process) stop(s syscall.Signal) {
	p.signal(s)
	p.signal(syscall.SIGCONT)
}

// kill ends the command.
func (p *process) kill() { p.signal(syscall.SIGKILL) }

// reap returns the exit code of a command that has ended, as a shell tells it.
func (p *process) reap() int {
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	_ = p.wait()
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return exitSignal + int(status.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// cannotRun is how the program ends if the command cannot be started.
func cannotRun(name string, err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return &ending{exitNotFound, errors.New(name + ": command not found")}
	}
	var inner *exec.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return &ending{exitCannotRun, errors.New(name + ": cannot be run: " + err.Error())}
}

// signalOf reads the name or the number of a signal.
func signalOf(text string) (syscall.Signal, error) {
	name := strings.ToUpper(text)
	if n, err := strconv.Atoi(text); err == nil && unix.SignalName(syscall.Signal(n)) != "" {
		return syscall.Signal(n), nil
	}
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if s := unix.SignalNum(name); s != 0 {
		return s, nil
	}
	return 0, failed("--signal %q: it takes a signal's name or number, such as TERM, INT or 15", text)
}

func nameOf(s syscall.Signal) string { return unix.SignalName(s) }
