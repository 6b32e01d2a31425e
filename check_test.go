package etcdlock

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTimeCheckFailsExactlyWhileThereIsNoLiveLease(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s, err := NewSession(t.Context(), e.client(t), WithTTL(30*time.Second))
		require.NoError(t, err)
		id := s.Lease()
		require.NoError(t, s.Check())
		e.bends(func(string) fault { return fault{err: errAway} })
		deadline := e.at("grant").Add(28500 * time.Millisecond)
		until(deadline.Add(-1))
		require.NoError(t, s.Check(), "one nanosecond before the deadline")
		until(deadline)
		require.ErrorIs(t, s.Check(), ErrLost)
		until(deadline.Add(90 * time.Second))
		err = s.Check()
		require.ErrorIs(t, err, ErrLost)
		require.ErrorIs(t, err, errAway)
		require.ErrorContains(t, err, "no live lease for 1m30s, since lease "+fmt.Sprintf("%x", id)+" was lost (deadline)")
		require.NoError(t, s.CheckOverrun(0), "which does not hang on etcd")
		e.bends(nil)
		until(time.Now().Add(10 * time.Second))
		require.NoError(t, s.Check(), "it has mended itself")
		require.NoError(t, s.Close())
		require.ErrorIs(t, s.Check(), ErrClosed)
	})
}

// A timer of a process that was stopped runs late; a probe gets the truth.
func TestTimeCheckAsksTheClock(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(30*time.Second))
		e.away()
		e.slept.Store(int64(time.Hour))
		err := s.Check()
		require.ErrorIs(t, err, ErrLost)
		require.ErrorContains(t, err, "for 59m31.5s", "since the deadline, not since somebody noticed")
	})
}

func TestTimeStatsAskTheClock(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(30*time.Second))
		require.NotZero(t, s.Stats().LeaseLeft)
		e.away()
		e.slept.Store(int64(time.Hour))
		require.Zero(t, s.Stats().LeaseLeft)
	})
}

func TestTimeCheckOverrunFailsWhileAFunctionOutlastsItsHold(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(e *etcd, m *Mutex)
		runsOn time.Duration // until it is looked at
	}{
		"the lease runs out": {func(e *etcd, m *Mutex) { e.away(); <-m.Context().Done(); until(time.Now().Add(5 * time.Second)) }, 5 * time.Second},
		"the ticket is removed": {func(e *etcd, m *Mutex) {
			e.remove(m.Key())
			<-m.Context().Done()
			until(time.Now().Add(5 * time.Second))
		}, 5 * time.Second},
		"somebody unlocks": {func(_ *etcd, m *Mutex) { _ = m.Unlock(context.Background()); until(time.Now().Add(5 * time.Second)) }, 5 * time.Second},
		"the machine sleeps": {func(e *etcd, _ *Mutex) {
			e.away()
			e.slept.Store(int64(time.Hour))
			until(time.Now().Add(30 * time.Second)) // a timer runs at last, 32 s after the grant
		}, time.Hour + 3500*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, e *etcd) {
				s := e.session(t, WithTTL(30*time.Second))
				m := NewMutex(s, "a")
				let, begun, done := make(chan struct{}), make(chan struct{}), make(chan error)
				go func() {
					done <- m.Do(t.Context(), func(context.Context) error { close(begun); <-let; return nil })
				}()
				<-begun
				token := m.Token()
				until(time.Now().Add(2 * time.Second)) // it is watched by then
				require.NoError(t, s.CheckOverrun(0))
				c.end(e, m)
				synctest.Wait()
				for limit, fails := range map[time.Duration]bool{0: true, c.runsOn - 1: true, c.runsOn: false, 2 * time.Hour: false} {
					require.Equal(t, fails, s.CheckOverrun(limit) != nil, limit)
				}
				err := s.CheckOverrun(0)
				require.ErrorContains(t, err, `mutex "a"`)
				st := s.Stats()
				require.Equal(t, 1, st.Overruns)
				require.Equal(t, 1, st.Working)
				require.Equal(t, token, st.Overrun.Token)
				require.Equal(t, c.runsOn, st.Overrun.For)
				close(let)
				require.ErrorIs(t, <-done, map[bool]error{true: ErrNotHeld, false: ErrLost}[name == "somebody unlocks"])
				require.NoError(t, s.CheckOverrun(0))
				require.Zero(t, s.Stats().Working)
			})
		})
	}
}

func TestTimeAFunctionMayOutlastItsHoldInClose(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(30*time.Second))
		m := NewMutex(s, "a")
		let, begun, done := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			done <- m.Do(t.Context(), func(context.Context) error { close(begun); <-let; return nil })
		}()
		<-begun
		require.NoError(t, s.Close()) // waits for the deadline
		require.Error(t, s.CheckOverrun(28*time.Second))
		require.NoError(t, s.CheckOverrun(29*time.Second))
		close(let)
		require.ErrorIs(t, <-done, ErrClosed)
		require.NoError(t, s.CheckOverrun(0))
	})
}

func TestCheckOverrunWantsALimit(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		require.ErrorContains(t, e.session(t).CheckOverrun(-1), "negative")
	})
}
