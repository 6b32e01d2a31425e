package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestACommandDoesNotOutliveAnEtcdlockThatIsKilled(t *testing.T) {
	t.Parallel()
	p := lock(t, append([]string{"run", name(t)}, beats(t, "TERM")...)...)
	p.says("beat")
	require.NoError(t, p.cmd.Process.Kill())
	p.code() // which waits for the last who holds its stdout
	eventually(t, func() bool { return syscall.Kill(pidOf(t, p), 0) != nil }, "the command is gone")
}

// terminal starts etcdlock as a shell does that a terminal belongs to, and returns the terminal's other side.
func terminal(t *testing.T, p *proc) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = master.Close() })
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	p.cmd.Stdin = slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	p.start()
	require.NoError(t, slave.Close())
	return master
}

// In the foreground of a terminal the command can read from it, and the keys reach it once.
func TestAtATerminalTheCommandReadsAndGetsItsKeysOnce(t *testing.T) {
	t.Parallel()
	p := prepared(t, sharedEtcd(t), "run", name(t), "-c", "read x; echo read $x; exec "+self(t)+" beat INT TERM")
	tty := terminal(t, p)
	_, err := tty.WriteString("this\n")
	require.NoError(t, err)
	p.says("read this")
	p.says("beat")
	_, err = tty.WriteString("\x03") // ^C
	require.NoError(t, err)
	p.says("got SIGINT")
	p.signal(syscall.SIGTERM) // by kill: passed on
	p.says("got SIGTERM")
	require.NoError(t, syscall.Kill(pidOf(t, p), syscall.SIGKILL))
	assert.Equal(t, 137, p.code())
	assert.Equal(t, 1, strings.Count(p.out.String(), "got SIGINT"))
}

// So do they with --foreground where the command reads from elsewhere.
func TestInTheForegroundKeysReachTheCommandOnceThoughItsStdinIsNoTerminal(t *testing.T) {
	t.Parallel()
	p := prepared(t, sharedEtcd(t), append([]string{"run", name(t), "--foreground"}, beats(t, "INT", "TERM")...)...)
	shell := exec.Command("/bin/sh", append([]string{"-c", `exec "$0" "$@" </dev/null`}, p.cmd.Args...)...)
	p.cmd.Path, p.cmd.Args = shell.Path, shell.Args
	tty := terminal(t, p)
	p.says("beat")
	_, err := tty.WriteString("\x03") // ^C
	require.NoError(t, err)
	p.says("got SIGINT")
	p.signal(syscall.SIGTERM) // by kill: passed on, after what was passed on of the key
	p.says("got SIGTERM")
	require.NoError(t, syscall.Kill(pidOf(t, p), syscall.SIGKILL))
	assert.Equal(t, 137, p.code())
	assert.Equal(t, 1, strings.Count(p.out.String(), "got SIGINT"))
}
