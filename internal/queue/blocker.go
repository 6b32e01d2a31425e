package queue

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file finds out who holds, for the error of a caller that gives up. When it gives up there is no time left to
// ask. So somebody asks beforehand: once for all the goroutines of the Session that queue for the name, and beside their
// wait, since a handoff must not wait for a word in an error. Nobody asks where a ticket of this Session holds.

// nameAfter is how long a wait must last before it is worth asking who holds, and how long before a caller's deadline
// that has to be.
const nameAfter = 50 * time.Millisecond

// whenToAsk fires when it is time to ask. Whoever is next reads one key for it. For whoever is further back, etcd has to
// read the whole queue: a crowd that did so as soon as it had queued would keep the server from its handoffs.
func (t *Ticket) whenToAsk(ctx context.Context, a ahead) <-chan time.Time {
	after := nameAfter
	if !a.none() && !a.alone() {
		after = t.lease.TTL / 3
		if end, ok := ctx.Deadline(); ok {
			after = max(nameAfter, time.Until(end)-nameAfter)
		}
	}
	return time.After(after)
}

// askWhoHolds asks, unless somebody of the group does, or has just done it, or the holder is one of ours.
func (t *Ticket) askWhoHolds(a ahead) {
	g, q := t.group, t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if g.asking || g.seen != nil && lease.Now().Sub(g.seenAt) < nameAfter || g.ownHolderLocked(t.kind.Class) != nil {
		return
	}
	g.asking = q.tasks.Go(func() {
		asked := lease.Now()
		by := t.whoHolds(a)
		q.mu.Lock()
		defer q.mu.Unlock()
		if g.asking = false; by != nil {
			g.seen, g.seenAt = by, asked
		}
	})
}

// whoHolds asks any member who holds; nil if it cannot be told. Behind readers that hold, a writer that waits is what a
// reader waits for: it is told that one.
func (t *Ticket) whoHolds(a ahead) *Contender {
	g, c := t.group, t.group.q.c
	ctx, cancel := context.WithTimeout(g.q.tasks.Back(), c.AttemptTimeout(0))
	defer cancel()
	key, opts := g.prefix, []clientv3.OpOption{
		clientv3.WithSerializable(), clientv3.WithPrefix(), clientv3.WithLimit(1),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend),
	}
	if a.alone() || t.kind.Class == Reader { // the scan of a long queue is saved
		key, opts = a.near.key, opts[:1]
	}
	resp, err := c.Get(ctx, key, opts...)
	if err != nil || len(resp.Kvs) == 0 || !g.direct(string(resp.Kvs[0].Key)) {
		return nil
	}
	return contender(resp.Kvs[0])
}

// blocker is who holds, as far as this Session knows, for the error of the caller of t. It is nil where t was not seen to
// wait in the queue of an etcd that answers.
func (t *Ticket) blocker() *Contender {
	if t.group.q.leases.LastErr() != nil {
		return nil
	}
	q := t.group.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.rev == 0 {
		return nil
	}
	by := t.group.ownHolderLocked(t.kind.Class)
	if by == nil && (t.turn != nil && t.group.seenAt >= t.turn.began || lease.Now().Sub(t.group.seenAt) < t.lease.TTL/3) {
		by = t.group.seen // during this call, or not long before
	}
	if by == nil || by.Rev >= t.rev || t.kind.Class.shares(t.group.class(by.Key)) {
		return new(Contender)
	}
	return by
}

// ownHolderLocked tells that a ticket of this Session holds which is in the way of one of class c. It needs no asking.
func (g *group) ownHolderLocked(c Class) *Contender {
	if t := g.holder; t != nil && t.state == held && !t.hold.Lost() && (c != t.kind.Class || c.alone()) {
		return &Contender{Key: t.key, Value: t.value, Rev: t.rev, Lease: t.lease.ID}
	}
	return nil
}
