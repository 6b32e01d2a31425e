package etcdlock_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// lingering locks and unlocks m until that costs nothing any more.
func lingering(t *testing.T, m *etcdlock.Mutex, tp *tap) {
	t.Helper()
	eventually(t, func() bool {
		tp.requests()
		require.NoError(t, m.Lock(soon(t)))
		require.NoError(t, m.Unlock(soon(t)))
		return len(tp.requests()) == 0
	}, "the lock lingers")
}

func TestALingeringLockCostsNothingAndGivesWay(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	m := etcdlock.NewMutex(newSession(t, client, etcdlock.WithLinger(time.Hour), etcdlock.WithTTL(time.Minute)), "linger")
	other := etcdlock.NewMutex(newSession(t, clus.Client(0)), "linger")
	for range 3 {
		lingering(t, m, tp)
		tp.requests()
		var token int64
		for range 100 {
			require.NoError(t, m.Lock(soon(t)))
			require.NoError(t, m.Context().Err())
			if token != 0 {
				require.Equal(t, token, m.Token(), "one tenure, one token")
			}
			token = m.Token()
			require.NoError(t, m.Unlock(soon(t)))
			require.Error(t, m.Context().Err())
		}
		assert.Empty(t, tp.requests())
		require.ErrorIs(t, other.TryLock(soon(t)), etcdlock.ErrLocked)

		// Somebody comes while it idles.
		require.NoError(t, other.Lock(soon(t)))
		require.Greater(t, other.Token(), token)
		require.NoError(t, other.Unlock(soon(t)))

		// Somebody comes while it holds.
		lingering(t, m, tp)
		require.NoError(t, m.Lock(soon(t)))
		got := make(chan error, 1)
		go func() { got <- other.Lock(soon(t)) }()
		waiters(t, m, 1)
		select {
		case <-got:
			t.Fatal("two hold")
		default:
		}
		require.NoError(t, m.Unlock(soon(t)))
		require.NoError(t, <-got)
		require.NoError(t, other.Unlock(soon(t)))
	}
}

func TestALingeringLockEnds(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	s := newSession(t, client, etcdlock.WithLinger(50*time.Millisecond))
	m := etcdlock.NewMutex(s, "ends")
	lingering(t, m, tp)
	eventually(t, func() bool { return len(keysUnder(t, client, "ends/")) == 0 }, "released after the linger time")
	lingering(t, m, tp)
	require.NoError(t, s.Close())
	require.Empty(t, keysUnder(t, client, "ends/"))
}

func TestALingeringLockThatWasRemovedIsNotTakenUp(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	s := newSession(t, client, etcdlock.WithLinger(time.Hour), etcdlock.WithTTL(time.Minute))
	m := etcdlock.NewMutex(s, "removed")
	lingering(t, m, tp)
	resp, err := client.Delete(soon(t), "removed/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	require.NoError(t, err)
	require.Len(t, resp.PrevKvs, 1)
	eventually(t, func() bool {
		require.NoError(t, m.Lock(soon(t)))
		defer func() { _ = m.Unlock(soon(t)) }()
		return m.Verify(soon(t)) == nil && m.Token() > resp.PrevKvs[0].CreateRevision
	}, "a new ticket")
	lingering(t, m, tp)
}

func TestAHundredGoroutinesExcludeEachOtherWhileLingering(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client, etcdlock.WithLinger(time.Second))
	remote := newSession(t, client, etcdlock.WithLinger(time.Second))
	ms := []*etcdlock.Mutex{etcdlock.NewMutex(s, "hundred"), etcdlock.NewMutex(s, "hundred"), etcdlock.NewMutex(remote, "hundred")}
	var inside int
	excludeWith(t, func(g int) {
		m := ms[g%3]
		require.NoError(t, m.Lock(soon(t)))
		inside++
		assert.Equal(t, 1, inside)
		inside--
		assert.NoError(t, m.Unlock(soon(t)))
	}, 30, 20)
}

// An operator deletes the whole prefix: the waiter's own ticket goes with that of the holder in front of it.
func TestAPhantomDoesNotLinger(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	m := etcdlock.NewMutex(newSession(t, client, etcdlock.WithLinger(time.Hour), etcdlock.WithTTL(time.Minute)), "phantom")
	holder := etcdlock.NewMutex(newSession(t, clus.Client(0), etcdlock.WithTTL(time.Minute)), "phantom")
	other := etcdlock.NewMutex(newSession(t, clus.Client(0)), "phantom")
	for range 40 {
		lingering(t, m, tp)
		require.NoError(t, holder.Lock(soon(t)))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if m.Lock(soon(t)) == nil {
				_ = m.Unlock(soon(t))
			}
		}()
		waiters(t, holder, 1)
		_, err := clus.Client(0).Delete(soon(t), "phantom/", clientv3.WithPrefix())
		require.NoError(t, err)
		<-done
		require.ErrorIs(t, holder.Unlock(soon(t)), etcdlock.ErrLost)
		require.NoError(t, m.Lock(soon(t)))
		require.ErrorIs(t, other.TryLock(soon(t)), etcdlock.ErrLocked, "the ticket is there")
		require.NoError(t, m.Unlock(soon(t)))
	}
}
