//go:build unix

package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// What happens to the command when its lock is lost. All run at the same time: most of each is waiting for a lease to end.

// road is a connection to etcd that can be cut: from then on it takes everything and passes on nothing.
type road struct {
	addr string
	shut atomic.Bool
}

func newRoad(t *testing.T, to string) *road {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	r := &road{addr: l.Addr().String()}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			go r.carry(near, far)
			go r.carry(far, near)
		}
	}()
	return r
}

func (r *road) carry(from, to net.Conn) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if r.shut.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// beats is a command that says when it is alive, and that ignores signals.
func beats(t *testing.T, ignored ...string) []string {
	t.Helper()
	return append([]string{"--", self(t), "beat"}, ignored...)
}

// The promise: a second process that waits for the lock looks at its clock when it has it. By then the command of the first
// one, which obeys no signal, has been dead for a while.
func TestTheCommandIsDeadBeforeTheNextOneHolds(t *testing.T) {
	t.Parallel()
	etcd := sharedEtcd(t)
	c := client(t, etcd)
	r := newRoad(t, etcd)
	first := lockAt(t, r.addr, append([]string{"run", name(t), "--ttl", "4s", "--kill-after", "1s"}, beats(t, "TERM")...)...)
	first.says("beat")
	second := lockAt(t, etcd, append([]string{"run", name(t)}, beats(t)...)...)
	waitsFor(t, c, name(t), 2)
	r.shut.Store(true)
	second.says("beat")
	_, began, _ := strings.Cut(second.out.String(), "beat ")
	began, _, _ = strings.Cut(began, "\n")
	n, err := strconv.ParseInt(began, 10, 64)
	require.NoError(t, err)
	last := first.lastBeat()
	t.Logf("dead for %v when the next one held", time.Unix(0, n).Sub(last))
	assert.Less(t, last.UnixNano(), n)
	assert.Contains(t, first.out.String(), "got SIGTERM", "it was told before")
	assert.NotContains(t, strings.SplitN(first.out.String(), "got SIGTERM", 2)[1], "got SIGTERM", "once")
	assert.Equal(t, exitLost, first.code())
	assert.Contains(t, first.err.String(), "told the command to end")
	assert.Contains(t, first.err.String(), "killed the command")
}

// Of an etcd that is frozen nobody gets a lock. Nor may the command run on.
func TestTheCommandIsDeadWhileEtcdIsStillFrozen(t *testing.T) {
	t.Parallel()
	endpoint, etcd := ownEtcd(t)
	const ttl = 4 * time.Second
	runs := map[string]*proc{
		"obeys":    lockAt(t, endpoint, append([]string{"run", name(t) + "/obeys", "--ttl", "4s"}, beats(t)...)...),
		"does not": lockAt(t, endpoint, append([]string{"run", name(t) + "/does-not", "--ttl", "4s"}, beats(t, "TERM")...)...),
		"a shell, whose child does not": lockAt(t, endpoint, "run", name(t)+"/sh", "--ttl", "4s", "-c",
			self(t)+" beat TERM; echo over"),
		"warned by another signal":  lockAt(t, endpoint, append([]string{"run", name(t) + "/int", "--ttl", "4s", "--signal", "INT"}, beats(t, "INT")...)...),
		"killed without a warning":  lockAt(t, endpoint, append([]string{"run", name(t) + "/0", "--ttl", "4s", "--kill-after", "0"}, beats(t)...)...),
		"an election":               lockAt(t, endpoint, append([]string{"elect", name(t) + "/elect", "me", "--ttl", "4s"}, beats(t, "TERM")...)...),
		"two names":                 lockAt(t, endpoint, append([]string{"run", name(t) + "/n1", name(t) + "/n2", "--ttl", "4s"}, beats(t, "TERM")...)...),
		"a permit":                  lockAt(t, endpoint, append([]string{"run", name(t) + "/permit", "-n2", "--ttl", "4s"}, beats(t, "TERM")...)...),
		"shared":                    lockAt(t, endpoint, append([]string{"run", name(t) + "/shared", "--shared", "--ttl", "4s"}, beats(t, "TERM")...)...),
		"whose stderr nobody reads": deaf(t, endpoint, append([]string{"run", name(t) + "/deaf", "-vv", "--ttl", "4s"}, beats(t, "TERM")...)...),
	}
	for _, p := range runs {
		p.says("beat")
	}
	hold := lockAt(t, endpoint, "hold", name(t)+"/hold", "--ttl", "4s")
	hold.says("token")
	require.NoError(t, etcd.Signal(syscall.SIGSTOP))
	frozen := time.Now() // no lease has been renewed since, so each ends at the latest a TTL from now
	for what, p := range runs {
		assert.Equal(t, exitLost, p.code(), what)
		alive := p.lastBeat().Sub(frozen)
		t.Logf("%s: last alive %v after the freeze", what, alive)
		assert.Less(t, alive, ttl, what)
	}
	assert.Equal(t, exitLost, hold.code())
	assert.NotContains(t, runs["killed without a warning"].err.String(), "told the command")
	assert.Contains(t, runs["warned by another signal"].out.String(), "got SIGINT")
	require.NoError(t, etcd.Signal(syscall.SIGCONT))
}

// deaf starts etcdlock with a stderr that is full, and that nobody reads.
func deaf(t *testing.T, endpoint string, args ...string) *proc {
	t.Helper()
	p := prepared(t, endpoint, args...)
	p.cmd.Stderr = full(t)
	p.start()
	return p
}

// full is a pipe that is full, and that nobody reads.
func full(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	raw, err := w.SyscallConn()
	require.NoError(t, err)
	var full error
	require.NoError(t, raw.Write(func(fd uintptr) bool {
		for full == nil {
			_, full = syscall.Write(int(fd), make([]byte, 4096))
		}
		return true
	}))
	require.ErrorIs(t, full, syscall.EAGAIN)
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// Whoever removes a ticket lets the next one in at once: there is no time for a warning.
func TestACommandWhoseTicketIsRemovedIsKilledAtOnce(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	p := lock(t, append([]string{"run", name(t), "--ttl", "60s", "--kill-after", "15s"}, beats(t, "TERM")...)...)
	p.says("beat")
	lose(t, c)
	assert.Equal(t, exitLost, p.code()) // within the patience of a test, far below the TTL
	assert.NotContains(t, p.out.String(), "got SIGTERM")
}

// looked is a hold that tells when it was asked whether it lasts.
type looked struct {
	*lease.Hold
	looks chan struct{}
}

func (l looked) Err() error {
	select {
	case l.looks <- struct{}{}:
	default:
	}
	return l.Hold.Err()
}

// Timers stand still while a machine sleeps, and etcd goes on. So the clock is asked, again and again.
func TestAfterTheMachineHasSleptTheCommandIsKilledSoon(t *testing.T) {
	const ttl = time.Hour
	now := lease.Now()
	hold := looked{lease.NewHold(lease.New(1, ttl, 0, int64(ttl/time.Second), now), context.Canceled), make(chan struct{})}
	child := newProcess("/bin/sleep", []string{"sleep", "3600"}, nil, false)
	require.NoError(t, child.start())
	ended := make(chan int)
	var kept bool
	go func() {
		var code int
		code, kept = supervise(&held{ctx: hold}, child, policy{onLost: "kill", killAfter: ttl / killPart}, slog.New(slog.DiscardHandler))
		ended <- code
	}()
	for range 2 { // what comes after the second look was begun by a timer
		select {
		case <-hold.looks:
		case <-time.After(patience):
			child.kill()
			require.Fail(t, "nobody looks")
		}
	}
	slept.Add(int64(ttl))
	select {
	case code := <-ended:
		assert.Equal(t, exitSignal+int(syscall.SIGKILL), code)
		assert.False(t, kept)
	case <-time.After(patience):
		child.kill()
		require.Fail(t, "it is not killed")
	}
}

func TestOnLostTermTellsTheCommandAndWaitsForIt(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	dir := t.TempDir()
	p := lock(t, "run", name(t), "--on-lost", "term", "-c",
		"trap 'echo told' TERM; echo runs; until [ -e "+filepath.Join(dir, "go")+" ]; do sleep 0.01; done; echo done")
	p.says("runs")
	lose(t, c)
	p.says("told")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	assert.Equal(t, exitLost, p.code())
	assert.Contains(t, p.out.String(), "done", "it was left alone")
}

// A command that ends when it is told to leaves nothing of its group behind.
func TestWhatTheCommandLeavesBehindIsKilledWithIt(t *testing.T) {
	t.Parallel()
	etcd := sharedEtcd(t)
	r := newRoad(t, etcd)
	p := lockAt(t, r.addr, "run", name(t), "--ttl", "4s", "-c", self(t)+" beat TERM & echo started; wait")
	p.says("beat")
	r.shut.Store(true)
	assert.Equal(t, exitLost, p.code()) // which waits for the last who holds its stdout
	assert.NotContains(t, p.err.String(), "killed the command", "the shell itself has obeyed")
}
