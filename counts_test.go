package etcdlock_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/tests/v3/framework/integration"

	"github.com/etcdlock/etcdlock"
)

// What a lock costs etcd is counted, not timed: these numbers are the same on any machine.

func TestUncontendedLockAndUnlockAreTwoRequestsAndTwoCommits(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	s := newSession(t, client, etcdlock.WithTTL(time.Minute))
	m, e := etcdlock.NewMutex(s, "two"), etcdlock.NewElection(s, "too")
	for what, cycle := range map[string]func(){
		"Lock and Unlock": func() {
			require.NoError(t, m.Lock(soon(t)))
			require.NoError(t, m.Unlock(soon(t)))
		},
		"TryLock and Unlock": func() {
			require.NoError(t, m.TryLock(soon(t)))
			require.NoError(t, m.Unlock(soon(t)))
		},
		"Campaign and Resign": func() {
			require.NoError(t, e.Campaign(soon(t), "x"))
			require.NoError(t, e.Resign(soon(t)))
		},
	} {
		rev := revision(t, client)
		tp.requests()
		for range 10 {
			cycle()
		}
		assert.Equal(t, map[string]int{"Txn": 20}, tp.requests(), what)
		assert.Equal(t, rev+20, revision(t, client), what)
	}
}

// A deleted key stays in etcd's index until the store is compacted, and whoever queues reads over it.
func TestALockUsesFewNamesHoweverOftenItIsTaken(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client, etcdlock.WithTTL(time.Minute))
	exclude(t, func(int) *etcdlock.Mutex { return etcdlock.NewMutex(s, "names") }, 8, 50)
	m := etcdlock.NewMutex(s, "names")
	for range 50 {
		require.NoError(t, m.Lock(soon(t)))
		require.NoError(t, m.Unlock(soon(t)))
		require.NoError(t, m.TryLock(soon(t)))
		require.NoError(t, m.Unlock(soon(t)))
	}
	names := map[string]bool{}
	puts := 0
	history := client.Watch(soon(t), "names/", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithFilterDelete())
	for puts < 8*50+100 {
		for _, ev := range (<-history).Events {
			names[string(ev.Kv.Key)] = true
			puts++
		}
	}
	assert.LessOrEqual(t, len(names), 16, "two for each that queues at once: the next may queue while a deletion is under way")
}

func TestABusyTryLockIsOneRequestAndFromTheSecondOnAReadAlone(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	holder := etcdlock.NewMutex(newSession(t, clus.Client(0), etcdlock.WithTTL(time.Minute)), "busy")
	require.NoError(t, holder.Lock(soon(t)))
	m := etcdlock.NewMutex(newSession(t, client, etcdlock.WithTTL(time.Minute)), "busy")
	for _, want := range []struct {
		times   int
		sent    map[string]int
		entries uint64
	}{
		{1, map[string]int{"Txn": 1}, 1},
		{10, map[string]int{"Range": 10}, 0},
	} {
		rev, entries := revision(t, clus.Client(0)), raftIndex(t, clus)
		tp.requests()
		for range want.times {
			require.ErrorIs(t, m.TryLock(soon(t)), etcdlock.ErrLocked)
		}
		assert.Equal(t, want.sent, tp.requests())
		assert.Equal(t, rev, revision(t, clus.Client(0)))
		assert.Equal(t, entries+want.entries, raftIndex(t, clus))
	}
}

func TestATryLockAfterTheHolderIsGoneIsTwoRequestsOnce(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	holder := etcdlock.NewMutex(newSession(t, clus.Client(0)), "free")
	s := newSession(t, client, etcdlock.WithTTL(time.Minute))
	m, own := etcdlock.NewMutex(s, "free"), etcdlock.NewMutex(s, "free")
	sent := func(want map[string]int, result error) {
		t.Helper()
		tp.requests()
		require.ErrorIs(t, m.TryLock(soon(t)), result)
		assert.Equal(t, want, tp.requests())
	}
	require.NoError(t, holder.Lock(soon(t)))
	sent(map[string]int{"Txn": 1}, etcdlock.ErrLocked)
	require.NoError(t, holder.Unlock(soon(t)))
	require.NoError(t, holder.Lock(soon(t)))
	sent(map[string]int{"Range": 1, "Txn": 1}, etcdlock.ErrLocked)
	require.NoError(t, holder.Unlock(soon(t)))
	sent(map[string]int{"Range": 1, "Txn": 1}, nil)
	require.NoError(t, m.Unlock(soon(t)))
	sent(map[string]int{"Txn": 1}, nil)
	require.NoError(t, m.Unlock(soon(t)))
	require.NoError(t, own.Lock(soon(t)))
	sent(map[string]int{}, etcdlock.ErrLocked) // it is known from memory
	require.NoError(t, own.Unlock(soon(t)))
	sent(map[string]int{"Txn": 1}, nil)
	require.NoError(t, m.Unlock(soon(t)))
}

// raftIndex is what the member's log has come to.
func raftIndex(t *testing.T, clus *integration.Cluster) uint64 {
	t.Helper()
	client := clus.Client(0)
	resp, err := client.Status(soon(t), client.Endpoints()[0])
	require.NoError(t, err)
	return resp.RaftIndex
}

func TestNoReadStandsBetweenAReleaseAndTheNextHold(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	s, other := newSession(t, client, etcdlock.WithTTL(time.Minute)), newSession(t, clus.Client(0))
	names := make([]string, 8)
	for i := range names {
		names[i] = fmt.Sprint("handoff/", i)
	}
	m, held := etcdlock.NewMutex(s, names[3]), etcdlock.NewMutex(other, names[3])
	mutex := func(ctx context.Context) (func(context.Context) error, error) { return m.Unlock, m.Lock(ctx) }
	holder := func(ctx context.Context) (func(context.Context) error, error) { return held.Unlock, held.Lock(ctx) }
	all := func(s *etcdlock.Session) func(ctx context.Context) (func(context.Context) error, error) {
		return func(ctx context.Context) (func(context.Context) error, error) {
			h, err := etcdlock.LockAll(ctx, s, names...)
			return func(ctx context.Context) error { return h.Release(ctx) }, err
		}
	}
	for what, c := range map[string][2]func(context.Context) (func(context.Context) error, error){
		"of a Mutex":                        {holder, mutex},
		"of one name of a LockAll":          {holder, all(s)},
		"of all names of a LockAll":         {all(other), all(s)},
		"of a LockAll, to one of its names": {all(other), mutex},
	} {
		for range 10 {
			release, err := c[0](soon(t))
			require.NoError(t, err, what)
			got := make(chan error, 1)
			var unlock func(context.Context) error
			go func() {
				var err error
				unlock, err = c[1](soon(t))
				got <- err
			}()
			waiters(t, held, 1)
			// Every read of the waiter from here on gets stuck until it holds.
			settled(t, tp)
			stuck := make(chan struct{})
			tp.onUnary(func(_ string, send func() error) error { <-stuck; return send() })
			free := sync.OnceFunc(func() { tp.onUnary(nil); close(stuck) })
			t.Cleanup(free)
			require.NoError(t, release(soon(t)), what)
			select {
			case err := <-got:
				require.NoError(t, err, what)
			case <-time.After(20 * time.Second):
				require.Fail(t, "a request stands between", what)
			}
			free()
			require.NoError(t, unlock(soon(t)), what)
		}
	}
}

// settled waits until the tapped client has sent nothing for a while: whoever waits has found out what it needs.
func settled(t *testing.T, tp *tap) {
	t.Helper()
	quiet := 0
	eventually(t, func() bool {
		if len(tp.requests()) > 0 {
			quiet = 0
		}
		quiet++
		return quiet > 30
	}, "quiet")
}

func TestHeldLocksCostNoGoroutinesAndOneLease(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client, etcdlock.WithTTL(time.Minute))
	const n = 500
	ms := make([]*etcdlock.Mutex, n)
	lock := func(i int) {
		ms[i] = etcdlock.NewMutex(s, fmt.Sprintf("many/%d", i))
		require.NoError(t, ms[i].Lock(soon(t)))
	}
	lock(0)
	before := runtime.NumGoroutine()
	for i := 1; i < n; i++ {
		lock(i)
	}
	assert.Less(t, runtime.NumGoroutine()-before, 20)
	resp, err := client.Leases(soon(t))
	require.NoError(t, err)
	assert.Len(t, resp.Leases, 1)
	require.NoError(t, s.Close())
	assert.Empty(t, keysUnder(t, client, "many/"))
}

func TestWaitersOfOneSessionShareOneWatch(t *testing.T) {
	client := newClient(t)
	holder := etcdlock.NewMutex(newSession(t, client), "crowd")
	require.NoError(t, holder.Lock(soon(t)))
	s := newSession(t, client, etcdlock.WithTTL(time.Minute))
	const n = 200
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { assert.ErrorIs(t, etcdlock.NewMutex(s, "crowd").Lock(ctx), context.Canceled) })
	}
	waiters(t, holder, n)
	eventually(t, func() bool { return runtime.NumGoroutine()-before-n < 20 }, "no goroutine beyond the callers' own")
	cancel()
	wg.Wait()
	waiters(t, holder, 0)
}

func TestOneWaitAfterAnotherUsesOneStream(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	holder := etcdlock.NewMutex(newSession(t, clus.Client(0)), "stream")
	m := etcdlock.NewMutex(newSession(t, client, etcdlock.WithTTL(time.Minute)), "stream")
	tp.requests()
	for range 10 {
		require.NoError(t, holder.Lock(soon(t)))
		takeOver(t, m, holder)
		require.NoError(t, m.Unlock(soon(t)))
	}
	assert.Equal(t, 1, tp.requests()["stream Watch"])
}

func TestGoroutinesOfOneSessionHandOffInMemory(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	// A TTL so long that nothing is held for a twentieth of it, when the Session would watch one of its own tickets.
	s := newSession(t, client, etcdlock.WithTTL(time.Hour))
	tp.requests()
	exclude(t, func(int) *etcdlock.Mutex { return etcdlock.NewMutex(s, "memory") }, 32, 10)
	sent := tp.requests()
	assert.Zero(t, sent["stream Watch"], "nobody watches a ticket of its own Session")
	assert.Less(t, sent["Txn"], 2*320, "deletions are sent together")
	assert.GreaterOrEqual(t, sent["Txn"], 320, "each hold has a ticket and a token of its own")
}

func TestAFreeLockAllIsOneRequestAndOneCommitForAnyNumberOfNames(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	s := newSession(t, client, etcdlock.WithTTL(time.Minute))
	for _, n := range []int{1, 8, 63} {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprint("all/", i)
		}
		for what, take := range map[string]func(context.Context, *etcdlock.Session, ...string) (*etcdlock.Hold, error){
			"LockAll": etcdlock.LockAll, "TryLockAll": etcdlock.TryLockAll,
		} {
			one := func(f func() error) {
				t.Helper()
				rev, entries := revision(t, clus.Client(0)), raftIndex(t, clus)
				tp.requests()
				require.NoError(t, f())
				assert.Equal(t, map[string]int{"Txn": 1}, tp.requests(), "%s %d", what, n)
				assert.Equal(t, rev+1, revision(t, clus.Client(0)), "%s %d", what, n)
				assert.Equal(t, entries+1, raftIndex(t, clus), "%s %d", what, n)
			}
			var h *etcdlock.Hold
			one(func() (err error) { h, err = take(soon(t), s, names...); return err })
			read := "Txn"
			if n == 1 {
				read = "Range"
			}
			tp.requests()
			require.NoError(t, h.Verify(soon(t)))
			assert.Equal(t, map[string]int{read: 1}, tp.requests(), "%s %d", what, n)
			resp, err := client.Txn(soon(t)).If(h.IsOwner()...).Then(clientv3.OpPut("guarded", "")).Commit()
			require.NoError(t, err)
			assert.True(t, resp.Succeeded)
			one(func() error { return h.Release(soon(t)) })
		}
	}
}
