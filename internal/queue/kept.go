package queue

import (
	"context"
	"slices"
	"time"
)

// This file keeps watches between two waits.
//
// Whoever takes turns with others waits for the same ones again, whose keys are mostly the same, since names are used
// again. So a watch is kept for a moment after its wait. To close it and open the next one would take as many requests as
// all else that a turn takes, and a read of what happened in between. For how long: a turn of etcd's and a short piece of
// work under the lock. How many of a name: near and far of the last wait, so that a release is told to few who do not wait.
// Of how many names: a Session that waits for ever new names has no use for any.

const (
	keptFor   = time.Second
	keptMost  = 2
	keptNames = 64
)

// kept is a watch that nobody reads.
type kept struct {
	follower
	over func() bool // stops the timer
}

// lock is the name that it queues for.
func (p generation) lock() string {
	name, _ := lockOf(p.key)
	return name
}

// keep takes the watch from f.
func (q *Tickets) keep(f *follower) {
	if f.Broken() { // or never begun
		*f = follower{}
		return
	}
	k := &kept{follower: *f}
	*f = follower{}
	ctx, cancel := context.WithTimeout(q.tasks.Closing(), keptFor)
	stop := context.AfterFunc(ctx, func() { q.dropKept(q.findKept(k.generation, k)) })
	k.over = func() bool { defer cancel(); return stop() }
	q.mu.Lock()
	all := append(q.kept[k.lock()], k)
	if len(q.kept) < keptNames || len(all) > 1 {
		q.kept[k.lock()] = all[max(len(all)-keptMost, 0):]
		all = all[:max(len(all)-keptMost, 0)]
	}
	q.mu.Unlock()
	for _, k := range all {
		q.dropKept(k)
	}
	if ctx.Err() != nil { // perhaps before it was there
		q.dropKept(q.findKept(k.generation, k))
	}
}

// findKept takes a watch on the key of p from those that are kept, or only that one; nil if it is not there.
func (q *Tickets) findKept(p generation, only *kept) *kept {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.kept[p.lock()]
	i := slices.IndexFunc(all, func(k *kept) bool { return k.key == p.key && (only == nil || k == only) })
	if i < 0 {
		return nil
	}
	k := all[i]
	if len(all) == 1 {
		delete(q.kept, p.lock())
	} else {
		q.kept[p.lock()] = slices.Concat(all[:i], all[i+1:])
	}
	return k
}

// dropKept closes a watch that is not kept any more.
func (q *Tickets) dropKept(k *kept) {
	if k != nil {
		k.over()
		k.Stop()
	}
}
