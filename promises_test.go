package etcdlock_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/tests/v3/framework/integration"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcdlock/etcdlock"
)

func TestTheHolderKnowsBeforeTheNextOneHolds(t *testing.T) {
	clus := newCluster(t, 1)
	a := etcdlock.NewMutex(newSession(t, clus.Client(0), etcdlock.WithTTL(2*time.Second)), "first")
	b := etcdlock.NewMutex(newSession(t, clus.Members[0].ServerClient), "first")
	require.NoError(t, a.Lock(soon(t)))
	held := a.Context()
	knew := make(chan time.Time, 1)
	context.AfterFunc(held, func() { knew <- time.Now() })
	cut(t, clus)
	require.NoError(t, b.Lock(soon(t)))
	got := time.Now()
	require.Error(t, held.Err())
	require.ErrorIs(t, context.Cause(held), etcdlock.ErrLost)
	assert.True(t, (<-knew).Before(got))
	clus.Members[0].Bridge().Unblackhole()

	require.ErrorIs(t, a.Unlock(soon(t)), etcdlock.ErrLost)
	require.NoError(t, b.Unlock(soon(t)))
	require.NoError(t, a.Lock(soon(t)), "the Session heals")
	require.NoError(t, a.Unlock(soon(t)))
}

func TestALostAnswerLeavesNoTicket(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	s := newSession(t, client)
	other := etcdlock.NewMutex(newSession(t, clus.Client(0)), "ghost")
	calls := map[string]func(context.Context) error{
		"Lock":     etcdlock.NewMutex(s, "ghost").Lock,
		"TryLock":  etcdlock.NewMutex(s, "ghost").TryLock,
		"Campaign": func(ctx context.Context) error { return etcdlock.NewElection(s, "ghost").Campaign(ctx, "x") },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var first atomic.Bool
			tp.onUnary(func(method string, send func() error) error {
				err := send()
				if method == "Txn" && first.CompareAndSwap(false, true) {
					cancel() // committed, and nobody hears of it
					return status.Error(codes.Canceled, "answer lost")
				}
				return err
			})
			require.ErrorIs(t, call(ctx), context.Canceled)
			tp.onUnary(nil)
			require.NoError(t, other.Lock(soon(t)), "nobody waits behind a ghost")
			require.NoError(t, other.Unlock(soon(t)))
		})
	}
}

func TestARequestThatArrivesAfterTheCleanUpIsSwept(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	s := newSession(t, client, etcdlock.WithTTL(3*time.Second))
	ctx, cancel := context.WithCancel(t.Context())
	tp.onUnary(func(method string, send func() error) error {
		if method == "Txn" && ctx.Err() == nil {
			cancel()
			return status.Error(codes.Canceled, "under way")
		}
		return send()
	})
	require.ErrorIs(t, etcdlock.NewMutex(s, "stray").Lock(ctx), context.Canceled)
	// What the network delivers at last: the same put, under the lease that still lives.
	_, err := client.Put(soon(t), firstKey(t, s, "stray"), "late", clientv3.WithLease(s.Lease()))
	require.NoError(t, err)
	start := time.Now()
	eventually(t, func() bool { return len(keysUnder(t, client, "stray/")) == 0 }, "the stray is gone")
	assert.Less(t, time.Since(start), s.TTL()/3+promptly)
}

func TestTheClientSendingTwiceIsOneTicket(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	s := newSession(t, client)
	for name, lock := range map[string]func(*etcdlock.Mutex) error{
		"Lock":    func(m *etcdlock.Mutex) error { return m.Lock(soon(t)) },
		"TryLock": func(m *etcdlock.Mutex) error { return m.TryLock(soon(t)) },
	} {
		m := etcdlock.NewMutex(s, "twice"+name)
		tp.onUnary(func(method string, send func() error) error {
			if err := send(); err != nil || method != "Txn" {
				return err
			}
			return send()
		})
		require.NoError(t, lock(m), name)
		tp.onUnary(nil)
		require.Len(t, keysUnder(t, client, m.Name()+"/"), 1)
		require.NoError(t, m.Verify(soon(t)))
		require.NoError(t, m.Unlock(soon(t)))
		require.Empty(t, keysUnder(t, client, m.Name()+"/"))
	}
}

func TestAnUnlockThatArrivesLateReleasesNothingElse(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	m := etcdlock.NewMutex(newSession(t, client), "exact")
	require.NoError(t, m.Lock(soon(t)))
	key := m.Key()
	ctx, cancel := context.WithCancel(t.Context())
	var late func() error
	tp.onUnary(func(_ string, send func() error) error {
		if ctx.Err() == nil {
			late = send
			cancel()
			return status.Error(codes.Unavailable, "under way")
		}
		return send()
	})
	require.Error(t, m.Unlock(ctx))
	eventually(t, func() bool { return m.Unlock(soon(t)) == nil }, "the deletion is sent again")
	require.NoError(t, m.Lock(soon(t)))
	require.Equal(t, key, m.Key(), "the same name")
	require.NoError(t, late())
	require.NoError(t, m.Verify(soon(t)))
	require.NoError(t, m.Unlock(soon(t)))
}

func TestACleanUpThatArrivesLateRemovesNothingElse(t *testing.T) {
	clus := newCluster(t, 1)
	client, tp := newTappedClient(t, clus)
	m := etcdlock.NewMutex(newSession(t, client), "cleaned")
	ctx, cancel := context.WithCancel(t.Context())
	late := make(chan func() error, 1)
	tp.onUnary(func(_ string, send func() error) error {
		if ctx.Err() == nil {
			cancel() // the put is not answered: its clean-up has no revision to go by
			return status.Error(codes.Canceled, "lost")
		}
		select {
		case late <- send:
			return status.Error(codes.Unavailable, "under way")
		default:
			return send()
		}
	})
	require.ErrorIs(t, m.Lock(ctx), context.Canceled)
	eventually(t, func() bool { return len(late) == 1 }, "the clean-up is under way")
	require.NoError(t, m.TryLock(soon(t)), "which waits until it has been sent again")
	require.NoError(t, m.Unlock(soon(t)))
	require.NoError(t, m.Lock(soon(t)))
	require.NoError(t, (<-late)())
	require.NoError(t, m.Verify(soon(t)))
	require.NoError(t, m.Unlock(soon(t)))
}

func TestAPutThatNobodyKnowsOfIsNotTakenForALaterTicket(t *testing.T) {
	clus := newCluster(t, 1)
	client := clus.Client(0)
	s, other := newSession(t, client), newSession(t, client)
	stray := func(name, value string) {
		t.Helper()
		_, err := client.Put(soon(t), firstKey(t, s, name), value, clientv3.WithLease(s.Lease()))
		require.NoError(t, err)
	}
	stray("elected", "late")
	e := etcdlock.NewElection(s, "elected")
	require.NoError(t, e.Campaign(soon(t), "mine"))
	leader, err := e.Leader(soon(t))
	require.NoError(t, err)
	require.Equal(t, "mine", leader.Value)
	require.Len(t, keysUnder(t, client, "elected/"), 1)

	held := etcdlock.NewMutex(other, "locked")
	require.NoError(t, held.Lock(soon(t)))
	stray("locked", s.Identity())
	m := etcdlock.NewMutex(s, "locked")
	require.ErrorIs(t, m.TryLock(soon(t)), etcdlock.ErrLocked)
	require.NoError(t, held.Verify(soon(t)))
	require.NoError(t, held.Unlock(soon(t)))
	require.NoError(t, m.Lock(soon(t)))
	require.Len(t, keysUnder(t, client, "locked/"), 1)
}

func TestCallsReturnWhenTheirContextEnds(t *testing.T) {
	clus := newCluster(t, 1)
	client := clus.Client(0)
	s := newSession(t, client)
	behind := newSession(t, clus.Members[0].ServerClient)
	blocker := etcdlock.NewMutex(behind, "cut")
	require.NoError(t, blocker.Lock(soon(t)))
	held, waiting := etcdlock.NewMutex(s, "held"), etcdlock.NewMutex(s, "cut")
	leads := etcdlock.NewElection(s, "lead")
	require.NoError(t, held.Lock(soon(t)))
	require.NoError(t, leads.Campaign(soon(t), "x"))
	stays, rw, sem := etcdlock.NewMutex(s, "stays"), etcdlock.NewRWMutex(s, "free"), etcdlock.NewSemaphore(s, "permits", 2)
	require.NoError(t, stays.Lock(soon(t)))
	permit, err := sem.Acquire(soon(t))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	queued := make(chan error, 1)
	go func() { queued <- waiting.Lock(ctx) }()
	waiters(t, blocker, 1)
	cut(t, clus)
	start := time.Now()
	cancel()
	require.ErrorIs(t, <-queued, context.Canceled)
	require.Less(t, time.Since(start), promptly)
	until := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	type call struct {
		name string
		call func(context.Context) error
	}
	calls := []call{
		{"Mutex.Lock", etcdlock.NewMutex(s, "free").Lock},
		{"Mutex.TryLock", etcdlock.NewMutex(s, "free").TryLock},
		{"Mutex.Do", func(ctx context.Context) error { return etcdlock.NewMutex(s, "free").Do(ctx, until) }},
		{"Mutex.TryDo", func(ctx context.Context) error { return etcdlock.NewMutex(s, "free").TryDo(ctx, until) }},
		{"RWMutex.RLock", func(ctx context.Context) error { _, err := rw.RLock(ctx); return err }},
		{"RWMutex.TryRLock", func(ctx context.Context) error { _, err := rw.TryRLock(ctx); return err }},
		{"RWMutex.RDo", func(ctx context.Context) error { return rw.RDo(ctx, until) }},
		{"RWMutex.TryRDo", func(ctx context.Context) error { return rw.TryRDo(ctx, until) }},
		{"RWMutex.Holders", func(ctx context.Context) error { _, err := rw.Holders(ctx); return err }},
		{"Semaphore.Acquire", func(ctx context.Context) error { _, err := sem.Acquire(ctx); return err }},
		{"Semaphore.AcquireN", func(ctx context.Context) error { _, err := sem.AcquireN(ctx, 2); return err }},
		{"Semaphore.TryAcquire", func(ctx context.Context) error { _, err := sem.TryAcquire(ctx); return err }},
		{"Semaphore.TryAcquireN", func(ctx context.Context) error { _, err := sem.TryAcquireN(ctx, 2); return err }},
		{"Semaphore.Do", func(ctx context.Context) error { return sem.Do(ctx, until) }},
		{"Semaphore.Holders", func(ctx context.Context) error { _, err := sem.Holders(ctx); return err }},
		{"Semaphore.Waiters", func(ctx context.Context) error { _, err := sem.Waiters(ctx); return err }},
		{"LockAll", func(ctx context.Context) error { _, err := etcdlock.LockAll(ctx, s, "free", "free2"); return err }},
		{"TryLockAll", func(ctx context.Context) error { _, err := etcdlock.TryLockAll(ctx, s, "free", "free2"); return err }},
		{"DoAll", func(ctx context.Context) error { return etcdlock.DoAll(ctx, s, []string{"free", "free2"}, until) }},
		{"Hold.Verify", permit.Verify},
		{"Hold.Slot", func(ctx context.Context) error { _, _, err := permit.Slot(ctx); return err }},
		{"Hold.Release", permit.Release},
		{"Mutex.UnlockAfter", func(ctx context.Context) error { return stays.UnlockAfter(ctx, time.Minute) }},
		{"Election.TryCampaign", func(ctx context.Context) error { return etcdlock.NewElection(s, "free").TryCampaign(ctx, "x") }},
		{"Election.Campaign", func(ctx context.Context) error { return etcdlock.NewElection(s, "free").Campaign(ctx, "x") }},
		{"Election.Run", func(ctx context.Context) error { return etcdlock.NewElection(s, "free").Run(ctx, "x", until) }},
		{"Mutex.Resume", func(ctx context.Context) error { return etcdlock.NewMutex(s, "free").Resume(ctx, "free/1-1", 1) }},
		{"Election.Resume", func(ctx context.Context) error { return etcdlock.NewElection(s, "free").Resume(ctx, "free/1-2", 1) }},
		{"Mutex.Verify", held.Verify},
		{"Election.Verify", leads.Verify},
		{"Mutex.Unlock", held.Unlock},
		{"Election.Proclaim", func(ctx context.Context) error { return leads.Proclaim(ctx, "y") }},
		{"Election.Resign", leads.Resign},
		{"Mutex.Holder", func(ctx context.Context) error { _, err := held.Holder(ctx); return err }},
		{"Mutex.Waiters", func(ctx context.Context) error { _, err := held.Waiters(ctx); return err }},
		{"Election.Leader", func(ctx context.Context) error { _, err := leads.Leader(ctx); return err }},
		{"Election.Observe", func(ctx context.Context) error {
			for _, err := range leads.Observe(ctx) {
				if err != nil {
					return err
				}
			}
			return nil
		}},
		{"Session.Shutdown", s.Shutdown}, // after which s is over
		{"NewSession", func(ctx context.Context) error { _, err := etcdlock.NewSession(ctx, client); return err }},
	}
	for _, v := range []any{held, rw, sem, permit, leads, s} {
		for _, method := range methodsWithContext(v) {
			require.True(t, slices.ContainsFunc(calls, func(c call) bool {
				return c.name == method || c.name == strings.TrimPrefix(method, "RW") // whose write side is a Mutex
			}), "%s is missing here", method)
		}
	}
	for _, c := range calls {
		start := time.Now()
		err := c.call(within(t, 100*time.Millisecond))
		require.ErrorIs(t, err, context.DeadlineExceeded, c.name)
		assert.NotErrorIs(t, err, etcdlock.ErrLocked, c.name)
		require.Less(t, time.Since(start), promptly, c.name)
	}
}

func TestNothingHangsWithoutAContextWhenTheClusterIsGone(t *testing.T) {
	clus := newCluster(t, 1)
	s := newSession(t, clus.Client(0), etcdlock.WithTTL(2*time.Second))
	m := etcdlock.NewMutex(s, "gone")
	require.NoError(t, m.Lock(soon(t)))
	cut(t, clus)
	start := time.Now()
	require.Error(t, m.Unlock(context.Background()))
	assert.Less(t, time.Since(start), s.TTL()+promptly)
	start = time.Now()
	require.NoError(t, s.Close(), "its lease is over: nothing can be given back")
	assert.Less(t, time.Since(start), promptly)
}

func TestAWaiterQueuesAgainWhenItsTicketOrItsLeaseGoes(t *testing.T) {
	client := newClient(t)
	a := etcdlock.NewMutex(newSession(t, client), "requeue")
	s := newSession(t, client, etcdlock.WithTTL(3*time.Second))
	b := etcdlock.NewMutex(s, "requeue")
	require.NoError(t, a.Lock(soon(t)))
	got := make(chan error, 1)
	go func() { got <- b.Lock(soon(t)) }()
	waiters(t, a, 1)
	w, err := a.Waiters(soon(t))
	require.NoError(t, err)
	_, err = client.Delete(soon(t), w[0].Key)
	require.NoError(t, err)
	waiters(t, a, 1)
	_, err = client.Revoke(soon(t), s.Lease())
	require.NoError(t, err)
	waiters(t, a, 1)
	require.NoError(t, a.Unlock(soon(t)))
	require.NoError(t, <-got)
	require.NoError(t, b.Verify(soon(t)))
}

func TestAWaiterOutlivesCompactionAndReconnection(t *testing.T) {
	clus := newCluster(t, 1)
	behind := clus.Members[0].ServerClient
	a := etcdlock.NewMutex(newSession(t, behind), "compact")
	b := etcdlock.NewMutex(newSession(t, clus.Client(0)), "compact")
	require.NoError(t, a.Lock(soon(t)))
	got := make(chan error, 1)
	go func() { got <- b.Lock(soon(t)) }()
	waiters(t, a, 1)
	clus.Members[0].Bridge().PauseConnections()
	clus.Members[0].Bridge().DropConnections()
	require.NoError(t, a.Unlock(soon(t)))
	put, err := behind.Put(soon(t), "unrelated", "x")
	require.NoError(t, err)
	_, err = behind.Compact(soon(t), put.Header.Revision)
	require.NoError(t, err)
	clus.Members[0].Bridge().UnpauseConnections()
	require.NoError(t, <-got)
}

func TestAWaiterIsNotStuckOnAMemberWithoutQuorum(t *testing.T) {
	clus := newCluster(t, 3)
	all, err := clus.ClusterClient(t)
	require.NoError(t, err)
	t.Cleanup(func() { _ = all.Close() })
	m := etcdlock.NewMutex(newSession(t, all, etcdlock.WithTTL(6*time.Second)), "quorum")
	for cutOff := range 3 { // whichever of them the waiter's watch is on
		well := (cutOff + 1) % 3
		holder := etcdlock.NewMutex(newSession(t, clus.Client(well)), "quorum")
		require.NoError(t, holder.Lock(soon(t)))
		got := make(chan error, 1)
		go func() { got <- m.Lock(soon(t)) }()
		waiters(t, holder, 1)
		others := []*integration.Member{clus.Members[well], clus.Members[(cutOff+2)%3]}
		clus.Members[cutOff].InjectPartition(t, others...)
		require.NoError(t, holder.Unlock(soon(t)))
		require.NoError(t, <-got)
		require.NoError(t, m.Unlock(soon(t)))
		clus.Members[cutOff].RecoverPartition(t, others...)
	}
}

func TestRemovalBehindOurBackEndsTheHold(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client, etcdlock.WithTTL(3*time.Second))
	a, b := etcdlock.NewMutex(s, "back/a"), etcdlock.NewMutex(s, "back/b")
	require.NoError(t, a.Lock(soon(t)))
	require.NoError(t, b.Lock(soon(t)))
	held := a.Context()
	_, err := client.Delete(soon(t), a.Key())
	require.NoError(t, err)
	start := time.Now()
	select {
	case <-held.Done():
	case <-soon(t).Done():
		t.Fatal("not noticed")
	}
	assert.Less(t, time.Since(start), s.TTL()/3+promptly)
	require.ErrorIs(t, context.Cause(held), etcdlock.ErrLost)
	require.ErrorIs(t, a.Unlock(soon(t)), etcdlock.ErrLost)
	require.NoError(t, b.Context().Err(), "the other hold is not touched")
	require.NoError(t, b.Verify(soon(t)))
}

func TestAWaiterIsNotLeftWithAPhantom(t *testing.T) {
	client := newClient(t)
	a := etcdlock.NewMutex(newSession(t, client), "phantom")
	// A TTL so long that no renewal looks meanwhile.
	b := etcdlock.NewMutex(newSession(t, client, etcdlock.WithTTL(10*time.Minute)), "phantom")
	require.NoError(t, a.Lock(soon(t)))
	got := make(chan error, 1)
	go func() { got <- b.Lock(soon(t)) }()
	waiters(t, a, 1)
	_, err := client.Delete(soon(t), "phantom/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.NoError(t, <-got)
	held := b.Context()
	eventually(t, func() bool { return (held.Err() == nil) == (len(keysUnder(t, client, "phantom/")) == 1) },
		"the hold ends if its ticket went with the one before")
}

func TestTheGuardOfAReleasedHoldIsNeverTrue(t *testing.T) {
	client := newClient(t)
	s := newSession(t, client)
	a, b := etcdlock.NewMutex(s, "guard"), etcdlock.NewMutex(s, "guard")
	commit := func(guard clientv3.Cmp) bool {
		resp, err := client.Txn(soon(t)).If(guard).Then(clientv3.OpPut("guarded", "x")).Commit()
		require.NoError(t, err)
		return resp.Succeeded
	}
	require.False(t, commit(a.IsOwner()), "not held")
	for range 50 {
		require.NoError(t, a.Lock(soon(t)))
		guard := a.IsOwner()
		require.True(t, commit(guard))
		got := make(chan bool, 1)
		go func() {
			assert.NoError(t, b.Lock(soon(t)))
			got <- commit(guard)
		}()
		waiters(t, a, 1)
		require.NoError(t, a.Unlock(soon(t)))
		require.False(t, <-got, "the next one holds")
		require.NoError(t, b.Unlock(soon(t)))
	}
}

// firstKey is the key of the session's next ticket for a name that it has nothing under.
func firstKey(t *testing.T, s *etcdlock.Session, name string) string {
	t.Helper()
	m := etcdlock.NewMutex(s, "second")
	require.NoError(t, m.Lock(soon(t)))
	key := m.Key()
	require.NoError(t, m.Unlock(soon(t)))
	return name + "/" + strings.TrimPrefix(key, "second/")
}
