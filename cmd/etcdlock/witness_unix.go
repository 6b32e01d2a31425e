//go:build unix

package main

import (
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// A command that shares etcdlock's group of processes, as in the foreground of a terminal, gets by itself what is sent to
// the group: the keys of the terminal, or `kill %1` of a shell. What is sent to etcdlock alone has to be passed on. Go does
// not tell who has sent a signal, so a second process in the group, the witness, tells whether it has got it as well.
//
// The tempting ways are worse. A guess by time delivers ^C twice on a busy machine, and many programs take the second for an
// order to drop everything. Never to pass on ^C's signal makes `kill -INT` do nothing. And a group of the command's own that
// the terminal is handed to leaves the rest of a pipeline without the terminal.

// witnessed is etcdlock's own only argument as a witness.
const witnessed = "__witness"

// asks is the signal that a witness is asked by. It has a greater number than all that are passed on, and is told after those.
const asks = syscall.SIGIO

const (
	settles = 10 * time.Millisecond // in which a signal to the group has come to all of it
	replies = 5 * time.Second       // in which a witness replies, or is asked no more
)

// isWitness is the whole of a process that is a witness; in others it returns false.
func isWitness() bool {
	if len(os.Args) != 2 || os.Args[1] != witnessed {
		return false
	}
	beWitness(os.Stdin, os.Stdout)
	return true
}

// beWitness names each signal that it gets to out, by its number, until in ends.
func beWitness(in io.Reader, out io.Writer) {
	got := make(chan os.Signal, 64)
	signal.Notify(got, append(passedOn, asks)...)
	got <- asks // from now on no signal ends it
	go func() {
		for s := range got {
			_, _ = out.Write([]byte{byte(s.(syscall.Signal))})
		}
	}()
	_, _ = io.Copy(io.Discard, in)
}

// witness is that process, seen from etcdlock.
type witness struct {
	cmd  *exec.Cmd
	in   io.Closer
	said chan syscall.Signal
	came map[syscall.Signal]bool // of what it has said, what has not been asked for
	deaf bool                    // asked in vain
}

// newWitness starts one, and waits until it is there. It returns nil if there can be none.
func newWitness() *witness {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	w := &witness{
		cmd:  &exec.Cmd{Path: self, Args: []string{os.Args[0], witnessed}, Dir: "/"},
		said: make(chan syscall.Signal, 64), came: map[syscall.Signal]bool{},
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil
	}
	if w.in, err = w.cmd.StdinPipe(); err != nil || w.cmd.Start() != nil {
		return nil
	}
	go func() {
		defer close(w.said)
		for b := make([]byte, 1); ; {
			if n, err := out.Read(b); n == 0 || err != nil {
				return
			}
			w.said <- syscall.Signal(b[0])
		}
	}()
	if !w.hasReplied() {
		w.end()
		return nil
	}
	return w
}

// got reports whether the witness has got s, too. ok is false if it does not say.
func (w *witness) got(s syscall.Signal) (got, ok bool) {
	if w == nil || w.deaf {
		return false, false
	}
	time.Sleep(settles)
	_ = w.cmd.Process.Signal(asks)
	if !w.hasReplied() {
		w.deaf = true // its reply could be taken for one to a later question
		return false, false
	}
	got = w.came[s]
	delete(w.came, s)
	return got, true
}

// hasReplied waits for a reply, and notes what was said before it.
func (w *witness) hasReplied() bool {
	limit := time.After(replies)
	for {
		select {
		case s, ok := <-w.said:
			if !ok || s == asks {
				return ok
			}
			w.came[s] = true
		case <-limit:
			return false
		}
	}
}

// end ends the witness.
func (w *witness) end() {
	if w == nil {
		return
	}
	_ = w.in.Close()
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
}
