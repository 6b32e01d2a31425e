package etcdlock

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What happens, in fake time, while etcd is away and after it has come back; and what months of renewals cost.

func TestTimeASlowGrantIsRenewedInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		e.only("grant", fault{after: 10 * time.Second})
		s := e.session(t)
		e.bends(nil)
		first := s.Lease()
		until(time.Now().Add(time.Minute))
		require.Equal(t, first, s.Lease(), "no other lease was needed")
	})
}

func TestTimeRetriesArePacedWhileEtcdIsAway(t *testing.T) {
	for name, f := range map[string]fault{"refused at once": {err: errAway}, "not answered": {lost: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t)
				m := locked(t, s)
				e.bends(func(string) fault { return f })
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 2)
				go func() { ended <- m.Unlock(ctx) }()
				go func() { ended <- NewMutex(s, "/time/other").Lock(ctx) }()
				begin, most := e.count(""), 0
				for range 600 {
					n := e.count("")
					until(time.Now().Add(time.Second))
					most = max(most, e.count("")-n)
				}
				total := e.count("") - begin
				t.Logf("%d requests in 10 minutes, at most %d in one second", total, most)
				require.LessOrEqual(t, most, 20)
				require.LessOrEqual(t, total, 2*600)
				require.GreaterOrEqual(t, total, 600/10, "but it does try")
				cancel()
				require.Error(t, <-ended)
				require.Error(t, <-ended)
			})
		})
	}
}

func TestTimeALostLeaseIsReplacedAndTheNextLockJustWorks(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		first := s.Lease()
		e.away()
		until(time.Now().Add(time.Minute))
		require.ErrorIs(t, context.Cause(m.Context()), ErrLost)
		ended := make(chan error, 1)
		other := NewMutex(s, "/time/lock")
		go func() { ended <- other.Lock(t.Context()) }()
		e.bends(nil)
		back := time.Now()
		require.NoError(t, <-ended)
		require.LessOrEqual(t, time.Since(back), 6*time.Second, "one attempt's patience and a pause")
		require.NotEqual(t, first, s.Lease())
		require.ErrorIs(t, m.Context().Err(), context.Canceled, "a hold that was lost is lost for good")
		require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
		require.NoError(t, other.Context().Err())
	})
}

func TestTimeUnlockWithoutEtcdReturnsByTheDeadlineOfItsHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		until(time.Now().Add(7 * time.Second))
		deadline := e.at("keepalive").Add(trust15)
		e.away()
		err := m.Unlock(context.Background())
		require.Error(t, err)
		require.NotErrorIs(t, err, ErrNotHeld)
		require.False(t, time.Now().After(deadline), "returned %v after the deadline", time.Since(deadline))
	})
}

func TestTimeUnlockWithoutEtcdReturnsWithItsContext(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := locked(t, e.session(t))
		e.away()
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.Unlock(ctx), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(begin))
	})
}

func TestTimeCloseWithoutEtcdIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		ctx := m.Context()
		waits := make(chan error, 1)
		go func() { waits <- NewMutex(s, "/time/lock").Lock(t.Context()) }()
		synctest.Wait()
		e.away()
		begin := time.Now()
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		require.ErrorIs(t, <-waits, ErrClosed)
		require.Zero(t, time.Since(begin), "waiting calls are told at once")
		require.ErrorIs(t, context.Cause(ctx), ErrClosed)
		require.Error(t, <-closed)
		require.LessOrEqual(t, time.Since(begin), closeLimit)
	})
}

func TestTimeCloseWaitsForWorkUntilItsDeadlineAtTheLatest(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		ended, begun := make(chan error, 1), make(chan struct{})
		work, finish := context.WithCancel(context.WithoutCancel(t.Context()))
		defer finish()
		go func() {
			ended <- NewMutex(s, "/time/lock").Do(t.Context(), func(context.Context) error {
				close(begun)
				<-work.Done() // and not its own context
				return nil
			})
		}()
		<-begun
		begin := time.Now()
		require.NoError(t, s.Close())
		require.Equal(t, trust15, time.Since(begin), "the grant was a moment ago")
		finish()
		require.ErrorIs(t, <-ended, ErrClosed)
	})
}

func TestTimeChildrenOfAHoldGetTheCauseAndNoGoroutines(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := locked(t, e.session(t))
		until(time.Now().Add(6 * time.Second))
		before := runtime.NumGoroutine()
		children := make([]context.Context, 1000)
		for i := range children {
			child, cancel := context.WithCancel(m.Context())
			t.Cleanup(cancel)
			children[i] = child //nolint:fatcontext // siblings, not a chain
		}
		require.LessOrEqual(t, runtime.NumGoroutine(), before+10, "other packages' goroutines come and go")
		e.away()
		deadline := e.at("keepalive").Add(trust15)
		until(deadline.Add(-1))
		for _, child := range children {
			require.NoError(t, child.Err())
		}
		until(deadline)
		for _, child := range children {
			require.ErrorIs(t, child.Err(), context.Canceled)
			require.ErrorIs(t, context.Cause(child), ErrLost)
		}
	})
}

func TestTimeHundredsOfHoursOfRenewalsLeaveNoTrace(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Minute))
		m := locked(t, s)
		measure := func() (goroutines int, heap uint64) {
			runtime.GC()
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			return runtime.NumGoroutine(), stats.HeapAlloc
		}
		until(time.Now().Add(time.Hour))
		goroutines, heap := measure()
		begin := e.count("keepalive")
		until(time.Now().Add(240 * time.Hour))
		require.NoError(t, m.Context().Err())
		beats := e.count("keepalive") - begin
		require.InDelta(t, 240*3600/20, beats, 10, "one renewal every third of the TTL")
		after, heapAfter := measure()
		t.Logf("%d renewals: %d goroutines before, %d after; %d bytes of heap before, %d after",
			beats, goroutines, after, heap, heapAfter)
		require.LessOrEqual(t, after, goroutines+5)
		require.Less(t, heapAfter, heap+512<<10)
	})
}

func TestTimeVerifyEndsWithTheHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m := locked(t, e.session(t))
		deadline := e.at("grant").Add(trust15)
		e.away()
		err := m.Verify(context.Background())
		require.ErrorIs(t, err, ErrLost)
		require.Equal(t, deadline, time.Now())
	})
}

func TestTimeTryLockBehindAnUnconfirmedReleaseEndsWithTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t)
		m := locked(t, s)
		e.away()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, m.Unlock(ctx), context.DeadlineExceeded)
		ended := make(chan error, 1)
		go func() { ended <- m.TryLock(context.Background()) }()
		synctest.Wait()
		require.Error(t, s.Close())
		synctest.Wait()
		select {
		case err := <-ended:
			require.ErrorIs(t, err, ErrClosed)
		default:
			t.Fatal("TryLock outlives the Session")
		}
	})
}

func TestTimeOpeningAWatchEndsWithTheContextAndTheSession(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, m, o := e.session(t), NewMutex(e.session(t), "held"), NewElection(e.session(t), "held")
		require.NoError(t, NewMutex(s, "held").Lock(t.Context()))
		e.only("watch", fault{lost: true})
		for name, call := range map[string]func(context.Context) error{
			"Lock": m.Lock,
			"Observe": func(ctx context.Context) error {
				for _, err := range o.Observe(ctx) {
					return err
				}
				return nil
			},
		} {
			start := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			require.ErrorIs(t, call(ctx), context.DeadlineExceeded, name)
			cancel()
			require.Equal(t, 100*time.Millisecond, time.Since(start), name)
		}
		got := make(chan error, 1)
		go func() { got <- m.Lock(t.Context()) }()
		synctest.Wait() // it is opening its watch
		start := time.Now()
		go m.s.Close()
		require.ErrorIs(t, <-got, ErrClosed)
		require.Zero(t, time.Since(start))
	})
}

func TestTimeAnIdleTicketThatWasRemovedIsNoticedByTheRenewal(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(6*time.Second), WithLinger(time.Hour))
		m := NewMutex(s, "idle")
		for range 2 {
			require.NoError(t, m.Lock(t.Context()))
			synctest.Wait() // for the mirror
			require.NoError(t, m.Unlock(t.Context()))
		}
		require.Len(t, e.Keys("idle/"), 1)
		e.removeUntold(string(e.Keys("idle/")[0].Key))
		time.Sleep(s.TTL() / 3)
		synctest.Wait()
		require.NoError(t, m.Lock(t.Context()))
		require.NoError(t, m.Verify(t.Context()))
	})
}

func TestTimeASessionThatBeginsWhileEtcdIsAwayHasItsLeaseWhenItIsBack(t *testing.T) {
	for name, f := range map[string]fault{"refused at once": {err: errAway}, "not answered": {lost: true}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				e.bends(func(string) fault { return f })
				opened := make(chan *Session, 1)
				go func() {
					s, err := NewSession(t.Context(), e.client(t))
					assert.NoError(t, err)
					opened <- s
				}()
				until(time.Now().Add(5 * time.Minute))
				e.bends(nil)
				back := time.Now()
				s := <-opened
				require.LessOrEqual(t, time.Since(back), defaultTTL+time.Second, "one attempt, and the pause after it")
				locked(t, s)
				require.NoError(t, s.Close())
			})
		})
	}
}
