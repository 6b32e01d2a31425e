package etcdlock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What a waiter concludes of who was ahead of it, in fake time, without asking.

// lock has a session of its own wait for name. It is queued when lock returns.
func lock(ctx context.Context, t *testing.T, e *etcd, name string) (m *Mutex, got chan error) {
	t.Helper()
	m, got = NewMutex(e.session(t, WithTTL(time.Hour)), name), make(chan error, 1)
	go func() { got <- m.Lock(ctx) }()
	queued(t, m.s, name)
	return m, got
}

// When near goes and far is near now, far is watched already.
func TestTimeWhoeverIsNextAfterAWaiterThatGaveUpIsWatchedAlready(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder := NewMutex(e.session(t, WithTTL(time.Hour)), "swap")
		require.NoError(t, holder.Lock(t.Context()))
		for range 3 {
			lock(t.Context(), t, e, "swap")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		_, before := lock(ctx, t, e, "swap")
		_, got := lock(t.Context(), t, e, "swap")
		watches := e.count("watch")
		cancel()
		require.ErrorIs(t, <-before, context.Canceled)
		synctest.Wait()
		require.Empty(t, got)
		require.Equal(t, watches+1, e.count("watch"), "of the one before that")
	})
}
