package etcdlock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
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
