package etcdlock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The sweep deletes a stray by its name. While that deletion is under way, no ticket of that name may come into being.
func TestTimeTheNameOfAStrayIsNotUsedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, e *etcd) {
		s := e.session(t, WithTTL(time.Minute))
		first, second := NewMutex(s, "stray"), NewMutex(s, "stray")
		require.NoError(t, first.Lock(t.Context()))
		got := make(chan error, 1)
		go func() { got <- second.Lock(t.Context()) }()
		key := queued(t, s, "stray")
		require.NoError(t, first.Unlock(t.Context()))
		require.NoError(t, <-got)
		require.NoError(t, second.Unlock(t.Context()))

		lost := false // the put of another lock, so that there is a sweep
		e.bends(func(call string) fault {
			once := call == "write" && !lost
			lost = lost || once
			return fault{lost: once}
		})
		require.NoError(t, NewMutex(s, "other").Lock(t.Context()))
		e.Put(key, s.Identity(), int64(s.Lease())) // a copy of the second's put arrives

		e.only("write", fault{lost: true}) // the sweep's deletion is under way
		for begin := e.count("write"); e.count("write") == begin; synctest.Wait() {
			time.Sleep(10 * time.Millisecond)
		}
		e.bends(nil)
		require.NoError(t, first.Lock(t.Context()))
		time.Sleep(time.Second)
		require.NoError(t, first.Verify(t.Context()), "the sweep has taken it")
	})
}
