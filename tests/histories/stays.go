package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock"
)

// This file has what is different where a lock stays taken after its hold: for everybody else it is as if the hold went on.

// staying is where most locks stay. Elsewhere few do: a stay lasts two seconds, which is the least that etcd grants.
const staying = root + "s"

// stays decides whether h ends so that its lock stays. Who takes several names waits for it in the queues of all of them, so
// elsewhere stays are few, and where a bug is planted, which shows when clients meet, there are none.
func (w *worker) stays(h *held) bool {
	switch {
	case h.byBug:
		return false
	case h.name == staying:
		return w.chance(2)
	}
	return w.cfg.Bug == "" && w.chance(80)
}

// leave ends h so that its lock stays taken, and then tries to write under the guard that the hold had.
func (w *worker) leave(ctx context.Context, h *held, mu *etcdlock.Mutex) error {
	d, guard := w.between(time.Millisecond, 2500*time.Millisecond), h.guard()
	if w.cfg.Bug == "keen" {
		guard = clientv3.Compare(clientv3.CreateRevision(h.key), "=", h.token)
	}
	h.until = clock() + int64(d)
	err := w.release(ctx, h, record{What: "UnlockAfter", Stay: int64(d)}, func(ctx context.Context) error {
		if w.cfg.Bug == "vanish" {
			return mu.Unlock(ctx)
		}
		return mu.UnlockAfter(ctx, d)
	})
	if err == nil {
		w.guarded(ctx, h, guard)
	}
	return err
}

// patient locks mu with more patience than others have: it waits for whole stays.
func (w *worker) patient(ctx context.Context, mu *etcdlock.Mutex) {
	pause(w.stop, w.between(time.Millisecond, 40*time.Millisecond))
	lctx, cancel := context.WithTimeout(ctx, w.between(w.cfg.TTL, 3*w.cfg.TTL))
	h := w.lock(lctx, mu, "Lock", w.bugLock(mu))
	cancel()
	w.section(ctx, h, mu)
}

// passing opens a Session for one hold at a time, and closes it as soon as it is known that the lock stays, or is not.
func (w *worker) passing(ctx context.Context) {
	for w.stop.Err() == nil {
		s, err := w.open(ctx, 1)
		if s == nil || err != nil {
			return
		}
		w.patient(ctx, etcdlock.NewMutex(s, staying))
		_ = s.Close()
	}
}

// stayed reports whether the lock was to stay, and did: its key was moved to another lease, or its holder was told so.
func (h *history) stayed(x *hold) bool {
	if x.until == 0 || x.released {
		return x.until != 0
	}
	first := int64(0)
	for _, c := range h.log.of(x.key) {
		switch {
		case c.Rev == x.token:
			first = c.Lease
		case c.Create == x.token && c.Lease != first:
			return true
		}
	}
	return false
}

// checkStays holds every lock that stayed against its key, whoever might have wanted it: it was there for as long as was
// said. And nobody wrote under the guard of the hold that had ended.
func (h *history) checkStays(name string) []finding {
	var found []finding
	for _, x := range h.holds[name] {
		if !h.stayed(x) {
			continue
		}
		if gone := h.goneAt(x); gone != nil && gone.Seen < x.until && x.excused == "" {
			found = append(found, finding{"stays, " + name, fmt.Sprintf(
				"the key of token %d of %s had gone %.3f s before its time", x.token, x.worker, float64(x.until-gone.Seen)/1e9)})
		}
		if x.wrote {
			found = append(found, finding{"stays, " + name, fmt.Sprintf(
				"%s wrote under the guard of token %d after it had ended that hold", x.worker, x.token)})
		}
	}
	return found
}
