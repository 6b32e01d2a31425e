package etcdlock

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// What many locks on one lease must not do to it, in fake time.

// lockedMany returns n Mutexes that are held, of names of their own.
func lockedMany(t *testing.T, s *Session, n int) []*Mutex {
	t.Helper()
	all := make([]*Mutex, n)
	for i := range all {
		all[i] = NewMutex(s, fmt.Sprintf("/time/many/%d", i))
		require.NoError(t, all[i].Lock(t.Context()))
	}
	return all
}

// requireHeld checks that all are held.
func requireHeld(t *testing.T, all []*Mutex) {
	t.Helper()
	lost := 0
	for _, m := range all {
		if m.Context().Err() != nil {
			lost++
		}
	}
	require.Zero(t, lost, "lost of %d", len(all))
}

func TestTimeAnEtcdThatTakesFewOperationsInOneTxnIsAskedInSmallerParts(t *testing.T) {
	for _, limit := range []int{64, 3} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				e.SetMaxTxnOps(limit)
				s := e.session(t, WithTTL(2*time.Second))
				all := lockedMany(t, s, 300)
				until(time.Now().Add(20 * time.Second))
				requireHeld(t, all)
				// All but the last are released in memory, so their deletions are sent together.
				var wg sync.WaitGroup
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				for range 150 {
					wg.Go(func() {
						assert.NoError(t, NewMutex(s, "/time/one").Do(ctx, func(context.Context) error { return nil }))
					})
				}
				wg.Wait()
				// So are those of waiters that give up together while a deletion is under way.
				for range 150 {
					wg.Go(func() { assert.Error(t, NewMutex(s, all[0].Name()).Lock(ctx)) })
				}
				synctest.Wait()
				e.only("write", fault{after: 100 * time.Millisecond})
				cancel()
				wg.Wait()
				until(time.Now().Add(20 * time.Second))
				requireHeld(t, all)
				require.Len(t, e.Keys(""), len(all))
			})
		})
	}
}

func TestTimeWhatIsDeletedKeyByKeyIsSentInPartsThatEtcdTakes(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		e.SetMaxTxnOps(5)
		s := e.session(t)
		lockedMany(t, s, 70)
		e.only("revoke", fault{err: errDenied})
		require.NoError(t, s.Close())
		require.Empty(t, e.Keys(""))
	})
}

// Each deletion is a Txn, and etcd counts what is inside, too.
func TestTimeWhatIsDeletedKeyByKeyIsNotTooMuchForAnEtcdAsItComes(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		lockedMany(t, s, 300)
		e.only("revoke", fault{err: errDenied})
		before, size := e.count("write"), s.client.PartSize()
		require.NoError(t, s.Close())
		require.Empty(t, e.Keys(""))
		require.Equal(t, size, s.client.PartSize(), "nothing was refused")
		require.Equal(t, 3, e.count("write")-before)
	})
}

func TestTimeManyLocksDoNotStarveTheRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(2*time.Second))
		all := lockedMany(t, s, 6000)
		const trip = 50 * time.Millisecond
		e.bends(func(string) fault { return fault{after: trip} })
		first := s.Lease()
		until(time.Now().Add(20 * time.Second))
		requireHeld(t, all)
		require.Equal(t, first, s.Lease())
		// And each is still checked within a third of the TTL and a round trip.
		for _, m := range []*Mutex{all[10], all[3000], all[5990]} {
			ctx := m.Context()
			until(time.Now().Add(77 * time.Millisecond)) // not in step with the renewals
			e.removeUntold(m.Key())
			until(time.Now().Add(2*time.Second/3 + trip))
			require.ErrorIs(t, context.Cause(ctx), ErrLost)
		}
	})
}

func TestTimeATicketThatMayNotBeReadAnyMoreCostsNoOther(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(6*time.Second))
		all := lockedMany(t, s, 10)
		e.forbids(all[3].Key())
		until(time.Now().Add(time.Minute))
		requireHeld(t, all)
		e.removeUntold(all[7].Key())
		until(time.Now().Add(2 * time.Second))
		require.ErrorIs(t, context.Cause(all[7].Context()), ErrLost, "the others are checked all the same")
	})
}

func TestTimeALostLeaseIsNoticedWithinATwentiethOfTheTTL(t *testing.T) {
	for name, age := range map[string]time.Duration{"young": 0, "watched": 4 * time.Second} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(time.Minute))
				all := lockedMany(t, s, 2*queue.Few)
				until(time.Now().Add(age))
				e.Expire(int64(s.Lease())) // an operator's revoke
				revoked := time.Now()
				for _, m := range all {
					<-m.Context().Done()
					require.ErrorIs(t, context.Cause(m.Context()), ErrLost)
				}
				if name == "watched" {
					require.Zero(t, time.Since(revoked))
				}
				require.LessOrEqual(t, time.Since(revoked), time.Minute/20)
			})
		})
	}
}
