package main

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// This file has the workers whose acquisitions return a Hold.

// readers takes the read side of m in all the ways there are.
func (w *worker) readers(ctx context.Context, m *etcdlock.RWMutex) {
	for w.stop.Err() == nil {
		pause(w.stop, w.between(time.Millisecond, 40*time.Millisecond))
		switch {
		case w.chance(5):
			w.readUnder(ctx, m)
		case w.chance(4):
			w.oneHold(ctx, m, "TryRLock", "read", w.between(20*time.Millisecond, w.cfg.TTL), m.TryRLock)
		default:
			w.oneHold(ctx, m, "RLock", "read", w.between(5*time.Millisecond, 3*w.cfg.TTL), w.bugRLock(m))
		}
	}
}

// named is what a hold is of.
type named interface{ Name() string }

// oneHold takes a Hold, works under it and releases it.
func (w *worker) oneHold(ctx context.Context, n named, what, class string, limit time.Duration,
	take func(context.Context) (*etcdlock.Hold, error),
) {
	h := &held{name: n.Name(), class: class}
	var got *etcdlock.Hold
	h.guard = func() clientv3.Cmp { return got.IsOwner()[0] }
	h.proof = func(ctx context.Context) error { return got.Verify(ctx) }
	lctx, cancel := context.WithTimeout(ctx, limit)
	h = w.acquire(lctx, h, what, func(ctx context.Context) (err error) { got, err = take(ctx); return err },
		func() (int64, string, context.Context) { return got.Token(), got.Key(), got.Context() })
	cancel()
	if h == nil {
		return
	}
	w.work(ctx, h)
	rctx, cancel := context.WithTimeout(ctx, w.between(20*time.Millisecond, w.cfg.TTL))
	defer cancel()
	_ = w.release(rctx, h, record{What: "Release"}, func(ctx context.Context) error {
		if h.byBug {
			_, err := w.client.Delete(ctx, h.key)
			return err
		}
		return got.Release(ctx)
	})
}

// readUnder is RDo. What is held is not told, so only that the call ends is looked at.
func (w *worker) readUnder(ctx context.Context, m *etcdlock.RWMutex) {
	_ = w.call(ctx, w.between(20*time.Millisecond, 3*w.cfg.TTL), record{Kind: isOther, What: "RDo", Name: m.Name()},
		func(ctx context.Context) error {
			return m.RDo(ctx, func(ctx context.Context) error {
				pause(ctx, w.between(time.Millisecond, 20*time.Millisecond))
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				return nil
			})
		})
}
