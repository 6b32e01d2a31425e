package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// This file has what those do that read, take permits, and take several names at once.

// family makes the values of a Session that share the names of its Mutexes. Some semaphores disagree about n.
func (w *world) family(s *Session) (reads []*RWMutex, sems []*Semaphore) {
	if !w.may(traitFamily) {
		return nil, nil
	}
	for _, name := range lockNames[:3] { // elections use the last
		reads = append(reads, NewRWMutex(s, name))
		for _, n := range []int{3, 3, 2} {
			sems = append(sems, NewSemaphore(s, name, n))
		}
	}
	return reads, sems
}

// one makes a list of one guard.
func one(guard func() clientv3.Cmp) func() []clientv3.Cmp {
	return func() []clientv3.Cmp { return []clientv3.Cmp{guard()} }
}

// shareOnce takes a hold that is a value of its own in one way or another, works and releases it.
func (w *world) shareOnce(r *rand.Rand) {
	w.mu.Lock()
	sl := w.slots[r.IntN(len(w.slots))]
	s, i := sl.s, 0
	if !w.may(traitOneName) {
		i = r.IntN(len(sl.reads))
	}
	m, sem := sl.reads[i], sl.sems[3*i+r.IntN(3)]
	w.mu.Unlock()
	ctx, cancel := w.patience(r, 2)
	defer cancel()
	names := []string{m.name}
	var h *Hold
	var err error
	var c *call
	tried := false
	weight := 1 + r.IntN(sem.permits)
	switch n := r.IntN(12); {
	case n < 2:
		c = w.calling(ctx, sl.id, "RLock %s", m.name)
		h, err = m.RLock(ctx)
	case n < 4:
		tried = true
		c = w.trying(ctx, sl, names, "read-0-1", "TryRLock %s", m.name)
		h, err = m.TryRLock(ctx)
	case n < 6:
		c = w.calling(ctx, sl.id, "Acquire %s of %d", m.name, sem.permits)
		h, err = sem.Acquire(ctx)
	case n < 7:
		c = w.calling(ctx, sl.id, "AcquireN %s %d of %d", m.name, weight, sem.permits)
		h, err = sem.AcquireN(ctx, weight)
	case n < 9:
		tried = true
		leaf := fmt.Sprintf("of-%d-w%d-0-1", sem.permits, weight)
		c = w.trying(ctx, sl, names, leaf, "TryAcquireN %s %d of %d", m.name, weight, sem.permits)
		h, err = sem.TryAcquireN(ctx, weight)
	default:
		names = nil
		for _, i := range r.Perm(len(lockNames))[:1+r.IntN(len(lockNames))] {
			names = append(names, lockNames[i])
		}
		if n < 11 {
			c = w.calling(ctx, sl.id, "LockAll %v", names)
			h, err = LockAll(ctx, s, names...)
		} else {
			tried = true
			c = w.trying(ctx, sl, names, "0-1", "TryLockAll %v", names)
			h, err = TryLockAll(ctx, s, names...)
		}
		slices.Sort(names)
	}
	if tried {
		w.tried(c, err)
	}
	w.returned(c, err)
	if err != nil {
		return
	}
	w.share(r, sl, names, h)
}

// share is the time under such a hold, and its end.
func (w *world) share(r *rand.Rand, sl *slot, names []string, h *Hold) {
	keys := h.Keys()
	if len(keys) != len(names) {
		w.violate("not held and was", "s%d: %d keys of %v", sl.id, len(keys), names)
		return
	}
	set := make([]*belief, len(names))
	for i, key := range keys {
		b := &belief{slot: sl, name: names[i], ctx: h.Context(), token: h.Token(), key: key, set: &set}
		set[i] = b
		if h.named.kind == allKind {
			w.mu.Lock()
			w.sets = append(w.sets, b)
			w.mu.Unlock()
		}
	}
	for _, b := range set {
		w.begins(b)
	}
	b := set[r.IntN(len(set))]
	for range 1 + r.IntN(2) {
		switch r.IntN(4) {
		case 0:
			w.mu.Lock()
			for _, b := range set {
				b.wanted, b.asked = h.Wanted(), time.Now()
			}
			w.mu.Unlock()
		case 1, 2:
			if h.ticket.Permit() {
				w.number(r, b, h)
			}
		}
		w.work(r, b, h.Verify, h.IsOwner)
	}
	w.giveBack(r, sl, set, h)
}

// giveBack releases, sometimes twice at once.
func (w *world) giveBack(r *rand.Rand, sl *slot, set []*belief, h *Hold) {
	for _, b := range set {
		w.end(b)
	}
	n := 1 + r.IntN(4)/3
	answers := make(chan error, n)
	for range n {
		ctx, cancel := w.patience(r, 5)
		go func() {
			defer cancel()
			runtime.Gosched()
			c := w.byDeadline(w.calling(ctx, sl.id, "Release %s@%d", set[0].name, set[0].token), h.ticket.Hold().Lease())
			err := h.Release(ctx)
			w.returned(c, err)
			answers <- err
		}()
	}
	var err error
	real := 0
	for range n {
		e := <-answers
		if n == 1 || !errors.Is(e, ErrNotHeld) {
			err, real = e, real+1
		}
	}
	if real == 0 {
		w.violate("not held and was", "%v: no Release of two", set[0])
		return
	}
	for _, b := range set {
		w.judgeRelease(b, "Release", err)
	}
	if errors.Is(err, ErrUnconfirmed) {
		again, cancel := w.patience(r, 0)
		defer cancel()
		c := w.calling(again, sl.id, "Release again %s@%d", set[0].name, set[0].token)
		w.returned(c, h.Release(again))
	}
}

// number asks for the number of a permit.
func (w *world) number(r *rand.Rand, b *belief, h *Hold) {
	ctx, cancel := w.patience(r, 0)
	defer cancel()
	c := w.calling(ctx, b.slot.id, "Slot %s@%d", b.name, b.token)
	n, token, err := h.Slot(ctx)
	w.returned(c, err)
	if err != nil || h.Context().Err() != nil {
		return
	}
	w.judgeNumber(b, fmt.Sprintf("%s/%sslot/%d", b.name, b.id().word(), n), token)
}

// stay releases a Mutex that stays taken for a while.
func (w *world) stay(r *rand.Rand, sl *slot, m *Mutex, b *belief) {
	d := some(r, 3*time.Second)
	l := leaseOf(m.held())
	w.end(b)
	ctx, cancel := w.patience(r, 5)
	defer cancel()
	st := &stayed{until: w.storeTime().Add(d)}
	if d > 0 && b.live {
		w.mu.Lock()
		w.stays[b.id()] = st
		w.mu.Unlock()
	}
	c := w.byDeadline(w.calling(ctx, sl.id, "UnlockAfter %v %s@%d", d, m.name, b.token), l)
	err := m.UnlockAfter(ctx, d)
	w.returned(c, err)
	w.mu.Lock()
	st.confirmed = err == nil
	w.mu.Unlock()
	w.judgeRelease(b, "UnlockAfter", err)
	if errors.Is(err, ErrUnconfirmed) && w.alone(m) {
		again, cancel := w.patience(r, 0)
		defer cancel()
		c = w.calling(again, sl.id, "Unlock again after UnlockAfter %s %p", m.name, m)
		err = m.Unlock(again)
		w.returned(c, err)
		w.mu.Lock()
		st.confirmed = err == nil
		w.mu.Unlock()
	}
}

// freshFamily looks whether every value can be used again.
func (w *world) freshFamily(ctx context.Context) {
	try := func(sl *slot, what string, h *Hold, err error) {
		if err == nil {
			err = errors.Join(h.Context().Err(), h.Verify(ctx), h.Release(ctx))
		}
		if err != nil {
			w.violate("not usable any more", "s%d %s: %v", sl.id, what, err)
		}
	}
	for _, sl := range w.slots {
		if sl.s.leases.given && sl.s.over() != nil {
			continue
		}
		for _, m := range sl.reads {
			h, err := m.RLock(ctx)
			try(sl, "RLock "+m.name, h, err)
			h, err = LockAll(ctx, sl.s, m.name, "both")
			try(sl, "LockAll "+m.name, h, err)
		}
		for _, m := range sl.sems {
			h, err := m.AcquireN(ctx, m.permits)
			try(sl, "AcquireN "+m.name, h, err)
		}
	}
}
