package queue

import (
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcdlock/etcdlock/internal/lease"
)

// This file takes a lock only if it is free.

// Seen is a holder that etcd named at an earlier try. The zero value is none.
type Seen generation

// Try takes the lock if nobody is in the way, and else returns who is. seen is the holder that etcd named at the last try,
// and is set to the one that it names now.
func (q *Tickets) Try(ctx context.Context, k *Kind, name, value string, seen *Seen) (t *Ticket, by *Contender, err error) {
	for {
		l, err := q.usable(ctx)
		if err != nil {
			return nil, nil, err
		}
		t, takenUp := q.newTicket(l, k, name, value)
		if takenUp {
			return t, nil, nil
		}
		q.mu.Lock()
		by := t.group.ownHolderLocked()
		if t.group.sharesLocked(k.Class) {
			by = nil // etcd tells who else is in the way
		}
		q.mu.Unlock()
		if by != nil {
			t.forget()
			return nil, by, nil
		}
		by, err = t.try(ctx, seen)
		switch {
		case err == nil && by != nil:
			*seen = Seen{by.Key, by.Rev}
			if t.rev == 0 {
				t.forget() // it was never put
			} else {
				t.Leave()
			}
			return nil, by, nil
		case err == nil:
			err = t.grant()
		}
		if err == nil {
			return t, nil, nil
		}
		t.giveUp(err)
		if !errors.Is(err, errRequeue) && l.Context().Err() == nil || ctx.Err() != nil {
			return nil, nil, q.why(ctx, err)
		}
	}
}

// try puts the ticket if nobody is in the way, and else returns who is.
func (t *Ticket) try(ctx context.Context, seen *Seen) (by *Contender, err error) {
	ctx, release := t.lease.Bound(ctx, errRequeue)
	defer release()
	if err := t.group.settle(ctx); err != nil {
		return nil, err
	}
	if by, err = t.group.stillHeld(ctx, seen); by != nil || err != nil {
		return by, err
	}
	return t.enqueueIfFree(ctx)
}

// settle waits until the tickets that this Session has released are gone from etcd: they would make the name look
// busy. Where others of its tickets are queued, the name is busy anyway.
func (g *group) settle(ctx context.Context) error {
	q := g.q
	for first := true; ; first = false {
		q.mu.Lock()
		g.dropDeletedLocked()
		if n := len(g.toDelete); n == 0 || int(g.refs) > n+1 {
			q.mu.Unlock()
			return nil
		}
		t, last := g.toDelete[len(g.toDelete)-1], g.lastErr
		changed, refused := t.changedLocked(), t.deletions.refused != nil
		if first && g.flushDueLocked(true) {
			g.flushLocked() // the flush under way is somebody else's, and may hang
		}
		q.mu.Unlock()
		if refused {
			return nil //nolint:nilerr // no use waiting; etcd will say what it thinks of this client
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return q.c.Over(ctx, last)
		}
	}
}

// stillHeld asks for the holder that an earlier try found: while it exists it holds, since nobody can come before it.
// It is a read alone. The Txn of enqueueIfFree goes through the log of every member, whether it puts or not, and its
// compare on whole ranges reads all of them.
func (g *group) stillHeld(ctx context.Context, seen *Seen) (*Contender, error) {
	if seen.key == "" {
		return nil, nil //nolint:nilnil // not known to be locked
	}
	var resp *clientv3.GetResponse
	err := g.q.c.Once(ctx, func(ctx context.Context) (err error) {
		resp, err = g.q.c.Get(ctx, seen.key)
		return err
	})
	if err != nil {
		return nil, err
	}
	kv := generationOf(resp.Kvs, seen.key, seen.rev)
	if kv == nil {
		*seen = Seen{}
		return nil, nil //nolint:nilnil // as above
	}
	return contender(kv), nil
}

// enqueueIfFree puts the ticket only if its gates are empty: one request, which writes no key when they are not. It
// returns who is in the way when the ticket does not hold. Where names nest it is one look more, and after two rounds of
// which a key of such a name spoilt the second, the ticket queues (see enqueueToSee).
func (t *Ticket) enqueueIfFree(ctx context.Context) (*Contender, error) {
	c, gates := t.group.q.c, t.kind.Class.gates(t.group.prefix)
	put := clientv3.OpPut(t.key, t.value, clientv3.WithLease(t.lease.ID))
	orElse := []clientv3.Op{clientv3.OpGet(t.key)}
	for _, gate := range gates {
		orElse = append(orElse, clientv3.OpGet(gate.from, clientv3.WithRange(gate.to), clientv3.WithLimit(1),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)))
	}
	below := int64(1) // the create revision that nobody in a gate may have reached
	for range 2 {
		var free []clientv3.Cmp
		for _, gate := range gates {
			free = append(free, clientv3.Compare(clientv3.CreateRevision(gate.from).WithRange(gate.to), "<", below))
		}
		start := lease.Now()
		var resp *clientv3.TxnResponse
		err := c.Once(ctx, func(ctx context.Context) (err error) {
			resp, err = c.Txn(ctx).If(free...).Then(put).Else(orElse...).Commit()
			return err
		})
		if err != nil {
			return nil, t.leaseGone(err)
		}
		if lease.Now().Sub(start) > time.Second {
			t.late() // the etcd client may have sent it more than once
		}
		if resp.Succeeded {
			t.placed(resp.Header.Revision)
			return nil, nil //nolint:nilnil // neither locked by another nor failed: the ticket holds
		}
		by, nested := t.inTheWay(resp.Responses[1:])
		if mine := resp.Responses[0].GetResponseRange().Kvs; len(mine) > 0 { // it was sent twice
			if !t.found(mine[0]) || by != nil && by.Key != t.key {
				return nil, errRequeue
			}
			return nil, nil //nolint:nilnil // as above
		}
		if by != nil && !nested {
			return by, nil
		}
		// Names nest here. Look for a contender among all keys; if there is none, nobody may come after this look.
		by, rev, err := t.firstInTheWay(ctx)
		if err != nil || by != nil {
			return by, err
		}
		below = rev + 1
	}
	return t.enqueueToSee(ctx)
}

// inTheWay reads the first key of each gate: the earliest contender among them, and whether a key of a nested name may hide
// an earlier one.
func (t *Ticket) inTheWay(answers []*pb.ResponseOp) (by *Contender, nested bool) {
	for _, r := range answers {
		for _, kv := range r.GetResponseRange().Kvs {
			if !t.group.direct(string(kv.Key)) {
				nested = true
			} else if by == nil || kv.CreateRevision < by.Rev {
				by = contender(kv)
			}
		}
	}
	return by, nested
}

// firstInTheWay lists the queue, and returns the first contender that excludes the ticket and came before it, nil if there
// is none, and what that is as of. It may be the ticket itself.
func (t *Ticket) firstInTheWay(ctx context.Context) (*Contender, int64, error) {
	all, _, rev, err := t.group.List(ctx, t.group.q.c)
	if err != nil {
		return nil, 0, err
	}
	for _, c := range all {
		if class, _ := Classify(c.Key[len(t.group.prefix):]); class != t.kind.Class || class.limit > 0 || c.Key == t.key {
			return c, rev, nil
		}
	}
	return nil, rev, nil
}

// enqueueToSee is for a name below which keys come and go faster than they can be looked at: the ticket queues as that
// of a Lock does. When somebody turns out to be ahead, it returns who is in the way, and the ticket has to leave.
func (t *Ticket) enqueueToSee(ctx context.Context) (*Contender, error) {
	a, err := t.enqueue(ctx)
	if err != nil || a.none() {
		return nil, err
	}
	by, _, err := t.firstInTheWay(ctx)
	switch {
	case err != nil:
		return nil, err
	case by == nil: // somebody removed the ticket
		return nil, errRequeue
	case by.Key == t.key && by.Rev == t.rev:
		return nil, nil //nolint:nilnil // as in enqueueIfFree
	}
	return by, nil
}
