package etcdlock

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// seen is a set of hooks that keeps what it is told, as lines.
type seen struct {
	mu    sync.Mutex
	lines []string
}

func (s *seen) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// take returns what was told since the last time, once nothing goes on any more.
func (s *seen) take() (lines []string) {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, s.lines = s.lines, nil
	return lines
}

// waits are the hooks for waits, holds those for holds and work, leases those for the lease.
func (s *seen) waits() Hooks {
	return Hooks{
		WaitBegun: func(_ context.Context, w Wait) { s.add("%s %s waits, try %v", w.Kind, w.Name, w.Try) },
		WaitEnded: func(_ context.Context, w WaitEnd) {
			s.add("%s %s %s after %v, try %v, memory %v, hold %v", w.Kind, w.Name, w.Outcome, w.Waited, w.Try, w.InMemory, w.Token > 0)
		},
	}
}

func (s *seen) holds() Hooks {
	return Hooks{
		HoldEnded: func(h HoldEnd) { s.add("%s %s held for %v: %s %s", h.Kind, h.Name, h.Held, h.Ending, h.Cause) },
		Overrun: func(o Overrun) {
			s.add("%s %s runs on for %v, returned %v", o.Kind, o.Name, o.For, o.Returned)
		},
	}
}

func (s *seen) leases() Hooks {
	return Hooks{
		Renewed: func(r Renewal) { s.add("renewed in %v, %v left, error %v", r.Took, r.Left, r.Err) },
		LeaseReplaced: func(r LeaseReplacement) {
			s.add("lease %x replaced by %x, %s, %v without", r.Old, r.New, r.Cause, r.Without)
		},
	}
}

func TestTimeEveryWaitIsToldAndWhatCameOfIt(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var got seen
		s := e.session(t, WithHooks(got.waits()), WithTTL(time.Minute))
		other := e.session(t)
		expect := func(lines ...string) { t.Helper(); require.Equal(t, lines, got.take()) }

		m := NewMutex(s, "a")
		require.NoError(t, m.Lock(t.Context()))
		expect("mutex a waits, try false", "mutex a held after 0s, try false, memory false, hold true")

		next := make(chan error)
		go func() { next <- NewMutex(s, "a").Lock(t.Context()) }()
		until(time.Now().Add(3 * time.Second))
		expect("mutex a waits, try false")
		e.only("write", fault{after: time.Second}) // the deletion
		released := time.Now()
		go func() { next <- m.Unlock(t.Context()) }()
		require.NoError(t, <-next)
		require.Equal(t, released, time.Now(), "the handoff does not wait for the deletion")
		require.NoError(t, <-next)
		e.bends(nil)
		expect("mutex a held after 3s, try false, memory true, hold true")

		require.ErrorIs(t, m.TryLock(t.Context()), ErrLocked)
		expect("mutex a waits, try true", "mutex a busy after 0s, try true, memory false, hold false")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := NewRWMutex(s, "a").RLock(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		expect("reader a waits, try false", "reader a canceled after 1s, try false, memory false, hold false")

		e.only("write", fault{err: errDenied})
		require.ErrorIs(t, NewElection(s, "e").Campaign(t.Context(), "x"), errDenied)
		e.bends(nil)
		expect("election e waits, try false", "election e failed after 0s, try false, memory false, hold false")

		require.NoError(t, NewMutex(other, "b").Lock(t.Context()))
		go func() { next <- NewMutex(s, "b").Lock(t.Context()) }()
		synctest.Wait()
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-next, ErrClosed)
		expect("mutex b waits, try false", "mutex b closed after 0s, try false, memory false, hold false")
		require.ErrorIs(t, m.TryLock(t.Context()), ErrClosed)
		expect("mutex a waits, try true", "mutex a closed after 0s, try true, memory false, hold false")
	})
}

func TestTimeEveryPrimitiveTellsItsKind(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var waits, ends []string
		s := e.session(t, WithHooks(Hooks{
			WaitEnded: func(_ context.Context, w WaitEnd) { waits = append(waits, w.Kind+" "+w.Name) },
			HoldEnded: func(h HoldEnd) { ends = append(ends, h.Kind+" "+h.Name) },
		}))
		nothing := func(context.Context) error { return nil }
		require.NoError(t, NewMutex(s, "m").Do(t.Context(), nothing))
		require.NoError(t, NewRWMutex(s, "w").Do(t.Context(), nothing))
		require.NoError(t, NewRWMutex(s, "r").RDo(t.Context(), nothing))
		require.NoError(t, NewSemaphore(s, "p", 3).Do(t.Context(), nothing))
		require.NoError(t, NewElection(s, "e").Run(t.Context(), "x", nothing))
		require.NoError(t, DoAll(t.Context(), s, []string{"a", "b"}, nothing))
		synctest.Wait()
		want := []string{"mutex m", "mutex w", "reader r", "permit p", "election e"}
		require.Equal(t, append(want, "lockall a and 1 more"), waits)
		require.Equal(t, append(want, "lockall a", "lockall b"), ends)
	})
}

func TestTimeTheHoldOfSeveralNamesEndsForAllOfThem(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var got seen
		s := e.session(t, WithTTL(30*time.Second), WithHooks(got.holds()))
		let, done := make(chan struct{}), make(chan error)
		go func() {
			done <- DoAll(t.Context(), s, []string{"a", "b"}, func(context.Context) error { <-let; return nil })
		}()
		synctest.Wait()
		require.Equal(t, 2, s.Stats().Held)
		until(time.Now().Add(5 * time.Second)) // one is watched by then, and all are checked with the renewal
		by, err := NewMutex(s, "b").Holder(t.Context())
		require.NoError(t, err)
		e.remove(by.Key)
		until(time.Now().Add(10 * time.Second))
		lines := got.take()
		require.Len(t, lines, 3)
		slices.Sort(lines)
		require.Regexp(t, "^lockall a held for (5|10)s: lost removed$", lines[0])
		require.Equal(t, "lockall a runs on for 1.5s, returned false", lines[1])
		require.Regexp(t, "^lockall b held for (5|10)s: lost removed$", lines[2])
		require.Error(t, s.CheckOverrun(time.Second))
		require.Zero(t, s.Stats().Held)
		close(let)
		require.ErrorIs(t, <-done, ErrLost)
		require.Len(t, got.take(), 1)
		require.NoError(t, s.CheckOverrun(0))
	})
}

func TestTimeAWaitHookHasTheValuesOfTheCallsContextAndItsError(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		type key struct{}
		var ends []WaitEnd
		e.session(t) // so that the next has another lease
		s := e.session(t, WithHooks(Hooks{WaitEnded: func(ctx context.Context, w WaitEnd) {
			assert.Equal(t, "trace", ctx.Value(key{}))
			assert.NoError(t, ctx.Err())
			ends = append(ends, w)
		}}))
		m := NewMutex(s, "a")
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "trace"), time.Second)
		defer cancel()
		require.NoError(t, m.Lock(ctx))
		busy := NewMutex(s, "a").TryLock(ctx)
		late := NewMutex(s, "a").Lock(ctx)
		synctest.Wait()
		require.Len(t, ends, 3)
		require.Equal(t, m.Token(), ends[0].Token)
		require.Equal(t, m.Key(), ends[0].Key)
		require.NoError(t, ends[0].Err)
		for i, err := range []error{busy, late} {
			var want, told *LockedError
			require.ErrorAs(t, err, &want)
			require.ErrorAs(t, ends[i+1].Err, &told)
			require.Equal(t, want.Token, told.Token)
			require.Equal(t, want.Holder, told.Holder)
		}
		require.ErrorIs(t, ends[2].Err, context.DeadlineExceeded)
	})
}

func TestTimeEveryEndOfAHoldIsToldOnceAndWhy(t *testing.T) {
	const ttl = 60 * time.Second
	for name, c := range map[string]struct {
		end  func(t *testing.T, e *etcd, m *Mutex)
		want string
	}{
		"unlocked": {func(t *testing.T, _ *etcd, m *Mutex) {
			until(time.Now().Add(5 * time.Second))
			require.NoError(t, m.Unlock(t.Context()))
		}, "mutex a held for 5s: released "},
		"etcd is away": {func(_ *testing.T, e *etcd, m *Mutex) {
			e.away()
			<-m.Context().Done()
		}, "mutex a held for 57s: lost deadline"},
		"the machine sleeps": {func(_ *testing.T, e *etcd, _ *Mutex) {
			e.away()
			e.slept.Store(int64(time.Hour))
			until(time.Now().Add(time.Minute))
		}, "mutex a held for 57s: lost deadline"},
		"the ticket is removed": {func(_ *testing.T, e *etcd, m *Mutex) {
			until(time.Now().Add(5 * time.Second)) // it is watched by then
			e.remove(m.Key())
			<-m.Context().Done()
		}, "mutex a held for 5s: lost removed"},
		"the Session is closed": {func(t *testing.T, _ *etcd, m *Mutex) {
			until(time.Now().Add(time.Second))
			require.NoError(t, m.s.Close())
		}, "mutex a held for 1s: closed "},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				var got seen
				s := e.session(t, WithTTL(ttl), WithHooks(got.holds()))
				m := NewMutex(s, "a")
				require.NoError(t, m.Lock(t.Context()))
				require.Equal(t, 1, s.Stats().Held)
				c.end(t, e, m)
				require.Equal(t, []string{c.want}, got.take())
				e.bends(nil)
				_ = m.Unlock(t.Context())
				_ = s.Close()
				require.Empty(t, got.take())
				require.Zero(t, s.Stats().Held)
			})
		})
	}
}

func TestTimeOfARevokedLeaseOneTicketIsNoticedBeforeTheLease(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		causes := map[LossCause]int{}
		s := e.session(t, WithTTL(time.Minute), WithHooks(Hooks{HoldEnded: func(h HoldEnd) {
			assert.Equal(t, 5*time.Second, h.Held)
			causes[h.Cause]++
		}}))
		lockedMany(t, s, 10)
		until(time.Now().Add(5 * time.Second)) // one is watched by then
		e.Expire(int64(s.Lease()))
		synctest.Wait()
		// One at least; the checks beside the renewal that follows may find more, before it ends the lease.
		require.Positive(t, causes[LostByRemoval])
		require.Equal(t, 10, causes[LostByRemoval]+causes[LostByRevoke])
		st := s.Stats()
		require.EqualValues(t, 10, st.Lost)
		require.EqualValues(t, causes[LostByRevoke], st.LostByRevoke)
		require.EqualValues(t, causes[LostByRemoval], st.LostByRemoval)
	})
}

func TestTimeALingeringLockIsHeldAsOftenAsItIsTaken(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var got seen
		s := e.session(t, WithHooks(got.holds()), WithHooks(got.waits()), WithLinger(time.Minute))
		m := NewMutex(s, "a")
		require.NoError(t, m.Lock(t.Context()))
		until(time.Now().Add(time.Second))
		require.NoError(t, m.Unlock(t.Context()))
		got.take()
		require.NoError(t, m.Lock(t.Context()))
		require.Equal(t, 1, s.Stats().Held)
		until(time.Now().Add(time.Second))
		require.NoError(t, m.Unlock(t.Context()))
		require.Equal(t, []string{
			"mutex a waits, try false", "mutex a held after 0s, try false, memory true, hold true", "mutex a held for 1s: released ",
		}, got.take())
		until(time.Now().Add(2 * time.Minute)) // it does not linger any more
		require.Empty(t, got.take())
		require.Zero(t, s.Stats().Held)
	})
}

func TestTimeALostLeaseTellsTheEndOfEachHold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		const n = 3000
		ends := map[string]int{}
		s := e.session(t, WithHooks(Hooks{HoldEnded: func(h HoldEnd) {
			assert.Equal(t, LostByDeadline, h.Cause)
			ends[h.Name]++
		}}))
		lockedMany(t, s, n)
		e.away()
		until(time.Now().Add(time.Minute))
		synctest.Wait()
		require.Len(t, ends, n)
		for name, k := range ends {
			require.Equal(t, 1, k, name)
		}
		require.Zero(t, s.Stats().EventsDropped)
		require.EqualValues(t, n, s.Stats().LostByDeadline)
	})
}

func TestTimeRenewalsAndTheNextLeaseAreTold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var got seen
		s := e.session(t, WithTTL(30*time.Second), WithHooks(got.leases()))
		e.bends(func(call string) fault {
			if call == "keepalive" || call == "read" {
				return fault{after: time.Second}
			}
			return fault{}
		})
		until(time.Now().Add(12 * time.Second))
		require.Equal(t, []string{"renewed in 1s, 27.5s left, error <nil>"}, got.take())
		refused := true
		e.bends(func(call string) fault {
			if call == "keepalive" && refused {
				refused = false
				return fault{err: errBusy} // the client does not repeat by itself what fails so
			}
			return fault{}
		})
		until(time.Now().Add(10 * time.Second)) // renewed 20 s after the grant
		require.Equal(t, []string{
			"renewed in 0s, 18.5s left, error " + errBusy.Error(), "renewed in 1s, 27.5s left, error <nil>",
		}, got.take())
		old := s.Lease()
		e.only("grant", fault{err: errAway})
		e.Expire(int64(old))
		until(time.Now().Add(10 * time.Second))
		got.take()
		e.bends(nil)
		until(time.Now().Add(2 * time.Second))
		lines := got.take()
		require.Len(t, lines, 1)
		require.Regexp(t, fmt.Sprintf("^lease %x replaced by %x, revoked, [0-9.]+s without$", old, s.Lease()), lines[0])
	})
}

func TestTimeAFunctionThatOutlastsItsHoldIsToldTwice(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var got seen
		let := make(chan struct{})
		ended := make(chan error)
		for _, c := range []struct {
			stays time.Duration
			want  []string
		}{
			{3*time.Second - 1, []string{"mutex a held for 57s: lost deadline"}},
			{10 * time.Second, []string{
				"mutex a held for 57s: lost deadline", "mutex a runs on for 3s, returned false", "mutex a runs on for 10s, returned true",
			}},
		} {
			e.bends(nil)
			s := e.session(t, WithTTL(60*time.Second), WithHooks(got.holds()))
			m := NewMutex(s, "a")
			go func() {
				ended <- m.Do(t.Context(), func(context.Context) error {
					e.away()
					<-let
					return nil
				})
			}()
			until(time.Now().Add(57 * time.Second))
			until(time.Now().Add(c.stays))
			let <- struct{}{}
			require.ErrorIs(t, <-ended, ErrLost)
			require.Equal(t, c.want, got.take())
			require.Zero(t, s.Stats().Overruns)
			e.Expire(int64(s.Lease()))
		}
	})
}

func TestTimeTheOpeningOfASessionWithoutALeaseIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var opened *Session
		s := e.session(t, WithoutLease(), WithHooks(Hooks{Opened: func(s *Session) { opened = s }}))
		require.Same(t, s, opened)
	})
}

func TestTimeAHookIsToldOfTheSameHolderAsTheCall(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		var told []error
		s := e.session(t, WithHooks(Hooks{WaitEnded: func(_ context.Context, w WaitEnd) { told = append(told, w.Err) }}))
		other := e.session(t)
		_, err := NewSemaphore(other, "p", 2).AcquireN(t.Context(), 2)
		require.NoError(t, err)
		lockedAs(t, other, "y")
		_, permit := NewSemaphore(s, "p", 2).TryAcquire(t.Context())
		_, try := TryLockAll(t.Context(), s, "x", "y")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, all := LockAll(ctx, s, "x", "y")
		synctest.Wait()
		for i, err := range []error{permit, try, all} {
			var want, got *LockedError
			require.ErrorAs(t, err, &want)
			require.ErrorAs(t, told[i], &got)
			require.Equal(t, want, got)
		}
	})
}
