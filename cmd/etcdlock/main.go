// Etcdlock runs a command under a lock in etcd, and makes sure that the command is dead before anybody else can have the
// lock: by this machine's own clock, also while etcd is frozen or cannot be reached.
//
//	go install github.com/etcdlock/etcdlock/cmd/etcdlock@latest
//	etcdlock run /cron/lock/job9 -- backup --full
//	etcdlock help run
//
// docs/command.md has the exit codes, the environment of the command, and what happens when a lock is lost.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// The exit codes that are etcdlock's own. Those of run can be changed by flags, so that they collide with none of the
// command's.
const (
	exitConflict  = 124 // not obtained; timeout(1) has the same number for the same thing
	exitLost      = 123 // the hold ended before the command did
	exitFailed    = 125 // etcdlock itself failed: usage, etcd away, no permission
	exitCannotRun = 126
	exitNotFound  = 127
	exitSignal    = 128 // and the number of the signal
)

func main() { os.Exit(program(os.Args[1:])) }

// program is the program; it returns its exit code.
func program(args []string) int {
	a := &app{say: newSayer(os.Stderr)}
	defer a.say.flush()
	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var end *ending
	if !errors.As(err, &end) { // of cobra: a command or a number of arguments that there is not
		end = &ending{exitFailed, err}
	}
	if end.err != nil && (!a.quiet || end.code == exitFailed) {
		if a.logFormat == "json" {
			a.logger().Error(oneLine(end.err), "command", cmd.Name())
		} else {
			a.say.line(cmd.CommandPath() + ": " + oneLine(end.err))
		}
	}
	return end.code
}

// ending is how a command ends that does not end with 0. err is nil where there is nothing to say: the exit code is the
// command's own, or all has been said.
type ending struct {
	code int
	err  error
}

func (e *ending) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *ending) Unwrap() error { return e.err }

// failed is the end of a call that could not be carried out.
func failed(format string, args ...any) error {
	return &ending{exitFailed, fmt.Errorf(format, args...)}
}

// oneLine is what an error says, for a line that begins with the program's name.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "etcdlock: ", "")
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\n", "; ")), " ")
}
