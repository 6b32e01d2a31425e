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

// In the foreground of a terminal the command can read from it. What is sent to the whole group, by a key or by a shell,
// reaches it once, and so does what is sent to etcdlock alone.
func TestAtATerminalTheCommandReadsAndGetsEachSignalOnce(t *testing.T) {
	t.Parallel()
	p := prepared(t, sharedEtcd(t), "run", name(t), "-c", "read x; echo read $x; exec "+self(t)+" beat INT QUIT TERM USR1")
	tty := terminal(t, p)
	_, err := tty.WriteString("this\n")
	require.NoError(t, err)
	p.says("read this")
	p.getsEachSignalOnce(tty)
}

// So it is with --foreground where the command reads from elsewhere.
func TestInTheForegroundEachSignalReachesTheCommandOnceThoughItsStdinIsNoTerminal(t *testing.T) {
	t.Parallel()
	p := prepared(t, sharedEtcd(t), append([]string{"run", name(t), "--foreground"}, beats(t, "INT", "QUIT", "TERM", "USR1")...)...)
	shell := exec.Command("/bin/sh", append([]string{"-c", `exec "$0" "$@" </dev/null`}, p.cmd.Args...)...)
	p.cmd.Path, p.cmd.Args = shell.Path, shell.Args
	p.getsEachSignalOnce(terminal(t, p))
}

// getsEachSignalOnce sends the command what reaches a process in the foreground of a terminal.
func (p *proc) getsEachSignalOnce(tty *os.File) {
	p.t.Helper()
	p.says("beat")
	got := map[string]int{}
	gets := func(s string) {
		p.t.Helper()
		got[s]++
		eventually(p.t, func() bool { return strings.Count(p.out.String(), "got "+s) == got[s] }, "%s: not %d", s, got[s])
	}
	for key, s := range map[string]string{"\x03": "SIGINT", "\x1c": "SIGQUIT"} {
		for range 3 {
			_, err := tty.WriteString(key)
			require.NoError(p.t, err)
			gets(s)
			p.signal(unix.SignalNum(s)) // to etcdlock alone
			gets(s)
			p.signal(unix.SignalNum(s)) // and again, with no key in between
			gets(s)
		}
	}
	require.NoError(p.t, syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)) // as kill %1 of a shell
	gets("SIGTERM")
	p.signal(syscall.SIGTERM)
	gets("SIGTERM")
	p.signal(syscall.SIGUSR1) // passed on after what would have been passed on of those before
	gets("SIGUSR1")
	for s, n := range got {
		assert.Equal(p.t, n, strings.Count(p.out.String(), "got "+s), s)
	}
	require.NoError(p.t, syscall.Kill(pidOf(p.t, p), syscall.SIGKILL))
	assert.Equal(p.t, 137, p.code())
}

// A command that has left the group gets nothing by itself.
func TestWhatLeftTheForegroundGetsTheKeysToo(t *testing.T) {
	t.Parallel()
	p := prepared(t, sharedEtcd(t), append([]string{"run", name(t), "--foreground", "--", "setsid", self(t), "beat"}, "INT")...)
	tty := terminal(t, p)
	p.says("beat")
	_, err := tty.WriteString("\x03") // ^C
	require.NoError(t, err)
	p.says("got SIGINT")
	require.NoError(t, syscall.Kill(pidOf(t, p), syscall.SIGKILL))
	assert.Equal(t, 137, p.code())
}
