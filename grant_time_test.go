package etcdlock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
	"github.com/etcdlock/etcdlock/internal/queue"
)

// What may make a ticket a hold, and what may not.

// The second holds by a handoff in memory while the deletion of the first hangs. Somebody removes the second's ticket, so
// the third finds the first's right ahead of it: that has handed its hold on already.
func TestTimeAHoldIsHandedOffInMemoryOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Hour))
		first, second, third := NewMutex(s, "once"), NewMutex(s, "once"), NewMutex(s, "once")
		require.NoError(t, first.Lock(t.Context()))
		errs := make(chan error, 3)
		go func() { errs <- second.Lock(t.Context()) }()
		queued(t, s, "once")
		e.only("write", fault{lost: true})
		go func() { errs <- first.Unlock(t.Context()) }()
		require.NoError(t, <-errs, "handed on")
		synctest.Wait()
		e.bends(nil)
		e.remove(second.Key())
		go func() { errs <- third.Lock(t.Context()) }()
		synctest.Wait()
		require.NoError(t, second.Context().Err(), "it is not known yet")
		require.Empty(t, errs, "two hold")
		time.Sleep(queue.CheckAfter)
		synctest.Wait()
		require.Error(t, second.Context().Err())
		for range 2 {
			require.NoError(t, <-errs)
		}
		require.NoError(t, third.Verify(t.Context()))
	})
}

// A watch on a member that lags still shows the end of an earlier ticket of the key: concurrency uses its keys again.
func TestTimeTheEndOfAnEarlierTicketOfAKeyGrantsNothing(t *testing.T) {
	bubble(t, awake, func(t *testing.T) {
		etcd := memetcd.New(memetcd.Config{Members: 2})
		defer etcd.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		s, err := NewSession(ctx, etcd.Client(ctx), WithTTL(time.Hour)) // its first request went to member 0, and so does its watch
		require.NoError(t, err)
		const key = "again/foreign"
		etcd.Put(key, "", 0)
		etcd.Lag(0)
		etcd.Delete(key)
		etcd.Put(key, "", 0)
		got := make(chan error, 1)
		go func() { got <- NewMutex(s, "again").Lock(ctx) }()
		synctest.Wait()
		etcd.Thaw(0)
		synctest.Wait()
		require.Empty(t, got, "two hold")
		etcd.Delete(key)
		require.NoError(t, <-got)
		require.NoError(t, s.Close())
	})
}
