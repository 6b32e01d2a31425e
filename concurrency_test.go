package etcdlock_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/etcdlock/etcdlock"
)

// The README's table against etcd's concurrency package states facts, and here they are: each test does the same to
// both, and goes red when either of them changes. What takes faults to show is in tests/faults.

// newPeer opens a session of the concurrency package.
func newPeer(t *testing.T, client *clientv3.Client) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(client, concurrency.WithTTL(60), concurrency.WithContext(t.Context()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestComparedGoroutinesOfOneSession(t *testing.T) {
	client := newClient(t)
	peer := newPeer(t, client)
	for range 2 { // both hold
		require.NoError(t, concurrency.NewMutex(peer, "theirs").Lock(soon(t)))
	}

	s := newSession(t, client)
	require.NoError(t, etcdlock.NewMutex(s, "ours").Lock(soon(t)))
	err := etcdlock.NewMutex(s, "ours").Lock(within(t, 100*time.Millisecond))
	require.ErrorIs(t, err, etcdlock.ErrLocked)
}

func TestComparedNestedNames(t *testing.T) {
	client := newClient(t)
	require.NoError(t, concurrency.NewMutex(newPeer(t, client), "theirs/b").Lock(soon(t)))
	err := concurrency.NewMutex(newPeer(t, client), "theirs").TryLock(soon(t))
	require.ErrorIs(t, err, concurrency.ErrLocked, "locked by theirs/b")

	s := newSession(t, client)
	require.NoError(t, etcdlock.NewMutex(s, "ours/b").Lock(soon(t)))
	require.NoError(t, etcdlock.NewMutex(s, "ours").Lock(soon(t)))
	require.NoError(t, etcdlock.NewMutex(newSession(t, client), "ours/b/c").TryLock(soon(t)))
}

func TestComparedRequestsAndWrites(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	type costs struct {
		requests int
		writes   int64
		entries  uint64 // of the raft log: a Txn that may write leaves one even where it does not
	}
	cost := func(f func()) (c costs) {
		rev, index := revision(t, client), raftIndex(t, clus)
		tp.requests()
		f()
		for _, n := range tp.requests() {
			c.requests += n
		}
		c.writes, c.entries = revision(t, client)-rev, raftIndex(t, clus)-index
		return c
	}
	busy := func(try func(context.Context) error, want error) func() {
		return func() { require.ErrorIs(t, try(soon(t)), want) }
	}
	// TryLock of a lock that somebody has.
	require.NoError(t, concurrency.NewMutex(newPeer(t, clus.Client(0)), "theirs").Lock(soon(t)))
	peer := newPeer(t, client)
	try := busy(concurrency.NewMutex(peer, "theirs").TryLock, concurrency.ErrLocked)
	assert.Equal(t, costs{2, 2, 2}, cost(try), "theirs, busy TryLock")
	assert.Equal(t, costs{2, 2, 2}, cost(try), "and again")

	require.NoError(t, etcdlock.NewMutex(newSession(t, clus.Client(0)), "ours").Lock(soon(t)))
	s := newSession(t, client, etcdlock.WithTTL(time.Minute))
	try = busy(etcdlock.NewMutex(s, "ours").TryLock, etcdlock.ErrLocked)
	assert.Equal(t, costs{1, 0, 1}, cost(try), "ours, busy TryLock")
	assert.Equal(t, costs{1, 0, 0}, cost(try), "and again")

	// Campaign where nobody else does.
	c := cost(func() { require.NoError(t, concurrency.NewElection(peer, "theirs, too").Campaign(soon(t), "x")) })
	assert.Equal(t, 2, c.requests, "theirs, Campaign")
	c = cost(func() { require.NoError(t, etcdlock.NewElection(s, "ours, too").Campaign(soon(t), "x")) })
	assert.Equal(t, 1, c.requests, "ours, Campaign")
}

func TestComparedLockWhoseAnswerIsLost(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	// cut runs a Lock that arrives in etcd and whose answer does not come back.
	cut := func(lock func(context.Context) error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		tp.onUnary(func(method string, send func() error) error {
			err := send()
			if method == "Txn" && err == nil {
				cancel()
				return context.Canceled
			}
			return err
		})
		err := lock(ctx)
		tp.onUnary(nil)
		require.Error(t, err)
	}
	m := concurrency.NewMutex(newPeer(t, client), "theirs")
	cut(m.Lock)
	require.Error(t, m.Unlock(soon(t)), "Unlock does not know of a ticket")
	require.Len(t, keysUnder(t, client, "theirs/"), 1, "it stays, and everybody waits behind it")
	err := concurrency.NewMutex(newPeer(t, client), "theirs").TryLock(soon(t))
	require.ErrorIs(t, err, concurrency.ErrLocked)

	cut(etcdlock.NewMutex(newSession(t, client), "ours").Lock)
	eventually(t, func() bool { return len(keysUnder(t, client, "ours/")) == 0 }, "the ticket goes")
	require.NoError(t, etcdlock.NewMutex(newSession(t, client), "ours").TryLock(soon(t)))
}

func TestComparedLostLease(t *testing.T) {
	client := newClient(t)
	peer := newPeer(t, client)
	m := concurrency.NewMutex(peer, "theirs")
	require.NoError(t, m.Lock(soon(t)))
	_, err := client.Revoke(soon(t), peer.Lease())
	require.NoError(t, err)
	require.NoError(t, m.Unlock(soon(t)), "of a lock that was lost")
	require.Error(t, m.Lock(soon(t)), "the session is of no use any more")

	s := newSession(t, client, etcdlock.WithTTL(3*time.Second))
	n := etcdlock.NewMutex(s, "ours")
	require.NoError(t, n.Lock(soon(t)))
	_, err = client.Revoke(soon(t), s.Lease())
	require.NoError(t, err)
	eventually(t, func() bool { return n.Context().Err() != nil }, "the holder is told")
	require.ErrorIs(t, n.Unlock(soon(t)), etcdlock.ErrLost)
	require.NoError(t, n.Lock(soon(t)), "on a new lease")
}

func TestComparedTicketDeletedWhileItWaits(t *testing.T) {
	client := newClient(t)
	// race has a candidate that waits, deletes its ticket, lets the leader go, and tells who is in the queue once
	// Campaign has returned nil.
	race := func(name string, campaign func(context.Context) error) []string {
		leader := etcdlock.NewElection(newSession(t, client), name)
		require.NoError(t, leader.Campaign(soon(t), "first"))
		won := make(chan error, 1)
		go func() { won <- campaign(soon(t)) }()
		var waiting string
		eventually(t, func() bool {
			for _, key := range keysUnder(t, client, name+"/") {
				if key != leader.Key() {
					waiting = key
				}
			}
			return waiting != ""
		}, "the candidate waits")
		_, err := client.Delete(soon(t), waiting)
		require.NoError(t, err)
		require.NoError(t, leader.Resign(soon(t)))
		require.NoError(t, <-won)
		return keysUnder(t, client, name+"/")
	}
	peer := concurrency.NewElection(newPeer(t, client), "theirs")
	require.Empty(t, race("theirs", func(ctx context.Context) error { return peer.Campaign(ctx, "x") }),
		"Campaign returned nil, and nobody leads")

	ours := etcdlock.NewElection(newSession(t, client, etcdlock.WithTTL(3*time.Second)), "ours")
	race("ours", func(ctx context.Context) error {
		for { // a hold that was granted at the deletion, before the look, is ended at once: campaign again
			if err := ours.Campaign(ctx, "x"); err != nil {
				return err
			}
			if ours.Verify(ctx) == nil {
				return nil
			}
		}
	})
	require.NoError(t, ours.Verify(soon(t)))
	assert.Equal(t, []string{ours.Key()}, keysUnder(t, client, "ours/"))
}
