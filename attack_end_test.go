package etcdlock

import (
	"context"
	"errors"
	"sync"
	"time"
)

// This file heals everything, and looks whether all is well then.

// finish ends the schedule.
func (w *world) finish(actors, forces *sync.WaitGroup) {
	w.logf("the end: everything is well again")
	w.mu.Lock()
	w.calm = true
	for _, c := range w.clients {
		w.healLocked(c)
	}
	w.mu.Unlock()
	for i := range w.members {
		w.etcd.Thaw(i)
	}
	for _, kv := range w.etcd.Keys("") {
		if kv.Lease == 0 {
			w.etcd.Delete(string(kv.Key))
		}
	}
	tidied := w.tidy()
	w.mu.Lock()
	settled := maxTime(w.late, time.Now())
	w.mu.Unlock()
	all := w.await("a call", actors, time.Until(settled)+2*w.ttl+25*time.Second) &&
		w.await("Close or NewSession", forces, 2*w.ttl+25*time.Second)
	if !all {
		tidied()
		return
	}
	time.Sleep(time.Until(settled))
	time.Sleep(w.ttl + 8*time.Second + w.linger) // the sweep, and the end of a lease whose revocation was lost
	tidied()
	w.empty("while Sessions are open")
	w.fresh()
	for _, sl := range w.slots {
		if w.may(traitGiven) && sl.id%2 == 0 {
			w.orphan(sl, sl.s, sl.client)
		} else {
			w.close(sl, sl.s)
		}
	}
	for _, s := range w.left.over {
		_ = s.Close()
	}
	w.empty("when all is closed")
	w.judgeHeard()
	w.down()
}

// down ends the clients and the cluster. Time goes on for a little, or what is about to end could not.
func (w *world) down() {
	for _, c := range w.clients {
		c.cancel()
	}
	w.etcd.Close()
	time.Sleep(time.Minute)
}

// await waits for all of them, and tells if that takes too long.
func (w *world) await(what string, all *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	}
	w.mu.Lock()
	kind := "hangs"
	if w.slowest > time.Second {
		kind = "hangs after a slow answer" // requests are given four times as long
	}
	for c := range w.running {
		w.violateLocked(kind, "%s: s%d %s since %v", what, c.who, c.what, c.began.Sub(w.begin))
	}
	w.mu.Unlock()
	select {
	case <-done:
		w.logf("it has ended after all")
		return true
	case <-time.After(time.Hour):
	}
	w.logf("%s", stacks())
	for _, c := range w.clients {
		c.cancel()
	}
	for _, sl := range w.slots {
		_ = sl.s.Close()
	}
	<-done
	w.down()
	return false
}

// empty looks for tickets that nobody holds or waits for.
func (w *world) empty(when string) {
	for _, kv := range w.etcd.Keys("") {
		if key := string(kv.Key); kv.Lease != 0 {
			w.violate("left behind", "%s@%d %s", key, kv.CreateRevision, when)
			w.etcd.Delete(key)
		}
	}
}

// fresh looks whether every value can be used again.
func (w *world) fresh() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, sl := range w.slots {
		if lost := sl.s.over(); sl.s.leases.given && lost != nil { // it has no right to another lease
			continue
		}
		for _, m := range sl.locks {
			if err := m.Unlock(ctx); !errors.Is(err, ErrNotHeld) && !errors.Is(err, ErrClosed) {
				w.logf("s%d %s %p still unlocked: %v", sl.id, m.name, m, err)
			}
			err := errors.Join(m.Lock(ctx), m.Context().Err(), m.Verify(ctx), m.Unlock(ctx))
			if err != nil {
				w.violate("not usable any more", "s%d %s %p: %v", sl.id, m.name, m, err)
			}
		}
	}
	w.freshFamily(ctx)
	time.Sleep(w.linger + time.Second)
	w.empty("after a fresh lock")
}
