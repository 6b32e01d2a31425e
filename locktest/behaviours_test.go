package locktest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// behaviour is a row of the table: what holds on the etcd in memory holds on the real server, or the first one lies.
type behaviour struct {
	name string
	run  func(t *testing.T, w world, name string)
}

// behaviours are those of every primitive, and those of single ones.
func behaviours() (all []behaviour) {
	for _, p := range primitives() {
		for _, b := range ofEach() {
			if b.needsDo && p.do == nil {
				continue
			}
			all = append(all, behaviour{p.name + " " + b.name, func(t *testing.T, w world, name string) { b.run(t, w, name, p) }})
		}
	}
	return append(all, ofOne()...)
}

// ttl is the shortest that etcd grants.
const ttl = 2 * time.Second

func session(w world) *etcdlock.Session { return w.Session(etcdlock.WithTTL(ttl)) }

// soon bounds what should not hang.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// over waits for the end of a hold, and returns why it ended.
func over(t *testing.T, h context.Context) error {
	t.Helper()
	select {
	case <-h.Done():
	case <-soon(t).Done():
		require.Fail(t, "the hold does not end")
	}
	return context.Cause(h)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx := soon(t)
	for !cond() {
		require.NoError(t, ctx.Err(), what)
		time.Sleep(10 * time.Millisecond)
	}
}

// taking is a take that waits in a goroutine.
type taking struct {
	ended chan struct{}
	held  held
	err   error
}

func taken(ctx context.Context, p primitive, s *etcdlock.Session, name string) *taking {
	a := &taking{ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		a.held, a.err = p.take(ctx, s, name)
	}()
	return a
}

func (a *taking) wait(t *testing.T) (held, error) {
	t.Helper()
	select {
	case <-a.ended:
	case <-soon(t).Done():
		require.Fail(t, "the call does not return")
	}
	return a.held, a.err
}

func ofEach() []struct {
	name    string
	needsDo bool
	run     func(t *testing.T, w world, name string, p primitive)
} {
	type row = struct {
		name    string
		needsDo bool
		run     func(t *testing.T, w world, name string, p primitive)
	}
	return []row{
		{"is had at once where it is free", false, func(t *testing.T, w world, name string, p primitive) {
			s := session(w)
			h, err := p.take(soon(t), s, name)
			require.NoError(t, err)
			require.NoError(t, h.Context().Err())
			require.NoError(t, h.Verify(soon(t)))
			all := w.Queue(name)
			require.Len(t, all, 1)
			require.Equal(t, etcdlock.Contender{
				Identity: s.Identity(), Token: h.Token(), Modified: h.Token(), Lease: s.Lease(), Key: all[0].Key, Class: p.class,
			}, all[0])
			require.NotEmpty(t, h.Key())
		}},
		{"is had by a try where it is free", false, func(t *testing.T, w world, name string, p primitive) {
			h, err := p.try(soon(t), session(w), name)
			require.NoError(t, err)
			require.NoError(t, h.Verify(soon(t)))
			require.NoError(t, h.Release(soon(t)))
			require.Empty(t, w.Queue(name))
		}},
		{"is nothing any more once it was released", false, func(t *testing.T, w world, name string, p primitive) {
			h, err := p.take(soon(t), session(w), name)
			require.NoError(t, err)
			ctx := h.Context()
			require.NoError(t, h.Release(soon(t)))
			require.Empty(t, w.Queue(name))
			require.ErrorIs(t, context.Cause(ctx), p.notHeld)
			require.ErrorIs(t, h.Verify(soon(t)), p.notHeld)
			require.ErrorIs(t, h.Release(soon(t)), p.notHeld)
		}},
		{"tells at once who is in the way", false, func(t *testing.T, w world, name string, p primitive) {
			w.Occupy(name, "somebody else")
			s := session(w)
			for range 3 {
				_, err := p.try(soon(t), s, name)
				var by *etcdlock.LockedError
				require.ErrorAs(t, err, &by)
				require.Equal(t, "somebody else", by.Holder)
				require.Len(t, w.Queue(name), 1, "and leaves nothing behind")
			}
		}},
		{"waits for its turn", false, func(t *testing.T, w world, name string, p primitive) {
			release := w.Occupy(name, "somebody else")
			a := taken(soon(t), p, session(w), name)
			eventually(t, "it queues", func() bool { return len(w.Queue(name)) == 2 })
			release()
			h, err := a.wait(t)
			require.NoError(t, err)
			require.NoError(t, h.Verify(soon(t)))
			require.Len(t, w.Queue(name), 1)
		}},
		{"gives up with its context", false, func(t *testing.T, w world, name string, p primitive) {
			w.Occupy(name, "somebody else")
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err := p.take(ctx, session(w), name)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorIs(t, err, etcdlock.ErrLocked)
			eventually(t, "it leaves nothing behind", func() bool { return len(w.Queue(name)) == 1 })
		}},
		{"queues again when somebody removes its ticket", false, func(t *testing.T, w world, name string, p primitive) {
			release := w.Occupy(name, "somebody else")
			a := taken(soon(t), p, session(w), name)
			eventually(t, "it queues", func() bool { return len(w.Queue(name)) == 2 })
			w.ExpireLeases()
			eventually(t, "it queues again", func() bool { return len(w.Queue(name)) == 2 })
			release()
			h, err := a.wait(t)
			require.NoError(t, err)
			require.NoError(t, h.Verify(soon(t)))
		}},
		{"is lost with its ticket", false, func(t *testing.T, w world, name string, p primitive) {
			h, err := p.take(soon(t), session(w), name)
			require.NoError(t, err)
			ctx := h.Context()
			w.Lose(name)
			require.ErrorIs(t, over(t, ctx), etcdlock.ErrLost)
			require.ErrorIs(t, h.Release(soon(t)), etcdlock.ErrLost)
		}},
		{"is lost for Verify at once", false, func(t *testing.T, w world, name string, p primitive) {
			h, err := p.take(soon(t), session(w), name)
			require.NoError(t, err)
			w.Lose(name)
			require.ErrorIs(t, h.Verify(soon(t)), etcdlock.ErrLost)
			require.Error(t, h.Context().Err())
		}},
		{"is lost with its lease, and had again on the next", false, func(t *testing.T, w world, name string, p primitive) {
			s := session(w)
			h, err := p.take(soon(t), s, name)
			require.NoError(t, err)
			before := h.Token()
			ctx := h.Context()
			w.ExpireLeases()
			require.ErrorIs(t, over(t, ctx), etcdlock.ErrLost)
			require.ErrorIs(t, h.Release(soon(t)), etcdlock.ErrLost)
			h, err = p.take(soon(t), s, name)
			require.NoError(t, err)
			require.Greater(t, h.Token(), before)
		}},
		{"is lost in time where etcd is away", false, func(t *testing.T, w world, name string, p primitive) {
			s := session(w)
			h, err := p.take(soon(t), s, name)
			require.NoError(t, err)
			ctx := h.Context()
			w.Cut()
			require.ErrorIs(t, over(t, ctx), etcdlock.ErrLost)
			require.ErrorIs(t, h.Release(soon(t)), etcdlock.ErrLost)
			w.Heal()
			h, err = p.take(soon(t), s, name)
			require.NoError(t, err)
			require.NoError(t, h.Verify(soon(t)))
		}},
		{"cannot be had where etcd is away", false, func(t *testing.T, w world, name string, p primitive) {
			s := session(w)
			w.Cut()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err := p.take(ctx, s, name)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			w.Heal()
			eventually(t, "nothing is left behind", func() bool { return len(w.Queue(name)) == 0 })
		}},
		{"is one ticket though an answer was lost", false, func(t *testing.T, w world, name string, p primitive) {
			s := session(w)
			w.LoseNextAnswer()
			h, err := p.take(soon(t), s, name)
			require.NoError(t, err)
			require.NoError(t, h.Verify(soon(t)))
			require.Len(t, w.Queue(name), 1)
		}},
		{"is released though an answer was lost", false, func(t *testing.T, w world, name string, p primitive) {
			h, err := p.take(soon(t), session(w), name)
			require.NoError(t, err)
			w.LoseNextAnswer()
			if err := h.Release(soon(t)); err != nil {
				require.ErrorIs(t, err, etcdlock.ErrUnconfirmed)
			}
			eventually(t, "it is gone", func() bool { return len(w.Queue(name)) == 0 })
		}},
		{"is had though etcd is slow", false, func(t *testing.T, w world, name string, p primitive) {
			s := session(w)
			w.Delay(100 * time.Millisecond)
			h, err := p.take(soon(t), s, name)
			require.NoError(t, err)
			require.NoError(t, h.Release(soon(t)))
			require.Empty(t, w.Queue(name))
		}},
		{"ends with its Session", false, func(t *testing.T, w world, name string, p primitive) {
			s := session(w)
			h, err := p.take(soon(t), s, name)
			require.NoError(t, err)
			ctx := h.Context()
			require.NoError(t, s.Close())
			require.ErrorIs(t, context.Cause(ctx), etcdlock.ErrClosed)
			require.Empty(t, w.Queue(name))
			require.ErrorIs(t, h.Release(soon(t)), etcdlock.ErrClosed)
			_, err = p.take(soon(t), s, name)
			require.ErrorIs(t, err, etcdlock.ErrClosed)
		}},
		{"guards a transaction while it lasts", false, func(t *testing.T, w world, name string, p primitive) {
			h, err := p.take(soon(t), session(w), name)
			require.NoError(t, err)
			client, guard := w.Client(), h.IsOwner()
			resp, err := client.Txn(soon(t)).If(guard...).Commit()
			require.NoError(t, err)
			require.True(t, resp.Succeeded)
			require.NoError(t, h.Release(soon(t)))
			for _, guard := range [][]clientv3.Cmp{guard, h.IsOwner()} {
				resp, err = client.Txn(soon(t)).If(guard...).Commit()
				require.NoError(t, err)
				require.False(t, resp.Succeeded)
			}
		}},
		{"has a greater token each time", false, func(t *testing.T, w world, name string, p primitive) {
			last := int64(0)
			for range 3 {
				h, err := p.take(soon(t), session(w), name)
				require.NoError(t, err)
				require.Greater(t, h.Token(), last)
				last = h.Token()
				require.NoError(t, h.Release(soon(t)))
			}
		}},
		{"is released after its work", true, func(t *testing.T, w world, name string, p primitive) {
			failed := errors.New("the work failed")
			err := p.do(soon(t), session(w), name, func(ctx context.Context) error {
				require.NoError(t, ctx.Err())
				require.Len(t, w.Queue(name), 1)
				return failed
			})
			require.ErrorIs(t, err, failed)
			require.Empty(t, w.Queue(name))
		}},
		{"tells its work that it was lost", true, func(t *testing.T, w world, name string, p primitive) {
			err := p.do(soon(t), session(w), name, func(ctx context.Context) error {
				w.ExpireLeases()
				return over(t, ctx)
			})
			require.ErrorIs(t, err, etcdlock.ErrLost)
		}},
	}
}
