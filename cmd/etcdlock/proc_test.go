//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// text is what a process has written so far.
type text struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (o *text) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.Write(p)
}

func (o *text) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// proc is a process under test.
type proc struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, err text
	ended    chan struct{}
}

// lock starts etcdlock with the shared etcd.
func lock(t *testing.T, args ...string) *proc {
	t.Helper()
	return lockAt(t, sharedEtcd(t), args...)
}

// lockAt starts etcdlock; endpoint may be "".
func lockAt(t *testing.T, endpoint string, args ...string) *proc {
	t.Helper()
	p := prepared(t, endpoint, args...)
	p.start()
	return p
}

func prepared(t *testing.T, endpoint string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, cmd: exec.Command(self(t), args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), roleEnv+"=etcdlock")
	if endpoint != "" {
		p.cmd.Env = append(p.cmd.Env, "ETCDCTL_ENDPOINTS="+endpoint)
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	return p
}

func (p *proc) start() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Start())
	p.t.Cleanup(func() {
		select {
		case <-p.ended:
		default:
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	})
	p.cmd.WaitDelay = patience
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
}

// code waits for the end, and returns the exit code.
func (p *proc) code() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		require.FailNowf(p.t, "it does not end", "%s\n%s", p.out.String(), p.err.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// says waits until the process has written something to stdout.
func (p *proc) says(what string) {
	p.t.Helper()
	eventually(p.t, func() bool { return strings.Contains(p.out.String(), what) }, "stdout has no %q: %s", what, lazily{&p.err})
}

type lazily struct{ fmt.Stringer }

func (p *proc) signal(s os.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(s))
}

// lastBeat is when the command said last that it was alive.
func (p *proc) lastBeat() time.Time {
	p.t.Helper()
	lines := strings.Split(p.out.String(), "\n")
	for i := len(lines) - 2; i >= 0; i-- { // the last may be half a line
		if at, ok := strings.CutPrefix(lines[i], "beat "); ok {
			n, err := strconv.ParseInt(at, 10, 64)
			require.NoError(p.t, err)
			return time.Unix(0, n)
		}
	}
	require.Fail(p.t, "the command never said anything")
	return time.Time{}
}
