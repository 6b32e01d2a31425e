package etcdlock

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file has what those do that lock.

// act starts everybody.
func (w *world) act(r *rand.Rand, actors *sync.WaitGroup) {
	for range 3 + r.IntN(6) {
		own := rand.New(rand.NewPCG(r.Uint64(), 2))
		actors.Go(func() {
			for w.pause(some(own, w.ttl/4)) {
				w.lockOnce(own)
			}
		})
	}
	if w.may(traitElections) {
		for range 1 + r.IntN(4) {
			own := rand.New(rand.NewPCG(r.Uint64(), 3))
			actors.Go(func() {
				for w.pause(some(own, w.ttl/4)) {
					w.electOnce(own)
				}
			})
		}
	}
	if w.may(traitFamily) {
		for range 3 + r.IntN(6) {
			own := rand.New(rand.NewPCG(r.Uint64(), 8))
			actors.Go(func() {
				for w.pause(some(own, w.ttl/4)) {
					w.shareOnce(own)
				}
			})
		}
	}
	if w.may(traitGiven) {
		for range 1 + r.IntN(3) {
			own := rand.New(rand.NewPCG(r.Uint64(), 9))
			actors.Go(func() {
				for w.pause(some(own, w.ttl/8)) {
					w.resumeOnce(own)
				}
			})
		}
	}
	own := rand.New(rand.NewPCG(r.Uint64(), 4))
	actors.Go(func() {
		for w.pause(some(own, w.ttl)) {
			w.askOnce(own)
		}
	})
}

// lockOnce takes a lock in one way or another, works and releases it.
func (w *world) lockOnce(r *rand.Rand) {
	sl, m, _ := w.pick(r)
	if !w.use(m, 1) {
		return
	}
	defer w.use(m, -1)
	ctx, cancel := w.patience(r, 2)
	defer cancel()
	n := r.IntN(10)
	switch {
	case n == 0 && w.useLocker(r, sl, m):
		return
	case n == 1:
		w.doOnce(ctx, r, sl, m)
		return
	}
	var err error
	var c *call
	switch {
	case n < 4:
		c = w.calling(ctx, sl.id, "TryLock %s %p", m.name, m)
		err = m.TryLock(ctx)
	case n < 6 && w.may(traitSlowAdopt):
		c = w.calling(context.Background(), sl.id, "Lock %s %p, with a goroutine that is not scheduled for a while", m.name, m)
		err = slowLock(ctx, m, some(r, w.ttl))
	default:
		c = w.calling(ctx, sl.id, "Lock %s %p", m.name, m)
		err = m.Lock(ctx)
	}
	w.returned(c, err)
	if err != nil {
		return
	}
	b := w.believe(sl, m.name, m.Context(), m.Token(), m.Key(), true)
	w.work(r, b, m.Verify, one(m.IsOwner))
	if w.may(traitFamily) && r.IntN(6) == 0 {
		w.stay(r, sl, m, b)
		return
	}
	rctx, rcancel := w.patience(r, 5)
	defer rcancel()
	w.unlock(rctx, r, sl, m, b)
}

// use counts the goroutines that use a value; false if one of them wants to be alone.
func (w *world) use(m *Mutex, n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n > 0 && w.using[m] < 0 {
		return false
	}
	if w.using[m] < 0 {
		n = -w.using[m] // it was alone
	}
	w.using[m] += n
	return true
}

// alone keeps others from the value until use ends; false if there are some. Unlock called again must not meet the next
// hold of the same value.
func (w *world) alone(m *Mutex) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.using[m] != 1 {
		return false
	}
	w.using[m] = -1
	return true
}

// slowLock is Mutex.Lock in a goroutine that does not get to run for d after its ticket was granted.
func slowLock(ctx context.Context, m *Mutex, d time.Duration) error {
	for {
		if err := m.awaitFree(ctx); err != nil {
			return err
		}
		t, err := m.acquire(ctx, m.s.opts.identity)
		if err != nil {
			return err
		}
		time.Sleep(d)
		if m.adopt(t) != nil {
			return nil
		}
	}
}

// unlock releases, more than once if need be.
func (w *world) unlock(ctx context.Context, r *rand.Rand, sl *slot, m *Mutex, b *belief) {
	l := leaseOf(m.held())
	w.end(b)
	c := w.byDeadline(w.calling(ctx, sl.id, "Unlock %s %p", m.name, m), l)
	err := m.Unlock(ctx)
	w.returned(c, err)
	w.judgeRelease(b, "Unlock", err)
	if err == nil || errors.Is(err, ErrLost) || errors.Is(err, ErrClosed) || !w.alone(m) {
		return
	}
	again, cancel := w.patience(r, 0)
	defer cancel()
	c = w.calling(again, sl.id, "Unlock again %s %p", m.name, m)
	err = m.Unlock(again)
	w.returned(c, err)
}

// leaseOf is the lease of what a value holds, nil if it holds nothing.
func leaseOf(h *Hold) *lease.Lease {
	if h == nil {
		return nil
	}
	return h.ticket.Hold().Lease()
}

// useLocker locks as a sync.Locker, which waits for ever: not on a client that is to be closed.
func (w *world) useLocker(r *rand.Rand, sl *slot, m *Mutex) bool {
	if w.may(traitReopen) || w.may(traitFinal) {
		return false
	}
	c := w.calling(context.Background(), sl.id, "Locker.Lock %s %p", m.name, m)
	if closed := lockOf(m); closed != nil { // which happens only while a schedule that hung is torn down
		w.returned(c, closed)
		return true
	}
	w.returned(c, nil)
	b := w.believe(sl, m.name, m.Context(), m.Token(), m.Key(), true)
	w.work(r, b, m.Verify, one(m.IsOwner))
	l := leaseOf(m.held())
	w.end(b)
	c = w.byDeadline(w.calling(context.Background(), sl.id, "Locker.Unlock %s %p", m.name, m), l)
	if l == nil {
		c.by(time.Now(), "a hold that was over")
	}
	m.Locker().Unlock()
	w.returned(c, nil)
	return true
}

// lockOf locks as a sync.Locker, and tells why it panics.
func lockOf(m *Mutex) (err error) {
	defer func() {
		if p, ok := recover().(error); ok {
			err = p
		}
	}()
	m.Locker().Lock()
	return nil
}

func (w *world) doOnce(ctx context.Context, r *rand.Rand, sl *slot, m *Mutex) {
	c := w.calling(context.Background(), sl.id, "Do %s %p", m.name, m)
	var b *belief
	err := m.Do(ctx, func(ctx context.Context) error {
		b = w.believes(&belief{slot: sl, name: m.name, ctx: m.Context(), token: m.Token(), key: m.Key(), mutex: true, fn: true})
		w.work(r, b, m.Verify, one(m.IsOwner))
		w.end(b)
		return nil
	})
	w.returned(c, err)
	if b != nil {
		w.judgeRelease(b, "Do", err)
	}
}

// work is the time under a hold.
func (w *world) work(r *rand.Rand, b *belief, verify func(context.Context) error, guard func() []clientv3.Cmp) {
	for range r.IntN(4) {
		runtime.Gosched()
		switch r.IntN(4) {
		case 0:
			ctx, cancel := w.patience(r, 0)
			c := w.calling(ctx, b.slot.id, "Verify %s@%d", b.name, b.token)
			err := verify(ctx)
			w.returned(c, err)
			cancel()
			w.judgeVerify(b, c, err)
		case 1:
			w.write(r, b, guard())
		default:
			w.pause(some(r, w.ttl/2))
		}
		if b.ctx.Err() != nil && r.IntN(2) == 0 {
			return
		}
	}
}

// write sends a guarded transaction, which may be under way for longer than the hold lasts.
func (w *world) write(r *rand.Rand, b *belief, guard []clientv3.Cmp) {
	ctx, cancel := context.WithTimeout(context.Background(), some(r, w.ttl))
	defer cancel()
	w.logf("s%d writes under %s@%d", b.slot.id, b.name, b.token)
	_, _ = b.client.client.Txn(ctx).If(guard...).Then(clientv3.OpPut(guarded+b.name, b.mark())).Commit()
}
