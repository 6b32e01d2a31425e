//go:build unix

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheCommandKnowsItsHold(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	p := prepared(t, sharedEtcd(t), "run", name(t), "--identity", "me", "-c", "env; read x")
	end := p.piped()
	p.says("ETCD_LOCK_REV")
	resp, err := c.Get(soon(t), p.env("ETCDLOCK_KEY"))
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	assert.Equal(t, "me", string(resp.Kvs[0].Value))
	assert.Equal(t, "me", p.env("ETCDLOCK_IDENTITY"))
	assert.Equal(t, name(t), p.env("ETCDLOCK_NAME"))
	assert.Equal(t, number(resp.Kvs[0].CreateRevision), p.env("ETCDLOCK_TOKEN"))
	assert.Equal(t, number(resp.Kvs[0].CreateRevision), p.env("ETCD_LOCK_REV"))
	assert.Equal(t, p.env("ETCDLOCK_KEY"), p.env("ETCD_LOCK_KEY"))
	assert.Contains(t, p.env("ETCDLOCK_KEY"), p.env("ETCDLOCK_LEASE"))
	end()
	assert.Equal(t, 1, p.code())
}

// Of an etcdlock within another one the command is told of the inner hold alone.
func TestACommandIsToldNothingOfAHoldOutside(t *testing.T) {
	t.Parallel()
	inner := roleEnv + "=etcdlock " + self(t) + " run " + name(t) + "/inner -c env"
	p := lock(t, "run", name(t)+"/outer", "-n", "2", "--slot", "-c", "env | sed s/^/outer:/; "+inner)
	assert.Equal(t, 0, p.code(), lazily{&p.err})
	var told []string
	for line := range strings.Lines(p.out.String()) {
		if key, _, _ := strings.Cut(line, "="); strings.HasPrefix(key, "outer:ETCD") && !strings.Contains(key, "ETCDCTL") {
			told = append(told, strings.TrimPrefix(key, "outer:"))
		}
	}
	assert.Len(t, told, 9, "all that a command is told is in the list that withoutHold knows")
	for _, key := range told {
		if strings.Contains(key, "SLOT") {
			assert.NotContains(t, p.out.String(), "\n"+key)
			continue
		}
		assert.NotEmpty(t, p.env(key))
		assert.NotEqual(t, p.env("outer:"+key), p.env(key), key)
	}
	assert.Equal(t, name(t)+"/inner", p.env("ETCDLOCK_NAME"))
	assert.Empty(t, withoutHold(told))
}

// piped starts the process with a stdin that is open until end.
func (p *proc) piped() (end func()) {
	p.t.Helper()
	in, err := p.cmd.StdinPipe()
	require.NoError(p.t, err)
	p.start()
	return func() { _ = in.Close() }
}

func number(n any) string {
	b, _ := json.Marshal(n)
	return string(b)
}

// env is a variable of those that the command has printed.
func (p *proc) env(key string) string {
	for line := range strings.Lines(p.out.String()) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			return v
		}
	}
	return ""
}

func TestStdinStdoutAndArgumentsPassThrough(t *testing.T) {
	t.Parallel()
	p := prepared(t, sharedEtcd(t), "run", name(t), "--", "sh", "-c", `cat; echo "$0|$1|$2"; echo err >&2`, "a b", "-v", "--")
	p.cmd.Stdin = strings.NewReader("in")
	p.start()
	assert.Equal(t, 0, p.code())
	assert.Equal(t, "ina b|-v|--\n", p.out.String())
	assert.Equal(t, "err\n", p.err.String(), "etcdlock itself has nothing to say")
}

func TestCommandsOfOneNameTakeTurnsAndSharedOnesDoNot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := "mkdir " + dir + "/here || exit 9; sleep 0.02; rmdir " + dir + "/here"
	var all []*proc
	for range 6 {
		all = append(all, lock(t, "run", name(t), "-c", script))
	}
	for _, p := range all {
		assert.Equal(t, 0, p.code(), "%s", lazily{&p.err})
	}
	one := prepared(t, sharedEtcd(t), "run", name(t), "--shared", "-c", "echo reads; read x; exit 3")
	end := one.piped()
	one.says("reads")
	for _, wait := range []string{"0", "10s"} {
		two := lock(t, "run", name(t), "--shared", "--wait", wait, "-c", "exit 2")
		assert.Equal(t, 2, two.code(), "%s", lazily{&two.err})
	}
	assert.Equal(t, exitConflict, lock(t, "run", name(t), "--wait", "0", "-c", "exit 0").code(), "a writer waits for readers")
	end()
	assert.Equal(t, 3, one.code())
}

func TestPermitsAreCountedAndHaveSlots(t *testing.T) {
	t.Parallel()
	take := func(flags ...string) (*proc, func()) {
		p := prepared(t, sharedEtcd(t), append([]string{"run", name(t), "--permits", "3", "-c", "env; echo runs; read x; exit 3"}, flags...)...)
		return p, p.piped()
	}
	one, endOne := take("--slot")
	one.says("runs")
	two, endTwo := take("--slot")
	two.says("runs")
	assert.ElementsMatch(t, []string{"0", "1"}, []string{one.env("ETCDLOCK_SLOT"), two.env("ETCDLOCK_SLOT")})
	assert.NotEmpty(t, one.env("ETCDLOCK_SLOT_TOKEN"))
	p, _ := take("--weight", "2", "--wait", "0")
	assert.Equal(t, exitConflict, p.code(), "one is left")
	p, end := take("--wait", "0")
	p.says("runs")
	assert.Regexp(t, `holds \(1 of 3\)`, lock(t, "who", name(t)).wait())
	p, _ = take("--wait", "0")
	assert.Equal(t, exitConflict, p.code(), "none is left")
	heavy, endHeavy := take("--weight", "3")
	for _, e := range []func(){endOne, endTwo, end} {
		e()
	}
	heavy.says("runs")
	endHeavy()
	for _, p := range []*proc{one, two, heavy} {
		assert.Equal(t, 3, p.code())
	}
	held := lock(t, "hold", name(t), "--permits", "3", "--slot")
	held.says(`"slot":0,"slot_token":`)
}

func TestSeveralNamesAreTakenTogether(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	a, b := name(t)+"/a", name(t)+"/b"
	holder := lock(t, "hold", b, "--identity", "somebody")
	holder.says("token")
	p := lock(t, "run", "--wait", "0", a, b, "-c", "echo runs")
	assert.Equal(t, exitConflict, p.code())
	assert.Contains(t, p.err.String(), b+`": locked by "somebody"`)
	both := prepared(t, sharedEtcd(t), "run", b, a, b, "-c", `echo "$ETCDLOCK_NAME"; echo "$ETCDLOCK_KEY"; echo "first=$ETCD_LOCK_KEY"; read x; exit 3`)
	end := both.piped()
	waitsFor(t, c, b, 2)
	holder.signal(syscall.SIGTERM)
	both.says("first=")
	assert.Equal(t, append([]string{a, b}, append(keys(t, c, name(t)+"/"), "first="+keys(t, c, a+"/")[0])...), strings.Fields(both.out.String()))
	assert.Equal(t, exitConflict, lock(t, "run", "--wait", "0", a, "-c", "exit 0").code())
	end()
	assert.Equal(t, 3, both.code())
	assert.Empty(t, keys(t, c, name(t)+"/"))
}

var etcdctl = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "etcdctl-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "etcdctl")
	out, err := exec.Command("go", "build", "-o", path, "go.etcd.io/etcd/etcdctl/v3").CombinedOutput()
	if err != nil {
		return "", &ending{1, errorText(string(out))}
	}
	return path, nil
})

type errorText string

func (e errorText) Error() string { return string(e) }

// A script of etcdctl lock runs unchanged, and the two exclude each other, in either order.
func TestBesideEtcdctlLockOnOneName(t *testing.T) {
	t.Parallel()
	path, err := etcdctl()
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(path)) })
	c := client(t, sharedEtcd(t))
	script := filepath.Join(t.TempDir(), "script")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\necho key=$ETCD_LOCK_KEY rev=$ETCD_LOCK_REV.\nread x\n"), 0o700)) //nolint:gosec // to be run
	foreign := func() *proc {
		p := prepared(t, sharedEtcd(t))
		p.cmd.Path, p.cmd.Args = path, []string{path, "lock", name(t), script}
		return p
	}
	theirs := foreign() // which gives the command no stdin
	theirs.start()
	theirs.code()
	assert.Regexp(t, `key=\S+ rev=\d+\.`, theirs.out.String())

	ours := prepared(t, sharedEtcd(t), "run", name(t), "--", script)
	end := ours.piped()
	ours.says("rev=")
	assert.Regexp(t, `key=\S+ rev=\d+\.`, ours.out.String())
	after := foreign()
	after.start()
	waitsFor(t, c, name(t), 2)
	assert.Empty(t, after.out.String(), "etcdctl waits")
	last := lock(t, "run", name(t), "-c", "echo mine")
	waitsFor(t, c, name(t), 3)
	end()
	assert.Equal(t, 1, ours.code(), "read has found no line")
	assert.Equal(t, 1, after.code())
	assert.Contains(t, after.out.String(), "rev=")
	assert.Equal(t, 0, last.code())
}
