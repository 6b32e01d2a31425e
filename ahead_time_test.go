package etcdlock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/queue"
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

func TestTimeBehindTwoNothingIsAskedWhenTheyGo(t *testing.T) {
	for what, take := range map[string]func(context.Context, *RWMutex) error{
		"a mutex":  func(ctx context.Context, m *RWMutex) error { return m.Lock(ctx) },
		"a reader": func(ctx context.Context, m *RWMutex) error { _, err := m.RLock(ctx); return err },
	} {
		for order, turns := range map[string]bool{"the first one first": true, "the second gives up": false} {
			t.Run(what+", "+order, func(t *testing.T) {
				inBubble(t, func(t *testing.T, e *etcd) {
					first := NewMutex(e.session(t, WithTTL(time.Hour)), "two")
					require.NoError(t, first.Lock(t.Context()))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					second, next := lock(ctx, t, e, "two")
					third, got := NewRWMutex(e.session(t, WithTTL(time.Hour)), "two"), make(chan error, 1)
					go func() { got <- take(t.Context(), third) }()
					queued(t, third.s, "two")
					reads := e.count("read")
					if turns {
						require.NoError(t, first.Unlock(t.Context()))
						require.NoError(t, <-next)
						require.NoError(t, second.Unlock(t.Context()))
					} else {
						cancel()
						require.ErrorIs(t, <-next, context.Canceled)
						synctest.Wait()
						require.Empty(t, got)
						require.NoError(t, first.Unlock(t.Context()))
					}
					require.NoError(t, <-got)
					require.Equal(t, reads, e.count("read"))
				})
			})
		}
	}
}

// The deletions of the two may be told in either order. The hold is checked as of the newer one, in which the own ticket may
// have gone, too.
func TestTimeBehindTwoTheHoldIsCheckedAsOfTheNewestDeletion(t *testing.T) {
	for range 20 {
		inBubble(t, func(t *testing.T, e *etcd) {
			first := NewMutex(e.session(t, WithTTL(time.Hour)), "phantom")
			require.NoError(t, first.Lock(t.Context()))
			_, next := lock(t.Context(), t, e, "phantom")
			third, got := lock(t.Context(), t, e, "phantom")
			e.DelayStreams(0, time.Millisecond)
			require.NoError(t, first.Unlock(t.Context()))
			e.DeletePrefix("phantom/")
			require.NoError(t, <-next)
			require.NoError(t, <-got)
			held, key := third.Context(), third.Key()
			time.Sleep(queue.CheckAfter)
			synctest.Wait()
			require.Equal(t, e.has(key), held.Err() == nil, "it may have noticed while it waited, and have queued again")
		})
	}
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

// Whoever is behind more than two knows only these.
func TestTimeBehindManyAllAreWaitedFor(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		holder := NewMutex(e.session(t, WithTTL(time.Hour)), "many")
		require.NoError(t, holder.Lock(t.Context()))
		var quits []context.CancelFunc
		var left []chan error
		for range 4 {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, got := lock(ctx, t, e, "many")
			quits, left = append(quits, cancel), append(left, got)
		}
		_, got := lock(t.Context(), t, e, "many")
		for i := len(quits) - 1; i >= 0; i-- {
			quits[i]()
			require.ErrorIs(t, <-left[i], context.Canceled)
			synctest.Wait()
			require.Empty(t, got)
		}
		require.NoError(t, holder.Unlock(t.Context()))
		require.NoError(t, <-got)
	})
}
