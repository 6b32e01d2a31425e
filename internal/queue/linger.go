package queue

import (
	"context"
	"time"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file keeps a released lock for its Session's next hold (see WithLinger).
//
// A released ticket idles: it stays in etcd, so nobody else can hold, and the next Lock of the Session takes it up
// without asking. What makes that fair is a mirror of the queue, which knows who else is in it: a ticket idles only while
// the mirror says that nobody is, and leaves the moment somebody comes. Without a mirror that is sure, a release is an
// ordinary one.

// others is who else is in the queue of one name, from the first hold of it until it has rested for the linger time
// without a ticket. The timers, too, are set and used under the Tickets' mu.
type others struct {
	cancel context.CancelFunc
	rest   *time.Timer // ends it when the group has had no ticket for long enough
	idling *time.Timer // ends the idling
	blind  *time.Timer // ends it where the queue was not read for too long: the watch may have fallen silent

	// Guarded by the Tickets' mu.
	sure  bool // count is what etcd has
	count int  // contenders that are not this Session's
}

// watchOthersLocked begins to watch who else queues for a name that is to linger.
func (g *group) watchOthersLocked() {
	q := g.q
	if q.linger == 0 || g.others != nil || !g.holder.kind.Handoff {
		return
	}
	ctx, cancel := context.WithCancel(q.tasks.Back())
	o := &others{cancel: cancel}
	if !q.tasks.Go(func() { g.mirrorOthers(ctx, o) }) {
		cancel()
		return
	}
	o.rest = time.AfterFunc(q.linger, func() { g.rested(o) })
	o.rest.Stop()
	o.idling = time.AfterFunc(q.linger, g.stopIdling)
	o.idling.Stop()
	o.blind = time.AfterFunc(q.linger, func() { g.unsure(o) })
	o.blind.Stop()
	g.others = o
}

// mirrorOthers keeps o until ctx ends. While its watch is broken, nothing idles; nor where for most of a TTL no read of the
// queue was answered, since its watch may have fallen silent. On a road that slow nothing lingers.
func (g *group) mirrorOthers(ctx context.Context, o *others) {
	q := g.q
	most := q.renewal() * 9 / 4 // of three TTL/3
	m := &mirror{q: q, keys: g.Keys}
	ours := map[string]bool{} // of the contenders: whose they are is asked once, when they come, since leases change meanwhile
	m.event = func(before, now *Contender) {
		if now.Rev == 0 {
			delete(ours, now.Key)
			q.removedBehindUs(now.Key, now.Mod)
		} else if before == nil && g.oursNow(now.Key) {
			ours[now.Key] = true
		}
	}
	m.changed = func(listed bool) {
		if listed {
			clear(ours)
			for key := range m.contenders {
				if g.oursNow(key) {
					ours[key] = true
				}
			}
		}
		q.mu.Lock()
		o.count = len(m.contenders) - len(ours)
		left := m.read.Add(most).Sub(lease.Now())
		o.sure = m.told() && left > 0
		free := o.sure && o.count == 0
		o.blind.Reset(left)
		q.mu.Unlock()
		if !free {
			g.stopIdling()
		}
	}
	m.blind = func() { g.unsure(o) }
	_ = m.run(ctx) // whatever ends it, from here on nothing idles
	q.mu.Lock()
	defer q.mu.Unlock()
	g.dropOthersLocked(o)
}

// oursNow reports whether a key has a name of this Session's, under its lease at the moment.
func (g *group) oursNow(key string) bool {
	q := g.q
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lease.numberLocked(key) > 0
}

// unsure says that nobody knows who queues, until the mirror tells again.
func (g *group) unsure(o *others) {
	g.q.mu.Lock()
	o.sure = false
	its := g.others == o
	g.q.mu.Unlock()
	if its {
		g.stopIdling()
	}
}

// removedBehindUs looks whether a key that is gone by revision at was one of ours, which waits or holds, or is about to.
func (q *Tickets) removedBehindUs(key string, at int64) {
	q.mu.Lock()
	t := q.lease.tickets[key]
	ours := t != nil && t.rev != 0 && t.rev < at
	q.mu.Unlock()
	if ours {
		t.Removed(at)
	}
}

// rested runs when the group has had no ticket for the linger time.
func (g *group) rested(o *others) {
	q := g.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if g.refs == 0 {
		g.dropOthersLocked(o)
	}
}

// dropOthersLocked ends o at once: from here on nothing idles on its word.
func (g *group) dropOthersLocked(o *others) {
	o.cancel()
	if g.others != o {
		return
	}
	o.rest.Stop()
	o.idling.Stop()
	o.blind.Stop()
	g.others = nil
	if g.idle != nil {
		g.idle.leaveLocked()
	}
	g.dropLocked()
}

// stopIdling releases the group's ticket if it idles.
func (g *group) stopIdling() {
	q := g.q
	q.mu.Lock()
	t := g.idle
	q.mu.Unlock()
	if t != nil {
		t.leaveIf(idle)
	}
}

// lingers keeps a ticket whose hold was released, if nobody else wants it. To those of this Session that queue the hold
// goes on in memory instead.
func (t *Ticket) lingers() bool {
	q, g := t.group.q, t.group
	if q.linger == 0 || !t.kind.Handoff {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	o := g.others
	switch {
	case o == nil, !o.sure, q.tasks.Closing().Err() != nil:
		return false
	case o.count > 0, // somebody else waits,
		g.refs > 1,        // or one of ours, to which the hold goes in memory,
		t.checking != nil, // or it may be a phantom,
		g.idle != nil,     // or that one is: the deletion tells
		!t.moveLocked(idle):
		return false
	}
	o.idling.Reset(q.linger)
	return true
}

// takeUpLocked takes up an idle ticket for the next hold; nil if there is none. One of another kind, such as an
// Election's, does not take over what a Mutex holds: then the ticket leaves.
func (g *group) takeUpLocked(k *Kind) *Ticket {
	if g == nil || g.idle == nil {
		return nil
	}
	old := g.idle
	if !k.Handoff || k.Class != old.kind.Class || g.q.tasks.Closing().Err() != nil {
		old.leaveLocked()
		return nil
	}
	g.others.idling.Stop()
	return old.takeUpLocked()
}
