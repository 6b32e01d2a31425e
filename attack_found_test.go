package etcdlock

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
)

// What the attacker has found, each as its shortest schedule.

// found runs f in a bubble with a cluster, and a Session of a client of its own for each call of open.
func found(t *testing.T, f func(t *testing.T, etcd *memetcd.Server, open func(ttl time.Duration) *Session)) {
	t.Helper()
	foundWith(t, awake, f)
}

// foundWith does so on a machine that sleeps.
func foundWith(t *testing.T, slept func() time.Duration, f func(t *testing.T, etcd *memetcd.Server, open func(ttl time.Duration) *Session)) {
	t.Helper()
	bubble(t, slept, func(t *testing.T) {
		etcd := memetcd.New(memetcd.Config{})
		t.Cleanup(func() {
			etcd.Close()
			time.Sleep(time.Minute)
		})
		f(t, etcd, func(ttl time.Duration) *Session {
			ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
			s, err := NewSession(ctx, etcd.Client(ctx), WithTTL(ttl))
			require.NoError(t, err)
			t.Cleanup(func() {
				etcd.Judge(nil)
				_ = s.Close()
				cancel()
			})
			return s
		})
	})
}

func TestTwoWaitersOfOneSessionDoNotWaitForEachOther(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		holder, s := NewMutex(open(3*time.Second), "a"), open(3*time.Second)
		require.NoError(t, holder.Lock(t.Context()))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ended := make(chan error, 2)
		lock := func() {
			m := NewMutex(s, "a")
			err := m.Lock(ctx)
			if err == nil {
				err = m.Unlock(ctx)
			}
			ended <- err
		}
		first := true
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			lost := first && q.Client == 2 && puts(q)
			first = first && !lost
			return memetcd.Verdict{AnswerLost: lost}
		})
		go lock() // its put arrives, and is not answered
		time.Sleep(100 * time.Millisecond)
		kvs := etcd.Keys("a/")
		require.Len(t, kvs, 2)
		go lock() // queues behind it
		time.Sleep(100 * time.Millisecond)
		etcd.Delete(string(kvs[1].Key)) // an operator removes the first; its repetition comes after the second
		time.Sleep(time.Second)
		require.NoError(t, holder.Unlock(t.Context()))
		err := <-ended
		require.NoError(t, err, "in the store: %v", etcd.Keys("a/"))
		require.NoError(t, <-ended)
	})
}

func TestAWaiterReadsWhileNoWatchIsAnswered(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		holder, waiter := NewMutex(open(3*time.Second), "a"), NewMutex(open(3*time.Second), "a")
		require.NoError(t, holder.Lock(t.Context()))
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict { return memetcd.Verdict{AnswerLost: q.Kind == memetcd.Watch} })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- waiter.Lock(ctx) }()
		time.Sleep(10 * time.Second)
		require.NoError(t, holder.Unlock(t.Context()))
		begin := time.Now()
		require.NoError(t, <-ended)
		require.LessOrEqual(t, time.Since(begin), 2*time.Second)
	})
}

func TestAnUnlockThatCloseOvertakesIsNoLoss(t *testing.T) {
	found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s := open(3 * time.Second)
		m := NewMutex(s, "a")
		require.NoError(t, m.Lock(t.Context()))
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			if q.Kind == memetcd.Txn && q.Write {
				return memetcd.Verdict{Delay: 100 * time.Millisecond}
			}
			return memetcd.Verdict{}
		})
		ended := make(chan error, 1)
		go func() { ended <- m.Unlock(t.Context()) }()
		time.Sleep(10 * time.Millisecond)
		require.NoError(t, s.Close())
		require.NotErrorIs(t, <-ended, ErrLost)
	})
}

func TestAMachineThatSleptDoesNotWaitLongerForAnswers(t *testing.T) {
	var slept atomic.Int64
	sleeps := func() time.Duration { return time.Duration(slept.Load()) }
	foundWith(t, sleeps, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
		s, asked := open(15*time.Second), make(chan struct{})
		etcd.Judge(func(q memetcd.Request) memetcd.Verdict {
			switch q.Kind {
			case memetcd.Grant:
				close(asked)
				return memetcd.Verdict{Delay: 200 * time.Millisecond}
			case memetcd.Txn, memetcd.KeepAlive:
				return memetcd.Verdict{Lost: true}
			}
			return memetcd.Verdict{}
		})
		old := s.Lease()
		<-asked
		time.Sleep(100 * time.Millisecond)
		slept.Store(int64(10 * time.Second))
		etcd.Advance(10 * time.Second)
		for s.Lease() == old {
			time.Sleep(10 * time.Millisecond)
		}
		require.LessOrEqual(t, s.client.AttemptTimeout(0), 5*time.Second, "rtt %v", s.client.RoundTrip())
	})
}
