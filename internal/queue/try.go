package queue

import (
	"context"
	"errors"
	"slices"

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
	w := q.waitBegun(ctx, k, name, true)
	t, by, err = q.acquireIfFree(ctx, k, name, value, seen)
	q.waitEnded(ctx, w, t, by, err)
	return t, by, err
}

func (q *Tickets) acquireIfFree(
	ctx context.Context, k *Kind, name, value string, seen *Seen,
) (t *Ticket, by *Contender, err error) {
	for {
		l, err := q.usable(ctx)
		if err != nil {
			return nil, nil, err
		}
		t, takenUp := q.newTicket(l, k, name, value)
		if takenUp {
			return t, nil, nil
		}
		if err := q.over(); err != nil { // as in Acquire
			t.forget()
			return nil, nil, err
		}
		q.mu.Lock()
		by := t.group.ownHolderLocked(k.Class)
		q.mu.Unlock()
		if by != nil {
			t.forget()
			return nil, by, nil
		}
		by, err = t.try(ctx, seen)
		switch {
		case err == nil && by != nil:
			*seen = Seen{by.Key, by.Rev}
			t.warnOf(by.Key)
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
		if !errors.Is(err, errRequeue) && l.open.Err() == nil || ctx.Err() != nil {
			return nil, nil, q.why(ctx, err)
		}
	}
}

// try puts the ticket if nobody is in the way, and else returns who is.
func (t *Ticket) try(ctx context.Context, seen *Seen) (by *Contender, err error) {
	ctx, release := t.lease.bound(ctx)
	defer release()
	if err := t.group.settle(ctx, t.kind.Class); err != nil {
		return nil, err
	}
	if t.kind.Class.counted() {
		return t.tryCounted(ctx, seen)
	}
	if by, err = t.group.stillHeld(ctx, seen); by != nil || err != nil {
		return by, err
	}
	return t.enqueueIfFree(ctx, t.kind.Class.gates(t.group.prefix), 1, 1)
}

// tryCounted is for a permit. etcd cannot count, so we do: that there is room as of one revision is true for as long as
// nobody comes after it, and that a Txn can ask for. In an empty name that is one request, else two. Where the last try was
// in vain, the first of them is a list alone, which goes through no log.
func (t *Ticket) tryCounted(ctx context.Context, seen *Seen) (*Contender, error) {
	below := int64(1)
	if seen.key != "" {
		by, rev, err := t.firstInTheWay(ctx)
		if by != nil || err != nil {
			return by, err
		}
		*seen, below = Seen{}, rev+1
	}
	return t.enqueueIfFree(ctx, Exclusive.gates(t.group.prefix), below, 1+enough(t.kind.Class))
}

// settle waits until the tickets that this Session has released are gone from etcd: they would make the name look busy for
// one of class c. Where others of its tickets are queued, the name is busy anyway, unless they share their turn.
func (g *group) settle(ctx context.Context, c Class) error {
	q := g.q
	for first := true; ; first = false {
		q.mu.Lock()
		g.dropDeletedLocked()
		n := len(g.toDelete)
		for n > 0 && c.shares(g.toDelete[n-1].kind.Class) {
			n--
		}
		if n == 0 || c.alone() && int(g.refs) > len(g.toDelete)+1 {
			q.mu.Unlock()
			return nil
		}
		t, last := g.toDelete[n-1], g.lastErr
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

// rounds is how often a ticket is tried that was not in anybody's way when it was looked.
const rounds = 3

// enqueueIfFree puts the ticket only if nobody in the gates was created at the revision below or later: one request, which
// writes no key otherwise. It reads the first limit keys of each gate then, and returns who is in the way. Where that cannot
// be seen in them, because names nest, it is one look more. After some rounds, each spoilt by somebody who came after the
// look, the ticket queues (see enqueueToSee).
func (t *Ticket) enqueueIfFree(ctx context.Context, gates []keyRange, below, limit int64) (*Contender, error) {
	c := t.group.q.c
	put := clientv3.OpPut(t.key, t.value, clientv3.WithLease(t.lease.ID))
	orElse := []clientv3.Op{clientv3.OpGet(t.key)}
	for _, gate := range gates {
		orElse = append(orElse, clientv3.OpGet(gate.from, clientv3.WithRange(gate.to), clientv3.WithLimit(limit),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)))
	}
	for range rounds {
		var free []clientv3.Cmp
		for _, gate := range gates {
			free = append(free, clientv3.Compare(clientv3.CreateRevision(gate.from).WithRange(gate.to), "<", below))
		}
		if !t.kind.Class.alone() { // its gates leave out its own key, and what is sent twice must not put it twice
			free = append(free, clientv3.Compare(clientv3.CreateRevision(t.key), "=", 0))
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
		t.putAnswered(start, nil)
		if resp.Succeeded {
			t.placed(resp.Header.Revision)
			return nil, nil //nolint:nilnil // neither locked by another nor failed: the ticket holds
		}
		by, sure := t.inTheWay(resp.Responses[1:])
		if mine := resp.Responses[0].GetResponseRange().Kvs; len(mine) > 0 { // it was sent twice
			if !t.found(mine[0]) || !sure || by != nil && by.Key != t.key {
				return nil, errRequeue
			}
			return nil, nil //nolint:nilnil // as above
		}
		rev := resp.Header.Revision
		if !sure { // look among all keys
			if by, rev, err = t.firstInTheWay(ctx); err != nil {
				return nil, err
			}
		}
		if by != nil {
			return by, nil
		}
		below = rev + 1 // nobody was in the way then, and nobody may come after
	}
	return t.enqueueToSee(ctx)
}

// inTheWay reads the first keys of each gate: who excludes the ticket, and whether that can be told from them.
func (t *Ticket) inTheWay(answers []*pb.ResponseOp) (by *Contender, sure bool) {
	var all []*Contender
	more, hidden := false, false
	for _, r := range answers {
		kvs, nested := r.GetResponseRange().Kvs, false
		for _, kv := range kvs {
			if t.group.direct(string(kv.Key)) {
				all = append(all, contender(kv))
			} else {
				nested = true
			}
		}
		more = more || r.GetResponseRange().More
		hidden = hidden || nested && r.GetResponseRange().More
	}
	slices.SortFunc(all, func(a, b *Contender) int { return int(a.Rev - b.Rev) })
	by = t.excludedBy(all)
	return by, !hidden && (by != nil || !more)
}

// excludedBy is who of these, in the order of the queue, excludes the ticket, nil if nobody does. If the ticket itself is the
// answer, nobody before it does.
func (t *Ticket) excludedBy(all []*Contender) *Contender {
	room := t.kind.Class.limit - t.kind.Weight
	for _, c := range all {
		class, weight := Classify(c.Key[len(t.group.prefix):])
		switch {
		case c.Key == t.key, class != t.kind.Class:
			return c
		case class.limit == 0:
		case weight > room:
			return all[0] // one of those that leave no room
		default:
			room -= weight
		}
	}
	return nil
}

// firstInTheWay lists the queue, and returns the first contender that excludes the ticket and came before it, nil if there
// is none, and what that is as of. It may be the ticket itself.
func (t *Ticket) firstInTheWay(ctx context.Context) (*Contender, int64, error) {
	all, _, rev, err := t.group.List(ctx, t.group.q.c)
	if err != nil {
		return nil, 0, err
	}
	return t.excludedBy(all), rev, nil
}

// enqueueToSee is for a name below which keys come and go faster than they can be looked at: the ticket queues as that
// of a Lock does. When somebody turns out to be ahead, it returns who is in the way, and the ticket has to leave.
func (t *Ticket) enqueueToSee(ctx context.Context) (*Contender, error) {
	a, err := t.enqueue(ctx)
	if err != nil || t.holdsBehind(a) {
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
