package concurrency_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/concurrency"
	"github.com/etcdlock/etcdlock/internal/lease"
	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// bubble runs f with an etcd in memory, in fake time.
func bubble(t *testing.T, f func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client)) {
	t.Helper()
	before := lease.Suspended
	lease.Suspended = func() time.Duration { return 0 }
	defer func() { lease.Suspended = before }() // once every goroutine of the bubble has ended
	synctest.Test(t, func(t *testing.T) {
		etcd := memetcd.New(memetcd.Config{})
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		defer func() {
			cancel()
			etcd.Close()
			time.Sleep(time.Minute)
		}()
		f(t, etcd, etcd.Client(ctx))
	})
}

// away is an etcd that answers nothing any more once that is set.
func away(etcd *memetcd.Server, after func(r memetcd.Request) bool) *atomic.Bool {
	var gone atomic.Bool
	etcd.Judge(func(r memetcd.Request) memetcd.Verdict {
		if gone.Load() {
			return memetcd.Verdict{Lost: true}
		}
		if after(r) {
			gone.Store(true)
		}
		return memetcd.Verdict{}
	})
	return &gone
}

func writes(r memetcd.Request) bool { return r.Kind == memetcd.Txn && r.Write }

// restarted is a session on the lease of one that held m and led e.
func restarted(t *testing.T, client *clientv3.Client) *concurrency.Session {
	t.Helper()
	old, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	require.NoError(t, err)
	require.NoError(t, concurrency.NewMutex(old, "m").Lock(t.Context()))
	require.NoError(t, concurrency.NewElection(old, "e").Campaign(t.Context(), "x"))
	old.Orphan()
	s, err := concurrency.NewSession(client, concurrency.WithLease(old.Lease()))
	require.NoError(t, err)
	return s
}

// Whether the claim was made cannot be told. Whoever queued behind the ticket would wait for ever, since the lease is renewed.
func TestTimeWhatWasLeftIsTakenUpAlsoIfAnAnswerIsLost(t *testing.T) {
	bubble(t, func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client) {
		s := restarted(t, client)
		var lost atomic.Bool
		etcd.Judge(func(r memetcd.Request) memetcd.Verdict {
			return memetcd.Verdict{AnswerLost: writes(r) && lost.CompareAndSwap(false, true)}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		m := concurrency.NewMutex(s, "m")
		require.NoError(t, m.Lock(ctx))
		lost.Store(false)
		require.NoError(t, concurrency.NewElection(s, "e").Campaign(ctx, "y"))
		resp, err := client.Txn(ctx).If(m.IsOwner()).Commit()
		require.NoError(t, err)
		require.True(t, resp.Succeeded)
		require.NoError(t, s.Close())
	})
}

func TestTimeACallEndsWithItsContextAlsoIfItHasGotTheLock(t *testing.T) {
	bubble(t, func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client) {
		s, err := concurrency.NewSession(client, concurrency.WithTTL(60))
		require.NoError(t, err)
		orphaned, err := concurrency.NewSession(client, concurrency.WithTTL(60))
		require.NoError(t, err)
		orphaned.Orphan()
		gone := away(etcd, writes)
		for _, s := range []*concurrency.Session{s, orphaned} {
			for _, call := range []func(context.Context) error{
				concurrency.NewMutex(s, "m").Lock,
				func(ctx context.Context) error { return concurrency.NewElection(s, "e").Campaign(ctx, "y") },
			} {
				gone.Store(false)
				begin := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				require.ErrorIs(t, call(ctx), context.DeadlineExceeded)
				require.Equal(t, time.Second, time.Since(begin))
				cancel()
				etcd.Judge(nil)
				require.Eventually(t, func() bool { return len(etcd.Keys("m/"))+len(etcd.Keys("e/")) == 0 }, time.Minute, time.Second)
				gone = away(etcd, writes)
			}
		}
		etcd.Judge(nil)
		require.NoError(t, s.Close())
		require.NoError(t, orphaned.Close())
	})
}

func TestTimeCloseOfALostSessionReturnsInAPartition(t *testing.T) {
	bubble(t, func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client) {
		s, err := concurrency.NewSession(client, concurrency.WithTTL(60))
		require.NoError(t, err)
		require.NoError(t, concurrency.NewMutex(s, "m").Lock(t.Context()))
		away(etcd, func(memetcd.Request) bool { return true })
		<-s.Done()
		begin := time.Now()
		require.Error(t, s.Close())
		require.Equal(t, 5*time.Second, time.Since(begin))
	})
}

// After Orphan no session of the library knows what the values of this one hold.
func TestTimeValuesOfAnOrphanedSessionExcludeEachOther(t *testing.T) {
	bubble(t, func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client) {
		for _, early := range []bool{true, false} {
			grant, err := client.Grant(t.Context(), 60)
			require.NoError(t, err)
			s, err := concurrency.NewSession(client, concurrency.WithLease(grant.ID))
			require.NoError(t, err)
			one := concurrency.NewMutex(s, "m")
			if early {
				require.NoError(t, one.Lock(t.Context()))
			}
			s.Orphan()
			if !early {
				require.NoError(t, one.Lock(t.Context()))
			}
			require.ErrorIs(t, concurrency.NewMutex(s, "m").TryLock(t.Context()), concurrency.ErrLocked)
			var holding, most atomic.Int32
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					m := concurrency.NewMutex(s, "m")
					assert.NoError(t, m.Lock(t.Context()))
					most.Store(max(most.Load(), holding.Add(1)))
					time.Sleep(time.Second)
					holding.Add(-1)
					assert.NoError(t, m.Unlock(t.Context()))
				})
				synctest.Wait()
			}
			require.Zero(t, holding.Load())
			require.NoError(t, one.Unlock(t.Context()))
			all.Wait()
			require.EqualValues(t, 1, most.Load())
			require.NoError(t, s.Close())
		}
	})
}

// One value that two goroutines use: the second holds, in memory, before the deletion of the first one's ticket is confirmed.
func TestTimeAnUnlockForgetsNoLaterHoldOfTheValue(t *testing.T) {
	bubble(t, func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client) {
		s, err := concurrency.NewSession(client, concurrency.WithTTL(10))
		require.NoError(t, err)
		etcd.Judge(func(r memetcd.Request) (v memetcd.Verdict) {
			if r.Write {
				v.Delay, v.AnswerDelay = 15*time.Millisecond, 15*time.Millisecond
			}
			return v
		})
		m := concurrency.NewMutex(s, "m")
		require.NoError(t, m.Lock(t.Context()))
		second := make(chan error, 1)
		go func() { second <- m.Lock(t.Context()) }()
		time.Sleep(time.Second)
		require.NoError(t, m.Unlock(t.Context()))
		require.NoError(t, <-second)
		require.NotEmpty(t, m.Key())
		require.NoError(t, m.Unlock(t.Context()))
		require.ErrorIs(t, m.Unlock(t.Context()), concurrency.ErrLockReleased)
		require.Empty(t, etcd.Keys("m/"))
		require.NoError(t, s.Close())
	})
}

func TestTimeAResignForgetsNoLaterLeadOfTheValue(t *testing.T) {
	bubble(t, func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client) {
		s, err := concurrency.NewSession(client, concurrency.WithTTL(10))
		require.NoError(t, err)
		e := concurrency.NewElection(s, "e")
		require.NoError(t, e.Campaign(t.Context(), "one"))
		slow := true
		etcd.Judge(func(r memetcd.Request) (v memetcd.Verdict) {
			if r.Kind == memetcd.Range && slow { // that of Resign
				slow, v.AnswerDelay = false, time.Second
			}
			return v
		})
		resigned := make(chan error, 1)
		go func() { resigned <- e.Resign(t.Context()) }()
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, e.Campaign(t.Context(), "two"))
		require.NoError(t, <-resigned)
		require.NotEmpty(t, e.Key())
		require.NoError(t, e.Resign(t.Context()))
		require.Empty(t, etcd.Keys("e/"))
		require.NoError(t, s.Close())
	})
}

// leftLead is a session, and a lead of e that an earlier one has left, on another lease.
func leftLead(t *testing.T, client *clientv3.Client) (s *concurrency.Session, key string, rev int64) {
	t.Helper()
	old, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	require.NoError(t, err)
	e := concurrency.NewElection(old, "e")
	require.NoError(t, e.Campaign(t.Context(), "x"))
	old.Orphan()
	s, err = concurrency.NewSession(client, concurrency.WithTTL(10))
	require.NoError(t, err)
	return s, e.Key(), e.Rev()
}

// With etcd's package every value of a key leads. So it is here, in one session, whoever of them has taken the lead up.
func TestTimeAllValuesOfAResumedLeadAreOne(t *testing.T) {
	bubble(t, func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client) {
		s, key, rev := leftLead(t, client)
		first, second := concurrency.ResumeElection(s, "e", key, rev), concurrency.ResumeElection(s, "e", key, rev)
		said := make(chan error, 2)
		go func() { said <- first.Proclaim(t.Context(), "one") }()
		go func() { said <- first.Proclaim(t.Context(), "two") }()
		require.NoError(t, errors.Join(<-said, <-said), "at once")
		require.NoError(t, second.Proclaim(t.Context(), "three"))
		require.NoError(t, concurrency.ResumeElection(s, "e", key, rev).Resign(t.Context()))
		require.Empty(t, etcd.Keys("e/"))
		require.NoError(t, s.Close())
	})
}

func TestTimeALeadIsTakenUpAlsoIfAnAnswerIsLost(t *testing.T) {
	bubble(t, func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client) {
		s, key, rev := leftLead(t, client)
		first := true
		etcd.Judge(func(r memetcd.Request) memetcd.Verdict {
			lost := first && writes(r)
			first = first && !lost
			return memetcd.Verdict{AnswerLost: lost}
		})
		require.NoError(t, concurrency.ResumeElection(s, "e", key, rev).Resign(t.Context()))
		require.Empty(t, etcd.Keys("e/"))
		require.NoError(t, s.Close())
	})
}

// The session is orphaned while a call that has got what it wants reads.
func TestTimeACallThatFailsWhileItsSessionIsOrphanedLeavesNoKey(t *testing.T) {
	for what, call := range map[string]func(ctx context.Context, s *concurrency.Session) error{
		"Lock": func(ctx context.Context, s *concurrency.Session) error { return concurrency.NewMutex(s, "m").Lock(ctx) },
		"Campaign": func(ctx context.Context, s *concurrency.Session) error {
			return concurrency.NewElection(s, "m").Campaign(ctx, "x")
		},
	} {
		t.Run(what, func(t *testing.T) {
			bubble(t, func(t *testing.T, etcd *memetcd.Server, client *clientv3.Client) {
				s, err := concurrency.NewSession(client, concurrency.WithTTL(60))
				require.NoError(t, err)
				etcd.Judge(func(r memetcd.Request) memetcd.Verdict {
					return memetcd.Verdict{AnswerLost: r.Kind == memetcd.Range && len(etcd.Keys("m/")) > 0}
				})
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				called := make(chan error, 1)
				go func() { called <- call(ctx, s) }()
				time.Sleep(time.Second)
				require.Len(t, etcd.Keys("m/"), 1)
				s.Orphan()
				require.Error(t, <-called)
				time.Sleep(10 * time.Second)
				require.Empty(t, etcd.Keys("m/"))
			})
		})
	}
}

// Of three members one is frozen, each in its turn: the read that follows a hold may meet it.
func TestTimeAFrozenMemberHoldsUpNoCall(t *testing.T) {
	before := lease.Suspended
	lease.Suspended = func() time.Duration { return 0 }
	defer func() { lease.Suspended = before }()
	synctest.Test(t, func(t *testing.T) {
		etcd := memetcd.New(memetcd.Config{Members: 3})
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		defer func() {
			cancel()
			etcd.Close()
			time.Sleep(time.Minute)
		}()
		a, err := concurrency.NewSession(etcd.Client(ctx), concurrency.WithTTL(10))
		require.NoError(t, err)
		b, err := concurrency.NewSession(etcd.Client(ctx), concurrency.WithTTL(10))
		require.NoError(t, err)
		first, second := concurrency.NewMutex(a, "m"), concurrency.NewMutex(b, "m")
		for i := range 6 {
			require.NoError(t, first.Lock(ctx))
			got := make(chan error, 1)
			go func() { got <- second.Lock(ctx) }()
			time.Sleep(5 * time.Second)
			etcd.Freeze(i % 3)
			require.NoError(t, first.Unlock(ctx))
			select {
			case err := <-got:
				require.NoError(t, err)
			case <-time.After(time.Minute):
				require.Fail(t, "it holds, and does not know")
			}
			etcd.Thaw(i % 3)
			require.NoError(t, second.Unlock(ctx))
		}
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	})
}
