package main

// The real thing, end to end, and what is left of it: the test binary plays
// the program when mainEnv is set.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const mainEnv = "ETCDLOCK_FAILOVER_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestTheWholeRunShowsThreeTakeoversAndLeavesNothing(t *testing.T) {
	t.Parallel()
	run := startMain(t)
	require.NoError(t, run.end(t), "%s", run.text())
	for _, line := range []string{
		`node1 +is killed \(SIGKILL\)`,
		`node2 +took over .* after the kill; the TTL is 3s`,
		`node3 +took over .* after Resign was called`,
		`node1 +took over .* after the freeze`,
		`node3 +was answered: context canceled \(cause: etcdlock: .*lost`,
		`tokens only grew: \d+ < \d+ < \d+ < \d+`,
		`(?m)^ node1  .*#+x+\.+#+\.*$`,
		`(?m)^ node3  .*\.+#+z+\.+$`,
	} {
		assert.Regexp(t, regexp.MustCompile(line), run.text())
	}
}

func TestCtrlCLeavesNothingEvenWhileANodeIsFrozen(t *testing.T) {
	t.Parallel()
	run := startMain(t)
	run.until(t, "is frozen")
	require.NoError(t, syscall.Kill(-run.cmd.Process.Pid, syscall.SIGINT)) // as a terminal does: to all of them
	require.NoError(t, run.end(t), "%s", run.text())
	require.Contains(t, run.text(), "ended early, as asked")
}

func TestNodesDoNotOutliveAMainProcessThatWasKilled(t *testing.T) {
	t.Parallel()
	run := startMain(t)
	run.until(t, "node3  stands by")
	require.NoError(t, run.cmd.Process.Kill())
	require.NoError(t, os.RemoveAll(run.wait(t))) // SIGKILL leaves the directory: nobody is there to remove it
	run.nobodyIsLeft(t)
}

type mainRun struct {
	cmd   *exec.Cmd
	tmp   string
	lines *bufio.Scanner
	seen  bytes.Buffer
	pids  []string
}

func startMain(t *testing.T) *mainRun {
	t.Helper()
	run := &mainRun{cmd: exec.Command(os.Args[0]), tmp: t.TempDir()}
	run.cmd.Env = append(os.Environ(), mainEnv+"=1", "TMPDIR="+run.tmp)
	run.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the group
	out, in, err := os.Pipe()
	require.NoError(t, err)
	run.cmd.Stdout, run.cmd.Stderr = in, in
	require.NoError(t, run.cmd.Start())
	require.NoError(t, in.Close())
	run.lines = bufio.NewScanner(out)
	t.Cleanup(func() {
		_ = run.cmd.Process.Kill() // nothing to do where it went well
		_ = out.Close()
	})
	return run
}

var started = regexp.MustCompile(`process (\d+)$`)

// until reads on to a line with the text, or to the end where text is empty.
func (r *mainRun) until(t *testing.T, text string) {
	t.Helper()
	for r.lines.Scan() {
		line := r.lines.Text()
		fmt.Fprintln(&r.seen, line)
		if pid := started.FindStringSubmatch(line); pid != nil {
			r.pids = append(r.pids, pid[1])
		}
		if text != "" && strings.Contains(line, text) {
			return
		}
	}
	require.Empty(t, text, "not seen in:\n%s", r.text())
}

func (r *mainRun) text() string { return r.seen.String() }

// wait returns the directory of the run. The output ends only when the last
// process that could write to it is gone, the nodes' standard error included.
func (r *mainRun) wait(t *testing.T) string {
	t.Helper()
	r.until(t, "")
	if err := r.cmd.Wait(); err != nil {
		t.Log(err)
	}
	return r.tmp
}

func (r *mainRun) end(t *testing.T) error {
	t.Helper()
	r.until(t, "")
	err := r.cmd.Wait()
	r.nobodyIsLeft(t)
	left, readErr := os.ReadDir(r.tmp)
	require.NoError(t, readErr)
	require.Empty(t, left)
	return err
}

func (r *mainRun) nobodyIsLeft(t *testing.T) {
	t.Helper()
	require.NotEmpty(t, r.pids)
	for _, pid := range r.pids {
		require.Eventually(t, func() bool { return gone(pid) }, 5*time.Second, 20*time.Millisecond, "process %s is left", pid)
	}
}

// gone takes a zombie for gone: it is for whoever adopted it to collect.
func gone(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) || errors.Is(err, io.EOF) {
		return true
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}
