package concurrency_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcd "go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/tests/v3/framework/integration"
	"go.uber.org/goleak"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/etcdlock/etcdlock"
	"github.com/etcdlock/etcdlock/concurrency"
)

// What the package doc says of each call, where etcd's own tests do not look.

func newClient(t *testing.T) *clientv3.Client {
	t.Helper()
	before := goleak.IgnoreCurrent()
	integration.BeforeTest(t, integration.WithoutGoLeakDetection(), integration.WithoutSkipInShort())
	clus := integration.NewCluster(t, &integration.ClusterConfig{Size: 1})
	t.Cleanup(func() { // after those of the sessions, which are registered later
		clus.Terminate(t)
		goleak.VerifyNone(t, before)
	})
	return clus.Client(0)
}

func newSession(t *testing.T, client *clientv3.Client, opts ...concurrency.SessionOption) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(client, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func keys(t *testing.T, client *clientv3.Client, prefix string) int64 {
	t.Helper()
	resp, err := client.Get(soon(t), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	return resp.Count
}

// queued waits until n keys are there.
func queued(t *testing.T, client *clientv3.Client, prefix string, n int64) {
	t.Helper()
	ctx := soon(t)
	require.Eventually(t, func() bool { // in a goroutine of its own
		resp, err := client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		return err == nil && resp.Count == n
	}, 10*time.Second, 5*time.Millisecond)
}

func TestTheErrorsAreEtcdsOwn(t *testing.T) {
	require.Equal(t, []error{etcd.ErrLocked, etcd.ErrSessionExpired, etcd.ErrLockReleased, etcd.ErrElectionNotLeader, etcd.ErrElectionNoLeader},
		[]error{concurrency.ErrLocked, concurrency.ErrSessionExpired, concurrency.ErrLockReleased, concurrency.ErrElectionNotLeader,
			concurrency.ErrElectionNoLeader})
}

// Callers of etcd's package compare with ==.
func TestErrorsComeBare(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	held, other := concurrency.NewMutex(s, "bare"), concurrency.NewMutex(s, "bare")
	require.NoError(t, held.Lock(soon(t)))
	require.True(t, other.TryLock(soon(t)) == concurrency.ErrLocked) //nolint:errorlint // as callers do
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.True(t, other.Lock(ctx) == context.DeadlineExceeded, "two of one session exclude each other") //nolint:errorlint // as callers do
	queued(t, client, "bare/", 1)                                                                         // its ticket goes
	require.True(t, other.Unlock(soon(t)) == concurrency.ErrLockReleased)                                 //nolint:errorlint // as callers do
	_, err := concurrency.NewElection(s, "nobody").Leader(soon(t))
	require.True(t, err == concurrency.ErrElectionNoLeader)                                                          //nolint:errorlint // as callers do
	require.True(t, concurrency.NewElection(s, "nobody").Proclaim(soon(t), "x") == concurrency.ErrElectionNotLeader) //nolint:errorlint // as callers do
	require.NoError(t, concurrency.NewElection(s, "nobody").Resign(soon(t)))
	gone := newSession(t, client, concurrency.WithLease(77))
	<-gone.Done()
	require.True(t, concurrency.NewMutex(gone, "bare").Lock(soon(t)) == rpctypes.ErrLeaseNotFound) //nolint:errorlint // as callers do
	require.NoError(t, s.Close())
	require.True(t, held.Lock(soon(t)) == concurrency.ErrSessionExpired) //nolint:errorlint // as callers do
}

func TestALossIsTold(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client, concurrency.WithTTL(3))
	m, e := concurrency.NewMutex(s, "m"), concurrency.NewElection(s, "e")
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, e.Campaign(soon(t), "x"))
	require.NoError(t, e.Campaign(soon(t), "y"), "proclaims")
	_, err := client.Revoke(soon(t), s.Lease())
	require.NoError(t, err)
	<-s.Done()
	require.ErrorIs(t, m.Unlock(soon(t)), etcdlock.ErrLost)
	require.ErrorIs(t, m.Unlock(soon(t)), concurrency.ErrLockReleased)
	require.ErrorIs(t, e.Resign(soon(t)), etcdlock.ErrLost)
	require.NoError(t, s.Close())
}

// A program that restarts on the lease that it had goes on with what it held; whoever else has it is told.
func TestAfterARestartOnTheSameLease(t *testing.T) {
	client := newClient(t)
	for name, before := range map[string]func(t *testing.T) (clientv3.LeaseID, string){
		"of etcd's package": func(t *testing.T) (clientv3.LeaseID, string) {
			s, err := etcd.NewSession(client, etcd.WithTTL(60))
			require.NoError(t, err)
			m := etcd.NewMutex(s, "etcd")
			require.NoError(t, m.Lock(soon(t)))
			s.Orphan()
			return s.Lease(), "etcd"
		},
		"of this one": func(t *testing.T) (clientv3.LeaseID, string) {
			s := newSession(t, client, concurrency.WithTTL(60))
			m := concurrency.NewMutex(s, "this")
			require.NoError(t, m.Lock(soon(t)))
			s.Orphan()
			return s.Lease(), "this"
		},
	} {
		t.Run(name, func(t *testing.T) {
			lease, pfx := before(t)
			s := newSession(t, client, concurrency.WithLease(lease))
			m := concurrency.NewMutex(s, pfx)
			require.NoError(t, m.TryLock(soon(t)))
			require.EqualValues(t, 1, keys(t, client, pfx+"/"))
			require.ErrorIs(t, concurrency.NewMutex(s, pfx).TryLock(soon(t)), concurrency.ErrLocked)
			require.NoError(t, m.Unlock(soon(t)))
			require.Zero(t, keys(t, client, pfx+"/"))
		})
	}
}

// After Orphan, what is held can be given back, and more can be had, on the lease that somebody else renews.
func TestAnOrphanedSessionGoesOnWithItsLease(t *testing.T) {
	client := newClient(t)
	grant, err := client.Grant(soon(t), 60)
	require.NoError(t, err)
	s := newSession(t, client, concurrency.WithLease(grant.ID))
	m, e := concurrency.NewMutex(s, "m"), concurrency.NewElection(s, "e")
	require.NoError(t, m.Lock(soon(t)))
	s.Orphan()
	require.NoError(t, e.Campaign(soon(t), "x"))
	require.NoError(t, e.Proclaim(soon(t), "y"))
	resp, err := client.Txn(soon(t)).If(m.IsOwner()).Commit()
	require.NoError(t, err)
	require.True(t, resp.Succeeded)
	l, err := e.Leader(soon(t))
	require.NoError(t, err)
	require.Equal(t, "y", string(l.Kvs[0].Value))
	require.Equal(t, e.Rev(), l.Kvs[0].CreateRevision)
	again := concurrency.ResumeElection(s, "e", e.Key(), e.Rev())
	require.NoError(t, again.Proclaim(soon(t), "z"))
	require.NoError(t, again.Resign(soon(t)))
	require.ErrorIs(t, e.Proclaim(soon(t), "late"), concurrency.ErrElectionNotLeader)
	require.NoError(t, m.Unlock(soon(t)))
	require.Zero(t, keys(t, client, "m/")+keys(t, client, "e/"))
	require.NoError(t, s.Close())
}

// Header().Revision fences across both packages: no holder has a smaller one than an earlier holder had.
func TestHeadersFenceInAMixedFleet(t *testing.T) {
	client := newClient(t)
	ours := newSession(t, client)
	theirs, err := etcd.NewSession(client)
	require.NoError(t, err)
	defer theirs.Close()
	first, second, third := concurrency.NewMutex(ours, "mixed"), etcd.NewMutex(theirs, "mixed"), concurrency.NewMutex(ours, "mixed")
	require.NoError(t, first.Lock(soon(t)))
	got := make(chan error, 1)
	queue := func(n int64, lock func(context.Context) error) {
		go func() { got <- lock(soon(t)) }()
		queued(t, client, "mixed/", n)
	}
	queue(2, second.Lock)
	queue(3, third.Lock)
	_, err = client.Put(soon(t), "elsewhere", "")
	require.NoError(t, err)
	require.NoError(t, first.Unlock(soon(t)))
	require.NoError(t, <-got)
	require.NoError(t, second.Unlock(soon(t)))
	require.NoError(t, <-got)
	require.Less(t, first.Header().Revision, second.Header().Revision)
	require.Less(t, second.Header().Revision, third.Header().Revision)
}

func TestTheEndOfAContextOrphansTheSession(t *testing.T) {
	client := newClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := newSession(t, client, concurrency.WithContext(ctx), concurrency.WithTTL(0))
	m := concurrency.NewMutex(s, "m")
	require.NoError(t, m.Lock(soon(t)))
	cancel()
	<-s.Done()
	require.EqualValues(t, 1, keys(t, client, "m/"))
	require.NoError(t, m.Unlock(soon(t)))
	require.NoError(t, concurrency.NewMutex(newSession(t, client), "m").TryLock(soon(t)))
}
