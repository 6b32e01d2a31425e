//go:build unix

package main

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSignalsReachTheCommandAndItsChildren(t *testing.T) {
	t.Parallel()
	all := []string{"INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"}
	p := lock(t, "run", name(t), "-c", "trap '' INT TERM HUP QUIT USR1 USR2; "+self(t)+" beat "+strings.Join(all, " ")+" & wait; wait; wait")
	p.says("beat")
	for _, s := range all {
		n, err := signalOf(s)
		require.NoError(t, err)
		p.signal(n)
		p.says("got SIG" + s)
	}
	_ = syscall.Kill(pidOf(t, p), syscall.SIGKILL)
	p.code()
	for _, s := range all {
		assert.Equal(t, 1, strings.Count(p.out.String(), "got SIG"+s), s)
	}
}

func TestInTheForegroundSignalsReachTheCommandAlone(t *testing.T) {
	t.Parallel()
	p := lock(t, "run", name(t), "--foreground", "-c", self(t)+" beat TERM & trap 'echo told' TERM; wait; wait; kill -KILL $!; wait; exit 5")
	p.says("beat")
	p.signal(syscall.SIGTERM)
	p.says("told")
	p.signal(syscall.SIGTERM)
	assert.Equal(t, 5, p.code())
	assert.NotContains(t, p.out.String(), "got")
}

// pidOf is the process that a command named.
func pidOf(t *testing.T, p *proc) int {
	t.Helper()
	_, rest, ok := strings.Cut(p.out.String(), "pid ")
	require.True(t, ok)
	line, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(line)
	require.NoError(t, err)
	return pid
}

func TestASignalThatEndsTheCommandIsItsExitCodeAndTheLockIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	p := lock(t, append([]string{"run", name(t)}, beats(t)...)...)
	p.says("beat")
	p.signal(syscall.SIGTERM)
	assert.Equal(t, exitSignal+int(syscall.SIGTERM), p.code())
	assert.Empty(t, keys(t, c, name(t)+"/"))
	assert.Empty(t, p.err.String())
}

// The lock is released when the command is gone, and not before: it may take its time over a signal.
func TestTheLockIsReleasedAfterTheCommandHasEnded(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	p := lock(t, append([]string{"run", name(t)}, beats(t, "TERM")...)...)
	p.says("beat")
	p.signal(syscall.SIGTERM)
	p.says("got SIGTERM")
	assert.Len(t, keys(t, c, name(t)+"/"), 1)
	require.NoError(t, syscall.Kill(pidOf(t, p), syscall.SIGKILL))
	assert.Equal(t, exitSignal+int(syscall.SIGKILL), p.code())
	assert.Empty(t, keys(t, c, name(t)+"/"))
}

func TestWhatIsIgnoredFromTheStartStaysIgnored(t *testing.T) {
	t.Parallel()
	p := prepared(t, sharedEtcd(t), "run", name(t), "-c", "echo runs; read x; exit 4")
	nohup := exec.Command("/bin/sh", append([]string{"-c", `trap "" HUP; exec "$0" "$@"`}, p.cmd.Args...)...)
	p.cmd.Path, p.cmd.Args = nohup.Path, nohup.Args
	end := p.piped()
	p.says("runs")
	p.signal(syscall.SIGHUP)
	end()
	assert.Equal(t, 4, p.code())
}
