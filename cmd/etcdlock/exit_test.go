//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The rows of the exit table, in docs/command.md.

func TestTheExitCodeIsTheCommandsOwn(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int{
		"exit 0": 0, "exit 7": 7, "exit 255": 255, "kill -KILL $$": 137, "kill -TERM $$": 143,
	} {
		p := lock(t, "run", name(t), "-c", line)
		assert.Equal(t, want, p.code(), line)
		assert.Empty(t, p.err.String(), line)
	}
}

func TestABusyLockIs124(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	holder := lock(t, "hold", name(t), "--identity", "somebody")
	holder.says("token")
	ran := filepath.Join(t.TempDir(), "ran")
	for _, flags := range [][]string{{"--wait", "0"}, {"--wait", "50ms"}} {
		p := lock(t, append([]string{"run", name(t), "-c", "touch " + ran}, flags...)...)
		assert.Equal(t, exitConflict, p.code(), flags)
		assert.Contains(t, p.err.String(), `locked by "somebody"`)
		assert.Equal(t, 1, strings.Count(p.err.String(), "\n"), p.err.String())
	}
	p := lock(t, "run", name(t), "-w0s", "-q", "--conflict-exit-code", "0", "-c", "touch "+ran)
	assert.Equal(t, 0, p.code())
	assert.Empty(t, p.err.String(), "quiet: the code tells")
	p = lock(t, "hold", name(t), "--wait", "0")
	assert.Equal(t, exitConflict, p.code())
	assert.NoFileExists(t, ran)
	assert.Len(t, keys(t, c, name(t)+"/"), 1, "who gave up has left no ticket")
}

func TestALockThatIsHeldAtLeastOutlivesItsCommand(t *testing.T) {
	t.Parallel()
	const atLeast = 4 * time.Second
	begin := time.Now()
	first := lock(t, "run", name(t), "--hold-at-least", atLeast.String(), "--", "true")
	assert.Equal(t, 0, first.code())
	assert.Equal(t, exitConflict, lock(t, "run", name(t), "-w", "0", "--", "true").code(), "the command has ended, the lock is taken")
	assert.Equal(t, 0, lock(t, "run", name(t), "--", "true").code())
	assert.GreaterOrEqual(t, time.Since(begin), atLeast)
	assert.Equal(t, exitCannotRun, lock(t, "run", name(t), "--hold-at-least", "1h", "--", t.TempDir()).code())
	assert.Equal(t, 0, lock(t, "run", name(t), "-w", "0", "--", "true").code(), "nothing was run")
}

// Whether the lock stays taken is known when its lease is over, at the latest. The command has ended well, and its exit code
// says that; that the lock may be free too early is an error, which -q does not keep back.
func TestALockThatCannotStayIsTold(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{{"--command-timeout", "1s"}, {"-q"}} {
		p, cut := awayAtTheEnd(t, "5s", flags...)
		cut.Store(true)
		p.signal(syscall.SIGUSR1)
		assert.Equal(t, 7, p.code(), flags)
		assert.Contains(t, p.err.String(), "may be free before the time that --hold-at-least says")
		assert.Equal(t, flags[0] != "-q", strings.Contains(p.err.String(), "asking on"), p.err.String())
	}
}

// What etcd is asked for is done when it is back, also later than --command-timeout.
func TestALockStaysAlsoIfEtcdIsBackLate(t *testing.T) {
	t.Parallel()
	p, cut := awayAtTheEnd(t, "60s", "--command-timeout", "1s")
	cut.Store(true)
	p.signal(syscall.SIGUSR1)
	eventually(t, func() bool { return strings.Contains(p.err.String(), "asking on") }, "it says nothing")
	cut.Store(false)
	assert.Equal(t, 7, p.code())
	assert.NotContains(t, p.err.String(), "may be free")
	assert.Equal(t, exitConflict, lock(t, "run", name(t), "-w", "0", "--", "true").code())
}

// awayAtTheEnd runs a command that ends with 7 at a signal, under a lock that should stay taken. Its road to etcd can be cut.
func awayAtTheEnd(t *testing.T, ttl string, flags ...string) (*proc, *atomic.Bool) {
	t.Helper()
	r := newRoad(t, sharedEtcd(t))
	p := lockAt(t, r.addr, append([]string{"run", name(t), "--hold-at-least", "1h", "--ttl", ttl, "-c",
		"trap 'exit 7' USR1; echo runs; while :; do sleep 0.01; done"}, flags...)...)
	p.says("runs")
	return p, &r.shut
}

func TestALostLockIs123WhateverTheCommandSays(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	for _, codes := range [][]string{{}, {"--lost-exit-code", "9"}} {
		marker := filepath.Join(t.TempDir(), "go")
		p := lock(t, append([]string{"run", name(t), "--on-lost", "ignore", "-c", "echo runs; until [ -e " + marker + " ]; do sleep 0.01; done"}, codes...)...)
		p.says("runs")
		lose(t, c)
		require.NoError(t, os.WriteFile(marker, nil, 0o600)) // it ends with 0
		want := exitLost
		if len(codes) > 0 {
			want = 9
		}
		assert.Equal(t, want, p.code(), p.err.String())
		assert.Contains(t, p.err.String(), "lost")
	}
}

// lose removes the tickets of this test's lock, as an operator would.
func lose(t *testing.T, c *clientv3.Client) {
	t.Helper()
	_, err := c.Delete(soon(t), name(t)+"/", clientv3.WithPrefix())
	require.NoError(t, err)
}

func TestWhatCannotBeRunIs126AndWhatIsNotThereIs127(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	plain, broken := filepath.Join(dir, "plain"), filepath.Join(dir, "broken")
	require.NoError(t, os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600))
	require.NoError(t, os.WriteFile(broken, []byte("\x7fELF no program"), 0o700)) //nolint:gosec // to be run
	for cmd, want := range map[string]int{
		plain: exitCannotRun, broken: exitCannotRun, dir: exitCannotRun,
		filepath.Join(dir, "none"): exitNotFound, "no-such-command-anywhere": exitNotFound,
	} {
		p := lock(t, "run", name(t), "--", cmd)
		assert.Equal(t, want, p.code(), cmd)
		assert.Contains(t, p.err.String(), cmd)
		assert.Equal(t, 1, strings.Count(p.err.String(), "\n"), p.err.String())
	}
	assert.Empty(t, keys(t, client(t, sharedEtcd(t)), name(t)+"/"))
}

func TestASignalWhileWaitingLeavesTheQueueAtOnceAndIs128AndItsNumber(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	holder := lock(t, "hold", name(t))
	holder.says("token")
	ran := filepath.Join(t.TempDir(), "ran")
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		p := lock(t, "run", name(t), "--", "touch", ran)
		waitsFor(t, c, name(t), 2)
		p.signal(s)
		assert.Equal(t, exitSignal+int(s), p.code())
		assert.Len(t, keys(t, c, name(t)+"/"), 1, "its ticket is gone when it has ended")
	}
	holder.signal(syscall.SIGTERM)
	assert.Equal(t, 0, holder.code())
	assert.NoFileExists(t, ran)
}

func TestASignalThatCameFirstStartsNothing(t *testing.T) {
	t.Parallel()
	g := newGate()
	g.take(syscall.SIGUSR1) // ends no wait
	require.NoError(t, g.ctx.Err())
	g.take(syscall.SIGTERM)
	require.Error(t, g.ctx.Err())
	ran := filepath.Join(t.TempDir(), "ran")
	touch := newProcess("/bin/sh", []string{"sh", "-c", "touch " + ran}, nil, false)
	var end *ending
	require.ErrorAs(t, g.start(touch), &end)
	require.Equal(t, exitSignal+int(syscall.SIGTERM), end.code)
	require.Nil(t, touch.cmd.Process)
	require.NoFileExists(t, ran)
}

// Each of these is refused with one line that says what would be right, within the time to dial.
func TestBadInputIs125AndOneLine(t *testing.T) {
	t.Parallel()
	notPEM := filepath.Join(t.TempDir(), "not.pem")
	require.NoError(t, os.WriteFile(notPEM, []byte("nothing"), 0o600))
	for args, want := range map[string]string{
		"run":                                            "/cron/lock/job9 -- CMD",
		"run job":                                        "put it behind --",
		"run job --":                                     "put it behind --",
		"run job ls":                                     "etcdlock run job -- ls",
		"run job -c ls -- ls":                            "give one of them",
		"run --shared a b -- ls":                         "those take one name",
		"run job ls -l":                                  "put -- before the command",
		"run --shard job -- ls":                          "did you mean --shared?",
		"run --xyzzy job -- ls":                          "etcdlock run --help lists them",
		"run --conflict-exit-code 300 job -- ls":         "0 to 255",
		"run --lost-exit-code=-1 job -- ls":              "0 to 255",
		"run -w 5 job -- ls":                             "such as 5s or 5m",
		"run -w=-5s job -- ls":                           "0 tries once",
		"run --ttl 100ms job -- ls":                      "the least is 1s",
		"run --hold-at-least 1m --shared job -- ls":      "one lock that nobody shares",
		"run --hold-at-least 1m job other -- ls":         "one lock that nobody shares",
		"run --hold-at-least -1s job -- ls":              "such as 1m",
		"run --kill-after 20s job -- ls":                 "from 0 to 7.5s",
		"run --on-lost shrug job -- ls":                  "kill, term or ignore",
		"run --permits 0 job -- ls":                      "at least 1",
		"run --permits 2 --shared job -- ls":             "or N do",
		"run --slot job -- ls":                           "add --permits N",
		"run --weight 3 -n 2 job -- ls":                  "from 1 to the 2",
		"run --signal WINK job -- ls":                    "such as TERM",
		"run --log-format xml job -- ls":                 "text or json",
		"run --user root job -- ls":                      "ETCDCTL_PASSWORD",
		"run --password x job -- ls":                     "--user",
		"run --user :x job -- ls":                        "has no name",
		"run --command-timeout 0 job -- ls":              "such as 5s",
		"who --dial-timeout=-1s job":                     "such as 5s",
		"run --cert a job -- ls":                         "belong together",
		"run --cacert /no/such/file job -- ls":           "/no/such/file",
		"run --cacert " + notPEM + " job -- ls":          "no certificate in PEM",
		"run --endpoints= job -- ls":                     "host:port",
		"run --endpoints=,  job -- ls":                   "host:port",
		"run --endpoints 127.0.0.1:1 job -- ls":          "connection refused",
		"run --endpoints no.such.invalid:1 job -- ls":    "lookup no.such.invalid",
		"run --discovery-srv no.such.invalid a -- ls":    "no.such.invalid",
		"run --user u:p --endpoints 127.0.0.1:1 a -- ls": "connection refused",
		"hold":                             "/cron/lock/job9",
		"hold a b":                         "it takes one",
		"elect a":                          "/db/leader",
		"elect a b --":                     "leave -- out",
		"who":                              "/cron/lock/job9",
		"who --watch a b":                  "one name",
		"ls":                               "lists all",
		"release a":                        "etcdlock who a",
		"release a --ticket b/1 --token 1": "etcdlock who a",
		"who --endpoints 127.0.0.1:1 a":    "connection refused",
		"runn":                             "did you mean run?",
		"nonsense":                         "etcdlock --help",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			p := lock(t, strings.Fields(args)...)
			assert.Equal(t, exitFailed, p.code())
			assert.Less(t, time.Since(began), 2*time.Second+patience/4) // --dial-timeout, and a busy machine
			assert.Contains(t, p.err.String(), want)
			assert.Equal(t, 1, strings.Count(p.err.String(), "\n"), p.err.String())
			assert.True(t, strings.HasPrefix(p.err.String(), "etcdlock"), p.err.String())
			assert.Empty(t, p.out.String())
		})
	}
}
