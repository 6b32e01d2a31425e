//go:build unix

package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestHoldSaysWhatItHoldsAndHoldsUntilASignal(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	p := lock(t, "hold", name(t), "--identity", "me")
	p.says("\n")
	var got holding
	require.NoError(t, json.Unmarshal([]byte(p.out.String()), &got))
	resp, err := c.Get(soon(t), got.Key)
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	kv := resp.Kvs[0]
	assert.Equal(t, holding{
		Name: name(t), Key: got.Key, Token: kv.CreateRevision, Lease: leaseID(clientv3.LeaseID(kv.Lease)), Identity: "me",
	}, got)
	p.signal(syscall.SIGINT)
	assert.Equal(t, 0, p.code())
	assert.Empty(t, keys(t, c, name(t)+"/"))

	p = lock(t, "hold", name(t))
	p.says("\n")
	lose(t, c)
	assert.Equal(t, exitLost, p.code())
}

func TestElectLeadsWithAndWithoutACommand(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	first := lock(t, "elect", name(t), "one:1")
	first.says(`"token"`)
	second := lock(t, append([]string{"elect", name(t), "two:2"}, beats(t)...)...)
	waitsFor(t, c, name(t), 2)
	who := lock(t, "who", name(t))
	require.Equal(t, 0, who.code())
	assert.Regexp(t, `(?s)holds +one:1 .*waits +two:2 `, who.out.String())
	first.signal(syscall.SIGTERM)
	assert.Equal(t, 0, first.code())
	second.says("beat")
	lose(t, c)
	assert.Equal(t, exitLost, second.code())
}

// queues reads what --json prints.
func queues(t *testing.T, text string) (all []state) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	for dec.More() {
		var st state
		require.NoError(t, dec.Decode(&st))
		all = append(all, st)
	}
	return all
}

func TestWhoAndLsShowQueuesOfAllClients(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	n := name(t)
	a, b := lock(t, "hold", n+"/a", "--identity", "one"), lock(t, "hold", n+"/b/c", "--shared", "--identity", "two")
	a.says("token")
	b.says("token")
	grant, err := c.Grant(soon(t), 60)
	require.NoError(t, err)
	foreign := n + "/a/" + leaseID(grant.ID) // as etcd's concurrency names it
	_, err = c.Put(soon(t), foreign, "", clientv3.WithLease(grant.ID))
	require.NoError(t, err)
	_, err = c.Put(soon(t), n+"/a/config/x", "no ticket")
	require.NoError(t, err)

	p := lock(t, "who", "--json", n+"/a", n+"/b/c", n+"/free")
	require.Equal(t, 0, p.code(), p.err.String())
	got := queues(t, p.out.String())
	require.Len(t, got, 3)
	require.Len(t, got[0].Holders, 1)
	assert.Equal(t, "one", got[0].Holders[0].Identity)
	require.Len(t, got[0].Waiters, 1)
	assert.Equal(t, foreign, got[0].Waiters[0].Key)
	assert.Equal(t, "read", got[1].Holders[0].Class)
	assert.Equal(t, state{Name: n + "/free", Holders: []contender{}, Waiters: []contender{}}, got[2])

	p = lock(t, "who", n+"/a", n+"/b/c", n+"/free")
	require.Equal(t, 0, p.code())
	assert.Regexp(t, `(?s)NAME.*/a +holds +one .*/a +waits +- .*/c +holds \(read\) +two .*/free +free`, p.out.String())

	p = lock(t, "ls", "--json", n)
	require.Equal(t, 0, p.code())
	assert.Equal(t, got[:2], queues(t, p.out.String()))
	assert.Equal(t, 0, lock(t, "ls", "/nothing/is/here").code())

	p = lock(t, "__complete", "run", n+"/")
	require.Equal(t, 0, p.code())
	assert.Contains(t, p.out.String(), n+"/a\n"+n+"/b/c\n")
	assert.Contains(t, lock(t, "__complete", "run", "--on-lost", "").wait(), "kill\nterm\nignore\n")
	assert.Contains(t, lock(t, "completion", "bash").wait(), "etcdlock")
}

// wait is stdout once the process has ended with 0.
func (p *proc) wait() string {
	p.t.Helper()
	require.Equal(p.t, 0, p.code(), p.err.String())
	return p.out.String()
}

func TestWhoReadsLongQueuesInPages(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	grant, err := c.Grant(soon(t), 60)
	require.NoError(t, err)
	const many = 2*pageSize + 7
	for from := 0; from < many; from += 100 {
		var ops []clientv3.Op
		for i := from; i < min(from+100, many); i++ {
			ops = append(ops, clientv3.OpPut(name(t)+"/"+leaseID(grant.ID)+"-"+number(i), "", clientv3.WithLease(grant.ID)))
		}
		_, err := c.Txn(soon(t)).Then(ops...).Commit()
		require.NoError(t, err)
	}
	got := queues(t, lock(t, "who", "--json", name(t)).wait())
	require.Len(t, got[0].Holders, 1)
	require.Len(t, got[0].Waiters, many-1)
}

func TestWhoWatchShowsEachChange(t *testing.T) {
	t.Parallel()
	w := lock(t, "who", "--watch", "--json", name(t))
	w.says(`"holders":[]`)
	p := lock(t, "hold", name(t), "--identity", "me")
	w.says(`"identity":"me"`)
	p.signal(syscall.SIGTERM)
	eventually(t, func() bool { return strings.Count(w.out.String(), `"holders":[]`) == 2 }, "free again: %s", lazily{&w.out})
	w.signal(syscall.SIGINT)
	assert.Equal(t, exitSignal+int(syscall.SIGINT), w.code())
}

func TestReleaseRemovesExactlyOneGeneration(t *testing.T) {
	t.Parallel()
	c := client(t, sharedEtcd(t))
	p := lock(t, append([]string{"run", name(t)}, beats(t, "TERM")...)...)
	p.says("beat")
	st := queues(t, lock(t, "who", "--json", name(t)).wait())[0].Holders[0]
	wrong := lock(t, "release", name(t), "--ticket", st.Key, "--token", number(st.Token-1))
	assert.Equal(t, exitLost, wrong.code())
	assert.Contains(t, wrong.err.String(), "released, lost or removed before")
	assert.Len(t, keys(t, c, name(t)+"/"), 1)
	assert.Empty(t, lock(t, "release", name(t), "--ticket", st.Key, "--token", number(st.Token)).wait())
	assert.Equal(t, exitLost, p.code())
}

func TestHelpIsForPeople(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--help"}, {"run", "--help"}, {"hold", "--help"}, {"elect", "--help"}, {"who", "--help"}, {"ls", "--help"}, {"release", "--help"}, {}} {
		p := lock(t, args...)
		out := p.wait()
		assert.Empty(t, p.err.String())
		assert.Contains(t, out, "Usage:")
		for line := range strings.Lines(out) {
			assert.LessOrEqual(t, len([]rune(line)), 121, line)
			assert.NotContains(t, line, "%!")
		}
	}
	assert.Contains(t, lock(t, "run", "--help").wait(), "124      the lock was not obtained")
	assert.Regexp(t, `^etcdlock \S+\n$`, lock(t, "--version").wait())
}
