package etcdlock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/queue"
)

// What may make a ticket a hold, and what may not.

// The second holds by a handoff in memory while the deletion of the first hangs. Somebody removes the second's ticket, so
// the third finds the first's right ahead of it: that has handed its hold on already.
func TestTimeAHoldIsHandedOnInMemoryOnce(t *testing.T) {
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
	inBubble(t, func(t *testing.T, e *etcd) {
		holder, m := NewMutex(e.session(t), "again"), NewMutex(e.session(t), "again")
		require.NoError(t, holder.Lock(t.Context()))
		got := make(chan error, 1)
		go func() { got <- m.Lock(t.Context()) }()
		queued(t, m.s, "again")
		key := []byte(holder.Key())
		e.mu.Lock()
		for w := range e.watches {
			if within(key, w.from, w.to) {
				ev := &clientv3.Event{Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: key, ModRevision: holder.Token() - 1}}
				w.events <- clientv3.WatchResponse{Events: []*clientv3.Event{ev}}
			}
		}
		e.mu.Unlock()
		synctest.Wait()
		require.Empty(t, got, "two hold")
		require.NoError(t, holder.Unlock(t.Context()))
		require.NoError(t, <-got)
	})
}
