package etcdlock

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// What an attack on what shares the queue has found, each as its shortest schedule: readers, permits, places that stay taken,
// and tickets that are taken up.

func TestTimeATicketThatWasTakenUpIsNotTakenForOnesOwn(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		before, after := NewMutex(open(3*time.Second), "a"), NewMutex(open(3*time.Second), "a")
		require.NoError(t, before.Lock(t.Context()))
		require.NoError(t, after.Resume(t.Context(), before.Key(), before.Token()))
		time.Sleep(3 * time.Second)
		require.ErrorIs(t, before.Unlock(t.Context()), ErrLost)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.ErrorIs(t, before.Lock(ctx), ErrLocked, "the key has its name and its value, and is another's")
		require.NoError(t, after.Verify(t.Context()))
		require.NoError(t, after.Unlock(t.Context()))
	})
}

func TestTimeAStayTakesNothingBackThatWasTakenUp(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		before, after := NewMutex(open(3*time.Second), "a"), NewMutex(open(30*time.Second), "a")
		require.NoError(t, before.Lock(t.Context()))
		key, token := before.Key(), before.Token()
		etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
			if q.Client == 1 && q.Kind == memetcd.Txn && puts(q) {
				v.Delay = 500 * time.Millisecond
			}
			return v
		})
		told := make(chan error, 1)
		go func() { told <- before.UnlockAfter(t.Context(), 2*time.Second) }()
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, after.Resume(t.Context(), key, token))
		require.ErrorIs(t, <-told, ErrLost)
		time.Sleep(10 * time.Second)
		require.NotNil(t, etcd.Key(key), "it has gone with the lease of the stay")
		require.NoError(t, after.Verify(t.Context()))
		etcd.Judge(nil)
		etcd.Put(key, string(etcd.Key(key).Value), 0) // by hand: now nothing tells whose it is but its name
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, before.Lock(ctx), ErrLocked)
		require.NoError(t, after.Unlock(t.Context()))
	})
}

func TestTimeEverybodyWhoAsksAgainForAReleaseIsTold(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		h, err := NewRWMutex(open(3*time.Second), "a").RLock(t.Context())
		require.NoError(t, err)
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			return memetcd.Verdict{Lost: q.Write && q.Kind == memetcd.Txn}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, h.Release(ctx), ErrUnconfirmed)
		answers := make(chan error, 2)
		for range 2 {
			go func() { answers <- h.Release(t.Context()) }()
		}
		time.Sleep(100 * time.Millisecond)
		etcd.Judge(nil)
		require.NoError(t, <-answers)
		require.NoError(t, <-answers)
		require.ErrorIs(t, h.Release(t.Context()), ErrNotHeld)
	})
}

func TestTimeTheNumberOfALostPermitGoesWithItsTicket(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		shared := open(6 * time.Second).Lease() // which its maker goes on to renew
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		defer cancel()
		s, err := NewSession(ctx, etcd.Client(ctx), WithLease(shared))
		require.NoError(t, err)
		h, err := NewSemaphore(s, "a", 2).Acquire(t.Context())
		require.NoError(t, err)
		_, _, err = h.Slot(t.Context())
		require.NoError(t, err)
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict { return memetcd.Verdict{Lost: q.Client == 2} })
		time.Sleep(5900 * time.Millisecond)
		require.Error(t, h.Context().Err())
		etcd.Judge(nil)
		time.Sleep(10 * time.Second)
		require.Empty(t, etcd.Keys("a/"), "the ticket is deleted, and its number")
	})
}

// A put arrives after the deletion that gave it up, and before that is answered. Who queues behind it sees it: what the
// answer tells is of before.
func TestTimeADeletionOfBeforeLetsNobodyIn(t *testing.T) {
	for what, put := range map[string]memetcd.Verdict{
		"finds no ticket yet":      {Delay: 300 * time.Millisecond},
		"finds the copy before it": {AnswerLost: true, Again: []time.Duration{300 * time.Millisecond}},
	} {
		t.Run(what, func(t *testing.T) {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				s, writes := open(9*time.Second), 0
				etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
					if q.Write && (q.Kind == memetcd.Txn || q.Kind == memetcd.Delete) {
						switch writes++; writes {
						case 1:
							return put
						case 2:
							v.AnswerDelay = 400 * time.Millisecond // its deletion, after 100 ms
						}
					}
					return v
				})
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				require.ErrorIs(t, NewMutex(s, "a").Lock(ctx), context.DeadlineExceeded)
				time.Sleep(250 * time.Millisecond)
				require.Len(t, etcd.Keys("a/"), 1)
				m := NewMutex(s, "a")
				require.NoError(t, m.Lock(t.Context()))
				require.Len(t, etcd.Keys("a/"), 1, "the stray has been swept")
				time.Sleep(100 * time.Millisecond)
				require.NoError(t, m.Context().Err())
			})
		})
	}
}

func TestTimeReadersAndPermitsMakeAnIdleTicketOfTheirSessionLeave(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		defer cancel()
		s, err := NewSession(ctx, etcd.Client(ctx), WithTTL(3*time.Second), WithLinger(time.Second))
		require.NoError(t, err)
		defer func() { require.NoError(t, s.Close()) }()
		m, sem := NewRWMutex(s, "a"), NewSemaphore(s, "a", 2)
		for name, take := range map[string]func(context.Context) (*Hold, error){
			"read": m.RLock, "try to read": m.TryRLock, "permit": sem.Acquire, "try for a permit": sem.TryAcquire,
		} {
			for range 2 {
				require.NoError(t, m.Lock(t.Context()))
				time.Sleep(10 * time.Millisecond)
				require.NoError(t, m.Unlock(t.Context()))
			}
			idle := etcd.Keys("a/")
			require.Len(t, idle, 1, "it idles")
			begin := time.Now()
			h, err := take(t.Context())
			require.NoError(t, err, name)
			require.Less(t, time.Since(begin), 100*time.Millisecond, name)
			require.Len(t, etcd.Keys("a/"), 1, name)
			require.NotEqual(t, string(idle[0].Key), h.Key(), "which is of another class")
			require.NoError(t, h.Release(t.Context()))
		}
	})
}
