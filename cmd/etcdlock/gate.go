package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// gate is where signals arrive. Before a command runs, a signal ends the wait for the lock; afterwards it is passed on to
// the command. Which of the two it is, and whether the command is started at all, is decided under one mutex: a signal
// that came first starts nothing.
type gate struct {
	ctx    context.Context // over when a signal has ended the wait
	cancel context.CancelFunc
	from   chan os.Signal

	mu    sync.Mutex     // guards what follows; the command is started under it
	came  syscall.Signal // the signal that ended the wait, 0 if none did
	child *process       // the command, once it is started
}

// newGate lets signals in. Those that this process was started to ignore, as nohup does, stay ignored.
func newGate() *gate {
	g := &gate{from: make(chan os.Signal, 16)}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	for _, s := range passedOn {
		if !signal.Ignored(s) {
			signal.Notify(g.from, s)
		}
	}
	go func() {
		for s := range g.from {
			g.take(s.(syscall.Signal))
		}
	}()
	return g
}

func (g *gate) take(s syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.child != nil:
		g.child.pass(s)
	case !endsWait(s):
	case g.came != 0:
		os.Exit(exitSignal + int(s)) // asked twice: the lease runs out by itself
	default:
		g.came = s
		g.cancel()
	}
}

// unlessSignalled runs f until it returns, or until a signal has ended the wait: f may then go on to the end of the process.
func (g *gate) unlessSignalled(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-g.ctx.Done():
		return g.ctx.Err()
	}
}

// start starts the command, unless a signal came before: then it returns that end.
func (g *gate) start(p *process) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.came != 0 {
		return &ending{exitSignal + int(g.came), nil}
	}
	if err := p.start(); err != nil {
		return err
	}
	g.child = p
	return nil
}

// signalled is the end that a signal made of the wait, nil if none did.
func (g *gate) signalled() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.came == 0 {
		return nil
	}
	return &ending{exitSignal + int(g.came), nil}
}

// ended says that the command is over: from now on a signal ends what is left to do.
func (g *gate) ended() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.child = nil
}

func signalName(s syscall.Signal) string {
	if name := nameOf(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}
