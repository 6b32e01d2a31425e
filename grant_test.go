package etcdlock_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock"
)

// What the queue concludes from its reads, and what it does not.

// The member that answers the check after a grant lags, so the check reads the present. What it finds gone there may
// have been removed after a later ticket of the same Session had queued.
func TestACheckThatReadsThePresentDropsNobodyWhoQueuedInBetween(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	holder := etcdlock.NewMutex(newSession(t, clus.Client(0)), "between")
	s := newSession(t, client, etcdlock.WithTTL(10*time.Minute)) // no renewal looks meanwhile
	first, second := etcdlock.NewMutex(s, "between"), etcdlock.NewMutex(s, "between")
	require.NoError(t, holder.Lock(soon(t)))
	got, then := make(chan error, 1), make(chan error, 1)
	go func() { got <- first.Lock(soon(t)) }()
	waiters(t, holder, 1)
	settled(t, tp)
	checking, removed := make(chan struct{}), make(chan struct{})
	var lags atomic.Bool
	tp.onUnary(func(method string, send func() error) error {
		if method == "Range" && lags.CompareAndSwap(false, true) {
			close(checking)
			<-removed
			return rpctypes.ErrGRPCFutureRev
		}
		return send()
	})
	require.NoError(t, holder.Unlock(soon(t)))
	require.NoError(t, <-got)
	<-checking
	go func() { then <- second.Lock(soon(t)) }()
	waiters(t, holder, 1)
	queued, err := holder.Waiters(soon(t))
	require.NoError(t, err)
	_, err = clus.Client(0).Delete(soon(t), first.Key())
	require.NoError(t, err)
	close(removed)
	require.NoError(t, <-then)
	require.Equal(t, queued[0].Token, second.Token(), "it kept its place")
	require.Len(t, keysUnder(t, client, "between/"), 1)
	require.ErrorIs(t, first.Unlock(soon(t)), etcdlock.ErrLost)
}
