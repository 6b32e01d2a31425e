package etcdlock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock/internal/memetcd"
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

// The etcd client may have repeated a request that was answered late. What it does not tell is that the first copy has yet to come.
func TestTimeAPutThatWasAnsweredLateIsSwept(t *testing.T) {
	for how, take := range map[string]func(t *testing.T, s *Session) func(context.Context) error{
		"Lock": func(t *testing.T, s *Session) func(context.Context) error {
			m := NewMutex(s, "a")
			require.NoError(t, m.Lock(t.Context()))
			return m.Unlock
		},
		"TryLock": func(t *testing.T, s *Session) func(context.Context) error {
			m := NewMutex(s, "a")
			require.NoError(t, m.TryLock(t.Context()))
			return m.Unlock
		},
		"LockAll": func(t *testing.T, s *Session) func(context.Context) error {
			h, err := LockAll(t.Context(), s, "a", "b")
			require.NoError(t, err)
			return h.Release
		},
		"TryLockAll": func(t *testing.T, s *Session) func(context.Context) error {
			h, err := TryLockAll(t.Context(), s, "a", "b")
			require.NoError(t, err)
			return h.Release
		},
	} {
		t.Run(how, func(t *testing.T) {
			found(t, func(t *testing.T, etcd *memetcd.Server, open func(time.Duration) *Session) {
				s, first := open(15*time.Second), true
				etcd.Judge(func(q memetcd.Request) (v memetcd.Verdict) {
					if puts(q) && first {
						first = false
						v.AnswerDelay, v.Again = 300*time.Millisecond, []time.Duration{time.Second}
					}
					return v
				})
				require.NoError(t, take(t, s)(t.Context()))
				require.Empty(t, etcd.Keys(""))
				time.Sleep(time.Second)
				require.NotEmpty(t, etcd.Keys(""), "the other copy has come")
				time.Sleep(6 * time.Second)
				require.Empty(t, etcd.Keys(""))
			})
		})
	}
}
