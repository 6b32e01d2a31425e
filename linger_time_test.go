package etcdlock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// lingers has m linger.
func lingers(t *testing.T, m *Mutex) {
	t.Helper()
	for token := int64(-1); token != m.Token(); {
		token = m.Token()
		if token > 0 {
			require.NoError(t, m.Unlock(t.Context()))
		}
		require.NoError(t, m.Lock(t.Context()))
		synctest.Wait() // for the mirror
	}
	require.NoError(t, m.Unlock(t.Context()))
}

func TestTimeALockThatLingersGoesOnToItsSessionsWaitersAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithLinger(time.Hour))
		first, second := NewMutex(s, "local"), NewMutex(s, "local")
		lingers(t, first)
		require.NoError(t, first.Lock(t.Context()))
		got := make(chan error, 1)
		go func() { got <- second.Lock(t.Context()) }()
		synctest.Wait()
		require.NoError(t, first.Unlock(t.Context()))
		released := time.Now()
		require.NoError(t, <-got)
		require.Zero(t, time.Since(released))
	})
}

// A watch that has fallen silent does not tell who queues, and the read that would tell is not answered either.
func TestTimeNothingLingersThatNobodyHasLookedFor(t *testing.T) {
	for what, answered := range map[string]time.Duration{"never": time.Hour, "late": 1200 * time.Millisecond} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				m := NewMutex(e.session(t, WithTTL(3*time.Second), WithLinger(time.Hour)), "silent")
				lingers(t, m)
				e.MuteStreams(0)
				e.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
					if r, ok := q.Body.(*pb.RangeRequest); ok && len(r.RangeEnd) > 0 {
						v.AnswerDelay = answered
					}
					return v
				})
				time.Sleep(1100 * time.Millisecond) // an answer is under way, and is from before
				e.Put("silent/ffff-1", "somebody", 0)
				queued := time.Now()
				for m.TryLock(t.Context()) == nil {
					require.Less(t, time.Since(queued), 3*time.Second)
					require.NoError(t, m.Unlock(t.Context()))
					time.Sleep(10 * time.Millisecond)
				}
			})
		})
	}
}

// The ticket under a lease that was lost goes when that lease is revoked, under the next lease. Whoever counts who else queues
// must not take it for somebody else's that has gone: one contender would count as none.
func TestTimeALockThatLingersIsGivenUpAlsoUnderTheNextLease(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := NewMutex(e.session(t, WithTTL(6*time.Second), WithLinger(time.Hour)), "next")
		lingers(t, m)
		require.NoError(t, m.Lock(t.Context()))
		e.only("keepalive", fault{lost: true})
		<-m.Context().Done()
		e.bends(nil)
		require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
		require.NoError(t, m.Lock(t.Context())) // under the next lease
		time.Sleep(10 * time.Second)            // the lost lease is revoked
		lingers(t, m)
		behindIt(t, NewMutex(e.session(t), "next").Lock)
		require.ErrorIs(t, m.TryLock(t.Context()), ErrLocked)
	})
}
