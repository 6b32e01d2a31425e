package etcdlock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTimeStatsAreWhatTheSessionHasAndHasDone(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(30*time.Second))
		first := s.Lease()
		require.Equal(t, Stats{Lease: first, LeaseLeft: 28500 * time.Millisecond}, s.Stats())

		a, b := NewMutex(s, "a"), NewMutex(s, "b")
		require.NoError(t, a.Lock(t.Context()))
		require.NoError(t, b.Lock(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		next := make(chan error)
		go func() { next <- NewMutex(s, "a").Lock(ctx) }()
		go func() {
			next <- NewMutex(s, "c").Do(t.Context(), func(context.Context) error { <-ctx.Done(); return nil })
		}()
		synctest.Wait()
		require.Error(t, NewMutex(s, "b").TryLock(t.Context()))
		until(time.Now().Add(12 * time.Second)) // renewed once
		st := s.Stats()
		require.Equal(t, Stats{
			Waiting: 1, Held: 3, Working: 1, Lease: first, LeaseLeft: 26500 * time.Millisecond, Renewed: 2 * time.Second,
			Acquired: 3, Busy: 1, Renewals: 1,
		}, st)

		cancel()
		require.ErrorIs(t, errors.Join(<-next, <-next), context.Canceled)
		synctest.Wait()
		e.only("write", fault{lost: true})
		late, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		require.ErrorIs(t, b.Unlock(late), ErrUnconfirmed)
		st = s.Stats()
		require.Equal(t, 1, st.Held)
		require.Equal(t, 1, st.Unconfirmed)
		require.EqualValues(t, 1, st.Canceled)
		require.EqualValues(t, 2, st.Released)

		e.away()
		<-a.Context().Done()
		synctest.Wait()
		st = s.Stats()
		require.Zero(t, st.Held)
		require.Zero(t, st.Unconfirmed)
		require.Zero(t, st.LeaseLeft)
		require.Error(t, st.LastError)
		require.NotZero(t, st.RenewalFailures)
		require.EqualValues(t, 1, st.LostByDeadline)
		require.EqualValues(t, 1, st.Lost)
		e.bends(nil)
		until(time.Now().Add(time.Minute))
		st = s.Stats()
		require.EqualValues(t, 1, st.Replacements)
		require.NotEqual(t, first, st.Lease)
		require.NoError(t, st.LastError)
		require.NotZero(t, st.LeaseLeft)
		n := e.count("")
		s.Stats()
		require.NoError(t, s.Check())
		require.NoError(t, s.CheckOverrun(0))
		synctest.Wait()
		require.Equal(t, n, e.count(""), "nothing is asked of etcd")
	})
}

func TestTimeALockThatLingersIsNotHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithLinger(time.Minute))
		m := NewMutex(s, "a")
		require.NoError(t, m.Lock(t.Context()))
		until(time.Now().Add(time.Second))
		require.NoError(t, m.Unlock(t.Context()))
		require.Equal(t, 0, s.Stats().Held)
		require.NoError(t, m.Lock(t.Context()))
		st := s.Stats()
		require.Equal(t, 1, st.Held)
		require.EqualValues(t, 1, st.InMemory)
		require.EqualValues(t, 2, st.Acquired)
		require.EqualValues(t, 1, st.Released)
	})
}
