package locktest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/etcdlock/etcdlock"
)

// ofOne are the behaviours of single primitives.
func ofOne() []behaviour {
	return []behaviour{
		{"readers hold together and a writer waits for the last", func(t *testing.T, w world, name string) {
			a, b := etcdlock.NewRWMutex(session(w), name), etcdlock.NewRWMutex(session(w), name)
			one, err := a.RLock(soon(t))
			require.NoError(t, err)
			two, err := b.RLock(soon(t))
			require.NoError(t, err)
			written := make(chan error, 1)
			go func() { written <- b.Lock(soon(t)) }()
			eventually(t, "the writer queues", func() bool { return len(w.Queue(name)) == 3 })
			_, err = a.TryRLock(soon(t))
			require.ErrorIs(t, err, etcdlock.ErrLocked, "nobody passes a writer that waits")
			require.NoError(t, one.Release(soon(t)))
			require.Empty(t, written)
			require.NoError(t, two.Verify(soon(t)))
			require.NoError(t, two.Release(soon(t)))
			require.NoError(t, <-written)
		}},
		{"a semaphore has so many permits", func(t *testing.T, w world, name string) {
			s := session(w)
			sem := etcdlock.NewSemaphore(s, name, 3)
			heavy, err := sem.AcquireN(soon(t), 2)
			require.NoError(t, err)
			light, err := etcdlock.NewSemaphore(session(w), name, 3).Acquire(soon(t))
			require.NoError(t, err)
			_, err = sem.TryAcquire(soon(t))
			require.ErrorIs(t, err, etcdlock.ErrLocked)
			got := make(chan error, 1)
			go func() { _, err := sem.Acquire(soon(t)); got <- err }()
			eventually(t, "it queues", func() bool { return len(w.Queue(name)) == 3 })
			require.NoError(t, heavy.Release(soon(t)), "though the last one stays")
			require.NoError(t, <-got)
			require.NoError(t, light.Verify(soon(t)))
		}},
		{"permits have numbers", func(t *testing.T, w world, name string) {
			sem := etcdlock.NewSemaphore(session(w), name, 2)
			seen := map[int]bool{}
			for range 2 {
				h, err := sem.Acquire(soon(t))
				require.NoError(t, err)
				slot, token, err := h.Slot(soon(t))
				require.NoError(t, err)
				require.NotZero(t, token)
				seen[slot] = true
			}
			require.Equal(t, map[int]bool{0: true, 1: true}, seen)
		}},
		{"a leader is seen, and what it proclaims", func(t *testing.T, w world, name string) {
			leader, other := etcdlock.NewElection(session(w), name), etcdlock.NewElection(session(w), name)
			_, err := other.Leader(soon(t))
			require.ErrorIs(t, err, etcdlock.ErrNoLeader)
			require.NoError(t, leader.Campaign(soon(t), "one"))
			require.NoError(t, leader.Proclaim(soon(t), "two"))
			l, err := other.Leader(soon(t))
			require.NoError(t, err)
			require.Equal(t, "two", l.Value)
			require.Equal(t, leader.Token(), l.Token)
		}},
		{"an observer is told of each leader", func(t *testing.T, w world, name string) {
			leader, watcher := etcdlock.NewElection(session(w), name), etcdlock.NewElection(session(w), name)
			told := make(chan string, 10)
			ctx, cancel := context.WithCancel(soon(t))
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for l, err := range watcher.Observe(ctx) {
					if err != nil {
						return
					}
					told <- l.Value
				}
			}()
			require.Empty(t, <-told, "nobody leads")
			require.NoError(t, leader.Campaign(soon(t), "one"))
			require.Equal(t, "one", <-told)
			require.NoError(t, leader.Proclaim(soon(t), "two"))
			require.Equal(t, "two", <-told)
			require.NoError(t, leader.Resign(soon(t)))
			require.Empty(t, <-told)
			cancel()
			<-ended
		}},
		{"a lock that lingers is given up when somebody wants it", func(t *testing.T, w world, name string) {
			m := etcdlock.NewMutex(w.Session(etcdlock.WithTTL(ttl), etcdlock.WithLinger(time.Hour)), name)
			for range 2 {
				require.NoError(t, m.Lock(soon(t)))
				require.NoError(t, m.Unlock(soon(t)))
			}
			other := etcdlock.NewMutex(session(w), name)
			require.NoError(t, other.Lock(soon(t)))
			require.NoError(t, other.Verify(soon(t)))
		}},
		{"who waits is seen in order", func(t *testing.T, w world, name string) {
			m := etcdlock.NewMutex(session(w), name)
			require.NoError(t, m.Lock(soon(t)))
			w.Occupy(name, "second")
			w.Occupy(name, "third")
			waiters, err := m.Waiters(soon(t))
			require.NoError(t, err)
			require.Len(t, waiters, 2)
			require.Equal(t, "second", waiters[0].Identity)
			require.Equal(t, "third", waiters[1].Identity)
		}},
		{"Shutdown waits for what is held", func(t *testing.T, w world, name string) {
			s := session(w)
			m := etcdlock.NewMutex(s, name)
			require.NoError(t, m.Lock(soon(t)))
			down := make(chan error, 1)
			go func() { down <- s.Shutdown(soon(t)) }()
			eventually(t, "nothing is taken any more", func() bool {
				_, err := etcdlock.NewRWMutex(s, name+"-other").TryRLock(soon(t))
				return err != nil
			})
			require.NoError(t, m.Verify(soon(t)))
			require.NoError(t, m.Unlock(soon(t)))
			require.NoError(t, <-down)
			require.Empty(t, w.Queue(name))
		}},
		{"a request whose answer is lost has arrived", func(t *testing.T, w world, name string) {
			w.LoseNextAnswer()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err := w.Client().Put(ctx, name, "here")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			resp, err := w.Client().Get(soon(t), name)
			require.NoError(t, err)
			require.Len(t, resp.Kvs, 1)
			require.Equal(t, "here", string(resp.Kvs[0].Value))
		}},
		{"the end of the client is that of the Session", func(t *testing.T, w world, name string) {
			client := w.Client()
			s, err := etcdlock.NewSession(soon(t), client, etcdlock.WithTTL(ttl))
			require.NoError(t, err)
			m := etcdlock.NewMutex(s, name)
			require.NoError(t, m.Lock(soon(t)))
			ctx := m.Context()
			_ = client.Close()
			require.ErrorIs(t, over(t, ctx), etcdlock.ErrClientClosed)
			require.ErrorIs(t, s.Close(), etcdlock.ErrClientClosed)
		}},
	}
}
