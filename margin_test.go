package etcdlock

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// WithMargin, in fake time.

const margin = 3 * time.Second

func TestTimeAMarginEndsAHoldThatMuchEarlier(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithMargin(margin))
		m := locked(t, s)
		e.away()
		requireEnd(t, m.Context(), e.at("grant").Add(trust15-margin))
	})
	t.Run("and so does one that was renewed", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *etcd) {
			s := e.session(t, WithMargin(margin))
			m := locked(t, s)
			until(time.Now().Add(time.Minute + time.Second))
			renewed := e.at("read")
			e.away()
			requireEnd(t, m.Context(), renewed.Add(trust15-margin))
		})
	})
	t.Run("and one on the next lease", func(t *testing.T) {
		inBubble(t, func(t *testing.T, e *etcd) {
			s := e.session(t, WithMargin(margin))
			first := s.Lease()
			e.Revoke(int64(first))
			for s.Lease() == first {
				until(time.Now().Add(time.Millisecond))
			}
			m := locked(t, s)
			e.away()
			requireEnd(t, m.Context(), e.at("grant").Add(trust15-margin))
		})
	})
}

func TestTimeAMarginIsNotGivenAwayByARevoke(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithMargin(margin))
		m := locked(t, s)
		key, end := m.Key(), e.at("grant").Add(trust15-margin)
		e.bends(func(string) fault { return fault{after: time.Hour} }) // every request arrives, no answer does
		requireEnd(t, m.Context(), end)
		require.ErrorIs(t, m.Unlock(t.Context()), ErrLost)
		until(end.Add(750*time.Millisecond + margin - 1))
		require.True(t, e.has(key), "what the holder has sent may be on its way")
		until(end.Add(750*time.Millisecond + margin))
		require.False(t, e.has(key), "and the lock is free when the time is over, though renewals have arrived")
	})
}

func TestTimeAMarginCostsNoReleaseAnyTime(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		m, next := locked(t, e.session(t, WithMargin(margin))), NewMutex(e.session(t), "/time/lock")
		start := time.Now()
		got := make(chan error, 1)
		go func() { got <- next.Lock(t.Context()) }()
		until(start.Add(time.Second))
		require.NoError(t, m.Unlock(t.Context()))
		require.NoError(t, <-got)
		require.Equal(t, start.Add(time.Second), time.Now())
		require.NoError(t, next.Unlock(t.Context()))

		require.NoError(t, m.Lock(t.Context()))
		key := m.Key()
		require.NoError(t, m.s.Close())
		require.False(t, e.has(key))
		require.Equal(t, start.Add(time.Second), time.Now())
	})
}

func TestTimeCloseLeavesWorkThatGoesOnItsMargin(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithMargin(margin))
		m := NewMutex(s, "/time/lock")
		running, stop, ended := make(chan string), make(chan struct{}), make(chan struct{})
		go func() {
			_ = m.Do(t.Context(), func(ctx context.Context) error { running <- m.Key(); <-stop; return nil })
			close(ended)
		}()
		key := <-running
		end := e.at("grant").Add(trust15)
		go func() { _ = s.Close() }()
		until(end.Add(-1))
		require.True(t, e.has(key), "a function that does not end with its context")
		until(end)
		require.False(t, e.has(key))
		close(stop)
		<-ended
	})
}

func TestTimeAMarginThatWouldLeaveNoTimeIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		for _, opts := range [][]Option{
			{WithMargin(-1)}, {WithMargin(15*time.Second/4 + 1)}, {WithMargin(time.Second), WithTTL(3 * time.Second)},
		} {
			_, err := NewSession(t.Context(), e.client(t), opts...)
			require.ErrorContains(t, err, "etcdlock: margin of ")
		}
		e.session(t, WithMargin(5*time.Second), WithTTL(20*time.Second)) // the order does not matter
		require.Equal(t, 1, e.count("grant"))
	})
}
